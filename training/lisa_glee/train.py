"""Training LISA-GLEE on published corpora, by a recipe.

accelerate launch --config_file training/accelerate/fsdp2.yaml \
  -m lookhear.training.lisa_glee.train RECIPE.yaml [section.field=value ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from transformers import TrainingArguments, set_seed

import lookhear  # noqa: F401  (registers the Auto classes)
from lookhear.training.glee.corpora.reading import Problems
from lookhear.training.lisa_glee.building import build
from lookhear.training.lisa_glee.conversation_collator import ConversationCollator
from lookhear.training.lisa_glee.corpora.opening import CORPUS_GROUPS, open_corpus
from lookhear.training.lisa_glee.dry_run import describe
from lookhear.training.lisa_glee.mixture import ConversationMixture, Source, ratios
from lookhear.training.lisa_glee.recipe import ConversationDataRecipe, LisaRecipe
from lookhear.training.lisa_glee.trainer import ConversationTrainer
from lookhear.training.recipe_reading import Positive, convert, read_recipe
from lookhear.training.running import resume_point, training_arguments


def train(recipe: LisaRecipe) -> ConversationTrainer:
    """
    Trains by a recipe, resuming from the last checkpoint in its `output_dir`, where the result is saved.

    Args:
        recipe: what is trained, on what and for how long.

    Raises:
        ValueError: the recipe names corpora, layers or arguments that do not exist, or has no `max_steps`.
    """
    arguments = _arguments(recipe)
    set_seed(arguments.seed)
    problems = Problems(skip=recipe.data.skip_bad)
    sources = open_sources(recipe.data, problems)
    model, processor = build(recipe.model)
    per_step = arguments.gradient_accumulation_steps * arguments.world_size * arguments.per_device_train_batch_size
    trainer = ConversationTrainer(
        model=model,
        args=arguments,
        data_collator=ConversationCollator(processor, recipe.data.longest),
        train_dataset=ConversationMixture(
            sources,
            recipe.data.shares,
            arguments.max_steps * per_step,
            arguments.seed,
            recipe.data.conversations,
            problems,
        ),
        processing_class=processor,
        lora=recipe.model.lora,
    )
    trainer.train(resume_from_checkpoint=resume_point(trainer, recipe))
    trainer.save_result()
    trainer.save_state()
    return trainer


def open_sources(recipe: ConversationDataRecipe, problems: Problems | None = None) -> list[Source]:
    """
    Opens a recipe's corpora.

    Args:
        recipe: of the data.
        problems: where annotations that cannot be used are reported.

    Raises:
        ValueError: there are none, or one cannot be opened.
    """
    if not recipe.sources:
        raise ValueError("data.sources is empty: name corpora with their reader and root")
    sources = []
    for number, given in enumerate(recipe.sources):
        fields: dict[str, Any] = dict(given)
        missing = {"reader", "root"} - fields.keys()
        if missing:
            raise ValueError(f"data.sources[{number}] has no {' and no '.join(sorted(missing))}")
        group = str(fields.pop("group", CORPUS_GROUPS.get(fields["reader"], "semantic")))
        weight = float(convert(fields.pop("weight", 1.0), Positive, f"data.sources[{number}].weight"))
        sources.append(Source(open_corpus(**fields, problems=problems), group, weight))
    ratios(sources, recipe.shares)  # raises for a group without share
    return sources


def _arguments(recipe: LisaRecipe) -> TrainingArguments:
    arguments = training_arguments(recipe.training)
    if arguments.max_steps <= 0:
        raise ValueError("training.max_steps must be given: a mixture is endless")
    if recipe.model.dtype == "bfloat16" and not arguments.bf16:
        raise ValueError("model.dtype bfloat16 needs training.bf16: true, as other weights are in float32")
    return arguments


def main(recipe: str | Path, overrides: list[str] | tuple[str, ...] = (), dry_run: bool = False) -> None:
    """
    Trains as a recipe says, or prints what that takes.

    Args:
        recipe: its YAML file.
        overrides: `section.field=value` strings.
        dry_run: whether to print the model's shapes, its trained weights and the memory, without data or weights.

    Raises:
        ValueError: the recipe cannot be run.
    """
    given = read_recipe(recipe, overrides, LisaRecipe, Path(__file__).parents[1])
    if dry_run:
        print(describe(given))
    else:
        train(given)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

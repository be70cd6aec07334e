"""Training of GLEE on a mixture of corpora, by a recipe.

accelerate launch --config_file training/accelerate/multi_gpu.yaml \
  -m lookhear.training.glee.mixture.train_corpora RECIPE.yaml [section.field=value ...]
"""

import logging
import sys
from dataclasses import replace
from pathlib import Path

from transformers import AutoProcessor, set_seed

import lookhear  # noqa: F401  (registers the Auto classes)
from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection
from lookhear.modeling.glee.configuration_glee import check_denoising_table
from lookhear.processing.glee import GleeProcessor
from lookhear.training.glee.corpora.reading import Problems
from lookhear.training.glee.initialise import load_for_training, new_model, new_processor
from lookhear.training.glee.mixture.collating import QueryCollator
from lookhear.training.glee.mixture.corpus_recipe import CorporaRecipe, CorpusTrainingRecipe, StartRecipe
from lookhear.training.glee.mixture.mixture import CorpusBatches, Source
from lookhear.training.glee.mixture.row_order import RowStream
from lookhear.training.glee.mixture.sources import open_source
from lookhear.training.glee.trainer import GleeTrainer
from lookhear.training.recipe_reading import read_recipe
from lookhear.training.running import run_to_end, training_arguments, with_validation

logger = logging.getLogger(__name__)


def train(recipe: CorpusTrainingRecipe) -> GleeTrainer:
    """
    Trains by a recipe, resuming from the last checkpoint in its `output_dir`; the result is in `output_dir`.

    Raises:
        ValueError: the recipe names corpora, modules or arguments that do not exist, or has no `max_steps`.
    """
    measured = recipe.validation.protocol is not None
    arguments = training_arguments({"per_device_train_batch_size": 1, **with_validation(recipe.training, measured)})
    if arguments.max_steps <= 0:
        raise ValueError("training.max_steps must be given: a mixture is endless")
    measure = None
    if measured:
        from lookhear.training.glee.validation import Validation  # which needs the extra `eval`

        measure = Validation(recipe.validation)
    check_denoising(recipe)
    set_seed(arguments.seed)
    problems = Problems(skip=recipe.data.skip_bad)
    sources = open_sources(recipe.data, arguments.seed, problems)
    model, processor = build(recipe.model)
    batches = arguments.max_steps * arguments.gradient_accumulation_steps * arguments.world_size
    trainer = GleeTrainer(
        model=model,
        args=arguments,
        data_collator=QueryCollator(processor),
        train_dataset=CorpusBatches(sources, batches, arguments.seed, problems),
        processing_class=processor,
        optimiser=recipe.optimiser,
        measure=measure,
    )
    return run_to_end(trainer, recipe)


def check_denoising(recipe: CorpusTrainingRecipe) -> None:
    """Raises ValueError for a source whose denoising table the model will not have; the known ones are named."""
    given = [{**recipe.data.common, **source}.get("supervision") or {} for source in recipe.data.sources]
    names = [supervision.get("denoising_table") for supervision in given]
    wanted = [(number, name) for number, name in enumerate(names) if name is not None]
    if not wanted:
        return
    tables = recipe.model.config.get("denoising_tables")
    if "denoising_tables" not in recipe.model.config and recipe.model.checkpoint is not None:
        tables = GleeConfig.from_pretrained(recipe.model.checkpoint).denoising_tables
    for number, name in wanted:
        try:
            check_denoising_table(name, tables)
        except ValueError as error:
            raise ValueError(f"data.sources[{number}]: {error}".replace(" config.", " model.config.")) from None


def open_sources(recipe: CorporaRecipe, seed: int, problems: Problems | None = None) -> list[Source]:
    """
    Opens the recipe's corpora, each cut to its fraction. Raises ValueError: there are none, or one cannot be opened.
    """
    if not recipe.sources:
        raise ValueError("data.sources is empty: name corpora with their reader and root")
    if not 0 < recipe.fraction <= 1:
        raise ValueError(f"data.fraction must be a share above 0, 1 at most, not {recipe.fraction}")
    opened, problems = [], problems or Problems()
    for number, given in enumerate(recipe.sources):
        missing = {"reader", "root"} - given.keys()
        if missing:
            raise ValueError(f"data.sources[{number}] has no {' and no '.join(sorted(missing))}")
        before = problems.count
        source = open_source(**{"seed": seed, "problems": problems, **recipe.common, **given})
        if skipped := problems.count - before:
            logger.warning(
                "data.sources[%d], %s %s: pictures that are used: %d; annotations and pictures that cannot be: %d",
                *(number, given["reader"], given["root"], len(source.rows), skipped),
            )
        opened.append(cut(source, recipe.fraction, seed))
    return opened


def cut(source: Source, fraction: float, seed: int) -> Source:
    """
    Takes a random share of a corpus, of shards the first ones: with one seed, a larger share contains the smaller.
    """
    if fraction == 1:
        return source
    if isinstance(source.rows, RowStream):
        rows = source.rows
        shards = rows.shards[: max(1, round(fraction * len(rows.shards)))]
        return replace(source, rows=RowStream(shards, rows.read, rows.seed, rows.buffer))
    order = source.rows.shuffle(seed=seed)
    return replace(source, rows=order.select(range(max(1, round(fraction * len(order))))).flatten_indices())


def build(recipe: StartRecipe) -> tuple[GleeForObjectDetection, GleeProcessor]:
    """Returns the recipe's model and processor. Raises ValueError: no such module to freeze, or no such size."""
    if recipe.checkpoint is not None:
        model = load_for_training(recipe.checkpoint, **recipe.config)
        processor = AutoProcessor.from_pretrained(recipe.checkpoint)
    else:
        model = new_model(recipe.size, recipe.config, recipe.backbone, recipe.text)
        processor = new_processor(recipe.size, recipe.text)
    modules = dict(model.named_modules())
    for name in recipe.freeze:
        if name not in modules:
            raise ValueError(f"model.freeze: there is no module {name!r}")
        modules[name].requires_grad_(False)
    return model, processor


def main(recipe: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> None:
    """Trains by a recipe. Raises ValueError for a recipe that cannot be run."""
    train(read_recipe(recipe, overrides, CorpusTrainingRecipe, Path(__file__).parents[1]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

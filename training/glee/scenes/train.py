"""Training of GLEE on generated scenes, by a recipe.

python -m lookhear.training.glee.scenes.train RECIPE.yaml [section.field=value ...]
accelerate launch --config_file training/accelerate/two_cpu.yaml -m lookhear.training.glee.scenes.train RECIPE.yaml
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoProcessor, set_seed

import lookhear  # noqa: F401  (registers the Auto classes)
from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection
from lookhear.processing.glee import GleeImageProcessor, GleeProcessor
from lookhear.training.glee.scenes.examples import SceneBatches, SceneCollator
from lookhear.training.glee.scenes.expressions import all_expressions
from lookhear.training.glee.scenes.recipe import FixedScenesRecipe, GleeModelRecipe, GleeRecipe
from lookhear.training.glee.scenes.scenes import SceneMaterial
from lookhear.training.glee.scenes.vocabulary import learn_tokenizer
from lookhear.training.glee.trainer import GleeTrainer
from lookhear.training.recipe_reading import read_recipe
from lookhear.training.running import run_to_end, training_arguments, with_validation

VOCABULARY_SCENES, VOCABULARY_SEED = 128, 999_999_937


def train(recipe: GleeRecipe) -> GleeTrainer:
    """
    Trains by a recipe, resuming from the last checkpoint in its `output_dir`; the result is in `output_dir`.

    Raises:
        ValueError: the recipe names training arguments that do not exist, or has no `max_steps`.
    """
    measured = recipe.validation.scenes > 0 or recipe.validation.people
    arguments = training_arguments({"per_device_train_batch_size": 1, **with_validation(recipe.training, measured)})
    if arguments.max_steps <= 0:
        raise ValueError("training.max_steps must be given: generated scenes are endless")
    set_seed(arguments.seed)
    material = recipe.data.scene_material()
    processor = build_processor(recipe, material)
    measure = None
    if measured:
        from lookhear.training.glee.scenes.validation import SceneValidation  # which needs the extra `eval`

        measure = SceneValidation(recipe, material)
    batches = arguments.max_steps * arguments.gradient_accumulation_steps * arguments.world_size
    trainer = GleeTrainer(
        model=build_model(recipe.model, processor),
        args=arguments,
        data_collator=SceneCollator(processor),
        train_dataset=SceneBatches(recipe.data, batches, arguments.seed, material),
        processing_class=processor,
        measure=measure,
    )
    return run_to_end(trainer, recipe)


def build_processor(recipe: GleeRecipe, material: SceneMaterial | None = None) -> GleeProcessor:
    """Returns the checkpoint's processor, or a new one whose tokenizer is trained on the sentences of some scenes."""
    if recipe.model.checkpoint is not None:
        return AutoProcessor.from_pretrained(recipe.model.checkpoint)
    fresh = replace(recipe.data, fixed=FixedScenesRecipe())  # the vocabulary is the same for every share of a set
    batches = SceneBatches(fresh, VOCABULARY_SCENES, VOCABULARY_SEED, material)
    scenes = [scene for index in range(VOCABULARY_SCENES) for scene in batches[index].scenes[:1]]
    texts = ["object"] + [expression.text for scene in scenes for expression in all_expressions(scene)]
    tokenizer = learn_tokenizer(texts, recipe.model.merges, recipe.model.max_length)
    return GleeProcessor(GleeImageProcessor(**recipe.model.image_processor), tokenizer)


def build_model(recipe: GleeModelRecipe, processor: GleeProcessor) -> GleeForObjectDetection:
    """Returns the checkpoint's model, or a new one with the tokenizer's vocabulary."""
    if recipe.checkpoint is not None:
        model = GleeForObjectDetection.from_pretrained(recipe.checkpoint, **recipe.config)
    else:
        model = _new_model(recipe, processor)
    # Channels last makes convolutions in bfloat16 faster.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # transformers' wrapper has no signature


def _new_model(recipe: GleeModelRecipe, processor: GleeProcessor) -> GleeForObjectDetection:
    fields = recipe.config
    tokenizer = processor.tokenizer
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": recipe.max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = GleeConfig(**{**fields, "text_config": {**text, **fields.get("text_config", {})}})
    model = GleeForObjectDetection(config)
    with torch.no_grad():
        for weight in model.get_input_embeddings().parameters():
            weight.mul_(recipe.token_scale)
    return model


def main(recipe: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> None:
    """Trains by a recipe. Raises ValueError for a recipe that cannot be run."""
    train(read_recipe(recipe, overrides, GleeRecipe, Path(__file__).parents[1]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

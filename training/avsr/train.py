"""Training from a recipe: `lookhear train RECIPE.yaml [section.field=value ...]`, also under `accelerate launch`.

lookhear train training/avsr/recipes/grid_tiny.yaml training.output_dir=runs/grid
accelerate launch --config_file training/accelerate/two_cpu.yaml -m lookhear.training.avsr.train RECIPE.yaml
"""

import json
import logging
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, set_seed

import lookhear  # noqa: F401  (registers the Auto classes)
from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.processing.avsr import AvsrFeatureExtractor, AvsrProcessor, AvsrTokenizer, MouthRoiImageProcessor
from lookhear.training.avsr.examples import ClipCollator, EvaluationClips, TrainingClips
from lookhear.training.avsr.initialise import initialise_modules, select_modules, with_front_ends
from lookhear.training.avsr.prepare import check_geometry, corpus_statistics, load_prepared
from lookhear.training.avsr.recipe import DataRecipe, ModelRecipe, Recipe, load_recipe
from lookhear.training.avsr.search import save_search, search_settings
from lookhear.training.avsr.trainer import AvsrTrainer, ErrorRates, views_of
from lookhear.training.running import run_to_end, training_arguments

logger = logging.getLogger(__name__)


def train(recipe: Recipe) -> AvsrTrainer:
    """
    Trains by a recipe, resuming from the last checkpoint in its `output_dir`; the result is in `output_dir`.

    Raises:
        ValueError: the recipe names data, modules or training arguments that do not exist.
    """
    arguments = training_arguments(recipe.training)
    set_seed(arguments.seed)
    rows = load_rows(recipe.data.train, recipe.data, training=True)
    validation = load_rows(recipe.data.validation, recipe.data) if recipe.data.validation else None
    processor = build_processor(recipe.model, recipe.data.train)
    check_geometry([*recipe.data.train, *recipe.data.validation], processor.image_processor)
    model = build_model(recipe.model)
    check_crop_size(model.config, processor)
    save_search(model, recipe.evaluation)
    crop_size = processor.image_processor.crop_size
    trainer = AvsrTrainer(
        model=model,
        args=arguments,
        data_collator=ClipCollator(
            processor,
            steps_per_second=25 * model.config.ctc_upsampling if model.config.alignment_loss_weight else None,
        ),
        train_dataset=TrainingClips(rows, recipe.augmentation, recipe.data, crop_size, arguments.seed),
        eval_dataset=None if validation is None else EvaluationClips(validation),
        compute_metrics=ErrorRates(processor.tokenizer, views_of(model.config.modality)),
        processing_class=processor,
        frozen=select_modules(model, recipe.model.freeze),
        search=search_settings(model.config, recipe.evaluation),
    )
    return run_to_end(trainer, recipe)


def load_rows(folders: list[str], recipe: DataRecipe, training: bool = False) -> Dataset:
    """
    Loads the clips of prepared folders, without those that the recipe leaves out, whose number is logged.

    Args:
        folders: made by `lookhear prepare`.
        recipe: of the data.
        training: whether the clips are trained on: those that are longer than `max_frames` and whose words have no
            times cannot be cut and are left out.

    Raises:
        ValueError: no folders are named, they cannot be loaded, or no clip remains.
    """
    if not folders:
        raise ValueError("data.train is empty; name folders that `lookhear prepare` made")
    rows = load_prepared(folders)
    if recipe.min_frames_with_face:

        def seen(report: str) -> bool:
            return (json.loads(report).get("frames_with_face") or 0.0) >= recipe.min_frames_with_face

        rows = _filtered(rows, seen, ["report"], folders, "a face in too few frames (data.min_frames_with_face)")
    if training:

        def fits(duration: float, words: list | None) -> bool:
            # a thousandth of a frame is less than a sample of sound and more than the duration's rounding
            return bool(words) or math.ceil(25 * duration - 1e-3) <= recipe.max_frames

        reason = f"more than data.max_frames ({recipe.max_frames}) frames, and no word times to cut the text by"
        rows = _filtered(rows, fits, ["duration", "words"], folders, reason)
    return rows


def _filtered(rows: Dataset, keep: Callable[..., bool], columns: list[str], folders: list[str], why: str) -> Dataset:
    """Returns the rows that pass, and logs how many do not and why; a ValueError if none does."""
    left = rows.filter(keep, input_columns=columns)
    if not len(left):
        raise ValueError(f"{', '.join(folders)}: no clip is left: all {len(rows)} have {why}; change that setting")
    if len(left) == len(rows):
        return rows
    if os.environ.get("RANK", "0") == "0":  # one process of a run says it
        logger.warning(
            "%s: %d of %d clips are left out: %s", ", ".join(folders), len(rows) - len(left), len(rows), why
        )
    return left


def check_crop_size(config: AvsrConfig, processor: AvsrProcessor) -> None:
    """Raises a ValueError if the model reads lips, and pictures of another size than the processor makes."""
    made, read = processor.image_processor.crop_size, config.visual.crop_size
    if config.modality != "audio" and made != read:
        raise ValueError(
            f"model.config.visual_config.crop_size is {read}, and the processor's crop_size {made}: make them the same"
        )


def build_processor(recipe: ModelRecipe, train: list[str] | tuple[str, ...] = ()) -> AvsrProcessor:
    """
    Returns the recipe's processor: of its checkpoint, of another folder, or a new one.

    Args:
        recipe: of the model.
        train: folders to train on, for `corpus_statistics`.
    """
    source = recipe.processor or recipe.checkpoint
    if source is not None:
        return AutoProcessor.from_pretrained(source)
    images = dict(recipe.image_processor)
    if recipe.corpus_statistics:
        images["image_mean"], images["image_std"] = corpus_statistics(train)
    return AvsrProcessor(
        feature_extractor=AvsrFeatureExtractor(),
        image_processor=MouthRoiImageProcessor(**images),
        tokenizer=AvsrTokenizer(**recipe.tokenizer),
    )


def build_model(recipe: ModelRecipe) -> AvsrForConditionalGeneration:
    """
    Returns the recipe's model, with the modules that it copies from other checkpoints; a new model has front-ends as
    they are there, unless the recipe's configuration says how they are.
    """
    if recipe.checkpoint is not None:
        model = AvsrForConditionalGeneration.from_pretrained(recipe.checkpoint, **recipe.config)
    else:
        fields = with_front_ends(dict(recipe.config), recipe.initialise)
        attention = fields.pop("attn_implementation", None)
        model = AutoModelForSpeechSeq2Seq.from_config(AvsrConfig(**fields), attn_implementation=attention)
    initialise_modules(model, recipe.initialise)
    return model


def main(recipe: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> None:
    """Trains by a recipe, as `lookhear train` does. Raises ValueError for a recipe that cannot be run."""
    loaded = load_recipe(recipe, overrides)
    if loaded.model.task == "words":
        from lookhear.training.avsr.train_words import train_words

        train_words(loaded)
    else:
        train(loaded)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

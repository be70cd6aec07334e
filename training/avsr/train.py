"""Training from a recipe: `lookhear train RECIPE.yaml [section.field=value ...]`, also under `accelerate launch`.

lookhear train training/avsr/recipes/grid_tiny.yaml training.output_dir=runs/grid
accelerate launch --config_file training/accelerate/two_cpu.yaml -m lookhear.training.avsr.train RECIPE.yaml
"""

import sys
from pathlib import Path

from datasets import Dataset
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, set_seed

import lookhear  # noqa: F401  (registers the Auto classes)
from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.processing.avsr import AvsrFeatureExtractor, AvsrProcessor, AvsrTokenizer, MouthRoiImageProcessor
from lookhear.training.avsr.examples import ClipCollator, EvaluationClips, TrainingClips
from lookhear.training.avsr.initialise import initialise_modules, select_modules
from lookhear.training.avsr.prepare import load_prepared
from lookhear.training.avsr.recipe import DataRecipe, ModelRecipe, Recipe, load_recipe
from lookhear.training.avsr.search import save_search, search_settings
from lookhear.training.avsr.trainer import AvsrTrainer, ErrorRates, views_of
from lookhear.training.running import run_to_end, training_arguments


def train(recipe: Recipe) -> AvsrTrainer:
    """
    Trains by a recipe, resuming from the last checkpoint in its `output_dir`; the result is in `output_dir`.

    Raises:
        ValueError: the recipe names data, modules or training arguments that do not exist.
    """
    arguments = training_arguments(recipe.training)
    set_seed(arguments.seed)
    processor = build_processor(recipe.model)
    model = build_model(recipe.model)
    save_search(model, recipe.evaluation)
    crop_size = processor.image_processor.crop_size
    rows = load_rows(recipe.data.train, recipe.data)
    validation = load_rows(recipe.data.validation, recipe.data) if recipe.data.validation else None
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


def load_rows(folders: list[str], recipe: DataRecipe) -> Dataset:
    """Loads the clips of prepared folders, without those that the recipe leaves out."""
    if not folders:
        raise ValueError("data.train is empty; name folders that `lookhear prepare` made")
    rows = load_prepared(folders)
    if recipe.min_frames_with_face:
        import json

        def seen(report: str) -> bool:
            return (json.loads(report).get("frames_with_face") or 0.0) >= recipe.min_frames_with_face

        rows = rows.filter(seen, input_columns=["report"])
    return rows


def build_processor(recipe: ModelRecipe) -> AvsrProcessor:
    """Returns the recipe's processor: of its checkpoint, of another folder, or a new one."""
    source = recipe.processor or recipe.checkpoint
    if source is not None:
        return AutoProcessor.from_pretrained(source)
    return AvsrProcessor(
        feature_extractor=AvsrFeatureExtractor(),
        image_processor=MouthRoiImageProcessor(**recipe.image_processor),
        tokenizer=AvsrTokenizer(**recipe.tokenizer),
    )


def build_model(recipe: ModelRecipe) -> AvsrForConditionalGeneration:
    """Returns the recipe's model, with the modules that it copies from other checkpoints."""
    if recipe.checkpoint is not None:
        model = AvsrForConditionalGeneration.from_pretrained(recipe.checkpoint, **recipe.config)
    else:
        fields = dict(recipe.config)
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

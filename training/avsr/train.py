"""Training from a recipe: `lookhear train RECIPE.yaml [section.field=value ...]`, also under `accelerate launch`.

lookhear train training/avsr/recipes/grid_tiny.yaml training.output_dir=runs/grid
accelerate launch --config_file training/accelerate/two_cpu.yaml -m lookhear.training.avsr.train RECIPE.yaml
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, TrainingArguments, set_seed

import lookhear  # noqa: F401  (registers the Auto classes)
from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.processing.avsr import AvsrFeatureExtractor, AvsrProcessor, AvsrTokenizer, MouthRoiImageProcessor
from lookhear.training.avsr.augmentation import first_words
from lookhear.training.avsr.examples import ClipCollator, EvaluationClips, TrainingClips
from lookhear.training.avsr.feature_writing import FeatureWriter
from lookhear.training.avsr.features import FeatureClips, FeatureCollator
from lookhear.training.avsr.forced_alignment import FOUND_WORDS, add_word_times, frames_of, read_words
from lookhear.training.avsr.initialise import initialise_modules, select_modules, sound_extractor, with_front_ends
from lookhear.training.avsr.prepare import check_geometry, corpus_statistics, load_prepared, prepared_landmarks
from lookhear.training.avsr.recipe import DataRecipe, ModelRecipe, Recipe, load_recipe
from lookhear.training.avsr.search import save_search, search_settings
from lookhear.training.avsr.trainer import AvsrTrainer, ErrorRates, views_of
from lookhear.training.avsr.word_times import with_word_times
from lookhear.training.running import run_to_end, training_arguments
from lookhear.training.sharded import loading_everywhere

logger = logging.getLogger(__name__)


@dataclass
class TrainingParts:
    """
    What a training is put together from.

    Attributes:
        arguments: of the trainer.
        model: to train.
        processor: makes the model's inputs.
        train: clips to train on.
        validation: clips to evaluate on, by names if each set is measured by itself, or None.
    """

    arguments: TrainingArguments
    model: AvsrForConditionalGeneration
    processor: AvsrProcessor
    train: TrainingClips
    validation: EvaluationClips | dict[str, EvaluationClips] | None

    @property
    def steps_per_second(self) -> int | None:
        """Returns the CTC steps in a second if the alignment loss is used."""
        return 25 * self.model.config.ctc_upsampling if self.model.config.alignment_loss_weight else None

    @property
    def alignment_margin(self) -> int | None:
        """Returns the steps around the windows of the alignment loss; None if it compares step by step."""
        config = self.model.config
        return config.alignment_margin if config.alignment_loss == "windows" else None

    @property
    def views(self) -> tuple[str, ...]:
        """Returns the views of each clip that are trained on at the same time, in the order of the loss."""
        return tuple(self.model.config.modality_loss_weights or ())


def train(recipe: Recipe) -> AvsrTrainer:
    """
    Trains by a recipe, resuming from the last checkpoint in its `output_dir`; the result is in `output_dir`.

    Raises:
        ValueError: the recipe names data, modules or training arguments that do not exist.
    """
    parts = build_parts(recipe)
    clips: TrainingClips | FeatureClips = parts.train
    validation: EvaluationClips | dict[str, EvaluationClips] | FeatureClips | None = parts.validation
    steps_per_second, margin = parts.steps_per_second, parts.alignment_margin
    collator: ClipCollator | FeatureCollator = ClipCollator(
        parts.processor, steps_per_second=steps_per_second, margin=margin, views=parts.views
    )
    if recipe.data.cache_features is not None:
        writer = FeatureWriter(parts.model, parts.processor, recipe, parts.arguments)
        clips = writer.store("train", parts.train)
        if isinstance(parts.validation, EvaluationClips):  # a recipe that stores features has one set
            validation = writer.store("validation", parts.validation)
        collator = FeatureCollator(parts.processor, steps_per_second, margin)
    trainer = AvsrTrainer(
        model=parts.model,
        args=parts.arguments,
        data_collator=collator,
        train_dataset=clips,
        eval_dataset=validation,
        compute_metrics=ErrorRates(parts.processor.tokenizer, views_of(parts.model.config.modality)),
        processing_class=parts.processor,
        frozen=select_modules(parts.model, recipe.model.freeze),
        search=search_settings(parts.model.config, recipe.evaluation),
    )
    return run_to_end(trainer, recipe)


def build_parts(recipe: Recipe) -> TrainingParts:
    """
    Loads and checks what a recipe names.

    Raises:
        ValueError: the recipe names data, modules or training arguments that do not exist.
    """
    arguments = training_arguments(recipe.training)
    set_seed(arguments.seed)
    rows = load_rows(recipe.data.train, recipe.data, training=True, output=arguments.output_dir)
    rows, held = hold_speakers(rows, recipe.data.held_speakers)
    processor = build_processor(recipe.model, recipe.data.train)
    check_geometry([*recipe.data.train, *recipe.data.validation], processor.image_processor)
    model = build_model(recipe.model)
    check_crop_size(model.config, processor)
    if recipe.model.processor is None and recipe.model.checkpoint is None:
        processor.feature_extractor = sound_extractor(model.config.audio)
    save_search(model, recipe.evaluation)
    seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
    crop_size = processor.image_processor.crop_size
    if recipe.non_speech.used and not model.config.modality_loss_weights:
        raise ValueError("non_speech needs model.config.modality_loss_weights: {audio: 1, visual: 1, audiovisual: 1}")
    clips = TrainingClips(rows, recipe.augmentation, recipe.data, crop_size, seed, recipe.non_speech)
    return TrainingParts(arguments, model, processor, clips, load_validation(recipe, held))


def load_validation(recipe: Recipe, held: Dataset | None) -> EvaluationClips | dict[str, EvaluationClips] | None:
    """
    Loads the clips to evaluate on.

    Args:
        recipe: of the training.
        held: clips of speakers who are not trained on, or None.

    Returns:
        One set, or with `evaluation.by_folder` a set for each folder, and `held_speakers`; None without any.
    """
    folders = recipe.data.validation
    if not recipe.evaluation.by_folder:
        return EvaluationClips(load_rows(folders, recipe.data)) if folders else None
    sets = {Path(folder).name: EvaluationClips(load_rows([folder], recipe.data)) for folder in folders}
    if len(sets) < len(folders):
        raise ValueError(f"data.validation has folders of the same name: {', '.join(folders)}; rename one")
    return sets if held is None else {**sets, "held_speakers": EvaluationClips(held)}


def hold_speakers(rows: Dataset, speakers: list[str]) -> tuple[Dataset, Dataset | None]:
    """
    Separates the clips of some speakers from those that are trained on.

    Args:
        rows: to train on.
        speakers: who are held out; clips of several folders and other faces are found by the last part of their name,
            too: `astronaut af_sky` is held with `af_sky`.

    Returns:
        The clips of all others, and those without pictures of these speakers, each once; None without speakers.

    Raises:
        ValueError: a speaker has no clip, or nobody else has.
    """
    if not speakers:
        return rows, None
    names = [str(name or "") for name in rows["speaker"]]
    wanted = set(speakers)
    held = [bool(wanted & {name, *name.split()[-1:]}) for name in names]
    if missing := wanted - set(names):
        raise ValueError(
            f"data.held_speakers: no clip of data.train is of {', '.join(sorted(missing))}; leave them out"
        )
    if all(held):
        raise ValueError("data.held_speakers are all speakers of data.train: nothing is left to train on")
    ids = rows["id"]
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in wanted:
            first.setdefault(f"{name} {ids[index]}", index)  # a folder may be listed twice
    return rows.select([i for i, out in enumerate(held) if not out]), rows.select(list(first.values()))


def load_rows(
    folders: list[str], recipe: DataRecipe, training: bool = False, output: str | Path | None = None
) -> Dataset:
    """
    Loads the clips of prepared folders, without those that the recipe leaves out, whose number is logged.

    Args:
        folders: made by `lookhear prepare`.
        recipe: of the data.
        training: whether the clips are trained on: those that are longer than `max_frames` and cannot be cut are left
            out.
        output: of the training, for the word times that `aligner` finds where there is no `cache_features`.

    Raises:
        ValueError: no folders are named, they cannot be loaded, or no clip remains.
    """
    if not folders:
        raise ValueError("data.train is empty; name folders that `lookhear prepare` made")
    rows = with_word_times(load_prepared(folders), recipe.word_times if training else ())
    if training and recipe.cut_long_clips == "alignment":
        rows = add_word_times(rows, folders, recipe, Path(recipe.cache_features or output or "."))
    if recipe.min_frames_with_face:

        def seen(report: str) -> bool:
            facts = json.loads(report)
            without_pictures = facts.get("frames") == 0
            return without_pictures or (facts.get("frames_with_face") or 0.0) >= recipe.min_frames_with_face

        rows = _filtered(rows, seen, ["report"], folders, "a face in too few frames (data.min_frames_with_face)")
    return _without_uncuttable(rows, folders, recipe) if training else rows


def _without_uncuttable(rows: Dataset, folders: list[str], recipe: DataRecipe) -> Dataset:
    """Returns the rows without clips that are too long and cannot be cut; logs how many, and how many are cut."""
    most = recipe.max_frames
    columns = ["duration", "words", *([FOUND_WORDS] if FOUND_WORDS in rows.column_names else [])]

    def has_times(duration: float, words: list | None, found: str = "") -> bool:
        return bool(words or found) or frames_of(duration) <= most

    def has_room(duration: float, words: list | None, found: str = "") -> bool:
        known = [(word["word"], word["start"], word["end"]) for word in words or []] or read_words(found)
        return frames_of(duration) <= most or first_words(known or (), most) is not None

    reason = f"more than data.max_frames ({most}) frames, and no word times to cut the text by"
    rows = _filtered(rows, has_times, columns, folders, reason)
    reason = f"more than data.max_frames ({most}) frames, and no word that is as short"
    rows = _filtered(rows, has_room, columns, folders, reason)
    long = sum(frames_of(row["duration"]) > most for row in rows.select_columns(["duration"]))
    if long and os.environ.get("RANK", "0") == "0":
        logger.warning(
            "%s: %d of %d clips have more than data.max_frames (%d) frames and are cut between words",
            *(", ".join(folders), long, len(rows), most),
        )
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
    Returns the recipe's processor: of its checkpoint, of another folder, or a new one. It finds mouths as those were
    found that the model is trained on.

    Args:
        recipe: of the model.
        train: folders to train on, for `corpus_statistics` and the landmarks.
    """
    processor = _processor(recipe, train)
    if landmarks := prepared_landmarks(train):
        processor.image_processor.landmarks = landmarks
    return processor


def _processor(recipe: ModelRecipe, train: list[str] | tuple[str, ...]) -> AvsrProcessor:
    """Returns the processor with the landmarks of where it is from."""
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


@loading_everywhere()
def build_model(recipe: ModelRecipe) -> AvsrForConditionalGeneration:
    """
    Returns the recipe's model, with the modules that it copies from other checkpoints; a new model has front-ends as
    they are there, unless the recipe's configuration says how they are.
    """
    if recipe.checkpoint is not None:
        # Given to the model, the fields would be its generation config's, too.
        config = AvsrConfig.from_pretrained(recipe.checkpoint, **recipe.config)
        model = AvsrForConditionalGeneration.from_pretrained(recipe.checkpoint, config=config)
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

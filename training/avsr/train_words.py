"""The first stage of the paper: words of LRW from lips alone, which shapes the visual front-end (section 3.6)."""

from typing import Any

import numpy as np
from transformers import AutoModelForVideoClassification, EvalPrediction, set_seed

from lookhear.modeling.avsr import AvsrConfig, AvsrForVideoClassification
from lookhear.training.avsr.examples import ClipCollator, EvaluationClips, TrainingClips
from lookhear.training.avsr.initialise import initialise_modules, select_modules, with_front_ends
from lookhear.training.avsr.prepare import check_geometry
from lookhear.training.avsr.recipe import ModelRecipe, Recipe
from lookhear.training.avsr.train import build_processor, check_crop_size, load_rows
from lookhear.training.avsr.trainer import AvsrTrainer
from lookhear.training.running import run_to_end, training_arguments
from lookhear.training.sharded import loading_everywhere


def train_words(recipe: Recipe) -> AvsrTrainer:
    """
    Trains [`AvsrForVideoClassification`] on clips of one word each; the classes are the texts of `data.train`.

    Raises:
        ValueError: the recipe names what does not exist, or a validation word that is not among the training words.
    """
    if recipe.evaluation.num_beams is not None:
        raise ValueError("evaluation.num_beams is for the task 'recognition'; words are not searched: leave it out")
    if recipe.data.cache_features is not None:
        raise ValueError("data.cache_features is for the task 'recognition'; words are trained whole: leave it out")
    arguments = training_arguments(recipe.training)
    set_seed(arguments.seed)
    rows = load_rows(recipe.data.train, recipe.data, training=True, output=arguments.output_dir)
    validation = load_rows(recipe.data.validation, recipe.data) if recipe.data.validation else None
    processor = build_processor(recipe.model, recipe.data.train)
    check_geometry([*recipe.data.train, *recipe.data.validation], processor.image_processor)
    classes = word_classes(rows, validation)
    model = build_classifier(recipe.model, classes)
    check_crop_size(model.config, processor)
    trainer = AvsrTrainer(
        model=model,
        args=arguments,
        data_collator=ClipCollator(processor, classes),
        train_dataset=TrainingClips(
            rows, recipe.augmentation, recipe.data, processor.image_processor.crop_size, arguments.seed
        ),
        eval_dataset=None if validation is None else EvaluationClips(validation),
        compute_metrics=word_accuracy,
        processing_class=processor,
        frozen=select_modules(model, recipe.model.freeze),
    )
    return run_to_end(trainer, recipe)


def word_classes(rows, validation=None) -> dict[str, int]:
    """Returns each word of the training clips, upper case, with its class number in alphabetical order."""
    words = sorted({text.upper() for text in rows["text"]})
    unseen = {text.upper() for text in validation["text"]} - set(words) if validation is not None else set()
    if unseen:
        raise ValueError(f"data.validation has words that data.train lacks: {', '.join(sorted(unseen)[:5])}")
    return {word: number for number, word in enumerate(words)}


@loading_everywhere()
def build_classifier(recipe: ModelRecipe, classes: dict[str, int]) -> AvsrForVideoClassification:
    """Returns the recipe's classifier with its words as labels."""
    labels: dict[str, Any] = {
        "id2label": {number: word for word, number in classes.items()},
        "label2id": dict(classes),
    }
    if recipe.checkpoint is not None:
        model = AvsrForVideoClassification.from_pretrained(recipe.checkpoint, **recipe.config, **labels)
    else:
        fields = with_front_ends(dict(recipe.config), recipe.initialise)
        attention = fields.pop("attn_implementation", None)
        config = AvsrConfig(**fields, **labels)
        model = AutoModelForVideoClassification.from_config(config, attn_implementation=attention)
    initialise_modules(model, recipe.initialise)
    return model


def word_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Computes the share of clips whose word is recognised."""
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}

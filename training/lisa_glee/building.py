"""The model and processor of a recipe: new ones of a GLEE and a LLaVA, or those of a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from lookhear.modeling.lisa_glee import LisaGleeConfig, LisaGleeForReasoningSegmentation
from lookhear.processing.lisa_glee import LisaGleeProcessor
from lookhear.processing.lisa_glee.processing_lisa_glee import IMAGE, OBJECTS, SEGMENT
from lookhear.training.lisa_glee.chat import WORDS
from lookhear.training.lisa_glee.lora import choose_trained
from lookhear.training.lisa_glee.recipe import PRESETS, LisaModelRecipe

EMBEDDINGS_MULTIPLE = 64  # rows of embeddings, which GPUs multiply faster
# LLaVA 1.5's conversation; what GLEE sees stands after the picture.
CHAT_TEMPLATE = (
    WORDS
    + """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}{{ ' ' + words(message) + eos_token }}
{%- else -%}{{ 'USER: ' + ('<image><objects>\n' if loop.first else '') + words(message) + ' ASSISTANT:' }}
{%- endif -%}
{%- endfor -%}
"""
)


def recipe_config(recipe: LisaModelRecipe) -> LisaGleeConfig:
    """
    Returns a recipe's configuration without loading weights: its checkpoint's, its preset's, or one of two folders.

    Args:
        recipe: of the model.

    Raises:
        ValueError: it names none of them.
    """
    if recipe.checkpoint is not None:
        return LisaGleeConfig.from_pretrained(recipe.checkpoint, **recipe.config)
    if recipe.preset is not None:
        return PRESETS[recipe.preset](**recipe.config)
    perception, language = _parts(recipe)
    parts = {
        "perception_config": AutoConfig.from_pretrained(perception),
        "language_config": AutoConfig.from_pretrained(language),
    }
    last = parts["language_config"].get_text_config(decoder=True).vocab_size - 1  # stands for the new tokens
    return LisaGleeConfig(**{"object_token_id": last, "segment_token_id": last, **parts, **recipe.config})


def build(recipe: LisaModelRecipe) -> tuple[LisaGleeForReasoningSegmentation, LisaGleeProcessor]:
    """
    Makes the model that a recipe trains, with its adapters, and its processor.

    Args:
        recipe: of the model.

    Raises:
        ValueError: it names no model to start from, or its adapters cannot be added.
    """
    if recipe.checkpoint is not None:
        model = LisaGleeForReasoningSegmentation.from_pretrained(
            recipe.checkpoint, dtype=torch.float32, **recipe.config
        )
        processor = LisaGleeProcessor.from_pretrained(recipe.checkpoint)
    else:
        model, processor = _combined(recipe)
    choose_trained(model, recipe.lora)
    for weight in model.language_model.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.to(getattr(torch, recipe.dtype))
    return model, processor


def _combined(recipe: LisaModelRecipe) -> tuple[LisaGleeForReasoningSegmentation, LisaGleeProcessor]:
    """Puts a GLEE and a language model together; what connects them is new."""
    perception_name, language_name = _parts(recipe)
    seeing = AutoProcessor.from_pretrained(perception_name)
    # Without what only GLEE's own training needs, which a run's folder has.
    fields: dict[str, Any] = {"text_teacher": False, "denoising_tables": None}
    perception = AutoModel.from_pretrained(perception_name, dtype=torch.float32, **fields)
    language = AutoModelForImageTextToText.from_pretrained(language_name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(language_name, padding_side="left")
    tokenizer.add_tokens([OBJECTS, SEGMENT], special_tokens=True)
    if len(tokenizer) > language.config.get_text_config(decoder=True).vocab_size:
        language.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=EMBEDDINGS_MULTIPLE, mean_resizing=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    vocabulary = tokenizer.get_vocab()
    if vocabulary.get(IMAGE) != language.config.image_token_id:
        raise ValueError(
            f"model.language {language_name!r} marks pictures with another token than {IMAGE!r}; choose a LLaVA 1.5"
        )
    config = LisaGleeConfig(
        perception_config=perception.config,
        language_config=language.config,
        object_token_id=vocabulary[OBJECTS],
        segment_token_id=vocabulary[SEGMENT],
        object_label_ids=seeing.tokenizer(["object"]).input_ids[0],
        **recipe.config,
    )
    weights = {f"perception.{name}": weight for name, weight in perception.state_dict().items()}
    weights |= {f"language_model.{name}": weight for name, weight in language.state_dict().items()}
    model = LisaGleeForReasoningSegmentation.from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.float32
    )
    model.generation_config = language.generation_config
    eyes: dict[str, Any] = AutoImageProcessor.from_pretrained(language_name).to_dict()
    processor = LisaGleeProcessor(
        seeing.image_processor,
        tokenizer,
        CHAT_TEMPLATE,
        num_objects=config.num_objects,
        image_tokens=image_tokens(config),
        language_images=eyes,
    )
    return model, processor


def image_tokens(config: LisaGleeConfig) -> int:
    """
    Returns the number of embeddings that a LLaVA makes of a picture.

    Args:
        config: with a LLaVA's in it; 0 for a language model without image encoder.
    """
    language = config.language_config
    vision = getattr(language, "vision_config", None)
    if vision is None:
        return 0
    patches = (vision.image_size // vision.patch_size) ** 2
    return patches + (getattr(language, "vision_feature_select_strategy", "default") == "full")  # its class token


def _parts(recipe: LisaModelRecipe) -> tuple[str, str]:
    if recipe.perception is None or recipe.language is None:
        raise ValueError("model.perception and model.language must name a GLEE and a LLaVA, or model.checkpoint both")
    return recipe.perception, recipe.language

"""What a GLEE model is asked to look for, and whether that can be answered."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from .configuration_glee import GleeConfig

# Pixels a cell of a backbone's coarsest map stands for.
COARSEST_STRIDE = 32
# What each input can't do without.
COMPANIONS = {
    "input_ids": "attention_mask",
    "class_embeddings": "class_tokens",
    "expression_input_ids": "expression_attention_mask",
    "expression_tokens": "expression_attention_mask",
    "prompt_masks": "prompt_types",
}


@dataclass
class GleeRequest(ModelOutput):
    r"""
    What is looked for; a row is an image, or a prompt where there are prompts.

    class_embeddings (`torch.Tensor` of shape `(rows or 1, classes, hidden_size)`): what queries are scored against.
    text (`torch.Tensor` of shape `(rows or 1, tokens, hidden_size)`): tokens for the early fusion.
    text_mask (`torch.Tensor` of shape `(rows, tokens)`, bool, *optional*): False for padding; of sentences only.
    label_mask (`torch.Tensor` of shape `(rows, tokens)`, bool, *optional*): the same, where images have own labels.
    image_indices (`torch.Tensor` of shape `(rows,)`, *optional*): the image that each prompt belongs to.
    prompt_masks, prompt_types, prompt_points, prompt_sources: of visual prompts, as given to the model.
    """

    class_embeddings: torch.Tensor | None = None
    text: torch.Tensor | None = None
    text_mask: torch.Tensor | None = None
    label_mask: torch.Tensor | None = None
    image_indices: torch.Tensor | None = None
    prompt_masks: torch.Tensor | None = None
    prompt_types: torch.Tensor | None = None
    prompt_points: torch.Tensor | None = None
    prompt_sources: torch.Tensor | None = None

    def of_images(
        self, images: torch.Tensor, canvas: tuple[int, int], size: tuple[int, int]
    ) -> tuple[torch.Tensor, "GleeRequest"]:
        """
        The part that belongs to some images, seen on a smaller canvas.

        Args:
            images: `(some,)` int64; canvas: their (height, width) in pixels; size: the batch's.
        Returns:
            the rows `(some,)` int64 and their request, whose `image_indices` count the given images only.
        """
        if self.label_mask is not None:
            names = ("class_embeddings", "text", "label_mask")
            return images, GleeRequest(**{name: self[name][images] for name in names})
        if self.image_indices is None:
            return images, self
        belongs = self.image_indices[:, None] == images[None]  # (prompts, images)
        rows = belongs.any(dim=1).nonzero()[:, 0]
        fields = {"image_indices": belongs[rows].int().argmax(dim=1)}
        if self.text_mask is not None:
            fields.update({name: self[name][rows] for name in ("class_embeddings", "text", "text_mask")})
        if self.prompt_masks is not None:
            fields["prompt_masks"] = self.prompt_masks[rows, : canvas[0], : canvas[1]]
            fields["prompt_types"] = self.prompt_types[rows]
        if self.prompt_points is not None:
            scale = self.prompt_points.new_tensor([size[0] / canvas[0], size[1] / canvas[1]])
            fields["prompt_points"] = self.prompt_points[rows] * scale
        return rows, GleeRequest(**{**self, **fields})


def check_request(config: GleeConfig, *, pixel_values: torch.Tensor, **inputs: torch.Tensor | None) -> None:
    """
    Raises:
        ValueError: nothing or several things are asked, something is missing beside another, or sizes don't fit.
    """
    _check_kind(config, inputs)
    for name, companion in COMPANIONS.items():
        if inputs[name] is not None and inputs[companion] is None:
            raise ValueError(f"{companion} is needed beside {name}.")
    size = tuple(pixel_values.shape[-2:])
    if size[0] % COARSEST_STRIDE or size[1] % COARSEST_STRIDE:
        raise ValueError(
            f"pixel_values must be padded to multiples of {COARSEST_STRIDE} (the image processor does it), not {size}."
        )
    masks = inputs["prompt_masks"]
    if inputs["prompt_sources"] is not None and masks is None:
        raise ValueError("prompt_sources belong to prompt_masks.")
    if masks is not None and tuple(masks.shape[-2:]) != size:
        raise ValueError(f"prompt_masks must have the canvas's size {size}, not {tuple(masks.shape[-2:])}.")
    if inputs["lateral"] is not None and len(inputs["lateral"]) != len(pixel_values):
        raise ValueError(
            f"image_features are those of {len(inputs['lateral'])} images, pixel_values hold {len(pixel_values)}."
        )
    sentences = _sentences(inputs)
    prompts = masks if sentences is None else sentences
    if prompts is not None:
        _check_indices(inputs["prompt_image_indices"], len(prompts), len(pixel_values))


def _check_kind(config: GleeConfig, inputs: dict[str, torch.Tensor | None]) -> None:
    labels = inputs["input_ids"] if inputs["class_embeddings"] is None else inputs["class_embeddings"]
    if _sentences(inputs) is not None:
        if labels is not None or inputs["prompt_masks"] is not None:
            raise ValueError(
                "expression_input_ids can't be combined with input_ids or prompt_masks: one call for each."
            )
    elif labels is None or not len(labels):
        raise ValueError("Give input_ids (labels), expression_input_ids, or prompt_masks together with input_ids.")
    elif inputs["prompt_masks"] is not None:
        if len(labels) != 1:
            raise ValueError(f"prompt_masks are scored against one label ('object'); input_ids hold {len(labels)}.")
        if not config.template_fuser:
            raise ValueError("prompt_masks need a model with template_fuser=True; this one (stage 1) has none.")


def _sentences(inputs: dict[str, torch.Tensor | None]) -> torch.Tensor | None:
    ids = inputs["expression_input_ids"]
    return inputs["expression_tokens"] if ids is None else ids


def _check_indices(indices: torch.Tensor | None, prompts: int, images: int) -> None:
    if indices is None:
        fits = prompts == images
    else:
        fits = indices.shape == (prompts,) and bool(((indices >= 0) & (indices < images)).all())
    if not fits:
        raise ValueError(
            f"prompt_image_indices must say which of the {images} images each of the {prompts} prompts belongs to."
        )

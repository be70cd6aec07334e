# Copyright 2026 The LookHear developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Inputs and outputs of a GLEE model.

Images of several sizes in one batch are each computed on their own canvas, as if they were alone."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput

from .configuration_glee import GleeConfig

# Pixels a cell of a backbone's coarsest map stands for.
COARSEST_STRIDE = 32
# Inputs that each input requires.
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
        ValueError: none or several kinds of prompts are passed, a required companion is missing, or sizes don't match.
    """
    _check_kind(config, inputs)
    for name, companion in COMPANIONS.items():
        if inputs[name] is not None and inputs[companion] is None:
            raise ValueError(f"{name} needs {companion}; pass both.")
    size = tuple(pixel_values.shape[-2:])
    if size[0] % COARSEST_STRIDE or size[1] % COARSEST_STRIDE:
        raise ValueError(
            f"pixel_values must be padded to multiples of {COARSEST_STRIDE} (the image processor does it), not {size}."
        )
    masks = inputs["prompt_masks"]
    if inputs["prompt_sources"] is not None and masks is None:
        raise ValueError("prompt_sources belong to prompt_masks.")
    if masks is not None and tuple(masks.shape[-2:]) != size:
        raise ValueError(
            f"prompt_masks must have the size of the padded images, {size}, not {tuple(masks.shape[-2:])}."
        )
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


@dataclass
class GleeLabelEmbeddings(ModelOutput):
    r"""
    class_embeddings (`torch.Tensor` of shape `(labels, hidden_size)`): one vector per label, for the scores.
    class_tokens (`torch.Tensor` of shape `(tokens, hidden_size)`): the tokens of all labels, for the early fusion.
    """

    class_embeddings: torch.Tensor | None = None
    class_tokens: torch.Tensor | None = None


@dataclass
class GleeImageFeatures(ModelOutput):
    r"""
    Features of images, independent of the prompts.

    last_hidden_state (`torch.Tensor` of shape `(images, pixels, channels)`): the backbone's coarsest map, row by row.
    pooler_output (`torch.Tensor` of shape `(images, channels)`): its mean over the pixels.
    levels (`tuple` of four `torch.Tensor` of shape `(images, hidden_size, height, width)`): finest first.
    lateral (`torch.Tensor` of shape `(images, hidden_size, height, width)`): the finest map of all, for the masks.

    hidden_states (`tuple` of `torch.Tensor`, with `output_hidden_states=True`): of the backbone.
    attentions (`tuple` of `torch.Tensor`, with `output_attentions=True`): of the backbone.

    With `config.padding_mask` the maps of a smaller canvas are in the upper left corner, and zeros around them;
    so are `hidden_states`, and there are `attentions` only if all images have one canvas.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    levels: tuple[torch.Tensor, ...] | None = None
    lateral: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None

    def of_images(self, images: list[int] | torch.Tensor | slice) -> "GleeImageFeatures":
        """Returns the maps for the forward pass of some images; copies, if they are named by numbers."""
        return GleeImageFeatures(levels=tuple(level[images] for level in self.levels), lateral=self.lateral[images])


@dataclass
class GleeModelOutput(ModelOutput):
    r"""
    A row is an image, or a prompt where there are prompts.

    last_hidden_state (`torch.Tensor` of shape `(rows, queries, hidden_size)`): the queries; also what tracks objects.
    pred_boxes (`torch.Tensor` of shape `(rows, queries, 4)`): cxcywh as shares of the padded image.
    mask_features (`torch.Tensor` of shape `(rows, hidden_size, height, width)`): what masks are read from.
    feature_maps (`tuple` of four `torch.Tensor` of shape `(rows, hidden_size, height, width)`): finest first.
    class_embeddings (`torch.Tensor` of shape `(rows or 1, classes, hidden_size)`): what queries are scored against.
    layer_states (`torch.Tensor` of shape `(layers, rows, queries, hidden_size)`): normed queries of each layer.
    layer_boxes (`torch.Tensor` of shape `(layers, rows, queries, 4)`).
    denoising_states, denoising_boxes (`torch.Tensor`, *optional*): the same two of denoising queries.
    proposal_states (`torch.Tensor` of shape `(rows, queries, hidden_size)`): the chosen pixels, the first queries.
    proposal_boxes (`torch.Tensor` of shape `(rows, queries, 4)`).
    proposal_indices (`torch.Tensor` of shape `(rows, queries)`, int64):
        The pixels, counted row by row from the coarsest map to the finest; of the row's own padded image.
    query_mask (`torch.Tensor` of shape `(rows, queries)`, bool, *optional*):
        With `config.padding_mask`: False for the empty queries of an image with fewer pixels than queries.
    hidden_states (`tuple` of `torch.Tensor`, with `output_hidden_states=True`): of the decoder.
    attentions (`tuple` of `torch.Tensor`, with `output_attentions=True`): of the decoder's self-attention.
    encoder_hidden_states (`tuple` of `torch.Tensor`, with `output_encoder_hidden_states=True`):
        Of the pixel decoder: what enters its first layer, then what leaves each.

    With `config.padding_mask` and canvases of several sizes, zeros fill up the rows of smaller ones in these last three.
    """

    last_hidden_state: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    mask_features: torch.Tensor | None = None
    feature_maps: tuple[torch.Tensor, ...] | None = None
    class_embeddings: torch.Tensor | None = None
    layer_states: torch.Tensor | None = None
    layer_boxes: torch.Tensor | None = None
    denoising_states: torch.Tensor | None = None
    denoising_boxes: torch.Tensor | None = None
    proposal_states: torch.Tensor | None = None
    proposal_boxes: torch.Tensor | None = None
    proposal_indices: torch.Tensor | None = None
    query_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    encoder_hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class GleeObjectQueries(ModelOutput):
    r"""
    What another model needs to know of the objects in images, best first.

    last_hidden_state (`torch.Tensor` of shape `(images, queries, hidden_size)`): of the last decoder layer, normed.
    scores (`torch.Tensor` of shape `(images, queries)`): before the sigmoid, of the best label.
    boxes (`torch.Tensor` of shape `(images, queries, 4)`): cxcywh as shares of the image without padding.
    mask_embeddings (`torch.Tensor` of shape `(images, queries, hidden_size)`): times `mask_features` their own masks.
    mask_features (`torch.Tensor` of shape `(images, hidden_size, height, width)`): at a quarter (Pro: an eighth) of the
        padded image.
    """

    last_hidden_state: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    mask_embeddings: torch.Tensor | None = None
    mask_features: torch.Tensor | None = None


@dataclass
class GleeObjectDetectionOutput(ModelOutput):
    r"""
    A row is an image, or a prompt where there are prompts.

    loss (`torch.Tensor`, with `labels`): the weighted sum of all losses.
    loss_dict (`dict`, with `labels`): each loss before its weight, see [`GleeLoss`].
    logits (`torch.Tensor` of shape `(rows, queries, classes)`): before the sigmoid; one class for each prompt.
    confidence (`torch.Tensor` of shape `(rows, queries)`): before the sigmoid; trained on visual prompts only.
    pred_boxes (`torch.Tensor` of shape `(rows, queries, 4)`): cxcywh as shares of the padded image.
    pred_masks (`torch.Tensor` of shape `(rows, queries, height, width)`): logits at a quarter (Pro: an eighth) of the canvas.
    track_embeddings (`torch.Tensor` of shape `(rows, queries, hidden_size)`): similar for one object across frames.
    image_sizes (`torch.Tensor` of shape `(rows, 2)`, int64): (height, width) of the image without padding, in pixels.
    padded_sizes (`torch.Tensor` of shape `(rows, 2)`, int64): (height, width) of the canvas.
    auxiliary_outputs (`list[dict]`, with `config.auxiliary_outputs`):
        `logits`, `confidence`, `pred_boxes` and `pred_masks` of the first queries, then of each layer but the last.
    proposal_outputs (`dict`, with `config.auxiliary_outputs`): the same of the proposals, with their gradient.
    """

    loss: torch.Tensor | None = None
    loss_dict: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    pred_masks: torch.Tensor | None = None
    track_embeddings: torch.Tensor | None = None
    image_sizes: torch.Tensor | None = None
    padded_sizes: torch.Tensor | None = None
    auxiliary_outputs: list[dict[str, torch.Tensor]] | None = None
    proposal_outputs: dict[str, torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    encoder_hidden_states: tuple[torch.Tensor, ...] | None = None


def sizes_of_images(pixel_mask: torch.Tensor) -> torch.Tensor:
    """(height, width) of the image in each mask `(images, height, width)`, `(images, 2)` int64."""
    mask = pixel_mask.bool()
    return torch.stack((mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)), dim=1)


def canvas_groups(pixel_mask: torch.Tensor, divisor: int) -> list[tuple[tuple[int, int], torch.Tensor]]:
    """
    Images that share a canvas: their sizes, rounded up to a multiple of `divisor`, are equal.

    Args:
        pixel_mask: `(images, height, width)`, 1 for the image, 0 for padding on the right and below.

    Returns:
        (height, width) of each canvas, at most that of the batch, and its images `(some,)` int64.
    """
    sizes = sizes_of_images(pixel_mask)
    limit = torch.tensor(pixel_mask.shape[-2:], device=pixel_mask.device)
    sizes = torch.minimum(-(-sizes // divisor) * divisor, limit)
    canvases, members = sizes.unique(dim=0, return_inverse=True)
    return [
        ((height, width), (members == index).nonzero()[:, 0])
        for index, (height, width) in enumerate(canvases.tolist())
    ]


def map_size(canvas: tuple[int, int], stride: int) -> tuple[int, int]:
    """(height, width) of the feature map of a canvas, (height, width) in pixels."""
    return -(-canvas[0] // stride), -(-canvas[1] // stride)


def join_maps(maps: list[torch.Tensor], order: torch.Tensor) -> torch.Tensor:
    """
    Joins tensors of several canvases, such as feature maps, each at the beginning of every axis, zeros after it.

    Args:
        maps: of each canvas, `(some, …)`, all of as many axes.
        order: `(rows,)` int64, which of their rows comes where.

    Returns:
        `(rows, …)`, each axis as long as the longest.
    """
    sizes = [max(lengths) for lengths in zip(*(part.shape for part in maps))]
    padded = []
    for part in maps:
        missing = [(0, size - length) for size, length in zip(sizes[1:], part.shape[1:])]
        padded.append(nn.functional.pad(part, [side for axis in reversed(missing) for side in axis]))
    return torch.cat(padded)[order]


def join_layers(
    layers: list[tuple[torch.Tensor | None, ...] | None], order: torch.Tensor
) -> tuple[torch.Tensor | None, ...] | None:
    """Joins the layers' tensors of several canvases, see [`join_maps`]; what wasn't collected stays `None`."""
    if layers[0] is None:
        return None
    return tuple(None if parts[0] is None else join_maps(list(parts), order) for parts in zip(*layers))


def merge_canvases(
    outputs: list[ModelOutput],
    rows: list[torch.Tensor],
    canvases: list[tuple[int, int]],
    size: tuple[int, int],
    own_classes: bool,
) -> ModelOutput:
    """
    The outputs of several canvases as one of the batch's padded image.

    Boxes become shares of the batch's padded image, maps repeat their last column and row, so that enlarged masks stay as they
    are up to the image's edge, a canvas with fewer queries gets empty ones (see `query_mask`), rows return to their places.
    So do the layers' hidden states and attentions; an attention's keys are the queries, then the prompt's tokens.

    Args:
        outputs: a `GleeModelOutput` of each canvas; rows: `(some,)` int64, where its rows belong in the batch.
        canvases: (height, width) of each canvas in pixels; size: of the batch's.
        own_classes: whether each row has classes of its own (expressions) or all rows share them (labels).
    """
    order = torch.cat(rows).argsort()
    queries = [len(output.last_hidden_state[0]) for output in outputs]
    most = max(queries)

    def joined(name: str, dim: int = 0) -> torch.Tensor:
        parts = [nn.functional.pad(o[name], (0, 0, 0, most - q)) for o, q in zip(outputs, queries)]
        if name.endswith("boxes"):
            parts = [part * _box_scale(part, canvas, size) for part, canvas in zip(parts, canvases)]
        return torch.cat(parts, dim).index_select(dim, order)

    def indices() -> torch.Tensor:
        parts = [nn.functional.pad(o.proposal_indices, (0, most - q)) for o, q in zip(outputs, queries)]
        return torch.cat(parts)[order]

    def maps(parts: list[torch.Tensor]) -> torch.Tensor:
        cells = [
            [-(-whole * count // part) for whole, count, part in zip(size, feature_map.shape[-2:], canvas)]
            for feature_map, canvas in zip(parts, canvases)
        ]
        height, width = (max(counts) for counts in zip(*cells))
        return torch.cat([_extend(part, height, width) for part in parts])[order]

    classes = [output.class_embeddings for output in outputs]
    present = torch.cat([torch.full_like(part, count) for part, count in zip(rows, queries)])
    return type(outputs[0])(
        last_hidden_state=joined("last_hidden_state"),
        pred_boxes=joined("pred_boxes"),
        mask_features=maps([output.mask_features for output in outputs]),
        feature_maps=tuple(maps(list(level)) for level in zip(*(output.feature_maps for output in outputs))),
        class_embeddings=torch.cat(classes)[order] if own_classes else classes[0],
        layer_states=joined("layer_states", 1),
        layer_boxes=joined("layer_boxes", 1),
        proposal_states=joined("proposal_states"),
        proposal_boxes=joined("proposal_boxes"),
        proposal_indices=indices(),
        query_mask=torch.arange(most, device=order.device)[None] < present[order][:, None],
        hidden_states=join_layers([output.hidden_states for output in outputs], order),
        attentions=join_layers([_attentions(o, q, most) for o, q in zip(outputs, queries)], order),
        encoder_hidden_states=join_layers([output.encoder_hidden_states for output in outputs], order),
    )


def _attentions(output: ModelOutput, queries: int, most: int) -> tuple[torch.Tensor, ...] | None:
    # Each (rows, heads, queries, queries + prompt tokens) -> (rows, heads, queries, most + prompt tokens)
    if output.attentions is None:
        return None
    empty = (0, most - queries)
    return tuple(
        torch.cat((nn.functional.pad(weights[..., :queries], empty), weights[..., queries:]), dim=-1)
        for weights in output.attentions
    )


def _box_scale(boxes: torch.Tensor, canvas: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    # (4,): cxcywh as shares of the padded image -> as shares of the batch's padded image
    return boxes.new_tensor([canvas[1] / size[1], canvas[0] / size[0]] * 2)


def _extend(feature_map: torch.Tensor, height: int, width: int) -> torch.Tensor:
    # (rows, channels, less or equal, less or equal) -> (rows, channels, height, width)
    missing = (0, width - feature_map.shape[-1], 0, height - feature_map.shape[-2])
    return nn.functional.pad(feature_map, missing, mode="replicate")

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

With `config.padding_mask`, each image is padded as if it were alone; images of one padded size share a pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers.utils import ModelOutput

from .attention_glee import attention_bias
from .configuration_glee import GleeConfig
from .visual_prompts_glee import GleeVisualPrompts

# Pixels a cell of a backbone's coarsest map stands for.
COARSEST_STRIDE = 32
# Share of the padded image by which boxes to learn from may exceed it.
BOX_SLACK = 0.02
# Inputs that each input requires.
COMPANIONS = {
    "input_ids": "attention_mask",
    "class_embeddings": "class_tokens",
    "expression_input_ids": "expression_attention_mask",
    "expression_tokens": "expression_attention_mask",
    "prompt_masks": "prompt_types",
}
NOTHING_TO_FIND = "Give input_ids (labels), expression_input_ids, or prompt_masks together with input_ids."


@dataclass(frozen=True)
class GleePrompts:
    """The inputs of [`GleeModel.forward`] that say what to look for, as they are passed; see there."""

    input_ids: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    class_embeddings: torch.Tensor | None = None
    class_tokens: torch.Tensor | None = None
    expression_input_ids: torch.Tensor | None = None
    expression_attention_mask: torch.Tensor | None = None
    expression_tokens: torch.Tensor | None = None
    prompt_masks: torch.Tensor | None = None
    prompt_types: torch.Tensor | None = None
    prompt_points: torch.Tensor | None = None
    prompt_image_indices: torch.Tensor | None = None
    prompt_sources: torch.Tensor | None = None
    own_labels: torch.Tensor | None = None

    @property
    def labels(self) -> torch.Tensor | None:
        """The labels, as embeddings or else as token ids."""
        return self.input_ids if self.class_embeddings is None else self.class_embeddings

    @property
    def sentences(self) -> torch.Tensor | None:
        """The expressions, as token ids or else as tokens."""
        return self.expression_tokens if self.expression_input_ids is None else self.expression_input_ids

    @property
    def rows(self) -> torch.Tensor | None:
        """What the rows of the output stand for: expressions or visual prompts; `None` if they stand for images."""
        return self.prompt_masks if self.sentences is None else self.sentences

    def pair(self, name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """
        Returns an input with the one that it requires (see `COMPANIONS`), `None` if it is not given.

        Raises:
            ValueError: the required one is not given.
        """
        value, companion = getattr(self, name), getattr(self, COMPANIONS[name])
        if value is None:
            return None
        if companion is None:
            raise ValueError(f"{name} needs {COMPANIONS[name]}; pass both.")
        return value, companion

    def visual(self) -> GleeVisualPrompts | None:
        """Returns the visual prompts, if there are any."""
        drawn = self.pair("prompt_masks")
        return None if drawn is None else GleeVisualPrompts(*drawn, self.prompt_points, self.prompt_sources)

    def images(self, device: torch.device) -> torch.Tensor | None:
        """Returns the image that each row belongs to, `(rows,)` int64; `None` if rows are images."""
        if self.rows is None:
            return None
        if self.prompt_image_indices is not None:
            return self.prompt_image_indices
        return torch.arange(len(self.rows), device=device)


@dataclass(frozen=True)
class GleeRequest:
    """
    What is looked for, embedded; a row is an image, or a prompt where there are prompts.

    Attributes:
        class_embeddings: `(rows or 1, classes, hidden_size)`, what queries are scored against.
        text: `(rows or 1, tokens, hidden_size)`, for the early fusion.
        text_mask: `(rows, tokens)` bool, False for padding; of sentences only.
        label_mask: `(rows, tokens)` bool, the same where images have labels of their own.
        image_indices: `(rows,)` int64, the image that each prompt belongs to; `None` where rows are images.
        visual: the visual prompts, if there are any.
    """

    class_embeddings: torch.Tensor
    text: torch.Tensor
    text_mask: torch.Tensor | None = None
    label_mask: torch.Tensor | None = None
    image_indices: torch.Tensor | None = None
    visual: GleeVisualPrompts | None = None

    def text_bias(self, attends_padding: bool) -> torch.Tensor | None:
        """Hides padded text from the early fusion: of labels always, of sentences unless they attend to padding."""
        mask = self.label_mask  # alone, a label has no padding that could be attended to
        if mask is None and not attends_padding:
            mask = self.text_mask
        return None if mask is None else attention_bias(mask, self.text.dtype)

    def of_images(
        self, images: torch.Tensor, padded: tuple[int, int], size: tuple[int, int]
    ) -> tuple[torch.Tensor, "GleeRequest"]:
        """
        Takes the part that belongs to some images, on a smaller padded image.

        Args:
            images: `(some,)` int64.
            padded: (height, width) of their padded image, in pixels.
            size: (height, width) of the batch's.

        Returns:
            the rows `(some,)` int64 and their request, whose `image_indices` count the given images only.
        """
        if self.label_mask is not None:
            embeddings, text, mask = self.class_embeddings[images], self.text[images], self.label_mask[images]
            return images, GleeRequest(embeddings, text, label_mask=mask)
        if self.image_indices is None:
            return images, self
        belongs = self.image_indices[:, None] == images[None]  # (prompts, images)
        rows = belongs.any(dim=1).nonzero()[:, 0]
        part = replace(self, image_indices=belongs[rows].int().argmax(dim=1))
        if self.text_mask is not None:
            embeddings, text, mask = self.class_embeddings[rows], self.text[rows], self.text_mask[rows]
            part = replace(part, class_embeddings=embeddings, text=text, text_mask=mask)
        if self.visual is not None:
            part = replace(part, visual=self.visual.crop(rows, padded, size))
        return rows, part


@dataclass(frozen=True)
class GleeMaps:
    """
    Feature maps of images that don't depend on the prompts.

    Attributes:
        levels: four maps `(images, hidden_size, height, width)`, finest first.
        lateral: `(images, hidden_size, height, width)`, the finest map of all, for the masks.
    """

    levels: tuple[torch.Tensor, ...]
    lateral: torch.Tensor

    def of_images(self, images: list[int] | torch.Tensor | slice) -> "GleeMaps":
        """Takes the maps of some images; copies, if they are named by numbers."""
        return GleeMaps(tuple(level[images] for level in self.levels), self.lateral[images])

    def crop(self, images: torch.Tensor, padded: tuple[int, int], strides: Sequence[int]) -> "GleeMaps":
        """
        Crops the maps of some images to a smaller padded image.

        Args:
            images: `(some,)` int64.
            padded: (height, width) of the smaller padded image, in pixels.
            strides: pixels that a cell stands for: of `lateral`, then of each level.
        """
        cut = []
        for feature_map, stride in zip((self.lateral, *self.levels), strides):
            height, width = map_size(padded, stride)
            cut.append(feature_map[images, :, :height, :width])
        return GleeMaps(levels=tuple(cut[1:]), lateral=cut[0])


def check_prompts(config: GleeConfig, pixel_values: torch.Tensor, prompts: GleePrompts, maps: GleeMaps | None) -> None:
    """
    Checks that the inputs of a model fit together.

    Args:
        config: of the model.
        pixel_values: `(images, 3, height, width)`.
        prompts: what to look for.
        maps: the maps of the images, if they are known already.

    Raises:
        ValueError: none or several kinds of prompts are passed, a required companion is missing, or sizes don't match.
    """
    _check_kind(config, prompts)
    for name in COMPANIONS:
        prompts.pair(name)
    size = tuple(pixel_values.shape[-2:])
    if size[0] % COARSEST_STRIDE or size[1] % COARSEST_STRIDE:
        raise ValueError(
            f"pixel_values must be padded to multiples of {COARSEST_STRIDE} (the image processor does it), not {size}."
        )
    masks = prompts.prompt_masks
    if prompts.prompt_sources is not None and masks is None:
        raise ValueError("prompt_sources belong to prompt_masks; pass both, or neither.")
    if masks is not None and tuple(masks.shape[-2:]) != size:
        raise ValueError(
            f"prompt_masks must have the size of the padded images, {size}, not {tuple(masks.shape[-2:])}."
        )
    if maps is not None and len(maps.lateral) != len(pixel_values):
        raise ValueError(
            f"image_features are those of {len(maps.lateral)} images, pixel_values hold {len(pixel_values)}."
        )
    if prompts.rows is not None:
        _check_indices(prompts.prompt_image_indices, len(prompts.rows), len(pixel_values))


def _check_kind(config: GleeConfig, prompts: GleePrompts) -> None:
    labels = prompts.labels
    if prompts.sentences is not None:
        if labels is not None or prompts.prompt_masks is not None:
            raise ValueError(
                "expression_input_ids can't be combined with input_ids or prompt_masks: one call for each."
            )
    elif labels is None or labels.shape[0] == 0:
        raise ValueError(NOTHING_TO_FIND)
    elif prompts.prompt_masks is not None:
        if len(labels) != 1:
            raise ValueError(f"prompt_masks are scored against one label ('object'); input_ids hold {len(labels)}.")
        if not config.template_fuser:
            raise ValueError("prompt_masks need a model with template_fuser=True; this one (stage 1) has none.")


def _check_indices(indices: torch.Tensor | None, prompts: int, images: int) -> None:
    if indices is None:
        fits = prompts == images
    else:
        fits = indices.shape == (prompts,) and bool(((indices >= 0) & (indices < images)).all())
    if not fits:
        raise ValueError(
            f"prompt_image_indices must say which of the {images} images each of the {prompts} prompts belongs to."
        )


def check_labels(labels: Sequence[dict[str, torch.Tensor]], padded: tuple[int, int], masks: bool = True) -> None:
    """
    Refuses labels that a model cannot learn from, such as boxes in pixels.

    Args:
        labels: one entry a row, see [`GleeForObjectDetection.forward`].
        padded: (height, width) of the padded images in pixels.
        masks: whether masks are used.

    Raises:
        ValueError: something is missing or no tensor, boxes are not cxcywh as shares of the padded image, or masks are
            not on it or not of 0 and 1.
    """
    height, width = padded
    for index, entry in enumerate(labels):
        for name in ("class_labels", "boxes", *(("masks",) if masks and "masks" in entry else ())):
            if not isinstance(entry.get(name), torch.Tensor):
                found = type(entry[name]).__name__ if name in entry else "nothing"
                raise ValueError(f"labels[{index}]['{name}'] must be a tensor, not {found}.")
        boxes = entry["boxes"]
        if boxes.numel() and (boxes.ndim != 2 or boxes.shape[1] != 4):
            raise ValueError(f"labels[{index}]['boxes'] must be (objects, 4), not {tuple(boxes.shape)}.")
        if masks and len(entry.get("masks", ())) and tuple(entry["masks"].shape[1:]) != padded:
            raise ValueError(
                f"labels[{index}]['masks'] must be (objects, {height}, {width}), on the padded images, not "
                f"{tuple(entry['masks'].shape)}; resize them with the image, and pad them on the right and below."
            )
    _refuse(
        labels, "boxes", _usable_boxes, f"must be cxcywh as shares of the padded image ({height} x {width} pixels)"
    )
    if masks:
        grey = [{} if "masks" not in entry or entry["masks"].dtype == torch.bool else entry for entry in labels]
        _refuse(grey, "masks", _usable_masks, "must be True and False, or from 0 to 1")


def _refuse(
    labels: Sequence[dict[str, torch.Tensor]], name: str, usable: Callable[[torch.Tensor], torch.Tensor], form: str
) -> None:
    """Raises ValueError for an entry with objects for which `usable` `(objects,)` is False; of all labels, one
    number is read, so that a GPU is waited for once."""
    checked = {index: usable(entry[name].float()) for index, entry in enumerate(labels) if len(entry.get(name, ()))}
    if not checked or bool(torch.cat(list(checked.values())).all()):
        return
    index = next(index for index, good in checked.items() if not good.all())
    bad = int((~checked[index]).nonzero()[0])
    shown = f": {[round(side, 4) for side in labels[index][name][bad].tolist()]}" if name == "boxes" else ""
    raise ValueError(f"labels[{index}]['{name}'] {form}; object {bad} is not{shown}.")


def _usable_boxes(boxes: torch.Tensor) -> torch.Tensor:
    """Returns whether each of `(objects, 4)` boxes has an area and lies in the image, up to `BOX_SLACK`."""
    centres, extents = boxes[:, :2], boxes[:, 2:]
    inside = (centres - extents / 2 >= -BOX_SLACK) & (centres + extents / 2 <= 1 + BOX_SLACK)
    return (inside & (extents > 0)).all(dim=1)  # False for NaN


def _usable_masks(masks: torch.Tensor) -> torch.Tensor:
    """Returns whether each of `(objects, height, width)` masks has values from 0 to 1."""
    return ((masks >= 0) & (masks <= 1)).flatten(1).all(dim=1)


@dataclass
class GleeLabelEmbeddings(ModelOutput):
    r"""
    What the model needs to know of labels, independent of the images.

    Attributes:
        class_embeddings (`torch.Tensor` of shape `(labels, hidden_size)`): one vector per label, for the scores.
        class_tokens (`torch.Tensor` of shape `(tokens, hidden_size)`): the tokens of all labels, for the early fusion.
    """

    class_embeddings: torch.Tensor | None = None
    class_tokens: torch.Tensor | None = None


@dataclass
class GleeImageFeatures(ModelOutput):
    r"""
    Features of images, independent of the prompts.

    With `config.padding_mask` the maps of an image with a smaller padded size are in the upper left corner, with zeros
    around them; so are `hidden_states`, and there are `attentions` only if all images have one padded size.

    Attributes:
        last_hidden_state (`torch.Tensor` of shape `(images, pixels, channels)`):
            The backbone's coarsest map, row by row.
        pooler_output (`torch.Tensor` of shape `(images, channels)`): its mean over the pixels.
        levels (`tuple` of four `torch.Tensor` of shape `(images, hidden_size, height, width)`): finest first.
        lateral (`torch.Tensor` of shape `(images, hidden_size, height, width)`): the finest map of all, for the masks.
        hidden_states (`tuple` of `torch.Tensor`, with `output_hidden_states=True`): of the backbone.
        attentions (`tuple` of `torch.Tensor`, with `output_attentions=True`): of the backbone.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    levels: tuple[torch.Tensor, ...] | None = None
    lateral: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None

    def of_images(self, images: list[int] | torch.Tensor | slice) -> "GleeImageFeatures":
        """Returns the maps for the forward pass of some images; copies, if they are named by numbers."""
        maps = self.maps().of_images(images)
        return GleeImageFeatures(levels=maps.levels, lateral=maps.lateral)

    def maps(self) -> GleeMaps:
        """
        Returns what the forward pass reads.

        Raises:
            ValueError: the features were not made by `get_image_features`.
        """
        if self.levels is None or self.lateral is None:
            raise ValueError("image_features have no levels or no lateral; pass what get_image_features returned.")
        return GleeMaps(self.levels, self.lateral)


@dataclass
class GleeModelOutput(ModelOutput):
    r"""
    Queries and maps, before the prediction heads. A row is an image, or a prompt where there are prompts.

    With `config.padding_mask` and images of several padded sizes, `hidden_states`, `attentions` and
    `encoder_hidden_states` end in zeros where an image's own are smaller.

    Attributes:
        last_hidden_state (`torch.Tensor` of shape `(rows, queries, hidden_size)`): the queries, also for tracking.
        pred_boxes (`torch.Tensor` of shape `(rows, queries, 4)`): cxcywh as shares of the padded image.
        mask_features (`torch.Tensor` of shape `(rows, hidden_size, height, width)`): what queries are compared with.
        feature_maps (`tuple` of four `torch.Tensor` of shape `(rows, hidden_size, height, width)`): finest first.
        class_embeddings (`torch.Tensor` of shape `(rows or 1, classes, hidden_size)`):
            What queries are scored against.
        layer_states (`torch.Tensor` of shape `(layers, rows, queries, hidden_size)`): normed queries of each layer.
        layer_boxes (`torch.Tensor` of shape `(layers, rows, queries, 4)`): cxcywh as shares of the padded image.
        denoising_states (`torch.Tensor`, *optional*): `layer_states` of denoising queries.
        denoising_boxes (`torch.Tensor`, *optional*): `layer_boxes` of denoising queries.
        proposal_states (`torch.Tensor` of shape `(rows, queries, hidden_size)`): the chosen pixels, the first queries.
        proposal_boxes (`torch.Tensor` of shape `(rows, queries, 4)`): cxcywh as shares of the padded image.
        proposal_indices (`torch.Tensor` of shape `(rows, queries)`, int64):
            The pixels, counted row by row from the coarsest map to the finest; of the row's own padded image.
        query_mask (`torch.Tensor` of shape `(rows, queries)`, bool, *optional*):
            With `config.padding_mask`: False for the empty queries of an image with fewer pixels than queries.
        hidden_states (`tuple` of `torch.Tensor`, with `output_hidden_states=True`): of the decoder.
        attentions (`tuple` of `torch.Tensor`, with `output_attentions=True`): of the decoder's self-attention.
        encoder_hidden_states (`tuple` of `torch.Tensor`, with `output_encoder_hidden_states=True`):
            Of the pixel decoder: what enters its first layer, then what leaves each.
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
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None
    encoder_hidden_states: tuple[torch.Tensor | None, ...] | None = None


@dataclass
class GleeObjectQueries(ModelOutput):
    r"""
    What another model needs to know of the objects in images, best first.

    Attributes:
        last_hidden_state (`torch.Tensor` of shape `(images, queries, hidden_size)`): of the last layer, normed.
        scores (`torch.Tensor` of shape `(images, queries)`): before the sigmoid, of the best label.
        boxes (`torch.Tensor` of shape `(images, queries, 4)`): cxcywh as shares of the image without padding.
        mask_embeddings (`torch.Tensor` of shape `(images, queries, hidden_size)`):
            Times `mask_features` they are the queries' own masks.
        mask_features (`torch.Tensor` of shape `(images, hidden_size, height, width)`):
            At a quarter (Pro: an eighth) of the padded image.
    """

    last_hidden_state: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    mask_embeddings: torch.Tensor | None = None
    mask_features: torch.Tensor | None = None


@dataclass
class GleeObjectDetectionOutput(ModelOutput):
    r"""
    What is found by each query. A row is an image, or a prompt where there are prompts.

    Attributes:
        loss (`torch.Tensor`, with `labels`): the weighted sum of all losses.
        loss_dict (`dict`, with `labels`): each loss before its weight, see [`GleeLoss`].
        logits (`torch.Tensor` of shape `(rows, queries, classes)`): before the sigmoid; one class for each prompt.
        confidence (`torch.Tensor` of shape `(rows, queries)`): before the sigmoid; trained on visual prompts only.
        pred_boxes (`torch.Tensor` of shape `(rows, queries, 4)`): cxcywh as shares of the padded image.
        pred_masks (`torch.Tensor` of shape `(rows, queries, height, width)`):
            Logits at a quarter (Pro: an eighth) of the padded image's height and width.
        track_embeddings (`torch.Tensor` of shape `(rows, queries, hidden_size)`):
            Similar for one object across frames.
        image_sizes (`torch.Tensor` of shape `(rows, 2)`, int64):
            (height, width) of the image without padding, in pixels.
        padded_sizes (`torch.Tensor` of shape `(rows, 2)`, int64): (height, width) of the padded image, in pixels.
        auxiliary_outputs (`list[dict]`, with `config.auxiliary_outputs`):
            `logits`, `confidence`, `pred_boxes`, `pred_masks` of the first queries, then of each layer but the last.
        proposal_outputs (`dict`, with `config.auxiliary_outputs`): the same of the proposals, with their gradient.
        hidden_states (`tuple` of `torch.Tensor`, with `output_hidden_states=True`): see [`GleeModelOutput`].
        attentions (`tuple` of `torch.Tensor`, with `output_attentions=True`): see there.
        encoder_hidden_states (`tuple` of `torch.Tensor`, with `output_encoder_hidden_states=True`): see there.
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
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None
    encoder_hidden_states: tuple[torch.Tensor | None, ...] | None = None


def sizes_of_images(pixel_mask: torch.Tensor) -> torch.Tensor:
    """Computes (height, width) of the image in each mask `(images, height, width)`, `(images, 2)` int64."""
    mask = pixel_mask.bool()
    return torch.stack((mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)), dim=1)


def sizes_of_rows(
    pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None, prompts: GleePrompts
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (height, width) of the image of each row and of its padded image, both `(rows, 2)` int64."""
    padded = torch.tensor(pixel_values.shape[-2:], device=pixel_values.device).expand(pixel_values.shape[0], -1)
    sizes = padded if pixel_mask is None else sizes_of_images(pixel_mask)
    if prompts.rows is None or (images := prompts.prompt_image_indices) is None:
        return sizes, padded
    return sizes[images], padded[images]


def boxes_in_image(boxes: torch.Tensor, pixel_mask: torch.Tensor | None) -> torch.Tensor:
    """
    Turns boxes as shares of the padded image into shares of the image.

    Args:
        boxes: `(images, queries, 4)`, cxcywh.
        pixel_mask: `(images, height, width)`, 1 for the image, 0 for padding; None: nothing is padded.

    Returns:
        `(images, queries, 4)`, cxcywh.
    """
    if pixel_mask is None:
        return boxes
    shares = boxes.new_tensor(pixel_mask.shape[-2:]) / sizes_of_images(pixel_mask)  # (images, 2): height, width
    return boxes * shares.flip(1).repeat(1, 2)[:, None]


def group_by_padded_size(pixel_mask: torch.Tensor, divisor: int) -> list[tuple[tuple[int, int], torch.Tensor]]:
    """
    Groups images whose sizes, rounded up to a multiple of `divisor`, are equal.

    Args:
        pixel_mask: `(images, height, width)`, 1 for the image, 0 for padding on the right and below.
        divisor: in pixels, at least 1.

    Returns:
        (height, width) of each group's padded image, at most that of the batch, and its images `(some,)` int64.
    """
    sizes = sizes_of_images(pixel_mask)
    limit = torch.tensor(pixel_mask.shape[-2:], device=pixel_mask.device)
    sizes = torch.minimum(-(-sizes // divisor) * divisor, limit)
    groups, members = sizes.unique(dim=0, return_inverse=True)
    return [
        ((height, width), (members == index).nonzero()[:, 0]) for index, (height, width) in enumerate(groups.tolist())
    ]


def map_size(padded: tuple[int, int], stride: int) -> tuple[int, int]:
    """Computes (height, width) of the feature map of a padded image of (height, width) pixels."""
    return -(-padded[0] // stride), -(-padded[1] // stride)


def join_maps(maps: list[torch.Tensor], order: torch.Tensor) -> torch.Tensor:
    """
    Joins tensors of several groups of images, such as feature maps; zeros fill up the end of shorter axes.

    Args:
        maps: of each group, `(some, …)`, all with the same number of axes.
        order: `(rows,)` int64, for each row of the result its place among the rows of all groups.

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
    layers: Sequence[tuple[torch.Tensor | None, ...] | None], order: torch.Tensor
) -> tuple[torch.Tensor | None, ...] | None:
    """
    Joins the tensors of each layer of several groups of images, see [`join_maps`].

    Args:
        layers: of each group one tensor a layer; `None` where all groups lack it.
        order: see [`join_maps`].
    """
    collected = [group for group in layers if group is not None]
    if not collected:
        return None
    return tuple(_join_layer(list(parts), order) for parts in zip(*collected))


def _join_layer(parts: list[torch.Tensor | None], order: torch.Tensor) -> torch.Tensor | None:
    maps = [part for part in parts if part is not None]
    return join_maps(maps, order) if maps else None


def merge_groups(
    outputs: list[GleeModelOutput],
    rows: list[torch.Tensor],
    padded_sizes: list[tuple[int, int]],
    size: tuple[int, int],
    own_classes: bool,
) -> GleeModelOutput:
    """
    Merges the outputs of several groups of images into that of the batch.

    Boxes become shares of the batch's padded image, maps repeat their last column and row, so that enlarged masks stay
    as they are up to the image's edge, a group with fewer queries gets empty ones (see `query_mask`), rows return to
    their places. So do the layers' hidden states and attentions; an attention's keys are the queries, then the
    prompt's tokens.

    Args:
        outputs: one a group.
        rows: for each group the places of its rows in the batch, `(some,)` int64.
        padded_sizes: (height, width) of each group's padded image, in pixels.
        size: (height, width) of the batch's.
        own_classes: whether each row has classes of its own (expressions) or all rows share them (labels).
    """
    order = torch.cat(rows).argsort()
    queries = [output["last_hidden_state"].shape[1] for output in outputs]
    most = max(queries)

    def joined(name: str, dim: int = 0) -> torch.Tensor:
        parts = [nn.functional.pad(o[name], (0, 0, 0, most - q)) for o, q in zip(outputs, queries)]
        if name.endswith("boxes"):
            parts = [part * _box_scale(part, padded, size) for part, padded in zip(parts, padded_sizes)]
        return torch.cat(parts, dim).index_select(dim, order)

    def indices() -> torch.Tensor:
        parts = [nn.functional.pad(o["proposal_indices"], (0, most - q)) for o, q in zip(outputs, queries)]
        return torch.cat(parts)[order]

    def maps(parts: list[torch.Tensor]) -> torch.Tensor:
        cells = [
            [-(-whole * count // part) for whole, count, part in zip(size, feature_map.shape[-2:], padded)]
            for feature_map, padded in zip(parts, padded_sizes)
        ]
        height, width = (max(counts) for counts in zip(*cells))
        return torch.cat([_extend(part, height, width) for part in parts])[order]

    classes = [output["class_embeddings"] for output in outputs]
    present = torch.cat([torch.full_like(part, count) for part, count in zip(rows, queries)])
    return GleeModelOutput(
        last_hidden_state=joined("last_hidden_state"),
        pred_boxes=joined("pred_boxes"),
        mask_features=maps([output["mask_features"] for output in outputs]),
        feature_maps=tuple(maps(list(level)) for level in zip(*(output["feature_maps"] for output in outputs))),
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


def _attentions(output: GleeModelOutput, queries: int, most: int) -> tuple[torch.Tensor | None, ...] | None:
    # Each (rows, heads, queries, queries + prompt tokens) -> (rows, heads, queries, most + prompt tokens)
    if output.attentions is None:
        return None
    empty = (0, most - queries)
    return tuple(
        None
        if weights is None
        else torch.cat((nn.functional.pad(weights[..., :queries], empty), weights[..., queries:]), dim=-1)
        for weights in output.attentions
    )


def _box_scale(boxes: torch.Tensor, padded: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    # (4,): cxcywh as shares of a group's padded image -> as shares of the batch's
    return boxes.new_tensor([padded[1] / size[1], padded[0] / size[0]] * 2)


def _extend(feature_map: torch.Tensor, height: int, width: int) -> torch.Tensor:
    # (rows, channels, less or equal, less or equal) -> (rows, channels, height, width)
    missing = (0, width - feature_map.shape[-1], 0, height - feature_map.shape[-2])
    return nn.functional.pad(feature_map, missing, mode="replicate")

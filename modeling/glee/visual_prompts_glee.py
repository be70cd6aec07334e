"""Points, boxes, scribbles and masks as prompts: a crop around the object, and its pixels (paper, section 3.1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import nn
from transformers.utils import ModelOutput

from .configuration_glee import NUM_LEVELS, GleeConfig

# What `prompt_types` holds.
MASK, BOX, POINT, SCRIBBLE = range(4)


@dataclass(frozen=True)
class GleeVisualPrompts:
    """
    Points, boxes, scribbles and masks, as [`GleeModel.forward`] explains its arguments `prompt_…`.

    Attributes:
        masks: `(prompts, height, width)` bool, on the padded image.
        types: `(prompts,)` int64.
        points: `(prompts, levels or 1, points, 2)`, or `None`.
        sources: `(prompts,)` int64, or `None`.
    """

    masks: torch.Tensor
    types: torch.Tensor
    points: torch.Tensor | None = None
    sources: torch.Tensor | None = None

    def crop(self, rows: torch.Tensor, padded: tuple[int, int], size: tuple[int, int]) -> "GleeVisualPrompts":
        """
        Takes some prompts, on smaller padded images.

        Args:
            rows: `(some,)` int64.
            padded: (height, width) of the smaller padded images, in pixels.
            size: (height, width) of the batch's.
        """
        points = self.points
        if points is not None:
            points = points[rows] * points.new_tensor([size[0] / padded[0], size[1] / padded[1]])
        masks = self.masks[rows, : padded[0], : padded[1]]
        return replace(self, masks=masks, types=self.types[rows], points=points)


@dataclass
class GleeSharedMaps(ModelOutput):
    r"""
    What the pixel decoder makes of images and one text, without the crop of any visual prompt: it serves any number of
    them, see [`GleeForObjectDetection.find_on_maps`].

    Attributes:
        levels (`tuple` of four `torch.Tensor` of shape `(images, hidden_size, height, width)`): finest first.
        mask_features (`torch.Tensor` of shape `(images, hidden_size, height, width)`): what queries are compared with.
        class_embeddings (`torch.Tensor` of shape `(1, classes, hidden_size)`): what queries are scored against.
    """

    levels: tuple[torch.Tensor, ...] | None = None
    mask_features: torch.Tensor | None = None
    class_embeddings: torch.Tensor | None = None

    def of_images(self, images: list[int] | slice) -> "GleeSharedMaps":
        """Returns the maps of some images; copies, if they are named by numbers."""
        levels, features = self["levels"], self["mask_features"]
        return GleeSharedMaps(tuple(level[images] for level in levels), features[images], self.class_embeddings)


@dataclass
class GleePromptTokens(ModelOutput):
    r"""
    Visual prompts as the object decoder sees them: the pixels that they mark, read from an image's maps.

    Attributes:
        levels (`tuple` of `torch.Tensor` of shape `(prompts, points, hidden_size)`): finest first.
        present (`torch.Tensor` of shape `(prompts, points)`, bool): False for padding.
    """

    levels: tuple[torch.Tensor, ...] | None = None
    present: torch.Tensor | None = None

    @classmethod
    def joined(cls, prompts: "Sequence[GleePromptTokens]") -> "GleePromptTokens":
        """Concatenates several; those with fewer points are padded."""
        most = max(each["present"].shape[1] for each in prompts)
        missing = [most - each["present"].shape[1] for each in prompts]
        levels = [
            torch.cat([nn.functional.pad(tokens, (0, 0, 0, more)) for tokens, more in zip(level, missing)])
            for level in zip(*(each["levels"] for each in prompts))
        ]
        present = [nn.functional.pad(each["present"], (0, more)) for each, more in zip(prompts, missing)]
        return cls(tuple(levels), torch.cat(present))


class GleeVisualPrompter(nn.Module):
    """Turns prompted regions into tokens for the early fusion (template) and for the decoder (sampled pixels)."""

    def __init__(self, config: GleeConfig, channels: list[int]):
        super().__init__()
        size = config.hidden_size
        if config.template_fuser:
            self.template_convs = nn.ModuleList([nn.Conv2d(width, size, 3, padding=1) for width in channels[1:]])
        self.level_projections = nn.ModuleList([nn.Linear(size, size, bias=False) for _ in range(NUM_LEVELS)])
        self.indicator = nn.Embedding(2, size)  # row 0: the object; row 1: what is not the object, never used

    def template(
        self, images: torch.Tensor, visual: GleeVisualPrompts, backbone: nn.Module, template_size: int
    ) -> torch.Tensor:
        """
        Computes the early fusion's tokens of prompts.

        Args:
            images: of each prompt, `(prompts, 3, height, width)`.
            visual: the prompts.
            backbone: of the model.
            template_size: side of the crops in pixels.

        Returns:
            `(prompts, tokens, hidden_size)`.
        """
        masks, types, places = visual.masks, visual.types, None
        if visual.sources is not None:  # templates of label queries are not used here
            sources, places = visual.sources.unique(return_inverse=True)
            images, masks, types = images[sources], masks[sources], types[sources]
        crops = template_crops(images, masks, types, template_size)
        with torch.no_grad():  # as published: the backbone learns from whole images only
            feature_maps = backbone(crops, return_dict=True).feature_maps
        tokens = self.template_tokens(feature_maps)
        return tokens if places is None else tokens[places]

    def template_tokens(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """
        Turns the backbone's maps of the template crops into tokens for the early fusion.

        The maps at three strides are projected to `hidden_size`, enlarged to the finest of them, and added.

        Args:
            feature_maps: finest first, each `(prompts, channels, height, width)`; the first one isn't used.

        Returns:
            `(prompts, height * width, hidden_size)` of the second map.
        """
        levels = zip((1, 2, 4), self.template_convs, feature_maps[1:])
        fused = reduce(
            torch.add, (aligned_upsample(conv(feature_map), factor) for factor, conv, feature_map in levels)
        )
        return fused.flatten(2).transpose(1, 2)

    def pixel_tokens(self, levels: list[torch.Tensor], points: torch.Tensor) -> list[torch.Tensor]:
        """
        Reads the pixel decoder's levels at the pixels of each prompt.

        Args:
            levels: finest first, each `(prompts, hidden_size, height, width)`.
            points: `(prompts, levels or 1, points, 2)`, (row, column) in [0, 1) of the padded image; absent ones < 0.

        Returns:
            for each level `(prompts, points, hidden_size)`; the tokens of absent points are meaningless.
        """
        grids = 2 * points.flip(-1) - 1  # (prompts, levels or 1, points, 2) as x, y in [-1, 1]
        grids = grids.expand(-1, max(len(levels), points.shape[1]), -1, -1)
        tokens = []
        for index, (level, projection) in enumerate(zip(levels, self.level_projections)):
            # A linear map of pixels and a weighted mean of pixels commute: sample first, it's less to project.
            sampled = nn.functional.grid_sample(level.float(), grids[:, index : index + 1].float(), align_corners=True)
            sampled = sampled[:, :, 0].transpose(1, 2).to(level.dtype)  # (prompts, points, hidden_size)
            tokens.append(projection(sampled) + self.indicator.weight[0])
        return tokens


def aligned_upsample(feature_map: torch.Tensor, factor: int) -> torch.Tensor:
    """
    Enlarges maps bilinearly by a whole factor, so that the old pixels are found at every `factor`-th place.

    Args:
        feature_map: `(batch, channels, height, width)`.
        factor: at least 1.

    Returns:
        `(batch, channels, factor * height, factor * width)`.
    """
    if factor == 1:
        return feature_map
    height, width = feature_map.shape[-2:]
    padded = nn.functional.pad(feature_map, (0, 1, 0, 1), mode="replicate")
    size = (factor * height + 1, factor * width + 1)
    upsampled = nn.functional.interpolate(padded, size=size, mode="bilinear", align_corners=True)
    half = factor // 2
    upsampled = nn.functional.pad(upsampled, (half, 0, half, 0), mode="replicate")
    return upsampled[:, :, : factor * height, : factor * width]


def choose_points(masks: torch.Tensor, max_points: int, random: bool = False) -> torch.Tensor:
    """
    Chooses at most `max_points` pixels of each prompt: all, or evenly spaced ones row by row, or random ones.

    Args:
        masks: `(prompts, height, width)` bool.
        max_points: at least 1.
        random: for training; by default equal masks give equal points, so that results can be repeated.

    Returns:
        `(prompts, 1, points, 2)` float32, (row / height, column / width); absent ones are -1.
    """
    height, width = masks.shape[-2:]
    chosen = [_choose(mask.flatten().nonzero()[:, 0], max_points, random) for mask in masks]
    points = torch.full((len(masks), max(len(index) for index in chosen), 2), -1.0, device=masks.device)
    for row, index in zip(points, chosen):
        row[: len(index), 0] = (index // width) / height
        row[: len(index), 1] = (index % width) / width
    return points[:, None]


def _choose(index: torch.Tensor, max_points: int, random: bool) -> torch.Tensor:
    if len(index) <= max_points:
        return index
    if random:
        return index[torch.randperm(len(index), device=index.device)[:max_points]]
    return index[torch.arange(max_points, device=index.device) * len(index) // max_points]


def template_crops(
    images: torch.Tensor, masks: torch.Tensor, prompt_types: torch.Tensor, template_size: int
) -> torch.Tensor:
    """
    Crops the square around each prompted object, twice as wide as the object, and resizes it.

    Inside a point's or scribble's region 1 is added to the normalised image, so that the crop shows it.

    Args:
        images: `(prompts, 3, height, width)`, normalised.
        masks: `(prompts, height, width)` bool.
        prompt_types: `(prompts,)`: `MASK`, `BOX`, `POINT` or `SCRIBBLE`.
        template_size: side of the result in pixels.

    Returns:
        `(prompts, 3, template_size, template_size)`.
    """
    drawn = (prompt_types == POINT) | (prompt_types == SCRIBBLE)
    images = images + (masks & drawn[:, None, None])[:, None].to(images.dtype)
    crops = []
    for image, box in zip(images, _mask_boxes(masks)):
        x0, y0, x1, y1 = _template_square(*box)
        crop = image[:, y0:y1, x0:x1]
        crop = crop if crop.numel() else image
        size = (template_size, template_size)
        crops.append(nn.functional.interpolate(crop[None], size=size, mode="bilinear", align_corners=False))
    return torch.cat(crops)


def _mask_boxes(masks: torch.Tensor) -> list[list[int]]:
    """Finds the first and last column and row of each mask, as x0, y0, x1, y1 (all inclusive)."""
    columns, rows = masks.any(dim=1).int(), masks.any(dim=2).int()  # (prompts, width), (prompts, height)
    first = [columns.argmax(dim=1), rows.argmax(dim=1)]
    last = [axis.shape[1] - 1 - axis.flip(1).argmax(dim=1) for axis in (columns, rows)]
    return torch.stack(first + last, dim=1).tolist()


def _template_square(x0: int, y0: int, x1: int, y1: int) -> tuple[int, int, int, int]:
    """Moves the square into the image at the left and top edges; at the others, slicing will cut it off."""
    width, height = x1 - x0, y1 - y0
    side = math.ceil(2 * math.sqrt(width * height))
    left = max(0, round(x0 + 0.5 * width - 0.5 * side))
    top = max(0, round(y0 + 0.5 * height - 0.5 * side))
    return left, top, left + side, top + side

"""Flips, resizes and crops pictures with their boxes, masks and sentences, by torchvision's v2 transforms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms.v2 import functional

from lookhear.processing.glee.geometry_glee import resized_size
from lookhear.training.glee.corpora.masks import Size
from lookhear.training.glee.corpora.picture import Picture, drop_vanished, resize_masks
from lookhear.training.recipe_reading import Ascending, Count, Positive, Share

SIDES = re.compile(r"\b(left|right)(?=(?:most|hand|ward|wards|side|er|s)?\b)", re.IGNORECASE)
OTHER_SIDE = {"left": "right", "right": "left"}
PLACES = re.compile(
    r"\b(?:left|right|top|bottom|upper|lower|middle|cent(?:er|re)|corner|edge|first|second|third|fourth|fifth|last|"
    r"[1-9](?:st|nd|rd|th))(?:most|hand|side|er)?\b",
    re.IGNORECASE,
)


@dataclass
class AugmentationRecipe:
    """
    How a picture is augmented before it is trained on. The defaults are those of GLEE-Lite and -Plus.

    Attributes:
        flip: probability that the picture is mirrored, in [0, 1]. In sentences "left" and "right" change places.
        shortest_edges: lengths in pixels of the shorter side, one of which is chosen at random; empty keeps the size.
        longest_edge: most pixels of the longer side.
        crop: probability that a part is cut out, in [0, 1]; objects outside it are dropped.
        crop_edges: lengths in pixels of the shorter side before a part is cut out, one of which is chosen at random.
        crop_window: least and most pixels of the sides of that part, which is then resized as a whole picture would
            be.
        jitter: least and most scale, above 0, of large-scale jittering, which replaces all of the above but `flip`;
            GLEE-Pro's is (0.1, 2.0).
        canvas: side in pixels of the square that `jitter` scales to, and that the result is cropped to.
    """

    flip: Share = 0.5
    shortest_edges: list[Count] = field(default_factory=lambda: list(range(480, 801, 32)))
    longest_edge: Count = 1333
    crop: Share = 0.5
    crop_edges: list[Count] = field(default_factory=lambda: [400, 500, 600])
    crop_window: Annotated[tuple[Count, Count], Ascending()] = (384, 600)
    jitter: Annotated[tuple[Positive, Positive], Ascending()] | None = None
    canvas: Count = 1536

    def largest_needed(self) -> int | None:
        """Returns the longest shorter side, in pixels, that any augmentation uses; None: there is no limit."""
        if self.jitter is not None or not self.shortest_edges:
            return None
        return max([*self.shortest_edges, *self.crop_edges])


@dataclass(frozen=True)
class Flip:
    """Mirrors a picture, and left and right in its sentences."""

    def __call__(self, picture: Picture) -> Picture:
        mirrored = tuple((mirror_words(text), named) for text, named in picture.expressions)
        return replace(_each(picture, functional.horizontal_flip), expressions=mirrored)


@dataclass(frozen=True)
class Resize:
    """Resizes bilinearly to `size` (height, width); masks by the pixel nearest to the centre of the new one."""

    size: Size

    def __call__(self, picture: Picture) -> Picture:
        if self.size == picture.size:
            return picture
        masks = picture.masks
        if masks is not None:  # torchvision's own rule shifts masks by half a pixel
            masks = tv_tensors.Mask(torch.from_numpy(resize_masks(masks.numpy(), self.size)))
        image, boxes = (functional.resize(p, list(self.size), antialias=True) for p in (picture.image, picture.boxes))
        return replace(picture, image=image, boxes=boxes, masks=masks)


@dataclass(frozen=True)
class Crop:
    """
    Crops to the window at (top, left) of `size` (height, width). Boxes shrink to the visible part of their objects.
    """

    top: int
    left: int
    size: Size

    def __call__(self, picture: Picture) -> Picture:
        cut = _each(picture, lambda part: functional.crop(part, self.top, self.left, *self.size))
        boxes = functional.clamp_bounding_boxes(cut.boxes)
        if cut.masks is not None and len(cut):
            seen = cut.masks.flatten(1).any(dim=1).bool()
            tight = masks_to_boxes(cut.masks[seen])  # to the last pixels, not to their far edges
            boxes = boxes.clone()
            boxes[seen] = tight + torch.tensor([0.0, 0.0, 1.0, 1.0])
            boxes[~seen] = 0.0
            boxes = tv_tensors.wrap(boxes, like=cut.boxes)
        return drop_vanished(replace(cut, boxes=boxes))


Step = Flip | Resize | Crop


def augment(pictures: Sequence[Picture], recipe: AugmentationRecipe, random: np.random.Generator) -> list[Picture]:
    """
    Augments pictures, all in the same way: the frames of a video, or one still.

    Pictures are not cropped if a sentence names a place in the picture ("left", "second"), or if no object, or no
    sentence, would be left in any of them.
    """
    seed = int(random.integers(2**63))
    if not any(speaks_of_place(text) for picture in pictures for text, _ in picture.expressions):
        changed = [_apply(picture, recipe, seed, True) for picture in pictures]
        objects = any(map(len, changed)) or not any(map(len, pictures))
        sentences = any(p.expressions for p in changed) or not any(p.expressions for p in pictures)
        if objects and sentences:
            return changed
    return [_apply(picture, recipe, seed, False) for picture in pictures]


def draw_steps(
    recipe: AugmentationRecipe, random: np.random.Generator, size: Size, may_crop: bool = True
) -> list[Step]:
    """Chooses the augmentations of a picture of `size`; the same random numbers give the same steps."""
    steps: list[Step] = [Flip()] if random.random() < recipe.flip else []
    if recipe.jitter is not None:
        return steps + _jitter(recipe, recipe.jitter, random, size, may_crop)
    crop = random.random() < recipe.crop
    if crop and may_crop:
        size = resized_size(size, int(random.choice(recipe.crop_edges)))
        least, most = recipe.crop_window
        height, width = (int(random.integers(min(side, least), min(side, most) + 1)) for side in size)
        window = height, width
        steps += [Resize(size), _window(random, size, window)]
        size = window
    if recipe.shortest_edges:
        edge = int(random.choice(recipe.shortest_edges))
        steps.append(Resize(resized_size(size, edge, recipe.longest_edge)))
    return steps


def mirror_words(text: str) -> str:
    """
    Exchanges left and right in a sentence, for the mirrored picture; the letters' case stays.

    Example:

    ```python
    >>> mirror_words("Leftmost bright cup, on the RIGHT-hand side")
    'Rightmost bright cup, on the LEFT-hand side'
    ```
    """

    def other(found: re.Match) -> str:
        word = found[0]
        swapped = OTHER_SIDE[word.lower()]
        if word.isupper():
            return swapped.upper()
        return swapped.capitalize() if word[0].isupper() else swapped

    return SIDES.sub(other, text)


def speaks_of_place(text: str) -> bool:
    """Whether a sentence names a place or a rank, which may be wrong after a crop."""
    return PLACES.search(text) is not None


def _apply(picture: Picture, recipe: AugmentationRecipe, seed: int, may_crop: bool) -> Picture:
    for step in draw_steps(recipe, np.random.default_rng(seed), picture.size, may_crop):
        picture = step(picture)
    return drop_vanished(picture)


def _jitter(
    recipe: AugmentationRecipe, factors: tuple[float, float], random: np.random.Generator, size: Size, may_crop: bool
) -> list[Step]:
    """Scales into a square of `canvas` times a factor between the two; parts outside the canvas are cut off."""
    factor = random.uniform(*factors)
    edge = recipe.canvas * (factor if may_crop else min(factor, 1.0))
    scale = min(edge / size[0], edge / size[1])
    scaled = max(2, round(size[0] * scale)), max(2, round(size[1] * scale))
    window = min(scaled[0], recipe.canvas), min(scaled[1], recipe.canvas)
    steps: list[Step] = [Resize(scaled)]
    return steps + [_window(random, scaled, window)] if window != scaled else steps


def _window(random: np.random.Generator, size: Size, window: Size) -> Crop:
    top, left = (int(random.integers(side - part + 1)) for side, part in zip(size, window))
    return Crop(top, left, window)


def _each(picture: Picture, change) -> Picture:
    """Applies `change` to the image, the boxes and the masks."""
    return replace(
        picture,
        image=change(picture.image),
        boxes=change(picture.boxes),
        masks=None if picture.masks is None else change(picture.masks),
    )

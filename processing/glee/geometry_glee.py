"""Prompts as they are passed, and sizes of images, boxes and masks from the picture to the padded image and back.

An image of `(height, width)` pixels is resized, then padded at the right and at the bottom to the image that the
network sees. Points and boxes are continuous pixel coordinates: the left edge of the picture is 0, its right edge
`width`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

Size = tuple[int, int]  # (height, width) in pixels
BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")


def resized_size(image_size: Size, shortest_edge: float, longest_edge: float = math.inf) -> Size:
    """
    Computes the size of a resized image.

    Its aspect ratio is the same. Sides are rounded to the nearest pixel, halves up, and are at least 1.

    Args:
        image_size: of the image.
        shortest_edge: length of the short side in pixels; less, if the long side would exceed `longest_edge`.
        longest_edge: maximum length of the long side in pixels.

    Example:

    ```python
    >>> resized_size((480, 640), 800, 1333)
    (800, 1067)
    ```
    """
    height, width = image_size
    short, long = float(shortest_edge), shortest_edge / min(image_size) * max(image_size)
    if long > longest_edge:
        short, long = short * (longest_edge / long), float(longest_edge)
    short, long = max(1, int(short + 0.5)), max(1, int(long + 0.5))
    return (short, long) if height < width else (long, short)


def padded_size(image_sizes: list[Size], divisor: int = 1) -> Size:
    """Computes the smallest size that holds every image, each side rounded up to a multiple of `divisor`."""
    height, width = (max(sides) for sides in zip(*image_sizes))
    return math.ceil(height / divisor) * divisor, math.ceil(width / divisor) * divisor


def scale_points(points: np.ndarray, from_size: Size, to_size: Size) -> np.ndarray:
    """Converts `(..., 2)` points (x, y), or `(..., 4)` boxes (x0, y0, x1, y1), from pixels of one size to those of
    another."""
    scale = np.array([to_size[1] / from_size[1], to_size[0] / from_size[0]])
    return points * np.tile(scale, points.shape[-1] // 2)


def resize_mask(mask: np.ndarray, to_size: Size) -> np.ndarray:
    """
    Resizes a `(height, width)` bool mask, each pixel by the nearest one's value.

    If no pixel would be left, as of a line that is thinner than a new pixel, every pixel of the mask marks the new one
    it falls into instead.
    """
    rows, columns = (_nearest(length, new) for length, new in zip(mask.shape, to_size))
    resized = mask[np.ix_(rows, columns)]
    if mask.any() and not resized.any():
        y, x = np.nonzero(mask)
        resized[y * to_size[0] // mask.shape[0], x * to_size[1] // mask.shape[1]] = True
    return resized


def _nearest(length: int, new: int) -> np.ndarray:
    """Finds the index of the old pixel under the centre of each new one, `(new,)`."""
    return ((np.arange(new) + 0.5) * length / new).astype(np.int64)


def boxes_to_picture(boxes: torch.Tensor, padded_size: Size, image_size: Size, target_size: Size) -> torch.Tensor:
    """
    Converts boxes from the padded image to the picture.

    Args:
        boxes: `(..., 4)`, (centre x, centre y, width, height) relative to the padded image.
        padded_size: of the padded image.
        image_size: of the part of it that is not padding.
        target_size: of the picture; `(1, 1)` gives boxes relative to it.

    Returns:
        `(..., 4)`, (x0, y0, x1, y1) in pixels of the picture.
    """
    x, y, width, height = boxes.unbind(-1)
    corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1)
    scale_x = padded_size[1] / image_size[1] * target_size[1]
    scale_y = padded_size[0] / image_size[0] * target_size[0]
    return corners * corners.new_tensor([scale_x, scale_y, scale_x, scale_y])


def masks_to_picture(masks: torch.Tensor, padded_size: Size, image_size: Size, target_size: Size) -> torch.Tensor:
    """
    Converts mask logits from the padded image to the picture.

    They are enlarged to the padded image, cropped to the part that is not padding, and resized to the picture, both
    times bilinearly.

    Args:
        masks: `(n, h, w)` logits over the padded image.
        padded_size: of the padded image.
        image_size: of the part of it that is not padding.
        target_size: of the picture.

    Returns:
        `(n, height, width)` logits.
    """
    logits = F.interpolate(masks[:, None], size=padded_size, mode="bilinear", align_corners=False)
    logits = logits[..., : image_size[0], : image_size[1]]
    if target_size != image_size:
        logits = F.interpolate(logits, size=target_size, mode="bilinear", align_corners=False)
    return logits[:, 0]


def plain_prompt(name: str, prompt: Any) -> Any:
    """
    Converts the prompt of one object to nested lists of numbers, or leaves it as it is where it is of pixels.

    Args:
        name: "points", "boxes", "scribbles" or "masks".
        prompt: lists or tuples, arrays, tensors on any device, or lists of those; of "boxes" also `{"xmin", "ymin",
            "xmax", "ymax"}`; and a result of the pipeline `object-perception` that has such a box, or a mask.
    """
    if isinstance(prompt, Mapping):
        prompt = prompt.get({"boxes": "box", "masks": "mask", "scribbles": "mask"}.get(name, ""), prompt)
    if isinstance(prompt, Mapping) and name == "boxes" and set(BOX_SIDES) <= set(prompt):
        prompt = [prompt[side] for side in BOX_SIDES]
    if name == "masks" or (name == "scribbles" and is_mask(prompt)):
        return prompt
    return _lists(prompt)


def _lists(value: Any) -> Any:
    """Converts arrays and tensors, also those in lists, to lists."""
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return value.tolist()
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def is_mask(value: Any) -> bool:
    """Returns whether a prompt is a picture of pixels rather than a list of coordinates."""
    if isinstance(value, Image.Image):
        return True
    if not isinstance(value, (np.ndarray, torch.Tensor)) or value.ndim != 2:
        return False
    return value.shape[1] != 2 or value.dtype in (bool, torch.bool)

"""Points, boxes, scribbles and masks as the pixels they mean: bool pictures of the size that the network sees.

Each function takes one object's prompt in pixels of the picture, `image_size` (height, width) of the picture, and
`resized_size` that the result has. Each raises a ValueError that says what is wrong with the prompt, without its name.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from .geometry_glee import Size, resize_mask, scale_points

POINT_FRACTION = 40  # a point stands for a 40th of the image to each side
SCRIBBLE_FRACTION = 100  # a drawn line is a 100th of the short side wide
SCRIBBLE_WIDTH = 3  # pixels, at least


def draw_points(points: Any, image_size: Size, resized_size: Size) -> np.ndarray:
    """(n, 2) points (x, y) of one object: a rectangle round each."""
    points = _coordinates(points, "a list of (x, y) points", 2)
    for x, y in points:
        if not (0 <= x < image_size[1] and 0 <= y < image_size[0]):
            raise ValueError(
                f"the point ({x:g}, {y:g}) is outside of the image of width {image_size[1]} and height {image_size[0]}"
            )
    height, width = resized_size
    reach_y, reach_x = max(1, height // POINT_FRACTION), max(1, width // POINT_FRACTION)
    drawn = np.zeros(resized_size, dtype=bool)
    for x, y in scale_points(points, image_size, resized_size).astype(int):
        drawn[max(0, y - reach_y) : y + reach_y + 1, max(0, x - reach_x) : x + reach_x + 1] = True
    return drawn


def draw_box(box: Any, image_size: Size, resized_size: Size) -> np.ndarray:
    """A box (x0, y0, x1, y1), filled; x1 and y1 are the first pixels beyond it. What leaves the image is cut off."""
    corners = _coordinates([box], "four numbers (x0, y0, x1, y1)", 4)
    x0, y0, x1, y1 = corners[0]
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) has no area: x0 < x1 and y0 < y1 must hold")
    if x1 <= 0 or y1 <= 0 or x0 >= image_size[1] or y0 >= image_size[0]:
        raise ValueError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is outside of the image of width {image_size[1]} and height "
            f"{image_size[0]}"
        )
    x0, y0, x1, y1 = scale_points(corners, image_size, resized_size)[0]
    drawn = np.zeros(resized_size, dtype=bool)
    drawn[_pixels(y0, y1, resized_size[0]), _pixels(x0, x1, resized_size[1])] = True
    return drawn


def draw_scribble(scribble: Any, image_size: Size, resized_size: Size) -> np.ndarray:
    """A line through (n, 2) points (x, y), or the pixels of an (H, W) bool picture of the image's size."""
    if is_mask(scribble):
        return draw_mask(scribble, image_size, resized_size)
    points = _coordinates(scribble, "a line of (x, y) points, or a bool array as large as the image", 2)
    line = [(x, y) for x, y in scale_points(points, image_size, resized_size)]
    width = max(SCRIBBLE_WIDTH, round(min(resized_size) / SCRIBBLE_FRACTION))
    canvas = Image.new("1", resized_size[::-1])
    pen = ImageDraw.Draw(canvas)
    pen.line(line, fill=1, width=width, joint="curve")
    for x, y in (line[0], line[-1]):  # round ends; a line of one point is a dot
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=1)
    drawn = np.array(canvas)
    if not drawn.any():
        raise ValueError(
            f"the line is outside of the image of width {image_size[1]} and height {image_size[0]}: its points must be "
            "(x, y) in pixels of the image"
        )
    return drawn


def draw_mask(mask: Any, image_size: Size, resized_size: Size) -> np.ndarray:
    """(H, W) bool, or integers that are 0 outside of the object, of the image's size; resized by the nearest pixel."""
    if not is_mask(mask):
        raise ValueError("it must be a bool array (height, width) as large as the image")
    mask = _as_array(mask)
    if mask.dtype != bool and not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"it must be bool, or integers that are 0 outside of the object, got {mask.dtype}")
    if mask.shape != tuple(image_size):
        raise ValueError(f"its size is {mask.shape}, but the image's (height, width) is {tuple(image_size)}")
    if not mask.any():
        raise ValueError("it marks no pixel")
    return resize_mask(mask != 0, resized_size)


def is_mask(value: Any) -> bool:
    """Whether a prompt is a picture of pixels rather than a list of coordinates."""
    if isinstance(value, Image.Image):
        return True
    if not isinstance(value, (np.ndarray, torch.Tensor)) or value.ndim != 2:
        return False
    return value.shape[1] != 2 or value.dtype in (bool, torch.bool)


def _coordinates(value: Any, form: str, columns: int) -> np.ndarray:
    """(n, columns) float64 of any nested lists or arrays, n at least 1."""
    try:
        array = np.asarray(_as_array(value), dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] != columns:
        raise ValueError(f"it must be {form} in pixels of the image")
    if not np.isfinite(array).all():
        raise ValueError("it has NaN or infinite coordinates")
    return array


def _as_array(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value) if isinstance(value, Image.Image) else value


def _pixels(low: float, high: float, length: int) -> slice:
    """The pixels from `low` to `high`, at least one of them, inside of `length`."""
    first = min(max(0, math.floor(low + 0.5)), length - 1)
    return slice(first, max(first + 1, math.floor(high + 0.5)))

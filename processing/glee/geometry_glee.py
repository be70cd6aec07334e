"""Prompts as they are passed, and sizes of images, boxes and masks from the picture to the padded image and back;
masks as COCO's run lengths, plain and compressed, as pycocotools has them, and as polygons.

An image of `(height, width)` pixels is resized, then padded at the right and at the bottom to the image that the
network sees. Points and boxes are continuous pixel coordinates: the left edge of the picture is 0, its right edge
`width`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

Size = tuple[int, int]  # (height, width) in pixels
BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")
PIXELS_AT_ONCE = 1 << 24  # of masks that an accelerator enlarges together


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
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    scale_x = padded_size[1] / image_size[1] * target_size[1]
    scale_y = padded_size[0] / image_size[0] * target_size[0]
    return torch.stack([left * scale_x, top * scale_y, right * scale_x, bottom * scale_y], dim=-1)


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


def in_parts(masks: torch.Tensor, *sizes: Size) -> Iterator[slice]:
    """
    Splits n masks into those that are enlarged together.

    Args:
        masks: `(n, h, w)`.
        sizes: to which they are enlarged, one after the other.

    Yields:
        slices of n: of one mask each on a CPU, whose cache it stays in; of `PIXELS_AT_ONCE` on an accelerator.
    """
    pixels = max(height * width for height, width in sizes)
    step = 1 if masks.device.type == "cpu" else max(1, PIXELS_AT_ONCE // pixels)
    return (slice(first, first + step) for first in range(0, len(masks), step))


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


# ------------------------------------------------------------------------------------------ masks as run lengths


def coco_rle(mask: np.ndarray) -> dict[str, Any]:
    """
    Encodes a mask in COCO's compressed run lengths, as pycocotools reads them.

    Args:
        mask: `(height, width)` bool.

    Returns:
        `{"size": [height, width], "counts": text}`.
    """
    return {"size": list(mask.shape), "counts": compress_runs(run_lengths(mask))}


def run_lengths(mask: np.ndarray) -> list[int]:
    """Encodes a `(height, width)` bool mask in COCO's plain run lengths: column by column, the first run is of
    False."""
    return _lengths(np.asarray(mask, bool)).tolist()


def _lengths(mask: np.ndarray) -> np.ndarray:
    """Computes run lengths, `(n,)` int64, from the part of the mask that holds all its pixels: most are small."""
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return np.array([mask.size], dtype=np.int64)
    left, right = columns[0], columns[-1] + 1
    rows = np.flatnonzero(mask[:, left:right].any(axis=1))
    top, bottom = rows[0], rows[-1] + 1
    part = np.zeros((right - left, bottom - top + 2), dtype=bool)  # its columns as rows, each between two False
    part[:, 1:-1] = mask[top:bottom, left:right].T
    column, row = np.nonzero(part[:, 1:] != part[:, :-1])
    edges = (left + column) * height + top + row  # where runs of True begin and end, in turn
    ends, begins = edges[1:-1:2], edges[2::2]
    apart = ends != begins  # a run that reaches the bottom may go on at the top of the next column
    edges = np.concatenate((edges[:1], np.stack((ends[apart], begins[apart]), axis=1).ravel(), edges[-1:]))
    lengths = np.diff(edges, prepend=0, append=mask.size)
    return lengths[:-1] if edges[-1] == mask.size else lengths


class RunLengthMask:
    """
    A mask that is stored as run lengths; a few kilobytes, where its pixels would fill megabytes.

    Args:
        mask: `(height, width)` bool.
    """

    def __init__(self, mask: np.ndarray):
        self.shape = mask.shape
        self.lengths = _lengths(mask).astype(np.int32 if mask.size < 2**31 else np.int64)

    def decode(self) -> np.ndarray:
        """Returns the mask, `(height, width)` bool, a new array each time."""
        return mask_of_runs(self.lengths, self.shape)


@dataclass(frozen=True)
class PackedMask:
    """
    A mask that is still on an accelerator.

    Attributes:
        bits: `(height, ceil(width / 8))` uint8, the first of eight pixels in the highest bit.
        width: of the mask in pixels.
    """

    bits: torch.Tensor
    width: int


def store_masks(masks: torch.Tensor) -> list[RunLengthMask | PackedMask]:
    """Encodes `(n, height, width)` bool masks on a CPU; packs them on an accelerator, see `fetch_masks`."""
    if masks.device.type == "cpu":
        return [RunLengthMask(mask.numpy()) for mask in masks]
    width = masks.shape[-1]
    eights = F.pad(masks.to(torch.uint8), (0, -width % 8)).unflatten(-1, (-1, 8))
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=masks.device)
    packed = (eights << shifts).sum(dim=-1, dtype=torch.uint8)
    return [PackedMask(bits, width) for bits in packed]


def fetch_masks(masks: Sequence[RunLengthMask | PackedMask]) -> list[RunLengthMask]:
    """Encodes the masks that are still on an accelerator; all of them reach the host in one copy."""
    waiting = [(place, mask) for place, mask in enumerate(masks) if isinstance(mask, PackedMask)]
    found: dict[int, RunLengthMask] = {}
    for (place, mask), bits in zip(waiting, on_host([mask.bits for _, mask in waiting])):
        pixels = np.unpackbits(bits.numpy(), axis=1, count=mask.width).view(bool)
        found[place] = RunLengthMask(pixels)
    return [found[place] if isinstance(mask, PackedMask) else mask for place, mask in enumerate(masks)]


def on_host(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies tensors of one dtype to the host, all of them in one copy; leaves those of a CPU as they are."""
    if not tensors or tensors[0].device.type == "cpu":
        return list(tensors)
    counts = [tensor.numel() for tensor in tensors]
    numbers = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
    return [part.view(tensor.shape) for part, tensor in zip(numbers.split(counts), tensors)]


def compress_runs(lengths: Sequence[int]) -> str:
    """
    Encodes run lengths as COCO's text.

    From the fourth on, a run is written as its difference to the one two before. Numbers are split into groups of 5
    bits, the lowest first; each group is the character of code 48 + group, plus 32 if another group follows. The
    highest bit of the last group is the sign.
    """
    text = []
    for place, length in enumerate(lengths):
        number = length - lengths[place - 2] if place > 2 else length
        while True:
            group, number = number & 31, number >> 5
            last = number == (-1 if group & 16 else 0)
            text.append(chr(48 + group + (0 if last else 32)))
            if last:
                break
    return "".join(text)


def expand_runs(text: str) -> np.ndarray:
    """
    Decodes run lengths from COCO's text.

    Args:
        text: as `compress_runs` returns it.

    Returns:
        `(n,)` int64.

    Raises:
        ValueError: the text has other characters, or ends within a number.
    """
    codes = np.frombuffer(text.encode("latin-1", errors="replace"), dtype=np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("run lengths are damaged: the string is cut short, or has characters that are not allowed")
    last = np.flatnonzero(codes & 32 == 0)  # the last group of each number
    starts = np.concatenate(([0], last[:-1] + 1))
    place = 5 * (np.arange(len(codes)) - np.repeat(starts, last - starts + 1))
    if place.max() > 50:
        raise ValueError("run lengths are damaged: a number has too many digits")
    lengths = np.add.reduceat((codes & 31) << place, starts)
    lengths -= np.where(codes[last] & 16 != 0, np.int64(1) << place[last] + 5, 0)
    lengths[1::2] = lengths[1::2].cumsum()
    lengths[2::2] = lengths[2::2].cumsum()
    return lengths


def mask_of_runs(lengths: Sequence[int] | np.ndarray, size: Sequence[int]) -> np.ndarray:
    """
    Decodes a mask from plain run lengths.

    Args:
        lengths: as `run_lengths` returns them.
        size: (height, width).

    Returns:
        `(height, width)` bool.

    Raises:
        ValueError: they do not add up to a mask of that size.
    """
    lengths, (height, width) = np.asarray(lengths, np.int64), size
    if lengths.sum() != height * width or (lengths < 0).any():
        raise ValueError(
            f"run lengths cover {lengths.sum()} pixels, but a mask of {height} x {width} has {height * width}"
        )
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def mask_of_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Decodes a `(height, width)` bool mask from compressed or plain run lengths; raises ValueError if they are
    damaged."""
    counts = rle["counts"]
    return mask_of_runs(expand_runs(counts) if isinstance(counts, str) else counts, rle["size"])


def fill_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """
    Fills the pixels whose centre lies in one of the polygons (`x0, y0, x1, y1, ...`, even-odd rule within a polygon).

    Parts thinner than a pixel may vanish.

    Args:
        polygons: lists of x and y in turn, in pixels.
        size: (height, width) of the picture.

    Returns:
        `(height, width)` bool.
    """
    height, width = size
    filled = np.zeros(size, dtype=bool)
    for polygon in polygons:
        points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        low = np.clip(np.floor(points.min(axis=0)), 0, (width, height)).astype(int)
        high = np.clip(np.ceil(points.max(axis=0)), 0, (width, height)).astype(int)
        window = filled[low[1] : high[1], low[0] : high[0]]
        if window.size:
            window |= _fill(points - low, *window.shape)
    return filled


def _fill(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fills a polygon: each edge toggles, in the rows that it crosses, all pixels right of it."""
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(int)  # rows whose centres it crosses
    end = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(int)
    crossed = end - first
    edge = np.repeat(np.arange(len(points)), crossed)
    rows = np.arange(crossed.sum()) - np.repeat(crossed.cumsum() - crossed, crossed) + first[edge]
    slope = (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    x = x0[edge] + (rows + 0.5 - y0[edge]) * slope
    columns = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    toggles = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1)).astype(np.uint8)
    return (toggles.reshape(height, width + 1).cumsum(axis=1, dtype=np.uint8)[:, :width] & 1).astype(bool)

"""Masks as COCO's run lengths, plain and compressed, as pycocotools has them, which inference doesn't need to
install, and as polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


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

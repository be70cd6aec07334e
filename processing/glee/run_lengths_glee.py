"""Masks as COCO's run lengths, plain and compressed, as pycocotools has them, which inference doesn't need to
install."""

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
    pixels = np.asarray(mask, bool).flatten(order="F")
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths = np.diff([0, *edges, len(pixels)]).tolist()
    return [0, *lengths] if len(pixels) and pixels[0] else lengths


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

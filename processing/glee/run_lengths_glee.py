"""Masks as COCO's run lengths, plain and compressed, without pycocotools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def coco_rle(mask: np.ndarray) -> dict[str, Any]:
    """
    A mask in COCO's compressed run lengths, as pycocotools reads them.

    Args:
        mask: `(height, width)` bool.
    Returns:
        `{"size": [height, width], "counts": text}`.
    """
    return {"size": list(mask.shape), "counts": compress_runs(run_lengths(mask))}


def run_lengths(mask: np.ndarray) -> list[int]:
    """`(height, width)` bool as COCO's uncompressed run lengths: column by column, the first run is of False."""
    pixels = np.asarray(mask, bool).flatten(order="F")
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths = np.diff([0, *edges, len(pixels)]).tolist()
    return [0, *lengths] if len(pixels) and pixels[0] else lengths


def compress_runs(lengths: Sequence[int]) -> str:
    """
    COCO's text for run lengths.

    From the fourth on a run is written as its difference to the one two before. Numbers are split into groups of 5 bits,
    the lowest first; a group is a character, 48 being added, and 32 where another group follows. The highest bit of the
    last group is the sign.
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


def expand_runs(text: str) -> list[int]:
    """Run lengths of COCO's text, the other way round."""
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        group = ord(character) - 48
        number |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    return lengths


def mask_of_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """`(height, width)` bool of `coco_rle`, or of uncompressed run lengths."""
    lengths = expand_runs(rle["counts"]) if isinstance(rle["counts"], str) else rle["counts"]
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(rle["size"], order="F")

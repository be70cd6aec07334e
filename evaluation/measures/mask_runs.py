"""Masks as COCO's run lengths: what metrics, prediction files and submissions hold instead of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

try:
    from pycocotools import mask as coco_mask
except ImportError:
    raise ImportError("masks as run lengths need pycocotools: pip install 'lookhear[eval]'") from None


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Returns `(height, width)` bool as `{"size": [height, width], "counts": str}`, COCO's compressed run lengths."""
    pixels = np.asarray(mask)
    if pixels.ndim != 2:
        raise ValueError(f"mask has to be (height, width), not of shape {pixels.shape}")
    runs = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def decode_mask(mask: Any, size: Sequence[int] | None = None) -> np.ndarray:
    """Decodes any mask that `to_runs` accepts to `(height, width)` bool."""
    return coco_mask.decode(to_runs(mask, size)).astype(bool)


def to_runs(mask: Any, size: Sequence[int] | None = None) -> dict[str, Any]:
    """
    Converts a mask of any form to pycocotools' run lengths: `{"size": [height, width], "counts": bytes}`.

    Args:
        mask: `(height, width)` bool; run lengths with `counts` compressed (text or bytes) or as a list of numbers; or
            COCO's polygons, a list of lists x, y, x, y, … in pixels.
        size: (height, width), needed for polygons.

    Raises:
        ValueError: it is none of these, or polygons come without a size.
    """
    if isinstance(mask, Mapping) and "counts" in mask and "size" in mask:
        height, width = (int(side) for side in mask["size"])
        counts = mask["counts"]
        if isinstance(counts, str):
            return {"size": [height, width], "counts": counts.encode("ascii")}
        if isinstance(counts, bytes):
            return {"size": [height, width], "counts": counts}
        return coco_mask.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
    if isinstance(mask, np.ndarray):
        return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    if isinstance(mask, Sequence) and not isinstance(mask, (str, bytes)):
        if size is None:
            raise ValueError("a mask of polygons needs the size (height, width) of its picture")
        polygons = [list(polygon) for polygon in mask if len(polygon) >= 6]
        if not polygons:
            return coco_mask.encode(np.zeros(tuple(size), np.uint8, order="F"))
        return coco_mask.merge(coco_mask.frPyObjects(polygons, *(int(side) for side in size)))
    raise ValueError(f"a mask has to be run lengths, polygons or a bool array, not {type(mask).__name__}")


def to_text(runs: Mapping[str, Any]) -> dict[str, Any]:
    """Converts pycocotools' run lengths to ones with the counts as text, for JSON and Arrow."""
    counts = runs["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in runs["size"]], "counts": text}


def mask_area(runs: Mapping[str, Any]) -> int:
    """Returns the pixels of a mask as `to_runs` gives it."""
    return int(coco_mask.area(runs))


def mask_ious(truth: Sequence[Any], found: Sequence[Any]) -> np.ndarray:
    """
    Computes the IoU of each pair of masks of one picture.

    Args:
        truth: g masks of any form that `to_runs` accepts.
        found: f such masks.

    Returns:
        `(g, f)` float64. Two empty masks have 0.
    """
    if not len(truth) or not len(found):
        return np.zeros((len(truth), len(found)))
    first, second = [to_runs(mask) for mask in truth], [to_runs(mask) for mask in found]
    sizes = {tuple(runs["size"]) for runs in (*first, *second)}
    if len(sizes) > 1:
        raise ValueError(f"masks of one picture differ in size: {' and '.join(map(str, sorted(sizes)))}")
    ious = coco_mask.iou(second, first, [0] * len(first)).T
    return np.nan_to_num(ious)


def box_ious(truth: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> np.ndarray:
    """
    Computes the IoU of each pair of boxes.

    Args:
        truth: `(g, 4)`, (x0, y0, x1, y1).
        found: `(f, 4)`, like `truth`.

    Returns:
        `(g, f)` float64; 0 where both boxes are without area.
    """
    first = np.asarray(truth, np.float64).reshape(-1, 1, 4)
    second = np.asarray(found, np.float64).reshape(1, -1, 4)
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.prod(np.maximum(sides, 0.0), axis=-1)  # (g, f)
    areas = [np.prod(np.maximum(box[..., 2:] - box[..., :2], 0.0), axis=-1) for box in (first, second)]
    union = areas[0] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)

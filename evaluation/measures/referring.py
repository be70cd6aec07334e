"""How well sentences are grounded: precision at IoU thresholds, overall IoU and mean IoU of boxes (REC) or masks
(RES).

Source: Yu et al.: Modeling context in referring expressions, ECCV 2016 (boxes are right from an IoU of 0.5 on), and
Hu, Rohrbach, Darrell: Segmentation from natural language expressions, ECCV 2016 (overall IoU: all intersections over
all unions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lookhear.evaluation.measures.mask_runs import coco_mask, mask_area, to_runs

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def box_overlaps(references: Sequence, predictions: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """
    Returns the intersection and union of each sentence's two boxes.

    Args:
        references: n boxes (x0, y0, x1, y1).
        predictions: n boxes, or None where none was found.

    Returns:
        Two `(n,)` float64, in square pixels.
    """
    _check(references, predictions)
    if any(box is None for box in references):
        raise ValueError("references: a sentence without a box; leave it out, or pass masks alone")
    nothing = [0.0] * 4
    first = np.asarray([nothing if box is None else box for box in references], np.float64).reshape(-1, 4)
    second = np.asarray([nothing if box is None else box for box in predictions], np.float64).reshape(-1, 4)
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    shared = np.prod(np.maximum(sides, 0.0), axis=1)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1) for boxes in (first, second)]
    return shared, areas[0] + areas[1] - shared


def mask_overlaps(
    references: Sequence, predictions: Sequence, ignored: Sequence | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """
    Computes the same for masks.

    Args:
        references: n masks: bool arrays or run lengths; None is an empty mask (a sentence about nothing).
        predictions: n masks, like `references`.
        ignored: n masks whose pixels count neither as intersection nor as union, like `references`; None for none.

    Returns:
        Two `(n,)` float64, in pixels.
    """
    _check(references, predictions)
    shared, union = np.zeros(len(references)), np.zeros(len(references))
    rows = zip(references, predictions, [None] * len(shared) if ignored is None else ignored, strict=True)
    for place, masks in enumerate(rows):
        runs = [None if mask is None else to_runs(mask) for mask in masks]
        sizes = {tuple(one["size"]) for one in runs if one is not None}
        if len(sizes) > 1:
            raise ValueError(f"sentence {place}: the two masks are of size {' and '.join(map(str, sorted(sizes)))}")
        areas = [_area(one, runs[2]) for one in runs[:2]]
        if runs[0] is not None and runs[1] is not None:
            shared[place] = _area(coco_mask.merge(runs[:2], True), runs[2])
        union[place] = sum(areas) - shared[place]
    return shared, union


def _area(runs: Mapping | None, ignored: Mapping | None) -> int:
    """Counts a mask's pixels, without those that are ignored."""
    if runs is None:
        return 0
    return mask_area(runs) - (mask_area(coco_mask.merge([runs, ignored], True)) if ignored is not None else 0)


def grounding_rates(shared: np.ndarray, union: np.ndarray) -> dict[str, float]:
    """
    Returns the rates of some sentences.

    Args:
        shared: `(n,)` intersections, from `box_overlaps` or `mask_overlaps`.
        union: `(n,)` unions. Where it is 0 both are empty and the answer is right: IoU 1.

    Returns:
        `P@0.5` … `P@0.9` (share of sentences with an IoU of that or more), `oIoU`, `mIoU`: fractions, NaN without
        sentences.
    """
    ious = np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
    if not len(ious):
        return dict.fromkeys([*(f"P@{threshold}" for threshold in THRESHOLDS), "oIoU", "mIoU"], float("nan"))
    rates = {f"P@{threshold}": float((ious >= threshold).mean()) for threshold in THRESHOLDS}
    overall = float(shared.sum() / union.sum()) if union.sum() else 1.0
    return rates | {"oIoU": overall, "mIoU": float(ious.mean())}


def referring_rates(references: Sequence[Mapping], predictions: Sequence[Mapping]) -> dict[str, float]:
    """
    Computes rates of boxes and of masks, whichever the sentences have.

    Args:
        references: of each sentence `{"box": (x0, y0, x1, y1), "mask": run lengths}`, either may be missing in all of
            them.
        predictions: the same; None is no answer.

    Returns:
        `grounding_rates` with `box_` and `mask_` in front, and `sentences`, their number.
    """
    _check(references, predictions)
    rates: dict[str, float] = {}
    for name, overlaps in (("box", box_overlaps), ("mask", mask_overlaps)):
        if any(row.get(name) is not None for row in references):
            truth, found = ([row.get(name) for row in rows] for rows in (references, predictions))
            rates |= {f"{name}_{key}": value for key, value in grounding_rates(*overlaps(truth, found)).items()}
    if not rates:
        raise ValueError("references have neither boxes nor masks: there is nothing to measure")
    return rates | {"sentences": len(references)}


def _check(references: Sequence, predictions: Sequence) -> None:
    if len(references) != len(predictions):
        raise ValueError(f"references ({len(references)}) and predictions ({len(predictions)}) differ in number")

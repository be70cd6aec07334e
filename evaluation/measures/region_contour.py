"""J and F, DAVIS' measures of a mask that is followed through a video: region similarity and contour accuracy.

Source: Perazzi et al.: A benchmark dataset and evaluation methodology for video object segmentation, CVPR 2016;
Pont-Tuset et al.: The 2017 DAVIS challenge, arXiv 1704.00675. As in the published evaluation, two contours match
within a distance of 0.008 of the picture's diagonal, found by dilation with a disk instead of an assignment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

CONTOUR_REACH = 0.008  # of the diagonal
RECALL_FROM = 0.5  # a frame of at least this value is recalled
PARTS = 4  # of a video, for the decay


@dataclass(frozen=True)
class TrackQuality:
    """J and F of one object, `(frames,)` float64 each, 0 to 1."""

    region: np.ndarray
    contour: np.ndarray

    def rates(self) -> dict[str, float]:
        """Returns `J`, `J_recall`, `J_decay`, the same for F, and `J&F`."""
        region, contour = track_rates(self.region), track_rates(self.contour)
        rates = {f"J{end}": value for end, value in region.items()} | {
            f"F{end}": value for end, value in contour.items()
        }
        return {"J&F": (rates["J"] + rates["F"]) / 2, **rates}


def track_quality(references: Iterable[Any], predictions: Iterable[Any], whole: bool = False) -> TrackQuality:
    """
    Computes J and F of one object in each frame that counts.

    Args:
        references: the true masks, one per frame: `(height, width)` bool, what `mask_runs.decode_mask` takes, or None
            for nothing. They are read one after the other.
        predictions: the found masks, in the same form.
        whole: count all frames. False leaves out the first, which was given, and the last, as DAVIS does.

    Raises:
        ValueError: the two have different numbers of frames, or of pixels.
    """
    region, contour = [], []
    for place, (truth, found) in enumerate(zip(references, predictions, strict=True)):
        truth, found = _same_size(truth, found, place)
        region.append(region_similarity(truth, found))
        contour.append(contour_accuracy(truth, found))
    kept = slice(None) if whole else slice(1, -1)
    return TrackQuality(np.array(region, np.float64)[kept], np.array(contour, np.float64)[kept])


def region_similarity(truth: np.ndarray | None, found: np.ndarray | None) -> float:
    """Computes J: intersection over union of two masks `(height, width)` bool; 1 if both are empty."""
    if truth is None or found is None:
        return 1.0
    union = np.count_nonzero(truth | found)
    return np.count_nonzero(truth & found) / union if union else 1.0


def contour_accuracy(truth: np.ndarray | None, found: np.ndarray | None, reach: float = CONTOUR_REACH) -> float:
    """
    Computes F: harmonic mean of the share of the found contour near the true one, and of the true near the found one.

    Args:
        truth: `(height, width)` bool.
        found: `(height, width)` bool.
        reach: how near; a share of the diagonal below 1, rounded up to whole pixels, or pixels.

    Returns:
        0 to 1; 1 if neither has a contour.
    """
    if truth is None or found is None:
        return 1.0
    pixels = reach if reach >= 1 else float(np.ceil(reach * np.linalg.norm(truth.shape)))
    true_contour, found_contour = contour_pixels(truth), contour_pixels(found)
    total, given = np.count_nonzero(true_contour), np.count_nonzero(found_contour)
    if not total or not given:  # an empty side has a share of 1 on its own contour and the other one of 0
        return float(total == given)
    precision = np.count_nonzero(found_contour & near(true_contour, pixels)) / given
    recall = np.count_nonzero(true_contour & near(found_contour, pixels)) / total
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def contour_pixels(mask: np.ndarray) -> np.ndarray:
    """Finds pixels that differ from the right, lower or lower right neighbour; the picture's edge is no contour."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return (here ^ padded[:-1, 1:]) | (here ^ padded[1:, :-1]) | (here ^ padded[1:, 1:])


def near(contour: np.ndarray, pixels: float) -> np.ndarray:
    """Finds pixels within a distance of a contour: its dilation with a disk. Only the part around it is computed."""
    result = np.zeros(contour.shape, bool)
    margin = int(np.ceil(pixels))
    spans = [np.flatnonzero(contour.any(axis=1 - axis)) for axis in (0, 1)]
    part = tuple(slice(max(span[0] - margin, 0), span[-1] + margin + 1) for span in spans)
    result[part] = ndimage.distance_transform_edt(~contour[part]) <= pixels
    return result


def track_rates(values: np.ndarray) -> dict[str, float]:
    """
    Computes the statistics of one measure of one object.

    Args:
        values: `(frames,)`.

    Returns:
        `""` (the mean), `_recall` (share of frames above a half) and `_decay` (mean of the first quarter of the video
        less that of the last one).
    """
    if not len(values):
        raise ValueError("a video needs at least three frames: the first and the last do not count")
    # Quarters share their end frames, as published.
    ends = (np.round(np.linspace(1, len(values), PARTS + 1) + 1e-10) - 1).astype(int)
    quarters = [values[first : last + 1].mean() for first, last in zip(ends[:-1], ends[1:])]
    return {
        "": float(values.mean()),
        "_recall": float((values > RECALL_FROM).mean()),
        "_decay": float(quarters[0] - quarters[-1]),
    }


def mean_rates(objects: Sequence[TrackQuality]) -> dict[str, float]:
    """Averages over objects, each with the same weight, as DAVIS does."""
    if not objects:
        raise ValueError("there is no object to measure")
    rates = [quality.rates() for quality in objects]
    return {name: float(np.mean([one[name] for one in rates])) for name in rates[0]}


def _same_size(truth: Any, found: Any, frame: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns both as arrays; None becomes an empty mask of the other one's size."""
    masks = [None if mask is None else _pixels(mask) for mask in (truth, found)]
    shapes = {mask.shape for mask in masks if mask is not None}
    if len(shapes) > 1:
        raise ValueError(f"frame {frame}: the two masks are of size {' and '.join(map(str, sorted(shapes)))}")
    if len(shapes) == 1:
        (shape,) = shapes
        masks = [np.zeros(shape, bool) if mask is None else mask for mask in masks]
    return masks[0], masks[1]


def _pixels(mask: Any) -> np.ndarray:
    if isinstance(mask, np.ndarray):
        return mask.astype(bool)
    from lookhear.evaluation.measures.mask_runs import decode_mask

    return decode_mask(mask)

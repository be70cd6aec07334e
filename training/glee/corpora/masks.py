"""Masks of the corpora as pixels, from COCO's run lengths and polygons, and boxes around them."""

from collections.abc import Sequence

import numpy as np

from lookhear.processing.glee.geometry_glee import expand_runs, fill_polygons, mask_of_runs

Size = tuple[int, int]  # (height, width)


def decode_mask(mask: dict, size: Size) -> np.ndarray:
    """
    Decodes a mask of the schema.

    Args:
        mask: `counts` (compressed run lengths) or `polygons`; the other is None.
        size: (height, width) of the picture.

    Returns:
        `(height, width)` bool.

    Raises:
        ValueError: the run lengths are damaged or of another size.
    """
    if mask["counts"] is not None:
        return mask_of_runs(expand_runs(mask["counts"]), size)
    return fill_polygons(mask["polygons"], size)


def mask_box(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    """Returns the box x0, y0, x1, y1 around a mask's pixels; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def polygon_box(polygons: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """Returns the box x0, y0, x1, y1 around polygons."""
    points = np.concatenate([np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)

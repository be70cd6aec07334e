"""Masks of the corpora as pixels, from COCO's run lengths and polygons, and boxes around them."""

from collections.abc import Sequence

import numpy as np

from lookhear.processing.glee.run_lengths_glee import expand_runs, mask_of_runs

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


def fill_polygons(polygons: Sequence[Sequence[float]], size: Size) -> np.ndarray:
    """
    Fills the pixels whose centre lies in one of the polygons (`x0, y0, x1, y1, ...`, even-odd rule within a polygon).

    Parts thinner than a pixel may vanish.

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

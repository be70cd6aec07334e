"""Masks as COCO writes them: run lengths down the columns, plain or as a string, and polygons."""

from collections.abc import Sequence

import numpy as np

Size = tuple[int, int]  # (height, width)


def decode_mask(mask: dict, size: Size) -> np.ndarray:
    """
    A mask of the schema as pixels.

    Args:
        mask: `counts` (compressed run lengths) or `polygons`; the other is None.
        size: (height, width) of the picture.
    Returns:
        `(height, width)` bool.
    Raises:
        ValueError: the run lengths are damaged or of another size.
    """
    if mask["counts"] is not None:
        return decode_runs(read_counts(mask["counts"]), size)
    return fill_polygons(mask["polygons"], size)


def decode_runs(counts: np.ndarray, size: Size) -> np.ndarray:
    """`(n,)` run lengths, beginning with zeros, down the columns -> `(height, width)` bool. ValueError: another size."""
    height, width = size
    if counts.sum() != height * width or (counts < 0).any():
        raise ValueError(
            f"run lengths cover {counts.sum()} pixels, but a mask of {height} x {width} has {height * width}"
        )
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def encode_runs(mask: np.ndarray) -> np.ndarray:
    """`(height, width)` bool -> run lengths as `decode_runs` takes them, int64."""
    flat = np.concatenate(([False], mask.T.reshape(-1)))  # the first run is one of zeros, be it empty
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate(([0], starts, [mask.size])))


def read_counts(text: str) -> np.ndarray:
    """
    The run lengths in COCO's string: groups of 5 bits, the lowest first, from "0" on; bit 5 says that another group follows.
    From the fourth on, a number is the difference to the one before the last.

    Returns:
        `(n,)` int64.
    Raises:
        ValueError: the string has other characters, or breaks off within a number.
    """
    codes = np.frombuffer(text.encode("latin-1", errors="replace"), dtype=np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("run lengths are damaged: the string breaks off or has characters that do not belong there")
    last = np.flatnonzero(codes & 32 == 0)  # the last group of each number
    starts = np.concatenate(([0], last[:-1] + 1))
    place = 5 * (np.arange(len(codes)) - np.repeat(starts, last - starts + 1))
    if place.max() > 50:
        raise ValueError("run lengths are damaged: a number has too many digits")
    values = np.add.reduceat((codes & 31) << place, starts)
    negative = codes[last] & 16 != 0
    values -= np.where(negative, np.int64(1) << place[last] + 5, 0)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def write_counts(counts: Sequence[int] | np.ndarray) -> str:
    """Run lengths as COCO's string; see `read_counts`."""
    counts = [int(count) for count in counts]
    letters = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            code, value = value & 31, value >> 5
            more = value != (-1 if code & 16 else 0)
            letters.append(chr(48 + code + (32 if more else 0)))
    return "".join(letters)


def fill_polygons(polygons: Sequence[Sequence[float]], size: Size) -> np.ndarray:
    """
    Pixels whose centre lies in one of the polygons (`x0, y0, x1, y1, ...`, even-odd rule within a polygon).

    What is thinner than a pixel may vanish.
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
    """Each edge toggles, in the rows that it crosses, all pixels right of it."""
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
    """The box x0, y0, x1, y1 round a mask's pixels; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def polygon_box(polygons: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """The box x0, y0, x1, y1 round polygons."""
    points = np.concatenate([np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)

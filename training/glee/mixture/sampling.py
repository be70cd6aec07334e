"""Random choices: categories of a batch, repeat factors of pictures, visual prompts on objects."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import datasets

# Visual prompts of the published training: masks 60 %; of the rest boxes 20 %, points 80 %.
PROMPT_KINDS = {"masks": 0.6, "boxes": 0.08, "points": 0.32}
SCRIBBLE_POINTS = 4


def sample_categories(
    positives: Sequence[str],
    vocabulary: Sequence[str],
    most: int,
    random: np.random.Generator,
    excluded: Sequence[str] = (),
) -> list[str]:
    """
    Samples the categories of a batch: those in its pictures, filled up with random others.

    A vocabulary of at most `most` categories is used as a whole and in its own order, so that class numbers stay.

    Args:
        positives: categories in the pictures; if more than `most`, a random subset.
        vocabulary: all categories of the data set.
        most: most categories of a batch.
        random: for all random choices.
        excluded: categories that must not be negatives.

    Returns:
        At most `most` names, each once; sampled ones in random order.
    """
    positives = list(dict.fromkeys(positives))
    hidden = set(excluded) - set(positives)
    names = dict.fromkeys([*vocabulary, *positives])
    if len(names) <= most:
        return [name for name in names if name not in hidden]
    if len(positives) < most:
        others = [name for name in names if name not in hidden and name not in set(positives)]
        count = min(most - len(positives), len(others))
        positives += [others[index] for index in random.choice(len(others), size=count, replace=False)]
    return [positives[index] for index in random.permutation(len(positives))[:most]]


def repeat_factors(rows: "datasets.Dataset", threshold: float) -> np.ndarray:
    """
    Computes how often each picture should appear per epoch (LVIS, Gupta et al. 2019, appendix B.2): for the share f of
    pictures with a category, max(1, sqrt(threshold / f)); a picture takes the highest of its categories, 1 without
    any.

    Args:
        rows: in the schema.
        threshold: t of LVIS, 0.001 there; 0 makes all factors 1.

    Returns:
        `(rows,)` float64.
    """
    numbers, names, owners = _categories(rows)
    factors = np.ones(len(rows))
    if not len(numbers):
        return factors
    pairs = np.unique(np.stack((owners, numbers)), axis=1)  # a category counts once a picture
    shares = np.bincount(pairs[1], minlength=len(names)) / len(rows)
    of_category = np.maximum(1.0, np.sqrt(threshold / shares))
    np.maximum.at(factors, pairs[0], of_category[pairs[1]])
    return factors


def category_vocabulary(rows: "datasets.Dataset") -> list[str]:
    """Lists the categories of a data set's objects, sorted, without those of its files that no picture shows."""
    return sorted(_categories(rows)[1])


def _categories(rows: "datasets.Dataset") -> tuple[np.ndarray, list[str], np.ndarray]:
    """Returns, for all objects with a category, its number in the names, the names, and the objects' rows."""
    import pyarrow
    import pyarrow.compute as compute

    column = rows.with_format("arrow")["objects"][:]
    column = column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column
    names = compute.struct_field(compute.list_flatten(column), "category")
    owners = compute.list_parent_indices(column).to_numpy(zero_copy_only=False)
    known = names.is_valid().to_numpy(zero_copy_only=False)
    coded = names.drop_null().dictionary_encode()
    return coded.indices.to_numpy(zero_copy_only=False), coded.dictionary.to_pylist(), owners[known]


def draw(random: np.random.Generator, shares: dict[str, float]) -> str:
    """Draws one of the names, with its share as probability."""
    names = list(shares)
    weights = np.array([shares[name] for name in names], dtype=float)
    return names[random.choice(len(names), p=weights / weights.sum())]


def draw_prompt(kind: str, box: Sequence[float], mask: np.ndarray | None, random: np.random.Generator) -> Any:
    """
    Draws a prompt as a user might point at an object, in the processor's form.

    Args:
        kind: `masks`, `boxes`, `points` or `scribbles`; boxes and points don't need a mask.
        box: x0, y0, x1, y1 in pixels.
        mask: `(height, width)` bool.
        random: for all random choices.
    """
    if kind == "masks":
        return mask
    if kind == "boxes":
        x0, y0, x1, y1 = (float(value) for value in box)
        # The first pixel's own box would be refused as one in shares of the picture.
        return (x0, y0, max(x1, 1.01), y1) if y1 <= 1 else (x0, y0, x1, y1)
    if mask is None:
        return [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)]
    rows, columns = mask.nonzero()
    picked = random.integers(len(rows), size=1 if kind == "points" else SCRIBBLE_POINTS)
    if kind == "points":  # (0.5, 0.5) would be refused as a share of the picture; corner and centre are drawn alike
        return [(float(columns[index]), float(rows[index])) for index in picked]
    return [(float(columns[index]) + 0.5, float(rows[index]) + 0.5) for index in picked]

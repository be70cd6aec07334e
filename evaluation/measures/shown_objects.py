"""How well answers show what a question means: gIoU and cIoU, and whether their words are right.

Source: Lai et al.: LISA: reasoning segmentation via large language model, CVPR 2024: gIoU is the mean of the samples'
IoU, cIoU all intersections over all unions; all masks of an answer count as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lookhear.evaluation.measures.mask_runs import coco_mask, mask_area, to_runs
from lookhear.evaluation.measures.referring import grounding_rates, mask_overlaps

SEGMENT = re.compile(r"\[seg\]")  # marks in an answer where an object is shown, and is no word


def shown_rates(references: Sequence[Mapping], predictions: Sequence[Mapping]) -> dict[str, Any]:
    """
    Computes the rates of answers, and those of each group of them.

    Args:
        references: of each sample `{"masks": [the objects that are meant], "ignored": a mask whose pixels don't count,
            "text": the right answer in words, "group": a name}`. All masks are bool arrays or run lengths of one size;
            no masks mean nothing. `ignored`, `text` and `group` may be missing or None.
        predictions: of each sample `{"masks": [the objects that are shown], "text": the answer in words}`; `text` may
            be missing.

    Returns:
        `gIoU` (mean IoU of the samples, 1 where neither has pixels), `cIoU` (all intersections over all unions),
        `words` (share of answers with the right text and as many masks as are meant, among samples with a text) and
        `none` (share of answers that show nothing among samples that mean nothing): fractions, NaN where there are no
        such samples; `samples`, their number; `groups`, the same by group, in order of their first samples.

    Raises:
        ValueError: not one prediction per reference, or the masks of a sample differ in size.
    """
    if len(references) != len(predictions):
        raise ValueError(f"references ({len(references)}) and predictions ({len(predictions)}) differ in number")
    meant, shown = ([_joined(row, place) for place, row in enumerate(rows)] for rows in (references, predictions))
    shared, union = mask_overlaps(meant, shown, [row.get("ignored") for row in references])
    columns = {
        "shared": shared,
        "union": union,
        "words": np.array([_words_right(*rows) for rows in zip(references, predictions)], np.float64),
        "none": np.array([_none_right(*masks) for masks in zip(meant, shown)], np.float64),
    }
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(references):
        if row.get("group") is not None:
            groups.setdefault(row["group"], []).append(place)
    parts = {
        name: _rates(**{key: column[places] for key, column in columns.items()}) for name, places in groups.items()
    }
    return {**_rates(**columns), "groups": parts}


def _rates(shared: np.ndarray, union: np.ndarray, words: np.ndarray, none: np.ndarray) -> dict[str, float]:
    """Computes the rates of some samples; `words` and `none` are 1, 0, or NaN where there is nothing to be right."""
    rates = grounding_rates(shared, union)
    shares = {"words": words[~np.isnan(words)], "none": none[~np.isnan(none)]}
    means = {name: float(values.mean()) if len(values) else float("nan") for name, values in shares.items()}
    return {"gIoU": rates["mIoU"], "cIoU": rates["oIoU"], **means, "samples": len(shared)}


def _joined(row: Mapping, place: int) -> dict[str, Any] | None:
    """Joins all masks of a row into one, None if it has none."""
    runs = [to_runs(mask) for mask in row.get("masks") or ()]
    sizes = {tuple(one["size"]) for one in runs}
    if len(sizes) > 1:
        raise ValueError(f"sample {place}: its masks are of size {' and '.join(map(str, sorted(sizes)))}")
    return coco_mask.merge(runs) if runs else None


def _words_right(reference: Mapping, prediction: Mapping) -> float:
    """Compares two answers without regard to case and punctuation."""
    if reference.get("text") is None:
        return float("nan")
    same_number = len(reference.get("masks") or ()) == len(prediction.get("masks") or ())
    return float(same_number and _words(reference["text"]) == _words(prediction.get("text") or ""))


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", SEGMENT.sub(" ", text.lower()))


def _none_right(meant: Mapping | None, shown: Mapping | None) -> float:
    """Tells whether an answer shows nothing where nothing is meant; NaN where something is meant."""
    if meant is not None and mask_area(meant):
        return float("nan")
    return float(shown is None or not mask_area(shown))

"""
What is compared when objects are tracked: ids on both sides of each frame, and how much each two of them overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lookhear.evaluation.measures.mask_runs import box_ious, mask_ious


@dataclass(frozen=True)
class TrackFrame:
    """One frame: g true objects, f found ones."""

    truth: np.ndarray  # (g,) int64: ids
    found: np.ndarray  # (f,) int64: ids
    similarity: np.ndarray  # (g, f) float64, 0 to 1
    truth_labels: tuple[str, ...] = ()  # g names, or none
    found_labels: tuple[str, ...] = ()

    def select(self, truth: np.ndarray, found: np.ndarray) -> TrackFrame:
        """Returns the frame with some of its objects: `(g,)` and `(f,)` bool, or places."""
        sides = [
            np.flatnonzero(kept) if np.asarray(kept).dtype == bool else np.asarray(kept) for kept in (truth, found)
        ]
        names = [
            tuple(labels[place] for place in side) if labels else ()
            for labels, side in zip((self.truth_labels, self.found_labels), sides)
        ]
        return TrackFrame(self.truth[sides[0]], self.found[sides[1]], self.similarity[np.ix_(*sides)], *names)


@dataclass(frozen=True)
class TrackVideo:
    """All frames of a video; `absent` and `not_exhaustive` as in LVIS, None where every label is marked throughout."""

    name: str
    frames: list[TrackFrame]
    absent: frozenset[str] | None = None
    not_exhaustive: frozenset[str] = frozenset()


def read_videos(
    references: Iterable[Mapping], predictions: Iterable[Mapping], kind: str = "box"
) -> Iterator[TrackVideo]:
    """
    Groups frames into videos, one video at a time.

    Args:
        references: of each frame `{"video": str, "ids": [int], "boxes": [(x0, y0, x1, y1)] or "masks": [run
            lengths]}`, with `labels` where classes matter; frames of a video follow each other. `absent` and
            `not_exhaustive` (labels) of a video's first frame, if there, say what is known of it.
        predictions: the same without `video`, in the same order.
        kind: "box" or "mask".

    Raises:
        ValueError: ids that occur twice in a frame, columns of different length, a video that comes in two parts.
    """
    if kind not in ("box", "mask"):
        raise ValueError(f"kind has to be 'box' or 'mask', not {kind!r}")
    name: str | None = None
    frames: list[TrackFrame] = []
    notes: Mapping = {}
    seen: set[str | None] = set()
    for place, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        if reference["video"] != name:
            if frames:
                yield _video(frames, notes)
            name, frames, notes = reference["video"], [], reference
            if name in seen:
                raise ValueError(
                    f"frame {place}: video {name!r} comes in two parts; pass its frames one after the other"
                )
            seen.add(name)
        frames.append(_frame(reference, prediction, kind, place))
    if frames:
        yield _video(frames, notes)


def _video(frames: list[TrackFrame], notes: Mapping) -> TrackVideo:
    """Returns a video, by what its first frame's row says of it."""
    absent, partly = notes.get("absent"), notes.get("not_exhaustive")
    return TrackVideo(notes["video"], frames, None if absent is None else frozenset(absent), frozenset(partly or ()))


def _frame(reference: Mapping, prediction: Mapping, kind: str, place: int) -> TrackFrame:
    column = "boxes" if kind == "box" else "masks"
    ids, labels, areas = [], [], []
    for side, row in (("references", reference), ("predictions", prediction)):
        numbers, objects = np.asarray(row["ids"], np.int64).reshape(-1), row.get(column)
        objects = [] if objects is None else objects
        names = tuple(row.get("labels") or ())
        if len(objects) != len(numbers) or (names and len(names) != len(numbers)):
            raise ValueError(
                f"{side}, frame {place}: {len(numbers)} ids, {len(objects)} {column}, {len(names)} labels"
            )
        if len(np.unique(numbers)) < len(numbers):
            raise ValueError(f"{side}, frame {place}: an id occurs twice: {sorted(numbers.tolist())}")
        ids.append(numbers)
        labels.append(names)
        areas.append(objects)
    ious = box_ious if kind == "box" else mask_ious
    return TrackFrame(ids[0], ids[1], ious(areas[0], areas[1]), labels[0], labels[1])


def of_label(video: TrackVideo, label: str, threshold: float = 0.5) -> TrackVideo:
    """
    Returns a video's objects of one label.

    Where a video isn't marked throughout, what is found and matches no true object (IoU below the threshold) is left
    out in frames without a true object, unless the label is known to be absent, and everywhere if the label is not
    exhaustive. Source: Dave et al.: TAO, ECCV 2020, section 4, as its and BURST's evaluation code has it.
    """
    frames = []
    for frame in video.frames:
        kept = frame.select(_named(frame.truth_labels, label), _named(frame.found_labels, label))
        if video.absent is not None:
            silent = not len(kept.truth) and label not in video.absent
            if silent or label in video.not_exhaustive:
                _, columns = best_pairs(np.where(kept.similarity >= threshold - 1e-12, kept.similarity, 0.0))
                kept = kept.select(np.arange(len(kept.truth)), np.sort(columns))
        frames.append(kept)
    return TrackVideo(video.name, frames, video.absent, video.not_exhaustive)


def _named(labels: Sequence[str], label: str) -> np.ndarray:
    return np.array([name == label for name in labels], bool)


def best_pairs(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Returns rows and columns of the one-to-one assignment with the highest sum, without pairs of no positive score.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(scores, maximize=True)
    kept = scores[rows, columns] > 0
    return rows[kept], columns[kept]


def renumbered(ids: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Renumbers the ids of all frames from 0; returns them and their number."""
    known = np.unique(np.concatenate([np.zeros(0, np.int64), *ids]))
    return [np.searchsorted(known, numbers) for numbers in ids], len(known)

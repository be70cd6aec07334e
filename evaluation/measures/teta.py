"""TETA: track every thing accuracy, for many classes that are not annotated exhaustively.

Source: Li et al.: Tracking every thing in the wild, ECCV 2022, section 4, and its evaluation code. TETA is the mean of
 - LocA = TPL / (TPL + FNL + FPL), where only what lies on a true object (IoU of the margin or more) can be a false
 positive;
 - AssocA, the mean over TPL of TPA / (TPA + FNA + FPA) of the two whole tracks;
 - ClsA = TPC / (TPC + FNC + FPC): of the pairs, those with the right label, those with another one, and pairs of other
 labels'
   objects that were given this one;
each averaged over thresholds of the IoU (0 to 0.95; 0.5 to 0.95 for ClsA), and then over the labels that occur in the
truth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from lookhear.evaluation.measures.hota import EPSILON, assign, association_sums, global_alignment, id_frames
from lookhear.evaluation.measures.track_frames import TrackFrame, TrackVideo, renumbered

THRESHOLDS = np.arange(0.0, 0.99, 0.05)  # 20
LABEL_PLACES = THRESHOLDS >= 0.5 - 1e-9  # where labels are compared: 10
ON_OBJECT = 0.5  # IoU from which on a found box belongs to a true object's surroundings


@dataclass
class TetaCounts:
    """Counts of one label, `(thresholds,)` float64; label counts are 0 below a threshold of 0.5."""

    matches: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))
    misses: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))
    false_positives: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))
    association: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))
    association_recall: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))
    association_precision: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))
    right_labels: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))
    wrong_labels: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))  # of this label's objects
    label_false_positives: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))

    def rates(self) -> dict[str, float]:
        """Returns `TETA`, `LocA`, `AssocA`, `ClsA` and each one's recall and precision: fractions."""
        wrong, false = self.misses, self.false_positives
        rates = dict(zip(("LocA", "LocRe", "LocPr"), _means(self.matches, wrong, false)))
        least = np.maximum(1, self.matches)
        for name, total in (
            ("A", self.association),
            ("Re", self.association_recall),
            ("Pr", self.association_precision),
        ):
            rates[f"Assoc{name}"] = float((total / least).mean())
        counts = (self.right_labels, self.wrong_labels, self.label_false_positives)
        rates |= dict(zip(("ClsA", "ClsRe", "ClsPr"), _means(*(count[LABEL_PLACES] for count in counts))))
        return {"TETA": (rates["LocA"] + rates["AssocA"] + rates["ClsA"]) / 3, **rates}


def teta(videos: Iterable[TrackVideo], margin: float = 0.5) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """
    Computes rates over all labels (each with the same weight), and for each label.

    Args:
        videos: with labels on both sides; read one after the other.
        margin: IoU with a true object from which on something found can be a false positive, 0.5 or 0.75.

    Raises:
        ValueError: there is no true object, or labels are missing.
    """
    if not 0 < margin <= 1:
        raise ValueError(f"margin has to be above 0 and at most 1, not {margin}")
    counts: dict[str, TetaCounts] = defaultdict(TetaCounts)
    labels: set[str] = set()
    for video in videos:
        for frame in video.frames:
            if len(frame.truth_labels) != len(frame.truth) or len(frame.found_labels) != len(frame.found):
                raise ValueError(f"video {video.name!r}: TETA needs the labels of references and predictions")
            labels.update(frame.truth_labels)
        _count_video(video, margin, counts)
    if not labels:
        raise ValueError("references have no object: there is nothing to measure")
    each = {label: counts[label].rates() for label in sorted(labels)}
    names = next(iter(each.values()))
    return {name: float(np.mean([rates[name] for rates in each.values()])) for name in names}, each


def _count_video(video: TrackVideo, margin: float, counts: dict[str, TetaCounts]) -> None:
    """Adds one video's counts, label by label."""
    taken = _owners(video)
    for label in sorted({name for frame in video.frames for name in frame.truth_labels}):
        # Tracks that lie on an object of the label in some frame, unless there they belong to another label's object.
        chosen, kept = [], set()
        for frame, owners in zip(video.frames, taken):
            rows = np.array([name == label for name in frame.truth_labels], bool)
            others = [track for truth, track in owners.items() if truth not in frame.truth[rows]]
            near = (frame.similarity[rows] >= ON_OBJECT).any(axis=0) & ~np.isin(frame.found, others)
            chosen.append((rows, near))
            kept |= set(frame.found[near].tolist())
        frames, surroundings = [], []
        for frame, (rows, near) in zip(video.frames, chosen):
            columns = np.isin(frame.found, list(kept))
            frames.append(frame.select(rows, columns))
            surroundings.append(near[columns])
        _count_label(frames, surroundings, label, margin, counts)


def _owners(video: TrackVideo) -> list[dict[int, int]]:
    """Assigns tracks to objects in each frame, regardless of labels: `{object: track}`, IoU of 0.5 or more."""
    near = [frame.found[(frame.similarity >= ON_OBJECT).any(axis=0)] for frame in video.frames]
    kept = np.unique(np.concatenate([np.zeros(0, np.int64), *near]))
    frames = [frame.select(np.arange(len(frame.truth)), np.isin(frame.found, kept)) for frame in video.frames]
    owners = []
    for frame, (_, _, rows, columns) in zip(frames, _assigned(frames)[0]):
        good = frame.similarity[rows, columns] >= ON_OBJECT - EPSILON
        owners.append(dict(zip(frame.truth[rows[good]].tolist(), frame.found[columns[good]].tolist())))
    return owners


def _assigned(
    frames: list[TrackFrame],
) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    """
    Returns for each frame (true and found ids from 0, rows and columns of its pairs); then the frames of each id.
    """
    truth_ids, objects = renumbered([frame.truth for frame in frames])
    found_ids, tracks = renumbered([frame.found for frame in frames])
    lengths = id_frames(truth_ids, objects), id_frames(found_ids, tracks)
    alignment = global_alignment(truth_ids, found_ids, [frame.similarity for frame in frames], *lengths)
    pairs = [
        (truth, found, *assign(alignment, truth, found, frame.similarity))
        for frame, truth, found in zip(frames, truth_ids, found_ids)
    ]
    return pairs, lengths


def _count_label(
    frames: list[TrackFrame], surroundings: list[np.ndarray], label: str, margin: float, counts: dict[str, TetaCounts]
) -> None:
    """
    Counts of one label in one video.

    Args:
        frames: the label's objects, and all that may belong to them, whatever its label.
        surroundings: of each frame, `(f,)` bool: what lies on one of the objects there.
    """
    mine = counts[label]
    pairs, (truth_frames, found_frames) = _assigned(frames)
    together = np.zeros((len(THRESHOLDS), len(truth_frames), len(found_frames)))
    for frame, near, (truth, found, rows, columns) in zip(frames, surroundings, pairs):
        if not len(truth):
            continue
        good = frame.similarity[rows, columns][None] >= THRESHOLDS[:, None] - EPSILON  # (thresholds, pairs)
        together[:, truth[rows], found[columns]] += good
        number = good.sum(axis=1)
        mine.matches += number
        mine.misses += len(truth) - number
        candidates = near & (frame.similarity >= margin).any(axis=0)  # (f,)
        paired = np.zeros((len(THRESHOLDS), len(found)), bool)
        paired[:, columns] = good
        mine.false_positives += (candidates[None] & ~paired).sum(axis=1)
        for column, hits in zip(columns, (good & LABEL_PLACES[:, None]).T):
            name = frame.found_labels[column]
            if name == label:
                mine.right_labels += hits
            else:
                mine.wrong_labels += hits
                counts[name].label_false_positives += hits
    for total, part in zip(
        (mine.association, mine.association_recall, mine.association_precision),
        association_sums(together, truth_frames, found_frames),
    ):
        total += part


def _means(right: np.ndarray, missed: np.ndarray, false: np.ndarray) -> tuple[float, float, float]:
    """Returns accuracy, recall and precision, averaged over thresholds."""

    def mean(whole: np.ndarray) -> float:
        return float((right / np.maximum(1, whole)).mean())

    return mean(right + missed + false), mean(right + missed), mean(right + false)

"""HOTA: higher order tracking accuracy, the geometric mean of how well objects are detected and associated.

Source: Luiten et al.: HOTA, IJCV 2021, equations 8 to 14, and its evaluation code TrackEval. At each threshold a of
the IoU (0.05 to 0.95) pairs are true positives (TP); DetA = TP / (TP + FN + FP); of a pair c, A(c) = TPA / (TPA + FNA
+ FPA) over the whole tracks of its two ids; AssA is the mean of A over TP; HOTA = sqrt(DetA * AssA); all are averaged
over a. OWTA (Liu et al.: Opening up open-world tracking, CVPR 2022) takes DetRe = TP / (TP + FN) in place of DetA,
where not all is annotated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from lookhear.evaluation.measures.track_frames import TrackVideo, of_label, renumbered

THRESHOLDS = np.arange(0.05, 0.99, 0.05)  # 19
EPSILON = np.finfo(float).eps


@dataclass(frozen=True)
class HotaCounts:
    """Counts at each threshold, `(thresholds,)` float64; those of several videos are added."""

    matches: np.ndarray  # TP
    misses: np.ndarray
    false_positives: np.ndarray
    overlap: np.ndarray  # sum of the IoU over TP
    association: np.ndarray  # sum of A over TP
    association_recall: np.ndarray  # sum of TPA / (TPA + FNA)
    association_precision: np.ndarray

    def __add__(self, other: HotaCounts) -> HotaCounts:
        return HotaCounts(*(one + two for one, two in zip(vars(self).values(), vars(other).values())))

    @classmethod
    def nothing(cls) -> HotaCounts:
        """Returns the counts of no video: all zero."""
        return cls(*np.zeros((7, len(THRESHOLDS))))

    def curves(self) -> dict[str, np.ndarray]:
        """
        Returns each rate at each threshold, `(thresholds,)`, fractions; as published, 0 where the count is 0 (LocA:
        1).
        """
        least = np.maximum(1, self.matches)
        curves = {
            "DetA": self.matches / np.maximum(1, self.matches + self.misses + self.false_positives),
            "AssA": self.association / least,
            "LocA": np.maximum(1e-10, self.overlap) / np.maximum(1e-10, self.matches),
            "DetRe": self.matches / np.maximum(1, self.matches + self.misses),
            "DetPr": self.matches / np.maximum(1, self.matches + self.false_positives),
            "AssRe": self.association_recall / least,
            "AssPr": self.association_precision / least,
        }
        hota, owta = (np.sqrt(curves[name] * curves["AssA"]) for name in ("DetA", "DetRe"))
        return {"HOTA": hota, **curves, "OWTA": owta}

    def rates(self) -> dict[str, float]:
        """Returns the means of the curves over thresholds."""
        return {name: float(curve.mean()) for name, curve in self.curves().items()}

    @property
    def empty(self) -> bool:
        """Whether there was nothing to count, neither true nor found."""
        return not (self.matches + self.misses + self.false_positives).any()


def count_videos(videos: Iterable[TrackVideo]) -> tuple[HotaCounts, dict[str, HotaCounts]]:
    """Counts over all videos together, and for each by its name; videos are read one after the other."""
    each = {video.name: count_video(video) for video in videos}
    return sum(each.values(), HotaCounts.nothing()), each


def count_video(video: TrackVideo) -> HotaCounts:
    """Counts over one video."""
    truth_ids, objects = renumbered([frame.truth for frame in video.frames])
    found_ids, tracks = renumbered([frame.found for frame in video.frames])
    similarities = [frame.similarity for frame in video.frames]
    truth_frames, found_frames = id_frames(truth_ids, objects), id_frames(found_ids, tracks)
    alignment = global_alignment(truth_ids, found_ids, similarities, truth_frames, found_frames)
    together = np.zeros((len(THRESHOLDS), objects, tracks))  # TPA
    matches, overlap = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    for truth, found, similarity in zip(truth_ids, found_ids, similarities):
        rows, columns = assign(alignment, truth, found, similarity)
        values = similarity[rows, columns]  # (pairs,)
        good = values[None] >= THRESHOLDS[:, None] - EPSILON  # (thresholds, pairs)
        together[:, truth[rows], found[columns]] += good
        matches += good.sum(axis=1)
        overlap += (good * values).sum(axis=1)
    sums = association_sums(together, truth_frames, found_frames)
    return HotaCounts(matches, truth_frames.sum() - matches, found_frames.sum() - matches, overlap, *sums)


def id_frames(ids: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Counts in how many frames each id occurs, `(count,)` int."""
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *ids]), minlength=count)


def global_alignment(
    truth_ids: Sequence[np.ndarray],
    found_ids: Sequence[np.ndarray],
    similarities: Sequence[np.ndarray],
    truth_frames: np.ndarray,
    found_frames: np.ndarray,
) -> np.ndarray:
    """
    Measures how well whole tracks fit, `(objects, tracks)`, 0 to 1: a Jaccard index over frames, in which a pair
    counts for its IoU's share among all the overlaps of both.
    """
    shared = np.zeros((len(truth_frames), len(found_frames)))
    for truth, found, similarity in zip(truth_ids, found_ids, similarities):
        total = similarity.sum(0, keepdims=True) + similarity.sum(1, keepdims=True) - similarity
        share = np.divide(similarity, total, out=np.zeros_like(similarity), where=total > EPSILON)
        shared[truth[:, None], found[None, :]] += share
    total = truth_frames[:, None] + found_frames[None, :] - shared
    return np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)


def assign(
    alignment: np.ndarray, truth: np.ndarray, found: np.ndarray, similarity: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and columns of a frame's pairs: the highest sum of alignment times IoU, whatever the threshold."""
    return linear_sum_assignment(alignment[truth[:, None], found[None, :]] * similarity, maximize=True)


def association_sums(
    together: np.ndarray, truth_frames: np.ndarray, found_frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Sums A, its recall and its precision over all true positives.

    Args:
        together: `(thresholds, objects, tracks)`: frames in which the two are a pair.
        truth_frames: `(objects,)`, from `id_frames`.
        found_frames: `(tracks,)`, from `id_frames`.

    Returns:
        Three `(thresholds,)` float64.
    """
    either = np.maximum(1, truth_frames[:, None] + found_frames[None, :] - together)

    def total(whole: np.ndarray) -> np.ndarray:
        return (together * (together / whole)).sum(axis=(1, 2))

    return total(either), total(np.maximum(1, truth_frames[:, None])), total(np.maximum(1, found_frames[None, :]))


def count_labels(videos: Iterable[TrackVideo]) -> dict[str, HotaCounts]:
    """
    Counts for each label that occurs in the truth, over all videos; videos are read one after the other.

    A label that is in some video's truth counts in all videos (`of_label` says what of it).
    """
    counts: dict[str, HotaCounts] = {}
    true_labels: set[str] = set()
    for video in videos:
        present = {label for frame in video.frames for label in frame.truth_labels}
        true_labels |= present
        for label in sorted(present | {label for frame in video.frames for label in frame.found_labels}):
            counts[label] = counts.get(label, HotaCounts.nothing()) + count_video(of_label(video, label))
    return {label: counts[label] for label in sorted(true_labels)}


def label_means(counts: Sequence[HotaCounts]) -> dict[str, float]:
    """Averages the rates over labels, each with the same weight; labels without objects and tracks are left out."""
    rates = [one.rates() for one in counts if not one.empty]
    if not rates:
        raise ValueError("no label has an object: there is nothing to measure")
    return {name: float(np.mean([one[name] for one in rates])) for name in rates[0]}

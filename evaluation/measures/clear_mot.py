"""CLEAR MOT and identity scores of tracking: MOTA, MOTP, IDF1, switches, fragmentations.

Sources: Bernardin, Stiefelhagen: Evaluating multiple object tracking performance: the CLEAR MOT metrics, 2008; Ristani
et al.: Performance measures and a data set for multi-target, multi-camera tracking, ECCV 2016 workshops (identity);
Milan et al.: MOT16, 2016 (mostly tracked, fragmentations). Counting follows the py-motmetrics package: a pair of the
frame before stays a pair as long as it overlaps enough, the others are assigned anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from scipy.optimize import linear_sum_assignment

from lookhear.evaluation.measures.track_frames import TrackVideo, renumbered

FORBIDDEN = 1e6  # the cost of a pair that overlaps too little: more than all others together
MOSTLY, HARDLY = 0.8, 0.2  # shares of a true object's frames in which it is found


@dataclass(frozen=True)
class MotCounts:
    """What is counted in some videos; counts of several ones are added."""

    truth: int = 0  # true boxes (or masks) in all frames
    found: int = 0
    matches: int = 0  # pairs, switches included
    switches: int = 0
    fragmentations: int = 0
    overlap: float = 0.0  # sum of the IoU of all pairs
    identity_matches: int = 0  # pairs under the best assignment of whole tracks
    objects: int = 0
    mostly_tracked: int = 0
    mostly_lost: int = 0
    frames: int = 0

    def __add__(self, other: MotCounts) -> MotCounts:
        return MotCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def rates(self) -> dict[str, float]:
        """
        Returns `mota` (1 less misses, false positives and switches over true boxes), `motp` (mean IoU of the pairs;
        py-motmetrics gives 1 less this), `idf1`, `idp`, `idr`, `recall`, `precision`, fractions, NaN where nothing is
        to be counted; and the counts `switches`, `fragmentations`, `misses`, `false_positives`, `objects`,
        `mostly_tracked`, `partly_tracked`, `mostly_lost`, `frames`.
        """
        misses, wrong = self.truth - self.matches, self.found - self.matches
        rates = {
            "mota": 1 - _ratio(misses + wrong + self.switches, self.truth),
            "motp": _ratio(self.overlap, self.matches),
            "idf1": _ratio(2 * self.identity_matches, self.truth + self.found),
            "idp": _ratio(self.identity_matches, self.found),
            "idr": _ratio(self.identity_matches, self.truth),
            "recall": _ratio(self.matches, self.truth),
            "precision": _ratio(self.matches, self.found),
        }
        names = ("switches", "fragmentations", "objects", "mostly_tracked", "mostly_lost", "frames")
        partly = self.objects - self.mostly_tracked - self.mostly_lost
        counts = {name: getattr(self, name) for name in names}
        return rates | counts | {"misses": misses, "false_positives": wrong, "partly_tracked": partly}


def count_videos(videos: Iterable[TrackVideo], threshold: float = 0.5) -> tuple[MotCounts, dict[str, MotCounts]]:
    """
    Counts over all videos together, and for each by its name.

    Args:
        videos: read one after the other.
        threshold: the IoU from which on two boxes may be a pair.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold has to be above 0 and at most 1, not {threshold}")
    each = {video.name: count_video(video, threshold) for video in videos}
    return sum(each.values(), MotCounts()), each


def count_video(video: TrackVideo, threshold: float = 0.5) -> MotCounts:
    """Counts over one video."""
    truth_ids, objects = renumbered([frame.truth for frame in video.frames])
    found_ids, tracks = renumbered([frame.found for frame in video.frames])
    seen_with = np.full(objects, -1)  # the track that each object was last paired with
    history: list[list[bool]] = [[] for _ in range(objects)]  # of each object: found or not, in its frames
    together = np.zeros((objects, tracks), np.int64)  # frames in which the two overlap enough
    matches = switches = 0
    overlap = 0.0
    for frame, truth, found in zip(video.frames, truth_ids, found_ids):
        allowed = frame.similarity >= threshold
        together[truth[:, None], found[None, :]] += allowed
        rows, columns = pair_frame(truth, found, frame.similarity, allowed, seen_with)
        switches += int(np.count_nonzero((seen_with[truth[rows]] >= 0) & (seen_with[truth[rows]] != found[columns])))
        seen_with[truth[rows]] = found[columns]
        matches += len(rows)
        overlap += float(frame.similarity[rows, columns].sum())
        paired = np.zeros(len(truth), bool)
        paired[rows] = True
        for number, hit in zip(truth, paired.tolist()):
            history[number].append(hit)
    shares = np.array([np.mean(hits) for hits in history])
    best_rows, best_columns = linear_sum_assignment(together, maximize=True)
    return MotCounts(
        truth=sum(map(len, truth_ids)),
        found=sum(map(len, found_ids)),
        matches=matches,
        switches=switches,
        fragmentations=sum(map(count_gaps, history)),
        overlap=overlap,
        identity_matches=int(together[best_rows, best_columns].sum()),
        objects=objects,
        mostly_tracked=int(np.count_nonzero(shares >= MOSTLY)),
        mostly_lost=int(np.count_nonzero(shares < HARDLY)),
        frames=len(video.frames),
    )


def pair_frame(
    truth: np.ndarray, found: np.ndarray, similarity: np.ndarray, allowed: np.ndarray, seen_with: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    Pairs objects and tracks of one frame: first each object's last pair, then as many as possible with the highest
    IoU.

    Args:
        truth: `(g,)` int, ids of the objects.
        found: `(f,)` int, ids of the tracks.
        similarity: `(g, f)` float.
        allowed: `(g, f)` bool, pairs that may be matched.
        seen_with: `(objects,)`: the last track of each object, -1 for none.

    Returns:
        Rows and columns, `(pairs,)` int each.
    """
    kept = (seen_with[truth][:, None] == found[None, :]) & allowed  # at most one per row
    rows, columns = np.nonzero(kept)
    _, first = np.unique(columns, return_index=True)  # where two objects both had this track, the first one gets it
    rows, columns = rows[np.sort(first)], columns[np.sort(first)]
    open_rows, open_columns = np.setdiff1d(np.arange(len(truth)), rows), np.setdiff1d(np.arange(len(found)), columns)
    part = np.ix_(open_rows, open_columns)
    more_rows, more_columns = linear_sum_assignment(np.where(allowed[part], 1 - similarity[part], FORBIDDEN))
    fits = allowed[part][more_rows, more_columns]
    return (
        np.concatenate([rows, open_rows[more_rows[fits]]]),
        np.concatenate([columns, open_columns[more_columns[fits]]]),
    )


def count_gaps(hits: list[bool]) -> int:
    """Counts how often an object is lost and found again."""
    places = np.flatnonzero(hits)
    return int(np.count_nonzero(np.diff(places) > 1))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")

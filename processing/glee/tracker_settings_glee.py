"""Settings of the tracker: thresholds and weights in three groups, each checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def _check_range(policy: object, names: Sequence[str], low: float, high: float) -> None:
    """
    Checks fields of a policy; those with a whole number as default must be whole numbers.

    Raises:
        ValueError: a value is not a number from `low` to `high`, both included.
    """
    for name in names:
        value, whole = getattr(policy, name), isinstance(getattr(type(policy), name), int)
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not (number and low <= value <= high):
            kind = "whole number" if whole else "number"
            limits = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
            raise ValueError(f"`{name}` of {type(policy).__name__} must be a {kind} {limits}, not {value!r}.")


@dataclass(frozen=True)
class LifetimePolicy:
    """
    Settings of when a track starts, is returned, and is forgotten.

    Attributes:
        birth_score: minimum score of a candidate that starts a track, in [0, 1].
        sure_score: minimum score of a track that is returned from its first frame on, in [0, 1].
        birth_frames: frames in a row in which other tracks must be found to be returned, >= 1; not in the first frame.
        memory_frames: frames after which a track that is not found is forgotten, >= 1.
        max_tracks: maximum number of tracks, >= 1; those not found for the longest time are forgotten first.

    Raises:
        ValueError: a value is out of its range.
    """

    birth_score: float = 0.35
    sure_score: float = 0.6
    birth_frames: int = 2
    memory_frames: int = 60
    max_tracks: int = 256

    def __post_init__(self) -> None:
        _check_range(self, ("birth_score", "sure_score"), 0, 1)
        _check_range(self, ("birth_frames", "memory_frames", "max_tracks"), 1, math.inf)


@dataclass(frozen=True)
class MatchPolicy:
    """
    Settings of which candidate continues a track, and of how much it changes the track.

    The similarity of a track and a candidate is a weighted mean of four similarities, each in [0, 1].

    Attributes:
        min_score: minimum score of a candidate that continues a track, in [0, 1].
        duplicate_iou: IoU of masks above which two candidates are the same object, in [0, 1].
        appearance_weight: weight of the embeddings' similarity, >= 0.
        motion_weight: weight of the nearness to the place where the track is expected, >= 0.
        class_weight: weight of the agreement of the class probabilities, >= 0.
        colour_weight: weight of the colours' similarity, >= 0; used only where both colours are known.
        motion_half_life: frames without a detection after which `motion_weight` is halved, >= 1.
        min_similarity: minimum similarity of a track and a candidate, in [0, 1].
        min_cosine: minimum cosine of their embeddings, in [-1, 1].
        cosine_drop: how far that cosine may be below the track's mean, in [0, 2]; other objects differ by more.
        cosine_drop_growth: added to `cosine_drop` for each frame without a detection, in [0, 2].
        update_rate: weight of a new detection in the track's motion, and of a clear one in its embedding, in [0, 1].
        clear_score: minimum score of a clear (unoccluded) detection, as a share of the track's recent best, in [0, 1].
        clear_cosine_drop: how far the cosine of a clear detection may be below the track's mean, in [0, 2].

    Raises:
        ValueError: a value is out of its range, or the first three weights are all 0.
    """

    min_score: float = 0.15
    duplicate_iou: float = 0.5
    appearance_weight: float = 1.0
    motion_weight: float = 1.0
    class_weight: float = 0.6
    colour_weight: float = 1.0
    motion_half_life: float = 8.0
    min_similarity: float = 0.55
    min_cosine: float = 0.3
    cosine_drop: float = 0.25
    cosine_drop_growth: float = 0.02
    update_rate: float = 0.3
    clear_score: float = 0.8
    clear_cosine_drop: float = 0.15

    def __post_init__(self) -> None:
        _check_range(self, ("min_score", "duplicate_iou", "min_similarity", "update_rate", "clear_score"), 0, 1)
        _check_range(self, ("appearance_weight", "motion_weight", "class_weight", "colour_weight"), 0, math.inf)
        _check_range(self, ("motion_half_life",), 1, math.inf)
        _check_range(self, ("min_cosine",), -1, 1)
        _check_range(self, ("cosine_drop", "cosine_drop_growth", "clear_cosine_drop"), 0, 2)
        if self.appearance_weight + self.motion_weight + self.class_weight == 0:  # colours may be unknown
            raise ValueError(
                "`appearance_weight`, `motion_weight` and `class_weight` of MatchPolicy are all 0: raise one of them."
            )


@dataclass(frozen=True)
class ReidentifyPolicy:
    """
    Settings of how a lost track is found again.

    A track that was lost a short while ago continues with a candidate near its expected place, as partly occluded
    objects look different. A young track, born after an older one was last seen clearly, is merged into it if they
    look the same.

    Attributes:
        near_frames: frames for which a track may be missed and still continue by its place, >= 0.
        near_cosine: minimum cosine of the embeddings in that case, in [-1, 1].
        near_place: minimum nearness of the boxes in that case, in [0, 1].
        merge_frames: age in frames below which a track is young, >= 0.
        merge_cosine: minimum cosine of the embeddings for a merge, in [-1, 1].
        merge_class_agreement: minimum agreement of the class probabilities for a merge, in [0, 1].

    Raises:
        ValueError: a value is out of its range.
    """

    near_frames: int = 8
    near_cosine: float = 0.3
    near_place: float = 0.35
    merge_frames: int = 16
    merge_cosine: float = 0.6
    merge_class_agreement: float = 0.3

    def __post_init__(self) -> None:
        _check_range(self, ("near_frames", "merge_frames"), 0, math.inf)
        _check_range(self, ("near_cosine", "merge_cosine"), -1, 1)
        _check_range(self, ("near_place", "merge_class_agreement"), 0, 1)


@dataclass(frozen=True)
class TrackerSettings:
    """
    Settings of a tracker.

    Attributes:
        lifetime: when a track starts, is returned, and is forgotten.
        match: which candidate continues a track.
        reidentify: how a lost track is found again.
    """

    lifetime: LifetimePolicy = LifetimePolicy()
    match: MatchPolicy = MatchPolicy()
    reidentify: ReidentifyPolicy = ReidentifyPolicy()

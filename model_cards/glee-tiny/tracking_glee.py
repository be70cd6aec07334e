"""Objects followed through a video, frame by frame: everything that labels name (MOT, VIS)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from .object_following_glee import ObjectFollower
from .query_alignment_glee import QueryAlignment, RunningMean
from .track_candidates_glee import FrameCandidates, TrackedObject
from .track_memory_glee import TrackerSettings, TrackMemory

MODES = ("memory", "minvis")
THRESHOLD = 0.2  # of the published demo


class GleeTracker:
    """
    Gives ids to all objects of a list of labels; its memory does not grow with the length of the video.

    ```python
    tracker = GleeTracker()
    for frame in frames:  # FrameCandidates
        for found in tracker.update(frame):
            print(found.track_id, frame.boxes[found.candidate], found.label, found.score)
    ```

    Args:
        mode: "memory" lets tracks be born, hidden, found again and forgotten, see `TrackerSettings`; "minvis" is the
            published tracking: the queries of the first frame are the tracks, all the way, and every frame goes on with
            each of them.
        threshold: the lowest score that is handed out.
        ids: numbers of tracks; 1, 2, 3, ... by default. Trackers that share one never give the same number.
        settings: of the mode "memory".
    """

    def __init__(
        self,
        mode: str = "memory",
        threshold: float = THRESHOLD,
        ids: Iterator[int] | None = None,
        settings: TrackerSettings | None = None,
    ):
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}, not {mode!r}.")
        if not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be a number from 0 to 1, not {threshold!r}.")
        self.mode, self.threshold = mode, threshold
        ids = itertools.count(1) if ids is None else ids
        self._tracks = TrackMemory(settings, ids) if mode == "memory" else _AlignedQueries(ids)

    def update(self, frame: FrameCandidates) -> list[TrackedObject]:
        """
        The objects of the next frame, best first.

        Args:
            frame: all candidates of the frame; fewer will do in the mode "memory", if they are the best ones.
        Raises:
            ValueError: tensors of the frame don't fit together, or fit those of the frames before no more.
        """
        ids, candidates, labels, scores = self._tracks.found(frame)
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] >= self.threshold]
        columns = (column[order].tolist() for column in (ids, candidates, labels, scores))
        return [TrackedObject(*values) for values in zip(*columns)]


class _AlignedQueries:
    """The queries of the first frame as tracks, with their mean logits."""

    def __init__(self, ids: Iterator[int]):
        self._ids, self._numbers = ids, torch.zeros(0)
        self._alignment, self._logits = QueryAlignment(), RunningMean()

    def found(self, frame: FrameCandidates) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids, candidates, labels and scores so far of all queries, `(n,)` each."""
        frame.check()
        order = self._alignment.align(frame.embeddings)
        if not self._logits.count:
            self._numbers = torch.tensor([next(self._ids) for _ in range(len(frame))], dtype=torch.int64)
        mean = self._logits.add(frame.logits[order])
        scores, labels = mean.sigmoid().max(dim=1)
        return self._numbers, order, labels, scores


__all__ = ["FrameCandidates", "GleeTracker", "ObjectFollower", "TrackedObject", "TrackerSettings"]

"""Object tracking, frame by frame: all objects of a list of labels (MOT, VIS), or the one object of a referring expression (RVOS)
or of a visual prompt (VOS)."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment

from .track_memory_glee import FrameCandidates, TrackedObject, TrackerSettings, TrackMemory

MODES = ("memory", "minvis")
THRESHOLD = 0.2  # of the published demo
FRAMES_REMEMBERED = 3  # of the published code

# With a single target, weaker candidates are considered than with a list of labels. A wrong re-identification is costly, so its
# thresholds are stricter; looser ones find no more.
FOLLOWING = TrackerSettings(
    birth_score=0.05,
    keep_score=0.05,
    birth_frames=1,
    most_tracks=32,
    near_cosine=0.35,
    again_cosine=0.75,
    again_frames=60,
)
EVIDENCE_FADE = 16.0  # half-life in frames of the evidence for an object that is out of view


# ----------------------------------------------------------------------------------------- everything that labels name


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
        mode: "memory" starts, re-identifies and removes tracks, see `TrackerSettings`; "minvis" is the published tracking:
            the queries of the first frame are the tracks of the whole video, and every frame continues each of them.
        threshold: the lowest score of a returned object.
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


class QueryAlignment:
    """
    Matches the queries of a frame to those of the first one.

    This is the online matching of MinVIS (Huang et al., NeurIPS 2022), as GLEE uses it.

    Embeddings are compared by their cosine with the mean of those of the last three frames, and matched one to one
    (Hungarian). What is kept are three frames' embeddings.
    """

    def __init__(self) -> None:
        self._aligned: deque[torch.Tensor] = deque(maxlen=FRAMES_REMEMBERED)

    def align(self, embeddings: torch.Tensor) -> torch.Tensor:
        """
        Args:
            embeddings: `(queries, size)` of the next frame.

        Returns:
            `(queries,)` int64: for each query of the first frame the one that continues it.

        Raises:
            ValueError: the shape isn't that of the frames before, or a number isn't finite.
        """
        if not bool(embeddings.isfinite().all()):
            raise ValueError("`embeddings` of a frame hold numbers that are not finite: nothing can be matched.")
        order = torch.arange(len(embeddings), device=embeddings.device)
        if self._aligned:
            if embeddings.shape != self._aligned[0].shape:
                raise ValueError(
                    f"`embeddings` must be {tuple(self._aligned[0].shape)} in every frame, not "
                    f"{tuple(embeddings.shape)}: pass all queries."
                )
            memory = torch.stack(list(self._aligned)).mean(dim=0)
            cosine = (memory / memory.norm(dim=1, keepdim=True)) @ (
                embeddings / embeddings.norm(dim=1, keepdim=True)
            ).T
            order = torch.from_numpy(linear_sum_assignment((1 - cosine).cpu().numpy())[1]).to(embeddings.device)
        self._aligned.append(embeddings[order].detach())
        return order


class RunningMean:
    """The mean of tensors of one shape, without keeping them."""

    def __init__(self) -> None:
        self.count, self._sum = 0, torch.zeros(())

    def add(self, values: torch.Tensor) -> torch.Tensor:
        """Updates and returns the mean so far; float32. Raises ValueError: the shape is another one than before."""
        if self.count and values.shape != self._sum.shape:
            raise ValueError(f"a frame has logits {tuple(values.shape)}, the frames before {tuple(self._sum.shape)}.")
        self._sum = self._sum + values.float() if self.count else values.float().clone()
        self.count += 1
        return self.mean

    @property
    def mean(self) -> torch.Tensor:
        return self._sum / max(self.count, 1)


# ---------------------------------------------------------------------------------------------------------- one object


class ObjectFollower:
    """
    Follows the object that an expression names (RVOS), or that a point, box, scribble or mask shows (VOS, interactive).

    The candidates of each frame, all of them answers to the one prompt, are tracked by embedding, place and score
    (`TrackMemory`). Of what was shown, the first frame's best candidate is the object from then on. What a sentence names is the
    track that answers best to it on the whole: one bad frame does not change it, a better answer that lasts does.

    Args:
        shown: whether the object was shown on the first frame; else it is named.
        track_id: of all answers.
        threshold: least mean score of what is handed out; what was shown is handed out in its first frame in any case.
        settings: how candidates are tracked.
    """

    def __init__(
        self,
        shown: bool = True,
        track_id: int = 0,
        threshold: float = THRESHOLD,
        settings: TrackerSettings | None = None,
    ):
        if not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be a number from 0 to 1, not {threshold!r}.")
        self.shown, self.track_id, self.threshold = shown, track_id, threshold
        self._memory = TrackMemory(settings or FOLLOWING)
        self._object: int | None = None  # among the tracks of the memory

    def update(self, frame: FrameCandidates) -> TrackedObject | None:
        """
        The object in the next frame, or `None` where it isn't seen.

        Args:
            frame: what the network answers to the prompt; K = 1. For what was shown the first frame is the one that it was
                shown on.

        Raises:
            ValueError: the frame holds answers to several labels, or its tensors don't fit together.
        """
        if frame.logits.shape[-1] != 1:
            raise ValueError(
                f"a follower takes answers to one prompt, not to {frame.logits.shape[-1]} labels: use GleeTracker."
            )
        return self._first(frame) if self.shown and self._object is None else self._next(frame)

    @property
    def usual_score(self) -> float:
        """Mean score of the object over the frames in which it was found, from 0 to 1; 0 while there is none."""
        tracks = self._memory.tracks
        here = [] if tracks is None or self._object is None else (tracks.ids == self._object).nonzero()[:, 0].tolist()
        return float(tracks.class_probabilities[here[0], 0]) if here else 0.0

    def _first(self, frame: FrameCandidates) -> TrackedObject | None:
        """Takes the best candidate without a threshold, as the user marked it."""
        if not len(frame):
            return None
        best = frame.logits[:, 0].argmax()[None]
        settings = self._memory.settings
        self._memory.settings = replace(settings, birth_score=0.0, keep_score=0.0)
        tracks, _ = self._memory.update(frame.chosen(best))
        self._memory.settings = settings
        self._object = int(tracks.ids[0])
        return TrackedObject(self.track_id, int(best), 0, float(frame.logits[best, 0].sigmoid()))

    def _next(self, frame: FrameCandidates) -> TrackedObject | None:
        tracks, candidates = self._memory.update(frame)
        if not self.shown:
            self._object = self._named()
        here = (tracks.ids == -1 if self._object is None else tracks.ids == self._object).nonzero()[:, 0]
        if not len(here) or float(tracks.class_probabilities[here[0], 0]) < self.threshold:
            return None
        return TrackedObject(self.track_id, int(candidates[here[0]]), 0, float(tracks.scores[here[0]]))

    def _named(self) -> int | None:
        """Chooses the track of the highest mean score, discounted for few frames and for time out of view."""
        tracks = self._memory.tracks
        if tracks is None or not len(tracks):
            return None
        found = tracks.found.float()
        evidence = tracks.class_probabilities[:, 0] * found / (found + 1) * 0.5 ** (tracks.missed / EVIDENCE_FADE)
        return int(tracks.ids[evidence.argmax()])

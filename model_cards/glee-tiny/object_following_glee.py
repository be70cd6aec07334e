"""One object followed through a video: what a sentence names, or what was shown on a frame."""

from __future__ import annotations

from dataclasses import replace

from .track_candidates_glee import FrameCandidates, TrackedObject
from .track_memory_glee import TrackerSettings, TrackMemory

# Nothing is asked for but the one object: weaker candidates are looked at than where a list of labels is asked for. It takes more
# to know one again: a wrong one is dear where there is but one, and looser settings find no more.
FOLLOWING = TrackerSettings(
    birth_score=0.05,
    keep_score=0.05,
    birth_frames=1,
    most_tracks=32,
    near_cosine=0.35,
    again_cosine=0.75,
    again_frames=60,
)
THRESHOLD = 0.2
EVIDENCE_FADE = 16.0  # frames after which what is known of an object that is gone counts half as much


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
        return float(tracks.kinds[here[0], 0]) if here else 0.0

    def _first(self, frame: FrameCandidates) -> TrackedObject | None:
        """The best candidate, however bad: somebody has pointed at it."""
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
        if not len(here) or float(tracks.kinds[here[0], 0]) < self.threshold:
            return None
        return TrackedObject(self.track_id, int(candidates[here[0]]), 0, float(tracks.scores[here[0]]))

    def _named(self) -> int | None:
        """The track that answers best on the whole: the mean over its frames, less where there were few, less with time gone."""
        tracks = self._memory.tracks
        if tracks is None or not len(tracks):
            return None
        found = tracks.found.float()
        evidence = tracks.kinds[:, 0] * found / (found + 1) * 0.5 ** (tracks.missed / EVIDENCE_FADE)
        return int(tracks.ids[evidence.argmax()])

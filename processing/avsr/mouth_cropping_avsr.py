"""From the frames of a clip of any length to its mouth crops, block by block.

Landmarks are interpolated and smoothed within a scene and one face only: at a cut, or where another face is followed,
everything starts anew. Memory is bounded by a few hundred small grey patches, whatever the clip's length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .face_tracking_avsr import FaceTracker
from .landmarks_avsr import NUM_POINTS, DlibLandmarkDetector, LandmarkDetector, PrecomputedLandmarks
from .mouth_roi_avsr import (
    LEFT_CORNER,
    MEAN_FACE,
    MOUTH,
    RIGHT_CORNER,
    GreyPatch,
    crop_mouths,
    grey_patch,
    interpolate_missing,
    roi_transforms,
    smooth,
)
from .scene_watch_avsr import FLASH, Change, SceneWatch

BLOCK = 24  # frames that are warped together
PATIENCE = 250  # frames without a face after which it is no longer waited for: crops are black until it is back
UNKNOWN_SIDE = 640  # pixels, longest side of what is kept of a frame while the face's place is not known yet


@dataclass(frozen=True)
class MouthBlock:
    """Some frames in a row of what `MouthBuilder` makes.

    Attributes:
        mouths: `(frames, roi_size, roi_size)` uint8 grey crops; black where no face was near in time.
        points: `(frames, 68, 2)` float32 landmarks in pixels of the source picture, gaps interpolated, not smoothed;
            NaN where the crop is black.
        found: `(frames,)` bool, False where the landmarks are interpolated.
        outside: `(frames,)` bool, where part of the mouth is outside of the picture.
        cuts: `(frames,)` bool, the first frame of another scene or of another face.
    """

    mouths: np.ndarray
    points: np.ndarray
    found: np.ndarray
    outside: np.ndarray
    cuts: np.ndarray

    @classmethod
    def empty(cls, roi_size: int) -> MouthBlock:
        """No frames."""
        mouths, points = np.zeros((0, roi_size, roi_size), np.uint8), np.zeros((0, NUM_POINTS, 2), np.float32)
        return cls(mouths, points, *(np.zeros(0, dtype=bool) for _ in range(3)))


# --------------------------------------------------------------------------------------------- where landmarks are from


class LandmarkSource(Protocol):
    """Says where the landmarks of each frame are, frame by frame.

    Attributes:
        counts: the number of faces in each search of a whole picture.
        switches: how often another face of the same scene was taken.
        switched: whether this has just happened.
    """

    counts: Sequence[int]
    switches: int
    switched: bool

    def next_points(self, frame: np.ndarray, change: Change) -> np.ndarray | None:
        """`(68, 2)` in pixels of the next `(height, width, 3)` uint8 frame, or None where there is no face."""
        ...

    def warnings(self) -> list[str]:
        """Sentences for the report, once all frames were seen."""
        ...


class _GivenLandmarks:
    """Landmarks that are there already, handed out frame by frame."""

    counts: tuple[int, ...] = ()
    switches = 0
    switched = False

    def __init__(self, points: np.ndarray):
        self.rows, self.index = points, 0

    def next_points(self, frame: np.ndarray, change: Change) -> np.ndarray | None:
        index, self.index = self.index, self.index + 1
        if index >= len(self.rows) or not np.isfinite(self.rows[index]).all():
            return None
        return self.rows[index]

    def warnings(self) -> list[str]:
        if self.index == len(self.rows):
            return []
        return [f"there are landmarks for {len(self.rows)} frames, but {self.index} frames"]


class _TrackedLandmarks(FaceTracker):
    """Landmarks that a detector finds in one face."""

    def next_points(self, frame: np.ndarray, change: Change) -> np.ndarray | None:
        face = self.update(frame, change)
        return None if face is None else face.points

    def warnings(self) -> list[str]:
        return []


def landmark_source(
    landmarks: np.ndarray | PrecomputedLandmarks | LandmarkDetector | None, fps: float, detect_every: int
) -> LandmarkSource:
    """What tells `MouthBuilder` each frame's landmarks; the arguments are those of `MouthRoiImageProcessor.extract`."""
    if landmarks is None:
        return _TrackedLandmarks(DlibLandmarkDetector(), detect_every)
    if isinstance(landmarks, PrecomputedLandmarks):
        return _GivenLandmarks(landmarks.at(fps))
    if callable(landmarks):
        return _TrackedLandmarks(landmarks, detect_every)
    points = np.asarray(landmarks, dtype=np.float32)
    if points.ndim != 3 or points.shape[1:] != (NUM_POINTS, 2):
        raise ValueError(f"landmarks must be (frames, {NUM_POINTS}, 2), got {points.shape}")
    return _GivenLandmarks(points)


# ------------------------------------------------------------------------------------------------------- the builder


@dataclass
class _Row:
    """What is kept of a frame until it is warped; `patch` is None where no face is waited for."""

    points: np.ndarray | None  # (68, 2)
    patch: GreyPatch | None
    outside: bool
    cut: bool  # the first of another scene or face
    anew: bool  # the first with a face after nobody was waited for any more

    @property
    def begins(self) -> bool:
        """Whether nothing before this frame has to do with it."""
        return self.cut or self.anew


class MouthBuilder:
    """Takes the frames of one clip one by one and gives their mouth crops as soon as they are certain.

    Args:
        processor: `MouthRoiImageProcessor`, for its settings.
        source: of `landmark_source`, or another one.
    """

    def __init__(self, processor: Any, source: LandmarkSource):
        self.config, self.source = processor, source
        mean_width = float(np.linalg.norm(MEAN_FACE[RIGHT_CORNER] - MEAN_FACE[LEFT_CORNER]))
        self._unit = processor.mouth_width / mean_width  # region pixels to one distance of the outer eye corners
        self._hold = max(processor.smoothing_window, FLASH + 1)  # frames until a row is certain
        self._watch = SceneWatch()
        self._rows: list[_Row] = []  # not warped yet
        self._context = np.zeros((0, NUM_POINTS, 2), np.float32)  # the scene's last points before them
        self._last: np.ndarray | None = None  # points of the last frame with a face in this scene
        self._missing, self._step = 0, 1

    def build(self, frames: Iterable[np.ndarray]) -> Iterator[MouthBlock]:
        """All blocks of a clip's frames, which are taken one at a time."""
        for frame in frames:
            yield from self.add(frame)
        yield from self.finish()

    @property
    def counts(self) -> Sequence[int]:
        """The number of faces in each search of a whole picture."""
        return self.source.counts

    @property
    def switches(self) -> int:
        """How often another face of the same scene was taken."""
        return self.source.switches

    def warnings(self) -> list[str]:
        """Sentences for the report, once all frames were added."""
        return self.source.warnings()

    def add(self, frame: np.ndarray) -> Iterator[MouthBlock]:
        """One more `(height, width, 3)` uint8 frame; gives what is certain by now. Must be exhausted."""
        change = self._watch.see(frame)
        points = self.source.next_points(frame, change)
        if change is Change.RETURN:
            self._take_back_cut()
        cut = change is Change.CUT or self.source.switched
        anew = points is not None and self._missing > PATIENCE
        self._missing = 0 if points is not None else self._missing + 1
        self._last = points if points is not None else None if cut else self._last
        outside = points is not None and _leaves_picture(points[MOUTH], frame)
        self._rows.append(_Row(points, self._patch(frame), outside, cut, anew))
        yield from self._certain()

    def finish(self) -> Iterator[MouthBlock]:
        """The rest, once all frames were added."""
        while self._rows:
            yield from self._end_of_scene(self._next_beginning() or len(self._rows))

    def _take_back_cut(self) -> None:
        """What looked like a cut was a flash."""
        for row in self._rows[-FLASH - 1 :]:
            row.cut = False

    def _patch(self, frame: np.ndarray) -> GreyPatch | None:
        """Around the mouth twice the region; more while the face is lost; everything, reduced, before it is found."""
        if self._missing > PATIENCE:
            return None
        if self._last is None:
            return grey_patch(frame, None, -(-max(frame.shape[:2]) // UNKNOWN_SIDE))
        eyes = max(1.0, float(np.linalg.norm(self._last[45] - self._last[36])))
        shrink = eyes / self._unit  # frame pixels to one region pixel
        if not 0.8 <= shrink / self._step <= 2.2:  # no flicker between two sharpnesses while the face comes nearer
            self._step = max(1, int(shrink))
        half = (1.0 if self._missing == 0 else 2.0) * self.config.roi_size * shrink
        x, y = self._last[MOUTH].mean(axis=0)
        return grey_patch(frame, (x - half, y - half, x + half, y + half), self._step)

    def _certain(self) -> Iterator[MouthBlock]:
        """All rows of which no later frame can change the crop."""
        if self._missing >= PATIENCE:
            if self._missing == PATIENCE or len(self._rows) >= BLOCK:
                yield from self.finish()
            return
        settled = len(self._rows) - self._hold
        while 0 < (beginning := self._next_beginning()) < settled:
            yield from self._end_of_scene(beginning)
            settled -= beginning
        if beginning == 0 and settled >= BLOCK and self._missing == 0:
            yield self._warped(settled)

    def _next_beginning(self) -> int:
        """The first row but row 0 at which landmarks start anew; 0 where there is none."""
        return next((index for index, row in enumerate(self._rows) if index and row.begins), 0)

    def _end_of_scene(self, count: int) -> Iterator[MouthBlock]:
        """The first `count` rows, nothing of which is connected with what follows."""
        known = np.isfinite(self._context).any() or any(row.points is not None for row in self._rows[:count])
        while count > 0:
            size = min(count, BLOCK)
            yield self._warped(size, count) if known else self._black(size)
            count -= size
        self._context = self._context[:0]

    def _warped(self, count: int, end: int | None = None) -> MouthBlock:
        """The first `count` rows, their landmarks interpolated and smoothed with those of the rows up to `end`."""
        window, before = self.config.smoothing_window, len(self._context)
        rows = self._rows[:count]
        raw = [row.points if row.points is not None else _NOWHERE for row in self._rows[:end]]
        points = np.concatenate([self._context, np.stack(raw)]).astype(np.float32)
        filled = interpolate_missing(points)
        smoothed = smooth(filled, window)[before : before + count]
        transforms = roi_transforms(smoothed, self.config.roi_size, self.config.mouth_width, self.config.crop_center)
        mouths = crop_mouths([row.patch for row in rows], transforms, self.config.roi_size)
        first = max(0, before + count - window)
        while first > 0 and not np.isfinite(points[first]).all():
            first -= 1  # so that gaps are filled from the same neighbours in every block
        self._context = points[first : before + count]
        return self._block(mouths, filled[before : before + count])

    def _black(self, count: int) -> MouthBlock:
        side = self.config.roi_size
        return self._block(np.zeros((count, side, side), np.uint8), np.stack([_NOWHERE] * count))

    def _block(self, mouths: np.ndarray, points: np.ndarray) -> MouthBlock:
        """Takes the rows of these crops out."""
        rows, self._rows = self._rows[: len(mouths)], self._rows[len(mouths) :]
        found = np.array([row.points is not None for row in rows])
        outside = np.array([row.outside for row in rows])
        return MouthBlock(mouths, points, found, outside, np.array([row.cut for row in rows]))


_NOWHERE = np.full((NUM_POINTS, 2), np.nan, np.float32)


def _leaves_picture(points: np.ndarray, frame: np.ndarray) -> bool:
    """Whether any of the (n, 2) points is outside of the (height, width, 3) frame."""
    return bool((points < 0).any() or (points >= (frame.shape[1], frame.shape[0])).any())

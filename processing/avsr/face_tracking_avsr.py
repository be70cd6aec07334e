"""The same face all the way through a clip, and the cuts to another scene at which it is looked for anew."""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .landmarks_avsr import STEADY, Face, FaceFollower, LandmarkDetector, overlap

SIDE = 32  # pixels of the square thumbnails
BLANK = 3.0  # grey levels: a thumbnail that varies less is a black, white or washed out picture
DIFFERENT = 0.12  # 1 - correlation of two thumbnails of different scenes, at least; two frames of one differ by 0.001
UNUSUAL = 6.0  # times the running level of change
FLASH = 6  # frames: whatever goes back to the old scene within this time was a flash, and not a cut
PACE = 0.1  # how fast the running level follows

WHOLE_SEARCH = 5  # one search in this many covers the whole picture


class Change(enum.Enum):
    """What a frame is after the one before it."""

    NONE = "none"
    CUT = "cut"
    RETURN = "return"  # the scene before the last cut is back: that was no cut


class SceneWatch:
    """Compares each frame with the one before it; brightness and contrast do not count.

    A frame is the first of a new scene when its thumbnail correlates little with the one before, and clearly less than
    thumbnails have correlated lately (so that a fast pan or noise is no row of cuts). Gradual changes never are. Blank
    frames (black, white) are passed over. A flash looks like a cut at first: `RETURN` takes it back.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None  # thumbnail of the last frame that was not blank
        self._before: np.ndarray | None = None  # the last one before the latest cut
        self._level: float | None = None  # running mean of the change from frame to frame
        self._since = FLASH + 1  # frames since the latest cut

    def see(self, frame: np.ndarray) -> Change:
        """The next `(height, width, 3)` uint8 frame."""
        self._since += 1
        thumbnail = _thumbnail(frame)
        if thumbnail is None:
            return Change.NONE
        last, self._last = self._last, thumbnail
        if last is None:
            return Change.NONE
        change = 1.0 - float(last @ thumbnail)
        if self._level is None:
            self._level = change
            return Change.NONE
        if self._since <= FLASH and 1.0 - float(self._before @ thumbnail) < DIFFERENT / 2:
            self._since = FLASH + 1
            return Change.RETURN
        if self._since > FLASH and change > max(DIFFERENT, UNUSUAL * self._level):
            self._before, self._since = last, 0
            return Change.CUT
        self._level += PACE * (change - self._level)
        return Change.NONE


def _thumbnail(frame: np.ndarray) -> np.ndarray | None:
    """(SIDE * SIDE,) float32 with mean 0 and length 1 of the green channel; None where the picture is blank."""
    points = frame[_ticks(frame.shape[0])[:, None], _ticks(frame.shape[1]), 1].astype(np.float32)
    rows = points[::2] + points[1::2]
    small = ((rows[:, ::2] + rows[:, 1::2]) / 4).reshape(-1)
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return None if length < BLANK * SIDE else small / length


@functools.lru_cache(maxsize=4)
def _ticks(length: int) -> np.ndarray:
    """Returns (2 * SIDE,) evenly spread indices into `length` pixels."""
    return np.linspace(0, length - 1, 2 * SIDE).astype(int)


@dataclass
class FaceTracker:
    """Follows one face through a clip, frame by frame.

    The first face is the largest and most central one. It is searched for in every `detect_every`-th frame (every
    fifth of these searches goes through the whole picture) and carried over in between. While others are in view and it is
    gone, nobody takes its place for `patience` frames. After a cut the search begins anew, at once.

    Attributes:
        detector: finds the faces; if it is a `FaceFollower`, it is not asked in every frame.
        detect_every: frames between two searches.
        patience: frames for which a lost face is waited for where more than one face has been seen.
        counts: number of faces seen in each search of the whole picture so far.
        switches: how often the face followed was replaced by one elsewhere in the same scene.
        switched: whether this has just happened, in the latest frame.
    """

    detector: LandmarkDetector
    detect_every: int = 10
    patience: int = 25
    counts: list[int] = field(default_factory=list)
    switches: int = 0
    switched: bool = False
    _index: int = 0
    _searches: int = 0
    _lost: int = 0
    _face: Face | None = None
    _before_cut: Face | None = None

    def __post_init__(self) -> None:
        self._follower = self.detector if isinstance(self.detector, FaceFollower) else None

    def update(self, frame: np.ndarray, change: Change = Change.NONE) -> Face | None:
        """Returns the face in the next frame `(height, width, 3)` uint8, or None where it cannot be seen.

        Args:
            frame: the next one.
            change: whether it belongs to another scene than the one before.
        """
        index, self._index, self.switched = self._index, self._index + 1, False
        tracked = self._face is not None and self._lost == 0
        if change is Change.CUT:
            face = self._search_new_scene(frame)
        elif change is Change.RETURN:
            self._face, self._lost = self._before_cut or self._face, 1
            face = self._search(frame, tracked=False)
        elif self._follower is not None and tracked and index % self.detect_every:
            face = self._follower.follow(frame, self._face)
            face = face if inside(face, frame) else None
        elif self._follower is not None and not tracked and index % pause_of(self._lost):
            face = None  # nobody for a while: look less often
        else:
            face = self._search(frame, tracked)
        self._lost = 0 if face is not None else self._lost + 1
        self._face = face if face is not None else self._face
        return face

    def _search_new_scene(self, frame: np.ndarray) -> Face | None:
        """The face at the same place, in case nothing but the light has changed; otherwise the most prominent one."""
        self._before_cut, self._face, self._lost = self._face, None, 0
        faces = self._find(frame)
        same = [face for face in faces if self._before_cut and overlap(face.box, self._before_cut.box) > 0.4]
        return max(same or faces, key=lambda face: _prominence(face, frame), default=None)

    def _find(self, frame: np.ndarray) -> list[Face]:
        """Returns all faces of the frame."""
        faces = self.detector(frame)
        self.counts.append(len(faces))
        return faces

    def _search(self, frame: np.ndarray, tracked: bool) -> Face | None:
        """Looks for the face where it should be, and now and then through the whole frame; decides which is ours."""
        follower = self._follower if tracked else None
        expected = follower.follow(frame, self._face) if follower else self._face
        self._searches += 1
        if (
            follower
            and self._searches % WHOLE_SEARCH != 1
            and inside(expected, frame)
            and follower.confirm(frame, expected)
        ):
            return expected
        faces = self._find(frame)
        if self._face is None:
            return max(faces, key=lambda face: _prominence(face, frame), default=None)
        nearest = max(faces, key=lambda face: overlap(face.box, expected.box), default=None)
        if nearest is not None and overlap(nearest.box, expected.box) > 0.4:
            return expected if follower else nearest
        if follower and inside(expected, frame) and follower.confirm(frame, expected):
            return expected
        return self._again(faces, frame)

    def _again(self, faces: list[Face], frame: np.ndarray) -> Face | None:
        """Re-acquires a lost face near its last position; once patience has run out, any face."""
        last = self._face
        reach = 0.5 * last.size * (1.0 + self._lost / 5.0)
        near = [face for face in faces if distance(face, last) < reach and 0.5 < face.size / last.size < 2.0]
        if near:
            return min(near, key=lambda face: distance(face, last))
        if faces and (max(self.counts) <= 1 or self._lost >= self.patience):
            self.switches, self.switched = self.switches + 1, True
            return max(faces, key=lambda face: _prominence(face, frame))
        return None


def pause_of(lost: int) -> int:
    """Returns the frames until the next search for a face that has been lost for this many frames."""
    return next((pause for since, pause in ((250, 25), (50, 10), (10, 5)) if lost > since), 1)


def inside(face: Face, frame: np.ndarray) -> bool:
    """Returns whether the middle of the face is in the picture."""
    x, y = face.points[STEADY].mean(axis=0)
    return 0 <= x < frame.shape[1] and 0 <= y < frame.shape[0] and face.size > 8


def distance(first: Face, second: Face) -> float:
    """Returns the pixels between the middles of two faces."""
    return float(np.linalg.norm(first.points[STEADY].mean(axis=0) - second.points[STEADY].mean(axis=0)))


def prominence(face: Face, box: tuple[float, float, float, float]) -> float:
    """Returns the prominence of a face: its area, less with the distance from the middle of `(x0, y0, x1, y1)`."""
    centre = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2 - box[:2]
    centre = centre / (box[2] - box[0], box[3] - box[1]) - 0.5
    return face.size**2 * math.exp(-2.0 * float((centre**2).sum()))


def _prominence(face: Face, frame: np.ndarray) -> float:
    return prominence(face, (0, 0, frame.shape[1], frame.shape[0]))


def track_landmarks(
    frames: Iterable[np.ndarray], detector: LandmarkDetector, detect_every: int = 10
) -> tuple[list[Face | None], list[int]]:
    """Follows one face through a clip.

    Args:
        frames: `(height, width, 3)` uint8 pictures, one at a time.
        detector: see `LandmarkDetector`.
        detect_every: frames between two searches of the whole picture.

    Returns:
        one `Face` or None a frame, and the number of faces seen in each search.
    """
    tracker = FaceTracker(detector, detect_every)
    return [tracker.update(frame) for frame in frames], tracker.counts

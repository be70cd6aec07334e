"""Follows one face through a clip, and detects the cuts to another scene, after which it is searched for again."""

from __future__ import annotations

import enum
import functools
import math

import numpy as np

from .landmarks_avsr import STEADY, Face, FaceFollower, LandmarkDetector, overlap

SIDE = 32  # pixels of the square thumbnails
BLANK = 3.0  # grey levels: a thumbnail that varies less is a black, white or washed out picture
DIFFERENT = 0.12  # 1 - correlation of two thumbnails of different scenes, at least; two frames of one differ by 0.001
UNUSUAL = 6.0  # times the running level of change
FLASH = 6  # frames: whatever goes back to the old scene within this time was a flash, and not a cut
PACE = 0.1  # how fast the running level follows

WHOLE_SEARCH = 5  # one search in this many covers the whole picture
SAME_PLACE = 0.4  # intersection over union from which on two boxes are taken for one face


class Change(enum.Enum):
    """How a frame relates to the one before it."""

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
        """Compares the next `(height, width, 3)` uint8 frame with the one before."""
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


class FaceTracker:
    """Follows one face through a clip, frame by frame; a source of landmarks for `MouthBuilder`.

    The first face is the largest and most central one. It is searched for in every `detect_every`-th frame (one in
    five of these searches covers the whole picture) and carried over from frame to frame in between. While it is lost
    and other faces are in view, none of them takes its place for `patience` frames. A new scene is searched
    immediately.

    A subclass says where faces may be and which one is right by overriding `find`, `belongs`, `choose` and `replace`,
    and may change single steps of the search (see `SpeakerFace` for a speaker whose place is known).

    Args:
        detector: finds the faces. If it is also a `FaceFollower`, only every `detect_every`-th frame is searched. If
            it has a number `follow_every`, the face is carried over to every such frame and not looked for in between.
        detect_every: frames between two searches.
        patience: frames for which a lost face is waited for where more than one face has been seen.

    Attributes:
        follower: the detector, if it is a `FaceFollower`, else None.
        passed_over: whether the face of the latest frame was not looked for, and is that of the frame before.
        lost: frames since the face was last seen.
        counts: number of faces seen in each search of the whole picture so far.
        switches: how often the face followed was replaced by one elsewhere in the same scene.
        switched: whether this has just happened, in the latest frame.
    """

    farthest = math.inf  # face widths: a face that was lost is not taken for one found farther away than this

    def __init__(self, detector: LandmarkDetector, detect_every: int = 10, patience: int = 25):
        self.detector, self.detect_every, self.patience = detector, detect_every, patience
        self.passed_over = False
        self.counts: list[int] = []
        self.switches = 0
        self.switched = False
        self.follower = detector if isinstance(detector, FaceFollower) else None
        self._follow_every: int = getattr(detector, "follow_every", 1)
        self._index = 0  # of the next frame
        self._searches = 0
        self.lost = 0
        self._face: Face | None = None  # as it was last seen in this scene
        self._before_cut: Face | None = None

    def next_points(self, frame: np.ndarray, change: Change) -> np.ndarray | None:
        """Returns `(68, 2)` landmarks in the next `(height, width, 3)` uint8 frame, or None where there are none."""
        face = self.update(frame, change)
        return None if face is None else face.points

    def warnings(self) -> list[str]:
        """Returns no sentences: the report has its own about `counts` and `switches`."""
        return []

    def update(self, frame: np.ndarray, change: Change = Change.NONE) -> Face | None:
        """Returns the face in the next frame, or None where it cannot be seen.

        Args:
            frame: `(height, width, 3)` uint8.
            change: whether the frame belongs to another scene than the one before.
        """
        self.switched = self.passed_over = False
        if change is Change.CUT:
            self._before_cut, self._face, self.lost = self._face, None, 0
        elif change is Change.RETURN:
            self._face, self.lost = self._before_cut or self._face, 1
        face = self.next_face(frame, change)
        self._index += 1
        self.lost = 0 if face is not None else self.lost + 1
        self._face = face if face is not None else self._face
        return face

    # ---------------------------------------------------------------------------------- where faces are, and which one

    def find(self, frame: np.ndarray) -> list[Face]:
        """Returns all faces of the frame among which one is chosen."""
        faces = self.detector(frame)
        self.counts.append(len(faces))
        return faces

    def belongs(self, face: Face, frame: np.ndarray) -> bool:
        """Returns whether a face that was carried over to this frame is still where it may be."""
        return inside(face, frame)

    def choose(self, faces: list[Face], frame: np.ndarray) -> Face | None:
        """Returns the face to follow where none has been followed yet; None if there are no faces."""
        whole = 0.0, 0.0, float(frame.shape[1]), float(frame.shape[0])
        return max(faces, key=lambda face: prominence(face, whole), default=None)

    def replace(self, faces: list[Face], frame: np.ndarray) -> Face | None:
        """Returns the face to follow in place of the lost one, which is not among `faces`; None to wait for it."""
        if not faces or (max(self.counts) > 1 and self.lost < self.patience):
            return None
        return self.switch_to(self.choose(faces, frame))

    # --------------------------------------------------------------------------------------------- steps of the search

    @property
    def tracked(self) -> Face | None:
        """The face of the frame before; None where it was not seen there, or in another scene."""
        return self._face if self.lost == 0 else None

    def next_face(self, frame: np.ndarray, change: Change) -> Face | None:
        """Carries the face over or searches for it, whichever is due."""
        if change is Change.CUT:
            return self.search_new_scene(frame)
        tracked = self.tracked
        if self.follower is not None and change is Change.NONE:
            if tracked is not None and (since := self._index % self.detect_every):
                self.passed_over = since % self._follow_every != 0
                return tracked if self.passed_over else self.carry_over(self.follower, tracked, frame)
            if tracked is None and self._index % pause_of(self.lost):
                return None
        return self.search(tracked, frame)

    def carry_over(self, follower: FaceFollower, tracked: Face, frame: np.ndarray) -> Face | None:
        """Returns the face of the frame before in this one, if it is still where it may be."""
        face = follower.follow(frame, tracked)
        return face if self.belongs(face, frame) else None

    def search_new_scene(self, frame: np.ndarray) -> Face | None:
        """Returns the face where it was before the cut, in case only the light has changed; else the chosen one."""
        faces, before = self.find(frame), self._before_cut
        same = [face for face in faces if before is not None and overlap(face.box, before.box) > SAME_PLACE]
        return self.choose(same or faces, frame)

    def search(self, tracked: Face | None, frame: np.ndarray) -> Face | None:
        """Looks for the face where it should be, and in one search of `WHOLE_SEARCH` everywhere.

        Args:
            tracked: the face of the frame before, None where it was not seen there.
            frame: `(height, width, 3)` uint8.
        """
        self._searches += 1
        follower, expected = self.follower, self._face
        if tracked is None or follower is None:
            return self.pick(self.find(frame), expected, None, frame)
        expected = follower.follow(frame, tracked)
        if self._searches % WHOLE_SEARCH != 1 and self._is_there(expected, frame):
            return expected
        return self.pick(self.find(frame), expected, expected, frame)

    def pick(self, faces: list[Face], expected: Face | None, followed: Face | None, frame: np.ndarray) -> Face | None:
        """Decides which of the faces of a search is the one followed.

        Args:
            faces: what `find` returned.
            expected: where the face should be or was last seen; None if there was none in this scene.
            followed: the face as it was carried over to this frame; None where it was not.
            frame: `(height, width, 3)` uint8.
        """
        last = self._face
        if last is None or expected is None:
            return self.choose(faces, frame)
        nearest = max(faces, key=lambda face: overlap(face.box, expected.box), default=None)
        if nearest is not None and overlap(nearest.box, expected.box) > SAME_PLACE:
            return followed or nearest  # what was carried over jitters less than what a search finds
        if followed is not None and self._is_there(followed, frame):
            return followed
        return self._reacquire(last, faces, frame)

    def _is_there(self, face: Face, frame: np.ndarray) -> bool:
        """Returns whether a face that was carried over is where it may be, and the detector confirms it."""
        return self.follower is not None and self.belongs(face, frame) and self.follower.confirm(frame, face)

    def _reacquire(self, last: Face, faces: list[Face], frame: np.ndarray) -> Face | None:
        """Returns the lost face, found near its last position; without one there, what `replace` says."""
        reach = last.size * min(self.farthest, 0.5 + self.lost / 10.0)  # it may have moved on in the meantime
        near = [face for face in faces if distance(face, last) < reach and 0.5 < face.size / last.size < 2.0]
        return min(near, key=lambda face: distance(face, last)) if near else self.replace(faces, frame)

    def switch_to(self, face: Face | None) -> Face | None:
        """Counts that another face is followed from here on, and returns it."""
        self.switches, self.switched = self.switches + 1, True
        return face


def pause_of(lost: int) -> int:
    """Returns the frames until the next search for a face that has been lost for this many frames."""
    return next((pause for since, pause in ((250, 25), (50, 10), (10, 5)) if lost > since), 1)


def inside(face: Face, frame: np.ndarray) -> bool:
    """Returns whether the middle of the face is in the picture, and its follower still sees it."""
    x, y = face.points[STEADY].mean(axis=0)
    return face.seen and 0 <= x < frame.shape[1] and 0 <= y < frame.shape[0] and face.size > 8


def distance(first: Face, second: Face) -> float:
    """Returns the pixels between the middles of two faces."""
    return float(np.linalg.norm(first.points[STEADY].mean(axis=0) - second.points[STEADY].mean(axis=0)))


def prominence(face: Face, box: tuple[float, float, float, float]) -> float:
    """Returns the prominence of a face: its area, less with the distance from the middle of `(x0, y0, x1, y1)`."""
    centre = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2 - box[:2]
    centre = centre / (box[2] - box[0], box[3] - box[1]) - 0.5
    return face.size**2 * math.exp(-2.0 * float((centre**2).sum()))

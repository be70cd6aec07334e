"""The face of a chosen speaker through a clip: looked for only where the speaker is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .face_tracking_avsr import WHOLE_SEARCH, Change, distance, inside, pause_of, prominence
from .landmarks_avsr import Box, Face, FaceDescriber, FaceFollower, LandmarkDetector, grown, overlap
from .speaker_boxes_avsr import SpeakerBox
from .speaker_report_avsr import SpeakerReport

MARGIN = 0.25  # of the box's shorter side, searched around it: a face detector needs some surroundings
BELONGS = 0.5  # share of a face that must be within the box, which is a little generous
GENEROUS = 0.1  # of the box's sides
LOOKS = 2  # descriptions of the face that are kept, at most
ALIKE = 0.6  # distance of descriptions up to which it may be the same face (dlib's own limit)
BRIDGE = 25  # frames for which a face goes on being followed where the locator misses the speaker


@dataclass(frozen=True)
class _Place:
    """Where a face is in the speaker's box: its centre and width in units of the box's width."""

    x: float
    y: float
    size: float

    @classmethod
    def of(cls, face: Face, box: Box) -> _Place:
        width = box[2] - box[0]
        x, y = (face.box[0] + face.box[2]) / 2 - box[0], (face.box[1] + face.box[3]) / 2 - box[1]
        return cls(x / width, y / width, face.size / width)

    def far_from(self, other: _Place) -> float:
        """Distance in units of the face's width."""
        return float(np.hypot(self.x - other.x, self.y - other.y)) / max(other.size, 1e-6)


class SpeakerFace:
    """
    Landmarks of the speaker's face, frame by frame; a source of landmarks for `MouthBuilder`.

    `look` says where the speaker is in the next frame, and the face is searched for and followed in there only. Of
    several faces in the box it is the one that was followed so far, or looks like it, or is where it was in the box; at
    first the largest and most central one. Where the locator misses the speaker for up to a second, the face is followed on.

    Args:
        detector: finds the faces; if it is a `FaceFollower`, it isn't asked in every frame; if it is a `FaceDescriber`, a
            face is known again, and doubted where it looks like another one after an absence or a change of scene.
        detect_every: frames between two searches.
        report: is told what was seen in each frame.
        patience: frames for which a lost face is waited for while another one is in the box.

    Attributes:
        switches: how often the face followed was replaced by one elsewhere in the same scene.
        switched: whether this has just happened, in the latest frame.
    """

    counts: tuple[int, ...] = ()

    def __init__(self, detector: LandmarkDetector, detect_every: int, report: SpeakerReport, patience: int = 25):
        self.report, self.switches, self.switched = report, 0, False
        self._detector, self._detect_every, self._patience = detector, detect_every, patience
        self._follower = detector if isinstance(detector, FaceFollower) else None
        self._describer = detector if isinstance(detector, FaceDescriber) else None
        self._looks: list[np.ndarray] = []
        self._looked = False  # whether the latest frame was searched
        self._new_look = False  # whether the face has just been found anew
        self._strange = False  # whether it looks like another one than before
        self._here: SpeakerBox | None = None
        self._index = self._searches = self._lost = self._missed = 0
        self._in_box = 0  # faces in the box at the latest search
        self._face: Face | None = None
        self._place: _Place | None = None
        self._before_cut: Face | None = None

    def look(self, here: SpeakerBox | None) -> None:
        """Where the speaker is in the next frame; None where they are not seen."""
        self._here = here

    def next_points(self, frame: np.ndarray, change: Change) -> np.ndarray | None:
        """`(68, 2)` landmarks in the next `(height, width, 3)` uint8 frame, or None where there are none."""
        face = self._next_face(frame, change)
        if face is not None and self._looked and self._in_box == 1:
            self._remember(frame, face)
        self.report.add(self._here, face is not None, self._in_box, self._strange)
        if face is not None and self._here is not None:
            self._place = _Place.of(face, self._here.box)
        self._lost = 0 if face is not None else self._lost + 1
        self._face = face if face is not None else self._face
        return None if face is None else face.points

    def warnings(self) -> list[str]:
        """There are none: the report has its own."""
        return []

    def _remember(self, frame: np.ndarray, face: Face) -> None:
        """Notes what the face looks like, and whether that is new."""
        if self._describer is None or (len(self._looks) == LOOKS and not self._new_look):
            return
        look = self._describer.describe(frame, face)
        if self._new_look:
            self._strange = self._unlike(look) > ALIKE
        self._new_look = False
        if len(self._looks) < LOOKS and not self._strange:
            self._looks.append(look)

    def _unlike(self, look: np.ndarray) -> float:
        """Distance from what the face has looked like so far; 0 where that isn't known."""
        return float(np.linalg.norm(np.mean(self._looks, axis=0) - look)) if self._looks else 0.0

    def _next_face(self, frame: np.ndarray, change: Change) -> Face | None:
        index, self._index, self.switched, self._looked = self._index, self._index + 1, False, False
        back, self._missed = self._missed > 0, 0 if self._here is not None else self._missed + 1
        tracked = self._face is not None and self._lost == 0
        if change is Change.CUT:
            self._before_cut, self._face, self._lost, tracked = self._face, None, 0, False
        elif change is Change.RETURN:
            self._face, self._lost, tracked = self._before_cut or self._face, 1, False
        if self._here is None:
            self._in_box = 0
            return self._bridged(frame) if tracked else None
        if tracked and self._follower is not None and index % self._detect_every:
            face = self._follower.follow(frame, self._face)
            if inside(face, frame) and self._belongs(face):
                return face
        elif not (tracked or back) and change is Change.NONE and self._follower and index % pause_of(self._lost):
            return None  # no face for a while: look less often
        return self._search(frame, tracked)

    def _bridged(self, frame: np.ndarray) -> Face | None:
        """The face where the locator misses the speaker; asked for every few frames."""
        if self._follower is None or self._missed > BRIDGE:
            return None
        face = self._follower.follow(frame, self._face)
        if not inside(face, frame) or (self._missed % 4 == 1 and not self._follower.confirm(frame, face)):
            return None
        return face

    def _search(self, frame: np.ndarray, tracked: bool) -> Face | None:
        """Looks for the face where it should be, and now and then through the whole box; decides which it is."""
        follower = self._follower if tracked else None
        expected = follower.follow(frame, self._face) if follower else self._face
        self._searches, self._looked = self._searches + 1, True
        self._new_look |= not tracked
        still_there = follower is not None and inside(expected, frame) and self._belongs(expected)
        if still_there and self._searches % WHOLE_SEARCH != 1 and follower.confirm(frame, expected):
            return expected
        faces = self._faces(frame)
        self._in_box = len(faces)
        if self._face is None:
            return self._likeliest(frame, faces)
        nearest = max(faces, key=lambda face: overlap(face.box, expected.box), default=None)
        if nearest is not None and overlap(nearest.box, expected.box) > 0.4:
            return expected if still_there else nearest
        if still_there and follower.confirm(frame, expected):
            self._in_box = max(self._in_box, 1)
            return expected
        return self._again(frame, faces)

    def _again(self, frame: np.ndarray, faces: list[Face]) -> Face | None:
        """A lost face: takes it back where it may have gone meanwhile, or another one once patience is at an end."""
        last = self._face
        reach = last.size * min(1.0, 0.5 + self._lost / 10.0)
        near = [face for face in faces if distance(face, last) < reach and 0.5 < face.size / last.size < 2.0]
        if near:
            return min(near, key=lambda face: distance(face, last))
        face = self._likeliest(frame, faces)
        if face is None:
            return None
        at_its_place = self._place is None or _Place.of(face, self._here.box).far_from(self._place) < 1.0
        if at_its_place:
            return face
        if len(faces) > 1 and self._lost < self._patience:
            return None
        self.switches, self.switched = self.switches + 1, True
        return face

    def _likeliest(self, frame: np.ndarray, faces: list[Face]) -> Face | None:
        """
        The face that looks like it did; or is where it was in the box; without a memory the largest, most central one.
        """
        box = self._here.box
        if self._looks and len(faces) > 1:
            return min(faces, key=lambda face: self._unlike(self._describer.describe(frame, face)))
        if self._place is not None and len(faces) > 1:
            return min(faces, key=lambda face: _Place.of(face, box).far_from(self._place))
        return max(faces, key=lambda face: prominence(face, box), default=None)

    def _belongs(self, face: Face) -> bool:
        """Whether enough of the face is in the speaker's box."""
        more = GENEROUS * (self._here.box[2] - self._here.box[0])
        x0, y0, x1, y1 = grown(self._here.box, more, more)
        width = min(face.box[2], x1) - max(face.box[0], x0)
        height = min(face.box[3], y1) - max(face.box[1], y0)
        area = (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])
        return width > 0 and height > 0 and width * height >= BELONGS * area

    def _faces(self, frame: np.ndarray) -> list[Face]:
        """All faces in the box."""
        more = MARGIN * min(self._here.box[2] - self._here.box[0], self._here.box[3] - self._here.box[1])
        x0, y0, x1, y1 = grown(self._here.box, more, more)
        left, top = max(0, int(x0)), max(0, int(y0))
        part = frame[top : max(top, int(y1 + 1)), left : max(left, int(x1 + 1))]
        if min(part.shape[:2]) < 16:
            return []
        found = [_moved(face, left, top) for face in self._detector(np.ascontiguousarray(part))]
        return [face for face in found if self._belongs(face)]


def _moved(face: Face, x: float, y: float) -> Face:
    """A face found in a part of a frame that begins there."""
    box = face.box[0] + x, face.box[1] + y, face.box[2] + x, face.box[3] + y
    return Face(box, face.points + np.array([x, y], face.points.dtype), face.score)

"""A chosen speaker in the frames of a clip: their box in each frame, their face in that box, and a report.

`SpeakerSearch` passes the frames to a locator (`SpeakerBoxes`, in a thread), looks for the face where the locator
finds the speaker (`SpeakerFace`), and records second by second who was followed, with what confidence
(`SpeakerReport`).
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .clip_report_avsr import ClipReport
from .face_tracking_avsr import Change, FaceTracker, inside, prominence
from .landmarks_avsr import Box, Face, FaceDescriber, FaceFollower, LandmarkDetector, grown, meet
from .speaker_locator_avsr import Speaker, asked_place, plain_speaker, speaker_name

SpeakerLocator = Callable[[Iterator[np.ndarray], Any], Iterable[Any]]

FRAMES_AHEAD = 4  # frames that may wait for the locator
BOXES_AHEAD = 256  # boxes that may wait for their frames

MARGIN = 0.25  # of the box's shorter side, searched around it: a face detector needs some surroundings
BELONGS = 0.5  # share of a face that must be within the box
GENEROUS = 0.1  # of the box's width, added on each side before that share is taken
LOOKS = 2  # most descriptions of the face that are stored
ALIKE = 0.6  # distance of descriptions up to which it may be the same face (dlib's own limit)
BRIDGE = 25  # frames for which a face is still followed where the locator misses the speaker

ABSENT = 0.1  # share of the frames without the speaker above which the report warns
UNSURE = 0.5  # mean confidence below which the report warns
STRANGERS_NAMED = 5  # most times of a possible change of person that a warning lists
SEVERAL = 0.1  # share of the frames with more than one face in the box above which the report warns
NEAR = 0.1  # of the sides of a box: a face this near counts as inside


@dataclass(frozen=True)
class SpeakerBox:
    """
    Where the speaker is in one frame.

    Attributes:
        box: `(x0, y0, x1, y1)` in pixels.
        sure: the locator's confidence, from 0 to 1.
    """

    box: Box
    sure: float = 1.0


@dataclass(frozen=True)
class ChosenSpeaker:
    """
    The speaker whose words are recognised, and the locator that finds them.

    Attributes:
        asked: the request, as `check_speaker` returns it.
        locator: a function of an iterator of frames `(height, width, 3)` uint8 and of `asked`. For each frame, as soon
            as it can, it yields `(x0, y0, x1, y1)` in pixels, or `(x0, y0, x1, y1, score)` with a score from 0 to 1,
            or None where the speaker isn't seen.
    """

    asked: Speaker
    locator: SpeakerLocator


class SpeakerSearch:
    """
    Finds a chosen speaker's box in each frame, and the face in it. A context manager, which ends the locator's thread.

    Args:
        speaker: whom to find, and how.
        image_processor: `MouthRoiImageProcessor`, for its settings.

    Attributes:
        report: what was seen of the speaker so far.
    """

    def __init__(self, speaker: ChosenSpeaker, image_processor: Any):
        self._speaker, self._detect_every = speaker, image_processor.detect_every
        self.report = SpeakerReport(speaker.asked, image_processor.fps)
        self._face: SpeakerFace | None = None
        self._boxes: SpeakerBoxes | None = None

    def face(self, detector: LandmarkDetector) -> SpeakerFace:
        """Returns the source of landmarks in the frames that `add` and `finish` yield."""
        self._face = SpeakerFace(detector, self._detect_every, self.report)
        return self._face

    def __enter__(self) -> SpeakerSearch:
        self._boxes = SpeakerBoxes(self._speaker)
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.close()

    def add(self, frame: np.ndarray) -> Iterator[np.ndarray]:
        """Adds a frame; yields those in which the speaker's box is known by now, one at a time."""
        return self._looked_at(self._opened.add(frame))

    def finish(self) -> Iterator[np.ndarray]:
        """Yields the rest, once all frames were added."""
        return self._looked_at(self._opened.finish())

    @property
    def _opened(self) -> SpeakerBoxes:
        """The speaker's boxes; they exist from `__enter__` on."""
        if self._boxes is None:
            raise RuntimeError("SpeakerSearch has no locator running: use it in a `with` statement")
        return self._boxes

    def _looked_at(self, pairs: Iterator[tuple[np.ndarray, SpeakerBox | None]]) -> Iterator[np.ndarray]:
        """Yields the frames, after the face's tracker has got the box of each."""
        for frame, here in pairs:
            if self._face is not None:
                self._face.look(here)
            yield frame

    def note(self, report: ClipReport, name: str) -> None:
        """
        Writes into a clip's report who was followed.

        Args:
            report: of the clip; changed in place.
            name: the clip's name in messages.

        Raises:
            ValueError: the speaker was not found in any frame.
        """
        if not self.report.located:
            raise ValueError(f"{name}: {speaker_name(self._speaker.asked)} was not found in any frame.")
        report.speaker = self.report.finish()
        report.warn(self.report.warnings(self._opened.unanswered))


class SpeakerBoxes:
    """
    Runs a locator in a thread, in parallel to the code that passes it frames.

    A frame is held until its box is known; how many are held is up to the locator, which may look ahead. `close`, or
    garbage collection of the object, ends the thread.

    Args:
        speaker: whom to find, and how.

    Attributes:
        unanswered: frames without a box because the locator had ended before them.
    """

    def __init__(self, speaker: ChosenSpeaker):
        self.unanswered = 0
        self._waiting: deque[np.ndarray] = deque()
        self._mailbox = _Mailbox()
        self._thread = threading.Thread(target=_locate, args=(speaker, self._mailbox), name="speaker", daemon=True)
        self._dropped = weakref.finalize(self, self._mailbox.close)
        self._thread.start()

    def add(self, frame: np.ndarray) -> Iterator[tuple[np.ndarray, SpeakerBox | None]]:
        """Adds a `(height, width, 3)` uint8 frame; yields those whose boxes are known by now. Must be exhausted."""
        self._waiting.append(frame)
        while self._waiting and not self._mailbox.offer(frame):  # its box may come before the locator looks at it
            yield from self._paired(wait=False)
        yield from self._paired(wait=False)

    def finish(self) -> Iterator[tuple[np.ndarray, SpeakerBox | None]]:
        """Yields the rest, once all frames were added."""
        self._mailbox.end_frames()
        while self._waiting:
            yield from self._paired(wait=True)

    def close(self) -> None:
        """Ends the thread."""
        self._dropped()
        self._thread.join()

    def _paired(self, wait: bool) -> Iterator[tuple[np.ndarray, SpeakerBox | None]]:
        """Yields the frames whose boxes are there; waits for at least one of them if `wait`."""
        boxes, ended = self._mailbox.fetch(len(self._waiting), wait)
        for box in boxes:
            yield self._waiting.popleft(), box
        while ended and self._waiting:
            self.unanswered += 1
            yield self._waiting.popleft(), None


class _Mailbox:
    """Exchanges frames and boxes between two threads; a blocked producer takes from the other side: no deadlock."""

    def __init__(self) -> None:
        self._frames: deque[np.ndarray] = deque()
        self._boxes: deque[SpeakerBox | None] = deque()
        self._changed = threading.Condition()
        self._closed = self._no_more_frames = self._no_more_boxes = False
        self._error: BaseException | None = None

    def offer(self, frame: np.ndarray) -> bool:
        """Offers a frame; returns False if boxes must be taken first."""
        with self._changed:
            self._changed.wait_for(lambda: self._boxes or len(self._frames) < FRAMES_AHEAD or self._over)
            if self._over:
                return True  # the locator has ended: the frame is dropped
            if len(self._frames) >= FRAMES_AHEAD:
                return False
            self._frames.append(frame)
            self._changed.notify_all()
            return True

    @property
    def _over(self) -> bool:
        return self._no_more_boxes or self._closed

    def end_frames(self) -> None:
        """Says that there are no more frames."""
        with self._changed:
            self._no_more_frames = True
            self._changed.notify_all()

    def frames(self) -> Iterator[np.ndarray]:
        """Yields the frames to the locator."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frames or self._no_more_frames or self._closed)
                if self._closed or not self._frames:
                    return
                frame = self._frames.popleft()
                self._changed.notify_all()
            yield frame

    def put_box(self, box: SpeakerBox | None) -> bool:
        """Waits for room and adds a box; returns False if the consumer is closed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._boxes) < BOXES_AHEAD or self._closed)
            self._boxes.append(box)
            self._changed.notify_all()
            return not self._closed

    def end_boxes(self, error: BaseException | None) -> None:
        """Says that there are no more boxes, and with which error the locator ended."""
        with self._changed:
            self._no_more_boxes, self._error = True, error
            self._frames.clear()
            self._changed.notify_all()

    def fetch(self, count: int, wait: bool) -> tuple[list[SpeakerBox | None], bool]:
        """Returns at most `count` boxes, and whether they were the last; raises the locator's error."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._boxes or self._no_more_boxes or self._closed)
            boxes = [self._boxes.popleft() for _ in range(min(count, len(self._boxes)))]
            self._changed.notify_all()
            if self._error is not None and not boxes:
                raise self._error
            return boxes, not self._boxes and self._error is None and self._over

    def close(self) -> None:
        """Releases both sides, whatever they wait for."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _locate(speaker: ChosenSpeaker, mailbox: _Mailbox) -> None:
    """Runs in the thread. It holds no reference to the owner, so garbage collection of the owner stops it."""
    error: BaseException | None = None
    boxes: Any = None
    try:
        boxes = iter(speaker.locator(mailbox.frames(), speaker.asked))
        for index, value in enumerate(boxes):
            if not mailbox.put_box(checked_box(value, index)):
                break
    except BaseException as caught:  # `fetch` raises it
        error = caught
    finally:
        try:
            if isinstance(boxes, Generator):
                boxes.close()
        finally:
            mailbox.end_boxes(error)


def checked_box(value: Any, index: int) -> SpeakerBox | None:
    """
    Checks what a locator yielded for a frame.

    Args:
        value: 4 or 5 numbers, or None; a box with a NaN or without an area counts as None.
        index: of the frame, for the message.

    Raises:
        ValueError: `value` has none of these forms.
    """
    if value is None:
        return None
    try:
        x0, y0, x1, y1, *score = map(float, value)
    except (TypeError, ValueError):
        score = [0.0, 0.0]
    if len(score) > 1:
        raise ValueError(
            f"`speaker_locator` gave {value!r} for frame {index}: it must be (x0, y0, x1, y1) in pixels, "
            "(x0, y0, x1, y1, score), or None where the speaker isn't seen."
        )
    if not all(map(math.isfinite, (x0, y0, x1, y1, *score))) or x0 >= x1 or y0 >= y1:
        return None
    return SpeakerBox((x0, y0, x1, y1), min(max(score[0], 0.0), 1.0) if score else 1.0)


@dataclass(frozen=True)
class _Place:
    """Where a face is in the speaker's box: its centre and width in units of the box's width."""

    x: float
    y: float
    size: float

    @classmethod
    def of(cls, face: Face, box: Box) -> _Place:
        """Returns the place of a face in a box."""
        width = box[2] - box[0]
        x, y = (face.box[0] + face.box[2]) / 2 - box[0], (face.box[1] + face.box[3]) / 2 - box[1]
        return cls(x / width, y / width, face.size / width)

    def distance(self, other: _Place) -> float:
        """Returns the distance between the centres, in units of the other face's width."""
        return float(np.hypot(self.x - other.x, self.y - other.y)) / max(other.size, 1e-6)


class SpeakerFace(FaceTracker):
    """Follows the speaker's face, frame by frame; a source of landmarks for `MouthBuilder`.

    `look` says where the speaker is in the next frame, and the face is searched for and followed in that box only. Of
    several faces in the box it is the one that was followed so far, or looks like it, or is where it was in the box;
    at first the largest and most central one. Where the locator misses the speaker for up to a second, the face is
    still followed.

    Args:
        detector: finds the faces. If it is a `FaceFollower`, only every `detect_every`-th frame is searched; if it is
            a `FaceDescriber`, a face is re-identified by its appearance, and reported where it looks like another one
            after an absence or a change of scene.
        detect_every: frames between two searches.
        report: receives what was seen in each frame.
        patience: frames for which a lost face is waited for while another one is in the box.
    """

    farthest = 1.0  # somebody else may stand in the box

    def __init__(self, detector: LandmarkDetector, detect_every: int, report: SpeakerReport, patience: int = 25):
        super().__init__(detector, detect_every, patience)
        self.report = report
        self._describer = detector if isinstance(detector, FaceDescriber) else None
        self._looks: list[np.ndarray] = []  # descriptions of the face
        self._new_look = False  # whether the face has just been found again
        self._strange = False  # whether it looks like another one than before
        self._searched = False  # whether the latest frame was searched
        self._here: SpeakerBox | None = None  # where the speaker is in the latest frame
        self._box: Box = (0.0, 0.0, 0.0, 0.0)  # where they were last seen
        self._place: _Place | None = None  # of the face in that box
        self._missed = 0  # frames since the locator last saw the speaker
        self._in_box = 0  # faces in the box at the latest search

    def look(self, here: SpeakerBox | None) -> None:
        """Takes where the speaker is in the next frame; None where they are not seen."""
        self._here = here

    def next_points(self, frame: np.ndarray, change: Change) -> np.ndarray | None:
        """Returns `(68, 2)` landmarks in the next `(height, width, 3)` uint8 frame, or None where there are none."""
        self._searched = False
        face = self.update(frame, change)
        if face is not None and self._searched and self._in_box == 1:
            self._remember(frame, face)
        self.report.add(self._here, face is not None, self._in_box, self._strange)
        if face is not None and self._here is not None:
            self._place = _Place.of(face, self._here.box)
        return None if face is None else face.points

    def find(self, frame: np.ndarray) -> list[Face]:
        """Returns all faces in the speaker's box; `counts` stays empty, as it is about whole pictures."""
        more = MARGIN * min(self._box[2] - self._box[0], self._box[3] - self._box[1])
        x0, y0, x1, y1 = grown(self._box, more, more)
        left, top = max(0, int(x0)), max(0, int(y0))
        part = frame[top : max(top, int(y1 + 1)), left : max(left, int(x1 + 1))]
        if min(part.shape[:2]) < 16:
            return []
        found = [face.moved(left, top) for face in self.detector(np.ascontiguousarray(part))]
        return [face for face in found if self._is_in_box(face)]

    def belongs(self, face: Face, frame: np.ndarray) -> bool:
        """Returns whether the face is in the picture, and enough of it in the speaker's box."""
        return super().belongs(face, frame) and self._is_in_box(face)

    def choose(self, faces: list[Face], frame: np.ndarray) -> Face | None:
        """Returns the face that looks like the speaker's, or is at its old place; at first the most prominent one."""
        describer, place, box = self._describer, self._place, self._box
        if describer is not None and self._looks and len(faces) > 1:
            return min(faces, key=lambda face: self._look_distance(describer.describe(frame, face)))
        if place is not None and len(faces) > 1:
            return min(faces, key=lambda face: _Place.of(face, box).distance(place))
        return max(faces, key=lambda face: prominence(face, box), default=None)

    def replace(self, faces: list[Face], frame: np.ndarray) -> Face | None:
        """Returns the chosen face: at the old place in the box it is the same one, elsewhere another one."""
        face = self.choose(faces, frame)
        if face is None or self._place is None or _Place.of(face, self._box).distance(self._place) < 1.0:
            return face
        return None if len(faces) > 1 and self.lost < self.patience else self.switch_to(face)

    def next_face(self, frame: np.ndarray, change: Change) -> Face | None:
        """Bridges frames in which the locator misses the speaker; searches as soon as it finds them again."""
        returns, self._missed = self._missed > 0, 0 if self._here is not None else self._missed + 1
        if self._here is None:
            self._in_box = 0
            return self._bridge(frame)
        self._box = self._here.box
        if returns and self.tracked is None:
            return self.search(None, frame)  # without the pauses between two searches for a lost face
        return super().next_face(frame, change)

    def _bridge(self, frame: np.ndarray) -> Face | None:
        """Carries the face over where the locator misses the speaker, and has it confirmed every few frames."""
        tracked = self.tracked
        if tracked is None or self.follower is None or self._missed > BRIDGE:
            return None
        face = self.follower.follow(frame, tracked)
        if not inside(face, frame) or (self._missed % 4 == 1 and not self.follower.confirm(frame, face)):
            return None
        return face

    def carry_over(self, follower: FaceFollower, tracked: Face, frame: np.ndarray) -> Face | None:
        """Searches the box where the face has left it: it was somebody else's, or the locator's box has jumped."""
        return super().carry_over(follower, tracked, frame) or self.search(tracked, frame)

    def search_new_scene(self, frame: np.ndarray) -> Face | None:
        """Searches as in any frame: the locator says where the speaker is after the cut."""
        return self.search(None, frame)

    def search(self, tracked: Face | None, frame: np.ndarray) -> Face | None:
        """Notes that the frame was searched, and whether the face is found again rather than followed."""
        self._searched = True
        self._new_look |= tracked is None
        return super().search(tracked, frame)

    def pick(self, faces: list[Face], expected: Face | None, followed: Face | None, frame: np.ndarray) -> Face | None:
        """Prefers a face that was carried over to the one found in the box only if it is in the box itself."""
        followed = followed if followed is not None and self.belongs(followed, frame) else None
        face = super().pick(faces, expected, followed, frame)
        self._in_box = max(len(faces), int(face is not None))
        return face

    def _remember(self, frame: np.ndarray, face: Face) -> None:
        """Compares a face that was found again with the stored descriptions; stores at most `LOOKS` of them."""
        if self._describer is None or (len(self._looks) == LOOKS and not self._new_look):
            return
        look = self._describer.describe(frame, face)
        if self._new_look:
            self._strange = self._look_distance(look) > ALIKE
        self._new_look = False
        if len(self._looks) < LOOKS and not self._strange:
            self._looks.append(look)

    def _look_distance(self, look: np.ndarray) -> float:
        """Returns the distance from the stored descriptions of the face; 0 where there are none."""
        return float(np.linalg.norm(np.mean(self._looks, axis=0) - look)) if self._looks else 0.0

    def _is_in_box(self, face: Face) -> bool:
        """Returns whether enough of the face is in the speaker's box."""
        more = GENEROUS * (self._box[2] - self._box[0])
        x0, y0, x1, y1 = grown(self._box, more, more)
        width = min(face.box[2], x1) - max(face.box[0], x0)
        height = min(face.box[3], y1) - max(face.box[1], y0)
        area = (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])
        return width > 0 and height > 0 and width * height >= BELONGS * area


@dataclass
class _Second:
    """Sums over the frames of one second."""

    frames: int = 0
    located: int = 0
    faces: int = 0
    sure: float = 0.0
    box: list[float] = field(default_factory=lambda: [0.0] * 4)

    def add(self, here: SpeakerBox | None, face: bool, in_box: int, strange: bool) -> None:
        """Adds a frame; the arguments are those of `SpeakerReport.add`."""
        self.frames += 1
        self.faces += face
        if here is not None:
            self.located += 1
            self.sure += here.sure / max(in_box, 1, 2 * strange)  # several faces share the locator's confidence
            self.box = [total + edge for total, edge in zip(self.box, here.box, strict=True)]

    def to_dict(self, number: int) -> dict[str, Any]:
        """Returns the means; `number` is that of the second."""
        box = [round(edge / self.located, 1) for edge in self.box] if self.located else None
        sure, face = (round(value / self.frames, 3) for value in (self.sure, self.faces))
        return {"second": number, "box": box, "sure": sure, "face": face}


class SpeakerReport:
    """
    Collects what was seen of a chosen speaker, second by second.

    Args:
        asked: the request, as `check_speaker` returns it.
        fps: frames per second of the clip.
    """

    def __init__(self, asked: Speaker, fps: float):
        self.asked, self._fps = asked, fps
        self._seconds: list[dict[str, Any]] = []
        self._now, self._late, self._second = _Second(), 0, 0
        self._frames = self._located = self._faces = self._several = self._most = 0
        self._sure = 0.0
        self._strange = False
        self._strange_from: list[int] = []  # frames from which on the face looks like another one
        self._elsewhere = False  # whether the person found is not where the speaker was said to be
        self._absent: list[bool] = []  # not taken yet

    def begin(self, late: int) -> None:
        """Notes that the first frame to be added is preceded by `late` frames of the clip without a picture."""
        self._late, self._second = late, int(late / self._fps)

    @property
    def located(self) -> float:
        """The share of the frames in which the speaker was found."""
        return self._located / max(self._frames, 1)

    def add(self, here: SpeakerBox | None, face: bool, in_box: int, strange: bool = False) -> None:
        """
        Adds a frame.

        Args:
            here: where the speaker is; None where they aren't seen.
            face: whether their face was found.
            in_box: faces in the box at the latest search.
            strange: whether their face looks like another one than before.
        """
        if strange and not self._strange:
            self._strange_from.append(self._frames)
        self._strange = strange
        if self._frames == 0 and here is not None:
            self._elsewhere = not _is_near(asked_place(self.asked), here.box)
        if int((self._late + self._frames) / self._fps) > self._second:
            self._end_second()
        self._frames += 1
        self._located += here is not None
        self._faces += face
        self._several += in_box > 1
        self._most = max(self._most, in_box)
        self._absent.append(here is None and not face)
        self._now.add(here, face, in_box, strange)
        self._sure += 0.0 if here is None else here.sure

    def take_absent(self, count: int) -> np.ndarray:
        """Returns `(count,)` bool for the next frames that were not taken yet: whether the speaker was out of view."""
        absent, self._absent = self._absent[:count], self._absent[count:]
        return np.array(absent, dtype=bool)

    def _end_second(self) -> None:
        self._seconds.append(self._now.to_dict(self._second))
        self._now, self._second = _Second(), self._second + 1

    def finish(self) -> dict[str, Any]:
        """
        Returns the report, once all frames were added.

        Returns:
            `{"asked", "located", "followed", "seconds"}`: the share of the frames in which the speaker was found, and
            their face; and for each second `{"second", "box", "sure", "face"}`: the mean `[x0, y0, x1, y1]` in pixels,
            None where the speaker wasn't seen; the confidence (0 to 1, divided by the number of faces in the
            box, and by two while the face looks like another one than before); and the share of the frames with the
            face.
        """
        if self._now.frames:
            self._end_second()
        located, followed = round(self.located, 4), round(self._faces / max(self._frames, 1), 4)
        asked = plain_speaker(self.asked)
        return {"asked": asked, "located": located, "followed": followed, "seconds": self._seconds}

    def warnings(self, unanswered: int) -> list[str]:
        """Returns sentences for the user; `unanswered` is the number of frames after the locator's last box."""
        said, name = [], speaker_name(self.asked)
        if self._elsewhere:
            said.append(f"nobody was found where {name} should be: the likeliest person was followed")
        if unanswered:
            given = self._frames - unanswered
            said.append(f"there are boxes of {name} for {given} frames, but {self._frames} frames")
        elif self._located and 1 - self.located > ABSENT:
            said.append(f"{name} is in view in {self.located:.0%} of the frames only")
        if self._located and self._sure / self._located < UNSURE:
            said.append(f"it is uncertain who {name} is: confidence {self._sure / self._located:.2f} on average")
        if self._several > SEVERAL * self._frames:
            said.append(
                f"up to {self._most} faces are where {name} is: the one seen first or most central was followed"
            )
        if self._strange_from:
            times = [f"{(self._late + frame) / self._fps:.1f}" for frame in self._strange_from[:STRANGERS_NAMED]]
            more = ", …" if len(self._strange_from) > STRANGERS_NAMED else ""
            said.append(f"from {', '.join(times)}{more} s on the face of {name} looks like another one than before")
        return said


def _is_near(place: Box | None, box: Box) -> bool:
    """Returns whether a place is in a box at least in part, or near; True without a place."""
    return place is None or meet(grown(box, NEAR * (box[2] - box[0]), NEAR * (box[3] - box[1])), place)

"""The frames of a clip on their way through a `speaker_locator`: each comes back with where the speaker is in it."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .landmarks_avsr import Box
from .speaker_locator_avsr import Speaker

SpeakerLocator = Callable[[Iterator[np.ndarray], Any], Iterable[Any]]

FRAMES_AHEAD = 4  # frames that may wait for the locator
BOXES_AHEAD = 256  # boxes that may wait for their frames


@dataclass(frozen=True)
class SpeakerBox:
    """
    Where the speaker is in one frame.

    Attributes:
        box: `(x0, y0, x1, y1)` in pixels.
        sure: from 0 to 1.
    """

    box: Box
    sure: float = 1.0


@dataclass(frozen=True)
class ChosenSpeaker:
    """
    Who is to be read, and what finds them.

    Attributes:
        asked: as `check_speaker` returns it.
        locator: a function of an iterator of frames `(height, width, 3)` uint8 and of `asked`, which gives, one after the
            other and as soon as it knows them, for each frame `(x0, y0, x1, y1)` in pixels, or `(x0, y0, x1, y1, score)`
            with a score from 0 to 1, or None where the speaker isn't seen.
    """

    asked: Speaker
    locator: SpeakerLocator


def checked_box(value: Any, index: int) -> SpeakerBox | None:
    """
    What a locator gave for a frame.

    Args:
        value: 4 or 5 numbers, or None; with a NaN, or without an area, it counts as None.
        index: of the frame.

    Raises:
        ValueError: it is nothing of these.
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


class SpeakerBoxes:
    """
    Runs a locator in a thread, beside whoever gives it frames.

    A frame is held until its box is there; how many are held is up to the locator, which may look ahead. `close`, or
    dropping the object, ends the thread.

    Args:
        speaker: who is looked for, and how.

    Attributes:
        unanswered: frames for which the locator gave nothing because it had come to its end.
    """

    def __init__(self, speaker: ChosenSpeaker):
        self.unanswered = 0
        self._waiting: deque[np.ndarray] = deque()
        self._desk = _Desk()
        self._thread = threading.Thread(target=_locate, args=(speaker, self._desk), name="speaker", daemon=True)
        self._dropped = weakref.finalize(self, self._desk.close)
        self._thread.start()

    def add(self, frame: np.ndarray) -> Iterator[tuple[np.ndarray, SpeakerBox | None]]:
        """One more `(height, width, 3)` uint8 frame; gives those whose boxes are known by now. Must be exhausted."""
        self._waiting.append(frame)
        while self._waiting and not self._desk.offer(frame):  # its box may come before the locator looks at it
            yield from self._paired(wait=False)
        yield from self._paired(wait=False)

    def finish(self) -> Iterator[tuple[np.ndarray, SpeakerBox | None]]:
        """The rest, once all frames were added."""
        self._desk.end_frames()
        while self._waiting:
            yield from self._paired(wait=True)

    def close(self) -> None:
        """Ends the thread."""
        self._dropped()
        self._thread.join()

    def _paired(self, wait: bool) -> Iterator[tuple[np.ndarray, SpeakerBox | None]]:
        boxes, ended = self._desk.fetch(len(self._waiting), wait)
        for box in boxes:
            yield self._waiting.popleft(), box
        while ended and self._waiting:
            self.unanswered += 1
            yield self._waiting.popleft(), None


class _Desk:
    """Where two threads hand over frames and boxes. Neither waits for ever: who waits for room takes what lies there."""

    def __init__(self) -> None:
        self._frames: deque[np.ndarray] = deque()
        self._boxes: deque[SpeakerBox | None] = deque()
        self._changed = threading.Condition()
        self._closed = self._no_more_frames = self._no_more_boxes = False
        self._error: BaseException | None = None

    def offer(self, frame: np.ndarray) -> bool:
        """Puts a frame down; False, and it was not, while there is no room but boxes to take."""
        with self._changed:
            self._changed.wait_for(lambda: self._boxes or len(self._frames) < FRAMES_AHEAD or self._over)
            if self._over:
                return True  # nobody will look at it
            if len(self._frames) >= FRAMES_AHEAD:
                return False
            self._frames.append(frame)
            self._changed.notify_all()
            return True

    @property
    def _over(self) -> bool:
        return self._no_more_boxes or self._closed

    def end_frames(self) -> None:
        with self._changed:
            self._no_more_frames = True
            self._changed.notify_all()

    def frames(self) -> Iterator[np.ndarray]:
        """What the locator is given."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frames or self._no_more_frames or self._closed)
                if self._closed or not self._frames:
                    return
                frame = self._frames.popleft()
                self._changed.notify_all()
            yield frame

    def put_box(self, box: SpeakerBox | None) -> bool:
        """Waits for room; False says that nobody takes boxes any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._boxes) < BOXES_AHEAD or self._closed)
            self._boxes.append(box)
            self._changed.notify_all()
            return not self._closed

    def end_boxes(self, error: BaseException | None) -> None:
        with self._changed:
            self._no_more_boxes, self._error = True, error
            self._frames.clear()
            self._changed.notify_all()

    def fetch(self, count: int, wait: bool) -> tuple[list[SpeakerBox | None], bool]:
        """At most so many boxes, and whether no other will ever come; raises what broke the locator."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._boxes or self._no_more_boxes or self._closed)
            boxes = [self._boxes.popleft() for _ in range(min(count, len(self._boxes)))]
            self._changed.notify_all()
            if self._error is not None and not boxes:
                raise self._error
            return boxes, not self._boxes and self._error is None and self._over

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _locate(speaker: ChosenSpeaker, desk: _Desk) -> None:
    """What the thread does. It knows only the desk, so that an owner who is dropped ends it."""
    error: BaseException | None = None
    boxes: Any = None
    try:
        boxes = iter(speaker.locator(desk.frames(), speaker.asked))
        for index, value in enumerate(boxes):
            if not desk.put_box(checked_box(value, index)):
                break
    except BaseException as caught:  # whoever fetches boxes raises it
        error = caught
    finally:
        try:
            if isinstance(boxes, Generator):
                boxes.close()
        finally:
            desk.end_boxes(error)

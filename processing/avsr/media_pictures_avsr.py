"""From decoded frames to upright RGB pictures on a regular clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .media_source_avsr import WarningSink, frame_duration, import_av

MAX_PAUSE = 60.0  # seconds: a longer jump between two timestamps is a broken clock, not a pause
MAX_STEP_BACK = 1.0  # seconds by which a clock may go back before it counts as broken


@dataclass(frozen=True)
class _Timed:
    """A decoded frame, when it begins, and for how long it is shown (seconds after the first one)."""

    frame: Any
    time: float
    duration: float


class PictureLine:
    """Takes the decoded frames of one video and gives pictures at a fixed rate, one at a time.

    Output k is the frame whose timestamp is nearest to `start + k / fps`. Frames without timestamps are counted on,
    jumps of the clock taken out, rotation, mirroring and non-square pixels undone.

    Args:
        stream: the video's PyAV stream.
        fps: pictures per second to give.
        origin: the first frame's time on the container's clock, in seconds.
        start, end: give only this part; seconds after the first frame.
        warn: called with one sentence for each thing that is wrong but can be lived with.

    Attributes:
        count: pictures given so far.
        time: seconds after the first frame of the latest frame taken.
    """

    def __init__(self, stream: Any, fps: float, origin: float, start: float, end: float | None, warn: WarningSink):
        self.stream, self.fps, self.start, self.warn = stream, fps, start, warn
        self.count, self.time = 0, -math.inf
        self._origin = origin
        self._nominal = frame_duration(stream) or 1.0 / fps
        self._limit = math.inf if end is None else max(1, round((end - start) * fps))
        self._current: _Timed | None = None
        self._reformatter = import_av().video.reformatter.VideoReformatter()  # keeps its tables from frame to frame
        self._orientation: tuple[int, tuple[int, bool]] | None = None  # angle of a frame's matrix, and what it says

    @property
    def full(self) -> bool:
        """Whether all pictures up to `end` have been given."""
        return self.count >= self._limit

    def push(self, frame: Any, heard: float = 0.0) -> Iterator[np.ndarray]:
        """One more decoded frame; gives the `(height, width, 3)` uint8 RGB pictures that are certain by now.

        Args:
            frame: as decoded.
            heard: seconds that the sound has reached: a pause of the pictures that it confirms is no jump.
        """
        entry = self._timed(frame, heard)
        if entry is None:
            return
        if self._current is not None:
            until = (self._current.time + entry.time) / 2  # where the next frame becomes the nearer one
            wanted = math.ceil((until - 1e-6 - self.start) * self.fps)
            yield from self._repeated(wanted)
        self._current = entry

    def finish(self) -> Iterator[np.ndarray]:
        """The last pictures, once there are no more frames."""
        if self._current is not None:
            total = round((self._current.time + self._current.duration - self.start) * self.fps)
            yield from self._repeated(max(total, 1) if self.start == 0.0 else total)

    def _timed(self, frame: Any, heard: float) -> _Timed | None:
        """The frame with a time that only grows; None where it comes too late to be shown."""
        first, base = self._current is None and self.time == -math.inf, self.stream.time_base
        duration = float(frame.duration * base) if frame.duration else self._nominal
        expected = 0.0 if first else self.time + self._nominal
        # In the stream's time base: frames that come out of the decoder late have none of their own.
        time = expected if frame.pts is None else float(frame.pts * base) - self._origin
        if not first and not self.time - MAX_STEP_BACK < time < max(self.time, heard) + MAX_PAUSE:
            jump = time - self.time
            self.warn(f"the video's clock jumps by {jump:.1f} s at {self.time:.1f} s: the jump was taken out")
            self._origin += time - expected
            time = expected
        if time <= self.time:
            return None
        self.time = time
        return _Timed(frame, time, duration)

    def _repeated(self, wanted: int) -> Iterator[np.ndarray]:
        """The current frame until `wanted` pictures have been given in all."""
        wanted = int(min(wanted, self._limit))
        if wanted <= self.count:
            return
        picture = self._upright(self._current.frame)
        copies = wanted - self.count > 1
        while self.count < wanted:
            self.count += 1
            yield picture.copy() if copies else picture

    def _upright(self, frame: Any) -> np.ndarray:
        width = square_pixel_width(frame.width, self.stream)
        plain = self._reformatter.reformat(
            frame, width=width, height=frame.height, format="rgb24", interpolation="BILINEAR"
        )
        picture = plain.to_ndarray()  # (h, w, 3)
        # Asked again only where the angle changes: a frame whose side data was read waits for a garbage collection.
        if self._orientation is None or self._orientation[0] != frame.rotation:
            self._orientation = frame.rotation, orientation(frame)
        turns, mirrored = self._orientation[1]
        if mirrored:
            picture = picture[:, ::-1]
        return np.ascontiguousarray(np.rot90(picture, turns))


def shown_size(frame: Any, stream: Any) -> tuple[int, int]:
    """(width, height) in pixels of a decoded frame as it is meant to be seen."""
    width, height = square_pixel_width(frame.width, stream), frame.height
    return (height, width) if orientation(frame)[0] % 2 else (width, height)


def square_pixel_width(width: int, stream: Any) -> int:
    """How wide a picture of this stored width is with square pixels."""
    ratio = stream.sample_aspect_ratio
    if not ratio or ratio == 1 or not 0.25 <= ratio <= 4:
        return width
    return max(1, round(width * float(ratio)))


def orientation(frame: Any) -> tuple[int, bool]:
    """
    Reads `(quarter turns counter-clockwise, mirrored left to right before turning)` from the frame's display matrix.

    PyAV's frame and its side data know each other: only a garbage collection frees a frame that was asked.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].astype(np.int64)
    mirrored = bool(a * d - b * c < 0)
    if mirrored:
        a, b = -a, -b
    if a == 0 and b == 0:
        return 0, False
    # The matrix takes (x, y), y downwards, to (a x + c y, b x + d y): its first row is where the x axis goes.
    return round(-math.degrees(math.atan2(float(b), float(a))) / 90.0) % 4, mirrored

"""Sound and mouth crops that arrive one after the other, cut into pieces on one clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .media_avsr import MAX_PADDING
from .mouth_cropping_avsr import MouthBlock

MAX_LEAD = 60.0  # seconds by which the sound may come before its pictures in a file, or the other way round


@dataclass(frozen=True)
class ClipPiece:
    """About one second of a clip. The pieces follow each other without a break.

    Arrays are shorter than the piece, or empty, where sound or pictures have come to their end.

    Attributes:
        start: seconds after the first picture (after the first sound where there is no picture).
        audio: `(samples,)` float32 at the stream's sampling rate, or None where there is no sound or it is not wanted.
        mouths: `(frames, roi, roi)` uint8 at the image processor's rate, or None.
        found: `(frames,)` bool, whether a face was seen.
        cuts: `(frames,)` bool, the first frame after a change of scene or of another face.
        absent: `(frames,)` bool, whether a speaker who was chosen is not in view; False where none was.
    """

    start: float
    audio: np.ndarray | None
    mouths: np.ndarray | None
    found: np.ndarray | None
    cuts: np.ndarray | None
    absent: np.ndarray | None


class _Line:
    """Rows that are added in any portions and taken out in others."""

    def __init__(self, nothing: np.ndarray):
        self._parts = [nothing]
        self.taken = self.end = 0  # rows given so far, and rows received
        self.lost = False  # whether rows came after their place was given away

    def add(self, rows: np.ndarray) -> None:
        late, self.end = self.taken - self.end, self.end + len(rows)
        if late > 0:
            self.lost |= bool(rows[:late].any())
            rows = rows[late:]
        self._parts.append(rows)

    def take(self, until: int, completed: bool) -> np.ndarray:
        """The rows from `taken` to `until`; `completed` with zeros where they are not there."""
        rows = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        count = until - self.taken
        part, self._parts, self.taken = rows[:count].copy(), [rows[count:]], until
        if completed and len(part) < count:
            part = np.concatenate([part, np.zeros((count - len(part), *part.shape[1:]), part.dtype)])
        return part

    def end_at(self, end: int) -> None:
        """Drops all rows from `end` on."""
        rows = np.concatenate(self._parts)
        self._parts, self.end = [rows[: max(0, end - self.taken)]], min(self.end, end)


class PieceCutter:
    """Cuts sound and mouth crops into pieces of one second, as soon as both are there.

    What is still missing when the other is `max_lead` seconds further on is not waited for: silence, or black crops
    without a face, take its place.

    Args:
        rate: samples per second.
        fps: crops per second.
        roi_size: side of the crops.
        has_sound, has_lips: whether they are to be waited for.
        max_lead: in seconds.
    """

    def __init__(
        self, rate: int, fps: float, roi_size: int, has_sound: bool, has_lips: bool, max_lead: float = MAX_LEAD
    ):
        self._rate, self._fps, self._max_lead = rate, fps, max_lead
        self.has_sound, self.has_lips = has_sound, has_lips
        empty = MouthBlock.empty(roi_size)
        self._sound = _Line(np.zeros(0, np.float32))
        self._lips = [_Line(rows) for rows in (empty.mouths, empty.found, empty.cuts, empty.found)]
        self._frames = max(1, round(fps))  # of a piece
        self._count = 0  # pieces so far

    @property
    def sound_end(self) -> int:
        """Samples received."""
        return self._sound.end

    @property
    def lips_end(self) -> int:
        """Crops received."""
        return self._lips[0].end

    def add_sound(self, samples: np.ndarray) -> None:
        """`(samples,)` float32 that follow what was added before."""
        self._sound.add(samples)

    def add_lips(self, mouths: np.ndarray, found: np.ndarray, cuts: np.ndarray, absent: np.ndarray) -> None:
        """Crops that follow what was added before; see `ClipPiece`."""
        for line, rows in zip(self._lips, (mouths, found, cuts, absent), strict=True):
            line.add(rows)

    @property
    def warnings(self) -> list[str]:
        """Sentences for the user."""
        lost = {"sound": self._sound.lost, "pictures": self._lips[0].lost}
        return [
            f"some of the {what} come more than {self._max_lead:.0f} s too late in the file and were left out"
            for what, happened in lost.items()
            if happened
        ]

    def ready(self) -> Iterator[ClipPiece]:
        """All pieces that are complete."""
        hold = round(MAX_PADDING * self._rate)  # what may have to be cut off at the end
        while True:
            sample, frame = self._bounds(self._count + 1)
            leads = []  # seconds of sound and of crops behind the end of the next piece
            if self.has_sound:
                leads.append((self._sound.end - hold - sample) / self._rate)
            if self.has_lips:
                leads.append((self.lips_end - frame) / self._fps)
            if max(leads) < 0 or (min(leads) < 0 and max(leads) < self._max_lead):
                return
            yield self._piece(completed=True)

    def finish(self, samples: int) -> Iterator[ClipPiece]:
        """The rest, once everything was added; of the sound only so many samples in all count."""
        if self._count == 0:
            self.has_sound, self.has_lips = self.has_sound and samples > 0, self.has_lips and self.lips_end > 0
        self._sound.end_at(samples)
        while any(line.taken < line.end for line in (self._sound, self._lips[0])):
            yield self._piece(completed=False)

    def _piece(self, completed: bool) -> ClipPiece:
        (_, first), (sample, frame) = self._bounds(self._count), self._bounds(self._count + 1)
        self._count += 1
        audio = self._sound.take(sample, completed) if self.has_sound else None
        lips = [line.take(frame, completed) for line in self._lips] if self.has_lips else [None] * 4
        return ClipPiece(first / self._fps, audio, *lips)

    def _bounds(self, count: int) -> tuple[int, int]:
        """(samples, frames) in that many pieces."""
        frames = count * self._frames
        return round(frames / self._fps * self._rate), frames

"""The part of a long clip that is in memory: a window that slides over the pieces of a stream."""

from collections.abc import Iterator

import numpy as np

from .clip_avsr import MIN_FACE_SHARE, Clip, without_others
from .clip_report_avsr import SILENT_DBFS
from .clip_stream_avsr import ClipPiece

MIN_THERE = 0.1  # with the chosen speaker in view in fewer frames than this, nothing is read
SILENT_POWER = 10 ** (SILENT_DBFS / 10)  # mean square of the samples


class ClipWindow:
    """
    Holds what was read from a stream and is still needed.

    All places are counted in frames since the beginning of the clip.

    Args:
        pieces: of a [`ClipStream`].
        sampling_rate: of their sound; fps: of their pictures.

    Attributes:
        first, last: the frames in memory, `first <= frame < last`.
        ended: whether the stream is over.
    """

    def __init__(self, pieces: Iterator[ClipPiece], sampling_rate: int, fps: float):
        self._pieces, self.sampling_rate, self.fps = pieces, sampling_rate, fps
        self.first = self.last = 0
        self.ended = False
        self._audio: list[np.ndarray] = []  # from `first` on
        self._mouths: list[np.ndarray] = []
        self._found: list[np.ndarray] = []
        self._cuts: list[np.ndarray] = []
        self._absent: list[np.ndarray] = []

    def fill(self, last: int) -> None:
        """Reads on until frame `last` is in memory or the stream ends."""
        while not self.ended and self.last < last:
            piece = next(self._pieces, None)
            if piece is None:
                self.ended = True
            else:
                self._append(piece)

    def _append(self, piece: ClipPiece) -> None:
        start = round(piece.start * self.fps)
        if piece.audio is not None:
            self._pad_to(self._audio, self._sample(start) - self._sample(self.first), np.zeros(0, np.float32))
            self._audio.append(piece.audio)
            self.last = max(self.last, start + round(len(piece.audio) / self.sampling_rate * self.fps))
        if piece.mouths is not None and len(piece.mouths):
            values = (piece.mouths, piece.found, piece.cuts, piece.absent)
            for held, value in zip((self._mouths, self._found, self._cuts, self._absent), values, strict=True):
                self._pad_to(held, start - self.first, value[:0])
                held.append(value)
            self.last = max(self.last, start + len(piece.mouths))

    @staticmethod
    def _pad_to(held: list[np.ndarray], length: int, like: np.ndarray) -> None:
        """Fills with zeros what the stream left out."""
        missing = length - sum(map(len, held))
        if missing > 0:
            held.append(np.zeros((missing, *like.shape[1:]), like.dtype))

    def _sample(self, frame: int) -> int:
        return round(frame / self.fps * self.sampling_rate)

    def drop(self, first: int) -> None:
        """Forgets what lies in front of frame `first`."""
        frames, samples = first - self.first, self._sample(first) - self._sample(self.first)
        for held, count in (
            (self._audio, samples),
            (self._mouths, frames),
            (self._found, frames),
            (self._cuts, frames),
            (self._absent, frames),
        ):
            if held:
                held[:] = [np.concatenate(held)[count:].copy()]
        self.first, self.last = first, max(first, self.last)

    def take(self, start: int, end: int) -> Clip:
        """
        The sound and mouths of `start <= frame < end` as a clip; what is silent or hardly shows a face is `None`.

        Its modality is empty where there is nothing to read: also where a chosen speaker is not in view, whoever talks. In
        a part where they are out of view for long, it is silent then.
        """
        audio = self._slice(self._audio, self._sample(start), self._sample(end), self._sample(self.first))
        mouths = self._slice(self._mouths, start, end, self.first)
        absent = self._slice(self._absent, start, end, self.first)
        there = 1.0 if absent is None else 1.0 - float(absent.mean())
        if absent is not None and there < 1.0:
            audio = without_others(audio, absent, self.sampling_rate, self.fps)
        if audio is not None and np.square(audio, dtype=np.float64).mean() < SILENT_POWER:
            audio = None
        found = self._slice(self._found, start, end, self.first)
        if mouths is not None and found.mean() < MIN_FACE_SHARE * max(there, 1e-9):
            mouths = None
        if there < MIN_THERE:
            audio = mouths = None
        kinds = {(True, True): "audiovisual", (True, False): "audio", (False, True): "visual", (False, False): ""}
        modality = kinds[audio is not None, mouths is not None]
        return Clip("", audio, mouths, modality, (end - start) / self.fps, absent=absent, found=found)

    @staticmethod
    def _slice(held: list[np.ndarray], start: int, end: int, offset: int) -> np.ndarray | None:
        if not held:
            return None
        if len(held) > 1:
            held[:] = [np.concatenate(held)]
        part = held[0][max(0, start - offset) : max(0, end - offset)]
        return part if len(part) else None

    def changes(self, start: int, end: int) -> list[int]:
        """The frames of `start < frame < end` with which another scene or face begins."""
        cuts = self._slice(self._cuts, start + 1, end, self.first)
        return [] if cuts is None else (np.flatnonzero(cuts) + start + 1).tolist()

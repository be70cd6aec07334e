"""A clip of any length as a stream of short pieces: sound and mouth crops on one clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .clip_reading_avsr import _from_arrays, _from_media
from .clip_report_avsr import ClipReport


@dataclass(frozen=True)
class ClipPiece:
    """About one second of a clip.

    Attributes:
        start: seconds after the first picture (after the first sound where there is no picture).
        audio: `(samples,)` float32 at the stream's sampling rate, or None where there is no sound or it is not wanted.
        mouths: `(frames, roi, roi)` uint8 at the image processor's rate, or None.
        found: `(frames,)` bool, whether a face was seen.
        cuts: `(frames,)` bool, the first frame after a change of scene or of another face.
    """

    start: float
    audio: np.ndarray | None
    mouths: np.ndarray | None
    found: np.ndarray | None
    cuts: np.ndarray | None


class ClipStream:
    """Reads a source piece by piece; an iterator and a context manager that closes the file.

    Args:
        source: path, URL, bytes, binary file object, or `{"audio", "sampling_rate", "video", "fps"}` of arrays.
        modality: `"auto"` (what there is), `"audio"`, `"visual"` or `"audiovisual"`.
        sampling_rate: samples a second wanted.
        image_processor: [`MouthRoiImageProcessor`].
        landmarks: where faces come from, as of `MouthRoiImageProcessor.extract`.

    Attributes:
        name: how messages call the source.
        duration: seconds that the source announces, None where it does not.
        report: numbers and warnings; complete when the iteration is over.
    """

    def __init__(self, source: Any, modality: str, sampling_rate: int, image_processor: Any, landmarks: Any = None):
        wants_sound, wants_lips = modality != "visual", modality != "audio"
        read = _from_arrays if isinstance(source, dict) else _from_media
        raw = read(source, wants_sound, wants_lips, sampling_rate, image_processor)
        self.name, self.report = raw.name, ClipReport()
        self._rate, self._fps, self._audio = sampling_rate, image_processor.fps, raw.audio
        self._mouths = self._found = None
        if raw.mouths is not None:
            self._mouths, self._found = raw.mouths, np.ones(len(raw.mouths), dtype=bool)
        elif raw.frames is not None:
            clip = image_processor.extract(raw.frames, landmarks, fps_in=raw.fps)
            self._mouths, self._found, self.report = clip.mouths, clip.found, clip.report
        self.report.warn(raw.warnings)
        if self._audio is not None:
            self.report.add_audio(self._audio)
        if self._audio is None and self._mouths is None:
            raise ValueError(f"{self.name} cannot be read: there is neither sound nor video of the kind wanted.")
        sound = 0.0 if self._audio is None else len(self._audio) / sampling_rate
        picture = 0.0 if self._mouths is None else len(self._mouths) / self._fps
        self.duration: float | None = max(sound, picture)
        self._pieces = self._cut()

    def _cut(self) -> Iterator[ClipPiece]:
        frames = max(1, round(self._fps))
        for first in range(0, max(1, math.ceil(self.duration * self._fps)), frames):
            last, start = first + frames, first / self._fps
            sound = slice(round(start * self._rate), round(last / self._fps * self._rate))
            audio = None if self._audio is None else self._audio[sound]
            if self._mouths is None:
                yield ClipPiece(start, audio, None, None, None)
                continue
            found = self._found[first:last]
            yield ClipPiece(start, audio, self._mouths[first:last], found, np.zeros(len(found), dtype=bool))

    def __iter__(self) -> Iterator[ClipPiece]:
        return self

    def __next__(self) -> ClipPiece:
        return next(self._pieces)

    def __enter__(self) -> ClipStream:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and ends the thread; nothing can be read after it."""
        self._pieces.close()

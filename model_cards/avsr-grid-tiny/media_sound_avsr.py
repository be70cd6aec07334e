"""From decoded sound to one unbroken line of mono samples at one rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .media_pictures_avsr import MAX_PAUSE, MAX_STEP_BACK
from .media_source_avsr import WarningSink, import_av

AUDIO_JITTER = 0.04  # seconds: smaller gaps and overlaps between sound packets are rounding, not silence
MAX_PADDING = 0.5  # seconds: sound that outlasts the video by less is the padding of its encoder


class SoundLine:
    """Takes the decoded frames of one sound track and gives its samples without a break, from `start` on.

    Holes between frames become silence, what lies before `start` or was given already is dropped, jumps of the clock
    are taken out, channels averaged.

    Args:
        stream: the sound's PyAV stream.
        rate: samples per second to give.
        origin: time 0 on the container's clock, in seconds.
        start: the first sample's time, in seconds after `origin`.
        warn: called with one sentence for each thing that is wrong but can be lived with.

    Attributes:
        count: samples given so far.
        time: seconds after `origin` that the sound has reached.
    """

    def __init__(self, stream: Any, rate: int, origin: float, start: float, warn: WarningSink):
        self.stream, self.rate, self.start, self.warn = stream, rate, start, warn
        self.count, self.time = 0, 0.0
        self._origin = origin
        self._format: tuple[Any, ...] | None = None  # of the stretch that the resampler is at
        self._resampler: Any = None
        self._place = 0  # where the resampler's next sample goes
        self._bad = 0

    @property
    def begun(self) -> bool:
        """Whether any sound could be decoded."""
        return self._format is not None

    def push(self, frame: Any, seen: float = 0.0) -> Iterator[np.ndarray]:
        """One more decoded frame; gives `(samples,)` float32 arrays, full scale 1.0, that follow each other.

        Args:
            frame: as decoded.
            seen: seconds that the pictures have reached: a pause of the sound that they confirm is no jump.
        """
        frame, bad = _finite(frame)
        self._bad += bad
        time = self._timed(frame, seen)
        new_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if new_format != self._format or abs(time - self.time) > AUDIO_JITTER:
            yield from self._resampled(None)
            self._resampler = import_av().AudioResampler(format="fltp", layout=frame.layout, rate=self.rate)
            self._format, self.time = new_format, time
            self._place = round((time - self.start) * self.rate)
        self.time += frame.samples / frame.sample_rate
        frame.pts = None
        yield from self._resampled(frame)

    def finish(self) -> Iterator[np.ndarray]:
        """The last samples, once there are no more frames."""
        yield from self._resampled(None)
        if self._bad:
            self.warn(
                f"{self._bad} samples of the sound are not numbers (NaN or infinite): they were replaced by silence"
            )

    def _timed(self, frame: Any, seen: float) -> float:
        """Seconds after the origin at which a frame begins."""
        if frame.pts is None:
            return self.time
        time = float(frame.pts * self.stream.time_base) - self._origin
        # A seek may land long before `start`, and sound may begin long before or after the pictures.
        earliest = self.time - MAX_STEP_BACK if self.begun else min(0.0, self.start) - MAX_PAUSE
        if not earliest < time < max(self.time, self.start, seen) + MAX_PAUSE:
            jump, expected = time - self.time, self.time if self.begun else self.start
            self.warn(f"the sound's clock jumps by {jump:.1f} s at {self.time:.1f} s: the jump was taken out")
            self._origin += time - expected
            time = expected
        return time

    def _resampled(self, frame: Any) -> Iterator[np.ndarray]:
        """What the resampler gives for one more frame (None: the rest), at its place in the line."""
        for piece in [] if self._resampler is None else self._resampler.resample(frame):
            samples = piece.to_ndarray().astype(np.float32, copy=False).mean(axis=0)  # (n,)
            place, self._place = self._place, self._place + len(samples)
            while self.count < place:  # a hole
                silence = min(place - self.count, self.rate)
                self.count += silence
                yield np.zeros(silence, dtype=np.float32)
            if len(samples := samples[self.count - place :]):
                self.count += len(samples)
                yield samples


def _finite(frame: Any) -> tuple[Any, int]:
    """The frame with NaN and infinity replaced by zero, and how many there were."""
    if not frame.format.name.startswith(("flt", "dbl")):
        return frame, 0
    samples = frame.to_ndarray()
    good = np.isfinite(samples)
    if good.all():
        return frame, 0
    clean = import_av().AudioFrame.from_ndarray(np.where(good, samples, 0), frame.format.name, frame.layout)
    clean.sample_rate, clean.pts, clean.time_base = frame.sample_rate, frame.pts, frame.time_base
    return clean, int(samples.size - good.sum())

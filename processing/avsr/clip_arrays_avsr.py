"""Reads a clip from arrays: checks them, and gives the same items as a media file does, second by second."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .media_avsr import PICTURE, SOUND

MOUTHS = "mouths"  # beside `PICTURE` and `SOUND`: all mouth crops of a clip as one item
ARRAY_KEYS = ("audio", "sampling_rate", "video", "fps", "mouths")


class ArraySource:
    """Gives the arrays of a clip as a stream, second by second.

    Args:
        arrays: `{"audio", "sampling_rate", "video", "fps"}`, either half of which may be missing; instead of `"video"`
            there may be `"mouths"`, crops at `fps`.
        sampling_rate: samples per second to give, or None where the sound is not wanted.
        fps: pictures per second to give, or None where they are not wanted.
        roi_size: side of the mouth crops.

    Attributes:
        name: name used in error messages.
        kinds: of the items that there are: `SOUND`, and `PICTURE` or `MOUTHS`.
        duration: in seconds.
        fps_in: stored frame rate, None without pictures.
        warnings: sentences for the user; there are none.

    Raises:
        ValueError: names what is wrong with the arrays.
    """

    name = "the input dictionary"
    pictures_late = 0  # sound and pictures begin together; see `MediaStream`

    def __init__(self, arrays: dict[str, Any], sampling_rate: int | None, fps: float | None, roi_size: int):
        unknown = [key for key in arrays if key not in ARRAY_KEYS]
        arrays = {key: value for key, value in arrays.items() if value is not None}
        if unknown or not {"audio", "video", "mouths"} & set(arrays):
            raise ValueError(
                f"The input is a dictionary with {sorted(map(str, arrays)) or 'nothing'}: it must hold "
                '{"audio", "sampling_rate"}, {"video", "fps"} or both'
                + (f", and {unknown[0]!r} is none of these." if unknown else ".")
            )
        # What is missing or not wanted has no rows.
        self._audio, self._mouths = np.zeros(0, np.float32), np.zeros((0, roi_size, roi_size), np.uint8)
        self._video = np.zeros((0, 1, 1, 3), np.uint8)
        self._rate, self._fps = sampling_rate or 1, fps or 1.0
        self.fps_in: float | None = None
        self.warnings: list[str] = []
        if "audio" in arrays and sampling_rate is not None:
            self._audio = _checked_audio(arrays, sampling_rate)
        if "mouths" in arrays and fps is not None:
            self._mouths = _checked_mouths(arrays["mouths"], roi_size)
        elif "video" in arrays and fps is not None:
            self._video, self.fps_in = _checked_video(arrays)
        rows: dict[str, np.ndarray] = {SOUND: self._audio, PICTURE: self._video, MOUTHS: self._mouths}
        self.kinds = frozenset(kind for kind, values in rows.items() if len(values))
        self.duration = max(
            len(self._audio) / self._rate, len(self._mouths) / self._fps, len(self._video) / (self.fps_in or 1.0)
        )

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the mouths, then sound and pictures in turn; see `MediaStream`."""
        if MOUTHS in self.kinds:
            yield MOUTHS, self._mouths
        pictures = iter(()) if self.fps_in is None else on_clock(self._video, self.fps_in, self._fps)
        for second in range(math.ceil(self.duration)):
            if len(part := self._audio[second * self._rate : (second + 1) * self._rate]):
                yield SOUND, part
            for _, picture in zip(range(round(self._fps)), pictures):
                yield PICTURE, picture
        yield from ((PICTURE, picture) for picture in pictures)

    def without_padding(self, samples: int) -> int:
        """Returns the number of samples: arrays have no padding, so all of them."""
        return samples

    def close(self) -> None:
        """Does nothing: there is nothing to close."""


def _checked_audio(source: dict, sampling_rate: int) -> np.ndarray:
    """Returns `source["audio"]` as float32 `(samples,)` at `sampling_rate`; integers become -1 to 1."""
    rate = source.get("sampling_rate")
    if not isinstance(rate, (int, np.integer)) or isinstance(rate, bool) or rate <= 0:
        raise ValueError(f'`"sampling_rate"` of the input dictionary must be a positive integer (Hz), not {rate!r}.')
    wave = np.asarray(source["audio"])
    if wave.dtype.kind not in "fiu":
        raise ValueError(f'`"audio"` of the input dictionary must be numbers, not {wave.dtype}.')
    if wave.ndim != 1:
        raise ValueError(
            f'`"audio"` of the input dictionary must be one channel of shape (samples,), not {wave.shape}: '
            "average the channels."
        )
    if wave.size == 0:
        raise ValueError('`"audio"` of the input dictionary is empty: leave the key out when there is no sound.')
    if not np.isfinite(wave).all():
        count = int((~np.isfinite(wave)).sum())
        raise ValueError(f'`"audio"` of the input dictionary has {count} NaN or infinite samples: repair them first.')
    if wave.dtype.kind in "iu":
        limits = np.iinfo(wave.dtype)
        wave = (wave.astype(np.float64) - (limits.max + limits.min + 1) / 2) / ((limits.max - limits.min + 1) / 2)
    return resample(wave.astype(np.float32), int(rate), sampling_rate)


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Resamples `(samples,)` from `rate` to `new_rate` Hz (polyphase filter); float32."""
    if rate == new_rate:
        return wave
    from scipy.signal import resample_poly  # half a second to import

    divisor = math.gcd(rate, new_rate)
    return resample_poly(wave, new_rate // divisor, rate // divisor).astype(np.float32)


def _checked_video(source: dict) -> tuple[np.ndarray, float]:
    """Returns `source["video"]` as uint8 `(frames, height, width, 3)`, and its frame rate."""
    fps = source.get("fps")
    if not isinstance(fps, (int, float, np.number)) or isinstance(fps, bool) or not 0 < fps < math.inf:
        raise ValueError(f'`"fps"` of the input dictionary must be a positive number, not {fps!r}.')
    try:
        video = np.asarray(source["video"])
    except ValueError:
        raise ValueError('`"video"` of the input dictionary has frames of different shapes.') from None
    if video.ndim == 3 and video.dtype == np.uint8:
        video = np.repeat(video[..., None], 3, axis=3)  # grey
    if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or not video.size:
        raise ValueError(
            '`"video"` of the input dictionary must be uint8 of shape (frames, height, width, 3), not '
            f"{video.dtype} of shape {video.shape}."
        )
    return video, float(fps)


def _checked_mouths(mouths: Any, roi_size: int) -> np.ndarray:
    """Returns mouth crops that were made before: uint8 `(frames, roi, roi)` at the image processor's rate."""
    mouths = np.asarray(mouths)
    if mouths.ndim != 3 or mouths.shape[1:] != (roi_size, roi_size) or mouths.dtype != np.uint8 or not mouths.size:
        raise ValueError(
            f'`"mouths"` of the input dictionary must be uint8 of shape (frames, {roi_size}, {roi_size}), not '
            f"{mouths.dtype} of shape {mouths.shape}."
        )
    return mouths


def on_clock(video: np.ndarray, fps: float, new_fps: float) -> Iterator[np.ndarray]:
    """Yields the frame nearest in time to each tick of a clock of `new_fps`."""
    for tick in range(max(1, round(len(video) / fps * new_fps))):
        yield video[min(len(video) - 1, round(tick / new_fps * fps))]

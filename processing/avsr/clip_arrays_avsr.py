"""What a clip may come as besides a file: arrays, rows of data sets, decoders, pictures and sound in two places.

`as_input` brings all of it to one form, and `open_input` opens that; the items that follow are those of a media file.
"""

from __future__ import annotations

import array
import math
import numbers
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np

from .feature_extraction_avsr import Channel, ChannelMixer, as_array, scaled_samples
from .media_avsr import PICTURE, SOUND, MediaStream
from .media_source_avsr import DEFAULT_TRACKS, MediaSource, TrackChoice, fetch_media

MOUTHS = "mouths"  # beside `PICTURE` and `SOUND`: all mouth crops of a clip as one item
ARRAY_KEYS = ("audio", "sampling_rate", "video", "fps", "mouths", "audio_offset")
SAMPLES = ("array", "raw")  # what data sets and other pipelines call `"audio"`
MOST_CHANNELS = 32  # a second dimension that is larger isn't that of channels
LONGEST_OFFSET = 86400.0  # seconds
DICTIONARY, BARE = "the input dictionary", "the input array"
DECODERS = ("get_all_samples", "get_frame_at", "sample_rate")  # by which torchcodec's objects are known


# ------------------------------------------------------------------------------------------------------ kinds of input


class ClipInput(dict[str, Any]):
    """
    An input of the pipeline that is no single file, with keys of `ARRAY_KEYS`.

    Attributes:
        name: name used in error messages.
    """

    def __init__(self, values: Mapping[str, Any], name: str = DICTIONARY):
        super().__init__(values)
        self.name = name

    def part(self, *keys: str) -> ClipInput:
        """Returns what there is of some keys."""
        return ClipInput({key: self[key] for key in keys if key in self}, self.name)


def is_many(inputs: Any) -> bool:
    """Whether these are several inputs (a list, a column, a series, an iterator) and not one."""
    if isinstance(inputs, (list, tuple)):
        return not inputs or not (is_number(inputs[0]) or _is_rated(inputs))
    if isinstance(inputs, (str, bytes, bytearray, memoryview, os.PathLike, Mapping, array.array)):
        return False
    if any(hasattr(inputs, name) for name in ("read", *DECODERS)):
        return False
    if hasattr(inputs, "dtype") and hasattr(inputs, "ndim"):
        return inputs.ndim > 0 and getattr(inputs.dtype, "kind", "f") in "OSTU"  # paths or rows, not samples
    return isinstance(inputs, Iterable) or (hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"))


def as_input(source: Any, sampling_rate: Any = None) -> Any:
    """
    Brings one input of the pipeline to one of two forms.

    Args:
        source: a path, a URL, bytes or a binary file object; samples as an array, a tensor or a list of numbers, or in
            a tuple with their rate; a decoder of torchcodec; or a dictionary: `{"audio", "sampling_rate", "video",
            "fps", "mouths", "audio_offset"}`, whose `"audio"` and `"video"` may be any of these;
            `{"array" | "raw", "sampling_rate"}`; or `{"path", "bytes"}`, as data sets store a file.
        sampling_rate: of samples that come without one, in Hz.

    Returns:
        What `MediaStream` opens, or a `ClipInput`.

    Raises:
        ValueError: samples without a rate, or a dictionary that holds something else.
    """
    if isinstance(source, ClipInput):
        return source
    if isinstance(source, Mapping):
        return _from_mapping(source, sampling_rate)
    if hasattr(source, "get_all_samples"):  # torchcodec's AudioDecoder
        source = source.get_all_samples()
    if hasattr(source, "get_frame_at"):  # torchcodec's VideoDecoder
        return ClipInput({"video": _DecodedFrames(source), "fps": source.metadata.average_fps}, "the decoder")
    if hasattr(source, "sample_rate") and hasattr(source, "data"):  # torchcodec's AudioSamples
        return ClipInput({"audio": source.data, "sampling_rate": source.sample_rate}, BARE)
    if isinstance(source, tuple) and _is_rated(source):
        rate, samples = source if is_number(source[0]) else source[::-1]
        return ClipInput({"audio": samples, "sampling_rate": rate}, BARE)
    if not _is_samples(source):
        return source
    if sampling_rate is None:
        raise ValueError("`sampling_rate` is missing: pass it with an array of samples, for example 16000.")
    return ClipInput({"audio": source, "sampling_rate": sampling_rate}, BARE)


def _from_mapping(source: Mapping, sampling_rate: Any) -> Any:
    """Returns what `as_input` makes of a dictionary."""
    given = {key: value for key, value in source.items() if value is not None}
    stored = next((key for key in SAMPLES if key in given), None)
    if stored is not None and "audio" not in given:
        given = {"audio": given[stored]} | {key: given[key] for key in given if key not in ("path", *SAMPLES)}
    elif source and set(source) <= {"path", "bytes"}:
        if not given:
            raise ValueError('The input is a dictionary whose "path" and "bytes" are None: one of them must be set.')
        return given["bytes"] if "bytes" in given else given["path"]
    unknown = [key for key in given if key not in ARRAY_KEYS]
    if unknown or not {"audio", "video", "mouths"} & set(given):
        raise ValueError(
            f"The input is a dictionary with {sorted(map(str, given)) or 'nothing'}: it must hold "
            '{"audio", "sampling_rate"}, {"video", "fps"} or both'
            + (f", and {unknown[0]!r} is none of these." if unknown else ".")
        )
    for half in {"audio", "video"} & set(given):
        value = given[half]
        if isinstance(value, Mapping) or any(hasattr(value, name) for name in DECODERS):
            inner = as_input(value)
            given |= inner if isinstance(inner, ClipInput) else {half: inner}
    if set(given) == {"video"} and is_media(given["video"]):
        return given["video"]  # with its own sound
    if sampling_rate is not None and "audio" in given and not is_media(given["audio"]):
        given.setdefault("sampling_rate", sampling_rate)
    return ClipInput(given)


def is_media(value: Any) -> TypeGuard[MediaSource]:
    """Whether it is a path, a URL, the bytes of a file, or a file object."""
    return isinstance(value, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(value, "read")


def fetch_input(source: Any) -> Any:
    """Returns what `as_input` gave in a form that can be read several times; see `fetch_media`."""
    if not isinstance(source, ClipInput):
        return fetch_media(source)
    fetched = {key: fetch_media(value) if is_media(value) else value for key, value in source.items()}
    return ClipInput(fetched, source.name)


def _is_samples(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and (is_number(value[0]) or _is_samples(value[0]))
    return isinstance(value, array.array) or (hasattr(value, "dtype") and getattr(value, "ndim", 0) > 0)


def _is_rated(value: list | tuple) -> bool:
    """Whether it is a tuple of samples and their rate, in any order."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return any(is_number(rate) and getattr(samples, "ndim", 0) > 0 for rate, samples in (value, value[::-1]))


def is_number(value: Any) -> bool:
    """Whether it is a real number of Python or numpy, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


class _DecodedFrames:
    """Gives the frames of torchcodec's `VideoDecoder` one by one, each decoded when it is asked for."""

    def __init__(self, decoder: Any):
        self._decoder = decoder

    def __len__(self) -> int:
        return len(self._decoder)

    def __getitem__(self, index: int) -> np.ndarray:
        frame = as_array(self._decoder[index], "`video`")
        if frame.ndim == 3 and frame.shape[0] == 3 and frame.shape[2] != 3:
            frame = frame.transpose(1, 2, 0)  # the decoder's own order is (3, height, width)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"`video`: the decoder's frames must be uint8 of three channels, not {frame.shape}.")
        return np.ascontiguousarray(frame)


# ------------------------------------------------------------------------------------------------------------- opening


def open_input(
    source: Any, sampling_rate: int | None, fps: float | None, roi_size: int, tracks: TrackChoice = DEFAULT_TRACKS
) -> ArraySource | MediaStream | PairedSource:
    """
    Opens one input of the pipeline.

    Args:
        source: see `as_input`.
        sampling_rate: samples per second to give, or None where the sound is not wanted.
        fps: pictures per second to give, or None where they are not wanted.
        roi_size: side of the mouth crops.
        tracks: which of a file's tracks and of the sound's channels are read.

    Raises:
        ValueError: names what cannot be read, and why.
    """
    source = as_input(source)
    if not isinstance(source, ClipInput):
        return MediaStream(source, fps, sampling_rate, tracks=tracks)
    files = [half for half in ("audio", "video") if is_media(source.get(half))]
    for name, track in (("audio_track", tracks.audio), ("video_track", tracks.video)):
        if track is not None and not files:
            raise ValueError(
                f"`{name}` chooses among the tracks of a file, and {source.name} holds none: leave it out."
            )
    sound, pictures = source.part("audio", "sampling_rate"), source.part("video", "fps", "mouths")
    offset = _checked_offset(source)
    if not files and not offset:
        return ArraySource(source, sampling_rate, fps, roi_size, tracks.channel)
    seen = _open_half(pictures, "video", None, fps, roi_size, tracks) if {"video", "mouths"} & set(pictures) else None
    try:
        heard = _open_half(sound, "audio", sampling_rate, None, roi_size, tracks) if "audio" in sound else None
    except ValueError:
        if seen is not None:
            seen.close()
        raise
    return PairedSource(seen, heard, offset, sampling_rate or 1, fps or 1.0)


def _open_half(
    half: ClipInput, key: str, sampling_rate: int | None, fps: float | None, roi_size: int, tracks: TrackChoice
) -> ArraySource | MediaStream | None:
    """Returns the pictures or the sound of an input in two places; None where they are not wanted."""
    if sampling_rate is None and fps is None:
        return None
    if is_media(half.get(key)):
        return MediaStream(half[key], fps, sampling_rate, tracks=tracks)
    return ArraySource(half, sampling_rate, fps, roi_size, tracks.channel)


def _checked_offset(source: ClipInput) -> float:
    """Returns `"audio_offset"` in seconds."""
    offset = as_plain_number(source.get("audio_offset", 0.0))
    if offset is None or abs(offset) > LONGEST_OFFSET:
        given = source["audio_offset"]
        raise ValueError(f'`"audio_offset"` of {source.name} must be seconds, at most a day, not {given!r}.')
    if offset and not ("audio" in source and {"video", "mouths"} & set(source)):
        raise ValueError(f'`"audio_offset"` of {source.name} moves "audio" on the clock of "video": pass both.')
    return offset


class PairedSource:
    """Gives pictures of one source and sound of another one, on the clock of the pictures.

    Args:
        pictures: gives `PICTURE` or `MOUTHS`; None where they are not wanted.
        sound: gives `SOUND`; None where it is not wanted.
        offset: second of the pictures' clock at which the sound's clock begins. What lies before the pictures' time 0
            is left out.
        sampling_rate: samples per second.
        fps: pictures per second.

    Attributes:
        name: name used in error messages.
        kinds: of the items that there are.
        duration: in seconds; None where one of both doesn't announce it.
        warnings: sentences for the user.
    """

    def __init__(
        self,
        pictures: ArraySource | MediaStream | None,
        sound: ArraySource | MediaStream | None,
        offset: float,
        sampling_rate: int,
        fps: float,
    ):
        self._pictures, self._sound, self._offset, self._rate, self._fps = pictures, sound, offset, sampling_rate, fps
        self._both = [source for source in (pictures, sound) if source is not None]
        names = dict.fromkeys(source.name for source in self._both)
        self.name = " with the sound of ".join(names) or DICTIONARY
        self.kinds = frozenset(kind for source in self._both for kind in source.kinds)
        ends = [None if pictures is None else pictures.duration, None if sound is None else sound.duration]
        moved = [end + shift for end, shift in zip(ends, (0.0, offset)) if end is not None]
        self.duration = max(moved) if len(moved) == len(self._both) else None

    @property
    def fps_in(self) -> float | None:
        """Stored frame rate, None without pictures."""
        return None if self._pictures is None else self._pictures.fps_in

    @property
    def pictures_late(self) -> int:
        """How many pictures are missing at the beginning; see `MediaStream`."""
        return 0 if self._pictures is None else self._pictures.pictures_late

    @property
    def warnings(self) -> list[str]:
        """Sentences for the user, complete once all was read."""
        said = [warning for source in self._both for warning in source.warnings]
        if self._sound is not None and self._offset < 0:
            said.append(
                f"the first {-self._offset:.1f} s of the sound come before the pictures' clock: they are left out"
            )
        return said

    def without_padding(self, samples: int) -> int:
        """Returns the number of samples: sound of its own isn't padded to the pictures, so all of them."""
        return samples

    def close(self) -> None:
        """Closes both, after which no items follow."""
        for source in self._both:
            source.close()

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the items of both, always of the one that is behind; see `MediaStream`."""
        pictures = iter(()) if self._pictures is None else iter(self._pictures)
        sound = self._moved_sound()
        seen, heard = 0.0 if self._pictures is not None else math.inf, 0.0 if self._sound is not None else math.inf
        try:
            while min(seen, heard) < math.inf:
                if seen <= heard:
                    item = next(pictures, None)
                    seen = math.inf if item is None or item[0] == MOUTHS else seen + 1 / self._fps
                else:
                    item = next(sound, None)
                    heard = math.inf if item is None else heard + len(item[1]) / self._rate
                if item is not None:
                    yield item
        finally:
            self.close()

    def _moved_sound(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the sound with silence before it, or without its first samples."""
        silence = round(self._offset * self._rate)
        for first in range(0, silence, self._rate):
            yield SOUND, np.zeros(min(self._rate, silence - first), np.float32)
        dropped = max(0, -silence)
        for kind, samples in self._sound or ():
            if kind == SOUND and len(rest := samples[dropped:]):
                yield SOUND, rest
            dropped = max(0, dropped - len(samples))


class ArraySource:
    """Gives the arrays of a clip as a stream, second by second.

    Args:
        arrays: `{"audio", "sampling_rate", "video", "fps"}`, either half of which may be missing; instead of `"video"`
            there may be `"mouths"`, crops at `fps`.
        sampling_rate: samples per second to give, or None where the sound is not wanted.
        fps: pictures per second to give, or None where they are not wanted.
        roi_size: side of the mouth crops.
        channel: see `ChannelMixer`.

    Attributes:
        name: name used in error messages.
        kinds: of the items that there are: `SOUND`, and `PICTURE` or `MOUTHS`.
        duration: in seconds.
        fps_in: stored frame rate, None without pictures.
        warnings: sentences for the user.

    Raises:
        ValueError: names what is wrong with the arrays.
    """

    pictures_late = 0  # sound and pictures begin together; see `MediaStream`

    def __init__(
        self,
        arrays: ClipInput,
        sampling_rate: int | None,
        fps: float | None,
        roi_size: int,
        channel: Channel | None = None,
    ):
        self.name = arrays.name
        # What is missing or not wanted has no rows.
        self._audio, self._mouths = np.zeros(0, np.float32), np.zeros((0, roi_size, roi_size), np.uint8)
        self._video: Any = np.zeros((0, 1, 1, 3), np.uint8)
        self._rate, self._fps = sampling_rate or 1, fps or 1.0
        self.fps_in: float | None = None
        self.warnings: list[str] = []
        if "audio" in arrays and sampling_rate is not None:
            waves = _checked_audio(arrays, sampling_rate)
            mixer = ChannelMixer(len(waves), sampling_rate, channel, self.warnings.append)
            self._audio = np.concatenate([*mixer.push(waves), *mixer.finish()])
        if "mouths" in arrays and fps is not None:
            self._mouths = _checked_mouths(arrays["mouths"], roi_size)
        elif "video" in arrays and fps is not None:
            self._video, self.fps_in = _checked_video(arrays)
        rows: dict[str, Any] = {SOUND: self._audio, PICTURE: self._video, MOUTHS: self._mouths}
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


def _checked_audio(source: ClipInput, sampling_rate: int) -> np.ndarray:
    """Returns `source["audio"]` as float32 `(channels, samples)` at `sampling_rate`, full scale 1.0."""
    name, rate = source.name, as_plain_number(source.get("sampling_rate"))
    if rate is None or rate != round(rate) or rate <= 0:
        raise ValueError(
            f'`"sampling_rate"` of {name} must be a positive integer (Hz), not {source.get("sampling_rate")!r}.'
        )
    what = f'`"audio"` of {name}'
    wave = as_array(source["audio"], what)
    if wave.dtype.kind not in "fiu":
        raise ValueError(f"{what} must be numbers, not {wave.dtype}.")
    if wave.ndim == 2 and min(wave.shape) <= MOST_CHANNELS:
        wave = wave if wave.shape[0] <= wave.shape[1] else wave.T  # (channels, samples)
    elif wave.ndim == 1:
        wave = wave[None]
    else:
        raise ValueError(
            f"{what} must be one channel of shape (samples,), or (channels, samples) or (samples, channels), "
            f"not {wave.shape}."
        )
    if wave.size == 0:
        raise ValueError(f"{what} is empty: leave the key out when there is no sound.")
    if not np.isfinite(wave).all():
        count = int((~np.isfinite(wave)).sum())
        raise ValueError(f"{what} has {count} NaN or infinite samples: repair them first.")
    try:
        waves = scaled_samples(wave)
    except ValueError as error:
        raise ValueError(f"{what} {error}.") from None
    return np.stack([resample(wave, int(rate), sampling_rate) for wave in waves])


def as_plain_number(value: Any) -> float | None:
    """Returns a number of Python, numpy or torch as float; None for anything else."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    return float(value) if is_number(value) and math.isfinite(value) else None


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Resamples `(samples,)` from `rate` to `new_rate` Hz (polyphase filter); float32."""
    if rate == new_rate:
        return wave
    from scipy.signal import resample_poly  # half a second to import

    divisor = math.gcd(rate, new_rate)
    return resample_poly(wave, new_rate // divisor, rate // divisor).astype(np.float32)


def _checked_video(source: ClipInput) -> tuple[Any, float]:
    """Returns `source["video"]` as uint8 `(frames, height, width, 3)`, or a decoder's frames, and its frame rate."""
    fps = as_plain_number(source.get("fps"))
    if fps is None or fps <= 0:
        raise ValueError(f'`"fps"` of the input dictionary must be a positive number, not {source.get("fps")!r}.')
    if isinstance(source["video"], _DecodedFrames):
        return source["video"], fps
    try:
        video = as_array(source["video"], '`"video"` of the input dictionary')
    except ValueError:
        raise ValueError('`"video"` of the input dictionary has frames of different shapes.') from None
    if video.ndim == 3 and video.dtype == np.uint8:
        video = np.repeat(video[..., None], 3, axis=3)  # grey
    if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or not video.size:
        raise ValueError(
            '`"video"` of the input dictionary must be uint8 of shape (frames, height, width, 3), not '
            f"{video.dtype} of shape {video.shape}."
        )
    return video, fps


def _checked_mouths(mouths: Any, roi_size: int) -> np.ndarray:
    """Returns mouth crops that were made before: uint8 `(frames, roi, roi)` at the image processor's rate."""
    mouths = as_array(mouths, '`"mouths"` of the input dictionary')
    if mouths.ndim != 3 or mouths.shape[1:] != (roi_size, roi_size) or mouths.dtype != np.uint8 or not mouths.size:
        raise ValueError(
            f'`"mouths"` of the input dictionary must be uint8 of shape (frames, {roi_size}, {roi_size}), not '
            f"{mouths.dtype} of shape {mouths.shape}."
        )
    return mouths


def on_clock(video: Any, fps: float, new_fps: float) -> Iterator[np.ndarray]:
    """Yields the frame nearest in time to each tick of a clock of `new_fps`."""
    for tick in range(max(1, round(len(video) / fps * new_fps))):
        yield video[min(len(video) - 1, round(tick / new_fps * fps))]

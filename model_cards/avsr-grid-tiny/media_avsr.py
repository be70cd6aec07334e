"""From a media file to 16 kHz sound and 25 fps pictures that share one clock.

Everything is measured in seconds after the first video frame (after the first sound where there is no video), so that
`read_audio` and `read_frames` stay together whatever the container says.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .media_source_avsr import (
    MediaError,
    MediaSource,
    WarningSink,
    audio_streams,
    decoded,
    fetch_media,
    frame_duration,
    import_av,
    opened,
    packets_of,
    seek,
    silent,
    source_name,
    stream_start,
    video_streams,
)
from .media_writing_avsr import write_video

__all__ = [
    "MediaError",
    "MediaInfo",
    "MediaSource",
    "fetch_media",
    "probe_media",
    "read_audio",
    "read_frames",
    "source_name",
    "write_video",
]

MAX_PAUSE = 60.0  # seconds: a longer jump between two timestamps is a broken clock, not a pause
AUDIO_JITTER = 0.04  # seconds: smaller gaps and overlaps between sound packets are rounding, not silence
MAX_PADDING = 0.5  # seconds: sound that outlasts the video by less is the padding of its encoder


@dataclass(frozen=True)
class MediaInfo:
    """What a source holds, found without decoding more than one picture and one piece of sound.

    Attributes:
        has_audio, has_video: whether there is at least one readable stream; cover art is not video.
        fps: mean frame rate of the video as stored (0.0 without video).
        width, height: size in pixels as it is shown: after rotation and with square pixels.
        rotation: degrees (0, 90, 180, 270) by which the stored picture is turned clockwise to be shown.
        duration: seconds from the first video frame to the end of the last one; of the sound without video.
        audio_offset: seconds by which the sound starts after the first video frame; negative when it starts before.
        warnings: sentences for the user: cut-off file, several video streams, sound that outlasts the picture, ...
    """

    has_audio: bool = False
    has_video: bool = False
    fps: float = 0.0
    width: int = 0
    height: int = 0
    rotation: int = 0
    duration: float = 0.0
    audio_offset: float = 0.0
    warnings: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------------------------- pictures


def read_frames(
    source: MediaSource,
    fps: float = 25.0,
    *,
    start: float = 0.0,
    end: float | None = None,
    on_warning: WarningSink | None = None,
) -> Iterator[np.ndarray]:
    """Yields the pictures of a video on a regular clock, one at a time.

    The frame shown at time k / fps is the one whose timestamp is nearest, whatever the stored frame rate is (23.976,
    29.97, 60, variable). Rotation and mirroring of the container and non-square pixels are undone.

    Args:
        source: path, http(s) URL, bytes, or binary file object.
        fps: frames per second to yield.
        start, end: yield only this part; seconds after the first frame.
        on_warning: called with one sentence for each thing that is wrong but can be lived with.

    Yields:
        `(height, width, 3)` uint8 RGB. Nothing where the source has sound only.

    Raises:
        MediaError: the source cannot be read, or holds a video of which no frame can be decoded.
    """
    if not (fps > 0 and math.isfinite(fps)):
        raise ValueError(f"fps must be a positive number, got {fps}")
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"start must be at least 0 and end after it, got start={start}, end={end}")
    warn = on_warning or silent
    with opened(source) as (container, name):
        streams = video_streams(container)
        if not streams:
            if not audio_streams(container):
                raise MediaError(f"{name} holds neither video nor sound")
            return
        stream = streams[0]
        stream.thread_type = "AUTO"
        origin = stream_start(stream)
        if start > 1.0:
            seek(container, origin + start)
        frames = decoded(container, stream, packets_of(container, [stream], name, warn), warn)
        timed = _timed_frames(frames, stream, origin, fps, warn)
        count = 0
        for frame in _on_clock(timed, fps, start, end):
            count += 1
            yield frame
        if count == 0 and start == 0.0:
            raise MediaError(f"{name} holds a video of which no frame can be decoded")


def _timed_frames(
    frames: Iterable[Any], stream: Any, origin: float, fps: float, warn: WarningSink
) -> Iterator[tuple[float, float, Callable[[], np.ndarray]]]:
    """(time, duration, picture) with times that only grow: holes without timestamps are filled, jumps taken out."""
    nominal = frame_duration(stream) or 1.0 / fps
    last, shift = None, 0.0
    for frame in frames:
        duration = float(frame.duration * stream.time_base) if frame.duration else nominal
        if frame.pts is not None:  # in the stream's time base: frames that come out late have none of their own
            time = float(frame.pts * stream.time_base) - origin + shift
        else:
            time = 0.0 if last is None else last + nominal
        if last is not None and not -1.0 < time - last < MAX_PAUSE:
            warn(f"the video's clock jumps by {time - last:.1f} s at {last:.1f} s: the jump was taken out")
            shift += last + nominal - time
            time = last + nominal
        if last is not None and time <= last:
            continue
        last = time
        yield time, duration, lambda frame=frame: _upright(frame, stream)


def _on_clock(
    timed: Iterable[tuple[float, float, Callable[[], np.ndarray]]], fps: float, start: float, end: float | None
) -> Iterator[np.ndarray]:
    """Repeats and drops frames so that output k is the input nearest in time to start + k / fps."""
    step, current, index = 1.0 / fps, None, 0
    last_index = math.inf if end is None else max(1, round((end - start) * fps))
    for entry in timed:
        if current is not None:
            until = (current[0] + entry[0]) / 2  # where the next frame becomes the nearer one
            count = 0
            while index < last_index and start + index * step < until - 1e-6:
                count, index = count + 1, index + 1
            yield from _repeated(current, count)
        if index >= last_index:
            return
        current = entry
    if current is not None:
        total = round((current[0] + current[1] - start) * fps)
        wanted = max(total, 1) if start == 0.0 else total
        yield from _repeated(current, int(min(wanted, last_index)) - index)


def _repeated(entry: tuple[float, float, Callable[[], np.ndarray]], count: int) -> Iterator[np.ndarray]:
    picture = entry[2]() if count > 0 else None
    for _ in range(count):
        yield picture if count == 1 else picture.copy()


def _upright(frame: Any, stream: Any) -> np.ndarray:
    """The decoded frame as it is meant to be seen: (height, width, 3) uint8 RGB."""
    width = _square_pixel_width(frame.width, stream)
    if width != frame.width:
        frame = frame.reformat(width=width, height=frame.height, format="rgb24", interpolation="BILINEAR")
    picture = frame.to_ndarray(format="rgb24")  # (h, w, 3)
    turns, mirrored = _orientation(frame)
    if mirrored:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(np.rot90(picture, turns))


def _square_pixel_width(width: int, stream: Any) -> int:
    ratio = stream.sample_aspect_ratio
    if not ratio or ratio == 1 or not 0.25 <= ratio <= 4:
        return width
    return max(1, round(width * float(ratio)))


def _orientation(frame: Any) -> tuple[int, bool]:
    """(quarter turns counter-clockwise, mirrored left to right before turning) from the frame's display matrix."""
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


# ------------------------------------------------------------------------------------------------------------ sound


def read_audio(
    source: MediaSource,
    sampling_rate: int = 16000,
    *,
    start: float = 0.0,
    end: float | None = None,
    trim_to_video: bool = True,
    on_warning: WarningSink | None = None,
) -> np.ndarray | None:
    """Reads the sound, mixed to one channel and resampled, on the clock of the pictures.

    Sample 0 is the time of the first video frame: late sound gets zeros in front, early sound is cut, holes between
    packets are silent. The padding with which encoders such as AAC outlast the video is cut; sound that goes on for
    longer than that is speech without a picture, and is kept. Without video the sound starts at its own first sample.

    Args:
        source: path, http(s) URL, bytes, or binary file object.
        sampling_rate: samples per second to return.
        start, end: return only this part; seconds after the first video frame.
        trim_to_video: whether up to `MAX_PADDING` seconds of sound after the last video frame are cut.
        on_warning: called with one sentence for each thing that is wrong but can be lived with.

    Returns:
        `(samples,)` float32, full scale 1.0; `None` where the source has no sound that can be decoded.

    Raises:
        MediaError: the source cannot be read, or has no video and no sound that can be decoded.
    """
    if sampling_rate <= 0:
        raise ValueError(f"sampling_rate must be positive, got {sampling_rate}")
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"start must be at least 0 and end after it, got start={start}, end={end}")
    warn = on_warning or silent
    with opened(source) as (container, name):
        videos, sounds = video_streams(container), audio_streams(container)
        if not sounds:
            if not videos:
                raise MediaError(f"{name} holds neither video nor sound")
            return None
        stream, video = sounds[0], videos[0] if videos else None
        origin = stream_start(video or stream)
        if start > 1.0:
            seek(container, origin + start - 0.5)
        clock = _VideoClock(video, origin, None if end is None else end + 1.0)
        packets = clock.watch(packets_of(container, [s for s in (stream, video) if s is not None], name, warn))
        pieces = _resampled(decoded(container, stream, packets, warn), stream, sampling_rate, origin, start, warn)
        placed = [(round((time - start) * sampling_rate), piece) for time, piece in pieces]
        if not placed:
            if video is None:
                raise MediaError(f"{name} holds sound that cannot be decoded")
            warn("the sound cannot be decoded: only the pictures are used")
            return None
        stop = clock.end if trim_to_video and video is not None else math.inf
        return _assembled(placed, sampling_rate, start, end, stop, warn)


class _VideoClock:
    """Passes the sound's packets on to its decoder and notes when the video ends; stops when sound is after `until`."""

    def __init__(self, video: Any, origin: float, until: float | None):
        self.video, self.origin, self.until = video, origin, until
        self.end = 0.0  # seconds after the first frame at which the last one ends

    def watch(self, packets: Iterable[Any]) -> Iterator[Any]:
        for packet in packets:
            time = None if packet.pts is None else float(packet.pts * packet.time_base) - self.origin
            if packet.size == 0:
                continue
            if self.video is not None and packet.stream.index == self.video.index:
                self._note(packet, time)
            elif self.until is not None and time is not None and time > self.until:
                self.end = max(self.end, self.until)  # the video's packets may lie further on
                return
            else:
                yield packet

    def _note(self, packet: Any, time: float | None) -> None:
        duration = float(packet.duration * packet.time_base) if packet.duration else frame_duration(self.video)
        self.end = max(self.end, (self.end if time is None else time) + duration)


def _resampled(
    frames: Iterable[Any], stream: Any, rate: int, origin: float, start: float, warn: WarningSink
) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds after the origin, (samples,) float32 mono) for each unbroken stretch of sound of one format."""
    av = import_av()
    key, resampler, began, seconds, parts, bad = None, None, 0.0, 0.0, [], 0
    for frame in frames:
        frame, dirty = _finite(frame)
        bad += dirty
        expected = began + seconds
        time = expected if frame.pts is None else float(frame.pts * stream.time_base) - origin
        earliest = expected if key else min(0.0, start)  # a seek may land long before `start`
        if not earliest - MAX_PAUSE < time < max(expected, start) + MAX_PAUSE:
            warn(f"the sound's clock jumps by {time - expected:.1f} s at {expected:.1f} s: the jump was taken out")
            origin += time - (expected if key else start)
            time = expected if key else start
        new_key = (frame.format.name, frame.layout.name, frame.sample_rate)
        if key != new_key or abs(time - expected) > AUDIO_JITTER:
            if parts := parts + _mono(resampler, None):
                yield began, np.concatenate(parts)
            resampler = av.AudioResampler(format="fltp", layout=frame.layout, rate=rate)
            key, began, seconds, parts = new_key, time, 0.0, []
        seconds += frame.samples / frame.sample_rate
        frame.pts = None
        parts += _mono(resampler, frame)
    if parts := parts + _mono(resampler, None):
        yield began, np.concatenate(parts)
    if bad:
        warn(f"{bad} samples of the sound are not numbers (NaN or infinite): they were replaced by silence")


def _mono(resampler: Any, frame: Any) -> list[np.ndarray]:
    """What the resampler gives for one more frame (None: the rest), averaged over the channels."""
    if resampler is None:
        return []
    return [out.to_ndarray().astype(np.float32, copy=False).mean(axis=0) for out in resampler.resample(frame)]


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


def _assembled(
    placed: list[tuple[int, np.ndarray]],
    rate: int,
    start: float,
    end: float | None,
    stop: float,
    warn: WarningSink,
) -> np.ndarray:
    """Lays the pieces (first sample index, samples) on one line from `start` to `end` or to the video's end."""
    length = max(index + len(piece) for index, piece in placed)
    tail = (length / rate + start) - stop
    if 0 < tail <= MAX_PADDING:
        length = round((stop - start) * rate)
    elif tail > MAX_PADDING and stop > 0:
        warn(_tail_warning(tail))
    if end is not None:
        length = min(length, round((end - start) * rate))
    sound = np.zeros(max(length, 0), dtype=np.float32)
    for index, piece in placed:
        first, last = max(index, 0), min(index + len(piece), len(sound))
        if last > first:
            sound[first:last] = piece[first - index : last - index]
    return sound


def _tail_warning(seconds: float) -> str:
    return f"the sound goes on for {seconds:.1f} s after the last picture: there it is read without lips"


# ----------------------------------------------------------------------------------------------------------- probing


def probe_media(source: MediaSource) -> MediaInfo:
    """Says what a source holds. Reads all packets, but decodes one picture and a little sound only.

    Raises:
        MediaError: the source cannot be read or holds neither video nor sound.
    """
    with opened(source) as (container, name):  # streams must not be touched once their container is closed
        return _probed(container, name)


def _probed(container: Any, name: str) -> MediaInfo:
    warnings: list[str] = []
    videos, sounds = video_streams(container), audio_streams(container)
    if not videos and not sounds:
        raise MediaError(f"{name} holds neither video nor sound")
    for streams, what in ((videos, "videos"), (sounds, "sound tracks")):
        if len(streams) > 1:
            warnings.append(f"the file holds {len(streams)} {what}: the first is used")
    video, sound = videos[0] if videos else None, sounds[0] if sounds else None
    found = _survey(container, [s for s in (video, sound) if s is not None], name, warnings.append)
    picture = found[video.index].first if video is not None else None
    if video is not None and picture is None:
        if sound is None:
            raise MediaError(f"{name} holds a video of which no frame can be decoded")
        warnings.append("no frame of the video can be decoded: only the sound is used")
    main = sound if picture is None else video
    origin = stream_start(main)
    duration = max(0.0, found[main.index].end - origin)
    if (cut := _cut_off(container, main, duration, max(span.end for span in found.values()))) is not None:
        warnings.append(f"the file is cut off: {cut[0]:.1f} s of the {cut[1]:.1f} s it announces are there")
    if picture is None:
        return MediaInfo(has_audio=True, duration=duration, warnings=tuple(warnings))
    offset = 0.0
    if sound is not None:
        heard = found[sound.index].first
        offset = float(heard.pts * sound.time_base) - origin if heard is not None and heard.pts is not None else 0.0
        if (tail := found[sound.index].end - origin - duration) > MAX_PADDING:
            warnings.append(_tail_warning(tail))
    height, width = _upright(picture, video).shape[:2]
    return MediaInfo(
        has_audio=sound is not None,
        has_video=True,
        fps=found[main.index].packets / duration if duration > 0 else float(video.average_rate or 0.0),
        width=width,
        height=height,
        rotation=-90 * _orientation(picture)[0] % 360,
        duration=duration,
        audio_offset=offset,
        warnings=tuple(warnings),
    )


@dataclass
class _Span:
    """What one stream turned out to hold: its first decoded frame, when it ends on the container's clock, its size."""

    first: Any = None
    end: float = 0.0
    packets: int = 0


def _survey(container: Any, streams: list[Any], name: str, warn: WarningSink) -> dict[int, _Span]:
    """Goes through all packets and decodes each stream until its first frame: a `_Span` for each stream index."""
    av = import_av()
    spans = {stream.index: _Span(end=stream_start(stream)) for stream in streams}
    for packet in packets_of(container, streams, name, warn):
        stream, span = packet.stream, spans.get(packet.stream.index)
        if span is None:
            continue
        if span.first is None:
            with contextlib.suppress(av.error.FFmpegError, ValueError):
                span.first = next(iter(stream.decode(packet if packet.size else None)), None)
        if packet.size == 0:
            continue
        span.packets += 1
        if packet.pts is not None:
            lasting = float(packet.duration * packet.time_base) if packet.duration else frame_duration(stream)
            span.end = max(span.end, float(packet.pts * packet.time_base) + lasting)
    return spans


def _cut_off(container: Any, main: Any, duration: float, end: float) -> tuple[float, float] | None:
    """(seconds there, seconds announced) where the headers announce clearly more than the packets hold."""
    announced = float(main.duration * main.time_base) if main.duration else 0.0
    if duration < announced - 0.2:
        return duration, announced
    whole = container.duration / import_av().time_base if container.duration else 0.0
    there = end - (container.start_time or 0) / import_av().time_base
    return (there, whole) if there < whole - 0.2 else None

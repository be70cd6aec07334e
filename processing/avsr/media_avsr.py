"""From a media file to 16 kHz sound and 25 fps pictures that share one clock, and back to an mp4.

Everything is measured in seconds after the first video frame (after the first sound where there is no video), so that
`read_audio` and `read_frames` stay together whatever the container says. A source is a path, an http(s) URL, the bytes
of a file, or a readable binary file object. Whatever cannot be read ends in one `MediaError` that names the source.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import numpy as np

MediaSource = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO
WarningSink = Callable[[str], None]

MAX_DOWNLOAD_BYTES = 4 << 30  # an http source larger than this is refused
MAX_DOWNLOAD_SECONDS = 3600.0  # and one that takes longer than this
DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte
MAX_PAUSE = 60.0  # seconds: a longer jump between two timestamps is a broken clock, not a pause
AUDIO_JITTER = 0.04  # seconds: smaller gaps and overlaps between sound packets are rounding, not silence
TEXT_CODECS = ("ansi", "bintext", "xbin", "idf")  # ffmpeg "plays" text files as pictures of text


class MediaError(ValueError):
    """A source that cannot be read (or written). The message is one line that names the source and the reason."""


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


def source_name(source: MediaSource) -> str:
    """How messages call a source: its path or URL, the name of a file object, or the number of bytes."""
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    name = getattr(source, "name", None)
    return repr(name) if isinstance(name, str) else f"<{type(source).__name__}>"


def is_url(source: Any) -> bool:
    """Whether the source is an http or https address."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def fetch_media(source: MediaSource) -> MediaSource:
    """Downloads an http(s) source once, into memory or a temporary file; returns any other source as it is.

    Readers call it themselves; whoever reads the same URL several times calls it first and passes on what it returns.

    Raises:
        MediaError: no answer within 30 s, an error status, or more than `MAX_DOWNLOAD_BYTES`.
    """
    if not is_url(source):
        return source
    name = source_name(source)
    target = tempfile.SpooledTemporaryFile(max_size=64 << 20)  # deleted when closed or collected
    try:
        with urllib.request.urlopen(source, timeout=DOWNLOAD_TIMEOUT) as answer:
            if not answer.geturl().lower().startswith(("http://", "https://")):
                raise MediaError(f"{name} leads away from http(s) to {answer.geturl()!r}")
            received, began = 0, monotonic()
            while block := answer.read(1 << 20):
                received += len(block)
                if received > MAX_DOWNLOAD_BYTES:
                    raise MediaError(
                        f"{name} is larger than {MAX_DOWNLOAD_BYTES} bytes: download it and pass the path"
                    )
                if monotonic() - began > MAX_DOWNLOAD_SECONDS:
                    raise MediaError(f"{name} takes longer than {MAX_DOWNLOAD_SECONDS:.0f} s to fetch")
                target.write(block)
    except MediaError:
        raise
    except urllib.error.HTTPError as error:
        raise MediaError(f"{name} cannot be fetched: the server answers {error.code} {error.reason}") from None
    except (OSError, ValueError, EOFError) as error:  # URLError, timeouts, broken addresses
        raise MediaError(f"{name} cannot be fetched: {getattr(error, 'reason', error)}") from None
    except Exception as error:  # http.client.IncompleteRead and its kin share no base class but Exception
        raise MediaError(f"{name} cannot be fetched: {type(error).__name__} {error}") from None
    target.seek(0)
    return target


def _import_av():
    try:
        import av
    except ImportError:
        raise ImportError("Reading and writing media needs PyAV: pip install av") from None
    return av


def _checked_file(source: MediaSource, name: str) -> str | BinaryIO:
    """What PyAV is to open: a `file:` address (never another protocol) or a seekable binary file object."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        if len(source) == 0:
            raise MediaError(f"{name} is empty")
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fsdecode(source))
        try:
            if path.is_dir():
                raise MediaError(f"{name} is a folder, not a media file")
            if not path.exists():
                raise MediaError(f"{name} does not exist")
            if path.is_file() and path.stat().st_size == 0:
                raise MediaError(f"{name} is empty")
            with open(path, "rb"):
                pass
        except (OSError, ValueError) as error:
            if isinstance(error, MediaError):
                raise
            raise MediaError(f"{name} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        return "file:" + os.path.abspath(path)
    if not hasattr(source, "read"):
        raise MediaError(f"{name} is not a media source: pass a path, a URL, bytes, or a readable binary file object")
    return _seekable(source, name)


def _seekable(source: BinaryIO, name: str) -> BinaryIO:
    """The file object at its beginning; one that cannot seek is read into memory."""
    try:
        seekable = source.seekable() if hasattr(source, "seekable") else hasattr(source, "seek")
        if not seekable:
            source = io.BytesIO(source.read(MAX_DOWNLOAD_BYTES))
        source.seek(0)
        first = source.read(1)
        source.seek(0)
    except (OSError, ValueError, TypeError) as error:
        raise MediaError(f"{name} cannot be read: {error}") from None
    if isinstance(first, str):
        raise MediaError(f"{name} is open as text: open it with mode 'rb'")
    if not first:
        raise MediaError(f"{name} is empty")
    return source


@contextlib.contextmanager
def _opened(source: MediaSource) -> Iterator[tuple[Any, str]]:
    """Opens the source with PyAV: (container, name for messages). PyAV's own errors become MediaError."""
    av = _import_av()
    name = source_name(source)
    file = _checked_file(fetch_media(source), name)
    try:
        container = av.open(file, mode="r", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError, UnicodeError) as error:
        raise MediaError(f"{name} is not a media file that can be read, or is damaged ({_reason(error)})") from None
    try:
        yield container, name
    except MediaError:
        raise
    except (av.error.FFmpegError, ValueError, OverflowError) as error:  # such as a pixel format without conversion
        raise MediaError(f"{name} cannot be decoded: {_reason(error)}") from None
    finally:
        container.close()


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def _video_streams(container: Any) -> list[Any]:
    """The streams that are video: no cover art, no text drawn as pictures, a known codec and a size."""
    streams = [s for s in container.streams.video if s.codec_context is not None and not _is_cover(s)]
    return [s for s in streams if s.codec_context.name not in TEXT_CODECS and s.codec_context.width > 0]


def _audio_streams(container: Any) -> list[Any]:
    streams = [s for s in container.streams.audio if s.codec_context is not None]
    return [s for s in streams if s.codec_context.sample_rate > 0]


def _start(stream: Any) -> float:
    """Seconds on the container's clock at which a stream begins."""
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0


def _frame_duration(stream: Any) -> float:
    """Seconds that one frame of a video lasts on average; 0 where the stream does not say."""
    rate = (stream.average_rate or stream.guessed_rate) if stream.type == "video" else None
    return 1.0 / float(rate) if rate else 0.0


def _packets(container: Any, streams: list[Any], name: str, warn: WarningSink) -> Iterator[Any]:
    """Packets up to the end or up to where the file breaks off."""
    av = _import_av()
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            warn(f"the file breaks off ({_reason(error)}): only what comes before was read")
            return
        yield packet


def _decoded(container: Any, stream: Any, packets: Iterable[Any], warn: WarningSink) -> Iterator[Any]:
    """Frames of one stream's packets, the delayed ones at the end included; damaged packets give one warning."""
    av = _import_av()
    damaged, broken = 0, (av.error.FFmpegError, ValueError)
    for packet in packets:
        if packet.stream.index != stream.index or packet.size == 0:  # empty: PyAV's own end mark
            continue
        try:
            yield from stream.decode(packet)
        except broken:
            damaged += 1
    with contextlib.suppress(*broken):
        yield from stream.decode(None)
    if damaged:
        warn(f"part of the {stream.type} is damaged and was left out ({damaged} packets)")


def _seek(container: Any, seconds: float) -> None:
    """Goes to the last key frame before a time on the container's clock; stays where it is if that fails."""
    av = _import_av()
    with contextlib.suppress(av.error.FFmpegError, OverflowError):
        container.seek(max(0, int(seconds * av.time_base)))


def _silent(message: str) -> None:
    """The sink of warnings that nobody asked for."""


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
    warn = on_warning or _silent
    with _opened(source) as (container, name):
        streams = _video_streams(container)
        if not streams:
            if not _audio_streams(container):
                raise MediaError(f"{name} holds neither video nor sound")
            return
        stream = streams[0]
        stream.thread_type = "AUTO"
        origin = _start(stream)
        if start > 1.0:
            _seek(container, origin + start)
        frames = _decoded(container, stream, _packets(container, [stream], name, warn), warn)
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
    nominal = _frame_duration(stream) or 1.0 / fps
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
    packets are silent. What outlasts the video (AAC padding, or more) is cut. Without video the sound starts at its
    own first sample.

    Args:
        source: path, http(s) URL, bytes, or binary file object.
        sampling_rate: samples per second to return.
        start, end: return only this part; seconds after the first video frame.
        trim_to_video: whether sound after the last video frame is cut.
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
    warn = on_warning or _silent
    with _opened(source) as (container, name):
        videos, sounds = _video_streams(container), _audio_streams(container)
        if not sounds:
            if not videos:
                raise MediaError(f"{name} holds neither video nor sound")
            return None
        stream, video = sounds[0], videos[0] if videos else None
        origin = _start(video or stream)
        if start > 1.0:
            _seek(container, origin + start - 0.5)
        clock = _VideoClock(video, origin, None if end is None else end + 1.0)
        packets = clock.watch(_packets(container, [s for s in (stream, video) if s is not None], name, warn))
        pieces = _resampled(_decoded(container, stream, packets, warn), stream, sampling_rate, origin, start, warn)
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
        duration = float(packet.duration * packet.time_base) if packet.duration else _frame_duration(self.video)
        self.end = max(self.end, (self.end if time is None else time) + duration)


def _resampled(
    frames: Iterable[Any], stream: Any, rate: int, origin: float, start: float, warn: WarningSink
) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds after the origin, (samples,) float32 mono) for each unbroken stretch of sound of one format."""
    av = _import_av()
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
    clean = _import_av().AudioFrame.from_ndarray(np.where(good, samples, 0), frame.format.name, frame.layout)
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
    cut = (length / rate + start) - stop
    if cut > 0:
        length = round((stop - start) * rate)
        if cut > 0.5:
            warn(f"the sound goes on for {cut:.1f} s after the last picture: that part is not used")
    if end is not None:
        length = min(length, round((end - start) * rate))
    sound = np.zeros(max(length, 0), dtype=np.float32)
    for index, piece in placed:
        first, last = max(index, 0), min(index + len(piece), len(sound))
        if last > first:
            sound[first:last] = piece[first - index : last - index]
    return sound


# ----------------------------------------------------------------------------------------------------------- probing


def probe_media(source: MediaSource) -> MediaInfo:
    """Says what a source holds. Reads all packets, but decodes one picture and a little sound only.

    Raises:
        MediaError: the source cannot be read or holds neither video nor sound.
    """
    with _opened(source) as (container, name):  # streams must not be touched once their container is closed
        return _probed(container, name)


def _probed(container: Any, name: str) -> MediaInfo:
    warnings: list[str] = []
    videos, sounds = _video_streams(container), _audio_streams(container)
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
    origin = _start(main)
    duration = max(0.0, found[main.index].end - origin)
    if (cut := _cut_off(container, main, duration, max(span.end for span in found.values()))) is not None:
        warnings.append(f"the file is cut off: {cut[0]:.1f} s of the {cut[1]:.1f} s it announces are there")
    if picture is None:
        return MediaInfo(has_audio=True, duration=duration, warnings=tuple(warnings))
    offset = 0.0
    if sound is not None:
        heard = found[sound.index].first
        offset = float(heard.pts * sound.time_base) - origin if heard is not None and heard.pts is not None else 0.0
        if (extra := found[sound.index].end - origin - duration) > 0.5:
            warnings.append(f"the sound goes on for {extra:.1f} s after the last picture: that part is not used")
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
    av = _import_av()
    spans = {stream.index: _Span(end=_start(stream)) for stream in streams}
    for packet in _packets(container, streams, name, warn):
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
            lasting = float(packet.duration * packet.time_base) if packet.duration else _frame_duration(stream)
            span.end = max(span.end, float(packet.pts * packet.time_base) + lasting)
    return spans


def _cut_off(container: Any, main: Any, duration: float, end: float) -> tuple[float, float] | None:
    """(seconds there, seconds announced) where the headers announce clearly more than the packets hold."""
    announced = float(main.duration * main.time_base) if main.duration else 0.0
    if duration < announced - 0.2:
        return duration, announced
    whole = container.duration / _import_av().time_base if container.duration else 0.0
    there = end - (container.start_time or 0) / _import_av().time_base
    return (there, whole) if there < whole - 0.2 else None


# ----------------------------------------------------------------------------------------------------------- writing


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    fps: float,
    audio: np.ndarray | None = None,
    sampling_rate: int = 16000,
) -> None:
    """Writes an mp4 (H.264, AAC). The file appears under its name only when it is complete.

    Args:
        path: where to; its folder must exist.
        frames: `(height, width, 3)` uint8 RGB pictures of one size; odd sizes are padded by one pixel.
        fps: frames per second.
        audio: `(samples,)` float32 in -1 ... 1, or None for a silent film.
        sampling_rate: of the sound.

    Raises:
        MediaError: no frames, frames of changing size, or the file cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise MediaError(f"{str(path)!r} cannot be written: its folder does not exist")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".mp4")
    os.close(handle)
    av = _import_av()
    try:
        with av.open(temporary, "w", format="mp4") as container:
            _encode(container, frames, fps, audio, sampling_rate, str(path))
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"{str(path)!r} cannot be written: {_reason(error)}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _encode(
    container: Any, frames: Iterable[np.ndarray], fps: float, audio: np.ndarray | None, sampling_rate: int, name: str
) -> None:
    """Encodes pictures and sound side by side, so that a player never has to wait for either."""
    av = _import_av()
    video = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18"})
    video.pix_fmt = "yuv420p"
    sound = None
    if audio is not None:
        sound = container.add_stream("aac", rate=sampling_rate, layout="mono")
        audio = np.clip(np.nan_to_num(np.asarray(audio, dtype=np.float32).reshape(-1)), -1.0, 1.0)
    sent, shape = 0, None
    for index, picture in enumerate(frames):
        picture = np.asarray(picture)
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise MediaError(f"{name!r}: frames must be (height, width, 3) uint8, got {picture.shape} {picture.dtype}")
        if shape is None:
            shape = picture.shape
            video.height, video.width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        if picture.shape != shape:
            raise MediaError(f"{name!r}: frame {index} is {picture.shape}, the first was {shape}")
        padded = np.pad(picture, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
        container.mux(video.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        if sound is not None:
            until = min(len(audio), round((index + 1) / fps * sampling_rate))
            sent = _encode_sound(container, sound, audio, sent, until, sampling_rate)
    if shape is None:
        raise MediaError(f"{name!r} cannot be written: there are no frames")
    container.mux(video.encode(None))
    if sound is not None:
        _encode_sound(container, sound, audio, sent, len(audio), sampling_rate)
        container.mux(sound.encode(None))


def _encode_sound(container: Any, stream: Any, audio: np.ndarray, first: int, last: int, rate: int) -> int:
    if last > first:
        frame = _import_av().AudioFrame.from_ndarray(audio[None, first:last], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
        container.mux(stream.encode(frame))
    return max(first, last)

"""Opening media: what a source may be, how it is fetched, which streams are read, their packets and frames, and
reading ahead in a thread.

A source is a path, a file or http(s) URL, the bytes of a file, or a readable binary file object. Whatever cannot be
read ends in one `MediaError` that names the source. Files are opened as files only, and only in containers that hold
what they show: neither a name that looks like another protocol nor a playlist makes ffmpeg open anything else.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import IO, Any, Generic, TypeGuard, TypeVar

MediaSource = str | os.PathLike | bytes | bytearray | memoryview | IO[bytes]
WarningSink = Callable[[str], None]
Item = TypeVar("Item")
Track = int | str  # number of a track, from 0 on, or its language


MAX_PIXELS = 36_000_000  # of a picture of a video; 8192 x 4320 has 35.4 million
SPARE = 1 << 20  # pixels that a decoder may allocate beyond twice that, for its margins
LOWEST_RATE = 1000  # Hz: sound with fewer samples a second is none, and resampling would make a thousand out of one


@dataclass(frozen=True)
class TrackChoice:
    """
    What is read of a file: which of several tracks and channels, and how large its pictures may be.

    Attributes:
        audio: number of the sound track among those that can be read, from 0 on, or its language; None: the one that
            is flagged as default, or the first.
        video: as `audio`, of the video.
        channel: number of the sound's channel, from 0 on, `"left"`, `"right"`, or `"mean"` for the average; None: the
            channels in which somebody speaks.
        max_pixels: pixels of a picture of the video; a file with larger ones is refused.
    """

    audio: Track | None = None
    video: Track | None = None
    channel: int | str | None = None
    max_pixels: int = MAX_PIXELS


DEFAULT_TRACKS = TrackChoice()

MAX_DOWNLOAD_BYTES = 4 << 30  # an http source larger than this is refused
MAX_DOWNLOAD_SECONDS = 3600.0  # and one that takes longer than this
DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte
LATE = 0.1  # seconds: pictures that begin this little after the sound begin with it, as encoders pad the sound
MAX_PAUSE = 60.0  # seconds: a longer step between two timestamps is a broken clock, not a pause
MAX_PADDING = 0.5  # seconds: sound that is longer than the video by less than this is padding of its encoder
TEXT_CODECS = ("ansi", "bintext", "xbin", "idf")  # ffmpeg "plays" text files as pictures of text

# Containers that hold what they show, by ffmpeg's names. Playlists, scripts and patterns of names, which make it open
# other files, are none of them.
CONTAINERS = (
    "apng,asf,av1,avi,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,live_flv,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,"
    "mxf,nsv,nut,obu,ogg,rm,swf,vc1,vvc,wtv,yuv4mpegpipe,"
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,au,caf,dts,eac3,flac,gsm,ircam,latm,loas,mp3,nistsphere,qcp,sox,truehd,tta,voc,"
    "w64,wav,wv"
)

# Codes of one language, ISO 639-1 and 639-2: files have those of three letters, people type those of two.
LANGUAGES = (
    "ar ara", "bg bul", "bn ben", "ca cat", "cs ces cze", "cy cym wel", "da dan", "de deu ger", "el ell gre",
    "en eng", "es spa", "et est", "eu eus baq", "fa fas per", "fi fin", "fr fra fre", "ga gle", "gl glg", "he heb",
    "hi hin", "hr hrv", "hu hun", "hy hye arm", "id ind", "is isl ice", "it ita", "ja jpn", "ka kat geo", "ko kor",
    "lt lit", "lv lav", "mk mkd mac", "ms msa may", "nl nld dut", "no nor nob nno", "pl pol", "pt por", "ro ron rum",
    "ru rus", "sk slk slo", "sl slv", "sq sqi alb", "sr srp", "sv swe", "sw swa", "ta tam", "te tel", "th tha",
    "tr tur", "uk ukr", "ur urd", "vi vie", "zh zho chi",
)  # fmt: skip


class MediaError(ValueError):
    """A source that cannot be read (or written). The message is one line that names the source and the reason."""


def source_name(source: MediaSource) -> str:
    """Returns the name of a source in messages: its path or URL, the name of a file object, or the number of bytes."""
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    name = getattr(source, "name", None)
    return repr(name) if isinstance(name, str) else f"<{type(source).__name__}>"


def is_url(source: Any) -> TypeGuard[str]:
    """Whether the source is an http or https address."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def fetch_media(source: MediaSource) -> MediaSource:
    """Makes a source that can be read several times: downloads an http(s) source, reads a stream that cannot seek.

    Readers call it themselves; a caller that reads the same source several times calls it first and passes on its
    result. Paths, bytes and seekable file objects are returned as they are.

    Raises:
        MediaError: no answer within 30 s, an error status, or more than `MAX_DOWNLOAD_BYTES`.
    """
    if not is_url(source):
        return _rereadable(source)
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


def _rereadable(source: MediaSource) -> MediaSource:
    """Returns the source, or the content of a file object that cannot seek (a pipe)."""
    if not hasattr(source, "read") or not hasattr(source, "seekable") or source.seekable():
        return source
    name = source_name(source)
    try:
        content = source.read(MAX_DOWNLOAD_BYTES + 1)
    except (OSError, ValueError) as error:
        raise MediaError(f"{name} cannot be read: {error}") from None
    if len(content) > MAX_DOWNLOAD_BYTES:
        raise MediaError(f"{name} holds more than {MAX_DOWNLOAD_BYTES} bytes: write it to a file and pass the path")
    if isinstance(content, str):
        raise MediaError(f"{name} is open as text: open it with mode 'rb'")
    return io.BytesIO(content)


def import_av():
    try:
        import av
    except ImportError:
        raise ImportError("Reading and writing media needs PyAV: pip install av") from None
    return av


def _checked_file(source: MediaSource, name: str) -> str | IO[bytes]:
    """Returns what PyAV opens: a `file:` address (never another protocol) or a seekable binary file object."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        if len(source) == 0:
            raise MediaError(f"{name} is empty")
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        path = _local_path(source, name)
        try:
            if path.is_dir():
                raise MediaError(f"{name} is a folder, not a media file")
            if not path.exists():
                raise MediaError(f"{name} does not exist")
            if path.is_file() and path.stat().st_size == 0:
                raise MediaError(f"{name} is empty")
            if not path.is_file():
                raise MediaError(f"{name} is not a regular file: pass its content as bytes or as a file object")
            with open(path, "rb"):
                pass
        except (OSError, ValueError) as error:
            if isinstance(error, MediaError):
                raise
            raise MediaError(f"{name} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        return "file:" + os.path.abspath(path)
    if not hasattr(source, "read"):
        raise MediaError(f"{name} is not a media source: pass a path, a URL, bytes, or a readable binary file object")
    return _rewound(source, name)


def _local_path(source: str | os.PathLike, name: str) -> Path:
    """Returns the path; that of a `file://` address, too."""
    text = os.fsdecode(source)
    if not text.lower().startswith("file://"):
        return Path(text)
    parts = urllib.parse.urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise MediaError(f"{name} is on another machine, {parts.netloc!r}: copy the file and pass its path")
    return Path(urllib.request.url2pathname(parts.path))


def _rewound(source: IO[bytes], name: str) -> IO[bytes]:
    """Returns the file object at its beginning."""
    try:
        source.seek(0)
        first = source.read(1)
        source.seek(0)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise MediaError(f"{name} cannot be read: {error}") from None
    if isinstance(first, str):
        raise MediaError(f"{name} is open as text: open it with mode 'rb'")
    if not first:
        raise MediaError(f"{name} is empty")
    return source


def open_options(max_pixels: int) -> dict[str, str]:
    """
    Returns ffmpeg's options for opening a file: no other file, no network, and no memory for absurd pictures.

    Args:
        max_pixels: of a picture; decoders may allocate twice as many, so that the error can say how many there are.
    """
    return {
        "protocol_whitelist": "file",
        "format_whitelist": CONTAINERS,
        "max_pixels": str(2 * max_pixels + SPARE),
    }


@contextlib.contextmanager
def opened(source: MediaSource, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Any, str]]:
    """Opens the source with PyAV; yields (container, name for messages). PyAV's own errors become MediaError."""
    av = import_av()
    name = source_name(source)
    file = _checked_file(fetch_media(source), name)
    try:
        container = av.open(file, mode="r", options=open_options(max_pixels), metadata_errors="replace")
    except av.error.ArgumentError:  # the whitelist's
        raise MediaError(
            f"{name} holds neither video nor sound in a container that is read: convert it to mp4, mkv or wav; of a "
            "playlist, pass the files that it names"
        ) from None
    except (av.error.FFmpegError, OSError, ValueError, UnicodeError) as error:
        raise MediaError(
            f"{name} is not a media file that can be read, or is damaged ({error_reason(error)})"
        ) from None
    try:
        yield container, name
    except MediaError:
        raise
    except (av.error.FFmpegError, ValueError, OverflowError) as error:  # such as a pixel format without conversion
        raise MediaError(f"{name} cannot be decoded: {error_reason(error)}") from None
    finally:
        container.close()


def error_reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & import_av().stream.Disposition.attached_pic)


def video_streams(container: Any) -> list[Any]:
    """Returns the streams that are video: no cover art, no text drawn as pictures, a known codec and a size."""
    streams = [s for s in container.streams.video if s.codec_context is not None and not _is_cover(s)]
    return [s for s in streams if s.codec_context.name not in TEXT_CODECS and s.codec_context.width > 0]


def audio_streams(container: Any) -> list[Any]:
    streams = [s for s in container.streams.audio if s.codec_context is not None]
    return [s for s in streams if s.codec_context.sample_rate > 0]


def stream_start(stream: Any) -> float | None:
    """Returns the seconds on the container's clock at which a stream begins; None where no header says it."""
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else None


def reorder_delay(stream: Any, first: float) -> float:
    """
    Returns by how many seconds the first picture comes later than its stream begins, because a file without times of
    presentation (AVI) counts from the first one decoded; 0.0 elsewhere.

    Args:
        stream: of the pictures.
        first: time of the first picture, in seconds on the container's clock.
    """
    begin = stream_start(stream)
    delay = 0.0 if begin is None or stream.type != "video" else first - begin
    return delay if 0 < delay <= LATE else 0.0


def frame_duration(stream: Any) -> float:
    """Returns the mean duration of a video's frames in seconds; 0 if the stream does not announce it."""
    rate = (stream.average_rate or stream.guessed_rate) if stream.type == "video" else None
    return 1.0 / float(rate) if rate else 0.0


@dataclass
class _Span:
    """The packets of one stream so far: their beginning and end on the container's clock, and their number."""

    end: float
    begin: float = math.inf
    packets: int = 0


class StreamSelection:
    """Chooses the streams that are read, and notes how long they are.

    Time 0 of a clip is where players begin: where the first of the container's streams begins. A sound encoder's
    padding, which begins a few hundredths of a second before the pictures, doesn't count.

    Args:
        container: as opened by PyAV.
        name: name used in error messages.
        tracks: which of several are read.

    Attributes:
        video: the stream whose pictures are read, or None.
        sound: the stream whose sound is read, or None.
        origin: time 0 of the clip on the container's clock, in seconds.
        warnings: sentences for the user.
        fps: mean frame rate of the video as stored, once all packets were noted; 0.0 without video.
        video_end: seconds from the clip's time 0 to the end of the video's latest packet; 0.0 where there is none.
        sound_end: as `video_end`, of the sound.

    Raises:
        MediaError: there is neither video nor sound, or not the track that was chosen.
    """

    def __init__(self, container: Any, name: str, tracks: TrackChoice = DEFAULT_TRACKS):
        videos, sounds = video_streams(container), audio_streams(container)
        if not videos and not sounds:
            unsized = any(getattr(stream.codec_context, "width", 1) == 0 for stream in container.streams.video)
            why = f": its pictures are damaged, or far beyond `max_pixels` ({tracks.max_pixels})" if unsized else ""
            raise MediaError(f"{name} holds neither video nor sound{why}")
        self._container, self._name = container, name
        self.warnings: list[str] = []
        self.video = self._choose(videos, tracks.video, "video", "video_track")
        self.sound = self._choose(sounds, tracks.audio, "sound track", "audio_track")
        if self.sound is not None and (rate := self.sound.codec_context.sample_rate) < LOWEST_RATE:
            raise MediaError(f"{name} has sound of {rate} samples a second: at least {LOWEST_RATE} are needed")
        self._spans = {stream.index: _Span(stream_start(stream) or 0.0) for stream in self.streams}
        self.origin = _time_zero(self.video, self.sound, [*videos, *sounds])
        self.fps = self.video_end = self.sound_end = 0.0

    def _choose(self, streams: list[Any], track: Track | None, kind: str, argument: str) -> Any:
        """Returns the stream that is read, None where there is none; warns where it was chosen among several."""
        if track is None and len(streams) < 2:
            return streams[0] if streams else None
        there = ", ".join(f"{number}{_described(stream)}" for number, stream in enumerate(streams))
        if track is None:
            number = min(range(len(streams)), key=lambda number: (*_rank(streams[number]), number))
            several = f"the file holds {len(streams)} {kind}s: {there}"
            self.warnings.append(f"{several}; number {number} is read, `{argument}` chooses another")
            return streams[number]
        found = [stream for number, stream in enumerate(streams) if _is_track(stream, number, track)]
        if not found:
            raise MediaError(f"`{argument}`: {self._name} has no {kind} {track!r}; it has {there or 'none'}")
        return min(found, key=_rank)

    @property
    def streams(self) -> list[Any]:
        """The chosen streams, video first."""
        return [stream for stream in (self.video, self.sound) if stream is not None]

    def note(self, packet: Any) -> None:
        """Notes one more packet of the chosen streams."""
        span = self._spans.get(packet.stream.index)
        if span is None or packet.size == 0:  # empty: PyAV's own end mark
            return
        span.packets += 1
        if packet.pts is not None:
            lasting = float(packet.duration * packet.time_base) if packet.duration else frame_duration(packet.stream)
            begin = float(packet.pts * packet.time_base)
            span.begin, span.end = min(span.begin, begin), max(span.end, begin + lasting)

    @property
    def announced(self) -> float | None:
        """Seconds that the headers announce; None where they announce nothing."""
        ends = [self._announced(stream) + self._begin(stream) for stream in self.streams if self._announced(stream)]
        return max([*ends, self._whole]) or None

    @property
    def _whole(self) -> float:
        """Duration in seconds that the container announces."""
        return self._container.duration / import_av().time_base if self._container.duration else 0.0

    @staticmethod
    def _announced(stream: Any) -> float:
        return float(stream.duration * stream.time_base) if stream is not None and stream.duration else 0.0

    def _begin(self, stream: Any) -> float:
        """Returns the second at which a stream begins; 0 where the headers don't say it, or it is no time to wait."""
        begin = (stream_start(stream) or self.origin) - self.origin
        return begin if 0 < begin < MAX_PAUSE else 0.0

    def _length(self, stream: Any) -> float:
        """Returns the seconds from time 0 to a stream's end; without the pause before it where its clock is broken."""
        if stream is None:
            return 0.0
        span = self._spans[stream.index]
        others = [other.end - self.origin for other in self._spans.values() if other is not span]
        if math.isfinite(span.begin) and span.begin - self.origin > max([0.0, *others]) + MAX_PAUSE:
            return span.end - span.begin
        return max(0.0, span.end - self.origin - reorder_delay(stream, span.begin))

    def lose_video(self, sound_is_read: bool) -> None:
        """Gives up the video, no frame of which can be decoded.

        Args:
            sound_is_read: whether there is sound that is read instead.

        Raises:
            MediaError: there is no such sound.
        """
        if not sound_is_read:
            raise MediaError(f"{self._name} holds a video of which no frame can be decoded")
        self.warnings.append("no frame of the video can be decoded: only the sound is used")
        self.video = None

    def finish(self, both: bool = True) -> None:
        """
        Computes lengths, once all packets were noted; warns of a cut-off file and of sound without picture.

        Args:
            both: whether sound and pictures are both read.
        """
        self.video_end, self.sound_end = self._length(self.video), self._length(self.sound)
        main, present = self.video or self.sound, self.video_end if self.video else self.sound_end
        present -= self._begin(main)
        announced = self._announced(main)
        if present >= announced - 0.2:
            end = max(span.end for span in self._spans.values())
            present = end - (self._container.start_time or 0) / import_av().time_base
            announced = self._whole
        if present < announced - 0.2:
            self.warnings.append(
                f"the file is cut off: {present:.1f} s of the {announced:.1f} s it announces are there"
            )
        if self.video is None:
            return
        both &= self.sound is not None
        span = self._spans[self.video.index]
        seconds = span.end - span.begin
        self.fps = span.packets / seconds if 0 < seconds < math.inf else float(self.video.average_rate or 0.0)
        if both and (lead := self.video_end - seconds) > LATE and seconds > 0:
            self.warnings.append(
                f"the sound begins {lead:.1f} s before the first picture: that part is read without lips"
            )
        if both and (tail := self.sound_end - self.video_end) > MAX_PADDING:
            self.warnings.append(tail_warning(tail))


def tail_warning(seconds: float) -> str:
    return f"the sound continues for {seconds:.1f} s after the last picture: that part is read without lips"


def _time_zero(video: Any, sound: Any, streams: list[Any]) -> float:
    """Returns the time on the container's clock at which a clip begins, in seconds.

    Args:
        video: the stream whose pictures are read, or None.
        sound: the stream whose sound is read, or None.
        streams: all that can be read, these two among them.
    """
    known = [begin for stream in (video, sound) if stream is not None and (begin := stream_start(stream)) is not None]
    if not known:
        return 0.0
    others = [begin for stream in streams if (begin := stream_start(stream)) is not None]
    zero = min([*known, *(begin for begin in others if min(known) - MAX_PAUSE < begin)])
    begins = None if video is None else stream_start(video)
    return begins if begins is not None and begins - zero <= LATE else zero


def _rank(stream: Any) -> tuple[bool, bool]:
    """Returns a key that sorts tracks: flagged as default first, comments and descriptions of the picture last."""
    flags = import_av().stream.Disposition
    aside = flags.comment | flags.visual_impaired | flags.descriptions
    return not stream.disposition & flags.default, bool(stream.disposition & aside)


def _described(stream: Any) -> str:
    """Returns what the headers say of a track, in parentheses: language, title, size of the picture, flags."""
    flags = import_av().stream.Disposition
    title = stream.metadata.get("title")
    facts = [_language(stream), repr(title) if title else ""]
    if stream.type == "video":
        facts.append(f"{stream.codec_context.width}x{stream.codec_context.height}")
    named = {"default": flags.default, "comment": flags.comment, "description": flags.visual_impaired}
    facts += [word for word, flag in named.items() if stream.disposition & flag]
    return f" ({said})" if (said := ", ".join(fact for fact in facts if fact)) else ""


def _language(stream: Any) -> str:
    language = stream.metadata.get("language", "").lower()
    return "" if language == "und" else language


def _is_track(stream: Any, number: int, track: Track) -> bool:
    """Whether a stream is the track of this number, or in this language (`de`, `deu`, `ger` and `de-AT` are one)."""
    if isinstance(track, int) or track.isdecimal():
        return number == int(track)
    said, wanted = _language(stream).split("-")[0], track.lower().replace("_", "-").split("-")[0]
    return bool(said) and (said == wanted or any({said, wanted} <= set(codes.split()) for codes in LANGUAGES))


def packets_of(container: Any, streams: list[Any], name: str, warn: WarningSink) -> Iterator[Any]:
    """Yields the packets up to the end, or up to where the file breaks off."""
    av = import_av()
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            warn(f"the file breaks off ({error_reason(error)}): only what comes before was read")
            return
        yield packet


def square_pixel_width(width: int, stream: Any) -> int:
    """Returns the width with square pixels of a picture of this stored width."""
    ratio = stream.sample_aspect_ratio
    if not ratio or ratio == 1 or not 0.25 <= ratio <= 4:
        return width
    return max(1, round(width * float(ratio)))


def check_size(width: int, height: int, stream: Any, name: str, max_pixels: int) -> None:
    """
    Checks the size of a picture, as it is stored and with square pixels.

    Args:
        width: in pixels, as it is stored.
        height: in pixels.
        stream: of the picture.
        name: of the source in messages.
        max_pixels: how many pixels it may have.

    Raises:
        MediaError: it has more.
    """
    shown = max(width, square_pixel_width(width, stream))
    if shown * height > max_pixels:
        raise MediaError(
            f"{name} has pictures of {shown} x {height} pixels, and `max_pixels` allows {max_pixels}: make them "
            "smaller, or pass a larger `max_pixels`"
        )


def bound_pictures(stream: Any, name: str, max_pixels: int) -> None:
    """Checks the size that the headers announce (see `check_size`), and what the decoder may allocate later."""
    context = stream.codec_context
    check_size(context.width, context.height, stream, name, max_pixels)
    context.options = {**context.options, "max_pixels": open_options(max_pixels)["max_pixels"]}


class StreamDecoder:
    """
    Decodes the packets of one stream; damaged ones are left out, with one warning at the end.

    Args:
        stream: of the packets.
        warn: called with one sentence for each fault that does not prevent reading.
        name: of the source in messages.
        max_pixels: of a decoded picture, as a stream may change its size on the way.
    """

    def __init__(self, stream: Any, warn: WarningSink, name: str, max_pixels: int = MAX_PIXELS):
        self.stream, self._warn, self._damaged = stream, warn, 0
        self._name, self._max_pixels = name, max_pixels

    def push(self, packet: Any | None) -> Iterator[Any]:
        """
        Yields the frames that come out with one more packet; with None the delayed ones.

        Raises:
            MediaError: a picture is too large.
        """
        try:
            frames = self.stream.decode(packet)
        except (import_av().error.FFmpegError, ValueError) as error:
            # A decoder that refuses to make room for a picture takes back the size.
            if self.stream.type == "video" and (isinstance(error, MemoryError) or not self.stream.codec_context.width):
                raise MediaError(
                    f"{self._name} has pictures that are damaged, or much larger than `max_pixels` "
                    f"({self._max_pixels}) allows: make them smaller, or pass a larger `max_pixels`"
                ) from None
            self._damaged += 1
            return
        for frame in frames:
            if self.stream.type == "video":
                check_size(frame.width, frame.height, self.stream, self._name, self._max_pixels)
            yield frame

    def finish(self) -> Iterator[Any]:
        """Yields the delayed frames, once there are no more packets."""
        if self._damaged:
            self._warn(f"part of the {self.stream.type} is damaged and was left out ({self._damaged} packets)")
        yield from self.push(None)


def seek(container: Any, seconds: float) -> None:
    """Seeks the last key frame before a time on the container's clock; does nothing if that fails."""
    av = import_av()
    with contextlib.suppress(av.error.FFmpegError, OverflowError):
        container.seek(max(0, int(seconds * av.time_base)))


def silent(message: str) -> None:
    """Discards a warning."""


# ------------------------------------------------------------------------------------------------ reading ahead


class _End:
    """Marks the end of the items; `error` is what ended them, if anything did."""

    def __init__(self, error: BaseException | None):
        self.error = error


class ReadAhead(Generic[Item]):
    """Runs a generator in a thread; iterating gives its items, at most `room` of them waiting.

    An error of the generator is raised once, after the items that came before it. `close`, the end of a `with` block,
    or dropping the object ends the thread and closes the generator.

    Args:
        items: a generator. Only the thread touches it from here on.
        room: how much may wait, in the unit of `size`; two items may always wait.
        size: how much room an item takes; 1 by default.
    """

    # Two simple queues, as garbage collection may drop a reader in any thread at any moment: a lock that this thread
    # holds already, such as that of a `queue.Queue`, would never be free then. `SimpleQueue.put` needs none.

    def __init__(self, items: Iterator[Item], room: float, size: Callable[[Item], float] = lambda item: 1):
        self._made: SimpleQueue[tuple[Item, float] | _End] = SimpleQueue()
        self._taken: SimpleQueue[float | None] = SimpleQueue()  # sizes of the items taken; None: take no more
        self._over = False
        self._thread = threading.Thread(
            target=_work, args=(items, room, size, self._made, self._taken), name="read ahead", daemon=True
        )
        self._dropped = weakref.finalize(self, self._taken.put, None)
        self._thread.start()

    def __iter__(self) -> ReadAhead[Item]:
        return self

    def __next__(self) -> Item:
        made = None if self._over else self._made.get()
        if made is None or self._over:  # closed meanwhile, too
            raise StopIteration
        if isinstance(made, _End):
            self._over = True
            raise made.error or StopIteration
        item, size = made
        self._taken.put(size)
        return item

    def __enter__(self) -> ReadAhead[Item]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread and closes the generator; returns when both are done."""
        self._over = True
        self._dropped()
        self._thread.join()
        self._made = SimpleQueue()  # frees the items that nobody took


def _work(
    items: Iterator[Item],
    room: float,
    size: Callable[[Item], float],
    made: SimpleQueue[tuple[Item, float] | _End],
    taken: SimpleQueue[float | None],
) -> None:
    """Runs the generator. It holds no reference to the reader, so garbage collection of the reader stops it."""
    error: BaseException | None = None
    try:
        waiting, filled = 0, 0.0
        for item in items:
            needed = size(item)
            while not taken.empty() or (waiting >= 2 and filled + needed > room):
                freed = taken.get()
                if freed is None:
                    return
                waiting, filled = waiting - 1, filled - freed
            made.put((item, needed))
            waiting, filled = waiting + 1, filled + needed
            del item  # the reader's now, and may be large
    except BaseException as caught:  # the reader raises it
        error = caught
    finally:
        try:
            if isinstance(items, Generator):
                items.close()
        finally:
            made.put(_End(error))

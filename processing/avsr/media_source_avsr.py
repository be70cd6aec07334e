"""Opening media: what a source may be, how it is fetched, and its streams, packets and frames through PyAV.

A source is a path, an http(s) URL, the bytes of a file, or a readable binary file object. Whatever cannot be read ends
in one `MediaError` that names the source. Files are opened as files only: neither a name that looks like another
protocol nor a playlist inside makes ffmpeg reach out.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import IO, Any, TypeGuard

MediaSource = str | os.PathLike | bytes | bytearray | memoryview | IO[bytes]
WarningSink = Callable[[str], None]

MAX_DOWNLOAD_BYTES = 4 << 30  # an http source larger than this is refused
MAX_DOWNLOAD_SECONDS = 3600.0  # and one that takes longer than this
DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte
TEXT_CODECS = ("ansi", "bintext", "xbin", "idf")  # ffmpeg "plays" text files as pictures of text


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
        path = Path(os.fsdecode(source))
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


@contextlib.contextmanager
def opened(source: MediaSource) -> Iterator[tuple[Any, str]]:
    """Opens the source with PyAV; yields (container, name for messages). PyAV's own errors become MediaError."""
    av = import_av()
    name = source_name(source)
    file = _checked_file(fetch_media(source), name)
    try:
        container = av.open(file, mode="r", options={"protocol_whitelist": "file"}, metadata_errors="replace")
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


def stream_start(stream: Any) -> float:
    """Returns the seconds on the container's clock at which a stream begins."""
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0


def frame_duration(stream: Any) -> float:
    """Returns the mean duration of a video's frames in seconds; 0 if the stream does not announce it."""
    rate = (stream.average_rate or stream.guessed_rate) if stream.type == "video" else None
    return 1.0 / float(rate) if rate else 0.0


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


class StreamDecoder:
    """Decodes the packets of one stream; damaged ones are left out, with one warning at the end."""

    def __init__(self, stream: Any, warn: WarningSink):
        self.stream, self._warn, self._damaged = stream, warn, 0

    def push(self, packet: Any) -> list[Any]:
        """Returns the frames that come out with one more packet."""
        av = import_av()
        try:
            return self.stream.decode(packet)
        except (av.error.FFmpegError, ValueError):
            self._damaged += 1
            return []

    def finish(self) -> list[Any]:
        """Returns the delayed frames, once there are no more packets."""
        av = import_av()
        if self._damaged:
            self._warn(f"part of the {self.stream.type} is damaged and was left out ({self._damaged} packets)")
        with contextlib.suppress(av.error.FFmpegError, ValueError):
            return self.stream.decode(None)
        return []


def seek(container: Any, seconds: float) -> None:
    """Seeks the last key frame before a time on the container's clock; does nothing if that fails."""
    av = import_av()
    with contextlib.suppress(av.error.FFmpegError, OverflowError):
        container.seek(max(0, int(seconds * av.time_base)))


def silent(message: str) -> None:
    """Discards a warning."""

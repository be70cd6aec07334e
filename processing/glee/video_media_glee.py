"""Video files through PyAV: each frame decoded once, upright, with its time; what is damaged is left out and told."""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from .image_source_glee import fetch
from .video_frames_glee import VideoFrame, Warn

MAX_DOWNLOAD_BYTES = 4 << 30  # a video larger than this is refused
MAX_DOWNLOAD_SECONDS = 3600.0  # and one that takes longer than this
IN_MEMORY = 64 << 20  # bytes of a download; a larger one goes to a temporary file
THUMBNAIL = 16  # pixels of a side
TEXT_CODECS = ("ansi", "bintext", "xbin", "idf")  # ffmpeg "plays" text files as pictures of text


class MediaVideo:
    """
    The pictures of a video file.

    Files are opened as files only: neither a name that looks like another protocol nor a playlist inside makes ffmpeg
    reach out.

    Args:
        source: path, http(s) URL, bytes of a file, or binary file object.
        name: how messages call it.

    Attributes:
        fps: frames a second on average; frames: their number; duration: seconds. None where the file doesn't say.

    Raises:
        ValueError: there is no such file, it cannot be read, or it has no pictures.
    """

    def __init__(self, source: Any, name: str):
        self.name = name
        av = _import_av()
        file = _file(source, name)
        try:
            self._container = av.open(
                file, mode="r", options={"protocol_whitelist": "file"}, metadata_errors="replace"
            )
        except (av.error.FFmpegError, OSError, ValueError, UnicodeError) as error:
            raise ValueError(f"`inputs`: {name} cannot be read as a video ({_reason(error)}).") from None
        streams = [stream for stream in self._container.streams.video if _is_video(stream)]
        if not streams:
            self._container.close()
            raise ValueError(f"`inputs`: {name} has no pictures, so there is nothing to be seen.")
        stream = self._stream = streams[0]
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else None
        self.frames = stream.frames or None
        self.duration = _duration(self._container, stream)

    def read(self, warn: Warn) -> Iterator[VideoFrame]:
        """The frames, one at a time; the file is closed behind the last one."""
        clock, index = _Clock(self._stream, self.fps), 0
        pictures = _Pictures(self._stream)
        try:
            for frame in self._frames(warn):
                time = clock.time_of(frame)
                try:
                    image = pictures.upright(frame)
                except (ValueError, OSError) as error:  # such as a pixel format that cannot be converted
                    raise ValueError(
                        f"`inputs`: {self.name}: frame {index} cannot be converted ({_reason(error)})."
                    ) from None
                yield VideoFrame(index, time, image)
                index += 1
        finally:
            self._container.close()

    def _frames(self, warn: Warn) -> Iterator[Any]:
        """Decoded frames up to the end, or to where the file breaks off."""
        av, damaged = _import_av(), 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError) as error:
                warn(f"the file breaks off ({_reason(error)}): only what comes before was read")
                break
            try:
                decoded = self._stream.decode(packet)
            except (av.error.FFmpegError, ValueError):
                damaged += 1
                continue
            for frame in decoded:
                damaged += frame.is_corrupt
                yield frame
        if damaged:
            warn(f"{damaged} frames are damaged; what could not be decoded was left out")


class _Clock:
    """When frames are shown, in seconds after the first one; times only grow."""

    def __init__(self, stream: Any, fps: float | None):
        self._base, self._step = stream.time_base, 1 / (fps or 25.0)
        self._first: float | None = None
        self._last = -math.inf

    def time_of(self, frame: Any) -> float:
        """A frame without a time, or with one that goes back, follows the one before at the usual distance."""
        # In the stream's time base: frames that come out of the decoder late have none of their own.
        stamp = None if frame.pts is None or self._base is None else float(frame.pts * self._base)
        if self._first is None:
            self._first, self._last = stamp or 0.0, 0.0
            return 0.0
        time = math.inf if stamp is None else stamp - self._first
        self._last = time if self._last < time < math.inf else self._last + self._step
        return self._last


class _Pictures:
    """Turns decoded frames into pictures as they are meant to be seen: rotated, mirrored, with square pixels."""

    def __init__(self, stream: Any):
        self._stream = stream
        self._reformatter = _import_av().video.reformatter.VideoReformatter()  # keeps its tables from frame to frame
        self._orientations: dict[int, tuple[int, bool]] = {}  # of frames with one rotation

    def upright(self, frame: Any) -> Image.Image:
        ratio = self._stream.sample_aspect_ratio
        width = max(1, round(frame.width * float(ratio))) if ratio and 0.25 <= ratio <= 4 else frame.width
        plain = self._reformatter.reformat(
            frame, width=width, height=frame.height, format="rgb24", interpolation="BILINEAR"
        )
        picture = plain.to_ndarray()  # (height, width, 3) uint8
        turns, mirrored = self._orientation(frame)
        if mirrored:
            picture = picture[:, ::-1]
        return Image.fromarray(np.ascontiguousarray(np.rot90(picture, turns)))

    def _orientation(self, frame: Any) -> tuple[int, bool]:
        if frame.rotation not in self._orientations:
            self._orientations[frame.rotation] = orientation(frame)
        return self._orientations[frame.rotation]


def orientation(frame: Any) -> tuple[int, bool]:
    """(quarter turns counter-clockwise, mirrored left to right before turning) from the frame's display matrix."""
    # A frame and its `side_data` know each other, so that only a garbage collection would free its picture. A small copy has
    # the same side data.
    data = frame.reformat(width=THUMBNAIL, height=THUMBNAIL, interpolation="POINT").side_data.get("DISPLAYMATRIX")
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


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise ImportError("Reading and writing video needs PyAV: pip install av") from None
    return av


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _is_video(stream: Any) -> bool:
    """No cover art, no text drawn as pictures, a known codec and a size."""
    context = stream.codec_context
    if context is None or context.name in TEXT_CODECS or not context.width:
        return False
    return not stream.disposition & _import_av().stream.Disposition.attached_pic


def _duration(container: Any, stream: Any) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / _import_av().time_base if container.duration else None


def _file(source: Any, name: str) -> str | BinaryIO:
    """What PyAV is to open: a `file:` address (never another protocol) or a seekable binary file object."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _filled(io.BytesIO(source), name)
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        target = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # deleted when closed or collected
        fetch(source, name, target, MAX_DOWNLOAD_BYTES, MAX_DOWNLOAD_SECONDS)
        return _filled(target, name)
    if isinstance(source, (str, os.PathLike)):
        return _path(Path(os.fsdecode(source)), name)
    if not source.seekable():
        target = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)
        while block := source.read(1 << 20):
            if isinstance(block, str):
                raise ValueError(f"`inputs`: {name} is open as text: open it with mode 'rb'.")
            target.write(block)
            if target.tell() > MAX_DOWNLOAD_BYTES:
                raise ValueError(f"`inputs`: {name} holds more than {MAX_DOWNLOAD_BYTES} bytes: pass a file.")
        return _filled(target, name)
    return _filled(source, name)


def _filled(file: BinaryIO, name: str) -> BinaryIO:
    """The file object at its beginning."""
    file.seek(0)
    first = file.read(1)
    file.seek(0)
    if isinstance(first, str):
        raise ValueError(f"`inputs`: {name} is open as text: open it with mode 'rb'.")
    if not first:
        raise ValueError(f"`inputs`: {name} is empty.")
    return file


def _path(path: Path, name: str) -> str:
    try:
        if not path.exists():
            raise ValueError(f"`inputs`: {name} does not exist.")
        if not path.is_file():
            raise ValueError(f"`inputs`: {name} is no regular file: pass what it gives as bytes or as a file object.")
        with open(path, "rb") as file:
            _filled(file, name)
    except OSError as error:
        raise ValueError(f"`inputs`: {name} cannot be opened: {getattr(error, 'strerror', None) or error}.") from None
    return "file:" + os.path.abspath(path)

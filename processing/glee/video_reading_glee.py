"""Reads videos frame by frame, ahead in a thread: files and URLs through PyAV, arrays, folders, series of pictures."""

from __future__ import annotations

import gc
import io
import itertools
import math
import os
import re
import tempfile
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Generic, TypeVar
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image

from .image_reading_glee import (
    PICTURE_LIMITS,
    VIDEO_ENDINGS,
    PictureLimits,
    TooLargeError,
    count_pictures,
    fetch,
    is_animation,
    is_video,
    open_picture,
    read_images,
    source_name,
)

Item = TypeVar("Item")
Warn = Callable[[str], None]

FRAME_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
SAME_SHAPE = 0.02  # largest change of the aspect ratio where a video changes its resolution

MAX_DOWNLOAD_BYTES = 4 << 30  # a larger video is refused
MAX_DOWNLOAD_SECONDS = 3600.0  # and so is one whose download takes longer
IN_MEMORY = 64 << 20  # bytes of a download; a larger one goes to a temporary file
TEXT_CODECS = ("ansi", "bintext", "xbin", "idf")  # ffmpeg "plays" text files as pictures of text

FRAME_LIMITS = PictureLimits(max_pixels=36_000_000)  # several frames are in memory; 8192 x 4320 has 35.4 million
SPARE = 1 << 20  # pixels that a decoder may allocate beyond twice that, for its margins
MAX_PAUSE = 86_400.0  # seconds: a longer step between two times is a broken clock, not a pause
BEGINNING = 16  # bytes by which a video file is recognised

# Containers that hold what they show, by ffmpeg's names. Playlists, scripts and patterns of names, which make it open
# other files, are none of them.
CONTAINERS = (
    "apng,asf,av1,avi,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,live_flv,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,"
    "mxf,nsv,nut,obu,ogg,rm,swf,vc1,vvc,wtv,yuv4mpegpipe,"
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,au,caf,dts,eac3,flac,gsm,ircam,latm,loas,mp3,nistsphere,qcp,sox,truehd,tta,voc,"
    "w64,wav,wv"
)


# ------------------------------------------------------------------------------------------------- frames and pictures


@dataclass(frozen=True)
class VideoFrame:
    """
    One frame.

    Attributes:
        index: its place among the frames that could be decoded, from 0.
        time: seconds after the first frame; None where the frame rate is unknown.
        image: RGB, upright, with square pixels.
    """

    index: int
    time: float | None
    image: Image.Image


class PictureVideo:
    """
    Pictures as frames of a video, each read once, when its frame is needed.

    Args:
        pictures: of any kind that `read_images` takes.
        name: name used in error messages.
        fps: frames per second, if known.
        frames: number of pictures, if known.
        names: names of the pictures in error messages, such as their files; by default their numbers.
        limits: how large the pictures of files may be.
    """

    def __init__(
        self,
        pictures: Iterable[Any],
        name: str,
        fps: float | None = None,
        frames: int | None = None,
        names: list[str] | None = None,
        limits: PictureLimits = PICTURE_LIMITS,
    ):
        self.name, self.fps, self.frames, self.names = name, fps, frames, names
        self._pictures, self._limits = pictures, limits

    @classmethod
    def of_folder(
        cls,
        folder: Path,
        name: str,
        fps: float | None = None,
        numbered: bool = True,
        limits: PictureLimits = PICTURE_LIMITS,
    ) -> PictureVideo:
        """
        Takes the numbered pictures of a folder in the order of their numbers; other files are ignored.

        Args:
            folder: with the pictures.
            name: name used in error messages.
            fps: frames per second, if known.
            numbered: whether each must have a number of its own.
            limits: how large the pictures may be.

        Raises:
            ValueError: there are none, one has no number, or two have the same.
        """
        files = [path for path in folder.iterdir() if path.suffix.lower() in FRAME_ENDINGS and path.name[0] != "."]
        if not files:
            raise ValueError(f"`inputs`: {name} is a folder without pictures ({', '.join(FRAME_ENDINGS)}).")
        keyed = sorted((_numbers(path.stem), path) for path in files)
        for key, path in keyed if numbered else ():
            if len(key) == 1:
                raise ValueError(f"`inputs`: {name}: {path.name!r} has no number that says which frame it is.")
        for (key, path), (other, twin) in itertools.pairwise(keyed):
            if key == other and numbered:
                raise ValueError(f"`inputs`: {name}: {path.name!r} and {twin.name!r} have the same number.")
        ordered = [os.fspath(path) for _, path in keyed]
        return cls(ordered, name, fps, len(ordered), ordered, limits)

    @property
    def duration(self) -> float | None:
        """Returns the length in seconds, if known."""
        return None if self.fps is None or self.frames is None else self.frames / self.fps

    def read(self, warn: Warn) -> Iterator[VideoFrame]:
        """
        Yields the frames.

        Args:
            warn: not used: a fault of a picture is an error.

        Raises:
            ValueError: a picture is damaged, or is no picture; the message says which.
        """
        for index, picture in enumerate(self._pictures):
            try:
                image = read_images(picture, limits=self._limits)[0]
            except ValueError as error:
                place = self.names[index] if self.names else f"{self.name}, frame {index}"
                what = str(error).removeprefix("images: item 0 ").removeprefix("images ")
                raise ValueError(f"`inputs`: {place} {what}") from None
            yield VideoFrame(index, None if self.fps is None else index / self.fps, image)


def _numbers(stem: str) -> tuple[Any, ...]:
    """Splits a name into texts and numbers, so that frame 10 sorts after frame 9."""
    parts = re.split(r"(\d+)", stem)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


class AnimatedVideo:
    """
    The pictures of an animated GIF, WebP, PNG or AVIF, or the pages of a TIFF, as frames of a video.

    Args:
        source: path, bytes of a file, or seekable binary file object.
        name: name used in error messages.
        limits: how large the pictures may be.

    Attributes:
        fps: frames per second, by the first picture's duration; None where the file doesn't say.
        frames: number of pictures.
        duration: in seconds, if all pictures last as long as the first; None where the file doesn't say.

    Raises:
        ValueError: it cannot be read.
    """

    names: list[str] | None = None  # of the frames, where they are files

    def __init__(self, source: Any, name: str, limits: PictureLimits = FRAME_LIMITS):
        self.name, self._limits = name, limits
        file = source if hasattr(source, "read") else None
        self._file = file or (
            io.BytesIO(source) if isinstance(source, (bytes, bytearray, memoryview)) else os.fspath(source)
        )
        try:
            with open_picture(self._file, limits) as image:
                self.frames = count_pictures(image)
                image.load()  # the durations of a WebP are known after that only
                lasts = float(image.info.get("duration") or 0) / 1000
        except TooLargeError as error:
            raise ValueError(f"`inputs`: {name} {error}.") from None
        except Exception as error:  # decoders raise many kinds
            raise ValueError(f"`inputs`: {name} cannot be read ({_reason(error)}).") from None
        self.fps = 1 / lasts if lasts else None
        self.duration = lasts * self.frames if lasts else None

    def read(self, warn: Warn) -> Iterator[VideoFrame]:
        """
        Yields the frames.

        Args:
            warn: not used: a fault of a picture is an error.

        Raises:
            ValueError: a picture is damaged; the message says which.
        """
        time = 0.0
        if not isinstance(self._file, str):
            self._file.seek(0)
        with open_picture(self._file, self._limits) as image:
            for index in range(self.frames):
                try:
                    image.seek(index)
                    (picture,) = read_images(image)
                except Exception as error:  # decoders raise many kinds
                    raise ValueError(
                        f"`inputs`: {self.name}: picture {index} cannot be read ({_reason(error)})."
                    ) from None
                yield VideoFrame(index, None if self.fps is None else time, picture)
                time += float(image.info.get("duration") or 0) / 1000


def of_one_size(frames: Iterator[VideoFrame], name: str, warn: Warn) -> Iterator[VideoFrame]:
    """
    Yields the frames, all resized to the size of the first: streams may change their resolution.

    Args:
        frames: of a video.
        name: name used in error messages.
        warn: called with a sentence where the resolution changes first.

    Raises:
        ValueError: a frame has another shape than the first, so that it would be distorted.
    """
    size, warned = None, False
    for frame in frames:
        image = frame.image
        if size is None:
            size = image.size
        elif image.size != size:
            ratio = image.width * size[1] / (image.height * size[0])
            if not 1 - SAME_SHAPE <= ratio <= 1 + SAME_SHAPE:
                raise ValueError(
                    f"`inputs`: {name}: frame {frame.index} is {image.width} x {image.height} pixels, the first was "
                    f"{size[0]} x {size[1]}: a video must have one shape; split it there."
                )
            if not warned:
                warned = True
                warn(
                    f"frames are {image.width} x {image.height} pixels from frame {frame.index} on; "
                    f"they are resized to the first one's {size[0]} x {size[1]}"
                )
            frame = replace(frame, image=image.resize(size, Image.Resampling.BILINEAR))
        yield frame


# --------------------------------------------------------------------------------------------------------------- files


class MediaVideo:
    """
    The frames of a video file, each decoded once, upright, with its time; damaged ones are skipped with a warning.

    Files are opened as files only, and only in containers that hold what they show: neither a name that looks like
    another protocol nor a playlist makes ffmpeg open anything else.

    Args:
        source: path, http(s) URL, bytes of a file, or binary file object.
        name: name used in error messages.
        limits: how large the frames may be, upright and with square pixels; checked on each, as streams may change
            their size.

    Attributes:
        fps: mean number of frames per second; None where the file doesn't say.
        frames: number of frames; None where the file doesn't say.
        duration: in seconds; None where the file doesn't say.

    Raises:
        ValueError: there is no such file, it cannot be read, its frames are too large, or it has no video stream.
    """

    names: list[str] | None = None  # of the frames, where they are files

    def __init__(self, source: Any, name: str, limits: PictureLimits = FRAME_LIMITS):
        self.name, self._limits = name, limits
        av = _import_av()
        file, options = _file(source, name), _open_options(limits)
        try:
            self._container = av.open(file, mode="r", options=options, metadata_errors="replace")
        except av.error.ArgumentError:  # the whitelist's
            mend = "convert it to mp4 or mkv; of a playlist, pass the files that it names"
            raise ValueError(f"`inputs`: {name} cannot be read as a video in its container: {mend}.") from None
        except (av.error.FFmpegError, OSError, ValueError, UnicodeError) as error:
            raise ValueError(f"`inputs`: {name} cannot be read as a video ({_reason(error)}).") from None
        streams = [stream for stream in self._container.streams.video if _has_pictures(stream)]
        if not streams:
            unsized = any(getattr(each.codec_context, "width", 1) == 0 for each in self._container.streams.video)
            why = f": its pictures are damaged, or far beyond `max_pixels` ({limits.max_pixels})" if unsized else ""
            self._container.close()
            raise ValueError(f"`inputs`: {name} has no video stream{why}.")
        stream = self._stream = streams[0]
        context = stream.codec_context
        context.options = {**context.options, "max_pixels": options["max_pixels"]}
        try:
            self._check(context.width, context.height)
        except ValueError:
            self._container.close()
            raise
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else None
        self.frames = stream.frames or None
        self.duration = _duration(self._container, stream)

    def read(self, warn: Warn) -> Iterator[VideoFrame]:
        """Yields the frames; the file is closed after the last one."""
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

    def _check(self, width: int, height: int) -> None:
        """Raises ValueError for a frame that is too large, as it is stored or with square pixels."""
        try:
            self._limits.check(max(width, _square_pixel_width(width, self._stream)), height)
        except TooLargeError as error:
            raise ValueError(f"`inputs`: a frame of {self.name} {error}.") from None

    def _frames(self, warn: Warn) -> Iterator[Any]:
        """Yields decoded frames up to the end, or to where the file is cut short."""
        av, damaged = _import_av(), 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError) as error:
                warn(f"the file is cut short ({_reason(error)}): only the frames before that were read")
                break
            try:
                decoded = self._stream.decode(packet)
            except (av.error.FFmpegError, ValueError) as error:
                # A decoder that refuses to make room for a picture takes back the size.
                if isinstance(error, MemoryError) or not self._stream.codec_context.width:
                    reason = f"damaged, or much larger than `max_pixels` ({self._limits.max_pixels}) allows"
                    raise ValueError(
                        f"`inputs`: frames of {self.name} are {reason}: make them smaller, or pass a larger one."
                    ) from None
                damaged += 1
                continue
            for frame in decoded:
                self._check(frame.width, frame.height)
                damaged += frame.is_corrupt
                yield frame
        if damaged:
            warn(f"{damaged} frames are damaged; those that could not be decoded were left out")


class _Clock:
    """Computes the times of frames in seconds after the first one; they always increase."""

    def __init__(self, stream: Any, fps: float | None):
        self._base, self._step = stream.time_base, 1 / (fps or 25.0)
        self._first: float | None = None
        self._last = -math.inf

    def time_of(self, frame: Any) -> float:
        """Returns a frame's time; one without a time, or with an earlier one, follows the frame before by the usual
        interval."""
        # In the stream's time base: frames that come out of the decoder late have none of their own.
        stamp = None if frame.pts is None or self._base is None else float(frame.pts * self._base)
        if self._first is None:
            self._first, self._last = stamp or 0.0, 0.0
            return 0.0
        time = math.inf if stamp is None else stamp - self._first
        self._last = time if self._last < time < self._last + MAX_PAUSE else self._last + self._step
        return self._last


class _Pictures:
    """Converts decoded frames to pictures as they should be displayed: rotated, mirrored, with square pixels."""

    def __init__(self, stream: Any):
        self._stream = stream
        self._reformatter = _import_av().video.reformatter.VideoReformatter()  # reuses its tables
        self._orientations: dict[int, tuple[int, bool]] = {}  # of frames with one rotation

    def upright(self, frame: Any) -> Image.Image:
        """Converts one frame."""
        width = _square_pixel_width(frame.width, self._stream)
        plain = self._reformatter.reformat(
            frame, width=width, height=frame.height, format="rgb24", interpolation="BILINEAR"
        )
        picture = plain.to_ndarray()  # (height, width, 3) uint8
        if frame.rotation not in self._orientations:
            self._orientations[frame.rotation] = orientation(frame)
        turns, mirrored = self._orientations[frame.rotation]
        if mirrored:
            picture = picture[:, ::-1]
        return Image.fromarray(np.ascontiguousarray(np.rot90(picture, turns)))


def _square_pixel_width(width: int, stream: Any) -> int:
    """Returns the width with square pixels of a picture of this stored width."""
    ratio = stream.sample_aspect_ratio
    return max(1, round(width * float(ratio))) if ratio and 0.25 <= ratio <= 4 else width


def orientation(frame: Any) -> tuple[int, bool]:
    """
    Reads `(quarter turns counter-clockwise, mirrored left to right before turning)` from the frame's display matrix.

    A frame and its `side_data` refer to each other, so that only a garbage collection would free the picture. A small
    copy has the same side data, and is so new that the cheapest collection frees it.
    """
    small = frame.reformat(width=16, height=16, interpolation="POINT")
    data = small.side_data.get("DISPLAYMATRIX")
    matrix = None if data is None else np.frombuffer(bytes(data), dtype=np.int32)[:5].astype(np.int64)
    del small, data
    gc.collect(0)
    if matrix is None:
        return 0, False
    a, b, _, c, d = matrix
    mirrored = bool(a * d - b * c < 0)
    if mirrored:
        a, b = -a, -b
    if a == 0 and b == 0:
        return 0, False
    # The matrix takes (x, y), y downwards, to (a x + c y, b x + d y): its first row is where the x axis goes.
    return round(-math.degrees(math.atan2(float(b), float(a))) / 90.0) % 4, mirrored


def _open_options(limits: PictureLimits) -> dict[str, str]:
    """Returns ffmpeg's options: no other file, no network, and no memory for frames of more than twice the limit."""
    return {
        "protocol_whitelist": "file",
        "format_whitelist": CONTAINERS,
        "max_pixels": str(2 * limits.max_pixels + SPARE),
    }


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise ImportError("Reading and writing video needs PyAV: pip install av") from None
    return av


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _has_pictures(stream: Any) -> bool:
    """Returns whether a stream is a video: no cover art, no text drawn as pictures, of a known codec and size."""
    context = stream.codec_context
    if context is None or context.name in TEXT_CODECS or not context.width:
        return False
    return not stream.disposition & _import_av().stream.Disposition.attached_pic


def _duration(container: Any, stream: Any) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / _import_av().time_base if container.duration else None


def _file(source: Any, name: str) -> str | IO[bytes]:
    """Returns what PyAV opens: a `file:` address (never another protocol) or a seekable binary file object."""
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


def _filled(file: IO[bytes], name: str) -> IO[bytes]:
    """Rewinds a file object; raises ValueError if it is empty or open as text."""
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
            raise ValueError(f"`inputs`: {name} is no regular file: pass its content as bytes, or as a file object.")
        with open(path, "rb") as file:
            _filled(file, name)
    except OSError as error:
        raise ValueError(f"`inputs`: {name} cannot be opened: {getattr(error, 'strerror', None) or error}.") from None
    return "file:" + os.path.abspath(path)


# ----------------------------------------------------------------------------------------------------- opening a video


Video = MediaVideo | PictureVideo | AnimatedVideo


def is_video_source(inputs: Any) -> bool:
    """
    Returns whether inputs of the pipeline are one video rather than images.

    A video is `{"video": …}`; a path or URL with a video's file extension; a file, bytes, or a seekable file object
    that begins as a video does, or that holds several pictures, as animated GIFs and WebPs do; a folder; an array or
    tensor `(frames, …)` of four axes. Other inputs are images, including a list or a generator of pictures, which must
    be passed as `{"video": …}` to be a video.
    """
    if isinstance(inputs, Mapping):
        return "video" in inputs
    if isinstance(inputs, (np.ndarray, torch.Tensor)):
        return inputs.ndim == 4
    if isinstance(inputs, (bytes, bytearray, memoryview)):
        return is_video(bytes(inputs[:BEGINNING])) or is_animation(inputs)
    if isinstance(inputs, (str, os.PathLike)):
        return _is_video_path(os.fsdecode(inputs))
    if hasattr(inputs, "read") and hasattr(inputs, "seekable") and inputs.seekable():
        place = inputs.tell()
        beginning = inputs.read(BEGINNING)
        inputs.seek(place)
        return isinstance(beginning, bytes) and (is_video(beginning) or is_animation(inputs))
    return False


def _is_video_path(path: str) -> bool:
    if path.lower().startswith(("http://", "https://")):
        return Path(urlsplit(path).path).suffix.lower() in VIDEO_ENDINGS
    try:
        if os.path.isdir(path) or Path(path).suffix.lower() in VIDEO_ENDINGS:
            return True
        if not os.path.isfile(path):  # opening a pipe would consume its data
            return False
        with open(path, "rb") as file:
            return is_video(file.read(BEGINNING)) or is_animation(path)
    except (OSError, ValueError):  # the reader of the file reports the error
        return False


def open_video(
    source: Any, fps: float | None = None, numbered: bool = True, limits: PictureLimits = FRAME_LIMITS
) -> Video:
    """
    Opens a video.

    Args:
        source: path, http(s) URL, bytes, binary file object; folder of numbered pictures; array or tensor
            `(frames, height, width, 3)`; list, generator or data set of PIL images or arrays.
        fps: frames per second of a folder, an array or pictures; files have their own.
        numbered: whether the pictures of a folder must have numbers; else they are in the order of their names.
        limits: how large the frames of files may be.

    Raises:
        ValueError: it cannot be read, is no video, or has no frames.
    """
    name = source_name(source)
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < float("inf")):
        raise ValueError(f"`fps` must be a positive number, not {fps!r}.")
    if isinstance(source, (np.ndarray, torch.Tensor)):
        if source.ndim != 4 or not len(source):
            raise ValueError(f"`inputs`: {name} must be (frames, height, width, 3) with at least one frame.")
        return PictureVideo((source[index] for index in range(len(source))), name, fps, len(source))
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        return PictureVideo.of_folder(Path(os.fsdecode(source)), name, fps, numbered, limits)
    if isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(source, "read"):
        if fps is not None:
            raise ValueError(f"`fps` is for pictures without times; {name} is a file that has its own.")
        if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
            source = _file(source, name)
        return AnimatedVideo(source, name, limits) if is_animation(source) else MediaVideo(source, name, limits)
    if isinstance(source, Image.Image) or not (isinstance(source, Iterable) or hasattr(source, "__getitem__")):
        raise ValueError(
            f"`inputs`: {name} is no video: pass a path, a URL, bytes, a folder, "
            "an array (frames, height, width, 3), or pictures one after the other."
        )
    count = len(source) if isinstance(source, (list, tuple)) else None
    if count == 0:
        raise ValueError("`inputs`: the video has no frames.")
    return PictureVideo(source, "the video", fps, count, limits=limits)


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

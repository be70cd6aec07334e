"""Writing pictures as a video or an animated picture, each at its time, a frame at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Coding:
    """An encoder of FFmpeg's, the format of the pixels that it gets, what their sides are multiples of, and options of it
    and of the file."""

    codec: str
    pixels: str
    multiple: int = 1
    options: dict[str, str] = field(default_factory=dict)
    file_options: dict[str, str] = field(default_factory=dict)


H264 = Coding("libx264", "yuv420p", 2, {"crf": "20", "preset": "veryfast"})
ANIMATED_WEBP = Coding("libwebp_anim", "bgra", 1, {"quality": "60"}, {"loop": "0"})  # again and again
CODINGS = {".mp4": H264, ".m4v": H264, ".mov": H264, ".mkv": H264, ".webp": ANIMATED_WEBP}
ENDINGS = tuple(CODINGS)
CLOCK = 90_000  # ticks a second
FPS = 25.0  # of pictures whose rate nobody knows


class VideoWriter:
    """
    A video file (H.264) or an animated WebP that appears under its name when it is closed, with what came until then.

    An animated WebP is what web pages show as a picture. Its frames wait in memory, compressed, until it is closed: it is
    for seconds, not for hours.

    Args:
        path: its ending is one of `ENDINGS`; missing folders are made.
        size: (height, width) of the pictures in pixels; in H.264 odd ones are filled up by one pixel.
        fps: frames a second, for players and where pictures come without a time; None if unknown.

    Raises:
        ValueError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike, size: tuple[int, int], fps: float | None = None):
        try:
            import av
        except ImportError:
            raise ImportError("Writing video needs PyAV: pip install av") from None
        self.path, self._size, self._fps = Path(path), size, fps or FPS
        coding = CODINGS.get(self.path.suffix.lower())
        if coding is None:
            raise ValueError(f"{path}: the ending must be one of {', '.join(ENDINGS)}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")
        self._av, self._last = av, -1
        try:
            self._container: Any = av.open(str(self._partial), "w", options=coding.file_options)
        except (av.error.FFmpegError, OSError) as error:
            raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None
        rate = Fraction(self._fps).limit_denominator(1001)
        self._stream = self._container.add_stream(coding.codec, rate=rate, options=coding.options)
        self._filled = tuple(-side % coding.multiple for side in size)  # rows and columns that are added
        self._stream.height, self._stream.width = (side + more for side, more in zip(size, self._filled))
        self._stream.pix_fmt = coding.pixels
        self._stream.codec_context.time_base = Fraction(1, CLOCK)

    def add(self, index: int, time: float | None, picture: Image.Image | np.ndarray) -> None:
        """
        Writes one picture.

        Args:
            index: its number from 0; time: in seconds, None if unknown.
            picture: RGB of the size that was said.
        """
        pixels = np.asarray(picture)
        if pixels.shape != (*self._size, 3):
            raise ValueError(f"{self.path}: frame {index} is {pixels.shape}, not {(*self._size, 3)}")
        below, right = self._filled
        pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        self._last = max(self._last + 1, round((index / self._fps if time is None else time) * CLOCK))
        frame.pts, frame.time_base = self._last, Fraction(1, CLOCK)
        self._mux(frame)

    def _mux(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (self._av.error.FFmpegError, OSError) as error:
            raise ValueError(f"{self.path} cannot be written: {error.strerror or error}") from None

    def close(self) -> None:
        """Gives the file its name; without a picture there is no file."""
        if self._container is None:
            return
        if self._last < 0:
            self.discard()
            return
        self._mux(None)
        self._container.close()
        self._container = None
        os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Takes the file away."""
        if self._container is not None:
            self._container.close()
            self._container = None
        self._partial.unlink(missing_ok=True)

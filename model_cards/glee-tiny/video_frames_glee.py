"""The frames of a video, and videos that are pictures one after the other: arrays, lists, generators, folders."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from .image_reading_glee import read_images

Warn = Callable[[str], None]

FRAME_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
SAME_SHAPE = 0.02  # how much the ratio of the sides may change where a video changes its resolution


@dataclass(frozen=True)
class VideoFrame:
    """
    One frame.

    Attributes:
        index: its place among the frames that could be decoded, from 0.
        time: seconds after the first frame; None where nobody knows how fast the frames follow each other.
        image: RGB, upright, with square pixels.
    """

    index: int
    time: float | None
    image: Image.Image


class PictureVideo:
    """
    Pictures as frames of a video; each is read when it is its turn, once.

    Args:
        pictures: of any kind that `read_images` takes.
        name: how messages call the video.
        fps: frames a second, if known.
        frames: their number, if known.
        names: of each picture in messages, such as its file; by default they are counted.
    """

    def __init__(
        self,
        pictures: Iterable[Any],
        name: str,
        fps: float | None = None,
        frames: int | None = None,
        names: list[str] | None = None,
    ):
        self.name, self.fps, self.frames = name, fps, frames
        self._pictures, self._names = pictures, names

    @classmethod
    def of_folder(cls, folder: Path, name: str, fps: float | None = None) -> PictureVideo:
        """
        The numbered pictures of a folder in the order of their numbers, whatever else is in it.

        Raises:
            ValueError: there are none, one has no number, or two have the same.
        """
        files = [path for path in folder.iterdir() if path.suffix.lower() in FRAME_ENDINGS and path.name[0] != "."]
        if not files:
            raise ValueError(f"`inputs`: {name} is a folder without pictures ({', '.join(FRAME_ENDINGS)}).")
        keyed = sorted((_numbers(path.stem), path) for path in files)
        for (key, path), (other, twin) in zip(keyed, [*keyed[1:], (None, None)]):
            if len(key) == 1:
                raise ValueError(f"`inputs`: {name}: {path.name!r} has no number that says which frame it is.")
            if key == other:
                raise ValueError(f"`inputs`: {name}: {path.name!r} and {twin.name!r} have the same number.")
        ordered = [os.fspath(path) for _, path in keyed]
        return cls(ordered, name, fps, len(ordered), ordered)

    @property
    def duration(self) -> float | None:
        """Seconds, if known."""
        return None if self.fps is None or self.frames is None else self.frames / self.fps

    def read(self, warn: Warn) -> Iterator[VideoFrame]:
        """
        The frames, one at a time.

        Raises:
            ValueError: a picture is damaged, or none at all; it says which.
        """
        for index, picture in enumerate(self._pictures):
            try:
                image = read_images(picture)[0]
            except ValueError as error:
                place = self._names[index] if self._names else f"{self.name}, frame {index}"
                what = str(error).removeprefix("images: item 0 ").removeprefix("images ")
                raise ValueError(f"`inputs`: {place} {what}") from None
            yield VideoFrame(index, None if self.fps is None else index / self.fps, image)


def _numbers(stem: str) -> tuple[Any, ...]:
    """A name as texts and numbers in turn, so that frame 10 comes behind frame 9."""
    parts = re.split(r"(\d+)", stem)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def of_one_size(frames: Iterator[VideoFrame], name: str, warn: Warn) -> Iterator[VideoFrame]:
    """
    The same frames, all as large as the first: streams may change their resolution on the way.

    Raises:
        ValueError: a frame has another shape than the first, so that it would be distorted.
    """
    size, told = None, False
    for frame in frames:
        image = frame.image
        if size is None:
            size = image.size
        elif image.size != size:
            ratio = image.width * size[1] / (image.height * size[0])
            if not 1 - SAME_SHAPE <= ratio <= 1 + SAME_SHAPE:
                raise ValueError(
                    f"`inputs`: {name}: frame {frame.index} is {image.width} x {image.height} pixels, the first was "
                    f"{size[0]} x {size[1]}: a video has one shape; cut it there."
                )
            if not told:
                told = True
                warn(
                    f"frames are {image.width} x {image.height} pixels from frame {frame.index} on; they are resized to "
                    f"the first one's {size[0]} x {size[1]}"
                )
            frame = replace(frame, image=image.resize(size, Image.Resampling.BILINEAR))
        yield frame

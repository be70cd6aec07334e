"""Pictures of folders and animated files, looked at one by one; and files that came through pipes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image

from lookhear.processing.glee import read_image

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")


@dataclass(frozen=True)
class Still:
    """
    One picture of an animated file; as text `walk-3.gif`, the third one of `walk.gif`.

    Attributes:
        file: its path.
        place: its place, from 0.
    """

    file: Path
    place: int

    def __str__(self) -> str:
        return str(self.file.with_stem(f"{self.file.stem}-{self.place + 1}"))

    def read(self) -> Image.Image:
        """Reads the picture. Raises ValueError if it is damaged."""
        if self.place == 0:
            return read_image(self.file)
        try:
            with Image.open(self.file) as opened:
                opened.seek(self.place)
                return read_image(opened.convert("RGB"))
        except (OSError, EOFError, SyntaxError) as error:
            raise ValueError(f"{self.file}, picture {self.place + 1}, cannot be read: {error}") from None


@dataclass(frozen=True)
class PipedFile:
    """
    What came through a pipe.

    Attributes:
        name: in messages and results.
        content: a file that can be read more than once.
    """

    name: str
    content: IO[bytes]

    def __str__(self) -> str:
        return self.name


def as_stills(files: Sequence[str], moving: Sequence[str], frames: str) -> list[str | Still]:
    """
    Lists the pictures of folders and animated files.

    Args:
        files: all files, of which others stay as they are.
        moving: those that could be videos.
        frames: "each" or "first".

    Raises:
        ValueError: one is a video file, or a folder without pictures.
    """
    stills: list[str | Still] = []
    for file in files:
        path = Path(file)
        if file not in moving:
            stills.append(file)
        elif path.is_dir():
            found = sorted((entry for entry in path.iterdir() if _is_picture(entry)), key=_natural)
            if not found:
                raise ValueError(f"{file} is a folder without pictures ({', '.join(ENDINGS)})")
            for entry in found if frames == "each" else found[:1]:
                count = _count(entry)
                stills += [str(entry)] if count == 1 else _pictures(entry, count, frames)
        elif path.suffix.lower() in ENDINGS:
            stills += _pictures(path, _count(path), frames)
        else:
            raise ValueError(f"--frames {frames} is for folders and animated pictures, and {file} is a video")
    return stills


def _pictures(path: Path, count: int, frames: str) -> list[str | Still]:
    return [Still(path, place) for place in range(count if frames == "each" else 1)]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def _count(path: Path) -> int:
    """Counts the pictures of a file; 1 where it cannot be opened, which its reader reports."""
    if path.suffix.lower() in (".jpg", ".jpeg", ".bmp"):
        return 1
    try:
        with Image.open(path) as opened:
            return getattr(opened, "n_frames", 1)
    except (OSError, ValueError, SyntaxError):
        return 1


def _natural(path: Path) -> list[Any]:
    """Orders 9.png before 10.png."""
    return [int(part) if place % 2 else part.lower() for place, part in enumerate(re.split(r"(\d+)", path.name))]

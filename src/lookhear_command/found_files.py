"""The files that arguments of a command name: files, all in a folder, the standard input and other pipes."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from .shared_options import STANDARD_INPUT, result_name

CLIPS: tuple[str, ...]
CLIPS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".vob", ".wmv")
CLIPS += (".flv", ".3gp", ".ogv", ".mxf", ".asf")
SOUNDS = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".wma", ".amr", ".caf")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
MOST_PIPED = 4 << 30  # bytes of a pipe, as of a download


@dataclass(frozen=True)
class FoundFile:
    """
    A file to be read.

    Attributes:
        path: of the file, or a URL.
        name: of its results: where it lies in its folder, without its ending.
    """

    path: str
    name: str


def find_files(
    arguments: Sequence[str], endings: Sequence[str], recursive: bool, output: Path | None
) -> list[FoundFile] | None:
    """
    Finds the files that arguments name, in the order of their names.

    Args:
        arguments: files, URLs and folders.
        endings: of the files in folders that are meant; hidden ones never are.
        recursive: whether folders in folders are searched, too.
        output: where results go, which isn't searched.

    Returns:
        The files; None if no argument is a folder. Results of a folder are named as its files lie in it, those of
        several below the folders' own names; where two would have one name, each has its file's ending, too.

    Raises:
        ValueError: a folder holds no such file, or two results would have one name.
    """
    if not any(map(os.path.isdir, arguments)):
        return None
    found: list[tuple[str, str, str]] = []  # path, name without the file's ending, name with it
    for argument in arguments:
        if not os.path.isdir(argument):
            name = result_name(argument)
            found.append((argument, name, name))
            continue
        folder = Path(argument)
        files = sorted(_files(folder, endings, recursive, None if output is None else output.resolve()))
        if not files:
            deeper = "" if recursive else "; --recursive searches the folders in it"
            raise ValueError(f"{folder} holds no file that could be read ({', '.join(endings[:3])}, …){deeper}")
        above = Path(folder.resolve().name) if len(arguments) > 1 else Path()
        places = [above / file.relative_to(folder) for file in files]
        found += [(str(f), p.with_suffix("").as_posix(), p.as_posix()) for f, p in zip(files, places)]
    count = Counter(short for _, short, _ in found)
    named = [FoundFile(path, long if count[short] > 1 else short) for path, short, long in found]
    names = Counter(file.name for file in named)
    if twice := [name for name, times in names.items() if times > 1]:
        raise ValueError(f"two files would both be written to {twice[0]}; rename one")
    return named


def in_shard(files: Sequence[FoundFile], shard: tuple[int, int] | None) -> list[FoundFile]:
    """
    Returns the files that one of several jobs reads: every nth in the order of their names.

    Args:
        files: of all jobs; their names differ.
        shard: which job of how many, from 0 on; None for a single one, which reads all in the order given.
    """
    if shard is None:
        return list(files)
    index, count = shard
    return sorted(files, key=lambda file: file.name)[index::count]


def _files(folder: Path, endings: Sequence[str], recursive: bool, output: Path | None) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        inside = Path(place)
        folders[:] = [name for name in folders if name[0] != "." and (inside / name).resolve() != output]
        yield from (inside / name for name in names if name[0] != "." and Path(name).suffix.lower() in endings)
        if not recursive:
            return


def readable(path: str) -> str | IO[bytes]:
    """
    Returns what can be read more than once: a path or URL as it is, the content of a pipe as a temporary file.

    Args:
        path: of a file or pipe, a URL, or "-" for the standard input.

    Raises:
        ValueError: the standard input is a terminal, or a pipe holds more than 4 GiB.
    """
    if not is_pipe(path):
        return path
    if path != STANDARD_INPUT:
        with open(path, "rb") as pipe:
            return _stored(pipe, path)
    if sys.stdin.isatty():
        raise ValueError("-: the standard input is a terminal; send a file into it, such as - < clip.mp4")
    return _stored(sys.stdin.buffer, "standard input")


def is_pipe(path: str) -> bool:
    """Returns whether a path is the standard input or another pipe, whose content is another one each time."""
    if path == STANDARD_INPUT:
        return True
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _stored(pipe: IO[bytes], name: str) -> IO[bytes]:
    """Copies a pipe to a temporary file, which is deleted when it is closed; `name` is for messages."""
    file = cast(IO[bytes], tempfile.TemporaryFile())
    size = 0
    while block := pipe.read(1 << 20):
        size += len(block)
        if size > MOST_PIPED:
            file.close()
            raise ValueError(f"{name} holds more than 4 GiB: write it to a file and pass the path")
        file.write(block)
    file.seek(0)
    file.raw.name = name  # type: ignore[attr-defined]  # of a buffered file; else it is a number
    return file

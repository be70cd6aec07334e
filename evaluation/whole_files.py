"""Files and folders that appear whole or not at all, and the removal of what killed processes have left of them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

# Unfinished files and folders carry the number of the process that writes them: `.NAME.PROCESS.part`, with the file's
# ending behind it, as some writers choose the format by it.
UNFINISHED = re.compile(r"\..+\.(?P<process>\d+)\.(part(\.\w+)?|tmp|masks)")
# How the system, torch and safetensors say that a disk, a quota or a bound on files has no room left.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_TEXTS = ("No space left", "quota exceeded", "File too large", "PytorchStreamWriter failed", "unexpected pos")


class DiskFullError(OSError):
    """There is no space left for a file; nothing has its final name."""


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """
    Yields a temporary path with the same ending, and moves it to `path` at the end: no other process sees half a file.

    What processes that were killed have left of this file is removed.

    Args:
        path: of the file; missing folders are made.

    Raises:
        OSError: the file cannot be written; the message names `path`.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead(path)
        with full_disk_named(path):
            yield partial
        os.replace(partial, path)
    except DiskFullError:
        raise
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (partial, path, *path.parents):
            raise  # of another file
        raise OSError(f"{str(path)!r} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """
    Yields a new folder to fill, and moves it to `path` at the end; an error removes it.

    Args:
        path: of the folder, which does not exist yet or is empty; missing folders above it are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _unfinished(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with full_disk_named(path):
            yield partial
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def files_for(folder: str | Path) -> Iterator[Path]:
    """
    Yields a new folder to fill; its files are moved into `folder` one by one at the end, beside those that are there.

    No reader sees an incomplete file, and all users may read them; an error moves none.

    Args:
        folder: where the files belong, made if missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = _unfinished(folder / "export")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with full_disk_named(folder):
            yield partial
        move_files(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def full_disk_named(path: str | Path, after: str = "") -> Iterator[None]:
    """
    Turns each way in which libraries say that a disk is full into one error.

    Args:
        path: that is being written.
        after: what repeating the command does, for the message.

    Raises:
        DiskFullError: the disk is full.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in FULL
        if not full and not any(text in str(error) for text in FULL_TEXTS):
            raise
        raise DiskFullError(
            f"{path} cannot be written: the disk is full; free some space and repeat the command{after}"
        ) from None


def move_files(partial: Path, folder: Path) -> None:
    """
    Moves whole files into a folder one by one, so that no reader sees an incomplete one; all users may read them.

    Args:
        partial: a folder on the same disk that holds them, in folders of its own if need be.
        folder: where other files stay.
    """
    for file in sorted(path for path in partial.rglob("*") if path.is_file()):
        place = folder / file.relative_to(partial)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(0o644)
        os.replace(file, place)


def write_text(path: str | Path, text: str) -> Path:
    """Writes a text file whole; returns its path."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(path)


def remove_leftovers(*folders: str | Path | None) -> None:
    """
    Removes the unfinished files and folders of processes that no longer run.

    Args:
        folders: that are searched, not those in them; None and folders that do not exist are passed over.
    """
    for folder in {Path(folder) for folder in folders if folder is not None}:
        if folder.is_dir():
            _remove_unfinished(folder, UNFINISHED)


def check_writable(path: str | Path, name: str) -> None:
    """
    Checks that a file can be written, before the work whose result it is to hold.

    Args:
        path: of the file; missing folders above it would be made.
        name: of the argument that the path is from, such as "--json".

    Raises:
        ValueError: it is a folder, or its folder cannot be made or written to.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{name} {path} is a folder: name a file")
    check_folder(path.parent, name)
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{name} {path} cannot be written: it is write-protected; name another file")


def check_folder(folder: str | Path, name: str) -> None:
    """
    Checks that files can be written into a folder, which need not exist yet.

    Args:
        folder: where results go.
        name: of the argument that it is from, such as "--output".

    Raises:
        ValueError: it is a file, or cannot be made or written to.
    """
    place = Path(os.path.abspath(folder))
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"{name} {folder} cannot be written: {place} is not a folder; name another one")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{name} {folder} cannot be written: {place} is write-protected; name another folder")


def _unfinished(path: Path) -> Path:
    """Returns this process's name for an unfinished folder; removes those of processes that have died."""
    _remove_dead(path)
    return path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")


def _remove_dead(path: Path) -> None:
    """Removes what processes that have died have left of a file or folder."""
    start, end = re.escape(f".{path.stem}."), re.escape(f".part{path.suffix}")
    _remove_unfinished(path.parent, re.compile(rf"{start}(?P<process>\d+){end}"))


def _remove_unfinished(folder: Path, names: re.Pattern) -> None:
    with os.scandir(folder) as entries:
        found = [(entry.path, match) for entry in entries if (match := names.fullmatch(entry.name))]
    for path, match in found:
        if not _runs(int(match["process"])):
            with contextlib.suppress(OSError):  # another process may be removing it
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def _runs(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True

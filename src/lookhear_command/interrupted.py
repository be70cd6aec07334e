"""What a command on many files has done when it is interrupted, so that the same command need not do it again."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .found_files import is_pipe

# Options that change no result, or say where it goes.
UNIMPORTANT = (
    *("run", "command", "output", "out", "json", "coco", "coco_vis", "mot", "progress", "overwrite", "device"),
    "num_workers",
)


class FilesDone:
    """
    The files that a command has read, in a record beside its results; of an earlier one with other options, files or
    checkpoint it knows nothing.

    Args:
        path: of the record.
        options: of the command.
        about: what else the results depend on.
    """

    def __init__(self, path: Path, options: argparse.Namespace, **about: Any):
        from lookhear.evaluation.protocols.stored_results import resumed_work

        self._open = partial(resumed_work, path, {**about, **what_counts(options, UNIMPORTANT)})
        if options.overwrite:
            path.unlink(missing_ok=True)
        self._stored = self._open() if path.exists() else None  # written at the first file: arguments may be wrong

    def __contains__(self, file: str) -> bool:
        """Whether a file was read as it is now, and its results are still there; of a pipe nobody knows."""
        if self._stored is None or is_pipe(file) or file not in self._stored:
            return False
        row = self._stored[file]
        return row["source"] == _state(file) and all(map(os.path.exists, row["written"]))

    def __getitem__(self, file: str) -> Any:
        """Returns what was recorded of a file, which must be there."""
        if self._stored is None:
            raise KeyError(file)
        return self._stored[file]

    def add(self, file: str, written: Sequence[Path] = (), /, **facts: Any) -> None:
        """
        Records that a file was read.

        Args:
            file: its name, as it was given.
            written: the files of its results.
            facts: plain values, returned when the file is asked for.
        """
        if self._stored is None:
            self._stored = self._open()
        self._stored.add(file, {"source": _state(file), "written": [str(path) for path in written], **facts})

    def remove(self) -> None:
        """Removes the record, once the command has ended."""
        if self._stored is not None:
            self._stored.remove()


def what_counts(options: argparse.Namespace, unimportant: Sequence[str]) -> dict[str, str]:
    """
    Describes the options that the results of a command depend on.

    Args:
        options: of the command; `model` is among them.
        unimportant: names of those that are left out.

    Returns:
        Name -> value, with a digest of the content of the files and the checkpoint that are named.
    """
    from lookhear.evaluation.fingerprints import with_content

    given = {name: value for name, value in vars(options).items() if name not in unimportant}
    texts = {name: with_content(str(value)) for name, value in given.items() if isinstance(value, (str, Path))}
    about = {name: texts.get(name, repr(value)) for name, value in given.items()}
    return about | {"model": with_content(os.path.join(str(options.model), ""))}


def _state(file: str) -> list[int] | None:
    """Returns size and time of a file; None for what is not one, such as a URL."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]

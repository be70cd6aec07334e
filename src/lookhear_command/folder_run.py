"""A command on whole folders: which results are there, which files could not be read, how far it is."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .found_files import FoundFile, is_pipe
from .interrupted import UNIMPORTANT, what_counts

# Options that change no result of a file, or only which there are.
PASSING = (*UNIMPORTANT, "files", "format", "recursive", "batch_size", "shard")
PROBLEMS = "problems"


class FolderRun:
    """
    The results of a command on folders. A file whose results are there is not read again, nor is one that could not
    be read and hasn't changed since; so a run that was stopped goes on. The jobs of `--shard` share the folder, on
    several machines, too: each lists its problems in a file of its own, and a run without shards joins these files.

    Args:
        options: of the command; `output` is the folder of the results.
        results: returns the paths of a file's results.

    Attributes:
        failed: how many files could not be read, in this run or before.

    Raises:
        ValueError: the folder has results of other options or of another checkpoint, and `overwrite` isn't given; or
            it is given to one of several jobs.
    """

    def __init__(self, options: argparse.Namespace, results: Callable[[FoundFile], Sequence[Path]]):
        if options.shard is not None and options.overwrite:
            raise ValueError(
                "--overwrite doesn't go with --shard, whose jobs share a folder: name another --output, or delete it"
            )
        self._command, self._output, self._overwrite = options.command, options.output, options.overwrite
        self._job = None if options.shard is None else "{}-of-{}".format(*options.shard)
        self._problems = self._output / (f"{PROBLEMS}.{self._job}.jsonl" if self._job else f"{PROBLEMS}.jsonl")
        self._results, self.failed = results, 0
        self._changed: set[str] = set()  # since they could not be read
        self._check_same(options)
        self._bad = self._known_problems()

    def pending(self, files: Sequence[FoundFile]) -> list[FoundFile]:
        """Returns the files that are still to be read; says how many are not."""
        from lookhear.evaluation.whole_files import remove_leftovers

        if self._job is None:
            remove_leftovers(*{path.parent for file in files for path in self._results(file)})
        else:  # nothing is removed, as other machines may be writing there
            print(f"lookhear {self._command}: files of job {self._job}: {len(files)}", file=sys.stderr)
        for path in (path for file in files if file.path in self._changed for path in self._results(file)):
            path.unlink(missing_ok=True)  # of what could be read before
        bad = [file for file in files if file.path in self._bad]
        there = [] if self._overwrite else [file for file in files if self._is_there(file)]
        self.failed = len(bad)
        if there:
            print(f"lookhear {self._command}: {len(there)} of {len(files)} results are there", file=sys.stderr)
        if bad:
            print(f"lookhear {self._command}: left out, see {self._problems}: {len(bad)}", file=sys.stderr)
        left_out = {file.path for file in [*bad, *there]}
        return [file for file in files if file.path not in left_out]

    def add_problem(self, file: str, message: str) -> None:
        """Lists a file that could not be read, or not to its end."""
        self.failed += 1
        row = {"file": file, "error": message, **_state(file)}
        self._output.mkdir(parents=True, exist_ok=True)
        with open(self._problems, "a", encoding="utf-8") as rows:
            rows.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _is_there(self, file: FoundFile) -> bool:
        return not is_pipe(file.path) and all(path.exists() for path in self._results(file))

    def _check_same(self, options: argparse.Namespace) -> None:
        """Compares the options with those of the results that are there, and notes them."""
        about = what_counts(options, PASSING)
        path = self._output / f".{self._command}.json"
        there = _read(path)
        before = about if self._overwrite or there is None else there
        if differ := sorted(name for name in {*about, *before} if about.get(name) != before.get(name)):
            names = ", ".join(f"--{name.replace('_', '-')}" for name in differ)
            raise ValueError(
                f"--output {self._output} has results of other options ({names}): --overwrite reads all files anew; "
                "or name another folder"
            )
        if there != about:
            self._output.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{self._command}.{self._job or 'all'}.new")  # jobs begin at the same time
            new.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(new, path)

    def _known_problems(self) -> set[str]:
        """Returns the files that could not be read, as they are now; this run's list has only these from here on."""
        from lookhear.evaluation.whole_files import write_text

        paths = [self._output / f"{PROBLEMS}.jsonl", *sorted(self._output.glob(f"{PROBLEMS}.*-of-*.jsonl"))]
        lists = {path: self._still_bad(path) for path in paths if path.is_file()}
        every = {file: row for rows in lists.values() for file, row in rows.items()}
        own = every if self._job is None else lists.get(self._problems, {})
        if own:
            write_text(self._problems, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own.values()))
        for path in lists:
            if (path == self._problems and not own) or (path != self._problems and self._job is None):
                path.unlink(missing_ok=True)
        return set(every)

    def _still_bad(self, path: Path) -> dict[str, dict[str, Any]]:
        """Returns those rows of a list of problems whose files haven't changed since; notes the others."""
        rows = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that a kill has torn
                row = json.loads(line)
                if is_pipe(row["file"]) or any(row[key] != value for key, value in _state(row["file"]).items()):
                    self._changed.add(row["file"])
                elif not self._overwrite:
                    rows[row["file"]] = row
        return rows


def _read(path: Path) -> dict[str, Any] | None:
    """Returns what a file of JSON holds; None if there is none, or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _state(file: str) -> dict[str, int | None]:
    """Returns size (bytes) and time of change (seconds since 1970) of a file; None for what is not one."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return {"size": None, "changed": None}
    return {"size": found.st_size, "changed": int(found.st_mtime)}


class FolderBar:
    """
    Shows how far a command is: share by bytes, files, how many times as fast as they play, time left.

    Args:
        files: paths of those that are to be read.
        shown: whether it is; None: on a terminal.
    """

    def __init__(self, files: Sequence[str], shown: bool | None):
        from tqdm.auto import tqdm

        self._sizes = {file: max(1, _state(file)["size"] or 0) for file in files}
        self._files, self._done, self._seconds, self._began = len(files), 0, 0.0, time.monotonic()
        hidden = not sys.stderr.isatty() if shown is None else not shown
        shape = "{percentage:3.0f}%|{bar}|{postfix} [{elapsed}<{remaining}]"
        self._bar = tqdm(total=sum(self._sizes.values()), bar_format=shape, file=sys.stderr, disable=hidden)

    def __enter__(self) -> FolderBar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def aside(self) -> AbstractContextManager[None]:
        """Takes the bar away while something else is printed."""
        from tqdm.auto import tqdm

        return tqdm.external_write_mode(file=sys.stdout)

    def add(self, file: str, seconds: float = 0.0) -> None:
        """
        Counts a file that is done.

        Args:
            file: its path.
            seconds: of the clip that were read.
        """
        self._done, self._seconds = self._done + 1, self._seconds + seconds
        self._bar.set_postfix_str(self.summary(), refresh=False)
        self._bar.update(self._sizes[file])

    def summary(self) -> str:
        """Returns what is done and how fast, in words."""
        passed = max(time.monotonic() - self._began, 1e-6)
        speed = f"{self._seconds / passed:.1f} times as fast as they play"
        return (
            f"{self._done} of {self._files} files, {speed if self._seconds else f'{self._done / passed:.1f} a second'}"
        )

"""Results saved on disk as they come: an interrupted run resumes, and memory does not grow with the data set."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lookhear.evaluation.whole_files import remove_leftovers, whole_file, write_text

logger = logging.getLogger(__name__)


class OtherRunError(ValueError):
    """A file holds the results of another run."""


class StoredResults:
    """
    A file of JSON lines: what the run is about, then `[key, value]` of each question that was answered.

    Args:
        path: of the file; an existing one is continued. Lines that a kill, a full disk or a crash of the machine has
            torn are dropped, and how many is logged.
        about: plain values that say what the run is (protocol, split, model, settings).

    Raises:
        OtherRunError: the file is of another run.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]):
        self.path = path
        self._places: dict[str, int] = {}  # key -> where its line begins
        head = (json.dumps({"about": dict(about)}, ensure_ascii=False) + "\n").encode()
        remove_leftovers(path.parent)
        if not path.exists():
            write_text(path, head.decode())
        if dropped := self._read(head):
            _rewrite(path, head, sorted(self._places.values()))
            self._places.clear()
            self._read(head)
            logger.warning("%s: damaged lines that were dropped: %d; what they held is computed again", path, dropped)

    def _read(self, head: bytes) -> int:
        """Finds the lines of the file; returns how many are damaged."""
        dropped = 0
        with self.path.open("rb") as file:
            first = file.readline()
            if first != head and _parsed(first, dict):
                raise OtherRunError(
                    f"{self.path} holds the results of another run ({first[:200].decode(errors='replace').strip()}); "
                    "choose another output folder, or remove it"
                )
            whole = first == head
            dropped += not whole
            place = file.tell()
            for line in file:
                row = _parsed(line, list)
                if whole and row and len(row) == 2 and isinstance(row[0], str):  # without the head, whose rows?
                    self._places[row[0]] = place
                else:
                    dropped += 1
                place += len(line)
        return dropped

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: str) -> Any:
        with self.path.open("rb") as file:
            file.seek(self._places[key])
            return json.loads(file.readline())[1]

    def values(self, keys: Sequence[str]) -> Iterator[Any]:
        """Reads the values of some keys one after the other."""
        with self.path.open("rb") as file:
            for key in keys:
                file.seek(self._places[key])
                yield json.loads(file.readline())[1]

    def add(self, key: str, value: Any) -> None:
        """Writes one value to the file."""
        line = json.dumps([key, value], ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self.path.open("ab") as file:
            place = file.tell()
            file.write(line)
        self._places[key] = place

    def remove(self) -> None:
        """Removes the file, once the results are elsewhere."""
        self.path.unlink(missing_ok=True)


def resumed_work(path: Path, about: Mapping[str, Any], anew: bool = False) -> StoredResults:
    """
    Opens the record of a command that was interrupted; begins one if there is none, or it is of another command.

    Args:
        path: of the record.
        about: what the command does, see [`StoredResults`].
        anew: whether a record that is there is removed in any case.
    """
    if anew:
        path.unlink(missing_ok=True)
    try:
        return StoredResults(path, about)
    except OtherRunError:
        path.unlink()
        return StoredResults(path, about)


def remove_stored(folder: Path) -> None:
    """Removes the results of earlier runs in a folder, and no other files."""
    for path in folder.glob("*.jsonl"):
        with path.open("rb") as file:
            stored = set(_parsed(file.readline(), dict) or ()) == {"about"}
        if stored:
            path.unlink()


def _parsed(line: bytes, kind: type) -> Any:
    """Parses a whole line that holds JSON of this kind; None if it is damaged or of another kind."""
    try:
        value = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, kind) else None


def _rewrite(path: Path, head: bytes, places: Sequence[int]) -> None:
    """Writes the lines at these places, and the head, in place of the whole file."""
    with whole_file(path) as partial, partial.open("wb") as target, path.open("rb") as source:
        target.write(head)
        for place in places:
            source.seek(place)
            target.write(source.readline())


class StoredRows(Sequence[Any]):
    """
    The values of some keys as a sequence that is read from the disk each time.

    Args:
        stored: where the values are.
        keys: of the values, in the order of the sequence.
        make: turns (place in the sequence, stored value) into an item; None returns stored values as they are.
    """

    def __init__(self, stored: StoredResults, keys: Sequence[str], make: Callable[[int, Any], Any] | None = None):
        self._stored, self._keys, self._make = stored, list(keys), make or (lambda place, value: value)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        return self._make(place, self._stored[self._keys[place]])

    def __iter__(self) -> Iterator[Any]:
        return (self._make(place, value) for place, value in enumerate(self._stored.values(self._keys)))

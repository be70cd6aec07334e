"""Results saved on disk as they come: an interrupted run resumes, and memory does not grow with the data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class StoredResults:
    """
    A file of JSON lines: what the run is about, then `[key, value]` of each question that was answered.

    Args:
        path: of the file; an existing one is continued. A line that was cut off is dropped.
        about: plain values that say what the run is (protocol, split, model, settings).

    Raises:
        ValueError: the file is of another run.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]):
        self.path = path
        self._places: dict[str, int] = {}  # key -> where its line begins
        head = json.dumps({"about": dict(about)}, ensure_ascii=False) + "\n"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(head, encoding="utf-8")
        with path.open("rb") as file:
            first = file.readline()
            if first != head.encode():
                raise ValueError(
                    f"{path} holds the results of another run ({first[:200].decode(errors='replace').strip()}); "
                    "choose another output folder, or remove it"
                )
            end = file.tell()
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._places[json.loads(line)[0]] = end
                end += len(line)
        with path.open("r+b") as file:
            file.truncate(end)

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

"""A folder of results in Parquet files that is also the record of what is done: a file that has its name is whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

logger = logging.getLogger(__name__)

RESULTS, PROBLEMS = "results", "problems"
ABOUT = ".lookhear.json"
UNFINISHED = ".part"  # ending of files that are being written
DAMAGED = ".damaged"
DIGEST = 16  # bytes
READERS = 16  # threads that look through files


def digest(name: str) -> bytes:
    """Returns a number of `DIGEST` bytes for an id: ten million take 160 MB, and no two of them are equal."""
    return hashlib.blake2b(name.encode(), digest_size=DIGEST).digest()


class ResultFolder:
    """
    Results of inputs that are known by their ids: `results/*.parquet`, and `problems/*.parquet` of those that could
    not be read.

    Files are written aside and renamed. One that cannot be read all the same, as it was damaged later, is put aside
    and its inputs are read again. One run at a time may write into a folder.

    Args:
        output: path that all machines see, or the URI of an object store, such as `s3://bucket/folder`.
    """

    def __init__(self, output: str | os.PathLike[str]):
        self.name = os.fspath(output)
        self._system: fs.FileSystem
        if "://" in self.name:
            try:
                self._system, self._path = fs.FileSystem.from_uri(self.name)
            except (pa.ArrowInvalid, ValueError) as error:
                raise ValueError(f"`output` {self.name} cannot be opened: {error}") from None
        else:
            self._system, self._path = fs.LocalFileSystem(), os.path.abspath(self.name)

    def claim(self, about: dict[str, Any]) -> None:
        """
        Notes what the results depend on, or compares it with what was noted.

        Args:
            about: values of JSON.

        Raises:
            ValueError: there are results of other settings, which are named; or the folder cannot be written to.
        """
        path = f"{self._path}/{ABOUT}"
        about = json.loads(json.dumps(about))
        try:
            for kind in (RESULTS, PROBLEMS):
                self._system.create_dir(f"{self._path}/{kind}", recursive=True)
            there = self._read_about(path)
            if there is None:
                self._put(path, json.dumps(about, indent=1).encode() + b"\n")
                there = about
        except OSError as error:
            raise ValueError(f"`output` {self.name} cannot be written: {error}; name another folder") from None
        if other := sorted(name for name in {*there, *about} if there.get(name) != about.get(name)):
            raise ValueError(
                f"`output` {self.name} has results of other settings ({', '.join(other)}): name another folder, or "
                "delete it"
            )

    def _read_about(self, path: str) -> dict[str, Any] | None:
        if self._system.get_file_info(path).type == fs.FileType.NotFound:
            return None
        with self._system.open_input_file(path) as file:
            return json.loads(file.read())

    def finished(self) -> np.ndarray:
        """
        Returns the digests of the ids that have results or problems, `(ids,)` in order; removes what a run that was
        killed has left.
        """
        found: list[np.ndarray] = []
        for kind in (RESULTS, PROBLEMS):
            files = self._files(kind)
            for path in files:
                if path.endswith(UNFINISHED):
                    with contextlib.suppress(OSError):  # another machine may have been quicker
                        self._system.delete_file(path)
            whole = [path for path in files if path.endswith(".parquet")]
            with ThreadPoolExecutor(READERS) as threads:
                found += [part for part in threads.map(self._digests, whole) if part is not None]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, f"S{DIGEST}")

    def _digests(self, path: str) -> np.ndarray | None:
        """Returns the digests of the ids in a file; a damaged one is put aside, and None returned."""
        try:
            with self._system.open_input_file(path) as file:
                ids = pq.ParquetFile(file).read(columns=["id"])["id"].to_pylist()
        except (pa.ArrowInvalid, OSError, KeyError) as error:
            folder, _, name = path.rpartition("/")
            logger.warning(f"{path} is damaged and put aside, its inputs are read again: {error}")
            self._system.move(path, f"{folder}/.{name}{DAMAGED}")
            return None
        return as_digests(ids)

    def counts(self) -> tuple[int, int]:
        """Returns how many results and problems there are."""
        counts = []
        for kind in (RESULTS, PROBLEMS):
            whole = [path for path in self._files(kind) if path.endswith(".parquet")]
            with ThreadPoolExecutor(READERS) as threads:
                counts.append(sum(threads.map(self._rows, whole)))
        return counts[0], counts[1]

    def _rows(self, path: str) -> int:
        with self._system.open_input_file(path) as file:
            return pq.ParquetFile(file).metadata.num_rows

    def _files(self, kind: str) -> list[str]:
        return sorted(info.path for info in self._system.get_file_info(fs.FileSelector(f"{self._path}/{kind}")))

    def write(self, table: pa.Table) -> pa.Table:
        """
        Writes a table of results, the column `error` of which says what could not be read.

        Args:
            table: with the columns `id` and `error`. The same table is written under the same names, so work that is
                done twice has one result.

        Returns:
            A table of one row: how many there were.
        """
        bad = pc.is_valid(table["error"])
        self._write(RESULTS, table.filter(pc.invert(bad)).drop_columns(["error"]))
        self._write(PROBLEMS, table.filter(bad).select(["id", "error"]))
        return pa.table({"rows": [table.num_rows]})

    def _write(self, kind: str, table: pa.Table) -> None:
        if not table.num_rows:
            return
        name = hashlib.blake2b("\n".join(sorted(table["id"].to_pylist())).encode(), digest_size=DIGEST).hexdigest()
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self._put(f"{self._path}/{kind}/{name}.parquet", sink.getvalue())

    def _put(self, path: str, content: bytes | pa.Buffer) -> None:
        """Writes a file aside, then renames it."""
        folder, _, name = path.rpartition("/")
        aside = f"{folder}/.{name}.{uuid.uuid4().hex}{UNFINISHED}"
        with self._system.open_output_stream(aside) as file:
            file.write(content)
        self._system.move(aside, path)


def as_digests(ids: Iterable[str]) -> np.ndarray:
    """Returns the digests of ids, `(ids,)`."""
    return np.array([digest(name) for name in ids], f"S{DIGEST}")

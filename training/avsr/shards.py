"""Folders of Parquet shards: claimed by the settings that they are made with, resumed where they were interrupted.

A shard is written under a temporary name, then renamed: one that exists is complete.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lookhear.evaluation.whole_files import whole_file, write_text

ROWS_PER_GROUP = 32  # rows that are compressed together: bounds the memory of writing and of streaming


@dataclass(frozen=True)
class ShardFolder:
    """
    A folder of computed rows.

    Attributes:
        folder: of the shards.
        name: of the shards.
        items: rows in all.
        per_shard: rows of a shard; the last one may have fewer.
    """

    folder: Path
    name: str
    items: int
    per_shard: int

    @property
    def shards(self) -> int:
        """Number of shards in all."""
        return math.ceil(self.items / self.per_shard)

    def path(self, number: int) -> Path:
        """Returns the file of a shard, counted from 0."""
        return self.folder / f"{self.name}-{number:05d}-of-{self.shards:05d}.parquet"

    def missing(self) -> list[int]:
        """Returns the numbers of the shards that do not exist yet."""
        return [number for number in range(self.shards) if not self.path(number).exists()]

    def items_of(self, number: int) -> range:
        """Returns the numbers of the rows in a shard."""
        return range(number * self.per_shard, min((number + 1) * self.per_shard, self.items))

    def write(
        self,
        schema: pa.Schema,
        rows: Callable[[range], Iterable[dict]],
        part: tuple[int, int] = (0, 1),
        done: Callable[[int], object] = lambda count: None,
    ) -> None:
        """
        Writes the missing shards of one process.

        Args:
            schema: of the rows.
            rows: computes rows from their numbers.
            part: number of the process, from 0, and number of processes.
            done: is called with the number of rows in each new shard.
        """
        index, parts = part
        for number in self.missing():
            if number % parts == index:
                write_rows(self.path(number), schema, rows(self.items_of(number)))
                done(len(self.items_of(number)))


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[dict]) -> None:
    """
    Streams rows into a Parquet file, which has its name only once it is complete.

    Args:
        path: of the file.
        schema: of the rows.
        rows: mappings from column to value.
    """
    group: list[dict] = []
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for row in rows:
            group.append(row)
            if len(group) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        writer.write_table(pa.Table.from_pylist(group, schema))


def claim_folder(
    path: Path, settings: dict[str, Any], name: str = "output folder", earlier: dict[str, Any] | None = None
) -> None:
    """
    Writes settings into a folder, or compares them with those that it was begun with.

    Args:
        path: JSON file of the settings, in the folder, which is created if missing.
        settings: values that JSON has.
        name: what the folder is called where the user sets it.
        earlier: values of settings that folders begun with an earlier version don't name.

    Raises:
        ValueError: the folder was begun with other ones, which are named.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_text(path, json.dumps(settings, indent=1) + "\n")
        return
    there = (earlier or {}) | json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(settings))
    other = [f"{name} {there.get(name)} there, {value} now" for name, value in now.items() if there.get(name) != value]
    if other:
        raise ValueError(
            f"{path.parent} was begun with other settings ({'; '.join(other)}); "
            f"choose another {name} or empty this one"
        )

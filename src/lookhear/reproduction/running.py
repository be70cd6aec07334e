"""Runs a table's stages in order. What is finished is not done again, what was interrupted goes on."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from lookhear.evaluation.tables import write_text
from lookhear.reproduction import actions
from lookhear.reproduction.definitions import Paper
from lookhear.reproduction.places import Places
from lookhear.reproduction.results import fill_table, plain, write_table
from lookhear.reproduction.stages import Stage, plan

FINISHED, BEGUN = "finished", "begun"


class Records:
    """
    The record of each stage in a folder, by name: whether it is finished, with which settings, and what it found.

    Args:
        folder: of the records, a JSON file each.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def read(self, name: str) -> dict[str, Any] | None:
        """Returns the record of a stage, or None."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Writes the record of a stage, whole."""
        write_text(self.folder / f"{name}.json", json.dumps(record, indent=2, allow_nan=False) + "\n")

    def check(self, name: str, key: str) -> dict[str, Any] | None:
        """
        Returns the record of a stage that was run with the same settings, or None.

        Args:
            name: of the stage.
            key: of its settings.

        Raises:
            ValueError: it was run with other settings.
        """
        record = self.read(name)
        if record is not None and record["key"] != key:
            raise ValueError(
                f"--out: stage {name} was {record['state']} with other settings, a recipe of another version, or on "
                "stages with other settings; name another folder, or take the same settings"
            )
        return record


def reproduce(
    name: str,
    paper: Paper,
    settings: list[str] | tuple[str, ...],
    places: Places,
    launcher: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[dict[str, Any], list[Path]]:
    """
    Makes a table: prepares, trains, measures, and writes it to `tables/` below the output folder.

    Args:
        name: of the table.
        paper: which has it.
        settings: `[STAGE:]section.field=value`: fields of recipes, and of the sections `prepare` and `measure`.
        places: where things are.
        launcher: configuration file of `accelerate launch` for the trainings; None: they run in this process.
        progress: called with (what, done, total) while something is measured.

    Returns:
        The filled table (see [`fill_table`]), and the files.

    Raises:
        ValueError: a source is missing, a setting or recipe cannot be used, or the output folder has results of other
            settings.
    """
    table = paper.tables[name]
    places.check(paper)
    stages = plan(paper, table, settings, places)
    records, keys = Records(places.output / "steps"), _keys(stages)
    finished: dict[str, dict[str, Any]] = {}
    for stage in stages:  # all of them, before anything is done
        record = records.check(stage.name, keys[stage.name])
        if record is not None and record["state"] == FINISHED:
            finished[stage.name] = record
    _check_sources([stage for stage in stages if stage.name not in finished], paper, places)
    filled: dict[str, Any] = {}
    files: list[Path] = []
    for number, stage in enumerate(stages, start=1):
        state = " (finished)" if stage.name in finished else ""
        print(f"[{number}/{len(stages)}] {stage.kind} {stage.name}{state}", file=sys.stderr, flush=True)
        if not state:
            with redirect_stdout(sys.stderr):  # trainings log to stdout, which is for the table
                finished[stage.name] = _run(stage, places, paper, records, keys[stage.name], launcher, progress)
        if stage.kind == "measure":  # trainings take days: what is known by now can be read
            filled = fill_table(name, paper, table, finished)
            files = write_table(filled, places.output / "tables", table)
    return filled, files


def _run(
    stage: Stage,
    places: Places,
    paper: Paper,
    records: Records,
    key: str,
    launcher: Path | None,
    progress: Callable[[str, int, int], None] | None,
) -> dict[str, Any]:
    """Runs a stage and returns its record."""
    records.write(stage.name, {"stage": stage.name, "kind": stage.kind, "state": BEGUN, "key": key})
    started = time.monotonic()
    figures: dict[str, Any] = {}
    if stage.kind == "prepare":
        actions.prepare(stage, places, paper)
    elif stage.kind == "train":
        if stage.given is None:
            actions.train(stage, places, paper, launcher)
    else:
        found = actions.measure(stage, places, paper, progress or (lambda what, done, total: None))
        finite = {name: ends for name, ends in found.intervals.items() if all(map(math.isfinite, ends))}
        figures = {"values": plain(found.values), "intervals": finite, "note": found.note}
    record: dict[str, Any] = {"stage": stage.name, "kind": stage.kind, "state": FINISHED, "key": key}
    record |= {"seconds": round(time.monotonic() - started, 1), "figures": figures}
    records.write(stage.name, record)
    return record


def _keys(stages: list[Stage]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for stage in stages:
        keys[stage.name] = stage.key([keys[name] for name in stage.needs])
    return keys


def _check_sources(stages: list[Stage], paper: Paper, places: Places) -> None:
    """Raises a ValueError that names every source that is missing."""
    names = dict.fromkeys(source for stage in stages for source in stage.sources)
    missing = [name for name in names if paper.sources[name].id is None and not places.source(name).exists()]
    if missing:
        listed = "; ".join(f"{name} ({paper.sources[name].what}) at {places.source(name)}" for name in missing)
        raise ValueError(f"--data: missing: {listed}. Put them there, or name another place: --data {missing[0]}=PATH")

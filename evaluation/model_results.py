"""What was measured with a checkpoint, in `results.json` beside it: the source of the card's tables and the Hub's
result files.

    python -m lookhear.evaluation.model_results model_cards/avsr-grid-tiny grid-noise --title "GRID s1, test split" \
        --task automatic-speech-recognition --metric "WER % (95 %)=wer" --metric "CER %=cer" \
        -- python benchmarks/avsr_grid_tiny.py --data GRID/s1/test

runs the command, takes the Markdown table that it prints, and writes it with the command, the date and the digest of
the weights. The card shows it between `<!-- measured: grid-noise -->` and `<!-- end of measured -->`. Results of other
weights are dropped: a card shows only what was measured with the weights beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from lookhear.evaluation.whole_files import write_text

FILE = "results.json"
BENCHMARKS = Path(__file__).parent / "dataset_cards"  # one folder a benchmark of the Hub, with its eval.yaml
BLOCK = re.compile(r"(<!-- measured: ([\w.-]+) -->\n).*?(<!-- end of measured -->)", re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
INTERVAL = re.compile(r"\((-?\d+(?:\.\d+)? to -?\d+(?:\.\d+)?)\)")


@dataclass(frozen=True)
class MeasuredTable:
    """
    One table as it was printed.

    Attributes:
        title: name of the data that was measured on, for people.
        task: the Hub's name of the task, such as "automatic-speech-recognition".
        command: what printed the table.
        date: of the measurement, as 2026-11-22.
        columns: headings.
        rows: cells as text. The columns before the first metric say what the row is about.
        metrics: heading of a column with values -> name of the metric, or heading of the column that names it.
        revision: commit of the benchmark's repository that was measured on; "" if it wasn't given.
    """

    title: str
    task: str
    command: str
    date: str
    columns: list[str]
    rows: list[list[str]]
    metrics: dict[str, str] = field(default_factory=dict)
    revision: str = ""

    def to_markdown(self) -> str:
        """Returns the table as a card shows it."""
        head, *lines = ("| " + " | ".join(cells) + " |\n" for cells in (self.columns, *self.rows))
        return head + "|" + "---|" * len(self.columns) + "\n" + "".join(lines)

    def settings(self, row: Sequence[str]) -> list[str]:
        """Returns what a row is about: its non-empty cells before the first metric, without the metric's name."""
        first = min(self.columns.index(name) for name in self.metrics)
        names = set(self.metrics.values())
        return [cell for column, cell in zip(self.columns[:first], row) if cell and column not in names]

    def notes(self, row: Sequence[str], column: str) -> str:
        """
        Returns a column's heading and, where the row's cell has one, the interval: "WER % (95 %), interval 3.3 to
        9.7".
        """
        interval = INTERVAL.search(row[self.columns.index(column)])
        return f"{column}, interval {interval[1]}" if interval else column

    def values(self, row: Sequence[str]) -> Iterator[tuple[str, str, float]]:
        """
        Yields (column, metric, value) for the row's columns with values; a cell "6.0 (3.3 to 9.7)" has the value 6.0.
        """
        cells = dict(zip(self.columns, row))
        for column, metric in self.metrics.items():
            if number := NUMBER.match(cells[column]):
                name = metric if metric == column else cells.get(metric, metric)
                yield column, re.sub(r"\s*\(.*\)", "", name), float(number[0])


def record_table(folder: str | Path, name: str, table: MeasuredTable) -> Path:
    """
    Puts a table into the folder's `results.json` and, where the card has a place for it, into the card.

    Args:
        folder: of a checkpoint.
        name: of the table; where a benchmark has that name, its rows have to be tasks of the benchmark.
        table: what was measured.

    Returns:
        The path of `results.json`.

    Raises:
        ValueError: a column or row is unusable, or the benchmark has no such task.
    """
    folder = Path(folder)
    if not table.metrics or (unknown := set(table.metrics) - set(table.columns)):
        wanted = ", ".join(sorted(unknown)) if table.metrics else "none"
        raise ValueError(f"metrics names {wanted}; the table's columns are {', '.join(table.columns)}")
    _check_tasks(name, table)
    digest, tables = weights_digest(folder), {}
    if (folder / FILE).is_file() and _read(folder)["weights"] == digest:
        tables = _read(folder)["tables"]
    results = {"weights": digest, "tables": tables | {name: asdict(table)}}
    written = write_text(folder / FILE, _pretty(results))
    if (folder / "README.md").is_file():
        text = (folder / "README.md").read_text(encoding="utf-8")
        write_text(folder / "README.md", fill_card(text, read_results(folder), strict=False))
    return written


def read_results(folder: str | Path) -> dict[str, MeasuredTable]:
    """
    Returns the tables of a checkpoint's `results.json`, {} where there is none.

    Raises:
        ValueError: they were measured with other weights than those in the folder.
    """
    folder = Path(folder)
    if not (folder / FILE).is_file():
        return {}
    results = _read(folder)
    if results["weights"] != weights_digest(folder):
        raise ValueError(
            f"{folder / FILE} was measured with other weights than those in the folder: measure these with "
            "python -m lookhear.evaluation.model_results"
        )
    return {name: MeasuredTable(**table) for name, table in results["tables"].items()}


def fill_card(text: str, tables: Mapping[str, MeasuredTable], strict: bool = True) -> str:
    """
    Returns a card with its measured tables filled in.

    Args:
        text: of the card.
        tables: what was measured, by name.
        strict: refuse a card with a place for a table that was not measured; else the place says so.

    Raises:
        ValueError: see strict.
    """

    def filled(found: re.Match) -> str:
        if found[2] in tables:
            return found[1] + tables[found[2]].to_markdown() + found[3]
        if strict:
            raise ValueError(f"the card shows {found[2]!r}, which {FILE} does not have: measure it, or take it out")
        return f"{found[1]}Not measured with these weights yet.\n{found[3]}"

    return BLOCK.sub(filled, text)


def model_index(model: str, tables: Mapping[str, MeasuredTable]) -> list[dict]:
    """Returns the card's `model-index`: every value that was measured, with what it is about."""
    results = [
        EvalResult(
            task_type=table.task,
            dataset_type=name,
            dataset_name=table.title,
            metric_type=metric,
            metric_value=value,
            metric_name=", ".join([metric, *table.settings(row)]),
        )
        for name, table in tables.items()
        for row in table.rows
        for _, metric, value in table.values(row)
    ]
    if not results:
        return []
    return ModelCardData(model_name=model, eval_results=results).to_dict()["model-index"]


def eval_result_files(tables: Mapping[str, MeasuredTable], organisation: str, source: str) -> dict[str, str]:
    """
    Returns the Hub's result files of the tables that are benchmarks.

    Args:
        organisation: where the benchmarks' datasets are on the Hub.
        source: address of what the results are taken from.

    Returns:
        `.eval_results/NAME.yaml` -> content: the first metric of each row, one task per row, with its interval.
    """
    files = {}
    for name, table in tables.items():
        if name not in benchmarks():
            continue
        entries = [
            EvalResultEntry(
                dataset_id=f"{organisation}/{name}",
                task_id=task_id(table.settings(row)),
                value=value,
                date=table.date,
                source_url=source,
                source_name=FILE,
                notes=table.notes(row, column),
                dataset_revision=table.revision or None,
            )
            for row in table.rows
            for column, _, value in list(table.values(row))[:1]
        ]
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        files[f".eval_results/{name}.yaml"] = text
    return files


def benchmarks() -> dict[str, list[str]]:
    """Returns the project's benchmarks: name -> ids of the tasks in its `eval.yaml`."""
    files = sorted(BENCHMARKS.glob("*/eval.yaml"))
    return {file.parent.name: [task["id"] for task in yaml.safe_load(file.read_text())["tasks"]] for file in files}


def task_id(settings: Sequence[str]) -> str:
    """Returns the benchmark's name of a condition: ("babble", "-5", "audio") is `babble_minus_5_audio`."""
    return "_".join(re.sub(r"\W+", "_", re.sub(r"^-(?=\d)", "minus_", cell)).strip("_").lower() for cell in settings)


def weights_digest(folder: str | Path) -> str:
    """Computes the SHA-256 of a checkpoint's weights: all its safetensors files in the order of their names."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"{folder} has no safetensors file; results belong to the weights that they were measured with"
        )
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_table(text: str) -> tuple[list[str], list[list[str]]]:
    """
    Returns (headings, rows) of the first Markdown table in a text.

    Raises:
        ValueError: there is none, or a row has another number of cells.
    """
    lines = [line.strip() for line in text.splitlines()]
    rules = [number for number, line in enumerate(lines) if number and re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line)]
    if not rules:
        raise ValueError("no Markdown table was printed")
    columns, rows = _cells(lines[rules[0] - 1]), []
    for line in lines[rules[0] + 1 :]:
        if not line.startswith("|"):
            break
        rows.append(_cells(line))
        if len(rows[-1]) != len(columns):
            raise ValueError(f"the table has {len(columns)} columns, but not the row {line}")
    if not rows:
        raise ValueError("the table that was printed has no rows")
    return columns, rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _read(folder: Path) -> dict:
    return json.loads((folder / FILE).read_text(encoding="utf-8"))


def _pretty(value: dict) -> str:
    """Formats JSON with each list of texts on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{re.sub(chr(10) + ' *', ' ', found[1])}]", text) + "\n"


def _check_tasks(name: str, table: MeasuredTable) -> None:
    tasks = benchmarks().get(name)
    found = [task_id(table.settings(row)) for row in table.rows]
    if tasks is not None and (unknown := [task for task in found if task not in tasks]):
        raise ValueError(f"{name} has no task {unknown[0]!r}; it has {', '.join(tasks)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and records the table that it prints."""
    parser = argparse.ArgumentParser(description="record what was measured of a checkpoint beside it")
    parser.add_argument("folder", type=Path, help="of the checkpoint")
    parser.add_argument("name", help="of the table: a benchmark's, or one of your own")
    parser.add_argument("--title", required=True, help="what is measured on")
    parser.add_argument("--task", required=True, help="the Hub's name of the task")
    parser.add_argument(
        "--metric",
        action="append",
        required=True,
        metavar="COLUMN=NAME",
        help="a column with values and its metric, or the column that names it; the first one is the benchmark's",
    )
    parser.add_argument(
        "--printed", type=Path, metavar="FILE", help="what the command has printed before; it is not run"
    )
    parser.add_argument(
        "--revision", default="", metavar="COMMIT", help="of the benchmark's repository on the Hub that is measured on"
    )
    parser.add_argument("--date", default=date.today().isoformat(), help="of the measurement (today)")
    parser.add_argument("command", nargs="+", help="what prints the table, after --")
    options = parser.parse_args(arguments)
    if options.revision and not COMMIT.fullmatch(options.revision):
        parser.error(f"--revision {options.revision} has to be a commit: 40 hexadecimal digits")
    if options.printed is not None:
        printed = options.printed.read_text(encoding="utf-8")
    else:
        done = subprocess.run(options.command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{shlex.join(options.command)} ended with {done.returncode}: nothing is recorded")
        printed = done.stdout
        print(printed, end="")
    columns, rows = read_table(printed)
    metrics = dict(pair.rpartition("=")[::2] for pair in options.metric)
    command = shlex.join(options.command)
    table = MeasuredTable(options.title, options.task, command, options.date, columns, rows, metrics, options.revision)
    print(record_table(options.folder, options.name, table), file=sys.stderr)


if __name__ == "__main__":
    main()

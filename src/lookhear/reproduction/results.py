"""A table beside the paper's figures: as Markdown, as JSON, and as a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lookhear.evaluation.tables import whole_file, write_text
from lookhear.reproduction.definitions import Paper, Row, Table
from lookhear.reproduction.stages import measure_stage

EMPTY = "–"
PUBLISHED = {"published": ["paper: {}"], "published_change": ["change", "paper: change"]}  # and their headings
Record = dict[str, Any]  # of a finished stage


def fill_table(name: str, paper: Paper, table: Table, records: dict[str, Record]) -> dict[str, Any]:
    """
    Fills a table with what was measured and what was published.

    Args:
        name: of the table.
        paper: which has it.
        table: to fill.
        records: of the stages that are finished, by name.

    Returns:
        Plain values: `rows`, each with its `cells` by column. A cell has `measured` and `interval`, `published`,
        `change` and `published_change` from the row before, all in per cent or points, and a `note`; what is not
        known is None.

    Raises:
        ValueError: a measurement has not the figure that a column is for.
    """
    rows: list[dict[str, Any]] = []
    for row in table.rows:
        cells = {}
        for heading in table.columns_of(row):
            cell = _cell(table, row, heading, records)
            before = rows[-1]["cells"].get(heading, {}).get("measured") if rows and heading in row.change else None
            if before is not None and cell["measured"] is not None:
                sign = 1 if table.columns[heading].better == "higher" else -1
                cell["change"] = sign * (cell["measured"] - before)
            cells[heading] = cell
        rows.append({"name": row.name, "model": row.model, "source": row.source, "cells": cells})
    about = {"table": name, "title": table.title, "source": table.source, "note": table.note}
    return about | {"paper": paper.title, "link": paper.link, "columns": list(table.columns), "rows": rows}


def _cell(table: Table, row: Row, heading: str, records: dict[str, Record]) -> dict[str, Any]:
    column = table.columns[heading]
    cell: dict[str, Any] = {"measured": None, "interval": None, "change": None, "note": ""}
    cell |= {"published": row.published.get(heading), "published_change": row.change.get(heading)}
    record = None if row.model is None else records.get(measure_stage(table, column.measure, row.model))
    if record is None:
        return cell
    values = record["figures"]["values"]
    cell["note"] = record["figures"]["note"]
    if column.figure in values:
        value, interval = values[column.figure], record["figures"]["intervals"].get(column.figure)
        cell["measured"] = None if value is None else 100 * value
        cell["interval"] = None if interval is None else [100 * end for end in interval]
    elif values:
        raise ValueError(f"column {heading!r}: the measurement has no {column.figure!r}; it has {', '.join(values)}")
    return cell


def to_markdown(filled: dict[str, Any]) -> str:
    """
    Formats a filled table.

    Args:
        filled: of [`fill_table`].

    Returns:
        Markdown: for each column what was measured, with its interval, and, as far as the paper states them, its
        figure and its change from the row before.
    """
    heads: list[str] = [""]
    columns: list[tuple[str, list[str]]] = []
    for heading in filled["columns"]:
        cells = [row["cells"].get(heading, {}) for row in filled["rows"]]
        shown = [name for name in PUBLISHED if any(cell.get(name) is not None for cell in cells)]
        heads += [heading, *(text.format(heading) for name in shown for text in PUBLISHED[name])]
        columns.append((heading, shown))
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in filled["rows"]:
        line = [row["name"]]
        for heading, shown in columns:
            cell = row["cells"].get(heading, {})
            line.append(_measured(cell))
            if "published" in shown:
                line.append(_number(cell.get("published")))
            if "published_change" in shown:
                line += [_signed(cell.get("change")), _signed(cell.get("published_change"))]
        lines.append(line)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    place = f", {filled['source']}" if filled["source"] else ""
    notes = [f"Paper: [{filled['paper']}]({filled['link']}){place}. In per cent.", filled["note"]]
    notes += [f"{row['name']}: {row['source']}." for row in filled["rows"] if row["source"]]
    said = {cell["note"]: None for row in filled["rows"] for cell in row["cells"].values() if cell["note"]}
    notes += [f"Measured: {'; '.join(said)}."] if said else []
    return f"## {filled['table']}: {filled['title']}\n\n{table}\n\n" + "\n".join(f"- {n}" for n in notes if n) + "\n"


def write_table(filled: dict[str, Any], folder: Path, table: Table) -> list[Path]:
    """
    Writes a filled table as Markdown, as JSON and, if it is a figure, as a picture; each whole or not at all.

    Args:
        filled: of [`fill_table`].
        folder: for the files.
        table: which was filled.

    Returns:
        The files.
    """
    name = filled["table"]
    files = [write_text(folder / f"{name}.md", to_markdown(filled))]
    text = json.dumps(filled, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    files.append(write_text(folder / f"{name}.json", text))
    lines = _lines(filled, table)
    if lines:
        try:
            files.append(_draw(filled, table, lines, folder / f"{name}.png"))
        except ImportError:
            pass  # the figures are in the table; a picture needs the extra `demo`
    return files


def _lines(filled: dict[str, Any], table: Table) -> dict[str, list[tuple[str, float]]]:
    """Returns the lines of a figure by their names: what was measured at each place, as far as it was."""
    lines: dict[str, list[tuple[str, float]]] = {}
    for row in filled["rows"] if table.picture else ():
        for heading, cell in row["cells"].items():
            name, place = (row["name"], heading) if table.picture == "rows" else (heading, row["name"])
            if cell["measured"] is not None:
                lines.setdefault(name, []).append((place, cell["measured"]))
    return lines


def _draw(filled: dict[str, Any], table: Table, lines: dict[str, list[tuple[str, float]]], path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = filled["columns"] if table.picture == "rows" else [row["name"] for row in filled["rows"]]
    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for name, points in lines.items():
        numbers, values = zip(*((places.index(place), value) for place, value in points), strict=True)
        panel.plot(numbers, values, marker="o", label=name)
    panel.set_xticks(range(len(places)), places)
    panel.set_ylabel("%")
    panel.grid(axis="y", color="#dddddd", linewidth=0.8)
    panel.legend(frameon=False)
    panel.set_title(filled["title"], fontsize=11)
    with whole_file(path) as partial:
        figure.savefig(partial)
    return path


def plain(values: dict[str, float]) -> dict[str, float | None]:
    """Returns figures as JSON has them: None for what is not a number."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _measured(cell: dict[str, Any]) -> str:
    if cell.get("interval") is None:
        return _number(cell.get("measured"))
    low, high = cell["interval"]
    return f"{_number(cell['measured'])} ({_number(low)} to {_number(high)})"


def _number(value: float | None) -> str:
    return EMPTY if value is None else f"{value:.1f}"


def _signed(value: float | None) -> str:
    return EMPTY if value is None else f"{round(value, 1) + 0:+.1f}"  # no minus before a zero

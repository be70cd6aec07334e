"""Results of `avsr_conditions` as a table in text, CSV, JSON, and as a picture."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("modality", "noise", "snr", "wer", "interval", "cer", "clips")
COLOURS = {"audio": "#2a78d6", "visual": "#e0803c", "audiovisual": "#1f8f5f"}


def format_table(rows: Sequence[dict]) -> str:
    """Formats rows (see `ConditionResult.to_dict`) in aligned columns, rates in per cent; RTFx if measured."""
    timed = any(row.get("rtfx") for row in rows)
    cells: list[tuple[str, ...]]
    cells = [("modality", "noise", "SNR dB", "WER %", "95 % interval", "CER %", "clips", *(["RTFx"] if timed else []))]
    for row in rows:
        low, high = row["interval"]
        interval = f"{_percent(low)} to {_percent(high)}"
        rates = (_percent(row["wer"]), interval, _percent(row["cer"]))
        speed = [f"{row['rtfx']:.1f}" if row.get("rtfx") else "-"] if timed else []
        cells.append((*_condition(row), *rates, str(row["clips"]), *speed))
    return _aligned(cells)


def format_word_times(rows: Sequence[dict]) -> str:
    """Formats errors of word starts, in milliseconds, for the rows that have such figures; "" if none has."""
    cells: list[tuple[str, ...]]
    cells = [("modality", "noise", "SNR dB", "word starts off by ms, median", "90 %", "words")]
    for row in rows:
        if row.get("words_timed"):
            figures = (f"{1000 * row[name]:.0f}" for name in ("word_start_median", "word_start_p90"))
            cells.append((*_condition(row), *figures, str(row["words_timed"])))
    return _aligned(cells) if len(cells) > 1 else ""


def _condition(row: dict) -> tuple[str, str, str]:
    noise = "-" if row["snr"] == "clean" else Path(row["noise"]).name
    if "noise_probability" in row:
        noise += f", {100 * row['noise_probability']:g} % of clips"
    return row["modality"], noise, str(row["snr"])


def _aligned(cells: list[tuple[str, ...]]) -> str:
    """
    Aligns a heading and lines in columns; a repeated line (clean speech, under every kind of noise) appears once.
    """
    cells = list(dict.fromkeys(cells))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in cells)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]) + "\n"


def to_json(rows: Sequence[dict], problems: Sequence[dict] = ()) -> str:
    """
    Formats `{"results": [row, ...]}`; a rate that does not exist (no reference words) is null.

    Args:
        rows: of the results.
        problems: `{"id", "problem"}` of clips that were left out; `"problems"` in the file if there are any.
    """
    plain = [{name: _finite(value) for name, value in row.items()} for row in rows]
    left_out = {"problems": list(problems)} if problems else {}
    return json.dumps({"results": plain, **left_out}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(rows: Sequence[dict]) -> str:
    """
    Formats one line per condition; the interval in two columns, rates as fractions; RTFx empty if it wasn't measured.
    `noise_probability` is a column where some condition disturbs only a share of the clips.
    """
    shared = ["noise_probability"] if any("noise_probability" in row for row in rows) else []
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["modality", "noise", "snr", "wer", "wer_low", "wer_high", "cer", "clips", "rtfx", *shared])
    for row in rows:
        rates = (*(row[name] for name in COLUMNS[:4]), *row["interval"], row["cer"])
        writer.writerow([*rates, row["clips"], row.get("rtfx", ""), *(row.get(name, "") for name in shared)])
    return buffer.getvalue()


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """
    Yields a temporary path with the same ending, and moves it to `path` at the end: no other process sees half a file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Writes a text file whole; returns its path."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(path)


def draw_results(rows: Sequence[dict], path: str | Path, title: str = "Word error rate") -> Path:
    """Draws curves of WER over SNR: a panel per kind of noise, a colour per modality, a band for the interval.

    Args:
        rows: see `ConditionResult.to_dict`.
        path: of the picture; the ending gives the format (png, svg, pdf).
        title: above the picture.

    Returns:
        The path.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'lookhear[demo]'") from None
    path = Path(path)
    noises = list(dict.fromkeys(row["noise"] for row in rows))
    order = list(dict.fromkeys(str(row["snr"]) for row in rows))
    order.sort(key=lambda snr: -math.inf if snr == "clean" else -float(snr))  # easy to hard
    figure = Figure(figsize=(1.6 + 4.2 * len(noises), 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(noises), sharey=True, squeeze=False)[0]
    for panel, noise in zip(panels, noises, strict=True):
        here = [row for row in rows if row["noise"] == noise]
        for modality in dict.fromkeys(row["modality"] for row in here):
            line = sorted(
                (row for row in here if row["modality"] == modality), key=lambda r: order.index(str(r["snr"]))
            )
            places = [order.index(str(row["snr"])) for row in line]
            low, high = ([100 * row["interval"][end] for row in line] for end in (0, 1))
            colour = COLOURS.get(modality, "#555555")
            panel.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
            rates = [100 * row["wer"] for row in line]
            panel.plot(places, rates, color=colour, marker="o", markersize=5, linewidth=2, label=modality)
        panel.set_title(Path(noise).name, fontsize=11)
        panel.set_xticks(range(len(order)), order)
        panel.set_xlabel("signal-to-noise ratio, dB")
        panel.grid(axis="y", color="#dddddd", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    highest = max(
        (rate for row in rows for rate in (row["wer"], row["interval"][1]) if math.isfinite(rate)), default=0
    )
    panels[0].set_ylim(0, 105 * highest or 1)  # of all panels
    panels[0].set_ylabel("WER, %")
    panels[0].legend(frameon=False)
    figure.suptitle(title, fontsize=13)
    with whole_file(path) as partial:
        figure.savefig(partial)
    return path


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f}" if math.isfinite(rate) else "-"


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

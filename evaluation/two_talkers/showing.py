"""Results of the two-talker benchmark as a table.

`read` is "sound" (nobody chosen, the sound alone), "named" (the person asked for) or "neighbour" (the person beside
them); the WER is always of what the person asked for says.
"""

from __future__ import annotations

from collections.abc import Sequence

COLUMNS = ("people", "SNR dB", "read", "WER % (95 %)", "followed %", "wrong words a minute", "clips")


def cells_of(row: dict) -> tuple[str, ...]:
    """
    Formats one row of `TwoTalkersResult.to_dict` for the headings `COLUMNS`; empty where a figure does not exist.
    """
    wer = followed = words = ""
    if row["wer"] is not None:
        low, high = row["interval"]
        wer = f"{100 * row['wer']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    if row["followed"] is not None:
        followed = f"{100 * row['followed']:.1f}"
    if row["wrong_words_a_minute"] is not None:
        words = f"{row['wrong_words_a_minute']:.1f}"
    snr = "silent" if row["snr"] is None else f"{row['snr']:g}"
    return str(row["people"]), snr, row["reading"], wer, followed, words, str(row["clips"])


def to_markdown(rows: Sequence[dict]) -> str:
    """Returns a Markdown table."""
    head, *lines = ("| " + " | ".join(cells) + " |\n" for cells in (COLUMNS, *map(cells_of, rows)))
    return head + "|" + "---|" * len(COLUMNS) + "\n" + "".join(lines)


def to_text(rows: Sequence[dict]) -> str:
    """Formats rows in aligned columns, for a terminal."""
    cells = [COLUMNS, *map(cells_of, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]) + "\n"

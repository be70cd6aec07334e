"""Word times from the file of a forced aligner, for prepared clips that have none."""

import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

logger = logging.getLogger(__name__)

TimedWord = dict[str, Any]  # {"word": str, "start": float, "end": float}, seconds


def read_word_times(path: str | Path) -> dict[str, list[TimedWord]]:
    """
    Reads the words of clips with their times, in order.

    Args:
        path: lines of JSON, `{"id": ..., "words": [{"word", "start", "end"}, ...]}` in seconds, or a CTM file, whose
            lines are `id channel start duration word` and perhaps a confidence.

    Raises:
        ValueError: the file or a line of it cannot be read; the message names it.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"data.word_times: {path} cannot be read as text ({error})") from None
    times: dict[str, list[TimedWord]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(";;"):  # a comment of CTM
            continue
        try:
            name, words = _of_json(line) if line.lstrip().startswith("{") else _of_ctm(line)
            for word in words:
                _check(word, times[name])
                times[name].append(word)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            reason = str(problem) if type(problem) is ValueError else "each word needs 'word', 'start' and 'end'"
            raise ValueError(f"data.word_times: {path}, line {number}: {reason}") from None
    return dict(times)


def _of_json(line: str) -> tuple[str, list[TimedWord]]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(row.get("id"), str):
        raise ValueError("'id' must be present and be a string")
    return row["id"], [
        {"word": str(word["word"]), "start": float(word["start"]), "end": float(word["end"])} for word in row["words"]
    ]


def _of_ctm(line: str) -> tuple[str, list[TimedWord]]:
    fields = line.split()
    try:
        name, _, start, duration, word = fields[:5]
        return name, [{"word": word, "start": float(start), "end": round(float(start) + float(duration), 6)}]
    except ValueError:
        raise ValueError("a line must be 'id channel start duration word', with seconds, or JSON") from None


def _check(word: TimedWord, before: Sequence[TimedWord]) -> None:
    """Raises a ValueError for times that aren't seconds in order."""
    start, end = word["start"], word["end"]
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start <= end):
        raise ValueError(f"'{word['word']}' lasts from {start} to {end} s; times must be at least 0 and in order")
    if before and start < before[-1]["start"]:
        raise ValueError(f"'{word['word']}' begins at {start} s, before the word above it; list words in their order")


def with_word_times(rows: Dataset, files: Sequence[str]) -> Dataset:
    """
    Gives word times to the clips that have none, and logs how many have them now.

    A clip's words must be those of its text but for case and punctuation; they are then written as in the text.

    Args:
        rows: of prepared folders, as `load_prepared` returns them.
        files: see [`read_word_times`]; of a clip in several of them the first counts.

    Returns:
        The rows; without a file, unchanged.

    Raises:
        ValueError: a file cannot be read, or has no clip of these.
    """
    for file in files:
        times = read_word_times(file)
        columns = rows.select_columns(["id", "text", "words"])
        words, found, others = [], 0, 0
        for row in columns:
            known, new = row["words"] or None, times.get(row["id"])
            if known is None and new is not None:
                known = _as_in_text(new, row["text"])
                found, others = found + (known is not None), others + (known is None)
            words.append(known)
        if not times.keys() & set(columns["id"]):
            raise ValueError(f"data.word_times: {file} has none of the clips; it must name them by their 'id'")
        if os.environ.get("RANK", "0") == "0":  # one process of a run says it
            logger.warning(
                "%s: word times of %d clips; %d have other words than their text and stay without", file, found, others
            )
        rows = rows.remove_columns("words").add_column("words", words, feature=rows.features["words"])
    return rows


def _as_in_text(words: Sequence[Mapping[str, Any]], text: str) -> list[TimedWord] | None:
    """Returns the words as a text writes them, or None where they are others."""
    written = text.split()
    if [_plain(word["word"]) for word in words] != [_plain(word) for word in written]:
        return None
    return [{"word": word, "start": one["start"], "end": one["end"]} for word, one in zip(written, words)]


def _plain(word: str) -> str:
    """Returns a word without case and punctuation."""
    return "".join(character for character in word.casefold() if character.isalnum())

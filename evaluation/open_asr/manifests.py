"""The leaderboard's result files, one for a model and a data set, with a JSON line for each sample; their scores."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.evaluation.measures.rates import ErrorCounts
from lookhear.evaluation.whole_files import write_text


@dataclass(frozen=True)
class Reading:
    """What was read of one sample: both texts normalised, its length and the time that reading it took, in seconds."""

    text: str
    read: str
    duration: float
    time: float


@dataclass(frozen=True)
class Score:
    """
    Scores of a model on a data set.

    Attributes:
        dataset: "CONFIG:SPLIT".
        words: errors and words of each sample.
        seconds: of sound.
        processing: seconds that reading took.
    """

    dataset: str
    words: ErrorCounts
    seconds: float
    processing: float

    @property
    def rtfx(self) -> float:
        """Seconds of sound read in a second."""
        return self.seconds / self.processing if self.processing else math.nan


def manifest_path(folder: Path, model: str, repository: str, dataset: str) -> Path:
    """Returns the path of a result file, named as the leaderboard's own scripts name it."""
    config, _, split = dataset.rpartition(":")
    model, repository, config = (name.strip("/").replace("/", "-") for name in (model, repository, config))
    return folder / f"MODEL_{model}_DATASET_{repository}_{config}_{split}.jsonl"


def write_manifest(path: Path, readings: Sequence[Reading]) -> Path:
    """Writes a result file whole; returns its path."""
    lines = (
        {
            "audio_filepath": f"sample_{number}",
            "duration": reading.duration,
            "time": reading.time,
            "text": reading.text,
            "pred_text": reading.read,
        }
        for number, reading in enumerate(readings)
    )
    return write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_manifest(path: Path) -> list[Reading]:
    """
    Reads a result file.

    Raises:
        ValueError: a line is not of that form.
    """
    readings = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry: dict[str, Any] = json.loads(line)
            times = float(entry["duration"]), float(entry["time"])
            readings.append(Reading(str(entry["text"]), str(entry["pred_text"]), *times))
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}, line {number} is no result; remove the file to measure again") from None
    return readings


def score(dataset: str, readings: Sequence[Reading]) -> Score:
    """
    Scores what was read: word errors of the normalised texts.

    The leaderboard's own script does not count a compound that is written apart (or the reverse), so its rate can be
    a little lower than this one.

    Raises:
        ValueError: there is nothing to score.
    """
    try:
        import jiwer
    except ImportError:
        raise ImportError("error rates need jiwer: pip install 'lookhear[eval]'") from None
    if not readings:
        raise ValueError(f"{dataset} has no sample with a text: there is nothing to score")
    counts = [jiwer.process_words(reading.text, reading.read) for reading in readings]
    errors = [one.substitutions + one.deletions + one.insertions for one in counts]
    lengths = [one.hits + one.substitutions + one.deletions for one in counts]
    words = ErrorCounts(np.array(errors, np.int64), np.array(lengths, np.int64))
    seconds, processing = (sum(times) for times in zip(*((one.duration, one.time) for one in readings), strict=True))
    return Score(dataset, words, seconds, processing)


def to_markdown(scores: Sequence[Score]) -> str:
    """Formats a line for each data set, and the leaderboard's means: of the rates, and of RTFx over all sound."""
    lines = ["| data set | WER % (95 %) | RTFx | samples | hours |", "|---|---|---|---|---|"]
    for one in scores:
        low, high = one.words.interval()
        rate = f"{100 * one.words.rate:.2f} ({100 * low:.2f} to {100 * high:.2f})"
        lines.append(
            f"| {one.dataset} | {rate} | {one.rtfx:.2f} | {len(one.words.errors)} | {one.seconds / 3600:.2f} |"
        )
    if len(scores) > 1:
        mean = sum(one.words.rate for one in scores) / len(scores)
        seconds, processing = sum(one.seconds for one in scores), sum(one.processing for one in scores)
        rtfx = seconds / processing if processing else math.nan
        samples = sum(len(one.words.errors) for one in scores)
        lines.append(f"| mean | {100 * mean:.2f} | {rtfx:.2f} | {samples} | {seconds / 3600:.2f} |")
    return "\n".join(lines) + "\n"

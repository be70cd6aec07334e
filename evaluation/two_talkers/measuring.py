"""What a recogniser reads of composed mixtures: from sound alone, of the person who is named, and of a neighbour."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.evaluation.measures.rates import ErrorCounts, normalise, word_errors
from lookhear.evaluation.protocols.stored_results import StoredResults

READINGS = ("sound", "named", "neighbour")
CHOICES = ("words", "track")
FOLLOWED = 0.9  # share of a clip's seconds in which the box has to be in the person's part of the picture

Recogniser = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class TwoTalkersResult:
    """
    What was read of the mixtures of one kind.

    Attributes:
        reading: "sound" (nobody chosen), "named" (the target), "neighbour" (the person beside the target).
        people: number of people in view.
        snr: in dB, None where the target is silent.
        ids: of the mixtures.
        references: what the target of each mixture says.
        hypotheses: what was read of each mixture.
        followed: for each mixture the share (0 to 1) of its seconds in which the box was in the part of the picture of
            the requested person; 0 where no person was found; empty for "sound".
        seconds: length of all mixtures.
    """

    reading: str
    people: int
    snr: float | None
    ids: list[str] = field(default_factory=list, repr=False)
    references: list[str] = field(default_factory=list, repr=False)
    hypotheses: list[str] = field(default_factory=list, repr=False)
    followed: list[float] = field(default_factory=list, repr=False)
    seconds: float = 0.0

    @property
    def words(self) -> ErrorCounts:
        """Word errors and reference lengths of every mixture."""
        return word_errors(self.references, self.hypotheses)

    @property
    def followed_share(self) -> float | None:
        """Share of the mixtures in which the right person was followed for nine tenths of the time."""
        return float(np.mean(np.asarray(self.followed) >= FOLLOWED)) if self.followed else None

    @property
    def words_a_minute(self) -> float:
        """Words given to the target; all of them are wrong where the target is silent."""
        words = sum(len(normalise(text).split()) for text in self.hypotheses)
        return 60 * words / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict:
        """
        Returns one row: rates as fractions, `interval` the 95 % bootstrap interval of the WER; None for silent
        targets.
        """
        words = self.words if self.snr is not None else None
        return {
            "people": self.people,
            "snr": self.snr,
            "reading": self.reading,
            "wer": None if words is None else words.rate,
            "interval": None if words is None else list(words.interval()),
            "followed": self.followed_share,
            "wrong_words_a_minute": None if words is not None else self.words_a_minute,
            "clips": len(self.ids),
        }


def evaluate_two_talkers(
    asr: Recogniser,
    folder: str | Path,
    output: str | Path,
    *,
    about: str = "",
    choose: str = "words",
    readings: Sequence[str] = READINGS,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **settings: Any,
) -> list[TwoTalkersResult]:
    """
    Reads every mixture of a folder; of silent targets only "named".

    Args:
        asr: the pipeline `audio-visual-speech-recognition`.
        folder: of `compose_mixtures`.
        output: folder for the transcripts; an interrupted run resumes there.
        about: what is measured, such as the checkpoint's name; another run does not reuse its
            transcripts.
        choose: "words" names people by their place ("the person on the left"), "track" says where they are in each
            picture, which leaves the search for people out of the figures and takes a fraction of the time.
        readings: of `READINGS`.
        limit: number of mixtures of each kind (talking and silent targets) that are read, the first ones.
        progress: called with a label, the number of readings done, and their number.
        settings: of each call of `asr`, such as `num_beams`.

    Returns:
        A result for each reading, number of people and level.

    Raises:
        ValueError: an argument or the folder is unusable, or `output` holds the readings of another run.
    """
    for name, values, known in (("readings", readings, READINGS), ("choose", [choose], CHOICES)):
        if isinstance(values, str) or not len(values) or (unknown := set(values) - set(known)):
            raise ValueError(f"{name} has to be of {', '.join(known)}, not {unknown.pop() if values else values!r}")
    rows = read_mixtures(folder, limit)
    about_run = {"what": about, "choose": choose, **{name: str(value) for name, value in sorted(settings.items())}}
    stored = StoredResults(Path(output) / f"readings-{choose}.jsonl", about_run)
    asked = [(row, reading) for row in rows for reading in readings if row["snr"] is not None or reading == "named"]
    for number, (row, reading) in enumerate(asked, start=1):
        key = f"{row['file_name']} {reading}"
        if key not in stored:
            stored.add(key, read_mixture(asr, Path(folder) / row["file_name"], row, reading, choose, **settings))
        if progress is not None:
            progress("readings", number, len(asked))
    return _gathered(asked, stored)


def read_mixtures(folder: str | Path, limit: int | None = None) -> list[dict]:
    """
    Returns the rows of a folder's `metadata.jsonl`.

    Raises:
        ValueError: there is none, or its rows are not of mixtures.
    """
    path = Path(folder) / "metadata.jsonl"
    if not path.is_file():
        raise ValueError(f"{folder} has no metadata.jsonl: compose mixtures there first")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not rows or any(not {"file_name", "text", "snr", "target", "people"} <= set(row) for row in rows):
        raise ValueError(f"{path} does not list mixtures of people side by side; compose them in an empty folder")
    if limit is None:
        return rows
    talking, silent = ([row for row in rows if (row["snr"] is None) == quiet] for quiet in (False, True))
    return talking[:limit] + silent[:limit]


def read_mixture(asr: Recogniser, path: Path, row: dict, reading: str, choose: str = "words", **settings: Any) -> dict:
    """
    Returns one reading of one mixture.

    Args:
        asr: the pipeline.
        path: of the video.
        row: from `describe`.
        reading: one of `READINGS`.
        choose: one of `CHOICES`.

    Returns:
        `{"text", "seconds", "followed"}`; if the person or their face was not found also `"refused"`, the reason.
    """
    if reading == "sound":
        result = asr(str(path), modality="audio", **settings)
        return {"text": result["text"], "seconds": result["report"]["duration"], "followed": None}
    place = row["target"] if reading == "named" else (row["target"] + 1) % len(row["people"])
    part = part_of(path, place, len(row["people"]))
    speaker = row["people"][place]["prompt"] if choose == "words" else {"track": itertools.repeat(part)}
    try:
        result = asr(str(path), speaker=speaker, **settings)
    except ValueError as error:
        if path.name not in str(error):  # an argument is wrong, not this clip
            raise
        return {"text": "", "seconds": _length(path), "followed": 0.0, "refused": str(error)}
    report = result["report"]
    followed = followed_share(report["speaker"]["seconds"], part)
    return {"text": result["text"], "seconds": report["duration"], "followed": followed}


def part_of(path: Path, place: int, count: int) -> tuple[float, float, float, float]:
    """Returns `(x0, y0, x1, y1)` in pixels of the part of the picture that shows the person at a place."""
    from lookhear.processing.avsr import probe_media

    info = probe_media(path)
    width = info.width / count
    return (place * width, 0.0, (place + 1) * width, float(info.height))


def followed_share(seconds: Sequence[dict], part: Sequence[float]) -> float:
    """
    Measures for how long the right person was followed.

    Args:
        seconds: `{"box": [x0, y0, x1, y1] or None, ...}` of the pipeline's report.
        part: of the picture in which the person is.

    Returns:
        Share of the seconds in which the middle of the box is in the part, 0 to 1.
    """
    middles = [(row["box"][0] + row["box"][2]) / 2 if row["box"] else -1.0 for row in seconds]
    return float(np.mean([part[0] <= middle < part[2] for middle in middles])) if middles else 0.0


def _length(path: Path) -> float:
    from lookhear.processing.avsr import probe_media

    return probe_media(path).duration


def _gathered(asked: Sequence[tuple[dict, str]], stored: StoredResults) -> list[TwoTalkersResult]:
    """Groups readings by kind: talking targets first, few people before many, loud targets before faint ones."""
    groups: dict[tuple[int, float | None, str], TwoTalkersResult] = {}
    for row, reading in asked:
        kind = len(row["people"]), row["snr"], reading
        read, group = stored[f"{row['file_name']} {reading}"], groups.get(kind) or TwoTalkersResult(reading, *kind[:2])
        groups[kind] = replace(
            group,
            ids=[*group.ids, row["file_name"]],
            references=[*group.references, row["text"]],
            hypotheses=[*group.hypotheses, read["text"]],
            followed=group.followed if read["followed"] is None else [*group.followed, read["followed"]],
            seconds=group.seconds + read["seconds"],
        )
    return sorted(groups.values(), key=_order)


def _order(result: TwoTalkersResult) -> tuple:
    return result.snr is None, result.people, -(result.snr or 0.0), READINGS.index(result.reading)

"""A study of many small trainings: what is left to do, errors in JSON files, intervals over clips and seeds, tables.

Each measurement is one file, so that an interrupted study resumes after the last whole training, and two processes may
work in one folder.
"""

import hashlib
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.evaluation.whole_files import write_text

RESAMPLES = 4000


@dataclass(frozen=True)
class Row:
    """
    A row of a table, or a point of a figure.

    Attributes:
        name: as the paper's recipes are named, `table6_stft`.
        says: what is trained or measured.
        against: the row that the paper compares it with; None: no other.
        paper: what the paper reports: a rate, or the change from `against`.
        wanted: sign of the change that the paper reports: -1 lower, 1 higher; 0 none.
        run: the training whose figures these are; empty: the row's own.
        condition: of these figures.
    """

    name: str
    says: str
    against: str | None = None
    paper: str = ""
    wanted: int = 0
    run: str = ""
    condition: str = "clean"


@dataclass(frozen=True)
class Job:
    """
    One training with its measurement.

    Attributes:
        name: of the training.
        seed: of the training.
        needs: jobs whose results it starts from, as names and seeds.
        about: what the figures depend on; figures that were measured otherwise are refused.
    """

    name: str
    seed: int
    needs: tuple[tuple[str, int], ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        """Returns name and seed."""
        return self.name, self.seed


@dataclass(frozen=True)
class Errors:
    """
    Errors of one training under one condition.

    Attributes:
        errors: of each clip.
        lengths: words (or others that can be wrong) of each clip.
        draws: rates of random draws of the clips, with replacement, where a rate is no sum over clips, such as AP; the
            clips of a draw are the same in all trainings.
    """

    errors: list[float]
    lengths: list[float]
    draws: list[float] = field(default_factory=list)


class Results:
    """
    Measurements in a folder, one file `NAME-SEED.json` each.

    Args:
        folder: created when the first one is written.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def _path(self, name: str, seed: int) -> Path:
        return self.folder / f"{name}-{seed}.json"

    def read(self, job: Job) -> dict[str, Any] | None:
        """
        Returns what was measured of a job, or None.

        Raises:
            ValueError: it was measured with other settings.
        """
        path = self._path(*job.key)
        if not path.is_file():
            return None
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["about"] != digest(job.about):
            raise ValueError(f"{path} was measured with other settings: choose another --output, or remove it")
        return stored

    def write(self, job: Job, figures: dict[str, Errors], **facts: Any) -> None:
        """
        Writes a measurement, whole or not at all.

        Args:
            job: what was measured.
            figures: by condition.
            **facts: more about it, such as seconds.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "about": digest(job.about),
            "figures": {name: asdict(one) for name, one in figures.items()},
            **facts,
        }
        path = self._path(*job.key)
        write_text(path, json.dumps(content) + "\n")

    def errors(self, jobs: Sequence[Job], condition: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns errors `(seeds, clips)` and lengths `(clips,)` of those jobs that are measured; None: none is."""
        found = self._found(jobs, condition)
        if not found:
            return None
        return np.array([one["errors"] for one in found], float), np.array(found[0]["lengths"], float)

    def draws(self, jobs: Sequence[Job], condition: str) -> np.ndarray | None:
        """Returns rates of draws `(seeds, draws)` of those jobs that are measured; None: none has any."""
        found = [one["draws"] for one in self._found(jobs, condition) if one.get("draws")]
        return np.array(found, float) if found else None

    def _found(self, jobs: Sequence[Job], condition: str) -> list[dict[str, Any]]:
        figures = [stored["figures"] for stored in map(self.read, jobs) if stored is not None]
        return [one[condition] for one in figures if condition in one]


def digest(about: dict[str, Any]) -> str:
    """Returns a short fingerprint of settings."""
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]


# ----------------------------------------------------------------------------------------------------------- intervals


def rate(errors: np.ndarray, lengths: np.ndarray) -> float:
    """Returns errors `(seeds, clips)` by lengths `(clips,)`, over all seeds."""
    return float(errors.sum() / (len(errors) * lengths.sum()))


def interval(
    errors: np.ndarray, lengths: np.ndarray, other: np.ndarray | None = None, seed: int = 0
) -> tuple[float, float]:
    """
    Returns the 95 % bootstrap interval of a rate, or of a difference of two rates. In each draw clips are drawn with
    replacement, and so are the trainings of each side, so that the interval holds for other clips and other seeds.

    Args:
        errors: `(seeds, clips)`.
        lengths: `(clips,)`.
        other: errors `(seeds, clips)` on the same clips, which are subtracted; the clips of a draw are the same.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    clips = generator.multinomial(len(lengths), np.full(len(lengths), 1 / len(lengths)), RESAMPLES)  # how often each
    drawn = _drawn(errors, lengths, clips, generator)
    if other is not None:
        drawn = drawn - _drawn(other, lengths, clips, generator)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def interval_of_draws(draws: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """
    Returns the 95 % bootstrap interval of a rate that is no sum over clips. Trainings are drawn, as in `interval`.

    Args:
        draws: `(seeds, draws)`, rates of draws of the clips, which are the same for all trainings.
        seed: of the draws of trainings.
    """
    generator = np.random.default_rng(seed)
    seeds = generator.integers(len(draws), size=(RESAMPLES, len(draws)))
    clips = generator.integers(draws.shape[1], size=(RESAMPLES, 1))
    low, high = np.quantile(draws[seeds, clips].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def _drawn(errors: np.ndarray, lengths: np.ndarray, clips: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the rate of each draw, its trainings drawn here."""
    seeds = generator.multinomial(len(errors), np.full(len(errors), 1 / len(errors)), len(clips)) / len(errors)
    return ((seeds @ errors) * clips).sum(axis=1) / (clips @ lengths)


# ------------------------------------------------------------------------------------------------------------- running


def run(
    jobs: Sequence[Job],
    results: Results,
    work: Callable[[Job], None],
    processes: int = 1,
    minutes: float | None = None,
) -> list[Job]:
    """
    Does the jobs that are not measured, in order, each after those that it needs; one that fails is reported, and the
    others are done.

    Args:
        jobs: all of the study, in order.
        results: where `work` writes.
        work: a function of a module, which runs in another process.
        processes: jobs at the same time, one thread each.
        minutes: after which no further job is begun; None: no limit.

    Returns:
        The jobs that remain.
    """
    begun = time.monotonic()
    done = {job.key for job in jobs if results.read(job) is not None}
    left = [job for job in jobs if job.key not in done]
    running: dict[Future, Job] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_single_thread) as pool:
        while True:
            late = minutes is not None and time.monotonic() - begun > 60 * minutes
            while len(running) < processes and not late and (job := _ready(left, done)):
                left.remove(job)
                running[pool.submit(work, job)] = job
            if not running:
                return [job for job in jobs if job.key not in done]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                if error := future.exception():
                    text = "".join(traceback.format_exception_only(error)).strip()
                    print(f"{job.name}, seed {job.seed}: {text}", file=sys.stderr, flush=True)
                else:
                    done.add(job.key)
                    print(f"{job.name}, seed {job.seed}: measured; {len(left)} left", file=sys.stderr, flush=True)


def _ready(left: list[Job], done: set[tuple[str, int]]) -> Job | None:
    """Returns the first job whose needs are met."""
    return next((job for job in left if set(job.needs) <= done), None)


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)  # the processes themselves fill the cores


# -------------------------------------------------------------------------------------------------------------- tables


HEADS = {
    False: ("row", "what", "% (95 %)", "each seed", "change (95 %)", "paper", "as the paper says?"),
    True: ("row", "compared with", "change (95 %)", "paper", "as the paper says?"),
}


def markdown(
    rows: Sequence[Row], jobs: Sequence[Job], results: Results, right: bool = False, changes: bool = False
) -> Iterator[str]:
    """
    Yields the lines of a table: each row's figure with its interval, and the change from the row that it is compared
    with.

    Args:
        rows: of the table; those that are not measured say so.
        jobs: of the study.
        results: what was measured.
        right: whether shares of what is right are shown, not of errors.
        changes: whether only rows are listed of which the paper says how they differ from another one, and only that;
            without the table's head.
    """
    if not changes:
        yield from heading(changes)
    for row in rows:
        if changes and not row.wanted:
            continue
        figure, each, change, verdict = _cells(row, rows, jobs, results, right)
        if changes:
            yield f"| `{row.name}` | `{row.against}` | {change or 'not measured'} | {row.paper} | {verdict} |"
        else:
            yield f"| `{row.name}` | {row.says} | {figure} | {each} | {change} | {row.paper} | {verdict} |"


def heading(changes: bool = False) -> Iterator[str]:
    """Yields the two lines of a table's head; see `markdown`."""
    yield f"| {' | '.join(HEADS[changes])} |"
    yield "|" + "".join("---:|" if "%" in name else "---|" for name in HEADS[changes])


def _cells(
    row: Row, rows: Sequence[Row], jobs: Sequence[Job], results: Results, right: bool
) -> tuple[str, str, str, str]:
    """Returns a row's figure, those of each seed, its change, and what follows from that."""
    found, sign = _of(row, jobs, results), -1 if right else 1
    if found is None:
        return "not measured", "", "", ""
    errors, lengths = found
    value, span = rate(errors, lengths), interval(errors, lengths)
    seeds = [rate(one[None], lengths) for one in errors]
    if right:
        value, span, seeds = 1 - value, (1 - span[1], 1 - span[0]), [1 - one for one in seeds]
    figure, each = f"{100 * value:.1f} ({_span(span)})", ", ".join(f"{100 * one:.1f}" for one in seeds)
    other = _of(next(one for one in rows if one.name == row.against), jobs, results) if row.against else None
    if other is None:
        return figure, each, "", ""
    ends = sorted(sign * end for end in interval(errors, lengths, other[0]))
    middle = sign * (rate(errors, lengths) - rate(*other))
    return figure, each, f"{100 * middle:+.1f} ({_span(ends, '+')})", says(ends, row.wanted)


def _of(row: Row, jobs: Sequence[Job], results: Results) -> tuple[np.ndarray, np.ndarray] | None:
    return results.errors([job for job in jobs if job.name == (row.run or row.name)], row.condition)


def _span(ends: Sequence[float], sign: str = "") -> str:
    return f"{100 * ends[0]:{sign}.1f} to {100 * ends[1]:{sign}.1f}"


def says(ends: Sequence[float], wanted: int) -> str:
    """
    Says whether a change is the paper's: "yes" or "no, the opposite" where the interval leaves zero out.

    Args:
        ends: of the interval of the change.
        wanted: sign of the paper's change; 0: it reports none.
    """
    if not wanted:
        return ""
    if ends[0] <= 0 <= ends[1]:
        return "cannot be told apart"
    return "yes" if ends[0] * wanted > 0 else "no, the opposite"

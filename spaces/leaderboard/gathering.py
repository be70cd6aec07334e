"""Results of all models that are tagged for it: read from their repositories, checked against the benchmarks."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from boards import BOARDS, TAGS, Board, Column, plain_name
from hub_files import COMMIT, BadFileError, HubFiles, Listed, items, parse_yaml, part
from huggingface_hub import parse_eval_result_entries
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

CURRENT, EARLIER, UNSTATED, CARD = "this version", "an earlier version", "version not stated", "from the card"
ORDER = (CURRENT, UNSTATED, EARLIER, CARD)  # which one is shown where a model has several
INTERVAL = re.compile(r"interval (\d{1,4}(?:\.\d{1,6})?) to (\d{1,4}(?:\.\d{1,6})?)(?!\d)")
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,39}")
TASK = re.compile(r"[\w.-]{1,60}", re.ASCII)
MOST_RESULTS, MOST_REVISIONS, MOST_PROBLEMS = 500, 50, 200
READERS = 8  # models that are read at a time


@dataclass(frozen=True)
class Result:
    """
    One figure of one model.

    Attributes:
        model: "ORG/NAME".
        board: key of the benchmark.
        task: one of its tasks.
        value: a finite number in the board's unit.
        interval: (lower, upper) bound around it, or None.
        date: as 2026-11-22, "" if it isn't stated.
        version: which version of the benchmark was measured on: one of `ORDER`.
        source: address of what it was taken from, on the Hub itself; "" for elsewhere.
    """

    model: str
    board: str
    task: str
    value: float
    interval: tuple[float, float] | None = None
    date: str = ""
    version: str = UNSTATED
    source: str = ""


@dataclass
class Snapshot:
    """
    What was found at one time.

    Attributes:
        taken: when, in UTC.
        models: "ORG/NAME" -> licence, "" if it isn't stated.
        results: (model, board, task) -> the one that is shown.
        problems: (model or benchmark, what is wrong), each a sentence of ours.
        revisions: board -> commit of the benchmark that results were checked against.
        error: why there is nothing, where the Hub does not answer.
    """

    taken: datetime.datetime
    models: dict[str, str] = field(default_factory=dict)
    results: dict[tuple[str, str, str], Result] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    revisions: dict[str, str] = field(default_factory=dict)
    error: str = ""

    def add(self, result: Result) -> None:
        """Keeps a result unless the model has a better one for the task: checked before unchecked, then the newer."""
        key = (result.model, result.board, result.task)
        there = self.results.get(key)
        if there is None or _rank(result) > _rank(there):
            self.results[key] = result

    def of(self, board: str) -> dict[str, dict[str, Result]]:
        """Returns model -> task -> result of a board."""
        found: dict[str, dict[str, Result]] = {}
        for (model, key, task), result in self.results.items():
            if key == board:
                found.setdefault(model, {})[task] = result
        return found


def _rank(result: Result) -> tuple[int, str]:
    return -ORDER.index(result.version), result.date


class Benchmark:
    """
    A benchmark's repository: its tasks now, and whether other commits of it are the same benchmark.

    Args:
        hub: what it is read from.
        dataset: "ORG/NAME".

    Raises:
        BadFileError: its `eval.yaml` is unusable.
    """

    def __init__(self, hub: HubFiles, dataset: str):
        self.hub, self.dataset, self.head = hub, dataset, hub.head(dataset)
        tasks = part(parse_yaml(hub.read(dataset, "eval.yaml", self.head, kind="dataset")), "tasks")
        self.tasks = {str(task.get("id")) for task in items(tasks, MOST_RESULTS)}
        self._data = hub.data(dataset, self.head)
        self._same: dict[str, bool | None] = {self.head: True}

    def version(self, revision: Any) -> str:
        """
        Compares the data and tasks of a commit with those of the newest one.

        Raises:
            BadFileError: the benchmark has no such commit.
        """
        if not isinstance(revision, str) or not COMMIT.fullmatch(revision):
            return UNSTATED
        if revision not in self._same:
            if len(self._same) >= MOST_REVISIONS:
                return UNSTATED
            try:
                self._same[revision] = self.hub.data(self.dataset, revision) == self._data
            except RevisionNotFoundError:
                self._same[revision] = None
        if (same := self._same[revision]) is None:
            raise BadFileError("names a commit that the benchmark does not have")
        return CURRENT if same else EARLIER


def gather(hub: HubFiles, organisation: str) -> Snapshot:
    """
    Gathers the results of all tagged models. What one repository holds never hides another one's.

    Args:
        hub: what is read.
        organisation: whose benchmarks these are.
    """
    snapshot = Snapshot(datetime.datetime.now(datetime.UTC))
    try:
        listed = hub.models(TAGS)
    except Exception as error:  # the network, the Hub, its answer: have no base class in common
        snapshot.error = reason(error)
        return snapshot
    benchmarks: dict[str, Benchmark] = {}
    for board in BOARDS:
        if not board.on_hub:
            continue
        try:
            benchmarks[board.key] = Benchmark(hub, f"{organisation}/{board.key}")
            snapshot.revisions[board.key] = benchmarks[board.key].head
        except Exception as error:
            snapshot.problems.append(
                (f"{organisation}/{board.key}", f"The benchmark cannot be read: {reason(error)}.")
            )
    with ThreadPoolExecutor(READERS) as readers:
        read = readers.map(lambda model: _read(hub, model), listed)
        for model, (licence, files, card, problems) in zip(listed, read, strict=True):
            snapshot.models[model.repo] = licence
            found, more = _results(hub, model.repo, organisation, benchmarks, files, card)
            for result in found:
                snapshot.add(result)
            snapshot.problems += [(model.repo, text) for text in dict.fromkeys([*problems, *more])][:10]
    del snapshot.problems[MOST_PROBLEMS:]
    return snapshot


def _read(hub: HubFiles, model: Listed) -> tuple[str, dict[str, Any], Any, list[str]]:
    """Reads a model's repository; returns (licence, file -> content, model-index, problems)."""
    files: dict[str, Any] = {}
    card: dict[str, Any] = {}
    problems = []
    try:
        card = hub.card(model.repo, model.commit)
    except Exception as error:  # whatever it is, the other models are read
        problems.append(f"README.md: {reason(error)}.")
    for path in model.files:
        try:
            files[path] = parse_yaml(hub.read(model.repo, path, model.commit))
        except Exception as error:
            problems.append(f"{path}: {reason(error)}.")
    licence = card.get("license")
    named = isinstance(licence, str) and LICENCE.fullmatch(licence)
    return str(licence) if named else "", files, card.get("model-index"), problems


def _results(
    hub: HubFiles, repo: str, organisation: str, benchmarks: dict[str, Benchmark], files: dict[str, Any], card: Any
) -> tuple[list[Result], list[str]]:
    """Returns a model's (usable results, problems with the others)."""
    found, problems = [], []
    try:
        for path, content in files.items():
            for entry in items(content, MOST_RESULTS):
                try:
                    if (result := _from_entry(hub, repo, organisation, benchmarks, entry)) is not None:
                        found.append(result)
                except BadFileError as error:
                    problems.append(f"{path}: an entry {error}.")
        for board, column, value in _card_figures(card):
            if board.on_hub and board.key not in benchmarks:
                continue
            if (number := plain_number(value, board)) is None:
                problems.append(f"README.md: a result of {board.title} is no plain number of its range.")
                continue
            found.append(Result(repo, board.key, column.task, number, version=CARD))
    except Exception as error:  # a form that was not thought of is this model's problem alone
        problems.append(f"its results cannot be read: {reason(error)}.")
    return found[:MOST_RESULTS], problems


def _from_entry(
    hub: HubFiles, repo: str, organisation: str, benchmarks: dict[str, Benchmark], entry: dict
) -> Result | None:
    """
    Reads an entry of a result file; None if it belongs to another benchmark.

    Raises:
        BadFileError: it is unusable.
    """
    dataset = part(entry, "data", "dataset", "id") or part(entry, "dataset", "id")
    if not isinstance(dataset, str):
        raise BadFileError("names no dataset")
    board = next((board for board in BOARDS if dataset == f"{organisation}/{board.key}" and board.on_hub), None)
    if board is None or board.key not in benchmarks:
        return None
    try:
        (parsed,) = parse_eval_result_entries([entry])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise BadFileError(f"of {board.title} has no dataset, task or value") from None
    task = parsed.task_id if isinstance(parsed.task_id, str) else ""
    benchmark = benchmarks[board.key]
    if task not in benchmark.tasks or board.column(task) is None:
        raise BadFileError(f"of {board.title} has the unknown task {task if TASK.fullmatch(task) else '(unreadable)'}")
    value = plain_number(parsed.value, board)
    if value is None:
        raise BadFileError(f"of {board.title} has a value that is no plain number of its range")
    version = benchmark.version(parsed.dataset_revision)
    source = parsed.source_url if isinstance(parsed.source_url, str) else ""
    here = source.startswith(f"{hub.endpoint}/") and re.fullmatch(r"[\w./:-]{1,300}", source, re.ASCII)
    return Result(
        repo,
        board.key,
        task,
        value,
        interval=_interval(parsed.notes, value),
        date=_date(parsed.date),
        version=version,
        source=source if here else "",
    )


def _card_figures(index: Any) -> Iterator[tuple[Board, Column, Any]]:
    """Yields (board, column, value) for each figure of a card's `model-index` that belongs to a board."""
    for model in items(index, 5):
        for result in items(model.get("results"), MOST_RESULTS):
            kind = part(result, "dataset", "type")
            name = kind.lower().rpartition("/")[2] if isinstance(kind, str) else ""
            board = next((board for board in BOARDS if name == board.key or name in board.others), None)
            if board is None:
                continue
            split = part(result, "dataset", "split")
            for metric in items(result.get("metrics"), MOST_RESULTS):
                names = [metric.get("name"), metric.get("type")]
                texts = [plain_name(text) for text in names if isinstance(text, str) and len(text) <= 200]
                if isinstance(split, str) and len(split) <= 40:
                    texts = [text for one in texts for text in (plain_name(f"{one}, {split}"), one)]
                column = next((column for text in texts if (column := board.named(text)) is not None), None)
                if column is not None:
                    yield board, column, metric.get("value")


def plain_number(value: Any, board: Board) -> float | None:
    """Returns a value as a number from 0 to the board's highest, None if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= board.highest and math.isfinite(value) else None


def _interval(notes: Any, value: float) -> tuple[float, float] | None:
    """Returns the interval that the notes state, if the value is within it."""
    stated = INTERVAL.search(notes[:500]) if isinstance(notes, str) else None
    if stated is None or not float(stated[1]) <= value <= float(stated[2]):
        return None
    return float(stated[1]), float(stated[2])


def _date(value: Any) -> str:
    """Returns a date as 2026-11-22, "" if it is none or yet to come."""
    try:
        day = datetime.date.fromisoformat(str(value)[:10])
    except ValueError:
        return ""
    return day.isoformat() if day <= datetime.date.today() + datetime.timedelta(days=1) else ""


def reason(error: BaseException) -> str:
    """Returns what went wrong in words of ours, none of a stranger's."""
    if isinstance(error, BadFileError):
        return str(error)
    if isinstance(error, RepositoryNotFoundError):
        return "it is not on the Hub"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "it is gated or private"
    if isinstance(status, int):
        return f"the Hub answers {status}"
    return f"it cannot be read ({type(error).__name__})"

"""The stages of a batch on Ray Data: readers on CPUs, models on CPUs or GPUs, and files of results.

What Ray does is left to it: which actor gets which rows, how many of them run, and that an actor that dies is
started again and does its work anew.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import fs

from lookhear.evaluation.fingerprints import with_content

from .results import ResultFolder, digest

if TYPE_CHECKING:
    from ray.data import ActorPoolStrategy, Dataset

Pool = int | tuple[int, int]  # actors, or the least and the most of them
ID, PATH, CONTENT, ERROR = "id", "path", "bytes", "error"
WRITERS = 2  # processes that write results; tasks that take no CPU would be as many as there are blocks
OWN_SCHEMES = ("http", "https", "file")  # of addresses that the pipelines open themselves


def import_ray() -> Any:
    """
    Returns the package `ray`, with `ray.data`.

    Raises:
        ImportError: it isn't installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"lookhear.batch runs on Ray Data: pip install 'lookhear[ray]' ({error})") from None
    return ray


@dataclass(frozen=True)
class BatchSummary:
    """
    What a folder of results holds once a run is over.

    Attributes:
        results: inputs that were read.
        problems: inputs that could not be read.
        new: of both, those that this run has added.
    """

    results: int
    problems: int
    new: int

    def __str__(self) -> str:
        return f"{self.results} results, {self.problems} problems; {self.new} of them new"


@dataclass(frozen=True)
class Workers:
    """
    The actors of a run.

    Attributes:
        readers: that decode files, on a CPU each.
        models: that run the model.
        num_gpus: of a model, which may be a fraction; 0: it runs on a CPU; None: 1 if the cluster has any.
        batch_size: inputs that go through the model together.

    Raises:
        ValueError: one of them cannot be used.
    """

    readers: Pool | None
    models: Pool
    num_gpus: float | None
    batch_size: int

    def __post_init__(self) -> None:
        for name in ("readers", "models"):
            value = getattr(self, name)
            least, most = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
            if value is not None and not (_is_count(least) and _is_count(most) and least <= most):
                raise ValueError(f"`{name}` must be a number of actors, or the least and the most, not {value!r}.")
        if not _is_count(self.batch_size):
            raise ValueError(f"`batch_size` must be a positive integer, not {self.batch_size!r}.")
        gpus = self.num_gpus
        number = isinstance(gpus, (int, float)) and not isinstance(gpus, bool)
        if gpus is not None and not (number and (0 <= gpus <= 1 or gpus == int(gpus) > 0)):
            raise ValueError(f"`num_gpus` must be a share of a GPU from 0 to 1, or a number of GPUs, not {gpus!r}.")

    def settle(self) -> tuple[float, float]:
        """
        Returns the CPUs that a reader or a model on a CPU reserves, and the GPUs of a model.

        Where the cluster has fewer CPUs than actors, they share them, so that one is left for the tasks between them.

        Raises:
            ValueError: there is a single CPU.
        """
        ray = import_ray()
        if not ray.is_initialized():
            ray.init()
        there = ray.cluster_resources()
        gpus = self.num_gpus if self.num_gpus is not None else float(there.get("GPU", 0) > 0)
        actors = _least(self.readers) + (0 if gpus else _least(self.models))
        cpus = there.get("CPU", 0.0)
        if cpus < 2:
            raise ValueError(f"Ray has {cpus:g} CPUs here, and it takes 2: begin with ray.init(num_cpus=2).")
        return min(1.0, (cpus - 1) / actors), gpus


def _least(pool: Pool | None) -> int:
    return 1 if pool is None else pool[0] if isinstance(pool, tuple) else pool


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


@dataclass(frozen=True)
class Task:
    """
    What is done with many inputs.

    Attributes:
        name: of the pipeline.
        packaged: name of the checkpoint that is used where none is asked for.
        kind: `model_type` of the checkpoints that can do it.
        unusable: settings of the pipeline that mean nothing on other machines.
        settle: given the checkpoint and the settings, returns the settings as the actors use them; raises ValueError
            for those that cannot be used.
        reader: of the actors that read files, see [`Reader`].
        model: of the actors that run the model; called with tables of what readers give.
    """

    name: str
    packaged: str
    kind: str
    unusable: tuple[str, ...]
    settle: Callable[[str, dict[str, Any]], dict[str, Any]]
    reader: type
    model: type

    def settled(self, model: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
        """
        Returns the settings as the actors use them.

        Args:
            model: see [`run`].
            settings: see [`run`].

        Raises:
            ValueError: the model is of another kind, or a setting cannot be used.
        """
        for name in self.unusable:
            if name in settings:
                raise ValueError(f"`{name}` doesn't go with lookhear.batch: leave it out.")
        return self.settle(checkpoint_of(model, self.packaged, self.kind), dict(settings))


def run(
    task: Task,
    dataset: Dataset,
    output: str | os.PathLike[str] | None,
    model: str | None,
    workers: Workers,
    id_column: str | None,
    rows_per_file: int,
    dtype: str,
    settings: Mapping[str, Any],
) -> Dataset | BatchSummary:
    """
    Does a task, or goes on with it: checks what is asked for, claims the folder of results, and runs both stages.

    Args:
        task: what is done.
        dataset: rows with [`ID`] or [`PATH`], and [`PATH`] or [`CONTENT`].
        output: folder or URI of results; None: they are not written.
        model: checkpoint folder, Hub id, or name of a published model; None: the packaged one.
        workers: how many actors there are of both stages.
        id_column: see [`Reader`].
        rows_per_file: results in a file.
        dtype: what the model computes in.
        settings: of the pipeline.

    Returns:
        The results, which are computed when they are asked for; with `output`, how many were written.

    Raises:
        ValueError: a setting cannot be used, a column is missing, or the folder has results of other settings.
    """
    model = seen_by_actors(model)
    settings = task.settled(model, settings)
    check_columns(known_columns(dataset), id_column)
    folder, done = None, None
    if output is not None:
        folder = ResultFolder(output)
        fingerprint = with_content(os.path.join(checkpoint_of(model, task.packaged), ""))
        folder.claim({"task": task.name, "model": fingerprint, "dtype": dtype, **plain_settings(settings)})
        done = import_ray().put(folder.finished())
    shared = {"model": model, "settings": settings, "folder": os.getcwd()}
    reading = {**shared, "id_column": id_column, "done": done}
    results = run_stages(dataset, task.reader, task.model, workers, reading, {**shared, "dtype": dtype})
    return results if folder is None else write_results(results, folder, rows_per_file)


def as_strategy(pool: Pool | None) -> ActorPoolStrategy:
    """Returns Ray's form of a pool of actors; None: as many as the cluster has room for."""
    ray = import_ray()
    if isinstance(pool, int):
        return ray.data.ActorPoolStrategy(size=pool)
    least, most = (1, None) if pool is None else pool
    return ray.data.ActorPoolStrategy(min_size=least, max_size=most)


def run_stages(
    dataset: Dataset,
    reader: type,
    model: type,
    workers: Workers,
    reader_arguments: Mapping[str, Any],
    model_arguments: Mapping[str, Any],
) -> Dataset:
    """
    Returns the results of a data set, which are computed when they are asked for.

    Args:
        dataset: rows with [`ID`] or [`PATH`], and [`PATH`] or [`CONTENT`].
        reader: of the actors that read them, see [`Reader`].
        model: of the actors that run a model; called with tables of what readers give.
        workers: how many there are of both.
        reader_arguments: of its constructor.
        model_arguments: of its constructor.
    """
    cpus, gpus = workers.settle()
    # Blocks of one batch: small units of work, of which little is done again where an actor dies.
    parts = dataset.repartition(target_num_rows_per_block=workers.batch_size)
    read = parts.map_batches(
        reader,
        fn_constructor_kwargs=dict(reader_arguments),
        batch_size=None,
        batch_format="pyarrow",
        compute=as_strategy(workers.readers),
        num_cpus=cpus,
    )
    return read.map_batches(
        model,
        fn_constructor_kwargs=dict(model_arguments),
        batch_size=workers.batch_size,
        batch_format="pyarrow",
        compute=as_strategy(workers.models),
        num_cpus=None if gpus else cpus,
        num_gpus=gpus or None,
    )


def write_results(dataset: Dataset, folder: ResultFolder, rows_per_file: int) -> BatchSummary:
    """
    Computes results and writes them into files.

    Args:
        dataset: of [`run_stages`].
        folder: where files go.
        rows_per_file: results in a file.
    """
    written = dataset.map_batches(
        folder.write,
        batch_size=rows_per_file,
        batch_format="pyarrow",
        num_cpus=0,  # it only writes, and the actors may have all CPUs
        compute=import_ray().data.TaskPoolStrategy(size=WRITERS),
    )
    new = sum(part["rows"].sum() for part in written.iter_batches(batch_size=None, batch_format="numpy"))
    results, problems = folder.counts()
    return BatchSummary(results, problems, int(new))


class Reader:
    """
    Reads files, on an actor.

    Args:
        id_column: whose values name the inputs; None: `"id"`, or `"path"` where there is none.
        done: reference to the digests of the inputs that have results; None: none have.
        folder: that relative paths start from; actors have a working directory of their own.
    """

    def __init__(self, id_column: str | None, done: Any, folder: str = ""):
        self._id_column, self._folder = id_column, folder
        self._done: np.ndarray | None = None if done is None else import_ray().get(done)

    schema: pa.Schema  # of the tables that it yields

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Yields a table of one row for each row of a table that has no result yet."""
        for name, row in self._rows(table):
            yield pa.Table.from_pylist([{ID: name, **self.read(row)}], self.schema)

    def read(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a row becomes, without its id."""
        raise NotImplementedError

    def _rows(self, table: pa.Table) -> Iterator[tuple[str, Mapping[str, Any]]]:
        column = self._id_column or (ID if ID in table.column_names else PATH)
        check_columns(table.column_names, column)
        for row in table.select([name for name in (column, PATH, CONTENT) if name in table.column_names]).to_pylist():
            if row[column] is None:
                raise ValueError(f"A row has no {column!r}: each input needs one of its own.")
            if not self._is_done(str(row[column])):
                yield str(row[column]), row

    def _is_done(self, name: str) -> bool:
        if self._done is None or not len(self._done):
            return False
        own = np.array(digest(name), self._done.dtype)
        place = np.searchsorted(self._done, own)
        return bool(place < len(self._done) and self._done[place] == own)


def check_columns(names: list[str] | None, id_column: str | None) -> None:
    """
    Checks that a data set has what is read.

    Args:
        names: of its columns; None: they aren't known yet.
        id_column: see [`Reader`].

    Raises:
        ValueError: a column is missing.
    """
    if names is None:
        return
    if PATH not in names and CONTENT not in names:
        raise ValueError(f"`dataset` must have a column {PATH!r} or {CONTENT!r}; it has {', '.join(names)}.")
    if id_column is not None and id_column not in names:
        raise ValueError(f"`id_column` is {id_column!r}, and `dataset` has {', '.join(names)}.")
    if id_column is None and ID not in names and PATH not in names:
        raise ValueError(f"`dataset` must have a column {ID!r} or {PATH!r}, or `id_column` must name one.")


class _NamedContent(io.BytesIO):
    """The content of a file, with its name for messages."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


def opened(row: Mapping[str, Any], folder: str = "") -> str | IO[bytes]:
    """
    Returns what a pipeline reads: a path or URL, or content or what lies in an object store as a file.

    Args:
        row: with [`PATH`], [`CONTENT`] or both.
        folder: that relative paths start from.

    Raises:
        ValueError: it has neither.
        OSError: the object cannot be opened.
    """
    path, content = row.get(PATH), row.get(CONTENT)
    if content is not None:
        return _NamedContent(content, path) if path else io.BytesIO(content)
    if path is None:
        raise ValueError(f"{PATH!r} is empty")
    scheme, mark, _ = path.partition("://")
    if not mark:
        return os.path.join(folder, path)
    if scheme.lower() in OWN_SCHEMES:
        return path
    try:
        system, place = fs.FileSystem.from_uri(path)
    except (pa.ArrowInvalid, ValueError) as error:
        raise ValueError(f"{path} cannot be opened: {error}") from None
    return system.open_input_file(place)


def seen_by_actors(model: str | os.PathLike[str] | None) -> str | None:
    """Returns a checkpoint folder as an absolute path, as actors have other working directories; other names as is."""
    return None if model is None else os.path.abspath(model) if os.path.isdir(model) else os.fspath(model)


def checkpoint_of(model: str | None, packaged_name: str, kind: str | None = None) -> str:
    """
    Returns the folder or Hub id of a model on this machine.

    Args:
        model: checkpoint folder, Hub id, or name of a published model; None: the packaged one.
        packaged_name: of that.
        kind: the `model_type` that is needed; None: any.

    Raises:
        ValueError: there is no such model, or it is of another kind.
    """
    from transformers import AutoConfig

    import lookhear  # noqa: F401 - registers the models
    from lookhear.training.named_models import local_model
    from lookhear_command.shared_options import packaged

    checkpoint = packaged(packaged_name) if model is None else local_model(os.fspath(model))
    if kind is not None:
        try:
            found = AutoConfig.from_pretrained(checkpoint).model_type
        except OSError as error:
            raise ValueError(f"`model` {checkpoint} cannot be loaded: {one_line(error)}") from None
        if found != kind:
            raise ValueError(f"`model` {checkpoint} is of the kind {found!r}, and {kind!r} is needed.")
    return checkpoint


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings as values that JSON has."""
    return {name: value if isinstance(value, (int, float, bool)) else repr(value) for name, value in settings.items()}


def one_line(error: BaseException) -> str:
    """Returns the message of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def known_columns(dataset: Dataset) -> list[str] | None:
    """Returns the names of a data set's columns; None where nothing is known before it is computed."""
    schema = dataset.schema(fetch_if_missing=False)
    return None if schema is None else list(schema.names)

"""Corpora by name, as `datasets`: in one Arrow file, in memory, or streamed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookhear.evaluation.whole_files import whole_file
from lookhear.training.glee.corpora.bdd100k import read_bdd100k
from lookhear.training.glee.corpora.coco import read_coco, read_lvis, read_objects365, read_uvo
from lookhear.training.glee.corpora.grit import grit_shards, read_grit
from lookhear.training.glee.corpora.openimages import read_openimages
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.corpora.refcoco import read_refcoco
from lookhear.training.glee.corpora.sa1b import read_sa1b, sa1b_shards
from lookhear.training.glee.corpora.schema import features
from lookhear.training.glee.corpora.visual_genome import read_visual_genome
from lookhear.training.glee.corpora.vos import read_refer_youtube_vos, read_vos
from lookhear.training.glee.corpora.youtube_vis import read_uvo_videos, read_youtube_vis

if TYPE_CHECKING:
    import datasets

READERS: dict[str, Callable[..., Iterator[dict]]] = {
    "bdd100k": read_bdd100k,
    "coco": read_coco,
    "grit": read_grit,
    "lvis": read_lvis,
    "objects365": read_objects365,
    "openimages": read_openimages,
    "refcoco": read_refcoco,
    "refer_youtube_vos": read_refer_youtube_vos,
    "sa1b": read_sa1b,
    "uvo": read_uvo,
    "uvo_videos": read_uvo_videos,
    "visual_genome": read_visual_genome,
    "vos": read_vos,
    "youtube_vis": read_youtube_vis,
}
WRITTEN_TOGETHER = 256  # rows

SHARDS: dict[str, Callable[[str | Path], list[Path]]] = {"grit": grit_shards, "sa1b": sa1b_shards}


class EmptyCorpusError(CorpusError):
    """A corpus has no picture that can be used."""


def open_corpus(
    reader: str,
    root: str | Path,
    *,
    problems: Problems | None = None,
    cache: str | Path | None = None,
    **options: Any,
) -> datasets.Dataset:
    """
    Opens a corpus in the schema, with random access.

    Args:
        reader: one of `READERS`.
        root: folder of the corpus.
        problems: collects what cannot be used; with `Problems(skip=True)` it is skipped, else refused.
        cache: an Arrow file, written once, then memory-mapped: delete it when the annotations change. None: the rows
            are held in memory.
        **options: of the reader: `split`, `images`, `kind`, ...

    Raises:
        CorpusError: no such reader, or an error of the reader.
    """
    problems = problems or Problems()
    rows, before = read_corpus(reader, root, problems, **options), problems.count
    try:
        return open_rows(rows, cache)
    except EmptyCorpusError as error:
        found = f": {problems.summary()}" if problems.count > before else ""
        raise EmptyCorpusError(f"{reader} {root}: {error}{found}") from None


def open_rows(rows: Iterator[dict], cache: str | Path | None = None) -> datasets.Dataset:
    """
    Stores rows of the schema, for random access.

    Args:
        rows: of a reader.
        cache: an Arrow file, written once; if it exists, it is opened instead of reading `rows`. None: the rows are
            held in memory.

    Raises:
        EmptyCorpusError: there is no row.
        CorpusError: an error of the reader.
    """
    from datasets import Dataset

    if cache is not None and Path(cache).is_file():
        return Dataset.from_file(str(cache))
    if cache is None:
        with tempfile.TemporaryDirectory() as folder:
            return Dataset.from_file(str(_write(rows, Path(folder, "rows.arrow"))), in_memory=True)
    with whole_file(cache) as partial:
        _write(rows, partial)
    return Dataset.from_file(str(cache))


def stream_corpus(
    reader: str, root: str | Path, *, problems: Problems | None = None, **options: Any
) -> datasets.IterableDataset:
    """
    Opens a corpus in the schema that is read while it is used; SA-1B and GRIT in shards, which `datasets` distributes
    over processes and workers. Arguments: see `open_corpus`; each process has its own copy of `problems`.
    """
    from datasets import IterableDataset

    shards = corpus_shards(reader, root)
    given: dict[str, Any] = {"reader": reader, "root": str(root), "problems": problems, "options": options}
    if shards is not None:
        given["shards"] = [str(shard) for shard in shards]
    return IterableDataset.from_generator(_stream, features=features(), gen_kwargs=given)


def read_corpus(reader: str, root: str | Path, problems: Problems | None = None, **options: Any) -> Iterator[dict]:
    """Reads a corpus by its reader's name. Raises CorpusError: no such reader, or no such option of it."""
    if reader not in READERS:
        raise CorpusError(f"there is no reader {reader!r}; choose one of {', '.join(READERS)}")
    try:
        return READERS[reader](root, problems=problems, **options)
    except TypeError as error:
        raise CorpusError(f"{reader}: {error}") from None


def corpus_shards(reader: str, root: str | Path) -> list[Path] | None:
    """Lists the shards of a corpus; None if it is not stored in shards."""
    return SHARDS[reader](root) if reader in SHARDS else None


def _stream(
    reader: str, root: str, problems: Problems | None, options: dict, shards: list[str] | None = None
) -> Iterator[dict]:
    chosen = options if shards is None else {**options, "shards": shards}
    yield from read_corpus(reader, root, problems, **chosen)


def _write(rows: Iterator[dict], path: Path) -> Path:
    import pyarrow

    schema = features().arrow_schema  # its metadata names the columns of pictures
    rows = iter(rows)
    try:
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
            part = list(islice(rows, WRITTEN_TOGETHER))
            if not part:
                raise EmptyCorpusError("the corpus has no usable picture")
            while part:
                writer.write_table(pyarrow.Table.from_pylist(part, schema=schema))
                part = list(islice(rows, WRITTEN_TOGETHER))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path

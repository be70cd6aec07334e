"""Opening of a recipe's corpora as sources of a mixture."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lookhear.processing.glee.prompt_processing_glee import clean_label
from lookhear.training.glee.corpora.coco import category_names
from lookhear.training.glee.corpora.opening import corpus_shards, open_corpus, read_corpus
from lookhear.training.glee.corpora.reading import CorpusError, Problems, need_keys, read_json
from lookhear.training.glee.corpora.supervision import CORPUS_PROMPTS, CORPUS_SUPERVISION, CORPUS_TASKS, FREE_NAMES
from lookhear.training.glee.mixture.augmentation import AugmentationRecipe
from lookhear.training.glee.mixture.mixture import Source
from lookhear.training.glee.mixture.row_order import RowStream
from lookhear.training.glee.mixture.sampling import category_vocabulary
from lookhear.training.recipe_reading import fill

logger = logging.getLogger(__name__)


def open_source(
    reader: str,
    root: str | Path,
    *,
    options: dict[str, Any] | None = None,
    cache: str | Path | None = None,
    stream: bool = False,
    buffer: int = 256,
    seed: int = 0,
    problems: Problems | None = None,
    vocabulary: Sequence[str] | str | Path | None = None,
    augmentation: dict[str, Any] | None = None,
    **fields: Any,
) -> Source:
    """
    Opens a corpus as a source of batches, with its defaults (`corpora/supervision.py`) for fields that are not given.

    Args:
        reader: name of the reader; see `open_corpus`.
        root: folder of the corpus.
        options: of the reader.
        cache: see `open_corpus`.
        stream: whether the corpus is read while it is used; see `RowStream`.
        buffer: rows of a stream among which the next one is chosen at random.
        seed: of a stream's order.
        problems: where annotations that cannot be used are reported.
        vocabulary: all categories, or a JSON file with COCO's `categories`; None: those that are annotated (in a
            stream, and in corpora of free names: those of the batch).
        augmentation: fields of `AugmentationRecipe`.
        **fields: of `Source`: `ratio`, `images`, `task`, `supervision`, `prompts`, `frames`, ...

    Raises:
        ValueError: a field does not exist, or the corpus cannot be opened (`CorpusError`).
    """
    if "rows" in fields:
        raise ValueError(f"source {reader}: rows come from the corpus; leave them out")
    options = options or {}
    phrases = reader == "visual_genome" and options.get("kind") == "regions"
    task = fields.pop("task", None) or ("phrases" if phrases else CORPUS_TASKS.get(reader, "labels"))
    supervision = CORPUS_SUPERVISION.get(reader, {}) | fields.pop("supervision", {})
    fields = {"prompts": CORPUS_PROMPTS.get(reader, 0.0)} | fields
    if reader in FREE_NAMES and vocabulary is None:
        vocabulary = ()
    if stream:
        shards: Sequence[Path | None] = corpus_shards(reader, root) or [None]
        read = partial(_read_shard, reader, root, problems, options)
        rows: Any = RowStream(shards, read, seed, buffer)
    else:
        rows = open_corpus(reader, root, problems=problems, cache=cache, **options)
    given = {
        "rows": rows,
        "task": task,
        "supervision": supervision,
        "vocabulary": _vocabulary(vocabulary, rows, task),
        "augmentation": fill(AugmentationRecipe, augmentation or {}, f"source {reader}: augmentation"),
    }
    return fill(Source, given | fields, f"source {reader}")


def read_vocabulary(path: str | Path) -> list[str]:
    """
    Reads the category names of a JSON file in COCO's form, in its order.

    A category without objects that only stands above others, as their `supercategory`, is left out: Roboflow writes
    one.

    Args:
        path: of the file.

    Raises:
        CorpusError: there are none.
    """
    content = read_json(Path(path), dict)
    need_keys(content, ("categories",), path)
    categories = content["categories"]
    names = category_names(categories, Path(path))
    above = {
        clean_label(str(entry["supercategory"]))
        for entry in categories
        if entry.get("supercategory") and clean_label(str(entry["supercategory"])) != clean_label(str(entry["name"]))
    }
    annotations = content.get("annotations") or ()
    numbers = [entry["category_id"] for entry in annotations if isinstance(entry, dict) and "category_id" in entry]
    used = {names.get(number) for number in numbers}
    if annotations:
        names = {number: name for number, name in names.items() if name in used or clean_label(name) not in above}
    if not names:
        raise CorpusError(f"{path}: categories is empty; name at least one")
    if len(set(names.values())) < len(names):
        several = [name for name, count in Counter(names.values()).items() if count > 1]
        logger.warning("%s: categories of one name are one class: %s", path, ", ".join(several[:10]))
    return list(dict.fromkeys(names.values()))


def _vocabulary(given: Sequence[str] | str | Path | None, rows: Any, task: str) -> list[str]:
    if isinstance(given, (str, Path)):
        return read_vocabulary(given)
    if given is not None:
        return list(given)
    return category_vocabulary(rows) if task == "labels" and not isinstance(rows, RowStream) else []


def _read_shard(
    reader: str, root: str | Path, problems: Problems | None, options: dict[str, Any], shard: Path | None
) -> Iterator[dict]:
    chosen = options if shard is None else {**options, "shards": [shard]}
    return read_corpus(reader, root, problems, **chosen)

"""Corpora by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lookhear.training.glee.corpora.opening import READERS, open_rows
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.lisa_glee.corpora.instances import (
    class_subjects,
    read_paco,
    read_pascal_part,
    sentence_subjects,
)
from lookhear.training.lisa_glee.corpora.label_maps import open_ade20k, open_coco_stuff
from lookhear.training.lisa_glee.corpora.llava_instruct import open_llava_instruct
from lookhear.training.lisa_glee.corpora.reason_seg import open_reason_seg
from lookhear.training.lisa_glee.corpora.schema import Corpus

# Read while they are used.
OPENED: dict[str, Callable[..., Corpus]] = {
    "ade20k": open_ade20k,
    "coco_stuff": open_coco_stuff,
    "llava_instruct": open_llava_instruct,
    "reason_seg": open_reason_seg,
}
# Read once, into rows of GLEE's schema.
ROWS: dict[str, Callable[..., Any]] = {
    "coco": READERS["coco"],
    "lvis": READERS["lvis"],
    "paco": read_paco,
    "pascal_part": read_pascal_part,
    "refcoco": READERS["refcoco"],
}
NAMES = tuple(sorted([*OPENED, *ROWS]))
# Which of the mixture's groups a corpus belongs to; the others are semantic.
CORPUS_GROUPS = {"refcoco": "referring", "llava_instruct": "visual_questions", "reason_seg": "reasoning"}


def open_corpus(
    reader: str,
    root: str | Path,
    *,
    problems: Problems | None = None,
    cache: str | Path | None = None,
    **options: Any,
) -> Corpus:
    """
    Opens a corpus.

    Args:
        reader: one of `NAMES`; `refcoco` reads RefCOCO, RefCOCO+, RefCOCOg and RefCLEF.
        root: folder of the corpus.
        problems: collects what cannot be used; with `Problems(skip=True)` it is skipped, else refused.
        cache: an Arrow file for the rows of `coco`, `lvis`, `paco`, `pascal_part` and `refcoco`, written once, then
            memory-mapped: delete it when the annotations change. None: the rows are held in memory.
        options: of the reader: `split`, `images`, `names`, `split_by`.

    Raises:
        CorpusError: no such reader or option, or an error of the reader.
    """
    if reader not in NAMES:
        raise CorpusError(f"there is no reader {reader!r}; choose one of {', '.join(NAMES)}")
    try:
        if reader in OPENED:
            return OPENED[reader](root, problems=problems, **options)
        rows = open_rows(ROWS[reader](root, problems=problems, **options), cache)
    except TypeError as error:
        raise CorpusError(f"{reader}: {error}") from None
    return Corpus(reader, rows, sentence_subjects if reader == "refcoco" else class_subjects)

"""LLaVA-Instruct-150k (Liu et al., NeurIPS 2023): conversations about COCO's pictures, in words only."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lookhear.training.glee.corpora.reading import CorpusError, Problems, corpus_folder, first_file, read_json
from lookhear.training.lisa_glee.corpora.schema import AnnotatedPicture, Corpus, Turn

ROLES = ("human", "gpt")
PICTURE = "<image>"  # the picture's place in a question
Row = tuple[str, str, list[str]]  # id, file of the picture, questions and answers by turns


def open_llava_instruct(
    root: str | Path, split: str = "train", problems: Problems | None = None, *, images: str | Path
) -> Corpus:
    """
    Opens LLaVA-Instruct-150k: `llava_instruct_150k.json`, over COCO's pictures of 2017.

    Args:
        root: the file, or the folder that holds it.
        split: `train`; there is no other.
        problems: where conversations that cannot be used are reported.
        images: COCO's folder `train2017`, or the one that holds it.

    Raises:
        CorpusError: a file is missing or of another form, or something was reported and `problems` does not skip.
    """
    problems = problems or Problems()
    if split != "train":
        raise CorpusError(f"llava_instruct has the split train only, not {split!r}")
    path = Path(root)
    if path.suffix != ".json":
        path = first_file(corpus_folder(path, "llava_instruct_150k.json"), ["llava_instruct_150k.json"])
    folder = corpus_folder(images, "COCO's train2017")
    folder = folder / "train2017" if (folder / "train2017").is_dir() else folder
    rows: list[Row] = []
    for number, entry in enumerate(read_json(path, list)):
        row = _row(entry, number, problems)
        if row is not None:
            rows.append(row)
    problems.settle(path)
    if not rows:
        raise CorpusError(f"{path} holds no conversation")
    return Corpus("llava_instruct", rows, partial(_read, folder))


def _row(entry: Any, number: int, problems: Problems) -> Row | None:
    """Checks a conversation; None, reported, if it cannot be used."""
    name = f"entry {number}"
    try:
        said, image = entry["conversations"], str(entry["image"])
        roles, texts = [turn["from"] for turn in said], [str(turn["value"]) for turn in said]
    except (KeyError, TypeError):
        problems.add(name, "it lacks image, or conversations with from and value")
        return None
    if not roles or roles != [*ROLES] * (len(roles) // 2):
        problems.add(name, f"human and gpt don't take turns: {', '.join(map(str, roles[:6]))}")
        return None
    texts = [text.replace(PICTURE, " ").strip() for text in texts]
    if not all(texts):
        problems.add(name, "a question or an answer is empty")
        return None
    return str(entry.get("id", number)), image, texts


def _read(folder: Path, row: Row) -> AnnotatedPicture:
    name, image, texts = row
    turns = tuple(Turn(question, answer) for question, answer in zip(texts[::2], texts[1::2]))
    return AnnotatedPicture(name, {"path": str(folder / image), "bytes": None}, turns=turns)

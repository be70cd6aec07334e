"""Corpora of objects with masks, which GLEE's readers read: their classes and sentences become subjects."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lookhear.training.glee.corpora.coco import coco_rows
from lookhear.training.glee.corpora.reading import Problems, below, corpus_folder, first_file, first_folder
from lookhear.training.lisa_glee.corpora.schema import AnnotatedPicture, MaskRegion, Subject


def class_subjects(row: dict[str, Any]) -> AnnotatedPicture:
    """
    Asks for the classes of a row of GLEE's schema: all objects of a class together, groups too.

    Classes that are not annotated exhaustively in the picture are left out, as are those with an object without mask.

    Args:
        row: of a reader of objects.
    """
    masks: dict[str, list[Any]] = defaultdict(list)
    for instance in row["objects"]:
        if instance["category"] is not None and instance["category"] not in row["incomplete"]:
            masks[instance["category"]].append(instance["mask"])
    of_name: dict[str, list[Any]] = defaultdict(list)
    for category, found in masks.items():
        of_name[spoken(category)] += found
    subjects = [
        Subject("name", name, MaskRegion(tuple(found))) for name, found in sorted(of_name.items()) if all(found)
    ]
    return _picture(row, subjects)


def sentence_subjects(row: dict[str, Any]) -> AnnotatedPicture:
    """
    Asks for the sentences of a row of GLEE's schema.

    Args:
        row: of a reader of sentences about objects with masks.
    """
    subjects = []
    for sentence in row["expressions"]:
        masks = tuple(row["objects"][index]["mask"] for index in sentence["objects"])
        if masks and all(masks):
            subjects.append(Subject("phrase", sentence["text"], MaskRegion(masks)))
    return _picture(row, subjects)


def _picture(row: dict[str, Any], subjects: list[Subject]) -> AnnotatedPicture:
    return AnnotatedPicture(row["id"], row["image"], (row["height"], row["width"]), tuple(subjects))


def spoken(category: str) -> str:
    """
    Writes a category as it is said: `dog:head` -> `head of the dog`, `mouse (computer equipment)` -> `mouse`.

    Args:
        category: its name, words separated by spaces or underscores; a part follows its object after a colon.
    """
    words = re.sub(r"[ _]*\([^()]*\)", "", category).replace("_", " ").strip() or category
    whole, colon, part = words.partition(":")
    return f"{part.strip()} of the {whole.strip()}" if colon and part.strip() and whole.strip() else words


def read_pascal_part(
    root: str | Path, split: str = "train", problems: Problems | None = None, *, images: str | Path | None = None
) -> Iterator[dict]:
    """
    Reads PASCAL-Part in COCO's form, as VLPart publishes it: `train.json`, `VOCdevkit/VOC2010/JPEGImages/`.

    Args:
        root: the folder that holds both.
        split: `train` or `val`.
        problems: where annotations that cannot be used are reported.
        images: the folder of the pictures; None: the one in `root`.

    Raises:
        CorpusError: a file is missing or of another form, or something was reported and `problems` does not skip.
    """
    root = corpus_folder(root, f"{split}.json and VOCdevkit/VOC2010/JPEGImages")
    path = first_file(root, [f"{split}.json", f"annotations/{split}.json"])
    inside = ["VOCdevkit/VOC2010/JPEGImages", "VOC2010/JPEGImages", "JPEGImages"]
    folder = corpus_folder(images, "JPEGImages") if images is not None else first_folder(root, inside)
    yield from coco_rows(path, lambda image: below(folder, image["file_name"]), problems, empty="omit")


def read_paco(
    root: str | Path, split: str = "train", problems: Problems | None = None, *, images: str | Path | None = None
) -> Iterator[dict]:
    """
    Reads PACO-LVIS (`paco_lvis_v1_train.json`) over COCO's pictures (`train2017/`, `val2017/`).

    Args:
        root: the folder of `paco_lvis_v1_{split}.json`, or the one that holds it as `annotations`.
        split: `train`, `val` or `test`.
        problems: where annotations that cannot be used are reported.
        images: the folder that holds `train2017` and `val2017`; None: `root`.

    Raises:
        CorpusError: a file is missing or of another form, or something was reported and `problems` does not skip.
    """
    name = f"paco_lvis_v1_{split}.json"
    root = corpus_folder(root, name)
    path = first_file(root, [name, f"annotations/{name}", f"annotations/paco_lvis_v1/{name}"])
    folder = corpus_folder(images if images is not None else root, "train2017 and val2017")
    yield from coco_rows(path, lambda image: below(folder, image["file_name"]), problems, empty="omit")

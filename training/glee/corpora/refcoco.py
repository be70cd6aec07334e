"""Sentences about single objects: RefCOCO, RefCOCO+, RefCOCOg in COCO's pictures of 2014, RefCLEF in IAPR TC-12's."""

import io
import pickle
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.processing.glee.geometry_glee import coco_rle, mask_of_rle
from lookhear.training.glee.corpora.coco import category_names, coco_object
from lookhear.training.glee.corpora.masks import Size
from lookhear.training.glee.corpora.reading import CorpusError, Problems, corpus_folder, need_keys, read_json
from lookhear.training.glee.corpora.schema import make_expression, make_row

SPLITS_BY = {
    "refcoco": ("unc", "google"),
    "refcoco+": ("unc",),
    "refcocog": ("umd", "google"),
    "refclef": ("unc", "berkeley"),
}


def read_refcoco(
    root: str | Path,
    split: str = "train",
    problems: Problems | None = None,
    *,
    images: str | Path | None = None,
    split_by: str | None = None,
) -> Iterator[dict]:
    """
    Reads one of the data sets: the folder `refcoco`, `refcoco+`, `refcocog` or `refclef` with `refs(unc).p`
    (`refs(umd).p`, `refs(google).p`, `refs(berkeley).p`) and `instances.json`. A row is a picture with all sentences
    of the split about its objects.

    Nothing in the pickled file is executed.

    Args:
        root: the folder `refcoco`, `refcoco+`, `refcocog` or `refclef`.
        split: `train`, `val`, `testA`, `testB`, `test`.
        problems: where annotations that cannot be used are reported.
        images: COCO's folder `train2014`, or the one that holds it; None: `train2014` or `images/train2014` beside the
            data set's folder. Of RefCLEF: `saiapr_tc-12`, or the one that holds it; None: `images/saiapr_tc-12`.
        split_by: `unc`, `umd`, `google` or `berkeley`; None: the one that exists.
    """
    problems = problems or Problems()
    root = corpus_folder(root, "instances.json and refs(unc).p, such as refcoco")
    references = _references(root, split_by)
    folder = _picture_folder(root, images, "saiapr_tc-12" if root.name == "refclef" else "train2014")
    content = read_json(root / "instances.json", dict)
    need_keys(content, ("images", "annotations", "categories"), root / "instances.json")
    categories = category_names(content["categories"], root / "instances.json")
    pictures = {image["id"]: image for image in content["images"]}
    annotations = {entry["id"]: entry for entry in content["annotations"]}

    of_image: dict[int, list[dict]] = defaultdict(list)
    for reference in references:
        if split in (reference["split"], None):
            of_image[reference["image_id"]].append(reference)
    if not of_image:
        known = ", ".join(sorted({reference["split"] for reference in references}))
        raise CorpusError(f"{root}: no sentences of split {split!r}; it has {known}")
    for number, refs in of_image.items():
        image = pictures.get(number)
        if image is None:
            problems.add(f"image {number}", "it is not among the images of instances.json")
            continue
        file, size = folder / image["file_name"], (int(image["height"]), int(image["width"]))
        if not file.is_file():
            problems.add(f"image {number}", f"its file {file} is missing")
            continue
        objects: list[dict] = []
        expressions: list[dict] = []
        for reference in refs:
            entry = annotations.get(reference["ann_id"])
            if entry is None:
                problems.add(f"reference {reference['ref_id']}", f"its annotation {reference['ann_id']} is missing")
                continue
            instance = coco_object(_one_mask(entry, size), size, categories, problems)
            if instance is not None:
                texts = [sentence["sent"] for sentence in reference["sentences"] if sentence["sent"].strip()]
                expressions += [make_expression(text, [len(objects)]) for text in texts]
                objects.append(instance)
        if expressions:
            yield make_row(number, file, size, objects, expressions)
    problems.settle(root)


def _references(root: Path, split_by: str | None) -> list[dict]:
    names = [split_by] if split_by else SPLITS_BY.get(root.name, ("unc", "umd", "google"))
    path = next((root / f"refs({name}).p" for name in names if (root / f"refs({name}).p").is_file()), None)
    if path is None:
        raise CorpusError(f"{root}: expected {' or '.join(f'refs({name}).p' for name in names)}; copy the file there")
    try:
        references = _PlainData(io.BytesIO(path.read_bytes()), encoding="latin-1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise CorpusError(f"{path} is not a pickled list of references: {error}") from None
    if not isinstance(references, list) or not references:
        raise CorpusError(f"{path} is not a pickled list of references")
    for reference in references:
        need_keys(reference, ("ref_id", "ann_id", "image_id", "split", "sentences"), path)
    return references


class _PlainData(pickle.Unpickler):
    """Unpickles lists, dictionaries, strings and numbers only, as a pickle could otherwise execute anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, where only plain data is expected")


def _one_mask(entry: dict, size: Size) -> dict:
    """Joins the run lengths of an annotation, of which RefCLEF has a list, to those of one mask."""
    parts = entry.get("segmentation")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts) or not parts:
        return entry
    if len(parts) == 1:
        return {**entry, "segmentation": parts[0]}
    union = np.zeros(size, dtype=bool)
    for part in parts:
        try:
            union |= mask_of_rle(part)
        except (KeyError, TypeError, ValueError):
            return {**entry, "segmentation": part}  # which is reported as any other that is damaged
    return {**entry, "segmentation": coco_rle(union)}


def _picture_folder(root: Path, images: str | Path | None, name: str) -> Path:
    if images is not None:
        folder = corpus_folder(images, "COCO's train2014 with COCO_train2014_000000581857.jpg, or saiapr_tc-12")
        return folder / name if (folder / name).is_dir() else folder
    places = [
        parent / place / name for parent in (root.parent, root) for place in ("", "images", "images/mscoco/images")
    ]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise CorpusError(f"{root.parent}: expected a folder {name} of pictures; unpack it there, or pass images=")
    return found

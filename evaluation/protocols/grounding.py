"""
RefCOCO, RefCOCO+ and RefCOCOg: sentences about single objects; OmniLabel: free descriptions of any number of objects.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lookhear.evaluation.measures.average_precision import ObjectsByLabel, precision_table
from lookhear.evaluation.measures.mask_runs import to_runs, to_text
from lookhear.evaluation.measures.referring import referring_rates
from lookhear.evaluation.protocols.layout import (
    LayoutError,
    below,
    by_key,
    corners,
    find_file,
    find_folder,
    need_folder,
    read_json,
    xywh,
)
from lookhear.evaluation.protocols.pictures import ask_pictures
from lookhear.evaluation.protocols.run import ProtocolReport, ProtocolRun
from lookhear.evaluation.protocols.stored_results import StoredResults
from lookhear.evaluation.protocols.submission import write_json_list

SPLITS_BY = {"refcoco": ("unc", "google"), "refcoco+": ("unc",), "refcocog": ("umd", "google")}
PICTURES = ("train2014", "images/train2014", "images/mscoco/images/train2014")
OMNILABEL_LIMIT = 100


def run_refcoco(run: ProtocolRun) -> ProtocolReport:
    """
    Runs one of the three data sets: `refs(unc).p` (`refs(umd).p` for RefCOCOg) and `instances.json`, with COCO's
    `train2014/` beside the folder; P@0.5 of boxes (comprehension), overall and mean IoU of masks (segmentation), over
    all sentences.

    Splits: `val` (default), `testA`, `testB`; `test` of RefCOCOg. `data` is the folder `refcoco`, `refcoco+` or
    `refcocog`, or the one that holds it under the protocol's name.
    """
    root = need_folder(run.data, f"{run.name}/instances.json and its refs(...).p")
    root, split = root / run.name if (root / run.name).is_dir() else root, run.split or "val"
    content = read_json(find_file(root, ["instances.json"]), ("images", "annotations"))
    folder = need_folder(run.images, "COCO's train2014") if run.images else find_folder(root.parent, PICTURES)
    folder = folder / "train2014" if (folder / "train2014").is_dir() else folder
    everything = read_references(root, run.name)
    references = [reference for reference in everything if reference["split"] == split]
    if not references:
        known = ", ".join(sorted({reference["split"] for reference in everything}))
        raise LayoutError(f"{root}: no sentences of split {split!r}; it has {known}")
    pictures = {image["id"]: image for image in content["images"]}
    objects = {entry["id"]: entry for entry in content["annotations"]}
    of_image = run.some(list(by_key(references, "image_id").items()))
    stored = run.stored(split)
    questions = [
        (
            str(number),
            below(folder, pictures[number]["file_name"]),
            {"expressions": [text for text, _ in _sentences(some)]},
        )
        for number, some in of_image
    ]
    ask_pictures(run, stored, questions)
    truth, found = [], []
    for number, some in of_image:
        size = pictures[number]["height"], pictures[number]["width"]
        answer = stored[str(number)]
        for place, (_, object_id) in enumerate(_sentences(some)):
            entry = objects[object_id]
            truth.append({"box": corners(entry["bbox"]), "mask": to_text(to_runs(entry["segmentation"], size))})
            found.append({"box": answer["boxes"][place], "mask": answer["masks"][place]})
    metrics = referring_rates(truth, found)
    count = int(metrics.pop("sentences"))
    return ProtocolReport(run.name, split, metrics, count, "sentences", [stored.path])


def read_references(root: Path, name: str) -> list[dict[str, Any]]:
    """Returns the published list of references, which is pickled; nothing in it is run."""
    names = SPLITS_BY.get(root.name) or SPLITS_BY.get(name) or ("unc", "umd", "google")
    path = find_file(root, [f"refs({split_by}).p" for split_by in names])
    try:
        references = _PlainData(io.BytesIO(path.read_bytes()), encoding="latin-1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise LayoutError(f"{path} is not a pickled list of references: {error}") from None
    keys = {"image_id", "ann_id", "split", "sentences"}
    if not isinstance(references, list) or not all(isinstance(one, dict) and keys <= one.keys() for one in references):
        raise LayoutError(f"{path} is not a pickled list of references with {', '.join(sorted(keys))}")
    return references


class _PlainData(pickle.Unpickler):
    """Lists, dictionaries, strings and numbers only: a pickle could otherwise run anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, where only plain data is expected")


def _sentences(references: Sequence[dict]) -> list[tuple[str, int]]:
    """Returns (sentence, annotation it is about) of one picture."""
    return [
        (sentence["sent"], reference["ann_id"])
        for reference in references
        for sentence in reference["sentences"]
        if sentence["sent"].strip()
    ]


def run_omnilabel(run: ProtocolRun) -> ProtocolReport:
    """
    Runs OmniLabel: `dataset_all_val_v0.1.4.json` (or another file of its form, whose name is the split) over the
    pictures that it names; AP of plain categories and of descriptions, and their harmonic mean.

    Splits: the annotation file's name without `.json`; by default the first `dataset_all_val*.json`. Test files have
    no public annotations: their results file goes to the benchmark's server.
    """
    root = need_folder(run.data, "dataset_all_val_v0.1.4.json and the pictures that it names")
    path = find_file(root, [f"{run.split}.json"]) if run.split else _first(root, "dataset_all_val*.json")
    content = read_json(path, ("images", "descriptions"))
    images = run.some(content["images"])
    spaces: dict[int, list[dict]] = {}
    for description in content["descriptions"]:
        for number in description["image_ids"]:
            spaces.setdefault(number, []).append(description)
    folder = need_folder(run.images or root, "the pictures that the file names")
    stored = run.stored(path.stem, top_k=OMNILABEL_LIMIT)
    questions = [
        (str(image["id"]), below(folder, image["file_name"]), {"labels": _texts(spaces[image["id"]])})
        for image in images
        if spaces.get(image["id"])
    ]
    ask_pictures(run, stored, questions, masks=False, threshold=0.0, top_k=OMNILABEL_LIMIT)
    asked = [image for image in images if spaces.get(image["id"])]
    file = write_json_list(run.output / f"{path.stem}_results.json", _omnilabel_entries(asked, spaces, stored))
    if not content.get("annotations"):
        note = f"{path.name} has no public annotations: send {file.name} to OmniLabel's evaluation server"
        return ProtocolReport(run.name, path.stem, {}, len(asked), "pictures", [file], note)
    truth, found = omnilabel_objects(asked, spaces, content["annotations"], stored)
    table = precision_table(truth, found, "box", (OMNILABEL_LIMIT,))
    parts = {f"AP_{name}": table.average_precision(labels=[name]) for name in ("categories", "descriptions")}
    return ProtocolReport(
        run.name, path.stem, {"AP": harmonic(*parts.values()), **parts}, len(asked), "pictures", [file]
    )


def omnilabel_objects(
    images: Sequence[dict], spaces: dict[int, list[dict]], annotations: Sequence[dict], stored: StoredResults
) -> tuple[ObjectsByLabel, ObjectsByLabel]:
    """
    Returns truth and results by "categories" and "descriptions".

    Source: Schulter et al.: OmniLabel, ICCV 2023, section 4, and its evaluation code: each description of a picture's
    label space is a question of its own, also where no object fits; all questions of a kind share one curve.
    """
    truth: ObjectsByLabel = {}
    found: ObjectsByLabel = {}
    numbers, places = iter(range(1, 1 << 62)), iter(range(1 << 62))
    of_image = by_key(annotations, "image_id")
    for image, row in zip(images, stored.values([str(image["id"]) for image in images])):
        for description in spaces[image["id"]]:
            kind, place = _kind(description), next(places)
            for entry in of_image.get(image["id"], ()):
                if description["id"] in entry["description_ids"]:
                    box = [float(side) for side in entry["bbox"]]
                    one = {"id": next(numbers), "bbox": box, "area": box[2] * box[3], "iscrowd": 0, "left_out": 0}
                    truth.setdefault(kind, {}).setdefault(place, []).append(one)
            text = _text(description)
            for index, label in enumerate(row["labels"]):
                if label == text:
                    box = xywh(row["boxes"][index])
                    one = {"id": next(numbers), "bbox": box, "area": box[2] * box[3], "score": row["scores"][index]}
                    found.setdefault(kind, {}).setdefault(place, []).append(one)
    return truth, found


def harmonic(one: float, other: float) -> float:
    """Returns the harmonic mean of two fractions; 0 if both are 0."""
    return 2 * one * other / (one + other) if one + other != 0 else 0.0


def _omnilabel_entries(images: Sequence[dict], spaces: dict[int, list[dict]], stored: StoredResults) -> Iterator[dict]:
    for image, row in zip(images, stored.values([str(image["id"]) for image in images])):
        ids = {_text(description): description["id"] for description in spaces[image["id"]]}
        for label, score, box in zip(row["labels"], row["scores"], row["boxes"]):
            yield {"image_id": image["id"], "bbox": xywh(box), "description_ids": [ids[label]], "scores": [score]}


def _texts(descriptions: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(_text(description) for description in descriptions))


def _text(description: dict) -> str:
    return " ".join(str(description["text"]).split())


def _kind(description: dict) -> str:
    facts = description.get("anno_info") or {}
    return "descriptions" if facts.get("type") == "object_description" else "categories"


def _first(root: Path, pattern: str) -> Path:
    found = sorted(root.glob(pattern))
    if not found:
        raise LayoutError(f"{root}: expected {pattern}; copy the file there, or name it with split=")
    return found[0]

"""Visual Genome: boxes with free names, and phrases about regions."""

from collections.abc import Iterator
from pathlib import Path

from lookhear.training.glee.corpora.reading import (
    CorpusError,
    Problems,
    corpus_folder,
    first_file,
    need_keys,
    read_json,
)
from lookhear.training.glee.corpora.schema import make_expression, make_object, make_row

KINDS = ("objects", "regions")
FOLDERS = ("VG_100K", "VG_100K_2", "images", "images/VG_100K", "images/VG_100K_2")


def read_visual_genome(
    root: str | Path, split: str | None = None, problems: Problems | None = None, *, kind: str = "objects"
) -> Iterator[dict]:
    """
    Reads Visual Genome v1.4 (or 1.2): `image_data.json`, `objects.json`, `region_descriptions.json`, `VG_100K/`,
    `VG_100K_2/`.

    Args:
        root: the folder of the JSON files.
        split: None, as there are no splits.
        problems: where annotations that cannot be used are reported.
        kind: `objects`: each object's first name is its category; `regions`: each phrase is an expression about its
            box.
    """
    problems = problems or Problems()
    if kind not in KINDS:
        raise CorpusError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if split is not None:
        raise CorpusError(f"Visual Genome has no split {split!r}; leave it out")
    root = corpus_folder(root, "image_data.json, objects.json, region_descriptions.json and VG_100K")
    images = _images(first_file(root, ["image_data.json", "annotations/image_data.json"]))
    name = {"objects": "objects.json", "regions": "region_descriptions.json"}[kind]
    path = first_file(root, [name, f"annotations/{name}"])
    folders = [root / folder for folder in FOLDERS if (root / folder).is_dir()]
    seen = set()
    for entry in read_json(path, list):
        number = entry.get("image_id", entry.get("id"))
        label = f"image {number}"
        file = next((folder / f"{number}.jpg" for folder in folders if (folder / f"{number}.jpg").is_file()), None)
        if number in seen:
            problems.add(label, "its id occurs twice")
        elif number not in images:
            problems.add(label, "it is not in image_data.json")
        elif file is None:
            problems.add(label, f"its file {number}.jpg is in none of {', '.join(FOLDERS[:2])}")
        else:
            need_keys(entry, (kind,), f"{path}: {label}")
            size = images[number]
            objects, expressions = (
                _objects(entry, size, problems) if kind == "objects" else _regions(entry, size, problems)
            )
            if objects:
                yield make_row(number, file, size, objects, expressions)
        seen.add(number)
    problems.settle(path)


def _images(path: Path) -> dict[int, tuple[int, int]]:
    """Maps image ids to (height, width)."""
    sizes = {}
    for entry in read_json(path, list):
        number = entry.get("image_id", entry.get("id"))
        need_keys(entry, ("height", "width"), f"{path}: image {number}")
        sizes[number] = int(entry["height"]), int(entry["width"])
    return sizes


def _objects(entry: dict, size: tuple[int, int], problems: Problems) -> tuple[list[dict], list[dict]]:
    objects: list[dict] = []
    for item in entry["objects"]:
        name = f"object {item.get('object_id')}"
        category = " ".join(item["names"][0].lower().split()) if item.get("names") else ""
        if not category:
            problems.add(name, "it has no name")
            continue
        instance = make_object(name, size, problems, box=_box(item, "w", "h"), category=category)
        objects += [instance] if instance is not None else []
    return objects, []


def _regions(entry: dict, size: tuple[int, int], problems: Problems) -> tuple[list[dict], list[dict]]:
    objects: list[dict] = []
    expressions: list[dict] = []
    for item in entry["regions"]:
        name = f"region {item.get('region_id', item.get('id'))}"
        phrase = str(item.get("phrase") or "").strip()
        if not phrase:
            problems.add(name, "it has no phrase")
            continue
        instance = make_object(name, size, problems, box=_box(item, "width", "height"))
        if instance is not None:
            expressions.append(make_expression(phrase, [len(objects)]))
            objects.append(instance)
    return objects, expressions


def _box(item: dict, width: str, height: str) -> tuple | None:
    try:
        x, y, w, h = (float(item[key]) for key in ("x", "y", width, height))
    except (KeyError, TypeError, ValueError):
        return None
    return x, y, x + w, y + h

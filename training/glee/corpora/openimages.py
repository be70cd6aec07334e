"""OpenImages v6: boxes in a CSV file, one line each, the lines of a picture together."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from lookhear.processing.glee.image_reading_glee import open_picture
from lookhear.training.glee.corpora.reading import CorpusError, Problems, corpus_folder, first_file, first_folder
from lookhear.training.glee.corpora.schema import make_object, make_row, readable, usable

COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")


def read_openimages(
    root: str | Path, split: str = "train", problems: Problems | None = None, *, images: str | Path | None = None
) -> Iterator[dict]:
    """
    Reads OpenImages v6: `oidv6-train-annotations-bbox.csv` (`validation-annotations-bbox.csv`, `test-...`),
    `oidv6-class-descriptions.csv` or `class-descriptions-boxable.csv`, and the pictures in `{split}/`.

    The CSV file is read line by line, sizes from the pictures' headers. With
    `{split}-annotations-human-imagelabels-boxable.csv` beside it, a class that people saw in a picture without boxing
    it is never a negative there. Boxes around a group are crowds.

    Args:
        root: the folder of the CSV files.
        split: `train`, `validation` or `test`.
        problems: where annotations that cannot be used are reported.
        images: the folder of the pictures; None: `{split}`, `images/{split}` or `images` below `root`.
    """
    problems = problems or Problems()
    root = corpus_folder(root, f"oidv6-{split}-annotations-bbox.csv")
    names = [f"{at}{oid}{split}-annotations-bbox.csv" for at in ("", "annotations/") for oid in ("oidv6-", "")]
    path = first_file(root, names)
    classes = _class_names(root)
    seen_classes = _image_labels(path.with_name(f"{split}-annotations-human-imagelabels-boxable.csv"), classes)
    folder = Path(images) if images is not None else first_folder(root, [split, f"images/{split}", "images"])
    done = set()
    for name, lines in groupby(_lines(path, COLUMNS), key=lambda line: line["ImageID"]):
        file = folder / f"{name}.jpg"
        if name in done:
            problems.add(f"image {name}", "its lines are not consecutive: sort the file by ImageID")
            continue
        done.add(name)
        size = _picture_size(file, name, problems)
        if size is not None:
            objects = usable(_object(line, size, classes, problems) for line in lines)
            there = {instance["category"] for instance in objects}
            yield make_row(name, file, size, objects, incomplete=sorted(seen_classes.get(name, set()) - there))
        problems.settle(path)


def _object(line: dict, size: tuple[int, int], classes: dict[str, str], problems: Problems) -> dict | None:
    name = f"image {line['ImageID']}, box of {line['LabelName']}"
    if line["LabelName"] not in classes:
        problems.add(name, "this class is not among the class descriptions")
        return None
    height, width = size
    try:
        x0, x1, y0, y1 = (float(line[column]) for column in ("XMin", "XMax", "YMin", "YMax"))
        box = (x0 * width, y0 * height, x1 * width, y1 * height)
    except (TypeError, ValueError):
        box = tuple(line[column] for column in ("XMin", "YMin", "XMax", "YMax"))
    crowd = line.get("IsGroupOf") == "1"
    return make_object(name, size, problems, box=box, category=classes[line["LabelName"]], crowd=crowd)


def _picture_size(file: Path, name: str, problems: Problems) -> tuple[int, int] | None:
    """Reads (height, width) from a file's header; None, reported, if it cannot be read."""
    try:
        with open_picture(file) as picture:
            return picture.height, picture.width
    except FileNotFoundError:
        problems.add(f"image {name}", f"its file {file} is missing")
    except OSError as error:
        problems.add(f"image {name}", f"its file {file} is no picture ({error})")
    return None


def _class_names(root: Path) -> dict[str, str]:
    """Maps Freebase ids to names; the file has no header, or `LabelName,DisplayName`."""
    names = ["class-descriptions-boxable.csv", "oidv6-class-descriptions.csv", "oidv7-class-descriptions-boxable.csv"]
    path = first_file(root, [f"{at}{name}" for at in ("", "annotations/") for name in names])
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if len(row) == 2 and row[0] != "LabelName"]
    if not rows:
        raise CorpusError(f"{path}: expected lines such as /m/011k07,Tortoise")
    return {label: readable(name) for label, name in rows}


def _image_labels(path: Path, classes: dict[str, str]) -> dict[str, set[str]]:
    """Maps image ids to the classes that people saw there; empty without the file."""
    found: dict[str, set[str]] = defaultdict(set)
    if path.is_file():
        for line in _lines(path, ("ImageID", "LabelName", "Confidence")):
            if float(line["Confidence"]) > 0 and line["LabelName"] in classes:
                found[line["ImageID"]].add(classes[line["LabelName"]])
    return found


def _lines(path: Path, columns: tuple[str, ...]) -> Iterator[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise CorpusError(f"{path}: expected the columns {', '.join(columns)}; {', '.join(missing)} is missing")
        yield from reader

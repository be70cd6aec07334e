"""Videos with a PNG of objects for each frame: DAVIS, YouTube-VOS and similar folders, Ref-YouTube-VOS."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lookhear.processing.glee.geometry_glee import coco_rle
from lookhear.training.glee.corpora.masks import mask_box
from lookhear.training.glee.corpora.reading import (
    CorpusError,
    Problems,
    corpus_folder,
    first_folder,
    need_keys,
    read_json,
    read_lines,
)
from lookhear.training.glee.corpora.schema import make_expression, make_row, readable

FRAMES = (".jpg", ".jpeg", ".png")
VOID = 255  # in a PNG with a palette: pixels that belong to no object


def read_vos(root: str | Path, split: str | None = None, problems: Problems | None = None) -> Iterator[dict]:
    """
    Reads DAVIS 2016 or 2017 (`JPEGImages/480p/SEQUENCE/00000.jpg`, `Annotations/480p/SEQUENCE/00000.png`,
    `ImageSets/2017/train.txt`), YouTube-VOS and MOSE (`train/JPEGImages`, `train/Annotations`, `train/meta.json` with
    the objects' categories, if it exists), or any `JPEGImages` beside `Annotations`. A row is an annotated frame.

    A PNG holds the number of an object in each pixel, 0 for none; a black and white one has one object.

    Args:
        root: the folder of `JPEGImages` and `Annotations`, or of such folders.
        split: of DAVIS, the name of a list in `ImageSets/2017`, `ImageSets/2016` or `ImageSets/480p`; elsewhere the
            folder of `JPEGImages`. None: all sequences.
        problems: where annotations that cannot be used are reported.
    """
    problems = problems or Problems()
    root = corpus_folder(root, "JPEGImages and Annotations")
    base = root / split if split is not None and (root / split / "JPEGImages").is_dir() else root
    frames = first_folder(base, ["JPEGImages/480p", "JPEGImages"])
    masks = first_folder(base, ["Annotations/480p", "Annotations_unsupervised/480p", "Annotations"])
    names = sorted(folder.name for folder in masks.iterdir() if folder.is_dir())
    if split is not None and base == root:
        names = _listed(root, split)
    meta = read_json(base / "meta.json", dict).get("videos", {}) if (base / "meta.json").is_file() else {}
    for name in names:
        objects = meta.get(name, {}).get("objects", {})
        categories = {
            int(number): readable(entry["category"]) for number, entry in objects.items() if "category" in entry
        }
        yield from _rows(name, frames / name, masks / name, problems, categories)
        problems.settle(masks / name)


def read_refer_youtube_vos(root: str | Path, split: str = "train", problems: Problems | None = None) -> Iterator[dict]:
    """
    Reads Ref-YouTube-VOS: `meta_expressions/train/meta_expressions.json` over YouTube-VOS' `train/JPEGImages`,
    `train/Annotations` and `train/meta.json`. A row is an annotated frame with the sentences about objects that are in
    it.
    """
    problems = problems or Problems()
    root = corpus_folder(root, f"meta_expressions/{split}/meta_expressions.json, {split}/JPEGImages")
    path = root / "meta_expressions" / split / "meta_expressions.json"
    content = read_json(path, dict)
    need_keys(content, ("videos",), path)
    frames, masks = (first_folder(root, [f"{split}/{name}"]) for name in ("JPEGImages", "Annotations"))
    meta_path = root / split / "meta.json"
    meta = read_json(meta_path, dict).get("videos", {}) if meta_path.is_file() else {}
    for name, video in content["videos"].items():
        need_keys(video, ("expressions",), f"{path}: video {name}")
        sentences: dict[int, list[str]] = defaultdict(list)
        for number, entry in video["expressions"].items():
            if "obj_id" not in entry:
                problems.add(
                    f"video {name}, expression {number}", "it has no obj_id: its split is reserved for the challenge"
                )
            elif str(entry.get("exp", "")).strip():
                sentences[int(entry["obj_id"])].append(entry["exp"])
        objects = meta.get(name, {}).get("objects", {})
        categories = {
            int(number): readable(entry["category"]) for number, entry in objects.items() if "category" in entry
        }
        for row in _rows(name, frames / name, masks / name, problems, categories):
            for index, instance in enumerate(row["objects"]):
                row["expressions"] += [make_expression(text, [index]) for text in sentences[instance["track_id"]]]
            yield row
        problems.settle(path)


def _listed(root: Path, split: str) -> list[str]:
    """Reads the sequences of a DAVIS list: names, or lines `/JPEGImages/480p/bear/00000.jpg /Annotations/...`."""
    places = [root / "ImageSets" / folder / f"{split}.txt" for folder in ("2017", "2016", "480p")]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        known = sorted({file.stem for file in root.glob("ImageSets/*/*.txt")})
        hint = f"; there are {', '.join(known)}" if known else "; leave the split out to take all sequences"
        raise CorpusError(f"{root}: no list {split}.txt in ImageSets/2017, no folder {split}/JPEGImages{hint}")
    names = [line.split()[0] for line in read_lines(path)]
    return list(dict.fromkeys(Path(name).parent.name if name.count("/") > 1 else name for name in names))


def _rows(video: str, frames: Path, masks: Path, problems: Problems, categories: dict[int, str]) -> Iterator[dict]:
    """Makes the rows of a sequence's annotated frames."""
    if not masks.is_dir():
        problems.add(f"video {video}", f"its folder {masks} is missing")
        return
    for index, path in enumerate(sorted(masks.glob("*.png"))):
        name = f"{video}/{path.stem}"
        file = next((frames / f"{path.stem}{end}" for end in FRAMES if (frames / f"{path.stem}{end}").is_file()), None)
        if file is None:
            problems.add(f"frame {name}", f"its file {frames / path.stem}.jpg is missing")
            continue
        try:
            numbers = _object_numbers(path)
        except OSError as error:
            problems.add(f"frame {name}", f"its mask {path} cannot be read ({error})")
            continue
        objects = [_object(numbers == number, int(number), categories) for number in np.unique(numbers) if number]
        yield make_row(name, file, numbers.shape, objects, video=video, frame=index)


def _object(mask: np.ndarray, number: int, categories: dict[int, str]) -> dict:
    return {
        "box": list(mask_box(mask) or ()),
        "mask": {"counts": coco_rle(mask)["counts"], "polygons": None},
        "category": categories.get(number),
        "track_id": number,
        "crowd": False,
    }


def _object_numbers(path: Path) -> np.ndarray:
    """Reads `(height, width)` uint8: the number of the object in each pixel, 0 for none."""
    with Image.open(path) as picture:
        if picture.mode == "P":
            numbers = np.array(picture)
            numbers[numbers == VOID] = 0
            return numbers
        numbers = np.array(picture.convert("L"))
    if set(np.unique(numbers)) <= {0, VOID}:
        return (numbers > 0).astype(np.uint8)
    return numbers

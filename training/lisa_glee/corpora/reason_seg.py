"""ReasonSeg (Lai et al., CVPR 2024): questions that need a thought, answered by polygons, some of them explained."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags

from lookhear.processing.glee.image_reading_glee import open_picture
from lookhear.training.glee.corpora.masks import Size, fill_polygons
from lookhear.training.glee.corpora.reading import CorpusError, Problems, corpus_folder, need_keys, read_json
from lookhear.training.lisa_glee.corpora.schema import AnnotatedPicture, Corpus, Kind, LabelRegion, Subject

TARGET, IGNORED = 1, 255  # values in a filled map; 0 is the rest of the picture


@dataclass(frozen=True)
class Annotation:
    """
    What a picture's JSON file says.

    Attributes:
        queries: what is asked for; all mean the same region.
        sentences: whether they are whole sentences; else they are phrases.
        polygons: value that a polygon is filled with, and its corners `(n, 2)`, x and y in pixels.
    """

    queries: tuple[str, ...]
    sentences: bool
    polygons: tuple[tuple[int, np.ndarray], ...]


def open_reason_seg(root: str | Path, split: str = "train", problems: Problems | None = None) -> Corpus:
    """
    Opens ReasonSeg: `ReasonSeg/train/NAME.jpg`, `NAME.json`, and, if it exists, `explanatory/train.json`.

    Args:
        root: the folder `reason_seg`, or its `ReasonSeg`.
        split: `train`, `val` or `test`.
        problems: where pictures without annotations are reported.

    Raises:
        CorpusError: a folder or file is missing or of another form, or something was reported and `problems` does not
            skip.
    """
    problems = problems or Problems()
    root = corpus_folder(root, f"ReasonSeg/{split}")
    base = root / "ReasonSeg" if (root / "ReasonSeg").is_dir() else root
    folder = base / split
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder; unpack {split} of ReasonSeg there")
    rows = []
    for picture in sorted(folder.glob("*.jpg")):
        if picture.with_suffix(".json").is_file():
            rows.append(picture)
        else:
            problems.add(picture.name, f"its annotations {picture.with_suffix('.json')} are missing")
    problems.settle(folder)
    if not rows:
        raise CorpusError(f"{folder} holds no NAME.jpg with a NAME.json; unpack {split} of ReasonSeg there")
    places = [place / "explanatory" / f"{split}.json" for place in (base, root)]
    path = next((place for place in places if place.is_file()), None)
    return Corpus("reason_seg", rows, partial(read_picture, {} if path is None else read_explanations(path)))


def read_explanations(path: Path) -> dict[str, dict[str, str]]:
    """
    Reads `explanatory/train.json`.

    Args:
        path: of the file.

    Returns:
        for the file of each picture: question -> reason.

    Raises:
        CorpusError: it is not such a file.
    """
    reasons: dict[str, dict[str, str]] = defaultdict(dict)
    for entry in read_json(path, list):
        need_keys(entry, ("image", "query", "outputs"), path)
        reasons[Path(str(entry["image"])).name][one_line(entry["query"])] = one_line(entry["outputs"])
    return dict(reasons)


def read_picture(reasons: dict[str, dict[str, str]], picture: Path) -> AnnotatedPicture:
    """
    Reads a picture's annotations. A question that only the explanations have is asked for as well.

    Args:
        reasons: see [`read_explanations`].
        picture: its file, beside its JSON file.

    Raises:
        CorpusError: a file is missing or damaged.
    """
    annotation = read_annotation(picture.with_suffix(".json"))
    size = _size(picture)
    labels = fill(annotation.polygons, size)
    region = LabelRegion(labels, (TARGET,))
    explained = reasons.get(picture.name, {})
    kind: Kind = "question" if annotation.sentences else "phrase"
    subjects = tuple(
        Subject(kind, query, region, explained.get(query, ""))
        for query in dict.fromkeys((*annotation.queries, *explained))
    )
    image = {"path": str(picture), "bytes": None}
    return AnnotatedPicture(picture.stem, image, size, subjects, ignored=LabelRegion(labels, (IGNORED,)))


def read_annotation(path: Path) -> Annotation:
    """
    Reads a picture's JSON file, in UTF-8 or, as some are, in Windows' code page 1252.

    Args:
        path: of the file.

    Raises:
        CorpusError: no such file, or not of ReasonSeg's form.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing; copy it into place") from None
    try:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise CorpusError(f"{path}: expected a JSON object at the top")
    need_keys(found, ("shapes", "text", "is_sentence"), path)
    queries = [found["text"]] if isinstance(found["text"], str) else found["text"]
    texts = tuple(text for query in queries if (text := one_line(query)))
    return Annotation(texts, bool(found["is_sentence"]), tuple(_polygons(found["shapes"], path)))


def _polygons(shapes: list[Any], path: Path) -> list[tuple[int, np.ndarray]]:
    polygons = []
    for shape in shapes:
        need_keys(shape, ("label", "points"), f"{path}: shapes")
        label = str(shape["label"]).lower()
        if "flag" in label:  # marks the picture for its annotators
            continue
        try:
            points = np.array(shape["points"], dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError):
            raise CorpusError(f"{path}: points of {label!r} are not pairs of numbers") from None
        if len(points) >= 3:
            polygons.append((IGNORED if "ignore" in label else TARGET, points))
    return polygons


def fill(polygons: tuple[tuple[int, np.ndarray], ...], size: Size) -> np.ndarray:
    """
    Fills polygons from the largest to the smallest, so that small ones lie on top.

    Args:
        polygons: value and corners of each, see [`Annotation`].
        size: (height, width) of the picture.

    Returns:
        `(height, width)` uint8: `TARGET`, `IGNORED` or 0.
    """
    filled = [(value, fill_polygons([points.ravel().tolist()], size)) for value, points in polygons]
    labels = np.zeros(size, dtype=np.uint8)
    for value, mask in sorted(filled, key=lambda entry: -int(entry[1].sum())):
        labels[mask] = value
    return labels


def one_line(text: Any) -> str:
    """
    Writes a text in one line, without double spaces.

    Args:
        text: of a file.
    """
    return " ".join(str(text).split())


def _size(path: Path) -> Size:
    """Returns (height, width) of an upright picture, from its header."""
    try:
        with open_picture(path) as opened:
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)  # by 90 degrees
            return (opened.width, opened.height) if turned else (opened.height, opened.width)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read ({error})") from None

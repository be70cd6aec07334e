"""ReasonSeg: questions that need a thought before a part of a picture can be shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageDraw

from lookhear.evaluation.measures.mask_runs import encode_mask
from lookhear.evaluation.protocols.answers import answer_figures, ask_about
from lookhear.evaluation.protocols.layout import LayoutError, find_folder, need_files, need_folder
from lookhear.evaluation.protocols.pictures import need_pictures, open_batches
from lookhear.evaluation.protocols.run import ProtocolReport, ProtocolRun
from lookhear.processing.glee import open_picture

FIGURES = ("gIoU", "cIoU")
MEANT, IGNORED = 1, 255  # pixel values of the published maps
KEYS = ("shapes", "text", "is_sentence")
# Queries alone don't say that something is to be shown. Both forms are among those that training uses.
SENTENCE, PHRASE = "{query} Show your answer in the picture.", "Show me this part of the picture: {query}."


@dataclass(frozen=True)
class ReasonSegPicture:
    """
    What is published about a picture.

    Attributes:
        queries: texts that all mean the same pixels.
        long: whether they are whole sentences; else they are phrases.
        polygons: (pixel value, corners `(n, 2)` int32: x and y in pixels) of each.
    """

    queries: list[str]
    long: bool
    polygons: list[tuple[int, np.ndarray]]


def run_reasonseg(run: ProtocolRun) -> ProtocolReport:
    """
    Runs ReasonSeg: `ReasonSeg/val/NAME.jpg` and `NAME.json`; gIoU and cIoU over all queries, of phrases (short) and of
    sentences (long).

    Splits: `val` (default), `test`, `train`. `data` is the folder that holds `ReasonSeg`, or that folder itself.
    """
    root, split = need_folder(run.data, "ReasonSeg/val, with NAME.jpg and NAME.json"), run.split or "val"
    folder = find_folder(root, [f"ReasonSeg/{split}", f"reason_seg/ReasonSeg/{split}", split])
    pictures = need_folder(run.images, "ReasonSeg's pictures") if run.images else folder
    names = run.some(_names(folder, pictures))
    truth = {name: read_annotations(folder / f"{name}.json") for name in names}
    stored = run.stored(split)
    questions = [
        (name, pictures / f"{name}.jpg", [_question(truth[name], query) for query in truth[name].queries])
        for name in names
    ]
    need_pictures(run, stored, questions)
    for batch in open_batches(run, stored, questions):
        answers = ask_about(run, [str(path) for _, path, _ in batch], [texts for _, _, texts in batch])
        for (name, _, _), some in zip(batch, answers, strict=True):
            stored.add(name, some)
    references: list[dict[str, Any]] = []
    predictions: list[dict[str, Any]] = []
    first: list[int] = []  # places of the first query of each picture
    for name, path, _ in questions:
        first.append(len(references))
        row = {**reference(truth[name], picture_size(path)), "group": "long" if truth[name].long else "short"}
        references += [row] * len(truth[name].queries)
        predictions += stored[name]
    metrics = answer_figures(references, predictions, FIGURES)
    note, parts = "", {}
    if len(first) < len(references):
        meant, shown = ([rows[place] for place in first] for rows in (references, predictions))
        parts = {"first_query": answer_figures(meant, shown, FIGURES)}
        note = "figures over every query of a picture; report.json has those over first queries, as published"
    return ProtocolReport(run.name, split, metrics, len(references), "queries", [stored.path], note, parts)


def _names(folder: Path, pictures: Path) -> list[str]:
    """Returns the names of all pictures with annotations, and checks that neither lacks the other."""
    found = {path.stem for place, end in ((folder, ".json"), (pictures, ".jpg")) for path in place.glob(f"*{end}")}
    names = sorted(name for name in found if not name.startswith("."))
    if not names:
        raise LayoutError(f"{folder}: expected NAME.jpg and NAME.json; unpack the split there")
    need_files((folder / f"{name}.json" for name in names), str(folder))
    return names


def _question(picture: ReasonSegPicture, query: str) -> str:
    """Writes a query as a question to the model."""
    if picture.long:
        return SENTENCE.format(query=query if query.endswith((".", "?", "!")) else f"{query}.")
    return PHRASE.format(query=query.rstrip(" .?!"))


def read_annotations(path: Path) -> ReasonSegPicture:
    """
    Reads a picture's file, in UTF-8 or, as some are, in cp1252.

    Raises:
        LayoutError: it is not of ReasonSeg's form.
    """
    content = path.read_bytes()
    try:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")
        found = json.loads(text)
    except ValueError as error:  # of the decoding or of JSON
        raise LayoutError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict) or (missing := [key for key in KEYS if key not in found]):
        lacking = ", ".join(KEYS if not isinstance(found, dict) else missing)
        raise LayoutError(f"{path}: expected an object with {', '.join(KEYS)}; {lacking} is missing")
    texts = [found["text"]] if isinstance(found["text"], str) else found["text"]
    if not isinstance(texts, list) or not isinstance(found["shapes"], list):
        raise LayoutError(f"{path}: text and shapes have to be lists")
    queries = [" ".join(query.split()) for query in texts if isinstance(query, str) and query.strip()]
    if not queries:
        raise LayoutError(f"{path}: text holds no query")
    return ReasonSegPicture(queries, bool(found["is_sentence"]), _polygons(found["shapes"], path))


def _polygons(shapes: Sequence[Any], path: Path) -> list[tuple[int, np.ndarray]]:
    polygons: list[tuple[int, np.ndarray]] = []
    for shape in shapes:
        try:
            label, points = str(shape["label"]).lower(), np.asarray(shape["points"], np.float64).reshape(-1, 2)
        except (KeyError, TypeError, ValueError):
            raise LayoutError(f"{path}: a shape needs a label and points, a list of [x, y]") from None
        if not np.isfinite(points).all():
            raise LayoutError(f"{path}: the points of a shape have to be finite numbers")
        if "flag" not in label and len(points):  # a flag is a remark about the picture
            polygons.append((IGNORED if "ignore" in label else MEANT, points.astype(np.int32)))
    return polygons


def reference(picture: ReasonSegPicture, size: tuple[int, int]) -> dict[str, Any]:
    """
    Draws what is meant.

    Args:
        picture: see `read_annotations`.
        size: (height, width) in pixels.

    Returns:
        `{"masks", "ignored"}` for `shown_rates`.
    """
    values = fill(picture.polygons, size)
    masks = [encode_mask(values == MEANT)] if (values == MEANT).any() else []
    return {"masks": masks, "ignored": encode_mask(values == IGNORED)}


def fill(polygons: Sequence[tuple[int, np.ndarray]], size: tuple[int, int]) -> np.ndarray:
    """
    Fills polygons from the largest to the smallest, outlines included, as the published maps are made.

    Args:
        polygons: (pixel value, corners).
        size: (height, width) in pixels.

    Returns:
        `(height, width)` uint8: `MEANT`, `IGNORED` or 0.
    """
    filled = [(value, _filled(points, size)) for value, points in polygons]
    values = np.zeros(size, np.uint8)
    for value, mask in sorted(filled, key=lambda entry: -int(entry[1].sum())):
        values[mask] = value
    return values


def _filled(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Fills a polygon; one or two corners are a point or a line. Returns `(height, width)` bool."""
    picture = Image.new("1", (size[1], size[0]))
    corners = [(int(x), int(y)) for x, y in points]
    if len(corners) < 3:
        ImageDraw.Draw(picture).line([corners[0], corners[-1]], fill=1)
    else:
        ImageDraw.Draw(picture).polygon(corners, fill=1, outline=1)
    return np.array(picture)


def picture_size(path: Path) -> tuple[int, int]:
    """Reads (height, width) of a picture the right way up, in which polygons are given, from its header."""
    try:
        with open_picture(path) as picture:
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # by 90 degrees
            return (picture.width, picture.height) if turned else (picture.height, picture.width)
    except OSError as error:
        raise LayoutError(f"{path} cannot be read: {error}") from None

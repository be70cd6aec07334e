"""The schema of all corpora: a row is a picture, still or frame of a video, with its annotations.

| column | type | meaning |
|---|---|---|
| `id` | string | unique within the data set and split |
| `image` | `{"path", "bytes"}` | a file, or its content; decoded only when the row is used |
| `height`, `width` | int32 | size of the annotated picture in pixels |
| `video`, `frame` | string, int32 | the video and the place in it, or None; its annotated frames are rows, in order |
| `objects` | list | see below |
| `expressions` | list of `{"text", "objects"}` | a sentence or phrase, and the indices in `objects` of what it names |
| `incomplete` | list of string | categories not annotated exhaustively here (LVIS, OpenImages): never negatives |

An object has
`box` (4 x float32: x0, y0, x1, y1 in pixels, within the picture), `mask` (None, or `{"counts", "polygons"}`, one of
them None: COCO's compressed run lengths of the size of the picture, or lists x0, y0, x1, y1, ...), `category` (its
name in words; None if it is unlabelled), `track_id` (int64, the same in all frames of a video; None in stills),
`crowd` (a group under one box: left out in training).

Which losses a data set's annotations allow is not a column, as it is the same for all rows: see `supervision.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookhear.processing.glee.geometry_glee import compress_runs, expand_runs, mask_of_runs
from lookhear.training.glee.corpora.masks import Size, mask_box, polygon_box
from lookhear.training.glee.corpora.reading import Problems

if TYPE_CHECKING:
    import datasets

SLACK = 0.02  # share of a side by which a box may exceed its picture; it is cut off, beyond that an error


def features() -> datasets.Features:
    """Returns the schema as `datasets.Features`."""
    from datasets import Features, Image, List, Value

    mask = {"counts": Value("string"), "polygons": List(List(Value("float64")))}
    annotated = {
        "box": List(Value("float32"), length=4),
        "mask": mask,
        "category": Value("string"),
        "track_id": Value("int64"),
        "crowd": Value("bool"),
    }
    return Features(
        {
            "id": Value("string"),
            "image": Image(decode=False),
            "height": Value("int32"),
            "width": Value("int32"),
            "video": Value("string"),
            "frame": Value("int32"),
            "objects": List(annotated),
            "expressions": List({"text": Value("string"), "objects": List(Value("int32"))}),
            "incomplete": List(Value("string")),
        }
    )


def make_row(
    name: Any,
    image: Path | bytes,
    size: Size,
    objects: Sequence[dict] = (),
    expressions: Sequence[dict] = (),
    video: str | None = None,
    frame: int | None = None,
    incomplete: Sequence[str] = (),
) -> dict:
    """Makes a row; `image` is a file or the content of one."""
    path, content = (None, image) if isinstance(image, bytes) else (str(image), None)
    return {
        "id": str(name),
        "image": {"path": path, "bytes": content},
        "height": size[0],
        "width": size[1],
        "video": video,
        "frame": frame,
        "objects": list(objects),
        "expressions": list(expressions),
        "incomplete": list(incomplete),
    }


def make_object(
    name: str,
    size: Size,
    problems: Problems,
    box: Sequence[float] | None = None,
    segmentation: Any = None,
    category: str | None = None,
    track_id: int | None = None,
    crowd: bool = False,
) -> dict | None:
    """
    Checks an annotation and makes an object of the schema.

    Args:
        name: of the annotation, for `problems`.
        size: (height, width) of the picture.
        problems: where an annotation that cannot be used is reported.
        box: x0, y0, x1, y1 in pixels; None: that of the mask.
        segmentation: in COCO's form: polygons, or `{"size", "counts"}` with a list or string; None or empty: no mask.
        category: its name in words.
        track_id: the same in all frames of a video.
        crowd: whether it is a group.

    Returns:
        The object, or None, reported, if it cannot be used.
    """
    mask = _checked_mask(name, size, problems, segmentation)
    if has_mask(segmentation) and mask is None:
        return None
    if box is None and mask is not None:
        box = polygon_box(mask["polygons"]) if mask["polygons"] is not None else _runs_box(mask["counts"], size)
    box = _checked_box(name, size, problems, box)
    if box is None:
        return None
    return {"box": box, "mask": mask, "category": category, "track_id": track_id, "crowd": crowd}


def usable(objects: Iterable[dict | None]) -> list[dict]:
    """Drops the objects that `make_object` has reported."""
    return [instance for instance in objects if instance is not None]


def _checked_box(name: str, size: Size, problems: Problems, box: Any) -> list[float] | None:
    """Cuts a box to the picture; None, reported, if it has no area or exceeds the picture."""
    try:
        x0, y0, x1, y1 = (float(value) for value in box)
    except (TypeError, ValueError):
        problems.add(name, f"its box is {box!r}, not four numbers")
        return None
    height, width = size
    shown = f"its box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not (x1 > x0 and y1 > y0):  # also for NaN
        problems.add(name, f"{shown} has no area")
        return None
    if are_shares((x0, y0, x1, y1)):
        problems.add(name, f"{shown} is in shares of the picture, not in pixels")
        return None
    slack_x, slack_y = max(2.0, SLACK * width), max(2.0, SLACK * height)
    outside = x0 < -slack_x or y0 < -slack_y or x1 > width + slack_x or y1 > height + slack_y
    cut = [max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))]
    if outside or cut[0] >= cut[2] or cut[1] >= cut[3]:
        problems.add(name, f"{shown} lies outside of its picture of width {width} and height {height}")
        return None
    return cut


def are_shares(numbers: Any) -> bool:
    """Returns whether coordinates are from 0 to 1 and not whole, so that they would all be in the first pixel."""
    try:
        values = [float(value) for value in numbers]
    except (TypeError, ValueError):
        return False
    return all(0 <= value <= 1 for value in values) and any(0 < value < 1 for value in values)


def is_apart(found: dict) -> bool:
    """Returns whether an object's polygons lie outside of its box, by more than a pixel."""
    if found["mask"] is None or not found["mask"]["polygons"]:
        return False
    x0, y0, x1, y1 = polygon_box(found["mask"]["polygons"])
    left, top, right, bottom = found["box"]
    return x0 > right + 1 or x1 < left - 1 or y0 > bottom + 1 or y1 < top - 1


def _checked_mask(name: str, size: Size, problems: Problems, segmentation: Any) -> dict | None:
    """Returns polygons, or run lengths as a string; None if there is no mask, or an invalid one, which is reported."""
    if not has_mask(segmentation):
        return None
    try:
        if isinstance(segmentation, dict):
            return {"counts": _checked_runs(segmentation, size), "polygons": None}
        return {"counts": None, "polygons": _checked_polygons(segmentation)}
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        problems.add(name, f"its mask cannot be used: {reason}")
        return None


def _checked_runs(segmentation: dict, size: Size) -> str:
    counts = segmentation["counts"]
    if [int(side) for side in segmentation["size"]] != list(size):
        height, width = segmentation["size"]
        raise ValueError(f"its size is {height} x {width}, its picture's {size[0]} x {size[1]}")
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    runs = expand_runs(counts) if isinstance(counts, str) else counts
    covered, lowest = sum(map(int, runs)), min(map(int, runs), default=0)
    if covered != size[0] * size[1] or lowest < 0:
        raise ValueError(f"its run lengths cover {covered} pixels of {size[0] * size[1]}")
    if sum(map(int, runs[1::2])) == 0:
        raise ValueError("it is empty")
    return counts if isinstance(counts, str) else compress_runs(counts)


def has_mask(segmentation: Any) -> bool:
    """Returns whether an annotation has a segmentation at all; `[[]]`, as some tools write it, is none."""
    return bool(segmentation) and (isinstance(segmentation, dict) or segmentation != [[]])


def _checked_polygons(segmentation: list) -> list[list[float]]:
    if all(isinstance(value, (int, float)) for value in segmentation):  # one polygon, without the list around it
        segmentation = [segmentation]
    elif len(segmentation) > 2 and all(map(_is_point, segmentation)):  # one polygon of pairs
        segmentation = [segmentation]
    polygons = [[float(value) for value in _flat(polygon)] for polygon in segmentation]
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        raise ValueError("a polygon needs three points")
    if are_shares(value for polygon in polygons for value in polygon):
        raise ValueError("its coordinates are shares of the picture, not pixels")
    if any(len(polygon) % 2 for polygon in polygons):
        raise ValueError("a polygon has an odd number of coordinates")
    return polygons


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(number, (int, float)) for number in value)


def _flat(polygon: list) -> list:
    """Returns x and y in turn, also of a polygon of pairs."""
    return [number for point in polygon for number in point] if polygon and all(map(_is_point, polygon)) else polygon


def _runs_box(counts: str, size: Size) -> tuple[float, float, float, float] | None:
    return mask_box(mask_of_runs(expand_runs(counts), size))


def crowd_flag(name: str, entry: dict, problems: Problems) -> bool | None:
    """Returns whether an annotation's `iscrowd` is set; null is as good as 0. None, reported, for anything but 0 or 1,
    such as the NaN that pandas writes for an empty cell."""
    crowd = entry.get("iscrowd") or 0
    if crowd not in (0, 1):
        problems.add(name, f"its iscrowd is {crowd!r}, not 0 or 1")
        return None
    return bool(crowd)


def xyxy(box: Any) -> Any:
    """Converts COCO's x, y, width, height to x0, y0, x1, y1; anything but four numbers is left to `make_object`."""
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError):
        return box
    return x, y, x + width, y + height


def readable(name: str) -> str:
    """Writes a category's name in words: `baseball_bat` -> `baseball bat`."""
    return " ".join(name.replace("_", " ").split())


def make_expression(text: str, objects: Sequence[int]) -> dict:
    """Makes a sentence or phrase about some of a row's objects."""
    return {"text": " ".join(text.split()), "objects": list(objects)}

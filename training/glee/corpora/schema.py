"""The one schema of all corpora: a row is one picture, still or frame of a video, with what is annotated in it.

| column | type | meaning |
|---|---|---|
| `id` | string | unique within the data set and split |
| `image` | `{"path", "bytes"}` | a file, or its content; decoded only when the example is taken |
| `height`, `width` | int32 | of the picture as it was annotated, in pixels |
| `video`, `frame` | string, int32 | the video and the place in it, or None: rows of a video are its annotated frames in order |
| `objects` | list | see below |
| `expressions` | list of `{"text", "objects"}` | a sentence or phrase, and the indices in `objects` of what it names |
| `incomplete` | list of string | categories not all of whose objects are annotated here (LVIS, OpenImages): never asked for as absent |

An object has
`box` (4 x float32: x0, y0, x1, y1 in pixels, within the picture), `mask` (None, or `{"counts", "polygons"}`, one of them None:
COCO's compressed run lengths of the size of the picture, or lists x0, y0, x1, y1, ...), `category` (its name in words; None
where it is unlabelled), `track_id` (int64, the same in all frames of a video; None in stills), `crowd` (a group
under one box: left out in training).

What a data set's annotations are good for is no column: it is the same for all its rows. See `supervision.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookhear.processing.glee.run_lengths_glee import compress_runs, expand_runs, mask_of_runs
from lookhear.training.glee.corpora.masks import Size, mask_box, polygon_box
from lookhear.training.glee.corpora.reading import Problems

if TYPE_CHECKING:
    import datasets

SLACK = 0.02  # of a side: what a box may stick out of its picture before it is an error; it is cut off


def features() -> datasets.Features:
    """The schema as `datasets.Features`."""
    from datasets import Features, Image, List, Value

    mask = {"counts": Value("string"), "polygons": List(List(Value("float64")))}
    thing = {
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
            "objects": List(thing),
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
    """One row; `image` is a file or the content of one."""
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
    One object, checked.

    Args:
        name: of the annotation, for `problems`; size: (height, width) of the picture.
        box: x0, y0, x1, y1; None: that of the mask. segmentation: as COCO writes it: polygons, or `{"size", "counts"}`
            with a list or string; None or empty: there is no mask.

    Returns:
        the object, or None where it cannot be used, which is reported.
    """
    mask = _checked_mask(name, size, problems, segmentation)
    if segmentation and mask is None:
        return None
    if box is None and mask is not None:
        box = polygon_box(mask["polygons"]) if mask["polygons"] is not None else _runs_box(mask["counts"], size)
    box = _checked_box(name, size, problems, box)
    if box is None:
        return None
    return {"box": box, "mask": mask, "category": category, "track_id": track_id, "crowd": crowd}


def usable(objects: Iterable[dict | None]) -> list[dict]:
    """Without those that `make_object` has reported."""
    return [thing for thing in objects if thing is not None]


def _checked_box(name: str, size: Size, problems: Problems, box: Any) -> list[float] | None:
    """The box cut to the picture; None, reported, for one without area or that leaves it."""
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
    slack_x, slack_y = max(2.0, SLACK * width), max(2.0, SLACK * height)
    outside = x0 < -slack_x or y0 < -slack_y or x1 > width + slack_x or y1 > height + slack_y
    cut = [max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))]
    if outside or cut[0] >= cut[2] or cut[1] >= cut[3]:
        problems.add(name, f"{shown} lies outside of its picture of width {width} and height {height}")
        return None
    return cut


def _checked_mask(name: str, size: Size, problems: Problems, segmentation: Any) -> dict | None:
    """Polygons, or run lengths as a string; None where there is no mask, or a bad one, which is reported."""
    if not segmentation:
        return None
    try:
        if isinstance(segmentation, dict):
            return {"counts": _checked_runs(segmentation, size), "polygons": None}
        return {"counts": None, "polygons": _checked_polygons(segmentation)}
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        problems.add(name, f"its mask is no use: {reason}")
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


def _checked_polygons(segmentation: list) -> list[list[float]]:
    polygons = [[float(value) for value in polygon] for polygon in segmentation]
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        raise ValueError("a polygon needs three points")
    if any(len(polygon) % 2 for polygon in polygons):
        raise ValueError("a polygon has an odd number of coordinates")
    return polygons


def _runs_box(counts: str, size: Size) -> tuple[float, float, float, float] | None:
    return mask_box(mask_of_runs(expand_runs(counts), size))


def xyxy(box: Any) -> Any:
    """COCO's x, y, width, height as x0, y0, x1, y1; what isn't four numbers is left for `make_object` to report."""
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError):
        return box
    return x, y, x + width, y + height


def readable(name: str) -> str:
    """A category's name in words: `baseball_bat` -> `baseball bat`."""
    return " ".join(name.replace("_", " ").split())


def make_expression(text: str, objects: Sequence[int]) -> dict:
    """A sentence or phrase about some of a row's objects."""
    return {"text": " ".join(text.split()), "objects": list(objects)}

"""BDD100K: boxes on 100 000 street scenes, masks on 10 000 of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.training.glee.corpora.reading import (
    CorpusError,
    Problems,
    corpus_folder,
    first_file,
    first_folder,
    need_keys,
    read_json,
)
from lookhear.training.glee.corpora.schema import make_object, make_row, readable, usable

SIZE = (720, 1280)  # (height, width) of all pictures
FILES = {
    "det": ["labels/det_20/det_{split}.json"],
    "ins": ["labels/ins_seg/rles/ins_seg_{split}.json", "labels/ins_seg/polygons/ins_seg_{split}.json"],
}
PICTURES = {"det": ["images/100k/{split}"], "ins": ["images/10k/{split}"]}
CURVE_STEPS = 8  # points that approximate a Bezier curve of a polygon


def read_bdd100k(
    root: str | Path, split: str = "train", problems: Problems | None = None, *, kind: str = "det"
) -> Iterator[dict]:
    """
    Reads BDD100K (2020 labels). Pictures without a usable object are left out.

    Args:
        root: the folder of `images` and `labels`.
        split: `train` or `val`.
        problems: where annotations that cannot be used are reported.
        kind: `det`: boxes, `labels/det_20/det_{split}.json` over `images/100k/{split}`; `ins`: masks,
            `labels/ins_seg/{rles,polygons}/ins_seg_{split}.json` over `images/10k/{split}`.
    """
    problems = problems or Problems()
    if kind not in FILES:
        raise CorpusError(f"kind must be one of {', '.join(FILES)}, not {kind!r}")
    root = corpus_folder(root, "images and labels")
    path = first_file(root, [name.format(split=split) for name in FILES[kind]])
    folder = first_folder(root, [name.format(split=split) for name in PICTURES[kind]])
    content = read_json(path, (dict, list))
    frames = content["frames"] if isinstance(content, dict) and "frames" in content else content
    if not isinstance(frames, list):
        raise CorpusError(f"{path}: expected a list of pictures, or an object with the list 'frames'")
    seen = set()
    for frame in frames:
        need_keys(frame, ("name",), path)
        name, file = frame["name"], folder / frame["name"]
        if name in seen:
            problems.add(f"image {name}", "its name occurs twice")
        elif not file.is_file():
            problems.add(f"image {name}", f"its file {file} is missing")
        else:
            objects = usable(_object(label, problems) for label in frame.get("labels") or ())
            if objects:
                yield make_row(name, file, SIZE, objects)
        seen.add(name)
    problems.settle(path)


def _object(label: dict, problems: Problems) -> dict | None:
    name = f"label {label.get('id')}"
    if not label.get("category"):
        problems.add(name, "it has no category")
        return None
    box = None
    if label.get("box2d"):
        box = [label["box2d"].get(key) for key in ("x1", "y1", "x2", "y2")]
    segmentation = label.get("rle") or [_outline(part) for part in label.get("poly2d") or ()]
    if box is None and not segmentation:
        return None  # lanes and drivable areas in older files
    crowd = bool((label.get("attributes") or {}).get("crowd"))
    return make_object(name, SIZE, problems, box, segmentation, readable(label["category"]), crowd=crowd)


def _outline(part: dict) -> list[float]:
    """
    Converts a polygon to x0, y0, x1, y1, ...

    Of the letters in `types`, "L" is a corner; of three "C" in a row, two are control points of a cubic Bezier curve
    and the third is its end.
    """
    points, types = np.asarray(part["vertices"], dtype=np.float64), part.get("types") or ""
    outline: list[Any] = []
    index = 0
    while index < len(points):
        if types[index : index + 3] == "CCC" and outline:
            share = np.linspace(0, 1, CURVE_STEPS + 1)[1:, None]
            start, (first, second, end) = np.asarray(outline[-1]), points[index : index + 3]
            curve = (1 - share) ** 3 * start + 3 * (1 - share) ** 2 * share * first
            outline += list(curve + 3 * (1 - share) * share**2 * second + share**3 * end)
            index += 3
        else:
            outline.append(points[index])
            index += 1
    return [float(value) for point in outline for value in point]

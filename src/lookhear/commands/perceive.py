"""`lookhear perceive`: objects found in pictures, as a table, as JSON, and drawn on the pictures."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from lookhear.commands.stills import Still
from lookhear.evaluation.whole_files import whole_file, write_text
from lookhear.processing.glee import PictureLimits, coco_rle, draw_objects, read_image

HEADER = ("score", "label", "xmin", "ymin", "xmax", "ymax", "area")


class Record(Protocol):
    """The pictures that were searched: by name, what was found in them."""

    def __contains__(self, name: str, /) -> bool: ...
    def __getitem__(self, name: str, /) -> Any: ...
    def add(self, name: str, written: Sequence[Path], /, **facts: Any) -> None: ...


def perceive(
    files: Sequence[str | Still],
    see: Any,
    prompts: Mapping[str, Any],
    *,
    pictures: Sequence[Path] | None = None,
    json_path: str | None = None,
    coco: Path | None = None,
    batch_size: int = 1,
    num_workers: int | None = None,
    done: Record | None = None,
    **settings: Any,
) -> int:
    """
    Runs the pipeline on pictures; prints and writes what was found.

    Args:
        files: paths or URLs, or pictures of a file. One that cannot be read is reported; the others are searched.
        see: pipeline of the task `object-perception`.
        prompts: `labels` and `expressions` for all pictures, or any prompts for one.
        pictures: where each file's overlay goes; None for none.
        json_path: of the JSON; "-" prints it instead of the table, None leaves it out.
        coco: of a file in COCO's form, which `lookhear train glee` reads; None for none.
        batch_size: pictures that go through the model together.
        num_workers: processes that read pictures ahead, see the pipeline.
        done: what an interrupted call has found; what is found is added to it.
        settings: of the pipeline, such as `threshold`.

    Returns:
        How many files could not be read.

    Raises:
        ValueError: the prompts cannot be used.
    """
    from tqdm.auto import tqdm

    names = [str(file) for file in files]
    rows, entries, failed = [], [], 0
    found_in = looked_at(files, see, prompts, batch_size, num_workers, settings, done)
    for index, image, objects in tqdm(found_in, "images", len(files), file=sys.stderr, disable=len(files) == 1):
        if isinstance(image, ValueError):
            failed += 1
            print(f"lookhear perceive: error: {' '.join(str(image).split())}", file=sys.stderr)
            continue
        if done is not None and image is None:
            rows += done[names[index]]["rows"]
            entries.append(done[names[index]]["entry"])
            continue
        if not objects:
            print(f"lookhear perceive: nothing found in {names[index]}", file=sys.stderr)
        of_image = [_row(names[index], found) for found in objects]
        rows += of_image
        entries.append(to_entry(names[index], image, objects))
        if pictures is not None:
            drawn = {name: prompts[name] for name in ("points", "boxes", "scribbles") if name in prompts}
            whole = image if isinstance(image, Image.Image) else read_image(files[index], True, _limits(settings))
            with whole_file(pictures[index]) as partial:
                draw_objects(whole, objects, **drawn).save(partial)
            print(pictures[index], file=sys.stderr)
        if done is not None:
            overlay = [] if pictures is None else [pictures[index]]
            done.add(names[index], overlay, rows=of_image, entry=entries[-1])
    if not entries:
        return failed
    text = json.dumps({"images": entries}, ensure_ascii=False) + "\n"
    print(text if json_path == "-" else format_table(rows, len(files) > 1), end="")
    if json_path not in (None, "-"):
        write_text(json_path, text)
    if coco is not None:
        labels = [*(prompts.get("labels") or ()), *(prompts.get("expressions") or ())]
        write_text(coco, json.dumps(as_coco(entries, coco.parent, labels), ensure_ascii=False) + "\n")
        print(coco, file=sys.stderr)
    return failed


def as_coco(entries: Sequence[Mapping[str, Any]], folder: Path, labels: Sequence[str]) -> dict[str, list]:
    """
    Returns what was found in COCO's form, with masks as run lengths and the score of each object.

    Args:
        entries: pictures, see [`to_entry`].
        folder: that the names of files are relative to.
        labels: categories that get the first numbers; others follow in order of appearance.
    """
    numbers = {label: number + 1 for number, label in enumerate(dict.fromkeys(labels))}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for entry in entries:
        name = Path(os.path.relpath(entry["image"], folder)).as_posix()
        images.append({"id": len(images) + 1, "file_name": name, "height": entry["height"], "width": entry["width"]})
        for found in entry["objects"]:
            x0, y0, x1, y1 = found["box"].values()
            if found["area"] == 0 or x1 <= x0 or y1 <= y0:
                continue  # an object without pixels teaches nothing
            box = [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]
            category = numbers.setdefault(found["label"], len(numbers) + 1)
            places = {"id": len(annotations) + 1, "image_id": len(images), "category_id": category, "iscrowd": 0}
            what = {"bbox": box, "area": found["area"], "segmentation": found["mask"], "score": found["score"]}
            annotations.append(places | what)
    categories = [{"id": number, "name": label} for label, number in numbers.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def looked_at(
    files: Sequence[str | Still],
    see: Any,
    prompts: Mapping[str, Any],
    batch_size: int,
    num_workers: int | None,
    settings: Mapping[str, Any],
    done: Record | None,
) -> Iterator[tuple[int, Any, list[dict]]]:
    """
    Yields (index, picture or what is wrong with the file, objects) for each file; without picture for those of batches
    that are done.

    Args:
        files: see [`perceive`].
        see: see [`perceive`].
        prompts: see [`perceive`].
        batch_size: see [`perceive`].
        num_workers: see [`perceive`].
        settings: of the pipeline.
        done: see [`perceive`].
    """
    batches = [range(first, min(first + batch_size, len(files))) for first in range(0, len(files), batch_size)]
    left = [done is None or not all(str(files[index]) in done for index in batch) for batch in batches]
    wanted = [files[index] for batch, open_ in zip(batches, left) if open_ for index in batch]
    read = _pictures(wanted, see, num_workers, settings)
    for batch, open_ in zip(batches, left):
        if not open_:
            yield from ((index, None, []) for index in batch)
            continue
        pictures = list(islice(read, len(batch)))
        usable = [picture for picture in pictures if not isinstance(picture, ValueError)]
        if len(files) == 1 and usable:
            results = iter([see(usable[0], **prompts, **settings)])
        else:
            results = iter(see(usable, **prompts, **settings, batch_size=batch_size) if usable else [])
        for index, picture in zip(batch, pictures):
            yield index, picture, [] if isinstance(picture, ValueError) else next(results)


def _pictures(
    files: Sequence[str | Still], see: Any, num_workers: int | None, settings: Mapping[str, Any]
) -> Iterator[Any]:
    """Yields each file's picture, or what is wrong with it: read as a whole here, or for the model by workers."""
    if len(files) > 1 and all(isinstance(file, str) and "://" not in file for file in files):
        yield from see.read_pictures(files, num_workers, settings.get("max_pixels"))
        return
    for file in files:
        try:
            yield file.read() if isinstance(file, Still) else read_image(file, True, _limits(settings))
        except ValueError as error:
            yield error


def _limits(settings: Mapping[str, Any]) -> PictureLimits:
    most = settings.get("max_pixels")
    return PictureLimits() if most is None else PictureLimits(max_pixels=most)


def format_table(rows: Sequence[tuple[str, ...]], several: bool) -> str:
    """Formats objects in aligned columns, one per line.

    Args:
        rows: file, then the cells of `HEADER`.
        several: with the file in the last column.
    """
    cells = [(*HEADER, "image"), *((*row[1:], row[0]) for row in rows)]
    cells = cells if several else [line[:-1] for line in cells]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    text = {1, len(HEADER)}  # columns that begin at the left
    lines = [
        "  ".join(
            cell.ljust(width) if column in text else cell.rjust(width) for column, (cell, width) in enumerate(pairs)
        )
        for pairs in (list(zip(line, widths, strict=True)) for line in cells)
    ]
    lines = [line.rstrip() for line in lines]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]) + "\n"


def _row(file: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    box = (f"{side:.1f}" for side in found["box"].values())
    return (file, f"{found['score']:.2f}", found["label"], *box, str(int(found["mask"].sum())))


def to_entry(file: str, image: Any, objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Returns one picture for the JSON: `image`, `height`, `width`, `objects` with `score`, `label`, `box`, `area`,
    `mask`.
    """
    return {"image": file, "height": image.height, "width": image.width, "objects": objects_entry(objects)}


def objects_entry(objects: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns objects for the JSON: their `area` in pixels is added, the `mask` is in COCO's compressed form."""
    return [{**found, "area": int(found["mask"].sum()), "mask": coco_rle(found["mask"])} for found in objects]


def read_mask(path: str) -> np.ndarray:
    """Reads a mask: the pixels of a picture that are not black, `(height, width)` bool."""
    return np.asarray(read_image(path, alone=True).convert("L")) > 0

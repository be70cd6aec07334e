"""Backgrounds of scenes: two muted colours with soft spots, or a part of a photo without people."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

# Licences that allow changes and commercial use. Works derived from CC BY-SA photos are under CC BY-SA, too.
FREE_LICENCES = (
    "CC BY 2.0",
    "CC BY-SA 2.0",
    "No known copyright restrictions",
    "Attribution License",  # COCO's name of the first
    "Attribution-ShareAlike License",  # and of the second
)
PERSON = 1  # COCO's category
_LONGEST_SIDE = 320


def plain_ground(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Paints two muted colours that blend into each other, with soft spots: `(height, width, 3)` float32, 0 to 255."""
    height, width = size
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(0, 1, width, dtype=np.float32)[None]
    angle = random.uniform(0, 2 * np.pi)
    blend = 0.5 + 0.5 * (np.float32(np.cos(angle)) * (x - 0.5) + np.float32(np.sin(angle)) * (y - 0.5))
    for _ in range(int(random.integers(0, 4))):
        fx, fy = random.uniform(-9, 9, 2).astype(np.float32)
        blend = blend + np.float32(random.uniform(0.05, 0.25)) * np.sin(
            fx * x + fy * y * np.float32(random.uniform(1, 3))
        )
    first, second = (_muted(random) for _ in range(2))
    return first + (second - first) * blend[..., None]


def photo_ground(random: np.random.Generator, size: tuple[int, int], photo: np.ndarray) -> np.ndarray:
    """Crops, flips and relights a photo at random: `(height, width, 3)` float32, 0 to 255."""
    height, width = size
    reach = min(photo.shape[0] / height, photo.shape[1] / width)
    scale = reach * random.uniform(0.55, 1.0)
    rows, columns = int(scale * height), int(scale * width)
    top = int(random.integers(photo.shape[0] - rows + 1))
    left = int(random.integers(photo.shape[1] - columns + 1))
    part = Image.fromarray(photo[top : top + rows, left : left + columns])
    ground = np.asarray(part.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    if random.random() < 0.5:
        ground = ground[:, ::-1]
    middle = ground.mean()
    return middle + (ground - middle) * np.float32(random.uniform(0.6, 1.0)) + np.float32(random.uniform(-25, 25))


def free_photos(folder: Path) -> set[str]:
    """
    Lists the photos that may be changed and used commercially.

    Args:
        folder: with `image_licenses.csv`, which has the columns `file` and `licence`.

    Returns:
        The names of their files.

    Raises:
        OSError: the list cannot be read.
    """
    with (folder / "image_licenses.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"] for row in csv.DictReader(file) if row["licence"] in FREE_LICENCES}


def read_photos(folder: str | Path, split: str) -> list[np.ndarray]:
    """
    Reads the photos of a COCO folder that may be changed and used commercially, cut to their largest part without
    people.

    Args:
        folder: with `image_licenses.csv` (columns `split`, `file`, `licence`), `annotations/instances_<split>.json`,
            and the images in `<split>/`.
        split: such as "train2017".

    Returns:
        `(height, width, 3)` uint8 each, with at most 320 pixels on the longer side.

    Raises:
        ValueError: the folder has another layout.
    """
    folder = Path(folder)
    try:
        free = free_photos(folder)
        known = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
    except OSError as error:
        raise ValueError(f"data.photos: {folder} has no {error.filename}; give a COCO folder with licences") from error
    people: dict[int, list] = {}
    for entry in known["annotations"]:
        if entry["category_id"] == PERSON:
            people.setdefault(entry["image_id"], []).append(entry["bbox"])
    photos = []
    for image in sorted(known["images"], key=lambda image: image["id"]):
        if image["file_name"] in free:
            photo = Image.open(folder / split / image["file_name"]).convert("RGB")
            left, top, right, bottom = largest_part(photo.size, people.get(image["id"], []))
            if min(right - left, bottom - top) >= 120:
                photo = photo.crop((left, top, right, bottom))
                photo.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.BILINEAR)
                photos.append(np.asarray(photo))
    return photos


def largest_part(size: tuple[int, int], boxes: Iterable[Sequence[float]]) -> tuple[int, int, int, int]:
    """
    Returns the largest part of a picture without any of some boxes, at its left, right, top or bottom.

    Args:
        size: (width, height) of the picture.
        boxes: x, y, width and height of each.

    Returns:
        x0, y0, x1, y1; the whole picture, if there are no boxes.
    """
    width, height = size
    boxes = list(boxes)
    if not boxes:
        return 0, 0, width, height
    x0, y0 = min(box[0] for box in boxes), min(box[1] for box in boxes)
    x1, y1 = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    parts = [(0, 0, int(x0), height), (int(x1), 0, width, height), (0, 0, width, int(y0)), (0, int(y1), width, height)]
    return max(parts, key=lambda part: (part[2] - part[0]) * (part[3] - part[1]))


def _muted(random: np.random.Generator) -> np.ndarray:
    grey = random.uniform(70, 200)
    return (grey + random.uniform(-28, 28, 3)).astype(np.float32)

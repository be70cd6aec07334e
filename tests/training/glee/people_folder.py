"""A COCO folder of photos of people: a red figure with a face on green, under several licences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 320, 240
BOX = (100, 40, 100, 200)  # x, y, width and height of the figure
NOSE, EYES = (150, 92), ((165, 80), (135, 80))  # the person's left eye is on the right
GREEN, RED = (30, 200, 40), (200, 30, 40)


def write_people(folder: Path, licences: dict[str, str], keypoints: bool = True) -> Path:
    """Writes `annotations.json`, `image_licenses.csv` and `photos/`; names of files and their licences are given."""
    (folder / "photos").mkdir(parents=True)
    picture = np.full((HEIGHT, WIDTH, 3), GREEN, np.uint8)
    x, y, width, height = BOX
    picture[y : y + height, x : x + width] = RED
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    points = np.zeros((17, 3))
    if keypoints:
        points[:3] = [(*NOSE, 2), (*EYES[0], 2), (*EYES[1], 2)]
    annotations = []
    for number, name in enumerate(licences):
        Image.fromarray(picture).save(folder / "photos" / name)
        entry = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": list(BOX)}
        annotations.append(entry | {"segmentation": [corners], "keypoints": points.ravel().tolist()})
    images = [{"id": number, "file_name": name} for number, name in enumerate(licences)]
    (folder / "annotations.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    lines = ["file,licence", *(f"{name},{licence}" for name, licence in licences.items())]
    (folder / "image_licenses.csv").write_text("\n".join(lines) + "\n")
    return folder

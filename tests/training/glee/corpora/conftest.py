"""Small files of published layouts, made where a test needs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class Tree:
    """Writes files below a folder; pictures are 40 wide and 30 high unless said otherwise."""

    size = (30, 40)

    def __init__(self, root: Path):
        self.root = root

    def file(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def json(self, name: str, content) -> Path:
        path = self.file(name)
        path.write_text(json.dumps(content))
        return path

    def text(self, name: str, content: str) -> Path:
        path = self.file(name)
        path.write_text(content)
        return path

    def picture(self, name: str, size: tuple[int, int] | None = None, value: int = 90) -> Path:
        path = self.file(name)
        Image.new("RGB", (size or self.size)[::-1], (value, 20, 200)).save(path)
        return path

    def numbers(self, name: str, numbers: np.ndarray, palette: bool = True) -> Path:
        path = self.file(name)
        picture = Image.fromarray(numbers.astype(np.uint8))
        if palette:
            picture.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
        picture.save(path)
        return path


@pytest.fixture
def tree(tmp_path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def square():
    """(box x, y, width, height; polygon; mask) of a square of 10 pixels at (5, 8) in a picture of 30 x 40."""
    mask = np.zeros((30, 40), dtype=bool)
    mask[8:18, 5:15] = True
    return [5, 8, 10, 10], [5, 8, 15, 8, 15, 18, 5, 18], mask


@pytest.fixture
def coco(tree, square):
    """A COCO tree of two pictures and three objects: polygon, plain run lengths (a crowd), compressed run lengths."""
    from lookhear.processing.glee.geometry_glee import coco_rle, run_lengths

    box, polygon, mask = square
    size = list(tree.size)
    content = {
        "images": [
            {"id": 7, "file_name": "000000000007.jpg", "height": 30, "width": 40},
            {"id": 9, "file_name": "000000000009.jpg", "height": 30, "width": 40},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": box, "segmentation": [polygon], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": box, "iscrowd": 1}
            | {"segmentation": {"size": size, "counts": run_lengths(mask)}},
            {"id": 3, "image_id": 9, "category_id": 5, "bbox": box, "iscrowd": 0} | {"segmentation": coco_rle(mask)},
        ],
        "categories": [{"id": 3, "name": "traffic_light"}, {"id": 5, "name": "dog"}],
    }
    tree.json("annotations/instances_train2017.json", content)
    for image in content["images"]:
        tree.picture(f"train2017/{image['file_name']}")
    return content

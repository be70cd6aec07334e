"""A small data set in COCO's form, and a checkpoint to start from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = 64


@pytest.fixture(scope="session")
def write_coco() -> Callable[[Path, int], Path]:
    """
    `write_coco(folder, count)`: pictures of a bright square and a dark bar, the last with a square only; a class that
    never occurs. Gives the JSON file in the folder.
    """
    return _write


def _write(folder: Path, count: int) -> Path:
    random, images, annotations = np.random.default_rng(0), [], []
    folder.mkdir()
    for index in range(count):
        picture = random.integers(90, 110, (SIZE, SIZE, 3)).astype(np.uint8)
        shapes = {1: (4 + 5 * index % 40, 8, 20, 20), 7: (6, 40, 40, 12)}
        if index == count - 1:
            del shapes[7]
        for category, (x, y, width, height) in shapes.items():
            picture[y : y + height, x : x + width] = 250 if category == 1 else 5
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            entry = {"id": len(annotations) + 1, "image_id": index, "category_id": category, "iscrowd": 0}
            annotations.append(entry | {"bbox": [x, y, width, height], "segmentation": [corners]})
        Image.fromarray(picture).save(folder / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "height": SIZE, "width": SIZE})
    categories = [{"id": 7, "name": "dark_bar"}, {"id": 1, "name": "square"}, {"id": 9, "name": "cat"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "own.json").write_text(json.dumps(content))
    return folder / "own.json"


@pytest.fixture(scope="session")
def glee_checkpoint(tiny_glee, tmp_path_factory) -> Path:
    """The folder of a random model that is small enough to train in milliseconds."""
    from lookhear.training.glee.export import save_checkpoint

    return save_checkpoint(*tiny_glee, tmp_path_factory.mktemp("start"))

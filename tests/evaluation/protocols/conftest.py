"""Small data sets in published layouts, and a perceiver that reads off its pictures what is in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookhear.evaluation.measures.mask_runs import encode_mask
from lookhear.evaluation.protocols.run import ProtocolRun

SIZE = (24, 32)  # height, width of every picture
STEP = 20  # object n is painted with the colour (20 n, 0, 0)


def paint(objects: dict[int, tuple[int, int, int, int]]) -> np.ndarray:
    """`(24, 32)` uint8: the number of the object in each pixel, of `{number: (x0, y0, x1, y1)}`, later ones on top."""
    numbers = np.zeros(SIZE, np.uint8)
    for number, (x0, y0, x1, y1) in objects.items():
        numbers[y0:y1, x0:x1] = number
    return numbers


def save_picture(path: Path, objects: dict[int, tuple[int, int, int, int]]) -> np.ndarray:
    """Writes the picture (losslessly, whatever the name says) and returns its numbers."""
    numbers = paint(objects)
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[..., 0] = numbers * STEP
    Image.fromarray(colours).save(path, "PNG")
    return numbers


def save_numbers(path: Path, numbers: np.ndarray) -> None:
    """A PNG of object numbers with a palette, as DAVIS and YouTube-VOS have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers.astype(np.uint8))
    image.putpalette(list(range(256)) * 3)
    image.save(path)


def save_json(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco_entry(number: int, image: int, category: int, box: tuple[int, int, int, int], **more) -> dict:
    """An annotation of COCO, its mask as polygons."""
    x0, y0, x1, y1 = box
    entry = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
    }
    return entry | {"area": (x1 - x0) * (y1 - y0), "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]]} | more


class Painter:
    """
    What `see` is to a protocol: objects are found by their colours, exactly.

    Args:
        names: object number -> label that it is found under; sentences: text -> object number.
        blind: objects that it does not see; extra: one more confident result under this label in every picture.
    """

    def __init__(self, names=None, sentences=None, blind=(), extra=None):
        self.names, self.sentences, self.blind, self.extra = names or {}, sentences or {}, blind, extra
        self.asked: list[dict] = []
        self.settings: dict = {}

    def __call__(self, inputs, **settings):
        self.settings = settings
        if isinstance(inputs, dict):
            self.asked.append(inputs)
            return PaintedVideo(self, inputs)
        self.asked += inputs
        return [self.look(read_numbers(item["image"]), item) for item in inputs]

    def look(self, numbers: np.ndarray, prompts: dict) -> list[dict]:
        results = []
        if labels := prompts.get("labels"):
            seen = [int(number) for number in np.unique(numbers) if number and number not in self.blind]
            for number in seen:
                label = "object" if labels == ["object"] else self.names[number]
                if label in labels:
                    results.append(
                        self.result(numbers == number, label, 0.9 - number / 100) | {"track_id": 10 + number}
                    )
            if self.extra in labels:
                corner = np.zeros(SIZE, bool)
                corner[-2:, -2:] = True
                results.insert(0, self.result(corner, self.extra, 0.99) | {"track_id": 1})
        for text in prompts.get("expressions", ()):
            results.append(self.result(numbers == self.sentences[text], text, 0.8))
        return results

    def result(self, mask: np.ndarray, label: str, score: float) -> dict:
        places = np.argwhere(mask) if mask.any() else np.zeros((1, 2), int)
        (y0, x0), (y1, x1) = places.min(0), places.max(0) + 1
        box = {"xmin": float(x0), "ymin": float(y0), "xmax": float(x1), "ymax": float(y1)}
        return {"score": score, "label": label, "box": box, "mask": mask}


class PaintedVideo:
    """What `see` gives for a video: frames' results, prompts that are added on the way."""

    def __init__(self, painter: Painter, asked: dict):
        self.painter, self.asked, self.prompts, self.followed = painter, asked, {}, {}
        self.files = asked["video"]
        self.index = -1
        for text in asked.get("expressions", ()):
            self.follow(text, painter.sentences[text])
        if "masks" in asked:
            self.add(masks=asked["masks"])

    def follow(self, label: str, number: int) -> int:
        self.prompts[len(self.prompts) + 1] = label
        self.followed[len(self.prompts)] = number
        return len(self.prompts)

    def add(self, masks) -> list[int]:
        numbers = read_numbers(self.files[max(self.index, 0)])
        return [self.follow("object", int(np.bincount(numbers[mask]).argmax())) for mask in masks]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __iter__(self):
        for file in self.files:
            self.index += 1
            numbers = read_numbers(file)
            results = self.painter.look(numbers, {"labels": self.asked.get("labels")})
            for track, number in self.followed.items():
                if (numbers == number).any() and number not in self.painter.blind:
                    found = self.painter.result(numbers == number, self.prompts[track], 0.7)
                    results.append(found | {"track_id": track})
            yield results


def read_numbers(path) -> np.ndarray:
    return np.asarray(Image.open(path))[..., 0] // STEP


def runs(numbers: np.ndarray, number: int) -> dict | None:
    """Run lengths of an object, None where it isn't there."""
    return encode_mask(numbers == number) if (numbers == number).any() else None


@pytest.fixture
def start(tmp_path):
    """`start(name, see, **settings)`: a run of a protocol; by default from `tmp_path/data` to `tmp_path/out`."""
    return lambda name, see, **settings: ProtocolRun(
        name, settings.pop("data", tmp_path / "data"), settings.pop("output", tmp_path / "out"), see, **settings
    )

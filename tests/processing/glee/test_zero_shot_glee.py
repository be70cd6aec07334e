"""transformers' own task `zero-shot-object-detection`: equal results at any batch size, and each label's own boxes."""

from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from transformers import pipeline

import lookhear

FOLDER = Path(lookhear.__file__).parent / "model_cards" / "glee-tiny"


@pytest.fixture(scope="module")
def detect():
    return pipeline("zero-shot-object-detection", model=str(FOLDER), device="cpu")


@pytest.fixture(scope="module")
def shapes() -> Image.Image:
    """A blue square on the left, a red circle on the right."""
    picture = Image.new("RGB", (160, 120), (235, 235, 235))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((20, 35, 65, 80), fill=(30, 60, 220))
    draw.ellipse((95, 35, 140, 80), fill=(220, 30, 40))
    return picture


def same(a: list[dict], b: list[dict]) -> bool:
    """Boxes are whole pixels, so that a rounding error may move a side by one."""
    return [found["label"] for found in a] == [found["label"] for found in b] and all(
        abs(x["score"] - y["score"]) < 1e-4 and all(abs(x["box"][side] - y["box"][side]) <= 1 for side in x["box"])
        for x, y in zip(a, b)
    )


def test_a_square_and_a_circle_are_found_once_each(detect, shapes):
    labels = ["blue square", "red circle"]
    alone = detect(shapes, candidate_labels=labels, threshold=0.3)
    assert sorted(found["label"] for found in alone) == labels
    left = {found["label"]: found["box"]["xmin"] < 80 for found in alone}
    assert left == {"blue square": True, "red circle": False}
    for batch_size in (2, 3):
        assert same(detect(shapes, candidate_labels=labels, threshold=0.3, batch_size=batch_size), alone)


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_images_with_different_labels(detect, shapes, batch_size):
    """Labels of one to four words, so that those of a batch are padded."""
    images = [shapes, shapes.transpose(Image.Transpose.FLIP_LEFT_RIGHT), shapes.rotate(180)]
    labels = [["red circle"], ["the large blue square", "circle", "green star"], ["square", "red circle"]]
    alone = [detect(image, candidate_labels=names, threshold=0.05) for image, names in zip(images, labels)]
    together = detect(images, candidate_labels=labels, threshold=0.05, batch_size=batch_size)
    assert all(alone) and all(same(a, b) for a, b in zip(alone, together, strict=True))

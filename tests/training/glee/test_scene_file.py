"""Scenes as files: a picture or a video, and what is in them."""

import json

import numpy as np
import pytest
from PIL import Image

from lookhear.processing.glee.video_reading_glee import open_video
from lookhear.training.glee.scenes.scene_file import RECIPE, write_scene


def test_a_picture(tmp_path):
    picture, facts = write_scene(tmp_path / "scene.png", 7, (96, 120))
    content = json.loads(facts.read_text())
    assert Image.open(picture).size == (120, 96) and content["objects"] and content["expressions"]
    for sentence in content["expressions"]:
        assert set(sentence) == {"text", "object"} and 0 <= sentence["object"] < len(content["objects"])
    again, _ = write_scene(tmp_path / "again.png", 7, (96, 120))
    assert again.read_bytes() == picture.read_bytes()


def test_a_video(tmp_path):
    """Boxes are where things are seen, and null where they are not."""
    video, facts = write_scene(tmp_path / "scene.mp4", 7, (96, 120))
    content = json.loads(facts.read_text())
    frames = list(open_video(video).read(lambda message: None))
    assert len(frames) == RECIPE.frames and frames[0].image.size == (120, 96)
    np.testing.assert_allclose(np.diff([frame.time for frame in frames]), 1 / content["fps"], atol=2e-3)
    labels = [thing["label"] for thing in content["objects"]]
    assert "person" in [label.split()[-1] for label in labels] and len(labels) >= 5
    boxes = [thing["boxes"] for thing in content["objects"]]
    assert {len(each) for each in boxes} == {RECIPE.frames} and any(None in each for each in boxes)
    for each in boxes:
        for x0, y0, x1, y1 in filter(None, each):
            assert 0 <= x0 < x1 <= 120 and 0 <= y0 < y1 <= 96
    there = {sentence["object"] for sentence in content["expressions"]}
    assert there and all(boxes[place][0] for place in there)
    named = [s for s in content["expressions"] if s["text"].endswith(labels[s["object"]])]
    assert named, "no sentence says its object's colour and kind"


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must have the suffix of a picture or a video"):
        write_scene(tmp_path / "scene.txt")
    assert list(tmp_path.iterdir()) == []

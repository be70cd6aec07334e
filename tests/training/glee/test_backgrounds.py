"""Photos behind scenes: only those that may be changed and sold, and only their parts without people."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from lookhear.training.glee.scenes.backgrounds import photo_ground, read_photos
from lookhear.training.glee.scenes.scenes import SceneMaterial, SceneRecipe, make_scene

LICENCES = {1: "CC BY 2.0", 2: "CC BY-NC-ND 2.0", 3: "CC BY-SA 2.0", 4: "CC BY-ND 2.0"}


@pytest.fixture
def folder(tmp_path):
    """Four photos, green but for a red person on the left; each under another licence."""
    (tmp_path / "train2017").mkdir()
    (tmp_path / "annotations").mkdir()
    picture = np.full((240, 320, 3), (30, 200, 40), np.uint8)
    picture[:, :100] = (250, 0, 0)
    lines = ["split,file,licence"]
    for number, licence in LICENCES.items():
        Image.fromarray(picture).save(tmp_path / "train2017" / f"{number}.png")
        lines.append(f"train2017,{number}.png,{licence}")
    (tmp_path / "image_licenses.csv").write_text("\n".join(lines) + "\n")
    images = [{"id": number, "file_name": f"{number}.png"} for number in LICENCES]
    people = [{"image_id": number, "category_id": 1, "bbox": [0, 0, 100, 240]} for number in LICENCES]
    known = {"images": images, "annotations": people}
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(known))
    return tmp_path


def test_only_free_photos_are_read_and_people_are_cut_off(folder):
    photos = read_photos(folder, "train2017")
    assert len(photos) == 2
    for photo in photos:
        assert photo.shape == (240, 220, 3)
        assert (photo == (30, 200, 40)).all()


def test_scenes_lie_on_photos(folder):
    material = SceneMaterial(photos=read_photos(folder, "train2017"))
    ground = photo_ground(np.random.default_rng(0), (64, 96), material.photos[0])
    assert ground.shape == (64, 96, 3) and ground.dtype == np.float32
    green = 0
    for seed in range(20):
        scene = make_scene(np.random.default_rng(seed), (64, 96), SceneRecipe(photos=0.5, noise=0.0), material)
        behind = ~np.any([shape.mask for shape in scene.shapes], axis=0)
        red, middle, _ = np.median(scene.image[behind], axis=0)
        green += middle > red + 60
    assert 4 <= green <= 16


def test_a_folder_without_licences_is_refused(tmp_path):
    with pytest.raises(ValueError, match="COCO folder with licences"):
        read_photos(tmp_path, "train2017")

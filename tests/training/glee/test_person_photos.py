"""Photos of people: which are read, which are held out, where faces are, and what scenes are made with them."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest

from lookhear.training.glee.scenes.examples import SceneBatches, ask_labels
from lookhear.training.glee.scenes.person_photos import balanced, face_parts, is_held_out, read_people
from lookhear.training.glee.scenes.photographs import photograph
from lookhear.training.glee.scenes.portraits import Cutout
from lookhear.training.glee.scenes.recipe import SceneDataRecipe, with_people
from lookhear.training.glee.scenes.scenes import SceneMaterial, SceneRecipe, make_scene, photo_scene
from tests.training.glee.people_folder import BOX, EYES, HEIGHT, NOSE, WIDTH, write_people

NAMES = [f"{number:03d}.png" for number in range(12)]
HELD = [name for name in NAMES if zlib.crc32(name.encode()) % 5 == 0]


@pytest.fixture
def folder(tmp_path):
    licences = dict.fromkeys(NAMES, "Attribution License")
    licences[next(name for name in NAMES if name not in HELD)] = "Attribution-NonCommercial License"
    return write_people(tmp_path / "people", licences)


def material(folder) -> SceneMaterial:
    return with_people(SceneMaterial(), read_people(folder, "", None))


def red(image: np.ndarray) -> np.ndarray:
    """Where the figure is: redder than it is green, whatever the light."""
    return image[..., 0].astype(int) > image[..., 1].astype(int)


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    return (mask & other).sum() / (mask | other).sum()


def test_free_photos_are_read_and_one_in_five_is_held_out(folder):
    assert 1 <= len(HELD) <= 5
    taken = [photo.name for photo in read_people(folder, "")]
    held = [photo.name for photo in read_people(folder, "", held_out=True)]
    assert held == HELD and all(map(is_held_out, held))
    barred = next(name for name in NAMES if name not in HELD)  # by its licence
    assert sorted(taken + held) == [name for name in NAMES if name != barred]
    fewer = [photo.name for photo in read_people(folder, "", None, skipped=[taken[0]])]
    assert sorted(fewer) == sorted({*taken, *held} - {taken[0]})


def test_photos_of_crowds_and_of_specks_are_left_out(folder):
    path = folder / "annotations.json"
    known = json.loads(path.read_text())
    known["annotations"][0] |= {"iscrowd": 1, "segmentation": {"counts": [1], "size": [HEIGHT, WIDTH]}}
    known["annotations"][1]["segmentation"] = [[5.1, 5.1, 5.3, 5.1, 5.3, 5.3]]
    path.write_text(json.dumps(known))
    assert not {"000.png", "001.png"} & {photo.name for photo in read_people(folder, "", None)}


def test_a_folder_without_licences_is_refused(tmp_path):
    with pytest.raises(ValueError, match="data.people: .* give a COCO folder with licences"):
        read_people(tmp_path, "train2017")


def test_a_photo_has_its_person_face_and_mouth(folder):
    photo = read_people(folder, "", None)[0]
    x, y, width, height = BOX
    assert photo.person_box() == (x, y, x + width, y + height)
    (parts,) = photo.people
    assert parts["person"].sum() == width * height and set(parts) == {"person", "face", "mouth"}
    scene = photo_scene(photo)
    assert [shape.kind for shape in scene.shapes] == ["person", "face", "mouth"] and scene.bare
    # Eyes are 30 pixels apart and the nose is 12 below: face 66 x 81 around (150, 86), mouth 27 x 12 at 20.4 below.
    assert scene.shapes[1].box == pytest.approx((117, 45.5, 183, 126.5), abs=1)
    assert scene.shapes[2].box == pytest.approx((136.5, 94.4, 163.5, 106.4), abs=1)


def test_faces_that_are_turned_hidden_or_tiny():
    points = np.zeros((17, 3))
    points[:3] = [(*NOSE, 2), (*EYES[0], 2), (*EYES[1], 2)]
    size = (HEIGHT, WIDTH)
    upright = face_parts(points, size)["face"]
    hidden = points.copy()
    hidden[2, 2] = 1
    assert face_parts(hidden, size) == {}
    assert face_parts(points * (0.1, 0.1, 1), size) == {}
    profile = points.copy()  # eyes 5 pixels apart: the nose, 18 below them, says how large the face is
    profile[:3] = [(137.5, 98, 2), (140, 80, 2), (135, 80, 2)]
    assert face_parts(profile, size)["face"].sum() == pytest.approx(upright.sum() * (27 / 30) ** 2, rel=0.05)
    # Lying on the side: a quarter turn clockwise about the point between the eyes.
    turned = points.copy()
    middle = np.array([150, 80])
    offsets = points[:3, :2] - middle
    turned[:3, :2] = middle + np.stack((-offsets[:, 1], offsets[:, 0]), axis=1)
    rows, columns = face_parts(turned, size)["face"].nonzero()
    assert np.ptp(columns) > np.ptp(rows) + 10


def test_photographs_show_the_person_where_the_mask_is(folder):
    photo = read_people(folder, "", None)[0]
    sizes = set()
    for seed in range(30):
        image, people = photograph(np.random.default_rng(seed), (96, 160), photo)
        assert image.dtype == np.float32 and len(people) == 1
        assert overlap(people[0].parts["person"], red(image)) > 0.95
        assert people[0].parts["person"].shape == image.shape[:2]
        sizes.add(image.shape[:2])
    assert sizes == {(96, 160), (96, 128)}  # a part, or the whole photo


def test_scenes_of_photos_are_photos_with_or_without_shapes(folder):
    recipe = SceneRecipe(photos=0.5, people=0.5, photographed=0.5, bare=0.5, noise=0.0)
    pictures = material(folder)
    scenes = [make_scene(np.random.default_rng(seed), (64, 96), recipe, pictures) for seed in range(80)]
    grounds = [scene.ground for scene in scenes]
    assert set(grounds) == {"plain", "photo", "photographed"}
    assert 0.3 < np.mean([ground == "photographed" for ground in grounds]) < 0.7
    for scene in scenes:
        kinds = {shape.kind for shape in scene.shapes}
        assert not scene.bare or (scene.ground != "plain" and kinds <= {"person", "face", "mouth"})
        if scene.bare and scene.ground == "photographed":
            person = next(shape for shape in scene.shapes if shape.kind == "person")
            assert overlap(person.mask, red(scene.image)) > 0.9
    assert 0.3 < np.mean([scene.bare for scene in scenes if scene.ground != "plain"]) < 0.7


def test_without_the_new_shares_scenes_are_what_they_were(folder):
    old, new = SceneMaterial(), SceneMaterial(people=material(folder).people)
    for seed in range(3):
        first, second = (make_scene(np.random.default_rng(seed), (64, 64), SceneRecipe(), m) for m in (old, new))
        assert np.array_equal(first.image, second.image)


def test_people_of_photos_are_cut_out_and_stand_side_by_side(folder):
    found = material(folder)
    count = len(found.people)
    assert len(found.portraits) == 2 * count and len(found.frames) == count and len(found.photos) == count
    x, _, width, height = BOX
    assert found.portraits[0].picture.shape == (height, width, 3) and red(found.portraits[0].picture).all()
    assert not red(found.photos[0]).any() and found.photos[0].shape == (HEIGHT, WIDTH - x - width, 3)
    beside = SceneRecipe(people=1.0, panels=1.0, objects_beside=(0, 0), noise=0.0, contrast=1.0)
    for seed in range(10):
        scene = make_scene(np.random.default_rng(seed), (96, 160), beside, SceneMaterial(frames=found.frames))
        assert len([shape for shape in scene.shapes if shape.kind == "person"]) in (2, 3)


def test_portraits_are_a_third_of_those_who_are_pasted():
    one, other = (Cutout(np.zeros((4, 4, 3), np.uint8), {"person": np.ones((4, 4), bool)}, noun=n) for n in "ab")
    people = balanced([one, one], [other] * 20)
    assert len(people) == 30 and sum(cutout.noun == "a" for cutout in people) == 10
    assert balanced([], [other]) == [other] and balanced([one], []) == [one]


def test_batches_of_photos_point_at_something_and_ask_objects_of_scenes_only(folder):
    recipe = SceneDataRecipe(
        canvases=[(64, 64)],
        images=dict.fromkeys(("labels", "expressions", "prompts"), 3),
        people=[str(folder)],
        portraits=False,
        absent=0.5,
        scenes={"photos": 1.0, "people": 0.5, "photographed": 0.5, "bare": 0.9},
    )
    found = recipe.scene_material()
    assert {photo.name for photo in found.people} == {photo.name for photo in read_people(folder, "")}
    assert {photo.name for photo in recipe.people_photos(held_out=True)} == set(HELD)
    batches, again = SceneBatches(recipe, 60, 7, found), SceneBatches(recipe, 60, 7, found)
    absent = rows = 0
    for index in range(60):
        batch = batches[index]
        assert [scene.ground for scene in batch.scenes] == [scene.ground for scene in again[index].scenes]
        assert np.array_equal(batch.scenes[0].image, again[index].scenes[0].image)
        if "expressions" in batch.prompts:
            assert [len(texts) for texts in batch.prompts["expressions"]] == [2, 2, 2]
            absent, rows = absent + sum(not shapes for _, shapes, _ in batch.rows), rows + len(batch.rows)
        elif "labels" not in batch.prompts:
            assert len(batch.rows) >= 3
    assert absent > 0.5 * rows
    scenes = [make_scene(np.random.default_rng(seed), (64, 64), recipe.scene_recipe(), found) for seed in range(12)]
    scenes.append(make_scene(np.random.default_rng(99), (64, 64)))
    asked = ask_labels(scenes, np.random.default_rng(0), "object")
    assert asked.prompts["labels"] == ["object"] and asked.scenes[-1] is scenes[-1]
    assert all(scene.ground != "photographed" and not scene.bare for scene in asked.scenes)
    photos = [scene for scene in scenes if scene.bare]
    assert "person" in ask_labels(photos, np.random.default_rng(0), "object").prompts["labels"]

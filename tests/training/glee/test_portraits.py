"""People in scenes: cut out along their outlines, side by side, in the colours that sentences name."""

from __future__ import annotations

import numpy as np
import pytest

from lookhear.training.glee.scenes.expressions import all_expressions, by_order
from lookhear.training.glee.scenes.portraits import Cutout, frame_cutout, portrait_cutouts, read_frames
from lookhear.training.glee.scenes.scenes import PARTS, SceneMaterial, SceneRecipe, make_scene
from lookhear.training.glee.scenes.shapes import COLOURS

PEOPLE = SceneRecipe(people=1.0, panels=1.0, objects_beside=(0, 0))


def frame(middle: int = 60, width: int = 120) -> np.ndarray:
    """A reddish figure before a cyan backdrop."""
    picture = np.full((96, width, 3), (20, 190, 220), np.uint8)
    picture[30:, middle - 20 : middle + 20] = (150, 90, 70)
    return picture


def test_the_person_is_what_differs_from_the_backdrop():
    cutout = frame_cutout(frame())
    height, width = cutout.parts["person"].shape
    rows, columns = cutout.parts["person"].nonzero()
    assert rows.min() / height == pytest.approx(30 / 96, abs=0.03)
    assert columns.min() / width == pytest.approx(40 / 120, abs=0.03)
    assert columns.max() / width == pytest.approx(80 / 120, abs=0.03)


def test_people_side_by_side_are_told_apart_by_their_places():
    material = SceneMaterial(frames=[frame_cutout(frame())])
    for seed in range(12):
        scene = make_scene(np.random.default_rng(seed), (96, 128), PEOPLE, material)
        people = [shape for shape in scene.shapes if shape.kind == "person"]
        assert len(people) in (2, 3)
        found = {expression.text: scene.shapes[expression.shape] for expression in by_order(scene)}
        ordered = sorted(people, key=lambda person: person.x)
        assert found["the person on the left"] is ordered[0]
        assert found["the person on the right"] is ordered[-1]
        assert ("the person in the middle" in found) == (len(people) == 3)
        for person in people:
            assert all(f"the {phrase}" in {e.text for e in all_expressions(scene)} for phrase in person.phrases)


def test_a_coloured_frame_is_where_the_sentence_says():
    material = SceneMaterial(frames=[frame_cutout(frame())])
    scenes = [make_scene(np.random.default_rng(seed), (96, 128), PEOPLE, material) for seed in range(20)]
    framed = [(scene, person) for scene in scenes for person in scene.shapes if person.colour]
    assert framed
    for scene, person in framed[:8]:
        left, top = int(person.box[0]), int(person.box[1])
        row = scene.image[min(95, top + 3), : left + 3].astype(float)
        assert np.abs(row - COLOURS[person.colour]).sum(axis=1).min() < 90


def test_portraits_wear_every_colour_and_have_faces():
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    people = portrait_cutouts()
    assert {person.colour for person in people} == set(COLOURS)
    for person in people:
        masks = person.parts
        assert set(masks) == {"person", *PARTS}
        assert masks["mouth"].sum() > 20
        assert not (masks["face"] & ~masks["person"]).any()
        assert not (masks["mouth"] & ~masks["face"]).any()
        small = person.scaled(60)
        assert small.picture.shape[0] == small.parts["face"].shape[0] == 60
    red = next(person for person in people if person.colour == "red" and person.garment == "suit")
    chest = red.picture[130:150, 60:80].reshape(-1, 3).mean(axis=0)
    assert chest[0] > 1.8 * chest[1]


def test_faces_are_asked_for_only_where_all_are_known():
    plain = np.full((64, 40, 3), 120, np.uint8)
    whole = np.ones((64, 40), bool)
    face = np.zeros((64, 40), bool)
    face[5:30, 10:30] = True
    known = Cutout(plain, {"person": whole, "face": face}, "woman", "suit", None, "red")
    unknown = Cutout(plain, {"person": whole})
    for portraits, expected in (([known], True), ([unknown], False)):
        recipe = SceneRecipe(people=1.0, objects_beside=(0, 0))
        texts = set()
        for seed in range(8):
            scene = make_scene(np.random.default_rng(seed), (96, 128), recipe, SceneMaterial(portraits=portraits))
            texts |= {expression.text for expression in all_expressions(scene)}
        assert any("face" in text for text in texts) == expected
        assert ("the woman in the red suit" in texts) == expected


def test_clothes_are_enough_only_where_all_are_known():
    """ "The person in red" could also be the other one, whose clothes are unknown; "in the red suit" is clear."""
    plain, whole = np.full((64, 40, 3), 120, np.uint8), np.ones((64, 40), bool)
    people = [Cutout(plain, {"person": whole}, "woman", "suit", None, "red"), Cutout(plain, {"person": whole})]
    material, recipe = SceneMaterial(portraits=people), SceneRecipe(people=1.0, objects_beside=(0, 0))
    scenes = [make_scene(np.random.default_rng(seed), (96, 128), recipe, material) for seed in range(20)]
    mixed = [scene for scene in scenes if {shape.colour for shape in scene.shapes} == {"red", ""}]
    assert mixed
    for scene in mixed:
        texts = {expression.text for expression in all_expressions(scene)}
        assert "the person in red" not in texts
        if [shape.colour for shape in scene.shapes].count("red") == 1:
            assert "the woman in the red suit" in texts


def test_a_missing_video_is_named(tmp_path):
    with pytest.raises(ValueError, match="no video in .*nothing.mp4"):
        read_frames([tmp_path / "nothing.mp4"], 3)
    assert read_frames([], 3) == []

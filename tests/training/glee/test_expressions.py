"""Sentences of a scene are true of one shape, and say so in the right words."""

from __future__ import annotations

import numpy as np
import pytest

from lookhear.training.glee.scenes.expressions import FORMS, all_expressions, choose_expressions
from lookhear.training.glee.scenes.recipe import SceneDataRecipe
from lookhear.training.glee.scenes.scenes import Scene, Shape, make_scene


def shape(colour: str, kind: str, x: float, y: float, radius: float = 8.0) -> Shape:
    mask = np.zeros((96, 128), bool)
    box = (x - radius, y - radius, x + radius, y + radius)
    mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    return Shape(colour, kind, x, y, radius, box, mask)


@pytest.fixture
def scene() -> Scene:
    """A red circle on the left, a larger blue one on the right, a red star between and below them."""
    shapes = [shape("red", "circle", 20, 30), shape("blue", "circle", 100, 30, 14), shape("red", "star", 60, 70)]
    return Scene(np.zeros((96, 128, 3), np.uint8), shapes)


def test_sentences_of_a_known_scene(scene):
    found = {expression.text: (expression.form, expression.shape) for expression in all_expressions(scene)}
    assert found["the star"] == found["the red star"] == ("attribute", 2)
    assert found["the blue shape"] == ("attribute", 1)
    assert found["the leftmost circle"] == ("place", 0)
    assert found["the rightmost red shape"] == ("place", 2)
    assert found["the bottommost shape"] == ("place", 2)
    assert found["the largest shape"] == found["the largest circle"] == ("size", 1)
    assert found["the circle left of the red star"] == ("relation", 0)
    assert found["the circle right of the red circle"] == ("relation", 1)
    assert found["the star below the blue circle"] == ("relation", 2)
    # Said of none, of two, or of something that is too near to tell:
    for text in (
        "the circle",
        "the red shape",
        "the topmost circle",
        "the smallest shape",
        "the star above the red circle",
    ):
        assert text not in found
    assert "the circle above the red star" not in found


def test_sentences_of_generated_scenes_are_true():
    for seed in range(20):
        scene = make_scene(np.random.default_rng(seed))
        texts = [expression.text for expression in all_expressions(scene)]
        assert len(texts) == len(set(texts))
        for expression in all_expressions(scene):
            meant = scene.shapes[expression.shape]
            others = [other for index, other in enumerate(scene.shapes) if index != expression.shape]
            text = expression.text.removeprefix("the ")
            if expression.form == "attribute":
                assert text in words_of(meant)
                assert not any(text in words_of(other) for other in others)
            if text.startswith("leftmost "):
                alike = [other for other in others if text.removeprefix("leftmost ") in words_of(other)]
                assert alike and all(meant.x < other.x for other in alike)
            if " above the " in text:
                head, tail = text.split(" above the ")
                (anchor,) = (other for other in others if tail in words_of(other))
                alike = [other for other in others if head in words_of(other) and other is not anchor]
                assert meant.y < anchor.y and all(other.y > anchor.y for other in alike)


def words_of(shape: Shape) -> set[str]:
    return {"shape", shape.kind, f"{shape.colour} shape", f"{shape.colour} {shape.kind}"}


def test_choice_is_of_different_sentences_and_of_the_forms_asked_for(scene):
    random = np.random.default_rng(0)
    chosen = choose_expressions(scene, random, 20)
    assert len({expression.text for expression in chosen}) == 20
    assert {expression.form for expression in chosen} == set(FORMS)
    assert {expression.form for expression in choose_expressions(scene, random, 5, {"place": 1.0})} == {"place"}


def test_forms_come_by_their_shares(scene):
    random = np.random.default_rng(0)
    shares = {"attribute": 1.0, "place": 3.0}
    forms = [choose_expressions(scene, random, 1, shares)[0].form for _ in range(400)]
    assert set(forms) == set(shares) and forms.count("place") == pytest.approx(300, abs=30)
    with pytest.raises(ValueError, match="data.forms has no 'colour'"):
        SceneDataRecipe(forms={"colour": 1.0})


def test_an_empty_scene_has_no_sentences():
    assert choose_expressions(Scene(np.zeros((9, 9, 3), np.uint8), []), np.random.default_rng(0), 2) == []

"""Sentences about nothing: none of them is true, and none asks for what is annotated in part only."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from lookhear.training.glee.scenes.absence import UNKNOWN, absent_sentences
from lookhear.training.glee.scenes.expressions import RELATIONS, all_expressions
from lookhear.training.glee.scenes.portraits import Cutout
from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS, Scene, SceneMaterial, SceneRecipe, make_scene
from lookhear.training.glee.scenes.shapes import KINDS

PLACED = re.compile(
    r"^(leftmost|rightmost|topmost|bottommost|largest|smallest) | (on the left|in the middle|on the right)$"
)


def named(text: str) -> list[str]:
    """The objects that a sentence names: "the leftmost red heart" -> "red heart"."""
    nouns = re.split("|".join(f" {relation} the " for relation in RELATIONS), text.removeprefix("the "))
    return [PLACED.sub("", noun) for noun in nouns]


def fits(noun: str, scene: Scene) -> int:
    """How many objects of a scene a noun fits."""
    return sum(
        noun in (shape.kind, f"{shape.colour} {shape.kind}", f"{shape.colour} shape", "shape", *shape.phrases)
        for shape in scene.shapes
        if shape.kind in KINDS or noun == shape.kind
    )


def test_each_sentence_names_something_that_is_not_there():
    asked = set()
    for seed in range(60):
        random = np.random.default_rng(seed)
        scene = make_scene(random, (96, 128), SceneRecipe(excluded=HELD_OUT_PAIRS))
        sentences = absent_sentences(scene, random, 8, HELD_OUT_PAIRS)
        assert len(set(sentences)) == 8
        assert not {found.text for found in all_expressions(scene)} & set(sentences)
        for text in sentences:
            assert min(fits(noun, scene) for noun in named(text)) == 0, text
            assert not any(f"{colour} {kind}" in text for colour, kind in HELD_OUT_PAIRS)
        asked.update(sentences)
    for word in ("person", "the face", "the mouth", "on the right", "leftmost", "largest", "left of"):
        assert any(word in text for text in asked), word
    assert {word for text in asked for word in text.split()} & set(UNKNOWN)


def test_people_and_unknown_things_are_asked_where_they_cannot_be_only():
    person = np.zeros((64, 48), bool)
    person[20:, 12:36] = True
    material = SceneMaterial(portraits=[Cutout(np.zeros((64, 48, 3), np.uint8), {"person": person})])
    scene = make_scene(np.random.default_rng(0), (96, 128), SceneRecipe(people=1.0), material)
    assert any(shape.kind == "person" for shape in scene.shapes)
    shapes = [shape for shape in scene.shapes if shape.kind in KINDS]
    for asked in (scene, replace(scene, shapes=shapes, ground="photo")):
        sentences = absent_sentences(asked, np.random.default_rng(1), 40)
        assert not any(word in text.split() for text in sentences for word in UNKNOWN)
        with_people = any(re.search("person|face|mouth|woman", text) for text in sentences)
        assert with_people == (asked is not scene)


def test_a_photo_without_anything_has_sentences_about_nothing():
    empty = Scene(np.zeros((64, 64, 3), np.uint8), [], "photo", bare=True)
    sentences = absent_sentences(empty, np.random.default_rng(0), 30)
    assert len(set(sentences)) == 30 and sentences == absent_sentences(empty, np.random.default_rng(0), 30)

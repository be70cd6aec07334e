"""Questions about a scene have one answer, which somebody who only looks at the picture would give."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lookhear.training.glee.scenes.questions import (
    CLASSES,
    COMPARING,
    FAMILIES,
    KNOWLEDGE,
    LISTING,
    NUMBERS,
    SEGMENT,
    TALLIES,
    all_questions,
    choose_questions,
    is_held_out,
)
from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS, Scene, Shape, make_scene
from lookhear.training.glee.scenes.shapes import KINDS

RANKS = {"": 0, "second": 1, "third": 2}


def shape(colour: str, kind: str, x: float, y: float, radius: float = 8.0) -> Shape:
    mask = np.zeros((96, 128), bool)
    box = (x - radius, y - radius, x + radius, y + radius)
    mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    return Shape(colour, kind, x, y, radius, box, mask)


@pytest.fixture
def scene() -> Scene:
    """From left to right: a red circle, a small green heart, a red star, a larger blue circle."""
    shapes = [
        shape("red", "circle", 20, 30),
        shape("blue", "circle", 108, 30, 14),
        shape("red", "star", 64, 32, 10),
        shape("green", "heart", 42, 70, 6),
    ]
    return Scene(np.zeros((96, 128, 3), np.uint8), shapes)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(np.random.default_rng((5, index)), (128, 160)) for index in range(40)]


def test_questions_of_a_known_scene(scene):
    answers = {question.text: (question.answer, question.objects) for question in all_questions(scene)}
    assert answers["Show the star."] == ("the red star [SEG]", (2,))
    assert answers["What colour is the heart?"] == ("it is green [SEG]", (3,))
    assert answers["What is the blue shape?"] == ("it is a circle [SEG]", (1,))
    assert answers["Which circle is rightmost?"] == ("the blue circle [SEG]", (1,))
    assert answers["Which shape is the second largest?"] == ("the red star [SEG]", (2,))
    assert answers["Show the second smallest of the shapes."] == ("the red circle [SEG]", (0,))
    assert answers["Which shape is the second from the right?"] == ("the red star [SEG]", (2,))
    assert answers["Show the smallest of the round shapes."] == ("the red circle [SEG]", (0,))
    assert answers["Which circle is right of the star?"] == ("the blue circle [SEG]", (1,))
    assert answers["Which shape is between the red circle and the blue circle?"] == ("the red star [SEG]", (2,))
    assert answers["Which shape is nearest to the blue circle?"] == ("the red star [SEG]", (2,))
    two = "the red circle [SEG] and the blue circle [SEG], that makes two"
    assert answers["How many circles are there? Show them."] == (two, (0, 1))
    assert answers["How many are green? Show them."] == ("the green heart [SEG], that makes one", (3,))
    assert answers["How many moons are there? Show them."] == ("there are none", ())
    assert answers["Is there a moon? If so, show it."] == ("no, there is no moon", ())
    assert answers["Is there a star? If so, show it."] == ("yes, a red star [SEG]", (2,))
    assert answers["Which of these would roll? Show it."] == ("the red circle [SEG] and the blue circle [SEG]", (0, 1))
    assert answers["Which of these stands for love? Show it."] == ("the green heart [SEG]", (3,))


@pytest.mark.parametrize(
    "text",
    [
        "Show the circle.",  # there are two
        "Which circle is topmost?",  # level with each other
        "Which shape is nearest to the heart?",  # two are as near
        "Show what lies between the star and the heart.",  # nothing does
        "Which of these has four sides? Show it.",  # none
    ],
)
def test_what_is_in_doubt_is_not_asked(scene, text):
    assert text not in {question.text for question in all_questions(scene)}


def test_every_answer_shows_what_it_says(scenes):
    for scene in scenes:
        for question in all_questions(scene):
            assert question.answer.count(SEGMENT) == len(question.objects), question
            assert len(set(question.objects)) == len(question.objects)
            parts = question.answer.split(SEGMENT)
            for words, index in zip(parts, question.objects):
                found = scene.shapes[index]
                if question.family != "attribute":
                    assert words.strip().endswith(f"{found.colour} {found.kind}"), question


def fits(words: str, found: Shape) -> bool:
    """Whether a singular noun, "red shape", "round shape", "circle", is said of a shape."""
    *colour, kind = words.split()
    named = kind in ("shape", found.kind)
    return named and all(word == found.colour or found.kind in CLASSES.get(word, ()) for word in colour)


def test_listings_name_a_whole_group_in_order_and_are_for_training_only(scenes):
    seen = 0
    for index, scene in enumerate(scenes):
        assert not any(question.family in (LISTING, COMPARING) for question in all_questions(scene))
        measures = {
            "left": lambda s: s.box[0] + s.box[2],
            "right": lambda s: -s.box[0] - s.box[2],
            "top": lambda s: s.box[1] + s.box[3],
            "bottom": lambda s: -s.box[1] - s.box[3],
            "largest": lambda s: -max(s.box[2] - s.box[0], s.box[3] - s.box[1]),
            "smallest": lambda s: max(s.box[2] - s.box[0], s.box[3] - s.box[1]),
        }
        for question in choose_questions(scene, np.random.default_rng(index), 50, {LISTING: 1.0}):
            words, first = re.fullmatch(r"Show the (.+?) from the (\w+)\.", question.text).groups()
            words = words.removesuffix("es" if words.endswith("crosses") else "s")
            group = [place for place, found in enumerate(scene.shapes) if fits(words, found)]
            group.sort(key=lambda place: measures[first](scene.shapes[place]))
            assert question.objects == tuple(group) and len(group) > 1, question
            names = [f"the {scene.shapes[place].colour} {scene.shapes[place].kind} {SEGMENT}" for place in group]
            assert question.answer == " and ".join(names)
            seen += 1
    assert seen > 300


def test_comparisons_agree_with_a_count_by_hand_and_show_nothing(scenes):
    beyond = {
        "left of": lambda s, t: s.box[0] + s.box[2] < t.box[0] + t.box[2],
        "right of": lambda s, t: s.box[0] + s.box[2] > t.box[0] + t.box[2],
        "above": lambda s, t: s.box[1] + s.box[3] < t.box[1] + t.box[3],
        "below": lambda s, t: s.box[1] + s.box[3] > t.box[1] + t.box[3],
        "larger than": lambda s, t: (
            max(s.box[2] - s.box[0], s.box[3] - s.box[1]) > max(t.box[2] - t.box[0], t.box[3] - t.box[1])
        ),
    }
    beyond["smaller than"] = lambda s, t: beyond["larger than"](t, s)
    seen = {"how many": 0, "yes": 0, "no": 0}
    for index, scene in enumerate(scenes):
        for question in choose_questions(scene, np.random.default_rng(index), 50, {COMPARING: 1.0}):
            *said, relation, words = re.fullmatch(
                rf"(How many) shapes are ({'|'.join(beyond)}) the (.+)\?|Is the (.+) ({'|'.join(beyond)}) the (.+)\?",
                question.text,
            ).groups()[slice(0, 3) if question.form == "how many" else slice(3, 6)]
            (landmark,) = [found for found in scene.shapes if fits(words, found)]
            if question.form == "how many":
                ahead = sum(beyond[relation](found, landmark) for found in scene.shapes if found is not landmark)
                assert question.answer == TALLIES[ahead], question
                seen["how many"] += 1
            else:
                (other,) = [found for found in scene.shapes if fits(said[0], found)]
                assert question.answer == ("yes" if beyond[relation](other, landmark) else "no"), question
                seen[question.answer] += 1
            assert question.objects == ()
    assert min(seen.values()) > 100


def test_order_and_count_agree_with_sorting_by_hand(scenes):
    """Read off the words of the question alone, without the margins that only leave questions out."""
    seen = {"size": 0, "side": 0, "count": 0}
    for scene in scenes:
        spans = [max(s.box[2] - s.box[0], s.box[3] - s.box[1]) for s in scene.shapes]
        for question in all_questions(scene):
            if match := re.fullmatch(r"Which (.+) is the (second|third|) ?(largest|smallest)\?", question.text):
                group = [index for index, found in enumerate(scene.shapes) if fits(match[1], found)]
                group.sort(key=lambda index: spans[index], reverse=match[3] == "largest")
                assert question.objects == (group[RANKS[match[2]]],), question
                seen["size"] += 1
            elif match := re.fullmatch(r"Which (.+) is the (second|third) from the (left|right)\?", question.text):
                group = [index for index, found in enumerate(scene.shapes) if fits(match[1], found)]
                centres = [(s.box[0] + s.box[2]) / 2 for s in scene.shapes]
                group.sort(key=lambda index: centres[index], reverse=match[3] == "right")
                assert question.objects == (group[RANKS[match[2]]],), question
                seen["side"] += 1
            elif match := re.fullmatch(r"How many (.+?)(?:es|s) are there\? Show them\.", question.text):
                words = match[1] if match[1].split()[-1] in (*KINDS, "shape") else f"{match[1]}e"
                words = "cross" if match[1] == "cross" else words
                group = [index for index, found in enumerate(scene.shapes) if fits(words, found)]
                assert question.answer.split()[-1] == NUMBERS[len(group)] and set(question.objects) == set(group)
                seen["count"] += 1
    assert all(count > 100 for count in seen.values()), seen


def test_chosen_questions_keep_apart_what_is_held_out(scenes):
    texts: dict[bool, set[str]] = {True: set(), False: set()}
    for held_out, found in texts.items():
        for index, scene in enumerate(scenes):
            chosen = choose_questions(scene, np.random.default_rng(index), 12, held_out=held_out)
            assert len({question.text for question in chosen}) == len(chosen)
            found |= {question.text for question in chosen}
    assert not texts[True] & texts[False]
    assert all(map(is_held_out, texts[True])) and not any(map(is_held_out, texts[False]))
    assert len(texts[True]) > 100


def test_a_family_is_asked_as_often_as_its_share_says(scenes):
    counts = dict.fromkeys(FAMILIES, 0)
    for index, scene in enumerate(scenes * 5):
        for question in choose_questions(scene, np.random.default_rng(index), 2, {"order": 3.0, "attribute": 1.0}):
            counts[question.family] += 1
    assert counts["order"] + counts["attribute"] == sum(counts.values())
    assert 2.2 < counts["order"] / counts["attribute"] < 4


def test_equal_seeds_ask_equal_questions(scenes):
    one, other = (choose_questions(scenes[0], np.random.default_rng(3), 6) for _ in range(2))
    assert one == other


def test_all_knowledge_is_taught():
    """Of each piece of knowledge some wording may be held out, but not all: it couldn't be learned."""
    for words in KNOWLEDGE:
        assert not all(map(is_held_out, (f"Which of these {words}? Show it.", f"What {words}?"))), words


def test_pairs_that_are_held_out_are_not_asked_for_in_vain(scenes):
    for scene in scenes:
        for question in all_questions(scene):
            if question.form == "there is none":
                words = question.answer.removeprefix("no, there is no ").split()
                assert tuple(words) not in HELD_OUT_PAIRS

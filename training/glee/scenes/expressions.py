"""Sentences that are true of exactly one object of a scene: by attribute, place, size or relation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lookhear.training.glee.mixture.sampling import draw
from lookhear.training.glee.scenes.scenes import PARTS, Scene
from lookhear.training.glee.scenes.shapes import KINDS

# Two shapes differ in place if they do by this share of the shorter side, in size by this share of the smaller radius.
PLACE_MARGIN = 0.08
SIZE_MARGIN = 0.25
PLACES = {
    "leftmost": lambda shape: -shape.x,
    "rightmost": lambda shape: shape.x,
    "topmost": lambda shape: -shape.y,
    "bottommost": lambda shape: shape.y,
}
RELATIONS = {
    "left of": lambda shape, other: other.x - shape.x,
    "right of": lambda shape, other: shape.x - other.x,
    "above": lambda shape, other: other.y - shape.y,
    "below": lambda shape, other: shape.y - other.y,
}
# Places of two and of three people, from left to right.
SIDES = {2: ("on the left", "on the right"), 3: ("on the left", "in the middle", "on the right")}
FORMS = ("attribute", "place", "size", "relation")
EVENLY = dict.fromkeys(FORMS, 1.0)


@dataclass(frozen=True)
class Expression:
    """A sentence, its form (one of `FORMS`), and the number of the shape that it is about."""

    text: str
    form: str
    shape: int


def all_expressions(scene: Scene) -> list[Expression]:
    """Lists all sentences that are true of exactly one object, by a margin."""
    return [*by_attribute(scene), *by_place(scene), *by_size(scene), *by_relation(scene)]


def choose_expressions(
    scene: Scene, random: np.random.Generator, count: int, forms: Mapping[str, float] = EVENLY
) -> list[Expression]:
    """Chooses at most `count` different sentences, their forms at random by their shares, of the forms that occur."""
    found = all_expressions(scene)
    groups = {form: [expression for expression in found if expression.form == form] for form in forms}
    chosen: list[Expression] = []
    while len(chosen) < count and (shares := {form: forms[form] for form, group in groups.items() if group}):
        group = groups[draw(random, shares)]
        chosen.append(group.pop(random.integers(len(group))))
    return chosen


def by_attribute(scene: Scene) -> Iterator[Expression]:
    """Yields sentences by colour, kind, or both, if no other shape has them."""
    for text, members in _groups(scene).items():
        if len(members) == 1:
            yield Expression(f"the {text}", "attribute", members[0])


def by_place(scene: Scene) -> Iterator[Expression]:
    """Yields the object farthest to a side, of a kind, of a colour, or of all; people by their order, too."""
    margin = PLACE_MARGIN * min(scene.image.shape[:2])
    for text, members in _groups(scene).items():
        for word, measure in PLACES.items():
            first = _first(scene, members, measure, margin)
            if first is not None:
                yield Expression(f"the {word} {text}", "place", first)
    yield from by_order(scene)


def by_order(scene: Scene) -> Iterator[Expression]:
    """Yields the person, face or mouth on the left, in the middle, on the right, of two or three."""
    margin = PLACE_MARGIN * min(scene.image.shape[:2])
    groups = _groups(scene)
    for text in ("person", *PARTS):
        members = sorted(groups.get(text, ()), key=lambda index: scene.shapes[index].x)
        apart = np.diff([scene.shapes[index].x for index in members])
        if len(members) in SIDES and (apart > margin).all():
            for words, index in zip(SIDES[len(members)], members):
                yield Expression(f"the {text} {words}", "place", index)


def by_size(scene: Scene) -> Iterator[Expression]:
    """Yields the largest and the smallest shape, of a kind, of a colour, or of all."""
    for text, members in _groups(scene).items():
        if any(scene.shapes[index].kind not in KINDS for index in members):
            continue
        for word, sign in (("largest", 1), ("smallest", -1)):
            first = _first(scene, members, lambda shape, sign=sign: sign * np.log(shape.radius), np.log1p(SIZE_MARGIN))
            if first is not None:
                yield Expression(f"the {word} {text}", "size", first)


def by_relation(scene: Scene) -> Iterator[Expression]:
    """Yields the only object of a kind on one side of a shape that its colour and kind identify."""
    margin = PLACE_MARGIN * min(scene.image.shape[:2])
    groups = _groups(scene)
    for anchor_text, anchors in groups.items():
        anchor = scene.shapes[anchors[0]]
        if len(anchors) > 1 or anchor_text != f"{anchor.colour} {anchor.kind}" or anchor.kind not in KINDS:
            continue
        for text, members in groups.items():
            others = [index for index in members if index != anchors[0]]
            if text == "shape" or not others:
                continue
            for words, distance in RELATIONS.items():
                distances = [distance(scene.shapes[index], anchor) for index in others]
                meant = [index for index, far in zip(others, distances) if far > 0]
                if len(meant) == 1 and min(abs(far) for far in distances) > margin:
                    yield Expression(f"the {text} {words} the {anchor_text}", "relation", meant[0])


def _groups(scene: Scene) -> dict[str, list[int]]:
    """
    Words -> the objects they fit: "shape" all shapes, "circle", "red shape", "red circle"; "person", "person in red".
    """
    groups: dict[str, list[int]] = {}
    for index, shape in enumerate(scene.shapes):
        words = (shape.kind, *shape.phrases)
        if shape.kind in KINDS:
            words = ("shape", shape.kind, f"{shape.colour} shape", f"{shape.colour} {shape.kind}")
        for text in words:
            groups.setdefault(text, []).append(index)
    return {text: members for text, members in groups.items() if _complete(scene, text)}


def _complete(scene: Scene, text: str) -> bool:
    """Whether all objects that the words may fit are annotated: a person's face, mouth or clothes may not be."""
    people = [shape for shape in scene.shapes if shape.kind == "person"]
    if text in PARTS:
        return sum(shape.kind == text for shape in scene.shapes) == len(people)
    return not text.startswith("person in ") or all(person.phrases for person in people)


def _first(scene: Scene, members: list[int], measure, margin: float) -> int | None:
    """
    Returns the member whose measure exceeds all others' by the margin; None if there is none, or only one member.
    """
    if len(members) < 2:
        return None
    values = np.array([measure(scene.shapes[index]) for index in members])
    second, first = np.sort(values)[-2:]
    return members[int(values.argmax())] if first - second > margin else None

"""Sentences about objects that a scene does not show."""

from collections.abc import Collection

import numpy as np

from lookhear.training.glee.scenes.expressions import PLACES, RELATIONS
from lookhear.training.glee.scenes.scenes import Scene, Shape
from lookhear.training.glee.scenes.shapes import COLOURS, KINDS

Pairs = Collection[tuple[str, str]]

SIZES = ("largest", "smallest")
SIDES = ("", " on the left", " in the middle", " on the right")
PEOPLE = ("person", "face", "mouth")
# Words for what no generated scene shows. Photos may show it, so they are asked on plain grounds only.
UNKNOWN = ("dog", "car", "tree", "cup", "house", "chair", "bird", "phone", "bottle", "table")
# A scene without people is asked for them by this share of its sentences; one on a plain ground for what is unknown.
PEOPLE_SHARE, UNKNOWN_SHARE = 0.35, 0.1


def absent_sentences(
    scene: Scene, random: np.random.Generator, count: int, excluded: Pairs = frozenset()
) -> list[str]:
    """
    Chooses different sentences that are true of nothing in a scene.

    What is annotated in part only is not asked for: whether a person wears red, or has a face that is seen, is known
    of some people.

    Args:
        scene: the picture.
        random: for all random choices.
        count: number of sentences.
        excluded: pairs of colour and kind that no sentence names.
    """
    view = _View(scene, excluded)
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        sentences[view.sentence(random)] = None
    return list(sentences)


class _View:
    """What a scene shows and what it doesn't."""

    def __init__(self, scene: Scene, excluded: Pairs):
        shapes = [shape for shape in scene.shapes if shape.kind in KINDS]
        self.people = any(shape.kind in PEOPLE for shape in scene.shapes)
        self.plain = scene.ground == "plain" and not self.people
        self.there = [_pair(shape) for shape in shapes]
        kinds, colours = {shape.kind for shape in shapes}, {shape.colour for shape in shapes}
        pairs = [(colour, kind) for colour in COLOURS for kind in KINDS if (colour, kind) not in excluded]
        self.pairs = [f"{colour} {kind}" for colour, kind in pairs if f"{colour} {kind}" not in self.there]
        self.words = [kind for kind in KINDS if kind not in kinds]
        self.words += [f"{colour} shape" for colour in COLOURS if colour not in colours]

    def sentence(self, random: np.random.Generator) -> str:
        """Makes a sentence at random."""
        if not self.people and random.random() < PEOPLE_SHARE:
            return self._person(random)
        if self.plain and random.random() < UNKNOWN_SHARE:
            return f"the {_any(random, UNKNOWN)}{_any(random, SIDES)}"
        return self._shape(random)

    def _person(self, random: np.random.Generator) -> str:
        if random.random() < 0.2:
            colour = _any(random, tuple(COLOURS))
            worn = (f"person in {colour}", f"woman in the {colour} suit", f"woman in the {colour} uniform")
            return f"the {_any(random, worn)}"
        return f"the {_any(random, PEOPLE)}{_any(random, SIDES)}"

    def _shape(self, random: np.random.Generator) -> str:
        """Names a shape that isn't there, by itself, by place, by size, or beside another one."""
        name = _any(random, self.pairs if random.random() < 0.6 or not self.words else self.words)
        form = random.integers(4)
        if form == 0:
            return f"the {name}"
        if form == 1:
            return f"the {_any(random, tuple(PLACES))} {name}"
        if form == 2:
            return f"the {_any(random, SIZES)} {name}"
        # Beside a shape that is there, or the other way round: the shape is there, and not the one that it is beside.
        other = _any(random, self.there or self.pairs)
        first, second = (name, other) if random.random() < 0.5 else (other, _any(random, self.pairs))
        return f"the {first} {_any(random, tuple(RELATIONS))} the {second}"


def _pair(shape: Shape) -> str:
    return f"{shape.colour} {shape.kind}"


def _any(random: np.random.Generator, words: Collection[str]) -> str:
    return list(words)[random.integers(len(words))]

"""Questions about a scene with their exact answers, in words and objects: attributes, order, relations, counts, …"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lookhear.training.glee.mixture.sampling import draw
from lookhear.training.glee.scenes.expressions import PLACE_MARGIN, RELATIONS
from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS, Scene, Shape
from lookhear.training.glee.scenes.shapes import COLOURS, KINDS

SEGMENT = "[SEG]"  # follows the words for an object in an answer: the object is shown
FAMILIES = ("attribute", "place", "order", "relation", "count", "absence", "reasoning")
EVENLY = dict.fromkeys(FAMILIES, 1.0)
# Asks for a whole group in order. It is for training only: an answer says where each shape comes, so a model learns to
# compare shapes from far fewer answers than those of "order" and "place", of which each is about one shape.
LISTING = "listing"
# Asks for numbers and for yes or no instead of shapes: how many are left of one, whether one is larger than another.
# It is for training only: to say how two shapes compare is a first step to finding the one that comes first.
COMPARING = "comparing"
TRAINED = (LISTING, COMPARING)
# Kinds that a word describes; their common noun is "shape", as for a colour: "the largest round shape".
CLASSES = {"round": ("circle", "ring"), "pointed": ("star", "triangle")}
NUMBERS = ("none", "one", "two", "three", "four")
TALLIES = (*NUMBERS, "five", "six", "seven", "eight")
MOST_SHOWN = len(NUMBERS) - 1  # more objects in one answer would be hard to tell apart
# Sizes differ if one is 15 % above the other; one neighbour is nearer than another if that is 25 % farther away.
SIZE_RATIO, DISTANCE_RATIO = 1.15, 1.25
# Several objects of an answer have an order from left to right if their centres are more than 3 pixels apart, and by
# size if one is 8 % above the other.
LEFT_TO_RIGHT, LISTED_RATIO = 3.0, 1.08
# A share of the texts is kept out of training: whether a text is held out is a property of the text alone.
HELD_OUT_SHARE = 8
# What a shape is like that has to be known rather than seen: kinds, or a colour.
KNOWLEDGE: dict[str, tuple[str, ...]] = {
    "would roll": ("circle", "ring"),
    "could be seen in the night sky": ("moon", "star"),
    "stands for love": ("heart",),
    "could be worn on a finger": ("ring",),
    "has three sides": ("triangle",),
    "has four sides": ("square",),
    "marks a hospital": ("cross",),
    "could sting": ("star", "triangle"),
    "has the colour of grass": ("green",),
    "has the colour of snow": ("white",),
    "has the colour of a lemon": ("yellow",),
    "has the colour of coal": ("black",),
    "has the colour of blood": ("red",),
    "has the colour of the sky": ("blue",),
    "has the colour of a plum": ("purple",),
    "has the colour of a carrot": ("orange",),
}


@dataclass(frozen=True)
class Question:
    """
    A question about a scene and its answer.

    Attributes:
        text: the question, such as "Which circle is the second largest?".
        answer: lower case, with `[SEG]` after the words for each object: "the red circle [SEG]".
        family: one of `FAMILIES`, `LISTING` or `COMPARING`.
        form: what kind of question of its family, such as "second largest".
        objects: indices of the scene's shapes, one for each `[SEG]` of the answer, in its order.
    """

    text: str
    answer: str
    family: str
    form: str
    objects: tuple[int, ...]


def is_held_out(text: str) -> bool:
    """
    Tells whether a question is one that is never trained on.

    Args:
        text: of the question; nothing else decides.
    """
    return zlib.crc32(text.encode()) % HELD_OUT_SHARE == 0


def all_questions(scene: Scene, families: Iterable[str] = FAMILIES) -> list[Question]:
    """
    Returns every question that the scene answers without doubt, in each of its wordings.

    Args:
        scene: the picture.
        families: of `FAMILIES` and `TRAINED`.
    """
    view = _View(scene)
    return [question for family in families for question in _MAKERS[family](view)]


def choose_questions(
    scene: Scene,
    random: np.random.Generator,
    count: int,
    shares: Mapping[str, float] = EVENLY,
    held_out: bool = False,
) -> list[Question]:
    """
    Chooses different questions at random: first a family by its share, then one of its forms, then one question.

    Args:
        scene: the picture.
        random: for all random choices.
        count: number of questions; fewer are returned if the scene has no more.
        shares: relative frequency of each family; those that the scene has no question for are left out.
        held_out: whether to choose among held-out texts, see [`is_held_out`], instead of the others.
    """
    view = _View(scene)
    families: dict[str, dict[str, list[Question]]] = {}
    remaining = dict(shares)
    chosen: list[Question] = []
    while remaining and len(chosen) < count:
        family = draw(random, remaining)
        if family not in families:  # made when first drawn: relations take as long as all other families together
            families[family] = _by_form(
                question for question in _MAKERS[family](view) if is_held_out(question.text) == held_out
            )
        forms = families[family]
        if not forms:
            del remaining[family]
            continue
        form = sorted(forms)[random.integers(len(forms))]
        chosen.append(forms[form].pop(random.integers(len(forms[form]))))
        if not forms[form]:
            del forms[form]
    return chosen


def _by_form(questions: Iterable[Question]) -> dict[str, list[Question]]:
    """Groups questions by their form."""
    forms: dict[str, list[Question]] = {}
    for question in questions:
        forms.setdefault(question.form, []).append(question)
    return forms


class _View:
    """Places, sizes and names of a scene's shapes, as a viewer sees them, without people."""

    def __init__(self, scene: Scene):
        self.side = min(scene.image.shape[:2])
        self.indices = [index for index, shape in enumerate(scene.shapes) if shape.kind in KINDS]
        self.shapes = [scene.shapes[index] for index in self.indices]
        boxes = np.array([shape.box for shape in self.shapes]).reshape(-1, 4)
        self.x, self.y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        self.size = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])  # the longer side of what is seen
        self.names = [f"{shape.colour} {shape.kind}" for shape in self.shapes]

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """Maps words to the shapes they fit: "shape", "circle", "red shape", "red circle", "round shape"."""
        groups: dict[str, list[int]] = {}
        for index, shape in enumerate(self.shapes):
            classes = [f"{word} shape" for word, kinds in CLASSES.items() if shape.kind in kinds]
            for words in ("shape", shape.kind, f"{shape.colour} shape", self.names[index], *classes):
                groups.setdefault(words, []).append(index)
        return groups

    @cached_property
    def unique(self) -> dict[str, int]:
        """Maps words that fit only one shape to that shape; "shape" alone is not among them."""
        return {words: group[0] for words, group in self.groups.items() if len(group) == 1 and words != "shape"}

    @cached_property
    def landmarks(self) -> dict[str, int]:
        """Maps words to shapes that others are described by: kinds, alone or with a colour, that are unique."""
        return {words: index for words, index in self.unique.items() if not words.endswith("shape")}

    def question(
        self, wordings: Iterable[str], answer: str, family: str, form: str, *shown: int
    ) -> Iterator[Question]:
        """Yields a question in each of its wordings; `shown` are the answer's shapes."""
        objects = tuple(self.indices[index] for index in shown)
        for text in wordings:
            yield Question(text, answer, family, form, objects)

    def about(self, wordings: Iterable[str], family: str, form: str, index: int) -> Iterator[Question]:
        """Yields a question whose answer is one shape's name."""
        return self.question(wordings, f"the {self.names[index]} {SEGMENT}", family, form, index)

    def listing(self, group: Iterable[int]) -> str:
        """Names shapes, each with its `[SEG]`."""
        return " and ".join(f"the {self.names[index]} {SEGMENT}" for index in group)

    def in_line(self, group: Iterable[int]) -> list[int] | None:
        """Orders a group from left to right; returns None if two of its shapes are too close to have an order."""
        line = sorted(group, key=lambda index: self.x[index])
        return line if (np.diff(self.x[line]) > LEFT_TO_RIGHT).all() else None


def _attributes(view: _View) -> Iterator[Question]:
    """Asks for a shape by its name, for the colour of a kind, and for the kind of a colour."""
    for words, index in view.unique.items():
        shape: Shape = view.shapes[index]
        yield from view.about(
            (f"Show the {words}.", f"Where is the {words}?", f"Can you find the {words}?"), "attribute", "name", index
        )
        if words == shape.kind:
            wordings = (f"What colour is the {words}?", f"Which colour does the {words} have?")
            yield from view.question(wordings, f"it is {shape.colour} {SEGMENT}", "attribute", "colour", index)
        elif words == f"{shape.colour} shape":
            wordings = (f"What is the {words}?", f"What kind of shape is the {shape.colour} one?")
            yield from view.question(wordings, f"it is a {shape.kind} {SEGMENT}", "attribute", "kind", index)


def _places(view: _View) -> Iterator[Question]:
    """Asks for the outermost shape of a group on each side."""
    margin = PLACE_MARGIN * view.side
    sides = {"leftmost": -view.x, "rightmost": view.x, "topmost": -view.y, "bottommost": view.y}
    for words, group in view.groups.items():
        for place, measure in sides.items():
            for index in _ranked(group, measure, margin, 1):
                if index is not None:
                    wordings = (f"Which {words} is {place}?", f"Show the {place} {words}.")
                    yield from view.about(wordings, "place", place, index)


def _orders(view: _View) -> Iterator[Question]:
    """Asks for the largest, the second smallest or the third from the left of a group that is large enough."""
    sizes = {"largest": np.log(view.size), "smallest": -np.log(view.size)}
    sides = {"left": -view.x, "right": view.x, "top": -view.y, "bottom": view.y}
    for words, group in view.groups.items():
        for size, measure in sizes.items():
            for rank, index in zip(("", "second ", "third "), _ranked(group, measure, np.log(SIZE_RATIO), 3)):
                if index is not None:
                    wordings = (
                        f"Which {words} is the {rank}{size}?",
                        f"Show the {rank}{size} of the {plural(words)}.",
                    )
                    yield from view.about(wordings, "order", f"{rank}{size}", index)
        for side, measure in sides.items():
            ranked = _ranked(group, measure, PLACE_MARGIN * view.side, 3)
            for rank, index in zip(("second", "third"), ranked[1:]):
                if index is not None:
                    wordings = (
                        f"Which {words} is the {rank} from the {side}?",
                        f"Show the {rank} of the {plural(words)} from the {side}.",
                    )
                    yield from view.about(wordings, "order", f"{rank} from a side", index)


def _ranked(group: list[int], measure: np.ndarray, margin: float, most: int) -> list[int | None]:
    """
    Ranks a group by a measure, highest first.

    Returns:
        for each of the first `most` ranks the shape that clearly has it, by the margin below the previous one and
        above the next one; None for a rank that is in doubt. Empty for a group of one.
    """
    if len(group) < 2:
        return []
    order = sorted(group, key=lambda index: -measure[index])
    gaps = [np.inf, *-np.diff(measure[order]), np.inf]
    clear = [before > margin and after > margin for before, after in zip(gaps, gaps[1:])]
    return [index if sure else None for index, sure in zip(order, clear)][:most]


def _relations(view: _View) -> Iterator[Question]:
    """Asks for shapes beside, nearest to and between landmarks."""
    for words, index in view.landmarks.items():
        yield from _beside(view, words, index)
        yield from _nearest(view, words, index)
        for other_words, other in view.landmarks.items():
            if other != index:
                yield from _between(view, (words, other_words), index, other)


def _beside(view: _View, words: str, index: int) -> Iterator[Question]:
    """Asks for the only shape of a group on one side of a landmark."""
    margin, landmark = PLACE_MARGIN * view.side, _Point(view.x[index], view.y[index])
    for group_words, group in view.groups.items():
        others = [other for other in group if other != index]
        if group_words == "shape" or not others:
            continue
        for relation, distance in RELATIONS.items():
            distances = [distance(_Point(view.x[other], view.y[other]), landmark) for other in others]
            meant = [other for other, far in zip(others, distances) if far > 0]
            if len(meant) == 1 and min(abs(far) for far in distances) > margin:
                wordings = (
                    f"Which {group_words} is {relation} the {words}?",
                    f"Show the {group_words} that is {relation} the {words}.",
                )
                yield from view.about(wordings, "relation", relation, meant[0])


def _nearest(view: _View, words: str, index: int) -> Iterator[Question]:
    """Asks for the shape that is clearly nearest to a landmark."""
    if len(view.shapes) < 3:
        return
    distances = np.hypot(view.x - view.x[index], view.y - view.y[index])
    first, second = sorted((other for other in range(len(distances)) if other != index), key=distances.__getitem__)[:2]
    if distances[second] > DISTANCE_RATIO * distances[first]:
        wordings = (f"Which shape is nearest to the {words}?", f"Show the shape closest to the {words}.")
        yield from view.about(wordings, "relation", "nearest", first)


def _between(view: _View, words: tuple[str, str], one: int, other: int) -> Iterator[Question]:
    """Asks for the shape on the line between two landmarks, if no other is even roughly between them."""
    points = np.stack((view.x, view.y), axis=1) / view.side
    way = points[other] - points[one]
    length = float(np.hypot(*way))
    if length < 0.3:
        return
    along = (points - points[one]) @ way / length**2  # 0 at one landmark, 1 at the other
    aside = np.abs((points - points[one]) @ np.array([-way[1], way[0]])) / length
    rough = [
        index
        for index in range(len(points))
        if index not in (one, other) and 0.05 < along[index] < 0.95 and aside[index] < 0.22
    ]
    if len(rough) == 1 and 0.15 < along[rough[0]] < 0.85 and aside[rough[0]] < 0.13:
        both = f"between the {words[0]} and the {words[1]}"
        yield from view.about((f"Which shape is {both}?", f"Show what lies {both}."), "relation", "between", rough[0])


def _counts(view: _View) -> Iterator[Question]:
    """Asks how many shapes of a kind, a colour or a class there are; the answer names each, then their number."""
    groups = [*KINDS, *(f"{word} shape" for word in (*COLOURS, *CLASSES))]
    for words in groups:
        line = view.in_line(view.groups.get(words, ()))
        if line is not None and len(line) <= MOST_SHOWN:
            wordings = [f"How many {plural(words)} are there? Show them.", f"Count the {plural(words)} and show them."]
            if words.endswith(" shape"):
                wordings.append(f"How many are {words.removesuffix(' shape')}? Show them.")
            answer = f"{view.listing(line)}, that makes {NUMBERS[len(line)]}" if line else "there are none"
            yield from view.question(wordings, answer, "count", NUMBERS[len(line)], *line)


def _absences(view: _View) -> Iterator[Question]:
    """Asks whether there is a shape of a kind, of a colour or of both, never for a pair that training excludes."""
    pairs = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS if (colour, kind) not in HELD_OUT_PAIRS]
    for words in [*KINDS, *(f"{colour} shape" for colour in COLOURS), *pairs]:
        group = view.groups.get(words, [])
        wordings = (f"Is there {article(words)}? If so, show it.", f"Can you see {article(words)}?")
        if len(group) == 1:
            answer = f"yes, {article(view.names[group[0]])} {SEGMENT}"
            yield from view.question(wordings, answer, "absence", "there is one", group[0])
        elif not group and _is_likely(view, words):
            yield from view.question(wordings, f"no, there is no {words}", "absence", "there is none")


def _is_likely(view: _View, words: str) -> bool:
    """
    Tells whether a shape that a scene lacks is worth asking for.

    Of the many missing pairs, only those are that share a colour or a kind with the scene: to answer, both have to be
    looked at.
    """
    first, last = words.split()[0], words.split()[-1]
    return " " not in words or last == "shape" or f"{first} shape" in view.groups or last in view.groups


def _reasoning(view: _View) -> Iterator[Question]:
    """Asks for shapes by what is known of their kind or colour."""
    for words, needed in KNOWLEDGE.items():
        fits = (index for index, shape in enumerate(view.shapes) if shape.kind in needed or shape.colour in needed)
        line = view.in_line(fits)
        if line and len(line) < MOST_SHOWN:
            wordings = (f"Which of these {words}? Show it.", f"What {words}?")
            yield from view.question(wordings, view.listing(line), "reasoning", NUMBERS[len(line)], *line)


def _listings(view: _View) -> Iterator[Question]:
    """Asks for all shapes of a group in order: from a side, or by size."""
    sizes, near = np.log(view.size), np.log(LISTED_RATIO)
    measures = {
        "left": (view.x, LEFT_TO_RIGHT),
        "right": (-view.x, LEFT_TO_RIGHT),
        "top": (view.y, LEFT_TO_RIGHT),
        "bottom": (-view.y, LEFT_TO_RIGHT),
        "largest": (-sizes, near),
        "smallest": (sizes, near),
    }
    for words, group in view.groups.items():
        for first, (measure, margin) in measures.items():
            line = sorted(group, key=measure.__getitem__)
            if len(group) > 1 and (np.diff(measure[line]) > margin).all():
                wordings = (f"Show the {plural(words)} from the {first}.",)
                yield from view.question(wordings, view.listing(line), LISTING, first, *line)


def _comparisons(view: _View) -> Iterator[Question]:
    """Asks how many shapes are on a side of one or larger than it, and whether another one is."""
    sizes, near = np.log(view.size), np.log(LISTED_RATIO)
    measures = {
        "left of": (-view.x, LEFT_TO_RIGHT),
        "right of": (view.x, LEFT_TO_RIGHT),
        "above": (-view.y, LEFT_TO_RIGHT),
        "below": (view.y, LEFT_TO_RIGHT),
        "larger than": (sizes, near),
        "smaller than": (-sizes, near),
    }
    for words, index in view.landmarks.items():
        for relation, (measure, margin) in measures.items():
            ahead = measure - measure[index]
            more = int((ahead > 0).sum())
            if (np.delete(np.abs(ahead), index) > margin).all() and more < len(TALLIES):
                wordings = (f"How many shapes are {relation} the {words}?",)
                yield from view.question(wordings, TALLIES[more], COMPARING, "how many")
            for other_words, other in view.landmarks.items():
                if abs(ahead[other]) > margin:
                    wordings = (f"Is the {other_words} {relation} the {words}?",)
                    yield from view.question(wordings, "yes" if ahead[other] > 0 else "no", COMPARING, "whether")


_MAKERS: dict[str, Callable[[_View], Iterator[Question]]] = {
    "attribute": _attributes,
    "place": _places,
    "order": _orders,
    "relation": _relations,
    "count": _counts,
    "absence": _absences,
    "reasoning": _reasoning,
    LISTING: _listings,
    COMPARING: _comparisons,
}


@dataclass(frozen=True)
class _Point:
    """A shape's centre, in pixels, as `RELATIONS` compares them."""

    x: float
    y: float


def plural(words: str) -> str:
    """
    Returns the plural of a shape's words: "red crosses".

    Args:
        words: that end with the noun.
    """
    return words + ("es" if words.endswith("cross") else "s")


def article(words: str) -> str:
    """
    Returns words with their indefinite article: "an orange star".

    Args:
        words: of one shape.
    """
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"

"""Generated scenes: textured shapes and people that overlap, on plain grounds or photos, with boxes and masks."""

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from lookhear.training.glee.scenes.backgrounds import photo_ground, plain_ground
from lookhear.training.glee.scenes.people import Person, place_panels, place_people
from lookhear.training.glee.scenes.person_photos import PersonPhoto
from lookhear.training.glee.scenes.photographs import photograph
from lookhear.training.glee.scenes.portraits import Cutout
from lookhear.training.glee.scenes.shapes import COLOURS, KINDS, coverage, paint
from lookhear.training.recipe_reading import Ascending, CountOrZero, NotNegative, Positive, Range, Share

# Pairs that are left out of training, to test whether a model combines words that it knows.
HELD_OUT_PAIRS = frozenset(
    {
        ("red", "heart"),
        ("blue", "star"),
        ("green", "moon"),
        ("yellow", "cross"),
        ("purple", "square"),
        ("white", "ring"),
    }
)
PARTS = ("face", "mouth")  # of a person
# Minimum visible share of a shape, a face or a mouth to be a target; and minimum visible pixels of a person or a part.
LEAST_SEEN, LEAST_PIXELS = 0.3, 12


@dataclass(frozen=True)
class SceneRecipe:
    """
    Settings of scenes. Lengths are shares of the shorter side.

    Attributes:
        objects: fewest and most shapes, at least 0.
        radius: smallest and largest radius of a shape, above 0.
        crowding: least distance of two shapes, as a multiple of the sum of their radii, at least 0; at 1 they hardly
            overlap.
        rotation: largest angle by which shapes are turned, in radians, at least 0.
        noise: standard deviation of the grain over the whole scene, in grey values, at least 0.
        contrast: least contrast of a whole scene, in (0, 1]; 1 leaves scenes as they are.
        excluded: pairs of colour and kind that don't occur.
        photos: share of the scenes with a photo as background, in [0, 1], if there are photos.
        people: share of the scenes with people, in [0, 1], if there are people.
        objects_beside: fewest and most shapes in scenes with people, at least 0.
        panels: share of the scenes with people, in [0, 1], that show video frames side by side, if there are frames.
        photographed: share of the scenes, in [0, 1], that are photos of people, if there are such photos; shapes lie
            on them as in other scenes with people.
        bare: share of the scenes on photos, in [0, 1], without any shape: nothing but the photo and its people.
    """

    objects: Annotated[tuple[CountOrZero, CountOrZero], Ascending()] = (3, 8)
    radius: Annotated[tuple[Positive, Positive], Ascending()] = (0.07, 0.21)
    crowding: NotNegative = 0.72
    rotation: NotNegative = 0.35
    noise: NotNegative = 5.0
    contrast: Annotated[float, Range(0, 1, above=True)] = 1.0
    excluded: frozenset[tuple[str, str]] = frozenset()
    photos: Share = 0.0
    people: Share = 0.0
    objects_beside: Annotated[tuple[CountOrZero, CountOrZero], Ascending()] = (0, 3)
    panels: Share = 0.5
    photographed: Share = 0.0
    bare: Share = 0.0


@dataclass(frozen=True)
class SceneMaterial:
    """
    Pictures for scenes, each of which may be empty.

    Attributes:
        photos: backgrounds, without people.
        portraits: people who are pasted into scenes.
        frames: pictures of one person each, which are shown side by side.
        people: photos that are scenes, with the people in them.
    """

    photos: list[np.ndarray] = field(default_factory=list)
    portraits: list[Cutout] = field(default_factory=list)
    frames: list[Cutout] = field(default_factory=list)
    people: list[PersonPhoto] = field(default_factory=list)

    def with_known_faces(self) -> "SceneMaterial":
        """Returns the material whose people all have faces and mouths that are known."""

        def known(cutouts: list[Cutout]) -> list[Cutout]:
            return [cutout for cutout in cutouts if cutout.parts.keys() >= set(PARTS)]

        people = [photo for photo in self.people if all(parts.keys() >= set(PARTS) for parts in photo.people)]
        return SceneMaterial(self.photos, known(self.portraits), known(self.frames), people)


@dataclass(frozen=True)
class Shape:
    """
    An object in a scene.

    Attributes:
        colour: its name; of a person that of clothes or frame, or empty.
        kind: `person`, a part of one, or one of `KINDS`.
        x: of the centre, in pixels.
        y: of the centre, in pixels.
        radius: in pixels.
        box: x0, y0, x1, y1 of the visible part, in pixels.
        mask: `(height, width)` bool, the visible part.
        phrases: names in sentences beside the kind.
    """

    colour: str
    kind: str
    x: float
    y: float
    radius: float
    box: tuple[float, float, float, float]
    mask: np.ndarray
    phrases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scene:
    """
    A picture and its objects.

    Attributes:
        image: `(height, width, 3)` uint8.
        shapes: its objects, people first, then the shapes, back to front.
        ground: what is behind them: "plain", "photo" (a part without people) or "photographed" (a photo of people).
        bare: whether it is a photo without shapes.
    """

    image: np.ndarray
    shapes: list[Shape]
    ground: str = "plain"
    bare: bool = False


def make_scene(
    random: np.random.Generator,
    size: tuple[int, int] = (128, 128),
    recipe: SceneRecipe | None = None,
    material: SceneMaterial | None = None,
) -> Scene:
    """
    Generates a scene; equal generators give equal scenes.

    Args:
        random: for all random choices.
        size: (height, width) in pixels; a photo of people may be smaller.
        recipe: settings of the scene.
        material: photos and people; without them there are only shapes on plain grounds.

    Returns:
        A scene of whose objects a good part is visible; masks are the pixels that no nearer object hides.
    """
    recipe, material = recipe or SceneRecipe(), material or SceneMaterial()
    image, people, ground = _ground(random, size, recipe, material)
    size = image.shape[:2]
    bare = bool(recipe.bare) and ground != "plain" and random.random() < recipe.bare
    owner = np.full(size, -1, np.int16)  # which person or shape is visible in a pixel
    for index, person in enumerate(people):
        owner[person.window][person.parts["person"]] = index
    drawn: list[tuple[str, str, float, float, float, int]] = []
    objects = (0, 0) if bare else recipe.objects_beside if people else recipe.objects
    for colour, kind, x, y, radius in _arrange(random, size, recipe, objects):
        window, dx, dy = _window(x, y, radius, size)
        cover = coverage(kind, dx, dy, radius, random.uniform(-recipe.rotation, recipe.rotation))
        image[window] += (paint(colour, dx, dy, radius, random) - image[window]) * cover[..., None]
        owner[window][cover >= 0.5] = len(people) + len(drawn)
        drawn.append((colour, kind, x, y, radius, int((cover >= 0.5).sum())))
    if recipe.contrast < 1:
        image = image.mean() + (image - image.mean()) * np.float32(random.uniform(recipe.contrast, 1.0))
    if recipe.noise:
        image += random.standard_normal(size, np.float32)[..., None] * np.float32(recipe.noise)
    image = np.clip(image, 0, 255).astype(np.uint8)
    return Scene(image, _people_seen(people, owner) + _seen(drawn, owner, len(people)), ground, bare)


def _ground(
    random: np.random.Generator, size: tuple[int, int], recipe: SceneRecipe, material: SceneMaterial
) -> tuple[np.ndarray, list[Person], str]:
    """Makes a background, with the people on it, and says what it is, see `Scene`."""
    if recipe.photographed and material.people and random.random() < recipe.photographed:
        photo = material.people[random.integers(len(material.people))]
        return *photograph(random, size, photo), "photographed"
    if recipe.photos and material.photos and random.random() < recipe.photos:
        image, ground = photo_ground(random, size, material.photos[random.integers(len(material.photos))]), "photo"
    else:
        image, ground = plain_ground(random, size), "plain"
    return image, _people(random, image, recipe, material), ground


def _people(
    random: np.random.Generator, image: np.ndarray, recipe: SceneRecipe, material: SceneMaterial
) -> list[Person]:
    if not (recipe.people and (material.portraits or material.frames) and random.random() < recipe.people):
        return []
    if material.frames and (not material.portraits or random.random() < recipe.panels):
        return place_panels(random, image, material.frames)
    # Of a photo the people alone are pasted, who are among the portraits.
    return place_people(random, image, material.portraits + [each for each in material.frames if not each.anywhere])


def photo_scene(photo: PersonPhoto) -> Scene:
    """Returns a photo as it is, with its people."""
    size = photo.picture.shape[:2]
    everything = slice(0, size[0]), slice(0, size[1])
    people = [Person(everything, parts, "", ()) for parts in photo.people]
    owner = np.full(size, -1, np.int16)
    for index, person in enumerate(people):
        owner[person.parts["person"]] = index
    return Scene(photo.picture, _people_seen(people, owner), "photographed", bare=True)


def _people_seen(people: list[Person], owner: np.ndarray) -> list[Shape]:
    shapes = []
    for index, person in enumerate(people):
        mine = owner[person.window] == index
        for part, drawn in person.parts.items():
            mask = np.zeros(owner.shape, bool)
            mask[person.window] = mine & drawn
            # No visible person is left out, or "the person in the middle" would be another one.
            least = 0 if part == "person" else LEAST_SEEN * drawn.sum()
            if mask.sum() >= max(LEAST_PIXELS, least):
                box = _box(mask)
                centre, radius = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), (box[2] - box[0]) / 2
                words = (person.colour, person.phrases) if part == "person" else ("", ())
                shapes.append(Shape(words[0], part, *centre, radius, box, mask, words[1]))
    return shapes


def _seen(drawn: list[tuple], owner: np.ndarray, first: int) -> list[Shape]:
    shapes = []
    for index, (colour, kind, x, y, radius, whole) in enumerate(drawn):
        mask = owner == first + index
        if mask.sum() > LEAST_SEEN * whole:
            shapes.append(Shape(colour, kind, x, y, radius, _box(mask), mask))
    return shapes


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _arrange(
    random: np.random.Generator, size: tuple[int, int], recipe: SceneRecipe, objects: tuple[int, int]
) -> list[tuple]:
    """Chooses colour, kind, x, y and radius of each shape, none of them much over another."""
    side, (height, width) = min(size), size
    pairs = [(colour, kind) for colour in COLOURS for kind in KINDS if (colour, kind) not in recipe.excluded]
    placed: list[tuple] = []
    wanted = int(random.integers(objects[0], objects[1] + 1))
    for _ in range(8 * wanted):
        if len(placed) == wanted:
            break
        low, high = recipe.radius
        radius = side * low * (high / low) ** random.random()
        x, y = random.uniform(0.9 * radius, np.array([width, height]) - 0.9 * radius)
        if all(_apart(np.hypot(x - a, y - b), radius, r, recipe.crowding) for _, _, a, b, r in placed):
            # Kinds and colours repeat in a scene: else one word would do for each expression.
            colour, kind = pairs[random.integers(len(pairs))]
            if placed and random.random() < 0.35:
                kind = placed[random.integers(len(placed))][1]
            elif placed and random.random() < 0.25:
                colour = placed[random.integers(len(placed))][0]
            if (colour, kind) not in recipe.excluded:
                placed.append((colour, kind, float(x), float(y), float(radius)))
    return placed


def _apart(distance: float, radius: float, other: float, crowding: float) -> bool:
    """Whether two shapes overlap in part at most: the centre of the smaller is always outside the larger."""
    return distance > max(crowding * (radius + other), radius, other)


def _window(x: float, y: float, radius: float, size: tuple[int, int]) -> tuple:
    """
    Returns the pixels around a shape as slices, and their distances from its centre, `(1, width)` and `(height, 1)`.
    """
    reach = 1.15 * radius + 2
    top, left = max(0, int(y - reach)), max(0, int(x - reach))
    bottom, right = min(size[0], int(y + reach) + 1), min(size[1], int(x + reach) + 1)
    dx = (np.arange(left, right, dtype=np.float32) + 0.5 - np.float32(x))[None]
    dy = (np.arange(top, bottom, dtype=np.float32) + 0.5 - np.float32(y))[:, None]
    return (slice(top, bottom), slice(left, right)), dx, dy

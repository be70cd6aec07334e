"""Generated scenes: textured shapes that overlap on a textured ground, with their exact boxes and masks."""

from dataclasses import dataclass

import numpy as np

from lookhear.training.glee.shapes import COLOURS, KINDS, coverage, paint

# Pairs that a model never meets while it trains, so that it can be asked whether it puts words together.
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


@dataclass(frozen=True)
class SceneRecipe:
    """
    What scenes are like. Lengths are shares of the shorter side.

    Attributes:
        objects: fewest and most shapes; radius: smallest and largest.
        crowding: shapes come at least this share of the sum of their radii near to each other; 1 hardly lets them overlap.
        rotation: shapes are turned by up to this angle in radians.
        noise: standard deviation of the grain over everything, in grey values.
        excluded: pairs of colour and kind that don't occur.
    """

    objects: tuple[int, int] = (3, 8)
    radius: tuple[float, float] = (0.07, 0.21)
    crowding: float = 0.72
    rotation: float = 0.35
    noise: float = 5.0
    excluded: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Shape:
    """One object: its words, its centre and radius in pixels, its box (x0, y0, x1, y1) and the mask of what is seen."""

    colour: str
    kind: str
    x: float
    y: float
    radius: float
    box: tuple[float, float, float, float]
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """`image` `(height, width, 3)` uint8 and what is in it, the hindmost first."""

    image: np.ndarray
    shapes: list[Shape]


def make_scene(
    random: np.random.Generator, size: tuple[int, int] = (128, 128), recipe: SceneRecipe | None = None
) -> Scene:
    """
    A scene; equal generators make equal scenes.

    Args:
        random: for all that is drawn by lot; size: (height, width) in pixels.
    Returns:
        a scene whose shapes are all seen for the most part, each mask being the pixels that no nearer shape hides.
    """
    recipe = recipe or SceneRecipe()
    image = _ground(random, size)
    owner = np.full(size, -1, np.int8)  # which shape is seen in a pixel
    drawn = []
    for colour, kind, x, y, radius in _arrange(random, size, recipe):
        window, dx, dy = _window(x, y, radius, size)
        cover = coverage(kind, dx, dy, radius, random.uniform(-recipe.rotation, recipe.rotation))
        image[window] += (paint(colour, dx, dy, radius, random) - image[window]) * cover[..., None]
        owner[window][cover >= 0.5] = len(drawn)
        drawn.append((colour, kind, x, y, radius, int((cover >= 0.5).sum())))
    if recipe.noise:
        image += random.standard_normal(size, np.float32)[..., None] * np.float32(recipe.noise)
    image = np.clip(image, 0, 255).astype(np.uint8)
    return Scene(image, _seen(drawn, owner))


def _seen(drawn: list[tuple], owner: np.ndarray) -> list[Shape]:
    shapes = []
    for index, (colour, kind, x, y, radius, _) in enumerate(drawn):
        mask = owner == index
        columns, rows = mask.any(axis=0).nonzero()[0], mask.any(axis=1).nonzero()[0]
        if len(columns):
            box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
            shapes.append(Shape(colour, kind, x, y, radius, box, mask))
    return shapes


def _arrange(random: np.random.Generator, size: tuple[int, int], recipe: SceneRecipe) -> list[tuple]:
    """Colour, kind, x, y and radius of each shape, none of them much over another."""
    side, (height, width) = min(size), size
    pairs = [(colour, kind) for colour in COLOURS for kind in KINDS if (colour, kind) not in recipe.excluded]
    placed: list[tuple] = []
    wanted = int(random.integers(recipe.objects[0], recipe.objects[1] + 1))
    for _ in range(8 * wanted):
        if len(placed) == wanted:
            break
        low, high = recipe.radius
        radius = side * low * (high / low) ** random.random()
        x, y = random.uniform(0.9 * radius, (width, height) - np.float64(0.9 * radius))
        if all(np.hypot(x - a, y - b) > recipe.crowding * (radius + r) for _, _, a, b, r in placed):
            # Scenes repeat kinds and colours, or no expression would need more than one word.
            colour, kind = pairs[random.integers(len(pairs))]
            if placed and random.random() < 0.35:
                kind = placed[random.integers(len(placed))][1]
            elif placed and random.random() < 0.25:
                colour = placed[random.integers(len(placed))][0]
            if (colour, kind) not in recipe.excluded:
                placed.append((colour, kind, float(x), float(y), float(radius)))
    return placed


def _window(x: float, y: float, radius: float, size: tuple[int, int]) -> tuple:
    """The pixels around a shape as slices, and their distances from its centre `(1, width)` and `(height, 1)`."""
    reach = 1.15 * radius + 2
    top, left = max(0, int(y - reach)), max(0, int(x - reach))
    bottom, right = min(size[0], int(y + reach) + 1), min(size[1], int(x + reach) + 1)
    dx = (np.arange(left, right, dtype=np.float32) + 0.5 - np.float32(x))[None]
    dy = (np.arange(top, bottom, dtype=np.float32) + 0.5 - np.float32(y))[:, None]
    return (slice(top, bottom), slice(left, right)), dx, dy


def _ground(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Two muted colours that run into each other, with soft spots: `(height, width, 3)` float32."""
    height, width = size
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(0, 1, width, dtype=np.float32)[None]
    angle = random.uniform(0, 2 * np.pi)
    blend = 0.5 + 0.5 * (np.float32(np.cos(angle)) * (x - 0.5) + np.float32(np.sin(angle)) * (y - 0.5))
    for _ in range(int(random.integers(0, 4))):
        fx, fy = random.uniform(-9, 9, 2).astype(np.float32)
        blend = blend + np.float32(random.uniform(0.05, 0.25)) * np.sin(
            fx * x + fy * y * np.float32(random.uniform(1, 3))
        )
    first, second = (_muted(random) for _ in range(2))
    return first + (second - first) * blend[..., None]


def _muted(random: np.random.Generator) -> np.ndarray:
    grey = random.uniform(70, 200)
    return np.float32(grey + random.uniform(-28, 28, 3))

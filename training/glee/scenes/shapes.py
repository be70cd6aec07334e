"""Eight coloured shapes: the pixels that each covers, and its paint."""

from collections.abc import Callable

import numpy as np

# Functions of x, y in units of the shape's radius; negative inside, with a slope of about 1.


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 1


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.8


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x) * 0.866 - (y - 0.25) * 0.5 - 0.625, y - 0.7)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    fifth = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + fifth / 2) % fifth - fifth / 2)  # 0 at a point, pi / 5 between two
    radius = np.hypot(x, y)
    # The edge runs from the point (1, 0) to the notch (0.42 cos(pi / 5), 0.42 sin(pi / 5)).
    return (radius * np.cos(angle) - 1) * 0.350 + radius * np.sin(angle) * 0.937


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(x, y) - 0.3, np.maximum(x, y) - 0.95)


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.76) - 0.24


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    lobe = np.hypot(x - 0.45, y + 0.35) - 0.53
    tip = np.maximum((x + y - 0.85) * 0.707, (x - y - 0.8) * 0.707)  # between the lobes' centres and their tangents
    return np.minimum(lobe, np.maximum(tip, -0.35 - y))


def _moon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(x, y) - 1, 0.85 - np.hypot(x - 0.55, y))


KINDS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
    "moon": _moon,
}
COLOURS = {
    "red": (205, 35, 40),
    "orange": (245, 140, 20),
    "yellow": (245, 225, 50),
    "green": (40, 150, 55),
    "blue": (35, 80, 205),
    "purple": (135, 45, 165),
    "white": (240, 240, 240),
    "black": (25, 25, 28),
}


def coverage(kind: str, x: np.ndarray, y: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """
    Computes the share of each pixel that a shape covers.

    Args:
        kind: one of `KINDS`.
        x: pixels right of its centre, broadcast against `y`.
        y: pixels below its centre.
        radius: in pixels.
        angle: rotation clockwise, in radians.

    Returns:
        float32 in [0, 1]; edges are blurred by one pixel.
    """
    cos, sin = np.float32(np.cos(angle) / radius), np.float32(np.sin(angle) / radius)
    distance = KINDS[kind](cos * x + sin * y, cos * y - sin * x)
    return np.clip(0.5 - distance * np.float32(radius), 0, 1)


def paint(colour: str, x: np.ndarray, y: np.ndarray, radius: float, random: np.random.Generator) -> np.ndarray:
    """Paints a slightly random colour, lit from one side, sometimes with stripes: `(height, width, 3)` float32, 0 to
    255.
    """
    base = np.array(COLOURS[colour], np.float32) + random.uniform(-14, 14, 3).astype(np.float32)
    angle = random.uniform(0, 2 * np.pi)
    along = (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y) / np.float32(radius)
    light = 1 + np.float32(random.uniform(0.0, 0.22)) * along
    if random.random() < 0.4:
        light = light + np.float32(random.uniform(0.04, 0.14)) * np.sin(along * np.float32(random.uniform(4, 12)))
    return base * light[..., None]

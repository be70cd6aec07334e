"""Faces that are drawn, so that tests need no photo: simple ones that the detectors and the mesh take for faces."""

from __future__ import annotations

import numpy as np

SKINS = ((222, 178, 150), (196, 145, 112), (140, 95, 70), (235, 200, 180))
TURNS = ((1.0, 0.0), (0.96, 0.28), (0.96, -0.28), (0.8, 0.6))  # (cosine, sine), exact in decimals


def drawn_face(
    height: int = 288,
    width: int = 360,
    centre: tuple[float, float] = (180.0, 144.0),
    size: float = 90.0,
    turn: tuple[float, float] = (1.0, 0.0),
    mouth: float = 0.3,
    skin: tuple[int, int, int] = SKINS[0],
    look: float = 0.0,
) -> np.ndarray:
    """
    Draws a face before a plain wall. Only `+ - * /` and roots are used, so that every machine draws the same.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        centre: x and y between the eyes and the mouth, in pixels.
        size: distance from the middle to the cheek, in pixels.
        turn: cosine and sine of the angle by which the head is tilted.
        mouth: how far the mouth is open, from 0 to 1.
        skin: red, green and blue of the skin.
        look: by how much of the face's width nose and mouth are moved aside, as if the head was turned.

    Returns:
        `(height, width, 3)` uint8.
    """
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = (columns - centre[0]) / size, (rows - centre[1]) / size
    x, y = turn[0] * x + turn[1] * y, -turn[1] * x + turn[0] * y
    soft = 1.5 / size
    picture = np.stack([90 + 20 * (rows / height), 110 + 15 * (columns / width), 125 + 0 * rows], axis=-1)

    def paint(across: float, down: float, half_width: float, half_height: float, colour, strength: float = 1.0):
        distance = np.sqrt(((x - across) / half_width) ** 2 + ((y - down) / half_height) ** 2)
        share = np.clip((1 - distance) * min(half_width, half_height) / soft + 0.5, 0, 1) * strength
        picture[:] = picture + share[..., None] * (np.array(colour, dtype=np.float64) - picture)

    dark = tuple(0.72 * value for value in skin)
    paint(0, 1.75, 1.5, 0.75, (60, 70, 110))  # shoulders
    paint(0, 1.05, 0.45, 0.6, dark)  # neck
    paint(0, -0.35, 1.06, 1.15, (45, 32, 25))  # hair
    paint(0, 0, 0.92, 1.28, skin)
    paint(0.55 * look - 0.55, 0.35, 0.3, 0.35, dark, 0.25)  # cheeks
    paint(0.55 * look + 0.55, 0.35, 0.3, 0.35, dark, 0.25)
    for side in (-1, 1):
        at = 0.42 * side + 0.5 * look
        paint(at, -0.2, 0.26, 0.16, dark, 0.6)
        paint(at, -0.2, 0.2, 0.09, (245, 245, 245))
        paint(at + 0.1 * look, -0.2, 0.085, 0.09, (70, 45, 30))
        paint(at, -0.2, 0.04, 0.045, (5, 5, 5))
        paint(at, -0.43, 0.27, 0.05, (50, 35, 28))
    paint(look, 0.1, 0.09, 0.35, tuple(min(255.0, 1.08 * value) for value in skin), 0.7)  # nose
    paint(look, 0.33, 0.2, 0.1, dark, 0.7)
    for side in (-1, 1):
        paint(look + 0.1 * side, 0.36, 0.05, 0.03, (70, 40, 35))
    paint(0.8 * look, 0.72, 0.38, 0.11 + 0.12 * mouth, (170, 80, 80))  # lips
    paint(0.8 * look, 0.72, 0.3, 0.02 + 0.14 * mouth, (60, 20, 25))
    return np.clip(np.floor(picture + 0.5), 0, 255).astype(np.uint8)


def ten_faces(side: int) -> list[np.ndarray]:
    """Returns ten different `(side, side, 3)` uint8 pictures; the face fills most of each, as the mesh needs it."""
    return [
        drawn_face(
            side,
            side,
            centre=(side * (0.46 + 0.01 * index), side * (0.5 - 0.008 * index)),
            size=side * (0.22 + 0.012 * (index % 5)),
            turn=TURNS[index % 3],
            mouth=index / 9,
            skin=SKINS[index % 4],
            look=(index % 4 - 1.5) * 0.1,
        )
        for index in range(10)
    ]

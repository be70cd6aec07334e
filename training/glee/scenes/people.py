"""People in a scene: cut out, or as pictures side by side, some of these with a coloured frame."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from lookhear.training.glee.scenes.portraits import Cutout
from lookhear.training.glee.scenes.shapes import COLOURS


@dataclass(frozen=True)
class Person:
    """
    Where a person was pasted (slices of rows and columns), and masks of the parts there, before anything hides them.
    """

    window: tuple[slice, slice]
    parts: dict[str, np.ndarray]
    colour: str
    phrases: tuple[str, ...]


def place_people(random: np.random.Generator, image: np.ndarray, cutouts: list[Cutout]) -> list[Person]:
    """Pastes one to three people into `image` `(height, width, 3)` float32, each in a separate column."""
    height, width = image.shape[:2]
    count = int(random.integers(1, 4))
    column = width / count
    people = []
    for index in range(count):
        cutout = cutouts[random.integers(len(cutouts))]
        tall = random.uniform(0.5, 0.95) * height
        tall = min(tall, 1.15 * column * cutout.picture.shape[0] / cutout.picture.shape[1])
        cutout = cutout.scaled(4 * max(5, int(tall / 4)))
        rows, columns = cutout.picture.shape[:2]
        left = int((index + random.uniform(0.35, 0.65)) * column - columns / 2)
        top = height - rows if random.random() < 0.7 else int(random.uniform(0, height - rows + 1))
        people.append(_paste(image, cutout, top, left, cutout.parts["person"]))
    return people


def place_panels(random: np.random.Generator, image: np.ndarray, frames: list[Cutout]) -> list[Person]:
    """Pastes two or three frames of videos side by side, mostly over all of `image`, often with frames around them."""
    height, width = image.shape[:2]
    count = int(random.integers(2, 4))
    framed = random.random() < 0.5
    colours = [str(name) for name in random.permutation(list(COLOURS))[:count]]
    share = 1.0 if random.random() < 0.6 else random.uniform(0.7, 1.0)
    column, tall = width * share / count, int(height * share * random.uniform(0.75, 1.0))
    top, start = int(random.uniform(0, height - tall + 1)), random.uniform(0, width * (1 - share) + 1e-6)
    people = []
    for index in range(count):
        left, right = int(start + index * column), int(start + (index + 1) * column)
        panel = _panel(random, frames[random.integers(len(frames))], (tall, right - left))
        colour = colours[index] if framed else ""
        edge = max(2, round(0.03 * min(image.shape[:2]))) if framed else 0
        if framed:
            panel = _framed(panel, np.array(COLOURS[colour], np.float32), edge)
        everything = np.ones(panel.picture.shape[:2], bool)
        person = _paste(image, panel, top, left, everything)
        phrases = (f"person in the {colour} frame",) if framed else ()
        people.append(Person(person.window, person.parts, colour, phrases))
    return people


def _panel(random: np.random.Generator, frame: Cutout, size: tuple[int, int]) -> Cutout:
    """Cuts a part out of a frame, as large as possible, around its middle, and flips some of them."""
    height, width = frame.picture.shape[:2]
    scale = min(height / size[0], width / size[1])
    scale *= random.uniform(0.8, 1.0)
    rows, columns = min(height, int(size[0] * scale)), min(width, int(size[1] * scale))
    if frame.anywhere:
        top, left = _around(random, frame.parts["person"], (rows, columns))
    else:  # heads are in the middle, a little above it
        top = min(height - rows, int(random.uniform(0.0, 0.6) * (height - rows + 1)))
        left = min(width - columns, int(random.uniform(0.4, 0.6) * (width - columns + 1)))
    window = slice(top, top + rows), slice(left, left + columns)
    flip = random.random() < 0.5
    resized = Image.fromarray(frame.picture[window]).resize(size[::-1], Image.Resampling.BILINEAR)
    picture = np.asarray(resized)[:, :: -1 if flip else 1]
    parts = {}
    for name, mask in frame.parts.items():
        drawn = Image.fromarray(mask[window].astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.BILINEAR)
        parts[name] = (np.asarray(drawn) >= 128)[:, :: -1 if flip else 1]
    return Cutout(picture, parts)


def _around(random: np.random.Generator, person: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """Chooses top and left of a part of a picture that shows as much of a person as has room in it."""
    places = []
    for length, axis in zip(size, (1, 0)):
        seen = np.flatnonzero(person.any(axis=axis))
        first, last = int(seen[0]), int(seen[-1]) + 1
        low, high = sorted((first, last - length))  # a person who is larger than the part fills it
        places.append(int(np.clip(random.uniform(low, high + 1e-6), 0, person.shape[1 - axis] - length)))
    return places[0], places[1]


def _framed(panel: Cutout, colour: np.ndarray, edge: int) -> Cutout:
    inner = np.zeros(panel.picture.shape[:2], bool)
    inner[edge:-edge, edge:-edge] = True
    picture = np.where(inner[..., None], panel.picture, colour.astype(np.uint8))
    return Cutout(picture, {name: mask & inner for name, mask in panel.parts.items()})


def _paste(image: np.ndarray, cutout: Cutout, top: int, left: int, seen: np.ndarray) -> Person:
    """Pastes the pixels `seen` of a cutout; parts outside the image are cut off."""
    rows, columns = cutout.picture.shape[:2]
    bottom, right = min(image.shape[0], top + rows), min(image.shape[1], left + columns)
    window = slice(max(0, top), bottom), slice(max(0, left), right)
    inside = slice(window[0].start - top, bottom - top), slice(window[1].start - left, right - left)
    here = image[window]
    here[seen[inside]] = cutout.picture[inside][seen[inside]]
    parts = {name: mask[inside] for name, mask in cutout.parts.items()}
    return Person(window, parts, cutout.colour, _phrases(cutout))


def _phrases(cutout: Cutout) -> tuple[str, ...]:
    if not cutout.colour:
        return ()
    clothes = f"in the {cutout.colour} {cutout.garment}"
    return f"person in {cutout.colour}", f"person {clothes}", f"{cutout.noun} {clothes}"

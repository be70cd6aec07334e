"""Photos as scenes: a whole photo or a part of it, with the people in it."""

import numpy as np
from PIL import Image

from lookhear.training.glee.scenes.people import Person
from lookhear.training.glee.scenes.person_photos import PersonPhoto

WHOLE = 0.5  # share of the photos that are shown as a whole, as a user's photo is
SMALLEST = 0.4  # part of a photo that is shown at least, as a share of the largest one
STRETCH = 1.18  # most by which a part is widened or narrowed


def photograph(
    random: np.random.Generator, size: tuple[int, int], photo: PersonPhoto
) -> tuple[np.ndarray, list[Person]]:
    """
    Shows a photo, or a part of it that has a person in it, flips half of them, and changes light and colour.

    Args:
        random: for all random choices.
        size: (height, width) in pixels of the scene. A whole photo of another shape is smaller than that, and is
            padded as a user's photo is.
        photo: its people are those of the scene.

    Returns:
        `(height, width, 3)` float32, 0 to 255, and the people whom it shows.
    """
    window, size = _window(random, size, photo)
    mirror = slice(None, None, -1 if random.random() < 0.5 else 1)
    part = Image.fromarray(photo.picture[window]).resize(size[::-1], Image.Resampling.BILINEAR)
    image = relit(random, np.asarray(part, np.float32)[:, mirror])
    everything = slice(0, size[0]), slice(0, size[1])
    people = []
    for parts in photo.people:
        if parts["person"][window].any():
            shown = {name: _resized(mask[window], size)[:, mirror] for name, mask in parts.items()}
            people.append(Person(everything, shown, "", ()))
    return image, people


def relit(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Changes contrast, brightness and tint of `(height, width, 3)` float32 at random."""
    middle = image.mean()
    tint = random.uniform(0.88, 1.12, 3).astype(np.float32)
    contrast = np.float32(random.uniform(0.6, 1.1))
    return (middle + (image - middle) * contrast) * tint + np.float32(random.uniform(-25, 25))


def _window(
    random: np.random.Generator, size: tuple[int, int], photo: PersonPhoto
) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """Chooses rows and columns of a photo, and the (height, width) that they are shown in."""
    height, width = photo.picture.shape[:2]
    if random.random() < WHOLE:
        scale = min(size[0] / height, size[1] / width)
        fitted = max(1, round(scale * height)), max(1, round(scale * width))
        return (slice(0, height), slice(0, width)), fitted
    scale = min(height / size[0], width / size[1]) * random.uniform(SMALLEST, 1.0)
    wider = STRETCH ** random.uniform(-1.0, 1.0)
    lengths = min(height, int(scale * size[0])), min(width, int(scale * size[1] * wider))
    x0, y0, x1, y1 = photo.person_box(int(random.integers(len(photo.people))))
    slices = []
    for length, whole, first, last in ((lengths[0], height, y0, y1), (lengths[1], width, x0, x1)):
        middle = random.uniform(first, last)  # of the person: a part of whom may be outside
        start = int(np.clip(middle - random.uniform(0.25, 0.75) * length, 0, whole - length))
        slices.append(slice(start, start + length))
    return (slices[0], slices[1]), size


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    drawn = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(drawn.resize(size[::-1], Image.Resampling.BILINEAR)) >= 128

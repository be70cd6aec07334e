"""Lips that say nothing: still, at rest, nodding, smiling, chewing; made of the crops of clips with speech."""

from collections.abc import Callable

import numpy as np

from lookhear.training.avsr.augmentation import FRAMES_PER_SECOND, Words

MARGIN = 2  # frames between words and rest: lips move before a sound and after it
SHORTEST_REST = 5  # frames


def still(mouths: np.ndarray, frames: int, generator: np.random.Generator) -> np.ndarray:
    """Repeats one picture: a photo, a frozen call, a podcast's cover."""
    return np.repeat(mouths[int(generator.integers(len(mouths)))][None], frames, axis=0)


def resting(
    mouths: np.ndarray, words: Words | None, frames: int, generator: np.random.Generator, tempo: float = 1.0
) -> np.ndarray:
    """
    Plays what comes before the first word, or after the last one, to and fro; a still picture if that is too short.

    Args:
        mouths: `(frames, size, size)` uint8 of a clip.
        words: of this clip, with their times in seconds.
        frames: wanted.
        generator: source of random numbers.
        tempo: frames of the clip to one wanted.
    """
    first = int(words[0][1] * FRAMES_PER_SECOND) - MARGIN if words else 0
    last = int(np.ceil(words[-1][2] * FRAMES_PER_SECOND)) + MARGIN if words else len(mouths)
    parts = [part for part in (mouths[: max(first, 0)], mouths[last:]) if len(part) >= SHORTEST_REST]
    if not parts:
        return still(mouths[:1], frames, generator)
    part = parts[int(generator.integers(len(parts)))]
    loop = np.concatenate([part, part[::-1]])
    start = int(generator.integers(len(loop)))
    return loop[(start + np.floor(np.arange(frames) * tempo).astype(int)) % len(loop)]


def stretched(mouths: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """
    Widens the middle of pictures, and lowers their lower half: what a smile and a jaw do.

    Args:
        mouths: `(frames, size, size)` uint8.
        across: `(frames,)` pixels by which the corners move apart.
        down: `(frames,)` pixels by which the lower lip and chin sink.

    Returns:
        `(frames, size, size)` uint8.
    """
    size = mouths.shape[-1]
    place = np.arange(size, dtype=np.float32) - (size - 1) / 2
    width = size / 5
    wide = np.tanh(place / width) * np.exp(-np.square(place / (2 * width)))  # at the corners, not at the edges
    low = np.clip(place / width, 0, 1)  # none above the middle
    moved = _resampled(mouths.transpose(0, 2, 1).astype(np.float32), place[None] - across[:, None] * wide)
    moved = _resampled(moved.transpose(0, 2, 1), place[None] - down[:, None] * low)
    return np.clip(np.round(moved), 0, 255).astype(np.uint8)


def _resampled(pictures: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Samples the rows of `(frames, rows, columns)` at `(frames, rows)` pixels from the middle."""
    rows = pictures.shape[1]
    places = np.clip(places + (rows - 1) / 2, 0, rows - 1)
    lower = np.minimum(places.astype(int), rows - 2)
    share = (places - lower)[:, :, None].astype(np.float32)
    index = np.arange(len(pictures))[:, None]
    return pictures[index, lower] * (1 - share) + pictures[index, lower + 1] * share


def smiling(mouths: np.ndarray, frames: int, generator: np.random.Generator) -> np.ndarray:
    """Widens the mouth of one picture once or twice, slowly."""
    scale = mouths.shape[-1] / 64
    time = np.arange(frames) / FRAMES_PER_SECOND
    middle, rise = generator.uniform(0, max(time[-1], 0.1)), generator.uniform(0.15, 0.6)
    smile = np.exp(-np.square((time - middle) / (2 * rise)))
    return stretched(still(mouths, frames, generator), generator.uniform(2, 7) * scale * smile, 0 * smile)


def chewing(mouths: np.ndarray, frames: int, generator: np.random.Generator) -> np.ndarray:
    """Moves the jaw of one picture up and down, evenly and with the lips closed."""
    scale = mouths.shape[-1] / 64
    time = np.arange(frames) / FRAMES_PER_SECOND
    phase = 2 * np.pi * generator.uniform(0.8, 2.2) * time + generator.uniform(0, 6.3)
    jaw = (1 - np.cos(phase)) / 2 * generator.uniform(1, 4) * scale
    sideways = np.sin(phase / 2) * generator.uniform(0, 1.5) * scale
    return stretched(still(mouths, frames, generator), sideways, jaw)


def wordless_lips(mouths: np.ndarray, words: Words | None, frames: int, generator: np.random.Generator) -> np.ndarray:
    """
    Makes lips that say nothing, of the crops of any clip.

    Args:
        mouths: `(frames, size, size)` uint8.
        words: of the clip, with their times in seconds; None: the first and last frames count as rest if they are
            alike.
        frames: wanted, at least 1.
        generator: source of random numbers.

    Returns:
        `(frames, size, size)` uint8.
    """
    drawn = generator.random()
    if drawn < 0.4:
        return still(mouths, frames, generator)
    if drawn < 0.8 and words:
        return resting(mouths, words, frames, generator, generator.uniform(0.5, 1.2))
    gesture: Callable[..., np.ndarray] = smiling if drawn < 0.9 else chewing
    quiet = mouths[: max(1, int(words[0][1] * FRAMES_PER_SECOND) - MARGIN)] if words else mouths[:1]
    return gesture(quiet, frames, generator)


def wander(mouths: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """
    Crops pictures to `(frames, size, size)` at a place that stays, drifts, nods or shakes, as crops around landmarks
    do; adds grain and flicker to some.

    Args:
        mouths: `(frames, roi, roi)` uint8.
        size: wanted.
        generator: source of random numbers.
    """
    frames, side = mouths.shape[0], mouths.shape[-1]
    spare = side - size
    centre = spare / 2 + generator.uniform(-3, 3, 2)
    drawn = generator.random()
    path = np.repeat(centre[None], frames, axis=0)  # (frames, 2): rows, columns
    if drawn < 0.25:
        path = path + np.cumsum(generator.standard_normal((frames, 2)) * generator.uniform(0, 0.5), axis=0)
    elif drawn < 0.45:  # a nod, or a shake of the head
        time = np.arange(frames) / FRAMES_PER_SECOND
        swing = generator.uniform(1, 4) * np.sin(2 * np.pi * generator.uniform(0.5, 2.5) * time)
        path[:, int(generator.random() < 0.3)] += swing
    elif drawn < 0.65:  # landmarks that flicker
        path = path + generator.integers(-1, 2, (frames, 2)) * (generator.random((frames, 1)) < 0.5)
    path = np.clip(np.round(path), 0, spare).astype(int)
    cropped = np.stack([m[top : top + size, left : left + size] for m, (top, left) in zip(mouths, path)])
    grain, flicker = generator.random() < 0.5, generator.random() < 0.3
    if not (grain or flicker):
        return cropped
    values = cropped.astype(np.float32)
    if grain:
        values += generator.standard_normal(values.shape, dtype=np.float32) * np.float32(generator.uniform(0, 6))
    if flicker:
        values *= 1 + generator.standard_normal((frames, 1, 1)).astype(np.float32) * generator.uniform(0, 0.03)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)

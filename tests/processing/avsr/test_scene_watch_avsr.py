"""Cuts between scenes are seen; flashes, fades, pans and noise are not taken for them."""

from __future__ import annotations

import numpy as np
import pytest

from lookhear.processing.avsr.face_tracking_avsr import Change, SceneWatch

RNG = np.random.default_rng(0)


def scene(seed: int, shift: float = 0.0, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """(height, width, 3) uint8: soft patches of light, moved to the right by `shift` pixels."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    grey = np.full(size, 110.0, np.float32)
    for cx, cy, radius, light in zip(*random.uniform([[0], [0], [8], [-80]], [[128], [96], [25], [80]], (4, 9))):
        grey += light * np.exp(-((x - cx - shift) ** 2 + (y - cy) ** 2) / radius**2)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def clip(*scenes: int, frames: int = 20) -> list[np.ndarray]:
    """Scenes with a little movement, so many frames each."""
    return [scene(seed, 0.3 * index) for seed in scenes for index in range(frames)]


def scaled(frame: np.ndarray, gain: float, offset: float = 0.0) -> np.ndarray:
    return (frame * gain + offset).clip(0, 255).astype(np.uint8)


def cuts(frames: list[np.ndarray]) -> list[int]:
    """Frames at which a cut is seen and not taken back."""
    watch, seen = SceneWatch(), []
    for index, frame in enumerate(frames):
        change = watch.see(frame)
        if change is Change.CUT:
            seen.append(index)
        elif change is Change.RETURN:
            seen.pop()
    return seen


@pytest.mark.parametrize("first, second", [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12)])
def test_a_cut_is_seen_at_its_frame(first, second):
    assert cuts(clip(first, second)) == [20]


def test_several_cuts_and_back_to_the_first_scene():
    assert cuts(clip(1, 2, 1, 3)) == [20, 40, 60]


def test_a_cut_in_a_noisy_picture():
    frames = [scaled(frame, 1.0, RNG.normal(0, 12, frame.shape)) for frame in clip(1, 2)]
    assert cuts(frames) == [20]


def test_a_cut_to_another_size():
    assert cuts([scene(1)] * 10 + [scene(2, size=(192, 256))] * 10) == [10]


@pytest.mark.parametrize("length", [1, 2, 3, 5])
@pytest.mark.parametrize("gain, offset", [(1.0, 70), (4.0, 0), (0.0, 255), (0.05, 0), (8.0, -200)])
def test_a_flash_is_no_cut(length, gain, offset):
    """Brighter, overexposed, white, black, and of little left but the lights."""
    frames = clip(1, frames=40)
    frames[15 : 15 + length] = [scaled(frame, gain, offset) for frame in frames[15 : 15 + length]]
    assert cuts(frames) == []


def test_a_flash_of_another_picture_is_taken_back():
    frames = clip(1, frames=40)
    frames[15:17] = [scene(2)] * 2
    assert cuts(frames) == []


def test_fades_are_no_cuts():
    light = np.concatenate([np.linspace(1, 0, 12), np.zeros(5), np.linspace(0, 1, 12), np.ones(10)])
    assert cuts([scaled(scene(1, 0.3 * i), gain) for i, gain in enumerate(light)]) == []
    white = [scaled(scene(1), gain, 255 * (1 - gain)) for gain in light]
    assert cuts(white) == []


def test_a_slow_dissolve_is_no_cut():
    mix = [(scene(1) * (1 - a) + scene(2) * a).astype(np.uint8) for a in np.linspace(0, 1, 25)]
    assert cuts(clip(1) + mix + clip(2)) == []


def test_another_scene_after_black_is_a_cut():
    assert cuts(clip(1) + [np.zeros((96, 128, 3), np.uint8)] * 10 + clip(2)) == [30]


def test_movement_and_noise_are_no_cuts():
    assert cuts([scene(1, 3.0 * index) for index in range(40)]) == []
    assert cuts([RNG.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(40)]) == []
    assert cuts([np.full((96, 128, 3), index, np.uint8) for index in range(40)]) == []

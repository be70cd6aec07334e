"""Generated scenes: what they say of themselves is what can be seen in them."""

from __future__ import annotations

import numpy as np
import pytest

from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS, Scene, SceneRecipe, make_scene
from lookhear.training.glee.scenes.shapes import COLOURS, KINDS, coverage


def scenes(count: int = 30, **recipe) -> list[Scene]:
    return [make_scene(np.random.default_rng(seed), (96, 128), SceneRecipe(**recipe)) for seed in range(count)]


def test_equal_seeds_make_equal_scenes():
    first, again, other = (make_scene(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert [shape.box for shape in first.shapes] == [shape.box for shape in again.shapes]
    assert not np.array_equal(first.image, other.image)


def test_boxes_are_those_of_the_masks_and_masks_are_apart():
    for scene in scenes():
        assert scene.image.shape == (96, 128, 3) and scene.image.dtype == np.uint8
        assert 1 <= len(scene.shapes) <= 8
        assert np.sum([shape.mask for shape in scene.shapes], axis=0).max() == 1
        for shape in scene.shapes:
            x0, y0, x1, y1 = (int(value) for value in shape.box)
            inside = shape.mask[y0:y1, x0:x1]
            assert inside.sum() == shape.mask.sum() > 20
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_masks_show_the_colour_that_is_named():
    """Without grain, the median colour in a mask is nearer to its name's colour than to any other's."""
    names = list(COLOURS)
    palette = np.array([COLOURS[name] for name in names], dtype=float)
    right = []
    for scene in scenes(noise=0.0):
        for shape in scene.shapes:
            seen = np.median(scene.image[shape.mask], axis=0)
            right.append(names[np.abs(palette - seen).sum(axis=1).argmin()] == shape.colour)
    assert np.mean(right) > 0.98


@pytest.mark.parametrize("crowding", [0.72, 0.5])
def test_most_of_each_shape_is_seen(crowding):
    shares = []
    for scene in scenes(crowding=crowding, radius=(0.07, 0.24)):
        for shape in scene.shapes:
            x, y = np.arange(128) + 0.5 - shape.x, np.arange(96)[:, None] + 0.5 - shape.y
            whole = coverage(shape.kind, x.astype(np.float32), y.astype(np.float32), shape.radius, 0.0) >= 0.5
            shares.append(shape.mask.sum() / whole.sum())
    assert np.percentile(shares, 2) > 0.4
    assert np.min(shares) < 0.95, "nothing overlaps"


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_fill_a_good_part_of_their_circle(kind):
    x = np.linspace(-30, 30, 61, dtype=np.float32)
    cover = coverage(kind, x[None], x[:, None], 20.0, 0.0)
    assert 0.25 < (cover >= 0.5).sum() / (np.pi * 20**2) <= 1.01
    assert cover[:, 0].max() == cover[0].max() == 0
    turned = coverage(kind, x[None], x[:, None], 20.0, 0.5)
    assert turned.sum() == pytest.approx(cover.sum(), rel=0.02)


def test_held_out_pairs_stay_out():
    pairs = {(s.colour, s.kind) for scene in scenes(80, excluded=HELD_OUT_PAIRS) for s in scene.shapes}
    assert not pairs & HELD_OUT_PAIRS
    assert pairs | HELD_OUT_PAIRS <= {(colour, kind) for colour in COLOURS for kind in KINDS}
    everything = {(s.colour, s.kind) for scene in scenes(80) for s in scene.shapes}
    assert everything & HELD_OUT_PAIRS

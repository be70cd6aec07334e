"""Generated videos: what they say of themselves is what can be seen, and things cross, leave and return."""

from __future__ import annotations

import numpy as np
import pytest

from lookhear.training.glee.scenes.expressions import all_expressions
from lookhear.training.glee.scenes.moving_scenes import (
    LEAST_SEEN,
    MovingRecipe,
    MovingScene,
    Path,
    make_moving_scene,
)
from lookhear.training.glee.scenes.portraits import Cutout
from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS, SceneMaterial, SceneRecipe
from lookhear.training.glee.scenes.shapes import COLOURS

SIZE = (96, 128)
SEEDS = range(8)


def somebody() -> Cutout:
    """A portrait: an upright ellipse in one colour."""
    rows, columns = np.mgrid[-1:1:96j, -1:1:48j]
    inside = rows**2 + columns**2 < 1
    return Cutout(np.full((96, 48, 3), 220, np.uint8), {"person": inside}, "woman", "suit", None, "orange")


MATERIAL = SceneMaterial([], [somebody()], [])


def make(seed: int, material: SceneMaterial | None = None, **recipe) -> MovingScene:
    return make_moving_scene(np.random.default_rng(seed), SIZE, MovingRecipe(**recipe), material)


def test_a_frame_follows_from_seed_and_number_alone():
    scene, again = make(3, MATERIAL), make(3, MATERIAL)
    forwards = [frame.image for frame in scene]
    assert len(forwards) == len(scene) == 48
    for index in (30, 2, 17):
        assert np.array_equal(again.frame(index).image, forwards[index])
    assert not np.array_equal(make(4).frame(0).image, make(3).frame(0).image)
    with pytest.raises(IndexError):
        scene.frame(48)


def test_boxes_are_those_of_the_masks_and_masks_are_apart():
    for seed in SEEDS:
        for index in (0, 13, 29, 47):
            frame = make(seed, MATERIAL, people=(1, 1)).frame(index)
            assert frame.image.shape == (*SIZE, 3) and frame.image.dtype == np.uint8
            assert np.sum([thing.shape.mask for thing in frame.objects], axis=0).max() == 1
            for thing in frame.objects:
                x0, y0, x1, y1 = (int(value) for value in thing.shape.box)
                inside = thing.shape.mask[y0:y1, x0:x1]
                assert inside.sum() == thing.shape.mask.sum() > 0 < thing.seen <= 1
                assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_what_is_wholly_in_view_is_seen_wholly():
    """And of what lies at the border or under something else, less."""
    scene = make(1, crossings=0, returns=1, objects=(1, 1), away=(3, 4))
    shares: dict[int, list[float]] = {}
    for frame in scene:
        for thing in frame.objects:
            shares.setdefault(thing.track_id, []).append(thing.seen)
    for mover in scene.movers:
        extents = np.array([mover.extent(time) for time in range(len(scene))])
        outside = (extents[:, :2].min(axis=1) < -2) | (extents[:, 2] > SIZE[1] + 2) | (extents[:, 3] > SIZE[0] + 2)
        if not outside.any() and not scene.crossings(0.0):
            assert min(shares[mover.track_id]) > 0.9
        if outside.all():
            assert max(shares.get(mover.track_id, [0.0])) < 1


def test_masks_show_the_colour_that_is_named_in_every_frame():
    """An id is one thing: its colour, found in its mask, and its words stay."""
    names = list(COLOURS)
    palette = np.array([COLOURS[name] for name in names], dtype=float)
    right, words = [], {}
    for seed in SEEDS:
        scene = make(seed, look=SceneRecipe(noise=0.0))
        for index in range(0, 48, 6):
            for thing in scene.frame(index).objects:
                if thing.clear:
                    seen = np.median(scene.frame(index).image[thing.shape.mask], axis=0)
                    right.append(names[np.abs(palette - seen).sum(axis=1).argmin()] == thing.shape.colour)
                said = thing.shape.colour, thing.shape.kind
                assert words.setdefault((seed, thing.track_id), said) == said
    assert np.mean(right) > 0.97
    assert len(set(words.values())) > 10


def test_things_move_by_their_speed():
    recipe = MovingRecipe(crossings=0, returns=0, objects=(3, 3))
    for seed in SEEDS:
        scene = make_moving_scene(np.random.default_rng(seed), SIZE, recipe)
        for mover in scene.movers:
            places = np.array([mover.path.at(time) for time in range(len(scene))])
            steps = np.hypot(*np.diff(places, axis=0).T) / min(SIZE)
            assert steps.max() <= recipe.speed[1] + 1e-6
            assert np.median(steps) >= recipe.speed[0] - 1e-6
            assert ((places >= 0) & (places <= (SIZE[1], SIZE[0]))).all()


def test_ways_turn_back_at_borders():
    path = Path((5.0, 0.0), 2.0, (1.0, 0.0), (0.0, 0.0), (8.0, 1.0))
    assert [path.at(time)[0] for time in range(14)] == [3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_pairs_cross():
    """Nearly every scene has its crossing; one covers the other in part, before and after both are clearly seen."""
    crossed = 0
    for seed in range(20):
        scene = make(seed, objects=(0, 0), returns=0)
        for crossing in scene.crossings():
            crossed += 1
            seen = {
                index: {thing.track_id: thing.seen for thing in scene.frame(index).objects}
                for index in range(crossing.first - 1, crossing.last + 2)
            }
            for index in (crossing.first - 1, crossing.last + 1):
                assert min(seen[index][crossing.one], seen[index][crossing.other]) > 0.9
            assert len(seen) > 3
    assert crossed >= 14


def test_what_leaves_comes_back():
    """Each scene has one that is wholly gone for at least the frames asked for and then seen again."""
    for seed in SEEDS:
        scene = make(seed, objects=(0, 0), crossings=0, away=(5, 12))
        (mover,) = scene.movers
        seen = np.array([any(thing.seen > 0 for thing in frame.objects) for frame in scene])
        away = np.flatnonzero(~seen)
        assert 4 <= len(away) <= 20 and (np.diff(away) == 1).all()
        assert seen[0] and seen[-1] and mover.track_id == 0
        assert scene.frame(0).objects[0].clear and scene.frame(47).objects[0].seen > 0.2


def test_things_lie_apart_at_first():
    for seed in SEEDS:
        scene = make(seed, MATERIAL, people=(1, 1))
        assert len(scene.movers) >= 3
        assert any(mover.kind == "person" for mover in scene.movers)
        first = scene.frame(0)
        hidden = [thing for thing in first.objects if thing.seen < LEAST_SEEN]
        assert not hidden
        pairs = [(thing.shape.colour, thing.shape.kind) for thing in first.objects]
        assert len(set(pairs)) == len(pairs)


def test_a_still_serves_what_is_made_for_scenes():
    """Sentences are about what is clearly seen; pairs that are held out don't occur."""
    look = SceneRecipe(excluded=HELD_OUT_PAIRS)
    for seed in SEEDS:
        scene, ids = make(seed, MATERIAL, look=look).frame(20).as_still()
        assert len(ids) == len(scene.shapes) == len(set(ids))
        assert not {(shape.colour, shape.kind) for shape in scene.shapes} & HELD_OUT_PAIRS
        for found in all_expressions(scene):
            assert 0 <= found.shape < len(ids)

"""A fixed set has so many scenes and videos and no more, and a larger share of it contains the smaller."""

from __future__ import annotations

import numpy as np
import pytest

from lookhear.training.glee.scenes.examples import SceneBatches
from lookhear.training.glee.scenes.recipe import FixedScenesRecipe, SceneDataRecipe
from lookhear.training.recipe_reading import fill


def pictures(batches: int = 40, seed: int = 0, **fixed) -> set[bytes]:
    """The different pictures in the batches of a set."""
    recipe = SceneDataRecipe(
        canvases=[(32, 32), (32, 48)],
        tasks={"prompts": 1.0},
        images={"prompts": 4},
        prompts=1,
        portraits=False,
        fixed=FixedScenesRecipe(**fixed),
    )
    drawn = SceneBatches(recipe, batches, seed)
    return {scene.image.tobytes() for index in range(batches) for scene in drawn[index].scenes}


def test_a_set_has_as_many_stills_as_the_recipe_says():
    assert len(pictures(stills=10)) == 10
    assert len(pictures(stills=10, fraction=0.4)) == 4
    assert len(pictures(batches=4)) == 16  # endless scenes are all different


def test_a_larger_share_contains_the_smaller_one_whatever_the_trainings_seed():
    whole, half, small = (pictures(stills=12, fraction=f, seed=s) for f, s in ((1.0, 0), (0.5, 1), (0.25, 2)))
    assert small < half < whole


def test_another_seed_is_another_set():
    recipes = [SceneDataRecipe(canvases=[(32, 32)], fixed=FixedScenesRecipe(stills=3, seed=seed)) for seed in (0, 1)]
    one, other = (SceneBatches(recipe, 1).fixed for recipe in recipes)
    assert np.array_equal(one.still(2).image, SceneBatches(recipes[0], 9).fixed.still(2).image)
    assert not np.array_equal(one.still(2).image, other.still(2).image)


def test_frames_are_of_the_sets_videos():
    recipe = SceneDataRecipe(canvases=[(32, 48)], portraits=False, fixed=FixedScenesRecipe(videos=2))
    fixed = SceneBatches(recipe, 1).fixed
    frames = {number: {frame.image.tobytes() for frame in fixed.video(number)} for number in (0, 1)}
    drawn = [fixed.draw(np.random.default_rng(seed), 0) for seed in range(12)]
    assert all(scene.shapes for scene in drawn)
    seen = {next(n for n, known in frames.items() if scene.image.tobytes() in known) for scene in drawn}
    assert seen == {0, 1}


def test_half_of_the_scenes_are_frames_where_there_are_both():
    recipe = SceneDataRecipe(canvases=[(32, 32)], portraits=False, fixed=FixedScenesRecipe(stills=3, videos=1))
    fixed = SceneBatches(recipe, 1).fixed
    stills = {fixed.still(number).image.tobytes() for number in range(3)}
    drawn = [fixed.draw(np.random.default_rng(seed), 0).image.tobytes() in stills for seed in range(60)]
    assert 20 < sum(drawn) < 40


def test_too_small_a_share_is_refused():
    recipe = SceneDataRecipe(canvases=[(32, 32), (32, 48)], fixed=FixedScenesRecipe(stills=10, fraction=0.1))
    with pytest.raises(ValueError, match=r"0\.1 of 10 stills are 1, fewer than the 2 data\.canvases"):
        SceneBatches(recipe, 1)
    with pytest.raises(ValueError, match=r"data\.fixed\.fraction must be above 0 and at most 1, not 0"):
        fill(SceneDataRecipe, {"fixed": {"stills": 10, "fraction": 0.0}}, "data")

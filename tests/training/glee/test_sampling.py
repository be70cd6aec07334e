"""Categories, repeat factors, prompts and frames that are drawn at random."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

from lookhear.training.glee.corpora.schema import features, make_row
from lookhear.training.glee.mixture.sampling import (
    PROMPT_KINDS,
    category_vocabulary,
    draw,
    draw_prompt,
    repeat_factors,
    sample_categories,
)
from lookhear.training.glee.mixture.video_sampling import VideoIndex

WORDS = [f"word {index}" for index in range(300)]


def make_rows(categories: list[list[str | None]]) -> Dataset:
    thing = {"box": [0.0, 0.0, 1.0, 1.0], "mask": None, "track_id": None, "crowd": False}
    rows = [
        make_row(i, b"", (4, 4), [{**thing, "category": name} for name in row]) for i, row in enumerate(categories)
    ]
    return Dataset.from_list(rows, features=features())


def test_a_small_vocabulary_keeps_its_order():
    random = np.random.default_rng(0)
    assert sample_categories(["word 7"], WORDS[:80], 100, random) == WORDS[:80]
    assert sample_categories(["new", "word 1"], WORDS[:3], 100, random) == [*WORDS[:3], "new"]
    assert sample_categories(["word 1"], WORDS[:3], 100, random, excluded=["word 0", "word 1"]) == ["word 1", "word 2"]


def test_a_large_one_is_filled_up_by_lot():
    positives, drawn = ["word 299", "word 5", "word 5"], set()
    for seed in range(40):
        names = sample_categories(positives, WORDS, 20, np.random.default_rng(seed), excluded=WORDS[100:299])
        assert len(names) == len(set(names)) == 20 and set(positives) <= set(names)
        assert not set(names) & set(WORDS[100:299])
        drawn |= set(names)
    assert len(drawn) > 90
    many = [sample_categories(WORDS[:50], WORDS, 20, np.random.default_rng(seed)) for seed in range(40)]
    assert all(len(set(names)) == 20 and set(names) <= set(WORDS[:50]) for names in many)
    assert set().union(*many) == set(WORDS[:50])
    assert sample_categories(WORDS[:4], [], 3, np.random.default_rng(0)) != []


def test_repeat_factors_are_those_of_lvis():
    rows = make_rows([["cat", "cat"], ["cat", "dog"], ["cat", None], [], ["cat"], [], [], [], [], []])
    assert repeat_factors(rows, 0.0).tolist() == [1.0] * 10
    factors = repeat_factors(rows, 0.5)  # cat: 4 of 10 pictures, dog: 1 of 10
    cat, dog = np.sqrt(0.5 / 0.4), np.sqrt(0.5 / 0.1)
    assert factors.tolist() == pytest.approx([cat, dog, cat, 1, cat, 1, 1, 1, 1, 1])
    assert repeat_factors(make_rows([[], [None]]), 0.5).tolist() == [1, 1]


def test_vocabulary():
    assert category_vocabulary(make_rows([["dog", "cat"], [None], ["dog"]])) == ["cat", "dog"]


def test_prompts_lie_on_the_object():
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:9, 10:12] = True
    random = np.random.default_rng(0)
    for _ in range(20):
        for kind, count in (("points", 1), ("scribbles", 4)):
            drawn = draw_prompt(kind, (10, 5, 12, 9), mask, random)
            assert len(drawn) == count and all(mask[int(y), int(x)] for x, y in drawn)
    assert draw_prompt("masks", (10, 5, 12, 9), mask, random) is mask
    assert draw_prompt("boxes", (10, 5, 12, 9), mask, random) == (10, 5, 12, 9)
    assert draw_prompt("points", (10, 5, 12, 9), None, random) == [(11, 7)]
    kinds = [draw(random, PROMPT_KINDS) for _ in range(2000)]
    assert kinds.count("masks") / 2000 == pytest.approx(0.6, abs=0.05)
    assert kinds.count("boxes") / 2000 == pytest.approx(0.08, abs=0.03)


def test_frames_of_a_clip_are_near_and_in_order():
    videos = ["a"] * 20 + [None] + ["b"] * 2
    frames = [*range(19, -1, -1), None, 5, 9]  # the rows of a video may stand in any order
    index = VideoIndex(videos, frames)
    gaps = set()
    for seed in range(200):
        first, second = index.clip(10, 2, 5, np.random.default_rng(seed))
        assert 10 in (first, second) and frames[first] < frames[second] and abs(first - second) <= 5
        gaps.add(first + second - 20)
    assert gaps == {-5, -4, -3, -2, -1, 1, 2, 3, 4, 5}
    assert index.clip(20, 2, 5, np.random.default_rng(0)) == [20, 20]
    assert index.clip(21, 2, 5, np.random.default_rng(0)) == [21, 22]
    four = index.clip(22, 4, 5, np.random.default_rng(0))
    assert len(four) == 4 and set(four) <= {21, 22} and four == sorted(four)
    assert index.clip(3, 1, 5, np.random.default_rng(0)) == [3]

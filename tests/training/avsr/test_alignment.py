"""Letters spread over their words, and what the collator makes of them."""

import numpy as np

from lookhear.training.avsr.alignment import IGNORED, spread_letters

BLANK, SPACE = 0, 1


def test_letters_share_the_time_of_their_word():
    targets = spread_letters([([5, 6], 0.2, 0.6), ([7], 0.6, 0.8)], 10, 10.0, BLANK, SPACE)
    assert targets.tolist() == [0, 0, 5, 5, 6, SPACE, 7, 7, 0, 0]


def test_equal_neighbours_are_kept_apart_by_a_blank():
    targets = spread_letters([([5, 5], 0.0, 0.4)], 4, 10.0, BLANK, SPACE)
    assert targets.tolist() == [5, 5, BLANK, 5]


def test_targets_spell_the_text():
    words = [([3, 4, 4, 5], 0.1, 1.0), ([6], 1.0, 1.3), ([6, 7], 1.3, 2.0)]
    steps = spread_letters(words, 120, 50.0, BLANK, SPACE)
    collapsed = [int(step) for step, before in zip(steps, [BLANK, *steps]) if step != before and step != BLANK]
    assert collapsed == [3, 4, 4, 5, SPACE, 6, SPACE, 6, 7]


def test_a_word_too_short_for_its_letters_is_ignored():
    targets = spread_letters([([5, 6, 7], 0.1, 0.3)], 5, 10.0, BLANK, SPACE)
    assert targets.tolist() == [BLANK, IGNORED, IGNORED, BLANK, BLANK]


def test_a_word_that_outlasts_the_clip_is_cut_with_it():
    targets = spread_letters([([5], 0.2, 0.9)], 5, 10.0, BLANK, SPACE)
    assert targets.tolist() == [0, 0, 5, 5, 5] and targets.dtype == np.int64

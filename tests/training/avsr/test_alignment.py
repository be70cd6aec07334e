"""Letters spread over their words, and what the collator makes of them."""

import numpy as np
import pytest
import torch

from lookhear.processing.avsr import AvsrTokenizer
from lookhear.training.avsr.alignment import (
    IGNORED,
    AlignmentTargets,
    alignment_windows,
    label_windows,
    spread_letters,
)
from lookhear.training.avsr.augmentation import Clip

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


def test_a_window_is_a_labels_share_of_its_word_and_the_margin():
    """Ten steps a second: letters of two steps in 0.2 to 0.6 s, of four in 0.8 to 1.2; a space around step 8."""
    words = [([5, 6], 0.2, 0.6), ([7], 0.8, 1.2)]
    assert label_windows(words, 20, 10.0, 0).tolist() == [[2, 4], [4, 6], [6, 10], [8, 12]]
    assert label_windows(words, 20, 10.0, 3).tolist() == [[0, 7], [1, 9], [3, 13], [5, 15]]
    assert label_windows(words, 11, 10.0, 3).tolist() == [[0, 7], [1, 9], [3, 11], [5, 11]]


def test_windows_of_letters_shorter_than_a_step_and_of_words_outside_the_clip():
    """Three letters share 0.1 to 0.3 s at ten steps a second; times that are sums don't reach into the next step."""
    assert label_windows([([5, 6, 7], 0.1, 0.3)], 5, 10.0, 0).tolist() == [[1, 2], [1, 3], [2, 3]]
    assert label_windows([([5], 0.1 + 0.2, 0.4)], 5, 10.0, 0).tolist() == [[3, 4]]
    assert label_windows([([5], 0.7, 0.9)], 5, 10.0, 1).tolist() == [[5, 5]]
    assert label_windows([], 5, 10.0, 1).shape == (0, 2)


@pytest.fixture
def timed():
    """A clip of 0.4 s with word times, and one of 0.8 s without."""
    words = (("AB", 0.0, 0.16), ("C", 0.24, 0.4))
    return [Clip("AB C", np.zeros(6400, np.float32), None, words), Clip("CAB", np.zeros(12800, np.float32), None)]


def test_clips_without_word_times_may_say_each_label_at_any_step(timed):
    tokenizer = AvsrTokenizer()
    labels = tokenizer([clip.text for clip in timed], padding=True, return_tensors="pt").input_ids
    labels[labels == tokenizer.pad_token_id] = IGNORED
    windows = alignment_windows(timed, labels, tokenizer, 50.0, 1)
    # two letters in 8 steps, a space around step 12, one letter in 8; EOS anywhere in the 40 steps of the longest
    assert windows[0].tolist() == [[0, 5], [3, 9], [9, 15], [11, 20], [0, 40]]
    assert windows[1].tolist() == [[0, 40]] * 5
    other = [Clip("AB D", timed[0].audio, None, timed[0].words), timed[1]]
    assert alignment_windows(other, labels, tokenizer, 50.0, 1)[0].tolist() == windows[0].tolist()
    labels[0, 0] = labels[0, 1]  # the words are no longer those of the text
    assert alignment_windows(timed, labels, tokenizer, 50.0, 1)[0].tolist() == [[0, 40]] * 5


def test_the_margin_chooses_between_steps_and_windows(timed):
    tokenizer = AvsrTokenizer()
    labels = tokenizer([clip.text for clip in timed], padding=True, return_tensors="pt").input_ids
    assert AlignmentTargets(tokenizer, 50.0)(timed, labels)["alignment_labels"].shape == (2, 40)
    made = AlignmentTargets(tokenizer, 50.0, 4)(timed, labels)
    assert list(made) == ["alignment_windows"] and made["alignment_windows"].shape == (2, 5, 2)
    assert made["alignment_windows"].dtype == torch.long

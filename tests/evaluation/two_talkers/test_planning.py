"""Who stands beside whom: balanced, from the seed alone, and never somebody with the same words."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from lookhear.evaluation.two_talkers.planning import plan_mixtures
from lookhear.training.avsr.corpora import Utterance

WORDS = [{"word": "bin", "start": 0.5, "end": 0.8}]
TARGETS = [Utterance(f"t{i}", Path(f"t{i}.mp4"), f"text {i % 9}", words=WORDS) for i in range(10)]
OTHERS = [Utterance(f"o{i}", Path(f"o{i}.mp4"), f"other {i}") for i in range(3)]


def test_every_level_number_of_people_and_target_is_as_frequent():
    plan = plan_mixtures(TARGETS, OTHERS, talking=60, silent=30)
    talking, silent = plan[:60], plan[60:]
    assert Counter((len(mixture.people), mixture.snr) for mixture in talking) == {
        (people, snr): 10 for people in (2, 3) for snr in (5.0, 0.0, -5.0)
    }
    assert Counter(len(mixture.people) for mixture in silent) == {1: 10, 2: 10, 3: 10}
    assert set(Counter(mixture.people[mixture.target].id for mixture in talking).values()) == {6}
    assert len({mixture.id for mixture in plan}) == 90
    # all places are drawn, and both targets' and further people's clips stand beside the target
    assert {(len(m.people), m.target) for m in talking} == {(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)}
    assert {voice.id[0] for mixture in talking for voice in mixture.voices} == {"t", "o"}


def test_nobody_in_a_mixture_says_what_another_says():
    for mixture in plan_mixtures(TARGETS, OTHERS, talking=100, silent=30):
        texts = [person.text for person in (*mixture.people, *([mixture.unseen] if mixture.unseen else []))]
        assert len(set(texts)) == len(texts)
        assert mixture.people[mixture.target] in TARGETS


def test_silent_targets_say_nothing_while_others_talk():
    for mixture in plan_mixtures(TARGETS, talking=0, silent=9):
        assert mixture.snr is None and mixture.text_of(mixture.target) == ""
        assert len(mixture.voices) == max(1, len(mixture.people) - 1)
        assert (mixture.unseen is not None) == (len(mixture.people) == 1)


def test_the_seed_says_everything_and_a_longer_plan_begins_as_a_shorter_one():
    plan = plan_mixtures(TARGETS, OTHERS, talking=8, silent=0, seed=3)
    assert plan == plan_mixtures(TARGETS, OTHERS, talking=8, silent=0, seed=3)
    assert plan == plan_mixtures(TARGETS, OTHERS, talking=20, silent=4, seed=3)[:8]
    assert plan != plan_mixtures(TARGETS, OTHERS, talking=8, silent=0, seed=4)


def test_people_are_named_by_their_place():
    mixture = next(m for m in plan_mixtures(TARGETS, talking=9, silent=0) if len(m.people) == 3)
    assert mixture.prompts == ("the person on the left", "the person in the middle", "the person on the right")


@pytest.mark.parametrize(
    "targets, settings, message",
    [
        (TARGETS[:2], {}, "clips of three different texts"),
        (TARGETS, {"talking": -1}, "talking has to be a whole number"),
        (TARGETS, {"talking": 0, "silent": 0}, "nothing to compose"),
        (TARGETS, {"snrs": ()}, "snrs has to be a list of decibels"),
        (TARGETS, {"snrs": (float("nan"),)}, "snrs has to be a list of decibels"),
        ([replace(clip, words=None) for clip in TARGETS], {}, "or ask for no silent mixtures"),
    ],
)
def test_what_cannot_be_planned_is_refused(targets, settings, message):
    with pytest.raises(ValueError, match=message):
        plan_mixtures(targets, **settings)

"""Few-shot selection: each class often enough, no picture too many, other pictures with another seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lookhear.cli import main
from lookhear.training.glee.corpora.opening import open_corpus
from lookhear.training.glee.fine_tuning.few_shot import ODINW_SEEDS, ODINW_SHOTS, few_shot_places
from lookhear.training.glee.fine_tuning.fine_tune import FineTuneOptions, fine_tune

CLASSES = ["cup", "pen", "dog", "fox"]
SHARES = [0.6, 0.3, 0.08, 0.02]  # of the objects


def pictures(count: int, seed: int) -> list[dict]:
    """Pictures of none to four objects, some of them crowds, and names that are no class."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        names = random.choice(CLASSES, size=random.integers(5), p=SHARES).tolist()
        objects = [{"category": str(name), "crowd": bool(random.random() < 0.1)} for name in names]
        rows.append({"objects": [*objects, {"category": None, "crowd": False}, {"category": "sky", "crowd": False}]})
    return rows


def counted(rows: list[dict], places) -> Counter:
    return Counter(
        found["category"]
        for place in places
        for found in rows[place]["objects"]
        if found["category"] in CLASSES and not found["crowd"]
    )


@pytest.mark.parametrize("shots", ODINW_SHOTS)
def test_each_class_has_its_shots_or_all_that_there_are(shots):
    rows = pictures(400, seed=1)
    everything = counted(rows, range(len(rows)))
    chosen = {seed: few_shot_places(rows, CLASSES, shots, seed) for seed in ODINW_SEEDS}
    for places in chosen.values():
        have = counted(rows, places)
        assert all(have[name] >= min(shots, everything[name]) for name in CLASSES)
        assert len(places) <= shots * len(CLASSES) and places == sorted(set(places))
        assert all(counted(rows, [place]) for place in places), "a picture without a class is of no use"
    assert len({tuple(places) for places in chosen.values()}) == len(ODINW_SEEDS)
    assert chosen[3] == few_shot_places(rows, CLASSES, shots, 3)


def test_rare_classes_get_all_that_there_are():
    rows = pictures(60, seed=2)
    everything = counted(rows, range(60))
    assert 0 < everything["fox"] < 10
    assert counted(rows, few_shot_places(rows, CLASSES, 10, 0))["fox"] == everything["fox"]


def test_a_picture_is_taken_for_a_class_that_has_too_few():
    """By brute force over the order: the last picture that was taken was still needed."""
    rows = pictures(40, seed=3)
    order = np.random.default_rng(7).permutation(40).tolist()
    places = few_shot_places(rows, CLASSES, 3, 7)
    for place in places:
        before = counted(rows, [other for other in places if order.index(other) < order.index(place)])
        assert any(before[name] < 3 for name in counted(rows, [place]))
    for place in set(range(40)) - set(places):
        before = counted(rows, [other for other in places if order.index(other) < order.index(place)])
        assert all(before[name] >= 3 for name in counted(rows, [place]))


def test_what_cannot_be_chosen_is_refused():
    with pytest.raises(ValueError, match="shots must be at least 1, not 0"):
        few_shot_places(pictures(3, seed=0), CLASSES, 0, 0)
    with pytest.raises(ValueError, match="no picture shows any of the classes"):
        few_shot_places(pictures(3, seed=0), ["whale"], 1, 0)


def test_a_detector_is_trained_on_a_shot_of_each_class(write_coco, glee_checkpoint, tmp_path, capsys):
    """Two classes in twelve pictures: one picture has both, so that an epoch is a step; the card says so."""
    data, measured = write_coco(tmp_path / "own", 12), write_coco(tmp_path / "other", 2)
    places = few_shot_places(open_corpus("coco", data), ["square", "dark bar", "cat"], 1, 30)
    given = ["--data", data, "--model", glee_checkpoint, "--output", tmp_path / "out", "--validation", measured]
    given += ["--shots", 1, "--seed", 30, "--epochs", 2, "--batch-size", 1]
    assert main(["train", "glee", "training.use_cpu=true", *map(str, given)]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"1 object or more of each class: {len(places)} of its pictures, chosen by seed 30" in card
    assert f"{2 * len(places)} steps of 1 pictures" in card
    with pytest.raises(ValueError, match="shots must be positive, not 0"):
        fine_tune(FineTuneOptions(data, str(glee_checkpoint), tmp_path / "none", shots=0))

"""HOTA on cases worked out by hand and against a slow definition. TrackEval's own figures are in test_clear_mot.py."""

import itertools
import math

import numpy as np
import pytest

from lookhear.evaluation.measures.hota import HotaCounts, count_labels, count_video, count_videos, label_means
from lookhear.evaluation.measures.track_frames import TrackFrame, TrackVideo


def video(*frames, labels=None) -> TrackVideo:
    """Frames as (true ids, found ids, IoU matrix)."""
    made = []
    for truth, found, similarity in frames:
        array = np.array(similarity, float).reshape(len(truth), len(found))
        names = [tuple(labels[number] for number in side) for side in (truth, found)] if labels else [(), ()]
        made.append(TrackFrame(np.array(truth, int), np.array(found, int), array, *names))
    return TrackVideo("v", made)


def test_a_track_that_breaks_by_hand():
    """
    One object in two frames, found by two tracks, the second with an IoU of 0.8.

    Up to 0.8 (16 thresholds): DetA 1, A of each pair 1 / (1 + 1) (the object's other frame is a false negative
    association), so HOTA sqrt(1/2). Above (3): TP 1, FN 1, FP 1, DetA 1/3, AssA 1/2, HOTA sqrt(1/6).
    """
    rates = count_video(video(([1], [7], [[1.0]]), ([1], [8], [[0.8]]))).rates()
    assert rates["HOTA"] == pytest.approx((16 * math.sqrt(1 / 2) + 3 * math.sqrt(1 / 6)) / 19)
    assert rates["DetA"] == pytest.approx((16 + 3 / 3) / 19) and rates["AssA"] == pytest.approx(0.5)
    assert rates["LocA"] == pytest.approx((16 * 0.9 + 3 * 1) / 19)
    assert rates["AssRe"] == pytest.approx(0.5) and rates["AssPr"] == pytest.approx(1)
    assert rates["DetRe"] == rates["DetPr"] == pytest.approx((16 + 3 / 2) / 19)
    assert rates["OWTA"] == pytest.approx((16 * math.sqrt(1 / 2) + 3 * math.sqrt(1 / 4)) / 19)


def test_the_longer_common_way_decides():
    """Track 8 fits better in frame 2, but track 7 follows the object in the other frames; it stays the pair."""
    counts = count_video(video(([1], [7], [[1]]), ([1], [7, 8], [[0.6, 0.7]]), ([1], [7], [[1]])))
    curves = counts.curves()
    assert (
        counts.matches[0] == 3 and curves["AssA"][0] == pytest.approx(1) and curves["DetA"][0] == pytest.approx(3 / 4)
    )


def slow_rates(frames, threshold: float) -> tuple[float, float]:
    """(DetA, AssA) at one threshold: every assignment of every frame is tried."""
    truth_frames, found_frames, shared = {}, {}, {}
    for truth, found, similarity in frames:
        for ids, count in ((truth, truth_frames), (found, found_frames)):
            for number in ids:
                count[number] = count.get(number, 0) + 1
        for row, one in enumerate(truth):
            for column, other in enumerate(found):
                value = similarity[row][column]
                rest = sum(similarity[row]) + sum(line[column] for line in similarity) - value
                shared[one, other] = shared.get((one, other), 0) + (value / rest if rest > 0 else 0)
    alignment = {pair: part / (truth_frames[pair[0]] + found_frames[pair[1]] - part) for pair, part in shared.items()}
    pairs, missed = [], 0
    for truth, found, similarity in frames:
        best, chosen = -1.0, []
        size = min(len(truth), len(found))
        for rows in itertools.combinations(range(len(truth)), size):
            for columns in itertools.permutations(range(len(found)), size):
                score = sum(alignment[truth[r], found[c]] * similarity[r][c] for r, c in zip(rows, columns))
                if score > best:
                    best, chosen = score, list(zip(rows, columns))
        good = [(truth[r], found[c]) for r, c in chosen if similarity[r][c] >= threshold]
        pairs += good
        missed += len(truth) + len(found) - 2 * len(good)
    association = 0.0
    for one, other in pairs:
        both = pairs.count((one, other))
        association += both / (truth_frames[one] + found_frames[other] - both)
    return len(pairs) / (len(pairs) + missed), association / max(1, len(pairs))


@pytest.mark.parametrize("seed", range(5))
def test_against_a_slow_definition(seed):
    generator = np.random.default_rng(seed)
    frames = []
    for _ in range(6):
        truth, found = (np.flatnonzero(generator.random(4) < 0.7).tolist() for _ in range(2))
        frames.append((truth, found, generator.random((len(truth), len(found))).tolist()))
    curves = count_video(video(*frames)).curves()
    for place in (0, 9, 15):  # IoU 0.05, 0.5, 0.8
        detection, association = slow_rates(frames, 0.05 * (place + 1))
        assert curves["DetA"][place] == pytest.approx(detection)
        assert curves["AssA"][place] == pytest.approx(association)
        assert curves["HOTA"][place] == pytest.approx(math.sqrt(detection * association))


def test_videos_are_weighted_by_their_pairs():
    """Two right pairs in one video, one broken in two in the other: sums, not means."""
    good = TrackVideo("a", video(([1], [7], [[1]]), ([1], [7], [[1]])).frames)
    bad = TrackVideo("b", video(([1], [7], [[1]]), ([1], [8], [[1]])).frames)
    total, each = count_videos([good, bad])
    assert total.rates()["AssA"] == pytest.approx((2 * 1 + 2 * 0.5) / 4)
    assert each["a"].rates()["HOTA"] == pytest.approx(1)


def test_nothing_true_or_nothing_found():
    none_found, none_true = count_video(video(([1], [], []))), count_video(video(([], [1], [])))
    assert none_found.rates()["HOTA"] == none_true.rates()["HOTA"] == 0
    assert none_found.rates()["LocA"] == 1 and not none_found.empty  # as published
    assert HotaCounts.nothing().empty
    with pytest.raises(ValueError, match="nothing to measure"):
        label_means([HotaCounts.nothing()])


def test_labels_have_the_same_weight():
    """Cats are right, the dog is found as a cat: dogs 0, cats with one false positive a frame: DetA 1/2, AssA 1."""
    labels = {1: "cat", 2: "dog", 7: "cat", 8: "cat"}
    counts = count_labels([video(*[([1, 2], [7, 8], [[1, 0], [0, 1]])] * 3, labels=labels)])
    assert sorted(counts) == ["cat", "dog"]
    assert counts["cat"].rates()["HOTA"] == pytest.approx(math.sqrt(0.5)) and counts["dog"].rates()["HOTA"] == 0
    assert label_means(list(counts.values()))["HOTA"] == pytest.approx(math.sqrt(0.5) / 2)

"""TETA on cases worked out by hand from the definition (Li et al., ECCV 2022, section 4)."""

import itertools

import numpy as np
import pytest

from lookhear.evaluation.measures.teta import teta
from lookhear.evaluation.measures.track_frames import TrackFrame, TrackVideo


def video(*frames, name="v") -> TrackVideo:
    """Frames as (true `{id: label}`, found `{id: label}`, `{(true id, found id): IoU}`)."""
    made = []
    for truth, found, ious in frames:
        similarity = np.array([[ious.get((one, other), 0.0) for other in found] for one in truth])
        similarity = similarity.reshape(len(truth), len(found))
        ids = (np.array(list(side), int) for side in (truth, found))
        made.append(TrackFrame(*ids, similarity, tuple(truth.values()), tuple(found.values())))
    return TrackVideo(name, made)


def test_one_object_by_hand():
    """
    An object in two frames, found by one track: rightly, then with an IoU of 0.6 and as a dog.

    Up to 0.6 (13 of 20 thresholds): LocA 1, AssocA 1. Above (7): a pair, a miss and, as the second lies on the object
    (0.6 is above the margin), a false positive: LocA 1/3; TPA 1 of 2 and 2 frames: AssocA 1 / (2 + 2 - 1). Labels at
    0.5, 0.55, 0.6: 1 of 2; above (7): 1 of 1. What is found elsewhere counts nowhere.
    """
    first = ({1: "cat"}, {7: "cat", 9: "cat"}, {(1, 7): 1.0})
    second = ({1: "cat"}, {7: "dog", 9: "cat"}, {(1, 7): 0.6})
    rates, each = teta([video(first, second)])
    part = (13 + 7 / 3) / 20
    assert rates["LocA"] == pytest.approx(part) and rates["AssocA"] == pytest.approx(part)
    assert rates["ClsA"] == pytest.approx((3 * 0.5 + 7) / 10)
    assert rates["TETA"] == pytest.approx((2 * part + 0.85) / 3)
    assert rates["LocRe"] == rates["LocPr"] == pytest.approx((13 + 7 / 2) / 20)
    assert list(each) == ["cat"]


def test_margin_decides_what_is_a_false_positive():
    """The second found box lies on the object with 0.6: with a margin of 0.75 it counts nowhere above 0.6."""
    frames = [({1: "cat"}, {7: "cat"}, {(1, 7): 1.0}), ({1: "cat"}, {7: "cat"}, {(1, 7): 0.6})]
    rates, _ = teta([video(*frames)], margin=0.75)
    assert rates["LocA"] == pytest.approx((13 + 7 / 2) / 20) and rates["LocPr"] == pytest.approx(1)
    with pytest.raises(ValueError, match="margin"):
        teta([], margin=75)


def test_a_second_box_on_the_object_is_a_false_positive():
    """Two tracks on one object, IoU 1 and 0.5: one pair, one false positive at every threshold."""
    frame = ({1: "cat"}, {7: "cat", 8: "cat"}, {(1, 7): 1.0, (1, 8): 0.5})
    rates, _ = teta([video(frame, frame)])
    assert rates["LocA"] == pytest.approx(0.5) and rates["AssocA"] == pytest.approx(1)


def test_wrong_labels_count_for_both_labels():
    """
    A cat and a dog far from each other, both found as cats: the dog's track is right in place but not in name; the
    cat's label has two true positives and two false ones.
    """
    frame = ({1: "cat", 2: "dog"}, {7: "cat", 8: "cat"}, {(1, 7): 1.0, (2, 8): 1.0})
    rates, each = teta([video(frame, frame)])
    assert each["dog"]["LocA"] == each["dog"]["AssocA"] == 1 and each["dog"]["ClsA"] == 0
    assert each["cat"]["ClsA"] == pytest.approx(0.5) and each["cat"]["ClsPr"] == pytest.approx(0.5)
    assert each["cat"]["ClsRe"] == 1 and each["cat"]["LocA"] == 1
    assert rates["TETA"] == pytest.approx((2 / 3 + 2.5 / 3) / 2)


def test_what_belongs_to_another_object_is_no_false_positive():
    """The dog's track overlaps the cat, too (0.5), but it is the dog's."""
    frame = ({1: "cat", 2: "dog"}, {7: "cat", 8: "dog"}, {(1, 7): 0.9, (1, 8): 0.5, (2, 8): 0.9})
    _, each = teta([video(frame, frame)])
    assert each["cat"]["LocPr"] == pytest.approx(19 / 20)  # above 0.9 the cat's own box is one
    without = ({1: "cat"}, {7: "cat", 8: "dog"}, {(1, 7): 0.9, (1, 8): 0.5})
    _, each = teta([video(without, without)])
    assert each["cat"]["LocPr"] == pytest.approx(19 / 20 * 0.5)


def test_a_track_that_breaks():
    frames = [({1: "cat"}, {number: "cat"}, {(1, number): 1.0}) for number in (7, 7, 7, 8)]
    rates, _ = teta([video(*frames)])
    assert rates["AssocA"] == pytest.approx((3 * 3 / 4 + 1 * 1 / 4) / 4) and rates["LocA"] == 1
    assert rates["AssocRe"] == rates["AssocA"] and rates["AssocPr"] == 1


def test_videos_are_added():
    """Counts, not rates: two right frames in one video, nothing found in another one of a frame."""
    frame = ({1: "cat"}, {7: "cat"}, {(1, 7): 1.0})
    rates, _ = teta([video(frame, frame, name="a"), video(({1: "cat"}, {}, {}), name="b")])
    assert rates["LocA"] == pytest.approx(2 / 3) and rates["AssocA"] == rates["ClsA"] == 1


def slow_teta(frames, margin: float) -> dict[str, tuple[float, float, float]]:
    """
    (LocA, AssocA, ClsA) of each label of one video, step by step as the published evaluation goes, with loops and
    dicts.

    frames: (true `{id: label}`, found `{id: label}`, `{(true id, found id): IoU}`).
    """
    labels = sorted({label for truth, _, _ in frames for label in truth.values()})

    def iou(frame, one, other):
        return frame[2].get((one, other), 0.0)

    def pairs_of(truths, founds):
        """Of each frame its pairs, of these objects and these tracks (sets of ids, frame by frame)."""
        shared, lengths = {}, ({}, {})
        for frame, truth, found in zip(frames, truths, founds):
            for side, ids in enumerate((truth, found)):
                for number in ids:
                    lengths[side][number] = lengths[side].get(number, 0) + 1
            for one in truth:
                for other in found:
                    value = iou(frame, one, other)
                    rest = sum(iou(frame, one, x) for x in found) + sum(iou(frame, x, other) for x in truth) - value
                    if rest > 1e-12:
                        shared[one, other] = shared.get((one, other), 0) + value / rest
        score = {p: part / (lengths[0][p[0]] + lengths[1][p[1]] - part) for p, part in shared.items()}
        chosen = []
        for frame, truth, found in zip(frames, truths, founds):
            size = min(len(truth), len(found))
            options = [
                list(zip(rows, columns))
                for rows in itertools.combinations(sorted(truth), size)
                for columns in itertools.permutations(sorted(found), size)
            ]
            chosen.append(max(options, key=lambda option: sum(score.get(p, 0) * iou(frame, *p) for p in option)))
        return chosen, lengths

    everyone = [set(truth) for truth, _, _ in frames]
    near = {other for frame in frames for one in frame[0] for other in frame[1] if iou(frame, one, other) >= 0.5}
    owners = pairs_of(everyone, [near & set(found) for _, found, _ in frames])[0]
    results, false_labels = {}, {}
    for label in labels:
        truths = [{number for number, name in truth.items() if name == label} for truth, _, _ in frames]
        surroundings = []
        for frame, mine, owned in zip(frames, truths, owners):
            taken = {other for one, other in owned if one not in mine and iou(frame, one, other) >= 0.5}
            around = {other for other in frame[1] if any(iou(frame, one, other) >= 0.5 for one in mine)}
            surroundings.append(around - taken)
        kept = set().union(*surroundings)
        founds = [kept & set(found) for _, found, _ in frames]
        chosen, lengths = pairs_of(truths, founds)
        located, associated, classified = [], [], []
        for step in range(20):
            threshold = 0.05 * step
            good = [[p for p in some if iou(frame, *p) >= threshold - 1e-12] for frame, some in zip(frames, chosen)]
            hits = [p for some in good for p in some]
            missed = sum(map(len, truths)) - len(hits)
            wrong = 0
            for frame, mine, around, some in zip(frames, truths, surroundings, good):
                candidates = {other for other in around if any(iou(frame, one, other) >= margin for one in mine)}
                wrong += len(candidates - {other for _, other in some})
            located.append(len(hits) / max(1, len(hits) + missed + wrong))
            total = sum(hits.count(p) / (lengths[0][p[0]] + lengths[1][p[1]] - hits.count(p)) for p in hits)
            associated.append(total / max(1, len(hits)))
            if step >= 10:
                names = [frame[1][other] for frame, some in zip(frames, good) for _, other in some]
                classified.append([names.count(label), len(names) - names.count(label)])
                for name in names:
                    if name != label:
                        false_labels[name, step] = false_labels.get((name, step), 0) + 1
        results[label] = (np.mean(located), np.mean(associated), classified)
    return {
        label: (
            one,
            two,
            np.mean(
                [
                    right / max(1, right + bad + false_labels.get((label, step), 0))
                    for step, (right, bad) in enumerate(rest, 10)
                ]
            ),
        )
        for label, (one, two, rest) in results.items()
    }


@pytest.mark.parametrize("margin", [0.5, 0.75])
@pytest.mark.parametrize("seed", range(5))
def test_against_a_slow_definition(seed, margin):
    """Tracks that go along with an object, that change, that overlap two objects, with names that change."""
    generator = np.random.default_rng(seed)
    frames = []
    for _ in range(6):
        truth = {n: "cat" if n < 3 else "dog" for n in range(1, 5) if generator.random() < 0.8}
        found = {n: str(generator.choice(["cat", "dog", "fox"])) for n in range(11, 16) if generator.random() < 0.8}
        ious = {
            (one, other): float(generator.random() ** (1 if other - one == 10 else 3))
            for one in truth
            for other in found
        }
        frames.append((truth, found, ious))
    _, each = teta([video(*frames)], margin)
    for label, expected in slow_teta(frames, margin).items():
        assert [each[label][name] for name in ("LocA", "AssocA", "ClsA")] == pytest.approx(expected), label


def test_labels_are_needed():
    bare = TrackVideo("v", [TrackFrame(np.array([1]), np.array([7]), np.array([[1.0]]))])
    with pytest.raises(ValueError, match="labels"):
        teta([bare])
    with pytest.raises(ValueError, match="nothing to measure"):
        teta([video(({}, {7: "cat"}, {}))])

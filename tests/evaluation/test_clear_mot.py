"""CLEAR MOT and identity scores: py-motmetrics' figures of its test files, cases worked out by hand, brute force."""

import itertools
import json
from collections import defaultdict

import numpy as np
import pytest

from lookhear.evaluation.measures.clear_mot import MotCounts, count_gaps, count_video, count_videos
from lookhear.evaluation.measures.hota import count_videos as count_hota
from lookhear.evaluation.measures.mask_runs import encode_mask
from lookhear.evaluation.measures.track_frames import TrackFrame, TrackVideo, of_label, read_videos


def video(*frames: dict[tuple[int, int], float], truth=(), found=()) -> TrackVideo:
    """Frames as `{(true id, found id): IoU}`; all other ids of `truth` and `found` are in each frame as well."""
    made = []
    for pairs in frames:
        ids = [sorted({*extra, *(pair[side] for pair in pairs)}) for side, extra in enumerate((truth, found))]
        similarity = np.array([[pairs.get((one, other), 0.0) for other in ids[1]] for one in ids[0]])
        made.append(TrackFrame(*(np.array(side, int) for side in ids), similarity.reshape(len(ids[0]), len(ids[1]))))
    return TrackVideo("v", made)


def mot_file(path) -> dict[int, dict]:
    """A MOT-challenge file: `{frame: {"ids", "boxes"}}`."""
    frames: dict[int, dict] = defaultdict(lambda: {"ids": [], "boxes": []})
    for line in path.read_text().splitlines():
        frame, number, x, y, width, height = map(float, line.split(",")[:6])
        frames[int(frame)]["ids"].append(int(number))
        frames[int(frame)]["boxes"].append([x, y, x + width, y + height])
    return frames


@pytest.fixture(scope="module")
def test_files(shared):
    """(references, predictions, py-motmetrics' figures) of its two test videos."""
    folder, references, predictions = shared / "data" / "metrics" / "mot", [], []
    for name in ("TUD-Campus", "TUD-Stadtmitte"):
        truth, found = (mot_file(folder / name / file) for file in ("gt.txt", "test.txt"))
        for frame in sorted({*truth, *found}):
            references.append({"video": name, **truth[frame]})
            predictions.append(found[frame])
    return references, predictions, json.loads((folder / "expected.json").read_text())


@pytest.mark.shared
def test_figures_of_motmetrics(test_files):
    """Rates to 0.1 percentage points, counts exactly."""
    references, predictions, expected = test_files
    total, each = count_videos(read_videos(references, predictions))
    names = {"switches": "num_switches", "fragmentations": "num_fragmentations", "misses": "num_misses"}
    names |= {"false_positives": "num_false_positives", "partly_tracked": "partially_tracked"}
    names |= {"objects": "num_unique_objects"}
    names |= {name: name for name in ("mostly_tracked", "mostly_lost")}
    for video_name, counts in {**each, "OVERALL": total}.items():
        rates, wanted = counts.rates(), expected[video_name]
        assert {name: rates[name] for name in names} == {name: wanted[theirs] for name, theirs in names.items()}
        for name in ("mota", "idf1", "idp", "idr", "recall", "precision"):
            assert rates[name] == pytest.approx(wanted[name], abs=0.001), (video_name, name)
        assert 1 - rates["motp"] == pytest.approx(wanted["motp"], abs=0.001)


@pytest.mark.shared
def test_hota_of_the_same_files(test_files):
    """TrackEval's figures of TUD-Campus, as its parity test in py-motmetrics (pull request 212) prints them."""
    references, predictions, _ = test_files
    _, each = count_hota(read_videos(references, predictions))
    rates = each["TUD-Campus"].rates()
    assert rates["HOTA"] == pytest.approx(0.391397437845, abs=1e-9)
    assert rates["DetA"] == pytest.approx(0.418047030143, abs=1e-9)
    assert rates["AssA"] == pytest.approx(0.369120681208, abs=1e-9)


def test_counts_by_hand():
    """
    Object 1 is found by track 7, lost, found by track 8 (a switch and a fragmentation); object 2 by track 9 in one of
    four frames with an IoU below a half, then rightly; track 9 is there once for nothing.
    """
    counts = count_video(
        video(
            {(1, 7): 0.9, (2, 9): 0.4},
            {(1, 7): 0.4, (2, 9): 0.5},
            {(1, 8): 0.7},
            {(1, 8): 0.8},
            truth=(1,),
        )
    )
    assert counts == MotCounts(6, 6, 4, 1, 1, pytest.approx(2.9), 3, 2, 0, 0, 4)
    rates = counts.rates()
    assert rates["mota"] == pytest.approx(1 - (2 + 2 + 1) / 6) and rates["motp"] == pytest.approx(2.9 / 4)
    assert rates["idf1"] == rates["idp"] == rates["idr"] == 0.5 and rates["partly_tracked"] == 2


def test_a_pair_stays_while_it_overlaps_enough():
    """The other track fits better in frame 2, but a pair is kept from an IoU of a half on: no switch."""
    kept = count_video(video({(1, 7): 0.9}, {(1, 7): 0.5, (1, 8): 0.9}, {(1, 7): 0.8}))
    assert (kept.matches, kept.switches) == (3, 0)
    lost = count_video(video({(1, 7): 0.9}, {(1, 7): 0.49, (1, 8): 0.9}, {(1, 7): 0.8, (1, 8): 0.4}))
    assert (lost.matches, lost.switches) == (3, 2)


def test_a_pair_is_remembered_while_the_object_is_away():
    assert count_video(video({(1, 7): 0.9}, {}, {(1, 8): 0.9})).switches == 1
    assert count_video(video({(1, 7): 0.9}, {}, {(1, 7): 0.9})).switches == 0
    assert count_video(video({(1, 7): 0.9}, {}, {(1, 7): 0.9})).fragmentations == 0  # not there is not lost
    assert count_video(video({(1, 7): 0.9}, {}, {(1, 7): 0.9}, truth=(1,))).fragmentations == 1


def test_as_many_pairs_as_can_be():
    """One-to-one: the best pair alone (0.95) would leave the others without one."""
    counts = count_video(video({(1, 7): 0.95, (1, 8): 0.6, (2, 7): 0.6, (2, 8): 0.1}))
    assert counts.matches == 2 and counts.overlap == pytest.approx(1.2)


@pytest.mark.parametrize("seed", range(6))
def test_identity_against_all_assignments(seed):
    generator = np.random.default_rng(seed)
    frames = []
    for _ in range(8):
        truth, found = (np.flatnonzero(generator.random(4) < 0.7) for _ in range(2))
        frames.append(TrackFrame(truth, found, generator.random((len(truth), len(found)))))
    together = np.zeros((4, 4))
    for frame in frames:
        together[np.ix_(frame.truth, frame.found)] += frame.similarity >= 0.5
    best = max(
        sum(together[one, other] for one, other in enumerate(order)) for order in itertools.permutations(range(4))
    )
    counts = count_video(TrackVideo("v", frames))
    assert counts.identity_matches == best
    assert counts.truth == sum(len(frame.truth) for frame in frames)


def test_gaps():
    assert (
        count_gaps([True, False, False, True, False]) == 1 and count_gaps([False, True, True]) == count_gaps([]) == 0
    )


def test_nothing_true_or_nothing_found():
    none_found, none_true = count_video(video({}, truth=(1, 2))), count_video(video({}, found=(1, 2)))
    assert none_found.rates()["mota"] == 0 and none_found.mostly_lost == 2 and np.isnan(none_found.rates()["idp"])
    assert np.isnan(none_true.rates()["mota"]) and none_true.rates()["false_positives"] == 2
    assert (none_found + none_true).rates()["mota"] == -1
    with pytest.raises(ValueError, match="threshold"):
        count_videos([], 0)


def test_masks_as_boxes():
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:6] = True
    box = [2, 1, 6, 4]
    for kind, column, thing in (("box", "boxes", box), ("mask", "masks", encode_mask(mask))):
        references = [{"video": "a", "ids": [1], column: [thing]}, {"video": "b", "ids": [], column: []}]
        predictions = [{"ids": [5], column: [thing]}, {"ids": [5], column: [thing]}]
        videos = list(read_videos(references, predictions, kind))
        assert [one.name for one in videos] == ["a", "b"] and videos[0].frames[0].similarity.tolist() == [[1]]
        assert videos[1].frames[0].similarity.shape == (0, 1)


def test_what_is_known_of_a_label_counts():
    """Found: one that is right, one that is wrong, in a frame with and in one without a true object."""
    frames = []
    for truth in ([1], []):
        similarity = np.array([[0.8, 0.0]])[: len(truth)]
        frames.append(
            TrackFrame(np.array(truth, int), np.array([7, 8]), similarity, ("cat",) * len(truth), ("cat",) * 2)
        )

    def kept(**facts):
        return [len(frame.found) for frame in of_label(TrackVideo("v", frames, **facts), "cat").frames]

    assert kept() == [2, 2]  # marked throughout
    assert kept(absent=frozenset()) == [2, 0]  # nothing is known of frames without it
    assert kept(absent=frozenset({"cat"})) == [2, 2]
    assert kept(absent=frozenset({"cat"}), not_exhaustive=frozenset({"cat"})) == [1, 0]
    assert [len(frame.truth) for frame in of_label(TrackVideo("v", frames), "dog").frames] == [0, 0]


def test_bad_frames_are_named():
    box = [0, 0, 1, 1]
    frame, found = {"video": "a", "ids": [1], "boxes": [box]}, {"ids": [1], "boxes": [box]}
    with pytest.raises(ValueError, match="occurs twice"):
        list(read_videos([frame], [{"ids": [3, 3], "boxes": [box, box]}]))
    with pytest.raises(ValueError, match="1 ids, 0 boxes"):
        list(read_videos([frame], [{"ids": [3], "boxes": []}]))
    with pytest.raises(ValueError, match="two parts"):
        list(read_videos([frame, {**frame, "video": "b"}, frame], [found] * 3))
    with pytest.raises(ValueError, match="shorter|longer"):
        list(read_videos([frame], []))
    with pytest.raises(ValueError, match="kind"):
        list(read_videos([frame], [found], "boxes"))

"""The face of a chosen speaker: in their box only, through cuts, absence and company; and the report about it."""

from __future__ import annotations

import numpy as np
import pytest

from lookhear.processing.avsr.face_tracking_avsr import Change
from lookhear.processing.avsr.landmarks_avsr import Face, box_of_points
from lookhear.processing.avsr.mouth_cropping_avsr import MEAN_FACE
from lookhear.processing.avsr.speaker_tracking_avsr import BRIDGE, SpeakerBox, SpeakerFace, SpeakerReport

HEIGHT, WIDTH = 240, 640
LEFT, RIGHT = SpeakerBox((0, 0, 320, 240), 0.9), SpeakerBox((320, 0, 640, 240), 0.8)


def picture(*faces: tuple[int, float, float, float]) -> np.ndarray:
    """Squares as (grey level, x and y of the middle, width): what `see` takes for faces."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for level, x, y, width in faces:
        top, left, half = round(y - width / 2), round(x - width / 2), round(width / 2)
        frame[max(0, top) : max(0, top + 2 * half), max(0, left) : max(0, left + 2 * half)] = level
    return frame


def see(frame: np.ndarray) -> list[Face]:
    """A face for each grey level, as wide as it is there."""
    faces = []
    for level in np.flatnonzero(np.bincount(frame[..., 0].reshape(-1))):
        if level:
            rows, columns = np.nonzero(frame[..., 0] == level)
            faces.append(face_at((columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2, level))
            faces[-1] = scaled(faces[-1], columns.max() + 1 - columns.min())
    return faces


def face_at(x: float, y: float, level: int) -> Face:
    return Face((x - 1, y - 1, x + 1, y + 1), np.zeros((68, 2), np.float32), float(level))


def scaled(face: Face, width: float) -> Face:
    """The mean face in a box of that width."""
    middle = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    plain = box_of_points(MEAN_FACE)
    points = (MEAN_FACE - ((plain[0] + plain[2]) / 2, (plain[1] + plain[3]) / 2)) * width / (plain[2] - plain[0])
    points = (points + middle).astype(np.float32)
    return Face(box_of_points(points), points, face.score)


class Follower:
    """Sees as `see` does, and follows the level that it saw; counts how often it searches."""

    def __init__(self) -> None:
        self.searches = 0

    def __call__(self, frame: np.ndarray) -> list[Face]:
        self.searches += 1
        return see(frame)

    def follow(self, frame: np.ndarray, face: Face) -> Face:
        return next((found for found in see(frame) if found.score == face.score), face)

    def confirm(self, frame: np.ndarray, face: Face) -> bool:
        return any(found.score == face.score for found in see(frame))


class Describer(Follower):
    """Says what a face looks like: its level, far from all others."""

    def describe(self, frame: np.ndarray, face: Face) -> np.ndarray:
        return np.eye(256)[int(face.score)]


@pytest.fixture(params=["detector", "follower"])
def tracker(request) -> SpeakerFace:
    return SpeakerFace(see if request.param == "detector" else Follower(), 10, SpeakerReport("x", 25.0))


def followed(tracker: SpeakerFace, frames, change: Change = Change.NONE) -> list[float | None]:
    """x of the nose in each of (frame, box)."""
    found = []
    for frame, box in frames:
        tracker.look(box)
        points = tracker.next_points(frame, change)
        found.append(None if points is None else round(float(points[36:48, 0].mean())))
        change = Change.NONE
    return found


def test_only_the_speakers_box_counts(tracker):
    """A larger, more central face stands beside it."""
    both = picture((50, 120, 120, 60), (90, 400, 120, 120))
    assert followed(tracker, [(both, LEFT)] * 30) == [120] * 30
    assert followed(tracker, [(both, RIGHT)] * 3, Change.CUT) == pytest.approx([400] * 3, abs=2)
    report = tracker.report.finish()
    assert report["followed"] == 1.0 and tracker.switches == 0


def test_a_box_that_moves_takes_the_face_along(tracker):
    frames = []
    for index in range(60):
        x = 100 + 7 * index
        frames.append((picture((50, x, 120, 60), (90, 300, 60, 70)), SpeakerBox((x - 60, 60, x + 60, 240))))
    found = followed(tracker, frames)
    assert found == pytest.approx([100 + 7 * index for index in range(60)], abs=2)
    assert tracker.switches == 0


def test_a_face_that_leaves_the_box_is_not_ours(tracker):
    """The locator stays; whoever was in the box walks off, and nobody else comes."""
    frames = [(picture((50, 120 + 10 * index, 120, 60)), LEFT) for index in range(50)]
    found = followed(tracker, frames)
    assert found[0] == 120 and found[26:] == [None] * 24


def test_of_two_faces_in_one_box_the_first_is_kept(tracker):
    alone, company = picture((50, 160, 120, 60)), picture((50, 160, 120, 60), (90, 60, 120, 110))
    found = followed(tracker, [(alone, LEFT)] * 25 + [(company, LEFT)] * 75)
    assert found == [160] * 100 and tracker.switches == 0
    report = tracker.report.finish()
    assert [second["sure"] for second in report["seconds"]][0] == 0.9
    assert [second["sure"] for second in report["seconds"]][-1] == 0.45
    assert any("2 faces are where" in sentence for sentence in tracker.report.warnings(0))


def test_of_two_faces_the_one_at_its_place_is_taken_back(tracker):
    """Ours turns away; the other one in the box is not taken for it before patience ends."""
    company, other = picture((50, 160, 120, 60), (90, 60, 120, 110)), picture((90, 60, 120, 110), (91, 270, 60, 40))
    first = followed(
        tracker, [(picture((50, 160, 120, 60)), LEFT)] * 2 + [(other, LEFT)] * 15 + [(company, LEFT)] * 12
    )
    assert first[:2] == [160, 160] and first[11:17] == [None] * 6 and first[-1] == 160
    assert tracker.switches == 0


def test_leaving_and_returning(tracker):
    here, there = picture((50, 120, 120, 60), (90, 400, 120, 90)), picture((50, 470, 100, 64), (90, 200, 120, 90))
    gone = picture((90, 400, 120, 90))
    frames = [(here, LEFT)] * 10 + [(gone, None)] * 60 + [(there, RIGHT)] * 10
    found = followed(tracker, frames)
    assert found[:10] == [120] * 10 and found[10 + BRIDGE : 70] == [None] * (60 - BRIDGE)
    assert found[70:] == pytest.approx([470] * 10, abs=1), "it is searched for as soon as the locator sees it"
    assert tracker.switches == 0, "the same place in the box: the same face"


def test_where_the_locator_misses_the_speaker_the_face_is_followed_for_a_while():
    tracker = SpeakerFace(Follower(), 10, SpeakerReport("x", 25.0))
    frame = picture((50, 120, 120, 60), (90, 400, 120, 90))
    found = followed(tracker, [(frame, LEFT)] * 5 + [(frame, None)] * 5 + [(frame, LEFT)] * 5 + [(frame, None)] * 60)
    assert found == [120] * 15 + [120] * BRIDGE + [None] * (60 - BRIDGE)
    assert tracker.report.take_absent(75).tolist() == [False] * (15 + BRIDGE) + [True] * (60 - BRIDGE)


def test_a_cut_and_a_flash(tracker):
    before, after = picture((50, 120, 120, 60), (90, 250, 120, 90)), picture((50, 500, 60, 100))
    narrow = SpeakerBox((60, 60, 180, 200))
    assert followed(tracker, [(before, narrow)] * 5) == [120] * 5
    assert followed(tracker, [(after, RIGHT)] * 3, Change.CUT) == pytest.approx([500] * 3, abs=2)
    assert followed(tracker, [(before, narrow)] * 3, Change.RETURN) == [120] * 3
    assert tracker.switches == 0


def test_another_face_elsewhere_in_the_box_is_a_switch(tracker):
    tracker._patience = 12
    company, other = picture((50, 60, 60, 50), (90, 240, 120, 40)), picture((90, 240, 120, 40), (91, 260, 200, 30))
    followed(tracker, [(company, LEFT)] * 3)
    tracker._place = None
    followed(tracker, [(company, LEFT)])
    found = followed(tracker, [(other, LEFT)] * 40)
    assert found[10] is None and found[-1] is not None and tracker.switches == 1


def test_a_face_is_known_again_by_its_looks():
    """After a cut ours is at the edge of the box, and a larger one stands where it was."""
    tracker = SpeakerFace(Describer(), 10, SpeakerReport("x", 25.0))
    assert followed(tracker, [(picture((50, 160, 120, 60)), LEFT)] * 5) == [160] * 5
    after = picture((90, 160, 120, 80), (50, 50, 120, 60))
    assert followed(tracker, [(after, LEFT)] * 5, Change.CUT) == pytest.approx([50] * 5, abs=1)


def test_a_face_that_looks_like_another_one_is_doubted():
    tracker = SpeakerFace(Describer(), 10, SpeakerReport("the man", 25.0))
    ours, other = picture((50, 160, 120, 60)), picture((90, 160, 120, 64))
    followed(tracker, [(ours, LEFT)] * 25)
    assert followed(tracker, [(other, LEFT)] * 25, Change.CUT) == pytest.approx([160] * 25, abs=1)
    followed(tracker, [(ours, LEFT)] * 25, Change.CUT)
    assert [second["sure"] for second in tracker.report.finish()["seconds"]] == [0.9, 0.45, 0.9]
    said = 'from 1.0 s on the face of "the man" looks like another one than before'
    assert tracker.report.warnings(0) == [said]


def test_no_room_for_a_face(tracker):
    frame = picture((50, 120, 120, 60))
    outside = [SpeakerBox((-90, -90, -10, -10)), SpeakerBox((700, 10, 800, 90)), SpeakerBox((10, 10, 12, 12))]
    assert followed(tracker, [(frame, box) for box in outside]) == [None] * 3


def test_a_face_is_not_searched_for_in_every_frame():
    detector = Follower()
    tracker = SpeakerFace(detector, 10, SpeakerReport("x", 25.0))
    followed(tracker, [(picture((50, 120, 120, 60)), LEFT)] * 500)
    assert detector.searches <= 12
    detector = Follower()
    tracker = SpeakerFace(detector, 10, SpeakerReport("x", 25.0))
    followed(tracker, [(picture(), LEFT)] * 500)
    assert detector.searches <= 50


# ------------------------------------------------------------------------------------------------------- the report


def test_the_report_says_for_each_second_who_was_followed():
    report = SpeakerReport({"point": (10.5, 9.0)}, 25.0)
    for index in range(60):
        here = None if 25 <= index < 50 else SpeakerBox((index, 0, index + 10, 20), 0.8)
        report.add(here, face=index % 5 != 0 and here is not None, in_box=1)
    facts = report.finish()
    assert facts["asked"] == {"point": [10.5, 9.0]} and facts["located"] == round(35 / 60, 4)
    assert facts["followed"] == round(28 / 60, 4)
    assert facts["seconds"] == [
        {"second": 0, "box": [12.0, 0.0, 22.0, 20.0], "sure": 0.8, "face": 0.8},
        {"second": 1, "box": None, "sure": 0.0, "face": 0.0},
        {"second": 2, "box": [54.5, 0.0, 64.5, 20.0], "sure": 0.8, "face": 0.8},
    ]
    assert report.warnings(0) == ["the speaker at the point (10.5, 9) is in view in 58% of the frames only"]
    assert report.warnings(5) == ["there are boxes of the speaker at the point (10.5, 9) for 55 frames, but 60 frames"]


@pytest.mark.parametrize(
    "asked, elsewhere",
    [
        ({"point": (50.0, 40.0)}, False),
        ({"point": (20.0, 40.0)}, False),  # a tenth of the width outside
        ({"point": (17.0, 40.0)}, True),
        ({"point": (50.0, 200.0)}, True),
        ({"box": (0.0, 0.0, 30.0, 30.0)}, False),
        ({"box": (90.0, 90.0, 99.0, 99.0)}, True),
        ({"track": []}, False),
        ("the man", False),
    ],
    ids=str,
)
def test_somebody_elsewhere_is_doubted(asked, elsewhere):
    report = SpeakerReport(asked, 25.0)
    report.add(SpeakerBox((25.0, 20.0, 80.0, 80.0)), face=True, in_box=1)
    report.add(SpeakerBox((500.0, 500.0, 600.0, 600.0)), face=True, in_box=1)  # may walk away later
    said = [sentence.startswith("nobody was found where the speaker at the ") for sentence in report.warnings(0)]
    assert said == [True] * elsewhere


def test_doubts_are_said():
    report = SpeakerReport("the man", 25.0)
    for _ in range(10):
        report.add(SpeakerBox((0, 0, 9, 9), 0.3), face=True, in_box=1)
    assert report.warnings(0) == ['it is uncertain who "the man" is: confidence 0.30 on average']

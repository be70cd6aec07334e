"""Everybody in a video: one track a person, whoever leaves, comes back, or stands elsewhere after a cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lookhear.processing.avsr.everyone_avsr import (
    MOST,
    FaceTrackCollector,
    Person,
    Tracklet,
    find_people,
    join,
    people_in,
)
from lookhear.processing.avsr.face_tracking_avsr import Change
from lookhear.processing.avsr.landmarks_avsr import SAME_PERSON, DlibLandmarkDetector, Face
from lookhear.processing.avsr.processing_avsr import MouthRoiImageProcessor
from lookhear.processing.avsr.speaker_tracking_avsr import SpeakerBox, SpeakerFace, SpeakerReport

from .test_speaker_face_avsr import Follower, picture, see


class Knowing(Follower):
    """Knows people by their grey level."""

    def describe(self, frame: np.ndarray, face: Face) -> np.ndarray:
        return np.eye(256)[int(face.score)]


def scene(number: int, *faces: tuple[int, float, float, float]) -> np.ndarray:
    """Faces in front of the scene of that number, which only the watch for cuts sees."""
    frame = picture(*faces)
    blocks = np.random.default_rng(number).integers(0, 255, (6, 16), dtype=np.uint8)
    frame[..., 1] = blocks.repeat(40, axis=0).repeat(40, axis=1)
    return frame


def centres(person: Person, frames: int) -> list[float | None]:
    """Middle x of each box."""
    boxes = list(person)
    boxes += [None] * (frames - len(boxes))
    return [None if box is None else round((box[0] + box[2]) / 2) for box in boxes]


DETECTORS = [see, Follower(), Knowing()]
ANN, BOB, CEE = 50, 90, 130


@pytest.mark.parametrize("detector", DETECTORS, ids=("detector", "follower", "describer"))
def test_two_people_side_by_side(detector):
    frames = [scene(1, (BOB, 400 + index, 120, 80), (ANN, 120 - index, 120, 60)) for index in range(60)]
    ann, bob = find_people(iter(frames), detector, 10, 25.0)
    assert ann.frames == bob.frames == 60, "counted from left to right"
    assert centres(ann, 60) == pytest.approx([120 - index for index in range(60)], abs=3)
    assert centres(bob, 60) == pytest.approx([400 + index for index in range(60)], abs=3)
    x0, y0, x1, y1 = next(iter(ann))
    assert x1 - x0 == pytest.approx(90, abs=3) and y1 - y0 == pytest.approx(90, abs=3), "with a margin"
    assert list(ann) == list(ann), "a track can be read again"


@pytest.mark.parametrize("detector", DETECTORS[1:], ids=("follower", "describer"))
def test_who_comes_back_is_the_same(detector):
    """Ann leaves for two seconds and is back near where she was; Bob stays."""
    with_ann = [scene(1, (ANN, 120, 120, 60), (BOB, 400, 120, 60))] * 50
    without = [scene(1, (BOB, 400, 120, 60))] * 50
    back = [scene(1, (ANN, 140, 120, 60), (BOB, 400, 120, 60))] * 50
    people = find_people(with_ann + without + back, detector, 10, 25.0)
    assert len(people) == 2
    found = centres(people[0], 150)
    assert found[:41] == pytest.approx([120] * 41, abs=2) and found[105:] == pytest.approx([140] * 45, abs=2)
    assert found[50:100] == [None] * 50, "where it was not found again it is not believed in"
    assert centres(people[1], 150) == pytest.approx([400] * 150, abs=2)


def test_people_are_known_again_after_a_cut():
    """They have changed places; somebody else is between them."""
    before = [scene(1, (ANN, 120, 120, 60), (BOB, 500, 120, 60))] * 50
    after = [scene(2, (BOB, 120, 120, 60), (CEE, 320, 120, 60), (ANN, 500, 120, 60))] * 60
    ann, bob, cee = find_people(before + after, Knowing(), 10, 25.0)
    assert centres(ann, 110) == pytest.approx([120] * 50 + [500] * 60, abs=2)
    assert centres(bob, 110) == pytest.approx([500] * 50 + [120] * 60, abs=2)
    assert centres(cee, 110)[:50] == [None] * 50 and centres(cee, 110)[50:] == pytest.approx([320] * 60, abs=2)
    assert len(find_people(before + after, Follower(), 10, 25.0)) == 5, "by their place nobody can be known again"


def test_a_flash_is_no_cut():
    frames = [scene(1, (ANN, 120, 120, 60))] * 40
    frames[20:23] = [scene(2)] * 3
    (ann,) = find_people(frames, Follower(), 10, 25.0)
    assert ann.frames >= 35


class Losing(Knowing):
    """Loses every face three frames after it was found, and sees it nowhere then; a search finds it again."""

    def follow(self, frame: np.ndarray, face: Face) -> Face:
        found = super().follow(frame, face)
        age = 0 if face.mesh is None else len(face.mesh)  # in frames
        return replace(found, mesh=np.zeros((age + 1, 3), np.float32), seen=age < 3)


def test_a_face_that_its_follower_loses_is_one_until_a_search_finds_it_no_more():
    """Of Ann there is one tracklet, to where she leaves; a search is made in every fifth frame while she is lost."""
    with_ann = [scene(1, (ANN, 120 + index, 120, 60)) for index in range(48)]
    collector = FaceTrackCollector(Losing(), 10)
    for frame in [*with_ann, *[scene(1)] * 60]:
        collector.add(frame)
    (ann,) = collector.people(25.0)
    (tracklet,) = ann._tracklets
    assert 46 <= ann.frames <= 49
    middles = (tracklet.boxes[:, 0] + tracklet.boxes[:, 2]) / 2
    assert middles == pytest.approx(120 + np.arange(ann.frames), abs=6), "it waits where it was for a frame or two"
    assert collector._detector.searches <= 1 + 108 / 5


def test_a_search_puts_right_what_has_drifted():
    """The follower's face is a third of its width too far right at the next search, which finds it where it is."""

    class Drifting(Knowing):
        def follow(self, frame: np.ndarray, face: Face) -> Face:
            return face.moved(2.0, 0.0)

    (ann,) = find_people([scene(1, (ANN, 120, 120, 60))] * 31, Drifting(), 10, 25.0)
    found = centres(ann, 31)
    assert found[9] == pytest.approx(138, abs=2) and found[10] == pytest.approx(120, abs=2)
    assert found[30] == pytest.approx(120, abs=2)


def looks_of(rng: np.random.Generator, places: list[tuple[int, int, int]]) -> list[Tracklet]:
    """Tracklets of (start, frames, person), whose descriptions are those of the person, and a little noise."""
    people = np.eye(5)
    boxes = np.array([0, 0, 10, 10], np.float32)
    return [
        Tracklet(start, 0, np.tile(boxes, (frames, 1)), people[person] + rng.normal(0, 0.04, 5))
        for start, frames, person in places
    ]


def test_tracklets_are_joined_in_whatever_order_they_come():
    rng = np.random.default_rng(0)
    places = [(0, 40, 0), (0, 40, 1), (40, 30, 1), (40, 5, 0), (45, 30, 0), (75, 9, 2), (84, 3, 2), (90, 2, 1)]
    tracklets = looks_of(rng, places)
    for _ in range(5):
        order = rng.permutation(len(places)).tolist()
        people = join([tracklets[index] for index in order])
        starts = sorted([(one.start, len(one.boxes)) for one in person._tracklets] for person in people)
        assert starts == sorted([(a, b) for a, b, who in places if who == person] for person in range(3))
    assert join([]) == []


def test_two_in_view_together_are_never_one_person():
    """They look the same; one who comes later is joined to the nearer of the two."""
    rng = np.random.default_rng(1)
    twins = looks_of(rng, [(0, 40, 0), (20, 40, 0), (60, 20, 0)])
    people = join(twins)
    assert sorted(len(person._tracklets) for person in people) == [1, 2]
    gaps = [np.linalg.norm(one.description - twins[2].description) for one in twins[:2]]
    (pair,) = (person for person in people if len(person._tracklets) == 2)
    assert pair._tracklets[0] is twins[int(np.argmin(gaps))]


def test_the_nearest_are_joined_first():
    """On a line: 0.4 and 0.6, then their mean 0.5 and 0; 1.4 is 1.07 times the border from the mean of three."""
    places = np.array([0.0, 0.4, 0.6, 1.4]) * SAME_PERSON
    box = np.array([[0, 0, 10, 10]], np.float32)
    tracklets = [Tracklet(10 * index, 0, box, np.array([place])) for index, place in enumerate(places)]
    groups = sorted([one.start for one in person._tracklets] for person in join(tracklets))
    assert groups == [[0, 10, 20], [30]]


def test_a_face_is_described_all_over_a_tracklet():
    class Counting(Knowing):
        described: list[int] = []

        def describe(self, frame: np.ndarray, face: Face) -> np.ndarray:
            self.described.append(self.searches)
            return super().describe(frame, face)

    detector = Counting()
    (ann,) = find_people([scene(1, (ANN, 120, 120, 60))] * 700, detector, 10, 25.0)
    assert ann.frames == 700 and detector.described == [1, 2, 4, 8, 16, 32]


def test_passers_by_are_left_out():
    frames = [
        scene(1, (ANN, 120, 120, 60), *([(BOB, 400, 120, 60)] if 30 <= index < 50 else [])) for index in range(99)
    ]
    (ann,) = find_people(frames, Follower(), 10, 25.0)
    assert centres(ann, 99) == pytest.approx([120] * 99, abs=2)
    (short,) = find_people(frames[:9], Follower(), 10, 25.0)
    assert short.frames == 9, "of a short video half is enough"
    assert find_people([scene(1)] * 30, Follower(), 10, 25.0) == []
    assert find_people([], Follower(), 10, 25.0) == []


def test_of_a_crowd_those_seen_longest_are_kept():
    crowd = [(10 + 9 * index, 24 + 60 * index, 60, 44) for index in range(MOST + 2)]
    frames = [scene(1, *crowd)] * 26 + [scene(1, *crowd[2:])] * 9
    clip = {"video": np.stack(frames), "fps": 25}
    people, warnings = people_in(clip, MouthRoiImageProcessor(), Follower())
    assert [centres(person, 35)[0] // 60 for person in people] == list(range(2, MOST + 2))
    assert warnings == ["10 people are in view: the 8 who are in view longest were read"]
    assert people_in({**clip, "video": clip["video"][:, :, :200]}, MouthRoiImageProcessor(), Follower())[1] == []


def test_a_long_video_leaves_little_behind():
    """A box a frame and face: sixteen bytes, and no picture."""
    collector = FaceTrackCollector(Knowing(), 10)
    frame = scene(1, (ANN, 120, 120, 60))
    for _ in range(400):
        collector.add(frame)
    (ann,) = collector.people(25.0)
    assert ann.frames == 400 and sum(tracklet.boxes.nbytes for tracklet in ann._tracklets) == 6400
    assert collector._detector.searches <= 41


# ----------------------------------------------------------------------------------------------------- real portraits


@pytest.fixture(scope="module")
def portraits() -> dict[str, np.ndarray]:
    """Eileen Collins and Grace Hopper, (240, 220, 3) uint8 each."""
    pytest.importorskip("dlib", reason="needs lookhear[dlib]")
    data = pytest.importorskip("skimage.data", reason="needs lookhear[demo]")
    cbook = pytest.importorskip("matplotlib.cbook", reason="needs lookhear[demo]")
    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as photo:
        hopper = np.asarray(photo.convert("RGB"))
    return {"collins": data.astronaut()[:240, 110:330], "hopper": hopper[60:300, 140:360]}


def side_by_side(first: np.ndarray, second: np.ndarray, count: int) -> list[np.ndarray]:
    """They sway a little, each in their own way."""
    pairs = [(np.roll(first, index % 5, axis=1), np.roll(second, -(index % 4), axis=1)) for index in range(count)]
    return [np.concatenate(pair, axis=1) for pair in pairs]


def test_faces_are_told_apart_by_their_looks(portraits):
    detector = DlibLandmarkDetector()
    looks = {}
    for name, whole in portraits.items():
        kinds = {"as it is": whole, "smaller, mirrored": whole[::2, ::-2], "darker": whole // 2}
        for kind, changed in kinds.items():
            (face,) = detector(np.ascontiguousarray(changed))
            looks[name, kind] = detector.describe(np.ascontiguousarray(changed), face)
            assert looks[name, kind].shape == (128,)
    for (one, kind), look in looks.items():
        for (other, _), its in looks.items():
            assert (np.linalg.norm(look - its) < SAME_PERSON) == (one == other), (one, other, kind)


def test_two_portraits_change_places_at_a_cut(portraits):
    collins, hopper = portraits["collins"], portraits["hopper"]
    frames = side_by_side(collins, hopper, 40) + side_by_side(hopper, collins[:, ::-1], 40)
    first, second = find_people(frames, DlibLandmarkDetector(), 10, 25.0)
    for person, sides in ((first, (110, 330)), (second, (330, 110))):
        found = centres(person, 80)
        assert found[5] == pytest.approx(sides[0], abs=60) and found[75] == pytest.approx(sides[1], abs=60)
        assert sum(x is not None for x in found) >= 70


def test_a_chosen_portrait_is_known_again_at_a_cut(portraits):
    """After the cut the speaker's box holds both, and the other one is where the speaker was."""
    collins, hopper = portraits["collins"], portraits["hopper"]
    report = SpeakerReport("the astronaut", 25.0)
    tracker = SpeakerFace(DlibLandmarkDetector(), 10, report)
    before, after = SpeakerBox((0, 0, 220, 240)), SpeakerBox((0, 0, 440, 240))
    frames = [(frame, before) for frame in side_by_side(collins, hopper, 30)]
    frames += [(frame, after) for frame in side_by_side(hopper, collins, 30)]
    found = []
    for index, (frame, box) in enumerate(frames):
        tracker.look(box)
        points = tracker.next_points(frame, Change.CUT if index == 30 else Change.NONE)
        found.append(None if points is None else float(points[36:48, 0].mean()))
    assert all(x is not None and x < 220 for x in found[:30]) and all(x is not None and x > 220 for x in found[30:])

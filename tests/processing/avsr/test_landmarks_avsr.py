"""Landmarks: dlib on portraits, one face through a clip, and files made by other tools."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from lookhear.processing.avsr.face_tracking_avsr import FaceTracker
from lookhear.processing.avsr.landmarks_avsr import (
    DlibLandmarkDetector,
    Face,
    box_of_points,
    overlap,
)
from lookhear.processing.avsr.mouth_cropping_avsr import MEAN_FACE, PrecomputedLandmarks

BLANK = np.zeros((240, 640, 3), np.uint8)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """Eileen Collins, (512, 512, 3) uint8."""
    pytest.importorskip("dlib")
    return pytest.importorskip("skimage.data").astronaut()


def face_at(x: float, y: float, eyes: float = 50.0) -> Face:
    """The mean face with that distance between the outer eye corners."""
    points = (MEAN_FACE * eyes + (x, y)).astype(np.float32)
    return Face(box_of_points(points), points, 1.0)


class Script:
    """A detector that answers from a list, one entry a call; it can follow where `followed` says what to answer."""

    def __init__(self, *answers: list[Face]):
        self.answers, self.calls = answers, 0

    def __call__(self, frame: np.ndarray) -> list[Face]:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        return answer


def test_dlib_finds_the_face_of_a_portrait(portrait):
    (face,) = DlibLandmarkDetector()(portrait)
    assert face.points.shape == (68, 2) and face.points.dtype == np.float32
    x0, y0, x1, y1 = face.box
    inside = (face.points >= (x0 - 20, y0 - 20)) & (face.points <= (x1 + 20, y1 + 20))
    assert inside.all()
    eyes, mouth = face.points[36:48].mean(axis=0), face.points[48:].mean(axis=0)
    assert np.abs(eyes - (223, 110)).max() < 15 and np.abs(mouth - (226, 152)).max() < 15  # seen by eye


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_small_and_large_faces(portrait, scale):
    """A face of 50 pixels is found by searching again at twice the size; one in a 4K frame by reducing it."""
    side = round(512 * scale)
    resized = np.asarray(Image.fromarray(portrait).resize((side, side), Image.Resampling.LANCZOS))
    (small,), (plain,) = DlibLandmarkDetector()(resized), DlibLandmarkDetector()(portrait)
    assert np.abs(small.points / scale - plain.points).mean() < 3.0


def test_no_face_in_noise():
    pytest.importorskip("dlib")
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    assert DlibLandmarkDetector()(noise) == []
    assert DlibLandmarkDetector()(noise[:1, :1]) == []


def test_dlib_refuses_what_is_no_picture():
    for frame in (np.zeros((10, 10, 3), np.float32), np.zeros((10, 10, 4), np.uint8), np.zeros(5, np.uint8)):
        with pytest.raises(ValueError, match="frame must be"):
            DlibLandmarkDetector()(frame)


def test_a_moving_face_is_followed_between_searches(portrait):
    frames = [np.roll(portrait, 4 * index, axis=1)[:300] for index in range(21)]
    tracker = FaceTracker(DlibLandmarkDetector(), detect_every=10)
    faces = [tracker.update(frame) for frame in frames]
    assert len(tracker.counts) == 1  # of the three searches the first goes through the whole picture
    nose = np.array([face.points[30, 0] for face in faces])
    assert np.abs(nose - nose[0] - 4 * np.arange(21)).max() < 4


def test_detection_and_following_agree(portrait):
    detector = DlibLandmarkDetector()
    (face,) = detector(portrait)
    assert np.abs(detector.follow(portrait, face).points - face.points).mean() < 2.0
    assert detector.confirm(portrait, face)
    assert not detector.confirm(np.zeros_like(portrait), face)
    assert not detector.confirm(portrait, face_at(-300.0, -300.0))


def test_the_largest_most_central_face_is_taken():
    small, large = face_at(320, 120, 30), face_at(150, 120, 60)
    assert FaceTracker(Script([small, large])).update(BLANK) is large
    left, central = face_at(60, 120, 50), face_at(320, 120, 50)
    assert FaceTracker(Script([left, central])).update(BLANK) is central


def test_the_same_face_is_kept_whatever_the_order():
    first, second = face_at(150, 120, 60), face_at(450, 120, 49)
    tracker = FaceTracker(Script([first, second], [second, first], [first, second]))
    assert [tracker.update(BLANK) for _ in range(3)] == [first] * 3
    assert tracker.counts == [2, 2, 2]


def test_a_lost_face_is_not_replaced_by_its_neighbour():
    ours, other = face_at(150, 120, 60), face_at(450, 120, 49)
    tracker = FaceTracker(Script(*([[ours, other]] * 2 + [[other]] * 10 + [[other, ours]])))
    faces = [tracker.update(BLANK) for _ in range(13)]
    assert faces == [ours] * 2 + [None] * 10 + [ours]
    assert tracker.switches == 0


def test_patience_ends_and_is_counted():
    ours, other = face_at(150, 120, 60), face_at(450, 120, 49)
    tracker = FaceTracker(Script([ours, other], [other]), patience=5)
    faces = [tracker.update(BLANK) for _ in range(8)]
    assert faces == [ours] + [None] * 5 + [other] * 2
    assert tracker.switches == 1


def test_a_lone_face_may_jump_at_a_cut():
    here, there = face_at(150, 120), face_at(450, 120)
    tracker = FaceTracker(Script([here], [there]))
    assert [tracker.update(BLANK) for _ in range(2)] == [here, there]


def test_overlap():
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1.0
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0.0


def points_with_a_gap() -> np.ndarray:
    points = np.stack([face_at(100 + index, 100).points for index in range(6)])
    points[2] = np.nan
    return points


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize("fps", [None, 50.0])
def test_landmark_files(tmp_path, suffix, fps):
    path, points = tmp_path / f"points{suffix}", points_with_a_gap()
    if suffix == ".npz":
        np.savez(path, points=points, **({"fps": fps} if fps else {}))
    else:
        rows = [None if np.isnan(row).any() else row.tolist() for row in points]
        path.write_text(json.dumps({"points": rows} | ({"fps": fps} if fps else {})))
    landmarks = PrecomputedLandmarks(path)
    expected = points[[0, 2, 4]] if fps else points
    assert np.allclose(landmarks.at(25.0), expected, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("a.npz", b"not an archive", "a.npz"),
        ("a.npz", b"", "a.npz"),
        ("a.json", b"{", "a.json"),
        ("a.json", b'{"dots": []}', "points"),
        ("a.json", b'{"points": []}', r"\(frames, 68, 2\)"),
        ("a.json", b'{"points": [[[1, 2]]]}', r"\(frames, 68, 2\)"),
        ("a.json", b"[1, 2]", "a.json"),
        ("a.csv", b"1,2", ".npz or .json"),
    ],
)
def test_files_without_landmarks_are_refused_by_name(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        PrecomputedLandmarks(tmp_path / name)


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", points=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match="a.npz"):
        PrecomputedLandmarks(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="missing.npz"):
        PrecomputedLandmarks(tmp_path / "missing.npz")

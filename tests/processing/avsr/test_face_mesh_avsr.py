"""Faces and landmarks of the packaged networks, on faces that are drawn: where they are is known."""

from __future__ import annotations

import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lookhear.processing.avsr import face_networks_avsr, landmarks_avsr, read_frames
from lookhear.processing.avsr.face_tracking_avsr import FaceTracker
from lookhear.processing.avsr.landmarks_avsr import (
    LANDMARKS_OF_MESH,
    Detection,
    DlibLandmarkDetector,
    Face,
    MeshLandmarkDetector,
    Region,
    box_of_points,
    cut_out,
    make_detector,
    region_of_landmarks,
    region_of_mesh,
    require_detector,
    steadied,
)
from lookhear.processing.avsr.mouth_cropping_avsr import MEAN_FACE

drawn_face = runpy.run_path(str(Path(__file__).parent / "drawn_faces.py"))["drawn_face"]

WALL = np.full((288, 360, 3), 110, np.uint8)
FLIP = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1), 45, 44, 43, 42, 47, 46]
FLIP += [39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), 64, 63, 62, 61, 60, 67, 66, 65]


@pytest.fixture(scope="module")
def detector() -> MeshLandmarkDetector:
    return MeshLandmarkDetector()


@pytest.fixture(scope="module")
def face(detector) -> Face:
    """Of the picture that `drawn_face` draws without arguments."""
    (face,) = detector(drawn_face())
    return face


def place(across: float, down: float, centre=(180.0, 144.0), size=90.0, turn=(1.0, 0.0)) -> np.ndarray:
    """Where something in a drawn face is, in pixels."""
    return np.add(centre, size * np.array([turn[0] * across - turn[1] * down, turn[1] * across + turn[0] * down]))


@pytest.mark.parametrize("turn", [(1.0, 0.0), (0.96, -0.28), (0.8, 0.6)], ids=["level", "16 degrees", "37 degrees"])
@pytest.mark.parametrize("size", [90.0, 40.0])
def test_eyes_and_mouth_are_where_they_are_drawn(detector, size, turn):
    (face,) = detector(drawn_face(size=size, turn=turn))
    assert face.points.shape == (68, 2) and face.points.dtype == np.float32
    assert face.mesh.shape == (468, 3) and face.seen and face.score > 0.5
    for points, across, down in (
        (slice(36, 42), -0.42, -0.2),
        (slice(42, 48), 0.42, -0.2),
        (slice(48, 68), 0.0, 0.72),
    ):
        error = face.points[points].mean(axis=0) - place(across, down, size=size, turn=turn)
        assert np.abs(error).max() < 0.12 * size
    assert abs(face.points[8] - place(0, 1.28, size=size, turn=turn)).max() < 0.2 * size  # the chin


def test_landmarks_are_in_the_usual_order(face):
    assert len(LANDMARKS_OF_MESH) == len(set(LANDMARKS_OF_MESH)) == 68
    mirrored = face.points[FLIP] * (-1, 1) + (360, 0)
    assert np.abs(mirrored - face.points).max() < 8  # the drawing is its own mirror image
    eyes = float(np.linalg.norm(face.points[45] - face.points[36]))
    aligned = (face.points - face.points[[33, 36, 39, 42, 45]].mean(axis=0)) / eyes
    assert np.abs(aligned - MEAN_FACE).mean() < 0.12  # in units of the distance of the eyes


@pytest.mark.slow
def test_small_faces_are_found_by_the_second_search_and_smaller_ones_in_parts(detector):
    small = drawn_face(480, 640, centre=(400.0, 250.0), size=24.0)
    assert not any(one.score >= detector.threshold for one in detector._detect("short", [small])[0])
    (face,) = detector(small)
    assert np.abs(face.points.mean(axis=0) - (400, 255)).max() < 12
    smaller = drawn_face(480, 640, centre=(170.0, 130.0), size=10.0)
    assert MeshLandmarkDetector(tiles=1)(smaller) == []
    (face,) = detector(smaller)
    assert np.abs(face.points.mean(axis=0) - (170, 132)).max() < 6


def test_all_faces_are_found(detector):
    left, right = drawn_face(centre=(100.0, 150.0), size=45.0), drawn_face(centre=(270.0, 140.0), size=55.0)
    faces = detector(np.concatenate([left[:, :180], right[:, 180:]], axis=1))
    assert sorted(round(face.points[:, 0].mean() / 10) for face in faces) == [10, 27]
    assert faces[0].score >= faces[1].score


def test_a_face_farther_away_is_found_by_the_search_for_all_sizes(detector):
    near, far = drawn_face(480, 640, centre=(200.0, 240.0), size=150.0), drawn_face(480, 640, (520.0, 240.0), 26.0)
    both = np.concatenate([near[:, :420], far[:, 420:]], axis=1)
    assert [round(face.points[:, 0].mean() / 40) for face in detector(both)] == [5]
    found = MeshLandmarkDetector(all_sizes=True)(both)
    assert sorted(round(face.points[:, 0].mean() / 40) for face in found) == [5, 13]


def test_a_face_that_the_mesh_is_not_certain_of_is_looked_at_again_closer(detector, monkeypatch):
    """Where a rough box is off by a third of the face, so are the points; closer, the detector finds the face."""
    picture = drawn_face(size=45.0)
    (face,) = detector(picture)
    rough = Detection((167.5, 137.5, 242.5, 212.5), np.array([[190.0, 165.0], [220.0, 165.0]]), 0.6)
    (left,) = detector._settled(picture, [rough])
    assert left.score == 0.6 and np.abs(left.points - face.points).mean() > 8
    monkeypatch.setattr(landmarks_avsr, "CERTAIN", 2.0)  # of nothing
    (settled,) = detector._settled(picture, [rough])
    assert settled.seen and settled.score > 0.6 and np.abs(settled.points - face.points).mean() < 4
    monkeypatch.setattr(detector, "_look_closer", lambda frame, region: [])
    (left,) = detector._settled(picture, [rough])
    assert left.score == 0.6, "where a closer look shows nothing, it stays as it was"
    assert detector._settled(WALL, [rough]) == []


def test_what_may_be_a_face_is_looked_at_closer(monkeypatch):
    """At a hundredth of the picture's width a face has a low score; closer, the detector and the mesh are certain."""
    picture = drawn_face(480, 640, centre=(170.0, 130.0), size=7.0)
    detector = MeshLandmarkDetector(tiles=1)
    assert 0.2 < max(one.score for one in detector._search_whole(picture)) < 0.5
    (face,) = detector(picture)
    assert face.score > 0.5 and np.abs(face.points.mean(axis=0) - (170, 132)).max() < 3
    away = Detection((300.0, 300.0, 330.0, 330.0), np.array([[308.0, 310.0], [322.0, 310.0]]), 0.4)
    assert detector._confirmed(picture, [away]) == []
    monkeypatch.setattr(landmarks_avsr, "DOUBTFUL", 0.5)
    assert detector(picture) == []


def test_a_doubtful_face_is_not_the_only_one():
    """Where the whole picture shows one that needed a closer look, its parts show those that need none."""
    picture = drawn_face(480, 640, centre=(170.0, 130.0), size=10.0)
    picture[:, 320:] = drawn_face(480, 640, centre=(500.0, 300.0), size=9.0)[:, 320:]
    whole, parts = MeshLandmarkDetector(tiles=1)(picture), MeshLandmarkDetector()(picture)
    assert len(whole) == 1
    assert sorted(round(face.points[:, 0].mean() / 10) for face in parts) == [17, 50]


def test_a_region_and_its_picture():
    """A ramp of grey, sampled in a square that is turned by atan(3 / 4) and has twice the size of the result."""
    ramp = np.repeat((np.arange(200)[None] + np.zeros((150, 1)))[..., None], 3, axis=2).astype(np.uint8)
    region = Region(100.0, 70.0, 64.0, math.atan2(3, 4))
    square = cut_out(ramp, region, 32)
    corners = np.array([[0.5, 0.5], [31.5, 0.5], [0.5, 31.5], [31.5, 31.5]]) / 32  # middles of the corner pixels
    expected = region.to_picture(corners)
    assert np.abs(expected[0] - (100 + 62 * (-0.4 + 0.3), 70 + 62 * (-0.3 - 0.4))).max() < 1e-9
    assert np.abs(square[[0, 0, 31, 31], [0, 31, 0, 31], 0] - expected[:, 0]).max() <= 1.0
    outside = cut_out(ramp, Region(-500.0, 70.0, 64.0, 0.3), 32)
    assert outside.shape == (32, 32, 3) and not outside.any()
    assert cut_out(ramp, Region(0.0, 0.0, 64.0, 0.0), 32)[:15].max() == 0  # above the picture


def test_a_square_is_sampled_as_by_hand():
    """Bilinearly, between the middles of four pixels, each of which is 1.25 pixels of the frame from the next."""
    frame = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    region = Region(44.3, 33.8, 40.0, 0.4)
    middles = (np.stack(np.meshgrid(np.arange(32), np.arange(32)), axis=-1).reshape(-1, 2) + 0.5) / 32
    places = region.to_picture(middles)
    x, y = np.floor(places).astype(int).T
    right, down = (places - np.floor(places)).T[..., None]
    above = frame[y, x] * (1 - right) + frame[y, x + 1] * right
    below = frame[y + 1, x] * (1 - right) + frame[y + 1, x + 1] * right
    expected = (above * (1 - down) + below * down).reshape(32, 32, 3)
    square = cut_out(frame, region, 32)
    assert square.dtype == np.float32 and np.abs(square - expected).max() < 0.01
    frame.flags.writeable = False
    assert np.array_equal(cut_out(frame, region, 32), square)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(45, 60), (1200, 900), (3, 700), (128, 128)])
def test_a_picture_fills_the_longer_side_of_what_a_detector_sees(shape):
    """A ramp from left to right stays one, whatever the size, and below or beside it there is black."""
    height, width = shape
    ramp = np.linspace(0, 200, width).astype(np.uint8)[None, :, None] + np.zeros((height, 1, 3), np.uint8)
    ramp.flags.writeable = False
    (picture,), (scale,) = face_networks_avsr._letterboxed([ramp], "short")
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    sides = [min(128, 16 * math.ceil((length + 8) / 16)) for length in (rows, columns)]
    assert scale == 128 / max(shape) and picture.shape == (*sides, 3) and picture.dtype == np.uint8
    assert not picture[rows:].any() and not picture[:, columns:].any()
    expected = ((np.arange(columns) + 0.5) / scale - 0.5) * 200 / (width - 1)
    assert np.abs(picture[:rows, 1 : columns - 1, 0] - expected[1:-1]).max() < 2.5


def test_the_region_of_the_landmarks_is_about_that_of_the_mesh(face):
    whole, rough = region_of_mesh(face.mesh), region_of_landmarks(face.points)
    assert math.hypot(whole.x - rough.x, whole.y - rough.y) < 0.05 * whole.side
    assert abs(rough.side / whole.side - 1) < 0.1 and rough.angle == pytest.approx(whole.angle)


def test_following_finds_the_face_again_or_says_that_it_is_gone(detector, face):
    same = detector.follow(drawn_face(), face)
    assert same.seen and np.abs(same.points - face.points).mean() < 1.5
    moved = detector.follow(drawn_face(centre=(190.0, 140.0)), face)
    assert np.abs((moved.points - same.points).mean(axis=0) - (10, -4)).max() < 1.5
    by_landmarks = detector.follow(drawn_face(), replace(face, mesh=None))
    assert np.abs(by_landmarks.points - same.points).mean() < 2.0
    assert not detector.follow(WALL, face).seen


def test_of_small_moves_half_counts_and_of_large_ones_nearly_all(face):
    """Moves of 0.001, 0.01 and 0.2 of the eyes' distance; the lips are where they were found."""
    eyes = float(np.linalg.norm((face.mesh[263] - face.mesh[33])[:2]))
    lips = np.zeros(468, bool)
    lips[LANDMARKS_OF_MESH[48:]] = True
    for move, share in ((0.001, 1.06 / 2.06), (0.01, 1.6 / 2.6), (0.2, 13 / 14)):
        found = replace(face, mesh=face.mesh + np.float32([move * eyes, 0, 0]))
        calm = steadied(found, face.mesh)
        assert calm.mesh[~lips] - face.mesh[~lips] == pytest.approx(
            np.tile([share * move * eyes, 0, 0], (448, 1)), abs=1e-3
        )
        assert np.array_equal(calm.mesh[lips], found.mesh[lips])
        assert np.array_equal(calm.points, calm.mesh[LANDMARKS_OF_MESH, :2]) and calm.points.dtype == np.float32
        assert calm.box == box_of_points(calm.points) and calm.score == face.score


def test_a_grey_picture_is_a_picture(detector):
    (face,) = detector(np.ascontiguousarray(drawn_face()[..., 1]))
    assert np.abs(face.points[48:].mean(axis=0) - place(0, 0.72)).max() < 12


def test_confirming(detector, face):
    assert detector.confirm(drawn_face(), face)
    assert not detector.confirm(WALL, face)
    assert not detector.confirm(drawn_face(), face.moved(-200.0, -200.0))
    assert not detector.confirm(drawn_face(), face.moved(90.0, 0.0))


@pytest.mark.slow
def test_appearance_does_not_depend_on_the_light(detector):
    """Darker, and under reddish light: about the same description; another face and wall: another one."""
    picture = drawn_face().astype(np.float64)
    darker, redder = picture * 0.7, picture * (1.0, 0.85, 0.8)
    other = drawn_face(skin=(140, 95, 70), look=0.1, centre=(170.0, 150.0)).astype(np.float64)[:, :, ::-1]
    plain, dark, red, another = (
        detector.describe(one.astype(np.uint8), detector(drawn_face())[0]) for one in (picture, darker, redder, other)
    )
    assert plain.shape == (120,) and plain.dtype == np.float32
    assert np.linalg.norm(plain - dark) < 0.15 and np.linalg.norm(plain - red) < 0.15
    assert np.linalg.norm(plain - another) > 0.3
    assert np.linalg.norm(detector.describe(np.zeros_like(WALL), detector(drawn_face())[0])) < 0.01


@pytest.mark.shared
@pytest.mark.slow
def test_speakers_are_told_apart(detector, shared):
    """Five speakers of GRID, five frames of each: the share of pairs on the wrong side of 0.55."""
    looks = []
    for path in sorted((shared / "data" / "grid_speakers").glob("*.mp4")):
        frames = list(read_frames(path))[::18]
        looks.append([detector.describe(frame, detector(frame)[0]) for frame in frames])
    same = [np.linalg.norm(a - b) for own in looks for i, a in enumerate(own) for b in own[:i]]
    others = [np.linalg.norm(a - b) for i, own in enumerate(looks) for more in looks[:i] for a in own for b in more]
    assert np.mean(np.array(same) < 0.55) > 0.95 and np.mean(np.array(others) > 0.55) > 0.95


def test_a_face_that_leaves_is_lost_when_it_is_looked_at():
    frames = [drawn_face(), drawn_face(), WALL, WALL, drawn_face()]
    tracker = FaceTracker(MeshLandmarkDetector(follow_every=1), detect_every=100)
    assert [tracker.update(frame) is not None for frame in frames] == [True, True, False, False, True]
    rarely = FaceTracker(MeshLandmarkDetector(follow_every=3), detect_every=100)  # at rest: in frames 1, 4, 5, ...
    seen = [(rarely.update(frame) is not None, rarely.passed_over) for frame in [*frames[:2], *[WALL] * 4]]
    assert seen == [(True, False)] * 2 + [(True, True)] * 2 + [(False, False)] * 2


def test_a_face_is_moved_with_all_of_it(face):
    moved = face.moved(3.0, -2.0)
    assert np.allclose(moved.points - face.points, (3, -2), atol=1e-4)
    assert np.allclose(moved.mesh - face.mesh, (3, -2, 0), atol=1e-4)
    assert np.allclose(np.subtract(moved.box, face.box), (3, -2, 3, -2))


def test_no_face_in_noise_and_in_almost_nothing(detector):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    assert detector(noise) == [] == detector(noise[:1, :1]) == detector(WALL)


def test_what_is_refused():
    for frame in (np.zeros((10, 10, 3), np.float32), np.zeros((10, 10, 4), np.uint8), np.zeros(5, np.uint8)):
        with pytest.raises(ValueError, match="frame must be"):
            MeshLandmarkDetector()(frame)
    for arguments in (
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"tiles": 0},
        {"tiles": True},
        {"tiles": 1.5},
        {"follow_every": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            MeshLandmarkDetector(**arguments)


def test_detectors_by_name():
    assert type(make_detector("mesh")) is MeshLandmarkDetector and type(make_detector("dlib")) is DlibLandmarkDetector
    require_detector("mesh")
    for call in (make_detector, require_detector):
        with pytest.raises(ValueError, match="landmarks must be one of 'mesh', 'dlib', got 'hog'"):
            call("hog")

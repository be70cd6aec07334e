"""The geometry of the mouth region, against pictures and points whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from lookhear.processing.avsr.mouth_cropping_avsr import (
    MEAN_FACE,
    MOUTH,
    STABLE_POINTS,
    GreyPatch,
    apply_transforms,
    crop_mouths,
    grey_patch,
    interpolate_missing,
    invert_transforms,
    roi_transforms,
    similarity_transforms,
    smooth,
)

MIRROR = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46]
MIRROR += [39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]


def faces(count: int = 1, eyes: float = 60.0, angle: float = 0.0, centre=(150.0, 120.0)) -> np.ndarray:
    """(count, 68, 2) copies of the mean face, turned in the picture by `angle` degrees."""
    a = np.radians(angle)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return np.repeat((MEAN_FACE * eyes @ turn.T + centre)[None], count, axis=0).astype(np.float32)


def scene(points: np.ndarray, height: int = 260, width: int = 320) -> np.ndarray:
    """A smooth grey picture that hangs on the face: the same pattern wherever the face is and however large."""
    back = invert_transforms(similarity_transforms(points[None].astype(np.float64), MEAN_FACE))
    y, x = np.mgrid[:height, :width].astype(np.float64)
    there = similarity_transforms(points[None].astype(np.float64), MEAN_FACE)[0]
    u = there[0, 0] * x + there[0, 1] * y + there[0, 2]
    v = there[1, 0] * x + there[1, 1] * y + there[1, 2]
    assert back.shape == (1, 2, 3)
    return np.round(127 + 60 * np.sin(9 * u) * np.cos(7 * v) + 60 * np.sin(5 * u - 4 * v)).astype(np.uint8)


def test_mean_face_is_normalised_and_symmetric():
    assert MEAN_FACE.shape == (68, 2)
    assert np.abs(MEAN_FACE[list(STABLE_POINTS)].mean(axis=0)).max() < 1e-3
    assert np.allclose(MEAN_FACE[45] - MEAN_FACE[36], (1, 0), atol=1e-3)
    assert np.allclose((MEAN_FACE * (-1, 1))[MIRROR], MEAN_FACE, atol=1e-4)
    assert MEAN_FACE[8, 1] > MEAN_FACE[57, 1] > MEAN_FACE[51, 1] > MEAN_FACE[33, 1] > MEAN_FACE[27, 1]  # y downwards


def test_gaps_are_filled_linearly_and_ends_repeat():
    points = np.arange(6, dtype=np.float32)[:, None, None] * np.ones((6, 68, 2), np.float32)
    holes = points.copy()
    holes[[0, 2, 3, 5]] = np.nan
    filled = interpolate_missing(holes)
    assert np.allclose(filled[:, 0, 0], [1, 1, 2, 3, 4, 4])
    assert np.isnan(holes[0]).all()  # the input is left alone
    assert np.array_equal(interpolate_missing(points[:1]), points[:1])
    with pytest.raises(ValueError, match="no frame with landmarks"):
        interpolate_missing(np.full((3, 68, 2), np.nan))


@pytest.mark.parametrize("length", [1, 2, 5, 11, 12, 13, 100])
def test_smoothing_any_length_keeps_straight_motion(length):
    time = np.arange(length, dtype=np.float64)
    line = np.stack([3 * time + 5, -2 * time], axis=-1)[:, None] * np.ones((1, 68, 1))
    assert np.allclose(smooth(line, 12), line, atol=1e-9)


def test_smoothing_inside_a_clip_is_the_moving_average():
    noise = np.random.default_rng(0).normal(size=(50, 68, 2))
    odd = smooth(noise, 11)
    expected = np.stack([noise[i - 5 : i + 6].mean(axis=0) for i in range(5, 45)])
    assert np.allclose(odd[5:45], expected)
    assert smooth(noise, 12)[10:40].std() < 0.4 and np.allclose(smooth(noise, 1), noise)
    assert smooth(noise[:0]).shape == (0, 68, 2)
    with pytest.raises(ValueError, match="window"):
        smooth(noise, 0)


def test_similarity_is_recovered():
    points = np.concatenate([faces(eyes=80, angle=20), faces(eyes=40, angle=-35, centre=(10, 300))])
    transforms = similarity_transforms(points, MEAN_FACE)
    assert np.allclose(apply_transforms(transforms, points), MEAN_FACE, atol=1e-3)
    assert np.allclose(
        apply_transforms(invert_transforms(transforms), MEAN_FACE[None].repeat(2, 0)), points, atol=1e-2
    )


def test_a_moving_mouth_does_not_move_the_alignment():
    still, talking = faces(), faces()
    talking[:, 48:] += (0, 9)
    talking[:, :17] += (0, 12)
    assert np.array_equal(similarity_transforms(still, MEAN_FACE), similarity_transforms(talking, MEAN_FACE))


@pytest.mark.parametrize("roi_size, mouth_width", [(64, 36.0), (120, 60.0)])
def test_the_mouth_is_in_the_middle_at_the_right_size(roi_size, mouth_width):
    points = faces(eyes=73, angle=12)
    inside = apply_transforms(roi_transforms(points, roi_size, mouth_width), points)[0]
    assert np.allclose(inside[MOUTH].mean(axis=0), (roi_size - 1) / 2, atol=0.01)
    assert np.linalg.norm(inside[54] - inside[48]) == pytest.approx(mouth_width, rel=1e-3)
    assert inside[54, 1] == pytest.approx(inside[48, 1], abs=0.01)  # turned upright


def test_a_low_mouth_is_in_the_middle_too():
    points = faces()
    points[:, 48:] += (0, 6)
    inside = apply_transforms(roi_transforms(points, 64, 36.0), points)[0]
    assert inside[MOUTH].mean(axis=0)[1] == pytest.approx(31.5, abs=0.01)


def test_crops_do_not_depend_on_place_size_and_angle():
    still = faces(eyes=60)
    expected = crop_mouths([scene(still[0])], roi_transforms(still, 64, 36.0), 64)[0].astype(int)
    assert expected.std() > 20
    for arguments in ({"centre": (120, 100)}, {"angle": 15}, {"eyes": 90}, {"eyes": 45, "angle": -25}):
        points = faces(**{"eyes": 60, **arguments})
        crop = crop_mouths([scene(points[0])], roi_transforms(points, 64, 36.0), 64)[0]
        assert np.abs(crop - expected).mean() < 3.0


def test_one_warp_for_a_clip_equals_one_for_each_frame():
    points = np.concatenate([faces(centre=(140 + i, 120), angle=2 * i) for i in range(5)])
    pictures = [scene(p, 250 + i, 310) for i, p in enumerate(points)]
    transforms = roi_transforms(points, 48, 25.0)
    together = crop_mouths(pictures, transforms, 48)
    single = np.concatenate([crop_mouths([p], t[None], 48) for p, t in zip(pictures, transforms, strict=True)])
    assert together.shape == (5, 48, 48) and together.dtype == np.uint8
    assert np.abs(together.astype(int) - single).max() <= 1


def test_a_patch_is_as_good_as_the_frame():
    points = faces(eyes=90)
    picture = scene(points[0], 300, 400)
    transforms = roi_transforms(points, 64, 36.0)
    x, y = points[0, MOUTH].mean(axis=0)
    whole = crop_mouths([picture], transforms, 64).astype(int)
    part = crop_mouths([grey_patch(picture, (x - 100.5, y - 99.2, x + 100, y + 100))], transforms, 64)
    assert np.abs(part - whole).max() <= 1
    reduced = crop_mouths([grey_patch(picture, (x - 101, y - 99, x + 100, y + 100), step=2)], transforms, 64)
    assert np.abs(reduced - whole).mean() < 4.0


def test_fine_patterns_of_large_faces_do_not_alias():
    """A checkerboard of single pixels is grey from afar."""
    board = (np.indices((900, 900)).sum(axis=0) % 2 * 255).astype(np.uint8)
    points = faces(eyes=400, centre=(450, 300))
    crop = crop_mouths([grey_patch(board, None, step=6)], roi_transforms(points, 64, 36.0), 64)
    assert np.abs(crop.astype(int) - 127).max() <= 2


def test_outside_of_the_picture_the_border_is_repeated():
    picture = np.full((100, 100), 200, np.uint8)
    points = faces(centre=(95.0, 95.0))
    assert (crop_mouths([picture], roi_transforms(points, 64, 36.0), 64) == 200).all()
    assert (crop_mouths([np.full((1, 1), 7, np.uint8)], roi_transforms(points, 64, 36.0), 64) == 7).all()


def test_grey_patches():
    frame = np.zeros((10, 20, 3), np.uint8)
    frame[..., 1] = 100
    patch = grey_patch(frame, (-5, 2.5, 7.2, 50), step=1)
    assert (patch.left, patch.top) == (0, 2) and patch.pixels.shape == (8, 8)
    assert (patch.pixels == 59).all()  # 0.587 * 100
    assert grey_patch(frame, (100, 100, 200, 200)).pixels.shape == (1, 1)
    assert grey_patch(frame, None, step=4).pixels.shape == (3, 5)


def test_frames_and_transforms_must_match():
    with pytest.raises(ValueError, match="1 frames but 2 transforms"):
        crop_mouths([GreyPatch(np.zeros((5, 5), np.uint8))], roi_transforms(faces(2), 64, 36.0), 64)
    assert crop_mouths([], np.zeros((0, 2, 3)), 64).shape == (0, 64, 64)

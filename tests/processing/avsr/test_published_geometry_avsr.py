"""The mouth region of auto_avsr, VSR-ML and USR 2.0: its smoothing, its place, and what is outside of the picture."""

import numpy as np
import pytest

from lookhear.processing.avsr import MouthRoiImageProcessor
from lookhear.processing.avsr.mouth_cropping_avsr import (
    AUTO_AVSR_FACE,
    crop_mouths,
    grey_patch,
    roi_transforms,
    smooth_around,
    window_corners,
)


def test_smoothing_is_the_mean_shape_around():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(17, 5, 2))
    found = smooth_around(points, 12)
    for t in range(17):
        m = min(6, t, 16 - t)
        mean = points[t - m : t + m + 1].mean(axis=0)
        assert np.allclose(found[t], mean - mean.mean(axis=0) + points[t].mean(axis=0), atol=1e-12)


def test_a_face_in_its_mean_place_is_cut_out_of_a_picture_of_256():
    """The mean face itself: no rotation, no scale; the window is round(centre - 48) in both directions."""
    transform = roi_transforms(AUTO_AVSR_FACE[None], 96, 45.0, "auto_avsr")[0]
    centre = AUTO_AVSR_FACE[48:68].mean(axis=0)
    assert np.allclose(transform[:, :2], np.eye(2), atol=1e-9)
    assert np.allclose(transform[:, 2], -np.round(centre - 48), atol=1e-9)
    assert window_corners(np.array([[30.2, 240.7]]), 96).tolist() == [[0, 160]]


@pytest.mark.parametrize("colour", [False, True])
def test_outside_of_the_picture_is_black(colour):
    frame = np.full((40, 40, 3), 200, np.uint8)
    shift = np.array([[[1.0, 0, 20], [0, 1.0, 0]]])  # the picture begins in column 20
    crop = crop_mouths([grey_patch(frame, colour=colour)], shift, 48, black=True)[0]
    assert crop[:40, 20:].min() == crop[:40, 20:].max() == 200 and not crop[:, :20].any() and not crop[40:].any()


def test_grey_is_taken_before_or_after_the_warp():
    """Half-way between a red and a blue pixel; each colour is rounded first where grey comes after."""
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[:, 0, 0], frame[:, 1, 2] = 255, 101
    half = np.array([[[1.0, 0, -0.5], [0, 1.0, 0]]])
    before, after = (crop_mouths([grey_patch(frame, colour=colour)], half, 2)[0, 0, 0] for colour in (False, True))
    assert before == round((round(255 * 0.299) + round(101 * 0.114)) / 2)
    assert after in (round(128 * 0.299 + 50 * 0.114), round(128 * 0.299 + 51 * 0.114))


def test_presets_have_the_published_constants(tmp_path):
    processor = MouthRoiImageProcessor.auto_avsr()
    mouths = np.full((2, 96, 96), 130, np.uint8)
    values = processor(mouths)["pixel_values_videos"]
    assert values.shape == (1, 2, 1, 88, 88)
    assert values[0, 0, 0, 0, 0].item() == pytest.approx((130 / 255 - 0.421) / 0.165, abs=1e-5)
    processor.save_pretrained(tmp_path)
    again = MouthRoiImageProcessor.from_pretrained(tmp_path)
    assert again.geometry == "auto_avsr" and again.grey_after_crop and again.roi_size == 96
    assert not MouthRoiImageProcessor.vsr_ml().grey_after_crop
    with pytest.raises(ValueError, match="geometry must be one of"):
        MouthRoiImageProcessor(geometry="round")
    with pytest.raises(ValueError, match="mouth_width must be 45"):
        MouthRoiImageProcessor(geometry="auto_avsr")

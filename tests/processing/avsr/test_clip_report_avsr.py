"""The report on a clip: numbers against cases whose answer is known, and the sentences that follow from them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lookhear.processing.avsr.clip_report_avsr import (
    ClipReport,
    estimate_yaw,
    laplacian_variance,
    make_report,
    measure_blur,
    missing_runs,
)
from lookhear.processing.avsr.mouth_roi_avsr import MEAN_FACE

RNG = np.random.default_rng(0)
SHARP = RNG.integers(60, 200, (30, 64, 64), dtype=np.uint8)


def report(**changes) -> ClipReport:
    """The report on 30 frames of a good clip, with changes."""
    points = np.repeat((MEAN_FACE * 60 + 150)[None], 30, axis=0)
    arguments = {
        "mouths": SHARP,
        "points": points,
        "found": np.ones(30, bool),
        "outside": np.zeros(30, bool),
        "mouth_width": 36.0,
        "face_sizes": np.full(30, 120.0),
        "counts": [1, 1, 1],
        "switches": 0,
        "fps_in": 25.0,
        "fps_out": 25.0,
    }
    return make_report(**(arguments | changes))


def test_a_good_clip_has_no_warnings():
    good = report()
    assert good.warnings == []
    assert (good.frames, good.frames_with_face, good.faces_max, good.face_size) == (30, 1.0, 1, 120.0)
    assert good.interpolated_runs == [] and good.yaw == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"found": np.zeros(30, bool)}, "no face was found"),
        ({"found": np.arange(30) >= 15}, "no face from 0.0 to 0.6 s"),
        ({"found": np.arange(30) % 2 == 0}, "50% of the frames"),
        ({"counts": [1, 2, 3]}, "3 faces in view"),
        ({"switches": 2}, "found elsewhere 2 times"),
        ({"face_sizes": np.full(30, 40.0)}, "small (40 pixels"),
        ({"outside": np.ones(30, bool)}, "outside of the picture in 100%"),
        ({"mouths": np.full((30, 64, 64), 128, np.uint8)}, "blurred"),
        ({"mouths": SHARP // 16}, "very dark"),
        ({"fps_in": 12.5}, "12.5 frames a second"),
    ],
)
def test_what_is_wrong_is_said(changes, words):
    said = report(**changes).warnings
    assert words in said[-1] and len(said) == (2 if "no face from" in words else 1), said


def test_a_turned_head_is_said_and_measured():
    for degrees in (-50, -20, 0, 30, 50):
        turned = np.array(MEAN_FACE)
        turned[:, 0] *= math.cos(math.radians(degrees))  # eyes come together, and the nose, which stands out, moves
        turned[30, 0] += 0.5 * math.sin(math.radians(degrees))
        points = np.repeat((turned * 60 + 150)[None], 30, axis=0)
        result = report(points=points)
        assert result.yaw == pytest.approx(degrees, abs=1.0) and result.yaw_max == pytest.approx(abs(degrees), abs=1.0)
        assert bool(result.warnings) == (abs(degrees) > 35)


def test_yaw_ignores_the_roll_of_the_head():
    a = math.radians(25)
    rolled = MEAN_FACE @ np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
    assert estimate_yaw(rolled[None])[0] == pytest.approx(0.0, abs=0.5)


def test_runs():
    found = np.array([0, 0, 1, 1, 0, 1, 0], bool)
    assert missing_runs(found, 25.0) == [(0.0, 0.08), (0.16, 0.2), (0.24, 0.28)]
    assert missing_runs(np.ones(3, bool), 25.0) == []


def test_laplacian_variance_of_known_pictures():
    ramp = np.tile(np.arange(20, dtype=np.uint8) * 3, (20, 1))
    spot = np.zeros((5, 5), np.uint8)
    spot[2, 2] = 1  # Laplacian -4 in the middle, 1 beside: of 9 values the mean is 0 and the variance 20 / 9
    assert laplacian_variance(ramp[None])[0] == 0
    assert laplacian_variance(spot[None])[0] == pytest.approx(20 / 9)
    assert laplacian_variance(np.zeros((1, 2, 2), np.uint8))[0] == 0


def test_blur_is_measured_at_one_size():
    """A crop and the same crop at twice the size are equally sharp."""
    y, x = np.mgrid[:128, :128] / 128
    waves = 127 + 100 * np.sin(60 * x) * np.cos(40 * y)
    double, single = waves.astype(np.uint8)[None], waves[::2, ::2].astype(np.uint8)[None]
    assert measure_blur(double, 72.0) == pytest.approx(measure_blur(single, 36.0), rel=0.35)
    assert measure_blur(double, 36.0) < 0.2 * measure_blur(single, 36.0)


def test_a_clip_without_frames():
    empty = report(mouths=SHARP[:0], points=np.zeros((0, 68, 2)), found=np.zeros(0, bool), outside=np.zeros(0, bool))
    assert empty.warnings == ["there are no pictures"]


@pytest.mark.parametrize(
    "sound, level, words",
    [
        (0.1 * np.sqrt(2) * np.sin(np.arange(16000)), -20.0, None),
        (0.002 * np.sin(np.arange(16000)), -57.0, "faint"),
        (np.zeros(16000), -120.0, "silent"),
        (np.zeros(0), -120.0, "silent"),
        (np.clip(3 * np.sin(np.arange(16000) / 9), -1, 1), -0.7, "clipped"),
        (None, None, "no sound"),
    ],
)
def test_sound(sound, level, words):
    result = ClipReport()
    result.add_audio(sound)
    assert result.audio_level_dbfs == (None if level is None else pytest.approx(level, abs=0.2))
    assert (words is None and not result.warnings) or words in result.warnings[0]


def test_the_report_is_json_and_says_nothing_twice():
    result = report(found=np.arange(30) >= 15)
    result.warn(["a", "a"])
    result.warn(["a", "b"])
    assert result.warnings[-2:] == ["a", "b"]
    back = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert back == result.to_dict() and back["interpolated_runs"] == [[0.0, 0.6]]

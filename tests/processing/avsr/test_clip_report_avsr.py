"""The report on a clip: numbers against cases whose answer is known, and the sentences that follow from them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lookhear.processing.avsr import clip_report_avsr
from lookhear.processing.avsr.clip_report_avsr import (
    ClipReport,
    ReportBuilder,
    estimate_yaw,
    laplacian_variance,
    lip_motion,
    lip_openings,
    lip_widths,
    measure_blur,
)
from lookhear.processing.avsr.mouth_cropping_avsr import MEAN_FACE

RNG = np.random.default_rng(0)
SHARP = RNG.integers(60, 200, (30, 64, 64), dtype=np.uint8)


FACE = MEAN_FACE * 60 + 150


def report(counts=(1, 1, 1), switches=0, fps_in=25.0, blocks=1, **changes) -> ClipReport:
    """The report on 30 frames of a good clip, with changes, in that many blocks."""
    frames = {
        "mouths": SHARP,
        "points": np.repeat(FACE[None], 30, axis=0),
        "found": np.ones(30, bool),
        "outside": np.zeros(30, bool),
        "cuts": np.zeros(30, bool),
    } | changes
    builder = ReportBuilder(mouth_width=36.0, fps=25.0)
    for part in zip(*(np.array_split(values, blocks) for values in frames.values())):
        builder.add(**dict(zip(frames, part)))
    return builder.finish(counts, switches, fps_in)


def test_a_good_clip_has_no_warnings():
    good = report()
    assert good.warnings == []
    assert (good.frames, good.frames_with_face, good.faces_max, good.face_size) == (30, 1.0, 1, 109.8)
    assert good.interpolated_runs == [] and good.yaw == pytest.approx(0, abs=0.5)


def test_lips_that_open_and_close_are_measured():
    """A mouth of 36 pixels' width, and one of half of it: opened by 0, 9, 18 pixels in turn, of 25 frames a second."""
    lips = np.zeros((30, 20, 2))
    lips[:, 6, 0] = np.where(np.arange(30) < 20, 36.0, 18.0)  # the other corner
    lips[:, [17, 18, 19], 1] = np.array([0.0, 9.0, 18.0])[np.arange(30) % 3, None]
    found, cuts = np.arange(30) < 27, np.arange(30) == 12
    measured = report(lips=lips, found=found, cuts=cuts)
    assert (measured.lip_opening, measured.lip_width) == (0.25, 1.0)
    # of 26 steps 18 are of 9 pixels and 8 of 18, but for the one at the cut, which is of 18
    assert measured.lip_motion == pytest.approx((18 * 0.25 + 7 * 0.5) / 25 * 25, abs=1e-3)
    assert report(lips=lips, found=found, cuts=cuts, blocks=4) == measured
    assert report().lip_motion is None


def lips_with(openings, widths=40.0) -> np.ndarray:
    """(frames, 20, 2) lips that are so many pixels open and wide."""
    lips = np.zeros((len(openings), 20, 2), np.float32)
    lips[:, [17, 18, 19], 1] = np.asarray(openings)[:, None]
    lips[:, 6, 0] = widths
    return lips


def test_opening_and_width_of_lips():
    lips = lips_with([0.0, 10.0, 20.0], [40.0, 20.0, 30.0])
    assert lip_openings(lips, 40.0).tolist() == [0.0, 0.25, 0.5]
    assert lip_widths(lips, 40.0).tolist() == [1.0, 0.5, 0.75]


def test_the_motion_of_lips_is_how_far_they_vary_within_a_second():
    """At ten frames a second, of which the fiftieth and the next are open, or narrow."""
    openings, widths = np.zeros(100), np.full(100, 40.0)
    openings[50:52], widths[50:52] = 20.0, 20.0
    motion = lip_motion(lips_with(openings), 40.0, 10.0)
    by_hand = [np.std(openings[max(0, frame - 10) : frame + 11] / 40) for frame in range(100)]
    assert motion == pytest.approx(by_hand, abs=1e-9)
    assert np.flatnonzero(motion > 1e-6).tolist() == list(range(40, 62))
    assert lip_motion(lips_with(np.zeros(100), widths), 40.0, 10.0) == pytest.approx(by_hand, abs=1e-9)
    lips = lips_with(openings)
    lips[::2] = np.nan  # every second frame is unknown
    motion = lip_motion(lips, 40.0, 10.0)
    assert np.isnan(motion[::2]).all() and np.flatnonzero(motion[1::2] > 1e-6).tolist() == list(range(20, 31))
    assert lip_motion(lips[:0], 40.0, 10.0).shape == (0,)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"found": np.zeros(30, bool)}, "no face was found"),
        ({"found": np.arange(30) >= 15}, "no face from 0.0 to 0.6 s"),
        ({"found": np.arange(30) % 2 == 0}, "50% of the frames"),
        ({"counts": [1, 2, 3]}, "3 faces in view"),
        ({"switches": 2}, "found elsewhere 2 times"),
        ({"points": np.repeat((MEAN_FACE * 20 + 150)[None], 30, axis=0)}, "small (37 pixels"),
        ({"cuts": np.arange(30) == 7}, "1 changes of scene"),
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
    found = np.ones(30, bool)
    found[[0, 1, 4, 6, 7, 29]] = False
    for blocks in (1, 4, 30):
        runs = report(found=found, blocks=blocks).interpolated_runs
        assert runs == [(0.0, 0.08), (0.16, 0.2), (0.24, 0.32), (1.16, 1.2)]


def test_blocks_change_nothing_in_the_report():
    points = FACE + RNG.normal(size=(30, 68, 2))
    assert report(points=points, blocks=7) == report(points=points)


def test_the_report_on_a_long_clip_is_small(monkeypatch):
    monkeypatch.setattr(clip_report_avsr, "SAMPLE", 8)
    monkeypatch.setattr(clip_report_avsr, "MAX_RUNS", 3)
    found = np.ones((4, 30), bool)
    found[:, 3], found[2, 3:6] = False, False
    builder = ReportBuilder(mouth_width=36.0, fps=25.0)
    for row in found:
        builder.add(SHARP, np.repeat(FACE[None], 30, axis=0), row, ~row, ~row)
    assert len(builder._crops.items) <= 8
    result = builder.finish([1], 0, 25.0)
    assert (2.52, 2.64) in result.interpolated_runs and len(result.interpolated_runs) == 3
    assert result.frames == 120 and result.blur == pytest.approx(report().blur, rel=0.2)


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
    empty = ReportBuilder(mouth_width=36.0, fps=25.0).finish([], 0, None)
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

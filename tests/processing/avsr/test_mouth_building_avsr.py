"""Mouth crops made on the fly: scenes and faces are kept apart, and nothing piles up while a face is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lookhear.processing.avsr import mouth_cropping_avsr
from lookhear.processing.avsr.face_tracking_avsr import Change, FaceTracker
from lookhear.processing.avsr.landmarks_avsr import Face, box_of_points
from lookhear.processing.avsr.mouth_cropping_avsr import MEAN_FACE, MouthBlock, MouthBuilder, landmark_source
from lookhear.processing.avsr.processing_avsr import MouthRoiImageProcessor

PROCESSOR = MouthRoiImageProcessor(roi_size=24, crop_size=20, mouth_width=12.0)
NAMES = ("mouths", "points", "found", "outside", "cuts", "lips")


def picture(seed: int) -> np.ndarray:
    """(120, 160, 3) uint8: a soft random pattern, the scene of that number."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8)).astype(np.float32)
    y, x = np.linspace(0, 5, 120)[:, None], np.linspace(0, 7, 160)
    j, i = np.minimum(y.astype(int), 4), np.minimum(x.astype(int), 6)
    top = coarse[j, i] * (1 - x + i) + coarse[j, i + 1] * (x - i)
    below = coarse[j + 1, i] * (1 - x + i) + coarse[j + 1, i + 1] * (x - i)
    return np.repeat((top * (1 - y + j) + below * (y - j)).astype(np.uint8)[..., None], 3, axis=2)


def face(x: float, y: float = 60.0, eyes: float = 30.0) -> Face:
    points = (MEAN_FACE * eyes + (x, y)).astype(np.float32)
    return Face(box_of_points(points), points, 1.0)


def built(frames: list[np.ndarray], landmarks) -> MouthBlock:
    """All of a clip's blocks as one."""
    builder = MouthBuilder(PROCESSOR, landmark_source(landmarks, 25.0, 10))
    blocks = list(builder.build(frames))
    return MouthBlock(*(np.concatenate([getattr(block, name) for block in blocks]) for name in NAMES))


def test_scenes_are_cropped_as_if_they_were_clips_of_their_own():
    """Landmarks at the seam are missing on both sides, and the head is elsewhere after the cut."""
    first, second = [picture(1)] * 40, [picture(2)] * 45
    points = np.stack([face(60 + 0.2 * i).points for i in range(40)] + [face(100 - 0.3 * i).points for i in range(45)])
    points[37:43] = np.nan
    together = built(first + second, points)
    apart = built(first, points[:40]), built(second, points[40:])
    assert np.flatnonzero(together.cuts).tolist() == [40]
    for name in ("mouths", "points", "found", "outside"):
        assert np.array_equal(getattr(together, name), np.concatenate([getattr(part, name) for part in apart]))
    assert np.allclose(together.points[37:40], points[36]) and np.allclose(together.points[40:43], points[43])


class Walker:
    """A follower of a face that moves by three pixels a frame, and is gone from one frame on."""

    def __init__(self, follow_every: int, gone: int):
        self.follow_every, self.gone, self.now, self.followed = follow_every, gone, -1, []

    def seen(self) -> Face:
        return replace(face(50 + 3.0 * self.now), seen=self.now < self.gone)

    def __call__(self, frame: np.ndarray) -> list[Face]:
        return [self.seen()] if self.now < self.gone else []

    def follow(self, frame: np.ndarray, face: Face) -> Face:
        self.followed.append(self.now)
        return self.seen()

    def confirm(self, frame: np.ndarray, face: Face) -> bool:
        return self.now < self.gone


def walked(count: int, follow_every: int, gone: int = 10**6) -> tuple[Walker, MouthBlock]:
    """A clip of that walker, whose face is looked for in every `follow_every`-th frame."""
    walker = Walker(follow_every, gone)
    builder = MouthBuilder(PROCESSOR, FaceTracker(walker, 10))
    blocks = []
    for walker.now in range(count):
        blocks += builder.add(picture(1))
    blocks += builder.finish()
    return walker, MouthBlock(*(np.concatenate([getattr(block, name) for block in blocks]) for name in NAMES))


def test_points_of_frames_without_a_search_lie_between_those_of_their_neighbours():
    """A head that moves evenly is where it would be if it were looked for in each frame, but for a last odd frame."""
    walker, every_other = walked(33, 2)
    assert walker.followed == [index for index in range(33) if index % 2 == 0 and index]
    _, every_one = walked(33, 1)
    assert every_other.found.all() and np.abs(every_other.points - every_one.points).max() < 1e-3
    assert np.abs(every_other.mouths.astype(int) - every_one.mouths).max() <= 1
    _, third = walked(33, 3)
    assert third.found.all() and np.abs(third.points[:31] - every_one.points[:31]).max() < 1e-3


def test_a_face_that_is_gone_counts_as_lost_from_the_frame_that_was_passed_over():
    _, block = walked(30, 2, gone=15)
    assert np.flatnonzero(~block.found).tolist() == list(range(15, 30))
    assert np.allclose(block.points[15:], block.points[14], atol=1e-3)


def test_lips_are_in_pixels_of_their_crop():
    """The head moves and turns; the mean face's lips stay where the crop has them."""
    turn = np.array([[0.96, -0.28], [0.28, 0.96]])
    points = np.stack([(MEAN_FACE * 30) @ turn + (60 + 0.4 * i, 60) for i in range(40)]).astype(np.float32)
    lips = built([picture(1)] * 40, points).lips
    width = np.linalg.norm(MEAN_FACE[54] - MEAN_FACE[48])
    expected = (MEAN_FACE[48:] - MEAN_FACE[48:].mean(axis=0)) * 12.0 / width + 11.5
    assert lips.shape == (40, 20, 2) and lips.dtype == np.float32
    assert np.abs(lips - expected).max() < 0.05
    assert np.isnan(built([picture(1)] * 5, lambda frame: []).lips).all()


def test_a_flash_leaves_landmarks_connected():
    frames = [picture(1)] * 40
    points = np.stack([face(60 + i).points for i in range(40)])
    points[20:23] = np.nan
    plain = built(frames, points)
    frames[20:23] = [picture(2)] * 3
    flashed = built(frames, points)
    assert not flashed.cuts.any()
    assert np.array_equal(flashed.points, plain.points) and np.allclose(flashed.points[21, 30], face(81).points[30])


def test_another_face_in_the_same_scene_starts_anew():
    here, there = face(30, eyes=15), face(135, eyes=15)
    seen = iter([[here, there]] * 20 + [[there]] * 40)
    block = built([picture(1)] * 60, lambda frame: next(seen))
    (switch,) = np.flatnonzero(block.cuts)
    assert switch == 20 + 25  # the tracker's patience
    assert np.allclose(block.points[:switch], here.points) and np.allclose(block.points[switch:], there.points)
    assert block.found.sum() == 60 - 25


def test_after_a_cut_the_most_prominent_face_is_followed_at_once():
    ours, other, new = face(50), face(120), face(80, eyes=40)
    answers = [[ours, other], [other], [other, new], [other]]
    changes = [Change.NONE, Change.NONE, Change.CUT, Change.NONE]
    tracker = FaceTracker(lambda frame: answers.pop(0), patience=25)
    assert [tracker.update(picture(1), change) for change in changes] == [ours, None, new, None]
    assert tracker.switches == 0


def test_after_a_flash_the_face_from_before_is_followed():
    ours, other = face(50, eyes=40), face(120)
    answers = [[ours, other], [other], [other, ours]]
    tracker = FaceTracker(lambda frame: answers.pop(0))
    assert [tracker.update(picture(1), c) for c in (Change.NONE, Change.CUT, Change.RETURN)] == [ours, other, ours]


@pytest.mark.parametrize("begin, end", [(0, 400), (0, 700), (300, 700), (30, 700), (30, 281), (30, 280), (30, 279)])
def test_a_face_that_is_gone_for_long_is_not_waited_for(begin, end):
    """Frames from `begin` to `end` have no face; the builder never holds more than its patience asks for."""
    points = np.stack([face(60 + 20 * np.sin(i / 50)).points for i in range(700)])
    points[begin:end] = np.nan
    builder = MouthBuilder(PROCESSOR, landmark_source(points, 25.0, 10))
    blocks, most = [], 0
    for frame in [picture(1)] * 700:
        blocks += builder.add(frame)
        most = max(most, len(builder._rows))
    blocks += builder.finish()
    mouths, found = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("mouths", "found"))
    assert most <= mouth_cropping_avsr.PATIENCE + mouth_cropping_avsr.BLOCK + 13
    assert len(mouths) == 700 and np.array_equal(found, np.isfinite(points).all(axis=(1, 2)))
    black, waited_for = ~mouths.any(axis=(1, 2)), 250 if begin else 0
    assert not black[found].any() and not black[begin : min(end, begin + waited_for)].any()
    assert black[begin + 250 : end].all()


def test_no_face_at_all_is_black_and_bounded():
    builder = MouthBuilder(PROCESSOR, landmark_source(lambda frame: [], 25.0, 10))
    blocks = []
    for index in range(900):
        blocks += builder.add(picture(index // 90))  # with cuts
        assert len(builder._rows) <= mouth_cropping_avsr.PATIENCE
    blocks += builder.finish()
    assert sum(len(block.mouths) for block in blocks) == 900
    assert not any(block.mouths.any() or block.found.any() or np.isfinite(block.points).any() for block in blocks)
    assert sum(int(block.cuts.sum()) for block in blocks) == 9

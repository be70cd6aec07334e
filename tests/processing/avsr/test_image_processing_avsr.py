"""`MouthRoiImageProcessor`: from pictures to mouths to tensors."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from lookhear.processing.avsr import mouth_cropping_avsr
from lookhear.processing.avsr.landmarks_avsr import make_detector
from lookhear.processing.avsr.media_avsr import probe_media, read_audio, read_frames
from lookhear.processing.avsr.mouth_cropping_avsr import MEAN_FACE, MOUTH, PrecomputedLandmarks
from lookhear.processing.avsr.processing_avsr import MouthClip, MouthRoiImageProcessor

SMALL = {"roi_size": 64, "crop_size": 56, "mouth_width": 36.0}


@pytest.fixture
def processor() -> MouthRoiImageProcessor:
    return MouthRoiImageProcessor(**SMALL)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """Eileen Collins, (300, 512, 3) uint8."""
    return np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut()[:300])


def landmarks(count: int) -> np.ndarray:
    """(count, 68, 2): the mean face drifting to the right."""
    drift = np.stack([np.arange(count) * 0.5, np.zeros(count)], axis=-1)[:, None]
    return (MEAN_FACE * 60 + (150, 120) + drift).astype(np.float32)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """(count, 240, 320, 3) uint8: a fixed soft pattern that drifts with the landmarks, two frames a pixel."""
    y, x = np.mgrid[:240, :400]
    grey = 127 + 60 * np.sin(x / 9 + seed) * np.cos(y / 7)
    return np.stack([np.repeat(grey[:, 40 - i // 2 : 360 - i // 2, None], 3, axis=2) for i in range(count)]).astype(
        np.uint8
    )


def test_mouths_from_given_landmarks(processor):
    clip = processor.extract(iter(pictures(30)), landmarks(30))
    assert clip.mouths.shape == (30, 64, 64) and clip.mouths.dtype == np.uint8
    assert clip.landmarks.shape == (30, 68, 2) and clip.landmarks.dtype == np.float32
    assert clip.found.all() and clip.found.dtype == bool
    assert clip.report.frames_with_face == 1.0 and clip.report.faces_max == 1
    moved = np.abs(clip.mouths[4:-4:2].astype(int) - clip.mouths[14]).mean()  # the pattern goes along with the face
    assert moved < 4.0 < clip.mouths[14].std()


def test_gaps_are_interpolated_and_reported(processor):
    points = landmarks(30)
    holes = points.copy()
    holes[[0, 1, 10, 11, 29]] = np.nan
    clip = processor.extract(pictures(30), holes)
    assert clip.found.sum() == 25 and not clip.found[[0, 1, 10, 11, 29]].any()
    assert np.allclose(clip.landmarks[10:12], points[10:12], atol=1e-3)
    assert np.allclose(clip.landmarks[0], points[2]) and np.isfinite(clip.landmarks).all()
    assert clip.report.interpolated_runs == [(0.0, 0.08), (0.4, 0.48), (1.16, 1.2)]
    whole = processor.extract(pictures(30), points).mouths.astype(int)
    assert np.abs(clip.mouths[8:14] - whole[8:14]).max() <= 2  # patches of lost frames are large enough


def test_landmarks_and_frames_of_different_number(processor):
    clip = processor.extract(pictures(12), landmarks(10))
    assert len(clip.mouths) == 12 and clip.found.sum() == 10
    assert "landmarks for 10 frames, but 12 frames" in " ".join(clip.report.warnings)


def test_a_landmark_file(processor, tmp_path):
    np.savez(tmp_path / "points.npz", points=landmarks(20))
    clip = processor.extract(pictures(20), PrecomputedLandmarks(tmp_path / "points.npz"))
    assert np.array_equal(clip.mouths, processor.extract(pictures(20), landmarks(20)).mouths)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_clips_of_any_length(processor, count):
    clip = processor.extract(pictures(count) if count else [], landmarks(max(count, 1))[:count])
    assert clip.mouths.shape == (count, 64, 64) and clip.landmarks.shape == (count, 68, 2)
    assert count or "no pictures" in clip.report.warnings[0]


def test_without_a_face_nothing_is_found_and_it_is_said(processor):
    clip = processor.extract(np.zeros((3, 100, 120, 3), np.uint8), fps_in=30.0, warnings=["seen before"])
    assert not clip.found.any() and not clip.mouths.any() and np.isnan(clip.landmarks).all()
    assert clip.report.warnings == ["no face was found: lips cannot be read", "seen before"]
    assert clip.report.fps_in == 30.0
    json.dumps(clip.report.to_dict(), allow_nan=False)


def test_blocks_change_nothing(processor, monkeypatch):
    points = landmarks(60) + np.random.default_rng(0).normal(size=(60, 68, 2)).astype(np.float32)
    points[[20, 21, 22, 40]] = np.nan
    whole = processor.extract(pictures(60), points)
    monkeypatch.setattr(mouth_cropping_avsr, "BLOCK", 5)
    blocks = processor.extract(pictures(60), points)
    assert np.array_equal(whole.landmarks, blocks.landmarks)
    assert np.abs(whole.mouths.astype(int) - blocks.mouths).max() <= 1


def test_memory_does_not_grow_with_the_pictures(processor):
    """Of each further frame only its crop (4 kB) and its points stay, not the picture (307 kB) or a patch (20 kB)."""
    frame, points = np.zeros((320, 320, 3), np.uint8), landmarks(1)

    def peak(count: int) -> int:
        tracemalloc.start()
        processor.extract((frame.copy() for _ in range(count)), np.repeat(points, count, axis=0))
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    assert (peak(800) - peak(400)) / 400 < 20e3


def test_a_mouth_outside_of_the_picture_is_said(processor):
    clip = processor.extract(pictures(5)[:, :140], landmarks(5))
    assert "outside of the picture in 100%" in " ".join(clip.report.warnings)


def test_frames_may_change_their_size(processor):
    frames = [picture[: 240 - i, : 320 - 2 * i] for i, picture in enumerate(pictures(10))]
    assert processor.extract(frames, landmarks(10)).mouths.shape == (10, 64, 64)


def test_wrong_frames_and_landmarks_are_refused(processor):
    for bad in (np.zeros((2, 10, 10, 4), np.uint8), np.zeros((2, 10, 10, 3)), [np.zeros((0, 5, 3), np.uint8)]):
        with pytest.raises(ValueError, match="frame must be"):
            processor.extract(bad, landmarks(2))
    with pytest.raises(ValueError, match="landmarks must be"):
        processor.extract(pictures(2), np.zeros((2, 5, 2)))


@pytest.mark.parametrize("name", ["mesh", "dlib"])
def test_a_detector_and_a_portrait(portrait, name):
    if name == "dlib":
        pytest.importorskip("dlib", reason="needs lookhear[dlib]")
    processor = MouthRoiImageProcessor(**SMALL, landmarks=name)
    frames = [np.roll(portrait, 2 * index, axis=1) for index in range(12)]
    clip = processor.extract(frames)
    assert clip.found.all() and clip.report.faces_max == 1
    assert clip.report.warnings == []
    again = processor.extract(frames, make_detector(name))
    assert np.array_equal(clip.mouths, again.mouths)
    assert np.abs(clip.mouths.astype(int) - clip.mouths[0]).mean() < 12  # the mouth stands still in the crop
    given = processor.extract(frames, clip.landmarks)
    assert np.abs(given.mouths.astype(int) - clip.mouths).max() <= 1


def test_large_pictures_give_the_same_mouths(processor):
    frames, points = pictures(4), landmarks(4)
    expected = processor.extract(frames, points).mouths.astype(int)
    for times in (2, 5):
        large = frames.repeat(times, axis=1).repeat(times, axis=2)
        mouths = processor.extract(large, points * times + (times - 1) / 2).mouths
        assert np.abs(mouths - expected).mean() < 3.0


def test_tensors(processor):
    mouths = np.random.default_rng(0).integers(0, 255, (7, 64, 64), dtype=np.uint8)
    out = processor(mouths)
    values, mask = out["pixel_values_videos"], out["video_attention_mask"]
    assert values.shape == (1, 7, 1, 56, 56) and values.dtype == torch.float32
    assert mask.shape == (1, 7) and mask.dtype == torch.int64 and mask.all()
    expected = (mouths[:, 4:60, 4:60] / 255 - 0.4161) / 0.1688
    assert np.allclose(values[0, :, 0].numpy(), expected, atol=1e-5)


def test_batches_are_padded_with_zeros(processor):
    long, short = np.full((5, 64, 64), 9, np.uint8), np.full((2, 64, 64), 200, np.uint8)
    out = processor([long, short, long[:0]])
    assert out["pixel_values_videos"].shape == (3, 5, 1, 56, 56)
    assert out["video_attention_mask"].sum(dim=1).tolist() == [5, 2, 0]
    assert not out["pixel_values_videos"][1, 2:].any() and not out["pixel_values_videos"][2].any()
    assert torch.equal(out["pixel_values_videos"][1, :2], processor(short)["pixel_values_videos"][0])
    assert processor([long[:0]])["pixel_values_videos"].shape == (1, 1, 1, 56, 56)


def test_every_kind_of_clip(processor, portrait):
    frames = np.stack([portrait] * 3)
    clip = processor.extract(frames)
    expected = processor(clip.mouths)["pixel_values_videos"]
    kinds = [clip, torch.from_numpy(clip.mouths), frames, list(frames), iter(frames), [frames], [clip], [list(frames)]]
    for kind in kinds:
        assert torch.equal(processor(kind)["pixel_values_videos"], expected)
    cropped = clip.mouths[:, 4:60, 4:60]
    assert torch.equal(processor(cropped)["pixel_values_videos"], expected)
    assert isinstance(processor(clip, return_tensors="np")["pixel_values_videos"], np.ndarray)


@pytest.mark.parametrize(
    "videos, words",
    [
        ([], "empty list"),
        (np.zeros((3, 50, 50), np.uint8), "mouths must be"),
        (np.zeros((3, 64, 64), np.float32), "mouths must be"),
        (None, "videos"),
        ("clip.mp4", "videos"),
        ([None], "videos"),
    ],
)
def test_wrong_clips_are_refused(processor, videos, words):
    with pytest.raises(ValueError, match=words):
        processor(videos)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"crop_size": 121}, "crop_size"),
        ({"mouth_width": 0}, "mouth_width"),
        ({"smoothing_window": 0}, "smoothing_window"),
        ({"detect_every": 0}, "detect_every"),
        ({"crop_center": "mean_face"}, "crop_center"),
        ({"fps": -1}, "fps"),
        ({"image_std": 0}, "image_std"),
    ],
)
def test_wrong_settings_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        MouthRoiImageProcessor(**arguments)


def test_save_and_load(tmp_path):
    processor = MouthRoiImageProcessor(**SMALL, smoothing_window=7, image_mean=0.5)
    processor.save_pretrained(tmp_path)
    loaded = MouthRoiImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["mouth_width"] == 36.0
    assert MouthRoiImageProcessor.from_pretrained(tmp_path, roi_size=80).roi_size == 80
    assert "crop_center" not in MouthRoiImageProcessor.from_dict({**SMALL, "crop_center": "mouth"}).to_dict()
    mouths = np.random.default_rng(0).integers(0, 255, (2, 64, 64), dtype=np.uint8)
    assert torch.equal(loaded(mouths)["pixel_values_videos"], processor(mouths)["pixel_values_videos"])


@pytest.mark.shared
@pytest.mark.parametrize("name", ["brbk7n", "lbbc2a", "lwbsza", "sbia1a", "swiz3n"])
def test_speakers_of_grid(shared: Path, processor, name):
    path = shared / "data" / "grid_speakers" / f"{name}.mp4"
    clip = processor.extract(read_frames(path), fps_in=probe_media(path).fps)
    clip.report.add_audio(read_audio(path))
    assert isinstance(clip, MouthClip) and clip.mouths.shape == (75, 64, 64)
    assert clip.found.all() and clip.report.warnings == []
    # Lips are where they should be: the middle rows change more than nose and chin while the face speaks.
    change = clip.mouths.astype(np.float32).std(axis=0)
    assert change[24:44, 16:48].mean() > 1.3 * change[:12].mean()
    jitter = np.abs(np.diff(clip.landmarks[:, MOUTH].mean(axis=1), axis=0)).max()
    assert jitter < 6

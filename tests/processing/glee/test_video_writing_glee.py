"""Videos and animated pictures written picture by picture: their times, odd sizes, and whole files only."""

import numpy as np
import pytest
from PIL import Image

from lookhear.processing.glee.video_reading_glee import open_video
from lookhear.processing.glee.writers_glee import VideoWriter


def test_pictures_come_back_at_their_times(tmp_path, numbered):
    path, times = tmp_path / "new" / "clip.mp4", [0.0, 0.04, 0.5, 0.52, 2.0]
    writer = VideoWriter(path, (47, 63), 25)
    for index, (time, pixels) in enumerate(zip(times, numbered(5, 47, 63))):
        writer.add(index, time, Image.fromarray(pixels) if index % 2 else pixels)
    assert not path.exists()
    writer.close()
    writer.close()
    frames = list(open_video(path).read(lambda message: None))
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=1e-3)
    assert frames[0].image.size == (64, 48)  # H.264 has even sides
    levels = [np.asarray(frame.image)[:47, :63].mean() for frame in frames]
    np.testing.assert_allclose(levels, [20, 25, 30, 35, 40], atol=3)
    assert [each.name for each in path.parent.iterdir()] == ["clip.mp4"]


def test_an_animated_picture(tmp_path, numbered):
    path, times = tmp_path / "new" / "clip.webp", [0.0, 0.04, 0.5, 0.52, 2.0]
    frames = numbered(25, 47, 63)[::5]  # what differs by less than a few levels may become one frame
    frames[3][:20, :30] = (250, 20, 90)
    writer = VideoWriter(path, (47, 63), 25)
    for index, (time, pixels) in enumerate(zip(times, frames)):
        writer.add(index, time, pixels)
    assert not path.exists()
    writer.close()
    with Image.open(path) as picture:
        assert (picture.format, picture.size, picture.n_frames, picture.info["loop"]) == ("WEBP", (63, 47), 5, 0)
        shown = 0
        for index, pixels in enumerate(frames):
            picture.seek(index)
            picture.load()
            assert picture.info["timestamp"] == shown
            shown += picture.info["duration"]
            assert index == 4 or shown == round(1000 * times[index + 1])
            assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - pixels).mean() < 3
    assert [each.name for each in path.parent.iterdir()] == ["clip.webp"]


def test_without_times_frames_follow_at_their_rate(tmp_path, numbered):
    writer = VideoWriter(tmp_path / "clip.mkv", (48, 64), 10)
    for index, pixels in enumerate(numbered(3)):
        writer.add(index, None, pixels)
    writer.close()
    frames = list(open_video(tmp_path / "clip.mkv").read(lambda message: None))
    np.testing.assert_allclose([frame.time for frame in frames], [0, 0.1, 0.2], atol=1e-3)


@pytest.mark.parametrize("ending", [".mp4", ".webp"])
def test_what_is_not_finished_leaves_nothing(tmp_path, numbered, ending):
    for frames in ([], numbered(2)):
        writer = VideoWriter(tmp_path / f"clip{ending}", (48, 64))
        for index, pixels in enumerate(frames):
            writer.add(index, None, pixels)
        writer.discard() if frames else writer.close()
        assert list(tmp_path.iterdir()) == []


def test_bad_files_and_pictures_are_named(tmp_path, numbered):
    with pytest.raises(ValueError, match="clip.doc: the ending must be one of .mp4"):
        VideoWriter(tmp_path / "clip.doc", (48, 64))
    writer = VideoWriter(tmp_path / "clip.mp4", (48, 64))
    with pytest.raises(ValueError, match=r"frame 3 is \(20, 20, 3\), not \(48, 64, 3\)"):
        writer.add(3, None, np.zeros((20, 20, 3), np.uint8))
    writer.discard()


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webp"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, full_disk, ending):
    """With room for nothing, for half of the file, and for all but its last byte; FFmpeg crashed here."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)

    def write(path) -> VideoWriter:
        writer = VideoWriter(path, (48, 64), 25)
        try:
            for index, pixels in enumerate(noise):
                writer.add(index, None, pixels)
            writer.close()
        except ValueError:
            with pytest.raises(ValueError, match="is closed"):  # not into the container that failed
                writer.add(60, None, noise[0])
            writer.close()
            writer.discard()
            raise
        return writer

    write(tmp_path / f"whole{ending}")
    size = (tmp_path / f"whole{ending}").stat().st_size
    for room in (0, size // 2, size - 1):
        (tmp_path / str(room)).mkdir()
        path = tmp_path / str(room) / f"clip{ending}"
        with full_disk(room), pytest.raises(ValueError, match="cannot be written: File too large") as raised:
            write(path)
        assert str(raised.value).startswith(str(path)) and list(path.parent.iterdir()) == []

"""What counts as a video, and pictures that are frames: arrays, lists, generators, folders."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lookhear.processing.glee.image_reading_glee import read_image, read_images
from lookhear.processing.glee.video_reading_glee import is_video_source, open_video

BEGINNING = b"\0\0\0\x20ftypisom" + bytes(8)


def times_and_levels(source, **settings):
    frames = list(open_video(source, **settings).read(lambda message: None))
    return [frame.time for frame in frames], [int(np.asarray(frame.image)[0, 0, 0]) for frame in frames]


def test_videos_are_told_from_images(tmp_path, numbered):
    (tmp_path / "unnamed").write_bytes(BEGINNING)
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "moving.gif")
    for video in (
        "clip.mp4",
        tmp_path / "clip.WEBM",
        "https://example.org/clip.mov?download=1",
        tmp_path / "unnamed",
        tmp_path,
        BEGINNING,
        io.BytesIO(BEGINNING),
        np.zeros((2, 8, 8, 3), np.uint8),
        torch.zeros(2, 3, 8, 8),
        {"video": numbered(2)},
    ):
        assert is_video_source(video), video
    pictures = numbered(2)
    for images in (
        tmp_path / "picture.png",
        tmp_path / "moving.gif",
        "missing.jpg",
        "https://example.org/picture?file=clip.mp4",
        (tmp_path / "picture.png").read_bytes(),
        pictures[0],
        Image.new("RGB", (4, 4)),
        pictures,
        iter(pictures),
        {"image": pictures[0]},
        ["clip.mp4"],
        None,
        "a\0b",
    ):
        assert not is_video_source(images), images


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_a_file_of_several_pictures_is_a_video(tmp_path, ending):
    levels = [20, 120, 220]
    pictures = [Image.new("RGB", (16, 16), (level, level, level)) for level in levels]
    times = {"duration": [100, 200, 100]} if ending != "tif" else {}
    path = tmp_path / f"moving.{ending}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **times)
    opened = io.BytesIO(path.read_bytes())
    for source in (path, str(path), path.read_bytes(), opened):
        assert is_video_source(source)
    assert opened.tell() == 0
    seconds, found = times_and_levels(path)
    assert found == pytest.approx(levels, abs=3)
    assert seconds == ([None] * 3 if ending == "tif" else pytest.approx([0, 0.1, 0.3]))
    assert open_video(path).frames == 3 and times_and_levels(opened)[1] == found
    assert read_image(path).getpixel((0, 0)) == pytest.approx((20, 20, 20), abs=3)
    for read, settings in ((read_image, {"alone": True}), (read_images, {})):
        with pytest.raises(ValueError, match="holds 3 pictures") as raised:
            read(path, **settings)
        assert "\n" not in str(raised.value)


def test_a_file_object_stays_where_it_is():
    file = io.BytesIO(b"12" + BEGINNING)
    file.seek(2)
    assert is_video_source(file) and file.tell() == 2


def test_arrays_lists_and_generators(numbered):
    frames = numbered(4)
    levels = [20, 25, 30, 35]
    assert times_and_levels(np.stack(frames), fps=2) == ([0, 0.5, 1, 1.5], levels)
    assert times_and_levels(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)) == ([None] * 4, levels)
    assert times_and_levels([Image.fromarray(frame) for frame in frames]) == ([None] * 4, levels)
    assert times_and_levels(iter(frames), fps=10)[1] == levels
    assert (open_video(frames, fps=2).frames, open_video(frames, fps=2).duration) == (4, 2)
    assert open_video(iter(frames)).frames is None


def test_frames_are_read_when_it_is_their_turn(numbered):
    taken = []

    def frames():
        for index, frame in enumerate(numbered(5)):
            taken.append(index)
            yield frame

    video = open_video(frames())
    reading = video.read(lambda message: None)
    assert taken == [] and next(reading).index == 0 and taken == [0]


def test_a_folder_in_the_order_of_its_numbers(tmp_path, numbered):
    for number, frame in zip((10, 9, 100, 1), numbered(4)):
        Image.fromarray(frame).save(tmp_path / f"frame {number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    assert times_and_levels(tmp_path)[1] == [35, 25, 20, 30]
    (tmp_path / "frame 010.jpg").write_bytes((tmp_path / "frame 9.png").read_bytes())
    with pytest.raises(ValueError, match="have the same number"):
        open_video(tmp_path)
    (tmp_path / "frame 010.jpg").rename(tmp_path / "cover.jpg")
    with pytest.raises(ValueError, match="'cover.jpg' has no number"):
        open_video(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="folder without pictures"):
        open_video(tmp_path / "empty")


def test_a_damaged_picture_is_named(tmp_path, numbered):
    for number, frame in enumerate(numbered(3)):
        Image.fromarray(frame).save(tmp_path / f"{number}.jpg")
    (tmp_path / "1.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:100])
    reading = open_video(tmp_path).read(lambda message: None)
    assert next(reading).index == 0
    with pytest.raises(ValueError, match=r"^`inputs`: .*1\.jpg") as caught:
        next(reading)
    assert "\n" not in str(caught.value)
    reading = open_video([np.zeros((4, 4, 3), np.uint8), "no picture"]).read(lambda message: None)
    next(reading)
    with pytest.raises(ValueError, match=r"^`inputs`: the video, frame 1 "):
        next(reading)


def test_what_cannot_be_a_video_is_refused():
    for source, fps, reason in (
        (np.zeros((0, 8, 8, 3)), None, "at least one frame"),
        (np.zeros((8, 8, 3)), None, "must be .frames, height, width, 3."),
        ([], None, "has no frames"),
        (Image.new("RGB", (4, 4)), None, "is no video"),
        (7, None, "is no video"),
        ([np.zeros((8, 8, 3))], 0, "`fps` must be a positive number"),
        ([np.zeros((8, 8, 3))], True, "`fps` must be a positive number"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            open_video(source, fps)
        assert "\n" not in str(caught.value)

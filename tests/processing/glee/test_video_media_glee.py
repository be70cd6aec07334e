"""Video files: each frame once, upright and with its time; what is damaged is left out and told."""

import gc
import io
import struct

import av
import numpy as np
import pytest

from lookhear.processing.glee.image_reading_glee import PictureLimits
from lookhear.processing.glee.video_reading_glee import of_one_size, open_video


def read(source, **settings):
    """(frames, warnings) of a video."""
    warnings = []
    video = open_video(source, **settings)
    return list(of_one_size(video.read(warnings.append), video.name, warnings.append)), warnings


def brightness(frame) -> float:
    return float(np.asarray(frame.image).mean())


@pytest.mark.parametrize("codec, ending", [("mpeg4", "mp4"), ("libx264", "mkv"), ("mpeg4", "avi")])
def test_each_frame_once_in_order(tmp_path, write_clip, numbered, codec, ending):
    clip = write_clip(tmp_path / f"clip.{ending}", numbered(30), codec=codec)
    video = open_video(clip)
    assert video.fps == pytest.approx(25) and (video.frames == 30 or ending == "mkv")
    assert video.duration == pytest.approx(1.2, abs=0.05)
    frames, warnings = read(clip)
    assert warnings == [] and [frame.index for frame in frames] == list(range(30))
    np.testing.assert_allclose([brightness(f) for f in frames], [20 + 5 * i for i in range(30)], atol=3)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(30) / 25, atol=2e-3)
    assert {frame.image.size for frame in frames} == {(64, 48)} and frames[0].image.mode == "RGB"


def test_frames_are_not_kept_until_the_next_garbage_collection(tmp_path, write_clip, numbered):
    clip = write_clip(tmp_path / "clip.mp4", numbered(30))
    kinds = av.VideoFrame, av.CodecContext, av.container.InputContainer
    gc.collect()
    gc.disable()
    try:
        before = sum(issubclass(type(thing), kinds) for thing in gc.get_objects())
        video = open_video(clip)
        assert sum(1 for _ in video.read(print)) == 30
        del video
        assert sum(issubclass(type(thing), kinds) for thing in gc.get_objects()) <= before
    finally:
        gc.enable()


def test_every_kind_of_source(tmp_path, write_clip, numbered):
    clip = write_clip(tmp_path / "clip.mp4", numbered(5))
    content = clip.read_bytes()

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    for source in (str(clip), content, memoryview(content), io.BytesIO(content), Pipe(content)):
        assert len(read(source)[0]) == 5


def test_a_variable_frame_rate_keeps_its_times(tmp_path, write_clip, numbered):
    times = [0, 0.04, 0.08, 0.5, 0.52, 2.0]
    frames, _ = read(write_clip(tmp_path / "clip.mp4", numbered(6), times=times))
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=2e-3)


@pytest.mark.parametrize("turn, corner", [(90, (-1, 0)), (-90, (0, -1)), (180, (-1, -1))])
def test_rotation_is_undone(tmp_path, write_clip, turn, corner):
    """What is bright in the upper left corner of the stored picture; 90 degrees are a quarter to the left."""
    pixels = np.full((48, 64, 3), 30, np.uint8)
    pixels[:16, :16] = 220
    frames, _ = read(write_clip(tmp_path / "clip.mp4", [pixels] * 3, turn=turn))
    image = np.asarray(frames[0].image)
    assert image.shape[:2] == ((48, 64) if turn == 180 else (64, 48))
    corners = {(y, x): float(image[y, x].mean()) for y in (0, -1) for x in (0, -1)}
    assert [place for place, value in corners.items() if value > 120] == [corner]


@pytest.mark.parametrize("across, corner", [(-1, (0, -1)), (1, (-1, 0))])
def test_mirroring_is_undone(tmp_path, write_clip, across, corner):
    """Where the upper left corner of the stored picture is seen, of a file whose track is mirrored across or down."""
    pixels = np.full((48, 64, 3), 30, np.uint8)
    pixels[:16, :16] = 220
    content = write_clip(tmp_path / "clip.mp4", [pixels] * 3).read_bytes()
    as_it_is, mirrored = (
        struct.pack(">9i", a << 16, 0, 0, 0, d << 16, 0, 0, 0, 1 << 30) for a, d in ((1, 1), (across, -across))
    )
    of_file, of_track = content.find(as_it_is), content.rfind(as_it_is)  # one matrix of each
    assert 0 < of_file < of_track
    frames, _ = read(content[:of_track] + mirrored + content[of_track + len(mirrored) :])
    image = np.asarray(frames[0].image)
    corners = {(y, x): float(image[y, x].mean()) for y in (0, -1) for x in (0, -1)}
    assert [place for place, value in corners.items() if value > 120] == [corner]


def test_a_damaged_frame_is_left_out_and_told(tmp_path, write_clip, numbered):
    noise = np.random.default_rng(0)
    frames = [np.clip(f + noise.integers(0, 30, f.shape), 0, 255).astype(np.uint8) for f in numbered(20)]
    clip = write_clip(tmp_path / "clip.mkv", frames, g="1")
    with av.open(str(clip)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content = bytearray(clip.read_bytes())
    start = content.find(packets[10][:64])
    content[start : start + len(packets[10])] = bytes(len(packets[10]))  # nothing that can be decoded
    found, warnings = read(bytes(content))
    assert 18 <= len(found) <= 20 and len(warnings) == 1 and "damaged" in warnings[0]
    assert found[-1].time == pytest.approx(19 / 25, abs=2e-3) and brightness(found[-1]) > brightness(found[0])


def test_a_file_that_breaks_off_gives_what_it_has(tmp_path, write_clip, numbered):
    noise = np.random.default_rng(0)
    frames = [np.clip(f + noise.integers(0, 30, f.shape), 0, 255).astype(np.uint8) for f in numbered(20)]
    content = write_clip(tmp_path / "clip.mkv", frames).read_bytes()
    found, _ = read(content[: len(content) // 2])
    assert 5 <= len(found) < 20


def test_a_change_of_resolution_is_resized_and_told(tmp_path, write_clip, numbered):
    """Two streams behind each other, as a transport stream may have them."""
    small = write_clip(tmp_path / "a.mpg", numbered(6), codec="mpeg2video").read_bytes()
    large = write_clip(tmp_path / "b.mpg", numbered(6, 96, 128), codec="mpeg2video").read_bytes()
    wide = write_clip(tmp_path / "c.mpg", numbered(6, 48, 128), codec="mpeg2video").read_bytes()
    frames, warnings = read(small + large)
    assert len(frames) >= 10 and {frame.image.size for frame in frames} == {(64, 48)}
    assert any("128 x 96" in warning and "resized" in warning for warning in warnings)
    with pytest.raises(ValueError, match=r"frame \d is 128 x 48 pixels, the first was 64 x 48"):
        read(small + wide)


def test_what_is_no_video_is_refused_in_one_line(tmp_path, write_clip, numbered):
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    for source, reason in (
        (sound, "has no video stream"),
        (tmp_path / "text.mp4", "cannot be read as a video"),
        (tmp_path / "empty.mp4", "is empty"),
        (tmp_path / "missing.mp4", "does not exist"),
        (io.StringIO("text"), "open as text"),
        ("http://127.0.0.1:1/clip.mp4", "cannot be fetched"),
    ):
        with pytest.raises(ValueError, match=f"^`inputs`: .*{reason}") as caught:
            open_video(source)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="`fps` is for pictures"):
        open_video(write_clip(tmp_path / "clip.mp4", numbered(2)), fps=5)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.ffconcat", "ffconcat version 1.0\nfile clip.ts\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nclip.ts\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile clip.ts\n"),
    ],
)
def test_a_playlist_opens_no_other_file(tmp_path, write_clip, numbered, name, content):
    """Not one beside it, either."""
    write_clip(tmp_path / "clip.ts", numbered(3), codec="libx264")
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="of a playlist, pass the files that it names"):
        open_video(tmp_path / name)


def test_frames_that_are_too_large_are_refused(tmp_path, write_clip, numbered, monkeypatch):
    """By the header, by each decoded frame of a stream that grows, and by the decoder itself."""
    small = write_clip(tmp_path / "a.mpg", numbered(6), codec="mpeg2video").read_bytes()
    large = write_clip(tmp_path / "b.mpg", numbered(6, 480, 640), codec="mpeg2video").read_bytes()
    with pytest.raises(ValueError, match=r"a frame of .*640 x 480 pixels, and `max_pixels` allows 300000"):
        open_video(large, limits=PictureLimits(max_pixels=300_000))
    with pytest.raises(ValueError, match=r"640 x 480 pixels, and `max_side` allows 500"):
        open_video(large, limits=PictureLimits(max_side=500))
    seen = []
    with pytest.raises(ValueError, match=r"640 x 480 pixels, and `max_pixels` allows 300000"):
        for frame in open_video(small + large, limits=PictureLimits(max_pixels=300_000)).read(print):
            seen.append(frame.image.size)
    assert seen and set(seen) == {(64, 48)}
    monkeypatch.setattr("lookhear.processing.glee.video_reading_glee.SPARE", 0)
    with pytest.raises(ValueError, match=r"much larger than `max_pixels` \(100000\)"):
        list(open_video(small + large, limits=PictureLimits(max_pixels=100_000)).read(print))


def test_absurd_times_are_a_broken_clock(tmp_path, write_clip, numbered):
    """A writer of results cannot express them."""
    times = [0, 0.04, 1e6, 1e6 + 0.04, 1e6 + 0.08]
    frames, _ = read(write_clip(tmp_path / "clip.mkv", numbered(5), times=times))
    assert [frame.time for frame in frames[:2]] == pytest.approx([0, 0.04], abs=2e-3)
    assert all(later.time - frame.time < 0.1 for frame, later in zip(frames, frames[1:]))

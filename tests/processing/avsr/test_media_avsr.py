"""Media files of every awkward kind, made by the tests themselves with PyAV."""

from __future__ import annotations

import collections
import io
import itertools
import re
import struct
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from lookhear.processing.avsr.media_avsr import PICTURE, MediaStream, probe_media, read_audio, read_frames
from lookhear.processing.avsr.media_source_avsr import MediaError, TrackChoice, fetch_media
from lookhear.processing.avsr.rendering_avsr import write_video

HEIGHT, WIDTH = 48, 64
CLICK = 1.0  # seconds on the clip's clock: when the picture flashes and the sound beeps
TICKS = Fraction(1, 90000)


def picture(bright: bool) -> np.ndarray:
    """Black or white, with a red corner at the top left that tells which way up it is."""
    frame = np.full((HEIGHT, WIDTH, 3), 255 if bright else 0, np.uint8)
    frame[: HEIGHT // 4, : WIDTH // 4] = (255, 0, 0)
    return frame


def beep(seconds: float, rate: int, at: float) -> np.ndarray:
    """Silence with 100 ms of a 440 Hz tone."""
    time = np.arange(round(seconds * rate)) / rate
    return np.where((time >= at) & (time < at + 0.1), 0.5 * np.sin(2 * np.pi * 440 * (time - at)), 0).astype(
        np.float32
    )


def make_clip(
    path: Path,
    times: list[float] | None = None,
    fps: float = 25,
    video: str | None = "libx264",
    audio: str | None = "aac",
    rate: int = 16000,
    video_start: float = 0.0,
    audio_start: float = 0.0,
    seconds: float = 2.0,
    pix_fmt: str = "yuv420p",
    rotation: int | None = None,
) -> Path:
    """Writes a clip whose picture is white from `CLICK` on and whose tone starts there, both on the file's clock."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(video, rate=Fraction(fps).limit_denominator(1001)) if video else None
        sound = container.add_stream(audio, rate=rate, layout="mono") if audio else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, pix_fmt
            pictures.codec_context.time_base = TICKS
            if rotation is not None:
                pictures.set_display_rotation(rotation)
            for time in times if times is not None else np.arange(round(seconds * fps)) / fps:
                frame = av.VideoFrame.from_ndarray(picture(time + video_start >= CLICK - 1e-6), format="rgb24")
                frame.pts, frame.time_base = round((time + video_start) / TICKS), TICKS
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode(None))
        if sound is not None:
            samples = beep(seconds, rate, CLICK - audio_start)
            for first in range(0, len(samples), 1024):
                frame = av.AudioFrame.from_ndarray(samples[None, first : first + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = first + round(audio_start * rate)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def flash_time(frames: list[np.ndarray], fps: float = 25.0) -> float:
    return next(i for i, frame in enumerate(frames) if frame[-8:, -8:].mean() > 128) / fps


def beep_time(sound: np.ndarray, rate: int = 16000) -> float:
    return int(np.argmax(np.abs(sound) > 0.1)) / rate


@pytest.mark.parametrize("fps", [15, 23.976, 25, 29.97, 50, 60])
def test_any_frame_rate_becomes_25_by_time(tmp_path, fps):
    clip = make_clip(tmp_path / "clip.mp4", fps=fps)
    frames = list(read_frames(clip))
    info = probe_media(clip)
    assert len(frames) == round(info.duration * 25)
    assert info.fps == pytest.approx(fps, rel=1e-3)
    assert flash_time(frames) == pytest.approx(CLICK, abs=0.5 / fps + 0.02 + 1e-6)


def test_25_fps_passes_every_frame_once(tmp_path):
    frames = list(read_frames(make_clip(tmp_path / "clip.mkv", video="ffv1", pix_fmt="bgr0")))
    expected = [picture(time >= CLICK) for time in np.arange(50) / 25]
    assert np.array_equal(np.stack(frames), np.stack(expected))


def test_variable_frame_rate_keeps_the_clock(tmp_path):
    times = [0.0, 0.03, 0.2, 0.21, 0.5, 0.9, 1.0, 1.3, 1.31, 1.9]
    frames = list(read_frames(make_clip(tmp_path / "clip.mp4", times=times)))
    assert flash_time(frames) == pytest.approx((0.9 + 1.0) / 2, abs=0.04)  # half way between the two stored frames
    assert len(frames) >= 48


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("video_start, audio_start", [(0.0, 0.3), (0.3, 0.0), (0.0, 0.0)])
def test_sound_and_picture_stay_together_on_the_containers_clock(tmp_path, suffix, video_start, audio_start):
    clip = make_clip(tmp_path / f"clip{suffix}", video_start=video_start, audio_start=audio_start)
    frames, sound, info = list(read_frames(clip)), read_audio(clip), probe_media(clip)
    # A transport stream begins with the padding of its sound, which the other formats don't play.
    click = CLICK + (0.064 if suffix == ".ts" and video_start else 0.0)
    assert beep_time(sound) == pytest.approx(click, abs=0.005)
    assert flash_time(frames) == pytest.approx(click, abs=0.0201)
    if audio_start:
        assert not np.abs(sound[: int(0.29 * 16000)]).any()  # zeros where the sound has not begun
    assert info.audio_offset == pytest.approx(audio_start - video_start, abs=0.065)
    assert info.video_start == pytest.approx(video_start, abs=0.065) and info.fps == pytest.approx(25, rel=1e-3)
    assert len(frames) == pytest.approx(25 * info.duration, abs=0.51)
    assert [frame.any() for frame in frames[:9]] == [k / 25 > info.video_start - 0.0201 for k in range(9)]


def test_a_part_before_the_first_picture(tmp_path):
    """Three seconds of sound before the pictures: parts of it lie before, across and after the first one."""
    clip = make_clip(tmp_path / "clip.mkv", video_start=3.0, seconds=6.0)
    whole, sound, info = list(read_frames(clip)), read_audio(clip), probe_media(clip)
    assert len(whole) == 225 and not any(frame.any() for frame in whole[:75]) and all(f.any() for f in whole[75:])
    assert info.duration == pytest.approx(9.0, abs=0.01) and beep_time(sound) == pytest.approx(CLICK, abs=0.005)
    assert "the sound begins 3.0 s before the first picture: that part is read without lips" in info.warnings
    for start, end in ((2.6, 3.4), (3.6, 4.4)):
        part = list(read_frames(clip, start=start, end=end))
        assert np.array_equal(np.stack(part), np.stack(whole[round(25 * start) : round(25 * end)]))
    assert list(read_frames(clip, start=1.0, end=2.0)) == []
    assert np.allclose(read_audio(clip, start=2.6, end=3.4), sound[41600:54400], atol=1e-3)


def late_avi(path: Path, seconds: int) -> Path:
    """An AVI of 1.2 s whose header says that its pictures begin after so many seconds."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for _ in range(30):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture(True), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(np.ones((1, 19200), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(sound.encode(frame))
        for stream in (pictures, sound):
            container.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    place = content.index(b"strh") + 8 + 28  # dwStart of the first stream, in units of 1/25 s
    content[place : place + 4] = struct.pack("<I", 25 * seconds)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("b_frames", [0, 2])
def test_an_avi_gives_as_many_pictures_as_it_holds(tmp_path, b_frames):
    """AVI has no times of presentation: with pictures that are decoded ahead, the first one seems to come later."""
    with av.open(str(tmp_path / "clip.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.max_b_frames = b_frames
        for index in range(75):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index >= 25), format="rgb24")))
        container.mux(stream.encode(None))
    frames, info = list(read_frames(tmp_path / "clip.avi")), probe_media(tmp_path / "clip.avi")
    assert len(frames) == 75 and flash_time(frames) == CLICK
    assert info.duration == pytest.approx(3.0, abs=1e-6) and info.fps == pytest.approx(25, rel=1e-3)


@pytest.mark.parametrize("kind", ["avi", "mkv"])
def test_a_first_picture_that_is_absurdly_late_is_not_waited_for(tmp_path, kind):
    if kind == "avi":
        clip = late_avi(tmp_path / "clip.avi", 3600)
    else:
        clip = make_clip(tmp_path / "clip.mkv", video_start=3600.0, seconds=1.2)
    said: list[str] = []
    frames, info = list(itertools.islice(read_frames(clip, on_warning=said.append), 100)), probe_media(clip)
    assert len(frames) == pytest.approx(30, abs=1) and all(frame.any() for frame in frames)
    assert info.duration == pytest.approx(1.2, abs=0.1) and info.fps == pytest.approx(25, rel=0.02)
    assert said[0] == "the video's clock jumps by 3600.0 s at 0.0 s: the jump was removed"


def test_pictures_that_the_sound_confirms_are_waited_for(tmp_path):
    """The pictures begin after 70 seconds of sound."""
    with av.open(str(tmp_path / "radio.mkv"), "w") as container:
        video = container.add_stream("mjpeg", rate=25)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for second in range(72):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 8000), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, second * 8000, Fraction(1, 8000)
            container.mux(sound.encode(frame))
            for number in range(25) if second >= 70 else ():
                frame = av.VideoFrame.from_ndarray(picture(True), format="rgb24")
                frame.pts, frame.time_base = 25 * second + number, Fraction(1, 25)
                container.mux(video.encode(frame))
    with MediaStream(tmp_path / "radio.mkv", 25.0, 8000) as stream:
        counts = collections.Counter(kind for kind, _ in stream)
    assert stream.pictures_late == 1750 and counts[PICTURE] == 50
    assert probe_media(tmp_path / "radio.mkv").duration == pytest.approx(72.0, abs=0.05)


def test_padding_of_aac_is_trimmed_to_the_video(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", seconds=2.0)
    assert len(read_audio(clip)) == 32000
    assert len(read_audio(clip, sampling_rate=8000)) == 16000


def test_speech_after_the_last_picture_is_announced_and_kept(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", times=[0.0], seconds=2.0)
    said: list[str] = []
    assert len(read_audio(clip, on_warning=said.append)) >= 32000
    assert "after the last picture" in said[0] and "after the last picture" in probe_media(clip).warnings[0]
    assert len(list(read_frames(clip))) == 1


@pytest.mark.parametrize("rotation, corner", [(90, "bottom left"), (-90, "top right"), (180, "bottom right")])
def test_rotation_is_undone(tmp_path, rotation, corner):
    clip = make_clip(tmp_path / "clip.mp4", rotation=rotation)
    info, frame = probe_media(clip), next(read_frames(clip))
    assert info.rotation == -rotation % 360
    assert (info.height, info.width) == frame.shape[:2] == ((WIDTH, HEIGHT) if rotation != 180 else (HEIGHT, WIDTH))
    rows = frame[-8:] if "bottom" in corner else frame[:8]
    patch = rows[:, :8] if "left" in corner else rows[:, -8:]
    assert patch[..., 0].mean() > 200 and patch[..., 1].mean() < 60


@pytest.mark.parametrize("matrix, corner", [((-1, 0, 0, 1), "top right"), ((1, 0, 0, -1), "bottom left")])
def test_mirroring_is_undone(tmp_path, matrix, corner):
    """As front cameras write it: the track's matrix, 16.16 numbers 44 bytes behind the name of its header."""
    content = bytearray(make_clip(tmp_path / "clip.mp4").read_bytes())
    place = content.index(b"tkhd") + 44
    a, b, c, d = (round(number * 65536) for number in matrix)
    content[place : place + 20] = struct.pack(">5i", a, b, 0, c, d)
    (tmp_path / "mirrored.mp4").write_bytes(content)
    for frame in itertools.islice(read_frames(tmp_path / "mirrored.mp4"), 3):
        rows = frame[-8:] if "bottom" in corner else frame[:8]
        patch = rows[:, :8] if "left" in corner else rows[:, -8:]
        assert patch[..., 0].mean() > 200 and patch[..., 1].mean() < 60


def test_non_square_pixels_are_made_square(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(True), format="rgb24")))
        container.mux(stream.encode(None))
    assert next(read_frames(path)).shape == (HEIGHT, 96, 3)
    assert probe_media(path).width == 96


@pytest.mark.parametrize("pix_fmt", ["gray", "gray16le", "yuv420p10le", "yuv444p"])
def test_grey_and_deep_pictures(tmp_path, pix_fmt):
    frames = list(read_frames(make_clip(tmp_path / "clip.mkv", video="ffv1", pix_fmt=pix_fmt)))
    assert frames[0].dtype == np.uint8 and frames[0].shape == (HEIGHT, WIDTH, 3)
    assert flash_time(frames) == CLICK


def test_a_part_of_a_clip(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", seconds=4.0)
    whole, sound = list(read_frames(clip)), read_audio(clip)
    part = list(read_frames(clip, start=0.8, end=1.6))
    assert np.array_equal(np.stack(part), np.stack(whole[20:40]))
    assert np.allclose(read_audio(clip, start=0.8, end=1.6), sound[12800:25600], atol=1e-3)
    late = list(read_frames(clip, start=2.0))  # far enough to seek
    assert np.array_equal(np.stack(late), np.stack(whole[50:]))
    assert np.allclose(read_audio(clip, start=2.0), sound[32000:], atol=1e-3)


def test_no_sound(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", audio=None)
    assert read_audio(clip) is None
    assert not probe_media(clip).has_audio and len(list(read_frames(clip))) == 50


@pytest.mark.parametrize("suffix, codec", [(".mp4", "aac"), (".mp3", "libmp3lame"), (".mka", "mp2")])
def test_no_video(tmp_path, suffix, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot write {codec}")
    clip = make_clip(tmp_path / f"clip{suffix}", video=None, audio=codec, rate=44100)
    info = probe_media(clip)
    assert info.has_audio and not info.has_video
    assert list(read_frames(clip)) == []
    assert beep_time(read_audio(clip)) == pytest.approx(CLICK, abs=0.01)


@pytest.mark.parametrize(
    "suffix, subtype",
    [(".wav", "PCM_U8"), (".wav", "PCM_24"), (".wav", "FLOAT"), (".wav", "DOUBLE"), (".flac", "PCM_16")],
)
@pytest.mark.parametrize("channels, rate", [(1, 8000), (2, 44100), (3, 48000), (6, 96000)])
def test_sample_formats_and_channels(tmp_path, suffix, subtype, channels, rate):
    path, tone = tmp_path / f"sound{suffix}", beep(2.0, rate, CLICK)
    soundfile.write(path, np.stack([tone] * channels, axis=1), rate, subtype=subtype)
    sound = read_audio(path)
    assert sound.dtype == np.float32 and abs(len(sound) - 32000) <= 1
    assert np.abs(sound[:32000] - beep(2.0, 16000, CLICK)[: len(sound)]).max() < 0.12  # ringing at the tone's edges
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(np.sqrt(np.mean(tone**2)), rel=0.05)


def test_samples_that_are_not_numbers_become_silence(tmp_path):
    tone = beep(2.0, 16000, CLICK)
    tone[100:200], tone[300] = np.nan, np.inf
    soundfile.write(tmp_path / "nan.wav", tone, 16000, subtype="FLOAT")
    said: list[str] = []
    sound = read_audio(tmp_path / "nan.wav", on_warning=said.append)
    assert np.isfinite(sound).all() and not sound[100:301].any()
    assert said == ["101 samples of the sound are not numbers (NaN or infinite): they were replaced by silence"]


def test_cover_art_is_not_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(True), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(beep(2.0, 16000, CLICK)[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert not probe_media(path).has_video and list(read_frames(path)) == []
    assert len(read_audio(path)) >= 32000


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mp4"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_file_cut_off_in_the_middle_gives_what_is_there(tmp_path, suffix, share):
    whole = tmp_path / f"whole{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (100, HEIGHT, WIDTH, 3), dtype=np.uint8)
    with av.open(str(whole), "w", options={"movflags": "faststart"} if suffix == ".mp4" else {}) as container:
        pictures, sound = (
            container.add_stream("libx264", rate=25),
            container.add_stream("aac", rate=16000, layout="mono"),
        )
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index, image in enumerate(noise):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            frame = av.AudioFrame.from_ndarray(np.full((1, 640), 0.1, np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, index * 640, Fraction(1, 16000)
            container.mux(sound.encode(frame))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))
    content = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(content[: int(len(content) * share)])
    frames, audio = list(read_frames(cut)), read_audio(cut)
    assert 0.6 * share * 100 < len(frames) < 100
    assert abs(len(audio) / 16000 - len(frames) / 25) < 0.6
    if suffix != ".ts":  # a transport stream announces no length
        assert any("cut off" in sentence for sentence in probe_media(cut).warnings)


def test_one_frame(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", times=[0.0], seconds=0.04)
    assert len(list(read_frames(clip))) == 1
    assert len(read_audio(clip)) == 640


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "is empty"),
        (b"this is a text file\n" * 50, "not a media file"),
        (bytes(range(256)) * 40, "not a media file"),
    ],
)
@pytest.mark.parametrize("reader", [probe_media, read_audio, lambda source: list(read_frames(source))])
def test_what_is_no_media_gives_one_line_with_the_name(tmp_path, content, reason, reader):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    for source, name in ((path, "clip.mp4"), (content, f"<{len(content)} bytes>"), (io.BytesIO(content), "<BytesIO>")):
        with pytest.raises(MediaError, match=reason) as caught:
            reader(source)
        assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["nowhere/clip.mp4", ".", "a\0b", None, 7, "http://127.0.0.1:9/clip.mp4", "https://"]
)
def test_sources_that_cannot_be_opened(source):
    for reader in (probe_media, read_audio, lambda source: list(read_frames(source))):
        with pytest.raises(MediaError):
            reader(source)


def test_a_text_file_is_not_played_as_pictures_of_text(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no pictures in here\n" * 100)
    with pytest.raises(MediaError, match="neither video nor sound"):
        probe_media(path)


def test_a_playlist_cannot_reach_out(tmp_path):
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError):
        probe_media(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.ffconcat", "ffconcat version 1.0\nfile clip.ts\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nclip.ts\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile clip.ts\n"),
    ],
)
def test_a_playlist_opens_no_other_file(tmp_path, name, content):
    """Not one beside it, either."""
    make_clip(tmp_path / "clip.ts")
    (tmp_path / name).write_text(content)
    for reader in (probe_media, read_audio, lambda source: list(read_frames(source))):
        with pytest.raises(MediaError, match="of a playlist, pass the files that it names"):
            reader(tmp_path / name)


def growing(path: Path, codec: str = "libx264") -> Path:
    """A stream of 5 pictures of 64 x 48, and 5 of 640 x 480 after them; its header has the first size."""
    parts = []
    for begin, size in ((0, (64, 48)), (5, (640, 480))):
        part = path.with_stem(f"{size[0]}")
        with av.open(str(part), "w") as container:
            stream = container.add_stream(codec, rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for index in range(5):
                frame = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = begin + index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize(("codec", "ending"), [("libx264", ".ts"), ("mpeg2video", ".mpg")])
def test_a_stream_that_grows_is_refused_where_it_does(tmp_path, codec, ending):
    clip = growing(tmp_path / f"clip{ending}", codec)
    assert {frame.shape[0] for frame in read_frames(clip)} == {48, 480}
    read = []
    with pytest.raises(MediaError, match=r"640 x 480 pixels, and `max_pixels` allows 300000"):
        read.extend(read_frames(clip, max_pixels=300_000))
    # What ffmpeg looks at to find out about a transport stream includes the second part of one as short as this.
    assert {frame.shape for frame in read} == (set() if ending == ".ts" else {(48, 64, 3)})


def test_the_decoder_makes_no_room_for_much_larger_pictures(tmp_path, monkeypatch):
    """Beyond twice the bound and a megapixel; its refusal must not look like damage that is left out."""
    monkeypatch.setattr("lookhear.processing.avsr.media_source_avsr.SPARE", 0)
    clip = growing(tmp_path / "clip.mpg", "mpeg2video")
    with pytest.raises(MediaError, match=r"much larger than `max_pixels` \(100000\)"):
        list(read_frames(clip, max_pixels=100_000))


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4")
    message = r"clip.mp4' has pictures of 64 x 48 pixels, and `max_pixels` allows 3000"
    for reader in (probe_media, lambda source, **bound: list(read_frames(source, **bound))):
        with pytest.raises(MediaError, match=message):
            reader(clip, max_pixels=3000)
    assert probe_media(clip, max_pixels=64 * 48).width == 64
    with MediaStream(clip, None, 16000, tracks=TrackChoice(max_pixels=10)) as stream:  # pictures are not wanted
        assert sum(len(samples) for _, samples in stream) > 30_000


def test_sound_of_a_few_samples_a_second_is_refused(tmp_path):
    """Resampled, 1000 samples of one hertz would be 16 million."""
    soundfile.write(tmp_path / "slow.wav", np.zeros(1000), 1)
    with pytest.raises(MediaError, match="sound of 1 samples a second: at least 1000 are needed"):
        read_audio(tmp_path / "slow.wav")


def test_a_name_that_looks_like_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "clip.mp4").rename("http:1.mp4")
    assert probe_media("http:1.mp4").has_video


def test_bytes_and_file_objects_read_like_the_path(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4")
    expected = read_audio(clip)
    with clip.open("rb") as file:
        for source in (clip.read_bytes(), io.BytesIO(clip.read_bytes()), file, file, str(clip)):
            assert np.array_equal(read_audio(source), expected)
            assert len(list(read_frames(source))) == 50
    with pytest.raises(MediaError, match="mode 'rb'"), clip.open(encoding="latin-1") as text:
        read_audio(text)


def test_pipes_are_read_once_and_named_pipes_refused(tmp_path):
    content = make_clip(tmp_path / "clip.mp4").read_bytes()

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *args):
            raise OSError("a pipe cannot seek")

    source = fetch_media(Pipe(content))
    assert probe_media(source).has_video and len(list(read_frames(source))) == 50
    assert len(list(read_frames(Pipe(content)))) == 50
    with pytest.raises(MediaError, match="is empty"):
        probe_media(Pipe(b""))
    with pytest.raises(MediaError, match="not a regular file"):
        probe_media("/dev/null")


def test_http_sources_are_fetched_once_and_errors_named(tmp_path):
    content = make_clip(tmp_path / "clip.mp4").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/clip.mp4"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(content) if found else 0))
            self.end_headers()
            self.wfile.write(content if found else b"")

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        fetched = fetch_media(f"{address}/clip.mp4")
        assert probe_media(fetched).has_video and len(list(read_frames(fetched))) == 50
        with pytest.raises(MediaError, match="404"):
            read_audio(f"{address}/other.mp4")
    finally:
        server.shutdown()
        server.server_close()


def test_frames_are_streamed(tmp_path):
    """Three frames of a clip can be had without decoding the others."""
    clip = make_clip(tmp_path / "clip.mp4")
    content = clip.read_bytes()
    assert len(list(itertools.islice(read_frames(content), 3))) == 3


@pytest.mark.parametrize("arguments", [{"fps": 0}, {"fps": float("nan")}, {"start": -1}, {"start": 2, "end": 1}])
def test_wrong_arguments(tmp_path, arguments):
    with pytest.raises(ValueError, match="must be"):
        next(read_frames(tmp_path / "clip.mp4", **arguments))


def test_written_video_reads_back(tmp_path):
    frames = [np.full((51, 65, 3), 255 if index == 25 else 0, np.uint8) for index in range(50)]
    sound = beep(2.0, 16000, CLICK)
    write_video(tmp_path / "out.mp4", frames, 25, sound)
    read = list(read_frames(tmp_path / "out.mp4"))
    assert len(read) == 50 and read[0].shape == (52, 66, 3)
    assert flash_time(read) == CLICK and beep_time(read_audio(tmp_path / "out.mp4")) == pytest.approx(CLICK, abs=0.002)
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def frames():
        yield np.zeros((48, 64, 3), np.uint8)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        write_video(tmp_path / "out.mp4", frames(), 25)
    for bad, words in (([], "no frames"), ([np.zeros((4, 4), np.uint8)], "uint8")):
        with pytest.raises(MediaError, match=words):
            write_video(tmp_path / "out.mp4", bad, 25)
    with pytest.raises(MediaError, match="folder does not exist"):
        write_video(tmp_path / "nowhere" / "out.mp4", [], 25)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, full_disk):
    """With room for nothing, for half of the file, and for all but its last byte."""
    frames = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "whole.mp4", frames, 25, beep(2.4, 16000, CLICK))
    size = (tmp_path / "whole.mp4").stat().st_size
    target = tmp_path / "full" / "out.mp4"
    target.parent.mkdir()
    for room in (0, size // 2, size - 1):
        with full_disk(room), pytest.raises(MediaError, match="out.mp4' cannot be written: File too large"):
            write_video(target, frames, 25, beep(2.4, 16000, CLICK))
            # Either the file has become smaller than the one before, or an error was lost.
            pytest.fail(f"{target.stat().st_size} bytes were written, with room for {room} of {size}")
        assert list(target.parent.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- several tracks


def several_tracks(path: Path, sounds: list[tuple[float, str, int]], videos: list[tuple[int, int]] = ()) -> Path:
    """Writes sound tracks of (level, language, disposition) and videos of (brightness, disposition)."""
    with av.open(str(path), "w") as container:
        streams = []
        for _, flags in videos:
            stream = container.add_stream("mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            stream.disposition = av.stream.Disposition(flags)
            streams.append(stream)
        for _, language, flags in sounds:
            stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
            stream.metadata["language"], stream.disposition = language, av.stream.Disposition(flags)
            streams.append(stream)
        for stream, (level, *_) in zip(streams, [*videos, *sounds], strict=True):
            for index in range(25):
                if stream.type == "video":
                    frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), level, np.uint8), format="rgb24")
                else:
                    samples = np.full((1, 640), round(level * 32767), np.int16)
                    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                    frame.sample_rate = 16000
                frame.pts = index * (1 if stream.type == "video" else 640)
                frame.time_base = Fraction(1, 25 if stream.type == "video" else 16000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


DEFAULT, COMMENT = (int(flag) for flag in (av.stream.Disposition.default, av.stream.Disposition.comment))


@pytest.mark.parametrize(
    ("flags", "chosen", "level"),
    [
        ((0, DEFAULT, 0), None, 0.4),
        ((COMMENT, 0, 0), None, 0.4),
        ((0, 0, 0), None, 0.2),
        ((DEFAULT, DEFAULT, 0), None, 0.2),
        ((DEFAULT, 0, 0), 2, 0.6),
        ((DEFAULT, 0, 0), "de", 0.4),
        ((DEFAULT, 0, 0), "GER", 0.4),
        ((DEFAULT, 0, 0), "de-AT", 0.4),
        ((DEFAULT, 0, 0), "fra", 0.6),
        ((0, DEFAULT, 0), "0", 0.2),
    ],
    ids=str,
)
def test_which_sound_track_is_read(tmp_path, flags, chosen, level):
    clip = several_tracks(tmp_path / "clip.mkv", list(zip((0.2, 0.4, 0.6), ("eng", "ger", "fre"), flags)))
    assert read_audio(clip, audio_track=chosen).mean() == pytest.approx(level, abs=0.01)
    said = probe_media(clip, audio_track=chosen).warnings
    if chosen is not None:
        assert said == ()
    else:
        number = round(level / 0.2) - 1
        assert f"number {number} is read, `audio_track` chooses another" in said[0] and "0 (eng" in said[0]


def test_which_video_is_read(tmp_path):
    """The screen comes first, and the camera is flagged."""
    clip = several_tracks(tmp_path / "clip.mkv", [(0.2, "eng", 0)], [(50, 0), (200, DEFAULT)])
    assert next(read_frames(clip)).mean() == pytest.approx(200, abs=3)
    assert next(read_frames(clip, video_track=0)).mean() == pytest.approx(50, abs=3)
    assert f"0 ({WIDTH}x{HEIGHT}), 1 ({WIDTH}x{HEIGHT}, default); number 1 is read" in probe_media(clip).warnings[0]


def test_tracks_and_channels_that_are_not_there(tmp_path):
    clip = several_tracks(tmp_path / "clip.mkv", [(0.2, "eng", 0), (0.4, "ger", DEFAULT)])
    for track, words in ((2, "no sound track 2; it has 0 (eng), 1 (ger, default)"), ("es", "no sound track 'es'")):
        with pytest.raises(MediaError, match=re.escape(words)) as caught:
            read_audio(clip, audio_track=track)
        assert str(caught.value).startswith("`audio_track`: ") and "clip.mkv" in str(caught.value)
    with pytest.raises(MediaError, match="no video 0; it has none"):
        list(read_frames(clip, video_track=0))
    with pytest.raises(
        MediaError, match="`channel`: there is no channel 1, as the sound has one channel, number 0.*mkv"
    ):
        read_audio(clip, channel=1)


def test_a_channel_of_a_file(tmp_path):
    tones = np.stack([0.1 * np.sin(np.arange(32000) / 5), 0.5 * np.sin(np.arange(32000) / 5)], axis=1)
    soundfile.write(tmp_path / "two.wav", tones, 16000)
    for channel, level in ((0, 0.1), ("right", 0.5), ("mean", 0.3)):
        assert np.abs(read_audio(tmp_path / "two.wav", channel=channel)).max() == pytest.approx(level, abs=0.01)
    soundfile.write(tmp_path / "phase.wav", tones[:, :1] * (1, -1), 16000)
    said: list[str] = []
    assert np.abs(read_audio(tmp_path / "phase.wav", on_warning=said.append)).max() == pytest.approx(0.1, abs=0.01)
    assert "cancel each other out" in said[0]


def test_a_file_address(tmp_path):
    clip = make_clip(tmp_path / "a clip.mp4")
    for address in (clip.as_uri(), f"file://localhost{clip.as_uri()[7:]}", str(clip)):
        assert probe_media(address).has_video
    with pytest.raises(MediaError, match="on another machine, 'server'"):
        probe_media("file://server/clip.mp4")
    with pytest.raises(MediaError, match="does not exist"):
        probe_media("file:///nowhere/clip.mp4")

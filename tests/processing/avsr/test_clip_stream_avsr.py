"""Clips as streams of pieces: one pass, one clock, bounded memory, and nothing left open."""

from __future__ import annotations

import gc
import itertools
import math
import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from lookhear.processing.avsr import media_source_avsr
from lookhear.processing.avsr.clip_stream_avsr import ClipPiece, ClipStream, PieceCutter, read_clip
from lookhear.processing.avsr.media_source_avsr import MediaError
from lookhear.processing.avsr.mouth_cropping_avsr import MEAN_FACE
from lookhear.processing.avsr.processing_avsr import MouthRoiImageProcessor
from lookhear.processing.avsr.rendering_avsr import write_video
from lookhear.processing.avsr.speaker_tracking_avsr import ChosenSpeaker

RATE, HEIGHT, WIDTH = 16000, 96, 128
PROCESSOR = MouthRoiImageProcessor(roi_size=24, crop_size=20, mouth_width=12.0)
POINTS = (MEAN_FACE * 30 + (64, 45)).astype(np.float32)


def landmarks(frames: int) -> np.ndarray:
    return np.repeat(POINTS[None], frames, axis=0)


def tone(seconds: float) -> np.ndarray:
    """(samples,) a rising tone, so that no two pieces are alike."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * (200 + 20 * time) * time)).astype(np.float32)


def pictures(count: int):
    """A grey slope that gets brighter, with a bar that moves: no two frames are alike."""
    for index in range(count):
        picture = np.tile(np.linspace(20, 120, WIDTH), (HEIGHT, 1)) + 60 * index / max(count, 1)
        picture[:, index % WIDTH] = 200
        yield np.repeat(picture.astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Four seconds and eight frames, sound and picture."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_video(path, pictures(108), 25, tone(4.32))
    return path


def stream(source, modality: str = "auto", frames: int = 108, **arguments) -> ClipStream:
    return ClipStream(source, modality, RATE, PROCESSOR, landmarks=landmarks(frames), **arguments)


def joined(pieces: list[ClipPiece], name: str) -> np.ndarray:
    return np.concatenate([getattr(piece, name) for piece in pieces])


def write_unordered(path: Path, seconds: int, sound_first: bool) -> Path:
    """A file in which all of one stream comes before the other."""
    with av.open(str(path), "w", format="matroska", options={"max_interleave_delta": "1"}) as container:
        video = container.add_stream("mjpeg", rate=25)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        sound = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        packets = {"video": [], "sound": []}
        for index, picture in enumerate(pictures(25 * seconds)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            packets["video"] += video.encode(frame)
            part = tone(seconds)[index * 640 : (index + 1) * 640]
            frame = av.AudioFrame.from_ndarray((part[None] * 32767).astype(np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, index * 640, Fraction(1, RATE)
            packets["sound"] += sound.encode(frame)
        for name in ("sound", "video") if sound_first else ("video", "sound"):
            for packet in packets[name]:
                container.mux_one(packet)
    return path


def test_pieces_follow_each_other_on_one_clock(video):
    with stream(video) as clip:
        assert clip.name == repr(str(video)) and clip.duration == pytest.approx(4.32, abs=0.1)
        pieces = list(clip)
    assert [piece.start for piece in pieces] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [len(piece.mouths) for piece in pieces] == [25, 25, 25, 25, 8]
    assert [len(piece.audio) for piece in pieces] == [16000, 16000, 16000, 16000, 5120]
    for piece in pieces:
        assert piece.audio.dtype == np.float32 and piece.mouths.dtype == np.uint8
        assert piece.mouths.shape[1:] == (24, 24) and piece.found.all() and not piece.cuts.any()
    correlation = np.corrcoef(joined(pieces, "audio"), tone(4.32))[0, 1]
    assert correlation > 0.99
    assert clip.report.frames == 108 and clip.report.audio_level_dbfs == pytest.approx(-13.5, abs=0.3)


def test_each_frame_is_decoded_once_from_a_file_opened_once(video, monkeypatch):
    with av.open(str(video)) as container:
        stored = [sum(1 for _ in container.decode(video=0)), 0]
    with av.open(str(video)) as container:
        stored[1] = sum(1 for _ in container.decode(audio=0))
    opened, counted = [], {"video": 0, "audio": 0}
    true_open, decoder = av.open, media_source_avsr.StreamDecoder

    push = decoder.push

    def counted_push(self, packet):
        for frame in push(self, packet):
            counted[self.stream.type] += 1
            yield frame

    monkeypatch.setattr(av, "open", lambda *args, **kwargs: opened.append(args) or true_open(*args, **kwargs))
    monkeypatch.setattr(decoder, "push", counted_push)  # which `finish` calls, too
    with stream(video) as clip:
        assert len(list(clip)) == 5
    assert len(opened) == 1 and [counted["video"], counted["audio"]] == stored


@pytest.mark.parametrize("modality, nothing", [("audio", "mouths"), ("visual", "audio")])
def test_only_what_is_wanted_is_read(video, modality, nothing):
    with stream(video, modality) as clip:
        pieces = list(clip)
    assert len(pieces) == 5 and all(getattr(piece, nothing) is None for piece in pieces)
    both = list(stream(video))
    kept = "audio" if modality == "audio" else "mouths"
    assert np.array_equal(joined(pieces, kept), joined(both, kept))


@pytest.mark.parametrize("source", ["path", "bytes", "file", "arrays", "mouths"])
def test_every_kind_of_source(video, source):
    arrays = {"audio": tone(4.32), "sampling_rate": RATE}
    kinds = {
        "path": video,
        "bytes": video.read_bytes(),
        "file": video.open("rb"),
        "arrays": {**arrays, "video": np.stack(list(pictures(108))), "fps": 25},
        "mouths": {**arrays, "mouths": np.zeros((108, 24, 24), np.uint8)},
    }
    with kinds["file"], stream(kinds[source]) as clip:
        pieces = list(clip)
        assert [len(piece.mouths) for piece in pieces] == [25, 25, 25, 25, 8]
        assert len(joined(pieces, "audio")) == round(4.32 * RATE) and joined(pieces, "found").all()
        assert clip.duration == pytest.approx(4.32, abs=0.1)


def test_sound_only(video):
    with stream({"audio": tone(2.5), "sampling_rate": RATE}) as clip:
        pieces = list(clip)
    assert [len(piece.audio) for piece in pieces] == [16000, 16000, 8000]
    assert all(piece.mouths is None and piece.found is None and piece.cuts is None for piece in pieces)
    assert clip.trouble == "there is no video"


def test_sound_that_outlasts_the_picture_is_kept(tmp_path):
    write_video(tmp_path / "long.mp4", pictures(30), 25, tone(3.0))
    with stream(tmp_path / "long.mp4", frames=30) as clip:
        pieces = list(clip)
    assert [len(piece.mouths) for piece in pieces] == [25, 5, 0, 0][: len(pieces)]
    assert len(joined(pieces, "audio")) >= 3 * RATE
    assert any("after the last picture" in sentence for sentence in clip.report.warnings)


def test_sound_that_begins_before_the_pictures_is_kept(tmp_path):
    """Two seconds of sound, then pictures: black crops without a face come first, and all times are the file's."""
    write_video(tmp_path / "clip.mp4", pictures(50), 25, tone(2.0))
    with av.open(str(tmp_path / "clip.mp4")) as whole, av.open(str(tmp_path / "late.mp4"), "w") as late:
        streams = {stream.index: late.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is not None:
                shift = round(2.2 / packet.time_base) if packet.stream.type == "video" else 0
                packet.pts, packet.dts, packet.stream = (
                    packet.pts + shift,
                    packet.dts + shift,
                    streams[packet.stream.index],
                )
                late.mux(packet)
    faces = landmarks(50)
    faces[:10] = np.nan
    with ClipStream(tmp_path / "late.mp4", "auto", RATE, PROCESSOR, landmarks=faces) as clip:
        pieces = list(clip)
    found = joined(pieces, "found")
    assert [piece.late for piece in pieces] == [25, 25, 5, 0, 0] and len(found) == 105
    assert not joined(pieces, "mouths")[:55].any() and found.tolist() == [False] * 65 + [True] * 40
    assert np.abs(joined(pieces, "audio")[:32000] - tone(2.0)[:32000]).max() < 0.1
    assert clip.report.frames == 50 and clip.report.interpolated_runs == [(2.2, 2.6)]
    assert "the sound begins 2.2 s before the first picture: that part is read without lips" in clip.report.warnings


@pytest.mark.parametrize("offset", [0.0, 0.5, -0.5])
def test_sound_in_a_file_of_its_own(video, tmp_path, offset):
    """The video's own sound is not read; the other sound begins half a second later, or earlier."""
    other = tone(4.32)[::-1].copy()
    soundfile.write(tmp_path / "other.wav", other, RATE, subtype="FLOAT")
    moved = np.concatenate(
        [np.zeros(max(0, round(offset * RATE)), np.float32), other[max(0, round(-offset * RATE)) :]]
    )
    frames = np.stack(list(pictures(108)))
    ways = [
        {"video": video, "audio": tmp_path / "other.wav"},
        {"video": str(video), "audio": other, "sampling_rate": RATE},
        {"video": frames, "fps": 25, "audio": (tmp_path / "other.wav").read_bytes()},
        {"video": frames, "fps": 25, "audio": other, "sampling_rate": RATE},
    ]
    for source in ways:
        with stream({**source, "audio_offset": offset}) as clip:
            pieces = list(clip)
        assert np.array_equal(joined(pieces, "audio"), moved) and len(joined(pieces, "mouths")) == 108
        assert clip.duration == pytest.approx(max(4.32, 4.32 + offset), abs=0.1)
        left_out = any("0.5 s of the sound come before the pictures' clock" in said for said in clip.report.warnings)
        assert left_out == (offset < 0)
    with stream({**ways[0], "audio_offset": offset}, "audio") as clip:
        assert np.array_equal(joined(list(clip), "audio"), moved)
    with stream({**ways[0], "audio_offset": offset}, "visual") as clip:
        assert len(joined(list(clip), "mouths")) == 108


def test_half_of_a_clip_in_a_dictionary(video):
    whole = joined(list(stream(video)), "audio")
    for source in ({"video": video}, {"path": None, "bytes": video.read_bytes()}, {"path": str(video)}):
        pieces = list(stream(source))
        assert np.array_equal(joined(pieces, "audio"), whole) and len(joined(pieces, "mouths")) == 108
    with stream({"audio": video}) as clip:
        pieces = list(clip)
    assert pieces[0].mouths is None and clip.trouble == "there is no video"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"video": "nowhere.mp4", "audio": "other.wav"}, "nowhere.mp4' does not exist"),
        ({"mouths": np.zeros((5, 24, 24), np.uint8), "audio": "nowhere.wav"}, "nowhere.wav' does not exist"),
        ({"audio": tone(1.0), "sampling_rate": RATE, "audio_offset": 1}, '"audio_offset".*pass both'),
        ({"audio": tone(1.0), "sampling_rate": RATE, "audio_offset": "x"}, "\"audio_offset\".*not 'x'"),
        ({"path": None, "bytes": None}, '"path" and "bytes" are None'),
    ],
    ids=str,
)
def test_sound_and_pictures_that_do_not_belong_together(source, words):
    with pytest.raises(ValueError, match=words) as caught:
        stream(source)
    assert "\n" not in str(caught.value)


def test_cuts_are_marked_and_counted():
    scenes = [np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8) for seed in (1, 2, 3)]
    large = [scene.repeat(16, axis=0).repeat(16, axis=1) for scene in scenes]
    frames = np.stack([large[index // 30] for index in range(80)])
    with stream({"video": frames, "fps": 25}, frames=80) as clip:
        cuts = joined(list(clip), "cuts")
    assert np.flatnonzero(cuts).tolist() == [30, 60] and clip.report.cuts == 2
    assert "2 changes of scene: the face is detected anew after each" in clip.report.warnings


# ------------------------------------------------------------------------------------------------ stopping and failing


def open_files() -> list[str]:
    return [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_reader_that_stops_leaves_nothing_behind(video, taken):
    threads = threading.active_count()
    with stream(video) as clip:
        for _ in range(taken):
            next(clip)
    assert threading.active_count() == threads and str(video) not in open_files()
    assert list(clip) == []
    clip.close()


def test_a_stream_that_is_dropped_ends_its_threads(video):
    threads = threading.active_count()
    clip = stream(video)
    next(clip)
    del clip
    gc.collect()
    for thread in threading.enumerate()[threads:]:
        thread.join(5)
    assert threading.active_count() == threads and str(video) not in open_files()


def test_a_stream_that_was_read_keeps_no_frames_until_the_next_garbage_collection(video):
    gc.collect()
    gc.disable()
    try:
        before = len(opened_by_av())
        clip = stream(video)
        assert sum(len(piece.mouths) for piece in clip) == 108
        clip.close()
        del clip
        assert len(opened_by_av()) <= before
    finally:
        gc.enable()


def opened_by_av() -> list:
    """Frames, decoders and files that PyAV holds."""
    kinds = av.VideoFrame, av.AudioFrame, av.CodecContext, av.container.InputContainer
    return [thing for thing in gc.get_objects() if issubclass(type(thing), kinds)]


def test_an_error_in_the_threads_reaches_the_reader_once(video):
    def breaks(frame):
        raise ValueError("the detector broke")

    threads = threading.active_count()
    with ClipStream(video, "auto", RATE, PROCESSOR, landmarks=breaks) as clip:
        with pytest.raises(ValueError, match="the detector broke"):
            list(clip)
        assert list(clip) == []
    assert threading.active_count() == threads and str(video) not in open_files()


def looks_ahead(frames, prompt):
    """A locator that takes six frames before it gives their boxes."""
    while window := list(itertools.islice(frames, 6)):
        yield from ((0, 0, WIDTH, HEIGHT) for _ in window)


@pytest.mark.parametrize("taken", [0, 1, 9])
def test_a_locator_is_left_behind_by_nobody(video, taken):
    threads = threading.active_count()
    speaker = ChosenSpeaker("x", looks_ahead)
    with ClipStream(video, "auto", RATE, PROCESSOR, landmarks=lambda frame: [], speaker=speaker) as clip:
        pieces = list(itertools.islice(clip, taken))
    assert len(pieces) == min(taken, 5) and not any(piece.absent.any() or piece.found.any() for piece in pieces)
    assert threading.active_count() == threads and str(video) not in open_files()


def test_what_breaks_a_locator_reaches_the_reader(video):
    def breaks(frames, prompt):
        yield from ((0, 0, 9, 9) for _ in itertools.islice(frames, 30))
        raise OSError("the network is gone")

    threads = threading.active_count()
    speaker = ChosenSpeaker("x", breaks)
    with ClipStream(video, "auto", RATE, PROCESSOR, landmarks=lambda frame: [], speaker=speaker) as clip:
        with pytest.raises(OSError, match="the network is gone"):
            list(clip)
    assert threading.active_count() == threads and str(video) not in open_files()


@pytest.mark.parametrize(
    "source, modality, words",
    [
        ("nowhere.mp4", "auto", "does not exist"),
        (b"no video", "auto", "<8 bytes>"),
        ({}, "auto", "nothing"),
        ({"audio": tone(1.0), "sampling_rate": RATE}, "visual", "there is no video"),
        ({"mouths": np.zeros((5, 24, 24), np.uint8)}, "audiovisual", "there is no sound"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_said_at_once(source, modality, words):
    with pytest.raises(ValueError, match=words) as caught:
        stream(source, modality)
    assert "\n" not in str(caught.value)


def test_no_face_and_nothing_else_to_read(tmp_path):
    path = tmp_path / "mute.mp4"
    write_video(path, pictures(30), 25)
    with ClipStream(path, "auto", RATE, PROCESSOR, landmarks=lambda frame: []) as clip:
        with pytest.raises(ValueError, match=r"mute\.mp4.*no sound, and no face was found"):
            list(clip)


def test_a_video_that_cannot_be_decoded(video, tmp_path):
    """The pictures' bytes are overwritten; the sound is read without them, or the error names the file."""
    content = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with stream(path) as clip:
        pieces = list(clip)
    assert all(piece.mouths is None for piece in pieces) and len(joined(pieces, "audio")) > 4 * RATE
    assert "no frame of the video can be decoded: only the sound is used" in clip.report.warnings
    with stream(path, "visual") as clip, pytest.raises(MediaError, match=r"broken\.mp4.*no frame can be decoded"):
        list(clip)


# ---------------------------------------------------------------------------------------------------- order and memory


@pytest.mark.parametrize("sound_first", [True, False])
def test_streams_that_lie_apart_in_the_file(tmp_path, sound_first):
    path = write_unordered(tmp_path / "apart.mkv", 5, sound_first)
    for lead in (math.inf, 60.0):
        pieces = list(stream(path, frames=125, max_lead=lead))
        assert [len(piece.mouths) for piece in pieces] == [25] * 5 and [len(p.audio) for p in pieces] == [16000] * 5
        assert np.abs(joined(pieces, "audio") - tone(5)).max() < 1e-3
    with stream(path, frames=125, max_lead=2.0) as clip:
        pieces = list(clip)
    assert [len(piece.audio) for piece in pieces] == [16000] * 5 and len(joined(pieces, "mouths")) == 125
    late = "pictures" if sound_first else "sound"
    assert any(f"the {late} come more than 2 s too late" in sentence for sentence in clip.report.warnings)
    empty = [not (piece.found if sound_first else piece.audio).any() for piece in pieces]
    assert empty[0] and not empty[-1]


def test_arrays_wait_for_each_other():
    mouths = np.ones((3000, 24, 24), np.uint8)
    with stream({"audio": np.ones(120 * RATE, np.float32), "sampling_rate": RATE, "mouths": mouths}) as clip:
        pieces = list(clip)
    assert joined(pieces, "audio").all() and len(joined(pieces, "audio")) == 120 * RATE
    assert joined(pieces, "found").all() and len(joined(pieces, "mouths")) == 3000


def test_the_cutter_holds_no_more_than_the_lead():
    cutter = PieceCutter(RATE, 25.0, 24, has_sound=True, has_lips=True, max_lead=5.0)
    held = []
    for _ in range(100):
        cutter.add_sound(np.ones(RATE, np.float32))
        list(cutter.ready())
        held.append(sum(len(part) for part in cutter._sound._parts))
    assert max(held) <= 8 * RATE and cutter._lips[0].end == 0


def test_a_long_pause_of_the_pictures_is_no_jump_when_the_sound_goes_on(tmp_path):
    """A slide that stands for 70 seconds, in a file with sound and in one without."""
    times = [0.0, 0.04, 70.0, 70.04]
    for name, with_sound in (("talk.mkv", True), ("mute.mkv", False)):
        with av.open(str(tmp_path / name), "w") as container:
            video = container.add_stream("mjpeg", rate=25)
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            sound = container.add_stream("pcm_s16le", rate=8000, layout="mono") if with_sound else None
            for second in range(71):
                if sound is not None:
                    frame = av.AudioFrame.from_ndarray(np.ones((1, 8000), np.int16), format="s16", layout="mono")
                    frame.sample_rate, frame.pts, frame.time_base = 8000, second * 8000, Fraction(1, 8000)
                    container.mux(sound.encode(frame))
                for time, picture in zip(times, pictures(4)):
                    if second <= time < second + 1:
                        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                        frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                        container.mux(video.encode(frame))
    with stream(tmp_path / "talk.mkv", frames=1752) as clip:
        assert len(joined(list(clip), "mouths")) == pytest.approx(1752, abs=1)
    assert not any("jumps" in sentence for sentence in clip.report.warnings)
    with stream(tmp_path / "mute.mkv", frames=4) as clip:
        assert len(joined(list(clip), "mouths")) == 4
    assert any("jumps" in sentence for sentence in clip.report.warnings)


def test_read_clip_is_the_stream_in_one_piece(video):
    clip = read_clip(
        {"audio": tone(2.2), "sampling_rate": RATE, "mouths": np.ones((55, 24, 24), np.uint8)},
        "auto",
        RATE,
        PROCESSOR,
    )
    assert clip.modality == "audiovisual" and clip.duration == pytest.approx(2.2)
    assert np.array_equal(clip.audio, tone(2.2)) and clip.mouths.shape == (55, 24, 24)

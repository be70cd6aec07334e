"""Files as they come: late pictures, several tracks, odd channels. Two sentences, read by the packaged checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from transformers import pipeline

import lookhear  # noqa: F401  (registers the task)
from lookhear import cli
from lookhear.processing.avsr import read_audio, read_frames, write_captioned_video, write_video

FIRST, SECOND = "bin blue at f two now", "set red with k nine soon"
RATE = 16000


@dataclass(frozen=True)
class Track:
    """A track to write: a video file, or `(samples,)` or `(channels, samples)` sound, and what headers say of it."""

    content: Path | np.ndarray
    start: float = 0.0  # seconds
    language: str = ""
    default: bool = False


def mux(path: Path, *tracks: Track) -> Path:
    """Writes the tracks in this order, interleaved by time; videos are copied, sound becomes AAC (Matroska: PCM)."""
    packets: list[tuple[float, av.Packet]] = []
    with av.open(str(path), "w") as container:
        for track in tracks:
            if isinstance(track.content, Path):
                with av.open(str(track.content)) as source:
                    stream = container.add_stream_from_template(source.streams.video[0])
                    read = [packet for packet in source.demux(source.streams.video[0]) if packet.dts is not None]
                for packet in read:
                    shift = round(track.start / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
            else:
                wave = np.atleast_2d(track.content)
                codec, layout = "aac" if path.suffix == ".mp4" else "pcm_s16le", ("mono", "stereo")[len(wave) - 1]
                stream, read = container.add_stream(codec, rate=RATE, layout=layout), []
                for first in range(0, wave.shape[1], 1024):
                    part = np.ascontiguousarray(wave[:, first : first + 1024], np.float32)
                    frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
                    frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                    frame.pts = first + round(track.start * RATE)
                    read += stream.encode(frame)
                read += stream.encode(None)
            if track.language:
                stream.metadata["language"] = track.language
            stream.disposition = av.stream.Disposition.default if track.default else av.stream.Disposition(0)
            packets += [(float(packet.dts * packet.time_base), packet) for packet in read]
        for _, packet in sorted(packets, key=lambda entry: entry[0]):
            container.mux(packet)
    return path


@pytest.fixture(scope="module")
def asr(repository):
    checkpoint = repository / "model_cards" / "avsr-grid-tiny"
    return pipeline("audio-visual-speech-recognition", model=str(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, tuple[Path, np.ndarray]]:
    """The two sentences: each a portrait's video of about 3 s, and its sound."""
    from lookhear.training.avsr.synthesis import synthesize_clip

    folder, clips = tmp_path_factory.mktemp("said"), {}
    for seed, text in enumerate((FIRST, SECOND)):
        path = folder / f"{seed}.mp4"
        synthesize_clip(text, path, seed=seed)
        clips[text] = path, read_audio(path)
    return clips


@pytest.fixture(scope="module")
def late(said, tmp_path_factory) -> Path:
    """The sound of both sentences, and from 3 s on the pictures of the second one."""
    sound = np.concatenate([np.pad(said[FIRST][1], (0, 3 * RATE))[: 3 * RATE], said[SECOND][1]])
    return mux(tmp_path_factory.mktemp("late") / "late.mp4", Track(said[SECOND][0], start=3.0), Track(sound))


# ------------------------------------------------------------------------------------------------------- late pictures


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"chunk_length_s": 2.0}, {"chunk_length_s": 30.0}], ids=str)
def test_speech_before_the_first_picture_is_read(asr, late, settings):
    result = asr(str(late), return_timestamps="word", **settings)
    assert result["text"] == f"{FIRST} {SECOND}"
    starts = [chunk["timestamp"][0] for chunk in result["chunks"]]
    assert starts[0] < 0.8 and 3.3 < starts[6] < 3.9
    assert result["report"]["modality"] == "audiovisual" and result["report"]["duration"] > 5.5
    assert [run[0] < 2.9 for run in result["report"]["sound_only"]] == [True]
    assert any("3.0 s before the first picture" in warning for warning in result["report"]["warnings"])


@pytest.mark.slow
def test_late_pictures_on_every_way(asr, late, capsys, tmp_path):
    words = list(asr.stream(str(late)))
    assert " ".join(word["text"] for word in words) == f"{FIRST} {SECOND}" and 3.3 < words[6]["timestamp"][0] < 3.9
    visual = asr(str(late), modality="visual", return_timestamps="word")
    assert visual["text"] == SECOND and 3.3 < visual["chunks"][0]["timestamp"][0] < 3.9
    assert asr(str(late), modality="audio")["text"] == f"{FIRST} {SECOND}"
    everyone = asr(str(late), speaker="everyone", return_timestamps="word")
    assert 3.3 < everyone["speakers"][0]["chunks"][-6]["timestamp"][0] < 3.9
    model = Path(__file__).parents[3] / "model_cards" / "avsr-grid-tiny"
    assert cli.main(["transcribe", str(late), "--model", str(model), "--format", "srt"]) == 0
    cues = capsys.readouterr().out.split("\n\n")
    assert FIRST in cues[0] and SECOND in cues[1] and "\n00:00:03," in cues[1]
    result = asr(str(late), return_timestamps="word")
    burnt = list(read_frames(write_captioned_video(str(late), result, tmp_path / "burnt.mp4")))
    brightness = [
        frame[-len(frame) // 5 :].max() for frame in burnt
    ]  # of the captions; the pictures are black at first
    assert len(burnt) == pytest.approx(25 * 6, abs=8)
    assert min(brightness[10:40]) > 200 and max(brightness[60:70]) < 100


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_pictures_that_are_half_a_second_late(asr, said, tmp_path, suffix):
    video, sound = said[SECOND]
    clip = mux(tmp_path / f"half{suffix}", Track(video, start=0.5), Track(np.pad(sound, (RATE // 2, 0))))
    result = asr(str(clip), return_timestamps="word")
    assert result["text"] == SECOND and 0.8 < result["chunks"][0]["timestamp"][0] < 1.4
    assert 0.8 < asr(str(clip), return_timestamps="word", modality="visual")["chunks"][0]["timestamp"][0] < 1.4


@pytest.mark.slow
def test_a_point_means_a_late_first_picture(asr, late):
    """Where the speaker was seen is listed by the seconds of the file."""
    result = asr(str(late), speaker={"track": [(0, 0, 9999, 9999)] * 75}, return_timestamps="word")
    assert [row["second"] for row in result["report"]["speaker"]["seconds"]] == [3, 4, 5]
    assert result["text"].endswith(SECOND)


# ------------------------------------------------------------------------------------------ tracks, channels and sound


def texts(asr, source, **settings) -> set[str]:
    """What is read short, long, and as a stream."""
    found = {asr(source, **settings)["text"], asr(source, chunk_length_s=2.0, **settings)["text"]}
    return found | {" ".join(word["text"] for word in asr.stream(source, **settings))}


@pytest.mark.slow
def test_the_default_tracks_are_read(asr, said, tmp_path, capsys):
    """A commentary and a screen come first; dialogue and camera are flagged."""
    screen = tmp_path / "screen.mp4"
    write_video(screen, [np.full((96, 128, 3), 200, np.uint8)] * 75, 25)
    (video, dialogue), (_, commentary) = said[SECOND], said[FIRST]
    tracks = [Track(screen), Track(video, default=True)]
    tracks += [Track(commentary, language="eng"), Track(dialogue, language="deu", default=True)]
    clip = str(mux(tmp_path / "tracks.mkv", *tracks))
    assert texts(asr, clip) == {SECOND}
    report = asr(clip)["report"]
    assert report["modality"] == "audiovisual" and any("0 (eng), 1 (deu, default)" in w for w in report["warnings"])
    assert (
        texts(asr, clip, audio_track=0, modality="audio")
        == {FIRST}
        == texts(asr, clip, audio_track="en", video_track=0)
    )
    assert asr(clip, video_track=0)["report"]["modality"] == "audio"
    for options, text in (((), SECOND), (("--audio-track", "eng", "--modality", "audio"), FIRST)):
        assert cli.main(["transcribe", clip, *options]) == 0
        assert capsys.readouterr().out == text + "\n"


@pytest.mark.slow
def test_the_channel_in_which_somebody_speaks(asr, said, tmp_path, capsys):
    speech = said[SECOND][1]
    noise = (0.1 * np.random.default_rng(0).standard_normal(len(speech))).astype(np.float32)
    for name, channels in (("phase", (speech, -speech)), ("noise", (noise, speech)), ("one", (speech, 0 * speech))):
        clip = str(mux(tmp_path / f"{name}.mkv", Track(np.stack(channels))))
        assert texts(asr, clip) == {SECOND}
        assert asr({"audio": np.stack(channels), "sampling_rate": RATE})["text"] == SECOND
        assert cli.main(["transcribe", clip]) == 0 and capsys.readouterr().out == SECOND + "\n"
    both = str(mux(tmp_path / "both.mkv", Track(np.stack([speech, np.resize(said[FIRST][1], len(speech))]))))
    assert texts(asr, both, channel=0) == {SECOND} == texts(asr, both, channel="left")
    assert asr(both, channel=1)["text"].split()[:4] == FIRST.split()[:4]


@pytest.mark.slow
def test_sound_of_a_recorder(asr, said, tmp_path, capsys):
    """The video's own sound is a hum; the recorder was started a second before the camera, or half a second after."""
    video, speech = said[SECOND]
    hum = (0.05 * np.sin(2 * np.pi * 100 * np.arange(len(speech)) / RATE)).astype(np.float32)
    camera = mux(tmp_path / "camera.mp4", Track(video), Track(hum))
    for offset, sound in ((-1.0, np.pad(speech, (RATE, 0))), (0.5, speech[RATE // 2 :]), (0.0, speech)):
        recorder = tmp_path / "recorder.wav"
        soundfile.write(recorder, sound, RATE)
        source = {"video": str(camera), "audio": str(recorder), "audio_offset": offset}
        result = asr(source, return_timestamps="word")
        expected = SECOND if offset <= 0 else result["text"]
        assert texts(asr, source) == {expected} and result["report"]["modality"] == "audiovisual"
        assert result["chunks"][-1]["timestamp"][0] == pytest.approx(2.12, abs=0.25)
        options = ["--audio", str(recorder), f"--audio-offset={offset}"]
        assert cli.main(["transcribe", str(camera), *options]) == 0 and capsys.readouterr().out == expected + "\n"

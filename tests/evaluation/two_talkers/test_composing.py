"""Mixtures hold the right people at the right level, and those who are silent rest."""

import json

import numpy as np
import pytest

from lookhear.evaluation.two_talkers.composing import compose, compose_mixtures, resting_span
from lookhear.evaluation.two_talkers.planning import Mixture
from lookhear.processing.avsr.media_avsr import probe_media, read_audio


def power_at(audio: np.ndarray, hertz: float) -> float:
    """Of the pure tone in the sound."""
    times = np.arange(len(audio)) / 16000
    return float(np.abs(np.mean(audio * np.exp(-2j * np.pi * hertz * times))) ** 2)


def test_people_stand_side_by_side_for_as_long_as_the_target_talks(tone_clips):
    frames, audio = compose(Mixture("m", (tone_clips[3], tone_clips[0], tone_clips[1]), 1, 0.0))
    frames = np.stack(list(frames))
    assert frames.shape == (30, 32, 144, 3) and audio.shape == (19200,) and audio.dtype == np.float32
    grey = frames[:, :, :, 0].reshape(30, 32, 3, 48).mean(axis=(1, 3))  # (frames, people)
    assert np.abs(grey[12] - (160, 60, 100)).max() < 4 or np.abs(grey[12] - (180, 60, 100)).max() < 4
    assert np.abs(grey[2] - (160, 40, 80)).max() < 4
    assert np.abs(grey[21:, 0] - 160).max() < 4  # the first clip is over after 20 frames: its face rests


@pytest.mark.parametrize("snr", [5.0, 0.0, -5.0])
@pytest.mark.parametrize("neighbours", [(1,), (1, 2)])
def test_the_level_is_that_of_the_target_over_all_others(tone_clips, snr, neighbours):
    people = (tone_clips[0], *(tone_clips[number] for number in neighbours))
    _, audio = compose(Mixture("m", people, 0, snr))
    powers = [power_at(audio, 300 + 200 * number) for number in (0, *neighbours)]
    assert 10 * np.log10(powers[0] / sum(powers[1:])) == pytest.approx(snr, abs=0.3)
    assert len(powers) == 2 or powers[1] == pytest.approx(powers[2], rel=0.05)  # however loud the clips are
    assert np.abs(audio).max() <= 0.98 + 1e-6


def test_a_silent_target_rests_and_is_not_heard(tone_clips):
    frames, audio = compose(Mixture("m", (tone_clips[0], tone_clips[1]), 0, None))
    grey = np.stack(list(frames))[:, :, :, 0].reshape(30, 32, 2, 48).mean(axis=(1, 3))
    assert np.abs(grey[:, 0] - 40).max() < 4  # never as bright as with words
    assert grey[:, 1].max() > 95
    assert power_at(audio, 500) > 1000 * power_at(audio, 300)


def test_somebody_out_of_view_is_heard_only(tone_clips):
    frames, audio = compose(Mixture("m", (tone_clips[0],), 0, None, unseen=tone_clips[2]))
    assert next(frames).shape == (32, 48, 3)
    assert power_at(audio, 700) > 1000 * power_at(audio, 300)


def test_neighbours_of_another_size_are_fitted(tone_clips, tmp_path):
    from lookhear.processing.avsr.rendering_avsr import write_video
    from lookhear.training.avsr.corpora import Utterance

    write_video(tmp_path / "big.mp4", [np.full((96, 96, 3), 200, np.uint8)] * 30, 25, np.full(19200, 0.1, np.float32))
    big = Utterance("big", tmp_path / "big.mp4", "set red")
    frames, _ = compose(Mixture("m", (tone_clips[0], big), 0, 0.0))
    assert next(frames).shape == (32, 96, 3)


def test_written_mixtures_are_described_and_not_made_twice(tone_clips, tmp_path):
    mixtures = [
        Mixture("talking-0000", (tone_clips[0], tone_clips[1]), 1, -5.0),
        Mixture("silent-0000", (tone_clips[0],), 0, None, tone_clips[2]),
    ]
    seen = []
    path = compose_mixtures(mixtures, tmp_path, lambda *done: seen.append(done))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert seen == [(1, 2), (2, 2)]
    assert [row["text"] for row in rows] == [tone_clips[1].text, ""]
    assert rows[0]["people"][0] == {"prompt": "the person on the left", "clip": "0", "text": tone_clips[0].text}
    assert (rows[0]["snr"], rows[0]["target"], rows[0]["unseen"]) == (-5.0, 1, None)
    assert (rows[1]["snr"], rows[1]["people"][0]["text"], rows[1]["unseen"]) == (None, "", tone_clips[2].text)
    info = probe_media(tmp_path / "talking-0000.mp4")
    assert (info.width, info.height, info.fps) == (96, 32, 25.0) and info.has_audio
    assert read_audio(tmp_path / "talking-0000.mp4").any()
    made = (tmp_path / "talking-0000.mp4").stat().st_mtime_ns
    compose_mixtures(mixtures, tmp_path)
    assert (tmp_path / "talking-0000.mp4").stat().st_mtime_ns == made
    with pytest.raises(ValueError, match="holds other mixtures"):
        compose_mixtures(mixtures[:1], tmp_path)


@pytest.mark.parametrize(
    "words, seconds, span",
    [
        ([(0.5, 0.7), (0.8, 1.9)], 3.0, (2.0, 3.0)),
        ([(1.5, 1.7), (1.8, 2.9)], 3.0, (0.0, 1.4)),
        ([(0.1, 2.95)], 3.0, (2.96, 3.0)),
        ([], 3.0, (2.96, 3.0)),
    ],
)
def test_a_face_rests_where_there_are_no_words(words, seconds, span):
    rows = [{"word": "x", "start": start, "end": end} for start, end in words]
    assert resting_span(rows, seconds) == pytest.approx(span)


def test_long_clips_and_clips_without_sound_are_refused(tone_clips, tmp_path):
    from dataclasses import replace

    from lookhear.processing.avsr.media_source_avsr import MediaError
    from lookhear.processing.avsr.rendering_avsr import write_video
    from lookhear.training.avsr.corpora import Utterance

    write_video(tmp_path / "mute.mp4", [np.zeros((32, 48, 3), np.uint8)] * 30, 25)
    mute = Utterance("mute", tmp_path / "mute.mp4", "set red")
    with pytest.raises(MediaError, match="has no sound"):
        compose(Mixture("m", (tone_clips[0], mute), 0, 0.0))
    with pytest.raises(ValueError, match="at most 30 s"):
        compose(Mixture("m", (replace(tone_clips[0], start=0.0, end=31.0), tone_clips[1]), 0, 0.0))

"""Words a minute of non-speech: what is made, what is counted, and how it is shown."""

import numpy as np
import pytest

from lookhear.evaluation import non_speech
from lookhear.evaluation.avsr_conditions import Clip
from lookhear.evaluation.non_speech import (
    KINDS,
    LIPS,
    SOUNDS,
    NonSpeechResult,
    evaluate_non_speech,
    format_non_speech,
    mean_rate,
    quiet_clip,
    quiet_sound,
)


@pytest.fixture
def faces():
    mouths = np.random.default_rng(0).integers(0, 255, (50, 8, 8)).astype(np.uint8)
    words = [{"word": "a", "start": 0.6, "end": 1.2}]  # frames 15 to 30
    return [Clip("f", "a", np.ones(32000, np.float32), mouths, words)]


def test_words_are_counted_by_the_minute():
    results = [
        NonSpeechResult("audio", "white", 30.0, ["", "set blue"]),
        NonSpeechResult("audio", "hum", 90.0, ["", "bin"]),
        NonSpeechResult("visual", "listener", 60.0, [""]),
    ]
    assert [result.words_a_minute for result in results] == [4.0, pytest.approx(2 / 3), 0.0]
    assert mean_rate(results, "audio") == pytest.approx(1.5)  # three words in two minutes
    row = results[0].to_dict()
    assert (row["words"], row["clips"], row["clips_with_words"]) == (2, 2, 1)
    lines = format_non_speech(results).splitlines()
    assert lines[1].split() == ["white", "4.0", "-"] and lines[-1].split() == ["all", "kinds", "1.5", "0.0"]
    assert format_non_speech(results, markdown=True).splitlines()[2] == "| white | 4.0 | - |"


@pytest.mark.parametrize("kind", SOUNDS)
def test_each_sound_is_what_its_name_says(kind):
    voices = [np.random.default_rng(i).standard_normal(8000) for i in range(3)]
    wave = quiet_sound(kind, 16000, voices, np.random.default_rng(1))
    level = 20 * np.log10(max(float(np.sqrt(np.mean(np.square(wave)))), 1e-9))
    assert wave.shape == (16000,) and wave.dtype == np.float32
    low, high = {"silence": (-181, -179), "dither": (-93, -91), "babble": (-41, -39)}.get(kind, (-51, -19))
    assert low <= level <= high
    if kind == "tone":
        spectrum = np.abs(np.fft.rfft(wave))
        assert spectrum.max() ** 2 > 0.98 * (spectrum**2).sum()


def test_lips_hold_still_rest_and_nod(faces):
    still = quiet_clip("still face", "visual", 0, [], faces, 0).mouths
    rest = quiet_clip("resting face", "visual", 0, [], faces, 0).mouths
    assert len(still) == len(rest) == 75 and (still == still[0]).all() and not (rest == rest[0]).all()
    quiet = {picture.tobytes() for picture in np.concatenate([faces[0].mouths[:13], faces[0].mouths[33:]])}
    assert {picture.tobytes() for picture in rest} <= quiet  # none of the pictures with words
    nod = quiet_clip("listener", "visual", 1, [], faces, 0).mouths
    assert len(nod) == 175 and not {picture.tobytes() for picture in nod} <= quiet
    both = quiet_clip("hum", "audiovisual", 0, [], faces, 0)
    assert len(both.audio) == 48000 and len(both.mouths) == 75
    again = quiet_clip("hum", "audiovisual", 0, [], faces, 0)
    assert np.array_equal(again.audio, both.audio) and np.array_equal(again.mouths, both.mouths)


def test_every_kind_is_read_in_the_modalities_that_it_has(faces, monkeypatch):
    class Silent:
        def __init__(self, *args, **kwargs):
            self.image_processor = None

        def __call__(self, clips, modality, progress):
            return [{"text": "one word" if clip.id == "tone 1" else ""} for clip in clips]

    monkeypatch.setattr(non_speech, "Recogniser", Silent)
    monkeypatch.setattr(non_speech, "load_clips", lambda *args, **kwargs: [faces[0], faces[0]])
    results = evaluate_non_speech("model", "data", clips=2)
    read = {modality: [r.kind for r in results if r.modality == modality] for modality in ("audio", "visual")}
    assert read == {"audio": list(SOUNDS), "visual": list(LIPS)} and len(results) == len(SOUNDS + LIPS + KINDS)
    assert all(result.seconds == 10.0 for result in results)
    assert mean_rate(results, "audio") == pytest.approx(60 * 2 / (10 * len(SOUNDS)))
    with pytest.raises(ValueError, match="modality 'lips' is unknown"):
        evaluate_non_speech("model", "data", modalities=["lips"])

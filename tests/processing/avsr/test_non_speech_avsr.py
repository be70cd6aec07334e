"""No speech, no words: silent sound, pictures that stand still, words that are too unsure, in short and long clips."""

import math

import numpy as np
import pytest
import torch

from lookhear.processing.avsr import (
    AudioVisualSpeechRecognitionPipeline,
    AvsrFeatureExtractor,
    AvsrProcessor,
    AvsrTokenizer,
    MouthRoiImageProcessor,
)
from lookhear.processing.avsr.alignment_avsr import TimedText
from lookhear.processing.avsr.clip_report_avsr import is_silent, mouth_motion, stands_still
from lookhear.processing.avsr.recognition_avsr import LeftOut, SpeakerWords, note_doubt

from .test_pipeline import ROI, lips, make_model, sound

LONG = {"chunk_length_s": 2}


@pytest.fixture(scope="module")
def asr() -> AudioVisualSpeechRecognitionPipeline:
    images = MouthRoiImageProcessor(roi_size=ROI, crop_size=20, mouth_width=12.0)
    processor = AvsrProcessor(AvsrFeatureExtractor(), images, AvsrTokenizer())
    model = make_model()
    letter = processor.tokenizer("A").input_ids[0]
    with torch.no_grad():  # a model that hears something everywhere
        for head in (model.ctc_head, model.decoder_head):
            head.output.bias[letter] += 4.0
    return AudioVisualSpeechRecognitionPipeline(model, processor=processor, device="cpu", num_beams=2)


@pytest.fixture
def face():
    """A smooth picture of 48 pixels: a dark mouth on a bright cheek, lit from one side."""
    y, x = np.mgrid[:48, :48]
    mouth = np.exp(-(((x - 24) / 12) ** 2) - ((y - 26) / 4) ** 2)
    return 170 - 90 * mouth + 0.6 * x


def frames_of(pictures) -> np.ndarray:
    return np.clip(np.round(np.stack(list(pictures))), 0, 255).astype(np.uint8)


def shifted(picture: np.ndarray, across: float) -> np.ndarray:
    place = np.arange(48) - across
    return np.stack([np.interp(place, np.arange(48), row) for row in picture])


def speaking(picture: np.ndarray, frames: int) -> np.ndarray:
    y, x = np.mgrid[:48, :48]
    opening = np.exp(-(((x - 24) / 9) ** 2) - ((y - 28) / 5) ** 2)
    return frames_of(picture - 120 * max(0.0, math.sin(frame / 2)) * opening for frame in range(frames))


def test_motion_is_what_remains_of_shifts_light_and_grain(face):
    generator = np.random.default_rng(0)
    assert mouth_motion(frames_of([face] * 20)) == 0.0
    light = mouth_motion(frames_of(face * (1 + 0.1 * math.sin(n)) + 5 * math.cos(n) for n in range(30)))
    shift = mouth_motion(frames_of(shifted(face, 0.6 * math.sin(n)) for n in range(30)))
    grain = mouth_motion(frames_of(face + generator.normal(0, 2, face.shape) for _ in range(30)))
    talk = mouth_motion(speaking(face, 30))
    assert max(light, shift) < 0.03 and grain < 0.06 and talk > 0.15


def test_a_photo_stands_still_and_a_talker_does_not(face):
    generator = np.random.default_rng(1)
    photo = frames_of(shifted(face, 0.4 * math.sin(n / 3)) + generator.normal(0, 2, face.shape) for n in range(40))
    talk = speaking(face, 40)
    assert stands_still(photo, None) and not stands_still(talk, None)
    assert not stands_still(photo[:19], None)  # too short to say
    assert not stands_still(photo[:, 20:30, 20:30], None) and not stands_still(np.full_like(photo, 7), None)
    seen = np.arange(40) < 20
    half = np.concatenate([photo[:20], talk[20:]])
    assert stands_still(half, seen) and not stands_still(half, None)  # only where the face was seen
    dim = (0.15 * talk + 20).astype(np.uint8)
    assert not stands_still(dim, None)  # lips in the dark move little in grey levels


def test_silence_is_a_level():
    assert is_silent(np.zeros(99, np.float32)) and is_silent(np.full(99, 10**-3.6, np.float32))  # -72 dBFS
    assert not is_silent(np.full(99, 10**-3.4, np.float32)) and is_silent(np.zeros(0, np.float32))


# ------------------------------------------------------------------------------------------- clips short and long


@pytest.mark.parametrize("settings", [{}, LONG])
@pytest.mark.parametrize("modality", ["auto", "audio"])
def test_silent_sound_says_nothing(asr, modality, settings):
    silence = {"audio": np.random.default_rng(0).integers(-1, 2, 3 * 16000) / 32768, "sampling_rate": 16000}
    result = asr(silence, modality=modality, return_timestamps="word", **settings)
    assert (result["text"], result["chunks"], result["alternatives"]) == ("", [], [])
    assert result["confidence"] == 1.0 and result["report"]["duration"] == 3.0
    assert result["report"]["modality"] == ""
    assert any(warning.startswith("nothing was read: the sound is silent") for warning in result["report"]["warnings"])


@pytest.mark.parametrize("settings", [{}, LONG])
def test_a_still_picture_is_no_lips(asr, settings):
    still = np.repeat(lips(1)["mouths"], 75, axis=0)
    heard = asr(sound(3.0), **settings)
    both = asr({**sound(3.0), "mouths": still}, **settings)
    assert (both["text"], both["confidence"]) == (heard["text"], heard["confidence"])
    assert both["report"]["modality"] == "audio"
    assert any("the picture stands still" in warning for warning in both["report"]["warnings"])
    for modality in ("auto", "visual"):
        alone = asr({"mouths": still}, modality=modality, **settings)
        assert (alone["text"], alone["confidence"], alone["report"]["modality"]) == ("", 1.0, "")
        assert "nothing was read: the picture stands still" in alone["report"]["warnings"]
    moving = asr({**sound(3.0), **lips(75)}, **settings)
    assert moving["report"]["modality"] == "audiovisual"


@pytest.mark.parametrize("settings", [{}, LONG])
def test_unsure_words_are_left_out_and_reported(asr, settings):
    kept = asr(sound(3.0), speech_confidence=0.0, **settings)
    gated = asr(sound(3.0), speech_confidence=1.0, **settings)
    assert kept["text"] and "left_out" not in kept["report"]
    assert gated["text"] == "" and gated["chunks"] == []
    parts = gated["report"]["left_out"]
    assert sum(part["words"] for part in parts) == len(kept["text"].split())
    assert all(0 <= part["timestamp"][0] <= part["timestamp"][1] <= 3.0 and part["needed"] == 1.0 for part in parts)
    assert any(warning.startswith("probably no speech: ") for warning in gated["report"]["warnings"])
    if not settings:
        assert gated["confidence"] == pytest.approx(1 - kept["confidence"], abs=2e-4)


def test_a_stream_has_the_same_gate(asr):
    with asr.stream(sound(3.0), speech_confidence=1.0, **LONG) as speech:
        assert list(speech) == [] and speech.to_report()["left_out"]


def test_thresholds_are_the_checkpoints(asr, monkeypatch):
    monkeypatch.setattr(asr.model.generation_config, "speech_confidence", {"audio": 1.0, "visual": 0.0}, raising=False)
    monkeypatch.setattr(asr.model.generation_config, "doubt_confidence", 1.0, raising=False)
    assert asr(sound())["text"] == "" and asr(sound(), speech_confidence=0.0)["text"]
    seen = asr(lips())
    assert seen["text"] and any("the model does not know" in warning for warning in seen["report"]["warnings"])
    with pytest.raises(ValueError, match="`speech_confidence` must be a number from 0 to 1, not 2"):
        asr(sound(), speech_confidence=2)


def test_clips_without_anything_share_a_batch_with_others(asr):
    silence = {"audio": np.zeros(16000, np.float32), "sampling_rate": 16000}
    alone = [asr(clip) for clip in (sound(), silence, lips())]
    together = asr([sound(), silence, lips()], batch_size=3)
    assert [result["text"] for result in together] == [result["text"] for result in alone]
    assert together[1]["text"] == "" and together[1]["confidence"] == 1.0


def test_steps_of_transformers_take_silence(asr):
    silence = {"audio": np.zeros(16000, np.float32), "sampling_rate": 16000}
    with torch.inference_mode():
        outputs = asr.forward(asr.preprocess(silence))
    assert outputs["ids"].shape == (1, 1, 0) and asr.postprocess(outputs)["text"] == ""


# ------------------------------------------------------------------------------------------------------- the words


def test_confidence_of_nothing():
    letters = [TimedText("a", 0.0, 0.1, 0.5), TimedText("b", 0.1, 0.2, 0.125)]
    assert SpeakerWords(letters).confidence(-1.0) == 0.25  # the geometric mean
    assert SpeakerWords().confidence(math.log(0.7)) == 0.7  # CTC's silence
    assert SpeakerWords(left_out=LeftOut(0.0, 1.0, 2, 0.2, 0.3)).confidence(-9.0) == 0.8
    assert SpeakerWords(others=letters, evidence=0.1).confidence(-9.0) == 0.9


def test_reports_say_how_much_and_why():
    report = {"warnings": ["dark"]}
    assert note_doubt(report, [], 0.6, 0.5) == report and note_doubt(report, [], None, 0.5) == report
    parts = [LeftOut(0.5, 1.25, 3, 0.2, 0.3).moved(1.0), LeftOut(4.0, 4.5, 1, 0.1, 0.4)]
    noted = note_doubt(report, parts, 0.45, 0.5)
    assert noted["left_out"][0] == {"timestamp": [1.5, 2.25], "words": 3, "confidence": 0.2, "needed": 0.3}
    assert noted["warnings"] == [
        "dark",
        "probably no speech: 4 words of confidence 0.20 at most, below 0.40, left out (1.5 to 2.2 s, 4.0 to 4.5 s)",
        "the confidence is low (0.45): these may be words that the model does not know",
    ]
    assert report == {"warnings": ["dark"]}

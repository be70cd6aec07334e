"""Long clips through the pipeline: in chunks, as a stream, beside short ones; with a small random model."""

import numpy as np
import pytest
import torch

from lookhear import AudioVisualSpeechRecognitionPipeline
from lookhear.modeling.avsr import AvsrForConditionalGeneration

from .test_pipeline import ROI, heard, lips, make_model, processor, sound  # noqa: F401

FAST = {"num_beams": 1, "ctc_weight": 1.0}  # CTC's best path: a random model says something


def talkative_model() -> AvsrForConditionalGeneration:
    model = make_model()
    with torch.no_grad():
        model.ctc_head.output.weight.mul_(20)
    model.generation_config.lip_evidence = 0.0  # lips and sound of a random model agree on nothing
    return model


@pytest.fixture(scope="module")
def asr(processor) -> AudioVisualSpeechRecognitionPipeline:  # noqa: F811
    return AudioVisualSpeechRecognitionPipeline(talkative_model(), processor=processor, device="cpu", **FAST)


def long_clip(seconds: float = 9.0) -> dict:
    """Bursts of noise with pauses of digital silence, and lips that move with them."""
    clip = {**sound(seconds), **lips(round(25 * seconds))}
    for second in range(2, int(seconds), 3):
        clip["audio"][second * 16000 : second * 16000 + 12000] = 0
        clip["mouths"][second * 25 : second * 25 + 19] = 128
    return clip


@pytest.mark.parametrize("chunk_length_s", [3, 12.5])
def test_a_chunk_as_long_as_the_clip_changes_nothing(asr, chunk_length_s):
    clip = {**sound(3.0), **lips(75)}
    settings = {"return_timestamps": "char", "num_beams": 3, "num_return_sequences": 3, "ctc_weight": 0.3}
    assert asr(clip, chunk_length_s=chunk_length_s, **settings) == asr(clip, **settings)


@pytest.mark.parametrize("modality", ["auto", "audio", "visual"])
@pytest.mark.parametrize("timestamps", ["word", "char"])
def test_a_long_clip_has_the_result_of_a_short_one(asr, modality, timestamps):
    result = asr(long_clip(), chunk_length_s=2, modality=modality, return_timestamps=timestamps)
    short = asr({**sound(), **lips()}, modality=modality)
    assert set(result) == set(short) and set(result["report"]) == {*short["report"], "sound_only"}
    assert result["report"]["duration"] == 9.0 and result["alternatives"] == []
    assert result["report"]["modality"] == {"auto": "audiovisual"}.get(modality, modality)
    assert not any("sound" in warning for warning in result["report"]["warnings"])
    assert 0 < result["confidence"] <= 1
    assert ("" if timestamps == "char" else " ").join(c["text"] for c in result["chunks"]) == result["text"] != ""
    assert result["text"] == " ".join(result["text"].split())
    times = [time for chunk in result["chunks"] for time in chunk["timestamp"]]
    assert times == sorted(times) and 0 <= times[0] and times[-1] <= 9.0


def test_words_and_characters_of_a_stream_are_those_of_the_call(asr):
    for timestamps in ("word", "char"):
        settings = {"chunk_length_s": 2, "return_timestamps": timestamps}
        with asr.stream(long_clip(), **settings) as speech:
            assert speech.duration == 9.0 and speech.position == 0.0
            chunks = list(speech)
        result = asr(long_clip(), **settings)
        assert chunks == result["chunks"]
        assert speech.to_report() == result["report"]
        assert speech.position == 9.0 and speech.confidence == result["confidence"]


def test_a_stream_gives_words_before_it_has_read_all(asr):
    speech = asr.stream(long_clip(30), chunk_length_s=2)
    word = next(speech)
    assert set(word) == {"text", "timestamp", "confidence"} and speech.position < 15
    speech.close()


def test_settings_of_the_pipeline_are_settings_of_its_streams(processor):  # noqa: F811
    settings = {**FAST, "chunk_length_s": 2, "modality": "audio"}
    given = AudioVisualSpeechRecognitionPipeline(talkative_model(), processor=processor, device="cpu", **settings)
    plain = AudioVisualSpeechRecognitionPipeline(talkative_model(), processor=processor, device="cpu")
    assert list(given.stream(long_clip())) == list(plain.stream(long_clip(), **settings))
    assert heard(given(long_clip())) == heard(plain(long_clip(), **settings))


def test_the_checkpoint_may_say_how_long_chunks_are(processor):  # noqa: F811
    model = talkative_model()
    model.generation_config.chunk_length_s = 2
    asr = AudioVisualSpeechRecognitionPipeline(model, processor=processor, device="cpu", **FAST)
    assert asr(long_clip()) == asr(long_clip(), chunk_length_s=2)
    assert "sound_only" not in asr(long_clip(), chunk_length_s=20)["report"]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_long_and_short_clips_together(asr, batch_size):
    clips = [sound(0.5), long_clip(), lips(20), long_clip(5), sound(0.3, 2)]
    settings = {"chunk_length_s": 2, "return_timestamps": "word"}
    together = asr(clips, batch_size=batch_size, **settings)
    alone = [asr(clip, **settings) for clip in clips]
    assert [heard(result) for result in together] == [heard(result) for result in alone]
    lazily = list(asr((clip for clip in clips), batch_size=batch_size, **settings))
    assert [heard(result) for result in lazily] == [heard(result) for result in alone]


def test_a_minute_of_silence_has_no_words(asr):
    silence = {"audio": np.zeros(16000 * 60, np.float32), "sampling_rate": 16000}
    result = asr(silence, return_timestamps="word")
    assert (result["text"], result["chunks"]) == ("", [])
    assert any("silent" in warning for warning in result["report"]["warnings"])


def test_silent_sound_leaves_the_lips(asr):
    clip = {**lips(150), "audio": np.zeros(16000 * 6, np.float32), "sampling_rate": 16000}
    result = asr(clip, chunk_length_s=2)
    assert result["report"]["modality"] == "visual" and result["text"]


def test_sound_that_ends_is_said(asr):
    clip = {**sound(4.0), **lips(225)}
    warnings = asr(clip, chunk_length_s=2)["report"]["warnings"]
    assert any("without sound were read from lips only" in warning for warning in warnings)


def test_alternatives_of_a_long_clip_are_missed_aloud(asr):
    report = asr(long_clip(5), chunk_length_s=2, num_beams=2, num_return_sequences=2)["report"]
    assert any("no alternatives" in warning for warning in report["warnings"])


@pytest.mark.parametrize("value", [0, 1.9, -3, "long", True, float("nan"), float("inf")])
def test_a_chunk_must_hold_a_phrase(asr, value):
    for read in (asr, asr.stream):
        with pytest.raises(ValueError, match=r"`chunk_length_s` must be .* 2 or more"):
            read(sound(), chunk_length_s=value)


def test_a_stream_checks_what_a_call_checks(asr):
    for arguments in ({"colour": "red"}, {"modality": "smell"}, {"num_beams": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            asr.stream(sound(), **arguments)
    with pytest.raises(ValueError, match="does not exist"):
        asr.stream("no_such_file.mp4")
    with pytest.raises(ValueError, match="there is no video"):
        list(asr.stream(sound(9.0), modality="visual"))

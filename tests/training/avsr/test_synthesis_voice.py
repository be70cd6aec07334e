"""The voice, its times, and what the articulators do with them."""

import sys

import numpy as np
import pytest

from lookhear.training.avsr.synthesis import visemes
from lookhear.training.avsr.synthesis.voice import (
    MAX_CHARACTERS,
    SAMPLING_RATE,
    VOICES,
    Phoneme,
    speak,
)


def test_words_and_phonemes_are_in_order_and_inside_the_sound():
    speech = speak("The cat's out, and 21 of the dogs too!")
    assert [word.word for word in speech.words] == ["The", "cat's", "out", "and", "21", "of", "the", "dogs", "too"]
    starts = [word.start for word in speech.words]
    assert starts == sorted(starts) and all(word.start < word.end for word in speech.words)
    assert speech.words[-1].end <= speech.duration
    assert all(a.end == b.start for a, b in zip(speech.phonemes, speech.phonemes[1:]))
    pause = speech.words[3].start - speech.words[2].end
    assert pause > 0.1, "the comma's pause belongs to no word"


def test_sound_is_where_the_words_are():
    speech = speak("Stop. Go")
    (_, end), (start, _) = ((word.start, word.end) for word in speech.words)
    gap = speech.audio[int((end + 0.06) * SAMPLING_RATE) : int((start - 0.06) * SAMPLING_RATE)]
    assert len(gap) > 800 and np.abs(gap).max() < 0.1 * np.abs(speech.audio).max()


def test_each_word_of_a_grid_sentence_has_a_time_of_its_own():
    for text in ("set red at a two soon", "place blue in o one again", "bin white by z nine please"):
        words = speak(text, rate=130).words
        assert [word.word for word in words] == text.split()
        assert all(0.06 < word.end - word.start < 0.9 for word in words)
        assert all(a.end == b.start for a, b in zip(words, words[1:]))


@pytest.mark.parametrize("voice", VOICES)
def test_voices_speak_and_do_not_depend_on_what_was_said_before(voice):
    first = speak("place red at a two soon", voice)
    speak("something else", "en-us")
    again = speak("place red at a two soon", voice)
    np.testing.assert_array_equal(first.audio, again.audio)
    assert 1.0 < first.duration < 3.0 and 0.02 < np.sqrt(np.mean(first.audio**2)) < 0.3
    assert any(phoneme.symbol.startswith("e") for phoneme in first.phonemes), "the letter's name, not the article"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "  "}, "empty"),
        ({"text": "... -- !"}, "nothing in the text"),
        ({"text": "a" * (MAX_CHARACTERS + 1)}, "split it"),
        ({"text": "hi", "voice": "nobody"}, "en-gb-scotland"),
        ({"text": "hi", "voice": "en-us+nobody"}, "en-gb-scotland"),
        ({"text": "hi", "rate": 5}, "rate is 5"),
        ({"text": "hi", "pitch": 101}, "pitch is 101"),
    ],
)
def test_one_clear_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        speak(**arguments)


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r"lookhear\[demo\]"):
        speak("hello")


@pytest.mark.parametrize(("symbol", "sounds"), [("aɪ", "aɪ"), ("tʃ", "ʃ"), ("uː", "u"), ("ɑːɹ", "ɑɹ"), ("??", "ə")])
def test_split_symbol(symbol, sounds):
    assert "".join(visemes.split_symbol(symbol)) == sounds


def _video_frames(symbols, fps=25.0, length=0.12):
    phonemes = [Phoneme(s, 0.3 + i * length, 0.3 + (i + 1) * length) for i, s in enumerate(symbols)]
    duration = 0.6 + length * len(symbols)
    return visemes.sample_track(visemes.articulate(phonemes, duration), int(duration * fps), fps)


@pytest.mark.parametrize("offset", [0.0, 0.01, 0.02, 0.03])
@pytest.mark.parametrize("consonant", ["b", "p", "m"])
def test_lips_close_in_a_video_frame_wherever_the_sound_falls(consonant, offset):
    phonemes = [
        Phoneme(s, 0.3 + offset + 0.06 * i, 0.36 + offset + 0.06 * i) for i, s in enumerate(["ɑ", consonant, "ɑ"])
    ]
    frames = visemes.sample_track(visemes.articulate(phonemes, 0.9), 22, 25.0)
    assert frames[:, visemes.CLOSED].max() > 0.9
    assert frames[0, visemes.CLOSED] == 0 and frames[:, visemes.JAW].max() > 0.5


def test_sounds_differ_as_lips_do():
    def reached(symbol, column):
        return _video_frames(["ə", symbol, "ə"])[:, column].max()

    assert reached("f", visemes.BITE) > 0.9 > 0.1 > reached("s", visemes.BITE)
    assert reached("u", visemes.ROUND) > 0.6 > 0.2 > reached("iː", visemes.ROUND)
    assert reached("iː", visemes.SPREAD) > 0.5
    assert reached("ɑː", visemes.JAW) > reached("ɛ", visemes.JAW) > reached("uː", visemes.JAW)
    assert reached("θ", visemes.ADVANCE) > 0.5 > 0.1 > reached("t", visemes.ADVANCE)


def test_neighbours_colour_a_sound():
    before_u, before_i = (_video_frames(["s", vowel]) for vowel in ("uː", "iː"))
    during_s = int((0.3 + 0.08) * 25)
    assert before_u[during_s, visemes.SPREAD] < before_i[during_s, visemes.SPREAD] - 0.1


def test_track_is_smooth_and_rests_in_silence():
    track = visemes.articulate(speak("well, maybe five").phonemes, 3.0)
    assert np.abs(np.diff(track, axis=0)).max() < 0.25
    np.testing.assert_allclose(track[-20:], 0.0, atol=0.02)

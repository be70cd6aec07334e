"""Lips moved by a recorded voice: the forms of its phones, their visemes, and what is refused."""

import json

import numpy as np
import pytest
import soundfile

from lookhear.training.avsr.synthesis import load_recording, render_clip, synthesize_recordings
from lookhear.training.avsr.synthesis.visemes import CLOSED, JAW, articulate

PHONES = [["SIL", 0.0, 0.3], ["B", 0.3, 0.4], ["AA1", 0.4, 0.6], ["CH", 0.6, 0.7], ["sil", 0.7, 1.0]]


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "voice.wav"
    soundfile.write(path, 0.1 * np.sin(np.arange(24000) / 20), 24000)
    return path


def test_all_forms_say_the_same(tmp_path, sound):
    whole = {"phones": PHONES, "words": [{"word": "botch", "start": 0.3, "end": 0.7}], "text": "botch"}
    forms = {
        "list.json": json.dumps(PHONES),
        "whole.json": json.dumps(whole),
        "metadata.jsonl": json.dumps({"file_name": "other.wav"})
        + "\n"
        + json.dumps({"file_name": sound.name, **whole}),
        "lines.txt": "\n".join(f"{start} {end} {name}" for name, start, end in PHONES),
    }
    found = []
    for name, content in forms.items():
        (tmp_path / name).write_text(content)
        found.append(load_recording(sound, tmp_path / name))
    assert all(one.speech.phonemes == found[0].speech.phonemes for one in found)
    assert [one.text for one in found] == ["", "botch", "botch", ""] and len(found[0].speech.audio) == 16000
    symbols = [phoneme.symbol for phoneme in found[0].speech.phonemes]
    assert symbols == ["", "b", "ɑ", "tʃ", ""] and found[1].speech.words[0].word == "botch"


def test_lips_close_for_b_and_open_for_the_vowel(tmp_path, sound):
    (tmp_path / "p.json").write_text(json.dumps(PHONES))
    track = articulate(load_recording(sound, tmp_path / "p.json").speech.phonemes, 1.0)  # 200 a second
    assert track[60:80, CLOSED].max() > 0.95 and track[95:110, CLOSED].max() < 0.05
    assert track[95:110, JAW].mean() > 0.6 and track[:40, JAW].max() < 0.1


@pytest.mark.parametrize(
    ("phones", "message"),
    [
        ([["QQ", 0, 1]], "neither ARPABET nor IPA"),
        ([["AA", 0.5, 0.2]], "not in order"),
        ([["AA", 0, 9]], "don't belong"),
        ([["SIL", 0, 1]], "nothing but pauses"),
        ([["AA", "x", 1]], "not \\[phone, start, end\\]"),
        ({"words": []}, "lists no phones"),
    ],
)
def test_unusable_phones_are_refused(tmp_path, sound, phones, message):
    (tmp_path / "p.json").write_text(json.dumps(phones))
    with pytest.raises(ValueError, match=message):
        load_recording(sound, tmp_path / "p.json")


def test_missing_files_are_named(tmp_path, sound):
    with pytest.raises(ValueError, match="p.json is not a file"):
        load_recording(sound, tmp_path / "p.json")
    (tmp_path / "m.jsonl").write_text(json.dumps({"file_name": "else.wav", "phones": PHONES}))
    with pytest.raises(ValueError, match="no line whose file_name is voice.wav"):
        load_recording(sound, tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match="text is None"):
        render_clip(None)


@pytest.mark.slow
def test_a_recording_gets_a_face(tmp_path, sound):
    (tmp_path / "p.json").write_text(json.dumps({"phones": PHONES, "text": "botch"}))
    recording = load_recording(sound, tmp_path / "p.json")
    frames, audio, words = render_clip(None, recording=recording, size=(180, 144), seed=3)
    pictures = list(frames)
    assert len(pictures) == 25 and len(audio) == 16000 and words == []
    assert np.corrcoef(audio, recording.speech.audio)[0, 1] > 0.99  # heard as it is
    lips = np.stack(pictures)[:, 90:120, 60:120].astype(float)
    moved = np.abs(np.diff(lips, axis=0)).mean((1, 2, 3))
    assert moved[8:17].max() > 2 * moved[:6].max()  # still before the first sound


@pytest.mark.slow
def test_a_folder_of_recordings_becomes_a_corpus(tmp_path, sound):
    rows = [{"file_name": sound.name, "speaker": "ann", "text": "botch", "phones": PHONES, "words": []}]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    index = synthesize_recordings(tmp_path, tmp_path / "out", 2, portraits=("hopper",), size=(120, 96))
    (row,) = [json.loads(line) for line in index.read_text().splitlines()]
    assert (row["speaker"], row["text"], row["portrait"]) == ("hopper ann", "botch", "hopper")
    assert (index.parent / row["file_name"]).stat().st_size > 1000
    with pytest.raises(ValueError, match="has no metadata.jsonl"):
        synthesize_recordings(tmp_path / "out" / "none", tmp_path / "out")

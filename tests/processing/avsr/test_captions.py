"""Caption writers: formats, escaping, line and cue breaks, atomic writing."""

import json
import os

import numpy as np
import pytest

from lookhear.processing.avsr.captions_avsr import (
    Word,
    break_lines,
    format_captions,
    make_cues,
    make_sentences,
    words_of,
    write_captions,
)
from lookhear.processing.avsr.everyone_avsr import together

FACTS = {"source": "clip.mp4", "modality": "audio", "duration": 6.0, "warnings": []}


def result_of(words: list[tuple[str, float, float]]) -> dict:
    return {
        "text": " ".join(word for word, *_ in words),
        "confidence": 0.9,
        "chunks": [{"text": w, "timestamp": (s, e), "confidence": 0.5} for w, s, e in words],
        "alternatives": [],
        "report": {"yaw": float("nan"), "frames": np.int64(75), "runs": np.array([[0.0, 1.0]]), **FACTS},
    }


@pytest.fixture
def result() -> dict:
    return result_of([("LAY", 0.5, 0.75), ("BLUE", 0.8, 1.0), ("NOW", 3661.2, 3661.9)])


def test_txt(result):
    assert format_captions(result, "txt") == "LAY BLUE NOW\n"


def test_srt(result):
    assert format_captions(result, "srt") == (
        "1\n00:00:00,500 --> 00:00:01,500\nLAY BLUE\n\n2\n01:01:01,200 --> 01:01:02,200\nNOW\n\n"
    )


def test_vtt(result):
    assert format_captions(result, "vtt") == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.500\nLAY BLUE\n\n01:01:01.200 --> 01:01:02.200\nNOW\n\n"
    )


def test_tsv(result):
    rows = [line.split("\t") for line in format_captions(result, "tsv").splitlines()]
    assert rows[0] == ["start", "end", "text", "confidence"]
    assert rows[1] == ["500", "750", "LAY", "0.5000"]
    assert len(rows) == 4


def test_json_is_plain_and_has_no_nan(result):
    loaded = json.loads(format_captions(result, "json"), parse_constant=pytest.fail)
    assert loaded["report"] == {"yaw": None, "frames": 75, "runs": [[0.0, 1.0]], **FACTS}
    assert loaded["chunks"][0] == {"text": "LAY", "timestamp": [0.5, 0.75], "confidence": 0.5}


def test_markup_in_the_text_stays_text():
    result = result_of([("<i>A&B</i>", 0, 1), ("-->", 1, 2), ("tab\there\n\n", 2, 3)])
    assert "&lt;i&gt;A&amp;B&lt;/i&gt; --&gt; tab here\n" in format_captions(result, "vtt")
    srt = format_captions(result, "srt")
    assert srt.count("-->") == 1
    assert "<" not in srt
    assert srt.count("\n\n") == 1
    assert all(line.count("\t") == 3 for line in format_captions(result, "tsv").splitlines())


def test_characters_are_put_together():
    chunks = [("A", 0.0, 0.1), ("N", 0.1, 0.2), (" ", 0.2, 0.3), ("I", 0.3, 0.5)]
    assert words_of(result_of(chunks)) == [Word("AN", 0.0, 0.2), Word("I", 0.3, 0.5)]


def test_long_speech_becomes_readable_cues():
    words = [Word("WORD" + "S" * (i % 5), 0.3 * i, 0.3 * i + 0.25) for i in range(100)]
    cues = make_cues(words)
    assert [word for cue in cues for line in cue.lines for word in line.split()] == [word.text for word in words]
    assert all(len(cue.lines) <= 2 and max(map(len, cue.lines)) <= 42 for cue in cues)
    assert all(cue.end - cue.start <= 6.0 for cue in cues)
    assert all(before.end <= after.start for before, after in zip(cues, cues[1:]))


def test_a_pause_ends_a_cue_and_a_short_cue_stays():
    first, second = make_cues([Word("ONE", 0.0, 0.2), Word("TWO", 5.0, 5.2)])
    assert (first.start, first.end) == (0.0, 1.0)
    assert (second.start, second.end) == (5.0, 6.0)
    close, _ = make_cues([Word("ONE", 0.0, 0.2), Word("TWO", 0.6, 0.7)], pause_seconds=0.3)
    assert close.end == 0.6


def test_lines_are_even():
    assert break_lines("the quick brown fox jumps over the lazy dog again".split()) == [
        "the quick brown fox jumps",
        "over the lazy dog again",
    ]
    assert break_lines(["X" * 50, "A"], 42) == ["X" * 50, "A"]


def test_no_words_no_cues():
    empty = {"text": "", "chunks": []}
    assert format_captions(empty, "srt") == ""
    assert format_captions(empty, "vtt") == "WEBVTT\n\n"


def test_missing_times_and_unknown_formats_are_named():
    with pytest.raises(ValueError, match="return_timestamps"):
        format_captions({"text": "HELLO", "chunks": []}, "srt")
    with pytest.raises(ValueError, match="txt, srt, vtt, tsv, json"):
        format_captions({"text": "HELLO"}, "docx")


def test_file_is_written_whole_or_not_at_all(result, tmp_path):
    path = tmp_path / "deep" / "clip.srt"
    assert write_captions(result, path) == path
    before = path.read_text(encoding="utf-8")
    with pytest.raises(ValueError):
        write_captions({"text": "HELLO", "chunks": []}, path)
    assert path.read_text(encoding="utf-8") == before
    write_captions(result, path, format="txt")
    assert path.read_text(encoding="utf-8") == "LAY BLUE NOW\n"
    assert os.listdir(path.parent) == ["clip.srt"]


# -------------------------------------------------------------------------------------------------- several speakers


@pytest.fixture
def dialogue() -> dict:
    one = result_of([("LAY", 0.5, 0.75), ("BLUE", 0.8, 1.0)]) | {"speaker": "Speaker 1"}
    two = result_of([("SET", 0.6, 0.9), ("A<B", 5.0, 5.5)]) | {"speaker": "Speaker 2"}
    silent = result_of([]) | {"speaker": "Speaker 3"}
    return together([one, two, silent])


def test_several_speakers_as_one_result(dialogue):
    assert dialogue["text"] == "Speaker 1: LAY BLUE\nSpeaker 2: SET A<B"
    assert [chunk["text"] for chunk in dialogue["chunks"]] == ["LAY", "SET", "BLUE", "A<B"]
    assert [chunk["speaker"][-1] for chunk in dialogue["chunks"]] == ["1", "2", "1", "2"]
    assert dialogue["confidence"] == 0.9 and dialogue["report"]["people"] == 3
    assert [one["speaker"] for one in dialogue["speakers"]] == ["Speaker 1", "Speaker 2", "Speaker 3"]


def test_each_speaker_has_cues_of_their_own(dialogue):
    cues = make_cues(words_of(dialogue))
    assert [(cue.speaker, cue.lines) for cue in cues] == [
        ("Speaker 1", ("LAY BLUE",)),
        ("Speaker 2", ("SET",)),
        ("Speaker 2", ("A<B",)),
    ]
    assert cues[0].end > cues[1].start, "they talk at the same time"
    assert format_captions(dialogue, "vtt") == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.500\n<v Speaker 1>LAY BLUE\n\n"
        "00:00:00.600 --> 00:00:01.600\n<v Speaker 2>SET\n\n00:00:05.000 --> 00:00:06.000\n<v Speaker 2>A&lt;B\n\n"
    )
    assert "1\n00:00:00,500 --> 00:00:01,500\nSpeaker 1: LAY BLUE\n\n" in format_captions(dialogue, "srt")
    assert format_captions(dialogue, "txt") == "Speaker 1: LAY BLUE\nSpeaker 2: SET A<B\n"
    rows = [line.split("\t") for line in format_captions(dialogue, "tsv").splitlines()]
    assert rows[0][-1] == "speaker" and [row[2:] for row in rows[1:3]] == [
        ["LAY", "0.5000", "Speaker 1"],
        ["SET", "0.5000", "Speaker 2"],
    ]


def test_one_of_the_speakers_alone(dialogue):
    assert "<v Speaker 2>SET" in format_captions(dialogue["speakers"][1], "vtt")
    assert "Speaker" not in format_captions(dialogue["speakers"][1], "srt")
    assert format_captions(dialogue["speakers"][2], "vtt") == "WEBVTT\n\n"


def test_the_characters_of_one_word_are_joined():
    """Without a space among them, characters look like words."""
    chunks = [{"text": c, "timestamp": (i / 10, i / 10 + 0.1), "confidence": 0.5} for i, c in enumerate("now")]
    result = {"text": "now", "chunks": chunks}
    assert [(word.text, word.start, word.end) for word in words_of(result)] == [("now", 0.0, pytest.approx(0.3))]
    assert "now" in format_captions(result, "srt") and format_captions(result, "tsv").count("\n") == 2
    letters = {"text": "b c", "chunks": [{**chunk, "text": c} for chunk, c in zip(chunks, "bc")]}
    assert [word.text for word in words_of(letters)] == ["b", "c"]
    assert [word.text for word in words_of({"text": "b", "chunks": letters["chunks"][:1]})] == ["b"]


def test_txt_with_times():
    chunks = [{"text": c, "timestamp": (i, i + 0.5)} for i, c in enumerate(("bin", "blue"))]
    result = {"text": "bin blue", "chunks": chunks}
    assert format_captions(result, "txt") == "bin blue\n"
    lines = format_captions(result, "txt", times=True).splitlines()
    assert lines == ["[00:00:00.000 --> 00:00:00.500] bin", "[00:00:01.000 --> 00:00:01.500] blue"]
    several = {"text": "", "speakers": [{"speaker": "Speaker 2", **result}, {"speaker": "Speaker 1", **result}]}
    assert format_captions(several, "txt", times=True).splitlines()[2].endswith("] Speaker 2: blue")
    with pytest.raises(ValueError, match="needs times"):
        format_captions({"text": "bin"}, "txt", times=True)


@pytest.mark.parametrize("kind", ["txt", "srt", "json"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(result, tmp_path, full_disk, kind):
    path = tmp_path / f"clip.{kind}"
    path.write_text("before")
    with full_disk(8), pytest.raises(OSError, match=f"clip.{kind}' cannot be written: File too large"):
        write_captions(result, path)
    assert path.read_text() == "before" and [file.name for file in tmp_path.iterdir()] == [path.name]


# ---------------------------------------------------------------------------------------------- words as they are said


def test_each_word_is_underlined_while_it_is_said(result):
    """Cue by cue: a word, the gap after it, the next word, and the rest of the cue."""
    srt = format_captions(result, "srt", highlight_words=True).split("\n\n")[:-1]
    assert srt == [
        "1\n00:00:00,500 --> 00:00:00,750\n<u>LAY</u> BLUE",
        "2\n00:00:00,750 --> 00:00:00,800\nLAY BLUE",
        "3\n00:00:00,800 --> 00:00:01,000\nLAY <u>BLUE</u>",
        "4\n00:00:01,000 --> 00:00:01,500\nLAY BLUE",
        "5\n01:01:01,200 --> 01:01:01,900\n<u>NOW</u>",
        "6\n01:01:01,900 --> 01:01:02,200\nNOW",
    ]
    vtt = format_captions(result, "vtt", highlight_words=True)
    assert "00:00:00.500 --> 00:00:00.750\n<u>LAY</u> BLUE\n\n00:00:00.750 --> 00:00:00.800\nLAY BLUE\n\n" in vtt
    for kind in ("txt", "tsv", "json"):
        assert format_captions(result, kind, highlight_words=True) == format_captions(result, kind)


def test_highlighted_words_of_two_lines_are_escaped_and_do_not_overlap():
    words = [("A<B" + "S" * (i % 9), 0.2 * i, 0.2 * i + 0.3) for i in range(20)]  # each runs into the next one
    blocks = format_captions(result_of(words), "vtt", highlight_words=True).split("\n\n")[1:-1]
    assert sum(block.count("<u>") for block in blocks) == 20 and any(block.count("\n") == 2 for block in blocks)
    assert all(part.count("<") == 2 for part in blocks)  # <u> and </u>; those of the text are escaped
    times = [block.split("\n")[0].split(" --> ") for block in blocks]
    assert all(before[1] <= after[0] for before, after in zip(times, times[1:]))


def test_highlighted_words_name_their_speaker(dialogue):
    vtt = format_captions(dialogue, "vtt", highlight_words=True)
    assert "<v Speaker 1><u>LAY</u> BLUE" in vtt and "<v Speaker 2><u>A&lt;B</u>" in vtt
    assert "Speaker 2: <u>SET</u>\n" in format_captions(dialogue, "srt", highlight_words=True)


# ----------------------------------------------------------------------------------------------------------- sentences


def texts(result: dict) -> list[str]:
    return [sentence["text"] for sentence in make_sentences(result)]


def test_sentences_end_at_marks_and_pauses(result):
    assert texts(result) == ["LAY BLUE", "NOW"]
    said = 'Is Dr. Li "in?" No. He said: go'
    times = [0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.9]
    words = [(word, at, at + 0.2) for word, at in zip(said.split(), times)]
    assert texts(result_of(words)) == ['Is Dr. Li "in?"', "No.", "He said:", "go"]
    first = make_sentences(result_of(words))[0]
    assert (first["id"], first["start"], first["end"], len(first["words"])) == (0, 0.0, 1.1, 4)
    assert first["confidence"] == pytest.approx(0.5) and "speaker" not in first


def test_a_long_sentence_is_cut_at_its_longest_pauses():
    words = [(str(i), float(i), i + 0.9 - 0.3 * (i == 20) - 0.2 * (i == 39)) for i in range(80)]
    found = make_sentences(result_of(words))
    assert found[0]["text"].split()[-1] == "20" and found[1]["text"].split()[-1] == "39"
    assert all(one["end"] - one["start"] <= 30 for one in found)
    assert " ".join(one["text"] for one in found) == " ".join(map(str, range(80)))
    assert texts(result_of([("endless", 0.0, 99.0)])) == ["endless"]


def test_json_has_sentences_where_it_has_times(result, dialogue):
    loaded = json.loads(format_captions(result, "json"))
    assert [one["text"] for one in loaded["segments"]] == ["LAY BLUE", "NOW"]
    assert loaded["segments"][0]["words"] == loaded["chunks"][:2]
    assert "segments" not in json.loads(format_captions({"text": "LAY", "chunks": []}, "json"))
    found = json.loads(format_captions(dialogue, "json"))["segments"]
    assert [(one["id"], one["speaker"][-1], one["text"]) for one in found] == [
        (0, "1", "LAY BLUE"),
        (1, "2", "SET"),
        (2, "2", "A<B"),
    ]

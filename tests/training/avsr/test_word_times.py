"""Word times from a forced aligner's file: read, checked, and given to the clips that have none."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookhear.training.avsr.examples import TrainingClips
from lookhear.training.avsr.prepare import load_prepared
from lookhear.training.avsr.recipe import AugmentationRecipe, DataRecipe
from lookhear.training.avsr.word_times import read_word_times, with_word_times

WORDS = [{"word": "et", "start": 0.0, "end": 0.24}, {"word": "oa", "start": 0.36, "end": 0.6}]
CTM = ";; a comment\n{id} 1 0.00 0.24 et 0.98\n{id} 1 0.36 0.24 oa\n"


def line(name: str, words=WORDS) -> str:
    return json.dumps({"id": name, "words": words}) + "\n"


def test_both_formats_say_the_same(tmp_path):
    (tmp_path / "a.ctm").write_text(CTM.format(id="s1/a"))
    (tmp_path / "a.jsonl").write_text("\n" + line("s1/a"))
    assert read_word_times(tmp_path / "a.ctm") == read_word_times(tmp_path / "a.jsonl") == {"s1/a": WORDS}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a 1 0.0 et", "line 1: a line must be 'id channel start duration word'"),
        ("\na 1 zero 0.2 et", "line 2: a line must be"),
        ("{", "line 1: not JSON"),
        ('{"words": []}', "line 1: 'id' must be present"),
        ('{"id": "a", "words": [{"word": "et", "start": 0}]}', "line 1: each word needs 'word', 'start' and 'end'"),
        ('{"id": "a", "words": 3}', "line 1: each word needs"),
        ("a 1 0.5 -0.2 et", "line 1: 'et' lasts from 0.5 to 0.3 s"),
        ("a 1 nan 0.2 et", "line 1: 'et' lasts from nan"),
        ("a 1 0.5 0.2 et\na 1 0.1 0.2 oa", "line 2: 'oa' begins at 0.1 s, before the word above it"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, problem):
    path = tmp_path / "times"
    path.write_text(content)
    with pytest.raises(ValueError) as raised:
        read_word_times(path)
    assert f"data.word_times: {path}, {problem}" in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="data.word_times: .*missing cannot be read"):
        read_word_times(tmp_path / "missing")


@pytest.fixture
def folder(prepared_folder, tmp_path):
    """Four prepared clips; only the last has word times of its own."""
    folder = prepared_folder(tmp_path / "data", ["ET OA", "IN TE", "NO TA", "ET OA"])
    path = next(folder.glob("*.parquet"))
    table = pq.read_table(path)
    rows = [row | {"words": None if number < 3 else row["words"]} for number, row in enumerate(table.to_pylist())]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return folder


def test_clips_without_times_get_the_files(folder, tmp_path, caplog):
    """The first clip's words are the file's but for case; the second's are others; the third isn't in it."""
    rows = load_prepared([str(folder)])
    names, own = rows["id"][:], rows[3]["words"]
    path = tmp_path / "times.jsonl"
    path.write_text(line(names[0]) + line(names[1]) + line(names[3]))
    with caplog.at_level("WARNING"):
        timed = with_word_times(rows, [str(path)])
    assert f"{path}: word times of 1 clips; 1 have other words than their text and stay without" in caplog.text
    assert [word["word"] for word in timed[0]["words"]] == ["ET", "OA"]
    assert timed[0]["words"][1]["start"] == pytest.approx(0.36)
    assert not timed[1]["words"] and not timed[2]["words"] and timed[3]["words"] == own
    clips = TrainingClips(timed, AugmentationRecipe(noise_probability=0.0), DataRecipe(), 16)
    assert [clip.words is not None for clip in (clips[0], clips[1])] == [True, False]
    path.write_text(line("another"))
    with pytest.raises(ValueError, match="has none of the clips"):
        with_word_times(rows, [str(path)])
    assert with_word_times(rows, []) is rows

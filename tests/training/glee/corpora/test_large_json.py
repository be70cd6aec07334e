"""A JSON file is read element by element, wherever the reading of it is cut."""

from __future__ import annotations

import json

import pytest

from lookhear.training.glee.corpora import large_json
from lookhear.training.glee.corpora.large_json import read_members
from lookhear.training.glee.corpora.reading import CorpusError

CONTENT = {
    "info": {"year": 2017, "names": ["a", "é"]},
    "images": [{"id": 1, "name": "x]}"}, {"id": 2.5e3}, 17, "text, \\" + '"'],
    "empty": [],
    "annotations": [{"id": index, "box": [1, 2, 3.25]} for index in range(50)],
    "categories": [],
    "count": 12345,
}


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 4])
def test_members_and_elements(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(large_json, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT, indent=indent, ensure_ascii=False), encoding="utf-8")
    found = list(read_members(path, ("images", "annotations", "categories")))
    wanted = [("info", CONTENT["info"])] + [("images", element) for element in CONTENT["images"]] + [("empty", [])]
    wanted += [("annotations", element) for element in CONTENT["annotations"]] + [("count", 12345)]
    assert found == wanted


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is not JSON: it breaks off"),
        ("[1]", "expected a JSON object at the top"),
        ('{"a": [1, 2', "is not JSON: it breaks off"),
        ('{"a": [1 2]}', "is not JSON: a ',' is missing before '2]}'"),
        ('{"a": 3}', "'a' is not a list"),
        ('{"a": [{"b" 3}]}', "is not JSON: Expecting ':' delimiter"),
        ('{"a" [1]}', "is not JSON: a ':' is missing"),
        ('{"a": ["open]}', "is not JSON: Unterminated string"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(CorpusError, match=message) as error:
        list(read_members(path, ("a",)))
    assert "\n" not in str(error.value) and "a.json" in str(error.value)


def test_an_early_error_does_not_read_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(large_json, "CHUNK", 1000)
    monkeypatch.setattr(large_json, "SLACK", 100)
    path = tmp_path / "a.json"
    path.write_text('{"a": [{"b" 3}, ' + "1, " * 100_000 + "1]}")
    reads = []
    monkeypatch.setattr(
        large_json._Reader, "more", lambda self, old=large_json._Reader.more: (reads.append(1), old(self))
    )
    with pytest.raises(CorpusError):
        list(read_members(path, ("a",)))
    assert len(reads) < 3


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CorpusError, match="b.json is missing"):
        list(read_members(tmp_path / "b.json", ()))

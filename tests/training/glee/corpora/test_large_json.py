"""A list in a JSON file is read element by element, wherever the reading of it is cut."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from lookhear.training.glee.corpora import large_json
from lookhear.training.glee.corpora.large_json import read_list
from lookhear.training.glee.corpora.reading import CorpusError

CONTENT = {
    "info": {"year": 2017, "names": ["a", "é"]},
    "images": [{"id": 1, "name": "x]}"}, {"id": 2.5e3}, 17, "text, \\" + '"'],
    "empty": [],
    "annotations": [{"id": index, "box": [1, 2, 3.25]} for index in range(50)],
    "categories": [],
    "count": 12345,
}


@pytest.mark.parametrize("buffer", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_elements(tmp_path, monkeypatch, buffer, indent, encoding):
    monkeypatch.setattr(large_json, "BUFFER", buffer)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT, indent=indent, ensure_ascii=False), encoding=encoding)
    for name in ("images", "annotations", "categories", "missing"):
        found = list(read_list(path, name))
        wanted = CONTENT.get(name, [])
        assert found == wanted and list(map(type, found)) == list(map(type, wanted))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is not JSON: it breaks off"),
        ("[1]", "expected a JSON object at the top"),
        ('{"a": [1, 2', "is not JSON: it breaks off"),
        ('{"a": [1 2]}', "is not JSON: after array element, I expect ',' or ']', in '{\"a\": .1 2]}'"),
        ('{"a": 3}', "'a' is not a list"),
        ('{"b": [], "a": {"c": 3}}', "'a' is not a list"),
        ('{"a": [{"b" 3}]}', "is not JSON: object key and value must be separated by a colon"),
        ('{"a" [1]}', "is not JSON: object key and value must be separated by a colon"),
        ('{"a": ["open]}', "is not JSON: it breaks off"),
        ('{"a": []} {"a": []}', "is not JSON: trailing garbage"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(CorpusError, match=message) as error:
        list(read_list(path, "a"))
    assert "\n" not in str(error.value) and "a.json" in str(error.value)


def test_text_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes('{"a": ["é"]}'.encode("latin-1"))
    with pytest.raises(CorpusError, match="is not JSON: .*UTF8") as error:
        list(read_list(path, "a"))
    assert "\n" not in str(error.value)


def test_an_early_error_does_not_read_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(large_json, "BUFFER", 1000)
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": [{"b" 3}, ' + b"1, " * 1000 + b"\xff]}")  # what follows isn't UTF-8
    with pytest.raises(CorpusError, match="colon"):
        list(read_list(path, "a"))


def test_a_file_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(large_json, "BUFFER", 1000)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"other": ["x" * 100] * 10_000, "a": ["x" * 100] * 10_000}))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_list(path, "a")) == 10_000
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 10
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CorpusError, match="b.json is missing"):
        list(read_list(tmp_path / "b.json", "a"))


@pytest.mark.parametrize("buffer", [1, 3, 1 << 20])
def test_values_are_nested_to_a_bound(tmp_path, monkeypatch, buffer):
    """A path is kept for each level: 100,000 of them would fill gigabytes. Brackets in texts do not count."""
    monkeypatch.setattr(large_json, "BUFFER", buffer)
    path, texts = tmp_path / "a.json", ["[" * 300, '\\"' + "{" * 300, "\\", "[[[\\\\"]
    path.write_text(json.dumps({"a": [json.loads("[" * 98 + "]" * 98), *texts, 1] * 2}))
    assert list(read_list(path, "a"))[1:6] == [*texts, 1]
    path.write_text(json.dumps({"a": texts, "b": json.loads("[" * 99 + "]" * 99)}))
    assert list(read_list(path, "a")) == texts
    for more in (100, 100_000):
        path.write_text('{"a": [], "b": ' + "[" * more + "]" * more + "}")
        with pytest.raises(CorpusError, match="a.json: its values are nested more than 100 deep"):
            list(read_list(path, "a"))

import itertools
import logging

import pytest

from lookhear.evaluation.protocols.stored_results import StoredResults, StoredRows, resumed_work


def test_results_are_there_again(tmp_path):
    path, about = tmp_path / "out" / "predictions.jsonl", {"protocol": "coco", "model": "glee"}
    stored = StoredResults(path, about)
    stored.add("7", {"scores": [0.5]})
    stored.add("a/b", ["ä", None])
    again = StoredResults(path, about)
    assert len(again) == 2 and "7" in again and "8" not in again
    assert again["a/b"] == ["ä", None] and list(again.values(["a/b", "7"])) == [["ä", None], {"scores": [0.5]}]


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / "predictions.jsonl"
    stored = StoredResults(path, {})
    stored.add("1", [1])
    with path.open("ab") as file:
        file.write(b'["2", [1, 2')
    again = StoredResults(path, {})
    assert "2" not in again
    again.add("3", [3])
    assert [StoredResults(path, {})[key] for key in ("1", "3")] == [[1], [3]]


def test_rows_are_read_each_time(tmp_path):
    stored = StoredResults(tmp_path / "predictions.jsonl", {})
    for number in (3, 1, 2):
        stored.add(str(number), number)
    rows = StoredRows(stored, ["1", "3"])
    assert len(rows) == 2 and list(rows) == list(rows) == [1, 3] and rows[1] == 3
    assert list(StoredRows(stored, ["2", "3"], lambda place, value: (place, value))) == [(0, 2), (1, 3)]


def test_results_of_another_run_are_refused(tmp_path):
    StoredResults(tmp_path / "predictions.jsonl", {"model": "one"})
    with pytest.raises(ValueError, match="another run"):
        StoredResults(tmp_path / "predictions.jsonl", {"model": "two"})


DAMAGE = (b"\n", b"\0" * 30 + b"\n", b'["key 1", {"te\n', b"[1, 2]\n", b"[" * 100_000 + b"\n")


def test_no_cut_and_no_damage_stops_a_run(tmp_path, caplog):
    """Cut at every byte, and with each line in turn empty, torn, of NULs or of brackets: what is whole is there."""
    path, about = tmp_path / "predictions.jsonl", {"model": "ä"}
    stored = StoredResults(path, about)
    for number in range(3):
        stored.add(f"key {number}", {"text": "ö", "number": number})
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    ends = list(itertools.accumulate(map(len, lines)))
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        again = StoredResults(path, about)
        assert len(again) == sum(end <= cut for end in ends[1:])
        for number in range(3):
            if f"key {number}" not in again:
                again.add(f"key {number}", {"text": "ö", "number": number})
        assert path.read_bytes() == content
    for place, damage in itertools.product(range(4), DAMAGE):
        path.write_bytes(b"".join([*lines[:place], damage, *lines[place + 1 :]]))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            again = StoredResults(path, about)
        assert len(again) == (2 if place else 0), "rows without a head may be of any run"
        assert f"dropped: {1 if place else 4};" in caplog.text
        assert all(again[f"key {number}"]["number"] == number for number in range(3) if f"key {number}" in again)
    assert [entry.name for entry in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_work_is_continued_with_the_same_command_only(tmp_path):
    path = tmp_path / ".work.jsonl"
    resumed_work(path, {"model": 1}).add("a", 1)
    assert "a" in resumed_work(path, {"model": 1}) and "a" not in resumed_work(path, {"model": 2})
    resumed_work(path, {"model": 2}).add("b", 1)
    assert "b" not in resumed_work(path, {"model": 2}, anew=True)
    resumed_work(path, {}).remove()
    assert not path.exists()

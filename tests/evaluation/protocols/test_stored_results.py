import pytest

from lookhear.evaluation.protocols.stored_results import StoredResults, StoredRows


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

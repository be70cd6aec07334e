"""What was measured of a checkpoint belongs to its weights, and is shown as it was printed."""

import json
from dataclasses import replace

import pytest
import yaml

from lookhear.evaluation.model_results import (
    MeasuredTable,
    eval_result_files,
    fill_card,
    main,
    model_index,
    read_results,
    read_table,
    record_table,
    task_id,
)

PRINTED = """\
some words
| noise | SNR dB | modality | WER % (95 %) | CER % |
|---|---|---|---|---|
|  | clean | audio | 4.0 (2.3 to 6.0) | 1.2 |
| babble | -5 | audiovisual | 4.3 (2.3 to 6.3) | 1.3 |

| another | table |
|---|---|
| 1 | 2 |
"""
METRICS = {"WER % (95 %)": "wer", "CER %": "cer"}


def table(metrics=None, printed: str = PRINTED) -> MeasuredTable:
    columns, rows = read_table(printed)
    return MeasuredTable(
        "GRID", "automatic-speech-recognition", "measure it", "2026-11-22", columns, rows, metrics or METRICS
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("a\n<!-- measured: mine -->\nold\n<!-- end of measured -->\nz\n")
    return tmp_path


def test_a_table_is_kept_as_it_was_printed():
    assert table().to_markdown() == "\n".join(PRINTED.splitlines()[1:5]) + "\n"


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("no table", "no Markdown table"),
        ("| a |\n|---|\n", "has no rows"),
        ("| a | b |\n|---|---|\n| 1 |\n", "has 2 columns, but not the row"),
    ],
)
def test_what_is_no_table(printed, message):
    with pytest.raises(ValueError, match=message):
        read_table(printed)


def test_recording_fills_the_card(folder):
    record_table(folder, "mine", table())
    assert read_results(folder) == {"mine": table()}
    assert (folder / "README.md").read_text().splitlines()[1:-1] == [
        "<!-- measured: mine -->",
        *PRINTED.splitlines()[1:5],
        "<!-- end of measured -->",
    ]
    record_table(folder, "more", table())
    assert list(read_results(folder)) == ["mine", "more"]


def test_other_weights_have_other_results(folder):
    record_table(folder, "mine", table())
    (folder / "model.safetensors").write_bytes(b"trained on")
    with pytest.raises(ValueError, match="measured with other weights"):
        read_results(folder)
    record_table(folder, "new", table())
    assert list(read_results(folder)) == ["new"]
    assert "Not measured with these weights yet." in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="shows 'mine', which results.json does not have"):
        fill_card((folder / "README.md").read_text(), read_results(folder))


def test_values_and_what_they_are_about():
    (index,) = model_index("tiny", {"grid-noise": table()})
    (result,) = index["results"]
    assert index["name"] == "tiny" and result["dataset"] == {"name": "GRID", "type": "grid-noise"}
    assert result["metrics"][0] == {"type": "wer", "value": 4.0, "name": "wer, clean, audio"}
    assert result["metrics"][3] == {"type": "cer", "value": 1.3, "name": "cer, babble, -5, audiovisual"}
    assert model_index("tiny", {}) == []


def test_a_column_may_name_the_metric():
    printed = "| asked by | measure | value |\n|---|---|---|\n| points | mean mask IoU (200) | 0.857 |\n"
    found = table({"value": "measure"}, printed)
    assert list(found.values(found.rows[0])) == [("value", "mean mask IoU", 0.857)]
    (index,) = model_index("tiny", {"scenes": found})
    assert index["results"][0]["metrics"][0]["name"] == "mean mask IoU, points"


def test_the_hubs_files_are_for_benchmarks_only():
    files = eval_result_files({"grid-noise": table(), "mine": table()}, "org", "https://hub/org/tiny")
    assert list(files) == [".eval_results/grid-noise.yaml"]
    assert "task_id: babble_minus_5_audiovisual" in files[".eval_results/grid-noise.yaml"]
    assert "notes: WER % (95 %)" in files[".eval_results/grid-noise.yaml"]


def test_a_row_has_the_first_metric_that_it_has():
    """Silent targets have no word error rate, but wrong words."""
    printed = "| people | SNR dB | read | WER % | wrong words a minute |\n|---|---|---|---|---|\n"
    printed += "| 2 | -5 | named | 9.5 |  |\n| 2 | silent | named |  | 1.5 |\n"
    found = table({"WER %": "wer", "wrong words a minute": "wrong words a minute"}, printed)
    text = eval_result_files({"grid-two-talkers": found}, "org", "https://hub")[".eval_results/grid-two-talkers.yaml"]
    entries = yaml.safe_load(text)
    assert [(e["dataset"]["task_id"], e["value"], e["notes"]) for e in entries] == [
        ("2_minus_5_named", 9.5, "WER %"),
        ("2_silent_named", 1.5, "wrong words a minute"),
    ]
    (index,) = model_index("tiny", {"grid-two-talkers": found})
    assert index["results"][0]["metrics"][1]["name"] == "wrong words a minute, 2, silent, named"


def test_entries_have_the_interval_and_the_benchmarks_revision():
    """What the leaderboard reads: `interval LOW to HIGH` in the notes, and the commit that was measured on."""
    measured = replace(table(), revision="0123456789" * 4)
    text = eval_result_files({"grid-noise": measured}, "org", "https://hub/org/tiny")[".eval_results/grid-noise.yaml"]
    entries = yaml.safe_load(text)
    assert entries[0]["notes"] == "WER % (95 %), interval 2.3 to 6.0" and entries[0]["value"] == 4.0
    assert {entry["dataset"]["revision"] for entry in entries} == {"0123456789" * 4}
    with_none = eval_result_files({"grid-noise": table()}, "org", "https://hub")[".eval_results/grid-noise.yaml"]
    assert "revision" not in with_none


def test_a_revision_that_is_no_commit_is_refused_before_anything_runs(folder, capsys):
    arguments = [str(folder), "mine", "--title", "GRID", "--task", "t", "--metric", "WER %=wer", "--revision", "main"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--", "false"])
    assert ended.value.code == 2 and "40 hexadecimal digits" in capsys.readouterr().err


def test_a_benchmark_has_its_tasks(folder):
    unknown = PRINTED.replace("babble", "rain")
    with pytest.raises(ValueError, match="grid-noise has no task 'rain_minus_5_audiovisual'"):
        record_table(folder, "grid-noise", table(printed=unknown))
    assert task_id(["babble", "-5", "audio"]) == "babble_minus_5_audio" and task_id(["5"]) == "5"


def test_metrics_are_columns(folder):
    with pytest.raises(ValueError, match="metrics names speed; the table's columns are noise"):
        record_table(folder, "mine", table({"speed": "rtfx"}))


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(ValueError, match="no safetensors file"):
        record_table(tmp_path, "mine", table())


def test_the_command_is_run_and_written_down(folder, capfd):
    (folder / "printed.md").write_text(PRINTED)
    options = [str(folder), "mine", "--title", "GRID", "--task", "t", "--metric", "WER % (95 %)=wer"]
    main([*options, "--", "cat", str(folder / "printed.md")])
    kept = json.loads((folder / "results.json").read_text())["tables"]["mine"]
    assert kept["command"] == f"cat {folder / 'printed.md'}" and kept["rows"][0][3] == "4.0 (2.3 to 6.0)"
    assert capfd.readouterr().out == PRINTED
    with pytest.raises(SystemExit, match="nothing is recorded"):
        main([*options, "--", "false"])

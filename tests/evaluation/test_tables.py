import csv
import json
import math

import pytest

from lookhear.evaluation.tables import (
    draw_results,
    format_table,
    format_word_times,
    to_csv,
    to_json,
)
from lookhear.evaluation.whole_files import whole_file, write_text


def row(modality: str, noise: str, snr: str, wer: float) -> dict:
    interval = [wer / 2, wer * 2]
    return {
        "modality": modality,
        "noise": noise,
        "snr": snr,
        "wer": wer,
        "cer": wer / 2,
        "interval": interval,
        "clips": 9,
    }


ROWS = [
    row(modality, noise, snr, wer + 0.1 * index)
    for modality, wer in (("audio", 0.05), ("audiovisual", 0.01))
    for noise in ("babble", "/data/rain.wav")
    for index, snr in enumerate(("clean", "5", "-5"))
]


def test_text_table_is_aligned_and_names_clean_speech_once():
    lines = format_table(ROWS).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + len(ROWS) - 2  # clean stands in two kinds of noise, with the same figures
    assert lines[2].split() == ["audio", "-", "clean", "5.0", "2.5", "to", "10.0", "2.5", "9"]
    assert "rain.wav" in format_table(ROWS) and "/data" not in format_table(ROWS)


def test_word_times_have_their_own_table():
    assert format_word_times(ROWS) == ""
    timed = {"word_start_median": 0.0123, "word_start_p90": 0.1, "words_timed": 300}
    lines = format_word_times([ROWS[0], {**ROWS[1], **timed}]).splitlines()
    assert len(lines) == 3
    assert lines[2].split() == ["audio", "babble", "5", "12", "100", "300"]


def test_speed_has_a_column_where_it_was_measured():
    assert "RTFx" not in format_table(ROWS)
    lines = format_table([{**ROWS[0], "rtfx": 12.34}, ROWS[1]]).splitlines()
    assert [line.split()[-1] for line in (lines[0], *lines[2:])] == ["RTFx", "12.3", "-"]
    assert [row["rtfx"] for row in csv.DictReader(to_csv([{**ROWS[0], "rtfx": 12.34}, ROWS[1]]).splitlines())] == [
        "12.34",
        "",
    ]


def test_json_has_the_agreed_form():
    results = json.loads(to_json(ROWS))
    assert list(results) == ["results"] and results["results"] == ROWS
    nothing = row("audio", "babble", "0", math.nan)
    assert json.loads(to_json([nothing]))["results"][0]["wer"] is None


def test_csv():
    rows = list(csv.DictReader(to_csv(ROWS).splitlines()))
    assert len(rows) == len(ROWS) and list(rows[0]) == "modality noise snr wer wer_low wer_high cer clips rtfx".split()
    assert float(rows[1]["wer_low"]) == pytest.approx(0.075)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_picture(tmp_path, ending):
    path = draw_results(ROWS, tmp_path / "new" / f"wer.{ending}")
    assert path.stat().st_size > 5000
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_share_of_noisy_clips_is_shown_where_it_is_not_all():
    rows = [ROWS[0], {**ROWS[1], "noise_probability": 0.25}]
    lines = format_table(rows).splitlines()
    assert "babble, 25 % of clips" in lines[3] and "% of" not in lines[2]
    assert [row["noise_probability"] for row in csv.DictReader(to_csv(rows).splitlines())] == ["", "0.25"]
    assert "noise_probability" not in to_csv(ROWS)


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, full_disk):
    path = tmp_path / "results.json"
    path.write_text("old")
    with full_disk(8), pytest.raises(OSError, match="results.json cannot be written: the disk is full"):
        write_text(path, "new " * 100)
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(OSError, match="results.json/more' cannot be written: "):
        write_text(path / "more", "new")
    with pytest.raises(FileNotFoundError, match="other"), whole_file(path):  # that is about another file
        open(tmp_path / "elsewhere" / "other")

"""GLEE's tables on small made-up data sets of the published layouts, with a small random detector."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lookhear import cli

pytestmark = pytest.mark.slow
SIZES = ("lite", "plus", "pro")
TINY = [
    "training.max_steps=2",
    "training.use_cpu=true",
    "training.bf16=false",
    "training.save_steps=1",
    "training.gradient_accumulation_steps=1",
    "training.dataloader_num_workers=0",
    "training.disable_tqdm=true",
    "model.config.loss_settings={mask_points: 64}",
    "data.common.augmentation={shortest_edges: [64], crop: 0.0}",
    "validation.protocol=null",
    "optimiser.milestones=[1]",
    "measure.device=cpu",
]


@pytest.fixture
def table(object_corpora, detector, tmp_path, capsys):
    """`table(name, *settings, given=...)`: the rows of a table whose given trainings are the small detector."""

    def table(name: str, *settings: str, given: tuple[str, ...]) -> list[dict]:
        models = [word for stage in given for word in ("--model", f"{stage}={detector}")]
        arguments = [name, "--data", object_corpora, "--out", tmp_path, *models, *settings]
        code = cli.main(["reproduce", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert code == 0, err
        assert out == (tmp_path / "tables" / f"{name}.md").read_text()
        return json.loads((tmp_path / "tables" / f"{name}.json").read_text())["rows"]

    return table


def all_stages(*stages: int) -> tuple[str, ...]:
    return tuple(f"glee_stage{stage}_{size}" for stage in stages for size in SIZES)


@pytest.mark.parametrize(
    ("name", "stages", "columns"),
    [
        ("glee-table1", (2,), 13),
        ("glee-table2", (2,), 8),
        ("glee-table3", (2, 3), 14),
        ("glee-table5", (2, 3), 3),
    ],
)
def test_a_table_of_given_detectors(name, stages, columns, table):
    """Every column is a figure of its protocol; each model is measured, though here all are the same one."""
    rows = table(name, "measure.device=cpu", given=all_stages(*stages))
    assert len(rows) == 3 * len(stages)
    for row in rows:
        cells = row["cells"].values()
        assert len(cells) == columns and all(cell["measured"] is not None for cell in cells), row


def test_what_servers_measure_has_files_instead_of_figures(table, tmp_path):
    given = (*all_stages(2), "glee_video_ovis_plus", "glee_video_ovis_pro")
    rows = table("glee-table4", *TINY, given=given)
    assert len(rows) == 6 and all("upload results.zip" in c["note"] for row in rows for c in row["cells"].values())
    assert len(list((tmp_path / "measured").glob("*/results.zip"))) == 9
    assert (tmp_path / "runs" / "glee_video_ovis" / "model.safetensors").is_file()  # the only one that was trained


def test_trainings_on_videos(table, tmp_path):
    rows = table("glee-video", *TINY, given=("glee_stage2_lite",))
    measured = {row["name"]: {head: cell["measured"] for head, cell in row["cells"].items()} for row in rows}
    for name, head in (("UVO", "UVO AR"), ("VOS", "DAVIS J&F")):
        assert measured[name][head] is not None and measured["before"][head] is not None
    assert list(measured["RVOS"]) == ["Refer-YouTube-VOS J&F"] and measured["RVOS"]["Refer-YouTube-VOS J&F"] is None
    assert len(list((tmp_path / "runs").glob("glee_video_*/model.safetensors"))) == 6


def test_parts_of_the_data_make_a_picture(table, tmp_path):
    sources = "[{reader: coco, root: data/coco, supervision: {denoising_table: coco}}]"
    settings = [*TINY, f"data.sources={sources}", "optimiser.layer_decay=null"]
    rows = table("glee-figure5", *settings, given=("glee_stage1_pro",))
    assert [row["name"] for row in rows] == ["10 %", "20 %", "50 %", "100 %"]
    assert all(row["cells"]["TAO TETA"]["measured"] is not None for row in rows)
    recipes = [(tmp_path / "recipes" / f"{row['model']}.yaml").read_text() for row in rows]
    assert ["fraction: 0.1" in text for text in recipes] == [True, False, False, False]
    assert (tmp_path / "tables" / "glee-figure5.png").stat().st_size > 1000


def test_few_shots(table, tmp_path, monkeypatch, object_corpora):
    """Of one data set; a selection of ODinW's own is used, others are chosen; a second run trains nothing."""
    train = next((object_corpora / "odinw").glob("AerialMaritimeDrone/large/train/annotations*.json"))
    own = train.with_name("fewshot_train_shot1_seed3.json")
    own.write_text(train.read_text())
    settings = ["measure.limit=1", "measure.epochs=1", "measure.seeds=[3, 30]", "measure.device=cpu"]
    settings += ["training.use_cpu=true", "training.disable_tqdm=true"]
    rows = table("odinw-few-shot", *settings, given=all_stages(2))
    own.unlink()
    for row in rows:
        assert all(cell["measured"] is not None for cell in row["cells"].values())
        assert "1 of 2 of them ODinW's own" in row["cells"]["1 shot"]["note"]
        low, high = row["cells"]["1 shot"]["interval"]
        assert low <= row["cells"]["1 shot"]["measured"] <= high
        assert row["cells"]["all"]["interval"] is None  # all pictures are one selection
    # the package has a function of the module's name
    monkeypatch.setattr(sys.modules["lookhear.training.glee.fine_tuning.fine_tune"], "fine_tune", None)
    for path in (tmp_path / "steps").glob("*shots3*.json"):
        path.unlink()  # as if it had been killed after the last training
    assert table("odinw-few-shot", *settings, given=all_stages(2)) == rows


def test_lisa_glee_answers(object_corpora, tiny_lisa_glee, tmp_path, capsys):
    tiny_lisa_glee.save_pretrained(tmp_path / "lisa")
    given = ("--model", f"lisa_glee_plus_7b={tmp_path / 'lisa'}", "--data", str(object_corpora))
    code = cli.main(["reproduce", "glee-figure4", "--out", str(tmp_path / "out"), *given, "measure.device=cpu"])
    assert code == 0, capsys.readouterr().err
    (row,) = json.loads((tmp_path / "out" / "tables" / "glee-figure4.json").read_text())["rows"]
    assert {head: cell["measured"] is not None for head, cell in row["cells"].items()} == {"gIoU": True, "cIoU": True}
    assert Path(tmp_path / "out" / "measured").is_dir()

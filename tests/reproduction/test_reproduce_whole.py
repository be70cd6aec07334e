"""GLEE's tables from the first stage on: each training that they need runs, on made-up corpora as published."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lookhear import cli
from lookhear.processing.glee import GleeImageProcessor, GleeProcessor
from lookhear.reproduction import Places, find_paper, read_papers
from lookhear.reproduction.stages import plan
from lookhear.training.glee.mixture import train_corpora

from .training_corpora import EVA, RESNET, SIZES, SWIN, text_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TRAINING = [
    "training.max_steps=2",
    "training.use_cpu=true",
    "training.bf16=false",
    "training.save_steps=2",
    "training.gradient_accumulation_steps=2",
    "training.dataloader_num_workers=0",
    "training.disable_tqdm=true",
]
GLEE = ["data.common.augmentation={shortest_edges: [64], crop: 0.0}", "optimiser.milestones=[1]"]
GLEE += ["model.config.loss_settings={mask_points: 64}"]
LISA = ["training.per_device_train_batch_size=1", "model.dtype=float32", "model.preset=null"]
LISA += ["model.config.num_objects=4"]
FEW = ("limit=1", "epochs=1", "seeds=[3]")
FEW_SHOT = [f"*-{part}-*:measure.{text}" for part in ("shots*", "all") for text in FEW]
FEW_SHOT += ["training.use_cpu=true", "training.disable_tqdm=true"]
BACKBONES = {"lite": RESNET, "plus": SWIN, "pro": EVA}
STAGES = [f"glee_stage{stage}_{size}" for size in BACKBONES for stage in (1, 2, 3)]
FRESH = {  # table -> what it trains that the tables before it have not
    "glee-table3": STAGES,
    "glee-table1": [],
    "glee-table2": [],
    "glee-table4": ["glee_video_ovis", "glee_video_ovis_plus", "glee_video_ovis_pro"],
    "glee-table5": [],
    "glee-figure5": [f"glee_data_scale_pro_{part}" for part in (10, 20, 50)],
    "glee-video": [f"glee_video_{name}" for name in ("ytvis19", "ytvis21", "uvo", "vos", "rvos")],
    "odinw-few-shot": [],
    "glee-figure4": ["lisa_glee_plus_7b"],
}
ORDER = [f"glee-table{number}" for number in range(1, 6)]
ORDER += ["glee-figure4", "glee-figure5", "glee-video", "odinw-few-shot"]


def tiny_settings(name: str, tokenizer) -> list[str]:
    """Returns settings by which a table's models are small, and its trainings two steps long."""
    paper = find_paper(name, read_papers())
    settings = ["measure.device=cpu", *(FEW_SHOT if name == "odinw-few-shot" else ())]
    for stage in plan(paper, paper.tables[name], (), Places(Path("out"))):
        if stage.kind != "train":
            continue
        given = [*TRAINING, *(LISA if stage.name.startswith("lisa") else GLEE)]
        if stage.name.startswith("glee_stage1"):
            given += [f"model.config.{field}={value}" for field, value in SIZES.items()]
            given += [f"model.config.text_config={json.dumps(text_config(tokenizer))}"]
            given += [f"model.config.backbone_config={json.dumps(BACKBONES[stage.name.rpartition('_')[2]])}"]
        if stage.name == "glee_stage1_lite":
            given += ["validation.limit=1"]
        elif not stage.name.startswith("lisa"):
            given += ["validation.protocol=null"]
        settings += [f"{stage.name}:{text}" for text in given]
    return settings


def test_every_table_from_its_first_stage(all_corpora, tiny_glee, tmp_path, capsys, monkeypatch):
    """All three stages of all three sizes, fine-tuning on videos, few shots, and LISA-GLEE; tables share trainings."""
    pytest.importorskip("peft")
    tokenizer = tiny_glee[1].tokenizer
    small = GleeImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    monkeypatch.setattr(train_corpora, "new_processor", lambda size, text: GleeProcessor(small, tokenizer))
    assert [*find_paper("glee-table3", read_papers()).tables] == sorted(FRESH, key=ORDER.index)
    for name, fresh in FRESH.items():
        settings = tiny_settings(name, tokenizer)
        code = cli.main(["reproduce", name, "--data", str(all_corpora), "--out", str(tmp_path), *settings])
        out, err = capsys.readouterr()
        assert code == 0, f"{name}: {err[-3000:]}"
        assert re.findall(r"^\[\d+/\d+\] train (\w+)$", err, re.MULTILINE) == fresh
        assert out == (tmp_path / "tables" / f"{name}.md").read_text()
        for row in json.loads((tmp_path / "tables" / f"{name}.json").read_text())["rows"]:
            for heading, cell in row["cells"].items():
                assert cell["measured"] is not None or "upload" in cell["note"], (name, row["name"], heading)
    log = json.loads((tmp_path / "runs" / "glee_stage1_lite" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "eval_box_AP" in entry] == [0, 2]
    answering = json.loads((tmp_path / "runs" / "lisa_glee_plus_7b" / "config.json").read_text())
    assert not answering["perception_config"]["text_teacher"]  # which only GLEE's own training needs

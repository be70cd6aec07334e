"""GLEE's tables 1 to 5 from the first stage on: each training that they need runs, on made-up corpora."""

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
BACKBONES = {"lite": RESNET, "plus": SWIN, "pro": EVA}
STAGES = [f"glee_stage{stage}_{size}" for size in BACKBONES for stage in (1, 2, 3)]
FRESH = {  # table -> what it trains that the tables before it have not
    "glee-table3": STAGES,
    "glee-table1": [],
    "glee-table2": [],
    "glee-table4": ["glee_video_ovis", "glee_video_ovis_plus", "glee_video_ovis_pro"],
    "glee-table5": [],
}


def tiny_settings(name: str, tokenizer) -> list[str]:
    """Returns settings by which a table's models are small, and its trainings two steps long."""
    paper = find_paper(name, read_papers())
    settings = ["measure.device=cpu"]
    for stage in plan(paper, paper.tables[name], (), Places(Path("out"))):
        if stage.kind != "train":
            continue
        given = [*TRAINING, *GLEE]
        if stage.name.startswith("glee_stage1"):
            given += [f"model.config.{field}={value}" for field, value in SIZES.items()]
            given += [f"model.config.text_config={json.dumps(text_config(tokenizer))}"]
            given += [f"model.config.backbone_config={json.dumps(BACKBONES[stage.name.rpartition('_')[2]])}"]
        if stage.name == "glee_stage1_lite":
            given += ["validation.limit=1"]
        else:
            given += ["validation.protocol=null"]
        settings += [f"{stage.name}:{text}" for text in given]
    return settings


def test_every_table_from_its_first_stage(all_corpora, tiny_glee, tmp_path, capsys, monkeypatch):
    """All three stages of all three sizes, and training on OVIS; tables share trainings."""
    tokenizer = tiny_glee[1].tokenizer
    small = GleeImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    monkeypatch.setattr(train_corpora, "new_processor", lambda size, text: GleeProcessor(small, tokenizer))
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

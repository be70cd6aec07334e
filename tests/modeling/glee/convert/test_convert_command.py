"""`lookhear convert glee`, and the folder that it makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from lookhear import GleeConfig
from lookhear.cli import main
from lookhear.modeling.glee import GleeEvaConfig
from lookhear.training.glee.convert import convert_checkpoint, make_image_processor


@pytest.fixture
def checkpoint(published, tiny_glee, tmp_path) -> tuple[Path, Path]:
    """A published file and the folder of its tokenizer."""
    model, weights = published
    torch.save({"model": {f"glee.{name}": value for name, value in weights.items()}}, tmp_path / "GLEE_tiny.pth")
    tokenizer = tiny_glee[1].tokenizer
    assert len(tokenizer) == model.config.text_config.vocab_size
    tokenizer.save_pretrained(tmp_path / "words")
    return tmp_path / "GLEE_tiny.pth", tmp_path / "words"


def test_the_command_makes_a_folder_that_works(checkpoint, tmp_path, capsys):
    path, words = checkpoint
    output = tmp_path / "new" / "glee-tiny"
    assert main(["convert", "glee", str(path), str(output), "--tokenizer", str(words)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert sorted(part.name for part in output.parent.iterdir()) == ["glee-tiny"]  # nothing half-made is left
    model, processor = (
        AutoModelForZeroShotObjectDetection.from_pretrained(output),
        AutoProcessor.from_pretrained(output),
    )
    image = np.zeros((40, 60, 3), np.uint8)
    processor.image_processor.size = {"shortest_edge": 64}
    with torch.no_grad():
        logits = model(**processor(images=image, labels=["cat", "dog"])).logits
    assert logits.shape[-1] == 2 and logits.isfinite().all()
    assert json.loads((output / "config.json").read_text())["num_queries"] == 300


def test_training_form_keeps_everything(make_published, tiny_glee, tmp_path):
    extra = {"text_teacher": True, "denoising_tables": {"coco": 3, "bdd_det": 2}}
    model, weights = make_published(**extra)
    torch.save(weights, tmp_path / "a.pth")
    tiny_glee[1].tokenizer.save_pretrained(tmp_path / "words")
    folder = convert_checkpoint(tmp_path / "a.pth", tmp_path / "a", tokenizer=tmp_path / "words", for_training=True)
    back = AutoModelForZeroShotObjectDetection.from_pretrained(folder)
    same = model.state_dict()
    assert back.state_dict().keys() == same.keys()
    assert all(torch.equal(value, same[name]) for name, value in back.state_dict().items())


def test_a_configuration_can_be_given(published, tiny_glee, tmp_path):
    model, weights = published
    torch.save(weights, tmp_path / "a.pth")
    tiny_glee[1].tokenizer.save_pretrained(tmp_path / "words")
    config = GleeConfig.from_dict({**model.config.to_dict(), "num_queries": 11})
    config.save_pretrained(tmp_path / "settings")
    words = str(tmp_path / "words")
    arguments = ["convert", "glee", str(tmp_path / "a.pth"), str(tmp_path / "a"), "--tokenizer", words]
    assert main([*arguments, "--config", str(tmp_path / "settings")]) == 0
    assert GleeConfig.from_pretrained(tmp_path / "a").num_queries == 11


def run(capsys, *arguments: object) -> str:
    """Runs a command that has to fail with code 2 and one line."""
    assert main(["convert", "glee", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("lookhear")]
    assert captured.out == "" and len(lines) == 1
    return lines[0]


def test_bad_input_is_one_line(checkpoint, tmp_path, capsys):
    path, words = checkpoint
    message = run(capsys, tmp_path / "none.pth", tmp_path / "a")
    assert message == f"lookhear convert: error: checkpoint '{tmp_path / 'none.pth'}' is not a file"
    (tmp_path / "b.pth").write_bytes(b"nothing")
    assert "is damaged or of another kind" in run(capsys, tmp_path / "b.pth", tmp_path / "a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "exists already; name a new folder" in run(capsys, path, tmp_path / "full", "--tokenizer", words)
    assert "output" in run(capsys, path, path, "--tokenizer", words)
    assert "has 514 tokens, CLIP's 49408; name the checkpoint's own" in run(capsys, path, tmp_path / "a")
    (tmp_path / "empty").mkdir()
    assert "has 2 tokens, the checkpoint 514" in run(capsys, path, tmp_path / "a", "--tokenizer", tmp_path / "empty")
    assert "cannot be loaded; name a folder" in run(capsys, path, tmp_path / "a", "--tokenizer", "nobody/nothing")
    assert "empty' cannot be read" in run(capsys, path, tmp_path / "a", "--config", tmp_path / "empty")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert "is not of a GLEE model" in run(capsys, path, tmp_path / "a", "--config", tmp_path / "config.json")
    assert not (tmp_path / "a").exists() and not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_images_are_prepared_as_for_each_size():
    assert make_image_processor(GleeConfig.lite()).size == {"shortest_edge": 800, "longest_edge": 1333}
    assert make_image_processor(GleeConfig.plus()).pad_size is None
    pro = make_image_processor(GleeConfig.pro())
    assert pro.pad_size == {"height": 1536, "width": 1536} and pro.pad_value == 128.0
    small = make_image_processor(GleeConfig.pro(backbone_config=GleeEvaConfig(image_size=256)))
    assert small.size == {"shortest_edge": 256, "longest_edge": 256}

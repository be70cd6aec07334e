"""One's own classes: from a COCO file to a folder that can be pushed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import pipeline

from lookhear.cli import main
from lookhear.commands.fine_tune import _settings
from lookhear.evaluation.measures.mask_runs import to_runs
from lookhear.publishing import gather
from lookhear.training.glee.corpora.opening import open_corpus
from lookhear.training.glee.fine_tuning.coco_evaluation import CocoEvaluation
from lookhear.training.glee.fine_tuning.fine_tune import FineTuneOptions, fine_tune
from lookhear.training.glee.initialise import drop_training_parts, load_for_training
from lookhear.training.glee.mixture.sources import read_vocabulary

SIZE = 64


@pytest.fixture(scope="module")
def checkpoint(glee_checkpoint) -> Path:
    return glee_checkpoint


@pytest.fixture
def own_data(write_coco, tmp_path) -> Path:
    return write_coco(tmp_path / "own", 6)


def options(data: Path, checkpoint: Path, output: Path, **changes) -> FineTuneOptions:
    training = {"use_cpu": True, "save_total_limit": 5, **changes.pop("training", {})}
    fields = {"epochs": 2, "learning_rate": 1e-3, "training": training, **changes}
    return FineTuneOptions(data, str(checkpoint), output, **fields)


def test_a_folder_that_can_be_pushed(own_data, checkpoint, tmp_path):
    output = tmp_path / "my-glee"
    metrics = fine_tune(options(own_data, checkpoint, output))
    names = {f"{kind}_AP{end}" for kind in ("box", "mask") for end in ("", "50", "75", "_square", "_dark bar")}
    assert set(metrics) == names and all(0 <= value <= 1 for value in metrics.values())
    assert json.loads((output / "metrics.json").read_text()) == metrics
    see = pipeline("object-perception", model=str(output))
    assert see.model.config.denoising_tables is None and not see.model.config.text_teacher
    assert isinstance(see(Image.open(own_data.parent / "0.png"), labels=["square"], threshold=0.0), list)
    sheet = Image.open(output / "contact_sheet.jpg")
    assert sheet.width == 2 * (800 + 16) + 8 and sheet.height > 3 * 400

    _, head, card = (output / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["pipeline_tag"] == "zero-shot-object-detection" and "base_model" not in head
    values = {entry["name"]: entry["value"] for entry in head["model-index"][0]["results"][0]["metrics"]}
    assert values["box AP50"] == pytest.approx(100 * metrics["box_AP50"], abs=0.01)
    assert "dark bar, square, cat" in card and "No picture was held out" in card
    state = json.loads((output / "training" / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in state if "eval_mask_AP" in entry] == [3, 6], "after each epoch"
    assert card.count("| 3 | ") == card.count("| 6 | ") == 1 and "6 steps of 2 pictures" in card
    with pytest.raises(ValueError, match="`license: other` needs a license_name"):
        gather(output, "org/my-glee")
    named = (output / "README.md").read_text().replace("# license_name: cc-by-4.0", "license_name: cc-by-4.0")
    (output / "README.md").write_text(named)
    published = {file.path for file in gather(output, "org/my-glee").files}
    assert "contact_sheet.jpg" in published and not [path for path in published if path.startswith("training/")]


def test_only_what_shall_learn_learns(own_data, write_coco, checkpoint, tmp_path):
    """A frozen text encoder stays as it is; a trained one doesn't, and other pictures can be measured on."""
    other = write_coco(tmp_path / "other", 2)
    before = load_for_training(str(checkpoint)).state_dict()
    clip = "model.text_encoder.clip.final_layer_norm.bias"
    for text in ("frozen", "trained"):
        chosen = options(own_data, checkpoint, tmp_path / text, text=text, epochs=1, validation=other)
        metrics = fine_tune(chosen)
        after = load_for_training(str(tmp_path / text)).state_dict()
        assert after.keys() == before.keys()
        assert torch.equal(before[clip], after[clip]) == (text == "frozen")
        assert not torch.equal(
            before["model.heads.class_projection.weight"], after["model.heads.class_projection.weight"]
        )
        assert "2 held-out pictures" in (tmp_path / text / "README.md").read_text() and metrics


def test_a_stopped_run_goes_on(own_data, checkpoint, tmp_path):
    fine_tune(options(own_data, checkpoint, tmp_path / "whole"))
    chosen = options(own_data, checkpoint, tmp_path / "halves")
    fine_tune(options(own_data, checkpoint, tmp_path / "halves"))
    last = tmp_path / "halves" / "training" / "checkpoint-6"
    for file in last.iterdir():  # as if it had been stopped behind the first epoch
        file.unlink()
    last.rmdir()
    (tmp_path / "halves" / "model.safetensors").unlink()
    fine_tune(chosen)
    for name in ("metrics.json", "model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "halves" / name).read_bytes()


def test_what_cannot_be_used_is_said_first(own_data, checkpoint, tmp_path):
    content = json.loads(own_data.read_text())
    content["annotations"][0]["bbox"] = [500, 0, 9, 9]
    content["annotations"][1]["category_id"] = 3
    own_data.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"2 problems: annotation 1: .*outside.*; annotation 2: its category 3"):
        fine_tune(options(own_data, checkpoint, tmp_path / "out"))
    with pytest.raises(ValueError, match="COCO's form"):
        fine_tune(options(tmp_path, checkpoint, tmp_path / "out"))
    with pytest.raises(ValueError, match="text must be"):
        fine_tune(options(own_data, checkpoint, tmp_path / "out", text="thawed"))
    with pytest.raises(ValueError, match="holds a checkpoint already"):
        fine_tune(options(own_data, checkpoint, checkpoint))
    assert not (tmp_path / "out").exists()
    assert _settings(["training.bf16=true"]) == {"bf16": True}
    with pytest.raises(ValueError, match="training.field=value"):
        _settings(["bf16"])


def test_precision_of_perfect_and_of_no_answers(own_data):
    rows = open_corpus("coco", own_data)
    classes = read_vocabulary(own_data)
    evaluation = CocoEvaluation(rows, classes)
    perfect = []
    for number, row in enumerate(evaluation._references(), start=1):
        for label, (x0, y0, x1, y1), mask in zip(row["labels"], row["boxes"], row["masks"]):
            entry = {"image_id": number, "category_id": classes.index(label) + 1, "score": 0.9}
            perfect.append(entry | {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": mask})
    assert set(evaluation.precision(perfect).values()) == {1.0}
    assert set(evaluation.precision([]).values()) == {0.0}
    half = [entry for entry in perfect if entry["category_id"] == 2]
    assert evaluation.precision(half)["box_AP50"] == pytest.approx(0.5)
    wrong = to_runs(np.eye(SIZE, dtype=bool))
    masks = evaluation.precision([{**entry, "segmentation": wrong} for entry in perfect])
    assert masks["box_AP"] == 1.0 and masks["mask_AP"] == 0.0


def test_a_teacher_that_is_missing_is_a_copy(checkpoint):
    model = load_for_training(str(checkpoint), text_teacher=True, denoising_tables={"own": 3})
    student, teacher = model.model.text_encoder.clip.state_dict(), model.model.text_teacher.state_dict()
    assert all(torch.equal(value, teacher[name]) for name, value in student.items())
    names = set(load_for_training(str(checkpoint)).state_dict())
    drop_training_parts(model)
    assert set(model.state_dict()) == names


def test_the_command_names_what_is_missing(own_data, capsys):
    assert main(["train", "glee", "--data", str(own_data)]) == 2
    assert "train glee needs --model" in capsys.readouterr().err
    assert main(["train", "glee", "bf16=1", "--data", str(own_data), "--model", "m", "--output", "o"]) == 2
    assert "must read training.field=value" in capsys.readouterr().err


def test_the_command_prints_what_it_measured(own_data, checkpoint, tmp_path, capsys):
    given = ["--data", own_data, "--model", checkpoint, "--output", tmp_path / "out", "--epochs", "1"]
    assert main(["train", "glee", "training.use_cpu=true", *map(str, given)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines[-5:-1]] == ["box_AP", "box_AP50", "mask_AP", "mask_AP50"]
    assert lines[-1] == str(tmp_path / "out") and (tmp_path / "out" / "README.md").is_file()

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
from lookhear.training.glee.fine_tuning.checking import Annotated, check_annotated
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


def test_a_run_with_other_data_or_settings_is_refused(own_data, write_coco, checkpoint, tmp_path):
    output = tmp_path / "out"
    fine_tune(options(own_data, checkpoint, output, epochs=1, training={"learning_rate": 2e-3}))
    card, weights = (output / "README.md").read_text(), (output / "model.safetensors").read_bytes()
    assert "3 steps of 2 pictures, learning rate 0.002" in card, "what was used, not --learning-rate"
    other = write_coco(tmp_path / "other", 5)
    same = {"epochs": 1, "training": {"learning_rate": 2e-3}}
    for data, changes, message in [
        (other, {}, r"started with data own.json \(\w{12}\), not own.json \(\w{12}\)\. Repeat its command"),
        (own_data, {"epochs": 2}, "started with epochs 1, not 2"),
        (own_data, {"training": {}}, "started with training.learning_rate 0.002, not nothing"),
        (
            own_data,
            {"seed": 1, "text": "trained"},
            "text frozen, not trained; seed 0, not 1.*--overwrite, or",
        ),
    ]:
        with pytest.raises(ValueError, match=message) as raised:
            fine_tune(options(data, checkpoint, output, **same | changes))
        assert "\n" not in str(raised.value)
    moved = own_data.parent.rename(tmp_path / "moved") / own_data.name
    fine_tune(options(moved, checkpoint, output, **same))
    assert (output / "README.md").read_text() == card and (output / "model.safetensors").read_bytes() == weights
    fine_tune(options(other, checkpoint, output, epochs=1, overwrite=True))
    assert "on 5 pictures" in (output / "README.md").read_text()
    assert "0.001" in (output / "README.md").read_text() and (output / "model.safetensors").read_bytes() != weights


def test_settings_of_every_section_and_frozen_parts(own_data, checkpoint, tmp_path, capsys):
    output = tmp_path / "out"
    given = ["--data", own_data, "--model", checkpoint, "--output", output, "--epochs", "1.5"]
    given += ["--freeze", "backbone,text"]
    settings = ["training.use_cpu=true", "training.logging_steps=1", "optimiser.gamma=0.5", "augmentation.flip=0"]
    settings += ["source.most_labels=2", "config.fusion_dropout=0.2", "sheet=2"]
    before = load_for_training(str(checkpoint)).state_dict()
    assert main(["train", "glee", *map(str, given), *settings]) == 0, "settings after the options"
    after = load_for_training(str(output)).state_dict()
    learnt = {name for name in before if not torch.equal(before[name], after[name])}
    assert learnt and not [name for name in learnt if name.startswith(("model.backbone.", "model.text_encoder."))]
    config = json.loads((output / "config.json").read_text())
    assert config["id2label"] == {"0": "dark bar", "1": "square", "2": "cat"} and config["fusion_dropout"] == 0.2
    started = json.loads((output / "training" / "started.json").read_text())
    assert started["augmentation.flip"] == 0 and started["optimiser.gamma"] == 0.5
    states = sorted((output / "training").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    log = json.loads((states[-1] / "trainer_state.json").read_text())["log_history"]
    epochs = {entry["step"]: entry["epoch"] for entry in log}
    assert epochs[3] == 1 and max(epochs) == 5 and epochs[5] == pytest.approx(5 / 3, abs=0.01)
    assert "Frozen: backbone, text." in (output / "README.md").read_text()
    see = pipeline("object-perception", model=str(output))
    picture = Image.open(own_data.parent / "0.png")
    found = see(picture, threshold=0.0)
    assert {one["label"] for one in found} <= {"dark bar", "square", "cat"} and found
    assert [one["score"] for one in found] == [
        one["score"] for one in see(picture, labels=["dark bar", "square", "cat"], threshold=0.0)
    ]
    capsys.readouterr()
    assert main(["perceive", str(own_data.parent / "0.png"), "--model", str(output), "--threshold", "0"]) == 0
    assert "square" in capsys.readouterr().out


def test_a_run_without_progress_stops(own_data, checkpoint, tmp_path):
    """With a learning rate of almost nothing, no average precision is better than the first."""
    chosen = options(own_data, checkpoint, tmp_path / "out", epochs=9, patience=2, learning_rate=1e-12)
    fine_tune(chosen)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "9 steps of 2 pictures" in card and "It stopped after 2 evaluations in a row" in card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": ("backbones",)}, "freeze: there is no part 'backbones'; name backbone, text, or a module"),
        ({"freeze": ("model",)}, "freeze: nothing would learn without model"),
        ({"freeze": ("text",), "text": "trained"}, "freeze: text can't be frozen and trained"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"source": {"ratios": 3}}, "source has no field 'ratios'"),
        ({"augmentation": {"flip": 3}}, "augmentation.flip must be from 0 to 1"),
        ({"config": {"num_querys": 3}}, "config has no field 'num_querys'; did you mean 'num_queries'"),
        ({"training": {"num_train_epochs": 3}}, "training.num_train_epochs is not used here: pass --epochs"),
    ],
)
def test_wrong_options_are_one_line(own_data, checkpoint, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as raised:
        fine_tune(options(own_data, checkpoint, tmp_path / "out", **changes))
    assert "\n" not in str(raised.value)


def test_another_kind_of_model_is_refused(own_data, tmp_path, repository):
    for model, message in [
        (repository / "model_cards" / "avsr-grid-tiny", "is a checkpoint of avsr, not of GLEE"),
        (tmp_path / "nothing", "is no checkpoint: .*lookhear convert glee"),
        (own_data, "is no checkpoint"),
    ]:
        with pytest.raises(ValueError, match=message) as raised:
            fine_tune(options(own_data, model, tmp_path / "out"))
        assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


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


def perfect_answers(evaluation: CocoEvaluation) -> list[dict]:
    """COCO's results that agree with all annotations; the masks of objects without one are their boxes."""
    found = []
    for number, row in enumerate(evaluation._references("mask"), start=1):
        for label, (x0, y0, x1, y1), mask in zip(row["labels"], row["boxes"], row["masks"]):
            entry = {"image_id": number, "category_id": evaluation.classes.index(label) + 1, "score": 0.9}
            found.append(entry | {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": mask})
    return found


def rewritten(data: Path, change) -> Path:
    """The COCO file, changed by a function of its content."""
    content = json.loads(data.read_text())
    change(content)
    data.write_text(json.dumps(content))
    return data


def test_one_object_without_a_mask_is_said_and_ignored_in_mask_ap(own_data, caplog):
    rows = open_corpus("coco", rewritten(own_data, lambda content: content["annotations"][2].pop("segmentation")))
    counted = Annotated.of_rows(rows)
    assert (counted.count, counted.unmasked) == (11, ["1"])
    assert check_annotated(counted, counted, ["square", "dark bar"], "data")
    assert "data: 1 of 11 objects have no mask (pictures 1): batches with them learn boxes only" in caplog.text
    evaluation = CocoEvaluation(rows, ["square", "dark bar"])
    found = perfect_answers(evaluation)
    assert set(evaluation.precision(found).values()) == {1.0}
    place = next(place for place, entry in enumerate(found) if entry["image_id"] == 2)
    x, y, width, height = map(int, found[place]["bbox"])
    half = np.zeros((SIZE, SIZE), dtype=bool)
    half[y : y + height // 2, x : x + width] = True
    wrong = {**found[place], "segmentation": to_runs(half), "score": 0.95}
    lacking = evaluation.precision([*found[:place], wrong, *found[place + 1 :]])
    assert lacking["box_AP"] == lacking["mask_AP"] == 1.0, "its mask is not known, so none is wrong"
    most = open_corpus(
        "coco",
        rewritten(own_data, lambda content: [entry.pop("segmentation", 0) for entry in content["annotations"][3:]]),
    )
    counted = Annotated.of_rows(most)
    assert not check_annotated(counted, counted, ["square"], "data") and "masks don't count" in caplog.text


def test_names_are_compared_by_what_they_mean(own_data, write_coco, tmp_path, caplog):
    def rename(content):
        content["categories"][0]["name"], content["categories"][1]["name"] = "Dark-Bar", "SQUARE."

    rows = open_corpus("coco", rewritten(write_coco(tmp_path / "other", 3), rename))
    evaluation = CocoEvaluation(rows, ["dark bar", "square", "cat"])
    assert [row["labels"] for row in evaluation._references()] == [["square"]] * 3
    counted = Annotated.of_rows(rows)
    assert check_annotated(counted, counted, ["dark bar", "square"], "validation")
    assert "validation: objects that are not of a trained class are not measured: Dark-Bar (2)" in caplog.text
    with pytest.raises(
        ValueError, match=r"validation: none of its 5 objects \(SQUARE., Dark-Bar\) is of .* trained \(cat\)"
    ):
        check_annotated(counted, counted, ["cat"], "validation")
    crowds = Annotated.of_rows(
        open_corpus("coco", rewritten(own_data, lambda content: [a.update(iscrowd=1) for a in content["annotations"]]))
    )
    with pytest.raises(ValueError, match="data: all 11 objects are crowds"):
        check_annotated(crowds, counted, ["square"], "validation")
    with pytest.raises(ValueError, match="validation: none of its 0 objects is of a class"):
        check_annotated(counted, crowds, ["square"], "validation")


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

"""What is measured while a model trains: a published protocol on a part of its data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import lookhear.training.glee.validation as validation_module
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.mixture.corpus_recipe import (
    CorporaRecipe,
    CorpusTrainingRecipe,
    StartRecipe,
    ValidationRecipe,
)
from lookhear.training.glee.mixture.train_corpora import open_sources, train
from lookhear.training.glee.validation import Validation


@pytest.fixture
def coco(write_coco, tmp_path) -> Path:
    """COCO's layout: `train2017` of six pictures, `val2017` of three; the last of each has no object."""
    root = tmp_path / "coco"
    root.mkdir()
    (root / "annotations").mkdir()
    for split, count in (("train2017", 6), ("val2017", 3)):
        content = json.loads(write_coco(root / split, count).read_text())
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] < count - 1]
        for entry in content["annotations"]:
            entry["area"] = entry["bbox"][2] * entry["bbox"][3]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def recipe(coco: Path, checkpoint: Path, output: Path, validation: dict, **training) -> CorpusTrainingRecipe:
    fields = {"output_dir": str(output), "max_steps": 4, "learning_rate": 1e-3, "use_cpu": True, "logging_steps": 1}
    fields |= {"save_steps": 2, **training}
    source = {"reader": "coco", "root": str(coco), "supervision": {"denoising_table": "coco"}, "images": 2}
    source |= {"augmentation": {"shortest_edges": [64], "crop": 0.0}}
    config = {"loss_settings": {"mask_points": 64}, "denoising_tables": {"coco": 80}}
    return CorpusTrainingRecipe(
        StartRecipe(checkpoint=str(checkpoint), config=config),
        CorporaRecipe([source], skip_bad=True),
        ValidationRecipe(**validation),
        training=fields,
    )


class Squares:
    """Stands in for the pipeline: finds each picture's square exactly, and nothing else."""

    made: list[Squares] = []

    def __init__(self, model, processor, device):
        assert not model.training
        self.model, self.asked, self.weights = model, [], model.get_input_embeddings().weight.detach().clone()
        Squares.made.append(self)

    def __call__(self, inputs, **settings):
        self.asked += [Path(item["image"]).name for item in inputs]
        return [self.found(int(Path(item["image"]).stem)) for item in inputs]

    def found(self, index: int) -> list[dict]:
        left = 4 + 5 * index % 40
        mask = torch.zeros(64, 64, dtype=torch.bool)
        mask[8:28, left : left + 20] = True
        box = {"xmin": left, "ymin": 8, "xmax": left + 20, "ymax": 28}
        return [{"score": 0.9, "label": "square", "box": box, "mask": mask.numpy()}]


def measured(history: list[dict], name: str) -> dict[int, float]:
    """Step -> figure."""
    return {entry["step"]: entry[name] for entry in history if name in entry}


def test_coco_is_measured_while_a_model_trains(coco, glee_checkpoint, tmp_path, monkeypatch):
    """
    Of the two classes in the first two pictures one is found, so that AP is a half; before the first step and with
    each checkpoint, each time with the weights as they are. Training learns what it learns without.
    """
    monkeypatch.setattr(validation_module, "ObjectPerceptionPipeline", Squares)
    monkeypatch.setattr(Squares, "made", [])
    given = {"protocol": "coco", "data": str(coco), "limit": 2}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "box_AP50"}
    trainer = train(recipe(coco, glee_checkpoint, tmp_path / "run", given, **best))
    history = trainer.state.log_history
    for name in ("eval_box_AP", "eval_mask_AP", "eval_box_AP50"):
        assert measured(history, name) == {0: 0.5, 2: 0.5, 4: 0.5}
    assert "eval_box_AP_large" not in {name for entry in history for name in entry}, "no object is large"
    assert [see.asked for see in Squares.made] == [["0.png", "1.png"]] * 3
    assert not torch.equal(Squares.made[0].weights, Squares.made[2].weights)
    assert trainer.state.best_metric == 0.5 and (tmp_path / "run" / "model.safetensors").is_file()
    without = train(recipe(coco, glee_checkpoint, tmp_path / "without", {}))
    assert measured(without.state.log_history, "loss") == measured(history, "loss")
    assert not measured(without.state.log_history, "eval_box_AP")


def test_the_pipeline_itself_measures(coco, glee_checkpoint, tmp_path):
    given = {"protocol": "coco", "data": str(coco), "limit": 1}
    trainer = train(recipe(coco, glee_checkpoint, tmp_path / "run", given, max_steps=1))
    figures = measured(trainer.state.log_history, "eval_box_AR_100")
    assert figures.keys() == {0, 1} and all(0 <= figure <= 1 for figure in figures.values())


WRONG = {
    "validation.protocol must be one of coco, .*, not 'imagenet'": {"protocol": "imagenet"},
    "must be one of .*, not 'scene-questions'": {"protocol": "scene-questions"},
    "validation.data must name the folder of coco": {"protocol": "coco"},
    "validation.data 'nowhere' is not a folder; .*validation.protocol=null": {"protocol": "coco", "data": "nowhere"},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_measured_is_refused(message):
    with pytest.raises(ValueError, match=message):
        Validation(ValidationRecipe(**WRONG[message]))


def test_what_only_a_server_measures_is_noticed_before_the_first_step(coco, glee_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(validation_module, "ObjectPerceptionPipeline", Squares)
    path = coco / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    del content["annotations"]
    path.unlink()
    (path.parent / "image_info_val2017.json").write_text(json.dumps(content))
    given = {"protocol": "coco", "data": str(coco)}
    with pytest.raises(ValueError, match="coco val2017 cannot be measured here .*no public annotations"):
        train(recipe(coco, glee_checkpoint, tmp_path / "run", given))
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_a_best_figure_that_is_not_measured_is_refused(coco, glee_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(validation_module, "ObjectPerceptionPipeline", Squares)
    given = {"protocol": "coco", "data": str(coco)}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "AP"}
    with pytest.raises(ValueError, match="metric_for_best_model 'AP' is not measured; choose box_AP, "):
        train(recipe(coco, glee_checkpoint, tmp_path / "run", given, **best))


def test_pictures_without_objects_are_skipped_and_counted(coco, caplog):
    source = {"reader": "coco", "root": str(coco)}
    problems = Problems(skip=True)
    (opened,) = open_sources(CorporaRecipe([source], skip_bad=True), 0, problems)
    assert len(opened.rows) == 5 and problems.count == 1
    counted = "pictures that are used: 5; annotations and pictures that cannot be: 1"
    assert f"data.sources[0], coco {coco}: {counted}" in caplog.text
    assert "it has no annotated object" in caplog.text
    with pytest.raises(CorpusError, match="1 problem: image 5: it has no annotated object; .*data.skip_bad=true"):
        open_sources(CorporaRecipe([source]), 0)
    for picture in (coco / "train2017").glob("*.png"):
        picture.unlink()
    with pytest.raises(CorpusError, match="no usable picture: 6 problems: image 0: its file .* is missing"):
        open_sources(CorporaRecipe([source]), 0, Problems(skip=True))

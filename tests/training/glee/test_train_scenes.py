"""A recipe runs, stops, goes on, and leaves a checkpoint that loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from lookhear.evaluation.measures.mask_runs import box_ious
from lookhear.training.glee.scenes.evaluate_scenes import SceneEvaluation, exchange_sentences, table
from lookhear.training.glee.scenes.examples import ask_expressions
from lookhear.training.glee.scenes.portraits import Cutout
from lookhear.training.glee.scenes.recipe import GleeRecipe
from lookhear.training.glee.scenes.scenes import HELD_OUT_PAIRS, SceneMaterial, SceneRecipe, make_scene
from lookhear.training.glee.scenes.shapes import COLOURS
from lookhear.training.glee.scenes.train import build_processor, main, train
from lookhear.training.recipe_reading import read_recipe

RECIPE = {
    "model": {
        "config": {
            "backbone_config": {
                "model_type": "resnet",
                "embedding_size": 8,
                "hidden_sizes": [8, 8, 16, 16],
                "depths": [1, 1, 1, 1],
                "layer_type": "basic",
                "out_features": ["stage1", "stage2", "stage3", "stage4"],
            },
            "text_config": {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            },
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_groups": 8,
            "intermediate_size": 32,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "num_queries": 10,
            "fusion_size": 32,
            "fusion_heads": 2,
            "template_size": 32,
            "mask_positions": True,
            "loss_settings": {"mask_points": 32},
        },
        "image_processor": {"size": {"shortest_edge": 64}},
        "merges": 20,
        "max_length": 64,  # few merges, many pieces
    },
    "data": {"canvases": [[64, 64]], "images": {"labels": 2, "expressions": 2, "prompts": 2}},
    "training": {
        "max_steps": 3,
        "logging_steps": 1,
        "save_steps": 2,
        "use_cpu": True,
        "learning_rate": 1.0e-3,
        "warmup_steps": 2,
        "seed": 3,
    },
}


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def test_scenes_are_measured_while_a_model_trains(recipe, tmp_path):
    """Before the first step, with each checkpoint and at the end, on scenes of their own; training stays as it is."""
    measured = run(recipe, tmp_path / "measured", "validation.scenes=3")
    history = measured.state.log_history
    figures = {entry["step"]: entry for entry in history if "eval_expressions_P50" in entry}
    assert figures.keys() == {0, 2, 3}
    kinds = ("labels_box_AP50", "labels_mask_AP50", "expressions_P50", "masks_mIoU", "points_mIoU", "boxes_mIoU")
    assert all(0 <= entry[f"eval_{kind}"] <= 1 for entry in figures.values() for kind in kinds)
    evaluation = SceneEvaluation(measured.model, measured.processing_class, size=(64, 64))
    scenes = evaluation.scenes(3, measured_recipe := SceneRecipe(excluded=HELD_OUT_PAIRS))
    assert measured_recipe == GleeRecipe().data.scene_recipe()
    ious = [iou for values in evaluation.expressions(scenes).values() for iou in values]
    assert figures[3]["eval_expressions_P50"] == pytest.approx(sum(iou > 0.5 for iou in ious) / len(ious), abs=1e-4)
    boxes = evaluation.prompts(scenes)["boxes"]
    assert figures[3]["eval_boxes_mIoU"] == pytest.approx(sum(boxes) / len(boxes), abs=1e-4)
    without = run(recipe, tmp_path / "without")
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in (history, without.state.log_history)]
    assert losses[0] == losses[1]


def run(recipe: Path, output: Path, *overrides: str):
    return train(read_recipe(recipe, [f"training.output_dir={output}", *overrides], GleeRecipe, recipe.parent))


def test_stopped_and_resumed_is_as_if_never_stopped(recipe, tmp_path):
    whole = run(recipe, tmp_path / "whole").state.log_history
    halves = tmp_path / "halves"
    run(recipe, halves, "training.max_steps=2")
    resumed = run(recipe, halves, "training.max_steps=3").state.log_history
    losses = [[entry["loss"] for entry in history if "loss" in entry] for history in (whole, resumed)]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    named = {name for entry in whole for name in entry if name.endswith("_class")}
    assert named <= {"labels_class", "expressions_class", "prompts_class"} and named

    state = json.loads((halves / "trainer_state.json").read_text())
    assert state["global_step"] == 3
    model = AutoModelForZeroShotObjectDetection.from_pretrained(halves)
    processor = AutoProcessor.from_pretrained(halves)
    evaluation = SceneEvaluation(model, processor, size=(64, 64), batch=2)
    scenes = evaluation.scenes(2)
    found = evaluation.average_precision(scenes, "kind")
    assert set(found) == {"bbox", "segm"} and all(0 <= value <= 1 for value in found.values())
    assert all(0 <= value <= 1 for values in evaluation.expressions(scenes).values() for value in values)
    assert set(evaluation.prompts(scenes)) == {"points", "boxes", "scribbles", "masks"}


@pytest.mark.slow
def test_half_a_checkpoint_is_trained_again_and_an_ended_run_is_not(recipe, tmp_path):
    weights = run(recipe, tmp_path / "out").model.state_dict()
    for name in ("checkpoint-3/trainer_state.json", "trainer_state.json"):
        (tmp_path / "out" / name).unlink()
        before = (tmp_path / "out" / "checkpoint-2" / "files.json").stat().st_mtime_ns
        again = run(recipe, tmp_path / "out")
        assert again.state.global_step == 3 and len(again.state.log_history) >= 3
        assert all(torch.equal(weight, weights[name]) for name, weight in again.model.state_dict().items())
        assert (tmp_path / "out" / "checkpoint-2" / "files.json").stat().st_mtime_ns == before
        assert (tmp_path / "out" / "trainer_state.json").is_file()


def test_the_table_has_a_row_for_each_prompt_kind(tiny_glee):
    model, processor = tiny_glee
    backdrop = np.full((64, 48, 3), (20, 190, 220), np.uint8)
    person = np.zeros((64, 48), bool)
    person[20:, 12:36] = True
    material = SceneMaterial(frames=[Cutout(backdrop, {"person": person})])
    evaluation = SceneEvaluation(model, processor, size=(64, 96), batch=2, material=material)
    rows = {name: (measure, value) for name, measure, value in table(evaluation, 4)}
    asked = {"label: 8 kinds and people", "expression: attribute or place", "expression: a pair never trained on"}
    assert asked <= set(rows) and {"another scene's expression", "points", "boxes", "scribbles", "masks"} <= set(rows)
    measure, value = rows["the person on the left, in the middle, on the right"]
    assert measure.startswith("P@0.5 (") and 0 <= value <= 1


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_what_is_below_the_threshold_of_sentences_is_no_answer(tiny_glee, monkeypatch, threshold):
    model, processor = tiny_glee
    monkeypatch.setattr(model.config, "expression_threshold", threshold)

    class Doubtful(SceneEvaluation):
        """Finds the right box each time, and is half sure of it."""

        def scored_expressions(self, scenes, others=False):
            return {"attribute": [(1.0, 0.5)] * len(scenes)}

    rows = [(name, value) for name, _, value in table(Doubtful(model, processor, size=(64, 96), batch=2), 2)]
    for name in ("its own scene's expression", "another scene's expression"):
        assert [value for row, value in rows if row == name][-1] == (1.0 if threshold == 0 else 0.0)


def test_exchanged_sentences_are_other_rows():
    scenes = [make_scene(np.random.default_rng(seed), (64, 64)) for seed in range(3)]
    asked = ask_expressions(scenes, np.random.default_rng(0), 1, {"attribute": 1.0})
    moved = exchange_sentences(asked)
    assert moved.rows == asked.rows
    before, after = ([t for of in a.prompts["expressions"] for t in of] for a in (asked, moved))
    assert after == before[1:] + before[:1]


def test_box_iou():
    assert box_ious([(0, 0, 2, 2)], [(1, 0, 3, 2)])[0, 0] == pytest.approx(1 / 3)
    assert box_ious([(0, 0, 1, 1)], [(2, 2, 3, 3)])[0, 0] == 0


def test_recipes_that_cannot_run_are_refused(recipe):
    with pytest.raises(ValueError, match="max_steps"):
        main(str(recipe), ["training.max_steps=-1"])
    with pytest.raises(ValueError, match="data has no field 'image'"):
        main(str(recipe), ["data.image=3"])


def test_the_shipped_recipe_is_read():
    path = Path(__file__).parents[3] / "training" / "glee" / "recipes" / "scenes_tiny.yaml"
    recipe = read_recipe(path, [], GleeRecipe, path.parent)
    assert recipe.training["max_steps"] > 0 and recipe.model.config["mask_positions"]

    look, picture = recipe.data.scene_recipe(), np.zeros((96, 48, 3), np.uint8)
    assert look.people and look.photos
    everyone = [
        Cutout(picture, {"person": np.ones((96, 48), bool)}, "woman", garment, None, colour)
        for garment in ("suit", "uniform")
        for colour in COLOURS
    ]
    material = SceneMaterial(portraits=everyone, frames=[Cutout(picture, {"person": np.ones((96, 48), bool)})])
    tokenizer = build_processor(recipe, material).tokenizer
    longest = "the woman in the orange uniform right of the yellow triangle"
    assert tokenizer.tokenize(longest) == [f"{word}</w>" for word in longest.split()]

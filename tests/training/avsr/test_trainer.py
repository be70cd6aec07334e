"""The parts of the trainer: error rates per view, warm-up, frozen modules."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from lookhear.processing.avsr import AvsrTokenizer
from lookhear.training.avsr.recipe import Recipe, load_recipe
from lookhear.training.avsr.train import build_model, train
from lookhear.training.avsr.trainer import ErrorRates, PlateauWarmup, views_of


@pytest.fixture
def recipe(tiny_recipe, prepared_folder, make_texts, tmp_path):
    """Makes a recipe on a small prepared folder; keyword arguments are fields of its sections."""
    import yaml

    folder = prepared_folder(tmp_path / "data", make_texts(8))

    def make(sections: dict | None = None, **training) -> Recipe:
        content = tiny_recipe(folder, tmp_path / "run", **training)
        for section, fields in (sections or {}).items():
            content[section] = {**content[section], **fields}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content))
        return load_recipe(path)

    return make


def test_views():
    assert views_of("audiovisual") == ("audio", "visual", "audiovisual") and views_of("visual") == ("visual",)


def test_error_rates_of_each_view():
    tokenizer = AvsrTokenizer()

    def ids(texts, width=16):
        rows = [tokenizer(text).input_ids for text in texts]
        return np.array([row + [-100] * (width - len(row)) for row in rows])

    references = ["TEN TOES", "A TOE"]
    audio, both = ["TEN NOES", "A"], ["TEN TOES", "A TOE"]
    prediction = EvalPrediction(predictions=np.stack([ids(audio), ids(both)], axis=2), label_ids=ids(references))
    metrics = ErrorRates(tokenizer, ("audio", "audiovisual"))(prediction)
    assert metrics["wer_audio"] == pytest.approx(2 / 4) and metrics["cer_audio"] == pytest.approx(5 / 13)
    assert metrics["wer_audiovisual"] == metrics["cer_audiovisual"] == metrics["wer"] == 0.0


def test_warm_up_rises_along_a_cosine_and_then_leaves_the_rate_alone():
    group = {"lr": 0.5, "initial_lr": 0.5}
    rates = []
    for step in range(6):
        if step == 4:
            group["lr"] = 0.3  # the plateau scheduler has lowered it
        PlateauWarmup(4).on_step_begin(
            None, SimpleNamespace(global_step=step), None, optimizer=SimpleNamespace(param_groups=[group])
        )
        rates.append(group["lr"])
    assert rates[:4] == pytest.approx([0.5 * (1 - np.cos(np.pi * n / 4)) / 2 for n in (1, 2, 3, 4)])
    assert rates[4:] == [0.3, 0.3]


def test_frozen_modules_keep_weights_and_statistics(recipe):
    frozen = ["model.encoder.visual_front_end", "model.encoder.audio_encoder"]
    plan = recipe({"model": {"freeze": frozen}}, max_steps=2)
    torch.manual_seed(plan.training["seed"])
    before = {name: value.clone() for name, value in build_model(plan.model).state_dict().items()}
    trainer = train(plan)
    after = trainer.model.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    fixed = {name for name in before if name.startswith(tuple(frozen))}
    assert fixed <= same and any("running_mean" in name for name in fixed)
    assert {"ctc_head.output.weight", "model.encoder.fusion.conv.mix.weight"}.isdisjoint(same)
    assert not any(p.requires_grad for name, p in trainer.model.named_parameters() if name in fixed)


def test_plateau_recipe_warms_up_and_evaluates(recipe):
    """The paper's schedule: warm-up, then the rate follows the validation's word error rate."""
    plan = recipe(
        max_steps=5,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={"factor": 0.5, "patience": 0},
        metric_for_best_model="wer",
        greater_is_better=False,
        warmup_steps=2,
        eval_strategy="steps",
        eval_steps=1,
    )
    plan.data.validation = plan.data.train
    history = train(plan).state.log_history
    evaluations = [entry for entry in history if "eval_wer" in entry]
    names = {f"eval_{rate}_{view}" for rate in ("wer", "cer") for view in ("audio", "visual", "audiovisual")}
    assert len(evaluations) == 5 and names <= set(evaluations[0])
    assert all(entry["eval_wer"] == entry["eval_wer_audiovisual"] for entry in evaluations)
    losses = [entry for entry in history if "loss" in entry]
    assert {"ctc_loss", "attention_loss"} <= set(losses[0])
    assert max(entry["learning_rate"] for entry in losses) <= 2e-3

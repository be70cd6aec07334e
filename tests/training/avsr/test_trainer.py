"""The parts of the trainer: error rates per view, warm-up, frozen modules."""

from types import SimpleNamespace

import jiwer
import numpy as np
import pytest
import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, EvalPrediction

from lookhear.modeling.avsr import AvsrConfig
from lookhear.processing.avsr import AvsrTokenizer
from lookhear.training.avsr.prepare import decode_row, load_prepared
from lookhear.training.avsr.recipe import EvaluationRecipe, Recipe, load_recipe
from lookhear.training.avsr.search import search_settings
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


# ----------------------------------------------------------------------------------- how texts are read for measuring

EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 30, "max_steps": 30, "save_strategy": "no"}


def with_losses(recipe, **config) -> Recipe:
    """A recipe with other weights of the losses, whose training clips are its validation clips."""
    plan = recipe(**EVERY_STEP)
    plan.model.config = plan.model.config | config
    plan.data.validation = plan.data.train
    plan.augmentation.noise_probability = 0.0
    return plan


@pytest.mark.parametrize(
    ("losses", "beams", "expected"),
    [
        ({}, None, {"num_beams": 1, "ctc_weight": 1.0}),  # the best path of a trained CTC head, the cheapest search
        ({}, 1, {"num_beams": 1}),  # the joint search, greedy: the weight is that of the generation config
        ({}, 4, {"num_beams": 4}),
        ({"ctc_loss_weight": 0}, None, {"num_beams": 1, "ctc_weight": 0.0}),
        ({"ctc_loss_weight": 0.0}, 4, {"num_beams": 4, "ctc_weight": 0.0}),
        ({"ctc_loss_weight": 1.0}, None, {"num_beams": 1, "ctc_weight": 1.0}),
        ({"ctc_loss_weight": 1}, 4, {"num_beams": 4, "ctc_weight": 1.0}),
        # the alignment loss trains the CTC head as well
        ({"ctc_loss_weight": 0, "alignment_loss_weight": 0.5}, None, {"num_beams": 1, "ctc_weight": 1.0}),
        ({"ctc_loss_weight": 0, "alignment_loss_weight": 0.5}, 4, {"num_beams": 4}),
    ],
)
def test_the_search_follows_the_loss(losses, beams, expected):
    found = search_settings(AvsrConfig(**losses), EvaluationRecipe(num_beams=beams))
    assert found == {"num_return_sequences": 1, "do_sample": False, **expected}


@pytest.fixture
def one_text(tiny_recipe, prepared_folder, tmp_path):
    """Makes recipes whose clips all have one text, which a decoder learns by heart in a few steps."""
    import yaml

    folder = prepared_folder(tmp_path / "same", ["ET OA"] * 8)

    def make(output: str, config: dict, evaluation: dict | None = None, **training) -> Recipe:
        content = tiny_recipe(folder, tmp_path / output, **EVERY_STEP | {"learning_rate": 1e-2} | training)
        content["model"] = content["model"] | {"config": content["model"]["config"] | {"modality": "audio"} | config}
        content["data"]["validation"] = content["data"]["train"]
        content["augmentation"] = {"noise_probability": 0.0}
        content["evaluation"] = evaluation or {}
        path = tmp_path / f"{output}.yaml"
        path.write_text(yaml.safe_dump(content))
        return load_recipe(path)

    return make


def evaluations(trainer) -> list[float]:
    return [entry["eval_wer"] for entry in trainer.state.log_history if "eval_wer" in entry]


def read_back(folder) -> tuple[float | None, list[str]]:
    """A saved run's CTC weight, and what it reads by its own settings."""
    model, processor = AutoModelForSpeechSeq2Seq.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    row = decode_row(load_prepared(folder.parent / "same")[0])
    inputs = processor(audio=[row["audio"]], sampling_rate=16000)
    texts = processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)
    return getattr(model.generation_config, "ctc_weight", None), texts


def test_without_a_ctc_loss_the_decoder_alone_is_measured_and_saved(one_text, tmp_path):
    """The CTC head never learns anything: what it says must neither be the measure nor have a weight afterwards."""
    trainer = train(one_text("run", {"ctc_loss_weight": 0}))
    assert evaluations(trainer) == [0.0]
    assert read_back(tmp_path / "run") == (0.0, ["ET OA"])


def test_the_saved_weight_follows_the_loss_of_the_last_training(one_text, tmp_path):
    """Trained without CTC, then with it: the search has its usual weight again. A weight between is the user's."""
    short = {"max_steps": 1, "eval_strategy": "no"}
    train(one_text("run", {"ctc_loss_weight": 0}, **short))
    again = one_text("again", {}, **short)
    again.model.checkpoint, again.model.config = str(tmp_path / "run"), {"ctc_loss_weight": 0.3}
    assert getattr(train(again).model.generation_config, "ctc_weight", None) is None
    model = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "again")
    model.generation_config.ctc_weight = 0.4
    model.save_pretrained(tmp_path / "again")
    third = one_text("third", {}, {"num_beams": 3}, **short)
    third.model.checkpoint, third.model.config = str(tmp_path / "again"), {}
    saved = train(third).model.generation_config
    assert (saved.ctc_weight, saved.num_beams) == (0.4, 3)
    alone = one_text("alone", {"ctc_loss_weight": 1}, **short)
    assert train(alone).model.generation_config.ctc_weight == 1.0


def test_the_joint_search_can_be_the_measure(recipe):
    """Every view's error rate is that of `generate` with the recipe's beams on the same clips, one by one."""
    plan = with_losses(recipe)
    plan.training |= {"max_steps": 12, "eval_steps": 12}
    plan.evaluation = EvaluationRecipe(num_beams=3)
    trainer = train(plan)
    measured = [entry for entry in trainer.state.log_history if "eval_wer" in entry][-1]
    model, processor = trainer.model.eval(), trainer.processing_class
    rows = [decode_row(row) for row in load_prepared(plan.data.validation)]
    references = [row["text"] for row in rows]
    for view in ("audio", "visual", "audiovisual"):
        texts = []
        for row in rows:
            sound = {"audio": [row["audio"]], "sampling_rate": 16000} if view != "visual" else {}
            lips = {"videos": [row["mouths"]]} if view != "audio" else {}
            ids = model.generate(**processor(**sound, **lips), num_beams=3, ctc_weight=0.1)
            texts += processor.batch_decode(ids, skip_special_tokens=True)
        assert measured[f"eval_wer_{view}"] == pytest.approx(jiwer.wer(references, texts)), view
        assert measured[f"eval_cer_{view}"] == pytest.approx(jiwer.cer(references, texts)), view

"""GLEE's losses against the published code's: assignments, every loss of every layer, gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lookhear.modeling.glee.configuration_glee import DENOISING_TABLES
from lookhear.modeling.glee.convert_glee import convert_state_dict
from lookhear.modeling.glee.loss_glee import (
    GleeDenoisingDraws,
    GleeLoss,
    GleeLossDraws,
    GleeLossSettings,
    GleeSupervision,
    GleeTargets,
)

pytestmark = pytest.mark.parity
KINDS = {"class": "ce", "confidence": "conf", "box": "bbox", "giou": "giou", "mask": "mask", "dice": "dice"}
LAYERS = {"": ""} | {f"_{index}": f"_{index}" for index in range(4)}
STAGES = LAYERS | {"_proposals": "_interm"} | {f"_denoising{name}": f"_dn{name}" for name in LAYERS}
TABLES = {"bdd_inst": "bdd_inst", "bdd_det": "bdd_det", "grounding": "grounding", "sa1b": "grounding"}
TABLES |= {"ytvis19": "ytvis19", "sa1b_clip": "grounding"}
FILES = ["train_inst", "train_boxonly", "train_empty_image", "train_grounding", "train_visual"]
FILES += ["train_video", "train_video_visual"]
COMPARED = {"train_boxonly": 33, "train_visual": 50, "train_video_visual": 50}  # losses of layers; 45 of the others
LOSS_SETTINGS = {"mask_points": 64, "denoising": {"most_queries": 10}}
CHANNELS = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


@pytest.fixture(scope="module")
def model(stored_model):
    """`model(stored)`: with as many queries as that file's."""
    made = {}

    def make(stored):
        queries = stored.shapes["pred_logits"][1]
        if queries not in made:
            fields = {"loss_settings": LOSS_SETTINGS, "denoising_tables": DENOISING_TABLES, "num_queries": queries}
            made[queries] = stored_model(fusion_dropout=0.0, **fields).train()
        return made[queries]

    return make


def inputs_of(stored) -> dict:
    """The batch of a `train_*` file as the model takes it."""
    labels = []
    for index in range(2):
        names = {"class_labels": "labels", "boxes": "boxes", "masks": "masks", "track_ids": "inst_id"}
        names = {ours: f"targets.{index}.{name}" for ours, name in names.items()}
        labels.append({ours: stored[name] for ours, name in names.items() if name in stored})
    ids, mask = stored["in.input_ids"], stored["in.attention_mask"]
    inputs = {"pixel_values": pixels_of(stored), "labels": labels, "loss_draws": draws_of(stored)}
    if stored.facts["task"] == "grounding":
        return inputs | {"expression_input_ids": ids, "expression_attention_mask": mask}
    inputs |= {"input_ids": ids, "attention_mask": mask}
    if stored.facts.get("prompt_mode"):
        inputs |= prompts_of(stored, labels)
    return inputs


def pixels_of(stored) -> torch.Tensor:
    if "in.pixel_values" in stored:
        return stored["in.pixel_values"]
    mean, std = (torch.tensor(CHANNELS[name])[:, None, None] for name in ("mean", "std"))
    return (stored["in.pixel_values@u8"].float() - mean) / std


def prompts_of(stored, labels) -> dict:
    points = torch.full((2, 4, 512, 2), -1.0)
    for image in range(2):
        for level in range(4):
            name = f"in.sampled_points.level{level}"
            drawn = stored[f"{name}.{image}" if f"{name}.0" in stored else name]
            points[image, level, : len(drawn)] = drawn
    masks = torch.cat([entry["masks"] for entry in labels])
    prompts = {"prompt_masks": masks, "prompt_types": torch.zeros(2, dtype=torch.long), "prompt_points": points}
    if stored.facts.get("frames"):  # the clip's prompt is drawn in its first frame
        prompts["prompt_sources"] = torch.zeros(2, dtype=torch.long)
    return prompts


def draws_of(stored) -> GleeLossDraws:
    """The numbers that the published code drew."""
    flips = stored["rng.dn.rand_like.0"]
    classes = torch.zeros(len(flips), dtype=torch.long)
    classes[flips < 0.2] = stored["rng.dn.randint_like.0"].long()
    denoising = GleeDenoisingDraws(flips, classes, stored["rng.dn.rand_like.1"])
    if "rng.matcher_points.0" not in stored:
        return GleeLossDraws(denoising=denoising)
    calls = sum(name.startswith("rng.matcher_points.") for name in stored.tensors)
    matcher = torch.cat([stored[f"rng.matcher_points.{index}"] for index in range(calls)]).unflatten(0, (-1, 2))
    masks = torch.stack([stored[f"rng.mask_points.{index}"] for index in range(6)])
    negatives = None
    if "rng.track.negatives.0" in stored:
        negatives = torch.stack([stored[f"rng.track.negatives.{row}"] for row in range(2)]).long()
    return GleeLossDraws(matcher, masks, denoising, negatives)


def supervision_of(stored) -> GleeSupervision:
    return GleeSupervision(
        confidence=stored.facts.get("prompt_mode") is not None,
        denoising_table=TABLES[stored.facts["task"]],
        track_frames=2 if "rng.track.negatives.0" in stored else 1,
    )


@pytest.mark.parametrize("name", FILES)
def test_losses_and_gradients(glee, glee_folder, model, name):
    stored = glee(name)
    learner = model(stored)
    learner.zero_grad()
    output = learner(**inputs_of(stored), supervision=supervision_of(stored))
    raw = stored.facts["losses_raw"]
    compared = 0
    for kind, theirs in KINDS.items():
        for stage, suffix in STAGES.items():
            wanted = raw.get(f"loss_{theirs}{suffix}", 0.0)
            ours = output.loss_dict.get(f"{kind}{stage}", torch.zeros(())).item()
            assert ours == pytest.approx(wanted, rel=1e-4, abs=1e-7), f"{kind}{stage}"
            compared += wanted != 0
    assert compared == COMPARED.get(name, 45)
    for kind, theirs in {"track": "track_loss", "distillation": "dist_loss"}.items():
        ours = output.loss_dict.get(kind, torch.zeros(())).item()
        assert ours == pytest.approx(raw[theirs], rel=1e-4), kind
    assert output.loss.item() == pytest.approx(stored.facts["total_weighted"], rel=1e-4)
    output.loss.backward()
    compare_gradients(stored.facts["grad_norm"], glee_folder, learner)


def compare_gradients(norms: dict[str, float], folder: Path, learner: torch.nn.Module) -> None:
    """Each published weight's gradient is as long as that of our weights which it is converted into."""
    ours = {name: value.grad for name, value in learner.named_parameters() if value.grad is not None}
    rounding = 1e-7 * max(norms.values())  # where a gradient is 0 by nature, as of keys' biases
    with safe_open(folder / "model_lite_tiny.safetensors", "pt") as file:
        for name, wanted in norms.items():
            empty = torch.empty(file.get_slice(name).get_shape(), device="meta")
            found = [
                ours[part].norm() for part in convert_state_dict({name: empty}, for_training=True) if part in ours
            ]
            norm = torch.stack(found).norm().item() if found else 0.0
            assert norm == pytest.approx(wanted, rel=1e-4, abs=rounding), name
    assert len(norms) >= 295


@pytest.mark.parametrize("name", FILES)
@torch.no_grad()
def test_assignments(glee, model, name):
    stored = glee(name)
    inputs = inputs_of(stored)
    output = model(stored)(**inputs)
    criterion = GleeLoss(GleeLossSettings(mask_points=64), inputs["loss_draws"])
    targets = GleeTargets.from_labels(inputs["labels"], 2)
    stages = [output, *output.auxiliary_outputs, output.proposal_outputs]
    if supervision_of(stored).track_frames > 1:
        stages = [output, *stages]
    match = criterion.match(stages, targets)
    assert f"match.{len(stages) - 1}.1.src" in stored and f"match.{len(stages)}.1.src" not in stored
    for stage in range(len(stages)):
        for row in range(2):
            mine = match.rows[stage] == row
            assert match.queries[stage][mine].tolist() == stored[f"match.{stage}.{row}.src"].tolist()
            assert match.objects[stage][mine].tolist() == stored[f"match.{stage}.{row}.tgt"].tolist()


def test_switches(glee, model):
    """A data set without boxes or masks worth learning has no such losses; without classes all objects are alike."""
    stored = glee("train_inst")
    learner, inputs = model(stored), inputs_of(stored)
    with torch.no_grad():
        both = learner(**inputs, supervision=GleeSupervision(boxes=False, masks=False)).loss_dict
        assert {name.partition("_")[0] for name in both} == {"class", "distillation"}
        inputs |= {"input_ids": inputs["input_ids"][:1], "attention_mask": inputs["attention_mask"][:1]}
        agnostic = learner(**inputs, supervision=GleeSupervision(class_agnostic=True)).loss_dict
    kinds = {name.partition("_")[0] for name in agnostic}
    assert kinds == {"class", "box", "giou", "mask", "dice", "distillation"}

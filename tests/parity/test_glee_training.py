"""GLEE's losses against the published code's: assignments, every loss of every layer."""

from __future__ import annotations

import pytest
import torch

from lookhear.modeling.glee.configuration_glee import DENOISING_TABLES
from lookhear.modeling.glee.denoising_glee import GleeDenoisingDraws
from lookhear.modeling.glee.loss_glee import GleeLoss, GleeLossDraws, GleeLossSettings, GleeSupervision
from lookhear.modeling.glee.matching_glee import GleeTargets

pytestmark = pytest.mark.parity
KINDS = {"class": "ce", "confidence": "conf", "box": "bbox", "giou": "giou", "mask": "mask", "dice": "dice"}
LAYERS = {"": ""} | {f"_{index}": f"_{index}" for index in range(4)}
STAGES = LAYERS | {"_proposals": "_interm"} | {f"_denoising{name}": f"_dn{name}" for name in LAYERS}
TABLES = {"bdd_inst": "bdd_inst", "bdd_det": "bdd_det", "grounding": "grounding", "sa1b": "grounding"}
FILES = ["train_inst", "train_boxonly", "train_empty_image", "train_grounding", "train_visual"]


LOSS_SETTINGS = {"mask_points": 64, "denoising": {"most_queries": 10}}


@pytest.fixture(scope="module")
def model(stored_model):
    return stored_model(fusion_dropout=0.0, loss_settings=LOSS_SETTINGS, denoising_tables=DENOISING_TABLES).train()


def inputs_of(stored) -> dict:
    """The batch of a `train_*` file as the model takes it."""
    labels = []
    for index in range(2):
        names = {"class_labels": "labels", "boxes": "boxes", "masks": "masks"}
        names = {ours: f"targets.{index}.{name}" for ours, name in names.items()}
        labels.append({ours: stored[name] for ours, name in names.items() if name in stored})
    ids, mask = stored["in.input_ids"], stored["in.attention_mask"]
    inputs = {"pixel_values": stored["in.pixel_values"], "labels": labels, "loss_draws": draws_of(stored)}
    if stored.facts["task"] == "grounding":
        return inputs | {"expression_input_ids": ids, "expression_attention_mask": mask}
    inputs |= {"input_ids": ids, "attention_mask": mask}
    if "in.sampled_points.level0.0" in stored:
        draws = [[stored[f"in.sampled_points.level{level}.{image}"] for level in range(4)] for image in range(2)]
        points = torch.full((2, 4, 512, 2), -1.0)
        for row, draw in zip(points, draws):
            for level, drawn in enumerate(draw):
                row[level, : len(drawn)] = drawn
        masks = torch.cat([entry["masks"] for entry in labels])
        inputs |= {"prompt_masks": masks, "prompt_types": torch.zeros(2, dtype=torch.long), "prompt_points": points}
    return inputs


def draws_of(stored) -> GleeLossDraws:
    """The numbers that the published code drew."""
    flips = stored["rng.dn.rand_like.0"]
    classes = torch.zeros(len(flips), dtype=torch.long)
    classes[flips < 0.2] = stored["rng.dn.randint_like.0"].long()
    denoising = GleeDenoisingDraws(flips, classes, stored["rng.dn.rand_like.1"])
    if "rng.matcher_points.0" not in stored:
        return GleeLossDraws(denoising=denoising)
    matcher = torch.cat([stored[f"rng.matcher_points.{index}"] for index in range(12)]).unflatten(0, (6, 2))
    return GleeLossDraws(matcher, torch.stack([stored[f"rng.mask_points.{index}"] for index in range(6)]), denoising)


@pytest.mark.parametrize("name", FILES)
def test_losses(glee, model, name):
    stored = glee(name)
    inputs = inputs_of(stored)
    visual = "prompt_masks" in inputs
    table = TABLES[stored.facts["task"]]
    output = model(**inputs, supervision=GleeSupervision(confidence=visual, denoising_table=table))
    compared = 0
    for kind, theirs in KINDS.items():
        for stage, suffix in STAGES.items():
            wanted = stored.facts["losses_raw"].get(f"loss_{theirs}{suffix}", 0.0)
            ours = output.loss_dict.get(f"{kind}{stage}", torch.zeros(())).item()
            assert ours == pytest.approx(wanted, rel=1e-4, abs=1e-7), f"{kind}{stage}"
            compared += wanted != 0
    assert compared == {"train_boxonly": 33, "train_visual": 50}.get(name, 45)
    weighted = stored.facts["losses_weighted"]
    wanted = sum(value for name, value in weighted.items() if name.startswith("loss_"))
    assert output.loss.item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", FILES)
@torch.no_grad()
def test_assignments(glee, model, name):
    stored = glee(name)
    inputs = inputs_of(stored)
    output = model(**inputs)
    criterion = GleeLoss(GleeLossSettings(mask_points=64), inputs["loss_draws"])
    targets = GleeTargets.from_labels(inputs["labels"], 2)
    stages = [output, *output.auxiliary_outputs, output.proposal_outputs]
    match = criterion.match(stages, targets)
    for stage in range(6):
        for row in range(2):
            mine = match.rows[stage] == row
            assert match.queries[stage][mine].tolist() == stored[f"match.{stage}.{row}.src"].tolist()
            assert match.objects[stage][mine].tolist() == stored[f"match.{stage}.{row}.tgt"].tolist()


def test_switches(glee, model):
    """A data set without boxes or masks worth learning has no such losses; without classes all objects are alike."""
    stored = glee("train_inst")
    inputs = inputs_of(stored)
    with torch.no_grad():
        both = model(**inputs, supervision=GleeSupervision(boxes=False, masks=False)).loss_dict
        assert {name.partition("_")[0] for name in both} == {"class"}
        inputs |= {"input_ids": inputs["input_ids"][:1], "attention_mask": inputs["attention_mask"][:1]}
        agnostic = model(**inputs, supervision=GleeSupervision(class_agnostic=True)).loss_dict
    assert {name.partition("_")[0] for name in agnostic} == {"class", "box", "giou", "mask", "dice"}

"""Published names -> ours, and back: no weight is lost, left over, or left at random."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lookhear import GleeConfig, GleeForObjectDetection
from lookhear.modeling.glee.convert_glee import (
    check_weights,
    config_from_state_dict,
    convert_state_dict,
    load_published_checkpoint,
)

PUBLISHED = {  # key list -> (size, with stage-2 parts, parameters in training form)
    "lite": ("lite", True, 190_438_213),
    "plus": ("plus", True, 358_694_713),
    "pro": ("pro", True, 462_770_245),
    "lite_frozen": ("lite", False, 119_013_957),
}
TRAINING = {"text_teacher": True, "denoising_tables": {"coco": 3, "bdd_det": 2}}


@pytest.fixture(scope="session")
def parity_keys(repository) -> Callable[[str], dict]:
    """`parity_keys("lite")`: published name -> shape of one size."""
    shared = Path(os.environ.get("LOOKHEAR_SHARED", repository.parent / "shared"))
    folder = Path(os.environ.get("LOOKHEAR_PARITY", shared / "parity")) / "glee"
    return lambda name: json.loads((folder / f"keys_{name}.json").read_text(encoding="utf-8"))["keys"]


def training_config(size: str, stage_two: bool) -> GleeConfig:
    config = getattr(GleeConfig, size)()
    if stage_two:
        return config.for_training()
    return getattr(GleeConfig, size)(template_fuser=False, denoising_tables=config.for_training().denoising_tables)


def on_meta(config: GleeConfig) -> GleeForObjectDetection:
    with torch.device("meta"):
        return GleeForObjectDetection(config)


@pytest.mark.parametrize(("size", "stage_two", "count"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_sizes(size, stage_two, count):
    model = on_meta(training_config(size, stage_two))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parity
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("prefix", ["", "glee."])
def test_every_published_key_has_its_place(parity_keys, name, prefix):
    size, stage_two, count = PUBLISHED[name]
    keys = parity_keys(name)
    weights = {prefix + key: torch.zeros(()).expand(entry["shape"]) for key, entry in keys.items()}
    weights["criterion.empty_weight"] = torch.ones(2)
    converted = convert_state_dict(weights, for_training=True)
    config = config_from_state_dict(weights, for_training=True)
    check_weights(converted, config)  # both directions, and every shape
    assert config.to_dict() == training_config(size, stage_two).to_dict()
    model = on_meta(config)
    assert not any(model.load_state_dict(converted, assign=True))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parity
@pytest.mark.parametrize("name", PUBLISHED)
def test_only_training_needs_teacher_and_denoising_tables(parity_keys, name):
    size, stage_two, count = PUBLISHED[name]
    weights = {key: torch.zeros(()).expand(entry["shape"]) for key, entry in parity_keys(name).items()}
    converted, config = convert_state_dict(weights), config_from_state_dict(weights)
    check_weights(converted, config)
    assert config.to_dict() == getattr(GleeConfig, size)(template_fuser=stage_two).to_dict()
    dropped = count - sum(parameter.numel() for parameter in on_meta(config).parameters())
    assert dropped == 149_760 + (63_165_952 if stage_two else 0)


@pytest.mark.parametrize("backbone", ["resnet", "swin", "eva"])
@pytest.mark.parametrize("second_names", [True, False])
def test_names_there_and_back(make_published, backbone, second_names):
    model, weights = make_published(backbone, second_names, **TRAINING)
    converted, expected = convert_state_dict(weights, for_training=True), model.state_dict()
    assert converted.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(converted[name], value)] == []
    kept = convert_state_dict(weights).keys()
    dropped = {name.split(".")[1] for name in expected.keys() - kept}
    assert kept <= expected.keys() and dropped == {"text_teacher", "denoising_labels"}


@pytest.mark.parametrize("backbone", ["resnet", "swin", "eva"])
def test_configuration_is_read_off_the_weights(make_published, backbone):
    model, weights = make_published(backbone, **TRAINING)
    found, wanted = config_from_state_dict(weights, for_training=True).to_dict(), model.config.to_dict()
    assert {name: found[name] for name in found if found[name] != wanted[name]} == {}
    plain = config_from_state_dict(weights)
    assert not plain.text_teacher and plain.denoising_tables is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lang_projection": None}, "weights are missing: model.text_encoder.projection.weight"),
        ({"pn_indicator.weight": (3, 64)}, r"model.visual_prompter.indicator.weight \(3, 64\) instead of \(2, 64\)"),
        ({"lang_projection": (512,)}, r"projection.weight \(512,\) instead of \(64, 512\)"),
        ({"predictor.decoder.layers.1.self_attn.in_proj_bias": ()}, "weights are missing.*q_proj.bias"),
        ({"predictor.decoder.layers.1.norm1.bias": None}, "1 weights are missing: model.decoder.layers.1.encoder"),
        ({"pixel_decoder.transformer.level_embed": None}, "level_embed is missing, so this is no GLEE checkpoint"),
        ({"backbone.res6.0.conv1.weight": (2, 2)}, "1 names are none of GLEE's: glee.backbone.res6.0.conv1.weight"),
        (
            {"text_encoder.text_model.pooler.weight": (2,)},
            "names are none of GLEE's: glee.text_encoder.text_model.pooler",
        ),
        ({"predictor.decoder.norm.bias": (64,)}, "decoder.norm.bias.* have different values"),
        ({"predictor.bbox_embed.1.layers.0.bias": (3,)}, "bbox_embed.1.layers.0.bias.* have different values"),
        (
            {"backbone.res3.0.conv1.weight": (5, 8, 1, 1)},
            "blocks of backbone.res3 are no bottlenecks.*give it with config=",
        ),
        ({"predictor.decoder.layers.0.linear1.weight": (7, 64)}, "feed-forward layers of different widths"),
        ({"pixel_decoder.transformer.level_embed": (4, 40)}, "its hidden size of 40 is no multiple of 32"),
        ({"pixel_decoder.transformer.level_embed": (4,)}, r"level_embed has the shape \(4,\)"),
        ({"text_encoder.text_model.embeddings.token_embedding.weight": (9, 64)}, "none of CLIP's"),
    ],
)
def test_what_does_not_fit_is_named(published, tmp_path, change, message):
    weights = dict(published[1])
    for name, shape in change.items():
        weights.pop(name, None)
        if shape is not None:
            weights[name] = torch.full(shape, 7.0)
    path = tmp_path / "weights.pth"
    torch.save({"model": {f"glee.{name}": value for name, value in weights.items()}}, path)
    with pytest.raises(ValueError, match=rf"^checkpoint: .*{message}") as caught:
        load_published_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_another_backbone_is_named(published):
    weights = {name: value for name, value in published[1].items() if not name.startswith("backbone.")}
    with pytest.raises(ValueError, match="no ResNet, Swin or EVA-02"):
        config_from_state_dict(weights)


def test_unknown_windows_are_asked_for(make_published):
    weights = make_published("eva")[1]
    weights = {name: value for name, value in weights.items() if ".attn.rope." not in name}
    with pytest.raises(ValueError, match="which of its blocks attend within windows is unknown; give it with config="):
        config_from_state_dict(weights)

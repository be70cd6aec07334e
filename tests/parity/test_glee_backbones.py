"""Swin and EVA-02 against feature maps that the published code produced; ResNet is in the tests of the whole model."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig, PreTrainedModel, SwinConfig

from lookhear.modeling.glee import GleeEvaConfig
from lookhear.modeling.glee.backbone_glee import make_backbone
from lookhear.modeling.glee.convert_glee import convert_state_dict

pytestmark = pytest.mark.parity
MAPS = {"swin": ("res2", "res3", "res4", "res5"), "eva02": ("p3", "p4", "p5", "p6")}


def make_config(kind: str, published: dict) -> PreTrainedConfig:
    """Our configuration from the settings that the published code was run with."""
    if kind == "swin":
        return SwinConfig(
            patch_size=published["PATCH_SIZE"],
            embed_dim=published["EMBED_DIM"],
            depths=published["DEPTHS"],
            num_heads=published["NUM_HEADS"],
            window_size=published["WINDOW_SIZE"],
            mlp_ratio=published["MLP_RATIO"],
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
    return GleeEvaConfig(
        image_size=published["IMAGE_SIZE"],
        patch_size=published["PATCH_SIZE"],
        hidden_size=published["DMBED_DIM"],
        intermediate_size=int(published["DMBED_DIM"] * published["MLP_RATIO"]),
        num_hidden_layers=published["DEPTH"],
        num_attention_heads=published["NUM_HEADS"],
        window_size=published["WINDOW_SIZE"],
        window_block_indexes=published["WINDOW_BLOCK_INDEXES"],
    )


def load(kind: str, glee, glee_folder) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """Our backbone with the published weights, and these under their published names."""
    weights = load_file(glee_folder / f"backbone_{kind}_weights.safetensors")
    weights = {name: value.float() for name, value in weights.items() if name.startswith("backbone.")}
    backbone = make_backbone(make_config(kind, glee(f"backbone_{kind}").facts["config"])).eval()
    converted = convert_state_dict(weights)
    backbone.load_state_dict({name.removeprefix("model.backbone."): value for name, value in converted.items()})
    return backbone, weights


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["swin", "eva02"])
@torch.no_grad()
def test_feature_maps(glee, glee_folder, kind, attention):
    stored, (backbone, _) = glee(f"backbone_{kind}"), load(kind, glee, glee_folder)
    backbone.set_attn_implementation(attention)
    for size in range(3):
        pixel_values = torch.nn.functional.interpolate(stored[f"{size}.pixel_values_low"].float(), scale_factor=8)
        assert list(pixel_values.shape) == stored.shapes[f"{size}.pixel_values"]
        maps = backbone(pixel_values).feature_maps
        assert [feature_map.shape[1] for feature_map in maps] == backbone.channels
        for name, feature_map in zip(MAPS[kind], maps, strict=True):
            stored.compare(f"{size}.{name}", feature_map)


def test_position_tables_are_the_stored_ones(glee, glee_folder):
    """They are computed, so a checkpoint's are dropped."""
    backbone, weights = load("eva02", glee, glee_folder)
    side, window = backbone.config.image_size // backbone.config.patch_size, backbone.config.window_size
    tables = {
        "glb": backbone._rotary_of_image(side, side, "cpu"),
        "win": backbone._rotary(window**2, window, window, "cpu"),
    }
    for name, (cosines, sines) in tables.items():
        torch.testing.assert_close(cosines, weights[f"backbone.net.rope_{name}.freqs_cos"], atol=1e-6, rtol=0)
        torch.testing.assert_close(sines, weights[f"backbone.net.rope_{name}.freqs_sin"], atol=1e-6, rtol=0)

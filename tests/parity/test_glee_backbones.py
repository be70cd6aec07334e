"""Swin and EVA-02 against feature maps that the published code produced; ResNet is in the tests of the whole model."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.parity
MAPS = {"swin": ("res2", "res3", "res4", "res5"), "eva02": ("p3", "p4", "p5", "p6")}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["swin", "eva02"])
@torch.no_grad()
def test_feature_maps(glee, stored_backbone, kind, attention):
    stored, backbone = glee(f"backbone_{kind}"), stored_backbone(kind)
    backbone.set_attn_implementation(attention)
    for size in range(3):
        pixel_values = torch.nn.functional.interpolate(stored[f"{size}.pixel_values_low"].float(), scale_factor=8)
        assert list(pixel_values.shape) == stored.shapes[f"{size}.pixel_values"]
        maps = backbone(pixel_values).feature_maps
        assert [feature_map.shape[1] for feature_map in maps] == backbone.channels
        for name, feature_map in zip(MAPS[kind], maps, strict=True):
            stored.compare(f"{size}.{name}", feature_map)


def test_position_tables_are_the_stored_ones(glee_folder, stored_backbone):
    """They are computed, so a checkpoint's are dropped."""
    backbone, weights = stored_backbone("eva02"), load_file(glee_folder / "backbone_eva02_weights.safetensors")
    side, window = backbone.config.image_size // backbone.config.patch_size, backbone.config.window_size
    tables = {
        "glb": backbone._rotary_of_image(side, side, "cpu"),
        "win": backbone._rotary(window**2, window, window, "cpu"),
    }
    for name, (cosines, sines) in tables.items():
        torch.testing.assert_close(cosines, weights[f"backbone.net.rope_{name}.freqs_cos"].float(), atol=1e-6, rtol=0)
        torch.testing.assert_close(sines, weights[f"backbone.net.rope_{name}.freqs_sin"].float(), atol=1e-6, rtol=0)

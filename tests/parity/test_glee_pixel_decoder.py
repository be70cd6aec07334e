"""The pixel decoder behind EVA-02, whose levels it takes as they are: masks at an eighth of the canvas."""

import pytest
import torch
from safetensors.torch import load_file

from lookhear import GleeConfig
from lookhear.modeling.glee import GleeEvaConfig
from lookhear.modeling.glee.convert_glee import convert_state_dict
from lookhear.modeling.glee.decoder_glee import GleePixelDecoder

pytestmark = pytest.mark.parity
PREFIX = "model.pixel_decoder."


@pytest.fixture(scope="module")
def pixel_decoder(glee, glee_folder, stored_model) -> GleePixelDecoder:
    """Of the small model's weights, but for those that the stored file brings along."""
    facts = glee("backbone_eva02").facts
    shared = load_file(glee_folder / "model_lite_tiny.safetensors")
    own = load_file(glee_folder / "backbone_eva02_weights.safetensors")
    weights = {name: shared[name] for name in facts["pixel_decoder_shared_from_model_lite_tiny"]}
    weights |= {name: own[name] for name in facts["pixel_decoder_own"]}
    converted = convert_state_dict({name: value.float() for name, value in weights.items()})
    fields = stored_model().config.to_dict()
    fields |= {"backbone_config": GleeEvaConfig(), "project_features": False}
    decoder = GleePixelDecoder(GleeConfig(**fields), [fields["hidden_size"]] * 4).eval()
    decoder.load_state_dict({name.removeprefix(PREFIX): value for name, value in converted.items()})
    return decoder


@torch.no_grad()
@pytest.mark.parametrize("size", [0, 1, 2])
def test_pixel_decoder(glee, pixel_decoder, stored_backbone, size):
    stored = glee("backbone_eva02")
    pixel_values = torch.nn.functional.interpolate(stored[f"{size}.pixel_values_low"].float(), scale_factor=8)
    maps = stored_backbone("eva02")(pixel_values).feature_maps
    mask_features, levels, _ = pixel_decoder(*pixel_decoder.project(maps), stored[f"{size}.tokens"].float())
    stored.compare(f"{size}.mask_features", mask_features)
    for index, level in enumerate(levels):
        stored.compare(f"{size}.multi_scale.{index}", level)

"""GLEE's small parts against numbers that the reference code produced."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lookhear.modeling.glee.deformable_attention_glee import GleeDeformableAttention

FOLDER = Path(os.environ.get("LOOKHEAR_PARITY", Path(__file__).parents[3] / "shared" / "parity")) / "glee"
HEADS = 4  # of the stored unit; its weights do not say
pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no folder {FOLDER}; set LOOKHEAR_PARITY to its parent"),
]


@pytest.fixture(scope="module")
def units() -> dict[str, torch.Tensor]:
    return load_file(FOLDER / "units.safetensors")


def assert_close(value: torch.Tensor, stored: torch.Tensor) -> None:
    torch.testing.assert_close(value, stored, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_deformable_attention(units, coordinates):
    weights = {name.removeprefix("msda.w."): t for name, t in units.items() if name.startswith("msda.w.")}
    references = units[f"msda.ref{coordinates}"]
    levels, hidden_size = references.shape[2], units["msda.query"].shape[-1]
    points = weights["attention_weights.bias"].numel() // HEADS // levels
    module = GleeDeformableAttention(hidden_size, num_heads=HEADS, num_levels=levels, num_points=points)
    module.load_state_dict(weights)
    shapes = [tuple(shape) for shape in units["msda.shapes"].tolist()]
    out = module(units["msda.query"], units["msda.value"], references, shapes)
    assert_close(out, units[f"msda.out{coordinates}"])

"""GLEE's small parts against numbers that the reference code produced."""

import pytest
import torch

from lookhear.modeling.glee.attention_glee import GleeDeformableAttention
from lookhear.modeling.glee.decoder_glee import box_encoding, proposal_boxes, sine_position_map

HEADS = 4  # of the stored unit; its weights do not say
pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def units(glee):
    return glee("units")


@pytest.mark.parametrize("coordinates", [2, 4])
def test_deformable_attention(units, coordinates):
    weights = {name.removeprefix("msda.w."): t for name, t in units.tensors.items() if name.startswith("msda.w.")}
    references = units[f"msda.ref{coordinates}"]
    levels, hidden_size = references.shape[2], units["msda.query"].shape[-1]
    points = weights["attention_weights.bias"].numel() // HEADS // levels
    module = GleeDeformableAttention(hidden_size, num_heads=HEADS, num_levels=levels, num_points=points)
    module.load_state_dict(weights)
    shapes = [tuple(shape) for shape in units["msda.shapes"].tolist()]
    out = module(units["msda.query"], units["msda.value"], references, shapes)
    units.compare(f"msda.out{coordinates}", out, atol=2e-5, rtol=1e-5)


def test_position_encodings(units):
    _, size, height, width = units.shapes["sine2d.out"]
    places = sine_position_map(height, width, size, torch.device("cpu"))
    units.compare("sine2d.out", places.T.unflatten(-1, (height, width))[None], atol=1e-5)
    units.compare(
        "sineembed.out", box_encoding(units["sineembed.in"], units.shapes["sineembed.out"][-1] // 2), atol=1e-5
    )


def test_proposals(glee):
    """The stored levels come coarsest first; at the edge a proposal is infinite and its pixel's memory zero."""
    stored = glee("proposals_unit")
    for prefix in ("", "wide."):
        shapes = [tuple(shape) for shape in stored[f"{prefix}spatial_shapes"].tolist()]
        boxes, counts = proposal_boxes(shapes, torch.device("cpu"))
        logits = torch.logit(boxes).masked_fill(~counts[:, None], torch.inf)
        stored.compare(f"{prefix}output_proposals_logit", logits[None], atol=1e-4)
    assert not counts.all()
    assert (stored["wide.output_memory"][0].any(dim=-1) == counts).all()

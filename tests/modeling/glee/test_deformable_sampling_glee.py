"""Both ways of sampling give what transformers' module gives, at every place and in every gradient."""

import pytest
import torch
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from lookhear.modeling.glee import attention_glee
from lookhear.modeling.glee.attention_glee import CellTable, sample_by_grid

SHAPES = [(7, 5), (4, 9), (1, 1)]
BATCH, QUERIES, HEADS, LEVELS, POINTS, SIZE = 2, 11, 3, 3, 2, 4


def by_table(value, shapes, locations, weights):
    return CellTable(value, shapes).sample(locations, weights)


def by_transformers(value, shapes, locations, weights):
    return MultiScaleDeformableAttention()(value, torch.tensor(shapes), shapes, None, locations, weights, 64)


def inputs(low: float, high: float, dtype=torch.float64) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    value = torch.randn(BATCH, sum(h * w for h, w in SHAPES), HEADS, SIZE, dtype=dtype, generator=draw)
    places = torch.rand(BATCH, QUERIES, HEADS, LEVELS, POINTS, 2, dtype=dtype, generator=draw) * (high - low) + low
    weights = torch.rand(BATCH, QUERIES, HEADS, LEVELS, POINTS, dtype=dtype, generator=draw)
    return [value, places, weights]


@pytest.mark.parametrize("sample", [by_table, sample_by_grid])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.3, 1.3), (-5, 5), (-1e6, 1e6)])
def test_same_sums_inside_across_and_far_beyond_the_edge(low, high, sample):
    value, places, weights = inputs(low, high)
    expected = by_transformers(value, SHAPES, places, weights)
    torch.testing.assert_close(sample(value, SHAPES, places, weights), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sample", [by_table, sample_by_grid])
@pytest.mark.parametrize("place", [0.0, 1.0, 0.5 / 7, 1 - 0.5 / 5, -0.5 / 5, 1 + 0.5 / 5, 1 + 0.5 / 7, 2.0])
def test_places_on_the_border_and_on_cell_centres(place, sample):
    value, places, weights = inputs(0, 1)
    places = torch.full_like(places, place)
    expected = by_transformers(value, SHAPES, places, weights)
    torch.testing.assert_close(sample(value, SHAPES, places, weights), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sample", [by_table, sample_by_grid])
def test_same_gradients(sample):
    tensors = [tensor.requires_grad_() for tensor in inputs(-0.3, 1.3)]
    target = torch.randn(BATCH, QUERIES, HEADS * SIZE, dtype=torch.float64)
    value, places, weights = tensors
    ours = torch.autograd.grad((sample(value, SHAPES, places, weights) * target).sum(), tensors)
    theirs = torch.autograd.grad((by_transformers(value, SHAPES, places, weights) * target).sum(), tensors)
    for mine, expected in zip(ours, theirs):
        torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-8)


def test_chunks_change_nothing(monkeypatch):
    tensors = inputs(-0.3, 1.3, torch.float32)
    whole = by_table(tensors[0], SHAPES, *tensors[1:])
    monkeypatch.setattr(attention_glee, "SAMPLES_AT_ONCE", 4 * HEADS * LEVELS * POINTS)
    assert torch.equal(by_table(tensors[0], SHAPES, *tensors[1:]), whole)


def test_only_the_query_that_looks_nowhere_becomes_nan():
    value, places, weights = inputs(0, 1, torch.float32)
    places[1, 4, 0, 0, 0, 0] = float("nan")
    out = by_table(value, SHAPES, places, weights)
    broken = out.isnan().nonzero()
    assert {(b, q) for b, q, _ in broken.tolist()} == {(1, 4)}

"""
Tests of the Triton kernels of deformable sampling, computed on a CPU by Triton's interpreter.

The interpreter has to be chosen before Triton is imported, so `test_sampling_kernel_glee.py` runs this file in a
process of its own; by hand: `TRITON_INTERPRET=1 python -m pytest tests/modeling/glee/interpreted_kernel.py`. What is
expected is computed in float64 from the definition, cell by cell.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lookhear.modeling.glee import attention_glee
from lookhear.modeling.glee.attention_glee import MapSizes, kernel_agrees, sample_by_grid
from lookhear.modeling.glee.sampling_kernel_glee import sample_by_kernel

Shapes = list[tuple[int, int]]
CASES = [  # batch, maps, heads, channels of a head, queries, points
    pytest.param(2, [(7, 5), (4, 3), (2, 2)], 2, 16, 11, 4, id="three-maps"),
    pytest.param(1, [(9, 13), (5, 7), (3, 4), (2, 2)], 8, 32, 9, 4, id="as-published"),
    pytest.param(3, [(1, 1), (1, 6), (5, 1)], 3, 64, 5, 2, id="maps-of-one-row"),
    pytest.param(1, [(6, 6)], 1, 24, 37, 3, id="24-channels"),
    pytest.param(2, [(4, 4), (3, 3), (2, 2), (1, 1), (2, 3)], 4, 32, 1, 1, id="five-maps-one-query"),
    pytest.param(1, [(5, 4), (2, 3)], 5, 3, 7, 4, id="3-channels"),
]


def draw(batch, shapes: Shapes, heads, channels, queries, points, beyond=0.3) -> list[torch.Tensor]:
    """Value, locations (some of them `beyond` the maps) and weights in float64."""
    generator = torch.Generator().manual_seed(queries)
    positions = sum(height * width for height, width in shapes)
    value = torch.randn(batch, positions, heads, channels, generator=generator, dtype=torch.float64)
    places = torch.rand(batch, queries, heads, len(shapes), points, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(batch, queries, heads, len(shapes) * points, generator=generator, dtype=torch.float64)
    weights = weights.softmax(-1).unflatten(-1, (len(shapes), points))
    return [value, places * (1 + 2 * beyond) - beyond, weights]


def sums(value, shapes: Shapes, locations, weights) -> torch.Tensor:
    """The kernels' sums."""
    maps = MapSizes.of(shapes, value.device)
    return sample_by_kernel(value, maps.tensor, maps.starts, locations, weights)


def by_definition(value, shapes: Shapes, locations, weights) -> torch.Tensor:
    """Weighted bilinear samples with a loop over cells: a cell counts by its distance along both axes, below one."""
    batch, queries, heads, _, points, _ = locations.shape
    total, start = 0.0, 0
    image = torch.arange(batch)[:, None, None, None]
    head = torch.arange(heads)[None, None, :, None]
    for level, (height, width) in enumerate(shapes):
        x, y = locations[:, :, :, level, :, 0] * width - 0.5, locations[:, :, :, level, :, 1] * height - 0.5
        for row, column in itertools.product(range(height), range(width)):
            near = (1 - (x - column).abs()).clamp(min=0) * (1 - (y - row).abs()).clamp(min=0)
            cell = value[image, start + row * width + column, head]  # (batch, 1, heads, 1, channels)
            total = total + ((near * weights[:, :, :, level])[..., None] * cell).sum(3)
        start += height * width
    return total.flatten(2)


def with_gradients(way, value, shapes: Shapes, locations, weights) -> list[torch.Tensor]:
    """Sums, and gradients of value, locations and weights for a fixed gradient of the sums."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (value, locations, weights)]
    out = way(inputs[0], shapes, *inputs[1:])
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((found.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("batch", "shapes", "heads", "channels", "queries", "points"), CASES)
def test_float32_is_within_1e_5_of_float64(batch, shapes, heads, channels, queries, points):
    """Places that float32 rounds are those that float64 gets, as the gradient jumps where a cell ends."""
    tensors = [tensor.float() for tensor in draw(batch, shapes, heads, channels, queries, points)]
    exact = [tensor.double() for tensor in tensors]
    expected = with_gradients(by_definition, exact[0], shapes, *exact[1:])
    found = with_gradients(sums, tensors[0], shapes, *tensors[1:])
    assert all(tensor.dtype == torch.float32 for tensor in found)
    assert [error(*pair) < 1e-5 for pair in zip(found, expected, strict=True)] == [True] * 4


@pytest.mark.parametrize(("batch", "shapes", "heads", "channels", "queries", "points"), CASES[:3])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float16, 2e-3), (torch.bfloat16, 1.2e-2)])
def test_maps_are_read_in_their_own_dtype(batch, shapes, heads, channels, queries, points, dtype, bound):
    """Of half precision, what is written is rounded, and the gradient that comes back; places stay exact."""
    value, locations, weights = draw(batch, shapes, heads, channels, queries, points)
    small = torch.float64 if dtype == torch.float64 else torch.float32
    value, locations, weights = value.to(dtype), locations.to(small), weights.to(small)
    expected = with_gradients(by_definition, value.double(), shapes, locations.double(), weights.double())
    found = with_gradients(sums, value, shapes, locations, weights)
    assert [tensor.dtype for tensor in found] == [dtype, dtype, small, small]
    assert [error(*pair) < bound for pair in zip(found, expected, strict=True)] == [True] * 4


EDGES = [0.0, 1.0, -0.1, 1.1, 0.5 / 5, 4.5 / 5, 5.5 / 5, -0.5 / 5, -0.5 / 3, 3.5 / 3, 1e-30, 7.0]


def test_places_on_edges_and_cell_centres():
    shapes = [(3, 5), (2, 2)]
    value, locations, weights = (tensor.float() for tensor in draw(1, shapes, 2, 16, 12, 4))
    for place, (x, y) in zip(locations.view(-1, 2), itertools.product(EDGES, EDGES), strict=False):
        place[:] = torch.tensor([x, y])
    expected = by_definition(value.double(), shapes, locations.double(), weights.double())
    assert error(sums(value, shapes, locations, weights), expected) < 1e-5


@pytest.mark.parametrize("far", [1e30, -1e30, 3e9, -3e9, math.inf, -math.inf])
def test_far_places_are_outside(far):
    """They add nothing to sums and gradients; their neighbours are as they were."""
    shapes = [(3, 5), (2, 2)]
    value, locations, weights = (tensor.float() for tensor in draw(1, shapes, 2, 16, 8, 4))
    locations[0, 2, 1, 0, 3, 0] = locations[0, 5, 0, 1, 1, 1] = far
    without = weights.clone()
    without[0, 2, 1, 0, 3] = without[0, 5, 0, 1, 1] = 0
    near = locations.clamp(-100, 100)
    expected = with_gradients(sample_by_grid, value.double(), shapes, near.double(), without.double())
    found = with_gradients(sums, value, shapes, locations, weights)
    assert [error(*pair) < 1e-5 for pair in zip(found[:3], expected[:3], strict=True)] == [True] * 3
    assert all(tensor.isfinite().all() for tensor in found)
    assert found[3][0, 2, 1, 0, 3] == found[3][0, 5, 0, 1, 1] == 0


def test_nan_stays_in_its_query_and_head():
    shapes = [(3, 5), (2, 2)]
    value, locations, weights = (tensor.float() for tensor in draw(1, shapes, 2, 16, 8, 4))
    locations[0, 3, 1, 0, 2, 0] = torch.nan
    broken = sums(value, shapes, locations, weights).isnan()
    assert broken[0, 3, 16:].all() and broken.sum() == 16


def test_nothing_to_sample():
    shapes = [(3, 5), (2, 2)]
    value, locations, weights = draw(1, shapes, 2, 16, 4, 4)
    assert sums(value, shapes, locations[:, :0], weights[:, :0]).shape == (1, 0, 32)
    found = with_gradients(sums, value[:0], shapes, locations[:0], weights[:0])
    assert [len(tensor) for tensor in found] == [0] * 4


def test_tensors_in_any_order_of_memory():
    shapes = [(3, 5), (2, 2)]
    value, locations, weights = draw(2, shapes, 2, 16, 4, 4)
    turned = [tensor.transpose(0, 2).contiguous().transpose(0, 2) for tensor in (value, locations, weights)]
    assert not any(tensor.is_contiguous() for tensor in turned)
    found = with_gradients(sums, turned[0], shapes, *turned[1:])
    expected = with_gradients(sums, value, shapes, locations, weights)
    assert [error(*pair) < 1e-12 for pair in zip(found, expected, strict=True)] == [True] * 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("learning", [False, True])
def test_the_kernels_are_found_to_be_right(dtype, learning):
    with torch.inference_mode():
        assert kernel_agrees(torch.device("cpu"), dtype, (2, 16, 4, 4), learning)


def test_a_whole_layer(monkeypatch):
    """Attention by the kernels is attention by the table of cells, in training as well."""
    torch.manual_seed(0)
    layer = attention_glee.GleeDeformableAttention(hidden_size=16, num_heads=2, num_levels=2, num_points=3)
    layer.sampling_offsets.init_parameters()
    shapes, query, value = [(6, 5), (3, 3)], torch.randn(2, 7, 16), torch.randn(2, 39, 16)
    points = torch.rand(2, 7, 2, 4)
    found = []
    for way in (attention_glee.CellTable, None):
        if way is None:
            monkeypatch.setattr(attention_glee, "CellTable", ByKernel)
        layer.zero_grad()
        out = layer(query, value, points, shapes)
        out.square().sum().backward()
        found.append([out.detach(), *(parameter.grad for parameter in layer.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


class ByKernel:
    """In place of the table of cells."""

    def __init__(self, value: torch.Tensor, shapes: Shapes):
        self.value, self.shapes = value, shapes

    def sample(self, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return sums(self.value, self.shapes, locations, weights)

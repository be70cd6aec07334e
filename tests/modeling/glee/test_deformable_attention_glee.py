"""Deformable attention: what it reads, by hand; precisions, initialisation, clear errors."""

import pytest
import torch

from lookhear.modeling.glee.attention_glee import GleeDeformableAttention

SHAPES = [(6, 5), (3, 3)]
POSITIONS = 6 * 5 + 3 * 3


@pytest.fixture
def module() -> GleeDeformableAttention:
    torch.manual_seed(0)
    return GleeDeformableAttention(hidden_size=16, num_heads=2, num_levels=2, num_points=3).eval()


def references(coordinates: int, queries: int = 7) -> torch.Tensor:
    return torch.rand(2, queries, 2, coordinates, generator=torch.Generator().manual_seed(1))


def test_reads_the_cell_that_the_reference_point_names(module):
    """Without offsets and with plain projections, a query returns the mean over levels of the cells it points at."""
    with torch.no_grad():
        module.sampling_offsets.weight.zero_()
        module.sampling_offsets.bias.zero_()
        module.attention_weights.weight.zero_()
        module.attention_weights.bias.zero_()
        for linear in (module.value_proj, module.output_proj):
            linear.weight.copy_(torch.eye(16))
            linear.bias.zero_()
    value = torch.randn(1, POSITIONS, 16)
    x, y = (3 + 0.5) / 5, (2 + 0.5) / 6  # row 2, column 3 of the first map; between cells of the second
    points = torch.tensor([x, y]).expand(1, 1, 2, 2)
    fine = value[0, 2 * 5 + 3]
    column, row = x * 3 - 0.5, y * 3 - 0.5
    coarse = value[0, 30:].view(3, 3, 16)
    top, left = int(row), int(column)
    down, right = row - top, column - left
    across = coarse[:, left] * (1 - right) + coarse[:, left + 1] * right
    expected = (fine + across[top] * (1 - down) + across[top + 1] * down) / 2
    torch.testing.assert_close(module(torch.randn(1, 1, 16), value, points, SHAPES)[0, 0], expected)


def test_bfloat16_samples_at_float32_positions(module):
    """On a map 640 cells wide, bfloat16 positions would be up to two cells off."""
    shapes = [(4, 640), (2, 320)]
    x = torch.linspace(0.7, 0.99, 50)
    points = torch.stack((x, torch.full_like(x, 0.5)), -1)[None, :, None].expand(1, -1, 2, -1)
    value = torch.randn(1, 4 * 640 + 2 * 320, 16)
    query = torch.zeros(1, 50, 16)
    start(module)
    with torch.no_grad():
        full = module(query, value, points, shapes)
        half = module.bfloat16()(query.bfloat16(), value.bfloat16(), points, shapes)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, atol=0.05, rtol=0.05)


def start(module: GleeDeformableAttention) -> None:
    module.sampling_offsets.init_parameters()
    module.attention_weights.init_parameters()


def test_initialisation_looks_around(module):
    start(module)
    offsets = module.sampling_offsets.bias.view(2, 2, 3, 2)
    assert offsets[0, 0].tolist() == [[1, 0], [2, 0], [3, 0]]
    torch.testing.assert_close(offsets[1, 1], torch.tensor([[-1.0, 0], [-2, 0], [-3, 0]]))
    assert not module.attention_weights.weight.any() and not module.sampling_offsets.weight.any()


def test_errors_name_the_argument(module):
    query, value = torch.zeros(2, 7, 16), torch.zeros(2, POSITIONS, 16)
    with pytest.raises(ValueError, match="spatial_shapes"):
        module(query, value, references(2), [(6, 5), (2, 3)])
    with pytest.raises(ValueError, match="reference_points"):
        module(query, value, references(3), SHAPES)
    with pytest.raises(ValueError, match="num_heads"):
        GleeDeformableAttention(10, 3, 1, 1)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_the_module_for_gpus_agrees_with_the_one_for_cpus(module, coordinates, monkeypatch):
    query, value = torch.randn(2, 7, 16), torch.randn(2, POSITIONS, 16)
    with torch.no_grad():
        on_cpu = module(query, value, references(coordinates), SHAPES)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        torch.testing.assert_close(module(query, value, references(coordinates), SHAPES), on_cpu)

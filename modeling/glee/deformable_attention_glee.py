# Copyright 2026 The LookHear developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Multi-scale deformable attention (Zhu et al., ICLR 2021, section 4.1): each query reads a few points of each map."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from .chunking_glee import TOKENS_AT_ONCE
from .deformable_sampling_glee import CellTable, sample_by_grid
from .transformers_seam_glee import initialization as init
from .transformers_seam_glee import use_kernel_forward_from_hub

IM2COL_STEP = 64  # images that the Hub's kernel takes at once, as the published code asks it to


class GleeZeroLinear(nn.Linear):
    """A linear layer that starts at zero."""

    @torch.no_grad()
    def init_parameters(self) -> None:
        init.zeros_(self.weight)
        init.zeros_(self.bias)


class GleeSamplingOffsets(nn.Linear):
    """Where a query samples. At first head h looks along the angle 2πh/heads, point p p+1 cells away, all queries alike."""

    def __init__(self, hidden_size: int, num_heads: int, num_levels: int, num_points: int):
        super().__init__(hidden_size, num_heads * num_levels * num_points * 2)
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points

    @torch.no_grad()
    def init_parameters(self) -> None:
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        rays = torch.stack((angles.cos(), angles.sin()), -1)  # (heads, 2)
        rays = rays / rays.abs().amax(-1, keepdim=True)  # onto the unit square
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        bias = (rays[:, None, None] * steps[:, None]).expand(-1, self.num_levels, -1, -1)
        init.zeros_(self.weight)
        init.copy_(self.bias, bias.reshape(-1))  # (heads * levels * points * 2)


@use_kernel_forward_from_hub("MultiScaleDeformableAttention")
class GleeDeformableSampler(nn.Module):
    """Sampling on accelerators: `grid_sample`, or a compiled kernel from the Hub where the user asks for kernels."""

    def forward(
        self,
        value: torch.Tensor,
        value_spatial_shapes: torch.Tensor,
        value_spatial_shapes_list: list[tuple[int, int]],
        level_start_index: torch.Tensor,
        sampling_locations: torch.Tensor,
        attention_weights: torch.Tensor,
        im2col_step: int,
    ) -> torch.Tensor:
        """Sums as [`sample_by_grid`]; arguments have the kernel's names, and the tensors of sizes are for it alone."""
        return sample_by_grid(value, value_spatial_shapes_list, sampling_locations, attention_weights)


class GleeDeformableAttention(nn.Module):
    """
    Attention over `num_points` sampled positions per head and level, whose offsets and weights the query predicts.

    Accelerators sample by [`GleeDeformableSampler`]; CPUs have a faster way to the same sums. It runs in float32 whatever the weights
    are: bfloat16 cannot tell neighbouring pixels of a large map apart.

    Args:
        hidden_size: channels of queries, values and output; num_heads divides it.
        num_levels: number of feature maps; num_points: sampled positions per head and map.
    """

    def __init__(self, hidden_size: int, num_heads: int, num_levels: int, num_points: int):
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size ({hidden_size}) must be a multiple of num_heads ({num_heads})")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.sampling_offsets = GleeSamplingOffsets(hidden_size, num_heads, num_levels, num_points)
        self.attention_weights = GleeZeroLinear(hidden_size, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(hidden_size, hidden_size)
        self.output_proj = nn.Linear(hidden_size, hidden_size)
        self.sampler = GleeDeformableSampler()

    def forward(
        self,
        query: torch.Tensor,
        value: torch.Tensor,
        reference_points: torch.Tensor,
        spatial_shapes: list[tuple[int, int]],
    ) -> torch.Tensor:
        """
        Args:
            query: `(batch, queries, hidden_size)`, position encoding added.
            value: `(batch, positions, hidden_size)`, the flattened maps one behind the other.
            reference_points: `(batch, queries, num_levels, 2)` x, y or `(…, 4)` centre x, y, width, height; 0 to 1.
            spatial_shapes: (height, width) of each map, in the order of `value`.
        Returns:
            `(batch, queries, hidden_size)`.
        """
        if sum(height * width for height, width in spatial_shapes) != value.shape[1]:
            raise ValueError(
                f"spatial_shapes {list(spatial_shapes)} do not add up to value's {value.shape[1]} positions"
            )
        projected = self.value_proj(value)
        projected = projected.unflatten(-1, (self.num_heads, -1))  # (batch, positions, heads, head size)
        projected = projected.float()
        if value.device.type != "cpu" or torch.compiler.is_compiling():
            shapes = torch.tensor(spatial_shapes, device=value.device)  # (levels, 2)
            starts = shapes.prod(-1).cumsum(0) - shapes.prod(-1)  # (levels,)
            sample = partial(self.sampler, projected, shapes, spatial_shapes, starts, im2col_step=IM2COL_STEP)
            return self._attend(query, reference_points, spatial_shapes, sample)
        sample = CellTable(projected, spatial_shapes).sample
        del projected  # the table has it all
        parts = zip(query.split(TOKENS_AT_ONCE, 1), reference_points.split(TOKENS_AT_ONCE, 1))
        return torch.cat([self._attend(*part, spatial_shapes, sample) for part in parts], dim=1)

    def _attend(
        self,
        query: torch.Tensor,
        reference_points: torch.Tensor,
        spatial_shapes: list[tuple[int, int]],
        sample: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Some queries' output; `sample` sums what lies at locations, see `CellTable.sample`."""
        locations = self.sampling_locations(query, reference_points, spatial_shapes)
        weights = self.attention_weights(query).unflatten(-1, (self.num_heads, -1)).float().softmax(-1)
        weights = weights.unflatten(-1, (self.num_levels, self.num_points))
        return self.output_proj(sample(locations, weights).to(query.dtype))

    def sampling_locations(
        self, query: torch.Tensor, reference_points: torch.Tensor, spatial_shapes: list[tuple[int, int]]
    ) -> torch.Tensor:
        """Where each query looks: `(batch, queries, heads, levels, points, 2)` float32, x and y in units of the map."""
        offsets = self.sampling_offsets(query).float().unflatten(-1, (self.num_heads, -1))  # (…, levels * points * 2)
        per_point = reference_points.float()[:, :, None, :, None].expand(-1, -1, -1, -1, self.num_points, -1)
        centre = per_point[..., :2].flatten(3)  # (batch, queries, 1, levels * points * 2)
        if reference_points.shape[-1] == 2:  # an offset is a number of cells
            sizes = torch.tensor([(w, h) for h, w in spatial_shapes], dtype=torch.float32, device=query.device)
            locations = centre + offsets / sizes[:, None].expand(-1, self.num_points, -1).flatten()
        elif reference_points.shape[-1] == 4:  # an offset of num_points reaches the box's edge
            locations = centre + offsets / self.num_points * per_point[..., 2:].flatten(3) * 0.5
        else:
            raise ValueError(f"reference_points must end in 2 or 4 coordinates, not {reference_points.shape[-1]}")
        return locations.unflatten(-1, (self.num_levels, self.num_points, 2))

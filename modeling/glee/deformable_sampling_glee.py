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
"""Deformable attention's sampling (Zhu et al., ICLR 2021, equation 3): with `grid_sample`, and faster for CPUs."""

import torch
from torch import nn

SAMPLES_AT_ONCE = 1 << 17  # bounds the indices and weights in memory (4 MiB in all) to about a core's cache


def sample_by_grid(
    value: torch.Tensor,
    spatial_shapes: list[tuple[int, int]],
    locations: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """
    Sums weighted bilinear samples of feature maps, map by map.

    Args:
        value: `(batch, positions, heads, head size)`, the flattened maps one after the other.
        spatial_shapes: (height, width) of each map.
        locations: `(batch, queries, heads, levels, points, 2)` x, y; 0 to 1 is the map, and beyond it lie zeros.
        weights: `(batch, queries, heads, levels, points)` attention weights.
    Returns:
        `(batch, queries, heads * head size)`.
    """
    levels = value.permute(0, 2, 3, 1).split([height * width for height, width in spatial_shapes], -1)
    places = (2 * locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # (levels, batch * heads, queries, points, 2)
    shares = weights.permute(3, 0, 2, 1, 4).flatten(1, 2)[:, :, None]  # (levels, batch * heads, 1, queries, points)
    total = value.new_zeros(())
    for level, shape, place, share in zip(levels, spatial_shapes, places, shares):
        pictures = level.flatten(0, 1).unflatten(-1, shape)  # (batch * heads, head size, height, width)
        samples = nn.functional.grid_sample(pictures, place, align_corners=False)  # (…, head size, queries, points)
        total = total + (samples * share).sum(-1)
    return total.unflatten(0, (len(value), -1)).flatten(1, 2).transpose(1, 2)


class CellTable:
    """
    Feature maps as rows of a table, to be sampled on a CPU.

    What [`sample_by_grid`] computes becomes one `embedding_bag`: a bilinear sample is a weighted sum of four cells,
    attention is a weighted sum of samples, and both sums are one. Per query and head that are 4 x levels x points rows, read as they lie in memory: ten times as fast as
    `grid_sample`, at equal results. Everything is differentiable.

    Args:
        value: `(batch, positions, heads, head size)` float32, the flattened maps one behind the other.
        spatial_shapes: (height, width) of each map.
    """

    def __init__(self, value: torch.Tensor, spatial_shapes: list[tuple[int, int]]):
        self.cells, first_cells = _bordered_table(value, spatial_shapes)  # (batch, cells, heads, head size)
        heads, device = value.shape[2], value.device
        self.sizes = torch.tensor([(w, h) for h, w in spatial_shapes], dtype=value.dtype, device=device)  # (levels, 2)
        self.down = torch.tensor([(w + 1) * heads for _, w in spatial_shapes], dtype=torch.int32, device=device)
        origin = torch.tensor(first_cells, dtype=torch.int32, device=device) * heads
        self.origin = origin + torch.arange(heads, dtype=torch.int32, device=device)[:, None]  # (heads, levels)

    def sample(self, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """
        Args:
            locations: `(batch, queries, heads, levels, points, 2)` x, y; 0 to 1 is the map, and beyond it lie zeros.
            weights: `(batch, queries, heads, levels, points)` attention weights.
        Returns:
            `(batch, queries, heads * head size)`.
        """
        batch, queries, heads, levels, points, _ = locations.shape
        # One number per head, level and point, so that each operation below runs along contiguous memory.
        upper = self.sizes[:, None].expand(heads, -1, points, -1).flatten()  # (heads * levels * points * 2)
        lower = torch.full_like(upper, -1.0)
        down = self.down.repeat_interleave(points).expand(heads, -1).contiguous()  # (heads, levels * points)
        origin = self.origin.repeat_interleave(points, 1)
        sums, at_once = [], max(1, SAMPLES_AT_ONCE // (heads * levels * points))
        for cells, places, shares in zip(self.cells, locations, weights):
            rows = cells.flatten(0, 1)  # (cells * heads, head size)
            for start in range(0, queries, at_once):
                share = shares[start : start + at_once].flatten(2)  # (chunk, heads, levels * points)
                place = (places[start : start + at_once].flatten(1) * upper - 0.5).clamp(lower, upper)
                corner = place.detach().floor().nan_to_num(0.0)  # a NaN stays one in its weight
                right, below = (place - corner).view(*share.shape, 2).unbind(-1)
                column, row = corner.to(torch.int32).view(*share.shape, 2).unbind(-1)
                index = origin + row * down + column * heads
                index = torch.stack((index, index + heads, index + down, index + (down + heads)), 2)
                bags = (index, _corner_weights(share, right, below))  # (chunk, heads, 4, levels * points) each
                index, weight = (bag.flatten(0, 1).flatten(1) for bag in bags)
                sums.append(nn.functional.embedding_bag(index, rows, mode="sum", per_sample_weights=weight))
        return torch.cat(sums).view(batch, queries, -1)


def _corner_weights(share: torch.Tensor, right: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """Parts of `share` for the cells top left, top right, bottom left, bottom right: `(…, n)` -> `(…, 4, n)`."""
    bottom = share * below
    top = share - bottom
    bottom_right, top_right = bottom * right, top * right
    return torch.stack((top - top_right, top_right, bottom - bottom_right, bottom_right), -2)


def _bordered_table(value: torch.Tensor, spatial_shapes: list[tuple[int, int]]) -> tuple[torch.Tensor, list[int]]:
    """
    Copies the maps with a border of zeros each: column -1 (which is also the row before's last but one), row -1 and
    rows `height` and `height + 1`, so that the four cells around any place from -1 to `size` exist.

    Returns the table and, per map, the index of its cell (0, 0); rows of a map lie `width + 1` cells apart.
    """
    sizes = [(height + 3) * (width + 1) + 2 for height, width in spatial_shapes]
    table = value.new_zeros(value.shape[0], sum(sizes), *value.shape[2:])
    first_rows, start = [], 0
    levels = value.split([height * width for height, width in spatial_shapes], 1)
    for size, level, (height, width) in zip(sizes, levels, spatial_shapes):
        framed = table[:, start : start + size - 2].unflatten(1, (height + 3, width + 1))
        framed[:, 1:-2, 1:] = level.unflatten(1, (height, width))
        first_rows.append(start + width + 2)
        start += size
    return table, first_rows

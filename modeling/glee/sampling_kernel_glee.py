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
"""
Multi-scale deformable sampling as two Triton kernels, forward and backward, for GPUs.

`grid_sample` writes every sample, then a product with its weight, then sums: of queries x points x channels numbers
each. Here a program reads the four cells around each place and adds them up in registers, in float32, whatever the
dtype of the maps.

A pair is one head of one query; pairs are counted as they lie in memory, `(batch, queries, heads)`. A program computes
`BLOCK` pairs with all channels of their heads.

Import this file only where it is needed: it imports Triton, which torch brings along on Linux only.
"""

from typing import Any

import torch

try:  # so that a checkpoint's code can be loaded where Triton is missing
    import triton
    from triton import language as tl
except ImportError as error:
    raise ImportError("Triton is not installed here; `grid_sample` does what the kernels would.") from error

FORWARD = {"BLOCK": 32, "num_warps": 4}
BACKWARD = {"BLOCK": 16, "num_warps": 4}
MOST_INDEX = 2**31 - 1024  # indices within an image and numbers of pairs have 32 bits
ANY_SIZE = ["pairs", "pairs_per_image", "positions"]  # one compiled kernel serves images of all sizes


@triton.jit
def _axis(place, live, size, EXACT: tl.constexpr):
    """Reads a coordinate of each pair: the cell before it, how far after that cell's centre it lies, and whether that
    cell and the next one exist."""
    # Pairs beyond the last look outside of the map. Far places are brought near it, where an int32 can hold them; NaN
    # stays NaN, as with grid_sample.
    where = tl.load(place, mask=live, other=-10.0).to(EXACT) * size.to(EXACT) - 0.5
    where = tl.maximum(where, -2.0, propagate_nan=tl.PropagateNan.ALL)
    where = tl.minimum(where, size.to(EXACT) + 1.0, propagate_nan=tl.PropagateNan.ALL)
    before = tl.floor(where)
    cell = before.to(tl.int32)
    return cell, where - before, (cell >= 0) & (cell < size), (cell >= -1) & (cell < size - 1)


@triton.jit(do_not_specialize=ANY_SIZE)
def _forward_kernel(
    value,
    sizes,
    starts,
    locations,
    weights,
    out,
    pairs,
    pairs_per_image,
    positions,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    EXACT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes the sums of each pair."""
    pair = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pair < pairs
    lane = tl.arange(0, LANES)
    real = (lane < CHANNELS)[None, :]
    wide = pair.to(tl.int64)
    origin = ((pair // pairs_per_image).to(tl.int64) * positions * HEADS + pair % HEADS) * CHANNELS
    cells = value + origin[:, None] + lane[None, :]  # of the first position, in each pair's image and head
    step: tl.constexpr = HEADS * CHANNELS  # from a position to the next
    sums = tl.zeros((BLOCK, LANES), EXACT)
    for level in range(LEVELS):
        height = tl.load(sizes + 2 * level).to(tl.int32)
        width = tl.load(sizes + 2 * level + 1).to(tl.int32)
        start = tl.load(starts + level).to(tl.int32)
        for point in range(POINTS):
            sample = wide * (LEVELS * POINTS) + level * POINTS + point
            column, right, in_left, in_right = _axis(locations + 2 * sample, live, width, EXACT)
            row, below, in_top, in_bottom = _axis(locations + 2 * sample + 1, live, height, EXACT)
            weight = tl.load(weights + sample, mask=live, other=0.0).to(EXACT)
            first = (start + row * width + column) * step
            second = first + width * step
            v00 = tl.load(cells + first[:, None], mask=(in_top & in_left)[:, None] & real, other=0.0)
            v01 = tl.load(cells + (first + step)[:, None], mask=(in_top & in_right)[:, None] & real, other=0.0)
            v10 = tl.load(cells + second[:, None], mask=(in_bottom & in_left)[:, None] & real, other=0.0)
            v11 = tl.load(cells + (second + step)[:, None], mask=(in_bottom & in_right)[:, None] & real, other=0.0)
            bottom = weight * below
            top = weight - bottom
            sums += (top * (1.0 - right))[:, None] * v00.to(EXACT)
            sums += (top * right)[:, None] * v01.to(EXACT)
            sums += (bottom * (1.0 - right))[:, None] * v10.to(EXACT)
            sums += (bottom * right)[:, None] * v11.to(EXACT)
    target = out + (wide * CHANNELS)[:, None] + lane[None, :]
    tl.store(target, sums.to(out.dtype.element_ty), mask=live[:, None] & real)


@triton.jit(do_not_specialize=ANY_SIZE)
def _backward_kernel(
    grad_out,
    value,
    sizes,
    starts,
    locations,
    weights,
    grad_value,
    grad_locations,
    grad_weights,
    pairs,
    pairs_per_image,
    positions,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    EXACT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes the gradients of each pair's locations and weights, and adds its share to those of the maps."""
    pair = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pair < pairs
    lane = tl.arange(0, LANES)
    real = (lane < CHANNELS)[None, :]
    wide = pair.to(tl.int64)
    origin = ((pair // pairs_per_image).to(tl.int64) * positions * HEADS + pair % HEADS) * CHANNELS
    cells = value + origin[:, None] + lane[None, :]
    grad_cells = grad_value + origin[:, None] + lane[None, :]
    step: tl.constexpr = HEADS * CHANNELS
    source = grad_out + (wide * CHANNELS)[:, None] + lane[None, :]
    grad = tl.load(source, mask=live[:, None] & real, other=0.0).to(EXACT)
    for level in range(LEVELS):
        height = tl.load(sizes + 2 * level).to(tl.int32)
        width = tl.load(sizes + 2 * level + 1).to(tl.int32)
        start = tl.load(starts + level).to(tl.int32)
        for point in range(POINTS):
            sample = wide * (LEVELS * POINTS) + level * POINTS + point
            column, right, in_left, in_right = _axis(locations + 2 * sample, live, width, EXACT)
            row, below, in_top, in_bottom = _axis(locations + 2 * sample + 1, live, height, EXACT)
            weight = tl.load(weights + sample, mask=live, other=0.0).to(EXACT)
            first = (start + row * width + column) * step
            second = first + width * step
            in00, in01 = (in_top & in_left)[:, None] & real, (in_top & in_right)[:, None] & real
            in10, in11 = (in_bottom & in_left)[:, None] & real, (in_bottom & in_right)[:, None] & real
            # What each of the four cells would add to the loss with a weight of one.
            d00 = tl.sum(tl.load(cells + first[:, None], mask=in00, other=0.0).to(EXACT) * grad, 1)
            d01 = tl.sum(tl.load(cells + (first + step)[:, None], mask=in01, other=0.0).to(EXACT) * grad, 1)
            d10 = tl.sum(tl.load(cells + second[:, None], mask=in10, other=0.0).to(EXACT) * grad, 1)
            d11 = tl.sum(tl.load(cells + (second + step)[:, None], mask=in11, other=0.0).to(EXACT) * grad, 1)
            left, above = 1.0 - right, 1.0 - below
            of_weight = above * (left * d00 + right * d01) + below * (left * d10 + right * d11)
            tl.store(grad_weights + sample, of_weight, mask=live)
            of_x = weight * width.to(EXACT) * (above * (d01 - d00) + below * (d11 - d10))
            tl.store(grad_locations + 2 * sample, of_x, mask=live)
            of_y = weight * height.to(EXACT) * (left * (d10 - d00) + right * (d11 - d01))
            tl.store(grad_locations + 2 * sample + 1, of_y, mask=live)
            bottom = weight * below
            top = weight - bottom
            left, right = left[:, None] * grad, right[:, None] * grad
            top, bottom = top[:, None], bottom[:, None]
            tl.atomic_add(grad_cells + first[:, None], top * left, mask=in00, sem="relaxed")
            tl.atomic_add(grad_cells + (first + step)[:, None], top * right, mask=in01, sem="relaxed")
            tl.atomic_add(grad_cells + second[:, None], bottom * left, mask=in10, sem="relaxed")
            tl.atomic_add(grad_cells + (second + step)[:, None], bottom * right, mask=in11, sem="relaxed")


def fits_kernel(value: torch.Tensor, locations: torch.Tensor) -> bool:
    """Returns whether 32-bit indices reach all of an image's cells and all pairs; see [`sample_by_kernel`]."""
    return value[0].numel() < MOST_INDEX and locations[..., 0, 0, 0].numel() < MOST_INDEX


def kernel_constants(value: torch.Tensor, locations: torch.Tensor) -> dict[str, Any]:
    """Returns what the kernels are compiled for; see [`sample_by_kernel`]."""
    heads, channels = value.shape[2:]
    return {
        "HEADS": heads,
        "CHANNELS": channels,
        "LANES": triton.next_power_of_2(channels),
        "LEVELS": locations.shape[3],
        "POINTS": locations.shape[4],
        "EXACT": tl.float64 if value.dtype == torch.float64 else tl.float32,
    }


def _grid(pairs: int, block: int) -> tuple[int]:
    return (triton.cdiv(pairs, block),)


def _extents(value: torch.Tensor, locations: torch.Tensor) -> tuple[int, int, int]:
    """Returns the number of pairs, that of an image's pairs and that of an image's positions."""
    batch, queries, heads = locations.shape[:3]
    return batch * queries * heads, queries * heads, value.shape[1]


class _KernelSampling(torch.autograd.Function):
    """Sums of samples, with the gradients that `sample_by_grid` of `attention_glee` has."""

    @staticmethod
    def forward(
        ctx: Any,
        value: torch.Tensor,
        sizes: torch.Tensor,
        starts: torch.Tensor,
        locations: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        tensors = [tensor.contiguous() for tensor in (value, sizes, starts, locations, weights)]
        ctx.save_for_backward(*tensors)
        out = value.new_empty(*locations.shape[:2], value.shape[2] * value.shape[3])
        if out.numel():
            extents = _extents(value, locations)
            constants = kernel_constants(value, locations)
            with torch.cuda.device_of(value):
                _forward_kernel[_grid(extents[0], FORWARD["BLOCK"])](*tensors, out, *extents, **constants, **FORWARD)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        value, sizes, starts, locations, weights = ctx.saved_tensors
        # Added up by atomic operations, whose order is open: like grid_sample's, equal to the last bit but one.
        exact = torch.float64 if value.dtype == torch.float64 else torch.float32
        grad_value = torch.zeros(value.shape, dtype=exact, device=value.device)
        gradients = (grad_value, torch.empty_like(locations), torch.empty_like(weights))
        if grad.numel():
            extents = _extents(value, locations)
            constants = kernel_constants(value, locations)
            with torch.cuda.device_of(value):
                _backward_kernel[_grid(extents[0], BACKWARD["BLOCK"])](
                    grad.contiguous(), *ctx.saved_tensors, *gradients, *extents, **constants, **BACKWARD
                )
        return grad_value.to(value.dtype), None, None, *gradients[1:]


def sample_by_kernel(
    value: torch.Tensor,
    sizes: torch.Tensor,
    starts: torch.Tensor,
    locations: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """
    Sums weighted bilinear samples of feature maps, as `sample_by_grid` of `attention_glee` does.

    Args:
        value: `(batch, positions, heads, head size)`, float16, bfloat16, float32 or float64: the flattened maps one
            after the other; no image larger than [`fits_kernel`] allows.
        sizes: `(levels, 2)` int64, height and width of each map.
        starts: `(levels,)` int64, positions before each map.
        locations: `(batch, queries, heads, levels, points, 2)` float32 (float64 with float64 values) x, y; 0 to 1 is
            the map, and beyond it lie zeros.
        weights: `(batch, queries, heads, levels, points)`, of the dtype of `locations`.

    Returns:
        `(batch, queries, heads * head size)`, of the dtype of `value`.
    """
    return _KernelSampling.apply(value, sizes, starts, locations, weights)

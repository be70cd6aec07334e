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
"""GLEE's attention and its position encodings: plain, multi-scale deformable (Zhu et al., ICLR 2021), EVA-02's.

Define no `PreTrainedModel` here: in a file that has both a model and an attention, `set_attn_implementation` of
transformers searches the text for its own way of choosing the attention."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Unpack

import torch
from torch import nn
from transformers.utils import TransformersKwargs, logging

from .configuration_glee import GleeConfig, GleeEvaConfig
from .transformers_seam_glee import attention_function, use_kernel_forward_from_hub
from .transformers_seam_glee import initialization as init

TOKENS_AT_ONCE = 2048
SCORES_AT_ONCE = 4096  # of a pixel, all heads: 32 MiB for all tokens at once
SAMPLES_AT_ONCE = 1 << 17  # bounds the indices and weights in memory (4 MiB in all) to about a core's cache
IM2COL_STEP = 64  # images that the Hub's kernel processes together, as in the published code

logger = logging.get_logger(__name__)

Sampler = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of locations and weights, see `CellTable.sample`
RotaryTable = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, each (tokens, head_size) float32


def attention_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turns a mask `(rows, tokens)`, True to be seen, into what is added to scores, `(rows, 1, 1, tokens)`."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None]


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes plain attention over `(batch, heads, length, head_size)`; the mask is added to the scores."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling  # (batch, heads, queries, keys)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def in_chunks(function: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """
    Applies a token-wise function; on a CPU in chunks of `TOKENS_AT_ONCE`, to keep activations in the cache.

    A feed-forward layer over the 22 thousand tokens of an 800 x 1333 image takes 0.6 of the time that way, on two
    threads, and 16 MB for its intermediate results instead of 180.

    Args:
        function: computes each token on its own.
        tokens: `(batch, tokens, size)`.
    """
    batch, count, _ = tokens.shape
    if tokens.device.type != "cpu" or batch * count <= TOKENS_AT_ONCE or torch.compiler.is_compiling():
        return function(tokens)
    parts = tokens.split(max(1, TOKENS_AT_ONCE // batch), dim=1)
    # A linear layer makes a slow product for each image of what does not lie in one piece.
    return torch.cat([function(part.contiguous()) for part in parts], dim=1)


def encoding_divisors(size: int, device: torch.device, temperature: float = 10000.0) -> torch.Tensor:
    """Computes what [`sine_encoding`] divides angles by, `(size,)` float32."""
    exponent = 2 * (torch.arange(size, device=device, dtype=torch.float32) // 2) / size
    return temperature**exponent


def sine_encoding(
    position: torch.Tensor, size: int, temperature: float = 10000.0, divisors: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Encodes positions as sines and cosines in turn, of falling frequency.

    Args:
        position: in [0, 1], of any shape.
        size: channels of an encoding, even.
        temperature: sets the lowest frequency, about 1 / temperature of the highest.
        divisors: of [`encoding_divisors`] for these, where many positions are encoded.

    Returns:
        `(…, size)` float32.
    """
    divisors = encoding_divisors(size, position.device, temperature) if divisors is None else divisors
    angle = 2 * math.pi * position[..., None] / divisors  # (..., size)
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2)


@dataclass(frozen=True)
class MapSizes:
    """
    Sizes of flattened feature maps, one after the other; as tensors they are made once for all layers that read them.

    Attributes:
        shapes: (height, width) of each map.
        tensor: `(levels, 2)` int64, the same.
        starts: `(levels,)` int64, positions before each map.
        cells: `(levels, 2)` float32, width and height.
    """

    shapes: list[tuple[int, int]]
    tensor: torch.Tensor
    starts: torch.Tensor
    cells: torch.Tensor

    @classmethod
    def of(cls, shapes: "list[tuple[int, int]] | MapSizes", device: torch.device) -> "MapSizes":
        """Makes the tensors, unless they are there already."""
        if isinstance(shapes, MapSizes):
            return shapes
        tensor = torch.tensor(shapes, device=device)
        areas = tensor.prod(-1)
        return cls(shapes, tensor, areas.cumsum(0) - areas, tensor.flip(-1).float())


def map_shape(feature_map: torch.Tensor) -> tuple[int, int]:
    """Returns (height, width) of a feature map `(…, height, width)`."""
    height, width = feature_map.shape[-2:]
    return height, width


def pixel_centres(shapes: list[tuple[int, int]], device: torch.device) -> torch.Tensor:
    """
    Computes the centre (x, y) in [0, 1] of every pixel of every map.

    Args:
        shapes: (height, width) of each map.
        device: of the result.

    Returns:
        `(tokens, 2)` float32, row by row, map by map.
    """
    centres = []
    for height, width in shapes:
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        centres.append(torch.stack((x[None].expand(height, -1), y[:, None].expand(-1, width)), dim=-1).flatten(0, 1))
    return torch.cat(centres)


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
    maps = value.permute(0, 2, 3, 1).flatten(0, 1).split([height * width for height, width in spatial_shapes], -1)
    places = (2 * locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # (levels, batch * heads, queries, points, 2)
    shares = weights.permute(3, 0, 2, 1, 4).flatten(1, 2)[:, :, None]  # (levels, batch * heads, 1, queries, points)
    total = value.new_zeros(())
    for part, shape, place, share in zip(maps, spatial_shapes, places, shares):
        feature_map = part.unflatten(-1, shape)  # (batch * heads, head size, height, width)
        samples = nn.functional.grid_sample(feature_map, place, align_corners=False)  # (…, head size, queries, points)
        total = total + (samples * share).sum(-1)
    return total.unflatten(0, (value.shape[0], -1)).flatten(1, 2).transpose(1, 2)


def kernel_computes(value: torch.Tensor, locations: torch.Tensor) -> bool:
    """
    Returns whether the Triton kernels sample these maps: on a GPU, where they run and give `grid_sample`'s numbers.

    Compiled code samples by `grid_sample`, which the compiler turns into a kernel itself.

    Args:
        value: see [`sample_by_grid`], of any dtype.
        locations: see there.
    """
    if not value.is_cuda or torch.compiler.is_compiling():
        return False
    sizes = (*value.shape[2:], *locations.shape[3:5])
    learning = torch.is_grad_enabled() and (value.requires_grad or locations.requires_grad)
    if not kernel_agrees(value.device, value.dtype, sizes, learning):
        return False
    from .sampling_kernel_glee import fits_kernel

    return fits_kernel(value, locations)


@cache
def kernel_agrees(
    device: torch.device, dtype: torch.dtype, sizes: tuple[int, int, int, int], learning: bool = False
) -> bool:
    """
    Compiles the Triton kernels and compares them with `grid_sample` on small maps; the answer is remembered.

    Args:
        device: a GPU.
        dtype: of the maps.
        sizes: heads, channels of a head, maps and points of each.
        learning: whether gradients are compared, too.

    Returns:
        False where Triton or the C compiler that it needs is missing (one warning says so), or numbers differ.
    """
    try:
        off = _kernel_error(device, dtype, sizes, learning)
    except Exception as error:  # of any kind: missing, too old a GPU, no compiler, not enough memory on the chip
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        logger.warning(f"Deformable attention samples by grid_sample: its Triton kernel does not run here ({reason}).")
        return False
    bound = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2}.get(dtype, 0.1)
    if off <= bound:  # not so if it is NaN
        return True
    logger.warning(f"Deformable attention samples by grid_sample: its Triton kernel is off by {off:.2g} here.")
    return False


def _kernel_error(device: torch.device, dtype: torch.dtype, sizes: tuple[int, int, int, int], learning: bool) -> float:
    """Returns the largest difference between the kernels and `grid_sample`, in sums and, if `learning`, gradients."""
    from .sampling_kernel_glee import sample_by_kernel

    heads, channels, levels, points = sizes
    shapes = [(3 + level, 5 - level % 2) for level in range(levels)]
    draw = torch.Generator().manual_seed(0)
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    with torch.inference_mode(False), torch.set_grad_enabled(learning), torch.autocast(device.type, enabled=False):
        maps = MapSizes.of(shapes, device)
        value = torch.randn(2, sum(h * w for h, w in shapes), heads, channels, generator=draw).to(device, dtype)
        locations = (1.4 * torch.rand(2, 7, heads, levels, points, 2, generator=draw) - 0.2).to(device, exact)
        weights = torch.rand(2, 7, heads, levels, points, generator=draw).to(device, exact) / (levels * points)
        inputs = [tensor.requires_grad_(learning) for tensor in (value, locations, weights)]
        ours = sample_by_kernel(value, maps.tensor, maps.starts, locations, weights).to(exact)
        other = sample_by_grid(value.to(exact), shapes, locations, weights)
        pairs = [(ours, other)]
        if learning:
            pairs += zip(torch.autograd.grad(ours.sum(), inputs), torch.autograd.grad(other.sum(), inputs))
        return float(torch.stack([(one - two).detach().abs().max().double() for one, two in pairs]).max())


class CellTable:
    """
    Feature maps as rows of a table, to be sampled on a CPU.

    What [`sample_by_grid`] computes becomes one `embedding_bag`: a bilinear sample is a weighted sum of four cells,
    attention is a weighted sum of samples, and together they are one sum. For each query and head it reads
    4 x levels x points rows, each contiguous in memory, which is ten times as fast as `grid_sample`, with equal
    results. Everything is differentiable.

    Args:
        value: `(batch, positions, heads, head size)` float32, the flattened maps concatenated.
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
        Sums weighted bilinear samples, as [`sample_by_grid`] does.

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
        sums, step = [], max(1, SAMPLES_AT_ONCE // (heads * levels * points))
        for cells, places, shares in zip(self.cells, locations, weights):
            rows = cells.flatten(0, 1)  # (cells * heads, head size)
            for start in range(0, queries, step):
                share = shares[start : start + step].flatten(2)  # (chunk, heads, levels * points)
                place = (places[start : start + step].flatten(1) * upper - 0.5).clamp(lower, upper)
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
    """Splits `share` among the cells top left, top right, bottom left, bottom right: `(…, n)` -> `(…, 4, n)`."""
    bottom = share * below
    top = share - bottom
    bottom_right, top_right = bottom * right, top * right
    return torch.stack((top - top_right, top_right, bottom - bottom_right, bottom_right), -2)


def _bordered_table(value: torch.Tensor, spatial_shapes: list[tuple[int, int]]) -> tuple[torch.Tensor, list[int]]:
    """
    Copies the maps, each with a border of zeros, so that the four cells around any place from -1 to `size` exist.

    The border is column -1, which also serves as column `width` of the row before, row -1, and rows `height` and
    `height + 1`.

    Returns:
        The table and, for each map, the index of its cell (0, 0); rows of a map lie `width + 1` cells apart.
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


class GleeZeroLinear(nn.Linear):
    """A linear layer that starts at zero."""

    @torch.no_grad()
    def init_parameters(self) -> None:
        init.zeros_(self.weight)
        init.zeros_(self.bias)


class GleeSamplingOffsets(nn.Linear):
    """
    Predicts the sampling offsets of queries.

    Initially, head h of every query samples along the angle 2πh/heads, its point p at p+1 cells.
    """

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
    """Sampling on accelerators: by our kernel on a GPU, by one from the Hub where the user asks for kernels, else by
    `grid_sample`."""

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
        """
        Sums weighted bilinear samples, as [`sample_by_grid`] does.

        The arguments have the names of the Hub's kernel, and the tensors of sizes are used by kernels only.
        """
        if kernel_computes(value, sampling_locations):
            from .sampling_kernel_glee import sample_by_kernel

            sizes = (value_spatial_shapes, level_start_index)
            return sample_by_kernel(value, *sizes, sampling_locations, attention_weights)
        value = value.to(sampling_locations.dtype)
        return sample_by_grid(value, value_spatial_shapes_list, sampling_locations, attention_weights)

    own_forward = forward

    @property
    def is_own(self) -> bool:
        """Whether no kernel from the Hub takes the place of `forward`; those want all numbers of one dtype."""
        return getattr(self.forward, "__func__", None) is GleeDeformableSampler.own_forward


class GleeDeformableAttention(nn.Module):
    """
    Attention over sampled positions; the query predicts offsets and weights (Zhu et al., ICLR 2021, section 4.1).

    Accelerators and compiled code sample by [`GleeDeformableSampler`], CPUs by the faster [`CellTable`]. Both compute
    in float32, whatever the dtype of the weights: bfloat16 cannot tell neighbouring pixels of a large map apart.

    Args:
        hidden_size: channels of queries, values and output, a multiple of `num_heads`.
        num_heads: number of heads.
        num_levels: number of feature maps.
        num_points: sampled positions of a head in each map.
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
        spatial_shapes: list[tuple[int, int]] | MapSizes,
    ) -> torch.Tensor:
        """
        Attends to the maps at positions near the reference points.

        Args:
            query: `(batch, queries, hidden_size)`, position encoding added.
            value: `(batch, positions, hidden_size)`, the flattened maps concatenated.
            reference_points: `(batch, queries, num_levels, 2)` x, y or `(…, 4)` centre x, y, width, height; 0 to 1.
            spatial_shapes: (height, width) of each map, in the order of `value`.

        Returns:
            `(batch, queries, hidden_size)`.
        """
        sizes = MapSizes.of(spatial_shapes, value.device)
        if sum(height * width for height, width in sizes.shapes) != value.shape[1]:
            raise ValueError(
                f"spatial_shapes {list(sizes.shapes)} do not add up to value's {value.shape[1]} positions"
            )
        projected = self.value_proj(value)
        projected = projected.unflatten(-1, (self.num_heads, -1))  # (batch, positions, heads, head size)
        on_cpu = value.device.type == "cpu"
        if on_cpu or torch.compiler.is_compiling() or not self.sampler.is_own:
            projected = projected.float()
        if not on_cpu or torch.compiler.is_compiling():
            maps = (projected, sizes.tensor, sizes.shapes, sizes.starts)
            return self._attend(query, reference_points, sizes, partial(self.sampler, *maps, im2col_step=IM2COL_STEP))
        sample = CellTable(projected, sizes.shapes).sample
        del projected  # the table holds a copy
        parts = zip(query.split(TOKENS_AT_ONCE, 1), reference_points.split(TOKENS_AT_ONCE, 1))
        return torch.cat([self._attend(*part, sizes, sample) for part in parts], dim=1)

    def _attend(
        self,
        query: torch.Tensor,
        reference_points: torch.Tensor,
        sizes: MapSizes,
        sample: Sampler,
    ) -> torch.Tensor:
        """Computes some queries' output."""
        locations = self.sampling_locations(query, reference_points, sizes)
        weights = self.attention_weights(query).unflatten(-1, (self.num_heads, -1)).float().softmax(-1)
        weights = weights.unflatten(-1, (self.num_levels, self.num_points))
        return self.output_proj(sample(locations, weights).to(query.dtype))

    def sampling_locations(
        self,
        query: torch.Tensor,
        reference_points: torch.Tensor,
        spatial_shapes: list[tuple[int, int]] | MapSizes,
    ) -> torch.Tensor:
        """
        Computes the sampling locations of each query.

        Args:
            query: see [`GleeDeformableAttention.forward`].
            reference_points: see there.
            spatial_shapes: see there.

        Returns:
            `(batch, queries, heads, levels, points, 2)` float32, x and y in units of the map.
        """
        offsets = self.sampling_offsets(query).float().unflatten(-1, (self.num_heads, -1))  # (…, levels * points * 2)
        per_point = reference_points.float()[:, :, None, :, None].expand(-1, -1, -1, -1, self.num_points, -1)
        centre = per_point[..., :2].flatten(3)  # (batch, queries, 1, levels * points * 2)
        if reference_points.shape[-1] == 2:  # an offset is a number of cells
            cells = MapSizes.of(spatial_shapes, query.device).cells
            locations = centre + offsets / cells[:, None].expand(-1, self.num_points, -1).flatten()
        elif reference_points.shape[-1] == 4:  # an offset of num_points reaches the box's edge
            locations = centre + offsets / self.num_points * per_point[..., 2:].flatten(3) * 0.5
        else:
            raise ValueError(f"reference_points must end in 2 or 4 coordinates, not {reference_points.shape[-1]}")
        return locations.unflatten(-1, (self.num_levels, self.num_points, 2))


def rotary_table(rows: torch.Tensor, columns: torch.Tensor, head_size: int, theta: float) -> RotaryTable:
    """
    Computes a rotary position encoding in two dimensions (EVA-02, section 3.1).

    Half of a head turns with the row, half with the column, in pairs of neighbouring channels.

    Args:
        rows: `(tokens,)` float32 positions.
        columns: `(tokens,)` float32 positions.
        head_size: channels of a head, a multiple of 4.
        theta: base of the frequencies.

    Returns:
        Cosines and sines, each `(tokens, head_size)` float32.
    """
    half = head_size // 2
    exponents = torch.arange(0, half, 2, device=rows.device, dtype=torch.float32) / half
    frequencies = (1.0 / theta**exponents).repeat_interleave(2)  # (half,)
    angles = torch.cat((rows[:, None] * frequencies, columns[:, None] * frequencies), dim=-1)  # (tokens, head_size)
    return angles.cos(), angles.sin()


def apply_rotary(states: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    """Turns `states` `(batch, heads, tokens, head_size)` by the table, in float32, and returns them in their dtype."""
    cosines, sines = table
    even, odd = states.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)  # (batch, heads, tokens, head_size)
    return (states * cosines + turned * sines).to(states.dtype)


class GleeEvaAttention(nn.Module):
    """Multi-head self-attention; keys have no bias."""

    def __init__(self, config: GleeEvaConfig):
        super().__init__()
        self.config = config
        self.is_causal = False
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, rotary: RotaryTable, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        # hidden_states (batch, tokens, hidden_size)
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = apply_rotary(self.q_proj(hidden_states).view(shape).transpose(1, 2), rotary)
        key = apply_rotary(self.k_proj(hidden_states).view(shape).transpose(1, 2), rotary)
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)  # (batch, heads, tokens, head_dim)
        attention = attention_function(self.config, eager_attention_forward)
        output, weights = attention(self, query, key, value, None, scaling=self.scaling, dropout=0.0, **kwargs)
        return self.o_proj(output.flatten(2)), weights


class GleeEarlyFusion(nn.Module):
    """
    One cross-attention in both directions, each side's result scaled and added to that side's normalised tokens.

    The residual starts from the normalised tokens, as in the published code, not from the tokens themselves.
    """

    def __init__(self, config: GleeConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.fusion_heads
        self.head_size = config.fusion_size // config.fusion_heads
        self.is_causal = False
        self.pixel_norm = nn.LayerNorm(config.hidden_size)
        self.text_norm = nn.LayerNorm(config.hidden_size)
        self.pixel_query = nn.Linear(config.hidden_size, config.fusion_size)
        self.text_key = nn.Linear(config.hidden_size, config.fusion_size)
        self.pixel_value = nn.Linear(config.hidden_size, config.fusion_size)
        self.text_value = nn.Linear(config.hidden_size, config.fusion_size)
        self.pixel_output = nn.Linear(config.fusion_size, config.hidden_size)
        self.text_output = nn.Linear(config.fusion_size, config.hidden_size)
        self.pixel_scale = nn.Parameter(torch.empty(config.hidden_size))
        self.text_scale = nn.Parameter(torch.empty(config.hidden_size))

    def forward(
        self,
        pixels: torch.Tensor,
        text: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Lets pixel tokens and text tokens attend to each other.

        Args:
            pixels: `(batch, pixels, hidden_size)`.
            text: `(batch or 1, tokens, hidden_size)`.
            attention_mask: `(batch or 1, 1, 1, tokens)`, added to the scores of the text tokens.

        Returns:
            the fused pixels and text; with `discard_fused_text`, `None` for the text.
        """
        pixels, text = self.pixel_norm(pixels), self.text_norm(text)
        key, value = self.text_key(text), self.text_value(text)  # (batch or 1, tokens, fusion_size)
        if self._is_folded_for(text):
            fuse = self._folded(key, value, attention_mask)
        else:
            fuse = partial(self._fuse, key=key, value=value, attention_mask=attention_mask, **kwargs)
        fused_pixels = in_chunks(fuse, pixels)
        if self.config.discard_fused_text:
            return fused_pixels, None
        query, value = self._heads(self.pixel_query(pixels)), self._heads(self.pixel_value(pixels))
        seen = self._attend(self._heads(key.expand(len(pixels), -1, -1)), query, value, None, **kwargs)
        return fused_pixels, text + self.text_scale * self.text_output(seen)

    def _fuse(
        self,
        pixels: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Fuses normalised pixels, `(batch, some, hidden_size)`, with the text's keys and values."""
        key, value = (self._heads(part.expand(len(pixels), -1, -1)) for part in (key, value))
        seen = self._attend(self._heads(self.pixel_query(pixels)), key, value, attention_mask, **kwargs)
        return pixels + self.pixel_scale * self.pixel_output(seen)

    def _is_folded_for(self, text: torch.Tensor) -> bool:
        """Returns whether the projections are folded into the text: less work, but each pixel's scores are held."""
        plain = torch.is_grad_enabled() or self.training or torch.compiler.is_compiling()
        return not plain and text.device.type == "cpu" and text.shape[1] * self.num_heads <= SCORES_AT_ONCE

    def _folded(
        self, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """
        Returns a function that does what `_fuse` does, with the projections of the pixels folded into the text.

        A pixel's query times a text token's key is the pixel times what the query's projection makes of the key:
        `heads * tokens` products of `hidden_size` numbers in place of `fusion_size` of them and then `heads * tokens`
        of `head_size`; values and the output's projection likewise.
        """
        split = (self.num_heads, self.head_size)
        key = key.unflatten(-1, split) * self.head_size**-0.5  # (batch or 1, tokens, heads, head_size)
        value = value.unflatten(-1, split)
        query_weight = self.pixel_query.weight.unflatten(0, split)  # (heads, head_size, hidden_size)
        output_weight = self.pixel_output.weight.unflatten(1, split)  # (hidden_size, heads, head_size)
        keys = torch.einsum("bthd,hdc->bcht", key, query_weight).flatten(2)
        values = torch.einsum("bthd,chd->bhtc", value, output_weight).flatten(1, 2)
        if len(key) == 1:  # for all images: one product of matrices
            keys, values = keys[0], values[0]  # (hidden_size, heads * tokens), (heads * tokens, hidden_size)
        bias = torch.einsum("bthd,hd->bht", key, self.pixel_query.bias.unflatten(0, split))[:, None]
        bias = bias if attention_mask is None else bias + attention_mask  # (batch or 1, 1, heads, tokens)

        def fuse(part: torch.Tensor) -> torch.Tensor:
            scores = torch.matmul(part, keys).unflatten(-1, (self.num_heads, -1)) + bias
            weights = scores.softmax(dim=-1, dtype=torch.float32).to(part.dtype).flatten(2)
            return part + self.pixel_scale * (torch.matmul(weights, values) + self.pixel_output.bias)

        return fuse

    def _heads(self, tokens: torch.Tensor) -> torch.Tensor:
        # (batch, length, fusion_size) -> (batch, heads, length, head_size)
        return tokens.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attention = attention_function(self.config, eager_attention_forward)
        dropout = self.config.fusion_dropout if self.training else 0.0
        seen, _ = attention(
            self, query, key, value, attention_mask, scaling=self.head_size**-0.5, dropout=dropout, **kwargs
        )
        return seen.flatten(2)  # (batch, queries, fusion_size)

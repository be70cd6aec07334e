"""The pixel decoder: fused, deformably encoded feature maps and the map that masks are read from (paper, section 3.2)."""

import math
from typing import Unpack

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import TransformersKwargs

from .chunking_glee import in_chunks
from .configuration_glee import GleeConfig
from .deformable_attention_glee import GleeDeformableAttention
from .fusion_glee import GleeEarlyFusion

NUM_LEVELS = 4


def sine_position_map(
    height: int, width: int, size: int, device: torch.device, temperature: float = 10000.0
) -> torch.Tensor:
    """
    Fixed position encoding of a feature map: the first half of the channels for the row, the second for the column.

    Args:
        height, width: of the map; size: channels, a multiple of 4.
    Returns:
        `(height * width, size)` float32, row by row.
    """
    rows = (torch.arange(height, device=device, dtype=torch.float32) + 1) / (height + 1e-6)
    columns = (torch.arange(width, device=device, dtype=torch.float32) + 1) / (width + 1e-6)
    rows = sine_encoding(rows, size // 2, temperature)  # (height, size / 2)
    columns = sine_encoding(columns, size // 2, temperature)  # (width, size / 2)
    rows, columns = rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)


def sine_encoding(position: torch.Tensor, size: int, temperature: float = 10000.0) -> torch.Tensor:
    """Positions in [0, 1], any shape -> that shape + `(size,)`: sines and cosines in turn, slower and slower."""
    exponent = 2 * (torch.arange(size, device=position.device, dtype=torch.float32) // 2) / size
    angle = 2 * math.pi * position[..., None] / temperature**exponent  # (..., size)
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2)


def pixel_centres(shapes: list[tuple[int, int]], device: torch.device) -> torch.Tensor:
    """The centre (x, y) in [0, 1] of every pixel of every map, `(tokens, 2)` float32, row by row, map by map."""
    centres = []
    for height, width in shapes:
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        centres.append(torch.stack((x[None].expand(height, -1), y[:, None].expand(-1, width)), dim=-1).flatten(0, 1))
    return torch.cat(centres)


class GleeInputProjection(nn.Module):
    """Convolution and group norm that bring one of the backbone's maps to `hidden_size`."""

    def __init__(self, config: GleeConfig, in_channels: int, downsample: bool = False):
        super().__init__()
        kernel, stride = (3, 2) if downsample else (1, 1)
        self.conv = nn.Conv2d(in_channels, config.hidden_size, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.GroupNorm(config.num_groups, config.hidden_size)

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(feature_map))  # (batch, hidden_size, height, width)


class GleeEncoderLayer(GradientCheckpointingLayer):
    """Deformable self-attention over all levels, then a feed-forward layer; norms behind each."""

    def __init__(self, config: GleeConfig):
        super().__init__()
        size = config.hidden_size
        self.self_attn = GleeDeformableAttention(size, config.num_attention_heads, NUM_LEVELS, config.num_points)
        self.self_attn_layer_norm = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, size)
        self.final_layer_norm = nn.LayerNorm(size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        positions: torch.Tensor,
        reference_points: torch.Tensor,
        shapes: list[tuple[int, int]],
    ) -> torch.Tensor:
        # hidden_states (batch, tokens, size); positions (tokens, size); reference_points (batch, tokens, levels, 2)
        query = hidden_states + positions
        attended = self.self_attn(query, hidden_states, reference_points, shapes)
        hidden_states = self.self_attn_layer_norm(hidden_states + attended)
        return in_chunks(self._feed_forward, hidden_states)

    def _feed_forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.final_layer_norm(tokens + self.fc2(self.fc1(tokens).relu_()))


class GleePixelDecoder(nn.Module):
    """Feature maps of a backbone and text tokens -> four fused levels and the mask features."""

    def __init__(self, config: GleeConfig, channels: list[int]):
        super().__init__()
        size = config.hidden_size
        self.config = config
        if config.project_features:
            projections = [GleeInputProjection(config, width) for width in channels[1:]]
            projections.append(GleeInputProjection(config, channels[-1], downsample=True))
            self.input_projections = nn.ModuleList(projections)
        self.level_embedding = nn.Parameter(torch.empty(NUM_LEVELS, size))
        self.fusion = GleeEarlyFusion(config)
        self.layers = nn.ModuleList([GleeEncoderLayer(config) for _ in range(config.encoder_layers)])
        self.lateral_conv = nn.Conv2d(channels[0], size, 1, bias=False)
        self.lateral_norm = nn.GroupNorm(config.num_groups, size)
        self.output_conv = nn.Conv2d(size, size, 3, padding=1, bias=False)
        self.output_norm = nn.GroupNorm(config.num_groups, size)
        self.mask_projection = nn.Conv2d(size, size, 1)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels that a cell stands for: of the finest map of all, then of the four levels."""
        return (4 if self.config.project_features else 8, 8, 16, 32, 64)

    def project(self, feature_maps: tuple[torch.Tensor, ...]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """
        The part that doesn't depend on text; behind it the backbone's maps aren't needed any more.

        Args:
            feature_maps: of the backbone, finest first, each `(batch, channels, height, width)`.
        Returns:
            four levels, finest first, and the finest map of all, for the masks; each `(batch, hidden_size, height, width)`.
        """
        lateral = self.lateral_norm(self.lateral_conv(feature_maps[0]))
        if not self.config.project_features:
            return list(feature_maps), lateral
        sources = (*feature_maps[1:], feature_maps[-1])
        return [projection(source) for projection, source in zip(self.input_projections, sources)], lateral

    def forward(
        self,
        levels: list[torch.Tensor],
        lateral: torch.Tensor,
        text: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor | None]:
        """
        Args:
            levels, lateral: of [`GleePixelDecoder.project`].
            text: `(batch or 1, tokens, hidden_size)`; attention_mask: added to its scores, see [`GleeEarlyFusion`].
        Returns:
            mask features `(batch, hidden_size, height, width)` on the finest map; the four levels, finest first, each
            `(batch, hidden_size, height, width)`; the fused text or `None`.
        """
        shapes = [tuple(level.shape[-2:]) for level in levels]
        hidden_states = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        hidden_states, text = self.fusion(hidden_states, text, attention_mask, **kwargs)  # (batch, tokens, size)
        positions = self._positions(shapes, hidden_states)
        centres = pixel_centres(shapes, hidden_states.device)[None, :, None]  # (1, tokens, 1, 2)
        centres = centres.expand(len(hidden_states), -1, len(shapes), -1)
        for layer in self.layers:
            hidden_states = layer(hidden_states, positions, centres, shapes)
        sizes = [height * width for height, width in shapes]
        levels = [
            tokens.transpose(1, 2).unflatten(-1, shape)
            for tokens, shape in zip(hidden_states.split(sizes, dim=1), shapes)
        ]
        return self._mask_features(lateral, levels[0]), levels, text

    def _positions(self, shapes: list[tuple[int, int]], like: torch.Tensor) -> torch.Tensor:
        # (tokens, hidden_size): where in its map a token is, and in which map
        maps = [sine_position_map(*shape, self.config.hidden_size, like.device) for shape in shapes]
        return torch.cat([place.to(like.dtype) + level for place, level in zip(maps, self.level_embedding)])

    def _mask_features(self, lateral: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        # These are the largest maps of all, so each takes the place of the one before.
        size = lateral.shape[-2:]
        merged = nn.functional.interpolate(level, size=size, mode="bilinear", align_corners=False).add_(lateral)
        merged = self.output_conv(merged)
        merged = self.output_norm(merged).relu_()
        features = self.mask_projection(merged)
        if not self.config.mask_positions:
            return features
        height, width = features.shape[-2:]
        places = sine_position_map(height, width, self.config.hidden_size, features.device)
        return features + places.T.unflatten(-1, (height, width)).to(features.dtype)

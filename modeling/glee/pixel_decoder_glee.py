"""The pixel decoder: text tokens, early fusion, encoded feature maps, features for the masks (paper, section 3.1)."""

from typing import Unpack

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import TransformersKwargs

from .attention_glee import (
    GleeDeformableAttention,
    MapSizes,
    eager_attention_forward,
    in_chunks,
    map_shape,
    pixel_centres,
    sine_encoding,
)
from .configuration_glee import NUM_LEVELS, GleeConfig, sub_config
from .transformers_seam_glee import attention_function


class GleeTextEncoder(nn.Module):
    """CLIP's last hidden states, projected to the width of the pixel tokens."""

    def __init__(self, config: GleeConfig):
        super().__init__()
        text_config = sub_config(config, "text_config", CLIPTextConfig)
        self.clip = CLIPTextModel(text_config)
        self.projection = nn.Linear(text_config.hidden_size, config.hidden_size, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """
        Encodes texts, padding included.

        Args:
            input_ids: `(texts, length)`.
            attention_mask: `(texts, length)`, 0 for padding.

        Returns:
            `(texts, length, hidden_size)`.
        """
        hidden_states = self.clip(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.projection(hidden_states)


def mean_of_tokens(tokens: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """
    Pools each text to one vector: the mean of its tokens, begin and end of text included.

    `(texts, length, size)` -> `(texts, size)`.
    """
    weight = attention_mask[..., None].to(tokens.dtype)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1)


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
        text = text.expand(pixels.shape[0], -1, -1)
        key, value = self._heads(self.text_key(text)), self._heads(self.text_value(text))

        def fuse(part: torch.Tensor) -> torch.Tensor:
            seen = self._attend(self._heads(self.pixel_query(part)), key, value, attention_mask, **kwargs)
            return part + self.pixel_scale * self.pixel_output(seen)

        fused_pixels = in_chunks(fuse, pixels)
        if self.config.discard_fused_text:
            return fused_pixels, None
        query, value = self._heads(self.pixel_query(pixels)), self._heads(self.pixel_value(pixels))
        seen = self._attend(key, query, value, None, **kwargs)
        return fused_pixels, text + self.text_scale * self.text_output(seen)

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


def sine_position_map(
    height: int, width: int, size: int, device: torch.device, temperature: float = 10000.0
) -> torch.Tensor:
    """
    Computes the position encoding of a feature map: half of the channels for the row, then half for the column.

    Args:
        height: of the map.
        width: of the map.
        size: channels, a multiple of 4.
        device: of the result.
        temperature: see [`sine_encoding`].

    Returns:
        `(height * width, size)` float32, row by row.
    """
    rows = (torch.arange(height, device=device, dtype=torch.float32) + 1) / (height + 1e-6)
    columns = (torch.arange(width, device=device, dtype=torch.float32) + 1) / (width + 1e-6)
    rows = sine_encoding(rows, size // 2, temperature)  # (height, size / 2)
    columns = sine_encoding(columns, size // 2, temperature)  # (width, size / 2)
    rows, columns = rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)


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
    """Deformable self-attention over all levels, then a feed-forward layer; a norm after each."""

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
        shapes: MapSizes,
    ) -> torch.Tensor:
        # hidden_states (batch, tokens, size); positions (tokens, size); reference_points (batch, tokens, levels, 2)
        query = hidden_states + positions
        attended = self.self_attn(query, hidden_states, reference_points, shapes)
        hidden_states = self.self_attn_layer_norm(hidden_states + attended)
        return in_chunks(self._feed_forward, hidden_states)

    def _feed_forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.final_layer_norm(tokens + self.fc2(self.fc1(tokens).relu_()))


class GleePixelDecoder(nn.Module):
    """Fuses a backbone's feature maps with text tokens into four levels and the mask features."""

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
        """Pixels that a cell stands for: in the finest map of all, then in the four levels."""
        return (4 if self.config.project_features else 8, 8, 16, 32, 64)

    def project(self, feature_maps: tuple[torch.Tensor, ...]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """
        Computes what doesn't depend on text; the backbone's maps are not needed after it.

        Args:
            feature_maps: of the backbone, finest first, each `(batch, channels, height, width)`.

        Returns:
            four levels, finest first, and the finest map of all, for the masks; each
            `(batch, hidden_size, height, width)`.
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
        Fuses the levels with text and refines them.

        Args:
            levels: see [`GleePixelDecoder.project`].
            lateral: see there.
            text: `(batch or 1, tokens, hidden_size)`.
            attention_mask: added to the text's scores, see [`GleeEarlyFusion.forward`].

        Returns:
            mask features `(batch, hidden_size, height, width)` on the finest map; the four levels, finest first, each
            `(batch, hidden_size, height, width)`; the fused text or `None`.
        """
        shapes = [map_shape(level) for level in levels]
        hidden_states = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        hidden_states, text = self.fusion(hidden_states, text, attention_mask, **kwargs)  # (batch, tokens, size)
        positions = self._positions(shapes, hidden_states)
        centres = pixel_centres(shapes, hidden_states.device)[None, :, None]  # (1, tokens, 1, 2)
        centres = centres.expand(hidden_states.shape[0], -1, len(shapes), -1)
        map_sizes = MapSizes.of(shapes, hidden_states.device)
        for layer in self.layers:
            hidden_states = layer(hidden_states, positions, centres, map_sizes)
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

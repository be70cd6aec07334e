"""The building blocks of AVSR's encoders and decoder: attention, Transformer layers, Conv1d blocks, heads."""

import math
from collections.abc import Callable

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .configuration_avsr import AvsrConfig
from .transformers_seam_avsr import attention_function


def sinusoidal_positions(length: int, size: int, device: torch.device, offset: int = 0) -> torch.Tensor:
    """
    Computes the fixed position encoding (section 3.2), sines and cosines interleaved.

    Args:
        length: positions.
        size: of each encoding; even.
        device: of the result.
        offset: the first position.

    Returns:
        `(length, size)` float32.
    """
    position = torch.arange(offset, offset + length, device=device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, size, 2, device=device, dtype=torch.float32) * (-math.log(10000.0) / size))
    angle = position * rate  # (length, size / 2)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


def select_steps(features: torch.Tensor, lengths: torch.Tensor, left: torch.Tensor, size: int) -> torch.Tensor:
    """
    Pads each sample by repeating its first vector `left` times at the start and its last one at the end.

    Args:
        features: `(batch, steps, channels)`.
        lengths: `(batch,)` int64, each sample's own steps.
        left: `(batch,)` int64, steps to put at its start.
        size: steps of the result.

    Returns:
        `(batch, size, channels)`.
    """
    index = torch.arange(size, device=features.device)[None] - left[:, None]  # (batch, size)
    index = torch.minimum(index.clamp(min=0), (lengths - 1).clamp(min=0)[:, None])
    return features.gather(1, index[..., None].expand(-1, -1, features.shape[-1]))


class AvsrConvNorm(nn.Module):
    """
    Parameter-free norm of the Conv1d blocks, over the channels of a frame or of a whole utterance.

    `"utterance"` takes one mean and variance per sample over all valid frames and channels together.
    """

    def __init__(self, config: AvsrConfig):
        super().__init__()
        self.over_utterance = config.conv_norm == "utterance"

    def forward(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        # hidden_states (batch, frames, channels), frame_mask (batch, frames)
        if not self.over_utterance:
            return nn.functional.layer_norm(hidden_states, hidden_states.shape[-1:])
        # in float32, as a long clip's sums leave the range of float16
        states, weight = hidden_states.float(), frame_mask[..., None].float()
        count = weight.sum(dim=(1, 2), keepdim=True) * states.shape[-1]
        mean = (states * weight).sum(dim=(1, 2), keepdim=True) / count.clamp(min=1)
        variance = ((states - mean).square() * weight).sum(dim=(1, 2), keepdim=True) / count.clamp(min=1)
        variance = variance.masked_fill(count == 0, 1.0)  # a clip without frames stays as it is
        return ((states - mean) / torch.sqrt(variance + 1e-5)).to(hidden_states.dtype)


class AvsrConvBlock(nn.Module):
    """Conv1d whose stride equals its width, norm, ReLU, Conv1d (sections 3.2 and 3.3, tables 1 and 2)."""

    def __init__(self, config: AvsrConfig, in_channels: int, stride: int = 1):
        super().__init__()
        kernel = config.conv_kernel_size
        self.reduce = nn.Conv1d(in_channels, config.hidden_size, stride, stride=stride)
        self.norm = AvsrConvNorm(config)
        self.mix = nn.Conv1d(config.hidden_size, config.hidden_size, kernel, padding=kernel // 2)

    def forward(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        # hidden_states (batch, frames * stride, in_channels), frame_mask (batch, frames)
        hidden_states = self.reduce(hidden_states.transpose(1, 2)).transpose(1, 2)  # (batch, frames, hidden_size)
        hidden_states = nn.functional.relu(self.norm(hidden_states, frame_mask))
        if self.mix.kernel_size[0] > 1:  # a wider kernel would see padding
            hidden_states = hidden_states * frame_mask[..., None].to(hidden_states.dtype)
        return self.mix(hidden_states.transpose(1, 2)).transpose(1, 2)


class AvsrCtcHead(nn.Module):
    """Character scores per frame: linear layers with norm and ReLU (section 3.4), `ctc_upsampling` outputs a frame."""

    def __init__(self, config: AvsrConfig):
        super().__init__()
        sizes = (config.hidden_size, *config.head_hidden_sizes)
        self.upsampling = config.ctc_upsampling
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])
        self.norm = AvsrConvNorm(config)
        self.output = nn.Linear(sizes[-1], config.vocab_size * config.ctc_upsampling)

    def forward(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            hidden_states = nn.functional.relu(self.norm(layer(hidden_states), frame_mask))
        logits = self.output(hidden_states)  # (batch, frames, upsampling * vocab)
        return logits.unflatten(-1, (self.upsampling, -1)).flatten(1, 2)  # (batch, frames * upsampling, vocab)

    @torch.no_grad()
    def resize(self, vocab_size: int) -> None:
        """Changes the number of characters; the weights of a new one are the mean of the old ones'."""
        old, count = self.output, self.output.out_features // self.upsampling
        if vocab_size == count:
            return
        device, dtype = old.weight.device, old.weight.dtype
        self.output = nn.Linear(old.in_features, self.upsampling * vocab_size, device=device, dtype=dtype)
        for name, parameter in self.output.named_parameters():
            values = getattr(old, name).unflatten(0, (self.upsampling, count))  # (upsampling, characters, ...)
            added = values.mean(dim=1, keepdim=True).expand(-1, max(vocab_size - count, 0), *values.shape[2:])
            parameter.copy_(torch.cat((values[:, :vocab_size], added), dim=1).flatten(0, 1))
            parameter.requires_grad_(getattr(old, name).requires_grad)


class AvsrDecoderHead(nn.Module):
    """Character scores of the decoder: as the CTC head, with learned layer norms."""

    def __init__(self, config: AvsrConfig):
        super().__init__()
        sizes = (config.hidden_size, *config.head_hidden_sizes)
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])
        self.norms = nn.ModuleList([nn.LayerNorm(size) for size in sizes[1:]])
        self.output = nn.Linear(sizes[-1], config.vocab_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for layer, norm in zip(self.layers, self.norms):
            hidden_states = nn.functional.relu(norm(layer(hidden_states)))
        return self.output(hidden_states)  # (batch, length, vocab)


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
    """Computes attention with its weights; see transformers' attention interface."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling  # (batch, heads, queries, keys)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class AvsrAttention(nn.Module):
    """Multi-head attention over itself or, with `key_value_states`, over the encoder's output."""

    def __init__(self, config: AvsrConfig, layer_idx: int | None = None, is_causal: bool = False):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = is_causal
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def split_heads(self, states: torch.Tensor) -> torch.Tensor:
        """Reshapes `(batch, length, hidden_size)` to `(batch, heads, length, head_dim)`."""
        batch, length = states.shape[:2]
        return states.view(batch, length, -1, self.head_dim).transpose(1, 2)

    def _project(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes the keys and values `(batch, heads, length, head_dim)` of `(batch, length, hidden_size)`."""
        return self.split_heads(self.k_proj(states)), self.split_heads(self.v_proj(states))

    def _keys_and_values(
        self, hidden_states: torch.Tensor, key_value_states: torch.Tensor | None, cache: EncoderDecoderCache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes keys and values, or reads from the cache what earlier steps have computed."""
        if cache is None or self.layer_idx is None:
            return self._project(hidden_states if key_value_states is None else key_value_states)
        if key_value_states is None:
            return cache.self_attention_cache.update(*self._project(hidden_states), self.layer_idx)
        if not cache.is_updated.get(self.layer_idx):  # the encoder's output is the same in all steps
            cache.is_updated[self.layer_idx] = True
            return cache.cross_attention_cache.update(*self._project(key_value_states), self.layer_idx)
        layer = cache.cross_attention_cache.layers[self.layer_idx]
        return layer.keys, layer.values  # type: ignore[union-attr, return-value]  # types of caches without keys, too

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        key_value_states: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query = self.split_heads(self.q_proj(hidden_states))
        keys, values = self._keys_and_values(hidden_states, key_value_states, cache)
        output, weights = attention_function(self.config, eager_attention_forward)(
            self,
            query,
            keys,
            values,
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            is_causal=query.shape[2] > 1 and attention_mask is None and self.is_causal,
            **kwargs,
        )
        return self.o_proj(output.flatten(2)), weights  # (batch, length, hidden_size)


class AvsrFeedForward(nn.Module):
    """Linear, ReLU, dropout, linear: a Transformer's feed-forward layer."""

    def __init__(self, config: AvsrConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = config.activation_dropout

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = nn.functional.relu(self.fc1(hidden_states))
        if self.training:
            hidden_states = nn.functional.dropout(hidden_states, p=self.dropout)
        return self.fc2(hidden_states)


class AvsrResidual(nn.Module):
    """`norm(x + block(x))`, or `x + block(norm(x))` with `norm_first`."""

    def __init__(self, config: AvsrConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)
        self.norm_first = config.norm_first
        self.dropout = config.dropout

    def forward(self, hidden_states: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        update = block(self.norm(hidden_states) if self.norm_first else hidden_states)
        if self.training:
            update = nn.functional.dropout(update, p=self.dropout)
        hidden_states = hidden_states + update
        return hidden_states if self.norm_first else self.norm(hidden_states)


class AvsrEncoderLayer(GradientCheckpointingLayer):
    """A Transformer's encoder layer: self-attention, feed-forward layer."""

    def __init__(self, config: AvsrConfig):
        super().__init__()
        self.self_attn = AvsrAttention(config)
        self.feed_forward = AvsrFeedForward(config)
        self.attention_residual = AvsrResidual(config)
        self.feed_forward_residual = AvsrResidual(config)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        hidden_states = self.attention_residual(
            hidden_states, lambda states: self.self_attn(states, attention_mask, **kwargs)[0]
        )
        return self.feed_forward_residual(hidden_states, self.feed_forward)


class AvsrDecoderLayer(GradientCheckpointingLayer):
    """A Transformer's decoder layer: causal self-attention, attention over the encoder's output, feed-forward."""

    def __init__(self, config: AvsrConfig, layer_idx: int):
        super().__init__()
        self.self_attn = AvsrAttention(config, layer_idx, is_causal=True)
        self.encoder_attn = AvsrAttention(config, layer_idx)
        self.feed_forward = AvsrFeedForward(config)
        self.self_attention_residual = AvsrResidual(config)
        self.encoder_attention_residual = AvsrResidual(config)
        self.feed_forward_residual = AvsrResidual(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None,
        cache: EncoderDecoderCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        def attend_to_self(states: torch.Tensor) -> torch.Tensor:
            return self.self_attn(states, attention_mask, cache=cache, **kwargs)[0]

        def attend_to_encoder(states: torch.Tensor) -> torch.Tensor:
            return self.encoder_attn(states, encoder_attention_mask, encoder_hidden_states, cache=cache, **kwargs)[0]

        hidden_states = self.self_attention_residual(hidden_states, attend_to_self)
        hidden_states = self.encoder_attention_residual(hidden_states, attend_to_encoder)
        return self.feed_forward_residual(hidden_states, self.feed_forward)

"""The building blocks of AVSR's encoders and decoder: attention, Transformer and Conformer layers, heads."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs

from .configuration_avsr import MODALITIES, AvsrConfig
from .transformers_seam_avsr import attention_function, attention_kind

LEGACY_POSITIONS = 5000  # frames whose positions the legacy kind has; more would be other positions
FEWEST_ROWS, MOST_ROWS = 4, 16  # of an input that a CPU multiplies faster in BLOCKS of the weight, as measured
BLOCKS = 8


@dataclass
class AvsrEncoderOutput(ModelOutput):
    r"""
    Output of [`AvsrEncoder`].

    Attributes:
        last_hidden_state: `(batch, frames, hidden_size)`, 25 vectors per second.
        frame_mask: `(batch, frames)` bool, frames that have sound or lips.
        modalities: with output heads for each, `(batch,)` int64: which of `MODALITIES` each clip has; else None.
        hidden_states: with `output_hidden_states`, of the fusion or of the only modality: the input of its first
            layer, then each layer's output, the last one after the final norm; each `(batch, frames, hidden_size)`.
        attentions: with `output_attentions`, each of its layers' weights `(batch, heads, frames, frames)`.
        audio_hidden_states: the same of the sound's own layers, if a model of both modalities reads sound.
        audio_attentions: their weights.
        visual_hidden_states: the same of the lips' own layers, if a model of both modalities reads lips.
        visual_attentions: their weights.
    """

    last_hidden_state: torch.Tensor
    frame_mask: torch.Tensor | None = None
    modalities: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    audio_hidden_states: tuple[torch.Tensor, ...] | None = None
    audio_attentions: tuple[torch.Tensor, ...] | None = None
    visual_hidden_states: tuple[torch.Tensor, ...] | None = None
    visual_attentions: tuple[torch.Tensor, ...] | None = None


def change_clips(outputs: AvsrEncoderOutput, change: Callable[[torch.Tensor], torch.Tensor]) -> AvsrEncoderOutput:
    """Returns what a search reads of encoded clips, each tensor changed by a function, such as a repetition."""
    mask, modalities = outputs.get("frame_mask"), outputs.get("modalities")
    return AvsrEncoderOutput(
        last_hidden_state=change(outputs["last_hidden_state"]),
        frame_mask=None if mask is None else change(mask),
        modalities=None if modalities is None else change(modalities),
    )


def sinusoidal_positions(
    length: int, size: int, device: torch.device, offset: int = 0, exact: bool = False
) -> torch.Tensor:
    """
    Computes the fixed position encoding (section 3.2), sines and cosines interleaved.

    Args:
        length: positions.
        size: of each encoding; even.
        device: of the result.
        offset: the first position.
        exact: whether the rates are rounded correctly, on the CPU. Positions in the thousands multiply the error in a
            rate's last digit, which is another one on each kind of processor.

    Returns:
        `(length, size)` float32.
    """
    position = torch.arange(offset, offset + length, device=device, dtype=torch.float32)[:, None]
    exponent = torch.arange(0, size, 2, device="cpu" if exact else device, dtype=torch.float32)
    exponent = exponent * (-math.log(10000.0) / size)
    rate = exponent.double().exp().float().to(device) if exact else torch.exp(exponent)
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


def masked_batch_norm(
    norm: nn.BatchNorm1d | nn.BatchNorm2d, states: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """
    Normalises a batch without its padding: while training, only valid steps are in the statistics.

    Args:
        norm: over the channels.
        states: `(batch, steps, channels)`.
        mask: `(batch, steps)` bool, the valid steps; None if all are.

    Returns:
        `(batch, steps, channels)`; zeros at padding while training.
    """
    if mask is None or not norm.training:
        return norm(states.transpose(1, 2)).transpose(1, 2)
    valid = norm(states[mask])
    return valid.new_zeros(states.shape).masked_scatter(mask[..., None], valid)


@contextlib.contextmanager
def same_statistics(layer: nn.Module, runs: Iterator[int]) -> Iterator[None]:
    """
    Updates the running statistics of batch norms in the first run only: gradient checkpointing runs a layer again
    before its gradients are computed.

    Args:
        layer: whose batch norms are meant.
        runs: counts the runs of one call, from 0.
    """
    repeated = next(runs) > 0
    norms = [part for part in layer.modules() if repeated and isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d))]
    statistics = [(norm, name, value) for norm in norms for name, value in norm.named_buffers(recurse=False)]
    for norm, name, value in statistics:
        setattr(norm, name, value.clone())  # what the repeated run updates
    try:
        yield
    finally:
        for norm, name, value in statistics:
            setattr(norm, name, value)


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

    def resize(self, vocab_size: int) -> None:
        """Changes the number of characters; the weights of a new one are the mean of the old ones'."""
        self.output = resized(self.output, vocab_size, self.upsampling)


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

    def resize(self, vocab_size: int) -> None:
        """Changes the number of characters; see [`resized`]."""
        self.output = resized(self.output, vocab_size)


@torch.no_grad()
def resized(old: nn.Linear, vocab_size: int, copies: int = 1) -> nn.Linear:
    """
    Returns an output layer for another number of labels; the weights of a new one are the mean of the old ones'.

    Args:
        old: of `copies * labels` outputs.
        vocab_size: labels of the result.
        copies: outputs of each label.
    """
    count = old.out_features // copies
    if vocab_size == count:
        return old
    layer = nn.Linear(old.in_features, copies * vocab_size, device=old.weight.device, dtype=old.weight.dtype)
    for name, parameter in layer.named_parameters():
        values = getattr(old, name).unflatten(0, (copies, count))  # (copies, labels, ...)
        added = values.mean(dim=1, keepdim=True).expand(-1, max(vocab_size - count, 0), *values.shape[2:])
        parameter.copy_(torch.cat((values[:, :vocab_size], added), dim=1).flatten(0, 1))
        parameter.requires_grad_(getattr(old, name).requires_grad)
    return layer


class AvsrModalityHeads(nn.Module):
    """One output head for sound, one for lips and one for both (USR 2.0); `modalities` tells which a clip has."""

    def __init__(self, config: AvsrConfig, head: type[AvsrCtcHead] | type[AvsrDecoderHead]):
        super().__init__()
        self.heads = nn.ModuleDict({name: head(config) for name in MODALITIES})

    @property
    def output(self) -> nn.Linear:
        """Returns the last layer of the head for both."""
        return self.heads["audiovisual"].get_submodule("output")  # type: ignore[return-value]  # any module, it says

    @output.setter
    def output(self, layer: nn.Linear) -> None:
        self.heads["audiovisual"].output = layer

    def of(self, modalities: torch.Tensor) -> Callable[..., torch.Tensor]:
        """Returns the head of all clips if they have the same modalities, `(batch,)`; else what chooses for each."""
        if len(modalities) and bool((modalities == modalities[0]).all()):
            return self.heads[MODALITIES[int(modalities[0])]]
        return lambda *inputs: self(*inputs, modalities=modalities)

    def forward(self, *inputs: torch.Tensor, modalities: torch.Tensor) -> torch.Tensor:
        """Computes scores `(batch, steps, vocab)`; `modalities` `(batch,)` are indices in `MODALITIES`."""
        scores = [head(*inputs) for head in self.heads.values()]
        chosen = scores[0]
        for index, others in enumerate(scores[1:], start=1):
            chosen = torch.where((modalities == index)[:, None, None], others, chosen)
        return chosen

    def resize(self, vocab_size: int) -> None:
        """Changes the number of labels; the weights of a new one are the mean of the old ones'."""
        for head in self.heads.values():
            head.resize(vocab_size)  # type: ignore[operator]  # a ModuleDict's type doesn't say what it holds


def as_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turns a mask into what is added to attention scores: 0 for True, the lowest number for False."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


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


@dataclass(frozen=True)
class RelativePositions:
    """
    What relative attention reads of the frames' places.

    Attributes:
        encodings: `(rows, hidden_size)`. Relative: of the distances from `1 - frames` to `frames - 1` (positive: the
            key is earlier). Legacy: of the positions 4999, 4998, ..., one for each frame.
        lengths: `(batch,)` valid frames, which the legacy kind depends on; None: relative.
    """

    encodings: torch.Tensor
    lengths: torch.Tensor | None = None

    @classmethod
    def of(cls, config: AvsrConfig, hidden_states: torch.Tensor, frame_mask: torch.Tensor) -> "RelativePositions":
        """
        Returns the positions for hidden states `(batch, frames, hidden_size)` with a mask `(batch, frames)`.

        Raises:
            ValueError: clips are longer than the legacy kind's positions reach.
        """
        _, frames, size = hidden_states.shape
        if config.position_type == "relative":
            rows = sinusoidal_positions(2 * frames - 1, size, hidden_states.device, offset=1 - frames)
            return cls(rows.to(hidden_states.dtype))
        if frames > LEGACY_POSITIONS:
            raise ValueError(
                f"`input_values` or `pixel_values_videos` has {frames} frames, and this checkpoint's positions reach "
                f"{LEGACY_POSITIONS}: cut the clip, or use the task audio-visual-speech-recognition, which does."
            )
        rows = sinusoidal_positions(frames, size, hidden_states.device, LEGACY_POSITIONS - frames, exact=True)
        return cls(rows.flip(0).to(hidden_states.dtype), frame_mask.sum(dim=1))

    def arrange(self, scores: torch.Tensor) -> torch.Tensor:
        """Turns scores `(batch, heads, frames, rows)` of queries and encodings into those of queries and keys."""
        frames = scores.shape[2]
        place = torch.arange(frames, device=scores.device)
        query, key = place[:, None], place[None]
        if self.lengths is None:
            return scores.gather(3, (query - key + frames - 1).expand(*scores.shape[:2], -1, -1))
        # ESPnet's older code shifts a square matrix: keys after the query get the next query's scores
        shape = *scores.shape[:3], frames
        earlier = (self.lengths[:, None, None] - 1 - query + key).clamp(0, frames - 1)[:, None]  # (batch, 1, i, j)
        later = (key - query - 2).clamp(min=0)
        following = scores.roll(-1, dims=2).gather(3, later.expand(shape))
        return torch.where(
            key <= query, scores.gather(3, earlier.expand(shape)), following.masked_fill(key == query + 1, 0.0)
        )


class AvsrRelativeAttention(AvsrAttention):
    """Self-attention whose scores depend on the distance between query and key (Transformer-XL, ESPnet)."""

    def __init__(self, config: AvsrConfig):
        super().__init__(config)
        if (kind := attention_kind(config)) not in (None, "sdpa", "eager"):
            raise ValueError(f"attn_implementation must be 'sdpa' or 'eager' with relative positions, not {kind!r}.")
        self.pos_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(config.num_attention_heads, self.head_dim))
        self.position_bias = nn.Parameter(torch.zeros(config.num_attention_heads, self.head_dim))

    def forward(  # type: ignore[override]  # of the frames of one encoder only
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        positions: RelativePositions,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query = self.split_heads(self.q_proj(hidden_states))
        keys, values = self._project(hidden_states)
        distances = self.split_heads(self.pos_proj(positions.encodings)[None])  # (1, heads, rows, head_dim)
        by_distance = (query + self.position_bias[:, None]) @ distances.transpose(2, 3)
        bias = positions.arrange(by_distance) * self.scaling  # (batch, heads, frames, frames)
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            bias = bias.masked_fill(~attention_mask, torch.finfo(bias.dtype).min)
        elif attention_mask is not None:
            bias = bias + attention_mask
        output, weights = attention_function(self.config, eager_attention_forward)(
            self,
            query + self.content_bias[:, None],
            keys,
            values,
            bias,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            is_causal=False,
            **kwargs,
        )
        return self.o_proj(output.flatten(2)), weights


class AvsrFeedForward(nn.Module):
    """Linear, ReLU, dropout, linear: a Transformer's feed-forward layer."""

    def __init__(self, config: AvsrConfig, intermediate_size: int | None = None):
        super().__init__()
        inner = intermediate_size or config.intermediate_size
        self.fc1 = nn.Linear(config.hidden_size, inner)
        self.fc2 = nn.Linear(inner, config.hidden_size)
        self.dropout = config.activation_dropout

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = nn.functional.relu(self.fc1(hidden_states))
        if self.training:
            hidden_states = nn.functional.dropout(hidden_states, p=self.dropout)
        return self.fc2(hidden_states)


class BlockLinear:
    """
    A linear layer for few rows without gradients, `(clips, beams, in_features)` -> `(clips, beams, out_features)`.

    A CPU multiplies 4 to 16 rows by eight blocks of a weight in two thirds of the time that it takes for the whole.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        self.weight = weight.view(BLOCKS, -1, weight.shape[1]).transpose(1, 2)  # (blocks, in, out / blocks)
        self.bias = bias.view(BLOCKS, 1, -1)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        clips, beams, size = rows.shape
        output = torch.baddbmm(self.bias, rows.reshape(1, -1, size).expand(BLOCKS, -1, -1), self.weight)
        return output.transpose(0, 1).reshape(clips, beams, -1)


def in_blocks(rows: int, *layers: nn.Linear) -> BlockLinear | None:
    """
    Fuses linear layers that share an input into one weight in blocks.

    Args:
        rows: of the input.
        layers: read the same input.

    Returns:
        None if that number of rows gains nothing, or a layer isn't a plain `nn.Linear`, as with adapters.
    """
    if not is_plain(*layers) or not FEWEST_ROWS <= rows <= MOST_ROWS or layers[0].weight.device.type != "cpu":
        return None
    weight, bias = fuse(*layers)
    return None if weight.shape[0] % BLOCKS else BlockLinear(weight, bias)


def is_plain(*layers: nn.Linear) -> bool:
    """Returns whether the layers are their weights and nothing else (adapters are more), so that they can be fuse."""
    return all(type(layer) is nn.Linear and layer.bias is not None for layer in layers)


def fuse(*layers: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns one weight and one bias for layers that share an input."""
    if len(layers) == 1:
        return layers[0].weight, layers[0].bias
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return weight, bias


class AvsrResidual(nn.Module):
    """
    `norm(x + block(x))`, or `x + block(norm(x))` with `norm_first`.

    Args:
        config: of the model.
        share: factor of what is added.
        layer_scale: initial value of its learned factors, one a channel; None: there are none.
    """

    def __init__(self, config: AvsrConfig, share: float = 1.0, layer_scale: float | None = None):
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.scale = None if layer_scale is None else nn.Parameter(torch.full((config.hidden_size,), layer_scale))
        self.share = share
        self.norm_first = config.norm_first
        self.dropout = config.dropout

    def forward(self, hidden_states: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        update = block(self.norm(hidden_states) if self.norm_first else hidden_states)
        if self.training:
            update = nn.functional.dropout(update, p=self.dropout)
        if self.scale is not None:
            update = update * self.scale
        hidden_states = hidden_states + (update if self.share == 1.0 else self.share * update)
        return hidden_states if self.norm_first else self.norm(hidden_states)


class AvsrEncoderLayer(GradientCheckpointingLayer):
    """A Transformer's encoder layer: self-attention, feed-forward layer."""

    def __init__(self, config: AvsrConfig):
        super().__init__()
        self.self_attn = AvsrAttention(config) if config.position_type == "absolute" else AvsrRelativeAttention(config)
        self.feed_forward = AvsrFeedForward(config)
        self.attention_residual = AvsrResidual(config, layer_scale=config.layer_scale)
        self.feed_forward_residual = AvsrResidual(config, layer_scale=config.layer_scale)

    def attend(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        positions: RelativePositions | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Adds what the frames `(batch, frames, hidden_size)` find in each other."""
        places = {} if positions is None else {"positions": positions}
        return self.attention_residual(
            hidden_states, lambda states: self.self_attn(states, attention_mask, **places, **kwargs)[0]
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        positions: RelativePositions | None = None,
        frame_mask: torch.Tensor | None = None,
        runs: Iterator[int] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        hidden_states = self.attend(hidden_states, attention_mask, positions, **kwargs)
        return self.feed_forward_residual(hidden_states, self.feed_forward)


class AvsrConformerConvolution(nn.Module):
    """Gated linear layer, convolution over time of each channel, batch norm, SiLU, linear layer."""

    def __init__(self, config: AvsrConfig):
        super().__init__()
        size, kernel = config.hidden_size, config.conformer_kernel_size
        self.gate = nn.Linear(size, 2 * size)
        self.depthwise = nn.Conv1d(size, size, kernel, padding=kernel // 2, groups=size)
        self.norm = nn.BatchNorm1d(size)
        self.output = nn.Linear(size, size)

    def forward(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        # hidden_states (batch, frames, hidden_size), frame_mask (batch, frames)
        states = nn.functional.glu(self.gate(hidden_states), dim=-1)
        states = states * frame_mask[..., None].to(states.dtype)  # a clip's values don't depend on its padding
        states = self.depthwise(states.transpose(1, 2)).transpose(1, 2)
        return self.output(nn.functional.silu(masked_batch_norm(self.norm, states, frame_mask)))


class AvsrConformerLayer(AvsrEncoderLayer):
    """A Conformer's layer: half a feed-forward layer, self-attention, convolution, the other half, norm."""

    def __init__(self, config: AvsrConfig):
        super().__init__(config)
        self.first_feed_forward = AvsrFeedForward(config)
        self.convolution = AvsrConformerConvolution(config)
        self.first_feed_forward_residual = AvsrResidual(config, share=0.5)
        self.convolution_residual = AvsrResidual(config)
        self.feed_forward_residual = AvsrResidual(config, share=0.5)
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        positions: RelativePositions | None = None,
        frame_mask: torch.Tensor | None = None,
        runs: Iterator[int] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        if frame_mask is None:
            frame_mask = torch.ones_like(hidden_states[..., 0], dtype=torch.bool)
        mask = frame_mask
        hidden_states = self.first_feed_forward_residual(hidden_states, self.first_feed_forward)
        hidden_states = self.attend(hidden_states, attention_mask, positions, **kwargs)
        with contextlib.nullcontext() if runs is None else same_statistics(self, runs):
            hidden_states = self.convolution_residual(hidden_states, lambda states: self.convolution(states, mask))
        return self.final_norm(self.feed_forward_residual(hidden_states, self.feed_forward))


class AvsrDecoderLayer(GradientCheckpointingLayer):
    """A Transformer's decoder layer: causal self-attention, attention over the encoder's output, feed-forward."""

    def __init__(self, config: AvsrConfig, layer_idx: int):
        super().__init__()
        self.self_attn = AvsrAttention(config, layer_idx, is_causal=True)
        self.encoder_attn = AvsrAttention(config, layer_idx)
        self.feed_forward = AvsrFeedForward(config, config.decoder_ffn_dim)
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

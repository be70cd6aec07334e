"""The decoder's layers in a beam search, one character of all beams at a time; the beams stay where they are."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from .layers_avsr import AvsrAttention, AvsrDecoderLayer

FEWEST_ROWS, MOST_ROWS = 4, 16
BLOCKS = 8


class BlockLinear:
    """
    A linear layer for few rows without gradients, `(clips, beams, in_features)` -> `(clips, beams, out_features)`.

    A CPU multiplies 4 to 16 rows by eight blocks of a weight in two thirds of the time that the whole takes.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        self.weight = weight.view(BLOCKS, -1, weight.shape[1]).transpose(1, 2)  # (blocks, in, out / blocks)
        self.bias = bias.view(BLOCKS, 1, -1)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        clips, beams, size = rows.shape
        output = torch.baddbmm(self.bias, rows.reshape(1, -1, size).expand(BLOCKS, -1, -1), self.weight)
        return output.transpose(0, 1).reshape(clips, beams, -1)


def in_blocks(rows: int, *layers: nn.Module) -> BlockLinear | None:
    """The layers side by side for so many rows; None where they are better or, as with adapters, only called."""
    plain = all(type(layer) is nn.Linear and layer.bias is not None for layer in layers)
    if not plain or not FEWEST_ROWS <= rows <= MOST_ROWS or layers[0].weight.device.type != "cpu":
        return None
    if len(layers) == 1:
        weight, bias = layers[0].weight, layers[0].bias
    else:
        weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return None if weight.shape[0] % BLOCKS else BlockLinear(weight, bias)


class LayerStep:
    """
    A decoder layer and what it keeps of the beams: one call is one more character.

    Args:
        layer: of the decoder.
        frames: `(clips, frames, hidden_size)`, the encoder's; the beams of a clip share their keys and values.
        rows: beams of all clips.
    """

    def __init__(self, layer: AvsrDecoderLayer, frames: torch.Tensor, rows: int):
        own, across, feed_forward = layer.self_attn, layer.encoder_attn, layer.feed_forward
        self.layer = layer
        self.heard = across.split_heads(across.k_proj(frames)), across.split_heads(across.v_proj(frames))
        self.joined = in_blocks(rows, own.q_proj, own.k_proj, own.v_proj)
        self.own_output = in_blocks(rows, own.o_proj) or own.o_proj
        self.across_query = in_blocks(rows, across.q_proj) or across.q_proj
        self.across_output = in_blocks(rows, across.o_proj) or across.o_proj
        self.wide = in_blocks(rows, feed_forward.fc1) or feed_forward.fc1
        self.narrow = in_blocks(rows, feed_forward.fc2) or feed_forward.fc2
        self.said: torch.Tensor | None = None  # keys and values, (2, clips, heads, capacity, head_dim)
        self.length = 0

    def __call__(
        self, hidden_states: torch.Tensor, ancestry: torch.Tensor, encoder_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """`(clips, beams, hidden_size)`, as `layer` at the last place of the texts; masks as of [`AvsrBeamCache`]."""
        layer = self.layer

        def attend_to_self(states: torch.Tensor) -> torch.Tensor:
            query, keys, values = self._project(layer.self_attn, states)
            return self._attend(layer.self_attn, query, *self._append(keys, values), ancestry, self.own_output)

        def attend_to_encoder(states: torch.Tensor) -> torch.Tensor:
            query = layer.encoder_attn.split_heads(self.across_query(states))
            return self._attend(layer.encoder_attn, query, *self.heard, encoder_mask, self.across_output)

        def feed_forward(states: torch.Tensor) -> torch.Tensor:
            return self.narrow(layer.feed_forward.activation(self.wide(states)))

        hidden_states = layer.self_attention_residual(hidden_states, attend_to_self)
        hidden_states = layer.encoder_attention_residual(hidden_states, attend_to_encoder)
        return layer.feed_forward_residual(hidden_states, feed_forward)

    def _project(self, attention: AvsrAttention, states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Query, keys and values `(clips, heads, beams, head_dim)`."""
        if self.joined is None:
            parts = attention.q_proj(states), attention.k_proj(states), attention.v_proj(states)
        else:
            parts = self.joined(states).chunk(3, dim=-1)
        return tuple(map(attention.split_heads, parts))

    @staticmethod
    def _attend(
        attention: AvsrAttention,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None,
        output: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        found = scaled_dot_product_attention(query, keys, values, mask, scale=attention.scaling)
        return output(found.transpose(1, 2).flatten(2))

    def _append(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keeps those of the next character; returns those of all, `(clips, heads, length, head_dim)`."""
        past, self.length = self.length, self.length + keys.shape[2]
        if self.said is None or self.length > self.said.shape[3]:
            larger = keys.new_empty(2, *keys.shape[:2], 2 * self.length, keys.shape[3])
            if self.said is not None:
                larger[:, :, :, :past] = self.said
            self.said = larger
        all_keys, all_values = self.said[:, :, :, : self.length]
        all_keys[:, :, past:], all_values[:, :, past:] = keys, values
        return all_keys, all_values


class AvsrBeamCache:
    """
    The cache of `num_beams` beams of each clip that grow by one character a step.

    The beams of a clip are the queries of one row, so that they share the keys of its sound and lips. What they have
    said stands side by side in the order in which it was computed and is never copied when beams are dropped or split:
    `ancestry` says which of it belongs to each beam.

    Attributes:
        steps: characters that each beam holds.
        layers: none before the first step.
        encoder_mask: `(clips, 1, 1, frames)`, added to scores: 0 for frames, the lowest number for padding;
            None without padding.
        ancestry: `(clips, 1, beams, steps * beams)`, in the same way.
    """

    is_compileable = False

    def __init__(self, num_beams: int):
        self.num_beams = num_beams
        self.steps = 0
        self.layers: list[LayerStep] = []
        self.encoder_mask: torch.Tensor | None = None
        self.ancestry: torch.Tensor | None = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """As of transformers' caches."""
        return self.steps

    def listen(self, layers: nn.ModuleList, frames: torch.Tensor, frame_mask: torch.Tensor) -> None:
        """Takes what all steps attend to: the encoder's output, `(clips * beams, frames, hidden_size)`, and its mask."""
        frames, frame_mask = frames[:: self.num_beams], frame_mask[:: self.num_beams]  # the same for a clip's beams
        self.layers = [LayerStep(layer, frames, len(frames) * self.num_beams) for layer in layers]
        if not frame_mask.all():
            self.encoder_mask = as_bias(frame_mask[:, None, None], frames.dtype)

    def grow(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The layers' output for the next character, `(clips, beams, hidden_size)`."""
        clips, beams = hidden_states.shape[:2]
        own = as_bias(torch.eye(beams, dtype=torch.bool, device=hidden_states.device), hidden_states.dtype)
        own = own.expand(clips, 1, -1, -1)
        self.ancestry = own if self.ancestry is None else torch.cat((self.ancestry, own), dim=3)
        self.steps += 1
        for layer in self.layers:
            hidden_states = layer(hidden_states, self.ancestry, self.encoder_mask)
        return hidden_states

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Each row of `(clips * beams,)` goes on from the row named there, one of the same clip."""
        parents = beam_idx.view(-1, 1, self.num_beams, 1).to(self.ancestry.device, torch.long) % self.num_beams
        self.ancestry = self.ancestry.gather(2, parents.expand_as(self.ancestry))


def as_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """True -> 0, False -> the lowest number: what is added to attention scores."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)

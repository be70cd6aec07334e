"""The decoder computed for the hypotheses of a search: one character of each in a step, or whole texts in one pass."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import EncoderDecoderCache
from transformers.generation import LogitsProcessor

from .layers_avsr import (
    AvsrAttention,
    AvsrDecoderLayer,
    AvsrEncoderOutput,
    as_bias,
    change_clips,
    fuse,
    in_blocks,
    is_plain,
    sinusoidal_positions,
)
from .text_scores_avsr import rows_of, without_label

MOST_PAIRS = 2**25  # of characters that a pass over whole texts compares; more clips are computed in turn
FIRST_CAPACITY = 32  # steps that the first buffers hold; full ones are doubled, so that few shapes occur


class LayerStep:
    """
    A decoder layer with the keys and values of its beams: each call adds one character.

    Args:
        layer: of the decoder.
        frames: `(clips, frames, hidden_size)`, the encoder's; the beams of a clip share their keys and values.
        rows: beams of all clips.

    Attributes:
        cross_kv: keys and values of the frames, each `(clips, heads, frames, head_dim)`.
        self_kv: buffers for those of the characters, each `(clips, heads, capacity * beams, head_dim)`.
    """

    def __init__(self, layer: AvsrDecoderLayer, frames: torch.Tensor, rows: int):
        self_attn, cross_attn, feed_forward = layer.self_attn, layer.encoder_attn, layer.feed_forward
        self.layer = layer
        keys, values = (cross_attn.split_heads(project(frames)) for project in (cross_attn.k_proj, cross_attn.v_proj))
        self.cross_kv = keys, values
        self.self_kv = torch.empty_like(keys[:, :, :0]), torch.empty_like(values[:, :, :0])
        self.self_qkv = self._fused_projection(rows, self_attn)
        self.self_output = in_blocks(rows, self_attn.o_proj) or self_attn.o_proj
        self.cross_query = in_blocks(rows, cross_attn.q_proj) or cross_attn.q_proj
        self.cross_output = in_blocks(rows, cross_attn.o_proj) or cross_attn.o_proj
        self.fc1 = in_blocks(rows, feed_forward.fc1) or feed_forward.fc1
        self.fc2 = in_blocks(rows, feed_forward.fc2) or feed_forward.fc2

    @staticmethod
    def _fused_projection(rows: int, attention: AvsrAttention) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Returns query, keys and values as one product, `(clips, beams, 3 * hidden_size)`; None with adapters."""
        layers = attention.q_proj, attention.k_proj, attention.v_proj
        blocks = in_blocks(rows, *layers)
        if blocks is not None or not is_plain(*layers):
            return blocks
        weight, bias = fuse(*layers)
        return lambda states: nn.functional.linear(states, weight, bias)

    def reserve(self, columns: int) -> None:
        """Enlarges the buffers to `columns` keys and values of each clip, without losing those that they hold."""
        keys, values = (part.new_zeros(*part.shape[:2], columns, part.shape[3]) for part in self.self_kv)
        for larger, part in zip((keys, values), self.self_kv):
            larger[:, :, : part.shape[2]] = part
        self.self_kv = keys, values

    def __call__(
        self,
        hidden_states: torch.Tensor,
        columns: torch.Tensor,
        ancestry: torch.Tensor,
        encoder_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """
        Computes the output of `layer` at the newest character of each hypothesis.

        Args:
            hidden_states: `(clips, beams, hidden_size)`.
            columns: `(beams,)` int64, where the new keys and values go in the buffers.
            ancestry: see [`AvsrBeamCache`].
            encoder_mask: see [`AvsrBeamCache`].

        Returns:
            `(clips, beams, hidden_size)`.
        """
        layer = self.layer

        def attend_to_self(states: torch.Tensor) -> torch.Tensor:
            query, *new = self._project(layer.self_attn, states)
            for buffer, part in zip(self.self_kv, new):
                buffer.index_copy_(2, columns, part)
            keys, values = (buffer[:, :, : ancestry.shape[3]] for buffer in self.self_kv)
            return self._attend(layer.self_attn, query, (keys, values), ancestry, self.self_output)

        def attend_to_encoder(states: torch.Tensor) -> torch.Tensor:
            query = layer.encoder_attn.split_heads(self.cross_query(states))
            return self._attend(layer.encoder_attn, query, self.cross_kv, encoder_mask, self.cross_output)

        def feed_forward(states: torch.Tensor) -> torch.Tensor:
            return self.fc2(nn.functional.relu(self.fc1(states)))

        hidden_states = layer.self_attention_residual(hidden_states, attend_to_self)
        hidden_states = layer.encoder_attention_residual(hidden_states, attend_to_encoder)
        return layer.feed_forward_residual(hidden_states, feed_forward)

    def _project(self, attention: AvsrAttention, states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Computes query, keys and values, each `(clips, heads, beams, head_dim)`."""
        parts: tuple[torch.Tensor, ...]
        if self.self_qkv is None:
            parts = attention.q_proj(states), attention.k_proj(states), attention.v_proj(states)
        else:
            parts = self.self_qkv(states).chunk(3, dim=-1)
        return tuple(map(attention.split_heads, parts))

    @staticmethod
    def _attend(
        attention: AvsrAttention,
        query: torch.Tensor,
        keys_and_values: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        output: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        found = scaled_dot_product_attention(query, *keys_and_values, mask, scale=attention.scaling)
        return output(found.transpose(1, 2).flatten(2))


class AvsrBeamCache:
    """
    Keys and values of `num_beams` beams of each clip, which grow by one character per step.

    The beams of a clip are the queries of one row, so that they share the keys of its sound and lips. The keys of
    their characters lie side by side in the order in which they were computed, and aren't copied when beams are
    dropped or split: `ancestry` marks those that belong to each beam. A step writes into the buffers in place, so that
    all shapes stay the same until the buffers are full; then they are doubled.

    Args:
        num_beams: of each clip.

    Attributes:
        steps: characters that each beam holds.
        capacity: steps that the buffers have room for.
        layers: of the decoder; none before the first step, and then none of the following are set, either.
        step: `steps` as `(1,)` int64 on the device, which a captured graph can count up.
        encoder_mask: `(clips, 1, 1, frames)`, added to scores: 0 for frames, the lowest number for padding;
            None without padding.
        ancestry: `(clips, 1, beams, capacity * beams)`, added to scores: 0 for a beam's own characters.
        positions: `(capacity, hidden_size)`, the position encodings.
        beam: `(beams,)` int64, the beams' numbers.
        itself: `(clips, 1, beams, beams)`, the ancestry of a step's own characters: each beam sees its own.
    """

    step: torch.Tensor
    encoder_mask: torch.Tensor | None
    ancestry: torch.Tensor
    positions: torch.Tensor
    beam: torch.Tensor
    itself: torch.Tensor

    def __init__(self, num_beams: int):
        self.num_beams = num_beams
        self.steps = self.capacity = 0
        self.layers: list[LayerStep] = []

    def prefill(self, layers: nn.ModuleList, frames: torch.Tensor, frame_mask: torch.Tensor) -> None:
        """
        Computes the cross-attention keys and values, once for all steps.

        Args:
            layers: of the decoder.
            frames: `(clips, frames, hidden_size)`, the encoder's output.
            frame_mask: `(clips, frames)` bool.
        """
        clips, device = len(frames), frames.device
        rows = clips * self.num_beams
        self.layers = [
            LayerStep(layer, frames, rows)  # type: ignore[arg-type]  # a ModuleList's type doesn't say what it holds
            for layer in layers
        ]
        self.encoder_mask = None if frame_mask.all() else as_bias(frame_mask[:, None, None], frames.dtype)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.beam = torch.arange(self.num_beams, device=device)
        itself = as_bias(torch.eye(self.num_beams, dtype=torch.bool, device=device), frames.dtype)
        self.itself = itself.expand(clips, 1, -1, -1).contiguous()
        self.ancestry = self.itself[..., :0]
        self._reserve(FIRST_CAPACITY, frames.shape[2])

    def advance(self, embeddings: torch.Tensor) -> torch.Tensor:
        """
        Computes the layers' output at the next character of each hypothesis.

        Args:
            embeddings: `(clips, beams, hidden_size)` of the characters, without their positions.

        Returns:
            `(clips, beams, hidden_size)`, before the final norm.
        """
        self.make_room()
        columns = self.step * self.num_beams + self.beam  # (beams,)
        self.ancestry.index_copy_(3, columns, self.itself)
        hidden_states = embeddings + self.positions.index_select(0, self.step).to(embeddings.dtype)
        width = self._width()
        for layer in self.layers:
            hidden_states = layer(hidden_states, columns, self.ancestry[..., :width], self.encoder_mask)
        self.step.add_(1)
        self.steps += 1
        return hidden_states

    def _width(self) -> int | None:
        """Returns the columns that a step reads: a CPU skips empty ones; elsewhere constant shapes are worth more."""
        return (self.steps + 1) * self.num_beams if self.ancestry.device.type == "cpu" else None

    def make_room(self) -> None:
        """Enlarges buffers that are full."""
        if self.steps == self.capacity:
            self._reserve(2 * self.capacity, self.positions.shape[1])

    @torch.inference_mode()
    def reorder(self, parents: torch.Tensor) -> None:
        """Makes each beam the continuation of the one of its clip that `parents` `(clips, beams)` int64 names."""
        self.ancestry.copy_(self.ancestry.gather(2, parents[:, None, :, None].expand_as(self.ancestry)))

    def _reserve(self, capacity: int, hidden_size: int) -> None:
        """Enlarges the buffers to `capacity` steps, without losing what they hold."""
        columns = capacity * self.num_beams
        lowest = torch.finfo(self.ancestry.dtype).min
        ancestry = self.ancestry.new_full((*self.ancestry.shape[:3], columns), lowest)
        ancestry[..., : self.ancestry.shape[3]] = self.ancestry
        self.ancestry, self.capacity = ancestry, capacity
        self.positions = sinusoidal_positions(capacity, hidden_size, ancestry.device)
        for layer in self.layers:
            layer.reserve(columns)


class AvsrTextTree(AvsrBeamCache):
    """
    Keys and values of whole texts, so that one step of the decoder computes all their characters.

    What several texts of a clip begin with is computed once: a node is a prefix, and sees its own prefixes. All nodes
    of a clip are queries of one row, as its beams are, and share the keys of its sound and lips.

    Args:
        texts: `(clips, texts, length)` int64, what the decoder reads, the start token first.
        sizes: `(clips, texts)`, the characters of each, the start token included; the others aren't computed.

    Attributes:
        nodes: `(clips, texts, length)` int64, the node of each character.
        labels: `(clips, nodes)` int64, the character of each node; clips with fewer nodes have some of no use.
        depths: `(clips, nodes)` int64, its place in its texts.
        seen: `(clips, nodes, nodes)` bool, which nodes each one sees.
    """

    def __init__(self, texts: torch.Tensor, sizes: torch.Tensor):
        clips, count, length = texts.shape
        place = torch.arange(length, device=texts.device)
        inside = place < sizes[..., None]
        alike = (texts[:, :, None] == texts[:, None]).cumprod(dim=-1)  # (clips, texts, texts, length), to that place
        first = alike.argmax(dim=2)  # (clips, texts, length), the first text with that prefix
        own = inside & (first == torch.arange(count, device=texts.device)[:, None])
        numbers = (own.flatten(1).cumsum(dim=1) - 1).view_as(first)
        self.nodes = numbers.gather(1, first).masked_fill(~inside, 0)
        used = own.flatten(1).sum(dim=1, keepdim=True)  # (clips, 1) nodes
        super().__init__(int(used.max()))
        places = (~own).flatten(1).long().argsort(dim=1, stable=True)[:, : self.num_beams]  # of each node
        self.labels, self.depths = texts.flatten(1).gather(1, places), places % length
        itself = torch.arange(self.num_beams, device=texts.device)
        path = self.nodes.gather(1, (places // length)[..., None].expand(-1, -1, length))  # (clips, nodes, length)
        path = torch.where((place <= self.depths[..., None]) & (itself < used)[..., None], path, itself[:, None])
        self.seen = torch.zeros(clips, self.num_beams, self.num_beams, dtype=torch.bool, device=texts.device)
        self.seen.scatter_(2, path, True)

    def advance(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Computes the layers' output `(clips, nodes, hidden_size)` of the nodes' embeddings, of the same shape."""
        hidden_states = embeddings + self.positions[self.depths].to(embeddings.dtype)
        for layer in self.layers:
            hidden_states = layer(hidden_states, self.beam, self.ancestry, self.encoder_mask)
        return hidden_states

    def _reserve(self, capacity: int, hidden_size: int) -> None:
        """Makes room for the one step that there is, whatever the `capacity`."""
        self.ancestry = as_bias(self.seen[:, None], self.ancestry.dtype)
        self.positions = sinusoidal_positions(int(self.depths.max()) + 1, hidden_size, self.ancestry.device)
        for layer in self.layers:
            layer.reserve(self.num_beams)


class StepDecoder(Protocol):
    """What a search calls of [`AvsrDecoder`]."""

    def step(
        self, labels: torch.Tensor, beams: AvsrBeamCache, frames: torch.Tensor, frame_mask: torch.Tensor
    ) -> torch.Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


class Recogniser(Protocol):
    """What a search calls of [`AvsrForConditionalGeneration`]."""

    def decoder_head_of(self, encoder_outputs: AvsrEncoderOutput) -> Callable[[torch.Tensor], torch.Tensor]: ...

    def get_decoder(self) -> StepDecoder: ...

    def __call__(self, **inputs: Any) -> Any: ...


class SharedKeysDecoder:
    """
    The decoder's scores, computed layer by layer with [`AvsrBeamCache`].

    Args:
        model: [`AvsrForConditionalGeneration`].
        encoder_outputs: of the clips.
        beams: hypotheses of each clip.
    """

    def __init__(self, model: Recogniser, encoder_outputs: AvsrEncoderOutput, beams: int):
        self.decoder, self.head = model.get_decoder(), model.decoder_head_of(encoder_outputs)
        self.encoded = encoder_outputs["last_hidden_state"], encoder_outputs["frame_mask"]
        self.cache = AvsrBeamCache(beams)

    @torch.inference_mode()
    def __call__(self, labels: torch.Tensor) -> torch.Tensor:
        """Computes logits `(clips, beams, vocab)` after the newest labels `(clips, beams)`."""
        return self.head(self.decoder.step(labels, self.cache, *self.encoded))

    def advance(self, parents: torch.Tensor, labels: torch.Tensor) -> None:
        """Makes each hypothesis the continuation of the one that `parents` `(clips, beams)` names."""
        self.cache.reorder(parents)

    def is_full(self) -> bool:
        """Whether the next step enlarges the buffers, so that it writes into others."""
        return self.cache.steps == self.cache.capacity

    @torch.inference_mode()
    def make_room(self) -> None:
        """Enlarges the buffers now if the next step would."""
        self.cache.make_room()

    def count(self, steps: int) -> None:
        """Corrects the number of steps that the buffers hold, for those that a graph replays."""
        self.cache.steps += steps


class ForwardDecoder:
    """
    The decoder's scores by `forward`, one row per hypothesis: for what [`SharedKeysDecoder`] doesn't support, such as
    attention weights, other kinds of attention, or a decoder on several devices.

    Args:
        model: [`AvsrForConditionalGeneration`].
        encoder_outputs: of the clips.
        start: `(clips, beams)`, the start token.
        options: arguments of every call, such as `use_cache` or `output_attentions`.
    """

    def __init__(
        self, model: Recogniser, encoder_outputs: AvsrEncoderOutput, start: torch.Tensor, **options: bool | None
    ):
        self.encoded = change_clips(encoder_outputs, lambda part: part.repeat_interleave(start.shape[1], dim=0))
        self.model, self.options = model, options
        self.ids = start.new_zeros(start.numel(), 0)  # (clips * beams, length)
        self.cache: EncoderDecoderCache | None = None
        # what the decoder returned in each step: None unless requested
        self.attentions: list[tuple[torch.Tensor, ...] | None] = []
        self.cross_attentions: list[tuple[torch.Tensor, ...] | None] = []
        self.hidden_states: list[tuple[torch.Tensor, ...] | None] = []

    def __call__(self, labels: torch.Tensor) -> torch.Tensor:
        """Computes logits `(clips, beams, vocab)` after the newest labels `(clips, beams)`."""
        self.ids = torch.cat((self.ids, labels.reshape(-1, 1)), dim=1)
        new = self.ids if self.cache is None else self.ids[:, -1:]
        outputs = self.model(decoder_input_ids=new, encoder_outputs=self.encoded, cache=self.cache, **self.options)
        self.cache = outputs.cache
        self.attentions.append(outputs.decoder_attentions)
        self.cross_attentions.append(outputs.cross_attentions)
        self.hidden_states.append(outputs.decoder_hidden_states)
        return outputs.logits[:, -1].unflatten(0, labels.shape)

    def advance(self, parents: torch.Tensor, labels: torch.Tensor) -> None:
        """Makes each hypothesis the continuation of the one that `parents` `(clips, beams)` names."""
        rows = rows_of(parents)
        self.ids = self.ids[rows]
        if self.cache is not None:  # the cross-attention keys are the same for all beams of a clip
            self.cache.self_attention_cache.reorder_cache(rows)


@dataclass(frozen=True)
class TextDecoder:
    """
    The decoder's log-probabilities of whole texts, computed in one pass.

    Attributes:
        model: [`AvsrForConditionalGeneration`].
        encoded: the clips.
        blank: its id.
        processors: change the log-probabilities.
        share_keys: whether one [`AvsrTextTree`] computes all texts of a clip; else `forward` with one row for each.
    """

    model: Recogniser
    encoded: AvsrEncoderOutput
    blank: int
    processors: Sequence[LogitsProcessor] = ()
    share_keys: bool = True

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        """Computes log-probabilities of `labels` after `inputs`, `(clips, texts, length)`; `sizes` of them count."""
        pairs = labels.shape[1] ** 2 * labels.shape[2] ** 2  # of a clip, at most
        at_once = len(inputs) if self.processors else max(1, MOST_PAIRS // pairs)  # processors see all rows
        compute = self._shared if self.share_keys else self._by_forward
        parts = []
        for first in range(0, len(inputs), at_once):
            part = slice(first, first + at_once)
            encoded = change_clips(self.encoded, itemgetter(part))
            parts.append(self._pick(*compute(encoded, inputs[part], sizes[part]), inputs[part], labels[part]))
        return torch.cat(parts)

    def _shared(
        self, encoded: AvsrEncoderOutput, inputs: torch.Tensor, sizes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the logits `(clips, nodes, vocab)` of an [`AvsrTextTree`], and its `nodes`."""
        tree = AvsrTextTree(inputs, sizes)
        decoder, head = self.model.get_decoder(), self.model.decoder_head_of(encoded)
        return head(decoder.step(tree.labels, tree, encoded["last_hidden_state"], encoded["frame_mask"])), tree.nodes

    def _by_forward(
        self, encoded: AvsrEncoderOutput, inputs: torch.Tensor, sizes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the same, computed by `forward` with one row for each text."""
        clips, texts, length = inputs.shape
        encoded = change_clips(encoded, lambda part: part.repeat_interleave(texts, dim=0))
        outputs = self.model(decoder_input_ids=inputs.flatten(0, 1), encoder_outputs=encoded, use_cache=False)
        nodes = torch.arange(texts * length, device=inputs.device).view(1, texts, length).expand(clips, -1, -1)
        return outputs.logits.view(clips, texts * length, -1), nodes

    def _pick(
        self, logits: torch.Tensor, nodes: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Picks each label's log-probability `(clips, texts, length)` from the logits after its prefix's node."""
        log_probs, vocab = logits.float().log_softmax(dim=-1), logits.shape[2]
        if not self.processors:
            log_probs = without_label(log_probs, self.blank)
            return log_probs.flatten(1).gather(1, (nodes * vocab + labels).flatten(1)).view_as(labels)
        columns = []
        for place in range(labels.shape[2]):
            rows = log_probs.gather(1, nodes[..., place, None].expand(-1, -1, vocab)).flatten(0, 1)
            for processor in self.processors:
                rows = processor(inputs[..., : place + 1].flatten(0, 1), rows)
            rows = without_label(rows, self.blank)
            columns.append(rows.gather(1, labels[..., place].reshape(-1, 1)).view(labels.shape[:2]))
        return torch.stack(columns, dim=2)

"""The networks of a beam search, one character per hypothesis and step: the decoder, in two ways, a language model."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import Cache, EncoderDecoderCache, PreTrainedModel

from .encoder_avsr import AvsrEncoderOutput
from .layers_avsr import AvsrAttention, AvsrDecoderLayer, sinusoidal_positions
from .transformers_seam_avsr import call_with_cache

FEWEST_ROWS, MOST_ROWS = 4, 16  # of an input that a CPU multiplies faster in BLOCKS of the weight, as measured
BLOCKS = 8
FIRST_CAPACITY = 32  # steps that the first buffers hold; full ones are doubled, so that few shapes occur


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
        if self.steps == self.capacity:
            self._reserve(2 * self.capacity, embeddings.shape[2])
        columns = self.step * self.num_beams + self.beam  # (beams,)
        self.ancestry.index_copy_(3, columns, self.itself)
        hidden_states = embeddings + self.positions.index_select(0, self.step).to(embeddings.dtype)
        # a CPU skips what is still empty; elsewhere constant shapes are worth more
        width = (self.steps + 1) * self.num_beams if self.ancestry.device.type == "cpu" else None
        for layer in self.layers:
            hidden_states = layer(hidden_states, columns, self.ancestry[..., :width], self.encoder_mask)
        self.step.add_(1)
        self.steps += 1
        return hidden_states

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


def as_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turns a mask into what is added to attention scores: 0 for True, the lowest number for False."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


class StepDecoder(Protocol):
    """What a search calls of [`AvsrDecoder`]."""

    def step(
        self, labels: torch.Tensor, beams: AvsrBeamCache, frames: torch.Tensor, frame_mask: torch.Tensor
    ) -> torch.Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


class Recogniser(Protocol):
    """What a search calls of [`AvsrForConditionalGeneration`]."""

    @property
    def decoder_head(self) -> nn.Module: ...

    def get_decoder(self) -> StepDecoder: ...

    def __call__(self, **inputs: Any) -> Any: ...


class SharedKeysDecoder:
    """
    The decoder's scores, computed layer by layer with [`AvsrBeamCache`].

    Args:
        model: [`AvsrForConditionalGeneration`].
        frames: `(clips, frames, hidden_size)`, the encoder's.
        frame_mask: `(clips, frames)` bool.
        beams: hypotheses of each clip.
    """

    def __init__(self, model: Recogniser, frames: torch.Tensor, frame_mask: torch.Tensor, beams: int):
        self.decoder, self.head = model.get_decoder(), model.decoder_head
        self.encoded, self.cache = (frames, frame_mask), AvsrBeamCache(beams)

    @torch.inference_mode()
    def __call__(self, labels: torch.Tensor) -> torch.Tensor:
        """Computes logits `(clips, beams, vocab)` after the newest labels `(clips, beams)`."""
        return self.head(self.decoder.step(labels, self.cache, *self.encoded))

    def advance(self, parents: torch.Tensor, labels: torch.Tensor) -> None:
        """Makes each hypothesis the continuation of the one that `parents` `(clips, beams)` names."""
        self.cache.reorder(parents)


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
        rows = {name: encoder_outputs[name] for name in ("last_hidden_state", "frame_mask")}
        rows = {name: part.repeat_interleave(start.shape[1], dim=0) for name, part in rows.items()}
        self.model, self.encoded, self.options = model, type(encoder_outputs)(**rows), options
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


class LanguageModelScores:
    """
    Log-probability of the hypotheses under a causal language model over the same ids.

    Args:
        model: takes `input_ids`; texts begin with the start token.
        vocab_size: the recogniser's.
        start: `(clips, beams)`, the start token.

    Raises:
        ValueError: the model knows fewer tokens than the recogniser.
    """

    def __init__(self, model: PreTrainedModel, vocab_size: int, start: torch.Tensor):
        if model.config.vocab_size < vocab_size:
            raise ValueError(
                f"language_model knows {model.config.vocab_size} tokens, the recogniser {vocab_size}: train it with "
                "the recogniser's tokenizer."
            )
        self.model, self.vocab_size = model, vocab_size
        self.cache: Cache | None = None
        self.ids = start.reshape(-1, 1)  # (clips * beams, length)
        self.total = torch.zeros(start.shape, device=start.device)  # (clips, beams)

    def __call__(self) -> torch.Tensor:
        """Computes the scores `(clips, beams, vocab)` of each hypothesis extended by each label."""
        new = self.ids if self.cache is None else self.ids[:, -1:]
        logits, self.cache = call_with_cache(self.model, new.to(self.model.device), self.cache)
        steps = logits[:, -1].to(self.ids.device, torch.float32).log_softmax(dim=-1)[:, : self.vocab_size]
        self.scores = self.total[..., None] + steps.unflatten(0, self.total.shape)
        return self.scores

    def advance(self, parents: torch.Tensor, labels: torch.Tensor) -> None:
        """Extends the hypotheses that `parents` `(clips, beams)` names by `labels` `(clips, beams)`."""
        rows = rows_of(parents)
        self.ids = torch.cat((self.ids[rows], labels.reshape(-1, 1)), dim=1)
        if self.cache is not None:
            self.cache.reorder_cache(rows_of(parents.to(self.model.device)))
        self.total = pick_scores(self.scores, parents, labels)


def pick_scores(scores: torch.Tensor, parents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Picks from scores `(clips, beams, vocab)` those of `labels` after `parents`, all `(clips, beams)`."""
    return scores.flatten(1).gather(1, parents * scores.shape[-1] + labels)


def rows_of(parents: torch.Tensor) -> torch.LongTensor:
    """Turns `parents` `(clips, beams)`, counted in each clip, into rows `(clips * beams,)` of all hypotheses."""
    first = torch.arange(len(parents), device=parents.device)[:, None] * parents.shape[1]
    return (parents + first).flatten()  # type: ignore[return-value]  # torch's stubs type no result so

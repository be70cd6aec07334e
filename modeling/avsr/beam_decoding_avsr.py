"""The networks in a beam search, one character of all hypotheses at a time: the decoder, in two ways, and a language model."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from .layers_avsr import AvsrAttention, AvsrDecoderLayer, sinusoidal_positions
from .transformers_seam_avsr import call_with_cache

FEWEST_ROWS, MOST_ROWS = 4, 16
BLOCKS = 8
FIRST_CAPACITY = 32  # steps that the first buffers hold; full ones are doubled, so that few shapes occur


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
    """
    Fuses linear layers that share an input into one weight in blocks.

    Returns None if the number of rows is not one that gains, or a layer isn't a plain `nn.Linear` (as with adapters).
    """
    if not is_plain(*layers) or not FEWEST_ROWS <= rows <= MOST_ROWS or layers[0].weight.device.type != "cpu":
        return None
    weight, bias = fused(*layers)
    return None if weight.shape[0] % BLOCKS else BlockLinear(weight, bias)


def is_plain(*layers: nn.Module) -> bool:
    """Returns whether the layers are their weights and nothing else, so that they may be computed together."""
    return all(type(layer) is nn.Linear and layer.bias is not None for layer in layers)


def fused(*layers: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns one weight and one bias for layers that share an input."""
    if len(layers) == 1:
        return layers[0].weight, layers[0].bias
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return weight, bias


class LayerStep:
    """
    A decoder layer with the keys and values of its beams: one call is one more character.

    Args:
        layer: of the decoder.
        frames: `(clips, frames, hidden_size)`, the encoder's; the beams of a clip share their keys and values.
        rows: beams of all clips.
    """

    def __init__(self, layer: AvsrDecoderLayer, frames: torch.Tensor, rows: int):
        own, across, feed_forward = layer.self_attn, layer.encoder_attn, layer.feed_forward
        self.layer = layer
        self.cross_kv = across.split_heads(across.k_proj(frames)), across.split_heads(across.v_proj(frames))
        self.qkv = self._joined_projection(rows, own)
        self.own_output = in_blocks(rows, own.o_proj) or own.o_proj
        self.across_query = in_blocks(rows, across.q_proj) or across.q_proj
        self.across_output = in_blocks(rows, across.o_proj) or across.o_proj
        self.fc1 = in_blocks(rows, feed_forward.fc1) or feed_forward.fc1
        self.fc2 = in_blocks(rows, feed_forward.fc2) or feed_forward.fc2
        self.self_kv: tuple[torch.Tensor, torch.Tensor] | None = (
            None  # each (clips, heads, capacity * beams, head_dim)
        )

    @staticmethod
    def _joined_projection(rows: int, attention: AvsrAttention) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Query, keys and values as one matrix product, `(clips, beams, 3 * hidden_size)`; None with adapters."""
        layers = attention.q_proj, attention.k_proj, attention.v_proj
        blocks = in_blocks(rows, *layers)
        if blocks is not None or not is_plain(*layers):
            return blocks
        weight, bias = fused(*layers)
        return lambda states: nn.functional.linear(states, weight, bias)

    def reserve(self, clips: int, places: int) -> None:
        """Makes room for the keys and values of `places` characters of each clip; those that are there stay."""
        attention, device, dtype = self.layer.self_attn, self.cross_kv[0].device, self.cross_kv[0].dtype
        shape = (clips, self.cross_kv[0].shape[1], places, attention.head_dim)
        larger = tuple(torch.zeros(shape, device=device, dtype=dtype) for _ in range(2))
        if self.self_kv is not None:
            for new, old in zip(larger, self.self_kv):
                new[:, :, : old.shape[2]] = old
        self.self_kv = larger

    def __call__(
        self,
        hidden_states: torch.Tensor,
        places: torch.Tensor,
        ancestry: torch.Tensor,
        encoder_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """
        Computes `layer` at the newest character of each hypothesis; masks: see [`AvsrBeamCache`].

        `(clips, beams, hidden_size)` -> the same; places: `(beams,)` where in the buffers the new keys go.
        """
        layer = self.layer

        def attend_to_self(states: torch.Tensor) -> torch.Tensor:
            query, *new = self._project(layer.self_attn, states)
            for buffer, states in zip(self.self_kv, new):
                buffer.index_copy_(2, places, states)
            used = tuple(buffer[:, :, : ancestry.shape[3]] for buffer in self.self_kv)
            return self._attend(layer.self_attn, query, used, ancestry, self.own_output)

        def attend_to_encoder(states: torch.Tensor) -> torch.Tensor:
            query = layer.encoder_attn.split_heads(self.across_query(states))
            return self._attend(layer.encoder_attn, query, self.cross_kv, encoder_mask, self.across_output)

        def feed_forward(states: torch.Tensor) -> torch.Tensor:
            return self.fc2(nn.functional.relu(self.fc1(states)))

        hidden_states = layer.self_attention_residual(hidden_states, attend_to_self)
        hidden_states = layer.encoder_attention_residual(hidden_states, attend_to_encoder)
        return layer.feed_forward_residual(hidden_states, feed_forward)

    def _project(self, attention: AvsrAttention, states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Query, keys and values `(clips, heads, beams, head_dim)`."""
        if self.qkv is None:
            parts = attention.q_proj(states), attention.k_proj(states), attention.v_proj(states)
        else:
            parts = self.qkv(states).chunk(3, dim=-1)
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
    The keys and values of `num_beams` beams of each clip that grow by one character a step.

    The beams of a clip are the queries of one row, so that they share the keys of its sound and lips. The keys of their
    characters stand side by side in the order in which they were computed and are never copied when beams are dropped
    or split: `ancestry` says which of them belong to each beam. Buffers have room for a number of steps, and a step
    writes into them in place, so that all its shapes stay the same until they are full: then they are doubled.

    Attributes:
        steps: characters that each beam holds.
        step: the same as `(1,)` int64 on the device, which a captured graph can count up.
        capacity: steps that the buffers have room for.
        layers: none before the first step.
        encoder_mask: `(clips, 1, 1, frames)`, added to scores: 0 for frames, the lowest number for padding;
            None without padding.
        ancestry: `(clips, 1, beams, capacity * beams)`, in the same way.
        positions: `(capacity, hidden_size)`, the position encodings.
    """

    def __init__(self, num_beams: int):
        self.num_beams = num_beams
        self.steps = self.capacity = 0
        self.layers: list[LayerStep] = []
        self.step = self.encoder_mask = self.ancestry = self.positions = None

    def prefill(self, layers: nn.ModuleList, frames: torch.Tensor, frame_mask: torch.Tensor) -> None:
        """
        Computes the cross-attention keys and values once.

        Args:
            layers: of the decoder.
            frames: `(clips, frames, hidden_size)`, the encoder's output.
            frame_mask: `(clips, frames)` bool.
        """
        clips, device = len(frames), frames.device
        self.layers = [LayerStep(layer, frames, clips * self.num_beams) for layer in layers]
        if not frame_mask.all():
            self.encoder_mask = as_bias(frame_mask[:, None, None], frames.dtype)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.beam = torch.arange(self.num_beams, device=device)
        itself = as_bias(torch.eye(self.num_beams, dtype=torch.bool, device=device), frames.dtype)
        self.itself = itself.expand(clips, 1, -1, -1).contiguous()  # (clips, 1, beams, beams)
        self._reserve(FIRST_CAPACITY, clips, frames.shape[2])

    def advance(self, embeddings: torch.Tensor) -> torch.Tensor:
        """
        Computes the layers' output for the next character of each hypothesis.

        `(clips, beams, hidden_size)` embeddings without their positions -> the output before the final norm.
        """
        if self.steps == self.capacity:
            self._reserve(2 * self.capacity, len(embeddings), embeddings.shape[2])
        places = self.step * self.num_beams + self.beam  # (beams,)
        self.ancestry.index_copy_(3, places, self.itself)
        hidden_states = embeddings + self.positions.index_select(0, self.step).to(embeddings.dtype)
        # a CPU is spared what is empty; elsewhere shapes that stay the same are worth more
        width = (self.steps + 1) * self.num_beams if self.ancestry.device.type == "cpu" else None
        for layer in self.layers:
            hidden_states = layer(hidden_states, places, self.ancestry[..., :width], self.encoder_mask)
        self.step.add_(1)
        self.steps += 1
        return hidden_states

    @torch.inference_mode()
    def reorder(self, parents: torch.LongTensor) -> None:
        """Lets each beam continue the one of the same clip that `parents` `(clips, beams)` names."""
        self.ancestry.copy_(self.ancestry.gather(2, parents[:, None, :, None].expand_as(self.ancestry)))

    def _reserve(self, capacity: int, clips: int, hidden_size: int) -> None:
        device, dtype = self.itself.device, self.itself.dtype
        columns = capacity * self.num_beams
        ancestry = torch.full((clips, 1, self.num_beams, columns), torch.finfo(dtype).min, device=device, dtype=dtype)
        if self.ancestry is not None:
            ancestry[..., : self.ancestry.shape[3]] = self.ancestry
        self.ancestry, self.capacity = ancestry, capacity
        self.positions = sinusoidal_positions(capacity, hidden_size, device)
        for layer in self.layers:
            layer.reserve(clips, columns)


def as_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns what is added to attention scores: True -> 0, False -> the lowest number."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


class SharedKeysDecoder:
    """
    The decoder's scores, computed layer by layer with [`AvsrBeamCache`].

    Args:
        model: [`AvsrForConditionalGeneration`].
        frames: `(clips, frames, hidden_size)`, the encoder's.
        frame_mask: `(clips, frames)` bool.
        beams: hypotheses of each clip.
    """

    def __init__(self, model: PreTrainedModel, frames: torch.Tensor, frame_mask: torch.Tensor, beams: int):
        self.decoder, self.head = model.get_decoder(), model.decoder_head
        self.encoded, self.cache = (frames, frame_mask), AvsrBeamCache(beams)

    @torch.inference_mode()
    def __call__(self, labels: torch.LongTensor) -> torch.Tensor:
        """Returns logits `(clips, beams, vocab)` after the newest labels `(clips, beams)`."""
        return self.head(self.decoder.step(labels, self.cache, *self.encoded))

    def advance(self, parents: torch.LongTensor, labels: torch.LongTensor) -> None:
        """Lets the hypotheses continue those that `parents` `(clips, beams)` names."""
        self.cache.reorder(parents)


class ForwardDecoder:
    """
    The decoder's scores by `forward`, one row for each hypothesis: for whatever [`SharedKeysDecoder`] has no part in, such
    as attention weights, other kinds of attention, or a decoder on several devices.

    Args:
        model: [`AvsrForConditionalGeneration`].
        encoder_outputs: of the clips.
        start: `(clips, beams)` the start token.
        asked: arguments of every call, such as `use_cache` or `output_attentions`.
    """

    def __init__(self, model: PreTrainedModel, encoder_outputs, start: torch.LongTensor, **asked: bool):
        rows = {name: encoder_outputs[name] for name in ("last_hidden_state", "frame_mask")}
        rows = {name: part.repeat_interleave(start.shape[1], dim=0) for name, part in rows.items()}
        self.model, self.encoded, self.asked = model, type(encoder_outputs)(**rows), asked
        self.ids, self.cache = start.new_zeros(start.numel(), 0), None  # (clips * beams, length)
        self.attentions, self.cross_attentions, self.hidden_states = [], [], []

    def __call__(self, labels: torch.LongTensor) -> torch.Tensor:
        """Returns logits `(clips, beams, vocab)` after the newest labels `(clips, beams)`."""
        self.ids = torch.cat((self.ids, labels.reshape(-1, 1)), dim=1)
        new = self.ids if self.cache is None else self.ids[:, -1:]
        outputs = self.model(decoder_input_ids=new, encoder_outputs=self.encoded, cache=self.cache, **self.asked)
        self.cache = outputs.cache
        self.attentions.append(outputs.decoder_attentions)
        self.cross_attentions.append(outputs.cross_attentions)
        self.hidden_states.append(outputs.decoder_hidden_states)
        return outputs.logits[:, -1].unflatten(0, labels.shape)

    def advance(self, parents: torch.LongTensor, labels: torch.LongTensor) -> None:
        """Lets the hypotheses continue those that `parents` `(clips, beams)` names."""
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
        start: `(clips, beams)` the start token.

    Raises:
        ValueError: the model knows fewer tokens than the recogniser.
    """

    def __init__(self, model: PreTrainedModel, vocab_size: int, start: torch.LongTensor):
        if model.config.vocab_size < vocab_size:
            raise ValueError(
                f"language_model knows {model.config.vocab_size} tokens, the recogniser {vocab_size}: train it with "
                "the recogniser's tokenizer."
            )
        self.model, self.vocab_size, self.cache = model, vocab_size, None
        self.ids = start.reshape(-1, 1)  # (clips * beams, length)
        self.total = torch.zeros(start.shape, device=start.device)  # (clips, beams)

    def __call__(self) -> torch.Tensor:
        """Returns `(clips, beams, vocab)`: of each hypothesis extended by each label."""
        new = self.ids if self.cache is None else self.ids[:, -1:]
        logits, self.cache = call_with_cache(self.model, new.to(self.model.device), self.cache)
        steps = logits[:, -1].to(self.ids.device, torch.float32).log_softmax(dim=-1)[:, : self.vocab_size]
        self.scores = self.total[..., None] + steps.unflatten(0, self.total.shape)
        return self.scores

    def advance(self, parents: torch.LongTensor, labels: torch.LongTensor) -> None:
        """Extends the hypotheses that `parents` `(clips, beams)` names by `labels` `(clips, beams)`."""
        rows = rows_of(parents)
        self.ids = torch.cat((self.ids[rows], labels.reshape(-1, 1)), dim=1)
        if self.cache is not None:
            self.cache.reorder_cache(rows.to(self.model.device))
        self.total = chosen(self.scores, parents, labels)


def chosen(scores: torch.Tensor, parents: torch.LongTensor, labels: torch.LongTensor) -> torch.Tensor:
    """Returns `(clips, beams)`: of scores `(clips, beams, vocab)` those of the labels that continue `parents`."""
    return scores.flatten(1).gather(1, parents * scores.shape[-1] + labels)


def rows_of(parents: torch.LongTensor) -> torch.LongTensor:
    """Returns `parents` `(clips, beams)` as rows `(clips * beams,)` of all clips' hypotheses."""
    first = torch.arange(len(parents), device=parents.device)[:, None] * parents.shape[1]
    return (parents + first).flatten()

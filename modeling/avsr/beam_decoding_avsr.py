"""The joint beam search, and the decoder computed for its hypotheses, one character per hypothesis and step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import EncoderDecoderCache
from transformers.generation import LogitsProcessor, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from .ctc_prefix_score_avsr import (
    IMPOSSIBLE,
    NEVER,
    CtcScores,
    LanguageModelScores,
    pick_scores,
    rows_of,
    without_label,
)
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

SLACK = 1e-3  # tolerance when scores are compared with the bound: the error of float32 sums
STEPS_BETWEEN_WAITS = 8  # a device beside the CPU must finish before its results can be checked for an early end
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


@dataclass(frozen=True)
class SearchSettings:
    """
    Settings of a search.

    Attributes:
        start: id of the start token.
        blank: id of CTC's blank, which texts don't contain; it pads them.
        eos: id of the end of a text.
        ctc_weight: w in [0, 1].
        language_model_weight: v, 0 or more.
        beams: hypotheses of each clip; with one, a clip's text grows label by label and ends where EOS is chosen.
        texts: texts to return for each clip, at most `beams`.
        steps: most labels of a text, EOS included.
        length_penalty: a finished text's score is divided by its number of labels to this power.
        early_stopping: when to end: `False`: when the texts are certain; `True`: with as many finished texts as beams;
            `"never"`: at the longest possible text.
        bounded: whether scores can't grow while a text grows, so that `early_stopping=False` can be certain.
        sample: whether labels are drawn at random by their joint probability, instead of the best ones.
        processors: change the decoder's log-probabilities.
        criteria: end a hypothesis as it is.
        streamer: gets each label as soon as it is certain; with one beam only.
        store_scores: whether to store the joint scores of every step.
        store_logits: whether to store the decoder's logits of every step.
        length_bonus: added for each label, EOS included; [`EspnetSearch`] only.
    """

    start: int
    blank: int
    eos: int
    ctc_weight: float
    language_model_weight: float = 0.0
    beams: int = 1
    texts: int = 1
    steps: int = 1
    length_penalty: float = 0.0
    early_stopping: bool | str = False
    bounded: bool = True
    sample: bool = False
    processors: list[LogitsProcessor] = field(default_factory=list)
    criteria: list[StoppingCriteria] = field(default_factory=list)
    streamer: BaseStreamer | None = None
    store_scores: bool = False
    store_logits: bool = False
    length_bonus: float = 0.0


class JointSearch:
    """
    Searches for the texts of the highest joint score `(1 - w) log p_attention + w log p_ctc + v log p_lm`.

    The decoder's distribution is over all labels but blank, which cannot be generated. A text has at most as many
    characters as its clip has CTC steps, even if CTC has no weight, so that a clip's text does not depend on longer
    clips in its batch. In each step the beams' endings compete with the finished texts, and the beams' continuations
    with each other.

    Every tensor has its final shape from the start, and a step changes them in place. Back-pointers (`labels`,
    `parents`) record which text a beam holds, so that texts are neither moved nor compared.

    **The search ends early** (`early_stopping=False`, `bounded`): a prefix whose score is below those of `texts`
    finished texts is dropped, and the search ends when no clip has a prefix left. The best texts are the same as
    without. Proof: let s(h) be the joint score of a prefix or finished text h. (1) s does not grow: the decoder
    and the language model multiply by probabilities, and a text that begins with hc, or is h, is among those that
    CTC counts as beginning with h. So each text that continues h scores at most s(h), which is less than the
    threshold, the score of the last of the best texts so far; the threshold only rises; hence no continuation of h
    is among the best. (2) A dropped prefix gives its place in the beam to nothing that matters: a beam holds the
    best prefixes of a step, so whatever would move up scores at most what was dropped, is below the threshold as
    well, and is dropped too. The prefixes above the threshold are the same in each step as without, by induction,
    and so are the finished texts above it. With a length penalty the threshold is compared with the best that s(h)
    <= 0 can become. (The published code's CTC score can grow, so that search goes to the end.)

    Args:
        decoder: [`SharedKeysDecoder`] or [`ForwardDecoder`].
        lengths: `(clips,)` most characters of each clip's text.
        settings: of the search.
        ctc: CTC's part of the score; not needed with `ctc_weight=0`.
        language_model: the language model's part of the score.
    """

    def __init__(
        self,
        decoder: SharedKeysDecoder | ForwardDecoder,
        lengths: torch.Tensor,
        settings: SearchSettings,
        ctc: CtcScores | None = None,
        language_model: LanguageModelScores | None = None,
    ):
        self.decoder, self.lengths, self.settings = decoder, lengths, settings
        self.ctc, self.language_model = ctc, language_model
        clips, beams, device = len(lengths), settings.beams, lengths.device
        self.ends_compete = beams == 1 or settings.sample  # EOS is a label among others
        counted = settings.early_stopping is True and beams > 1
        self.pool = beams if counted else settings.texts  # most finished texts stored for each clip
        self.beam = torch.arange(beams, device=device)
        self.newest = lengths.new_full((clips, beams), settings.start)
        self.ids = self.newest[..., None]  # (clips, beams, length), the texts so far
        self.attention = torch.zeros(clips, beams, device=device)  # the decoder's weighted part of each score
        self.total = torch.full((clips, beams), NEVER, device=device)  # scores; of empty places NEVER
        self.total[:, 0] = 0.0
        self.labels = lengths.new_zeros(settings.steps, clips, beams)
        self.parents = lengths.new_zeros(settings.steps, clips, beams)
        self.step = lengths.new_zeros(1)
        self.scores = torch.full((clips, self.pool), NEVER, device=device)  # of finished texts, best first
        self.ends = lengths.new_zeros(3, clips, self.pool)  # their beams, their characters, 1 if they end with EOS
        self.step_scores: list[torch.Tensor] = []  # of each step, `(clips * beams, vocab)`
        self.step_logits: list[torch.Tensor] = []

    def run(self) -> None:
        """Searches until nothing can change any more, or the texts have their greatest length."""
        wait = 1 if self.lengths.device.type == "cpu" or self.settings.streamer is not None else STEPS_BETWEEN_WAITS
        if self.settings.streamer is not None:
            self.settings.streamer.put(self.newest.flatten().cpu())
        for done in range(1, self.settings.steps + 1):
            self._advance(last=done == self.settings.steps)
            if done % wait == 0 and not (self.total > NEVER).any():
                break
        if self.settings.streamer is not None:
            self.settings.streamer.end()

    def _advance(self, last: bool) -> None:
        """Extends each hypothesis by one label."""
        settings = self.settings
        totals, attention = self._extended()
        if not self.ends_compete:
            self.finish(totals[..., settings.eos], self.beam, ended=True)
            totals[..., settings.eos] = NEVER
            totals = self._drop_hopeless(totals)
        parents, labels, self.total = self.choose(totals)
        if self.ends_compete:
            self.finish(self.total.masked_fill(labels != settings.eos, NEVER), parents, ended=True)
            self.total = self.total.masked_fill(labels == settings.eos, NEVER)
        self.attention = pick_scores(attention, parents, labels)
        self.record(parents, labels)
        if last or settings.criteria:
            self._stop(last)
        if not last:
            self.follow(parents, labels)
        if settings.streamer is not None:
            settings.streamer.put(labels.flatten().cpu())

    def record(self, parents: torch.Tensor, labels: torch.Tensor) -> None:
        """Extends the hypotheses that `parents` names by `labels`, both `(clips, beams)`."""
        self.labels.index_copy_(0, self.step, labels[None])
        self.parents.index_copy_(0, self.step, parents[None])
        self.step.add_(1)
        self.newest.copy_(labels)
        if self.settings.processors or self.settings.criteria:  # nothing else reads whole texts
            moved = self.ids.gather(1, parents[..., None].expand_as(self.ids))
            self.ids = torch.cat((moved, labels[..., None]), dim=2)

    def follow(self, parents: torch.Tensor, labels: torch.Tensor) -> None:
        """Tells what scores the hypotheses how they were extended."""
        for part in (self.decoder, self.ctc, self.language_model):
            if part is not None:
                part.advance(parents, labels)

    def _extended(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes the scores `(clips, beams, vocab)` of all extensions by a label, and the decoder's part of them."""
        settings = self.settings
        log_probs = self.decoder_log_probs()
        attention = self.attention[..., None].expand_as(log_probs)
        if settings.ctc_weight < 1:
            attention = attention + (1 - settings.ctc_weight) * without_label(log_probs, settings.blank)
        totals = attention
        if self.ctc is not None:
            totals = totals + (settings.ctc_weight * self.ctc()).float()
        if self.language_model is not None:
            totals = totals + settings.language_model_weight * self.language_model()
        return self.remove(totals, self._ruled_out(log_probs)), attention

    def decoder_log_probs(self) -> torch.Tensor:
        """Computes the decoder's log-probabilities `(clips, beams, vocab)` of the next label."""
        logits = self.decoder(self.newest)
        if self.settings.store_logits:
            self.step_logits.append(logits.float().flatten(0, 1).clone())
        log_probs = logits.float().log_softmax(dim=-1)
        rows = log_probs.flatten(0, 1)
        for processor in self.settings.processors:
            rows = processor(self.ids.flatten(0, 1), rows)
        return rows.view_as(log_probs)

    def remove(self, totals: torch.Tensor, ruled_out: torch.Tensor) -> torch.Tensor:
        """Removes extensions from scores `(clips, beams, vocab)`, and stores the scores if that is requested."""
        totals = totals.masked_fill(ruled_out | totals.isnan(), NEVER)  # NaN is -inf - -inf
        if self.settings.store_scores:
            self.step_scores.append((totals - self.total[..., None]).nan_to_num(nan=NEVER, neginf=NEVER).flatten(0, 1))
        return totals

    def _ruled_out(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Marks blank, what processors rule out, and all after empty places or full texts, `(clips, beams, vocab)`."""
        label = torch.arange(log_probs.shape[-1], device=log_probs.device)
        full = (self.step >= self.lengths)[:, None, None] & (label != self.settings.eos)
        empty = torch.isneginf(self.total)[..., None]
        return (log_probs < IMPOSSIBLE) | (label == self.settings.blank) | full | empty

    def choose(self, totals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Chooses from scores `(clips, beams, vocab)`; returns parents, labels and scores, each `(clips, beams)`."""
        flat = totals.flatten(1)  # (clips, beams * vocab)
        ranked = flat
        if self.settings.sample:  # the best k of scores with Gumbel noise are k draws without replacement
            ranked = flat - torch.empty_like(flat).exponential_().log()
        index = ranked.topk(self.settings.beams, dim=1).indices
        return index // totals.shape[-1], index % totals.shape[-1], flat.gather(1, index)

    def finish(self, totals: torch.Tensor, beams: torch.Tensor, ended: bool) -> None:
        """Adds hypotheses, those in `beams` of scores `(clips, beams)`, to the finished texts; the best remain."""
        scores = totals / (self.step + int(ended)) ** self.settings.length_penalty
        scores = torch.cat((self.scores, scores), dim=1)
        new = torch.stack(
            (beams.expand_as(totals), self.step.expand_as(totals), self.step.new_full((), ended).expand_as(totals))
        )
        self.scores, index = scores.topk(self.pool, dim=1)
        self.ends = torch.cat((self.ends, new), dim=2).gather(2, index.expand(3, -1, -1))

    def _drop_hopeless(self, totals: torch.Tensor) -> torch.Tensor:
        """Removes from scores `(clips, beams, vocab)` what cannot become one of the texts to be returned."""
        settings = self.settings
        if settings.early_stopping is True:
            return totals.masked_fill((self.scores[:, -1] > NEVER)[:, None, None], NEVER)
        if settings.early_stopping == "never" or not settings.bounded:
            return totals
        best = totals
        if settings.length_penalty > 0:
            best = totals / (self.lengths + 1).clamp(max=settings.steps)[:, None, None] ** settings.length_penalty
        elif settings.length_penalty < 0:
            best = totals / (self.step + 2) ** settings.length_penalty
        return totals.masked_fill(best < self.scores[:, None, settings.texts - 1 : settings.texts] - SLACK, NEVER)

    def _stop(self, last: bool) -> None:
        """Ends hypotheses as they are: by a criterion, or at the greatest length in a clip without a finished text."""
        stopped = torch.full_like(self.total, last, dtype=torch.bool)
        if last:
            stopped &= torch.isneginf(self.scores[:, :1])
        else:
            ids, scores = self.ids.flatten(0, 1), tuple(self.step_scores)
            for criterion in self.settings.criteria:
                ends = torch.as_tensor(criterion(ids, scores), device=stopped.device)
                stopped |= ends.expand(len(ids)).view_as(stopped)
        self.finish(self.total.masked_fill(~stopped, NEVER), self.beam, ended=False)
        self.total = self.total.masked_fill(stopped, NEVER)

    def found(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Reads the finished texts, best first.

        Returns:
            Texts `(clips * texts, length)` with start token, EOS and padding; their scores `(clips * texts,)`; and the
            beams in which their labels were found, `(clips * texts, length - 1)` as transformers counts them, -1 after
            the end.
        """
        settings, device = self.settings, self.lengths.device
        labels, parents = self.labels.cpu(), self.parents.cpu()
        beam, characters, ended = self.ends[:, :, : settings.texts].cpu()  # each (clips, texts)
        missing = torch.isneginf(self.scores[:, : settings.texts]).cpu()
        characters, ended = characters.masked_fill(missing, 0), ended.masked_fill(missing, 1)
        clips, steps = beam.shape[0], int((characters + ended).max())
        ids = torch.full((clips, settings.texts, steps + 1), settings.blank)
        rows = torch.full((clips, settings.texts, steps), -1)
        first = torch.arange(clips)[:, None] * settings.beams
        ids[..., 0] = settings.start
        for step in reversed(range(steps)):
            at_end, inside = (step == characters) & (ended == 1), step < characters
            label, parent = labels[step].gather(1, beam), parents[step].gather(1, beam)
            ids[..., step + 1] = torch.where(inside, label, torch.where(at_end, settings.eos, settings.blank))
            rows[..., step] = torch.where(inside, first + parent, torch.where(at_end, first + beam, -1))
            beam = torch.where(inside, parent, beam)
        scores = self.scores[:, : settings.texts].flatten()
        return ids.flatten(0, 1).to(device), scores, rows.flatten(0, 1).to(device)

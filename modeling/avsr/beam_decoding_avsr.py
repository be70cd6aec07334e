"""The joint beam search, and the decoder computed for its hypotheses, one character per hypothesis and step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.generation import LogitsProcessor, StoppingCriteria
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

from .layers_avsr import (
    AvsrAttention,
    AvsrDecoderLayer,
    AvsrEncoderOutput,
    as_bias,
    fuse,
    in_blocks,
    is_plain,
    sinusoidal_positions,
)
from .text_scores_avsr import (
    IMPOSSIBLE,
    NEVER,
    CtcPrefixScorer,
    CtcScores,
    ForwardDecoder,
    LanguageModelScores,
    pick_scores,
    without_label,
)

logger = logging.get_logger(__name__)

SLACK = 1e-3  # tolerance when scores are compared with the bound: the error of float32 sums
STEPS_BETWEEN_WAITS = 8  # a device beside the CPU must finish before its results can be checked for an early end
FIRST_CAPACITY = 32  # steps that the first buffers hold; full ones are doubled, so that few shapes occur
BUCKET = 64  # where steps are captured, frames and steps are filled up to a multiple: few graphs serve all clips
STEPS_BEFORE_CAPTURE = 3  # in which the libraries of a GPU make ready what a graph must not make
MOST_GRAPHS = 4  # kept with the memory they write into, up to half a gigabyte each for 32 clips of ten seconds


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
        projections = self_attn.q_proj, self_attn.k_proj, self_attn.v_proj
        self.self_qkv = in_blocks(rows, *projections)  # query, keys and values as one product
        self.fused = fuse(*projections) if self.self_qkv is None and is_plain(*projections) else None  # not adapters
        self.self_output = in_blocks(rows, self_attn.o_proj) or self_attn.o_proj
        self.cross_query = in_blocks(rows, cross_attn.q_proj) or cross_attn.q_proj
        self.cross_output = in_blocks(rows, cross_attn.o_proj) or cross_attn.o_proj
        self.fc1 = in_blocks(rows, feed_forward.fc1) or feed_forward.fc1
        self.fc2 = in_blocks(rows, feed_forward.fc2) or feed_forward.fc2
        others = self_attn.o_proj, cross_attn.q_proj, cross_attn.o_proj, feed_forward.fc1, feed_forward.fc2
        self.plain = is_plain(*projections, *others)  # as nothing is that may compute otherwise the next time

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
        if self.self_qkv is not None:
            parts = self.self_qkv(states).chunk(3, dim=-1)
        elif self.fused is not None:
            parts = nn.functional.linear(states, *self.fused).chunk(3, dim=-1)
        else:
            parts = attention.q_proj(states), attention.k_proj(states), attention.v_proj(states)
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
        room: steps that the buffers are made for at once, so that steps have constant shapes; None: buffers grow, and
            a CPU reads only what they hold.

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

    def __init__(self, num_beams: int, room: int | None = None):
        self.num_beams, self.room = num_beams, room
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
        whole = frames.device.type == "cpu" and bool(frame_mask.all())  # elsewhere the host would wait for the answer
        self.encoder_mask = None if whole else as_bias(frame_mask[:, None, None], frames.dtype)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.beam = torch.arange(self.num_beams, device=device)
        itself = as_bias(torch.eye(self.num_beams, dtype=torch.bool, device=device), frames.dtype)
        self.itself = itself.expand(clips, 1, -1, -1).contiguous()
        self.ancestry = self.itself[..., :0]
        self._reserve(self.room or FIRST_CAPACITY, frames.shape[2])

    def advance(self, embeddings: torch.Tensor) -> torch.Tensor:
        """
        Computes the layers' output at the next character of each hypothesis.

        Args:
            embeddings: `(clips, beams, hidden_size)` of the characters, without their positions.

        Returns:
            `(clips, beams, hidden_size)`, before the final norm.
        """
        if self.room is None and self.steps == self.capacity:
            self._reserve(2 * self.capacity, embeddings.shape[2])
        columns = self.step * self.num_beams + self.beam  # (beams,)
        self.ancestry.index_copy_(3, columns, self.itself)
        hidden_states = embeddings + self.positions.index_select(0, self.step).to(embeddings.dtype)
        # a CPU skips what is still empty; elsewhere constant shapes are worth more
        skips = self.ancestry.device.type == "cpu" and self.room is None
        width = (self.steps + 1) * self.num_beams if skips else None
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

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def __call__(self, **inputs: Any) -> Any: ...


class SharedKeysDecoder:
    """
    The decoder's scores, computed layer by layer with [`AvsrBeamCache`].

    Args:
        model: [`AvsrForConditionalGeneration`].
        encoder_outputs: of the clips.
        beams: hypotheses of each clip.
        room: see [`AvsrBeamCache`].
    """

    def __init__(self, model: Recogniser, encoder_outputs: AvsrEncoderOutput, beams: int, room: int | None = None):
        self.decoder, self.head = model.get_decoder(), model.decoder_head_of(encoder_outputs)
        self.weights = model.parameters
        self.encoded = encoder_outputs["last_hidden_state"], encoder_outputs["frame_mask"]
        self.cache = AvsrBeamCache(beams, room)

    @torch.inference_mode()
    def __call__(self, labels: torch.Tensor) -> torch.Tensor:
        """Computes logits `(clips, beams, vocab)` after the newest labels `(clips, beams)`."""
        return self.head(self.decoder.step(labels, self.cache, *self.encoded))

    def advance(self, parents: torch.Tensor, labels: torch.Tensor) -> None:
        """Makes each hypothesis the continuation of the one that `parents` `(clips, beams)` names."""
        self.cache.reorder(parents)


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
    `parents`) record which text a beam holds, so that texts are neither moved nor compared. So a step is the same work
    on the same memory each time, which on CUDA is captured once and replayed, see [`StepGraphs`].

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

    repeats = True  # whether steps are alike

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
        self.labels = lengths.new_zeros(filled_up(settings.steps), clips, beams)
        self.parents = torch.zeros_like(self.labels)
        self.step = lengths.new_zeros(1)
        self.scores = torch.full((clips, self.pool), NEVER, device=device)  # of finished texts, best first
        self.ends = lengths.new_zeros(3, clips, self.pool)  # their beams, their characters, 1 if they end with EOS
        self.step_scores: list[torch.Tensor] = []  # of each step, `(clips * beams, vocab)`
        self.step_logits: list[torch.Tensor] = []

    def run(self, graphs: "StepGraphs | None" = None) -> None:
        """
        Searches until nothing can change any more, or the texts have their greatest length.

        Args:
            graphs: captured so far; None: each step is computed.
        """
        wait = 1 if self.lengths.device.type == "cpu" or self.settings.streamer is not None else STEPS_BETWEEN_WAITS
        if self.settings.streamer is not None:
            self.settings.streamer.put(self.newest.flatten().cpu())
        graph: Any = None
        for done in range(1, self.settings.steps + 1):
            last = done == self.settings.steps
            if graph is None or last:
                self._advance(last)
            else:
                graph.replay()
            near = done + wait // 4 > self.settings.steps  # to ask takes as long as to go on
            if done % wait == 0 and not near and not (self.total > NEVER).any():
                break
            if graphs is not None and graph is None and not last:
                graph = graphs.take(self, done)
        if graphs is not None and graph is not None:
            graphs.keep(self, graph)
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
        parents, labels, scores = self.choose(totals)
        if self.ends_compete:
            self.finish(scores.masked_fill(labels != settings.eos, NEVER), parents, ended=True)
            scores = scores.masked_fill(labels == settings.eos, NEVER)
        self.total.copy_(scores)
        self.attention.copy_(pick_scores(attention, parents, labels))
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
        best, index = scores.topk(self.pool, dim=1)
        self.scores.copy_(best)
        self.ends.copy_(torch.cat((self.ends, new), dim=2).gather(2, index.expand(3, -1, -1)))

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
        self.total.masked_fill_(stopped, NEVER)

    def found(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Reads the finished texts, best first.

        Returns:
            Texts `(clips * texts, length)` with start token, EOS and padding; their scores `(clips * texts,)`; and the
            beams in which their labels were found, `(clips * texts, length - 1)` as transformers counts them, -1 after
            the end.
        """
        settings, device = self.settings, self.lengths.device
        missing = torch.isneginf(self.scores[:, : settings.texts])[None]
        parts = self.labels, self.parents, self.ends[:, :, : settings.texts], missing.long()
        sizes = [part.numel() for part in parts]
        host = torch.cat([part.flatten() for part in parts]).cpu().split(sizes)  # one copy
        labels, parents, (beam, characters, ended), (missing,) = (x.view(y.shape) for x, y in zip(host, parts))
        characters, ended = characters.masked_fill(missing > 0, 0), ended.masked_fill(missing > 0, 1)
        clips, steps = beam.shape[0], int((characters + ended).max())  # beam (clips, texts)
        texts = torch.full((2, clips, settings.texts, steps + 1), -1)
        ids, rows = texts[0].fill_(settings.blank), texts[1, ..., 1:]
        first = torch.arange(clips)[:, None] * settings.beams
        ids[..., 0] = settings.start
        for step in reversed(range(steps)):
            at_end, inside = (step == characters) & (ended == 1), step < characters
            label, parent = labels[step].gather(1, beam), parents[step].gather(1, beam)
            ids[..., step + 1] = torch.where(inside, label, torch.where(at_end, settings.eos, settings.blank))
            rows[..., step] = torch.where(inside, first + parent, torch.where(at_end, first + beam, -1))
            beam = torch.where(inside, parent, beam)
        ids, rows = texts.flatten(1, 2).to(device)
        return ids, self.scores[:, : settings.texts].flatten(), rows[:, 1:]


class StepGraphs:
    """
    Steps of searches captured as CUDA graphs, which later searches of the same shapes replay.

    Starting the hundreds of kernels of a step takes longer than computing them; as a graph they are started as one.
    Capturing takes as long as some steps and waits for the GPU, so graphs are kept, those used last. A search takes a
    graph out while it uses it, so that threads don't share one. A copy of a model has none.

    Attributes:
        devices: kinds of devices on which steps are captured.
        kept: by the kind of step, the parts of the search that it was captured in, and the graph.
        failed: whether a step could not be captured; then none is any more.
    """

    devices: tuple[str, ...] = ("cuda",)

    def __init__(self) -> None:
        self.kept: dict[Any, tuple[dict[str, Any], Any]] = {}
        self.failed = False

    def __reduce__(self) -> tuple[type["StepGraphs"], tuple[()]]:
        return StepGraphs, ()

    @torch.inference_mode()
    def take(self, search: JointSearch, done: int) -> Any:
        """Returns a graph of the step of a search that has `done` some, or None; its tensors become the graph's."""
        if self.failed or (kind := kind_of_step(search)) is None:
            return None
        if (known := self.kept.pop(kind, None)) is not None:
            parts, graph = known
            for own, new in zip(tensors_of(parts), tensors_of(vars(search)), strict=True):
                own.copy_(new)
            vars(search).update(parts)
            return graph
        if done < STEPS_BEFORE_CAPTURE:
            return None
        try:
            graph = capture(search)
            if does_the_same(search, graph):
                return graph
            reason = "replayed, it gives other numbers"
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
        self.failed = True
        logger.warning(f"the search runs step by step: a step can't be captured as a CUDA graph ({reason}).")
        return None

    def keep(self, search: JointSearch, graph: Any) -> None:
        """Keeps a graph with its tensors when a search has ended; what the search has found is copied."""
        parts = {name: part for name, part in vars(search).items() if name != "settings"}
        for name in ("labels", "parents", "scores", "ends"):
            setattr(search, name, parts[name].clone())
        self.kept[kind_of_step(search)] = parts, graph
        while len(self.kept) > MOST_GRAPHS:
            del self.kept[next(iter(self.kept))]


def kind_of_step(search: JointSearch) -> tuple[Any, ...] | None:
    """Returns what the work of a step depends on beside the numbers in tensors; None: it can't be captured."""
    settings, decoder = search.settings, search.decoder
    more = settings.processors or settings.criteria or settings.streamer or settings.sample or search.language_model
    stores = settings.store_scores or settings.store_logits
    if not search.repeats or more or stores or not isinstance(decoder, SharedKeysDecoder):
        return None
    if not all(layer.plain for layer in decoder.cache.layers) or not isinstance(decoder.head, nn.Module):
        return None
    steps = settings.steps if settings.length_penalty > 0 else 0  # else it doesn't matter
    scorer = None if search.ctc is None else (type(search.ctc.scorer), search.ctc.ends_with_eos)
    weights = tuple(weight.data_ptr() for weight in decoder.weights())
    shapes = tuple((part.shape, part.dtype, part.device) for part in tensors_of(vars(search)))
    alike = replace(settings, processors=(), criteria=(), steps=steps)  # type: ignore[arg-type]  # a key is hashable
    return alike, scorer, id(decoder.head), weights, shapes


def tensors_of(part: Any) -> list[torch.Tensor]:
    """Lists the tensors that belong to a search, in a fixed order; weights of the model are not among them."""
    if isinstance(part, torch.Tensor):
        return [part]
    if isinstance(part, SharedKeysDecoder):
        part = part.cache
    if isinstance(part, (AvsrBeamCache, LayerStep, CtcScores, CtcPrefixScorer)):
        part = vars(part)
    if isinstance(part, dict):
        part = list(part.values())
    return [tensor for item in part for tensor in tensors_of(item)] if isinstance(part, (list, tuple)) else []


def capture(search: JointSearch) -> Any:
    """Records the work of a search's step without doing it; other threads may go on using the GPU."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        search._advance(last=False)
    return graph


def does_the_same(search: JointSearch, graph: Any) -> bool:
    """Whether a graph, replayed, does what a step does, up to rounding; the search is left as it was."""
    tensors, results = tensors_of(vars(search)), []
    before = [tensor.clone() for tensor in tensors]
    for step in (partial(search._advance, last=False), graph.replay):
        step()
        results.append([tensor.clone() for tensor in tensors])
        for tensor, numbers in zip(tensors, before, strict=True):
            tensor.copy_(numbers)
    return all(torch.allclose(one, other, 0.01, 0.01, equal_nan=True) for one, other in zip(*results, strict=True))


def filled_up(count: int) -> int:
    """Returns the next multiple of `BUCKET`."""
    return -(-count // BUCKET) * BUCKET

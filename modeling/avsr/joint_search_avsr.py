"""The joint CTC/attention search: a beam search of our own with static shapes (paper, section 3.7; Watanabe et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn.functional import log_softmax
from transformers import LogitsProcessor, PreTrainedModel, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from .beam_decoding_avsr import AvsrBeamCache
from .ctc_prefix_score_avsr import CTC_PREFIX_SCORERS, NEVER, precision
from .transformers_seam_avsr import call_with_cache

IMPOSSIBLE = -1e30  # a log-probability that a processor has made as low as it can be
SLACK = 1e-3  # of the bound: sums in float32 are this exact
STEPS_BETWEEN_WAITS = 8  # on a device that works beside the CPU, asking whether anything is left makes both wait


class CtcScores:
    """
    CTC's log-probability of the hypotheses while they grow.

    EOS follows one rule in training and in search: the score of a finished text is CTC's probability of the label
    sequence that the loss is given for it, which ends with an EOS label only with `ctc_target_eos`. (The published
    code trains with it and searches without; so does `prefix="reference"`.)

    Args:
        ctc_logits: `(clips, steps, vocab)`.
        lengths: `(clips,)` valid steps.
        beams: hypotheses of each clip.
        blank: its id.
        eos: its id.
        target_eos: CTC's targets end with EOS.
        prefix: `"exact"` or `"reference"` (see [`ReferenceCtcPrefixScorer`]).
    """

    def __init__(
        self,
        ctc_logits: torch.Tensor,
        lengths: torch.Tensor,
        beams: int,
        blank: int,
        eos: int,
        target_eos: bool = False,
        prefix: str = "exact",
    ):
        log_probs = log_softmax(ctc_logits.to(precision(ctc_logits.device)), dim=-1)
        self.scorer = CTC_PREFIX_SCORERS[prefix](log_probs, lengths, blank)
        self.eos, self.ends_with_eos = eos, target_eos and prefix == "exact"
        self.state = tuple(part.clone() for part in self.scorer.start(beams))  # each (clips, beams, steps + 1)
        self.last = lengths.new_full((len(lengths), beams), -1)  # (clips, beams) labels

    def __call__(self) -> torch.Tensor:
        """Returns `(clips, beams, vocab)`: of each hypothesis extended by each label as a prefix, by EOS as the text."""
        scores, whole = self.scorer.score(self.state, self.last)
        if self.ends_with_eos:
            whole = self.scorer.score_ended(self.state, self.last, self.eos)
        scores[..., self.eos] = whole
        return scores

    def advance(self, parents: torch.LongTensor, labels: torch.LongTensor) -> None:
        """Extends the hypotheses that `parents` `(clips, beams)` names by `labels` `(clips, beams)`, in place."""
        places = parents[..., None].expand_as(self.state[0])
        state = tuple(part.gather(1, places) for part in self.state)
        for part, extended in zip(self.state, self.scorer.extend(state, self.last.gather(1, parents), labels)):
            part.copy_(extended)
        self.last.copy_(labels)


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


@dataclass(frozen=True)
class SearchSettings:
    """
    Settings of a search.

    Attributes:
        start: id of the start token.
        blank: id of CTC's blank, which no text holds; it pads the texts as well.
        eos: id of the end of a text.
        ctc_weight: w in [0, 1].
        language_model_weight: v, 0 or more.
        beams: hypotheses of each clip; with one, a clip's text grows label by label and ends where EOS is taken.
        texts: texts to return for each clip, at most `beams`.
        steps: most labels of a text, EOS included.
        length_penalty: a finished text's score is divided by its number of labels to this power.
        early_stopping: `False`: when the texts are certain; `True`: with as many finished texts as beams; `"never"`.
        bounded: scores don't grow while a text grows, so that `early_stopping=False` can be certain.
        sample: labels are drawn at random by their joint probability instead of taking the best.
        processors: change the decoder's log-probabilities.
        criteria: end a hypothesis as it is.
        streamer: is given each label as soon as it is certain; with one beam.
        keep_scores: store the joint scores of every step.
        keep_logits: store the decoder's logits of every step.
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
    keep_scores: bool = False
    keep_logits: bool = False


class JointSearch:
    """
    Searches for the texts of the highest joint score `(1 - w) log p_attention + w log p_ctc + v log p_lm`.

    The decoder's distribution is over all labels but blank, which cannot be generated. A text has at most as many
    characters as its clip has CTC steps, also where CTC has no weight, so that a clip's text does not depend on longer
    clips in its batch. In each step the ends of all beams are compared with the finished texts, and the best
    continuations of all beams with each other.

    Every tensor has its final shape from the start, and a step changes them in place; which text a beam holds is told
    by back-pointers (`labels`, `parents`), so that texts are neither moved nor compared.

    **The search ends early** (`early_stopping=False`, `bounded`): a prefix whose score is less than that of `texts`
    texts that are finished gets no further steps, and the search ends when no clip has a prefix left. The best texts
    are the same as without. Proof: let s(h) be the joint score of a prefix or finished text h. (1) s does not grow: the
    decoder and the language model multiply by probabilities, and a text that begins with hc, or is h, is among those
    that CTC counts as beginning with h. So each text that continues h scores at most s(h), which is less than the
    threshold, the score of the last of the best texts so far; the threshold only rises; hence no continuation of h is
    among the best. (2) What is dropped gives its place in the beam to nothing that matters: a beam holds the best
    prefixes of a step, so whatever would move up scores at most what was dropped, is below the threshold as well, and
    is dropped too. The prefixes above the threshold are the same in each step as without, by induction, and so are the
    finished texts above it. With a length penalty the threshold is compared with the best that s(h) <= 0 can become.
    (The published code's CTC score can grow, so it is searched to the end.)

    Args:
        decoder: [`SharedKeysDecoder`] or [`ForwardDecoder`].
        lengths: `(clips,)` most characters of each clip's text.
        settings: of the search.
        ctc: not needed with `ctc_weight=0`.
        language_model: *optional*.
    """

    def __init__(
        self,
        decoder: SharedKeysDecoder | ForwardDecoder,
        lengths: torch.LongTensor,
        settings: SearchSettings,
        ctc: CtcScores | None = None,
        language_model: LanguageModelScores | None = None,
    ):
        self.decoder, self.lengths, self.settings = decoder, lengths, settings
        self.ctc, self.language_model = ctc, language_model
        clips, beams, device = len(lengths), settings.beams, lengths.device
        self.ends_compete = beams == 1 or settings.sample  # EOS is a label among others
        counted = settings.early_stopping is True and beams > 1
        self.pool = beams if counted else settings.texts  # finished texts stored for each clip
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
        self.kept_scores, self.kept_logits = [], []

    def run(self) -> None:
        """Searches until nothing can change any more, or texts are as long as they may be."""
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
        """One more label for each hypothesis."""
        settings = self.settings
        totals, attention = self._extended()
        if not self.ends_compete:
            self._finish(totals[..., settings.eos], self.beam, ended=True)
            totals[..., settings.eos] = NEVER
            totals = self._drop_hopeless(totals)
        parents, labels, self.total = self._choose(totals)
        if self.ends_compete:
            self._finish(self.total.masked_fill(labels != settings.eos, NEVER), parents, ended=True)
            self.total = self.total.masked_fill(labels == settings.eos, NEVER)
        self.attention = chosen(attention, parents, labels)
        self.labels.index_copy_(0, self.step, labels[None])
        self.parents.index_copy_(0, self.step, parents[None])
        self.step.add_(1)
        self.newest.copy_(labels)
        if settings.processors or settings.criteria:  # nothing else looks at whole texts
            moved = self.ids.gather(1, parents[..., None].expand_as(self.ids))
            self.ids = torch.cat((moved, labels[..., None]), dim=2)
        if last or settings.criteria:
            self._stop(last)
        for part in (self.decoder, self.ctc, self.language_model):
            if part is not None and not last:
                part.advance(parents, labels)
        if settings.streamer is not None:
            settings.streamer.put(labels.flatten().cpu())

    def _extended(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of all hypotheses extended by each label, and the decoder's part of them, `(clips, beams, vocab)`."""
        settings = self.settings
        logits = self.decoder(self.newest)
        log_probs = logits.float().log_softmax(dim=-1)  # (clips, beams, vocab)
        if settings.processors:
            rows = log_probs.flatten(0, 1)
            for processor in settings.processors:
                rows = processor(self.ids.flatten(0, 1), rows)
            log_probs = rows.view_as(log_probs)
        attention = self.attention[..., None].expand_as(log_probs)
        if settings.ctc_weight < 1:
            attention = attention + (1 - settings.ctc_weight) * without(log_probs, settings.blank)
        totals = attention
        if self.ctc is not None:
            totals = totals + (settings.ctc_weight * self.ctc()).float()
        if self.language_model is not None:
            totals = totals + settings.language_model_weight * self.language_model()
        totals = totals.masked_fill(self._ruled_out(log_probs) | totals.isnan(), NEVER)  # NaN follows the impossible
        if settings.keep_scores:
            self.kept_scores.append((totals - self.total[..., None]).nan_to_num(nan=NEVER, neginf=NEVER).flatten(0, 1))
        if settings.keep_logits:
            self.kept_logits.append(logits.float().flatten(0, 1).clone())
        return totals, attention

    def _ruled_out(self, log_probs: torch.Tensor) -> torch.Tensor:
        """`(clips, beams, vocab)` bool: blank, what processors forbid, anything after an empty place or a full text."""
        label = torch.arange(log_probs.shape[-1], device=log_probs.device)
        full = (self.step >= self.lengths)[:, None, None] & (label != self.settings.eos)
        empty = torch.isneginf(self.total)[..., None]
        return (log_probs < IMPOSSIBLE) | (label == self.settings.blank) | full | empty

    def _choose(self, totals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`(clips, beams, vocab)` -> the best continuations' parents, labels and scores, each `(clips, beams)`."""
        flat = totals.flatten(1)  # (clips, beams * vocab)
        ranked = flat
        if self.settings.sample:  # the best k of scores with Gumbel noise are k draws without replacement
            ranked = flat - torch.empty_like(flat).exponential_().log()
        index = ranked.topk(self.settings.beams, dim=1).indices
        return index // totals.shape[-1], index % totals.shape[-1], flat.gather(1, index)

    def _finish(self, totals: torch.Tensor, beams: torch.Tensor, ended: bool) -> None:
        """Keeps the best of the finished texts and of these: `(clips, beams)` scores of the hypotheses in `beams`."""
        scores = totals / (self.step + int(ended)) ** self.settings.length_penalty
        scores = torch.cat((self.scores, scores), dim=1)
        new = torch.stack(
            (beams.expand_as(totals), self.step.expand_as(totals), self.step.new_full((), ended).expand_as(totals))
        )
        self.scores, index = scores.topk(self.pool, dim=1)
        self.ends = torch.cat((self.ends, new), dim=2).gather(2, index.expand(3, -1, -1))

    def _drop_hopeless(self, totals: torch.Tensor) -> torch.Tensor:
        """Takes the scores `(clips, beams, vocab)` of what cannot become one of the texts to be returned."""
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
        """Ends hypotheses as they are: where a criterion says so; at the greatest length if a clip has no finished text."""
        stopped = torch.full_like(self.total, last, dtype=torch.bool)
        if last:
            stopped &= torch.isneginf(self.scores[:, :1])
        else:
            ids, scores = self.ids.flatten(0, 1), tuple(self.kept_scores)
            for criterion in self.settings.criteria:
                ends = torch.as_tensor(criterion(ids, scores), device=stopped.device)
                stopped |= ends.expand(len(ids)).view_as(stopped)
        self._finish(self.total.masked_fill(~stopped, NEVER), self.beam, ended=False)
        self.total = self.total.masked_fill(stopped, NEVER)

    def found(self) -> tuple[torch.LongTensor, torch.Tensor, torch.LongTensor]:
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


def chosen(scores: torch.Tensor, parents: torch.LongTensor, labels: torch.LongTensor) -> torch.Tensor:
    """Returns `(clips, beams)`: of scores `(clips, beams, vocab)` those of the labels that continue `parents`."""
    return scores.flatten(1).gather(1, parents * scores.shape[-1] + labels)


def rows_of(parents: torch.LongTensor) -> torch.LongTensor:
    """Returns `parents` `(clips, beams)` as rows `(clips * beams,)` of all clips' hypotheses."""
    first = torch.arange(len(parents), device=parents.device)[:, None] * parents.shape[1]
    return (parents + first).flatten()


def without(scores: torch.Tensor, label: int) -> torch.Tensor:
    """
    Removes one label from log-probabilities `(..., vocab)`, and lets the others add up to 1.

    Labels that are ruled out (-inf), such as an EOS that would come too early, keep their share.
    """
    share = scores[..., label : label + 1]
    rest = scores.clone()
    rest[..., label] = NEVER
    total = rest.logsumexp(dim=-1, keepdim=True)
    ruled_out = (scores < IMPOSSIBLE).any(dim=-1, keepdim=True)
    return rest - torch.where(ruled_out, torch.log1p(-share.exp()), total)

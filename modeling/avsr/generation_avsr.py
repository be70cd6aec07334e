"""Decoding: greedy CTC, and the joint CTC/attention beam search (paper, section 3.7; Watanabe et al., 2017)."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.generation import (
    EosTokenCriteria,
    GenerateBeamEncoderDecoderOutput,
    GenerateEncoderDecoderOutput,
    GenerationMode,
    LogitsProcessor,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    StoppingCriteria,
    SuppressTokensLogitsProcessor,
)
from transformers.generation.streamers import BaseStreamer

from .beam_decoding_avsr import ForwardDecoder, LanguageModelScores, SharedKeysDecoder, StepDecoder, pick_scores
from .configuration_avsr import AvsrConfig
from .ctc_prefix_score_avsr import CTC_PREFIX_SCORERS, NEVER, CtcScores
from .encoder_avsr import AvsrEncoderOutput
from .layers_avsr import AvsrDecoderHead
from .transformers_seam_avsr import attention_kind, cache_field

CTC_WEIGHT = 0.1  # alpha in section 4.2
STRETCH = 1.5  # how much longer than `chunk_length_s` an utterance may be; the pipeline cuts longer clips
DENSE = ("sdpa", "eager")  # kinds of attention that compute what [`SharedKeysDecoder`] does
FORBIDDING = (  # processors that only rule labels out, so that scores still can't grow
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
OPTIONAL_OUTPUTS = ("output_attentions", "output_hidden_states")
MODES = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE, GenerationMode.BEAM_SEARCH, GenerationMode.BEAM_SAMPLE)
REFUSED = {  # arguments of transformers' `generate` that would be ignored here, or fail -> why, or what to do instead
    "assistant_model": "labels are scored by CTC as well, which an assistant cannot guess",
    "assistant_tokenizer": "there is no assisted generation",
    "prompt_lookup_num_tokens": "there is no prompt to look labels up in",
    "guidance_scale": "there is no unconditional input",
    "constraints": "use prefix_allowed_tokens_fn",
    "force_words_ids": "use prefix_allowed_tokens_fn",
    "num_beam_groups": "use num_beams",
    "diversity_penalty": "use num_return_sequences or do_sample",
    "penalty_alpha": "use num_beams",
    "dola_layers": "use num_beams",
    "decoder_input_ids": "a text begins with the start token; use prefix_allowed_tokens_fn for how it must begin",
    "cache": "the search makes its own",
    "past_key_values": "the search makes its own",
    "synced_gpus": "each process ends its search on its own; gather the parameters before it",
}
IMPOSSIBLE = -1e30  # below it, a log-probability stands for a label that a processor has ruled out
SLACK = 1e-3  # tolerance when scores are compared with the bound: the error of float32 sums
STEPS_BETWEEN_WAITS = 8  # a device beside the CPU must finish before its results can be checked for an early end


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
            self._finish(totals[..., settings.eos], self.beam, ended=True)
            totals[..., settings.eos] = NEVER
            totals = self._drop_hopeless(totals)
        parents, labels, self.total = self._choose(totals)
        if self.ends_compete:
            self._finish(self.total.masked_fill(labels != settings.eos, NEVER), parents, ended=True)
            self.total = self.total.masked_fill(labels == settings.eos, NEVER)
        self.attention = pick_scores(attention, parents, labels)
        self.labels.index_copy_(0, self.step, labels[None])
        self.parents.index_copy_(0, self.step, parents[None])
        self.step.add_(1)
        self.newest.copy_(labels)
        if settings.processors or settings.criteria:  # nothing else reads whole texts
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
        """Computes the scores `(clips, beams, vocab)` of all extensions by a label, and the decoder's part of them."""
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
            attention = attention + (1 - settings.ctc_weight) * without_label(log_probs, settings.blank)
        totals = attention
        if self.ctc is not None:
            totals = totals + (settings.ctc_weight * self.ctc()).float()
        if self.language_model is not None:
            totals = totals + settings.language_model_weight * self.language_model()
        totals = totals.masked_fill(self._ruled_out(log_probs) | totals.isnan(), NEVER)  # NaN is -inf - -inf
        if settings.store_scores:
            self.step_scores.append((totals - self.total[..., None]).nan_to_num(nan=NEVER, neginf=NEVER).flatten(0, 1))
        if settings.store_logits:
            self.step_logits.append(logits.float().flatten(0, 1).clone())
        return totals, attention

    def _ruled_out(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Marks blank, what processors rule out, and all after empty places or full texts, `(clips, beams, vocab)`."""
        label = torch.arange(log_probs.shape[-1], device=log_probs.device)
        full = (self.step >= self.lengths)[:, None, None] & (label != self.settings.eos)
        empty = torch.isneginf(self.total)[..., None]
        return (log_probs < IMPOSSIBLE) | (label == self.settings.blank) | full | empty

    def _choose(self, totals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Chooses from scores `(clips, beams, vocab)`; returns parents, labels and scores, each `(clips, beams)`."""
        flat = totals.flatten(1)  # (clips, beams * vocab)
        ranked = flat
        if self.settings.sample:  # the best k of scores with Gumbel noise are k draws without replacement
            ranked = flat - torch.empty_like(flat).exponential_().log()
        index = ranked.topk(self.settings.beams, dim=1).indices
        return index // totals.shape[-1], index % totals.shape[-1], flat.gather(1, index)

    def _finish(self, totals: torch.Tensor, beams: torch.Tensor, ended: bool) -> None:
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
        self._finish(self.total.masked_fill(~stopped, NEVER), self.beam, ended=False)
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


def without_label(scores: torch.Tensor, label: int) -> torch.Tensor:
    """
    Removes one label from log-probabilities `(..., vocab)` and renormalises the others.

    If a processor has ruled labels out (-inf), such as an EOS that would come too early, the others don't get their
    share, only the removed label's.
    """
    share = scores[..., label : label + 1]
    rest = scores.clone()
    rest[..., label] = NEVER
    total = rest.logsumexp(dim=-1, keepdim=True)
    ruled_out = (scores < IMPOSSIBLE).any(dim=-1, keepdim=True)
    return rest - torch.where(ruled_out, torch.log1p(-share.exp()), total)


@dataclass(frozen=True)
class JointScore:
    """
    The parts of a text's score and their weights.

    Attributes:
        ctc_weight: in [0, 1].
        ctc_prefix: `"exact"` or `"reference"`.
        language_model: over the recogniser's ids, or None.
        language_model_weight: 0 or more.
    """

    ctc_weight: float
    ctc_prefix: str
    language_model: PreTrainedModel | None
    language_model_weight: float

    def __post_init__(self):
        if not 0 <= self.ctc_weight <= 1:
            raise ValueError(f"ctc_weight must be in [0, 1], not {self.ctc_weight}.")
        if self.ctc_prefix not in CTC_PREFIX_SCORERS:
            names = ", ".join(map(repr, CTC_PREFIX_SCORERS))
            raise ValueError(f"ctc_prefix must be one of {names}, not {self.ctc_prefix!r}.")
        if not self.language_model_weight >= 0:
            raise ValueError(f"language_model_weight must be 0 or more, not {self.language_model_weight}.")

    def is_best_path(self, config: GenerationConfig) -> bool:
        """Returns whether CTC's best path is requested, which needs no search."""
        alone = self.ctc_weight == 1 and self.language_model is None
        return alone and not config.do_sample and (config.num_beams or 1) == 1

    def settings(
        self,
        model: AvsrConfig,
        config: GenerationConfig,
        processors: Iterable[LogitsProcessor],
        criteria: Iterable[StoppingCriteria],
        streamer: BaseStreamer | None,
    ) -> SearchSettings:
        """Turns what transformers has prepared into the settings of a search."""
        exact, processors = self.ctc_prefix == "exact", list(processors)
        if streamer is not None and config.num_beams > 1:
            raise ValueError("`streamer` needs num_beams=1: with more, labels are certain only at the end.")
        return SearchSettings(
            start=model.decoder_start_token_id,
            blank=model.pad_token_id,
            eos=model.eos_token_id,
            ctc_weight=self.ctc_weight,
            language_model_weight=self.language_model_weight,
            beams=config.num_beams,
            texts=config.num_return_sequences if config.num_beams > 1 else 1,
            steps=config.max_new_tokens,
            length_penalty=config.length_penalty if config.num_beams > 1 else 0.0,
            early_stopping=config.early_stopping if exact else "never",
            bounded=exact and all(isinstance(processor, FORBIDDING) for processor in processors),
            sample=config.do_sample,
            processors=processors,
            criteria=[one for one in criteria if not isinstance(one, (MaxLengthCriteria, EosTokenCriteria))],
            streamer=streamer,
            store_scores=bool(config.output_scores and config.return_dict_in_generate),
            store_logits=bool(config.output_logits and config.return_dict_in_generate),
        )

    def ctc_scores(
        self, logits: torch.Tensor, lengths: torch.Tensor, model: AvsrConfig, beams: int
    ) -> CtcScores | None:
        """Returns CTC's part of the score; None where it has no weight."""
        if self.ctc_weight == 0:
            return None
        blank, eos = model.pad_token_id, model.eos_token_id
        return CtcScores(logits, lengths, beams, blank, eos, model.ctc_target_eos, self.ctc_prefix)

    def language_model_scores(self, model: AvsrConfig, start: torch.Tensor) -> LanguageModelScores | None:
        """Returns the language model's part of the score; None without one."""
        if self.language_model is None:
            return None
        return LanguageModelScores(self.language_model, model.vocab_size, start)


def best_path(ctc_logits: torch.Tensor, lengths: torch.Tensor, blank: int, eos: int) -> list[torch.Tensor]:
    """
    Decodes CTC greedily: the best label of each step, without repetitions and blanks.

    EOS is silence: its probability is added to blank's.

    Args:
        ctc_logits: `(batch, steps, vocab)`.
        lengths: `(batch,)` valid steps.
        blank: id of CTC's blank.
        eos: id of the end of a text.

    Returns:
        One int64 tensor of labels per clip.
    """
    scores = ctc_logits.clone()
    scores[..., blank] = torch.logaddexp(ctc_logits[..., blank], ctc_logits[..., eos])
    scores[..., eos] = NEVER
    steps = scores.argmax(dim=-1)  # (batch, steps)
    valid = torch.arange(steps.shape[1], device=steps.device)[None] < lengths[:, None]
    steps = steps.masked_fill(~valid, blank)
    previous = torch.cat((torch.full_like(steps[:, :1], blank), steps[:, :-1]), dim=1)
    is_label = (steps != previous) & (steps != blank)
    return [row[keep] for row, keep in zip(steps, is_label)]


class AvsrGenerationMixin(GenerationMixin):
    """
    `generate` for [`AvsrForConditionalGeneration`].

    transformers prepares the generation config, logits processors and stopping criteria, and hands them to the
    function passed as its documented `custom_generate`, which runs [`JointSearch`].
    """

    _is_stateful = True  # a search can't take labels back, so transformers refuses assisted generation

    # of the model that this is mixed into
    config: AvsrConfig
    decoder_head: AvsrDecoderHead
    get_encoder: Callable[..., nn.Module]
    get_decoder: Callable[[], StepDecoder]
    compute_ctc_logits: Callable[[AvsrEncoderOutput], torch.Tensor]
    __call__: Callable[..., Any]

    @torch.no_grad()
    def generate(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_attention_mask: torch.Tensor | None = None,
        encoder_outputs: AvsrEncoderOutput | None = None,
        ctc_weight: float | None = None,
        ctc_prefix: str | None = None,
        language_model: PreTrainedModel | None = None,
        language_model_weight: float = 0.3,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> torch.LongTensor | GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput:
        r"""
        Reads clips.

        Args:
            input_values (`torch.Tensor`, *optional*):
                See `forward`; `inputs` is another name for it. At most 1.5 times the generation config's
                `chunk_length_s`, where it has one.
            attention_mask (`torch.Tensor`, *optional*): see `forward`.
            pixel_values_videos (`torch.Tensor`, *optional*): see `forward`.
            video_attention_mask (`torch.Tensor`, *optional*): see `forward`.
            encoder_outputs (`AvsrEncoderOutput`, *optional*): encoded clips, instead of the four inputs.
            ctc_weight (`float` in [0, 1], *optional*, defaults to the generation config's or 0.1):
                0 is the decoder alone (attention), 1 CTC alone: its best path with `num_beams=1`, else its most
                probable text; between them the joint search of the paper.
            ctc_prefix (`str`, *optional*, defaults to the generation config's or `"exact"`):
                `"reference"` scores and searches as the published code does, see [`ReferenceCtcPrefixScorer`]: without
                an early end, texts of at most two characters fewer than CTC steps, EOS not among CTC's labels.
            language_model (`PreTrainedModel`, *optional*):
                A causal language model over the recogniser's ids; texts begin with `decoder_start_token_id`.
            language_model_weight (`float`, *optional*, defaults to 0.3): of its log-probabilities, 0 or more.
            generation_config (`GenerationConfig`, *optional*, defaults to the model's):
                Its fields override the model's generation config, and `kwargs` override both.
            **kwargs:
                Fields of a generation config, `logits_processor`, `stopping_criteria`, `prefix_allowed_tokens_fn`,
                `streamer` (with one beam only). Among them:

                - num_beams (`int`): 5 in the paper. 1 is a greedy search.
                - num_return_sequences (`int`): the best texts of each clip, at most `num_beams`.
                - max_new_tokens (`int`): most labels of a text, EOS included; never more than CTC's steps and EOS.
                - early_stopping (`bool` or `"never"`, defaults to `False`): `False` ends as soon as the texts to be
                  returned are certain (the proof is in [`JointSearch`]); `True` with `num_beams` finished texts;
                  `"never"` searches up to the longest possible text and finds the same as `False`.
                - length_penalty (`float`, defaults to 0): a text's score is divided by its labels to this power.
                - do_sample (`bool`): draws labels at random. Logits processors, temperature and the like change the
                  decoder's part of the score.
                - return_dict_in_generate, output_scores, output_logits, output_attentions, output_hidden_states
                  (`bool`). A text's score is its joint log-probability, a step's score the change of it.

        Returns:
            `(batch * num_return_sequences, length)` int64: the start token, characters, EOS, padding. With
            `return_dict_in_generate` transformers' output for encoder-decoder models, with `sequences_scores` and
            `beam_indices` if there are several beams. A text that could not be found is empty, its score -inf.

        Raises:
            ValueError: `ctc_weight` is outside [0, 1], `ctc_prefix` is unknown, the language model's weight or
                vocabulary does not fit, there is no input, or an argument is not for speech recognition.
        """
        config = _merge_configs(generation_config, self.generation_config, kwargs)
        _refuse(kwargs, config)
        score = JointScore(
            getattr(config, "ctc_weight", CTC_WEIGHT) if ctc_weight is None else ctc_weight,
            getattr(config, "ctc_prefix", "exact") if ctc_prefix is None else ctc_prefix,
            language_model,
            language_model_weight,
        )
        if encoder_outputs is None:
            requested = {name: True for name in OPTIONAL_OUTPUTS if getattr(config, name)}
            input_values = kwargs.pop("inputs", input_values)
            _refuse_long(config, input_values, attention_mask, self.config.audio.sampling_rate)
            inputs = input_values, attention_mask, pixel_values_videos, video_attention_mask
            encoder_outputs = self.get_encoder()(*inputs, **requested)
        if kwargs.get("custom_generate") is not None:
            return super().generate(encoder_outputs=encoder_outputs, generation_config=config, **kwargs)
        ctc_logits = self.compute_ctc_logits(encoder_outputs)  # (batch, steps, vocab)
        config.max_new_tokens, config.max_length = _most_labels(config, ctc_logits.shape[1] + 1), None
        if score.is_best_path(config):
            return self._greedy_ctc(encoder_outputs, ctc_logits, config)
        if (config.num_beams or 1) > 1 and config.length_penalty is None:
            config.length_penalty = 0.0  # a score is the log-probability of the text; transformers' default is 1
        streamer = kwargs.pop("streamer", None)

        def search(model, input_ids, logits_processor, stopping_criteria, generation_config, **prepared):
            settings = score.settings(self.config, generation_config, logits_processor, stopping_criteria, streamer)
            return self._search(encoder_outputs, ctc_logits, score, settings, generation_config)

        # transformers reads only the number of clips from what is encoded, and repeats it for the beams
        first = {name: encoder_outputs[name][:, :1] for name in ("last_hidden_state", "frame_mask")}
        return super().generate(
            encoder_outputs=type(encoder_outputs)(**first), generation_config=config, custom_generate=search, **kwargs
        )

    def _search(
        self,
        encoder_outputs: AvsrEncoderOutput,
        ctc_logits: torch.Tensor,
        score: JointScore,
        settings: SearchSettings,
        config: GenerationConfig,
    ) -> torch.LongTensor | GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput:
        """Runs the joint search; its `config` is what transformers has prepared."""
        states, mask = encoder_outputs["last_hidden_state"], encoder_outputs["frame_mask"]
        if settings.beams == 1 and config.num_return_sequences > 1:  # drawn at random, independently of each other
            states, mask, ctc_logits = (
                part.repeat_interleave(config.num_return_sequences, dim=0) for part in (states, mask, ctc_logits)
            )
        lengths = mask.sum(dim=1) * self.config.ctc_upsampling  # (clips,)
        start = lengths.new_full((len(lengths), settings.beams), settings.start)
        decoder: SharedKeysDecoder | ForwardDecoder
        if self._can_share_keys(config):
            decoder = SharedKeysDecoder(self, states, mask, settings.beams)
        else:
            encoded = type(encoder_outputs)(last_hidden_state=states, frame_mask=mask)
            options = {name: getattr(config, name) for name in ("use_cache", *OPTIONAL_OUTPUTS)}
            decoder = ForwardDecoder(self, encoded, start, **options)
        search = JointSearch(
            decoder,
            lengths if score.ctc_prefix == "exact" else (lengths - 2).clamp(min=0),
            settings,
            score.ctc_scores(ctc_logits, lengths, self.config, settings.beams),
            score.language_model_scores(self.config, start),
        )
        search.run()
        if not config.return_dict_in_generate:
            return _as_ids(search.found()[0])
        return _search_output(config, search, encoder_outputs)

    def _can_share_keys(self, config: GenerationConfig) -> bool:
        """Returns whether [`SharedKeysDecoder`] suffices: no other cache, no attention weights, all on one device."""
        other = (
            config.use_cache is False
            or config.cache_implementation
            or any(getattr(config, name) for name in OPTIONAL_OUTPUTS)
        )
        devices = {parameter.device.type for parameter in self.get_decoder().parameters()}  # "meta" where offloaded
        return not other and len(devices - {"meta"}) == len(devices) == 1 and attention_kind(self.config) in DENSE

    def _greedy_ctc(
        self, encoder_outputs: AvsrEncoderOutput, ctc_logits: torch.Tensor, config: GenerationConfig
    ) -> torch.LongTensor | GenerateEncoderDecoderOutput:
        """Decodes CTC's best path, which needs no search; see [`best_path`]."""
        blank, eos = self.config.pad_token_id, self.config.eos_token_id
        lengths = encoder_outputs["frame_mask"].sum(dim=1) * self.config.ctc_upsampling  # (clips,)
        start, end = (lengths.new_full((1,), token) for token in (self.config.decoder_start_token_id, eos))
        rows = best_path(ctc_logits, lengths, blank, eos)
        rows = [torch.cat((start, torch.cat((row, end))[: config.max_new_tokens])) for row in rows]
        sequences = _as_ids(pad_sequence(rows, batch_first=True, padding_value=blank))
        if not config.return_dict_in_generate:
            return sequences
        return GenerateEncoderDecoderOutput(sequences=sequences, **_encoder_outputs_requested(config, encoder_outputs))


def _as_ids(ids: torch.Tensor) -> torch.LongTensor:
    """Returns the int64 tensor itself, under the type that transformers declares for it."""
    return ids  # type: ignore[return-value]  # torch's stubs give no operation's result the type LongTensor


def _merge_configs(
    given: GenerationConfig | None, own: GenerationConfig, arguments: dict[str, Any]
) -> GenerationConfig:
    """Merges a call's `arguments` (and removes those it uses), the generation config given, and the model's own."""
    config = copy.deepcopy(own if given is None else given)
    if given is not None:
        config.update(**own.to_dict(), defaults_only=True, allow_custom_entries=True)
    others = config.update(**arguments)
    for name in set(arguments) - set(others):
        del arguments[name]
    return config


def _refuse(arguments: dict[str, Any], config: GenerationConfig) -> None:
    """Raises a ValueError for settings that the search does not support."""
    for name, instead in REFUSED.items():
        value = arguments.get(name, getattr(config, name, None))
        neutral = value is None or value is False or (type(value) in (int, float) and value in (0, 1))
        if not neutral:
            raise ValueError(f"`{name}` is not for speech recognition: {instead}.")
    if config.cache_implementation not in (None, "dynamic"):
        raise ValueError(f"`cache_implementation` must be None or 'dynamic', not {config.cache_implementation!r}.")
    if (mode := config.get_generation_mode()) not in MODES:
        raise ValueError(f"`generate` does no {mode.value.replace('_', ' ')}: use num_beams or do_sample.")


def _refuse_long(
    config: GenerationConfig, values: torch.Tensor | None, mask: torch.Tensor | None, sampling_rate: int
) -> None:
    """
    Raises a ValueError for sound that is too long for the checkpoint to read in one piece: it would give nonsense.

    Args:
        config: its `chunk_length_s`, if it has one, is how much the checkpoint reads in one piece.
        values: `(batch, samples)`.
        mask: `(batch, samples)`, *optional*.
        sampling_rate: samples per second.
    """
    chunk_length = getattr(config, "chunk_length_s", None)
    if values is None or chunk_length is None:
        return
    seconds = (values.shape[1] if mask is None else int(mask.sum(dim=1).max())) / sampling_rate
    if seconds > STRETCH * chunk_length:
        raise ValueError(
            f"`input_values` has {seconds:.1f} s, and this checkpoint reads {STRETCH * chunk_length:.1f} s at once: "
            "use the task audio-visual-speech-recognition, which reads sound of any length, or pass a larger "
            "`chunk_length_s`."
        )


def _most_labels(config: GenerationConfig, steps: int) -> int:
    """Returns the most labels of a text: the requested number, and never more than CTC has steps, plus EOS."""
    if config.max_new_tokens is not None:
        return min(config.max_new_tokens, steps)
    return steps if config.max_length is None else min(config.max_length - 1, steps)


def _search_output(
    config: GenerationConfig, search: JointSearch, encoder_outputs: AvsrEncoderOutput
) -> GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput:
    """Returns what a search has found and what a call requests with it, as transformers' output."""
    settings, decoder = search.settings, search.decoder
    sequences, scores, beam_indices = search.found()
    output = GenerateBeamEncoderDecoderOutput if settings.beams > 1 else GenerateEncoderDecoderOutput
    fields: dict[str, Any] = {"sequences": sequences}
    if settings.beams > 1:
        fields |= {"sequences_scores": scores, "beam_indices": beam_indices}
    if settings.store_scores:
        fields["scores"] = tuple(search.step_scores)
    if settings.store_logits:
        fields["logits"] = tuple(search.step_logits)
    if isinstance(decoder, ForwardDecoder):
        fields |= {cache_field(output): decoder.cache, **_decoder_outputs_requested(config, decoder)}
    return output(**fields, **_encoder_outputs_requested(config, encoder_outputs))


def _encoder_outputs_requested(config: GenerationConfig, outputs: AvsrEncoderOutput) -> dict[str, Any]:
    """Returns the encoder's attentions and hidden states if requested, by the names of transformers' outputs."""
    requested: dict[str, Any] = {}
    if config.output_attentions:
        requested["encoder_attentions"] = outputs.attentions
    if config.output_hidden_states:
        requested["encoder_hidden_states"] = outputs.hidden_states
    return requested


def _decoder_outputs_requested(config: GenerationConfig, decoder: ForwardDecoder) -> dict[str, Any]:
    """Returns the same of the decoder, one entry per step."""
    requested: dict[str, Any] = {}
    if config.output_attentions:
        requested["decoder_attentions"] = tuple(decoder.attentions)
        requested["cross_attentions"] = tuple(decoder.cross_attentions)
    if config.output_hidden_states:
        requested["decoder_hidden_states"] = tuple(decoder.hidden_states)
    return requested

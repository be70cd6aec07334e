"""Scores of texts by CTC (Watanabe et al., 2017; section 3.7), the decoder's `forward` and a language model, of
growing texts and of whole ones; and the losses, which are such scores with label smoothing (section 3.5)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy, ctc_loss, log_softmax, pad
from transformers import Cache, EncoderDecoderCache, PreTrainedModel

from .configuration_avsr import AvsrConfig
from .transformers_seam_avsr import call_with_cache

NEVER = float("-inf")
IGNORED = -100
NO_PATH = -1e30  # log-probability of what is ruled out: finite, so that gradients are, and far below any sum of steps
IMPOSSIBLE = -1e30  # below it, a log-probability stands for a label that a processor has ruled out
State = tuple[torch.Tensor, torch.Tensor]  # `r_n` and `r_b`, each `(batch, beams, steps + 1)`: place t + 1 is frame t


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
    scores = silenced(ctc_logits, blank, eos)
    steps = scores.argmax(dim=-1)  # (batch, steps)
    valid = torch.arange(steps.shape[1], device=steps.device)[None] < lengths[:, None]
    steps = steps.masked_fill(~valid, blank)
    previous = torch.cat((torch.full_like(steps[:, :1], blank), steps[:, :-1]), dim=1)
    is_label = (steps != previous) & (steps != blank)
    return [row[keep] for row, keep in zip(steps, is_label)]


def silenced(scores: torch.Tensor, blank: int, eos: int) -> torch.Tensor:
    """Adds EOS's share of scores `(..., vocab)`, logits or log-probabilities, to blank's: both are silence."""
    merged = scores.clone()
    merged[..., blank] = torch.logaddexp(scores[..., blank], scores[..., eos])
    merged[..., eos] = NEVER
    return merged


class CtcPrefixScorer:
    """
    Log-probability under CTC that a label sequence begins with a prefix, for a batch of growing prefixes.

    With `r_n(t)` and `r_b(t)`, the probabilities that the first t frames spell exactly the prefix and end in its last
    label or in blank, a prefix extended by label c has the probability `sum_t phi(t - 1) p(c, t)`, where phi is
    `r_n + r_b`, or `r_b` alone if c repeats the last label. There is no loop over frames or labels: sums over t are a
    matrix product, the recursions over t are cumulative sums.

    Args:
        log_probs: `(batch, steps, vocab)` of CTC.
        lengths: `(batch,)` valid steps.
        blank: its label.
    """

    def __init__(self, log_probs: torch.Tensor, lengths: torch.Tensor, blank: int):
        valid = torch.arange(log_probs.shape[1], device=log_probs.device)[None] < lengths[:, None]  # (batch, steps)
        log_probs = log_probs.to(precision(log_probs.device)).masked_fill(~valid[..., None], NEVER)
        self.blank_log_probs = log_probs[..., blank].masked_fill(~valid, 0.0)  # after its end a clip is blank
        self.log_probs = log_probs.masked_fill(
            torch.arange(log_probs.shape[2], device=log_probs.device) == blank, NEVER
        )
        self.probs = self.log_probs.exp()  # (batch, steps, vocab)

    def start(self, beams: int) -> State:
        """Returns the state of the empty prefix, for `beams` prefixes of each row."""
        spelled = pad(self.blank_log_probs.cumsum(dim=1), (1, 0))[:, None].expand(-1, beams, -1)
        return torch.full_like(spelled, NEVER), spelled

    def score(self, state: State, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Scores all extensions of the prefixes by one label.

        Args:
            state: of the prefixes.
            last: `(batch, beams)`, their last label, -1 for the empty prefix.

        Returns:
            `(batch, beams, vocab)` log-probability of each extended prefix as a prefix, and `(batch, beams)`
            log-probability of the prefix as the whole text.
        """
        non_blank, blank = state
        phi = torch.logaddexp(non_blank, blank)  # (batch, beams, steps + 1)
        extended = _log_matmul(phi[..., :-1], self.probs)  # (batch, beams, vocab)
        repeated = self._of_labels(last.clamp(min=0))  # (batch, beams, steps)
        repeated = torch.logsumexp(blank[..., :-1] + repeated, dim=-1, keepdim=True)
        is_last = torch.arange(extended.shape[-1], device=last.device) == last[..., None]
        return torch.where(is_last, repeated, extended), phi[..., -1]

    def score_ended(self, state: State, last: torch.Tensor, end: int) -> torch.Tensor:
        """Scores each prefix followed by the label `end` as the whole label sequence, `(batch, beams)`."""
        ended = CtcPrefixScorer.extend(self, state, last, torch.full_like(last, end))
        return torch.logaddexp(*ended)[..., -1]

    def extend(self, state: State, last: torch.Tensor, label: torch.Tensor) -> State:
        """Returns the state of the prefixes extended by `label` `(batch, beams)`; for `last` see [`score`]."""
        non_blank, blank = state
        repeats = (label == last)[..., None]
        phi = torch.where(repeats, blank, torch.logaddexp(non_blank, blank))
        new_non_blank = _decayed_sum(phi[..., :-1], self._of_labels(label))
        new_blank = _decayed_sum(new_non_blank[..., :-1], self.blank_log_probs[:, None])
        return new_non_blank, new_blank

    def _of_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Picks the log-probabilities `(batch, beams, steps)` of labels `(batch, beams)`."""
        index = labels[:, None].expand(-1, self.log_probs.shape[1], -1)
        return self.log_probs.gather(2, index).transpose(1, 2)


def _log_matmul(log_left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Computes `log(exp(log_left) @ right)` without overflow."""
    peak = log_left.amax(dim=-1, keepdim=True)
    peak = peak.masked_fill(peak == NEVER, 0.0)
    return ((log_left - peak).exp() @ right).log() + peak


def _decayed_sum(inflow: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    """
    Solves `s(t) = log(exp(s(t - 1)) + exp(inflow(t))) + log_probs(t)` with `s(-1) = -inf` for all t at once.

    Divided by the product of the probabilities so far, the recursion is a cumulative sum. Frames of probability zero
    (after a clip's end) get a log-probability of -1e4 instead, far below all others.

    Args:
        inflow: `(..., steps)`.
        log_probs: `(..., steps)`.

    Returns:
        `(..., steps + 1)`: s(-1), then s(t) of each t.
    """
    decay = log_probs.clamp(min=-1e4).cumsum(dim=-1)
    before = decay - log_probs.clamp(min=-1e4)
    total = torch.logcumsumexp(inflow - before, dim=-1) + decay
    total = total.masked_fill(log_probs == NEVER, NEVER)
    return pad(total, (1, 0), value=NEVER)


class ReferenceCtcPrefixScorer(CtcPrefixScorer):
    """
    The same scores as the paper's published code computes them, for comparison with it and for converted weights.

    That code differs from [`CtcPrefixScorer`] in three places: it ignores the first step; blank's log-probability of
    the empty prefix doubles at each step, `r_b(t) = 2 r_b(t - 1) + log p(blank, t)`; and `r_n` of the second step is
    overwritten by the prefix's score, so that the next label may begin there again.
    """

    def __init__(self, log_probs: torch.Tensor, lengths: torch.Tensor, blank: int):
        self.lengths = (lengths - 1).clamp(min=0)
        super().__init__(pad(log_probs[:, 1:], (0, 0, 0, 1)), self.lengths, blank)  # never without a step

    def start(self, beams: int) -> State:
        batch, steps = self.blank_log_probs.shape
        power = torch.arange(1, steps + 1, device=self.lengths.device).to(self.blank_log_probs)  # (steps,)
        doubled = (self.blank_log_probs * torch.exp2(-power)).cumsum(dim=1)  # (batch, steps)
        power = torch.minimum(power[None], self.lengths[:, None]).clamp(max=1000)  # a float64 holds no more
        spelled = pad(doubled * torch.exp2(power), (1, 0))[:, None].expand(-1, beams, -1)
        return torch.full_like(spelled, NEVER), spelled

    def extend(self, state: State, last: torch.Tensor, label: torch.Tensor) -> State:
        scores = self.score(state, last)[0].gather(-1, label[..., None])  # (batch, beams, 1)
        non_blank, blank = super().extend(state, last, label)
        return torch.cat((non_blank[..., :1], scores, non_blank[..., 2:]), dim=-1), blank


CTC_PREFIX_SCORERS: dict[str, type[CtcPrefixScorer]] = {
    "exact": CtcPrefixScorer,
    "reference": ReferenceCtcPrefixScorer,
}


def precision(device: torch.device) -> torch.dtype:
    """Returns float64, in which sums over an hour of steps stay exact; float32 on Apple's GPUs, which lack it."""
    return torch.float32 if device.type == "mps" else torch.float64


class CtcScores:
    """
    CTC's log-probability of the hypotheses while they grow.

    EOS follows the same rule in training and in search: the score of a finished text is CTC's probability of the label
    sequence that the loss takes for it, which ends with an EOS label only with `ctc_target_eos`. (The published code
    trains with it and searches without it; so does `prefix="reference"`.)

    Args:
        ctc_logits: `(clips, steps, vocab)`.
        lengths: `(clips,)` valid steps.
        beams: hypotheses of each clip.
        blank: its id.
        eos: its id.
        target_eos: whether CTC's targets end with EOS.
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
        non_blank, blank_ended = self.scorer.start(beams)
        self.state = non_blank.clone(), blank_ended.clone()  # the start is a view, and steps write into it
        self.last = lengths.new_full((len(lengths), beams), -1)  # (clips, beams) labels

    def __call__(self) -> torch.Tensor:
        """Computes the scores `(clips, beams, vocab)` of all extensions: as prefixes; with EOS, as whole texts."""
        scores, whole = self.scorer.score(self.state, self.last)
        if self.ends_with_eos:
            whole = self.scorer.score_ended(self.state, self.last, self.eos)
        scores[..., self.eos] = whole
        return scores

    def advance(self, parents: torch.Tensor, labels: torch.Tensor) -> None:
        """Extends the hypotheses that `parents` `(clips, beams)` names by `labels` `(clips, beams)`, in place."""
        index = parents[..., None].expand_as(self.state[0])
        non_blank, blank = (part.gather(1, index) for part in self.state)
        extended = self.scorer.extend((non_blank, blank), self.last.gather(1, parents), labels)
        for part, new in zip(self.state, extended):
            part.copy_(new)
        self.last.copy_(labels)


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
        _check_vocabulary(model, vocab_size)
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


class ForwardDecoder:
    """
    The decoder's scores by `forward`, one row per hypothesis: for what a search's own decoder doesn't support,
    such as attention weights, other kinds of attention, or a decoder on several devices.

    Args:
        model: [`AvsrForConditionalGeneration`].
        encoder_outputs: of the clips, each of them once for each of its beams.
        start: `(clips, beams)`, the start token.
        options: arguments of every call, such as `use_cache` or `output_attentions`.
    """

    def __init__(self, model: Callable[..., Any], encoder_outputs: Any, start: torch.Tensor, **options: bool | None):
        self.encoded, self.model, self.options = encoder_outputs, model, options
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


def language_model_log_probs(
    model: PreTrainedModel, inputs: torch.Tensor, labels: torch.Tensor, vocab_size: int
) -> torch.Tensor:
    """
    Computes a language model's log-probabilities of whole texts' labels, in one pass.

    Args:
        model: see [`LanguageModelScores`].
        inputs: `(clips, texts, length)`, the start token first.
        labels: `(clips, texts, length)`, what comes next.
        vocab_size: the recogniser's.

    Returns:
        `(clips, texts, length)` float32.

    Raises:
        ValueError: the model knows fewer tokens than the recogniser.
    """
    _check_vocabulary(model, vocab_size)
    logits = model(input_ids=inputs.flatten(0, 1).to(model.device)).logits.to(labels.device, torch.float32)
    return logits.log_softmax(dim=-1).gather(2, labels.flatten(0, 1)[..., None]).view(labels.shape)


def _check_vocabulary(model: PreTrainedModel, vocab_size: int) -> None:
    """Raises a ValueError if the language model knows fewer tokens than the recogniser."""
    if model.config.vocab_size < vocab_size:
        raise ValueError(
            f"language_model knows {model.config.vocab_size} tokens, the recogniser {vocab_size}: train it with "
            "the recogniser's tokenizer."
        )


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


def pick_scores(scores: torch.Tensor, parents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Picks from scores `(clips, beams, vocab)` those of `labels` after `parents`, all `(clips, beams)`."""
    return scores.flatten(1).gather(1, parents * scores.shape[-1] + labels)


def rows_of(parents: torch.Tensor) -> torch.LongTensor:
    """Turns `parents` `(clips, beams)`, counted in each clip, into rows `(clips * beams,)` of all hypotheses."""
    first = torch.arange(len(parents), device=parents.device)[:, None] * parents.shape[1]
    return (parents + first).flatten()  # type: ignore[return-value]  # torch's stubs type no result so


@torch.compiler.disable  # the shapes in PyTorch's CTC loss depend on the lengths' values
def ctc_objective(
    ctc_logits: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor, config: AvsrConfig
) -> torch.Tensor:
    """
    Computes the CTC loss per character, averaged over the batch, smoothed towards the uniform distribution.

    Args:
        ctc_logits: `(batch, steps, vocab)`.
        lengths: `(batch,)` valid steps.
        labels: `(batch, length)`, each row's characters, the EOS and then -100.
        config: its `label_smoothing`, `ctc_target_eos`, `smooth_padding` and `empty_text_length` are used.

    Returns:
        A scalar; a text that does not fit into its steps adds 0 to the mean, and a row of -100 only is left out of it.
    """
    log_probs = log_softmax(ctc_logits.float(), dim=-1)
    target_lengths = (labels != IGNORED).sum(dim=1)
    if not config.ctc_target_eos:
        target_lengths = target_lengths - 1
    known = (labels != IGNORED).any(dim=1)  # (batch,)
    losses = ctc_loss(
        log_probs.transpose(0, 1),
        labels.clamp(min=0),
        lengths,
        target_lengths.clamp(min=0),
        blank=config.pad_token_id,
        reduction="none",
        zero_infinity=True,
    )
    losses = losses / target_lengths.where(target_lengths > 0, config.empty_text_length)
    loss = losses.where(known, 0.0).sum() / known.sum().clamp(min=1)
    if not config.label_smoothing:
        return loss
    uniform = -math.log(config.vocab_size) - log_probs.mean(dim=-1)  # (batch, steps): KL(uniform, p)
    if config.smooth_padding:
        divergence = uniform.sum() / log_probs.shape[0]
    else:
        valid = torch.arange(log_probs.shape[1], device=log_probs.device)[None] < lengths[:, None]  # (batch, steps)
        valid = valid & known[:, None]
        divergence = (uniform * valid).sum() / valid.sum().clamp(min=1)
    return (1 - config.label_smoothing) * loss + config.label_smoothing * divergence


def alignment_objective(ctc_logits: torch.Tensor, alignment_labels: torch.Tensor) -> torch.Tensor:
    """
    Computes the cross entropy per CTC step.

    Args:
        ctc_logits: `(batch, steps, vocab)`.
        alignment_labels: `(batch, length)`, a character or blank for each step, -100 ignored. Steps beyond its length
            are ignored, and so are labels beyond the steps.

    Returns:
        A scalar.
    """
    steps = ctc_logits.shape[1]
    targets = pad(alignment_labels, (0, max(steps - alignment_labels.shape[1], 0)), value=IGNORED)[:, :steps]
    total = cross_entropy(ctc_logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


@torch.compiler.disable  # a loop over the steps, whose number changes from batch to batch
def windowed_ctc_objective(
    ctc_logits: torch.Tensor,
    lengths: torch.Tensor,
    labels: torch.Tensor,
    alignment_windows: torch.Tensor,
    config: AvsrConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Computes the CTC loss per character over the paths that say each label within its window, averaged over the batch.

    Paths are restricted around a known alignment as by Senior et al. (2015) and, for transducers, Mahadeokar et al.
    (2021); blank may be anywhere. A clip that has no such path counts with its plain CTC loss.

    Args:
        ctc_logits: `(batch, steps, vocab)`.
        lengths: `(batch,)` valid steps; 0: the clip isn't seen and adds 0 to the mean.
        labels: `(batch, length)`, each row's characters, the EOS and then -100; a row of -100 only is left out.
        alignment_windows: `(batch, length, 2)` int64, the first step of each label and the one after its last.
        config: its `ctc_target_eos` and `empty_text_length` are used.

    Returns:
        The loss, a scalar, and the number of clips without a path, a scalar.
    """
    log_probs = log_softmax(ctc_logits.float(), dim=-1)
    target_lengths = ((labels != IGNORED).sum(dim=1) - int(not config.ctc_target_eos)).clamp(min=0)
    blank, targets = config.pad_token_id, labels.clamp(min=0)
    plain = ctc_loss(
        log_probs.transpose(0, 1), targets, lengths, target_lengths, blank, reduction="none", zero_infinity=True
    )
    windowed = -_windowed_log_probability(log_probs, lengths, targets, target_lengths, alignment_windows, blank)
    possible, seen = windowed < -NO_PATH / 2, lengths > 0
    known = (labels != IGNORED).any(dim=1)
    loss = torch.where(possible & seen, windowed, plain)
    loss = loss / target_lengths.where(target_lengths > 0, config.empty_text_length)
    return loss.where(known, 0.0).sum() / known.sum().clamp(min=1), (known & seen & ~possible).sum()


def _windowed_log_probability(
    log_probs: torch.Tensor,
    lengths: torch.Tensor,
    targets: torch.Tensor,
    target_lengths: torch.Tensor,
    windows: torch.Tensor,
    blank: int,
) -> torch.Tensor:
    """
    Sums over the paths that spell the targets with each label inside its window.

    A state is a place in the targets with a blank before, between and after the labels: state 2u + 1 is label u.

    Args:
        log_probs: `(batch, steps, vocab)` of CTC.
        lengths: `(batch,)` valid steps.
        targets: `(batch, length)`, anything after a text's end.
        target_lengths: `(batch,)` labels.
        windows: see [`windowed_ctc_objective`].
        blank: its label.

    Returns:
        `(batch,)` log-probabilities, below half of `NO_PATH` where there is no path.
    """
    batch, steps, _ = log_probs.shape
    step = torch.arange(steps, device=log_probs.device)[None, :, None]
    inside = (step >= windows[:, None, :, 0]) & (step < windows[:, None, :, 1])  # (batch, steps, length)
    spoken = log_probs.gather(2, targets[:, None].expand(-1, steps, -1)).masked_fill(~inside, NO_PATH)
    silent = log_probs[..., blank, None]
    pairs = torch.stack((silent.expand_as(spoken), spoken), dim=3).flatten(2)  # blank, label, blank, label ...
    emitted = torch.cat((pairs, silent), dim=2)  # (batch, steps, states)
    differs = pad(targets[:, 1:] != targets[:, :-1], (1, 0))  # from the label before it, which can then precede it
    leaps = pad(torch.stack((torch.zeros_like(differs), differs), dim=2).flatten(1), (0, 1))  # (batch, states)
    totals = pad(emitted[:, 0, :2], (0, emitted.shape[2] - 2), value=NO_PATH)
    for number in range(1, steps):
        before = pad(totals, (2, 0), value=NO_PATH)
        leapt = before[:, :-2].masked_fill(~leaps, NO_PATH)
        reached = torch.stack((totals, before[:, 1:-1], leapt)).logsumexp(dim=0) + emitted[:, number]
        totals = torch.where((number < lengths)[:, None], reached, totals)
    last = 2 * target_lengths[:, None]
    ends = torch.cat(
        (totals.gather(1, last), totals.gather(1, (last - 1).clamp(min=0))), dim=1
    )  # in blank, in a label
    return torch.where(target_lengths > 0, ends.logsumexp(dim=1), ends[:, 0])


def attention_objective(logits: torch.Tensor, labels: torch.Tensor, config: AvsrConfig) -> torch.Tensor:
    """
    Computes the smoothed cross entropy per character.

    Args:
        logits: `(batch, length, vocab)`.
        labels: `(batch, length)`, -100 ignored.
        config: its `label_smoothing`, `smooth_padding` and `empty_text_length` are used.

    Returns:
        A scalar.
    """
    flat, targets = logits.float().flatten(0, 1), labels.flatten()
    counted = labels != IGNORED
    empty = counted.sum(dim=1, keepdim=True) == 1
    weights = (counted * torch.where(empty, config.empty_text_length, 1)).flatten()
    smoothing = 0.0 if config.smooth_padding else config.label_smoothing
    losses = cross_entropy(flat, targets, ignore_index=IGNORED, label_smoothing=smoothing, reduction="none")
    loss = (losses * weights).sum() / weights.sum().clamp(min=1)
    if not config.smooth_padding:
        return loss
    smooth = -log_softmax(flat, dim=-1).mean()  # over padding too, as the published code does
    return (1 - config.label_smoothing) * loss + config.label_smoothing * smooth

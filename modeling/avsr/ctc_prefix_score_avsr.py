"""CTC's best path and best texts; scores of texts by CTC (Watanabe et al., 2017; section 3.7) and a language model."""

from dataclasses import dataclass

import torch
from torch.nn.functional import ctc_loss, log_softmax, pad
from transformers import Cache, PreTrainedModel

from .transformers_seam_avsr import call_with_cache

NEVER = float("-inf")
CERTAIN = 0.999  # probability of silence above which CTC's beam passes over a step
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


@dataclass(frozen=True)
class CtcTexts:
    """
    CTC's best texts of each clip, the most probable first.

    Attributes:
        ids: `(clips, texts, length)` int64, their labels, then blanks.
        sizes: `(clips, texts)` int64, how many labels each has.
        scores: `(clips, texts)` log-probabilities of the paths that were followed; -inf: there is no further text.
    """

    ids: torch.Tensor
    sizes: torch.Tensor
    scores: torch.Tensor


class CtcPrefixBeam:
    """
    CTC's beam search over the steps, for a batch of clips (Graves, 2012; Hannun et al., 2014).

    After each step a beam holds the prefixes that the steps so far spell with the highest probability, summed over the
    paths. A prefix stays as it is, by blank or by its last label once more, or is extended by any label; where the
    extension of one prefix is another one of the beam, their probabilities are added. Whatever falls out of the beam
    takes its paths with it, so that a text's score is a lower bound of its probability.

    Args:
        clips: of the batch.
        beams: prefixes of each clip.
        longest: most labels of a text.
        blank: its id, which pads the texts.
        like: a tensor of the type and on the device of the log-probabilities.
    """

    def __init__(self, clips: int, beams: int, longest: int, blank: int, like: torch.Tensor):
        self.blank, self.longest = blank, longest
        self.in_label = like.new_full((clips, beams), NEVER)  # log-probability of the paths that end in the last label
        self.in_blank = self.in_label.clone()
        self.in_blank[:, 0] = 0.0  # the empty prefix
        self.ids = torch.full((clips, beams, longest + 1), blank, device=like.device)
        self.sizes = self.ids.new_zeros(clips, beams)
        self.steps = 0

    def advance(self, log_probs: torch.Tensor) -> None:
        """Adds a step, `(clips, vocab)` log-probabilities, -inf of what can't be a label."""
        clips, vocab = log_probs.shape
        beams, end = self.in_label.shape[1], (self.sizes - 1).clamp(min=0)[..., None]
        last, total = self.ids.gather(2, end)[..., 0], torch.logaddexp(self.in_label, self.in_blank)
        again = log_probs.gather(1, last).masked_fill(self.sizes == 0, NEVER)  # the last label once more
        extended = total[..., None] + log_probs[:, None]
        repeated = self.in_blank + again  # an equal label must come after a blank
        is_last = torch.arange(vocab, device=last.device) == last[..., None]
        extended = torch.where(is_last, repeated[..., None], extended)
        extended[..., self.blank] = NEVER
        extended = extended.masked_fill((self.sizes >= self.longest)[..., None], NEVER)

        is_parent = self._parents(end)  # (clips, beams, beams): the second prefix is the first one and a label
        index = last[:, None].expand(-1, beams, -1)
        joined = extended.gather(2, index).masked_fill(~is_parent, NEVER).amax(dim=1)  # a prefix has one parent
        taken = torch.zeros_like(extended).scatter_add_(2, index, is_parent.to(extended.dtype)) > 0
        extended = extended.masked_fill(taken, NEVER)
        in_label = torch.logaddexp(self.in_label + again, joined)
        in_blank = total + log_probs[:, self.blank, None]

        stays = torch.logaddexp(in_label, in_blank)
        scores, index = torch.cat((stays, extended.flatten(1)), dim=1).topk(beams, dim=1)
        grows = index >= beams
        parents = torch.where(grows, (index - beams) // vocab, index)
        labels = torch.where(grows, (index - beams) % vocab, self.blank)
        self.in_label = torch.where(grows, scores, in_label.gather(1, parents))
        self.in_blank = in_blank.gather(1, parents).masked_fill(grows, NEVER)
        self.ids = self.ids.gather(1, parents[..., None].expand_as(self.ids))
        self.sizes = self.sizes.gather(1, parents)
        self.ids.scatter_(2, self.sizes[..., None], labels[..., None])
        self.sizes = self.sizes + (grows & (scores > NEVER))  # an empty place doesn't outgrow the longest text
        self.steps += 1

    def _parents(self, end: torch.Tensor) -> torch.Tensor:
        """Marks pairs of which the second is the first and one label more; `end` is the place of each last label."""
        width = min(self.steps, self.longest) + 1  # no prefix is longer yet
        ids = self.ids[..., :width]
        shorter = ids.scatter(2, end, self.blank)
        alive = torch.logaddexp(self.in_label, self.in_blank) > NEVER  # an empty place may hold any labels
        pairs = (alive[:, :, None] & alive[:, None]) & (self.sizes > 0)[:, None]
        return pairs & (ids[:, :, None] == shorter[:, None]).all(dim=-1)

    def texts(self) -> CtcTexts:
        """Returns the prefixes as whole texts, in the order of their scores."""
        scores = torch.logaddexp(self.in_label, self.in_blank)
        sizes = self.sizes.masked_fill(torch.isneginf(scores), 0)
        place = torch.arange(int(sizes.max()), device=sizes.device)
        return CtcTexts(self.ids[..., : len(place)].masked_fill(place >= sizes[..., None], self.blank), sizes, scores)


def best_texts(
    ctc_logits: torch.Tensor,
    lengths: torch.Tensor,
    texts: int,
    longest: int,
    blank: int,
    eos: int,
    certain: float = CERTAIN,
) -> CtcTexts:
    """
    Finds CTC's most probable texts with [`CtcPrefixBeam`]. EOS is silence, as in [`best_path`].

    Args:
        ctc_logits: `(clips, steps, vocab)`.
        lengths: `(clips,)` valid steps.
        texts: how many to find for each clip, which is the beam's width.
        longest: most labels of a text.
        blank: id of CTC's blank.
        eos: id of the end of a text.
        certain: probability of silence, in (0, 1], above which a step is nothing but silence; 1: no step is.
    """
    log_probs = log_softmax(ctc_logits.to(precision(ctc_logits.device)), dim=-1)
    log_probs, passed = _without_silence(silenced(log_probs, blank, eos), lengths, blank, certain)
    beam = CtcPrefixBeam(len(log_probs), texts, min(longest, log_probs.shape[1]), blank, log_probs)
    for step in log_probs.unbind(dim=1):
        beam.advance(step)
    found = beam.texts()
    return CtcTexts(found.ids, found.sizes, found.scores + passed[:, None])


def _without_silence(
    log_probs: torch.Tensor, lengths: torch.Tensor, blank: int, certain: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Shortens each run of steps of certain silence to one step, which is nothing else.

    Returns:
        `(clips, fewer steps, vocab)`, clips that end earlier silent to the end; and `(clips,)`, the log-probability
        of the silence.
    """
    steps = torch.arange(log_probs.shape[1], device=log_probs.device)
    valid = steps < lengths[:, None]  # (clips, steps)
    silent = valid & (log_probs[..., blank].exp() > certain)
    goes_on = silent & pad(silent[:, :-1], (1, 0))
    passed = log_probs[..., blank].masked_fill(~silent, 0.0).sum(dim=1)
    only_blank = torch.full_like(log_probs[0, 0], NEVER)
    only_blank[blank] = 0.0
    log_probs = torch.where((silent | ~valid)[..., None], only_blank, log_probs)
    fewer = (valid & ~goes_on).sum(dim=1)
    order = (goes_on | ~valid).long().argsort(dim=1, stable=True)[:, : int(fewer.max())]
    log_probs = log_probs.gather(1, order[..., None].expand(-1, -1, log_probs.shape[2]))
    ended = torch.arange(order.shape[1], device=order.device) >= fewer[:, None]
    return torch.where(ended[..., None], only_blank, log_probs), passed


def ctc_scores_of(
    ctc_logits: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor, sizes: torch.Tensor, blank: int
) -> torch.Tensor:
    """
    Computes CTC's log-probabilities of whole texts, summed over all paths.

    Args:
        ctc_logits: `(clips, steps, vocab)`.
        lengths: `(clips,)` valid steps.
        labels: `(clips, texts, length)`, anything after a text's end.
        sizes: `(clips, texts)` labels.
        blank: its id.

    Returns:
        `(clips, texts)`.
    """
    device = ctc_logits.device
    home = torch.device("cpu") if device.type == "mps" else device  # PyTorch has no CTC loss on Apple's GPUs
    log_probs = log_softmax(ctc_logits.to(home, torch.float64), dim=-1).transpose(0, 1)
    lengths, labels, sizes = lengths.to(home), pad(labels, (0, 1)).to(home), sizes.to(home)  # at least one column
    columns = [
        ctc_loss(log_probs, labels[:, number], lengths, sizes[:, number], blank, reduction="none")
        for number in range(labels.shape[1])  # not all together: they would need a copy of the log-probabilities each
    ]
    return -torch.stack(columns, dim=1).to(device, precision(device))


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

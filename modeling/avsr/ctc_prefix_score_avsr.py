"""CTC in decoding: its best path, and prefix scores for the joint search (Watanabe et al., 2017; section 3.7)."""

import torch
from torch.nn.functional import log_softmax, pad

NEVER = float("-inf")
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
    scores = ctc_logits.clone()
    scores[..., blank] = torch.logaddexp(ctc_logits[..., blank], ctc_logits[..., eos])
    scores[..., eos] = NEVER
    steps = scores.argmax(dim=-1)  # (batch, steps)
    valid = torch.arange(steps.shape[1], device=steps.device)[None] < lengths[:, None]
    steps = steps.masked_fill(~valid, blank)
    previous = torch.cat((torch.full_like(steps[:, :1], blank), steps[:, :-1]), dim=1)
    is_label = (steps != previous) & (steps != blank)
    return [row[keep] for row, keep in zip(steps, is_label)]


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

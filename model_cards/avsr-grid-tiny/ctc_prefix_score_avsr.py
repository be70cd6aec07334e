"""CTC prefix scores for joint CTC/attention beam search (Watanabe et al., 2017; paper, section 3.7)."""

import torch
from torch.nn.functional import log_softmax, pad
from transformers import LogitsProcessor

NEVER = float("-inf")


class CtcPrefixScorer:
    """
    Log-probability under CTC that a label sequence begins with a prefix, for a batch of prefixes that grow.

    With `r_n(t)` and `r_b(t)`, the probabilities that the first t frames spell exactly the prefix and end in its last
    label or in blank, a prefix extended by label c has the probability `sum_t phi(t - 1) p(c, t)`, where phi is
    `r_n + r_b`, or `r_b` alone if c repeats the last label. Frames and labels are computed at once: sums over t are a
    matrix product, the recursions over t are cumulative sums.

    Args:
        log_probs: `(batch, steps, vocab)` of CTC; lengths: `(batch,)` valid steps; blank: its label.
    """

    def __init__(self, log_probs: torch.Tensor, lengths: torch.Tensor, blank: int):
        valid = torch.arange(log_probs.shape[1], device=log_probs.device)[None] < lengths[:, None]  # (batch, steps)
        log_probs = log_probs.double().masked_fill(~valid[..., None], NEVER)
        self.blank_log_probs = log_probs[..., blank].masked_fill(~valid, 0.0)  # behind its end a clip is blank
        self.log_probs = log_probs.masked_fill(
            torch.arange(log_probs.shape[2], device=log_probs.device) == blank, NEVER
        )
        self.probs = self.log_probs.exp()  # (batch, steps, vocab)

    def start(self, beams: int) -> tuple[torch.Tensor, torch.Tensor]:
        """State of the empty prefix: `r_n`, `r_b`, each `(batch, beams, steps + 1)`; place t + 1 is frame t."""
        spelled = pad(self.blank_log_probs.cumsum(dim=1), (1, 0))[:, None].expand(-1, beams, -1)
        return torch.full_like(spelled, NEVER), spelled

    def score(self, state: tuple[torch.Tensor, torch.Tensor], last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            state: of prefixes `(batch, beams)`; last: `(batch, beams)` their last label, -1 for the empty prefix.
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

    def extend(
        self, state: tuple[torch.Tensor, torch.Tensor], last: torch.Tensor, label: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """State of the prefixes that `label (batch, beams)` extends; `last` as of [`score`]."""
        non_blank, blank = state
        repeats = (label == last)[..., None]
        phi = torch.where(repeats, blank, torch.logaddexp(non_blank, blank))
        new_non_blank = _decayed_sum(phi[..., :-1], self._of_labels(label))
        new_blank = _decayed_sum(new_non_blank[..., :-1], self.blank_log_probs[:, None])
        return new_non_blank, new_blank

    def _of_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """`(batch, beams)` labels -> their log-probabilities `(batch, beams, steps)`."""
        index = labels[:, None].expand(-1, self.log_probs.shape[1], -1)
        return self.log_probs.gather(2, index).transpose(1, 2)


def _log_matmul(log_left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """`log(exp(log_left) @ right)` without overflow."""
    peak = log_left.amax(dim=-1, keepdim=True)
    peak = peak.masked_fill(peak == NEVER, 0.0)
    return ((log_left - peak).exp() @ right).log() + peak


def _decayed_sum(inflow: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    """
    Solves `s(t) = log(exp(s(t - 1)) + exp(inflow(t))) + log_probs(t)` with `s(-1) = -inf` for all t at once.

    Divided by the product of the probabilities so far the recursion is a cumulative sum. Frames of probability zero
    (behind a clip's end) are put far below everything else instead. Returns one place more than it is given: s(-1).
    """
    decay = log_probs.clamp(min=-1e4).cumsum(dim=-1)
    before = decay - log_probs.clamp(min=-1e4)
    total = torch.logcumsumexp(inflow - before, dim=-1) + decay
    total = total.masked_fill(log_probs == NEVER, NEVER)
    return pad(total, (1, 0), value=NEVER)


class CtcPrefixLogitsProcessor(LogitsProcessor):
    """
    Turns the decoder's scores into steps of `(1 - w) log p_attention + w log p_ctc(prefix)` for a beam search.

    The beam search of transformers adds up steps, so each step is the growth of the joint score. Blank cannot be
    generated; EOS ends the text for CTC too. A text has at most as many characters as its clip has CTC steps, also
    where CTC has no weight, so that a clip's text does not depend on longer clips in its batch.

    Args:
        ctc_logits: `(batch, steps, vocab)`; lengths: `(batch,)`; num_beams: beams a clip; weight: w in [0, 1];
        blank, eos: their ids; eos_is_blank: CTC has learnt an EOS label (`ctc_target_eos`), which is silence here.
    """

    def __init__(
        self,
        ctc_logits: torch.Tensor,
        lengths: torch.Tensor,
        num_beams: int,
        weight: float,
        blank: int,
        eos: int,
        eos_is_blank: bool = False,
    ):
        self.num_beams, self.weight, self.blank, self.eos = num_beams, weight, blank, eos
        self.longest = lengths.repeat_interleave(num_beams)  # (batch * beams,) characters
        log_probs = log_softmax(ctc_logits.double(), dim=-1)
        if eos_is_blank:
            log_probs[..., blank] = torch.logaddexp(log_probs[..., blank], log_probs[..., eos])
            log_probs[..., eos] = NEVER
        self.scorer = CtcPrefixScorer(log_probs, lengths, blank) if weight > 0 else None
        self.ids = self.state = self.scores = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """`(batch * beams, length)` prefixes and `(batch * beams, vocab)` scores of the decoder -> joint steps."""
        scores = scores.clone()
        scores[:, self.blank] = NEVER
        steps = (1 - self.weight) * log_softmax(scores, dim=-1) if self.weight < 1 else torch.zeros_like(scores)
        if self.scorer is not None:
            steps = steps + self.weight * self._ctc_steps(input_ids).to(steps.dtype)
        full = input_ids.shape[1] > self.longest  # the start token is not a character
        end = torch.arange(steps.shape[1], device=steps.device) == self.eos
        steps[:, self.blank] = NEVER
        return steps.masked_fill(full[:, None] & ~end, NEVER)

    def _ctc_steps(self, input_ids: torch.LongTensor) -> torch.Tensor:
        """`(batch * beams, vocab)` growth of CTC's log-probability by each next label."""
        ids = input_ids.unflatten(0, (-1, self.num_beams))  # (batch, beams, length)
        if ids.shape[2] == 1:
            last = torch.full_like(ids[..., 0], -1)
            self.state, known = self.scorer.start(self.num_beams), torch.zeros_like(last, dtype=torch.float64)
        else:
            last, known = ids[..., -1], self._follow(ids)
        extended, whole = self.scorer.score(self.state, last)
        extended[..., self.eos] = whole
        self.ids, self.scores = ids, extended
        growth = extended - known[..., None]
        return growth.masked_fill(torch.isnan(growth), NEVER).flatten(0, 1)  # nothing follows the impossible

    def _follow(self, ids: torch.LongTensor) -> torch.Tensor:
        """Moves the state to the beams that were chosen; returns CTC's `(batch, beams)` log-probability of each."""
        same = (ids[:, :, None, :-1] == self.ids[:, None]).all(dim=-1)  # (batch, beams now, beams before)
        parent = same.int().argmax(dim=-1)  # (batch, beams)
        label, before = ids[..., -1], ids[..., -2] if ids.shape[2] > 2 else torch.full_like(parent, -1)
        index = parent[..., None].expand(-1, -1, self.state[0].shape[-1])
        self.state = self.scorer.extend(tuple(part.gather(1, index) for part in self.state), before, label)
        known = self.scores.gather(1, parent[..., None].expand(-1, -1, self.scores.shape[-1]))
        return known.gather(2, label[..., None])[..., 0]

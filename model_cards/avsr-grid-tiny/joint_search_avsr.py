"""What a beam search adds up: steps of the joint score of decoder, CTC and language model (paper, section 3.7)."""

import torch
from torch.nn.functional import log_softmax
from transformers import LogitsProcessor, PreTrainedModel

from .ctc_prefix_score_avsr import CTC_PREFIX_SCORERS, NEVER, precision

SLACK = 1e-3  # of the bound: sums in float32 are this exact


class CtcTracker:
    """
    CTC's part of the joint score while the beams grow.

    EOS follows one rule in training and in search: the score of a finished text is CTC's probability of the label
    sequence that the loss is given for it, which ends with an EOS label only with `ctc_target_eos`. (The published
    code trains with it and searches without; so does `prefix="reference"`.)

    Args:
        ctc_logits: `(batch, steps, vocab)`; lengths: `(batch,)` valid steps; blank, eos: their ids.
        target_eos: CTC's targets end with EOS.
        prefix: `"exact"` or `"reference"` (see [`ReferenceCtcPrefixScorer`]).
    """

    def __init__(
        self,
        ctc_logits: torch.Tensor,
        lengths: torch.Tensor,
        blank: int,
        eos: int,
        target_eos: bool = False,
        prefix: str = "exact",
    ):
        log_probs = log_softmax(ctc_logits.to(precision(ctc_logits.device)), dim=-1)
        self.scorer = CTC_PREFIX_SCORERS[prefix](log_probs, lengths, blank)
        self.eos, self.ends_with_eos = eos, target_eos and prefix == "exact"
        self.state = self.last = self.scores = None

    @torch.inference_mode()
    def __call__(self, ids: torch.LongTensor, parents: torch.LongTensor | None) -> torch.Tensor:
        """
        How CTC's log-probability grows with each next label.

        Args:
            ids: `(batch, beams, length)` with the start token; parents: `(batch, beams)` beams they come from.
        Returns:
            `(batch, beams, vocab)`.
        """
        label = ids[..., -1]
        if parents is None:
            self.state, self.last = self.scorer.start(ids.shape[1]), torch.full_like(label, -1)
            known = torch.zeros_like(label, dtype=self.state[1].dtype)
        else:
            places = parents[..., None].expand(-1, -1, self.state[0].shape[-1])
            state, last = tuple(part.gather(1, places) for part in self.state), self.last.gather(1, parents)
            self.state, self.last = self.scorer.extend(state, last, label), label
            known = _of_parents(self.scores, parents, label)
        scores, whole = self.scorer.score(self.state, self.last)
        if self.ends_with_eos:
            whole = self.scorer.score_ended(self.state, self.last, self.eos)
        scores[..., self.eos] = whole
        self.scores = scores
        growth = scores - known[..., None]
        return growth.masked_fill(torch.isnan(growth), NEVER)  # nothing follows the impossible


class LanguageModelTracker:
    """Log-probabilities of a causal language model over the same ids, with its own cache."""

    def __init__(self, model: PreTrainedModel, vocab_size: int):
        if model.config.vocab_size < vocab_size:
            raise ValueError(
                f"language_model knows {model.config.vocab_size} tokens, the recogniser {vocab_size}: train it with "
                "the recogniser's tokenizer."
            )
        self.model, self.vocab_size, self.cache = model, vocab_size, None

    def __call__(self, ids: torch.LongTensor, parents: torch.LongTensor | None) -> torch.Tensor:
        """As of [`CtcTracker`]."""
        rows = ids.flatten(0, 1)  # (batch * beams, length)
        if self.cache is not None:
            first = torch.arange(0, rows.shape[0], ids.shape[1], device=ids.device)[:, None]
            self.cache.reorder_cache((parents + first).flatten())
            rows = rows[:, -1:]
        outputs = self.model(input_ids=rows.to(self.model.device), past_key_values=self.cache, use_cache=True)
        self.cache = outputs.get("past_key_values")
        scores = outputs.logits[:, -1, :].to(ids.device, torch.float32).log_softmax(dim=-1)
        return scores[:, : self.vocab_size].unflatten(0, ids.shape[:2])


class JointLogitsProcessor(LogitsProcessor):
    """
    Turns the decoder's scores into steps of `(1 - w) log p_attention + w log p_ctc + v log p_lm` for a beam search.

    The beam search of transformers adds up steps, so each step is the growth of the joint score. The decoder's
    distribution is over all labels but blank, which cannot be generated. A text has at most as many characters as its
    clip has CTC steps, also where CTC has no weight, so that a clip's text does not depend on longer clips in its batch.

    **The search ends early**: with `keep`, a prefix whose score is less than that of `keep` texts that are finished
    gets no further steps, and transformers ends the search when no clip has a prefix left. The `keep` best texts are
    the same as without. Proof: let s(h) be the joint score of a prefix or finished text h. (1) s does not grow: the
    decoder and the language model multiply by probabilities, and a text that begins with hc, or is h, is among those
    that CTC counts as beginning with h. So each text that continues h scores at most s(h), which is less than the
    threshold, the score of the `keep`-th best text so far; the threshold only rises; hence no continuation of h is
    among the `keep` best. (2) What is dropped gives its place in the beam to nothing that matters: a beam holds the
    best prefixes of a step, so whatever would move up scores at most what was dropped, is below the threshold as well,
    and is dropped too. The prefixes above the threshold are the same in each step as without, by induction, and so are
    the finished texts above it. (The published code's CTC score can grow, so it is searched to the end.)

    Args:
        lengths: `(batch,)` most characters of each clip; num_beams: beams a clip; blank, eos: their ids.
        weight: w in [0, 1]; ctc: [`CtcTracker`], not needed with w = 0.
        language_model: [`LanguageModelTracker`], *optional*; language_model_weight: v, 0 or more.
        keep: texts that the bound must keep; 0 searches to the end.
    """

    def __init__(
        self,
        lengths: torch.Tensor,
        num_beams: int,
        blank: int,
        eos: int,
        weight: float = 0.0,
        ctc: CtcTracker | None = None,
        language_model: LanguageModelTracker | None = None,
        language_model_weight: float = 0.0,
        keep: int = 0,
    ):
        self.num_beams, self.blank, self.eos, self.weight, self.keep = num_beams, blank, eos, weight, keep
        self.parts = [(weight, ctc)] if weight > 0 else []
        self.parts += [(language_model_weight, language_model)] if language_model is not None else []
        self.longest = lengths.repeat_interleave(num_beams)  # (batch * beams,)
        self.ids = self.totals = self.finished = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """`(batch * beams, length)` prefixes and `(batch * beams, vocab)` scores of the decoder -> joint steps."""
        ids = input_ids.unflatten(0, (-1, self.num_beams))  # (batch, beams, length)
        parents = None if self.ids is None else self._parents(ids)
        steps = (1 - self.weight) * without(scores, self.blank) if self.weight < 1 else torch.zeros_like(scores)
        for weight, part in self.parts:
            steps = steps + weight * part(ids, parents).flatten(0, 1).to(steps.dtype)
        label = torch.arange(steps.shape[1], device=steps.device)
        full = input_ids.shape[1] > self.longest  # the start token is not a character
        never = torch.isneginf(scores) | (label == self.blank) | (full[:, None] & (label != self.eos))
        steps = steps.masked_fill(never, NEVER)
        if self.keep:
            steps = self._drop(steps.unflatten(0, (-1, self.num_beams)), ids, parents).flatten(0, 1)
        self.ids = ids
        return steps

    def _parents(self, ids: torch.LongTensor) -> torch.LongTensor:
        """`(batch, beams)`: which beam of the last step each prefix continues."""
        same = (ids[:, :, None, :-1] == self.ids[:, None]).all(dim=-1)  # (batch, beams now, beams before)
        return same.int().argmax(dim=-1)

    def _drop(self, steps: torch.Tensor, ids: torch.LongTensor, parents: torch.LongTensor | None) -> torch.Tensor:
        """Takes the steps `(batch, beams, vocab)` that the bound rules out."""
        if parents is None:
            totals = steps.new_zeros(ids.shape[:2])  # (batch, beams)
            self.finished = steps.new_full((len(ids), self.keep), NEVER)
        else:
            totals = _of_parents(self.totals, parents, ids[..., -1])
            totals = totals.masked_fill(ids[..., -1] == self.eos, NEVER)
        same = (ids[:, :, None] == ids[:, None]).all(dim=-1)  # where prefixes are few, beams hold one more than once
        totals = totals.masked_fill(same.tril(-1).any(dim=-1), NEVER)[..., None] + steps  # (batch, beams, vocab)
        finished = torch.cat((self.finished, totals[..., self.eos]), dim=1)
        self.finished = finished.topk(self.keep, dim=1).values  # (batch, keep)
        hopeless = totals < self.finished[:, None, -1:] - SLACK
        self.totals = totals.masked_fill(hopeless, NEVER)
        return steps.masked_fill(hopeless, NEVER)


def without(scores: torch.Tensor, label: int) -> torch.Tensor:
    """
    Log-probabilities over all labels but one: what is left of `(rows, vocab)` log-probabilities adds up to 1.

    Labels that are ruled out (-inf), such as an EOS that would come too early, keep their share.
    """
    share = scores[:, label : label + 1]
    rest = scores.clone()
    rest[:, label] = NEVER
    total = rest.logsumexp(dim=-1, keepdim=True)
    ruled_out = torch.isneginf(scores).any(dim=-1, keepdim=True)
    return rest - torch.where(ruled_out, torch.log1p(-share.exp()), total)


def _of_parents(scores: torch.Tensor, parents: torch.LongTensor, label: torch.LongTensor) -> torch.Tensor:
    """`(batch, beams, vocab)` scores of the last step's labels -> `(batch, beams)` of those that were chosen."""
    rows = scores.gather(1, parents[..., None].expand(-1, -1, scores.shape[-1]))
    return rows.gather(2, label[..., None])[..., 0]

"""The search in two passes: CTC's beam search finds texts, and the decoder reads all of them in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from torch.nn.functional import ctc_loss, log_softmax, pad
from transformers import PreTrainedModel
from transformers.generation import LogitsProcessor

from .beam_decoding_avsr import AvsrBeamCache, Recogniser, SearchSettings
from .layers_avsr import AvsrEncoderOutput, as_bias, change_clips, sinusoidal_positions
from .text_scores_avsr import (
    IMPOSSIBLE,
    NEVER,
    language_model_log_probs,
    precision,
    silenced,
    without_label,
)

CERTAIN = 0.999  # probability of silence above which CTC's beam passes over a step
MOST_PAIRS = 2**25  # of characters that a pass over whole texts compares; more clips are computed in turn


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


class TwoPassSearch:
    """
    Finds CTC's best texts, and chooses among them by the joint score that [`JointSearch`] gives a whole text.

    The decoder reads all texts in one pass, so that no step of it waits for the one before. A text that the logits
    processors rule out can't be chosen.

    Args:
        decoder: of the clips.
        ctc_logits: `(clips, steps, vocab)`.
        lengths: `(clips,)` valid steps.
        settings: of the search; `beams` is the number of CTC's texts.
        target_eos: whether CTC's targets end with EOS.
        language_model: over the recogniser's ids, or None.

    Attributes:
        scores: `(clips, texts)`, of the best texts; -inf: there is none.
    """

    def __init__(
        self,
        decoder: TextDecoder,
        ctc_logits: torch.Tensor,
        lengths: torch.Tensor,
        settings: SearchSettings,
        target_eos: bool,
        language_model: PreTrainedModel | None,
    ):
        self.decoder, self.settings, self.language_model = decoder, settings, language_model
        self.ctc_logits, self.lengths, self.target_eos = ctc_logits, lengths, target_eos
        found = best_texts(ctc_logits, lengths, settings.beams, settings.steps - 1, settings.blank, settings.eos)
        totals = self._totals(found) / (found.sizes + 1) ** settings.length_penalty
        self.scores, order = totals.topk(settings.texts, dim=1)
        self.sizes = found.sizes.gather(1, order)
        self.ids = found.ids.gather(1, order[..., None].expand(-1, -1, found.ids.shape[2]))

    def _totals(self, found: CtcTexts) -> torch.Tensor:
        """Computes the joint scores `(clips, beams)` of CTC's texts."""
        settings, weight = self.settings, self.settings.ctc_weight
        labels = pad(found.ids, (0, 1), value=settings.blank).scatter(2, found.sizes[..., None], settings.eos)
        inputs = pad(labels[..., :-1], (1, 0), value=settings.start)  # what decoder and language model read
        outside = torch.arange(labels.shape[2], device=labels.device) > found.sizes[..., None]  # EOS is inside
        totals = torch.zeros(found.scores.shape, device=labels.device)
        if weight < 1 or settings.processors:
            steps = self.decoder(inputs, labels, found.sizes + 1).masked_fill(outside, 0.0)
            totals = (1 - weight) * steps.sum(dim=-1) if weight < 1 else totals
            totals = totals.masked_fill((steps < IMPOSSIBLE).any(dim=-1), NEVER)
        if weight > 0:
            sizes = found.sizes + int(self.target_eos)
            scores = ctc_scores_of(self.ctc_logits, self.lengths, labels, sizes, settings.blank)
            totals = totals + (weight * scores).float()
        if self.language_model is not None:
            steps = language_model_log_probs(self.language_model, inputs, labels, self.ctc_logits.shape[2])
            totals = totals + settings.language_model_weight * steps.masked_fill(outside, 0.0).sum(dim=-1)
        return totals.masked_fill(torch.isneginf(found.scores) | totals.isnan(), NEVER)

    def found(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the texts `(clips * texts, length)`, start token, labels, EOS, padding; and their scores."""
        settings = self.settings
        sizes = self.sizes.masked_fill(torch.isneginf(self.scores), 0)
        place = torch.arange(int(sizes.max()), device=sizes.device)
        ids = self.ids[..., : len(place)].masked_fill(place >= sizes[..., None], settings.blank)
        ids = pad(pad(ids, (1, 0), value=settings.start), (0, 1), value=settings.blank)
        return ids.scatter(2, sizes[..., None] + 1, settings.eos).flatten(0, 1), self.scores.flatten()

"""The joint beam search (paper, section 3.7): by its own rules, and by those of ESPnet."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.generation import LogitsProcessor, StoppingCriteria
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

from .beam_decoding_avsr import ForwardDecoder, SharedKeysDecoder
from .text_scores_avsr import IMPOSSIBLE, NEVER, CtcScores, LanguageModelScores, pick_scores, without_label

logger = logging.get_logger(__name__)

SLACK = 1e-3  # tolerance when scores are compared with the bound: the error of float32 sums
STEPS_BETWEEN_WAITS = 8  # a device beside the CPU must finish before its results can be checked for an early end
STEPS_BEFORE_CAPTURE = 3  # with which the libraries of a GPU make ready what a graph must not make
BARRED = -1e10  # ESPnet's log-probability of what CTC rules out
PRE_BEAM = 1.5  # labels that ESPnet's search lets CTC judge, in beams
END_MARGIN = 10.0  # how much worse than the best text those of three lengths are when ESPnet's search ends


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
    `parents`) record which text a beam holds, so that texts are neither moved nor compared. On CUDA, where starting
    the hundreds of kernels of a step takes longer than computing them, a step is captured as a graph and replayed;
    when the decoder's buffers grow, it is captured anew.

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

    repeats = True  # whether a step is the same work on the same tensors each time

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
        replay: Callable[[], None] | None = None
        replays = self._can_replay()
        for done in range(1, self.settings.steps + 1):
            last = done == self.settings.steps
            if replays and done > STEPS_BEFORE_CAPTURE and not last:
                replay = self._captured(replay)
                replays = replay is not None
            if replay is None or last:
                self._advance(last)
            else:
                replay()
            if done % wait == 0 and not (self.total > NEVER).any():
                break
        if self.settings.streamer is not None:
            self.settings.streamer.end()

    def _can_replay(self) -> bool:
        """Returns whether a step can be a graph: on CUDA, and all that it does is done to tensors."""
        settings = self.settings
        more = settings.processors or settings.criteria or settings.streamer or settings.sample
        stores = settings.store_scores or settings.store_logits
        shared = isinstance(self.decoder, SharedKeysDecoder)
        return self.lengths.is_cuda and self.repeats and shared and not (more or stores or self.language_model)

    def _captured(self, replay: Callable[[], None] | None) -> Callable[[], None] | None:
        """Returns what replays a step: `replay`, as long as the decoder's buffers have room; None if it can't be."""
        decoder = self.decoder
        if not isinstance(decoder, SharedKeysDecoder):
            return None
        if replay is not None and not decoder.is_full():
            return replay
        decoder.make_room()
        try:
            graph = capture(lambda: self._advance(last=False))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            logger.warning(f"the search runs step by step: a step can't be captured as a CUDA graph ({reason}).")
            return None
        decoder.count(-1)  # capturing computes nothing

        def replayed() -> None:
            graph.replay()
            decoder.count(1)

        return replayed

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


def capture(step: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Records the work that a function gives the GPU, without doing it; other threads may go on using the GPU."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph


class EspnetSearch(JointSearch):
    """
    The joint search by the rules of ESPnet's `BatchBeamSearch`, by which published recognisers were measured.

    It differs from [`JointSearch`] in these points. Blank has its share of the decoder's distribution. CTC judges only
    the labels that the decoder finds best, 1.5 times as many as beams, and EOS; all others are as good as impossible.
    The beam holds the best continuations, those that end among them. A clip's text has at most as many labels as CTC
    has steps, and whatever is in the beam by then ends at no cost, a text that has just ended with a second EOS. With
    `early_stopping="never"` a search takes all these steps; else it ends once three lengths in a row have finished
    texts whose best is more than 10 worse than the best of all.
    """

    repeats = False  # it counts its steps

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.lengths = self.lengths.clamp(max=self.settings.steps - 1)  # and EOS
        self.total = self.total.masked_fill((self.lengths == 0)[:, None], NEVER)
        clips = len(self.lengths)
        self.ended = torch.full((clips, self.settings.steps + 3), NEVER, device=self.lengths.device)  # best, by ids
        self.steps_done = 0

    def _extended(self) -> tuple[torch.Tensor, torch.Tensor]:
        settings = self.settings
        log_probs = self.decoder_log_probs()
        attention = self.attention[..., None] + (1 - settings.ctc_weight) * log_probs
        totals = attention + settings.length_bonus * (self.steps_done + 1)
        if self.ctc is not None:
            scores = self.ctc().masked_fill(self._barred(log_probs), BARRED).clamp(min=BARRED)
            totals = totals + (settings.ctc_weight * scores).float()
        if self.language_model is not None:
            totals = totals + settings.language_model_weight * self.language_model()
        return self.remove(totals, torch.isneginf(self.total)[..., None] | (log_probs < IMPOSSIBLE)), attention

    def _barred(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Marks blank and the labels that CTC doesn't judge, `(clips, beams, vocab)`."""
        settings, kept = self.settings, int(PRE_BEAM * self.settings.beams)
        barred = torch.zeros_like(log_probs, dtype=torch.bool)
        if kept < log_probs.shape[-1]:
            barred = torch.ones_like(barred).scatter(-1, log_probs.topk(kept, dim=-1).indices, False)
            barred[..., settings.eos] = False
        barred[..., settings.blank] = True
        return barred

    def _advance(self, last: bool) -> None:
        settings = self.settings
        totals, attention = self._extended()
        parents, labels, self.total = self.choose(totals)
        final = (self.step + 1 >= self.lengths)[:, None].expand_as(labels)  # the clip's last step
        ends = (labels == settings.eos) & ~final
        self.finish(self._possible(ends), parents, ended=True)
        best = self.total.masked_fill(~ends, NEVER).amax(dim=1)
        self.ended[:, self.steps_done + 2] = best
        self.total = self.total.masked_fill(ends, NEVER)
        self.attention = pick_scores(attention, parents, labels)
        self.record(parents, labels)
        self.finish(self._possible(final), self.beam, ended=True)
        self.total = self.total.masked_fill(final, NEVER)
        if settings.early_stopping != "never":
            self._detect_end()
        self.steps_done += 1
        if not last:
            self.follow(parents, labels)

    def _possible(self, wanted: torch.Tensor) -> torch.Tensor:
        """Returns the scores `(clips, beams)` of wanted texts that CTC doesn't rule out, of others NEVER."""
        if self.settings.ctc_weight > 0:
            wanted = wanted & (self.total > self.settings.ctc_weight * BARRED / 2)
        return self.total.masked_fill(~wanted, NEVER)

    def _detect_end(self) -> None:
        """Ends clips whose latest finished texts are much worse than their best one."""
        lengths = self.ended[
            :, max(self.steps_done - 2, 0) : self.steps_done + 1
        ]  # (clips, 3): ids with start and EOS
        if lengths.shape[1] == 3:
            worse = (lengths > NEVER) & (lengths - self.scores[:, :1] < -END_MARGIN)
            self.total = self.total.masked_fill(worse.all(dim=1, keepdim=True), NEVER)

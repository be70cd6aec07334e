"""Decoding: `generate` with its arguments, and the joint search by the rules of ESPnet."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
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

from .beam_decoding_avsr import (
    BUCKET,
    JointSearch,
    SearchSettings,
    SharedKeysDecoder,
    StepDecoder,
    StepGraphs,
    filled_up,
)
from .configuration_avsr import AvsrConfig
from .layers_avsr import AvsrEncoderOutput, change_clips
from .text_scores_avsr import (
    CTC_PREFIX_SCORERS,
    IMPOSSIBLE,
    NEVER,
    CtcScores,
    ForwardDecoder,
    LanguageModelScores,
    best_path,
    pick_scores,
)
from .transformers_seam_avsr import attention_kind, cache_field
from .two_pass_avsr import TextDecoder, TwoPassSearch

CTC_WEIGHT = 0.1  # alpha in section 4.2
CANDIDATES = 10  # texts of the first of two passes
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
BARRED = -1e10  # ESPnet's log-probability of what CTC rules out
PRE_BEAM = 1.5  # labels that ESPnet's search lets CTC judge, in beams
END_MARGIN = 10.0  # how much worse than the best text those of three lengths are when ESPnet's search ends


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


JOINT_SEARCHES: dict[str, type[JointSearch]] = {"joint": JointSearch, "espnet": EspnetSearch}
SEARCHES = ("joint", "two_pass", "greedy", "espnet")


@dataclass(frozen=True)
class JointScore:
    """
    The parts of a text's score and their weights.

    Attributes:
        ctc_weight: in [0, 1].
        ctc_prefix: `"exact"` or `"reference"`.
        language_model: over the recogniser's ids, or None.
        language_model_weight: 0 or more.
        search: one of `SEARCHES`.
        length_bonus: of each label in ESPnet's search.
    """

    ctc_weight: float
    ctc_prefix: str
    language_model: PreTrainedModel | None
    language_model_weight: float
    search: str = "joint"
    length_bonus: float = 0.0

    def __post_init__(self):
        if not 0 <= self.ctc_weight <= 1:
            raise ValueError(f"ctc_weight must be in [0, 1], not {self.ctc_weight}.")
        if self.ctc_prefix not in CTC_PREFIX_SCORERS:
            names = ", ".join(map(repr, CTC_PREFIX_SCORERS))
            raise ValueError(f"ctc_prefix must be one of {names}, not {self.ctc_prefix!r}.")
        if self.search not in SEARCHES:
            raise ValueError(f"search must be one of {', '.join(map(repr, SEARCHES))}, not {self.search!r}.")
        if self.search != "espnet" and self.length_bonus:
            raise ValueError("length_bonus is for search='espnet': use length_penalty.")
        if self.search in ("espnet", "two_pass") and self.ctc_prefix != "exact":
            raise ValueError(f"ctc_prefix must be 'exact' with search={self.search!r}.")
        if self.search == "greedy" and self.language_model is not None:
            raise ValueError("language_model is for search='joint' or 'two_pass': leave it out with search='greedy'.")
        if not self.language_model_weight >= 0:
            raise ValueError(f"language_model_weight must be 0 or more, not {self.language_model_weight}.")

    def is_best_path(self, config: GenerationConfig) -> bool:
        """Returns whether CTC's best path is requested, which needs no search."""
        alone = self.ctc_weight == 1 and self.language_model is None and self.search == "joint"
        one = alone and not config.do_sample and (config.num_beams or 1) == 1
        return one or self.search == "greedy"

    def number_of_texts(
        self, config: GenerationConfig, own: GenerationConfig, given: GenerationConfig | None, chosen: int | None
    ) -> int:
        """
        Returns how many texts a search compares: its `num_beams`.

        Args:
            config: all of the call's settings.
            own: the model's, whose number counts for the search that it is saved with.
            given: the generation config that the call passes, or None.
            chosen: the number that the call passes, or None; CTC's best path is one whatever it is.

        Raises:
            ValueError: the call requests several texts of CTC's best path, or draws at random.
        """
        if self.search == "greedy":
            if (texts := config.num_return_sequences or 1) > 1:
                raise ValueError(f"num_return_sequences must be 1 with search='greedy', which finds one, not {texts}.")
            if config.do_sample:
                raise ValueError("do_sample is for search='joint': leave it out with search='greedy'.")
            return 1
        known = chosen or getattr(given, "num_beams", None)
        if self.search == "two_pass" and known is None and getattr(own, "search", None) != "two_pass":
            return CANDIDATES
        return config.num_beams or 1

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
        if streamer is not None and (config.num_beams > 1 or self.search != "joint"):
            raise ValueError(
                "`streamer` needs num_beams=1 and search='joint': else labels are certain only at the end."
            )
        if self.search != "joint":
            self._check_others(config, list(criteria))
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
            length_bonus=self.length_bonus,
        )

    def _check_others(self, config: GenerationConfig, criteria: list[StoppingCriteria]) -> None:
        """Raises a ValueError for settings that only the joint search has."""
        others = [one for one in criteria if not isinstance(one, (MaxLengthCriteria, EosTokenCriteria))]
        wrong = {"do_sample": config.do_sample, "stopping_criteria": others}
        if self.search == "espnet" and config.num_beams > 1:
            wrong["length_penalty"] = config.length_penalty
        for name, value in wrong.items():
            if value:
                raise ValueError(f"`{name}` is for search='joint': leave it out with search={self.search!r}.")

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


class AvsrGenerationMixin(GenerationMixin):
    """
    `generate` for [`AvsrForConditionalGeneration`].

    transformers prepares the generation config, logits processors and stopping criteria, and hands them to the
    function passed as its documented `custom_generate`, which runs [`JointSearch`].
    """

    _is_stateful = True  # a search can't take labels back, so transformers refuses assisted generation

    _step_graphs: StepGraphs | None = None

    # of the model that this is mixed into
    config: AvsrConfig
    decoder_head_of: Callable[[AvsrEncoderOutput], Callable[[torch.Tensor], torch.Tensor]]
    get_encoder: Callable[..., nn.Module]
    get_decoder: Callable[[], StepDecoder]
    compute_ctc_logits: Callable[[AvsrEncoderOutput], torch.Tensor]
    parameters: Callable[..., Iterator[nn.Parameter]]
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
        search: str | None = None,
        length_bonus: float = 0.0,
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
            search (`str`, *optional*, defaults to the generation config's or `"joint"`):
                `"two_pass"` finds CTC's `num_beams` best texts (10 by default), and the decoder and the joint score
                choose among them, see [`TwoPassSearch`]: a fifth of the time. `"greedy"` is CTC's best path alone.
                `"espnet"` searches as ESPnet does, see [`EspnetSearch`], for results as they were published:
                `early_stopping="never"` takes as many steps as there are frames (its `maxlenratio=1`), `False` ends by
                its rule (`maxlenratio=0`).
            length_bonus (`float`, *optional*, defaults to 0.0):
                With `search="espnet"`, added to a text's score for each of its labels (its `penalty`).
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
                - cuda_graphs (`bool`, defaults to `True`; in a generation config only): whether a step of the joint
                  search is captured as a CUDA graph on CUDA, and replayed, see [`StepGraphs`].
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
        beams = kwargs.get("num_beams")
        config = _merge_configs(generation_config, self.generation_config, kwargs)
        _refuse(kwargs, config)
        score = JointScore(
            getattr(config, "ctc_weight", CTC_WEIGHT) if ctc_weight is None else ctc_weight,
            getattr(config, "ctc_prefix", "exact") if ctc_prefix is None else ctc_prefix,
            language_model,
            language_model_weight,
            getattr(config, "search", "joint") if search is None else search,
            length_bonus,
        )
        config.num_beams = score.number_of_texts(config, self.generation_config, generation_config, beams)
        trained = self.config.ctc_loss_weight or self.config.alignment_loss_weight
        if score.search in ("two_pass", "greedy") and not trained:
            raise ValueError(f"search={score.search!r} needs CTC, which this model was trained without: use 'joint'.")
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

        def run(model, input_ids, logits_processor, stopping_criteria, generation_config, **prepared):
            settings = score.settings(self.config, generation_config, logits_processor, stopping_criteria, streamer)
            return self._search(encoder_outputs, ctc_logits, score, settings, generation_config)

        # transformers reads only the number of clips from what is encoded, and repeats it for the beams
        first = change_clips(encoder_outputs, lambda part: part[:, :1] if part.ndim > 1 else part)
        return super().generate(encoder_outputs=first, generation_config=config, custom_generate=run, **kwargs)

    def _search(
        self,
        encoder_outputs: AvsrEncoderOutput,
        ctc_logits: torch.Tensor,
        score: JointScore,
        settings: SearchSettings,
        config: GenerationConfig,
    ) -> torch.LongTensor | GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput:
        """Runs a search; its `config` is what transformers has prepared."""
        if score.search == "two_pass":
            sequences, scores = self._two_passes(encoder_outputs, ctc_logits, score, settings, config)
            output = GenerateBeamEncoderDecoderOutput if settings.beams > 1 else GenerateEncoderDecoderOutput
            found: dict[str, Any] = {"sequences": sequences, **_encoder_outputs_requested(config, encoder_outputs)}
            found |= {"sequences_scores": scores} if settings.beams > 1 else {}
            return output(**found) if config.return_dict_in_generate else _as_ids(sequences)
        search = self._joint_search(encoder_outputs, ctc_logits, score, settings, config)
        if not config.return_dict_in_generate:
            return _as_ids(search.found()[0])
        return _search_output(config, search, encoder_outputs)

    def _joint_search(
        self,
        encoder_outputs: AvsrEncoderOutput,
        ctc_logits: torch.Tensor,
        score: JointScore,
        settings: SearchSettings,
        config: GenerationConfig,
    ) -> JointSearch:
        """Runs the joint search."""
        encoded, copies = change_clips(encoder_outputs, lambda part: part), config.num_return_sequences
        if settings.beams == 1 and copies > 1:  # drawn at random, independently of each other
            encoded = change_clips(encoded, lambda part: part.repeat_interleave(copies, dim=0))
            ctc_logits = ctc_logits.repeat_interleave(copies, dim=0)
        graphs = self._graphs_for(ctc_logits.device, config)
        if graphs is not None:
            encoded, ctc_logits = _in_buckets(encoded, ctc_logits)
        lengths = encoded["frame_mask"].sum(dim=1) * self.config.ctc_upsampling  # (clips,)
        start = lengths.new_full((len(lengths), settings.beams), settings.start)
        decoder: SharedKeysDecoder | ForwardDecoder
        if self._can_share_keys(config):
            room = None if graphs is None else filled_up(settings.steps)
            decoder = SharedKeysDecoder(self, encoded, settings.beams, room)
        else:
            options = {name: getattr(config, name) for name in ("use_cache", *OPTIONAL_OUTPUTS)}
            rows = change_clips(encoded, lambda part: part.repeat_interleave(settings.beams, dim=0))
            decoder = ForwardDecoder(self, rows, start, **options)
        search = JOINT_SEARCHES[score.search](
            decoder,
            lengths if score.ctc_prefix == "exact" else (lengths - 2).clamp(min=0),
            settings,
            score.ctc_scores(ctc_logits, lengths, self.config, settings.beams),
            score.language_model_scores(self.config, start),
        )
        try:
            search.run(graphs)
        except torch.OutOfMemoryError:
            self._step_graphs = None  # what graphs hold may be what is missing
            raise
        return search

    def _graphs_for(self, device: torch.device, config: GenerationConfig) -> StepGraphs | None:
        """Returns the graphs that this model's searches have captured on a device; None where they are not wanted."""
        wanted = device.type in StepGraphs.devices and getattr(config, "cuda_graphs", True)
        if wanted and self._step_graphs is None:
            self._step_graphs = StepGraphs()
        return self._step_graphs if wanted else None

    def _two_passes(
        self,
        encoder_outputs: AvsrEncoderOutput,
        ctc_logits: torch.Tensor,
        score: JointScore,
        settings: SearchSettings,
        config: GenerationConfig,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Runs the search in two passes; where the logits processors allow none of a clip's candidates, the joint search.

        Returns:
            See [`TwoPassSearch.found`].
        """
        encoded = change_clips(encoder_outputs, lambda part: part)
        lengths = encoded["frame_mask"].sum(dim=1) * self.config.ctc_upsampling  # (clips,)
        share_keys = self._can_share_keys(config)
        decoder = TextDecoder(self, encoded, settings.blank, settings.processors, share_keys)
        target_eos, language_model = self.config.ctc_target_eos, score.language_model
        search = TwoPassSearch(decoder, ctc_logits, lengths, settings, target_eos, language_model)
        sequences, scores = search.found()
        missing = torch.isneginf(search.scores[:, 0])
        if not (settings.processors and missing.any()):
            return sequences, scores
        joint = self._joint_search(encoder_outputs, ctc_logits, replace(score, search="joint"), settings, config)
        other, other_scores, _ = joint.found()
        rows = missing.repeat_interleave(settings.texts)
        width = max(sequences.shape[1], other.shape[1])
        ids, other = (pad(part, (0, width - part.shape[1]), value=settings.blank) for part in (sequences, other))
        return torch.where(rows[:, None], other, ids), torch.where(rows, other_scores, scores)

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


def _in_buckets(encoded: AvsrEncoderOutput, ctc_logits: torch.Tensor) -> tuple[AvsrEncoderOutput, torch.Tensor]:
    """Pads encoded clips and CTC's scores `(clips, steps, vocab)` to a multiple of `BUCKET` frames."""
    frames = encoded["frame_mask"].shape[1]
    more = -frames % BUCKET
    encoded = change_clips(
        encoded, lambda part: part if part.ndim == 1 else pad(part, (0, 0) * (part.ndim - 2) + (0, more))
    )
    return encoded, pad(ctc_logits, (0, 0, 0, more * ctc_logits.shape[1] // frames))


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

"""Decoding: greedy CTC, attention beam search, and joint CTC/attention beam search (paper, section 3.7)."""

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, PreTrainedModel
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.generation.utils import GenerateOutput

from .beam_decoding_avsr import AvsrBeamCache
from .ctc_prefix_score_avsr import CTC_PREFIX_SCORERS, NEVER
from .joint_search_avsr import CtcTracker, JointLogitsProcessor, LanguageModelTracker

CTC_WEIGHT = 0.1  # alpha in section 4.2
DENSE = ("sdpa", "eager")  # kinds of attention that compute what [`AvsrBeamCache`] holds
IMPOSSIBLE = -5e8  # below it is what transformers' beam search marks as no prefix


def best_path(ctc_logits: torch.Tensor, lengths: torch.Tensor, blank: int, eos: int) -> list[torch.Tensor]:
    """
    Greedy CTC: the best label of each step, repetitions and blanks removed. The EOS is silence, its probability blank's.

    Args:
        ctc_logits: `(batch, steps, vocab)`; lengths: `(batch,)` valid steps; blank, eos: their ids.
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
    kept = (steps != previous) & (steps != blank)
    return [row[keep] for row, keep in zip(steps, kept)]


class AvsrGenerationMixin(GenerationMixin):
    """`generate` for [`AvsrForConditionalGeneration`]: transformers' beam search over joint scores."""

    @torch.no_grad()
    def generate(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_attention_mask: torch.Tensor | None = None,
        encoder_outputs=None,
        ctc_weight: float | None = None,
        ctc_prefix: str | None = None,
        language_model: PreTrainedModel | None = None,
        language_model_weight: float = 0.3,
        **kwargs,
    ) -> torch.LongTensor | GenerateOutput:
        r"""
        Reads clips.

        Args:
            input_values, attention_mask, pixel_values_videos, video_attention_mask: as of `forward`.
            encoder_outputs (`AvsrEncoderOutput`, *optional*): instead of the four, clips that are encoded already.
            ctc_weight (`float` in [0, 1], *optional*, defaults to the generation config's or 0.1):
                0 is the decoder alone (attention), 1 CTC alone: its best path with `num_beams=1`, else its most
                probable text; between them the joint search of the paper.
            ctc_prefix (`str`, *optional*, defaults to the generation config's or `"exact"`):
                `"reference"` scores and searches as the published code: see [`ReferenceCtcPrefixScorer`]; the search
                goes to the end, texts have at most two characters less than CTC steps, EOS is no label of CTC's.
            language_model (`PreTrainedModel`, *optional*):
                A causal language model over the recogniser's ids; texts begin with `decoder_start_token_id`.
            language_model_weight (`float`, *optional*, defaults to 0.3): of its log-probabilities, 0 or more.
            num_beams (`int`, *optional*): 5 in the paper.
            early_stopping (`bool` or `"never"`, *optional*, defaults to `False`):
                `False` ends as soon as the texts to be returned are certain (the proof is in
                [`JointLogitsProcessor`]); `"never"` searches up to the longest possible text and finds the same.
            kwargs: as of transformers' `generate` (`num_return_sequences`, `return_dict_in_generate`, ...).
                A score is the joint log-probability of the whole text (`length_penalty` 0).
        Returns:
            `(batch, length)` int64: the start token, characters, EOS, padding.
        Raises:
            ValueError: `ctc_weight` is outside [0, 1], `ctc_prefix` is unknown, the language model's weight or
                vocabulary does not fit, or there is nothing to read.
        """
        defaults = kwargs.get("generation_config") or self.generation_config
        ctc_weight = getattr(defaults, "ctc_weight", CTC_WEIGHT) if ctc_weight is None else ctc_weight
        ctc_prefix = getattr(defaults, "ctc_prefix", "exact") if ctc_prefix is None else ctc_prefix
        _check(ctc_weight, ctc_prefix, language_model_weight)
        if encoder_outputs is None:
            encoder_outputs = self.get_encoder()(
                input_values, attention_mask, pixel_values_videos, video_attention_mask
            )
        num_beams = kwargs.get("num_beams") or defaults.num_beams or 1
        ctc_logits = self.compute_ctc_logits(encoder_outputs)  # (batch, steps, vocab)
        lengths = encoder_outputs.frame_mask.sum(dim=1) * self.config.ctc_upsampling
        if ctc_weight == 1 and num_beams == 1 and language_model is None:
            return self._greedy_ctc(ctc_logits, lengths)
        kwargs.setdefault("length_penalty", 0.0)
        blank, eos = self.config.pad_token_id, self.config.eos_token_id
        processor = JointLogitsProcessor(
            lengths if ctc_prefix == "exact" else (lengths - 2).clamp(min=0),
            num_beams,
            blank,
            eos,
            ctc_weight,
            CtcTracker(ctc_logits, lengths, blank, eos, self.config.ctc_target_eos, ctc_prefix),
            language_model and LanguageModelTracker(language_model, self.config.vocab_size),
            language_model_weight,
            keep=self._texts_to_keep(num_beams, ctc_prefix, defaults, kwargs),
        )
        if ctc_prefix == "reference":
            kwargs["early_stopping"] = "never"
        if num_beams > 1 and self._can_share_keys(defaults, kwargs):
            kwargs["past_key_values"] = AvsrBeamCache(num_beams)
        processors = [*(kwargs.pop("logits_processor", None) or []), processor]
        if not {"max_length", "max_new_tokens"} & set(kwargs):
            kwargs["max_new_tokens"] = ctc_logits.shape[1] + 1
        encoded = type(encoder_outputs)(**encoder_outputs)  # transformers repeats the clips in it for the beams
        outputs = super().generate(encoder_outputs=encoded, logits_processor=LogitsProcessorList(processors), **kwargs)
        if isinstance(outputs, torch.Tensor):
            return self._pad_ended(outputs)
        outputs.sequences = self._pad_ended(outputs.sequences)
        return outputs

    @staticmethod
    def _texts_to_keep(num_beams: int, ctc_prefix: str, defaults: GenerationConfig, kwargs: dict) -> int:
        """How many texts the bound on the search must not touch; 0 where there is no such bound."""
        asked = {name: kwargs.get(name, getattr(defaults, name)) for name in ("early_stopping", "do_sample")}
        bounded = num_beams > 1 and ctc_prefix == "exact" and not kwargs["length_penalty"] and not any(asked.values())
        return (kwargs.get("num_return_sequences") or defaults.num_return_sequences or 1) if bounded else 0

    def _can_share_keys(self, defaults: GenerationConfig, kwargs: dict) -> bool:
        """Whether [`AvsrBeamCache`] will do: no other cache or attention weights are asked for, one device decodes."""
        names = ("use_cache", "cache_implementation", "output_attentions", "output_hidden_states")
        asked = {name: kwargs.get(name, getattr(defaults, name)) for name in names}
        usual = asked.pop("use_cache") is not False and not any(asked.values()) and "past_key_values" not in kwargs
        devices = {parameter.device.type for parameter in self.get_decoder().parameters()}  # "meta" where offloaded
        return usual and len(devices - {"meta"}) == len(devices) == 1 and self.config._attn_implementation in DENSE

    def prepare_inputs_for_generation(
        self, input_ids: torch.LongTensor, *args, past_key_values: Cache | AvsrBeamCache | None = None, **kwargs
    ) -> dict:
        if not isinstance(past_key_values, AvsrBeamCache):
            return super().prepare_inputs_for_generation(input_ids, *args, past_key_values=past_key_values, **kwargs)
        given = {"past_key_values": past_key_values, "encoder_outputs": kwargs["encoder_outputs"]}
        return {"decoder_input_ids": input_ids[:, -1:], **given}

    def _get_top_k_continuations(
        self, accumulated_log_probs: torch.Tensor, beams_to_keep: int, num_beams: int, do_sample: bool, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        The end of each beam, and the best continuations.

        Transformers looks for both among the best continuations together, so that a text whose end is not one of them
        is lost; here all are compared.
        """
        if do_sample:
            return super()._get_top_k_continuations(
                accumulated_log_probs=accumulated_log_probs,
                beams_to_keep=beams_to_keep,
                num_beams=num_beams,
                do_sample=True,
                **kwargs,
            )
        labels = torch.arange(accumulated_log_probs.shape[1], device=accumulated_log_probs.device)
        is_end = labels % (labels.shape[0] // num_beams) == self.config.eos_token_id  # (beams * vocab,)
        scores = accumulated_log_probs.masked_fill(accumulated_log_probs < IMPOSSIBLE, NEVER)
        parts = [
            super(AvsrGenerationMixin, self)._get_top_k_continuations(
                accumulated_log_probs=scores.masked_fill(excluded, NEVER),
                beams_to_keep=count,
                num_beams=num_beams,
                do_sample=False,
                **kwargs,
            )
            for excluded, count in ((~is_end, num_beams), (is_end, beams_to_keep - num_beams))
        ]
        return tuple(torch.cat(pair, dim=1) for pair in zip(*parts))

    @staticmethod
    def _check_early_stop_heuristic(
        is_early_stop_heuristic_unsatisfied: torch.Tensor, early_stopping: bool | str, **kwargs
    ) -> torch.Tensor:
        """Whether to go on, `(batch, 1)`: with `"never"` always, else transformers' rule, exact without length penalty."""
        if early_stopping == "never":
            return is_early_stop_heuristic_unsatisfied
        return GenerationMixin._check_early_stop_heuristic(
            is_early_stop_heuristic_unsatisfied=is_early_stop_heuristic_unsatisfied,
            early_stopping=early_stopping,
            **kwargs,
        )

    def _reorder_cache(
        self, past_key_values: EncoderDecoderCache | AvsrBeamCache, beam_idx: torch.LongTensor
    ) -> EncoderDecoderCache | AvsrBeamCache:
        """Moves what the beams have said; what they hear is the same for all beams of a clip and stays."""
        own = past_key_values if isinstance(past_key_values, AvsrBeamCache) else past_key_values.self_attention_cache
        own.reorder_cache(beam_idx)
        return past_key_values

    def _pad_ended(self, ids: torch.LongTensor) -> torch.LongTensor:
        """Padding behind the EOS; the beam search of transformers repeats the EOS where the padding's id is 0."""
        ended = (ids[:, 1:-1] == self.config.eos_token_id).cumsum(dim=1) > 0  # (batch, length - 2)
        return torch.cat((ids[:, :2], ids[:, 2:].masked_fill(ended, self.config.pad_token_id)), dim=1)

    def _greedy_ctc(self, ctc_logits: torch.Tensor, lengths: torch.Tensor) -> torch.LongTensor:
        config = self.config
        start, end = (lengths.new_full((1,), token) for token in (config.decoder_start_token_id, config.eos_token_id))
        rows = best_path(ctc_logits, lengths, config.pad_token_id, config.eos_token_id)
        rows = [torch.cat((start, row, end)) for row in rows]
        return pad_sequence(rows, batch_first=True, padding_value=config.pad_token_id)


def _check(ctc_weight: float, ctc_prefix: str, language_model_weight: float) -> None:
    if not 0 <= ctc_weight <= 1:
        raise ValueError(f"ctc_weight must be in [0, 1], not {ctc_weight}.")
    if ctc_prefix not in CTC_PREFIX_SCORERS:
        raise ValueError(f"ctc_prefix must be one of {', '.join(map(repr, CTC_PREFIX_SCORERS))}, not {ctc_prefix!r}.")
    if not language_model_weight >= 0:
        raise ValueError(f"language_model_weight must be 0 or more, not {language_model_weight}.")

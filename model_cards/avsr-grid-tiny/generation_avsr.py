"""Decoding: greedy CTC, attention beam search, and joint CTC/attention beam search (paper, section 3.7)."""

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationMixin, LogitsProcessorList
from transformers.generation.utils import GenerateOutput

from .ctc_prefix_score_avsr import CtcPrefixLogitsProcessor

CTC_WEIGHT = 0.1  # alpha in section 4.2


def best_path(ctc_logits: torch.Tensor, lengths: torch.Tensor, blank: int, eos: int) -> list[torch.Tensor]:
    """
    Greedy CTC: the best label of each step, repetitions and blanks removed.

    Args:
        ctc_logits: `(batch, steps, vocab)`; lengths: `(batch,)` valid steps; blank, eos: silent labels.
    Returns:
        One int64 tensor of labels per clip.
    """
    steps = ctc_logits.argmax(dim=-1)  # (batch, steps)
    valid = torch.arange(steps.shape[1], device=steps.device)[None] < lengths[:, None]
    steps = steps.masked_fill((steps == eos) | ~valid, blank)
    previous = torch.cat((torch.full_like(steps[:, :1], blank), steps[:, :-1]), dim=1)
    kept = (steps != previous) & (steps != blank)
    return [row[keep] for row, keep in zip(steps, kept)]


class AvsrGenerationMixin(GenerationMixin):
    """`generate` for [`AvsrForConditionalGeneration`]: transformers' beam search with CTC's prefix scores in it."""

    @torch.no_grad()
    def generate(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_attention_mask: torch.Tensor | None = None,
        encoder_outputs=None,
        ctc_weight: float | None = None,
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
            num_beams (`int`, *optional*): 5 in the paper.
            kwargs: as of transformers' `generate` (`num_return_sequences`, `return_dict_in_generate`, ...).
                A score is the joint log-probability of the whole text (`length_penalty` 0).
        Returns:
            `(batch, length)` int64: the start token, characters, EOS, padding.
        Raises:
            ValueError: `ctc_weight` is outside [0, 1], or there is nothing to read.
        """
        defaults = kwargs.get("generation_config") or self.generation_config
        if ctc_weight is None:
            ctc_weight = getattr(defaults, "ctc_weight", CTC_WEIGHT)
        if not 0 <= ctc_weight <= 1:
            raise ValueError(f"ctc_weight must be in [0, 1], not {ctc_weight}.")
        if encoder_outputs is None:
            encoder_outputs = self.get_encoder()(
                input_values, attention_mask, pixel_values_videos, video_attention_mask
            )
        num_beams = kwargs.get("num_beams") or defaults.num_beams or 1
        ctc_logits = self.compute_ctc_logits(encoder_outputs)  # (batch, steps, vocab)
        lengths = encoder_outputs.frame_mask.sum(dim=1) * self.config.ctc_upsampling
        if ctc_weight == 1 and num_beams == 1:
            return self._greedy_ctc(ctc_logits, lengths)
        scorer = CtcPrefixLogitsProcessor(
            ctc_logits,
            lengths,
            num_beams,
            ctc_weight,
            self.config.pad_token_id,
            self.config.eos_token_id,
            eos_is_blank=self.config.ctc_target_eos,
        )
        processors = [*(kwargs.pop("logits_processor", None) or []), scorer]
        kwargs.setdefault("length_penalty", 0.0)
        if not {"max_length", "max_new_tokens"} & set(kwargs):
            kwargs["max_new_tokens"] = ctc_logits.shape[1] + 1
        outputs = super().generate(
            encoder_outputs=encoder_outputs, logits_processor=LogitsProcessorList(processors), **kwargs
        )
        if isinstance(outputs, torch.Tensor):
            return self._pad_ended(outputs)
        outputs.sequences = self._pad_ended(outputs.sequences)
        return outputs

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

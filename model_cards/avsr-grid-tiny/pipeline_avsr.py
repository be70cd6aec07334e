"""From a file to what the person says: the pipeline task `audio-visual-speech-recognition`."""

import logging
import math
import os
from typing import Any

import torch
from transformers.pipelines.base import Pipeline

from .clip_reading_avsr import MODALITIES, Clip, read_clip
from .word_timing_avsr import (
    TimedText,
    align_ctc,
    delay_early_starts,
    mean_confidence,
    merge_into_blank,
    time_characters,
    time_words,
)

logger = logging.getLogger(__name__)

NUM_BEAMS = 5  # where neither the call nor the checkpoint says otherwise (paper, section 4.2)
TIMESTAMPS = (False, "word", "char")


class AudioVisualSpeechRecognitionPipeline(Pipeline):
    """
    Reads speech from sound, from lips, or from both.

    ```python
    >>> import lookhear
    >>> from transformers import pipeline

    >>> asr = pipeline("audio-visual-speech-recognition", model="model_cards/avsr-grid-tiny")
    >>> asr("clip.mp4", return_timestamps="word")["chunks"][0]
    {'text': 'BIN', 'timestamp': (0.6, 0.82), 'confidence': 0.98}
    ```

    A call takes one input or a list of them, and these arguments (which may be given to `pipeline(...)` too):

    - inputs: a path, a URL, bytes, a binary file object, or
      `{"audio": (samples,), "sampling_rate": Hz, "video": (frames, height, width, 3) uint8, "fps": float}`, either half
      of which may be missing. Any sampling rate and frame rate. Instead of `"video"` there may be `"mouths"`: crops of
      the image processor.
    - batch_size (`int`): clips that go through the model together; the results do not depend on it.
    - modality: `"auto"` reads what the clip has, and says in the report where lips or sound are missing; `"audio"`,
      `"visual"` and `"audiovisual"` read exactly that, or raise.
    - return_timestamps: `False`, `"word"` or `"char"`.
    - num_beams, num_return_sequences, ctc_weight: as of `generate`; the checkpoint's values by default.
    - chunk_length_s: `None`; speaker: `None`. Other values are refused so far.

    Returns, for each input, `{"text", "confidence", "chunks", "alternatives", "report"}`: the confidence (0 to 1) is the
    geometric mean of the characters' CTC probabilities; chunks are `{"text", "timestamp": (start, end) in seconds,
    "confidence"}`; alternatives are the other `num_return_sequences - 1` texts, `{"text", "confidence", "score"}`, best
    first; the report holds what was measured on the clip and `"warnings"` in words.

    Raises `ValueError`, with one line that names the input or argument, for whatever cannot be read.
    """

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, inputs, **kwargs):
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            raise ValueError("`inputs` is an empty list: pass at least one clip.")
        batch_size = kwargs.get("batch_size")
        if batch_size is not None and not _is_count(batch_size):
            raise ValueError(f"`batch_size` must be a positive integer, not {batch_size!r}.")
        return super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Saves the model, the processor, and the code of both and of the pipeline."""
        config = self.model.config
        named_before = getattr(config, "custom_pipelines", None)
        parts = self.feature_extractor, self.image_processor, self.tokenizer
        self.feature_extractor = self.image_processor = self.tokenizer = None  # they are saved as one processor
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.feature_extractor, self.image_processor, self.tokenizer = parts
            config.custom_pipelines = named_before  # with a name here, `pipeline` would ask for trust_remote_code
            if named_before is None:
                del config.custom_pipelines
        self.processor.save_pretrained(save_directory)

    def _sanitize_parameters(
        self,
        modality: str | None = None,
        return_timestamps: bool | str | None = None,
        num_beams: int | None = None,
        num_return_sequences: int | None = None,
        ctc_weight: float | None = None,
        chunk_length_s: float | None = None,
        speaker: Any = None,
        **unknown,
    ) -> tuple[dict, dict, dict]:
        if unknown:
            raise ValueError(f"Unknown argument {', '.join(map(repr, unknown))} of {type(self).__name__}.")
        if chunk_length_s is not None:
            raise ValueError("`chunk_length_s` must be None: this version reads each clip in one piece.")
        if speaker is not None:
            raise ValueError(
                "`speaker` must be None: choosing one needs a `speaker_locator`, which this version cannot use yet; it "
                "reads the most prominent face."
            )
        if modality is not None and modality not in MODALITIES:
            raise ValueError(f"`modality` must be one of {', '.join(map(repr, MODALITIES))}, not {modality!r}.")
        if return_timestamps is not None and return_timestamps not in TIMESTAMPS:
            raise ValueError(f'`return_timestamps` must be False, "word" or "char", not {return_timestamps!r}.')
        _check_search(num_beams, num_return_sequences, ctc_weight)
        search = {"num_beams": num_beams, "num_return_sequences": num_return_sequences, "ctc_weight": ctc_weight}
        return (
            _given(modality=modality),
            _given(**search),
            _given(return_timestamps=return_timestamps),
        )

    def preprocess(self, inputs, modality: str = "auto") -> dict[str, Any]:
        """One input to tensors with a batch dimension of 1; an absent modality is one step with a mask of 0."""
        self._check_model_reads(modality)
        extractor, image_processor = self.processor.feature_extractor, self.processor.image_processor
        clip = read_clip(inputs, self._modality(modality), extractor.sampling_rate, image_processor)
        for warning in clip.report.warnings:
            logger.warning(f"{clip.name}: {warning}")
        return {**self._features(clip), "report": clip.to_report()}

    def _modality(self, modality: str) -> str:
        """A model of one modality reads only that, so "auto" need not look for the other."""
        return self.model.config.modality if modality == "auto" and self._single_modality() else modality

    def _single_modality(self) -> bool:
        return self.model.config.modality != "audiovisual"

    def _check_model_reads(self, modality: str) -> None:
        if self._single_modality() and modality not in ("auto", self.model.config.modality):
            raise ValueError(
                f'`modality` is "{modality}", but this model reads "{self.model.config.modality}" only: load an '
                "audio-visual checkpoint."
            )

    def _features(self, clip: Clip) -> dict[str, torch.Tensor]:
        """`input_values` and `attention_mask` (1, samples), `pixel_values_videos` (1, frames, 1, H, W) and its mask."""
        size = self.processor.image_processor.crop_size
        absent = {
            "input_values": torch.zeros(1, 1),
            "attention_mask": torch.zeros(1, 1, dtype=torch.long),
            "pixel_values_videos": torch.zeros(1, 1, 1, size, size),
            "video_attention_mask": torch.zeros(1, 1, dtype=torch.long),
        }
        present = self.processor(
            audio=[clip.audio],
            sampling_rate=self.processor.feature_extractor.sampling_rate,
            videos=[clip.mouths],
            return_tensors="pt",
        )
        return {name: present.get(name, value).to(value.dtype) for name, value in absent.items()}

    def _forward(
        self,
        model_inputs: dict[str, Any],
        num_beams: int | None = None,
        num_return_sequences: int | None = None,
        ctc_weight: float | None = None,
    ) -> dict[str, Any]:
        """Encodes once, searches, and aligns each text found; everything is `(batch, num_return_sequences, …)`."""
        defaults = self.model.generation_config
        num_beams = num_beams or defaults.num_beams or NUM_BEAMS
        texts = num_return_sequences or defaults.num_return_sequences or 1
        if texts > num_beams:
            raise ValueError(f"`num_return_sequences` ({texts}) must not be more than `num_beams` ({num_beams}).")
        encoded = self.model.get_encoder()(**self._present(model_inputs))
        log_probs = self.model.compute_ctc_logits(encoded).float().log_softmax(-1)  # (batch, steps, vocab)
        lengths = encoded.frame_mask.sum(dim=1) * self.model.config.ctc_upsampling  # (batch,)
        found = self.model.generate(
            encoder_outputs=encoded,
            num_beams=num_beams,
            num_return_sequences=texts,
            ctc_weight=ctc_weight,
            return_dict_in_generate=True,
            output_scores=True,
        )
        sequences = found if isinstance(found, torch.Tensor) else found.sequences
        scores = None if isinstance(found, torch.Tensor) else found.get("sequences_scores")
        batch = {
            name: value.unflatten(0, (-1, texts)) for name, value in self._align(log_probs, lengths, sequences).items()
        }
        if scores is not None:
            batch["score"] = scores.float().unflatten(0, (-1, texts))
        return {**batch, "report": model_inputs["report"]}

    def _present(self, model_inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The modalities that at least one clip of the batch has, in the model's dtype."""
        inputs = {}
        for values, mask in (("input_values", "attention_mask"), ("pixel_values_videos", "video_attention_mask")):
            if model_inputs[mask].any():
                inputs[values] = model_inputs[values].to(self.model.dtype)
                inputs[mask] = model_inputs[mask]
        return inputs

    def _align(
        self, log_probs: torch.Tensor, lengths: torch.Tensor, sequences: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """
        Times and log-probabilities of the characters of each generated text, and how surely there are none.

        log_probs `(batch, steps, vocab)`, lengths `(batch,)`, sequences `(batch * texts, length)` ->
        `ids`, `starts`, `ends`, `log_probs` `(batch * texts, length)`, `fits`, `silence` `(batch * texts,)`.
        """
        config = self.model.config
        texts = sequences.shape[0] // log_probs.shape[0]
        special = torch.tensor([config.pad_token_id, config.eos_token_id], device=sequences.device)
        rows = [row[~torch.isin(row, special)] for row in sequences]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=config.pad_token_id)
        counts = torch.tensor([len(row) for row in rows], device=sequences.device)
        log_probs = merge_into_blank(log_probs, config.pad_token_id, config.eos_token_id)
        log_probs, lengths = log_probs.repeat_interleave(texts, dim=0), lengths.repeat_interleave(texts)
        found = align_ctc(log_probs, lengths, ids, counts, blank=config.pad_token_id)
        valid = torch.arange(log_probs.shape[1], device=lengths.device) < lengths[:, None]  # (batch * texts, steps)
        silence = (log_probs[..., config.pad_token_id] * valid).sum(dim=1) / lengths.clamp(min=1)
        return {
            "ids": ids,
            "starts": found.starts,
            "ends": found.ends,
            "log_probs": found.scores,
            "fits": found.fits,
            "silence": silence,
        }

    def postprocess(self, model_outputs: dict[str, Any], return_timestamps: bool | str = False) -> dict[str, Any]:
        report = dict(model_outputs["report"])
        seconds = 1 / (self.processor.image_processor.fps * self.model.config.ctc_upsampling)
        texts = [
            self._timed(model_outputs, index, seconds, report["duration"])
            for index in range(model_outputs["ids"].shape[1])
        ]
        best, words = texts[0], time_words(texts[0])
        if return_timestamps and not model_outputs["fits"][0, 0]:
            warning = "the text has more letters than the clip has time for: the times are spread evenly"
            report["warnings"] = [*report["warnings"], warning]
        chunks = {"word": words, "char": best}.get(return_timestamps, [])
        results = [
            {"text": _text(characters), "confidence": self._confidence(characters, model_outputs["silence"][0, index])}
            for index, characters in enumerate(texts)
        ]
        for index, result in enumerate(results[1:], 1):
            result["score"] = float(model_outputs["score"][0, index])
        return {
            **results[0],
            "chunks": [
                {
                    "text": chunk.text,
                    "timestamp": (round(chunk.start, 3), round(chunk.end, 3)),
                    "confidence": round(chunk.confidence, 4),
                }
                for chunk in chunks
            ],
            "alternatives": results[1:],
            "report": report,
        }

    def _timed(self, outputs: dict[str, Any], index: int, seconds: float, duration: float) -> list[TimedText]:
        """The characters of one text of one clip, none of them behind the clip's end."""
        ids = [i for i in outputs["ids"][0, index].tolist() if i != self.model.config.pad_token_id]
        tokens = [self.processor.tokenizer.decode([i]) for i in ids]
        rows = (outputs[name][0, index].tolist() for name in ("starts", "ends", "log_probs"))
        return [
            TimedText(c.text, min(c.start, duration), min(c.end, duration), c.confidence)
            for c in delay_early_starts(time_characters(tokens, *rows, seconds))
        ]

    @staticmethod
    def _confidence(characters: list[TimedText], silence: torch.Tensor) -> float:
        """Of the whole text; of an empty one, how surely nothing was said."""
        return round(mean_confidence(characters) if characters else math.exp(float(silence)), 4)


def _text(characters: list[TimedText]) -> str:
    return " ".join("".join(character.text for character in characters).split())


def _given(**arguments) -> dict[str, Any]:
    """The arguments that the caller passed."""
    return {name: value for name, value in arguments.items() if value is not None}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_search(num_beams: Any, num_return_sequences: Any, ctc_weight: Any) -> None:
    for name, value in (("num_beams", num_beams), ("num_return_sequences", num_return_sequences)):
        if value is not None and not _is_count(value):
            raise ValueError(f"`{name}` must be a positive integer, not {value!r}.")
    if num_beams is not None and num_return_sequences is not None and num_return_sequences > num_beams:
        raise ValueError(
            f"`num_return_sequences` ({num_return_sequences}) must not be more than `num_beams` ({num_beams})."
        )
    number = isinstance(ctc_weight, (int, float)) and not isinstance(ctc_weight, bool)
    if ctc_weight is not None and not (number and 0 <= ctc_weight <= 1):
        raise ValueError(f"`ctc_weight` must be a number from 0 to 1, not {ctc_weight!r}.")

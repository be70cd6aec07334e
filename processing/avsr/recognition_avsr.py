"""From clips to texts with times: the model's search, the alignment of its texts, and whose words they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from .alignment_avsr import (
    TimedText,
    align_ctc,
    delay_early_starts,
    merge_into_blank,
    split_pieces,
    time_characters,
    time_words,
)

if TYPE_CHECKING:
    from .clip_stream_avsr import Clip

NUM_BEAMS = 5  # unless the call or the checkpoint sets another number (paper, section 4.2)

NEARBY = 0.2  # seconds around a letter in which the lips may show it: CTC of lips alone and of both differ in time
CONTEXT = 1.0  # seconds around a word whose letters are judged with it: a single letter is often hard to see
MOST_OTHERS = 1000  # words of other people that a report lists, at most
LIP_EVIDENCE = 0.25  # mean evidence that makes words the lips', unless the call or the checkpoint sets another value


class Recogniser:
    """
    Reads clips with a model and its processor.

    Args:
        model: [`AvsrForConditionalGeneration`].
        processor: [`AvsrProcessor`].
    """

    def __init__(self, model: Any, processor: Any):
        self.model, self.processor = model, processor

    @property
    def seconds_per_step(self) -> float:
        """Seconds from one CTC step to the next."""
        return 1 / (self.processor.image_processor.fps * self.model.config.ctc_upsampling)

    def features(self, clips: list[Clip]) -> dict[str, torch.Tensor]:
        """
        Converts clips to the model's inputs.

        Returns:
            `input_values`, `attention_mask` (B, samples), `pixel_values_videos` (B, frames, 1, H, W),
            `video_attention_mask` and `lips_seen` (B, frames), 1 where the face was found.
        """
        size, batch = self.processor.image_processor.crop_size, len(clips)
        absent = {
            "input_values": torch.zeros(batch, 1),
            "attention_mask": torch.zeros(batch, 1, dtype=torch.long),
            "pixel_values_videos": torch.zeros(batch, 1, 1, size, size),
            "video_attention_mask": torch.zeros(batch, 1, dtype=torch.long),
        }
        present = self.processor(
            audio=[clip.audio for clip in clips],
            sampling_rate=self.processor.feature_extractor.sampling_rate,
            videos=[clip.mouths for clip in clips],
            return_tensors="pt",
        )
        features = {name: present.get(name, value).to(value.dtype) for name, value in absent.items()}
        features["lips_seen"] = features["video_attention_mask"].clone()
        for row, clip in zip(features["lips_seen"], clips):
            if clip.mouths is not None and clip.found is not None:
                row[: len(clip.found)] &= torch.from_numpy(clip.found[: len(row)]).long()
        return features

    def nonblank_probability(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns `(batch, steps)`: CTC's probability of any letter."""
        config = self.model.config
        log_probs = self._ctc_log_probs(self.model.get_encoder()(**self._present(features)))
        silence = merge_into_blank(log_probs, config.pad_token_id, config.eos_token_id)[..., config.pad_token_id]
        return 1 - silence.exp()

    def search(
        self,
        inputs: dict[str, Any],
        num_beams: int | None = None,
        num_return_sequences: int | None = None,
        judge_lips: bool = False,
        **scores: Any,
    ) -> dict[str, Any]:
        """
        Encodes once, searches, and aligns each text found.

        Args:
            inputs: see [`features`].
            num_beams: see `generate`; the checkpoint's value by default.
            num_return_sequences: as `num_beams`.
            judge_lips: whether to return the probability of the characters under the lips alone.
            scores: further arguments of `generate`: `ctc_weight`, `language_model`, `language_model_weight`.

        Returns:
            `ids`, `starts`, `ends`, `log_probs`, `fits` and `silence` of the alignment, the texts' `"score"`, and with
            `judge_lips` their characters' `"lips"`, 0 to 1, NaN where the clip has no sound or the lips are not
            visible; all are `(batch, num_return_sequences, …)`.
        """
        defaults = self.model.generation_config
        num_beams = num_beams or defaults.num_beams or NUM_BEAMS
        texts = num_return_sequences or defaults.num_return_sequences or 1
        if texts > num_beams:
            raise ValueError(f"`num_return_sequences` ({texts}) must not be more than `num_beams` ({num_beams}).")
        encoded = self.model.get_encoder()(**self._present(inputs))
        log_probs = self._ctc_log_probs(encoded)
        lengths = encoded.frame_mask.sum(dim=1) * self.model.config.ctc_upsampling  # (batch,)
        found = self.model.generate(
            encoder_outputs=encoded,
            num_beams=num_beams,
            num_return_sequences=texts,
            **scores,
            return_dict_in_generate=True,
            output_scores=True,
        )
        sequences = found if isinstance(found, torch.Tensor) else found.sequences
        totals = None if isinstance(found, torch.Tensor) else found.get("sequences_scores")
        batch = {
            name: value.unflatten(0, (-1, texts)) for name, value in self._align(log_probs, lengths, sequences).items()
        }
        if totals is not None:
            batch["score"] = totals.float().unflatten(0, (-1, texts))
        if judge_lips:
            batch["lips"] = self._lips(inputs, batch)
        return batch

    def _ctc_log_probs(self, encoded) -> torch.Tensor:
        """Returns `(batch, steps, vocab)`."""
        return self.model.compute_ctc_logits(encoded).float().log_softmax(-1)

    def _lips(self, inputs: dict[str, Any], found: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns `(batch, texts, length)`: how probable the lips alone find each character that was read."""
        unknown = torch.full_like(found["log_probs"], torch.nan)
        has_sound, has_lips = (inputs[name].any(dim=1) for name in ("attention_mask", "lips_seen"))
        if not (has_sound & has_lips).any() or not unknown.numel():
            return unknown
        lips = {**inputs, "attention_mask": torch.zeros_like(inputs["attention_mask"])}
        log_probs = self._ctc_log_probs(self.model.get_encoder()(**self._present(lips)))
        texts = found["ids"].shape[1]
        ids, starts, ends = (found[name].flatten(0, 1) for name in ("ids", "starts", "ends"))
        nearby = round(NEARBY / self.seconds_per_step)
        evidence = lip_evidence(log_probs.repeat_interleave(texts, dim=0), ids, starts, ends, nearby)
        evidence = evidence.unflatten(0, (-1, texts))
        frames = inputs["lips_seen"].shape[1]
        middles = (found["starts"] + found["ends"]) // 2 // self.model.config.ctc_upsampling
        visible = inputs["lips_seen"].gather(1, middles.clamp(max=frames - 1).flatten(1)).view_as(middles) > 0
        visible &= (middles < frames) & has_sound[:, None, None]
        return torch.where(visible, evidence, unknown)

    def _present(self, features: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Returns the modalities that at least one clip of the batch has, in the model's dtype."""
        inputs = {}
        for values, mask in (("input_values", "attention_mask"), ("pixel_values_videos", "video_attention_mask")):
            if features[mask].any():
                inputs[values] = features[values].to(self.model.dtype)
                inputs[mask] = features[mask]
        return inputs

    def _align(
        self, log_probs: torch.Tensor, lengths: torch.Tensor, sequences: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """
        Computes times and log-probabilities of each generated text's characters, and the log-probability of silence.

        Args:
            log_probs: `(batch, steps, vocab)` of CTC.
            lengths: `(batch,)` valid steps.
            sequences: `(batch * texts, length)` as generated.

        Returns:
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

    def own_words(
        self, outputs: dict[str, Any], clip: int, index: int, duration: float, least: float | None = None
    ) -> SpeakerWords:
        """
        Assigns the characters of [`timed`] to the speaker or to others where `search` has judged the lips.

        Args:
            outputs: of `search`.
            clip: index of the clip.
            index: of its text.
            duration: of the clip in seconds.
            least: mean evidence, 0 to 1, that makes words the lips'; the checkpoint's by default.
        """
        characters, sources = self._spelled(outputs, clip, index, duration)
        if "lips" not in outputs:
            return SpeakerWords(characters)
        if least is None:
            least = getattr(self.model.generation_config, "lip_evidence", None)
        lips = outputs["lips"][clip, index].tolist()
        return assign_words(characters, [lips[place] for place in sources], LIP_EVIDENCE if least is None else least)

    def timed(self, outputs: dict[str, Any], clip: int, index: int, duration: float) -> list[TimedText]:
        """Returns the characters, or spaces and word pieces, of one text of one clip, none after the clip's end."""
        return self._spelled(outputs, clip, index, duration)[0]

    def _spelled(
        self, outputs: dict[str, Any], clip: int, index: int, duration: float
    ) -> tuple[list[TimedText], list[int]]:
        """Returns [`timed`], and which label of the text each of them is from."""
        ids = [i for i in outputs["ids"][clip, index].tolist() if i != self.model.config.pad_token_id]
        tokens = [self.processor.tokenizer.spell(i) for i in ids]
        starts, ends, scores = (outputs[name][clip, index].tolist() for name in ("starts", "ends", "log_probs"))
        characters, sources = split_pieces(time_characters(tokens, starts, ends, scores, self.seconds_per_step))
        characters = [
            TimedText(c.text, min(c.start, duration), min(c.end, duration), c.confidence)
            for c in delay_early_starts(characters)
        ]
        return characters, sources


@dataclass(frozen=True)
class SpeakerWords:
    """
    The words that were read, divided into the visible speaker's and other people's.

    Attributes:
        characters: of the words that the lips show, as they were read.
        others: words of somebody else.
        evidence: mean probability, 0 to 1, of the letters of all words under the lips alone; 1 where it is unknown.
    """

    characters: list[TimedText] = field(default_factory=list)
    others: list[TimedText] = field(default_factory=list)
    evidence: float = 1.0

    @property
    def log_silence(self) -> float:
        """Returns the log-probability that the lips are silent, if all words are other people's."""
        return math.log(max(1.0 - self.evidence, 1e-6))


def lip_evidence(
    log_probs: torch.Tensor, ids: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor, nearby: int
) -> torch.Tensor:
    """
    Rates how probable the lips alone find characters that were read from sound and lips, at their time.

    Args:
        log_probs: `(batch, steps, vocab)` of CTC on the lips alone.
        ids: `(batch, length)` characters.
        starts: `(batch, length)` the first step of each.
        ends: `(batch, length)` the step after the last one of each.
        nearby: steps around a character that count as its time.

    Returns:
        `(batch, length)` float32, 0 to 1: the highest probability of the character at its time.
    """
    steps = torch.arange(log_probs.shape[1], device=ids.device)[None, :, None]  # (1, steps, 1)
    probabilities = (
        log_probs.float().exp().gather(2, ids[:, None].expand(-1, log_probs.shape[1], -1))
    )  # (B, steps, length)
    nearly = (steps >= starts[:, None] - nearby) & (steps < ends[:, None] + nearby)
    return probabilities.masked_fill(~nearly, 0.0).amax(dim=1)


def assign_words(
    characters: Sequence[TimedText], evidence: Sequence[float], least: float = LIP_EVIDENCE
) -> SpeakerWords:
    """
    Tests which of the recognised words are those of the visible speaker.

    A word is the lips' where the letters within a second around it have a mean evidence of `least`: so the many
    letters that look similar on the lips do not decide on their own, and a speaker who begins or ends while another
    one talks is still noticed.

    Args:
        characters: letters and spaces in order of time.
        evidence: of each character, 0 to 1; NaN where lips cannot be seen.
        least: mean evidence that makes a word the lips'; 0 gives every word to the lips.
    """
    words = _words(characters)
    seen = [[evidence[index] for index in word if evidence[index] == evidence[index]] for word in words]
    own: list[list[int]] = []
    others: list[TimedText] = []
    for word in words:
        start, end = characters[word[0]].start - CONTEXT, characters[word[-1]].end + CONTEXT
        near = [
            value
            for other, values in zip(words, seen)
            if characters[other[0]].start <= end and characters[other[-1]].end >= start
            for value in values
        ]
        if not near or sum(near) / len(near) >= least:
            own.append(word)
        else:
            others += time_words([characters[index] for index in word])
    known = [value for values in seen for value in values]
    mean = sum(known) / len(known) if known else 1.0
    return SpeakerWords(_spelled(characters, own), others, mean)


def _words(characters: Sequence[TimedText]) -> list[list[int]]:
    """Returns the indices of each word's letters."""
    words: list[list[int]] = [[]]
    for index, character in enumerate(characters):
        if not character.text.isspace():
            words[-1].append(index)
        elif words[-1]:
            words.append([])
    return [word for word in words if word]


def _spelled(characters: Sequence[TimedText], words: Sequence[list[int]]) -> list[TimedText]:
    """Returns the letters of some words, with the space before each word but the first."""
    spelled: list[TimedText] = []
    for word in words:
        if spelled:
            spelled += characters[word[0] - 1 : word[0]]
        spelled += [characters[index] for index in word]
    return spelled


def note_others(report: dict[str, Any], others: Sequence[TimedText], count: int | None = None) -> dict[str, Any]:
    """
    Adds `["speaker"]["others_said"]` to the report of a chosen speaker: recognised words that their lips do not show.

    Args:
        report: as a result holds it; one without a speaker is returned unchanged.
        others: the words, at least the first `MOST_OTHERS`.
        count: their total number; `len(others)` by default.

    Returns:
        A copy, with a warning if there are such words.
    """
    if "speaker" not in report:
        return report
    count = len(others) if count is None else count
    warnings = list(report["warnings"])
    if count == 1:
        warnings.append("a word was heard that the speaker's lips do not say: it is left out")
    elif count:
        warnings.append(f"{count} words were heard that the speaker's lips do not say: they are left out")
    speaker = {**report["speaker"], "others_said": [word.to_chunk() for word in others[:MOST_OTHERS]]}
    return {**report, "speaker": speaker, "warnings": warnings}

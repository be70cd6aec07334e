"""From clips to texts with times: the model's search, the alignment of its texts, and whose words they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from .alignment_avsr import (
    SHORTEST_CHUNK,
    TimedText,
    align_ctc,
    delay_early_starts,
    join_ends,
    join_found,
    mean_confidence,
    merge_into_blank,
    run_in_parts,
    split_pieces,
    time_characters,
    time_words,
)
from .clip_report_avsr import MOST_OTHERS

if TYPE_CHECKING:
    from .clip_stream_avsr import Clip

NUM_BEAMS = 5  # unless the call or the checkpoint sets another number (paper, section 4.2)
CANDIDATES = 10  # of `search="two_pass"`, likewise

MOST_BEAMS = 1000  # that a checkpoint may set; a call may pass more
LONGEST_CHUNK = 600.0  # seconds that a checkpoint may set; a call may pass more

NEARBY = 0.2  # seconds around a letter in which the lips may show it: CTC of lips alone and of both differ in time
CONTEXT = 1.0  # seconds around a word whose letters are judged with it: a single letter is often hard to see
DOUBT = 0.0  # confidence below which words may be others, unless the checkpoint sets another value
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

    @property
    def reach(self) -> int:
        """Frames on each side of a frame that its vector of the visual front-end depends on."""
        return self.model.get_encoder().visual_front_end.reach

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
        present: Mapping[str, torch.Tensor] = {}
        if any(clip.audio is not None or clip.mouths is not None for clip in clips):
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

    def with_lip_vectors(
        self,
        inputs: dict[str, Any],
        known: torch.Tensor | None = None,
        known_mask: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """
        Adds what the visual front-end computes of the lips, most of an encoder's work, for encoding them repeatedly.

        Args:
            inputs: see [`features`].
            known: `(B, frames, size)` vectors that were computed before.
            known_mask: `(B, frames)` bool, where they are.

        Returns:
            A copy with `lip_vectors` `(B, frames, size)`; the inputs as they are where they have them already, where
            there are no lips, and for a model that cuts lips to the sound's length: vectors at the cut depend on it.
        """
        config, mask = self.model.config, inputs["video_attention_mask"].bool()
        if "lip_vectors" in inputs or config.modality == "audio" or config.fusion == "mlp" or not mask.any():
            return inputs
        pixels = inputs["pixel_values_videos"].to(self.model.dtype)
        front_end = self.model.get_encoder().visual_front_end
        return {**inputs, "lip_vectors": front_end(pixels, mask, known, known_mask)}

    def encode(self, inputs: dict[str, Any]) -> Any:
        """Returns the encoder's output on inputs of which at least one clip has something to read."""
        return self.model.get_encoder()(**self._present(inputs))

    def nonblank_probability(self, encoded: Any) -> torch.Tensor:
        """Returns `(batch, steps)`, CTC's probability of any letter, of an encoder's output."""
        config = self.model.config
        log_probs = self._ctc_log_probs(encoded)
        silence = merge_into_blank(log_probs, config.pad_token_id, config.eos_token_id)[..., config.pad_token_id]
        return 1 - silence.exp()

    def search(
        self,
        inputs: dict[str, Any],
        num_beams: int | None = None,
        num_return_sequences: int | None = None,
        judge_lips: bool = False,
        encoded: Any = None,
        **scores: Any,
    ) -> dict[str, Any]:
        """
        Encodes once, searches, and aligns each text found; in several parts where the clips don't fit in memory.

        Args:
            inputs: see [`features`].
            num_beams: see `generate`; by default 10 with `search="two_pass"`, else the checkpoint's.
            num_return_sequences: as `num_beams`.
            judge_lips: whether to return the probability of the characters under the lips alone, if the model can read
                them so.
            encoded: the encoder's output on these inputs, if it is known.
            scores: further arguments of `generate`: `ctc_weight`, `search`, `language_model`, `language_model_weight`.

        Returns:
            `ids`, `starts`, `ends`, `log_probs`, `fits` and `silence` of the alignment, the texts' `"score"`, and with
            `judge_lips` their characters' `"lips"`, 0 to 1, NaN where the clip has no sound or the lips are not
            visible; all are `(batch, num_return_sequences, …)`.

        Raises:
            ValueError: an argument cannot be used, or one clip alone doesn't fit in memory.
        """
        num_beams = self._number_of_beams(scores.get("search"), num_beams)
        tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        count = len(inputs["attention_mask"])

        def search(part: slice) -> dict[str, Any]:
            known = encoded if part == slice(0, count) else None
            rows = {name: value[part] for name, value in tensors.items()}
            return self._search(rows, num_beams, num_return_sequences, judge_lips, known, **scores)

        parts = run_in_parts(search, count, "clips", lambda row: self._too_long(inputs, row, num_beams))
        return join_found(parts, self.model.config.pad_token_id)

    def _too_long(self, inputs: dict[str, Any], row: int, num_beams: int) -> ValueError:
        """Returns the error of a clip that does not fit in memory."""
        samples, frames = (int(inputs[name][row].sum()) for name in ("attention_mask", "video_attention_mask"))
        rate, fps = self.processor.feature_extractor.sampling_rate, self.processor.image_processor.fps
        return ValueError(
            f"`inputs`: a clip of {max(samples / rate, frames / fps):.1f} s does not fit in memory with {num_beams} "
            "beams: lower `chunk_length_s`, so that it is read in shorter pieces, or `num_beams`."
        )

    def _search(
        self,
        inputs: dict[str, Any],
        num_beams: int,
        num_return_sequences: int | None,
        judge_lips: bool,
        encoded: Any,
        **scores: Any,
    ) -> dict[str, Any]:
        """Returns what [`search`] finds in clips that fit in memory together."""
        texts = num_return_sequences or self._saved_count("num_return_sequences") or 1
        if texts > num_beams:
            raise ValueError(f"`num_return_sequences` ({texts}) must not be more than `num_beams` ({num_beams}).")
        there = inputs["attention_mask"].any(dim=1) | inputs["video_attention_mask"].any(dim=1)
        if not there.all():
            return self._search_some(inputs, there, texts, num_beams=num_beams, judge_lips=judge_lips, **scores)
        if judge_lips:
            inputs = self.with_lip_vectors(inputs)
        encoded = self.encode(inputs) if encoded is None else encoded
        log_probs = self._ctc_log_probs(encoded)
        lengths = encoded.frame_mask.sum(dim=1) * self.model.config.ctc_upsampling  # (batch,)
        found = self.model.generate(
            encoder_outputs=encoded,
            num_beams=num_beams,
            num_return_sequences=texts,
            **scores,
            return_dict_in_generate=True,
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

    def _number_of_beams(self, search: str | None, chosen: int | None) -> int:
        """Returns the `num_beams` of a search, None for the checkpoint's, unless the call has chosen one."""
        saved = getattr(self.model.generation_config, "search", None)
        if (search or saved) == "greedy":
            return 1  # it finds one text
        if chosen is None and search == "two_pass" and saved != search:  # the checkpoint's number is another search's
            return CANDIDATES
        return chosen or self._saved_count("num_beams") or NUM_BEAMS

    def _search_some(
        self, inputs: dict[str, Any], there: torch.Tensor, texts: int, **settings: Any
    ) -> dict[str, torch.Tensor]:
        """Returns what [`search`] finds; clips with nothing to read have empty texts, and certain silence."""
        empty = torch.zeros(1, texts, 0)
        found = {"ids": empty.long(), "starts": empty.long(), "ends": empty.long(), "log_probs": empty, "lips": empty}
        found |= {"fits": torch.ones(1, texts) > 0, "silence": torch.zeros(1, texts), "score": torch.zeros(1, texts)}
        if there.any():
            rows = {name: value[there] for name, value in inputs.items() if isinstance(value, torch.Tensor)}
            found = self.search(rows, num_return_sequences=texts, **settings)
        fill = {"ids": self.model.config.pad_token_id, "fits": True, "score": -math.inf}
        batch = {}
        for name, values in found.items():
            batch[name] = values.new_full((len(there), *values.shape[1:]), fill.get(name, 0))
            batch[name][there.to(values.device)] = values[: int(there.sum())]
        return batch if settings["judge_lips"] else {name: value for name, value in batch.items() if name != "lips"}

    def _saved_count(self, name: str) -> int | None:
        """Returns a number of the checkpoint's; raises ValueError for one that would keep the search busy for ever."""
        value = getattr(self.model.generation_config, name, None)
        if value is not None and not (type(value) is int and 1 <= value <= MOST_BEAMS):
            raise ValueError(
                f"`{name}` is {value!r} in the checkpoint's generation_config.json, which may set 1 to {MOST_BEAMS}: "
                f"pass `{name}`."
            )
        return value

    def _ctc_log_probs(self, encoded) -> torch.Tensor:
        """Returns `(batch, steps, vocab)`."""
        return self.model.compute_ctc_logits(encoded).float().log_softmax(-1)

    def _lips(self, inputs: dict[str, Any], found: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns `(batch, texts, length)`: how probable the lips alone find each character that was read."""
        unknown = torch.full_like(found["log_probs"], torch.nan)
        has_sound, has_lips = (inputs[name].any(dim=1) for name in ("attention_mask", "lips_seen"))
        if not (has_sound & has_lips).any() or not unknown.numel():
            return unknown
        if self.model.config.fusion == "mlp":  # it doesn't read lips alone
            return unknown
        lips = {**inputs, "attention_mask": torch.zeros_like(inputs["attention_mask"])}
        log_probs = self._ctc_log_probs(self.encode(lips))
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
        if "lip_vectors" in features and inputs.pop("pixel_values_videos", None) is not None:
            inputs["visual_features"] = features["lip_vectors"]
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

    def least_confidence(self, modality: str, least: float | None = None) -> float:
        """
        Returns the confidence, 0 to 1, below which what was read is no speech.

        Args:
            modality: that was read.
            least: if it is given, instead of the checkpoint's `speech_confidence`, a number or one for each modality.
        """
        if least is None:
            saved = getattr(self.model.generation_config, "speech_confidence", None)
            least = saved.get(modality) if isinstance(saved, Mapping) else saved
        return least or 0.0

    @property
    def doubt(self) -> float:
        """Confidence, 0 to 1, below which words may be others than those that the checkpoint knows."""
        return getattr(self.model.generation_config, "doubt_confidence", None) or DOUBT

    def spoken_words(
        self,
        outputs: dict[str, Any],
        clip: int,
        index: int,
        duration: float,
        modality: str,
        lip_evidence: float | None = None,
        speech_confidence: float | None = None,
    ) -> SpeakerWords:
        """
        Decides on the characters of [`timed`]: whether they are speech, or where a speaker was chosen, whose.

        Args:
            outputs: of `search`.
            clip: index of the clip.
            index: of its text.
            duration: of the clip in seconds.
            modality: that was read.
            lip_evidence: see [`own_words`].
            speech_confidence: see [`least_confidence`].
        """
        own = self.own_words(outputs, clip, index, duration, lip_evidence)
        if "lips" in outputs or not own.characters:
            return own
        confidence, least = mean_confidence(own.characters), self.least_confidence(modality, speech_confidence)
        if confidence >= least:
            return own
        words = time_words(own.characters)
        return SpeakerWords(left_out=LeftOut(words[0].start, words[-1].end, len(words), round(confidence, 4), least))

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
            for c in join_ends(delay_early_starts(characters))
        ]
        return characters, sources


class LipMemory:
    """
    Stores the visual front-end's vectors of a long clip's frames, for the windows and pieces that share them.

    A vector depends on `reach` frames on either side, and a piece has none beyond its ends: vectors so near to an end
    are of this piece alone, and aren't stored. Nor is what lies before the first piece, as time goes forward.

    Args:
        reach: in frames.
    """

    def __init__(self, reach: int):
        self._reach, self._first = reach, 0
        self._vectors: torch.Tensor | None = None  # (frames, size) from frame `_first` on
        self._there: torch.Tensor | None = None  # (frames,) bool

    def find(self, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """
        Returns what is known of a piece, None before anything is stored.

        Args:
            first: frame of the clip with which the piece begins.
            count: frames of the piece.

        Returns:
            Vectors `(count, size)`, and where they are known `(count,)` bool.
        """
        if self._vectors is None or self._there is None:
            return None
        vectors, there = self._vectors.new_zeros(count, self._vectors.shape[1]), self._there.new_zeros(count)
        begin, end = max(first, self._first), min(first + count, self._first + len(self._vectors))
        if begin < end:
            vectors[begin - first : end - first] = self._vectors[begin - self._first : end - self._first]
            there[begin - first : end - first] = self._there[begin - self._first : end - self._first]
        there[: self._reach] = False
        there[max(0, count - self._reach) :] = False
        return vectors, there

    def store(self, first: int, vectors: torch.Tensor) -> None:
        """
        Stores the vectors of a piece that are the same in every other one.

        Args:
            first: frame of the clip with which the piece begins.
            vectors: `(frames, size)` of all its frames.
        """
        if self._vectors is None or self._there is None:
            self._first = max(self._first, first)
            self._vectors = vectors[:0]
            self._there = torch.zeros(0, dtype=torch.bool, device=vectors.device)
        begin, end = max(first + self._reach, self._first), first + len(vectors) - self._reach
        if begin >= end:
            return
        if (missing := end - self._first - len(self._vectors)) > 0:
            self._vectors = torch.cat((self._vectors, vectors.new_zeros(missing, vectors.shape[1])))
            self._there = torch.cat((self._there, self._there.new_zeros(missing)))
        self._vectors[begin - self._first : end - self._first] = vectors[begin - first : end - first]
        self._there[begin - self._first : end - self._first] = True

    def drop(self, first: int) -> None:
        """Drops the vectors of the frames before `first`."""
        if self._vectors is not None and self._there is not None and first > self._first:
            gone = first - self._first
            self._vectors, self._there = self._vectors[gone:].clone(), self._there[gone:].clone()
        self._first = max(self._first, first)


@dataclass(frozen=True)
class SpeakerWords:
    """
    The words that were read, divided into the visible speaker's and other people's.

    Attributes:
        characters: of the words that the lips show, as they were read.
        others: words of somebody else.
        evidence: mean probability, 0 to 1, of the letters of all words under the lips alone; 1 where it is unknown.
        left_out: what was read, and is too unsure to be speech; None where nothing was.
    """

    characters: list[TimedText] = field(default_factory=list)
    others: list[TimedText] = field(default_factory=list)
    evidence: float = 1.0
    left_out: LeftOut | None = None

    @property
    def doubtful(self) -> list[LeftOut]:
        """The stretches that were left out."""
        return [] if self.left_out is None else [self.left_out]

    @property
    def confidence_of_words(self) -> float | None:
        """Confidence, 0 to 1, of the words; None without any."""
        return mean_confidence(self.characters) if self.characters else None

    def log_silence(self, measured: float) -> float:
        """
        Returns the log-probability that nobody, or not the speaker, says a word.

        Args:
            measured: that of CTC, which counts unless words were left out.
        """
        if self.left_out is not None:
            return math.log(max(1.0 - self.left_out.confidence, 1e-6))
        return math.log(max(1.0 - self.evidence, 1e-6)) if self.others else measured

    def confidence(self, measured: float) -> float:
        """Returns the confidence, 0 to 1, of the words; without any, that nobody speaks (`measured` as above)."""
        value = mean_confidence(self.characters) if self.characters else math.exp(self.log_silence(measured))
        return round(value, 4)


@dataclass(frozen=True)
class LeftOut:
    """
    A stretch of a clip that was read, but is too unsure to be speech.

    Attributes:
        start: of the first word, seconds.
        end: of the last word, seconds.
        words: their number.
        confidence: mean confidence of their characters, 0 to 1.
        least: the confidence that was needed.
    """

    start: float
    end: float
    words: int
    confidence: float
    least: float

    def moved(self, offset: float) -> LeftOut:
        """Returns the same, `offset` seconds later."""
        return replace(self, start=self.start + offset, end=self.end + offset)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, for the report."""
        times = [round(self.start, 3), round(self.end, 3)]
        return {"timestamp": times, "words": self.words, "confidence": self.confidence, "needed": self.least}


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
            others += time_words(list(characters[word[0] : word[-1] + 2]))  # with the space, at which it ends
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


def note_doubt(
    report: dict[str, Any], left_out: Sequence[LeftOut], confidence: float | None, doubt: float
) -> dict[str, Any]:
    """
    Adds `["left_out"]` to a report, and warnings: of what was read and is probably no speech, and of words that may be
    others.

    Args:
        report: as a result holds it.
        left_out: what was left out; the report has no such key if there is nothing.
        confidence: of the words that were read, 0 to 1; None if there are none.
        doubt: confidence below which they may be others.

    Returns:
        A copy with what there is to say.
    """
    warnings = list(report["warnings"])
    if left_out:
        count = sum(part.words for part in left_out)
        highest = max(part.confidence for part in left_out)
        least = max(part.least for part in left_out)
        spans = ", ".join(f"{part.start:.1f} to {part.end:.1f} s" for part in left_out[:3])
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        warnings.append(
            f"probably no speech: {count} word{'s' * (count > 1)} of confidence {highest:.2f} at most, below "
            f"{least:.2f}, left out ({spans}{more})"
        )
    if confidence is not None and confidence < doubt:
        warnings.append(f"the confidence is low ({confidence:.2f}): these may be words that the model does not know")
    if not left_out:
        return {**report, "warnings": warnings}
    return {**report, "left_out": [part.to_dict() for part in left_out], "warnings": warnings}


def saved_chunk_length(generation_config: Any) -> float | None:
    """
    Returns the seconds that a checkpoint reads in one pass, None where it doesn't say.

    Args:
        generation_config: the checkpoint's.

    Raises:
        ValueError: it is no length, or one that no memory would hold.
    """
    seconds = getattr(generation_config, "chunk_length_s", None)
    if seconds is not None and not (type(seconds) in (int, float) and SHORTEST_CHUNK <= seconds <= LONGEST_CHUNK):
        raise ValueError(
            f"`chunk_length_s` is {seconds!r} in the checkpoint's generation_config.json, which may set "
            f"{SHORTEST_CHUNK:g} to {LONGEST_CHUNK:g} seconds: pass `chunk_length_s`."
        )
    return seconds

"""A recogniser measured under conditions: modality x kind of noise x signal-to-noise ratio, on one folder of clips.

Every clip is decoded and its mouth cropped once; the conditions share that. The noise of a clip is made from the other
clips of the folder (or taken from a sound file) and is the same at every ratio and in every run with the same seed.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.evaluation.measures.rates import ErrorCounts, character_errors, position_error, word_errors
from lookhear.evaluation.measures.word_times import word_start_errors
from lookhear.evaluation.protocols.stored_results import StoredResults

MODALITIES = ("audio", "visual", "audiovisual")
NOISES = ("babble", "human", "talker")
CLEAN = "clean"
SAMPLING_RATE = 16000  # Hz, of prepared clips
ProblemSink = Callable[[str, Exception], object]  # gets the id of a clip, and what keeps it from being read
NoiseMaker = Callable[[Sequence[np.ndarray], int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Clip:
    """One utterance, decoded: `audio` (samples,) float32 at 16 kHz or None, `mouths` (frames, roi, roi) uint8 or None.

    `words` are `{"word", "start", "end"}` in seconds where the corpus knows them, or None.
    """

    id: str
    text: str
    audio: np.ndarray | None
    mouths: np.ndarray | None
    words: list[dict] | None = None


@dataclass(frozen=True)
class ConditionResult:
    """What was read under one condition; `references` and `hypotheses` are in the order of the clips.

    `word_starts` are distances in seconds, of the words that were read right in clips whose word times are known.
    `seconds` is how long all clips are, `processing` how long reading them took, once they were decoded.
    `noise_probability` is the share of the clips that are disturbed.
    """

    modality: str
    noise: str
    snr: str
    ids: list[str] = field(repr=False)
    references: list[str] = field(repr=False)
    hypotheses: list[str] = field(repr=False)
    seed: int = 0
    word_starts: list[float] = field(default_factory=list, repr=False)
    seconds: float = 0.0
    processing: float = 0.0
    noise_probability: float = 1.0

    @property
    def rtfx(self) -> float | None:
        """
        Seconds of speech read in a second, over all clips, as the Open ASR Leaderboard counts; None if not measured.
        """
        return self.seconds / self.processing if self.processing else None

    @property
    def words(self) -> ErrorCounts:
        """Word errors and reference lengths of every clip."""
        return word_errors(self.references, self.hypotheses)

    @property
    def characters(self) -> ErrorCounts:
        """Character errors and reference lengths of every clip."""
        return character_errors(self.references, self.hypotheses)

    def at_position(self, position: int) -> ErrorCounts:
        """Counts errors at one word position, for example 3 for the letter in GRID's sentences."""
        return position_error(self.references, self.hypotheses, position)

    def to_dict(self) -> dict:
        """Returns one row of the results file: rates as fractions, `interval` the 95 % bootstrap interval of the WER.

        Where word times are known, also the median and the 90th percentile of `word_starts`, in seconds; `rtfx` where
        the time was taken; `noise_probability` where not all clips are disturbed.
        """
        words, times = self.words, {"rtfx": self.rtfx} if self.processing else {}
        if self.word_starts:
            median, most = np.quantile(self.word_starts, (0.5, 0.9)).tolist()
            times |= {"word_start_median": median, "word_start_p90": most, "words_timed": len(self.word_starts)}
        if self.noise_probability < 1 and self.snr != CLEAN:
            times |= {"noise_probability": self.noise_probability}
        return {
            "modality": self.modality,
            "noise": self.noise,
            "snr": self.snr,
            "wer": words.rate,
            "cer": self.characters.rate,
            "interval": list(words.interval(seed=self.seed)),
            "clips": len(self.references),
            **times,
        }


def evaluate_avsr(
    model: str | Path,
    data: str | Path,
    *,
    modalities: Sequence[str] = MODALITIES,
    noises: Sequence[str] = ("babble",),
    snrs: Sequence[str | float] = (CLEAN,),
    noise_probability: float = 1.0,
    num_beams: int | None = None,
    ctc_weight: float | None = None,
    search: str | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    seed: int = 0,
    device: str | None = None,
    dtype: str = "auto",
    progress: Callable[[str, int, int], None] | None = None,
    on_problem: ProblemSink | None = None,
    stored: StoredResults | None = None,
    allow_outside: bool = False,
    num_workers: int | None = None,
) -> list[ConditionResult]:
    """Reads every clip of a folder under every condition.

    Args:
        model: checkpoint folder or Hub id.
        data: folder with a `metadata.jsonl` (`file_name`, `text`) beside the videos, or one made by `lookhear prepare`
            with the crops that the checkpoint expects.
        modalities: of "audio", "visual", "audiovisual".
        noises: of "babble" (up to 20 other clips at the same time), "human" (one-second pieces of other clips),
            "talker" (one other clip), or paths of sound files.
        snrs: "clean" or decibels over the whole clip.
        noise_probability: of each clip to be disturbed, above 0, at most 1 (the paper's test: 0.25); the clips are the
            same under every condition.
        num_beams: width of the beam search; None for the checkpoint's own.
        ctc_weight: of CTC in the search, 0 to 1; None for the checkpoint's own.
        search: "joint", "two_pass", "greedy" or "espnet"; None for the checkpoint's own.
        batch_size: clips decoded together.
        limit: only the first clips of the folder (the noise is made from them too).
        seed: of the noise and of the bootstrap.
        device: "cpu", "cuda", "cuda:1", ...; None for the first accelerator, else the CPU.
        dtype: "float32", "bfloat16" or "float16"; "auto" for that of the stored weights.
        progress: called with a label, the number of clips done, and their number.
        on_problem: called with the id of each clip that cannot be read, and its error; such clips are left out. None:
            the first one raises its error.
        stored: what an interrupted call with the same arguments has read; what is read is added to it.
        allow_outside: whether a `metadata.jsonl` may name files outside of its folder.
        num_workers: processes that read videos, before the model reads their clips; 0: this one does; None: one for
            each processor core, where there are more than four videos.

    Returns:
        One result per condition, in the order modality, noise, SNR. Noise does not change lips: "visual" is read once,
        and its figures appear under every kind of noise, as do those of "clean".

    Raises:
        ValueError: an argument or the folder is unusable.
        MediaError: a clip (without `on_problem`) or noise file cannot be read.
    """
    from lookhear.processing.avsr import normalise_text

    _check(modalities, noises, snrs, batch_size, limit)
    if not 0 < noise_probability <= 1:
        raise ValueError(
            f"noise_probability has to be above 0 and at most 1, not {noise_probability}; without noise the SNR is "
            f"'{CLEAN}'"
        )
    levels = {str(snr): parse_snr(snr) for snr in snrs}
    noisy = set(modalities) != {"visual"} and any(level is not None for level in levels.values())
    makers = {noise: noise_maker(noise) for noise in noises} if noisy else {}
    report = progress or (lambda label, done, total: None)
    how: dict[str, Any] = {"num_beams": num_beams, "ctc_weight": ctc_weight, "search": search, "device": device}
    recogniser = Recogniser(model, batch_size=batch_size, dtype=dtype, **how)
    settings: dict[str, Any] = {"limit": limit, "progress": partial(report, "clips"), "on_problem": on_problem}
    settings |= {"allow_outside": allow_outside, "num_workers": num_workers}
    clips = load_clips(data, recogniser.image_processor, **settings)
    voices = [clip.audio for clip in clips if clip.audio is not None and clip.audio.any()]
    if noisy and set(noises) & set(NOISES) and len(voices) < 2:
        raise ValueError(
            f"{data} has fewer than two clips with sound, and noise is made from the other clips; name a sound file"
        )
    ids, references = [clip.id for clip in clips], [normalise_text(clip.text) for clip in clips]
    seconds = sum(map(_length, clips))
    read: dict[tuple[str, str, float | None], tuple[list[str], list[float], float]] = {}
    results = []
    for modality in dict.fromkeys(modalities):
        for noise in dict.fromkeys(noises):
            for snr, level in levels.items():
                level = None if modality == "visual" else level
                key = (modality, "" if level is None else noise, level)
                if key not in read:
                    label = modality if level is None else f"{modality}, {noise} {snr} dB"
                    heard = clips
                    if level is not None:
                        heard = [
                            _disturbed(clip, voices, noise, makers[noise], level, seed)
                            if _is_chosen(clip, noise_probability, seed)
                            else clip
                            for clip in clips
                        ]
                    started = time.perf_counter()
                    read_clips = recogniser if stored is None else partial(recogniser, stored=stored, condition=label)
                    found = read_clips(heard, modality, partial(report, label))
                    processing = time.perf_counter() - started + sum(result.get("seconds", 0.0) for result in found)
                    timed = [
                        (clip.words, result["chunks"])
                        for clip, result in zip(clips, found)
                        if clip.words and recogniser.has_times
                    ]
                    starts = [error for words, chunks in timed for error in word_start_errors(words, chunks)]
                    read[key] = [result["text"] for result in found], starts, processing
                texts, starts, processing = read[key]
                figures = (texts, seed, starts, seconds, processing, noise_probability)
                results.append(ConditionResult(modality, noise, snr, ids, references, *figures))
    return results


class Recogniser:
    """A checkpoint that reads decoded clips in batches, through the public pipeline.

    Args:
        model: checkpoint folder or Hub id.
        num_beams: width of the beam search; None for the checkpoint's own.
        ctc_weight: of CTC in the search, 0 to 1; None for the checkpoint's own.
        search: "joint", "two_pass", "greedy" or "espnet"; None for the checkpoint's own.
        batch_size: clips decoded together.
        device: None for the first accelerator, else the CPU.
        dtype: "float32", "bfloat16" or "float16"; "auto" for that of the stored weights.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        num_beams: int | None = None,
        ctc_weight: float | None = None,
        search: str | None = None,
        batch_size: int = 8,
        device: str | None = None,
        dtype: str = "auto",
    ):
        from transformers import pipeline

        import lookhear  # noqa: F401 - registers the task

        given = {"num_beams": num_beams, "ctc_weight": ctc_weight, "search": search}
        settings = {name: value for name, value in given.items() if value is not None}
        self.asr: Any = pipeline(  # type: ignore[call-overload]  # transformers' types list only its own tasks
            "audio-visual-speech-recognition", model=str(model), device=device, dtype=dtype, **settings
        )
        self.batch_size = batch_size

    @property
    def image_processor(self) -> Any:
        """The [`MouthRoiImageProcessor`] of this checkpoint."""
        return self.asr.processor.image_processor

    @property
    def has_times(self) -> bool:
        """Whether this checkpoint can give the times of words: whether its CTC head was trained."""
        config = self.asr.model.config
        return bool(config.ctc_loss_weight or config.alignment_loss_weight)

    def __call__(
        self,
        clips: Sequence[Clip],
        modality: str,
        progress: Callable[[int, int], None],
        stored: StoredResults | None = None,
        condition: str = "",
    ) -> list[dict]:
        """
        Reads the clips; a clip without sound or picture is read from what it has.

        Args:
            clips: to read.
            modality: "audio", "visual" or "audiovisual".
            progress: called with the number of clips done, and their number.
            stored: results of an interrupted call, which gets those of this one. Batches are those of an undisturbed
                call, as padding changes a little what is read.
            condition: what distinguishes this call's clips from those of others in `stored`.

        Returns:
            The pipeline's result for each clip, with word times if some clip knows its own and the checkpoint can give
            them; those out of `stored` have `"text"`, `"chunks"` and the `"seconds"` that reading them took.
        """
        results: list[dict] = [{"text": "", "chunks": []} for _ in clips]
        timestamps = "word" if self.has_times and any(clip.words for clip in clips) else False
        inputs = [_parts(clip, modality) for clip in clips]
        readable = [i for i, parts in enumerate(inputs) if parts]
        done = len(clips) - len(readable)
        readable.sort(key=lambda i: _length(clips[i]))  # clips of like length share a batch: less padding
        progress(done, len(clips))
        for whole in (True, False):
            group = [i for i in readable if _is_whole(inputs[i], modality) == whole]
            for first in range(0, len(group), self.batch_size):
                batch = group[first : first + self.batch_size]
                keys = [f"{condition} {i} {clips[i].id}" for i in batch]
                if stored is not None and all(key in stored for key in keys):
                    read = list(stored.values(keys))
                else:
                    settings = {"modality": modality if whole else "auto", "return_timestamps": timestamps}
                    started = time.perf_counter()
                    read = self.asr([inputs[i] for i in batch], batch_size=len(batch), **settings)
                    if stored is not None:
                        seconds = (time.perf_counter() - started) / len(batch)
                        for key, result in zip(keys, read, strict=True):
                            row = {"text": result["text"], "chunks": result.get("chunks", []), "seconds": seconds}
                            stored.add(key, row)
                for i, result in zip(batch, read, strict=True):
                    results[i] = result
                done += len(batch)
                progress(done, len(clips))
        return results


def _parts(clip: Clip, modality: str) -> dict:
    """Returns the pipeline's input: those parts of the clip that the modality reads."""
    parts: dict = {}
    if modality != "visual" and clip.audio is not None:
        parts |= {"audio": clip.audio, "sampling_rate": SAMPLING_RATE}
    if modality != "audio" and clip.mouths is not None:
        parts["mouths"] = clip.mouths
    return parts


def load_clips(
    data: str | Path,
    image_processor: Any,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_problem: ProblemSink | None = None,
    allow_outside: bool = False,
    num_workers: int | None = None,
) -> list[Clip]:
    """Decodes every clip of a `metadata.jsonl` folder of videos, or of a prepared one, and crops its mouths.

    A clip in which hardly a face was found has no mouths, as in the pipeline.

    Args:
        data: the folder.
        image_processor: crops the mouths.
        limit: only the first clips.
        progress: called with the number of clips done, and their number.
        on_problem: see [`evaluate_avsr`].
        allow_outside: see [`evaluate_avsr`].
        num_workers: see [`evaluate_avsr`].

    Raises:
        ValueError: the crops of a prepared folder don't fit, or no clip can be read; without `on_problem`, one can't.
    """
    from lookhear.processing.avsr import MIN_FACE_SHARE
    from lookhear.training.avsr.corpora import read_folder
    from lookhear.training.avsr.prepare import decode_row, load_prepared, read_utterances, shard_files

    data = Path(data)
    if prepared := bool(shard_files(data)):
        rows = load_prepared(data)
        rows = rows.select(range(min(limit or len(rows), len(rows))))
        read: Iterator[dict | Exception] = map(decode_row, rows)
    else:
        rows = list(read_folder(data, allow_outside=allow_outside))[:limit]
        read = read_utterances(rows, image_processor, num_workers)
    clips = []
    for number, row in enumerate(rows, start=1):
        if progress is not None:
            progress(number, len(rows))
        try:
            clip = next(read)
            if isinstance(clip, Exception):
                raise clip
        except (ValueError, OSError) as error:
            if on_problem is None:
                raise
            on_problem(row["id"] if prepared else row.id, error)
            continue
        if clip["mouths"] is not None and clip["mouths"].shape[-1] != image_processor.roi_size:
            raise ValueError(
                f"{data} was prepared with crops of {clip['mouths'].shape[-1]} pixels, the checkpoint reads crops of "
                f"{image_processor.roi_size}: run `lookhear prepare --model` with this checkpoint"
            )
        seen = clip["mouths"] is not None and (clip["report"].get("frames_with_face") or 0.0) >= MIN_FACE_SHARE
        clips.append(Clip(clip["id"], clip["text"], clip["audio"], clip["mouths"] if seen else None, clip["words"]))
    if rows and not clips:
        raise ValueError(f"{data}: none of the {len(rows)} clips can be read")
    return clips


def noise_maker(kind: str) -> NoiseMaker:
    """Returns a function that makes noise of one kind: "babble", "human" or "talker" from other clips, or a sound
    file's.

    Raises:
        MediaError: the sound file cannot be read.
        ValueError: it is silent.
    """
    from lookhear.processing.avsr import babble, competing_talker, human_noise, read_audio

    makers: dict[str, NoiseMaker] = {"babble": babble, "human": human_noise, "talker": competing_talker}
    if kind in makers:
        return makers[kind]
    wave = read_audio(kind, trim_to_video=False)
    if wave is None or not wave.any():
        raise ValueError(f"noise {kind!r} has no sound; choose another file, or one of {', '.join(NOISES)}")
    return partial(_piece, wave)


def _piece(wave: np.ndarray, others: Sequence[np.ndarray], samples: int, generator: np.random.Generator) -> np.ndarray:
    start = int(generator.integers(max(len(wave) - samples, 0) + 1))
    return wave[start : start + samples]


def _is_chosen(clip: Clip, probability: float, seed: int) -> bool:
    """Draws whether a clip is disturbed: by seed and clip id only, so that all conditions disturb the same clips."""
    return bool(np.random.default_rng([seed, zlib.crc32(clip.id.encode())]).random() < probability)


def _disturbed(
    clip: Clip, voices: Sequence[np.ndarray], noise: str, make: NoiseMaker, level: float, seed: int
) -> Clip:
    """
    Adds noise from all voices but the clip's own to it; the noise depends on seed, clip id and kind, not on the level.
    """
    from lookhear.processing.avsr import mix_at_snr

    if clip.audio is None:
        return clip
    generator = np.random.default_rng([seed, zlib.crc32(clip.id.encode()), zlib.crc32(Path(noise).name.encode())])
    noise_wave = make([voice for voice in voices if voice is not clip.audio], len(clip.audio), generator)
    return replace(clip, audio=mix_at_snr(clip.audio, noise_wave, level))


def _is_whole(parts: dict, modality: str) -> bool:
    return ("audio" in parts or modality == "visual") and ("mouths" in parts or modality == "audio")


def _length(clip: Clip) -> float:
    """Returns the length of a clip in seconds."""
    if clip.audio is not None:
        return len(clip.audio) / SAMPLING_RATE
    return len(clip.mouths) / 25 if clip.mouths is not None else 0.0


def parse_snr(snr: str | float) -> float | None:
    """Parses an SNR as it is typed, in decibels: None for "clean".

    Raises:
        ValueError: neither "clean" nor a finite number.
    """
    if snr == CLEAN:
        return None
    try:
        level = float(snr)
    except (TypeError, ValueError):
        level = math.nan
    if not math.isfinite(level):
        raise ValueError(f"snr {snr!r} is neither '{CLEAN}' nor a number of decibels")
    return level


def _check(
    modalities: Sequence[str], noises: Sequence[str], snrs: Sequence, batch_size: int, limit: int | None
) -> None:
    for name, values in (("modalities", modalities), ("noises", noises), ("snrs", snrs)):
        if isinstance(values, str) or not len(values):
            raise ValueError(f"{name} has to be a list with at least one entry, not {values!r}")
    for modality in modalities:
        if modality not in MODALITIES:
            raise ValueError(f"modality {modality!r} is unknown; choose from {', '.join(MODALITIES)}")
    for noise in noises:
        if noise not in NOISES and not Path(noise).is_file():
            raise ValueError(f"noise {noise!r} is neither one of {', '.join(NOISES)} nor a sound file")
    if batch_size < 1:
        raise ValueError(f"batch_size has to be at least 1, not {batch_size}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit has to be at least 1, not {limit}")

"""How many words a recogniser invents where nobody speaks: twelve kinds of sound and lips without words.

The sounds are made from a seed; the lips are those of clips with speech, standing still, at rest, or nodding while
somebody listens. What is counted is the number of words in a minute.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.evaluation.avsr_conditions import MODALITIES, SAMPLING_RATE, Clip, Recogniser, load_clips

SOUNDS = ("silence", "dither", "white", "pink", "brown", "hum", "tone", "music", "babble")
LIPS = ("still face", "resting face", "listener")
KINDS = SOUNDS + LIPS
SECONDS = (3.0, 7.0)  # lengths of the clips in turn: one that is read as a whole, and one that is read in pieces
LEVELS = (-50.0, -20.0)  # dBFS of noise, hum, tones and music
BABBLE_LEVEL = -40.0  # dBFS: people far away
FPS = 25


@dataclass(frozen=True)
class NonSpeechResult:
    """
    What was read of one kind of clips without words.

    Attributes:
        modality: `"audio"`, `"visual"` or `"audiovisual"`.
        kind: of `KINDS`.
        seconds: of all clips.
        texts: that were read, in the order of the clips.
    """

    modality: str
    kind: str
    seconds: float
    texts: list[str] = field(repr=False)

    @property
    def words(self) -> int:
        """Number of words that were read."""
        return sum(len(text.split()) for text in self.texts)

    @property
    def words_a_minute(self) -> float:
        """Words in a minute."""
        return 60 * self.words / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns one row of the results file."""
        spoken = sum(bool(text.split()) for text in self.texts)
        row = {"modality": self.modality, "kind": self.kind, "clips": len(self.texts), "seconds": self.seconds}
        return {**row, "words": self.words, "words_a_minute": self.words_a_minute, "clips_with_words": spoken}


def evaluate_non_speech(
    model: str | Path,
    data: str | Path,
    *,
    modalities: Sequence[str] = MODALITIES,
    clips: int = 12,
    seed: int = 0,
    num_beams: int | None = None,
    ctc_weight: float | None = None,
    search: str | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    device: str | None = None,
    dtype: str = "auto",
    progress: Callable[[str, int, int], None] | None = None,
) -> list[NonSpeechResult]:
    """
    Reads clips without words of each kind.

    Args:
        model: checkpoint folder or Hub id.
        data: folder of clips with speech, see `evaluate_avsr`: lips and babble are made of them.
        modalities: of "audio", "visual", "audiovisual"; in the last one sounds are read beside lips of each kind in
            turn, and lips beside sounds of each kind in turn.
        clips: of each kind, at least 1.
        seed: of everything random.
        num_beams: width of the beam search; None for the checkpoint's own.
        ctc_weight: of CTC in the search, 0 to 1; None for the checkpoint's own.
        search: "joint", "two_pass", "greedy" or "espnet"; None for the checkpoint's own.
        batch_size: clips read together.
        limit: only the first clips of the folder are used.
        device: "cpu", "cuda", …; None for the first accelerator, else the CPU.
        dtype: "float32", "bfloat16" or "float16"; "auto" for that of the stored weights.
        progress: called with a label, the number of clips done, and their number.

    Returns:
        One result for each modality and kind that it has.

    Raises:
        ValueError: an argument or the folder is unusable.
    """
    for modality in modalities:
        if modality not in MODALITIES:
            raise ValueError(f"modality {modality!r} is unknown; choose from {', '.join(MODALITIES)}")
    if clips < 1:
        raise ValueError(f"clips is {clips}; it must be at least 1")
    settings: dict[str, Any] = {"num_beams": num_beams, "ctc_weight": ctc_weight, "search": search}
    recogniser = Recogniser(model, batch_size=batch_size, device=device, dtype=dtype, **settings)
    report = progress or (lambda label, done, total: None)
    spoken = load_clips(data, recogniser.image_processor, limit=limit, progress=partial(report, "clips"))
    voices = [clip.audio for clip in spoken if clip.audio is not None and clip.audio.any()]
    faces = [clip for clip in spoken if clip.mouths is not None]
    if len(voices) < 2 or (not faces and set(modalities) != {"audio"}):
        raise ValueError(f"{data} needs two clips with sound, and one with a face: babble and lips are made of them")
    results = []
    for modality in dict.fromkeys(modalities):
        for kind in {"audio": SOUNDS, "visual": LIPS}.get(modality, KINDS):
            made = [quiet_clip(kind, modality, number, voices, faces, seed) for number in range(clips)]
            found = recogniser(made, modality, partial(report, f"{modality}, {kind}"))
            seconds = sum(SECONDS[number % len(SECONDS)] for number in range(clips))
            results.append(NonSpeechResult(modality, kind, seconds, [result["text"] for result in found]))
    return results


def quiet_clip(
    kind: str, modality: str, number: int, voices: Sequence[np.ndarray], faces: Sequence[Clip], seed: int
) -> Clip:
    """
    Makes clip `number` of a kind: the same in every run with the same seed.

    Args:
        kind: of `KINDS`.
        modality: what it has: sound, lips, or both.
        number: of the clip, from 0 on.
        voices: waves that babble is mixed of.
        faces: clips with lips.
        seed: of everything random.
    """
    generator = np.random.default_rng([seed, number, zlib.crc32(kind.encode())])
    seconds = SECONDS[number % len(SECONDS)]
    audio = mouths = None
    if modality != "visual":
        sound = kind if kind in SOUNDS else SOUNDS[number % len(SOUNDS)]
        audio = quiet_sound(sound, round(seconds * SAMPLING_RATE), voices, generator)
    if modality != "audio":
        face = kind if kind in LIPS else LIPS[number % len(LIPS)]
        mouths = quiet_lips(face, round(seconds * FPS), faces[int(generator.integers(len(faces)))], generator)
    return Clip(f"{kind} {number}", "", audio, mouths)


def quiet_sound(kind: str, samples: int, voices: Sequence[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """
    Makes a sound without words.

    Args:
        kind: of `SOUNDS`.
        samples: length.
        voices: waves that babble is mixed of.
        generator: source of random numbers.

    Returns:
        `(samples,)` float32 at 16 kHz.
    """
    from lookhear.processing.avsr import babble

    time = np.arange(samples) / SAMPLING_RATE
    if kind == "silence":
        return np.zeros(samples, np.float32)
    if kind == "dither":
        return (generator.integers(-1, 2, samples) / 32768).astype(np.float32)
    level = generator.uniform(*LEVELS)
    if kind == "babble":
        wave, level = babble(voices, samples, generator), BABBLE_LEVEL
    elif kind in ("white", "pink", "brown"):
        slope = {"white": 0.0, "pink": 1.0, "brown": 2.0}[kind]
        frequencies = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLING_RATE), 20.0)
        wave = np.fft.irfft(np.fft.rfft(generator.standard_normal(samples)) * frequencies ** (-slope / 2), samples)
    elif kind == "hum":
        orders = (1, 2, 3, 5, 7, 9)
        wave = np.sum([np.sin(2 * np.pi * 50 * n * time + generator.uniform(0, 6)) / n for n in orders], axis=0)
    elif kind == "tone":
        wave = np.sin(2 * np.pi * generator.choice([220, 440, 1000, 3150]) * time)
    else:
        wave = _melody(samples, generator)
    loudness = np.sqrt(np.mean(np.square(wave)))
    return (wave / max(float(loudness), 1e-9) * 10 ** (level / 20)).clip(-1, 1).astype(np.float32)


def _melody(samples: int, generator: np.random.Generator) -> np.ndarray:
    """Plays chords of three saw-like voices of a synthesizer, a third of a second each."""
    wave, length = np.zeros(samples), SAMPLING_RATE // 3
    for start in range(0, samples, length):
        time = np.arange(min(length, samples - start)) / SAMPLING_RATE
        root = 48 + generator.choice([0, 3, 5, 7, 8, 10])
        for interval in (0, 4, 7):
            frequency = 440 * 2 ** ((root + interval - 69) / 12)
            tones = [np.sin(2 * np.pi * frequency * n * time) / n for n in range(1, 8)]
            wave[start : start + len(time)] += np.sum(tones, axis=0) * np.exp(-3 * time)
    return wave


def quiet_lips(kind: str, frames: int, face: Clip, generator: np.random.Generator) -> np.ndarray:
    """
    Makes lips that say nothing of a clip's own: still, at rest before and after its words, or nodding as well.

    Args:
        kind: of `LIPS`.
        frames: wanted.
        face: a clip with lips.
        generator: source of random numbers.

    Returns:
        `(frames, size, size)` uint8.
    """
    assert face.mouths is not None  # of a face
    first = face.mouths[int(generator.integers(len(face.mouths)))]
    if kind == "still face":
        return np.repeat(first[None], frames, axis=0)
    words = face.words or []
    begin = round(words[0]["start"] * FPS) - 2 if words else 0
    end = round(words[-1]["end"] * FPS) + 3 if words else len(face.mouths)
    rests = [part for part in (face.mouths[: max(begin, 0)], face.mouths[end:]) if len(part) >= 3]
    rest = max(rests, key=len) if rests else face.mouths[:1]
    loop = np.concatenate([rest, rest[::-1]])
    lips = loop[(int(generator.integers(len(loop))) + np.arange(frames)) % len(loop)]
    if kind == "listener":
        swing = 3 * np.sin(2 * np.pi * generator.uniform(0.8, 1.6) * np.arange(frames) / FPS)
        lips = np.stack([np.roll(picture, round(shift), axis=0) for picture, shift in zip(lips, swing)])
    return lips


def format_non_speech(results: Sequence[NonSpeechResult], markdown: bool = False) -> str:
    """
    Formats words a minute, a line for each kind and one for all of them, a column for each modality.

    Args:
        results: of [`evaluate_non_speech`].
        markdown: whether it is a table of Markdown, as in a model card.
    """
    modalities = list(dict.fromkeys(result.modality for result in results))
    rates = {(result.modality, result.kind): result.words_a_minute for result in results}
    lines = [["words a minute of", *modalities]]
    for kind in (kind for kind in KINDS if any((m, kind) in rates for m in modalities)):
        lines.append([kind, *(f"{rates[m, kind]:.1f}" if (m, kind) in rates else "-" for m in modalities)])
    lines.append(["all kinds", *(f"{mean_rate(results, modality):.1f}" for modality in modalities)])
    if markdown:
        rows = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([rows[0], "|" + "---|" * len(lines[0]), *rows[1:]]) + "\n"
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    aligned = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines)
    return "".join("  ".join(line) + "\n" for line in aligned)


def mean_rate(results: Sequence[NonSpeechResult], modality: str) -> float:
    """Returns the words in a minute of all kinds of one modality."""
    chosen = [result for result in results if result.modality == modality]
    return 60 * sum(result.words for result in chosen) / max(sum(result.seconds for result in chosen), 1e-9)

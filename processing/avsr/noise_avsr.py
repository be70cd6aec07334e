"""Noise in which speech recognition is trained and evaluated: babble, human noise, one competing talker.

The kinds of noise are those of Pan et al. (ACL 2022, section 4.1): babble is the sum of 20 utterances, human noise is
a chain of one-second pieces of utterances. All of it is made from other utterances of the same corpus, so no noise
corpus is needed, and all random choices come from the `numpy.random.Generator` that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mix_at_snr(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Adds noise to speech at a signal-to-noise ratio measured over the whole clip.

    Args:
        speech: `(samples,)` floating point wave. It is not changed, so the sum may leave [-1, 1].
        noise: `(any,)` wave; repeated where it is shorter than the speech, cut where it is longer.
        snr_db: power of the speech over power of the noise, in decibels.

    Returns:
        `(samples,)` float32. Silent speech is returned unchanged: no noise is quiet enough for it.

    Raises:
        ValueError: an argument does not have one dimension, holds NaN or infinity, or the noise is empty or silent.
    """
    speech, noise = _wave(speech, "speech"), _wave(noise, "noise")
    if not np.isfinite(snr_db):
        raise ValueError(
            f"snr_db has to be a finite number of decibels, not {snr_db}; leave the noise out for clean speech"
        )
    noise = _loop(noise, len(speech))
    speech_power, noise_power = _power(speech, "speech"), _power(noise, "noise")
    if noise_power == 0 and len(speech):
        raise ValueError("noise is silent, so no level of it gives a signal-to-noise ratio; pass another noise")
    if speech_power == 0:
        return speech.copy()
    gain = np.sqrt(speech_power / noise_power / 10 ** (snr_db / 10))
    return speech + np.float32(gain) * noise


def babble(
    utterances: Sequence[np.ndarray], samples: int, generator: np.random.Generator, talkers: int = 20
) -> np.ndarray:
    """Adds up many voices: `talkers` different utterances, each scaled to a peak of one.

    Each voice starts at a random place and loops when it ends. If there are fewer than `talkers`
    utterances, all are used.

    Args:
        utterances: waves `(any,)`, the clip to be disturbed not among them.
        samples: length of the noise.
        generator: the source of random numbers.
        talkers: number of voices; 20 in the paper.

    Returns:
        `(samples,)` float32 of mean 0 and variance 1.
    """
    if talkers < 1:
        raise ValueError(f"talkers has to be at least 1, not {talkers}")
    chosen = generator.permutation(_count(utterances))[:talkers]
    total = np.zeros(samples, np.float32)
    for index in chosen:
        voice = _wave(utterances[index], "utterances")
        peak = np.abs(voice).max(initial=0)
        if peak > 0:
            total += _loop(voice, samples, int(generator.integers(len(voice)))) / peak
    return _standardise(total)


def human_noise(
    utterances: Sequence[np.ndarray],
    samples: int,
    generator: np.random.Generator,
    piece_seconds: float = 1.0,
    sampling_rate: int = 16000,
) -> np.ndarray:
    """Returns one voice after the other: pieces of random utterances at their own level, joined without a pause.

    Args:
        utterances: waves `(any,)`, the clip to be disturbed not among them. One shorter than a piece is used whole.
        samples: length of the noise.
        generator: the source of random numbers.
        piece_seconds: length of a piece; one second in the paper.
        sampling_rate: of the utterances, in Hz.

    Returns:
        `(samples,)` float32 of mean 0 and variance 1.
    """
    piece = round(piece_seconds * sampling_rate)
    if piece < 1:
        raise ValueError(
            f"piece_seconds has to cover at least one sample, not {piece_seconds} s at {sampling_rate} Hz"
        )
    count = _count(utterances)
    pieces: list[np.ndarray] = []
    filled = 0
    while filled < samples:
        voice = _wave(utterances[int(generator.integers(count))], "utterances")
        start = int(generator.integers(max(len(voice) - piece, 0) + 1))
        pieces.append(voice[start : start + piece])
        filled += len(pieces[-1])
    return _standardise(np.concatenate([*pieces, np.zeros(0, np.float32)])[:samples])


def competing_talker(utterances: Sequence[np.ndarray], samples: int, generator: np.random.Generator) -> np.ndarray:
    """Returns one other speaker: a random utterance that starts at a random place and loops.

    Args:
        utterances: waves `(any,)`, the clip to be disturbed not among them.
        samples: length of the noise.
        generator: the source of random numbers.

    Returns:
        `(samples,)` float32 of mean 0 and variance 1.
    """
    voice = _wave(utterances[int(generator.integers(_count(utterances)))], "utterances")
    return _standardise(_loop(voice, samples, int(generator.integers(len(voice)))))


def _wave(wave: np.ndarray, name: str) -> np.ndarray:
    wave = np.asarray(wave, np.float32)
    if wave.ndim != 1:
        raise ValueError(
            f"{name}: a wave has one dimension, (samples,), not the shape {wave.shape}; mix channels first"
        )
    if name != "speech" and not len(wave):
        raise ValueError(f"{name}: a wave has no samples; leave empty recordings out")
    return wave


def _count(utterances: Sequence[np.ndarray]) -> int:
    if not len(utterances):
        raise ValueError("utterances is empty: noise is mixed from other utterances, so at least one is needed")
    return len(utterances)


def _power(wave: np.ndarray, name: str) -> float:
    power = float(np.mean(np.square(wave, dtype=np.float64))) if len(wave) else 0.0
    if not np.isfinite(power):
        raise ValueError(f"{name} holds NaN or infinite samples; clean the recording first")
    return power


def _loop(wave: np.ndarray, samples: int, start: int = 0) -> np.ndarray:
    """Returns `samples` values of a wave from `start` on, repeated as often as needed."""
    repeats = -(-(start + samples) // len(wave))
    return (np.tile(wave, repeats) if repeats > 1 else wave)[start : start + samples]


def _standardise(wave: np.ndarray) -> np.ndarray:
    """Scales a wave to mean 0 and variance 1; silence stays silence."""
    wave = wave - wave.mean() if len(wave) else wave
    deviation = wave.std() if len(wave) else 0
    return (wave / deviation if deviation > 0 else wave).astype(np.float32)

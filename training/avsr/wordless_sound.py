"""Sounds without words, of many kinds and levels: what a recogniser must answer with nothing."""

from collections.abc import Callable, Sequence

import numpy as np

from lookhear.processing.avsr.noise_avsr import babble

RATE = 16000  # Hz
NYQUIST = RATE / 2
LEVELS = (-60.0, -10.0)  # dBFS, root mean square
BABBLE_TALKERS = (12, 24)  # fewer voices can be understood, and then they are speech
MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)  # semitones
MINOR = (0, 2, 3, 5, 7, 8, 10, 12)

Wave = np.ndarray  # (samples,) float64 of any level


def coloured_noise(samples: int, generator: np.random.Generator, slope: float | None = None) -> Wave:
    """
    Makes noise whose power falls with frequency.

    Args:
        samples: length.
        generator: source of random numbers.
        slope: power falls with frequency to this power: 0 white, 1 pink, 2 brown, -2 violet; None: drawn.
    """
    slope = float(generator.uniform(-2.0, 2.4)) if slope is None else slope
    spectrum = np.fft.rfft(generator.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / RATE)
    frequencies[0] = 1 / samples * RATE
    wave: Wave = np.fft.irfft(spectrum * (frequencies / 1000) ** (-slope / 2), samples)
    return wave / max(float(wave.std()), 1e-12)


def band_noise(samples: int, generator: np.random.Generator) -> Wave:
    """Makes noise of one band of frequencies: breath, hiss, rumble, a kettle."""
    low = _logarithmic(60, 4000, generator)
    high = min(0.99 * NYQUIST, low * generator.uniform(1.3, 6))
    frequencies = np.fft.rfftfreq(samples, 1 / RATE)
    spectrum = np.fft.rfft(generator.standard_normal(samples)) * ((frequencies > low) & (frequencies < high))
    return np.fft.irfft(spectrum, samples)


def wind(samples: int, generator: np.random.Generator) -> Wave:
    """Makes gusts of low noise."""
    return coloured_noise(samples, generator, generator.uniform(1.5, 2.6)) * slow_envelope(samples, generator, 0.3, 2)


def hum(samples: int, generator: np.random.Generator) -> Wave:
    """Makes the harmonics of a mains frequency, or of a motor or fan."""
    base = generator.choice([50.0, 60.0]) if generator.random() < 0.6 else generator.uniform(30, 240)
    time = np.arange(samples) / RATE
    fall = generator.uniform(0, 1.4)
    orders = np.arange(1, int(generator.integers(3, 16)))
    parts = (
        generator.uniform(0, 1) / order**fall * np.sin(2 * np.pi * base * order * time + generator.uniform(0, 6.3))
        for order in orders
    )
    return np.sum(list(parts), axis=0)


def tone(samples: int, generator: np.random.Generator) -> Wave:
    """Makes one or two pure tones, steady or as beeps."""
    time = np.arange(samples) / RATE
    wave = np.sin(2 * np.pi * _logarithmic(80, 6000, generator) * time)
    if generator.random() < 0.4:  # two at a time, as telephones dial
        wave = wave + np.sin(2 * np.pi * _logarithmic(300, 2500, generator) * time)
    if generator.random() < 0.5:
        beats = np.sin(2 * np.pi * generator.uniform(0.5, 8) * time + generator.uniform(0, 6.3))
        wave = wave * (beats > generator.uniform(-0.5, 0.5))
    return wave


def sweep(samples: int, generator: np.random.Generator) -> Wave:
    """Makes a tone that rises or falls again and again: sirens, birds, whistles."""
    low, high = _logarithmic(80, 7000, generator), _logarithmic(80, 7000, generator)
    length = generator.uniform(0.05, 4.0)
    place = (np.arange(samples) / RATE % length) / length
    wave = np.sin(2 * np.pi * np.cumsum(low * (high / low) ** place) / RATE)
    gaps = generator.random() < 0.5
    return wave * (slow_envelope(samples, generator, 1, 6) if gaps else 1.0)


def music(samples: int, generator: np.random.Generator) -> Wave:
    """Makes notes and chords of a synthesizer, some with vibrato, some with drums."""
    beat = generator.uniform(0.1, 0.6)
    scale = MAJOR if generator.random() < 0.5 else MINOR
    root, voices = generator.uniform(36, 64), int(generator.integers(1, 5))
    brightness, decay = generator.uniform(0.3, 2.2), generator.uniform(0.3, 8)
    drums = generator.random() < 0.5
    wave = np.zeros(samples)
    start = 0
    while start < samples:
        length = min(samples - start, int(RATE * beat * generator.choice([1, 1, 2, 3, 4])))
        pitches = root + generator.choice(scale, voices) + 12 * generator.integers(0, 3, voices)
        for pitch in pitches:
            wave[start : start + length] += _note(pitch, length, brightness, decay, generator)
        if drums:
            _add_burst(wave, start, 0.08, generator)
        start += length
    return wave


def _note(pitch: float, length: int, brightness: float, decay: float, generator: np.random.Generator) -> Wave:
    """Makes one note of `length` samples; its pitch is that of MIDI."""
    time = np.arange(length) / RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    vibrato = 0.006 * np.sin(2 * np.pi * 5.5 * time) if generator.random() < 0.3 else 0.0
    phase = 2 * np.pi * np.cumsum(frequency * (1 + vibrato) * np.ones(length)) / RATE
    harmonics = [order for order in range(1, 7) if order * frequency < NYQUIST] or [1]
    wave = np.sum([np.sin(order * phase) / order**brightness for order in harmonics], axis=0)
    return wave * np.exp(-decay * time) * np.minimum(1, time / 0.01) * generator.uniform(0.3, 1)


def plucked_strings(samples: int, generator: np.random.Generator) -> Wave:
    """Makes plucked strings: each harmonic of a note dies away the faster the higher it is."""
    wave = np.zeros(samples)
    for start in _starts(samples, _logarithmic(1, 8, generator), generator):
        length = min(samples - start, int(RATE * 1.5))
        time = np.arange(length) / RATE
        frequency = _logarithmic(80, 900, generator)
        for order in range(1, 9):
            if order * frequency < NYQUIST:
                fading = np.exp(-time * (1.5 + 1.2 * order))
                phase = generator.uniform(0, 6.3)
                wave[start : start + length] += fading * np.sin(2 * np.pi * order * frequency * time + phase) / order
    return wave


def knocks(samples: int, generator: np.random.Generator) -> Wave:
    """Makes short bursts: typing, clicks, taps, footsteps, rain."""
    wave = np.zeros(samples)
    longest = generator.uniform(0.002, 0.12)
    for start in _starts(samples, _logarithmic(0.7, 40, generator), generator):
        _add_burst(wave, start, longest, generator)
    return wave


def _add_burst(wave: Wave, start: int, longest: float, generator: np.random.Generator) -> None:
    """Adds a burst of noise, or of one tone, of at most `longest` seconds to a wave."""
    length = min(len(wave) - start, max(8, int(RATE * longest * generator.uniform(0.2, 1))))
    time = np.arange(length) / RATE
    fading = np.exp(-time * generator.uniform(3, 12) / longest) * generator.uniform(0.2, 1.5)
    if generator.random() < 0.5:
        wave[start : start + length] += fading * np.sin(2 * np.pi * _logarithmic(100, 5000, generator) * time)
    else:
        wave[start : start + length] += fading * generator.standard_normal(length)


def rubbing(samples: int, generator: np.random.Generator) -> Wave:
    """Makes the strokes of something rubbed or rustled."""
    return band_noise(samples, generator) * slow_envelope(samples, generator, 1, 8)


def slow_envelope(samples: int, generator: np.random.Generator, slowest: float, fastest: float) -> Wave:
    """Makes a loudness, 0 to 1, that changes between `slowest` and `fastest` times a second."""
    points = max(2, int(samples / RATE * generator.uniform(slowest, fastest)) + 2)
    heights = generator.uniform(0, 1, points) ** generator.uniform(0.5, 3)
    return np.interp(np.arange(samples), np.linspace(0, samples, points), heights)


def _starts(samples: int, rate: float, generator: np.random.Generator) -> list[int]:
    """Draws where bursts begin, about `rate` of them a second: evenly spaced or anywhere."""
    count = max(1, int(samples / RATE * rate))
    if generator.random() < 0.5:
        return sorted(generator.integers(0, samples, count).tolist())
    return np.linspace(0, samples, count, endpoint=False).astype(int).tolist()


def _logarithmic(low: float, high: float, generator: np.random.Generator) -> float:
    """Draws a number whose logarithm is uniform."""
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


KINDS: dict[str, Callable[[int, np.random.Generator], Wave]] = {
    "coloured": coloured_noise,
    "band": band_noise,
    "wind": wind,
    "hum": hum,
    "tone": tone,
    "sweep": sweep,
    "music": music,
    "strings": plucked_strings,
    "knocks": knocks,
    "rubbing": rubbing,
}
NOISES = ("coloured", "coloured", "coloured", "music", "band", "hum", "knocks")  # beside speech, the common ones first


def digital_silence(samples: int, generator: np.random.Generator) -> np.ndarray:
    """Makes zeros, or the last bit or two of 16-bit sound as dither leaves it: `(samples,)` float32."""
    if generator.random() < 0.5:
        return np.zeros(samples, np.float32)
    if generator.random() < 0.5:
        steps = generator.integers(-1, 2, samples)
    else:
        steps = np.round(generator.uniform(-1, 1, samples) + generator.uniform(-0.5, 0.5, samples)).astype(np.int64)
    return (steps / 32768).astype(np.float32)


def wordless_sound(
    samples: int,
    generator: np.random.Generator,
    voices: Sequence[np.ndarray] = (),
    babble_share: float = 0.0,
    silence_share: float = 0.15,
) -> np.ndarray:
    """
    Makes a sound without words: of a random kind, alone or over a second one, steady, coming or going, at a random
    level.

    Args:
        samples: length, at least 1.
        generator: source of random numbers.
        voices: waves `(any,)` that babble is mixed of.
        babble_share: probability of babble, in [0, 1].
        silence_share: probability of digital silence or dither, in [0, 1].

    Returns:
        `(samples,)` float32 at 16 kHz, within full scale.
    """
    samples_made = max(samples, RATE // 10)  # spectra of a few samples say nothing
    drawn = generator.random()
    if drawn < silence_share:
        return digital_silence(samples, generator)
    if voices and drawn < silence_share + babble_share:
        talkers = int(generator.integers(BABBLE_TALKERS[0], BABBLE_TALKERS[1] + 1))
        wave: Wave = babble(voices, samples_made, generator, talkers).astype(np.float64)
    else:
        wave = _unit(KINDS[_drawn(list(KINDS), generator)](samples_made, generator))
    if generator.random() < 0.3:
        wave = wave * slow_envelope(samples_made, generator, 0.3, 8)
    if generator.random() < 0.5:  # something else, from far below it to as loud
        second = _unit(KINDS[_drawn(list(KINDS), generator)](samples_made, generator))
        wave = wave + second * 10 ** (generator.uniform(-60, 0) / 20)
    if generator.random() < 0.25:  # it sets in or ends
        edge = int(generator.integers(samples_made // 4, 3 * samples_made // 4))
        part = slice(0, edge) if generator.random() < 0.5 else slice(edge, samples_made)
        wave[part] *= 10 ** (generator.uniform(-60, -10) / 20)
    wave = _unit(wave)[:samples] * 10 ** (generator.uniform(*LEVELS) / 20)
    if generator.random() < 0.5:  # as 16 bits hold it
        wave = np.round(wave * 32768) / 32768
    return np.clip(wave, -1, 1).astype(np.float32)


def background(samples: int, generator: np.random.Generator) -> np.ndarray:
    """Makes a sound to be mixed with speech: `(samples,)` float32 of variance 1, never silent."""
    wave = KINDS[_drawn(NOISES, generator)](max(samples, RATE // 10), generator)[:samples]
    return (_unit(wave) + 1e-3 * generator.standard_normal(samples)).astype(np.float32)


def _drawn(names: Sequence[str], generator: np.random.Generator) -> str:
    return names[int(generator.integers(len(names)))]


def _unit(wave: Wave) -> Wave:
    """Scales a wave to a mean square of 1; silence stays silence."""
    power = float(np.sqrt(np.mean(np.square(wave))))
    return wave / power if power > 1e-9 else wave

"""From sound to the model's `input_values`: one channel, zero mean and unit variance over the whole utterance.

What sound comes as is brought to one form first: `scaled_samples` finds out what the values mean, and `ChannelMixer`
makes one channel of several.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor, TensorType

Channel = int | str  # number of a channel, from 0 on, or a name
CHANNEL_NAMES = {"left": 0, "right": 1}
MEAN = "mean"  # of all channels

BLOCK = 6.0  # seconds of sound in which channels are compared; what is read of them may change from one to the next
SHORTEST_BLOCK = 2.0  # seconds: a shorter rest is mixed as the block before it
CONTRAST_FRAME = 0.032  # seconds
FAINTEST = 1e-8  # mean square of a frame's differences that counts as silence
MOST_CONTRAST = 30.0  # dB: speech in a quiet room; more of it says no more
LEAST_CONTRAST = 6.0  # dB: what is louder and fainter by less is a steady noise, or nothing
MUCH_LESS = 0.6  # share of the best channel's contrast below which a channel holds noise
CANCELLED = 0.7  # share of the power that channels without a relation would have, below which their mean cancels out
FADE = 0.02  # seconds

FULL_SCALES = (2.0**15, 2.0**23, 2.0**31)  # of integers, in whatever type they come
OVERSHOOT = 2.0  # a float sample above this is not at full scale 1.0
UNKNOWN_SCALE = 128.0  # above this, floats are integers of 16 bits or more; below, they have no scale that is known


class AvsrFeatureExtractor(SequenceFeatureExtractor):
    """
    Normalises each utterance by its own mean and (population) standard deviation and pads a batch with zeros.

    Args:
        feature_size (`int`, defaults to 1): as in every sequence extractor.
        sampling_rate (`int`, defaults to 16000): samples per second that the model was trained on.
        padding_value (`float`, defaults to 0.0): as in every sequence extractor.
        do_normalize (`bool`, defaults to `True`): whether to normalise.
        kwargs: of every feature extractor.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        do_normalize: bool = True,
        **kwargs: Any,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.do_normalize = do_normalize

    def __call__(
        self,
        audio: Any,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | TensorType | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Converts utterances to the model's inputs.

        Args:
            audio (array, list or tensor):
                One channel `(samples,)`, any scale; or a batch: a list of those, or `(batch, samples)`.
            sampling_rate (`int`):
                Must be that of the extractor; it is required because a wrong one would not be noticed.
            padding (`bool` or `str`, defaults to `True`): see [`~SequenceFeatureExtractor.pad`].
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.
            kwargs:
                `max_length`, `truncation`, `pad_to_multiple_of` and `return_attention_mask` of
                [`~SequenceFeatureExtractor.pad`].

        Returns:
            `BatchFeature`: `input_values` `(batch, samples)` float32 and `attention_mask` `(batch, samples)`.

        Raises:
            ValueError: another sampling rate, or sound that is empty, not one channel, or not finite.
        """
        if sampling_rate != self.sampling_rate:
            raise ValueError(
                f"`sampling_rate` is {sampling_rate}, but this feature extractor works at {self.sampling_rate} Hz: "
                f"resample the audio and pass `sampling_rate={self.sampling_rate}`."
            )
        waves = [self._check(wave, index) for index, wave in enumerate(_as_batch(audio))]
        if self.do_normalize:
            waves = [normalise_wave(wave) for wave in waves]
        return self.pad(
            BatchFeature({"input_values": waves}), padding=padding, return_tensors=return_tensors, **kwargs
        )

    def _check(self, wave: Any, index: int) -> np.ndarray:
        """Returns one utterance as float32 `(samples,)`; a ValueError says what is wrong with it."""
        try:
            wave = as_array(wave, f"`audio[{index}]`").astype(np.float32)
        except (TypeError, ValueError):
            raise ValueError(f"`audio[{index}]` is not an array of numbers but {type(wave).__name__}.") from None
        if wave.ndim != 1:
            raise ValueError(
                f"`audio[{index}]` must be one channel of shape (samples,), not {wave.shape}: average the channels."
            )
        if wave.size == 0:
            raise ValueError(f"`audio[{index}]` is empty.")
        if not np.isfinite(wave).all():
            raise ValueError(f"`audio[{index}]` has NaN or infinite samples: repair or drop this recording.")
        return wave


def normalise_wave(wave: np.ndarray) -> np.ndarray:
    """Normalises `(samples,)` to zero mean and unit population variance, float32; a constant wave becomes zeros."""
    wave = wave.astype(np.float64)
    centred = wave - wave.mean()
    deviation = np.sqrt(np.mean(centred**2))
    return (centred / deviation if deviation > 1e-9 else np.zeros_like(centred)).astype(np.float32)


def _as_batch(audio: Any) -> list:
    """Returns a single utterance or a batch as a list of utterances."""
    if audio is None or isinstance(audio, (str, bytes)):
        raise ValueError(f"`audio` must be an array of samples or a list of such arrays, not {type(audio).__name__}.")
    if hasattr(audio, "ndim"):
        return [audio] if audio.ndim == 1 else list(audio)
    audio = list(audio)
    if not audio:
        raise ValueError("`audio` is empty: pass at least one utterance.")
    return audio if np.ndim(audio[0]) else [audio]


def as_array(values: Any, name: str) -> np.ndarray:
    """
    Returns numbers of any library as a numpy array: tensors on any device, with gradients, in bfloat16; lists of them.

    Args:
        values: an array, a tensor, a list, or a column of numbers.
        name: what the values are, in a message.

    Raises:
        ValueError: they don't form an array.
    """
    if isinstance(values, (list, tuple)) and values and hasattr(values[0], "detach"):
        values = [as_array(value, name) for value in values]
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} is no array of numbers but {type(values).__name__}.") from None


def scaled_samples(values: np.ndarray) -> np.ndarray:
    """
    Scales samples to full scale 1.0 by their type and by what the values show.

    Integers of 8 bits and `uint16` have the scale of their type. All others are as large as 16, 24 or 32 bits need,
    whatever their type: `int64` is what lists and tensors of 16-bit samples become. Unsigned ones lie around the
    middle of their range. Floats far above 1.0 are integers that were converted.

    Args:
        values: of any shape, integers or floats.

    Returns:
        The same shape, float32.

    Raises:
        ValueError: the values are beyond 32 bits.
    """
    if values.dtype.kind == "f":
        peak = float(np.abs(values).max(initial=0.0))
        if peak <= OVERSHOOT:
            return values.astype(np.float32)
        return (values / (_full_scale(peak) if peak > UNKNOWN_SCALE else peak)).astype(np.float32)
    if values.dtype.itemsize == 1 or values.dtype == np.uint16:
        limits = np.iinfo(values.dtype)
        half = (limits.max - limits.min + 1) / 2
        return ((values.astype(np.float64) - (limits.max + limits.min + 1) / 2) / half).astype(np.float32)
    low, high = (float(value) for value in (values.min(initial=0), values.max(initial=0)))
    middle = _middle(values, low, high)
    if middle:
        return ((values - middle) / middle).astype(np.float32)
    peak = max(-low, high + 1)
    if FULL_SCALES[0] < peak <= FULL_SCALES[2] and not (values & 65535).any():
        return (values / FULL_SCALES[2]).astype(np.float32)  # 16 bits, shifted to the top of 32
    return (values / _full_scale(peak)).astype(np.float32)


def _full_scale(peak: float) -> float:
    """Returns the smallest full scale of integers that holds a peak."""
    for scale in FULL_SCALES:
        if peak <= scale:
            return scale
    raise ValueError(f"reaches {peak:.3g}, which is beyond 32 bits: convert it to floats from -1 to 1")


def _middle(values: np.ndarray, low: float, high: float) -> float:
    """Returns the middle of unsigned 8- or 16-bit samples in a wider type; 0.0 where they are signed."""
    for middle in (128.0, 32768.0):
        if low >= 0 and 1.1 * middle < high < 2 * middle and abs(float(values.mean()) - middle) < middle / 8:
            return middle
    return 0.0


def checked_channel(channel: Channel | None, channels: int) -> None:
    """
    Raises a ValueError where there is no such channel.

    Args:
        channel: number, `"left"`, `"right"`, `"mean"` or None.
        channels: how many there are.
    """
    number = CHANNEL_NAMES.get(channel, channel) if isinstance(channel, str) else channel
    if isinstance(number, int) and not 0 <= number < channels:
        there = "one channel, number 0" if channels == 1 else f"{channels} channels, numbered from 0"
        raise ValueError(f"`channel`: there is no channel {channel!r}, as the sound has {there}")


class ChannelMixer:
    """
    Makes one channel of several, block by block.

    Channels in which somebody speaks are averaged; those that hold a steady noise, a hum or nothing are left out. Loud
    and faint moments tell speech from noise. Where the average cancels out, as the channels are out of phase, the best
    one is taken alone.

    Args:
        channels: their number.
        rate: samples per second.
        channel: the one to take, by number or `"left"` or `"right"`; `"mean"` for the average of all; None chooses.
        warn: called with a sentence about the choice, once the sound is over.

    Raises:
        ValueError: there is no such channel.
    """

    def __init__(
        self,
        channels: int,
        rate: int,
        channel: Channel | None = None,
        warn: Callable[[str], object] = lambda said: None,
    ):
        checked_channel(channel, channels)
        self.channels, self._rate, self._warn = channels, rate, warn
        self._fixed: np.ndarray | None = None
        if channels == 1 or channel == MEAN:
            self._fixed = np.full(channels, 1 / channels, np.float32)
        elif channel is not None:
            number = CHANNEL_NAMES[channel] if isinstance(channel, str) else channel
            self._fixed = np.eye(channels, dtype=np.float32)[number]
        self._waiting: list[np.ndarray] = []
        self._count = 0  # samples that wait
        self._weights: np.ndarray | None = None  # of the latest block
        self._left_out: set[int] = set(range(channels))  # channels that were in no block so far
        self._cancelled = False

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Takes `(channels, n)` float32; yields `(n,)` float32 arrays as soon as a block is complete."""
        if self._fixed is not None:
            yield samples[0] if self.channels == 1 else weighted_sum(samples, self._fixed)
            return
        self._waiting.append(samples)
        self._count += samples.shape[1]
        size = round(BLOCK * self._rate)
        while self._count >= size:
            waiting = np.concatenate(self._waiting, axis=1)
            self._waiting, self._count = [waiting[:, size:]], self._count - size
            yield self._mixed(waiting[:, :size])

    def finish(self) -> Iterator[np.ndarray]:
        """Yields the rest, once all was added."""
        if self._count:
            yield self._mixed(np.concatenate(self._waiting, axis=1))
            self._waiting, self._count = [], 0
        if self._weights is None:
            return
        if self._cancelled:
            self._warn("the channels cancel each other out: one of them is read, `channel` chooses another")
        elif self._left_out:
            read = ", ".join(str(number) for number in range(self.channels) if number not in self._left_out)
            self._warn(f"speech is heard in channel {read} of {self.channels} only; `channel` chooses another")

    def _mixed(self, block: np.ndarray) -> np.ndarray:
        """Returns `(n,)` of a block, faded over from the previous block's channels."""
        before = weights = self._weights
        if weights is None or block.shape[1] >= SHORTEST_BLOCK * self._rate:
            weights, cancelled = mixing_weights(block, self._rate, before)
            self._cancelled |= cancelled
            self._left_out -= set(np.flatnonzero(weights).tolist())
        self._weights, mixed = weights, weighted_sum(block, weights)
        if before is not None and (before != weights).any():
            fade = np.linspace(0, 1, min(round(FADE * self._rate), len(mixed)), dtype=np.float32)
            old = weighted_sum(block[:, : len(fade)], before)
            mixed[: len(fade)] = fade * mixed[: len(fade)] + (1 - fade) * old
        return mixed


def weighted_sum(samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns `(n,)` float32: the sum of `(channels, n)` times `(channels,)`; no BLAS, whose threads spin on."""
    total = np.zeros(samples.shape[1], np.float32)
    for wave, weight in zip(samples, weights):
        if weight:
            total += wave * weight
    return total


def mixing_weights(block: np.ndarray, rate: int, before: np.ndarray | None) -> tuple[np.ndarray, bool]:
    """
    Returns `(channels,)` float32 weights that sum to 1, and whether the mean of the channels would cancel out.

    Args:
        block: `(channels, n)`.
        rate: samples per second.
        before: the previous block's weights, which hold on where nobody speaks.
    """
    contrast = loudness_contrast(block, rate)
    power = np.square(block, dtype=np.float64).mean(axis=1)  # (channels,)
    if contrast.max() < LEAST_CONTRAST:
        if before is not None:
            return before, False
        spoken = power > 0 if power.any() else power >= 0
    else:
        spoken = contrast >= MUCH_LESS * contrast.max()
    weights = (spoken / spoken.sum()).astype(np.float32)
    unrelated = power[spoken].sum() / spoken.sum() ** 2
    if np.square(weighted_sum(block, weights), dtype=np.float64).mean() >= CANCELLED * unrelated:
        return weights, False
    best = max(range(len(block)), key=lambda number: (round(float(contrast[number])), power[number]))
    return np.eye(len(block), dtype=np.float32)[best], True


def loudness_contrast(block: np.ndarray, rate: int) -> np.ndarray:
    """
    Measures by how much the loud moments of sound are louder than the faint ones: much for speech, little for noise.

    Args:
        block: `(channels, n)`, full scale 1.0.
        rate: samples per second.

    Returns:
        `(channels,)` in dB, from 0 to `MOST_CONTRAST`; 0 for sound that is shorter than two frames.
    """
    size = max(1, round(CONTRAST_FRAME * rate))
    steps = np.diff(block, axis=1)  # high tones count for more, so that a hum doesn't hide speech
    frames = steps[:, : steps.shape[1] // size * size].reshape(len(block), -1, size)  # (channels, frames, samples)
    if frames.shape[1] < 2:
        return np.zeros(len(block))
    levels = 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=2) + FAINTEST)  # (channels, frames)
    faint, loud = np.quantile(levels, (0.1, 0.95), axis=1)
    return (loud - faint).clip(0.0, MOST_CONTRAST)

"""From sound to the model's `input_values`: one channel, zero mean and unit variance over the whole utterance."""

from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor, TensorType


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
            wave = np.asarray(wave, dtype=np.float32)
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

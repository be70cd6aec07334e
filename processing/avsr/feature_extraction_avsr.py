"""Sound to the model's `input_values`: one channel, zero mean and unit variance over the whole utterance."""

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor, TensorType


class AvsrFeatureExtractor(SequenceFeatureExtractor):
    """
    Normalises each utterance by its own mean and (population) standard deviation and pads a batch with zeros.

    Args:
        feature_size (`int`, defaults to 1), padding_value (`float`, defaults to 0.0): as in every sequence extractor.
        sampling_rate (`int`, defaults to 16000): samples a second that the model was trained on.
        do_normalize (`bool`, defaults to `True`): whether to normalise.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        do_normalize: bool = True,
        **kwargs,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.do_normalize = do_normalize

    def __call__(
        self,
        audio,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | TensorType | None = None,
        **kwargs,
    ) -> BatchFeature:
        """
        Args:
            audio (`(samples,)` array, list of floats or tensor, or a batch: a list of those or `(batch, samples)`):
                One channel, any scale.
            sampling_rate (`int`): must be that of the extractor; it is asked for because a wrong one fails silently.
            padding, max_length, truncation, pad_to_multiple_of, return_attention_mask: as in
                [`~SequenceFeatureExtractor.pad`].
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.

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

    def _check(self, wave, index: int) -> np.ndarray:
        """One utterance as float32 `(samples,)`, or a ValueError that says what is wrong with it."""
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
    """`(samples,)` to zero mean and unit population variance, float32; a constant wave becomes zeros."""
    wave = wave.astype(np.float64)
    centred = wave - wave.mean()
    deviation = np.sqrt(np.mean(centred**2))
    return (centred / deviation if deviation > 1e-9 else np.zeros_like(centred)).astype(np.float32)


def _as_batch(audio) -> list:
    """Returns a single utterance or a batch as a list of utterances."""
    if audio is None or isinstance(audio, (str, bytes)):
        raise ValueError(f"`audio` must be an array of samples or a list of such arrays, not {type(audio).__name__}.")
    if hasattr(audio, "ndim"):
        return [audio] if audio.ndim == 1 else list(audio)
    audio = list(audio)
    if not audio:
        raise ValueError("`audio` is empty: pass at least one utterance.")
    return audio if np.ndim(audio[0]) else [audio]

"""AvsrFeatureExtractor: normalisation, padding, refusals, round trip."""

import numpy as np
import pytest
import torch

from lookhear.processing.avsr.feature_extraction_avsr import AvsrFeatureExtractor


@pytest.fixture(scope="module")
def extractor() -> AvsrFeatureExtractor:
    return AvsrFeatureExtractor()


@pytest.fixture
def waves() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [0.01 * generator.standard_normal(size).astype(np.float32) + 0.3 for size in (800, 1200)]


def test_zero_mean_unit_variance_over_the_valid_part(extractor, waves):
    batch = extractor(waves, sampling_rate=16000, return_tensors="np")
    values, mask = batch["input_values"], batch["attention_mask"]
    assert values.shape == mask.shape == (2, 1200)
    assert values.dtype == np.float32
    assert mask.sum(1).tolist() == [800, 1200]
    assert np.all(values[0, 800:] == 0)
    for row, wave in zip(values, waves):
        np.testing.assert_allclose(row[: len(wave)], (wave - wave.mean()) / wave.std(), atol=2e-4)


def test_a_clip_does_not_depend_on_its_batch(extractor, waves):
    alone = extractor(waves[0], sampling_rate=16000, return_tensors="pt")["input_values"]
    together = extractor(waves, sampling_rate=16000, return_tensors="pt")["input_values"]
    assert torch.equal(alone[0], together[0, :800])


@pytest.mark.parametrize(
    "kind", [list, torch.tensor, lambda x: np.asarray(x)[None], lambda x: (1e4 * x).astype(np.int16)]
)
def test_kinds_of_input(extractor, waves, kind):
    values = extractor(kind(waves[0]), sampling_rate=16000, return_tensors="pt")["input_values"]
    expected = extractor(waves[0], sampling_rate=16000, return_tensors="pt")["input_values"]
    assert values.shape == (1, 800)
    torch.testing.assert_close(values, expected, atol=0.02, rtol=0)


def test_silence_is_zeros(extractor):
    assert not extractor(np.full(400, 0.25), sampling_rate=16000, return_tensors="pt")["input_values"].any()


@pytest.mark.parametrize(
    ("audio", "sampling_rate", "message"),
    [
        (np.zeros(10), None, "`sampling_rate` is None"),
        (np.zeros(10), 8000, "works at 16000 Hz"),
        (np.array([0.0, np.nan]), 16000, "NaN or infinite"),
        ([np.zeros(4), np.array([np.inf])], 16000, r"audio\[1\]. has NaN or infinite"),
        (np.zeros(0), 16000, "is empty"),
        ([], 16000, "is empty"),
        (np.zeros((1, 2, 10)), 16000, "one channel"),
        ("clip.wav", 16000, "not str"),
        (["a", "b"], 16000, "not an array of numbers"),
    ],
)
def test_refusals_are_clear(extractor, audio, sampling_rate, message):
    with pytest.raises(ValueError, match=message):
        extractor(audio, sampling_rate=sampling_rate)


def test_save_and_load(extractor, tmp_path):
    AvsrFeatureExtractor(sampling_rate=8000, do_normalize=False).save_pretrained(tmp_path)
    loaded = AvsrFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.sampling_rate, loaded.do_normalize, loaded.feature_size) == (8000, False, 1)

"""AvsrFeatureExtractor: normalisation, padding, refusals, round trip."""

import numpy as np
import pytest
import torch

from lookhear.processing.avsr.feature_extraction_avsr import AvsrFeatureExtractor, ChannelMixer, scaled_samples


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


# ------------------------------------------------------------------------------------------------- values and channels


def spoken(seconds: float = 3.0, seed: int = 0, rate: int = 16000) -> np.ndarray:
    """(n,) noise in syllables, four a second, with pauses: loud and faint as speech is."""
    generator, time = np.random.default_rng(seed), np.arange(round(seconds * rate)) / rate
    loudness = np.clip(np.sin(2 * np.pi * 4 * time + seed), 0, 1) * (np.sin(2 * np.pi * 0.7 * time) > -0.6)
    return (
        0.2 * loudness * generator.standard_normal(len(time)) + 1e-4 * generator.standard_normal(len(time))
    ).astype(np.float32)


WAVE = np.round(20000 * np.sin(np.arange(4000) / 7)).astype(np.int64)


@pytest.mark.parametrize(
    ("values", "peak"),
    [
        (WAVE.astype(np.int16), 20000 / 2**15),
        (WAVE.astype(np.int32), 20000 / 2**15),
        (WAVE, 20000 / 2**15),
        (WAVE * 256, 20000 / 2**15),
        ((WAVE * 256).astype(np.int32), 20000 / 2**15),
        ((WAVE * 65536).astype(np.int32), 20000 / 2**15),
        (WAVE * 65536, 20000 / 2**15),
        (WAVE.astype(np.float64), 20000 / 2**15),
        ((WAVE / 2**15).astype(np.float16), 20000 / 2**15),
        ((WAVE + 32768).astype(np.uint16), 20000 / 2**15),
        (WAVE + 32768, 20000 / 2**15),
        ((WAVE // 256).astype(np.int8), 78 / 2**7),
        ((WAVE // 256 + 128).astype(np.uint8), 78 / 2**7),
        (WAVE // 256 + 128, 78 / 2**7),
        (WAVE / 4000.0, 1.0),
        (np.zeros(9, np.int64), 0.0),
        (np.array([0, 1, -1, 0]), 1 / 2**15),
    ],
    ids=lambda value: f"{value.dtype}-{value.max():.0f}" if isinstance(value, np.ndarray) else None,
)
def test_samples_are_scaled_by_what_they_show(values, peak):
    scaled = scaled_samples(values)
    assert scaled.dtype == np.float32 and scaled.max() == pytest.approx(peak, abs=0.009 if peak < 1 else 1e-6)
    assert abs(scaled.mean()) < 0.01


def test_samples_beyond_32_bits_are_refused():
    with pytest.raises(ValueError, match="beyond 32 bits"):
        scaled_samples(WAVE * 2**40)


def mixed(channels: list[np.ndarray], channel=None, piece: int = 5000) -> tuple[np.ndarray, list[str]]:
    """What a mixer makes of channels that come piece by piece, and what it says."""
    said: list[str] = []
    waves = np.stack(channels).astype(np.float32)
    mixer = ChannelMixer(len(waves), 16000, channel, said.append)
    parts = [part for first in range(0, waves.shape[1], piece) for part in mixer.push(waves[:, first : first + piece])]
    out = np.concatenate([*parts, *mixer.finish()])
    assert out.shape == waves.shape[1:] and out.dtype == np.float32
    return out, said


@pytest.mark.parametrize("seconds", [3.0, 13.0])
def test_the_channel_with_speech_is_taken(seconds):
    speech, size = spoken(seconds), round(seconds * 16000)
    generator = np.random.default_rng(5)
    white = 0.3 * generator.standard_normal(size)
    time = np.arange(size) / 16000
    for other in (white, np.cumsum(white) / 100, 0.5 * np.sin(2 * np.pi * 50 * time), np.zeros(size), white * 1e-4):
        for channels, number in (([speech, other], 0), ([other, speech], 1), ([other, other, speech], 2)):
            out, said = mixed(channels)
            assert np.array_equal(out, speech) and f"channel {number} of {len(channels)} only" in said[0]


def test_channels_that_cancel_out_are_not_averaged():
    speech = spoken()
    for other in (-speech, -0.5 * speech, -0.9 * speech + 0.01 * spoken(seed=1)):
        out, said = mixed([speech, other])
        assert np.array_equal(out, speech) and "cancel each other out" in said[0]
    delayed = np.roll(speech, 3)
    out, said = mixed([speech, delayed])  # two microphones
    assert np.allclose(out, (speech + delayed) / 2, atol=1e-6) and said == []


def test_speech_in_both_channels_is_averaged():
    one, other = spoken(), spoken(seed=3)
    for channels in ([one, one], [one, other], [one, other, one]):
        out, said = mixed(channels)
        assert np.allclose(out, np.mean(channels, axis=0), atol=1e-6) and said == []
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 48000))
    assert np.allclose(mixed(list(noise))[0], noise.mean(axis=0), atol=1e-6)
    turns = [np.concatenate([spoken(6.0), np.zeros(96000)]), np.concatenate([np.zeros(96000), spoken(6.0, 3)])]
    out, _ = mixed([turn + 1e-3 * np.random.default_rng(1).standard_normal(len(turn)) for turn in turns])
    assert np.corrcoef(out, sum(turns))[0, 1] > 0.99  # one talks after the other, each in a channel


def test_a_chosen_channel():
    one, other = spoken(), spoken(seed=3)
    for channel, expected in ((0, one), ("left", one), (1, other), ("right", other), ("mean", (one + other) / 2)):
        assert np.allclose(mixed([one, other], channel)[0], expected, atol=1e-6)
    assert not mixed([one, -one], "mean")[0].any()
    with pytest.raises(ValueError, match="`channel`: there is no channel 2, as the sound has 2 channels"):
        ChannelMixer(2, 16000, 2)
    with pytest.raises(ValueError, match="one channel, number 0"):
        ChannelMixer(1, 16000, "right")


def test_tensors_of_every_kind(extractor):
    wave = torch.linspace(-1, 1, 800)
    expected = extractor(wave.numpy(), sampling_rate=16000)["input_values"][0]
    for tensor in (wave.clone().requires_grad_(), wave.double(), [wave.clone().requires_grad_()]):
        assert np.allclose(extractor(tensor, sampling_rate=16000)["input_values"][0], expected, atol=1e-5)
    assert np.allclose(extractor(wave.bfloat16(), sampling_rate=16000)["input_values"][0], expected, atol=0.01)

import numpy as np
import pytest

from lookhear.processing.avsr.noise_avsr import babble, competing_talker, human_noise, mix_at_snr

RATE = 16000


def tones(count: int = 25, seconds: float = 1.5) -> list[np.ndarray]:
    """Utterances that can be told apart by their frequency: 200 Hz, 250 Hz, and so on, of different loudness."""
    time = np.arange(int(seconds * RATE)) / RATE
    return [(0.02 * (i + 1) * np.sin(2 * np.pi * (200 + 50 * i) * time)).astype(np.float32) for i in range(count)]


def voices_in(noise: np.ndarray, count: int = 25) -> list[int]:
    """Which of the tones can be heard in the noise."""
    spectrum = np.abs(np.fft.rfft(noise)) / len(noise)
    bins = [round((200 + 50 * i) * len(noise) / RATE) for i in range(count)]
    return [i for i, bin in enumerate(bins) if spectrum[bin - 2 : bin + 3].max() > 0.05]


@pytest.mark.parametrize("snr", [-5.0, 0.0, 5.0, 20.0])
@pytest.mark.parametrize("noise_samples", [1000, 16000, 50000])
def test_mix_has_the_snr_asked_for(snr, noise_samples):
    generator = np.random.default_rng(0)
    speech = generator.normal(0, 0.1, 16000).astype(np.float32)
    mixed = mix_at_snr(speech, generator.normal(3, 7, noise_samples), snr)
    added = mixed.astype(np.float64) - speech
    assert mixed.dtype == np.float32 and mixed.shape == speech.shape
    assert 10 * np.log10(np.mean(speech.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(snr, abs=0.01)


def test_short_noise_is_repeated_and_speech_is_left_alone():
    speech = np.full(7, 0.5, np.float32)
    noise = np.array([1.0, -1.0, 0.5], np.float32)
    added = mix_at_snr(speech, noise, 0) - speech
    np.testing.assert_allclose(added / added[0], [1, -1, 0.5, 1, -1, 0.5, 1], rtol=1e-5)
    assert (speech == 0.5).all()


def test_silent_speech_stays_silent_and_silent_noise_is_refused():
    assert not mix_at_snr(np.zeros(100, np.float32), np.ones(10), 0).any()
    with pytest.raises(ValueError, match="silent"):
        mix_at_snr(np.ones(100), np.zeros(10), 0)


@pytest.mark.parametrize(
    ("speech", "noise", "snr", "message"),
    [
        (np.ones((2, 8)), np.ones(8), 0, "speech: a wave has one dimension"),
        (np.ones(8), np.zeros(0), 0, "noise: a wave has no samples"),
        (np.full(8, np.nan), np.ones(8), 0, "speech holds NaN"),
        (np.ones(8), np.full(8, np.inf), 0, "noise holds NaN or infinite"),
        (np.ones(8), np.ones(8), np.inf, "snr_db"),
    ],
)
def test_bad_arguments_are_named(speech, noise, snr, message):
    with pytest.raises(ValueError, match=message):
        mix_at_snr(speech, noise, snr)


@pytest.mark.parametrize("make", [babble, human_noise, competing_talker])
@pytest.mark.parametrize("samples", [8000, 24000, 100001])
def test_noise_is_standardised_seeded_and_of_any_length(make, samples):
    first, again, other = (make(tones(), samples, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (samples,) and first.dtype == np.float32
    assert first.mean() == pytest.approx(0, abs=1e-3) and first.std() == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


@pytest.mark.parametrize("make", [babble, human_noise, competing_talker])
def test_noise_needs_utterances(make):
    with pytest.raises(ValueError, match="utterances is empty"):
        make([], 100, np.random.default_rng(0))


def test_babble_has_twenty_different_voices_of_equal_peak():
    noise = babble(tones(), 24000, np.random.default_rng(3))
    voices = voices_in(noise)
    assert len(voices) == 20
    spectrum = np.abs(np.fft.rfft(noise))
    levels = spectrum[[round((200 + 50 * i) * 1.5) for i in voices]]
    assert levels.max() / levels.min() < 1.05  # although the tones differ in loudness by a factor of 25


def test_babble_of_few_utterances_uses_all_of_them():
    assert voices_in(babble(tones(3), 24000, np.random.default_rng(0)), 3) == [0, 1, 2]


def test_babble_skips_silent_utterances():
    noise = babble([np.zeros(100, np.float32), tones(1)[0]], 24000, np.random.default_rng(0))
    assert np.isfinite(noise).all() and voices_in(noise, 1) == [0]


def test_human_noise_changes_the_voice_every_second():
    noise = human_noise(tones(), 10 * RATE, np.random.default_rng(5))
    for second in noise.reshape(10, RATE):
        strongest = np.abs(np.fft.rfft(second)).argmax()
        assert strongest % 50 == 0 and strongest >= 200  # one tone only, its frequency a multiple of 50 Hz
    assert len({int(np.abs(np.fft.rfft(second)).argmax()) for second in noise.reshape(10, RATE)}) > 5


def test_human_noise_takes_utterances_shorter_than_a_piece():
    assert human_noise([np.array([1.0, -1.0, 2.0])], 100, np.random.default_rng(0)).shape == (100,)


def test_competing_talker_is_one_voice():
    noise = competing_talker(tones(), 24000, np.random.default_rng(7))
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    assert spectrum.max() / spectrum.sum() > 0.95

"""The average of models' weights."""

import pytest
import torch

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.training.avsr.average import average_models


def tiny_model(seed: int, hidden_size: int = 16) -> AvsrForConditionalGeneration:
    sizes = {"hidden_size": hidden_size, "num_attention_heads": 2, "intermediate_size": 24, "head_hidden_sizes": []}
    layers = {"encoder_layers": 1, "fusion_layers": 1, "decoder_layers": 1}
    sound = {"front_end": "spectrogram", "num_mel_bins": 8, "n_fft": 256}
    torch.manual_seed(seed)
    return AvsrForConditionalGeneration(AvsrConfig(modality="audio", audio_config=sound, **sizes, **layers)).eval()


def test_each_weight_is_the_mean_by_the_shares():
    models = [tiny_model(seed) for seed in range(3)]
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in models]
    mean = average_models(models, (1, 2, 5)).state_dict()
    for name, value in mean.items():
        first, second, third = (state[name] for state in before)
        expected = (first + 2 * second + 5 * third) / 8 if value.is_floating_point() else first
        torch.testing.assert_close(value, expected)
    for model, state in zip(models, before):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("shares", [(1,), (1, 0), (1, -0.5), ()])
def test_shares_are_checked(shares):
    with pytest.raises(ValueError, match="2 models need as many shares above 0"):
        average_models([tiny_model(0), tiny_model(1)], shares)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="differ in their sizes"):
        average_models([tiny_model(0), tiny_model(0, hidden_size=32)], (1, 1))
    with pytest.raises(ValueError, match="0 models"):
        average_models([], ())

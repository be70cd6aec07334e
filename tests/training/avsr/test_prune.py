"""Units that do nothing can go without changing anything; those that matter stay."""

import pytest
import torch

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.modeling.avsr.layers_avsr import AvsrFeedForward
from lookhear.training.avsr.prune import prune_feed_forward


def tiny_model() -> AvsrForConditionalGeneration:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "head_hidden_sizes": []}
    layers = {"encoder_layers": 1, "fusion_layers": 1, "decoder_layers": 1}
    sound = {"front_end": "spectrogram", "num_mel_bins": 8, "n_fft": 256}
    torch.manual_seed(0)
    return AvsrForConditionalGeneration(AvsrConfig(modality="audio", audio_config=sound, **sizes, **layers)).eval()


def test_idle_units_can_go():
    model = tiny_model()
    with torch.no_grad():
        for number, layer in enumerate(m for m in model.modules() if isinstance(m, AvsrFeedForward)):
            layer.fc2.weight[:, number : number + 8] = 0
    small = prune_feed_forward(model, 16)
    inputs = {"input_values": torch.randn(2, 6400), "labels": torch.tensor([[3, 4, 39], [5, 39, -100]])}
    torch.testing.assert_close(small(**inputs).logits, model(**inputs).logits)
    assert small.config.intermediate_size == 16 and model.config.intermediate_size == 24


def test_the_size_is_checked():
    with pytest.raises(ValueError, match="intermediate_size must be between 1 and the model's 24, not 25"):
        prune_feed_forward(tiny_model(), 25)


def test_a_pruned_model_is_saved_and_loaded(tmp_path):
    small = prune_feed_forward(tiny_model(), 10)
    small.save_pretrained(tmp_path)
    again = AvsrForConditionalGeneration.from_pretrained(tmp_path)
    for name, weight in small.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight)

"""Rules of the published code that a configuration asks for: lengths of padded sound, inputs at padded characters."""

import pytest
import torch

from lookhear.modeling.avsr import AvsrAudioConfig, AvsrConfig, AvsrForConditionalGeneration
from lookhear.modeling.avsr.encoder_avsr import AvsrWaveformFrontEnd


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        # 2700 samples are 8 steps; each one's share is 337 samples, the rest is dropped
        ([2700, 2023, 2022, 338, 337, 1], [8, 7, 6, 2, 1, 1]),
        ([400, 399], [1, 1]),
    ],
)
@torch.no_grad()
def test_steps_by_division(make_config, samples, expected):
    """fairseq before February 2021: a step is padding if all of its share of the samples is."""
    fields = make_config("wav2vec2-layer").audio_config.to_dict()
    rules = {rule: AvsrAudioConfig.from_dict(fields | {"length_rule": rule}) for rule in ("convolution", "division")}
    torch.manual_seed(0)
    new = AvsrWaveformFrontEnd(rules["convolution"]).eval()
    old = AvsrWaveformFrontEnd(rules["division"]).eval()
    old.load_state_dict(new.state_dict())
    waves, lengths = torch.randn(len(samples), samples[0]), torch.tensor(samples)
    mask = (torch.arange(samples[0])[None] < lengths[:, None]).long()
    features, steps = old(waves, mask)
    assert steps.tolist() == expected
    # what its Transformer may look at is what a mask for the whole windows of these steps shows
    windows = (torch.arange(samples[0])[None] < 400 + 320 * (steps - 1)[:, None]).long()
    whole, same = new(waves, windows)
    assert torch.equal(same, steps)
    for row, length in enumerate(expected):
        torch.testing.assert_close(features[row, :length], whole[row, :length])


def test_another_rule_is_refused():
    with pytest.raises(ValueError, match="audio_config.length_rule must be one of .*'convolution', 'division'"):
        AvsrAudioConfig(length_rule="halves")


@torch.no_grad()
def test_padded_characters_neither_see_padding_nor_are_seen(make_config, make_clips, make_batch, monkeypatch):
    """With the published code's smoothing, which counts them, they are scored as it scores them."""
    torch.manual_seed(0)
    model = AvsrForConditionalGeneration(make_config("reference")).eval()
    batch = make_batch(make_clips())
    labels = batch.pop("labels")
    start = torch.full((len(labels), 1), 39)
    inputs = torch.cat((start, labels[:, :-1]), dim=1).masked_fill(labels == -100, 0)
    outputs = model(**batch, labels=labels)
    explicit = model(**batch, decoder_input_ids=inputs, decoder_attention_mask=(labels != -100).long())
    torch.testing.assert_close(outputs.logits, explicit.logits)
    monkeypatch.setattr(AvsrConfig, "smooth_padding", False)
    plain = model(**batch, labels=labels).logits
    known = labels != -100
    torch.testing.assert_close(outputs.logits[known], plain[known])
    assert (outputs.logits - plain)[~known].abs().max() > 1e-3

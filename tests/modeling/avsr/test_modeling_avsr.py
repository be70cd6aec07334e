"""The recogniser on tiny random weights: shapes, attention back-ends, training."""

import copy

import pytest
import torch

from lookhear.modeling.avsr.configuration_avsr import AvsrAudioConfig
from lookhear.modeling.avsr.encoder_avsr import AvsrWaveformFrontEnd

SOUND = ("input_values", "attention_mask")
LIPS = ("pixel_values_videos", "video_attention_mask")


def inputs_of(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


def largest_difference(a, b):
    return float((a.float() - b.float()).abs().max())


@torch.no_grad()
def test_outputs_are_those_of_the_design(model, batch):
    config = model.config
    outputs = model(**batch)
    rows, frames = outputs.frame_mask.shape
    length = batch["labels"].shape[1]
    assert outputs.encoder_last_hidden_state.shape == (rows, frames, config.hidden_size)
    assert outputs.ctc_logits.shape == (rows, frames * config.ctc_upsampling, config.vocab_size)
    assert outputs.logits.shape == (rows, length, config.vocab_size)
    assert outputs.frame_mask.dtype == torch.bool
    assert all(outputs[name].shape == () for name in ("loss", "ctc_loss", "attention_loss"))
    assert all(value.isfinite().all() for value in outputs.values() if isinstance(value, torch.Tensor))
    assert "loss" not in model(**inputs_of(batch))
    as_tuple = model(**batch, return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], outputs.loss)


@torch.no_grad()
def test_frames_are_forty_milliseconds(make_model, make_clips, make_batch):
    outputs = make_model()(**make_batch(make_clips()))
    assert outputs.frame_mask.sum(dim=1).tolist() == [
        10,
        7,
        13,
        8,
    ]  # 6400, 3950, no, 4700 samples; 10, 6, 13, no frames


@torch.no_grad()
def test_loss_weighs_its_parts(model, batch):
    outputs, share = model(**batch), model.config.ctc_loss_weight
    expected = share * outputs.ctc_loss + (1 - share) * outputs.attention_loss
    torch.testing.assert_close(outputs.loss, expected)


@torch.no_grad()
def test_same_input_same_output(model, batch):
    first, second = model(**batch), model(**batch)
    assert torch.equal(first.ctc_logits, second.ctc_logits) and torch.equal(first.logits, second.logits)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["spectrogram", "wav2vec2-layer", "reference", "usr2"])
def test_attention_backends_agree(make_model, make_clips, make_batch, variant):
    batch = make_batch(make_clips())
    sdpa, eager = (make_model(variant, attention)(**batch) for attention in ("sdpa", "eager"))
    valid = sdpa.frame_mask
    assert largest_difference(sdpa.encoder_last_hidden_state[valid], eager.encoder_last_hidden_state[valid]) < 1e-5
    assert largest_difference(sdpa.logits, eager.logits) < 1e-4
    assert largest_difference(sdpa.loss, eager.loss) < 1e-5


@torch.no_grad()
def test_attention_and_hidden_states_are_recorded(make_model, make_clips, make_batch):
    """Of each stack its own: what the first layer reads, then one of each layer."""
    model = make_model(attention="eager", encoder_layers=3, fusion_layers=1)
    batch = make_batch(make_clips())
    outputs = model(**batch, output_attentions=True, output_hidden_states=True)
    rows, frames = outputs.frame_mask.shape
    length, heads, size = batch["labels"].shape[1], 2, model.config.hidden_size
    shapes = {  # of the queries and keys
        "encoder": (1, frames, frames),
        "audio": (3, frames, frames),
        "visual": (3, frames, frames),
        "decoder": (2, length, length),
    }
    for name, (layers, queries, keys) in shapes.items():
        weights, states = outputs[f"{name}_attentions"], outputs[f"{name}_hidden_states"]
        assert [tuple(weight.shape) for weight in weights] == [(rows, heads, queries, keys)] * layers
        assert [tuple(state.shape) for state in states] == [(rows, queries, size)] * (layers + 1)
        torch.testing.assert_close(weights[-1].sum(dim=-1), torch.ones(rows, heads, queries))
    assert [tuple(weight.shape) for weight in outputs.cross_attentions] == [(rows, heads, length, frames)] * 2
    assert torch.equal(outputs.encoder_hidden_states[-1], outputs.encoder_last_hidden_state)
    assert torch.equal(outputs.decoder_hidden_states[-1], outputs.last_hidden_state)
    future = torch.ones(length, length).triu(1).bool()
    assert not outputs.decoder_attentions[0][..., future].any()
    assert not outputs.cross_attentions[0][~outputs.frame_mask[:, None, None].expand(rows, 2, length, frames)].any()
    assert not any("attentions" in name or "hidden_states" in name for name in model(**batch))


@torch.no_grad()
def test_one_modality_records_its_own_layers(make_model, make_clips, make_batch):
    model = make_model("visual", attention="eager", encoder_layers=3)
    outputs = model(**make_batch(make_clips("visual")), output_attentions=True, output_hidden_states=True)
    assert len(outputs.encoder_hidden_states) == 4 and len(outputs.encoder_attentions) == 3
    assert not any(name.startswith(("audio", "visual")) for name in outputs)


@pytest.mark.parametrize("variant", ["spectrogram", "usr2", "conformer"])
def test_gradient_checkpointing_changes_nothing(make_model, make_clips, make_batch, variant):
    results = []
    for checkpointing in (False, True):
        model = make_model(variant).train()
        batch = make_batch(make_clips(model.config.modality))
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        loss = model(**batch).loss
        loss.backward()
        results.append((loss.detach(), {name: p.grad for name, p in model.named_parameters()}))
    (loss, gradients), (same_loss, same_gradients) = results
    torch.testing.assert_close(loss, same_loss)
    assert all(gradient is not None for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, same_gradients[name], msg=name)


@torch.no_grad()
def test_cache_gives_what_the_whole_prefix_gives(make_model, make_clips, make_batch):
    model, batch = make_model(), make_batch(make_clips())
    ids = torch.randint(1, 39, (4, 6), generator=torch.Generator().manual_seed(2))
    encoded = model.get_encoder()(**inputs_of(batch))
    whole = model(encoder_outputs=encoded, decoder_input_ids=ids, use_cache=False).logits
    cache, steps = None, []
    for step in range(ids.shape[1]):
        outputs = model(
            encoder_outputs=encoded,
            decoder_input_ids=ids[:, step : step + 1],
            past_key_values=cache,
            use_cache=True,
        )
        cache = outputs.past_key_values
        steps.append(outputs.logits)
    assert largest_difference(torch.cat(steps, dim=1), whole) < 1e-4


@pytest.mark.parametrize("num_beams", [1, 4])
def test_search_is_the_same_without_a_cache(make_model, make_clips, make_batch, num_beams):
    model, batch = make_model(), make_batch(make_clips())
    search = {"num_beams": num_beams, "ctc_weight": 0.2}
    cached = model.generate(**inputs_of(batch), **search, use_cache=True)
    assert torch.equal(cached, model.generate(**inputs_of(batch), **search, use_cache=False))


@pytest.mark.parametrize(
    ("variant", "given", "named"),
    [("spectrogram", (), "input_values"), ("audio", LIPS, "input_values"), ("visual", SOUND, "pixel_values_videos")],
)
def test_missing_input_is_named(make_model, make_clips, make_batch, variant, given, named):
    batch = make_batch(make_clips())
    given = {name: batch[name] for name in given}
    for call in (make_model(variant), make_model(variant).generate, make_model(variant).model):
        with pytest.raises(ValueError, match=named):
            call(**given)


@torch.no_grad()
def test_encodings_take_the_place_of_sound_and_lips(model, batch):
    """Nothing but the valid frames counts, unless the layout's loss counts padding as well."""
    if model.config.fusion != "transformer":
        with pytest.raises(ValueError, match="has no encodings of one modality"):
            model.get_encoder().encode_modalities(**inputs_of(batch))
        return
    labels = {"labels": batch["labels"]}
    encoded = model.get_encoder().encode_modalities(**inputs_of(batch))
    given = {}
    for name, (output, mask) in encoded.items():
        states = output.last_hidden_state
        if not model.config.smooth_padding:
            states = states.masked_fill(~mask[..., None], 7.0)
        given |= {f"{name}_encodings": states, f"{name}_encoding_mask": mask.long()}
    expected, found = model(**batch), model(**given, **labels)
    torch.testing.assert_close(found.loss, expected.loss)
    assert torch.equal(found.frame_mask, expected.frame_mask)
    valid = expected.frame_mask
    torch.testing.assert_close(found.encoder_last_hidden_state[valid], expected.encoder_last_hidden_state[valid])
    halves = {name: states.bfloat16() if states.is_floating_point() else states for name, states in given.items()}
    torch.testing.assert_close(model(**halves, **labels).loss, expected.loss, rtol=2e-2, atol=2e-2)
    with pytest.raises(ValueError, match="Encodings take the place of input_values and pixel_values_videos"):
        model(**given, **batch)


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_ctc_weight_outside_its_range_is_refused(make_model, make_clips, make_batch, weight):
    with pytest.raises(ValueError, match="ctc_weight"):
        make_model().generate(**inputs_of(make_batch(make_clips())), ctc_weight=weight)


def test_each_view_of_one_checkpoint(make_model, make_clips, make_batch):
    """Both modalities count; either alone is read by the same model."""
    model, batch = make_model(), make_batch(make_clips()[:2])
    both, sound, lips = (
        model(**{name: batch[name] for name in names}).ctc_logits[0, :10] for names in (SOUND + LIPS, SOUND, LIPS)
    )
    assert min(largest_difference(a, b) for a, b in ((both, sound), (both, lips), (sound, lips))) > 1e-2


def complete_batch(make_clips, make_batch):
    return make_batch([make_clips()[row] for row in (0, 1, 0)])


@pytest.mark.parametrize("variant", ["spectrogram", "grid"])
def test_weighted_views_are_the_losses_of_the_views(make_model, make_clips, make_batch, variant):
    batch = complete_batch(make_clips, make_batch)
    weights = {"audio": 0.5, "visual": 1.25, "audiovisual": 2.0}
    together = make_model(variant, modality_loss_weights=weights).train()(**batch)
    single = make_model(variant).train()
    inputs = {"audio": SOUND, "visual": LIPS, "audiovisual": SOUND + LIPS}
    for name in ("loss", "ctc_loss", "attention_loss"):
        expected = sum(
            weight * single(**{key: batch[key] for key in (*inputs[view], "labels")})[name]
            for view, weight in weights.items()
        )
        torch.testing.assert_close(together[name], expected, rtol=1e-5, atol=1e-5)
    assert together.logits.shape[0] == 9


def test_views_are_for_training_only(make_model, make_clips, make_batch):
    batch = make_batch(make_clips())
    weighted = make_model(modality_loss_weights={"audio": 1.0, "visual": 3.0})
    torch.testing.assert_close(weighted(**batch).loss, make_model()(**batch).loss)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_clips_without_a_modality_train_in_views(make_model, make_clips, make_batch, attention):
    """A clip without sound has an empty view "audio": the loss and all gradients stay finite."""
    weights = {"audio": 1.0, "visual": 1.0, "audiovisual": 1.0}
    model = make_model(attention=attention, modality_loss_weights=weights).train()
    loss = model(**make_batch(make_clips())).loss
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_modality_dropout_takes_one_of_two(make_model):
    encoder = make_model(modality_dropout=1.0).train().model.encoder
    torch.manual_seed(0)
    sound, lips = torch.ones(64, 5).bool(), torch.ones(64, 5).bool()
    sound[0], lips[1] = False, False  # these two have one already
    kept_sound, kept_lips = encoder._drop_modalities(sound, lips)
    assert (kept_sound.any(dim=1) ^ kept_lips.any(dim=1)).all()
    assert 16 < int(kept_sound.any(dim=1).sum()) < 48
    assert kept_lips[0].all() and kept_sound[1].all()
    encoder.eval()
    assert torch.equal(encoder._drop_modalities(sound, lips)[0], sound)


def test_every_part_learns(model, batch):
    trained = dict(model.named_parameters())
    model.train()
    try:
        model(**batch).loss.backward()
        without = [
            name
            for name, p in trained.items()
            if p.requires_grad and (p.grad is None or not p.grad.any()) and "masked_spec_embed" not in name
        ]
        unwanted = [name for name in without if not name.endswith(("k_proj.bias",))]  # softmax does not see it
        assert not unwanted
        assert all(p.grad is None for name, p in trained.items() if "feature_extractor" in name)
    finally:
        model.zero_grad()
        model.eval()


def test_frozen_convolutions_compute_no_gradient(make_model):
    """Neither of their weights nor, which would cost as much, of the waveform."""
    for freeze in (True, False):
        config = copy.deepcopy(make_model("wav2vec2-layer").config.audio_config.encoder_config)
        front_end = AvsrWaveformFrontEnd(AvsrAudioConfig(encoder_config=config, freeze_feature_encoder=freeze)).train()
        assert front_end.encoder.feature_extractor(torch.randn(1, 800)).requires_grad is not freeze
        features, _ = front_end(torch.randn(2, 800), torch.ones(2, 800))
        features.sum().backward()
        trained = {name.split(".")[1] for name, p in front_end.named_parameters() if p.grad is not None}
        assert ("feature_extractor" in trained) is not freeze and "encoder" in trained

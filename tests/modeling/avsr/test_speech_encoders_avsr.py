"""Every kind of speech encoder as the sound's front-end, at random weights, beside transformers' own computation."""

import copy

import numpy as np
import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor, WhisperFeatureExtractor

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.modeling.avsr.configuration_avsr import AvsrAudioConfig

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
DROPOUTS = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
SIZES |= {"mask_time_prob": 0.0, "layerdrop": 0.0, **DROPOUTS}
WAVES = {
    **SIZES,
    "conv_dim": (8,) * 7,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 7,
    "num_conv_pos_embedding_groups": 2,
}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_mel_bins": 20,
    "max_source_positions": 50,  # one second
    "dropout": 0.0,
}
SETTINGS = {
    "hubert": ("wav2vec2", WAVES),
    "wavlm": ("wav2vec2", WAVES),
    "wav2vec2-conformer": ("wav2vec2", WAVES | {"conv_depthwise_kernel_size": 5, "conformer_conv_dropout": 0.0}),
    "wav2vec2-bert": ("wav2vec2-bert", SIZES | {"conv_depthwise_kernel_size": 5, "conformer_conv_dropout": 0.0}),
    "whisper": ("whisper", WHISPER),
}
SAMPLES = (6400, 3950, 0, 40000, 320, 700)  # the third clip has no sound; the fourth is longer than Whisper's window
FRAMES = (10, 6, 7, 60, 1, 2)


@pytest.fixture(scope="module", params=SETTINGS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind, make_model):
    front_end, encoder = SETTINGS[kind]
    audio = {"front_end": front_end, "encoder_config": {"model_type": kind, **encoder}}
    return make_model(attention=None, audio_config=audio)


@pytest.fixture(scope="module")
def batch(make_batch):
    generator = np.random.default_rng(0)
    clips = [
        (
            0.1 * generator.normal(size=samples).astype(np.float32) if samples else None,
            generator.normal(size=(frames, 16, 16)).astype(np.float32),
        )
        for samples, frames in zip(SAMPLES, FRAMES)
    ]
    return make_batch(clips, lengths=(5, 2, 7, 1, 3, 2))


def row_alone(batch, row):
    """One clip without its padding; without its sound where it has none."""
    samples, frames = (int(batch[name][row].sum()) for name in ("attention_mask", "video_attention_mask"))
    alone = {name: batch[name][row : row + 1, :frames] for name in ("pixel_values_videos", "video_attention_mask")}
    if samples:
        alone |= {name: batch[name][row : row + 1, :samples] for name in ("input_values", "attention_mask")}
    return alone


@pytest.mark.slow
@torch.no_grad()
def test_no_number_depends_on_the_batch(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    together = model.get_encoder()(**inputs)
    texts = model.generate(**inputs, num_beams=3, ctc_weight=0.3)
    noisy = batch["input_values"] + torch.randn(batch["input_values"].shape) * (1 - batch["attention_mask"])
    if model.config.audio.front_end != "wav2vec2":  # those compute their convolutions over the padding, too
        other = model.get_encoder()(**inputs | {"input_values": noisy})
        torch.testing.assert_close(other.last_hidden_state, together.last_hidden_state)
    found = []
    for row in range(len(SAMPLES)):
        inputs = row_alone(batch, row)
        alone = model.get_encoder()(**inputs)
        frames = alone.frame_mask.shape[1]
        assert int(together.frame_mask[row].sum()) == frames
        difference = together.last_hidden_state[row, :frames] - alone.last_hidden_state[0]
        assert float(difference.abs().max()) < 1e-4
        text = model.generate(**inputs, num_beams=3, ctc_weight=0.3)[0].tolist()
        assert texts[row].tolist()[: len(text)] == text and not texts[row, len(text) :].any()
        found.append(alone.last_hidden_state[0, 0])
    assert (found[0] - found[1]).abs().max() > 1e-2  # clips differ, so that the test can fail


@pytest.mark.slow
def test_a_clip_without_sound_leaves_gradients_finite(model, batch):
    trained = copy.deepcopy(model).train()
    trained.gradient_checkpointing_enable()
    trained(**batch).loss.backward()
    front_end = trained.model.encoder.audio_front_end
    gradients = [p.grad for p in front_end.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_close(model, batch, dtype):
    half_model = copy.deepcopy(model).to(dtype)
    names = {"labels", "pixel_values_videos", "video_attention_mask"}  # the lips have tests of their own
    inputs = {name: value for name, value in batch.items() if name not in names}
    halves = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    exact, half = model.get_encoder()(**inputs), half_model.get_encoder()(**halves)
    assert half.last_hidden_state.dtype == dtype and torch.equal(half.frame_mask, exact.frame_mask)
    expected, values = exact.last_hidden_state[exact.frame_mask], half.last_hidden_state[exact.frame_mask].float()
    assert (values - expected).norm() / expected.norm() < {torch.bfloat16: 0.02, torch.float16: 0.0025}[dtype]


@pytest.mark.slow
@torch.no_grad()
def test_a_saved_model_is_the_same(model, batch, tmp_path, kind):
    model.save_pretrained(tmp_path)
    loaded = AvsrForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert loaded.config.audio.encoder_config.model_type == kind
    saved, kept = (one.config.audio.encoder_config.to_dict() for one in (loaded, model))
    assert {**saved, "dtype": None} == {**kept, "dtype": None}
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    ours, theirs = (one.get_encoder()(**inputs).last_hidden_state for one in (loaded, model))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_kind_of_attention_gives_the_same(kind, attention, model, make_model, batch):
    if (kind, attention) == ("wavlm", "sdpa"):
        pytest.skip("transformers has no such attention for it")
    other = make_model(attention=attention, audio_config=model.config.audio.to_dict())
    other.load_state_dict(model.state_dict())
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    ours, theirs = (one.get_encoder()(**inputs) for one in (other, model))
    mask = theirs.frame_mask
    torch.testing.assert_close(ours.last_hidden_state[mask], theirs.last_hidden_state[mask], atol=1e-5, rtol=1e-4)


def front_end_of(kind, make_model):
    front_end, encoder = SETTINGS[kind]
    audio = {"front_end": front_end, "encoder_config": {"model_type": kind, **encoder}}
    return make_model(modality="audio", audio_config=audio).model.encoder.audio_front_end


@torch.no_grad()
def test_whisper_reads_the_features_that_transformers_computes(make_model):
    front_end, samples = front_end_of("whisper", make_model), 11000
    wave = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(1))
    extractor = WhisperFeatureExtractor(feature_size=20, chunk_length=1)
    features = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_features  # (1, 20, 100)
    states, lengths = front_end(wave[None], torch.ones(1, samples, dtype=torch.long))
    assert lengths.tolist() == [35]  # 34.4 steps of 320 samples
    torch.testing.assert_close(states, front_end.encoder(features).last_hidden_state[:, :35], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_long_clip_is_read_in_whispers_windows(make_model):
    """Windows of 50 steps that share 12: a vector is of the window in whose middle it is, worked out one by one."""
    front_end, samples = front_end_of("whisper", make_model), 40100  # 126 steps, so three windows
    wave = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(2))
    states, lengths = front_end(wave[None], torch.ones(1, samples, dtype=torch.long))
    assert lengths.tolist() == [126] and states.shape[1] == 126
    windows = []
    for start in (0, 38, 76):
        cut = torch.zeros(16000)
        heard = wave[320 * start : 320 * start + 16000]
        cut[: len(heard)] = heard
        windows.append(front_end(cut[None], torch.ones(1, 16000, dtype=torch.long))[0][0])
    for step in range(126):
        window = 0 if step < 44 else 1 if step < 82 else 2
        torch.testing.assert_close(states[0, step], windows[window][step - 38 * window], atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("samples", [9000, 8900])  # 54 and 54 frames; an odd number of frames has one left over
def test_w2v_bert_reads_the_features_that_transformers_computes(make_model, samples, monkeypatch):
    front_end = front_end_of("wav2vec2-bert", make_model)
    wave = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(1))
    expected = SeamlessM4TFeatureExtractor()(wave.numpy(), sampling_rate=16000, return_tensors="pt")
    mask = torch.ones(1, samples, dtype=torch.long)
    states, lengths = front_end(wave[None], mask)
    steps = int(expected["attention_mask"].sum())
    theirs = front_end.encoder(**{name: value[:, :steps] for name, value in expected.items()}).last_hidden_state
    assert lengths.tolist() == [steps]
    torch.testing.assert_close(states[:, :steps], theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder_config": {"model_type": "whisper"}}, "front_end must be 'whisper' for"),
        ({"front_end": "whisper", "encoder_config": {"model_type": "hubert"}}, "front_end must be 'wav2vec2' for"),
        ({"encoder_config": {"model_type": "wav2vec2", "add_adapter": True}}, "add_adapter must be False"),
        ({"front_end": "hubert"}, "front_end must be one of"),
    ],
)
def test_encoders_that_a_front_end_does_not_run_are_refused(fields, message):
    with pytest.raises(ValueError, match=f"^audio_config.*{message}"):
        AvsrAudioConfig(**fields)


def test_whisper_has_only_its_encoder():
    config = AvsrConfig(modality="audio", audio_config={"front_end": "whisper"})  # the defaults are Whisper tiny's
    assert config.audio.feature_size == 384 and config.audio.steps_per_frame == 2
    with torch.device("meta"):
        front_end = AvsrForConditionalGeneration(config).model.encoder.audio_front_end
    assert sum(parameter.numel() for parameter in front_end.parameters()) == 8_208_384
    assert not front_end.encoder.conv1.weight.requires_grad and front_end.encoder.layers[0].fc1.weight.requires_grad

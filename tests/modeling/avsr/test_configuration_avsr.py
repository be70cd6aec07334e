"""Configurations: what they refuse, what they keep, and the sizes of the paper's models."""

import json

import pytest
import torch
from transformers import AutoConfig

from lookhear.modeling.avsr import AvsrAudioConfig, AvsrConfig, AvsrForConditionalGeneration, AvsrVisualConfig


@pytest.mark.parametrize(
    ("make", "fields", "named"),
    [
        (AvsrConfig, {"modality": "smell"}, "modality must be one of"),
        (AvsrConfig, {"hidden_size": 30, "num_attention_heads": 4}, "multiple of num_attention_heads"),
        (AvsrConfig, {"conv_kernel_size": 4}, "conv_kernel_size must be odd"),
        (AvsrConfig, {"ctc_upsampling": 0}, "ctc_upsampling must be at least 1"),
        (AvsrConfig, {"conv_norm": "batch"}, "conv_norm"),
        (AvsrConfig, {"layout": "newspaper"}, "layout must be one of"),
        (AvsrConfig, {"activation_function": "gelu"}, "activation_function must be 'relu'"),
        (AvsrConfig, {"classifier_back_end": "lstm"}, "classifier_back_end"),
        (AvsrConfig, {"label_smoothing": 1.5}, "label_smoothing"),
        (AvsrConfig, {"modality_dropout": -0.1}, "modality_dropout"),
        (AvsrConfig, {"ctc_loss_weight": 2}, "ctc_loss_weight"),
        (AvsrConfig, {"modality_loss_weights": {"video": 1.0}}, "modality_loss_weights"),
        (AvsrAudioConfig, {"front_end": "mfcc"}, "audio_config.front_end"),
        (AvsrVisualConfig, {"stem_kernel_size": (5, 6, 7)}, "stem_kernel_size"),
        (AvsrVisualConfig, {"layer_type": "wide"}, "layer_type"),
        (AvsrVisualConfig, {"pooling": "max"}, "pooling"),
        (AvsrVisualConfig, {"depths": (1, 2)}, "depths"),
    ],
)
def test_impossible_values_are_named(make, fields, named):
    with pytest.raises(ValueError, match=named):
        make(**fields)


@pytest.mark.parametrize("variant", ["spectrogram", "wav2vec2-group", "reference", "grid"])
def test_configuration_comes_back_from_its_file(make_config, tmp_path, variant):
    config = make_config(variant, modality_loss_weights={"audio": 1.0, "audiovisual": 2.0})
    config.save_pretrained(tmp_path)
    back = AutoConfig.from_pretrained(tmp_path)
    assert type(back) is AvsrConfig
    assert {**back.to_dict(), "_name_or_path": ""} == config.to_dict()


def test_reference_differs_from_the_default_where_the_published_code_does():
    plain, reference = AvsrConfig(), AvsrConfig.reference()
    flags = ("tie_final_norm", "tie_modality_norm", "centre_padding", "ctc_target_eos", "smooth_padding")
    assert not any(getattr(plain, flag) for flag in flags) and all(getattr(reference, flag) for flag in flags)
    assert (plain.min_frames, reference.min_frames) == (0, 80)
    assert (plain.conv_norm, reference.conv_norm) == ("frame", "utterance")
    assert AvsrConfig.reference(min_frames=4).min_frames == 4


OLD = {"conv_norm": "utterance", "tie_modality_norm": True, "centre_padding": True, "ctc_target_eos": True}
OLD |= {"smooth_padding": True, "tie_final_norm": True, "min_frames": 80, "activation_function": "relu"}


@pytest.mark.parametrize("own", [{}, {"tie_final_norm": False}, {"min_frames": 0}, {"min_frames": 12}])
def test_configurations_from_before_layout_are_read(tmp_path, own):
    """Their flags are those of one layout; the norm that repaired copies don't share and the length are their own."""
    fields = AvsrConfig().to_dict()
    del fields["layout"]
    (tmp_path / "config.json").write_text(json.dumps(fields | OLD | own), encoding="utf-8")
    config = AutoConfig.from_pretrained(tmp_path)
    assert {**config.to_dict(), "_name_or_path": ""} == AvsrConfig.reference(**own).to_dict()
    config.save_pretrained(tmp_path)
    assert not set(OLD) - {"tie_final_norm", "min_frames"} & set(json.loads((tmp_path / "config.json").read_text()))
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    paper = {name: False for name, value in OLD.items() if value is True} | {"conv_norm": "frame", "min_frames": 0}
    assert AvsrConfig(**paper).to_dict() == AvsrConfig().to_dict()


@pytest.mark.parametrize(
    ("make", "fields", "named"),
    [
        (AvsrConfig, {**OLD, "smooth_padding": False}, "conv_norm, tie_modality_norm, centre_padding, ctc_target_eos"),
        (AvsrConfig, {"ctc_target_eos": True}, "ctc_target_eos"),
        (AvsrConfig.reference, {"centre_padding": False, "ctc_target_eos": True}, "centre_padding"),
    ],
)
def test_flags_of_no_layout_are_refused(make, fields, named):
    with pytest.raises(ValueError, match=f"^{named}: .*layout='paper' or layout='reference'"):
        make(**fields)


def size(*modules: torch.nn.Module) -> int:
    """Parameters of the modules, shared ones once."""
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


def full_size(modality: str) -> AvsrForConditionalGeneration:
    with torch.device("meta"):
        return AvsrForConditionalGeneration(AvsrConfig.reference(modality=modality))


@pytest.fixture(scope="module")
def audiovisual():
    return full_size("audiovisual")


def test_parts_have_the_sizes_of_the_paper(audiovisual):
    encoder, decoder = audiovisual.model.encoder, audiovisual.model.decoder
    front_end = encoder.visual_front_end
    sizes = {
        "wav2vec2": size(encoder.audio_front_end),
        "visual front-end": size(front_end),
        "stem": size(front_end.stem, front_end.stem_norm),
        "resnet": size(front_end.resnet),
        "audio conv": size(encoder.audio_encoder.conv),
        "video conv": size(encoder.visual_encoder.conv),
        "audio encoder": size(encoder.audio_encoder.transformer, encoder.norm),
        "video encoder": size(encoder.visual_encoder.transformer, encoder.norm),
        "joint encoder": size(encoder.fusion.transformer, encoder.norm),
        "modality norm": size(encoder.fusion.audio_norm, encoder.fusion.video_norm),
        "joint conv": size(encoder.fusion.conv),
        "ctc head": size(audiovisual.ctc_head),
        "embedding": size(decoder.embed_tokens),
        "decoder": size(decoder.layers, decoder.norm),
        "attention head": size(audiovisual.decoder_head),
    }
    assert sizes == {
        "wav2vec2": 315_438_720,
        "visual front-end": 23_514_304,
        "stem": 15_808,
        "resnet": 23_498_496,
        "audio conv": 1_311_744,
        "video conv": 1_311_744,
        "audio encoder": 18_915_328,
        "video encoder": 18_915_328,
        "joint encoder": 18_915_328,
        "modality norm": 1_024,
        "joint conv": 787_456,
        "ctc head": 470_056,
        "embedding": 20_480,
        "decoder": 25_225_216,
        "attention head": 472_104,
    }
    assert size(audiovisual) == 425_295_760


@pytest.mark.parametrize(("modality", "parameters"), [("audio", 361_852_624), ("visual", 69_928_208)])
def test_models_of_one_modality_have_the_sizes_of_the_paper(modality, parameters):
    model = full_size(modality)
    assert size(model) == parameters
    absent = "visual" if modality == "audio" else "audio"
    assert not any(name.startswith((f"model.encoder.{absent}", "model.encoder.fusion")) for name in model.state_dict())


def test_default_has_norms_of_its_own_beside_the_published_code(audiovisual):
    with torch.device("meta"):
        model = AvsrForConditionalGeneration(AvsrConfig())
    norms = 4 - 1 + 2 - 1  # audio, visual, fusion, decoder instead of one; two modality norms instead of one
    assert size(model) - size(audiovisual) == norms * 1024

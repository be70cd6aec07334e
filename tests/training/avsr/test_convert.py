"""Published names -> ours, and back: no weight is lost, left over, or left at random; what does not fit is named."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.resnet import Bottleneck, ResNet
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from lookhear import AvsrConfig, AvsrForConditionalGeneration, AvsrForVideoClassification, AvsrProcessor
from lookhear.cli import main
from lookhear.modeling.avsr.convert_avsr import convert_state_dict
from lookhear.modeling.avsr.layers_avsr import sinusoidal_positions
from lookhear.training.avsr.convert import convert_checkpoint, load_published_model
from lookhear.training.checkpoint_files import read_checkpoint

Weights = dict[str, torch.Tensor]
WIDTH = 64  # one attention head
SPEECH = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 32,
    "conv_dim": (8,) * 7,
    "conv_bias": True,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "mask_time_prob": 0.5,
}
SIZES = {
    "hidden_size": WIDTH,
    "num_attention_heads": 1,
    "encoder_layers": 2,
    "fusion_layers": 1,
    "decoder_layers": 2,
    "intermediate_size": 24,
    "head_hidden_sizes": (16, 12, 8),
    "visual_config": {"stem_channels": 4, "hidden_sizes": (8, 8, 16, 16), "depths": (1, 2, 1, 1)},
    "num_labels": 5,
    "classifier_hidden_size": 16,
}

# Our names -> the published ones, written down a second time so that a wrong line in the converter shows.
BACKWARDS = (
    (r"^model\.encoder\.audio_front_end\.encoder\.", "wav2vecModel."),
    (r"^model\.encoder\.visual_front_end\.", "visualModel."),
    (r"^visual_front_end\.", ""),
    (r"(^|\.)stem\.weight", r"\1frontend3D.0.weight"),
    (r"(^|\.)stem_norm", r"\1frontend3D.1"),
    (r"(^|\.)resnet\.stages\.(\d)\.layers\.(\d)", lambda m: f"{m[1]}MoCoModel.layer{int(m[2]) + 1}.{m[3]}"),
    (r"shortcut\.convolution", "downsample.0"),
    (r"shortcut\.normalization", "downsample.1"),
    (r"layer\.(\d)\.convolution", lambda m: f"conv{int(m[1]) + 1}"),
    (r"layer\.(\d)\.normalization", lambda m: f"bn{int(m[1]) + 1}"),
    (r"^model\.encoder\.audio_encoder\.conv", "audioConv.conv"),
    (r"^model\.encoder\.visual_encoder\.conv", "videoConv.conv"),
    (r"^model\.encoder\.fusion\.conv", "jointConv.conv"),
    (r"conv\.reduce", "conv.0"),
    (r"conv\.mix", "conv.5"),
    (r"^model\.encoder\.audio_encoder\.transformer", "audioEncoder"),
    (r"^model\.encoder\.visual_encoder\.transformer", "videoEncoder"),
    (r"^model\.encoder\.fusion\.transformer", "jointEncoder"),
    (r"^model\.encoder\.fusion\.audio_norm", "ModalityNormalization"),
    (r"^model\.encoder\.audio_norm", "audioEncoder.norm"),
    (r"^model\.encoder\.visual_norm", "videoEncoder.norm"),
    (r"^model\.decoder\.embed_tokens", "embed.0"),
    (r"^model\.decoder", "jointAttentionDecoder"),
    (r"(Encoder.*)feed_forward_residual\.norm", r"\1norm2"),
    (r"(Encoder.*)attention_residual\.norm", r"\1norm1"),
    (r"(Decoder.*)self_attention_residual\.norm", r"\1norm1"),
    (r"(Decoder.*)encoder_attention_residual\.norm", r"\1norm2"),
    (r"(Decoder.*)feed_forward_residual\.norm", r"\1norm3"),
    (r"encoder_attn", "multihead_attn"),
    (r"o_proj", "out_proj"),
    (r"((?:En|De)coder\..*)feed_forward\.fc", r"\1linear"),
    (r"^ctc_head\.output", "jointOutputConv.outputconv.15"),
    (r"^ctc_head\.layers\.(\d)", lambda m: f"jointOutputConv.outputconv.{5 * int(m[1])}"),
    (r"^decoder_head\.output", "jointAttentionOutputConv.outputconv.15"),
    (r"^decoder_head\.layers\.(\d)", lambda m: f"jointAttentionOutputConv.outputconv.{5 * int(m[1])}"),
    (r"^decoder_head\.norms\.(\d)", lambda m: f"jointAttentionOutputConv.outputconv.{5 * int(m[1]) + 2}"),
    (r"^classifier\.conv1", "backend_conv1.0"),
    (r"^classifier\.norm1", "backend_conv1.1"),
    (r"^classifier\.conv2", "backend_conv1.4"),
    (r"^classifier\.norm2", "backend_conv1.5"),
    (r"^classifier\.hidden_norm", "backend_conv2.1"),
    (r"^classifier\.hidden", "backend_conv2.0"),
    (r"^classifier\.output", "backend_conv2.3"),
)
FAIRSEQ = (
    (r"masked_spec_embed", "mask_emb"),
    (r"conv_layers\.(\d)\.conv", r"conv_layers.\1.0"),
    (r"conv_layers\.(\d)\.layer_norm", r"conv_layers.\1.2.1"),
    (r"feature_projection\.layer_norm", "layer_norm"),
    (r"feature_projection\.projection", "post_extract_proj"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0", "pos_conv.0.weight_g"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1", "pos_conv.0.weight_v"),
    (r"pos_conv_embed\.conv", "pos_conv.0"),
    (r"(encoder\.layers\.\d\.)layer_norm", r"\1self_attn_layer_norm"),
    (r"(encoder\.layers\.\d\.)attention", r"\1self_attn"),
    (r"feed_forward\.intermediate_dense", "fc1"),
    (r"feed_forward\.output_dense", "fc2"),
)


def renamed(name: str, table) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def to_fairseq(encoder: Wav2Vec2Model) -> Weights:
    return {renamed(name, FAIRSEQ): value for name, value in encoder.state_dict().items()}


def publish(model: AvsrForConditionalGeneration | AvsrForVideoClassification) -> Weights:
    """The model's weights as the published code would have stored them."""
    weights: Weights = {}
    for name, value in model.state_dict().items():
        if name.startswith("model.encoder.norm."):
            kind = {"audio": "audioEncoder", "visual": "videoEncoder"}.get(model.config.modality, "jointEncoder")
            name = name.replace("model.encoder.norm", f"{kind}.norm")
        name = renamed(name, BACKWARDS)
        if name.startswith("wav2vecModel."):
            name = renamed(name, FAIRSEQ)
        if name.endswith("frontend3D.0.weight"):
            value = value[:, None]
        elif "outputconv" in name and value.ndim == 2:
            value = value[:, :, None]
        if ".fusion.video_norm" not in name:
            weights[name] = value.clone()
    for name in [name for name in weights if "q_proj" in name and not name.startswith("wav2vec")]:
        parts = [weights.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        weights[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    if not name.startswith("backend"):
        for buffer in ("EncoderPositionalEncoding.pe", "decoderPositionalEncoding.pe", "embed.1.pe"):
            weights[buffer] = sinusoidal_positions(50, WIDTH, torch.device("cpu"))[:, None]
    return weights


def build(kind: str = "audiovisual", **fields):
    """A random reference model; `"words"`: the classifier."""
    torch.manual_seed(1)
    audio = {"encoder_config": Wav2Vec2Config(**SPEECH)}
    modality = "visual" if kind == "words" else kind
    config = AvsrConfig.reference(**{**SIZES, "modality": modality, "audio_config": audio, **fields})
    model = (AvsrForVideoClassification if kind == "words" else AvsrForConditionalGeneration)(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model


KINDS = ("audio", "visual", "audiovisual", "words")


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("kind", KINDS)
def test_names_there_and_back(kind):
    model = build(kind)
    converted, expected = convert_state_dict(publish(model)), model.state_dict()
    assert converted.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(converted[name], value)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_read_off_the_weights(tmp_path, kind):
    model = build(kind)
    torch.save(publish(model), tmp_path / "a.pt")
    back = load_published_model(tmp_path / "a.pt")
    assert same_weights(back, model) and not back.training
    fields = ["modality", "conv_norm", "centre_padding", "min_frames", "ctc_target_eos", "smooth_padding"]
    if kind == "words":
        fields += ["num_labels", "classifier_hidden_size"]
    else:
        fields += ["hidden_size", "intermediate_size", "encoder_layers", "decoder_layers", "tie_final_norm"]
    assert [name for name in fields if getattr(back.config, name) != getattr(model.config, name)] == []
    if kind in ("audio", "audiovisual"):
        ours, theirs = (config.audio_config.encoder_config for config in (back.config, model.config))
        assert [name for name in SPEECH if list_like(getattr(ours, name)) != list_like(getattr(theirs, name))] == []


def list_like(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_norms_of_their_own_stay_so(tmp_path):
    """A file of a repaired copy of the published code, where the four final norms differ."""
    model = build(tie_final_norm=False)
    torch.save(publish(model), tmp_path / "a.pt")
    back = load_published_model(tmp_path / "a.pt")
    assert not back.config.tie_final_norm and same_weights(back, model)
    with pytest.raises(ValueError, match="norm.* differ, but the configuration ties them"):
        load_published_model(tmp_path / "a.pt", build().config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"jointOutputConv.outputconv.5.bias": None, "oven.weight": (2,)},
            "1 weights are missing: ctc_head.layers.1.bias",
        ),
        ({"oven.weight": (2,)}, "1 weights are unknown: oven.weight"),
        ({"visualModel.MoCoModel.layer5.0.conv1.weight": (2,)}, "unknown: visualModel.MoCoModel.layer5"),
        ({"wav2vecModel.quantizer.vars": (2,)}, "unknown: wav2vecModel.quantizer.vars"),
        ({"videoConv.conv.5.bias": (3,)}, r"visual_encoder.conv.mix.bias \(3,\) instead of \(64,\)"),
        ({"embed.1.pe": (50, 1, WIDTH)}, "position encodings embed.1.pe are not the sines"),
        ({"embed.0.weight": None}, "embed.0.weight is missing: this is not a published AVSR checkpoint"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    weights = publish(build())
    for name, shape in change.items():
        weights.pop(name, None)
        if shape is not None:
            weights[name] = torch.full(shape, 7.0)
    torch.save({"state_dict": weights}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=message) as caught:
        load_published_model(tmp_path / "a.ckpt")
    assert "\n" not in str(caught.value)
    if len(change) == 2:  # all in one line
        assert "1 weights are unknown: oven.weight" in str(caught.value)


def test_unknown_heads_are_asked_for(tmp_path):
    model = build("visual", hidden_size=32, num_attention_heads=4)
    torch.save(publish(model), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="how many attention heads.*give its configuration with config="):
        load_published_model(tmp_path / "a.pt")
    model.config.save_pretrained(tmp_path / "settings")
    folder = convert_checkpoint(tmp_path / "a.pt", tmp_path / "new", config=tmp_path / "settings")
    assert same_weights(AvsrForConditionalGeneration.from_pretrained(folder), model)


class Callback:
    """What Lightning of those days has for a key beside the weights."""


class Trap:
    """Pickled code that leaves a trace when it is run: a function of Python's, or a method."""

    def __init__(self, trace: Path, method: bool = False):
        self.trace, self.method = trace, method

    def __reduce__(self):
        return (Path.touch, (self.trace,)) if self.method else (open, (str(self.trace), "w"))


def test_a_lightning_file_is_read_and_nothing_in_it_is_run(tmp_path, capsys):
    model, trace = build("visual"), tmp_path / "trace"
    content = {"state_dict": publish(model), "epoch": 3, "callbacks": {Callback: {"best": 0.5}}}
    content |= {"hyper_parameters": argparse.Namespace(depth=3), "trap": Trap(trace)}
    torch.save(content, tmp_path / "visual.ckpt")
    output = tmp_path / "new" / "visual"
    assert main(["convert", "avsr", str(tmp_path / "visual.ckpt"), str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n" and not trace.exists()
    assert [part.name for part in output.parent.iterdir()] == ["visual"]  # nothing half-made is left
    assert same_weights(AvsrForConditionalGeneration.from_pretrained(output), model)
    assert AvsrProcessor.from_pretrained(output).image_processor.image_mean == 0.4161
    assert main(["convert", "avsr", str(tmp_path / "visual.ckpt"), str(output)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_what_cannot_be_read_safely_is_refused(tmp_path):
    path, trace = tmp_path / "trap.ckpt", tmp_path / "trace"
    torch.save({"state_dict": publish(build("words")), "trap": Trap(trace, method=True)}, path)
    with pytest.raises(ValueError, match="trap.ckpt' cannot be read safely") as caught:
        read_checkpoint(path)
    assert not trace.exists() and "weights_only" not in str(caught.value)


def test_half_precision_becomes_float32(tmp_path):
    weights = {name: value.half() for name, value in publish(build("words")).items()}
    save_file(weights, tmp_path / "a.safetensors")
    back = load_published_model(tmp_path / "a.safetensors")
    assert {parameter.dtype for parameter in back.parameters()} == {torch.float32}


# ------------------------------------------------------------------------------------------------------- front-ends


@pytest.mark.parametrize("fine_tuned", [False, True])
@torch.no_grad()
def test_fairseq_becomes_a_recogniser_of_sound(tmp_path, fine_tuned):
    torch.manual_seed(0)
    encoder = Wav2Vec2Model(Wav2Vec2Config(**SPEECH)).eval()
    weights = to_fairseq(encoder)
    if fine_tuned:
        weights = {f"w2v_encoder.w2v_model.{name}": value for name, value in weights.items()}
        weights |= {"w2v_encoder.proj.weight": torch.ones(32, WIDTH), "w2v_encoder.proj.bias": torch.ones(32)}
    else:
        weights |= {"quantizer.vars": torch.ones(1, 4, 2), "project_q.bias": torch.ones(2)}
    torch.save({"args": argparse.Namespace(lr=1), "model": weights}, tmp_path / "wav2vec.pt")
    model = load_published_model(tmp_path / "wav2vec.pt")
    assert model.config.modality == "audio" and not model.config.tie_final_norm
    wave = torch.randn(2, 4000)
    expected = encoder(wave).last_hidden_state
    features = model.model.encoder.audio_front_end(wave, torch.ones(2, 4000, dtype=torch.long))[0]
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize(
    ("make_config", "make"),
    [(Wav2Vec2Config, Wav2Vec2Model), (HubertConfig, HubertModel), (WavLMConfig, WavLMModel)],
)
def test_a_folder_becomes_a_recogniser_of_sound(tmp_path, make_config, make):
    torch.manual_seed(0)
    encoder = make(make_config(**SPEECH))
    encoder.save_pretrained(tmp_path / "encoder")
    settings = AvsrConfig(**{**SIZES, "modality": "audio", "audio_config": {"encoder_config": encoder.config}})
    settings.save_pretrained(tmp_path / "settings")
    folder = convert_checkpoint(tmp_path / "encoder", tmp_path / "new", config=tmp_path / "settings")
    back = AvsrForConditionalGeneration.from_pretrained(folder)
    assert same_weights(back.model.encoder.audio_front_end.encoder, encoder)
    other = settings.audio_config.encoder_config.to_dict() | {"num_attention_heads": 2}
    settings = AvsrConfig(**{**SIZES, "modality": "audio", "audio_config": {"encoder_config": other}})
    with pytest.raises(ValueError, match="num_attention_heads is 1, the model's is 2"):
        load_published_model(tmp_path / "encoder", settings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whisper", "wav2vec2-bert", "wav2vec2-conformer"])
def test_other_encoders_become_recognisers_of_sound(tmp_path, capsys, kind):
    sizes = SPEECH
    if kind == "whisper":
        sizes = {"d_model": WIDTH, "encoder_layers": 2, "encoder_attention_heads": 1, "encoder_ffn_dim": 32}
        sizes |= {"num_mel_bins": 20, "max_source_positions": 50, "decoder_layers": 1, "vocab_size": 9}
        sizes |= {"pad_token_id": 0, "decoder_attention_heads": 1, "decoder_ffn_dim": 32}
    encoder = AutoModel.from_config(CONFIG_MAPPING[kind](**sizes))
    encoder.save_pretrained(tmp_path / "encoder")
    audio = {"encoder_config": encoder.config, "front_end": kind if kind != "wav2vec2-conformer" else "wav2vec2"}
    AvsrConfig(**{**SIZES, "modality": "audio", "audio_config": audio}).save_pretrained(tmp_path / "settings")
    arguments = ["convert", "avsr", tmp_path / "encoder", tmp_path / "new", "--config", tmp_path / "settings"]
    assert main([str(argument) for argument in arguments]) in (0, None)
    back = AvsrForConditionalGeneration.from_pretrained(tmp_path / "new").eval()
    theirs = encoder.get_encoder() if kind == "whisper" else encoder
    assert same_weights(back.model.encoder.audio_front_end.encoder, theirs)
    processor = AvsrProcessor.from_pretrained(tmp_path / "new")
    assert processor.feature_extractor.do_normalize is (kind == "wav2vec2-conformer")
    AvsrConfig(**{**SIZES, "modality": "audio"}).save_pretrained(tmp_path / "other")
    capsys.readouterr()
    assert main([str(argument) for argument in [*arguments[:3], tmp_path / "x", "--config", tmp_path / "other"]]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and f"model_type is {kind}, the model's is wav2vec2" in error


@torch.no_grad()
def test_moco_becomes_a_word_classifier(tmp_path):
    torch.manual_seed(0)
    theirs = ResNet(Bottleneck, [1, 1, 1, 1]).eval()
    weights = {f"module.encoder_q.{name}": value for name, value in theirs.state_dict().items()}
    weights |= {"module.encoder_k.conv1.weight": torch.ones(1), "module.queue": torch.ones(2)}
    torch.save({"state_dict": weights, "optimizer": {"state": {}}}, tmp_path / "moco.pth.tar")
    visual = {"depths": (1, 1, 1, 1)}
    settings = AvsrConfig(modality="visual", num_labels=3, classifier_hidden_size=8, visual_config=visual)
    model = load_published_model(tmp_path / "moco.pth.tar", settings)
    maps = torch.randn(1, 64, 8, 8)
    expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(maps))))
    torch.testing.assert_close(model.visual_front_end.resnet(maps), expected)
    with pytest.raises(ValueError, match="does not fit the model: .* weights are missing: stages.0.layers.1"):
        load_published_model(tmp_path / "moco.pth.tar", AvsrConfig(modality="visual", num_labels=3))


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", "cannot be read safely"),
        ("a.pth", b"not a checkpoint at all", "cannot be read safely"),
        ("a.safetensors", b"12345678901234567890", "cannot be read safely"),
        ("missing.pth", None, "is not a file"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}'.* {message}|{name}' {message}"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds no state dict"),
        ({}, "holds no state dict"),
        ({"model": {"a": torch.ones(1), "b": 3}}, "has entries that are not tensors: b"),
    ],
)
def test_only_state_dicts_are_read(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "a.pth")


def test_something_else_is_refused(tmp_path, capsys):
    torch.save({"oven.weight": torch.ones(2)}, tmp_path / "a.pth")
    assert main(["convert", "avsr", str(tmp_path / "a.pth"), str(tmp_path / "new")]) == 2
    assert "this is not a published AVSR checkpoint" in capsys.readouterr().err
    assert main(["convert", "avsr", str(tmp_path / "nowhere"), str(tmp_path / "new")]) == 2
    assert "nowhere' cannot be loaded" in capsys.readouterr().err and not (tmp_path / "new").exists()

"""
Converts published weights to AVSR's names and configurations.

Those of the reference code and of its front-ends, and of the recognisers USR 2.0, auto_avsr and VSR-ML, whose modules
have ESPnet's names.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from transformers import Wav2Vec2Config

from .configuration_avsr import AvsrConfig, read_model_json, wav2vec2_large_config
from .layers_avsr import sinusoidal_positions

HEAD_SIZE = 64  # of the paper's Transformers and of every wav2vec 2.0
HEADS_UNKNOWN = "how many attention heads it has cannot be read off its weights; give its configuration with config="
VALUES = "(weight|bias)"
STATISTICS = "(weight|bias|running_mean|running_var|num_batches_tracked)"
PRE_TRAINING = ("quantizer.", "project_q.", "final_proj.")  # wav2vec 2.0's contrastive task
FINE_TUNED = "w2v_encoder.w2v_model."  # fairseq's prefix where a CTC head follows
POSITIONS = r"(?:EncoderPositionalEncoding|decoderPositionalEncoding|embed\.1)\.pe"  # computed by this model

Target = str | Callable[[re.Match], str | None]
Table = tuple[tuple[str, Target], ...]
Shapes = dict[str, tuple[int, ...]]

# torchvision's ResNet -> transformers'
RESNET: Table = (
    (
        r"layer([1-4])\.(\d+)\.conv([123])\.weight",
        lambda match: f"stages.{int(match[1]) - 1}.layers.{match[2]}.layer.{int(match[3]) - 1}.convolution.weight",
    ),
    (
        r"layer([1-4])\.(\d+)\.bn([123])\." + STATISTICS,
        lambda match: (
            f"stages.{int(match[1]) - 1}.layers.{match[2]}.layer.{int(match[3]) - 1}.normalization.{match[4]}"
        ),
    ),
    (
        r"layer([1-4])\.(\d+)\.downsample\.0\.weight",
        lambda match: f"stages.{int(match[1]) - 1}.layers.{match[2]}.shortcut.convolution.weight",
    ),
    (
        r"layer([1-4])\.(\d+)\.downsample\.1\." + STATISTICS,
        lambda match: f"stages.{int(match[1]) - 1}.layers.{match[2]}.shortcut.normalization.{match[3]}",
    ),
)

# fairseq's wav2vec 2.0 -> transformers'
SPEECH_ENCODER: Table = (
    (r"mask_emb", r"masked_spec_embed"),
    (r"feature_extractor\.conv_layers\.(\d+)\.0\." + VALUES, r"feature_extractor.conv_layers.\1.conv.\2"),
    (
        r"feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?" + VALUES,
        r"feature_extractor.conv_layers.\1.layer_norm.\2",
    ),
    (r"layer_norm\." + VALUES, r"feature_projection.layer_norm.\1"),
    (r"post_extract_proj\." + VALUES, r"feature_projection.projection.\1"),
    (r"encoder\.pos_conv\.0\.bias", r"encoder.pos_conv_embed.conv.bias"),
    (r"encoder\.pos_conv\.0\.weight_g", r"encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v", r"encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (
        r"encoder\.layers\.(\d+)\.self_attn\.([qkv]|out)_proj\." + VALUES,
        r"encoder.layers.\1.attention.\2_proj.\3",
    ),
    (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\." + VALUES, r"encoder.layers.\1.layer_norm.\2"),
    (r"encoder\.layers\.(\d+)\.fc1\." + VALUES, r"encoder.layers.\1.feed_forward.intermediate_dense.\2"),
    (r"encoder\.layers\.(\d+)\.fc2\." + VALUES, r"encoder.layers.\1.feed_forward.output_dense.\2"),
    (r"(encoder\.layers\.\d+\.final_layer_norm|encoder\.layer_norm)\." + VALUES, r"\1.\2"),
)

VISUAL_FRONT_END: Table = (
    (r"frontend3D\.0\.weight", r"stem.weight"),
    (r"frontend3D\.1\." + STATISTICS, r"stem_norm.\1"),
    (r"MoCoModel\.(.+)", lambda match: _within("resnet", match[1], RESNET)),
)

LAYER: Table = (
    (r"linear1\." + VALUES, r"feed_forward.fc1.\1"),
    (r"linear2\." + VALUES, r"feed_forward.fc2.\1"),
    (r"self_attn\.in_proj_" + VALUES, r"self_attn.qkv_proj.\1"),
    (r"self_attn\.out_proj\." + VALUES, r"self_attn.o_proj.\1"),
)
ENCODER_LAYER: Table = (
    *LAYER,
    (r"norm1\." + VALUES, r"attention_residual.norm.\1"),
    (r"norm2\." + VALUES, r"feed_forward_residual.norm.\1"),
)
DECODER_LAYER: Table = (
    *LAYER,
    (r"multihead_attn\.in_proj_" + VALUES, r"encoder_attn.qkv_proj.\1"),
    (r"multihead_attn\.out_proj\." + VALUES, r"encoder_attn.o_proj.\1"),
    (r"norm1\." + VALUES, r"self_attention_residual.norm.\1"),
    (r"norm2\." + VALUES, r"encoder_attention_residual.norm.\1"),
    (r"norm3\." + VALUES, r"feed_forward_residual.norm.\1"),
)
PARTS = {"audio": "audio_encoder", "video": "visual_encoder", "joint": "fusion"}

# The recogniser of the reference code
RECOGNISER: Table = (
    (r"wav2vecModel\.(.+)", lambda match: _within("model.encoder.audio_front_end.encoder", match[1], SPEECH_ENCODER)),
    (r"visualModel\.(.+)", lambda match: _within("model.encoder.visual_front_end", match[1], VISUAL_FRONT_END)),
    (r"(audio|video|joint)Conv\.conv\.0\." + VALUES, lambda match: f"{_part(match)}.conv.reduce.{match[2]}"),
    (r"(audio|video|joint)Conv\.conv\.5\." + VALUES, lambda match: f"{_part(match)}.conv.mix.{match[2]}"),
    (
        r"(audio|video|joint)Encoder\.layers\.(\d+)\.(.+)",
        lambda match: _within(f"{_part(match)}.transformer.layers.{match[2]}", match[3], ENCODER_LAYER),
    ),
    (r"audioEncoder\.norm\." + VALUES, r"model.encoder.audio_norm.\1"),
    (r"videoEncoder\.norm\." + VALUES, r"model.encoder.visual_norm.\1"),
    (r"jointEncoder\.norm\." + VALUES, r"model.encoder.norm.\1"),
    (r"ModalityNormalization\." + VALUES, r"model.encoder.fusion.both_norms.\1"),
    (r"embed\.0\.weight", r"model.decoder.embed_tokens.weight"),
    (
        r"jointAttentionDecoder\.layers\.(\d+)\.(.+)",
        lambda match: _within(f"model.decoder.layers.{match[1]}", match[2], DECODER_LAYER),
    ),
    (r"jointAttentionDecoder\.norm\." + VALUES, r"model.decoder.norm.\1"),
    (r"jointOutputConv\.outputconv\.15\." + VALUES, r"ctc_head.output.\1"),
    (
        r"jointOutputConv\.outputconv\.(0|5|10)\." + VALUES,
        lambda match: f"ctc_head.layers.{int(match[1]) // 5}.{match[2]}",
    ),
    (r"jointAttentionOutputConv\.outputconv\.15\." + VALUES, r"decoder_head.output.\1"),
    (
        r"jointAttentionOutputConv\.outputconv\.(0|5|10)\." + VALUES,
        lambda match: f"decoder_head.layers.{int(match[1]) // 5}.{match[2]}",
    ),
    (
        r"jointAttentionOutputConv\.outputconv\.(2|7|12)\." + VALUES,
        lambda match: f"decoder_head.norms.{int(match[1]) // 5}.{match[2]}",
    ),
)

# The word classifier of the reference code
CLASSIFIER: Table = (
    (r"((?:frontend3D|MoCoModel)\..+)", lambda match: _within("visual_front_end", match[1], VISUAL_FRONT_END)),
    (r"backend_conv1\.0\.weight", r"classifier.conv1.weight"),
    (r"backend_conv1\.1\." + STATISTICS, r"classifier.norm1.\1"),
    (r"backend_conv1\.4\.weight", r"classifier.conv2.weight"),
    (r"backend_conv1\.5\." + STATISTICS, r"classifier.norm2.\1"),
    (r"backend_conv2\.0\." + VALUES, r"classifier.hidden.\1"),
    (r"backend_conv2\.1\." + STATISTICS, r"classifier.hidden_norm.\1"),
    (r"backend_conv2\.3\." + VALUES, r"classifier.output.\1"),
)


# ESPnet's modules, of which USR 2.0, auto_avsr and VSR-ML are built
ESPNET_BLOCKS: Table = (
    (r"(self_attn)\.linear_([qkv])\." + VALUES, r"\1.\2_proj.\3"),
    (r"self_attn\.linear_out\." + VALUES, r"self_attn.o_proj.\1"),
    (r"feed_forward\.w_([12])\." + VALUES, r"feed_forward.fc\1.\2"),
)
ESPNET_ENCODER_LAYER: Table = (
    *ESPNET_BLOCKS,
    (r"self_attn\.linear_pos\.weight", r"self_attn.pos_proj.weight"),
    (r"self_attn\.pos_bias_u", r"self_attn.content_bias"),
    (r"self_attn\.pos_bias_v", r"self_attn.position_bias"),
    (r"feed_forward_macaron\.w_([12])\." + VALUES, r"first_feed_forward.fc\1.\2"),
    (r"norm_mha\." + VALUES, r"attention_residual.norm.\1"),
    (r"norm_ff\." + VALUES, r"feed_forward_residual.norm.\1"),
    (r"norm_ff_macaron\." + VALUES, r"first_feed_forward_residual.norm.\1"),
    (r"norm_conv\." + VALUES, r"convolution_residual.norm.\1"),
    (r"norm_final\." + VALUES, r"final_norm.\1"),
    (r"gamma_mha", r"attention_residual.scale"),
    (r"gamma_ff", r"feed_forward_residual.scale"),
    (r"conv_module\.pointwise_con?v1\." + VALUES, r"convolution.gate.\1"),  # "cov" in copies of ESPnet
    (r"conv_module\.depthwise_conv\." + VALUES, r"convolution.depthwise.\1"),
    (r"conv_module\.norm\." + STATISTICS, r"convolution.norm.\1"),
    (r"conv_module\.pointwise_con?v2\." + VALUES, r"convolution.output.\1"),
)
ESPNET_DECODER_LAYER: Table = (
    *ESPNET_BLOCKS,
    (r"src_attn\.linear_([qkv])\." + VALUES, r"encoder_attn.\1_proj.\2"),
    (r"src_attn\.linear_out\." + VALUES, r"encoder_attn.o_proj.\1"),
    (r"norm1\." + VALUES, r"self_attention_residual.norm.\1"),
    (r"norm2\." + VALUES, r"encoder_attention_residual.norm.\1"),
    (r"norm3\." + VALUES, r"feed_forward_residual.norm.\1"),
)
ESPNET_FRONT_END: Table = (  # over lips or a waveform
    (r"(?:frontend3D\.0|trunk\.conv1)\.weight", r"stem.weight"),
    (r"(?:frontend3D\.1|trunk\.bn1)\." + STATISTICS, r"stem_norm.\1"),
    (r"trunk\.(layer.+)", lambda match: _within("resnet", match[1], RESNET)),
)
ESPNET_DECODER: Table = (
    (r"decoder\.embed\.0\.weight", r"model.decoder.embed_tokens.weight"),
    (r"decoder\.after_norm\." + VALUES, r"model.decoder.norm.\1"),
    (
        r"decoder\.decoders\.(\d+)\.(.+)",
        lambda match: _within(f"model.decoder.layers.{match[1]}", match[2], ESPNET_DECODER_LAYER),
    ),
    (r"decoder\.output_layer\." + VALUES, r"decoder_head.output.\1"),
    (r"ctc\.ctc_lo\." + VALUES, r"ctc_head.output.\1"),
)
USR2_MODALITIES = {"a": "audio", "v": "visual", "av": "audiovisual"}


def convert_state_dict(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Renames a state dict of the reference code.

    The names are those of [`AvsrForConditionalGeneration`] or, for a word classifier's weights, of
    [`AvsrForVideoClassification`]. Values and dtypes don't change.

    Args:
        weights: published names; a shared layer norm has several there, and has several here.

    Returns:
        Joint query-key-value projections are split, convolutions over one frame are matrices, the 3D stem is a 2D one.
        Names that AVSR does not have are left as they are, so that the loader of the result can report them.

    Raises:
        ValueError: the position encodings are not the paper's.
    """
    table = CLASSIFIER if is_classifier(weights) else RECOGNISER
    fused = any(name.startswith("jointEncoder.") for name in weights)
    converted = {}
    for name, value in weights.items():
        if re.fullmatch(POSITIONS, name):
            _check_positions(name, value)
            continue
        target = rename(name, table)
        if target is None:
            converted[name] = value
            continue
        if not fused:  # the only modality's norm is the encoder's
            target = re.sub(r"encoder\.(audio|visual)_norm\.", "encoder.norm.", target)
        converted.update(_parts(target, value))
    return converted


def convert_speech_encoder(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Renames the weights of fairseq's wav2vec 2.0, pre-trained or with a CTC head, to those of `Wav2Vec2Model`.

    Args:
        weights: fairseq's names.

    Returns:
        Without the pre-training task's own weights and the head. Names that wav2vec 2.0 does not have are left as they
        are.
    """
    if any(name.startswith(FINE_TUNED) for name in weights):
        weights = {
            name.removeprefix(FINE_TUNED): value
            for name, value in weights.items()
            if not re.fullmatch(r"w2v_encoder\.proj\." + VALUES, name)
        }
    encoder = {name: value for name, value in weights.items() if not name.startswith(PRE_TRAINING)}
    return {rename(name, SPEECH_ENCODER) or name: value for name, value in encoder.items()}


def convert_resnet(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Renames the residual stages of a ResNet to those of the visual front-end's `resnet`.

    Args:
        weights: torchvision's names, or a MoCo v2 checkpoint, whose query encoder is taken.

    Returns:
        Without the first convolution, which the 3D stem replaces, the head, and MoCo's key encoder and queue. Names
        that a ResNet does not have are left as they are.
    """
    moco = "module.encoder_q."
    if any(name.startswith(moco) for name in weights):
        left_out = r"module\.(?:encoder_k\..+|queue|queue_ptr)"
        weights = {
            name.removeprefix(moco): value for name, value in weights.items() if not re.fullmatch(left_out, name)
        }
    left_out = rf"conv1\.weight|bn1\.{STATISTICS}|fc\.(?:[02]\.)?{VALUES}"
    stages = {name: value for name, value in weights.items() if not re.fullmatch(left_out, name)}
    return {rename(name, RESNET) or name: value for name, value in stages.items()}


def is_recogniser(weights: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are published weights of the recogniser."""
    return any(name.startswith("jointAttentionDecoder.") for name in weights)


def is_resnet(weights: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are weights of a ResNet, torchvision's or in a MoCo v2 checkpoint."""
    return any(name.startswith(("module.encoder_q.", "layer1.0.conv1.")) for name in weights)


def is_classifier(weights: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are published weights of the word classifier."""
    return any(name.startswith("backend_conv") for name in weights)


def rename(name: str, table: Table) -> str | None:
    """Returns AVSR's name of a published weight; None if the table doesn't have it."""
    for pattern, target in table:
        match = re.fullmatch(pattern, name)
        if match:
            return target(match) if callable(target) else match.expand(target)
    return None


def _within(prefix: str, name: str, table: Table) -> str | None:
    target = rename(name, table)
    return target and f"{prefix}.{target}"


def _part(match: re.Match) -> str:
    return f"model.encoder.{PARTS[match[1]]}"


def _parts(target: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns what a published tensor becomes: itself, a slice of it, its three parts, or two names of it."""
    if ".qkv_proj." in target:
        names = [target.replace(".qkv_proj.", f".{part}_proj.") for part in "qkv"]
        return {name: part.contiguous() for name, part in zip(names, value.chunk(3))}
    if ".both_norms." in target:
        return {target.replace("both_norms", f"{modality}_norm"): value for modality in ("audio", "video")}
    if target.endswith("visual_front_end.stem.weight"):
        return {target: value.squeeze(1)}  # (channels, 1, frames, rows, columns): the frames are channels here
    if "_head." in target and value.ndim == 3:
        return {target: value.squeeze(-1)}
    return {target: value}


def _check_positions(name: str, table: torch.Tensor) -> None:
    """Raises a ValueError if a table `(length, 1, size)` of positions isn't this model's own encoding."""
    if table.is_meta:
        return
    expected = sinusoidal_positions(table.shape[0], table.shape[-1], table.device)
    if not torch.allclose(table.float().flatten(1), expected, atol=1e-3):
        raise ValueError(f"checkpoint: the position encodings {name} are not the sines and cosines that AVSR computes")


def espnet_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Removes what training has wrapped around the weights of USR 2.0, auto_avsr or VSR-ML, and older names of ESPnet.

    Args:
        weights: published names, with the prefixes of compiled, of self-distilled and of Lightning's modules.

    Raises:
        ValueError: two names are one without the prefixes.
    """
    plain: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        name = name.replace("_orig_mod.", "")
        if name in plain:
            raise ValueError(f"checkpoint: {name} is there twice, with and without the prefix of compiled modules")
        plain[name] = value
    if any(name.startswith("model.backbone.") for name in plain):  # beside it lie its teacher and the like
        inner = {name.removeprefix("model.backbone."): v for name, v in plain.items() if name.startswith("model.back")}
    else:
        inner = {name.removeprefix("model."): value for name, value in plain.items()}
    stripped = {}
    for name, value in inner.items():
        name = re.sub(r"(?<=coder\.)input_layer\.", "embed.", name)
        name = re.sub(r"^((?:aux_)?encoder)\.norm\.", r"\1.after_norm.", name)
        name = re.sub(r"^decoder\.output_norm\.", "decoder.after_norm.", name)
        if name.endswith(".pe"):  # positions, which are computed
            continue
        if name in stripped:
            raise ValueError(f"checkpoint: {name} is there twice, under its name and an older one")
        stripped[name] = value
    return stripped


def espnet_layout(weights: Mapping[str, torch.Tensor]) -> str | None:
    """Returns `"usr2"`, `"auto_avsr"` or `"vsr-ml"`, whose names these are without prefixes; None if nobody's."""
    starts = {"encoder.frontend_": "usr2", "proj_encoder.": "auto_avsr", "encoder.frontend.": "vsr-ml"}
    return next((kind for start, kind in starts.items() if any(name.startswith(start) for name in weights)), None)


def convert_espnet(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Renames the weights of USR 2.0, auto_avsr or VSR-ML to those of [`AvsrForConditionalGeneration`].

    Args:
        weights: the result of [`espnet_weights`].

    Returns:
        Convolutions over one frame are matrices, the 3D stem is a 2D one. Names that AVSR does not have are left as
        they are.
    """
    table = _espnet_table(weights)
    converted = {}
    for name, value in weights.items():
        target = rename(name, table) or name
        if target.endswith(("convolution.gate.weight", "convolution.output.weight")):
            value = value.squeeze(-1)
        converted.update(_parts(target, value))
    return converted


def _espnet_table(weights: Mapping[str, torch.Tensor]) -> Table:
    """Returns the names of one of the three layouts."""

    def encoder(names: str, layers: str, norm: str) -> Table:
        place = "model.encoder."
        return (
            (
                names + r"\.encoders\.(\d+)\.(.+)",
                lambda match: _within(f"{place}{layers}.layers.{match[1]}", match[2], ESPNET_ENCODER_LAYER),
            ),
            (names + r"\.after_norm\." + VALUES, rf"{place}{norm}.\1"),
        )

    def front_end(names: str, modality: str) -> Table:
        place = f"model.encoder.{modality}_front_end"
        return ((names + r"\.(.+)", lambda match: _within(place, match[1], ESPNET_FRONT_END)),)

    def linear(names: str, place: str) -> Table:
        return ((names + r"\." + VALUES, rf"{place}.\1"),)

    layout = espnet_layout(weights)
    if layout == "usr2":
        table = (*front_end(r"encoder\.frontend_v", "visual"), *front_end(r"encoder\.frontend_a", "audio"))
        for short, name in USR2_MODALITIES.items():
            table += linear(rf"encoder\.linear_{short}", f"model.encoder.projections.{name}")
            table += linear(rf"ctc_{short}\.ctc_lo", f"ctc_head.heads.{name}.output")
            table += linear(rf"decoder\.out_layer_{short}", f"decoder_head.heads.{name}.output")
        return table + encoder("encoder", "transformer", "norm") + ESPNET_DECODER
    if any(name.startswith("aux_encoder.") for name in weights):
        table = (*front_end(r"encoder\.frontend", "visual"), *front_end(r"aux_encoder\.frontend", "audio"))
        for names, modality, norm in (("encoder", "visual", "norm"), ("aux_encoder", "audio", "audio_norm")):
            table += linear(names + r"\.embed\.0", f"model.encoder.{modality}_projection")
            table += encoder(names, f"{modality}_transformer", norm)
        for names, place in ((r"fc1", "fusion_hidden"), (r"fc2", "fusion_output")):
            table += linear(r"fusion\." + names, f"model.encoder.{place}")
        norm_names: Table = ((r"fusion\.(?:bn1|norm1)\." + STATISTICS, r"model.encoder.fusion_norm.\1"),)
        return table + norm_names + ESPNET_DECODER
    modality = _espnet_modality(weights)
    table = front_end(r"(?:encoder\.)?frontend", modality)
    table += linear(r"(?:proj_encoder|encoder\.embed\.0)", f"model.encoder.projections.{modality}")
    return table + encoder("encoder", "transformer", "norm") + ESPNET_DECODER


def _espnet_modality(weights: Mapping[str, torch.Tensor]) -> str:
    """Returns the modality of a recogniser with one front-end."""
    return "visual" if any("frontend.frontend3D." in name for name in weights) else "audio"


def espnet_config(weights: Mapping[str, torch.Tensor], model_json: Mapping | None = None) -> AvsrConfig:
    """
    Returns the configuration of USR 2.0, auto_avsr or VSR-ML.

    Args:
        weights: the result of [`espnet_weights`].
        model_json: of VSR-ML, whose sizes and kinds of layers it has; those of the others are read off the weights.

    Raises:
        ValueError: a weight that is needed is missing, or `model_json` is.
    """
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    layout = espnet_layout(weights)
    vocabulary, hidden_size = shapes.get("decoder.embed.0.weight") or _missing("decoder.embed.0.weight", layout)
    if layout == "vsr-ml":
        if model_json is None:
            raise ValueError("checkpoint: a VSR-ML model needs its model.json beside it: name their folder.")
        return _with_channels(AvsrConfig.vsr_ml(read_model_json(model_json), vocab_size=vocabulary), shapes)
    layer = "encoder.encoders.0."
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": hidden_size,
        "num_attention_heads": _size(shapes, f"{layer}self_attn.pos_bias_u", layout),
        "intermediate_size": _size(shapes, f"{layer}feed_forward.w_1.weight", layout),
        "encoder_layers": _count(shapes, "encoder.encoders"),
        "decoder_layers": _count(shapes, "decoder.decoders"),
        "decoder_ffn_dim": _size(shapes, "decoder.decoders.0.feed_forward.w_1.weight", layout),
    }
    if layout == "usr2":
        return _with_channels(AvsrConfig.usr2(**sizes), shapes)
    kernel = shapes.get(f"{layer}conv_module.depthwise_conv.weight") or _missing("conv_module.depthwise_conv", layout)
    config = AvsrConfig.auto_avsr(_espnet_modality(weights), conformer_kernel_size=kernel[-1], **sizes)
    return _with_channels(config, shapes)


def _with_channels(config: AvsrConfig, shapes: Shapes) -> AvsrConfig:
    """Sets the front-ends' channels, which are always the same in published files, to those of the weights."""
    for name, shape in shapes.items():
        match = re.fullmatch(r".*front\w+\.(?:trunk\.layer(\d)\.0\.conv1|frontend3D\.0|trunk\.conv1)\.weight", name)
        if match is None:
            continue
        part = config.audio if len(shape) == 3 else config.visual  # convolutions over time or over pictures
        if match[1] is None:
            part.stem_channels = shape[0]
        else:
            channels = list(part.hidden_sizes)
            channels[int(match[1]) - 1] = shape[0]
            part.hidden_sizes = tuple(channels)
    return config


def config_from_state_dict(weights: Mapping[str, torch.Tensor]) -> AvsrConfig:
    """
    Returns the configuration of the reference code's recogniser or word classifier: its layout, with the sizes found.

    If the final layer norms of the weights differ, as in a repaired copy of the code, they are not shared.

    Args:
        weights: published names.

    Raises:
        ValueError: a weight that is needed is missing, or the sizes leave the number of attention heads open.
    """
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    if is_classifier(weights):
        return AvsrConfig.reference(
            modality="visual",
            visual_config=_visual_config(shapes, ""),
            classifier_hidden_size=_size(shapes, "backend_conv1.0.weight"),
            num_labels=_size(shapes, "backend_conv2.3.weight"),
        )
    fields: dict = {"modality": _modality(shapes)}
    if fields["modality"] != "visual":
        inner = {name.removeprefix("wav2vecModel."): s for name, s in shapes.items() if name.startswith("wav2vec")}
        fields["audio_config"] = {"encoder_config": _speech_encoder_config(inner)}
    if fields["modality"] != "audio":
        fields["visual_config"] = _visual_config(shapes, "visualModel.")
    vocabulary, hidden_size = shapes.get("embed.0.weight") or _missing("embed.0.weight")
    encoder = "videoEncoder" if fields["modality"] == "visual" else "audioEncoder"
    head = [_size(shapes, f"jointOutputConv.outputconv.{place}.weight") for place in (0, 5, 10)]
    return AvsrConfig.reference(
        **fields,
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        num_attention_heads=_heads(hidden_size),
        encoder_layers=_count(shapes, f"{encoder}.layers"),
        fusion_layers=_count(shapes, "jointEncoder.layers"),
        decoder_layers=_count(shapes, "jointAttentionDecoder.layers"),
        intermediate_size=_size(shapes, f"{encoder}.layers.0.linear1.weight"),
        head_hidden_sizes=head,
        tie_final_norm=_final_norm_is_shared(weights),
    )


def speech_encoder_config(weights: Mapping[str, torch.Tensor]) -> Wav2Vec2Config:
    """
    Returns the configuration of fairseq's wav2vec 2.0, with the paper's masking.

    Strides are those of every wav2vec 2.0. If all convolutions have layer norms, the Transformer's layers begin with
    theirs, too.

    Args:
        weights: fairseq's names, with the prefix of a model with a CTC head or without it.

    Raises:
        ValueError: a weight that is needed is missing, or the sizes leave the number of attention heads open.
    """
    return _speech_encoder_config({name.removeprefix(FINE_TUNED): tuple(v.shape) for name, v in weights.items()})


def _speech_encoder_config(shapes: Shapes) -> Wav2Vec2Config:
    convolutions = [
        shapes.get(f"feature_extractor.conv_layers.{layer}.0.weight") or _missing("feature_extractor.conv_layers")
        for layer in range(max(1, _count(shapes, "feature_extractor.conv_layers")))
    ]
    by_layer = f"feature_extractor.conv_layers.{len(convolutions) - 1}.2.1.weight" in shapes
    hidden_size, group, width = shapes.get("encoder.pos_conv.0.weight_v") or _missing("encoder.pos_conv.0.weight_v")
    published = wav2vec2_large_config().to_dict() | {
        "conv_dim": [size for size, _, _ in convolutions],
        "conv_kernel": [kernel for _, _, kernel in convolutions],
        "conv_bias": "feature_extractor.conv_layers.0.0.bias" in shapes,
        "feat_extract_norm": "layer" if by_layer else "group",
        "do_stable_layer_norm": by_layer,
        "hidden_size": hidden_size,
        "num_conv_pos_embeddings": width,
        "num_conv_pos_embedding_groups": hidden_size // group,
        "num_hidden_layers": _count(shapes, "encoder.layers"),
        "num_attention_heads": _heads(hidden_size),
        "intermediate_size": _size(shapes, "encoder.layers.0.fc1.weight"),
    }
    return Wav2Vec2Config(**published)


def _visual_config(shapes: Shapes, prefix: str) -> dict:
    resnet = f"{prefix}MoCoModel"
    deep = f"{resnet}.layer1.0.conv3.weight" in shapes
    last = "conv3" if deep else "conv2"
    return {
        "stem_channels": _size(shapes, f"{prefix}frontend3D.0.weight"),
        "layer_type": "bottleneck" if deep else "basic",
        "hidden_sizes": [_size(shapes, f"{resnet}.layer{stage}.0.{last}.weight") for stage in (1, 2, 3, 4)],
        "depths": [_count(shapes, f"{resnet}.layer{stage}") for stage in (1, 2, 3, 4)],
    }


def _modality(shapes: Shapes) -> str:
    sound, lips = ("audioConv.conv.0.weight" in shapes), ("videoConv.conv.0.weight" in shapes)
    if not sound and not lips:
        _missing("audioConv.conv.0.weight or videoConv.conv.0.weight")
    return "audiovisual" if sound and lips else "audio" if sound else "visual"


def _final_norm_is_shared(weights: Mapping[str, torch.Tensor]) -> bool:
    for kind in ("weight", "bias"):
        pattern = re.compile(rf"(?:\w+Encoder|jointAttentionDecoder)\.norm\.{kind}")
        norms = [value for name, value in weights.items() if pattern.fullmatch(name)]
        if any(value.shape != norms[0].shape or not torch.equal(value, norms[0]) for value in norms):
            return False
    return True


def _heads(hidden_size: int) -> int:
    if hidden_size % HEAD_SIZE:
        raise ValueError(f"checkpoint: {HEADS_UNKNOWN}")
    return hidden_size // HEAD_SIZE


def _size(shapes: Shapes, name: str, kind: str | None = None) -> int:
    """Returns the first dimension of a weight."""
    return shapes[name][0] if shapes.get(name) else _missing(name, kind)


def _count(shapes: Shapes, prefix: str) -> int:
    """Returns how many numbered modules a prefix has."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return 1 + max((int(match[1]) for match in map(pattern.match, shapes) if match), default=-1)


def _missing(name: str, kind: str | None = None) -> NoReturn:
    raise ValueError(f"checkpoint: {name} is missing: this is not a published {kind or 'AVSR'} checkpoint")

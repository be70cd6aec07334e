"""The configuration of published weights, read off their names and sizes."""

import re
from collections.abc import Mapping

import torch
from transformers import Wav2Vec2Config

from .configuration_avsr import AvsrConfig, wav2vec2_large_config
from .convert_avsr import FINE_TUNED, is_classifier

HEAD_SIZE = 64  # of the paper's Transformers and of every wav2vec 2.0
HEADS_UNKNOWN = "how many attention heads it has cannot be read off its weights; give its configuration with config="
Shapes = dict[str, tuple[int, ...]]


def config_from_state_dict(weights: Mapping[str, torch.Tensor]) -> AvsrConfig:
    """
    The configuration of the reference code's recogniser or word classifier: [`AvsrConfig.reference`] with its sizes.

    Layer norms that the code shares and this file does not are not shared here, either.

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
    The configuration of fairseq's wav2vec 2.0, with the paper's masking.

    Strides are those of every wav2vec 2.0; layer norms in all convolutions mean that they come first in the
    Transformer's layers, too.

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


def _size(shapes: Shapes, name: str) -> int:
    """The first dimension of a weight."""
    return shapes[name][0] if shapes.get(name) else _missing(name)


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered modules there are."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return 1 + max((int(match[1]) for match in map(pattern.match, shapes) if match), default=-1)


def _missing(name: str):
    raise ValueError(f"checkpoint: {name} is missing, so this is none of AVSR's published checkpoints")

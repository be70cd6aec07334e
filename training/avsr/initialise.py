"""Modules copied from other checkpoints, and frozen modules: how the paper's stages build on each other."""

import os
from pathlib import Path
from typing import Any

from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from lookhear.modeling.avsr import AvsrForConditionalGeneration, AvsrForVideoClassification
from lookhear.modeling.avsr.configuration_avsr import wav2vec2_large_config
from lookhear.modeling.avsr.convert_avsr import convert_resnet, convert_speech_encoder, speech_encoder_config
from lookhear.training.checkpoint_files import load_weights, read_checkpoint

SPEECH_ENCODERS = ("wav2vec2", "hubert", "wavlm")
# How an encoder is trained further; the values are the published code's, whatever it was pre-trained with.
FINE_TUNING: tuple[str, ...] = ("mask_time_prob", "mask_time_length", "mask_feature_prob", "mask_feature_length")
FINE_TUNING += ("layerdrop", "hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")


def initialise_modules(model: PreTrainedModel, sources: list[dict]) -> None:
    """
    Copies modules from other checkpoints into a model.

    Args:
        model: changed in place.
        sources: `{checkpoint, modules}` each for a checkpoint of this library, the modules being a list of names or,
            where the names differ, a mapping of names there to names here;
            `{checkpoint, format: "moco" | "torchvision"}` for a ResNet's weights;
            `{checkpoint, format: "speech-encoder"}` for a wav2vec2, HuBERT or WavLM folder or Hub id, or fairseq's
            file of a wav2vec 2.0.

    Raises:
        ValueError: a module that is missing in either model, a format that is unknown, or weights that do not fit.
    """
    for source in sources:
        kind = source.get("format", "lookhear")
        if kind in ("moco", "torchvision"):
            load_resnet(_front_end(model, "visual_front_end"), source["checkpoint"])
        elif kind == "speech-encoder":
            load_speech_encoder(_front_end(model, "audio_front_end"), source["checkpoint"])
        elif kind == "lookhear":
            other = _load(source["checkpoint"])
            for there, here in _renaming(source["modules"]).items():
                _module(model, here).load_state_dict(_module(other, there).state_dict())
        else:
            raise ValueError(
                f"model.initialise: format {kind!r} is unknown; "
                "it is one of lookhear, moco, torchvision, speech-encoder"
            )


def load_resnet(front_end: nn.Module, source: str | os.PathLike) -> None:
    """
    Loads the residual stages of a ResNet into a visual front-end (paper, section 3.1); the 3D stem is not changed.

    Args:
        front_end: changed in place.
        source: a MoCo v2 checkpoint (`module.encoder_q.*`) or torchvision's weights.

    Raises:
        ValueError: the file holds no such ResNet; missing, unknown and wrongly shaped weights are named.
    """
    load_weights(
        front_end.get_submodule("resnet"), convert_resnet(read_checkpoint(source)), f"checkpoint {str(source)!r}"
    )


def load_speech_encoder(front_end: nn.Module, source: str | os.PathLike) -> None:
    """
    Loads a self-supervised speech encoder into an audio front-end (paper, section 3.1).

    Args:
        front_end: changed in place.
        source: folder or Hub id of a wav2vec2, HuBERT or WavLM model with or without a head, or fairseq's file of a
            wav2vec 2.0.

    Raises:
        ValueError: it cannot be read or is another encoder than the front-end's; weights that don't fit are named.
    """
    encoder, name = front_end.get_submodule("encoder"), f"checkpoint {str(source)!r}"
    if not isinstance(encoder, PreTrainedModel):
        raise ValueError(f"{name}: the audio front-end has no speech encoder that it could be loaded into")
    if Path(source).is_file():
        weights = convert_speech_encoder(read_checkpoint(source))
    else:
        _check_same_encoder(speech_encoder_config_of(source), encoder.config, name)
        weights = AutoModel.from_pretrained(source).state_dict()
    ours = encoder.state_dict()
    mask = weights.pop("masked_spec_embed", None)
    if "masked_spec_embed" in ours:  # only an encoder that masks while training has it
        weights["masked_spec_embed"] = ours["masked_spec_embed"] if mask is None else mask
    load_weights(encoder, weights, name)


def speech_encoder_config_of(source: str | os.PathLike) -> PreTrainedConfig:
    """
    Returns the configuration of a speech encoder's folder or Hub id.

    Raises:
        ValueError: there is none, or it belongs to another kind of model.
    """
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"checkpoint {str(source)!r} cannot be loaded: {str(error).splitlines()[0]}") from None
    if config.model_type not in SPEECH_ENCODERS:
        raise ValueError(
            f"checkpoint {str(source)!r} is a {config.model_type} model; an audio front-end is one of "
            + ", ".join(SPEECH_ENCODERS)
        )
    return config


def with_front_ends(fields: dict[str, Any], sources: list[dict]) -> dict[str, Any]:
    """
    Adds the configurations of the front-ends that a new model copies, unless the fields have their own.

    Args:
        fields: of `AvsrConfig`; not changed.
        sources: see [`initialise_modules`].

    Returns:
        The fields. Of a speech encoder the sizes are the checkpoint's, masking and dropout those of the published
        code; a front-end of a checkpoint of this library is as it is there.

    Raises:
        ValueError: a checkpoint cannot be read, or is no speech encoder.
    """
    fields = dict(fields)
    for source in sources:
        kind, checkpoint = source.get("format", "lookhear"), source["checkpoint"]
        if kind == "speech-encoder":
            audio = dict(fields.get("audio_config") or {})
            if not audio.get("encoder_config") and audio.get("front_end", "wav2vec2") == "wav2vec2":
                fields["audio_config"] = {**audio, "encoder_config": _encoder_to_train(checkpoint)}
        elif kind == "lookhear":
            for there, here in _renaming(source["modules"]).items():
                name = f"{here.rpartition('.')[2].removesuffix('_front_end')}_config"
                if here.endswith("_front_end") and there.endswith("_front_end") and not fields.get(name):
                    fields[name] = getattr(AutoConfig.from_pretrained(checkpoint), name)
    return fields


def _encoder_to_train(source: str | os.PathLike) -> PreTrainedConfig:
    """Returns the configuration of a speech encoder, to be trained as the published code does."""
    if Path(source).is_file():
        return speech_encoder_config(read_checkpoint(source))
    encoder, published = speech_encoder_config_of(source), wav2vec2_large_config()
    settings = {name: value for name, value in encoder.to_dict().items() if name not in ("dtype", "torch_dtype")}
    return CONFIG_MAPPING[encoder.model_type](**settings | {name: getattr(published, name) for name in FINE_TUNING})


def _check_same_encoder(theirs: PreTrainedConfig, ours: PreTrainedConfig, name: str) -> None:
    """Compares what the weights' names and shapes do not show."""
    fields = ("model_type", "feat_extract_norm", "do_stable_layer_norm", "num_attention_heads", "conv_stride")
    pairs = [(field, getattr(theirs, field), getattr(ours, field)) for field in fields]
    wrong = [f"{field} is {a}, the model's is {b}" for field, a, b in pairs if _plain(a) != _plain(b)]
    if wrong:
        raise ValueError(f"{name}: {'; '.join(wrong)}")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _renaming(modules: list[str] | dict[str, str]) -> dict[str, str]:
    return modules if isinstance(modules, dict) else {name: name for name in modules}


def _load(checkpoint: str) -> PreTrainedModel:
    """Returns a recogniser or, if the checkpoint is one, a word classifier."""
    config = AutoConfig.from_pretrained(checkpoint)
    words = "AvsrForVideoClassification" in (config.architectures or [])
    return (AvsrForVideoClassification if words else AvsrForConditionalGeneration).from_pretrained(checkpoint)


def _module(model: PreTrainedModel, name: str) -> nn.Module:
    """Returns the named module; the front-ends also by their bare names, which both kinds of model have."""
    return _front_end(model, name) if name.endswith("_front_end") else select_modules(model, [name])[0]


def _front_end(model: PreTrainedModel, name: str) -> nn.Module:
    base = model.model.encoder if isinstance(model, AvsrForConditionalGeneration) else model
    return select_modules(base, [name.rpartition(".")[2]])[0]


def select_modules(model: nn.Module, names: list[str]) -> list[nn.Module]:
    """Returns the named modules; a ValueError for a missing one lists those that exist."""
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            parent = name.rpartition(".")[0]
            there = [n for n in modules if n.rpartition(".")[0] == parent and n] or [
                n for n in modules if "." not in n
            ]
            raise ValueError(f"the model has no module {name!r}; there are {', '.join(there)}")
    return [modules[name] for name in names]

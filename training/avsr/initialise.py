"""Modules taken from other checkpoints, and modules that stay frozen: how the paper's stages build on each other."""

from torch import nn
from transformers import AutoModel, PreTrainedModel

from lookhear.modeling.avsr.convert_avsr import load_resnet_weights


def initialise_modules(model: PreTrainedModel, sources: list[dict]) -> None:
    """
    Copies modules from other checkpoints into a model.

    Args:
        model: changed in place.
        sources: each `{checkpoint, modules}` (names below the model, equal in both models) for a checkpoint of this
            library; `{checkpoint, format: "moco" | "torchvision"}` for a ResNet's weights; or
            `{checkpoint, format: "speech-encoder"}` for a wav2vec2, HuBERT or WavLM folder or Hub id.
    Raises:
        ValueError: a module that is missing in either model, or a format that is unknown.
    """
    for source in sources:
        kind = source.get("format", "lookhear")
        if kind in ("moco", "torchvision"):
            load_resnet_weights(model.get_submodule("model.encoder.visual_front_end"), source["checkpoint"])
        elif kind == "speech-encoder":
            encoder = model.get_submodule("model.encoder.audio_front_end").encoder
            encoder.load_state_dict(AutoModel.from_pretrained(source["checkpoint"]).state_dict())
        elif kind == "lookhear":
            other = type(model).from_pretrained(source["checkpoint"])
            for name in source["modules"]:
                (target,), (origin,) = select_modules(model, [name]), select_modules(other, [name])
                target.load_state_dict(origin.state_dict())
        else:
            raise ValueError(
                f"model.initialise: format {kind!r} is unknown; it is one of lookhear, moco, torchvision, speech-encoder"
            )


def select_modules(model: nn.Module, names: list[str]) -> list[nn.Module]:
    """The named modules; ValueError lists what is there instead of one that is missing."""
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            parent = name.rpartition(".")[0]
            there = [n for n in modules if n.rpartition(".")[0] == parent and n] or [
                n for n in modules if "." not in n
            ]
            raise ValueError(f"the model has no module {name!r}; there are {', '.join(there)}")
    return [modules[name] for name in names]

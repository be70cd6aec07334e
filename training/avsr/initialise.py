"""Modules taken from other checkpoints, and modules that stay frozen: how the paper's stages build on each other."""

from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from lookhear.modeling.avsr import AvsrForConditionalGeneration, AvsrForVideoClassification
from lookhear.modeling.avsr.convert_avsr import load_resnet_weights


def initialise_modules(model: PreTrainedModel, sources: list[dict]) -> None:
    """
    Copies modules from other checkpoints into a model.

    Args:
        model: changed in place.
        sources: each `{checkpoint, modules}` for a checkpoint of this library, the modules being a list of names or,
            where the names differ, a mapping of names there to names here; `{checkpoint, format: "moco" | "torchvision"}` for a ResNet's weights; or
            `{checkpoint, format: "speech-encoder"}` for a wav2vec2, HuBERT or WavLM folder or Hub id.
    Raises:
        ValueError: a module that is missing in either model, or a format that is unknown.
    """
    for source in sources:
        kind = source.get("format", "lookhear")
        if kind in ("moco", "torchvision"):
            load_resnet_weights(_front_end(model, "visual_front_end"), source["checkpoint"])
        elif kind == "speech-encoder":
            encoder = _front_end(model, "audio_front_end").encoder
            encoder.load_state_dict(AutoModel.from_pretrained(source["checkpoint"]).state_dict())
        elif kind == "lookhear":
            other = _load(source["checkpoint"])
            for there, here in _renaming(source["modules"]).items():
                _module(model, here).load_state_dict(_module(other, there).state_dict())
        else:
            raise ValueError(
                f"model.initialise: format {kind!r} is unknown; it is one of lookhear, moco, torchvision, speech-encoder"
            )


def _renaming(modules: list[str] | dict[str, str]) -> dict[str, str]:
    return modules if isinstance(modules, dict) else {name: name for name in modules}


def _load(checkpoint: str) -> PreTrainedModel:
    """A recogniser or, if the checkpoint is one, a word classifier."""
    config = AutoConfig.from_pretrained(checkpoint)
    words = "AvsrForVideoClassification" in (config.architectures or [])
    return (AvsrForVideoClassification if words else AvsrForConditionalGeneration).from_pretrained(checkpoint)


def _module(model: PreTrainedModel, name: str) -> nn.Module:
    """The named module; the front-ends also by their bare names, which both kinds of model have."""
    return _front_end(model, name) if name.endswith("_front_end") else select_modules(model, [name])[0]


def _front_end(model: PreTrainedModel, name: str) -> nn.Module:
    base = model.model.encoder if isinstance(model, AvsrForConditionalGeneration) else model
    return select_modules(base, [name.rpartition(".")[2]])[0]


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

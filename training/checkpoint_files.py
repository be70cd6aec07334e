"""Checkpoints of other code: read without running anything in them, checked name by name."""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals
from transformers import PreTrainedConfig

from lookhear.evaluation.whole_files import check_folder

Config = TypeVar("Config", bound=PreTrainedConfig)


class _Inert:
    """Stands in for an object of a class that no weight needs: accepts its state and does nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_checkpoint(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """
    Reads the state dict in a file: bare, or under `state_dict`, `model` or `module` (Lightning, MoCo, fairseq,
    DeepSpeed).

    Only tensors and plain containers are loaded. Objects of other classes (settings, the trainer's state) are not
    created, and nothing that the file names is imported or called.

    Args:
        path: `.safetensors`, or any file that `torch.save` wrote.

    Raises:
        ValueError: no such file, a damaged one, or one that holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {str(path)!r} is not a file")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load(path)
    except (
        Exception
    ) as error:  # torch.load raises anything on a damaged file: pickle's errors, KeyError, EOFError, ...
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
        raise ValueError(f"checkpoint {str(path)!r} cannot be read safely: {reason.splitlines()[0]}") from None
    for entry in ("state_dict", "model", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"checkpoint {str(path)!r} holds no state dict")
    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ValueError(f"checkpoint {str(path)!r} has entries that are not tensors: {shorten(others)}")
    return dict(content)


def _load(path: Path) -> object:
    zipped = zipfile.is_zipfile(path)
    unknown = get_unsafe_globals_in_checkpoint(path) if zipped else []
    with safe_globals([(type("Inert", (_Inert,), {}), name) for name in unknown]):
        return torch.load(path, "cpu", weights_only=True, mmap=zipped)


def check_weights(
    weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], source: str = "checkpoint"
) -> None:
    """
    Checks that the weights are exactly the expected ones, each in its shape.

    Raises:
        ValueError: lists all weights that are missing, unknown, or of another shape.
    """
    found = {
        "missing": [name for name in expected if name not in weights],
        "unknown": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
            for name, value in expected.items()
            if name in weights and weights[name].shape != value.shape
        ],
    }
    problems = [f"{len(names)} weights are {kind}: {shorten(names)}" for kind, names in found.items() if names]
    if problems:
        raise ValueError(f"{source}: it does not fit the model: {'; '.join(problems)}")


def load_weights(module: nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Puts weights into a module if they are exactly its own; see [`check_weights`]."""
    check_weights(weights, module.state_dict(), source)
    module.load_state_dict(weights)


def shorten(names: list[str], limit: int = 8) -> str:
    """Lists the first `limit` names in one line."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def load_config(path: str | os.PathLike, kind: type[Config]) -> Config:
    """
    Loads a configuration from a folder or a file.

    Raises:
        ValueError: there is none, or it is of another model.
    """
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"config {str(path)!r} cannot be read: {error}") from None
    if not isinstance(fields, dict) or fields.get("model_type") != kind.model_type:
        raise ValueError(f"config {str(path)!r} is not of a {kind.model_type.upper()} model")
    return kind.from_dict(fields)


def check_new_folder(output: str | os.PathLike) -> Path:
    """
    Checks the path of a folder that is to be created.

    Raises:
        ValueError: it exists already and is not an empty folder.
    """
    output = Path(output)
    check_folder(output.parent, "output")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output {str(output)!r} exists already; name a new folder")
    return output

# Copyright 2026 The LookHear developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Weights that a checkpoint names by the id of a published model, instead of storing them."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file
from torch import nn

from .configuration_lisa_glee import LisaGleeConfig, sub_config
from .saved_code_lisa_glee import registered_model

# Part of the model -> the field of the configuration that names where its frozen weights are published.
REFERENCES = {"perception": "perception_id", "language_model": "language_model_id"}
# Arguments of `from_pretrained` that say how files are fetched, for those of a reference as well.
FETCHING = ("cache_dir", "force_download", "local_files_only", "proxies", "token")
# Loads a published model: `from_pretrained` of its class or of an Auto class.
Load = Callable[..., Any]


def references(config: LisaGleeConfig) -> dict[str, str]:
    """Returns part of the model -> id of the published model that has its frozen weights."""
    ids = {part: getattr(config, field) for part, field in REFERENCES.items()}
    return {part: name for part, name in ids.items() if name is not None}


def without_referenced(model: nn.Module, parts: Iterable[str], weights: Mapping[str, Any]) -> dict[str, Any]:
    """
    Leaves out weights that the published models of some parts have: all frozen ones.

    Args:
        model: that the weights belong to.
        parts: names of its modules, see [`references`].
        weights: by name.

    Returns:
        weights that training may have changed, and those of other parts.
    """
    left_out: set[str] = set()
    for part in parts:
        module = model.get_submodule(part)
        parameters = dict(module.named_parameters(prefix=part, remove_duplicate=False))
        left_out |= {name for name, weight in parameters.items() if not weight.requires_grad}
        if len(left_out & parameters.keys()) == len(parameters):
            left_out |= {name for name, _ in module.named_buffers(prefix=part, remove_duplicate=False)}
    return {name: weight for name, weight in weights.items() if name not in left_out}


def stored_weights(name: str | os.PathLike, **fetching: Any) -> dict[str, torch.Tensor]:
    """
    Reads the weights that a checkpoint itself has.

    Args:
        name: folder or Hub id.
        fetching: arguments of `hf_hub_download`, such as `revision`.

    Raises:
        OSError: it has none as safetensors.
    """
    try:
        files = [_file(name, "model.safetensors", **fetching)]
    except (EntryNotFoundError, FileNotFoundError):
        try:
            index = json.loads(_file(name, "model.safetensors.index.json", **fetching).read_text(encoding="utf-8"))
        except (EntryNotFoundError, FileNotFoundError):
            raise OSError(f"{name} has no model.safetensors; save the model with save_pretrained.") from None
        files = [_file(name, file, **fetching) for file in sorted(set(index["weight_map"].values()))]
    return {key: weight for file in files for key, weight in load_file(file).items()}


def _file(name: str | os.PathLike, file: str, **fetching: Any) -> Path:
    """Returns a file of a checkpoint, fetched from the Hub if need be."""
    folder = Path(name, fetching.get("subfolder") or "")
    if not Path(name).is_dir():
        return Path(hf_hub_download(str(name), file, **fetching))
    if not (folder / file).is_file():
        raise FileNotFoundError(folder / file)
    return folder / file


def with_referenced(
    model: nn.Module, config: LisaGleeConfig, stored: Mapping[str, torch.Tensor], language: Load, **fetching: Any
) -> tuple[dict[str, torch.Tensor], set[str]]:
    """
    Adds the weights that published models have to those that a checkpoint stores.

    Args:
        model: of the configuration, without memory for its weights.
        config: names the published models.
        stored: weights of the checkpoint; they stay as they are.
        language: `from_pretrained` of the language model's Auto class.
        fetching: arguments of `from_pretrained` that say how files are fetched.

    Returns:
        all weights by name, and the names of the added ones.

    Raises:
        ValueError: a published model cannot be loaded, is incomplete, or is another one than was saved.
    """
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    known = _with_tied(model, stored.keys())
    added: dict[str, torch.Tensor] = {}
    for part, name in references(config).items():
        wanted = {key for key in shapes if key.startswith(f"{part}.")} - known
        if not wanted:
            continue
        load = language
        if part == "perception":
            load = registered_model(sub_config(config, "perception_config")).from_pretrained
        revision = getattr(config, REFERENCES[part].replace("_id", "_revision"))
        found = _published(REFERENCES[part], name, load, revision=revision, **fetching)
        added |= {f"{part}.{key}": weight for key, weight in found.items() if f"{part}.{key}" in wanted}
        for key in sorted(wanted):
            there = tuple(added[key].shape) if key in added else "absent"
            if there != tuple(shapes[key]):
                raise ValueError(
                    f"{REFERENCES[part]}: {key} is {there} in {name!r}, and {tuple(shapes[key])} here; name the model "
                    "that this one was trained with."
                )
    return {**added, **stored}, set(added)


def _with_tied(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Returns names and those of the same weights, such as of an output layer that is tied to the embeddings."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    known = {id(weights[name]) for name in names if name in weights}
    return {*names, *(name for name, weight in weights.items() if id(weight) in known)}


def _published(field: str, name: str, load: Load, **fetching: Any) -> dict[str, torch.Tensor]:
    """Loads the weights of a published model; `field` is for messages."""
    try:
        model, report = load(name, output_loading_info=True, **fetching)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{field}: {name!r} cannot be loaded: {reason}") from None
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{field}: {name!r} is incomplete, it has no {missing[0]}.")
    return model.state_dict()

"""Which of a LISA-GLEE's weights are trained: adapters of its language model by `peft`, and their merging."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import nn

from lookhear.modeling.lisa_glee import LisaGleeForReasoningSegmentation
from lookhear.training.lisa_glee.recipe import LoraRecipe

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER = "default"  # peft's name of a model's only adapter
FIRST, SECOND, BASE = f".lora_A.{ADAPTER}.weight", f".lora_B.{ADAPTER}.weight", ".base_layer."


def choose_trained(model: LisaGleeForReasoningSegmentation, recipe: LoraRecipe) -> None:
    """
    Adds adapters to a model, in place, and freezes all but what is trained.

    Trained are the adapters (without adapters: the language model, except for its image encoder), the embeddings and
    the output layer of the language model, and what connects it with GLEE.

    Args:
        model: to train; may be on the meta device.
        recipe: of the adapters.

    Raises:
        ValueError: `peft` is not installed, or the language model has no such layers.
    """
    decoder = model.language_model.get_decoder()
    model.requires_grad_(False)
    if recipe.r:
        _add_adapters(model, decoder, recipe)
    else:
        decoder.requires_grad_(True)
    trained = [model.get_input_embeddings(), model.get_output_embeddings(), model.object_encoder, model.segment_head]
    for module in trained:
        module.requires_grad_(True)


def lora_config(modules: list[str], recipe: LoraRecipe) -> LoraConfig:
    """
    Describes adapters as `peft` does.

    Args:
        modules: names of the linear layers that get one.
        recipe: of the adapters.

    Raises:
        ValueError: `peft` is not installed.
    """
    if find_spec("peft") is None:
        raise ValueError("model.lora needs the package peft: pip install 'lookhear[lora]', or set model.lora.r=0")
    from peft import LoraConfig

    return LoraConfig(r=recipe.r, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=modules)


def _add_adapters(model: LisaGleeForReasoningSegmentation, decoder: nn.Module, recipe: LoraRecipe) -> None:
    inside = {id(module) for module in decoder.modules()}
    linear = [name for name, module in model.named_modules() if id(module) in inside and isinstance(module, nn.Linear)]
    for wanted in recipe.modules:
        if not any(name.endswith(f".{wanted}") for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise ValueError(f"model.lora.modules: there is no layer {wanted!r}; choose from {', '.join(known)}")
    config = lora_config([name for name in linear if name.rpartition(".")[2] in recipe.modules], recipe)
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, model)


def merge_adapters(weights: Mapping[str, torch.Tensor], recipe: LoraRecipe) -> dict[str, torch.Tensor]:
    """
    Adds adapters to the weights that they adapt.

    Args:
        weights: state dict of a model with adapters, or without.
        recipe: of the adapters.

    Returns:
        state dict of the model as it is without `peft`; a sum is computed in float32 and has its weight's type.
    """
    merged: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        plain = name.replace(BASE, ".")
        layer = name.removesuffix(f"{BASE}weight")
        if f"{layer}{FIRST}" in weights:
            first, second = weights[f"{layer}{FIRST}"].float(), weights[f"{layer}{SECOND}"].float()
            weight = (weight.float() + recipe.alpha / recipe.r * second @ first).to(weight.dtype)
        merged[plain] = weight
    return merged


def save_adapters(weights: Mapping[str, torch.Tensor], recipe: LoraRecipe, folder: Path) -> None:
    """
    Writes the adapters alone, as `peft` reads them.

    Args:
        weights: state dict of a model with adapters.
        recipe: of the adapters.
        folder: created if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapters = {
        f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": weight.contiguous()
        for name, weight in weights.items()
        if ".lora_" in name
    }
    layers = sorted({name.partition(".lora_")[0] for name in weights if ".lora_" in name})
    save_file(adapters, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    lora_config(layers, recipe).save_pretrained(str(folder))

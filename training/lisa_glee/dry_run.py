"""What a recipe's training takes, computed without data, weights or network: shapes, trained weights, memory."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import torch

from lookhear.modeling.lisa_glee import LisaGleeConfig, LisaGleeForReasoningSegmentation
from lookhear.training.lisa_glee.building import image_tokens, recipe_config
from lookhear.training.lisa_glee.lora import choose_trained
from lookhear.training.lisa_glee.recipe import LisaRecipe
from lookhear.training.running import training_arguments

GIB = 2**30
QUESTION_TOKENS = 128  # of a question about a mask and its answer, at most
PARTS = {  # name in the table -> beginning of the names of its weights
    "GLEE": "perception.",
    "image encoder": r"language_model\.model\.(vision_tower|multi_modal_projector)\.",
    "embeddings": r".*\.embed_tokens\.",
    "output layer": r".*lm_head\.",
    "adapters": r".*\.lora_",
    "language model": "language_model.",
    "objects' projection": "object_encoder.",
    "masks' projection": "segment_head.",
}


@dataclass(frozen=True)
class Memory:
    """
    Memory that training takes, in bytes.

    Attributes:
        weights: of the model.
        gradients: of the weights that are trained.
        optimizer: of AdamW.
        activations: kept from the forward pass for the backward pass.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Returns the sum."""
        return self.weights + self.gradients + self.optimizer + self.activations


def meta_model(recipe: LisaRecipe) -> LisaGleeForReasoningSegmentation:
    """
    Makes a recipe's model with its adapters on the meta device, where weights have shapes but no memory.

    Args:
        recipe: of the training.

    Raises:
        ValueError: it names no model, or its adapters cannot be added.
    """
    with torch.device("meta"):
        model = LisaGleeForReasoningSegmentation(recipe_config(recipe.model))
        choose_trained(model, recipe.model.lora)
    return model


def rows_and_tokens(recipe: LisaRecipe, config: LisaGleeConfig, batch: int) -> tuple[int, int]:
    """
    Returns the rows and their length in tokens of the largest batch: of questions about masks, or of long
    conversations in words.

    Args:
        recipe: of the training.
        config: of the model.
        batch: pictures in a process's batch.
    """
    seen = image_tokens(config) + config.num_objects
    questions = (batch * recipe.data.conversations, min(seen + QUESTION_TOKENS, recipe.data.longest))
    words = (batch, recipe.data.longest)
    return max(questions, words, key=lambda pair: pair[0] * pair[1])


def memory(
    model: LisaGleeForReasoningSegmentation, rows: int, tokens: int, frozen: torch.dtype, half: bool, recomputed: bool
) -> Memory:
    """
    Estimates the memory of training in one process, without sharding.

    With T trained and F frozen weights of the language model, G weights of GLEE, `rows * tokens` = n positions, width
    h, MLP width i, L layers and a vocabulary of V:

    - weights: 4 T + 4 G + F times the bytes of `frozen`;
    - gradients: 4 T;
    - AdamW's two moments: 8 T;
    - activations of a layer, b bytes a number (2 in half precision, else 4): b n (8 h + 4 i). That is, for each
      position the two residual inputs, the two normed inputs, query, key, value and what attention gives (8 h; key and
      value are counted as wide as the query), and gate, up, activated gate and their product (4 i). Attention
      itself keeps no matrix of positions by positions. With `recomputed`, only each layer's input is kept, b n h L,
      beside a single layer's activations; else all L layers'. To this come the logits and their gradient in float32,
      8 n V, and in the type of the forward pass, b n V.

    Left out: GLEE and the image encoder, which run without gradients, one after the other; the masks' projection, of a
    few megabytes; fragmentation and what CUDA itself takes.

    Args:
        model: of [`meta_model`].
        rows: conversations in a batch.
        tokens: of each.
        frozen: type of the language model's weights that are not trained.
        half: whether the forward pass is in half precision.
        recomputed: whether activations are recomputed (`training.activation_checkpointing`).
    """
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    fixed = sum(weight.numel() for weight in model.language_model.parameters() if not weight.requires_grad)
    glee = sum(weight.numel() for weight in model.perception.parameters())
    text = model.config.text_config
    positions, size = rows * tokens, 2 if half else 4
    layer = size * positions * (8 * text.hidden_size + 4 * text.intermediate_size)
    kept = size * positions * text.hidden_size * text.num_hidden_layers + layer
    activations = kept if recomputed else layer * text.num_hidden_layers
    return Memory(
        weights=4 * (trained + glee) + frozen.itemsize * fixed,
        gradients=4 * trained,
        optimizer=8 * trained,
        activations=activations + (8 + size) * positions * text.vocab_size,
    )


def describe(recipe: LisaRecipe) -> str:
    """
    Describes what a recipe trains and what that takes, as tables.

    Args:
        recipe: of the training.

    Raises:
        ValueError: the recipe cannot be run.
    """
    arguments = training_arguments({**recipe.training, "use_cpu": True})  # bf16 is refused where there is no GPU
    model = meta_model(recipe)
    config = model.config
    rows, tokens = rows_and_tokens(recipe, config, arguments.per_device_train_batch_size)
    frozen = getattr(torch, recipe.model.dtype)
    needed = memory(
        model, rows, tokens, frozen, arguments.bf16 or arguments.fp16, bool(arguments.activation_checkpointing)
    )
    sharded = needed.weights + needed.gradients + needed.optimizer
    lines = [
        "part                        weights      trained",
        *_parts(model),
        "",
        "trained weights",
        *_shapes(model),
    ]
    lines += ["", f"a row: {image_tokens(config)} embeddings of the picture, {config.num_objects} objects, text"]
    lines += [
        f"largest batch: {rows} rows of {tokens} tokens, logits ({rows}, {tokens}, {config.text_config.vocab_size})"
    ]
    lines += ["", "memory (estimate)"]
    for name in ("weights", "gradients", "optimizer", "activations", "total"):
        lines.append(f"  {name:12} {getattr(needed, name) / GIB:8.1f} GiB")
    shared = ", ".join(f"{count}: {(sharded / count + needed.activations) / GIB:.1f}" for count in (2, 4, 8))
    return "\n".join([*lines, f"  total per GPU with FSDP2, in GiB, on {shared}"])


def _parts(model: LisaGleeForReasoningSegmentation) -> list[str]:
    """Returns a line for each part of the model: its name, all its weights, those that are trained."""
    counts: dict[str, list[int]] = {name: [0, 0] for name in PARTS}
    for name, weight in model.named_parameters():
        part = next(part for part, pattern in PARTS.items() if re.match(pattern, name))
        counts[part][0] += weight.numel()
        counts[part][1] += weight.numel() if weight.requires_grad else 0
    lines = [f"{part:20} {every:14,} {trained:12,}" for part, (every, trained) in counts.items() if every]
    every, trained = (sum(column) for column in zip(*counts.values()))
    return [*lines, f"{'all':20} {every:14,} {trained:12,}  ({trained / every:.2%})"]


def _shapes(model: LisaGleeForReasoningSegmentation) -> list[str]:
    """Returns a line for each trained weight with its shape; those of all layers in one."""
    found: dict[tuple[str, tuple[int, ...]], int] = defaultdict(int)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            found[re.sub(r"\.\d+\.", ".*.", name), tuple(weight.shape)] += 1
    return [f"  {name} {shape}" + (f" x {count}" if count > 1 else "") for (name, shape), count in found.items()]

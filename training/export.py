"""What the checkpoints of both systems have in common when they are written: complete Hub-ready folders."""

import os
from pathlib import Path

import torch
from transformers import Pipeline

from lookhear.evaluation.whole_files import files_for


def save_pipeline(pipe: Pipeline, folder: str | os.PathLike, half: bool = True) -> Path:
    """
    Writes a pipeline's model, processor and code, for use with lookhear (no flag) or without
    (`trust_remote_code=True`).

    The folder is written beside its final place and moved file by file, so that a reader never sees an incomplete
    file; other files there (a card) stay.

    Args:
        pipe: its model's weights are not changed.
        folder: created if missing.
        half: store matrices and kernels as float16, at half the size. `config.json` says float32, so they load as
            float32; biases, norms and running statistics are stored as float32 anyway.

    Returns:
        The folder.

    Raises:
        ValueError: a weight is not finite or too large for float16.
    """
    folder = Path(folder)
    state_dict = half_matrices(pipe.model.state_dict()) if half else pipe.model.state_dict()
    with files_for(folder) as partial:
        pipe.save_pretrained(partial, state_dict=state_dict)
    return folder


def half_matrices(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Converts weights of two or more dimensions to float16.

    Raises:
        ValueError: a weight is not finite in float16.
    """
    halved = {}
    for name, weight in state_dict.items():
        if weight.ndim >= 2 and weight.is_floating_point():
            weight = weight.half()
            if not torch.isfinite(weight).all():
                raise ValueError(f"{name} is not finite in float16: save with half=False, or check the training.")
        halved[name] = weight
    return halved


def check_pairs(pairs: dict[str, tuple[object, object]]) -> None:
    """
    Checks that the processor makes the inputs that the model takes.

    Args:
        pairs: name of a property -> the model's value, the processor's value.

    Raises:
        ValueError: two values differ.
    """
    for name, (wanted, given) in pairs.items():
        if wanted != given:
            raise ValueError(f"The model's {name} is {wanted}, the processor's is {given}.")

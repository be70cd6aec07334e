"""Models whose weights are divided between processes (FSDP2): whole copies, whole results, and loading before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn
from transformers import PreTrainedModel, Trainer

LOADED_ONCE = "FSDP_CPU_RAM_EFFICIENT_LOADING"  # as `accelerate launch` sets it: only the first process loads weights


def is_sharded(model: nn.Module) -> bool:
    """Whether the weights of a model, or some of them, are divided between processes."""
    if not distributed.is_available():
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())


def whole_copy(model: PreTrainedModel) -> PreTrainedModel:
    """
    Copies a model whose weights are divided between processes; every process of the run has to call it.

    Args:
        model: divided by FSDP2.

    Returns:
        In each process a model of its own, in evaluation mode, which computes without the other processes: all
        weights, in the precision in which they are trained, and the first process's buffers, such as the statistics of
        batch norms, which are those that a checkpoint has.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import FSDPModule

    weights: dict[str, Any] = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    for name, value in weights.items():
        weights[name] = value.clone()  # on the CPU they come as what is still to be collected
    kind: Any = next(base for base in type(model).__mro__ if not issubclass(base, FSDPModule))
    with torch.device("meta"):  # without memory: the weights take the places of its own
        copy: PreTrainedModel = kind(model.config)
    copy.load_state_dict(weights, assign=True)
    for name, buffer in model.named_buffers():  # also those that are in no state dict
        first = buffer.clone()
        distributed.broadcast(first, src=0)
        owner, _, own = name.rpartition(".")
        setattr(copy.get_submodule(owner), own, first)
    copy.tie_weights()
    copy.generation_config = model.generation_config
    return copy.eval()


def write_whole(trainer: Trainer, folder: str) -> None:
    """
    Writes a trainer's model, with all weights where they are divided between processes, and its processor.

    Args:
        trainer: of the run; every process has to call it.
        folder: that exists.

    Raises:
        TypeError: divided weights are not of a model of transformers.
    """
    if not trainer.is_fsdp_enabled:
        trainer.save_model(folder)
        return
    model, processor = trainer.model, trainer.processing_class
    if not isinstance(model, PreTrainedModel):
        raise TypeError("a result of weights that are divided between processes is written of a model of transformers")
    copy = whole_copy(model)
    if trainer.args.should_save:
        copy.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)


@contextmanager
def loading_everywhere() -> Iterator[None]:
    """
    Lets every process load all weights meanwhile. Otherwise only the first one does where accelerate will divide
    them, and nothing can be computed with the model before.
    """
    before = os.environ.get(LOADED_ONCE)
    if before is None:
        yield
        return
    os.environ[LOADED_ONCE] = "false"
    try:
        yield
    finally:
        os.environ[LOADED_ONCE] = before

"""Optimiser settings as a section of a recipe: the published parameter groups, schedule and moving average."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback

from lookhear.training.recipe_reading import CountOrZero, NotNegative, Range, Share
from lookhear.training.run_record import last_checkpoint

BLOCK = re.compile(r"model\.backbone\.layers\.(\d+)\.")
MOVING_AVERAGE = "moving_average.pt"  # beside the weights of each checkpoint


@dataclass
class OptimiserRecipe:
    """
    Settings of the optimiser that `transformers.TrainingArguments` does not have.

    Attributes:
        backbone: the backbone's learning rate, as a multiple of `training.learning_rate`, at least 0.
        text: the text encoder's learning rate, likewise.
        layer_decay: factor in (0, 1] on the learning rate from each of EVA-02's layers to the one before it; None: the
            same rate for all.
        decay_all: whether norms and biases have weight decay, too, as published.
        milestones: steps, from 0, at which the learning rate falls; empty: as `training.lr_scheduler_type` says.
        gamma: factor in [0, 1] on the learning rate at each of `milestones`.
        moving_average: decay in [0, 1) of an exponential moving average of the weights, which is saved at the end; 0:
            none.
    """

    backbone: NotNegative = 0.1
    text: NotNegative = 0.1
    layer_decay: Annotated[float, Range(0, 1, above=True)] | None = None
    decay_all: bool = True
    milestones: list[CountOrZero] = field(default_factory=list)
    gamma: Share = 0.1
    moving_average: Annotated[float, Range(0, 1, below=True)] = 0.0


def parameter_groups(
    model: nn.Module, recipe: OptimiserRecipe, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """
    Groups the trained weights by learning rate and weight decay.

    Raises:
        ValueError: `layer_decay` for another backbone than EVA-02.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    blocks = [int(match[1]) for name, _ in model.named_parameters() if (match := BLOCK.match(name))]
    if recipe.layer_decay is not None and not blocks:
        raise ValueError("optimiser.layer_decay is for EVA-02 (GLEE-Pro) only; leave it out for this backbone")
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, weight in named:
        rate = learning_rate * _share(name, recipe, max(blocks, default=-1) + 1)
        decay = weight_decay if recipe.decay_all or weight.ndim > 1 else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(weight)
    return list(groups.values())


def _share(name: str, recipe: OptimiserRecipe, depth: int) -> float:
    """Returns the factor on the recipe's learning rate for a weight."""
    if name.startswith("model.text_encoder.clip."):
        return recipe.text
    if not name.startswith("model.backbone."):
        return 1.0
    if recipe.layer_decay is None or name.startswith("model.backbone.pyramid."):
        return recipe.backbone
    block = BLOCK.match(name)
    below = depth - int(block[1]) if block else depth + 1  # the embeddings lie below all blocks
    return recipe.backbone * recipe.layer_decay**below


def step_schedule(optimizer: Optimizer, recipe: OptimiserRecipe, warmup: int) -> LambdaLR:
    """Makes a schedule that rises linearly over the first `warmup` steps and falls at the milestones."""

    def share(step: int) -> float:
        rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return rising * recipe.gamma ** sum(step >= milestone for milestone in recipe.milestones)

    return LambdaLR(optimizer, share)


class MovingAverage(TrainerCallback):
    """
    Averages the weights over the steps; saved with each checkpoint, the average replaces the weights when training
    ends.

    Args:
        decay: weight of the old value, in (0, 1); 0.9999 averages over some ten thousand steps.
    """

    def __init__(self, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"optimiser.moving_average must be between 0 and 1 (exclusive), not {decay}")
        self.decay = decay
        self.average: AveragedModel | None = None

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.decay), use_buffers=False)
        self.average.requires_grad_(False)
        folder = last_checkpoint(args.output_dir) if state.global_step else None
        if folder is not None and (Path(folder) / MOVING_AVERAGE).is_file():
            self.average.load_state_dict(torch.load(Path(folder) / MOVING_AVERAGE, args.device, weights_only=True))

    def _running(self) -> AveragedModel:
        """Returns the average, which exists from the start of training on."""
        if self.average is None:
            raise RuntimeError("the moving average begins with the training: call on_train_begin first")
        return self.average

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        self._running().update_parameters(model)

    def on_save(self, args, state, control, **kwargs) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            torch.save(self._running().state_dict(), folder / MOVING_AVERAGE)

    @torch.no_grad()
    def on_train_end(self, args, state, control, model=None, **kwargs) -> None:
        for weight, average in zip(model.parameters(), self._running().module.parameters()):
            weight.copy_(average)

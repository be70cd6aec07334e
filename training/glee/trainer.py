"""`transformers.Trainer` for GLEE: parameter groups, losses that don't depend on how a step is divided, their log."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from transformers import Trainer

from lookhear.training.glee.optimiser import MovingAverage, OptimiserRecipe, parameter_groups, step_schedule
from lookhear.training.running import BatchSeeds


class GleeTrainer(Trainer):
    """
    Logs the losses of each task (means since the last log) beside their weighted sum. A step over several batches, one
    after the other or in several processes, gives the same update however they are divided: losses are divided by the
    number of objects in all of them, and a batch's random numbers depend only on its place in the run.

    Args:
        *args: see `transformers.Trainer`.
        optimiser: groups, schedule and average of the weights; None: those of `transformers.Trainer`.
        **kwargs: see `transformers.Trainer`.
    """

    def __init__(self, *args: Any, optimiser: OptimiserRecipe | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # Each batch is random already, and a resumed run, even a longer one, continues with the next one.
        self.args.train_sampling_strategy = "sequential"
        self.recipe = optimiser
        if optimiser is not None and optimiser.moving_average:
            self.add_callback(MovingAverage(optimiser.moving_average))
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)
        self._seeds = BatchSeeds()

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        if self.optimizer is None and self.recipe is not None:
            model = self.model if model is None else model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            groups = parameter_groups(model, self.recipe, self.args.learning_rate, self.args.weight_decay)
            self.optimizer = kind(groups, **options)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        if self.recipe is None or not self.recipe.milestones:
            return super().create_scheduler(num_training_steps, optimizer)
        warmup = self.args.get_warmup_steps(num_training_steps)
        optimizer = optimizer or self.optimizer
        if optimizer is None:
            raise ValueError("a schedule needs an optimizer: call create_optimizer first")
        self.lr_scheduler = step_schedule(optimizer, self.recipe, warmup)
        return self.lr_scheduler

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict], num_batches: int, device: torch.device
    ) -> tuple[list[dict], torch.Tensor | None]:
        """Takes the batches of a step, and counts their objects: the mean over all batches in all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        mean = torch.tensor(mean_objects(batches), device=device)
        return batches, self.accelerator.reduce(mean, "mean") if self.args.world_size > 1 else mean

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not model.training:
            outputs = model(**inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss
        with self._seeds.seeded(self.args, self.state.global_step):
            outputs = model(**inputs, loss_objects=num_items_in_batch)
        for name, loss in outputs.loss_dict.items():
            if not name[-1].isdigit():  # of the last layer, of the proposals, of denoising queries
                key = f"{task_of(inputs)}_{name}"
                self._sums[key] = self._sums.get(key, 0.0) + loss.detach()
                self._counts[key] += 1
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        if "loss" in logs:
            logs |= {key: round((total / self._counts[key]).item(), 4) for key, total in self._sums.items()}
            self._sums.clear()
            self._counts.clear()
        super().log(logs, *args, **kwargs)


def mean_objects(batches: list[dict]) -> float:
    """Returns the mean number of annotated objects of a batch."""
    return sum(len(entry["boxes"]) for batch in batches for entry in batch["labels"]) / len(batches)


def task_of(inputs: dict) -> str:
    """Returns what a batch queries: `labels`, `expressions` or `prompts`."""
    if "expression_input_ids" in inputs:
        return "expressions"
    return "prompts" if "prompt_masks" in inputs else "labels"

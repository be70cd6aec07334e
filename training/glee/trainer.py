"""`transformers.Trainer` for GLEE: parameter groups, losses that don't depend on how a step is divided, their log."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import Trainer

from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor
from lookhear.training.glee.optimiser import MovingAverage, OptimiserRecipe, parameter_groups, step_schedule
from lookhear.training.running import BatchSeeds

Measure = Callable[[GleeForObjectDetection, GleeProcessor], dict[str, float]]


class GleeTrainer(Trainer):
    """
    Logs the losses of each task (means since the last log) beside their weighted sum. A step over several batches, one
    after the other or in several processes, gives the same update however they are divided: losses are divided by the
    number of objects in all of them, and a batch's random numbers depend only on its place in the run.

    Args:
        *args: see `transformers.Trainer`.
        optimiser: groups, schedule and average of the weights; None: those of `transformers.Trainer`.
        measure: computes figures of the model while it trains, by name, as `eval_strategy` says; None: the loss on
            `eval_dataset`. The first process measures, with the weights as they are (not their moving average), while
            the others wait.
        **kwargs: see `transformers.Trainer`.

    Raises:
        ValueError: `measure` where no process has the whole model (FSDP).
    """

    def __init__(
        self,
        *args: Any,
        optimiser: OptimiserRecipe | None = None,
        measure: Measure | None = None,
        **kwargs: Any,
    ):
        if measure is not None:
            kwargs.setdefault("eval_dataset", [])  # without any, Trainer refuses `eval_strategy`
        super().__init__(*args, **kwargs)
        if measure is not None and self.is_fsdp_enabled:
            raise ValueError(
                "validation needs a process with the whole model: train with multi_gpu.yaml, not with FSDP"
            )
        self.measure = measure
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

    def checkpoint(self) -> tuple[GleeForObjectDetection, GleeProcessor]:
        """Returns the model that is trained, and its processor."""
        model, processor = self.model, self.processing_class
        if not isinstance(model, GleeForObjectDetection) or not isinstance(processor, GleeProcessor):
            raise TypeError(
                "GleeTrainer needs a GleeForObjectDetection as model and a GleeProcessor as processing_class"
            )
        return model, processor

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Computes what `measure` does, with `eval_` before each name; without it, as `transformers.Trainer` does."""
        if self.measure is None:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        start = time.monotonic()
        found: list[dict[str, float]] = [{}]
        if self.is_world_process_zero():
            found = [self.measure(*self.checkpoint())]
        if self.args.world_size > 1:
            broadcast_object_list(found)
        metrics = {f"{metric_key_prefix}_{name}": round(value, 4) for name, value in found[0].items()}
        best = self.args.metric_for_best_model
        if best is not None and not {best, f"{metric_key_prefix}_{best}"} & metrics.keys():
            raise ValueError(f"training.metric_for_best_model {best!r} is not measured; choose {', '.join(found[0])}")
        metrics[f"{metric_key_prefix}_runtime"] = round(time.monotonic() - start, 2)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

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

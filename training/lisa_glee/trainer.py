"""`transformers.Trainer` for LISA-GLEE on corpora: random numbers by batch, and a result without adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lookhear.training.lisa_glee.lora import merge_adapters, save_adapters
from lookhear.training.lisa_glee.recipe import LoraRecipe
from lookhear.training.lisa_glee.train_scenes import LisaGleeTrainer
from lookhear.training.running import BatchSeeds


class ConversationTrainer(LisaGleeTrainer):
    """
    Trains with the adapters' dropout drawn for each batch by its number, so that it doesn't matter how a step is
    divided between processes.

    Args:
        args: see `transformers.Trainer`.
        lora: the adapters that the model has.
        kwargs: see `transformers.Trainer`.
    """

    def __init__(self, *args: Any, lora: LoraRecipe, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.lora = lora
        self._seeds = BatchSeeds()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Computes the loss of a step, see `Trainer.compute_loss`."""
        with self._seeds.seeded(self.args, self.state.global_step):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def write_result(self, folder: str) -> None:
        """
        Writes the model with its adapters merged, its processor, and, as `adapter`, the adapters alone.

        Args:
            folder: that exists.
        """
        model, processor = self.model, self.processing_class
        if not isinstance(model, PreTrainedModel) or processor is None:
            raise ValueError("a result is written of a model of transformers with its processor")
        weights = self.accelerator.get_state_dict(self.model_wrapped)  # in every process: sharded ones are collected
        if not self.args.should_save:
            return
        model.save_pretrained(folder, state_dict=merge_adapters(weights, self.lora))
        processor.save_pretrained(folder)
        if self.lora.r:
            save_adapters(weights, self.lora, Path(folder) / "adapter")

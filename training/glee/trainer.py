"""`transformers.Trainer` for GLEE: each kind of loss is logged by its task."""

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer


class GleeTrainer(Trainer):
    """Logs the last layer's losses of the latest batch of each task beside their weighted sum."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False  # losses are means already; accumulation averages them
        self._parts: dict[str, dict[str, torch.Tensor]] = {}

    def _get_train_sampler(self, *args, **kwargs) -> SequentialSampler:
        """In order: each batch is drawn by lot already, and a resumed run, even a longer one, goes on with the next."""
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        outputs = model(**inputs)
        if model.training:
            kinds = ("class", "confidence", "box", "giou", "mask", "dice")
            losses = {kind: outputs.loss_dict[kind].detach() for kind in kinds if kind in outputs.loss_dict}
            self._parts[task_of(inputs)] = losses
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        if "loss" in logs:
            for task, losses in self._parts.items():
                logs |= {f"{task}_{kind}": round(value.item(), 4) for kind, value in losses.items()}
        super().log(logs, *args, **kwargs)


def task_of(inputs: dict) -> str:
    """`labels`, `expressions` or `prompts`: what a batch asks for."""
    if "expression_input_ids" in inputs:
        return "expressions"
    return "prompts" if "prompt_masks" in inputs else "labels"

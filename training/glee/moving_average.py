"""An exponential moving average of the weights beside the training."""

from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback

from lookhear.training.running import last_checkpoint

FILE = "moving_average.pt"


class MovingAverage(TrainerCallback):
    """
    Follows the weights step by step, is kept with each checkpoint, and takes their place when training ends.

    Args:
        decay: share of the old value; 0.9999 looks back some ten thousand steps.
    """

    def __init__(self, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"optimiser.moving_average must lie between 0 and 1, not be {decay}")
        self.decay = decay
        self.average: AveragedModel | None = None

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.decay), use_buffers=False)
        self.average.requires_grad_(False)
        folder = last_checkpoint(args.output_dir) if state.global_step else None
        if folder is not None and (Path(folder) / FILE).is_file():
            self.average.load_state_dict(torch.load(Path(folder) / FILE, args.device, weights_only=True))

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        self.average.update_parameters(model)

    def on_save(self, args, state, control, **kwargs) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            torch.save(self.average.state_dict(), folder / FILE)

    @torch.no_grad()
    def on_train_end(self, args, state, control, model=None, **kwargs) -> None:
        for weight, average in zip(model.parameters(), self.average.module.parameters()):
            weight.copy_(average)

"""`transformers.Trainer` for AVSR: evaluation by error rates per modality, warm-up before a plateau scheduler."""

from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from jiwer import cer, wer
from torch import nn
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainerCallback

from lookhear.training.sharded import is_sharded, whole_copy

IGNORED = -100
VIEWS = ("audio", "visual", "audiovisual")
INPUTS: dict[str, tuple[str, ...]] = {
    "audio": ("input_values", "attention_mask", "audio_encodings", "audio_encoding_mask"),
    "visual": ("pixel_values_videos", "video_attention_mask", "visual_encodings", "visual_encoding_mask"),
}
PARTS = ("ctc_loss", "attention_loss", "alignment_loss")
INPUTS["audiovisual"] = INPUTS["audio"] + INPUTS["visual"]


def views_of(modality: str) -> tuple[str, ...]:
    """Returns the modalities that a model of this `config.modality` can take."""
    return VIEWS if modality == "audiovisual" else (modality,)


class ErrorRates:
    """
    `compute_metrics` of `Trainer`: `wer_audio`, `cer_audio`, ..., and `wer` of the last view. A view that the clips
    lack has no rates; of clips without words there are `words_audio`, ..., the mean number of words read.
    """

    def __init__(self, tokenizer, views: tuple[str, ...]):
        self.tokenizer, self.views = tokenizer, views

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        references = [self._text(row[row != IGNORED]) for row in prediction.label_ids]
        metrics: dict[str, float] = {}
        for view, ids in zip(self.views, np.moveaxis(np.asarray(prediction.predictions), 2, 0)):
            if not (ids != IGNORED).any():  # the clips have nothing to be read there
                continue
            texts = [self._text(row[row != IGNORED]) for row in ids]
            if not any(references):
                metrics[f"words_{view}"] = float(np.mean([len(text.split()) for text in texts]))
                continue
            metrics[f"wer_{view}"] = wer(references, texts)
            metrics[f"cer_{view}"] = cer(references, texts)
        last = [value for name, value in metrics.items() if name.startswith("wer_")][-1:]
        return metrics | ({"wer": last[0]} if last else {})

    def _text(self, ids: np.ndarray) -> str:
        return self.tokenizer.decode(ids.tolist(), skip_special_tokens=True)


class PlateauWarmup(TrainerCallback):
    """Raises the learning rate along a cosine over the first steps, before a plateau scheduler takes over."""

    def __init__(self, steps: int):
        self.steps = steps

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs) -> None:
        if state.global_step < self.steps:
            share = (1 - np.cos(np.pi * (state.global_step + 1) / self.steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * float(share)


class ClipsEpoch(TrainerCallback):
    """
    Sets the epoch of the training clips. Accelerate's loader does so only as long as its batches are neither split
    between processes nor partly skipped after a resume.
    """

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs) -> None:
        train_dataloader.dataset.set_epoch(int(state.epoch))


class AvsrTrainer(Trainer):
    """
    Trains a recogniser, or a word classifier.

    Args:
        *args: see `transformers.Trainer`.
        frozen: modules that get no gradient and stay in evaluation mode.
        search: arguments of `generate` by which a recogniser reads the clips of an evaluation; None: CTC's best path.
        **kwargs: see `transformers.Trainer`; `processing_class` is the `AvsrProcessor`, `train_dataset` a
            `TrainingClips`.

    Raises:
        ValueError: the weights are divided between processes by FSDP of version 1.
    """

    def __init__(
        self,
        *args: Any,
        frozen: list[nn.Module] | None = None,
        search: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled:
            plugin = self.accelerator.state.fsdp_plugin
            if plugin.fsdp_version != 2:
                raise ValueError(
                    "FSDP must be of version 2: set fsdp_version: 2, as training/accelerate/fsdp2.yaml does"
                )
            # Every process has all weights, see `loading_everywhere`. accelerate could send them from the first one,
            # but not buffers, such as the statistics of batch norms.
            plugin.cpu_ram_efficient_loading = False
        self.frozen = frozen or []
        self.search = search or {"ctc_weight": 1.0, "num_beams": 1}
        for module in self.frozen:
            module.requires_grad_(False)
        self._reader: PreTrainedModel | None = None  # during an evaluation: a copy that searches
        self._parts: dict[str, torch.Tensor] = {}
        self._without_path: torch.Tensor | None = None  # clips since the last log; None without windows of time
        self.add_callback(ClipsEpoch())
        if self.args.lr_scheduler_type == "reduce_lr_on_plateau" and self.args.warmup_steps:
            self.add_callback(PlateauWarmup(int(self.args.warmup_steps)))

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Evaluates as transformers does; of several data sets also `mean_wer`, over all of their `wer_...`."""
        several = isinstance(eval_dataset if eval_dataset is not None else self.eval_dataset, dict)
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        if several and (rates := [value for name, value in metrics.items() if "_wer_" in name]):
            mean = {f"{metric_key_prefix}_mean_wer": float(np.mean(rates))}
            self.log(mean)
            metrics |= mean
        return metrics

    def evaluation_loop(self, *args, **kwargs):
        """Evaluates as transformers does; what it needs besides the model is given up afterwards."""
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self._reader = None

    def _reading(self, model):
        """
        Returns what searches: the model, or where its weights are divided between processes, a whole copy. Processes
        take different numbers of steps in a search, and would wait for each other for ever.
        """
        if not is_sharded(model):
            return model
        if self._reader is None:
            self._reader = whole_copy(model)
        return self._reader

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        for (
            module
        ) in self.frozen:  # here, because Trainer's training step has just set the whole model to training mode
            module.eval()
        outputs = model(**inputs)
        if model.training:
            self._parts = {name: outputs[name].detach() for name in PARTS if name in outputs}
            if (without := outputs.get("clips_without_path")) is not None:
                self._without_path = without + (0 if self._without_path is None else self._without_path)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        if "loss" in logs:
            logs |= {name: round(value.item(), 4) for name, value in self._parts.items()}
            if self._without_path is not None:
                logs["clips_without_path"] = int(self._without_path)
                self._without_path = torch.zeros_like(self._without_path)
        super().log(logs, *args, **kwargs)

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Reads each view that the model has, see `search`: `(batch, length, views)`, padded with -100."""
        core = self.accelerator.unwrap_model(model)
        if "decoder_head" not in dict(core.named_children()):  # a word classifier
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = send_to_device(inputs, self.args.device)
        labels = inputs["labels"]
        with self.compute_loss_context_manager():
            loss = model(**inputs).loss.detach()
        if prediction_loss_only:
            return loss, None, None
        core, texts = self._reading(core), []
        for view in views_of(core.config.modality):
            seen = {name: inputs[name] for name in INPUTS[view] if name in inputs}
            if not seen:
                texts.append(labels.new_full((len(labels), 1), IGNORED))
                continue
            with self.compute_loss_context_manager():
                encoded = core.get_encoder()(**seen)  # not by `generate`, which refuses long clips
                ids = core.generate(encoder_outputs=encoded, **self.search)  # (batch, length)
            texts.append(ids.masked_fill(ids == core.config.pad_token_id, IGNORED))
        longest = max(ids.shape[1] for ids in texts)
        padded = [nn.functional.pad(ids, (0, longest - ids.shape[1]), value=IGNORED) for ids in texts]
        return loss, torch.stack(padded, dim=2), labels  # Trainer pads dimension 1 across batches and processes

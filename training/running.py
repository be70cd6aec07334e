"""What every training run has in common: arguments, random numbers, resuming from the last checkpoint, saving."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import torch
import yaml
from transformers import Trainer, TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available, is_torch_xla_available

from lookhear.evaluation.whole_files import check_folder, write_text
from lookhear.training.checkpoints import save_result, train_to_end
from lookhear.training.recipe_reading import Count, CountOrZero, NotNegative, Positive, Range, convert
from lookhear.training.run_record import begin_or_resume, recipe_record

# Bounds that TrainingArguments doesn't check, of fields that are never None.
RANGES = {
    "learning_rate": Positive,
    "num_train_epochs": Positive,
    "weight_decay": NotNegative,
    "max_grad_norm": NotNegative,
    "warmup_steps": NotNegative,
    "adam_beta1": Annotated[float, Range(0, 1, below=True)],
    "adam_beta2": Annotated[float, Range(0, 1, below=True)],
    "adam_epsilon": Positive,
    "per_device_train_batch_size": Count,
    "per_device_eval_batch_size": Count,
    "gradient_accumulation_steps": Count,
    "dataloader_num_workers": CountOrZero,
}

OVERWRITE = ", start anew with --overwrite (training.overwrite=true)"
# Fields that transformers has renamed and will drop under their old names.
RENAMED = {f"gradient_checkpointing{end}": f"activation_checkpointing{end}" for end in ("", "_kwargs")}

T = TypeVar("T", bound=Trainer)


class BatchSeeds:
    """Gives each batch of a run random numbers of its own, whichever process takes it."""

    def __init__(self) -> None:
        self._place = (-1, 0)  # step, batch of this process in the step

    def take(self, arguments: TrainingArguments, step: int) -> int:
        """
        Returns the seed of the next batch.

        Args:
            arguments: of the run.
            step: number of the run's step, see `TrainerState.global_step`.
        """
        last, batch = self._place
        batch = batch + 1 if step == last else 0
        self._place = (step, batch)
        before = step * arguments.gradient_accumulation_steps + batch
        return arguments.seed * 2**32 + before * arguments.world_size + arguments.process_index

    @contextmanager
    def seeded(self, arguments: TrainingArguments, step: int) -> Iterator[None]:
        """
        Seeds torch for the next batch, and restores its state afterwards.

        Args:
            arguments: of the run.
            step: see [`BatchSeeds.take`].
        """
        with torch.random.fork_rng([arguments.device] if arguments.device.type == "cuda" else []):
            torch.manual_seed(self.take(arguments, step))
            yield


def run_to_end(trainer: T, recipe: Any, write: Callable[[str], None] | None = None) -> T:
    """
    Trains, resuming from the last whole checkpoint if there is one, and saves the result and its recipe; a run that
    has ended stays as it is.

    Args:
        trainer: whose `output_dir` they are saved in.
        recipe: the dataclass that the trainer was made by; with `training.overwrite` it doesn't resume.
        write: writes the result into a folder, in every process; None: the model as it is, and its processor.

    Raises:
        ValueError: the last checkpoint is of a run with other settings or data.
    """
    trained = train_to_end(trainer, resume_point(trainer, recipe))
    save_result(trainer, trained, write)
    return trainer


def resume_point(trainer: Trainer, recipe: Any) -> str | None:
    """
    Returns the checkpoint that a recipe's run is resumed from, None for a run that starts; writes what it was started
    with, and its recipe.

    Args:
        trainer: whose `output_dir` is written to.
        recipe: the dataclass that the trainer was made by.

    Raises:
        ValueError: the last checkpoint is of a run with other settings or data.
    """
    record, overwrite = recipe_record(_plain(asdict(recipe))), bool(recipe.training.get("overwrite"))
    found = begin_or_resume(trainer.args, record, overwrite, OVERWRITE)
    save_recipe(trainer, recipe)
    return found


def save_recipe(trainer: Trainer, recipe: Any) -> None:
    """
    Writes `recipe.yaml` into a trainer's `output_dir`, which `lookhear publish` makes a card of.

    Args:
        trainer: one process of its run writes.
        recipe: a dataclass.
    """
    if not trainer.args.should_save or trainer.args.output_dir is None:
        return
    content = _plain(asdict(recipe))
    content["training"].pop("overwrite", None)
    write_text(Path(trainer.args.output_dir) / "recipe.yaml", yaml.safe_dump(content, sort_keys=False))


def _plain(value: Any) -> Any:
    """Converts a recipe's values to those that YAML has."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def training_arguments(given: dict[str, Any]) -> TrainingArguments:
    """
    Makes training arguments from a recipe's `training` section, with those that our data sets need.

    Args:
        given: fields of `transformers.TrainingArguments`, and `overwrite`, see [`run_to_end`].

    Raises:
        ValueError: a field does not exist, one that is a number or a switch is something else or out of its range, or
            bfloat16 is asked for where no GPU computes in it.
    """
    needed: dict[str, Any] = {"remove_unused_columns": False, "label_names": ["labels"], "report_to": "none"}
    known, types = [field.name for field in fields(TrainingArguments) if field.init], get_type_hints(TrainingArguments)
    arguments: dict[str, Any] = {
        RENAMED.get(name, name): "no" if value is False and name.endswith("_strategy") else value  # YAML: no is false
        for name, value in given.items()
        if name != "overwrite"
    }
    for name, value in arguments.items():
        if name not in known:
            near = "".join(f"did you mean {match!r}? " for match in get_close_matches(name, known, n=1))
            raise ValueError(f"training: there is no field {name!r}; {near}See transformers.TrainingArguments")
        # Fields of text are left alone: most take members of enumerations, paths or JSON as well.
        if set(get_args(types[name]) or [types[name]]) <= {bool, int, float, NoneType}:
            arguments[name] = convert(value, RANGES.get(name, types[name]), f"training.{name}")
    short = next((name for name in ("bf16", "bf16_full_eval") if arguments.get(name)), None)
    if short and not (arguments.get("use_cpu") or is_torch_bf16_gpu_available() or is_torch_xla_available()):
        raise ValueError(
            f"training.{short}: this machine has no GPU that computes in bfloat16; leave it out, or train on the "
            "CPU by training.use_cpu=true"
        )
    made = TrainingArguments(**{**needed, **arguments})
    check_folder(str(made.output_dir), "training.output_dir")
    return made


def with_validation(training: dict[str, Any], measured: bool) -> dict[str, Any]:
    """
    Adds when is measured: before the first step and with each checkpoint, unless the fields say otherwise.

    Args:
        training: fields of `transformers.TrainingArguments`.
        measured: whether anything is measured; if not, nothing is added.
    """
    if not measured or training.get("eval_strategy") in (False, "no"):  # YAML: no is false
        return training
    steps = training.get("save_steps", 500)
    return {"eval_strategy": "steps", "eval_steps": steps, "eval_on_start": True, **training}

"""What every training run has in common: arguments, going on from the last checkpoint, saving."""

from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint


def run_to_end(trainer: Trainer) -> Trainer:
    """Trains, on from the last checkpoint if there is one, and saves what came out."""
    trainer.train(resume_from_checkpoint=last_checkpoint(trainer.args.output_dir))
    trainer.save_model()
    trainer.save_state()
    return trainer


def training_arguments(given: dict[str, Any]) -> TrainingArguments:
    """A recipe's `training` section with what our data need; ValueError names a field that does not exist."""
    needed = {"remove_unused_columns": False, "label_names": ["labels"], "report_to": "none"}
    arguments = {
        name: "no" if value is False and name.endswith("_strategy") else value  # YAML reads a bare no as false
        for name, value in given.items()
    }
    try:
        return TrainingArguments(**{**needed, **arguments})
    except TypeError as error:
        raise ValueError(f"training: {error}; see transformers.TrainingArguments") from None


def last_checkpoint(folder: str) -> str | None:
    """The newest checkpoint in a folder to go on from, or None."""
    return get_last_checkpoint(folder) if Path(folder).is_dir() else None

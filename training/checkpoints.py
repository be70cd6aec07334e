"""Checkpoints to resume from: whole or not there. One counts once the list of its files, written last, lies in it."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from safetensors import safe_open
from torch.utils.data import Subset
from transformers import Trainer, TrainerCallback, TrainerState

from lookhear.evaluation.whole_files import full_disk_named, move_files, write_text
from lookhear.training.sharded import write_whole

logger = logging.getLogger(__name__)
FILES = "files.json"  # in a checkpoint: its files with their sizes, and whether the training ends with it
STATE = "trainer_state.json"
RESULT = ".result-new"  # in a run's folder: the result until it is whole; one name for all processes
NAME = re.compile(r"checkpoint-(\d+)")
AFTER = ", which resumes the training"  # what repeating the command does after an error


def checkpoints(folder: str | Path) -> list[Path]:
    """Returns the folders of checkpoints in a run's folder, oldest first, whole or not."""
    found = [
        (int(match[1]), path) for path in Path(folder).glob("checkpoint-*") if (match := NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has all its files, in their sizes."""
    try:
        listed = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))["files"]
        return all((checkpoint / name).stat().st_size == size for name, size in listed.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def newest_whole(folder: str | Path) -> Path | None:
    """Returns the newest whole checkpoint in a run's folder, or None."""
    return next((path for path in reversed(checkpoints(folder)) if is_whole(path)), None)


def list_files(checkpoint: Path, ends: bool) -> None:
    """
    Makes a checkpoint a whole one: writes the list of its files.

    Args:
        checkpoint: its folder, in which everything else has been written.
        ends: whether the training ends with it.
    """
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != FILES]
    sizes = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in sorted(files)}
    write_text(checkpoint / FILES, json.dumps({"ends": ends, "files": sizes}, indent=1) + "\n")


def list_older(folder: Path) -> None:
    """Lists the files of checkpoints that an earlier version wrote, as far as they can be read."""
    for checkpoint in checkpoints(folder):
        if (checkpoint / FILES).exists():
            continue
        try:
            state = TrainerState.load_from_json(str(checkpoint / STATE))
            for weights in checkpoint.glob("*.safetensors"):
                with safe_open(weights, "pt"):
                    pass
        except Exception:  # anything: these are files of any damage, and what cannot be read is a half
            continue
        if all(map(zipfile.is_zipfile, [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")])):
            list_files(checkpoint, state.global_step >= state.max_steps)


def remove_halves(folder: str | Path) -> None:
    """Removes what is not whole from a run's folder: checkpoints, each with a line in the log, and a result."""
    for checkpoint in checkpoints(folder):
        if not is_whole(checkpoint):
            shutil.rmtree(checkpoint)
            logger.warning("%s is incomplete, as the training was stopped while it was written: removed", checkpoint)
    shutil.rmtree(Path(folder) / RESULT, ignore_errors=True)


class WholeCheckpoints(TrainerCallback):
    """
    Lists the files of each checkpoint once all processes have written theirs, and only then removes older ones.

    It is the last of a trainer's callbacks, as others add files of their own when a checkpoint is saved.

    Args:
        limit: `save_total_limit` of the run; the newest checkpoint and the best one stay in any case.
    """

    def __init__(self, limit: int | None):
        self.limit = limit

    def on_save(self, args, state, control, **kwargs) -> None:
        PartialState().wait_for_everyone()
        if not args.should_save:
            return
        list_files(Path(args.output_dir) / f"checkpoint-{state.global_step}", control.should_training_stop)
        found = checkpoints(args.output_dir)
        best = Path(state.best_model_checkpoint or "").name
        spare = [path for path in found[:-1] if path.name != best]
        for checkpoint in spare[: len(found) - self.limit] if self.limit and len(found) > self.limit else []:
            shutil.rmtree(checkpoint, ignore_errors=True)


def train_to_end(trainer: Trainer, checkpoint: str | None) -> bool:
    """
    Trains, and leaves whole checkpoints only; a run whose last step is done is loaded as it ended, without a step.

    Args:
        trainer: ready to train.
        checkpoint: that it resumes from, see `begin_or_resume`; None: it starts.

    Returns:
        Whether a step was done.

    Raises:
        DiskFullError: no space is left for a checkpoint.
    """
    folder, arguments = Path(str(trainer.args.output_dir)), trainer.args
    callback = WholeCheckpoints(arguments.save_total_limit)
    trainer.add_callback(callback)
    try:
        # The callback removes old checkpoints, not Trainer, which does it too early.
        with full_disk_named(folder, AFTER), _changed(arguments, save_total_limit=None):
            if checkpoint is not None and _ends_with(trainer, Path(checkpoint)):
                _load_end(trainer, checkpoint)
                return False
            trainer.train(resume_from_checkpoint=checkpoint)
            return True
    except BaseException:
        if arguments.should_save:
            remove_halves(folder)
        raise
    finally:
        trainer.remove_callback(callback)


def save_result(trainer: Trainer, trained: bool, write: Callable[[str], None] | None = None) -> None:
    """
    Saves what a run has trained in its `output_dir`, aside first.

    Args:
        trainer: of the run.
        trained: whether it has done a step, see [`train_to_end`]; else a result that is there stays as it is.
        write: writes the model and its processor into a folder, in every process; None: as they are.
    """
    folder, main = Path(str(trainer.args.output_dir)), trainer.args.should_save
    model, state = folder / RESULT / "model", folder / RESULT / STATE
    if not trained and _is_saved(folder, trainer.state):
        return
    if main:
        shutil.rmtree(folder / RESULT, ignore_errors=True)
        model.mkdir(parents=True)
    PartialState().wait_for_everyone()
    try:
        with full_disk_named(folder, AFTER):
            if write is None:
                write_whole(trainer, str(model))
            else:
                write(str(model))
            if main:
                trainer.state.save_to_json(str(state))
                (folder / STATE).unlink(missing_ok=True)  # it comes last: where it is, all the rest is
                move_files(model, folder)
                os.replace(state, folder / STATE)
    finally:
        if main:
            shutil.rmtree(folder / RESULT, ignore_errors=True)
    PartialState().wait_for_everyone()


def _is_saved(folder: Path, state: TrainerState) -> bool:
    """Whether a run's folder holds the result of this state, which is the same in every process."""
    PartialState().wait_for_everyone()
    try:
        saved = TrainerState.load_from_json(str(folder / STATE))
    except (OSError, ValueError, TypeError):
        return False
    finally:
        PartialState().wait_for_everyone()
    return saved.global_step == state.global_step and any(folder.glob("*.safetensors"))


def _ends_with(trainer: Trainer, checkpoint: Path) -> bool:
    """Whether a run has done its last step with a checkpoint, and is not to be trained for longer."""
    if not json.loads((checkpoint / FILES).read_text(encoding="utf-8"))["ends"]:
        return False
    steps = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]
    return steps <= TrainerState.load_from_json(str(checkpoint / STATE)).max_steps


def _load_end(trainer: Trainer, checkpoint: str) -> None:
    """
    Loads what the training ends with: weights, the best or the averaged ones where they are wanted, and the state.

    With a single batch as data an epoch is a step, and all epochs are done. Otherwise `Trainer` would begin the one in
    which the run ended, and notice the end only after a step.
    """
    saved = TrainerState.load_from_json(os.path.join(checkpoint, STATE))
    arguments = trainer.args
    data: Any = trainer.train_dataset  # of a known length, as all of ours are
    batch = range(min(len(data), arguments.train_batch_size * arguments.world_size))
    changes = {"max_steps": saved.global_step, "eval_on_start": False, "dataloader_drop_last": False}
    trainer.train_dataset = Subset(data, batch)
    try:
        with _changed(arguments, **changes, train_sampling_strategy="sequential"):
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        trainer.train_dataset = data
    state = trainer.state
    state.max_steps, state.num_train_epochs = saved.max_steps, saved.num_train_epochs
    state.log_history = saved.log_history


@contextmanager
def _changed(arguments: Any, **values: Any) -> Iterator[None]:
    """Sets fields of training arguments for a while."""
    before = {name: getattr(arguments, name) for name in values}
    try:
        for name, value in values.items():
            setattr(arguments, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(arguments, name, value)

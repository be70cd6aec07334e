"""Checkpoints are whole or not there, and a run that has ended ends where it is."""

import json
import logging
import os
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerState, TrainingArguments

from lookhear.training.checkpoints import (
    FILES,
    checkpoints,
    is_whole,
    list_files,
    newest_whole,
    save_result,
    train_to_end,
)
from lookhear.training.glee.optimiser import MovingAverage
from lookhear.training.run_record import begin_or_resume

CLIPS, BATCH = 10, 2  # 5 steps an epoch


class Line(nn.Module):
    """A model that is trained in milliseconds; its dropout makes random states count."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 1)

    def forward(self, x, labels):
        guessed = nn.functional.dropout(self.linear(x), 0.5, self.training).squeeze(-1)
        loss = (guessed - labels).square().mean()
        return {"loss": loss, "logits": guessed}


class Counted(Trainer):
    steps = 0

    def training_step(self, *args, **kwargs):
        Counted.steps += 1
        return super().training_step(*args, **kwargs)


@pytest.fixture
def run(tmp_path):
    """`run(name, **training)` trains in a folder of this name, or resumes there; returns the trainer."""
    generator = torch.Generator().manual_seed(0)
    rows = [{"x": torch.randn(3, generator=generator), "labels": torch.tensor(float(n))} for n in range(CLIPS)]

    def run(name: str, average: float = 0.0, patience: int = 0, overwrite: bool = False, **training) -> Trainer:
        given = {"max_steps": 12, "save_steps": 4, "per_device_train_batch_size": BATCH, "learning_rate": 0.1}
        given |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 12, "seed": 3}
        arguments = TrainingArguments(output_dir=str(tmp_path / name), **(given | training))
        found = begin_or_resume(arguments, {"training.max_steps": arguments.max_steps}, overwrite)
        callbacks = [MovingAverage(average)] if average else []
        callbacks += [EarlyStoppingCallback(patience)] if patience else []
        trainer = Counted(Line(), arguments, train_dataset=rows, eval_dataset=rows, callbacks=callbacks)
        Counted.steps = 0
        save_result(trainer, train_to_end(trainer, found))
        return trainer

    return run


def weights(trainer: Trainer) -> list[float]:
    return [value for weight in trainer.model.parameters() for value in weight.flatten().tolist()]


def files(folder) -> dict:
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*.*")}


def test_a_checkpoint_without_its_state_is_removed(run, tmp_path, caplog):
    """As after a kill in the middle of saving it: the one before it is taken, and a line says so."""
    whole = weights(run("run", save_total_limit=2))
    (tmp_path / "run" / "checkpoint-12" / "trainer_state.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert weights(run("run")) == whole and Counted.steps == 4
    assert f"{tmp_path}/run/checkpoint-12 is incomplete" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"average": 0.5}], ids=["plain", "averaged"])
def test_every_half_of_a_checkpoint_is_removed_and_the_one_before_it_taken(run, tmp_path, settings, caplog):
    """Whatever file is missing or cut: the same weights as if nothing had happened, and a line that says it."""
    whole = weights(run("whole", **settings))
    last = tmp_path / "whole" / "checkpoint-12"
    names = sorted(path.name for path in last.iterdir())
    assert {"trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", FILES} < set(names)
    assert ("moving_average.pt" in names) == bool(settings)
    for number, name in enumerate(names):
        broken = tmp_path / f"broken{number}"
        shutil.copytree(tmp_path / "whole", broken)
        file = broken / "checkpoint-12" / name
        file.write_bytes(file.read_bytes()[:-7]) if number % 2 else file.unlink()
        (broken / "trainer_state.json").unlink()
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            trainer = run(broken.name, **settings)
        assert Counted.steps == 4 and weights(trainer) == whole, name
        assert f"{broken}/checkpoint-12 is incomplete" in caplog.text
        assert is_whole(broken / "checkpoint-12")


@pytest.mark.slow
def test_a_folder_of_halves_starts_anew(run, tmp_path):
    whole = weights(run("whole"))
    for checkpoint in checkpoints(tmp_path / "whole"):
        (checkpoint / "trainer_state.json").unlink()
    assert weights(run("whole")) == whole and Counted.steps == 12


@pytest.mark.slow
def test_checkpoints_of_an_earlier_version_count_if_they_can_be_read(run, tmp_path):
    """They have no list of files, and neither has the record of what the run was started with a word of it."""
    whole = weights(run("whole"))
    for checkpoint in checkpoints(tmp_path / "whole"):
        (checkpoint / FILES).unlink()
    (tmp_path / "whole" / "started.json").write_text(json.dumps({"training.max_steps": 12}))
    state = tmp_path / "whole" / "checkpoint-8" / "rng_state.pth"
    state.write_bytes(state.read_bytes()[:100])
    (tmp_path / "whole" / "checkpoint-12" / "trainer_state.json").write_text("{")
    assert weights(run("whole")) == whole and Counted.steps == 8, "from the fourth step on"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"average": 0.5}, marks=pytest.mark.slow),
        pytest.param({"num_train_epochs": 1.5, "max_steps": -1}, marks=pytest.mark.slow),
        pytest.param({"gradient_accumulation_steps": 2}, marks=pytest.mark.slow),
        pytest.param(
            {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 4, "save_total_limit": 1},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["plain", "averaged", "epochs", "accumulated", "best"],
)
def test_a_run_that_has_ended_ends_where_it_is(run, tmp_path, settings):
    """12 steps end in the third epoch of 5: no 13th, and no file is written, but for the record of the start."""
    first = run("run", **settings)
    before = files(tmp_path / "run")
    again = run("run", **settings)
    assert Counted.steps == 0 and weights(again) == weights(first)
    after = files(tmp_path / "run")
    assert {name for name in before if after.get(name) != before[name]} <= {
        path for path in before if path.name == "started.json"
    }
    assert after.keys() == before.keys()

    (tmp_path / "run" / "trainer_state.json").unlink()  # killed behind the last checkpoint
    (tmp_path / "run" / "model.safetensors").write_bytes(b"half")
    run("run", **settings)
    assert Counted.steps == 0
    for name in ("model.safetensors", "config.json"):
        path = tmp_path / "run" / name
        assert not path.exists() or path.read_bytes() == next(before[n][0] for n in before if str(n) == name)
    state = TrainerState.load_from_json(str(tmp_path / "run" / "trainer_state.json"))
    assert state.global_step == first.state.global_step and state.max_steps == first.state.max_steps
    assert state.num_train_epochs == first.state.num_train_epochs and not list((tmp_path / "run").glob(".*"))


@pytest.mark.slow
def test_a_run_that_stopped_early_stays_stopped(run, tmp_path):
    """Nothing is better than the first evaluation at this rate; patience ends the run at the second."""
    settings = {"patience": 1, "load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 4}
    settings |= {"metric_for_best_model": "loss", "learning_rate": 1e-12, "max_steps": 40}
    first = run("run", **settings)
    assert first.state.global_step == 8
    assert weights(run("run", **settings)) == weights(first) and Counted.steps == 0


@pytest.mark.slow
def test_a_run_may_go_on_for_longer(run):
    longer = weights(run("longer", max_steps=17, lr_scheduler_type="constant"))
    run("run", lr_scheduler_type="constant")
    assert weights(run("run", max_steps=17, lr_scheduler_type="constant")) == longer and Counted.steps == 5


@pytest.mark.slow
def test_old_checkpoints_go_once_the_new_one_is_whole(run, tmp_path, monkeypatch):
    """A run that is killed before the list of a checkpoint's files has been written resumes from the one before."""
    from lookhear.training import checkpoints as module

    whole = weights(run("whole", save_total_limit=1))
    assert [path.name for path in checkpoints(tmp_path / "whole")] == ["checkpoint-12"]

    def killed(checkpoint, ends):
        if checkpoint.name == "checkpoint-8":
            raise KeyboardInterrupt
        list_files(checkpoint, ends)

    with monkeypatch.context() as patch:
        patch.setattr(module, "list_files", killed)
        with pytest.raises(KeyboardInterrupt):
            run("run", save_total_limit=1)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-4"], "the half has gone already"
    assert weights(run("run", save_total_limit=1)) == whole and Counted.steps == 8


@pytest.mark.slow
def test_overwrite_starts_anew(run, tmp_path):
    run("run", learning_rate=0.2)
    (tmp_path / "run" / ".result-new").mkdir()
    anew = run("run", overwrite=True)
    assert Counted.steps == 12 and weights(anew) == weights(run("other"))
    saved = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert saved == (tmp_path / "other" / "model.safetensors").read_bytes()
    assert newest_whole(tmp_path / "run").name == "checkpoint-12" and not (tmp_path / "run" / ".result-new").exists()


FULL = """
import sys, torch
from transformers import Trainer, TrainingArguments
from lookhear.training.checkpoints import save_result, train_to_end
from lookhear.training.run_record import begin_or_resume

class Wide(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(int(sys.argv[2]), 1)
    def forward(self, x, labels):
        return {"loss": (self.linear(x).squeeze(-1) - labels).square().mean()}

rows = [{"x": torch.ones(int(sys.argv[2])), "labels": torch.tensor(1.0)}] * 4
settings = {"max_steps": 2, "save_steps": 1, "use_cpu": True, "report_to": "none", "disable_tqdm": True}
arguments = TrainingArguments(sys.argv[1], **settings)
found = begin_or_resume(arguments, {})
trainer = Trainer(Wide(), arguments, train_dataset=rows)
try:
    save_result(trainer, train_to_end(trainer, found))
except OSError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("width", [30_000, 100_000])
def test_a_full_disk_ends_in_one_line(tmp_path, width):
    """A bound on the size of files stands for the disk: the optimiser's file, or the weights' too, is beyond it."""
    script = tmp_path / "train.py"
    script.write_text(FULL)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    command = [sys.executable, str(script), str(tmp_path / "run"), str(width)]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2, done.stderr
    assert done.stdout.splitlines()[-1] == (
        f"{tmp_path}/run cannot be written: the disk is full; free some space and repeat the command, which resumes "
        "the training"
    )
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["started.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "run" / "model.safetensors").is_file(), done.stderr

"""A run that is divided between processes, or broken off, learns what it would have learnt."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import lookhear
from lookhear.training.glee.mixture.corpus_recipe import CorpusTrainingRecipe
from lookhear.training.glee.mixture.train_corpora import train
from lookhear.training.glee.trainer import GleeTrainer
from lookhear.training.recipe_reading import read_recipe

TWO_CPU = Path(lookhear.__file__).parent / "training" / "accelerate" / "two_cpu.yaml"
MODULE = "lookhear.training.glee.mixture.train_corpora"


@pytest.fixture
def write(write_coco, glee_checkpoint, tmp_path):
    """`write(name, field=value)`: a recipe with these training arguments, whose result goes to `name`."""
    data = write_coco(tmp_path / "data", 7)
    coco = tmp_path / "coco"
    (coco / "annotations").mkdir(parents=True)
    write_coco(coco / "val2017", 3).rename(coco / "annotations" / "instances_val2017.json")

    def write(name: str, optimiser: dict | None = None, measured: bool = False, **training) -> Path:
        # plain gradient descent: Adam's first steps make a full step of a gradient's rounding error
        fields = {"output_dir": str(tmp_path / name), "max_steps": 5, "optim": "sgd", "learning_rate": 1e-3}
        fields |= {"use_cpu": True, "logging_steps": 1, "save_strategy": "no", "max_grad_norm": 1.0}
        fields |= {"ddp_find_unused_parameters": True, **training}
        stills = {"reader": "coco", "root": str(data), "prompts": 0.4, "supervision": {"denoising_table": "own"}}
        config = {"loss_settings": {"mask_points": 64}, "denoising_tables": {"own": 3}, "text_teacher": True}
        augmentation = {"shortest_edges": [64, 96], "crop": 0.0}
        recipe = {
            "model": {"checkpoint": str(glee_checkpoint), "config": config},
            "data": {"sources": [stills], "common": {"images": 2, "augmentation": augmentation}},
            "validation": {"protocol": "coco", "data": str(coco), "limit": 2} if measured else {},
            "optimiser": optimiser or {},
            "training": fields,
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        return tmp_path / f"{name}.yaml"

    return write


def run(recipe: Path):
    return train(read_recipe(recipe, [], CorpusTrainingRecipe, recipe.parent))


def command(recipe: Path, *launcher: str) -> list[str]:
    return [sys.executable, *launcher, "-m", MODULE, str(recipe)]


def environment(threads: int = 1) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}


def losses(history: list[dict]) -> list[float]:
    return [entry["loss"] for entry in history if "loss" in entry]


def average_precisions(history: list[dict]) -> dict[tuple[int, str], float]:
    """(step, name) -> figure."""
    named = [(entry["step"], name, value) for entry in history for name, value in entry.items()]
    return {(step, name): value for step, name, value in named if name.startswith(("eval_box_A", "eval_mask_A"))}


def log_of(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def same_weights(one: Path, two: Path, tolerance: float) -> None:
    weights = [load_file(folder / "model.safetensors") for folder in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_are_one_with_twice_the_accumulation(write, tmp_path, glee_checkpoint):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    launcher = ("-m", "accelerate.commands.launch", "--config_file", str(TWO_CPU), "--main_process_port", port)
    two = write("two", measured=True, gradient_checkpointing=True)  # which changes nothing but the memory
    for recipe, launched in ((write("one", measured=True, gradient_accumulation_steps=2), ()), (two, launcher)):
        result = subprocess.run(
            command(recipe, *launched), env=environment(), capture_output=True, text=True, timeout=420
        )
        assert result.returncode == 0, result.stderr[-4000:]
    figures = [average_precisions(log_of(tmp_path / name)) for name in ("one", "two")]
    assert figures[0] == pytest.approx(figures[1], abs=0.02) and {step for step, _ in figures[0]} == {0, 5}
    one, two = (losses(log_of(tmp_path / name)) for name in ("one", "two"))
    assert len(one) == 5 and one == pytest.approx(two, rel=1e-3)
    same_weights(tmp_path / "one", tmp_path / "two", 1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_run_again(write, tmp_path):
    settings = {"optim": "adamw_torch", "save_strategy": "steps", "save_steps": 2, "max_steps": 8}
    whole = losses(run(write("whole", **settings)).state.log_history)
    recipe = write("killed", **settings)
    threads = environment(torch.get_num_threads())  # sums of other threads are rounded otherwise
    process = subprocess.Popen(command(recipe), env=threads, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "killed" / "checkpoint-2" / "trainer_state.json", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = run(recipe)
    assert losses(again.state.log_history) == pytest.approx(whole, rel=1e-6)
    same_weights(tmp_path / "whole", tmp_path / "killed", 0)


def wait_for(file: Path, process: subprocess.Popen, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not file.is_file():
        assert process.poll() is None and time.monotonic() < end, f"{file.name} never came"
        time.sleep(0.05)


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_broken_off_and_resumed(write, tmp_path, monkeypatch):
    """With accumulation, a moving average and the published schedule: the next losses and the end are the same."""
    optimiser = {"moving_average": 0.9, "milestones": [3]}
    settings = {"optim": "adamw_torch", "save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": 2}
    whole = run(write("whole", optimiser, **settings))
    names = {name for entry in whole.state.log_history for name in entry}
    assert {"labels_class", "labels_distillation", "labels_box_denoising", "prompts_confidence"} <= names
    recipe, original = write("halves", optimiser, **settings), GleeTrainer.training_step

    def training_step(self, *args, **kwargs):
        if self.state.global_step == 3:
            raise Stopped
        return original(self, *args, **kwargs)

    monkeypatch.setattr(GleeTrainer, "training_step", training_step)
    with pytest.raises(Stopped):
        run(recipe)
    monkeypatch.undo()
    halves = run(recipe)
    assert losses(halves.state.log_history) == pytest.approx(losses(whole.state.log_history), rel=1e-6)
    same_weights(tmp_path / "whole", tmp_path / "halves", 0)

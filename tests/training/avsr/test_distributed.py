"""Two processes on one CPU learn what one process learns with twice the accumulation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import lookhear

pytestmark = pytest.mark.slow
TWO_CPU = Path(lookhear.__file__).parent / "training" / "accelerate" / "two_cpu.yaml"


def run(recipe: Path, *launcher: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launcher, "-m", "lookhear.training.avsr.train", str(recipe)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("weights", "stored"), [(None, False), ({"audio": 0.5, "visual": 1.0, "audiovisual": 1.0}, False), (None, True)]
)
def test_two_processes_are_one_with_twice_the_accumulation(
    tiny_recipe, prepared_folder, make_texts, tmp_path, unused_port, weights, stored
):
    folder = prepared_folder(tmp_path / "data", make_texts(12))
    # plain gradient descent: Adam's first steps make a full step of a gradient's rounding error
    descent = {"optim": "sgd", "learning_rate": 0.05, "max_steps": 5}
    for name, accumulation in (("one", 2), ("two", 1)):
        content = tiny_recipe(folder, tmp_path / name, **descent, gradient_accumulation_steps=accumulation)
        content["model"] = content["model"] | {
            "config": content["model"]["config"] | {"modality_loss_weights": weights}
        }
        if stored:  # each run computes and reads features of its own
            parts = ("front_end", "encoder", "norm")
            frozen = [f"model.encoder.{modality}_{part}" for modality in ("audio", "visual") for part in parts]
            content["model"]["freeze"] = frozen
            content["data"] |= {"cache_features": str(tmp_path / f"features_{name}"), "feature_versions": 2}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    run(tmp_path / "one.yaml")
    run(
        tmp_path / "two.yaml",
        *("-m", "accelerate.commands.launch", "--config_file", str(TWO_CPU), "--main_process_port", str(unused_port)),
    )
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        if "running_" not in name and "num_batches" not in name:  # statistics are those of the first process's clips
            torch.testing.assert_close(value, two[name], rtol=1e-5, atol=1e-5, msg=name)
    losses = [
        [
            entry["loss"]
            for entry in json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"]
            if "loss" in entry
        ]
        for name in ("one", "two")
    ]
    assert len(losses[0]) == 5 and losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

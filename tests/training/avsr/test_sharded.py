"""Two processes that hold half of the weights each train, search and save what one process with all of them does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import Trainer

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.training.avsr.recipe import ModelRecipe, load_recipe
from lookhear.training.avsr.train import build_model, build_processor, train
from lookhear.training.avsr.trainer import AvsrTrainer
from lookhear.training.recipe_reading import fill
from lookhear.training.sharded import is_sharded, loading_everywhere

from .conftest import TINY_MODEL

TEXTS = ["ET", "OA TE", "IN TO AT", "TA", "NO IT EN AT", "IT AN", "TO", "AN OT", "EN IN", "ON", "AT ET", "TI"]
PARTS = ("front_end", "encoder", "norm")
FROZEN = [f"model.encoder.{modality}_{part}" for modality in ("audio", "visual") for part in PARTS]


def in_two_processes(port: int, recipe: Path, *overrides: str) -> subprocess.CompletedProcess:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    worker = Path(__file__).with_name("sharded_process.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launcher, str(worker), str(recipe), *overrides]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


@pytest.fixture
def talkative(tiny_recipe, prepared_folder, tmp_path) -> dict:
    """A recipe that starts from a random model which reads letters in every clip, others in each."""
    clips = prepared_folder(tmp_path / "data", TEXTS)
    descent = {"optim": "sgd", "learning_rate": 0.01, "max_steps": 4, "save_steps": 2, "eval_steps": 2}
    content = tiny_recipe(clips, tmp_path, eval_strategy="steps", per_device_eval_batch_size=1, **descent)
    content["data"]["validation"] = [str(clips)]
    content["evaluation"] = {"num_beams": 3}
    start = tmp_path / "start"
    torch.manual_seed(0)
    recipe = fill(ModelRecipe, content["model"])
    model = build_model(recipe)
    with torch.no_grad():
        model.ctc_head.output.weight *= 20
        model.ctc_head.output.bias[model.config.pad_token_id] = -20  # blank
    model.save_pretrained(start)
    build_processor(recipe).save_pretrained(start)
    return content | {"model": {"checkpoint": str(start)}}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_sharded_training_searches_and_saves_as_a_whole_one(talkative, tmp_path, free_port):
    """Its joint search, on clips of several lengths, gives the rates of what it saves."""
    runs = {"one": 2, "two": 1}  # batches of a step in each process
    for name, accumulation in runs.items():
        training = {"output_dir": str(tmp_path / name), "gradient_accumulation_steps": accumulation}
        content = talkative | {"training": talkative["training"] | training}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    done = in_two_processes(free_port, tmp_path / "two.yaml")
    assert done.returncode == 0, done.stderr[-9000:]
    assert (tmp_path / "two" / "checkpoint-4" / "pytorch_model_fsdp_0").is_dir()  # of shards
    saved = AvsrForConditionalGeneration.from_pretrained(tmp_path / "two")
    assert saved.config.architectures == ["AvsrForConditionalGeneration"]
    again = [f"model.checkpoint={tmp_path / 'two'}", f"training.output_dir={tmp_path / 'again'}"]
    train(load_recipe(tmp_path / "two.yaml", [*again, "training.eval_on_start=true", "training.max_steps=1"]))
    found = [entry for entry in history(tmp_path / "two") if "eval_loss" in entry]
    expected = next(entry for entry in history(tmp_path / "again") if "eval_loss" in entry)
    assert [entry["step"] for entry in found] == [2, 4] and expected["step"] == 0
    rates = [name for name in expected if "wer" in name or "cer" in name]
    assert len(rates) == 7 and all(expected[name] not in (0, 1) for name in rates if "cer" in name)
    assert [found[-1][name] for name in rates] == pytest.approx([expected[name] for name in rates], rel=1e-6)

    whole = train(load_recipe(tmp_path / "one.yaml"))
    assert not is_sharded(whole.model)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in runs)
    assert one.keys() == two.keys()
    for name, value in one.items():
        if "running_" not in name and "num_batches" not in name:  # statistics are those of the first process's clips
            torch.testing.assert_close(value, two[name], rtol=1e-5, atol=1e-5, msg=name)

    # resumed from shards, and with frozen parts that both processes compute once
    done = in_two_processes(free_port, tmp_path / "two.yaml", "training.max_steps=5")
    assert done.returncode == 0, done.stderr[-9000:]
    assert [entry["step"] for entry in history(tmp_path / "two") if "loss" in entry] == [1, 2, 3, 4, 5]
    stored = [f"model.checkpoint={tmp_path / 'two'}", f"model.freeze={json.dumps(FROZEN)}"]
    stored += [f"data.cache_features={tmp_path / 'cache'}", f"training.output_dir={tmp_path / 'stored'}"]
    done = in_two_processes(free_port, tmp_path / "two.yaml", *stored)
    assert done.returncode == 0, done.stderr[-9000:]
    start, end = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "stored"))
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed and not any(name.startswith(tuple(FROZEN)) for name in changed)


def test_fsdp_divides_by_layers_that_the_model_has():
    """accelerate refuses the names of others, such as those of another `encoder_layer_type`."""
    config = AvsrConfig(**TINY_MODEL["config"])
    with torch.device("meta"):
        model = AvsrForConditionalGeneration(config)
    assert sorted(model._no_split_modules) == ["AvsrDecoderLayer", "AvsrEncoderLayer"]


def test_fsdp_of_version_1_is_refused(monkeypatch):
    def initialise(trainer):
        trainer.is_fsdp_enabled = True
        trainer.accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=1)))

    monkeypatch.setattr(Trainer, "__init__", initialise)
    with pytest.raises(ValueError, match="FSDP must be of version 2: set fsdp_version: 2"):
        AvsrTrainer()


@pytest.mark.parametrize("before", ["true", "false", None])
def test_every_process_loads_all_weights_where_features_are_computed(before, monkeypatch):
    name = "FSDP_CPU_RAM_EFFICIENT_LOADING"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    with loading_everywhere():
        assert os.environ.get(name, "false") == "false"
    assert os.environ.get(name) == before


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

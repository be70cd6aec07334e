"""Whole trainings of tiny models: they learn, stop, go on, and leave complete checkpoints."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSpeechSeq2Seq, AutoModelForVideoClassification, AutoProcessor

from lookhear.training.avsr.recipe import load_recipe
from lookhear.training.avsr.train import main, train
from lookhear.training.avsr.trainer import AvsrTrainer

VIEWS = ("audio", "visual", "audiovisual")


@pytest.fixture
def folder(prepared_folder, make_texts, tmp_path):
    return prepared_folder(tmp_path / "data", make_texts(8))


@pytest.fixture
def write(tiny_recipe, folder, tmp_path):
    """Writes a recipe whose results go to `output`; the model has dropout, so that random states count too."""

    def write(output: str, **training) -> Path:
        content = tiny_recipe(folder, tmp_path / output, **training)
        content["model"] = content["model"] | {"config": content["model"]["config"] | {"dropout": 0.1}}
        path = tmp_path / f"{output}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def assert_same_weights(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


class Stopped(Exception):
    pass


def stop_at(monkeypatch, step: int) -> None:
    """Training breaks off in the middle of a step, as when the machine goes away."""
    original = AvsrTrainer.training_step

    def training_step(self, *args, **kwargs):
        if self.state.global_step == step:
            raise Stopped
        return original(self, *args, **kwargs)

    monkeypatch.setattr(AvsrTrainer, "training_step", training_step)


@pytest.mark.parametrize("schedule", ["linear", "warmup_stable_decay"])
def test_a_stopped_training_goes_on_as_if_nothing_had_happened(write, tmp_path, monkeypatch, schedule):
    """Stopped in step 8 of 9, two steps behind a checkpoint in the middle of the second of its epochs of 4 steps."""
    settings = {"lr_scheduler_type": schedule, "warmup_steps": 2, "max_steps": 9, "save_total_limit": 1}
    if schedule == "warmup_stable_decay":
        settings["lr_scheduler_kwargs"] = {"num_decay_steps": 2}
    straight = train(load_recipe(write("straight", **settings)))
    broken = load_recipe(write("broken", **settings))
    with monkeypatch.context() as patch:
        stop_at(patch, 8)
        with pytest.raises(Stopped):
            train(broken)
    assert sorted(path.name for path in (tmp_path / "broken").glob("checkpoint-*")) == ["checkpoint-6"]
    resumed = train(broken)
    assert len(losses(straight)) == 9 and losses(resumed) == losses(straight)
    assert_same_weights(resumed.model.state_dict(), straight.model.state_dict())


def test_result_is_a_checkpoint(write, tmp_path):
    main(str(write("run", max_steps=2)))
    run = tmp_path / "run"
    model, processor = AutoModelForSpeechSeq2Seq.from_pretrained(run), AutoProcessor.from_pretrained(run)
    assert processor.image_processor.crop_size == model.config.visual_config.crop_size
    assert not list(run.glob("pytorch_model*")) and (run / "trainer_state.json").is_file()
    main(str(write("run", max_steps=3)))  # goes on from where it ended
    with pytest.raises(ValueError, match="started with training.learning_rate .*, not 0.5. Repeat .* --overwrite"):
        main(str(write("run", max_steps=3)), ["training.learning_rate=0.5"])
    main(str(write("more", max_steps=1)), [f"model.checkpoint={run}", "model.config={}", "model.image_processor={}"])
    assert (tmp_path / "more" / "model.safetensors").is_file()


def test_words_are_trained_from_lips(tiny_recipe, prepared_folder, tmp_path):
    words = ["ET", "OA", "IN", "TE"]
    folder = prepared_folder(tmp_path / "words", words * 4)
    content = tiny_recipe(folder, tmp_path / "run", max_steps=40, per_device_train_batch_size=8, eval_strategy="steps")
    content["model"] = content["model"] | {
        "task": "words",
        "config": content["model"]["config"] | {"modality": "visual", "classifier_back_end": "transformer"},
    }
    content["data"]["validation"] = content["data"]["train"]
    content["augmentation"] = {"noise_probability": 0.0, "flip": 0.0, "crop_jitter": 0}
    content["training"] |= {"eval_steps": 40, "save_strategy": "no", "learning_rate": 1e-2}
    path = tmp_path / "words.yaml"
    path.write_text(yaml.safe_dump(content))
    main(str(path))
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "run")
    assert model.config.id2label == dict(enumerate(sorted(words)))
    from transformers import TrainerState

    history = TrainerState.load_from_json(str(tmp_path / "run" / "trainer_state.json")).log_history
    assert [entry["eval_accuracy"] for entry in history if "eval_accuracy" in entry] == [1.0]


@pytest.mark.slow
def test_a_few_clips_are_learnt_by_heart(tiny_recipe, prepared_folder, make_texts, tmp_path):
    """32 clips: every word right from sound, from lips, and from both."""
    folder = prepared_folder(tmp_path / "data", make_texts(32))
    content = tiny_recipe(
        folder,
        tmp_path / "run",
        max_steps=240,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=32,
        learning_rate=6e-3,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        eval_strategy="steps",
        eval_steps=240,
        save_strategy="no",
        logging_steps=20,
    )
    content["model"] = content["model"] | {
        "config": content["model"]["config"]
        | {"modality_loss_weights": dict.fromkeys(VIEWS, 1.0), "ctc_loss_weight": 0.7}
    }
    content["data"]["validation"] = content["data"]["train"]
    content["augmentation"] = {"noise_probability": 0.0, "flip": 0.0, "crop_jitter": 0}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    trainer = train(load_recipe(path))
    rates = [entry for entry in trainer.state.log_history if "eval_wer" in entry][-1]
    assert {view: rates[f"eval_wer_{view}"] for view in VIEWS} == dict.fromkeys(VIEWS, 0.0)


def launch(recipe: Path, *before: str, **kwargs) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *before, "-m", "lookhear.training.avsr.train", str(recipe)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **kwargs
    )


@pytest.mark.slow
def test_a_killed_process_goes_on(write, tmp_path):
    """SIGKILL once the first checkpoint is complete; the same command ends with the weights of an undisturbed run."""
    settings = {"max_steps": 60, "save_steps": 3}
    assert launch(write("straight", **settings)).wait(280) == 0
    recipe = write("killed", **settings)
    process = launch(recipe)
    deadline = time.monotonic() + 200
    while not (tmp_path / "killed" / "checkpoint-6" / "trainer_state.json").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.safetensors").is_file()
    again = launch(recipe)
    _, errors = again.communicate(timeout=280)
    assert again.returncode == 0, errors
    straight, killed = (load_file(tmp_path / run / "model.safetensors") for run in ("straight", "killed"))
    assert_same_weights(straight, killed)


@pytest.mark.parametrize("task", ["recognition", "words"])
def test_a_run_can_be_published(write, tmp_path, task):
    """After a real training: all that loads it, nothing that resumes it, the recipe as the card's source."""
    from lookhear.publishing import gather

    recipe = write("run", max_steps=2, save_steps=2)
    overrides = [f"model.task={task}", "model.config.modality=visual"] if task == "words" else []
    main(str(recipe), overrides)
    run = tmp_path / "run"
    assert (run / "checkpoint-2" / "optimizer.pt").is_file()
    assert yaml.safe_load((run / "recipe.yaml").read_text())["training"]["max_steps"] == 2
    publication = gather(run, "org/mine", "cc-by-4.0")
    out = tmp_path / "out"
    out.mkdir()
    for file in publication.files:
        (out / file.path).write_bytes(file.read())  # no folder is among them
    assert not list(out.glob("*.pt")) and not list(out.glob("*.bin")) and not (out / "recipe.yaml").exists()
    code = "modeling_avsr.py" if task == "words" else "pipeline_avsr.py"
    assert (out / code).is_file() and "`data`" in (out / "README.md").read_text()
    kind = AutoModelForVideoClassification if task == "words" else AutoModelForSpeechSeq2Seq
    assert_same_weights(kind.from_pretrained(out).state_dict(), kind.from_pretrained(run).state_dict())
    processor = AutoProcessor.from_pretrained(out)
    assert processor.image_processor.roi_size == AutoProcessor.from_pretrained(run).image_processor.roi_size

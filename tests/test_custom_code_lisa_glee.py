"""A saved LISA-GLEE loads with lookhear (no flag, no prompt) and without it: GLEE's code is saved with its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

import lookhear
from lookhear.modeling.lisa_glee import LisaGleeConfig, LisaGleeForReasoningSegmentation
from lookhear.processing.lisa_glee import LisaGleeProcessor, ReasoningSegmentationPipeline
from lookhear.training.export import save_pipeline

TASK = "reasoning-segmentation"
QUESTIONS = ["Which of the two is red? Show it.", "none"]

# What is asked of the folder in either process, as JSON.
PROBE = """
import json
import numpy as np, torch
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline


def plain(answer):
    return {"text": answer["text"], "objects": [
        {**found, "mask": [int(found["mask"].sum()), found["mask"].shape]} for found in answer["objects"]
    ]}


def probe(folder, image, questions, **trust):
    config = AutoConfig.from_pretrained(folder, **trust)
    processor = AutoProcessor.from_pretrained(folder, **trust)
    model = AutoModel.from_pretrained(folder, **trust).eval()
    ask = pipeline("reasoning-segmentation", model=folder, device="cpu", **trust)
    messages = [[{"role": "user", "content": question}] for question in questions]
    text = [processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False) for turns in messages]
    inputs = processor(images=[image], text=text)
    with torch.no_grad():
        output = model(**inputs, labels=inputs["input_ids"])
    parts = (config, config.perception_config, processor, processor.image_processor, model, model.perception, ask)
    return {
        "classes": [type(o).__name__ for o in parts],
        "loss": output.loss.item(),
        "logits": output.logits.flatten().tolist(),
        "masks": output.mask_logits.flatten().tolist(),
        "answers": [plain(answer) for answer in ask(image, questions, max_new_tokens=6)],
    }, sorted({type(o).__module__.split(".")[0] for o in parts}), ask
"""

# Runs the probe where lookhear cannot be imported, and again on what is saved there.
CHILD = (
    PROBE
    + """

import sys

folder, image, questions, again = sys.argv[1], np.load(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]
result, modules, ask = probe(folder, image, questions, trust_remote_code=True)
ask.save_pretrained(again)
second, *_ = probe(again, image, questions, trust_remote_code=True)
lookhear = sorted(name for name in sys.modules if name.split(".")[0] == "lookhear")
print("RESULT" + json.dumps({"first": result, "second": second, "modules": modules, "lookhear": lookhear}))
"""
)


@pytest.fixture(scope="module")
def folder(tiny_lisa_glee, tmp_path_factory) -> Path:
    return save_pipeline(tiny_lisa_glee, tmp_path_factory.mktemp("published") / "lisa-tiny", half=False)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)


@pytest.fixture
def no_prompt(monkeypatch):
    """Any question to the user fails."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asked whether to run custom code"))


def test_folder_is_complete(folder):
    names = {path.name for path in folder.iterdir()}
    data = {"config.json", "model.safetensors", "processor_config.json", "tokenizer_config.json", "tokenizer.json"}
    ours = {"configuration_lisa_glee.py", "modeling_lisa_glee.py", "processing_lisa_glee.py", "pipeline_lisa_glee.py"}
    glee = {"configuration_glee.py", "modeling_glee.py", "image_processing_glee.py", "decoder_glee.py"}
    assert data | ours | glee <= names
    assert not [name for name in names if name.startswith(".")]
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_lisa_glee.LisaGleeConfig",
        "AutoModel": "modeling_lisa_glee.LisaGleeForReasoningSegmentation",
    }
    assert config["custom_pipelines"][TASK]["impl"] == "pipeline_lisa_glee.ReasoningSegmentationPipeline"


@pytest.mark.parametrize("trust", [None, True])
def test_with_lookhear_nothing_is_asked(folder, no_prompt, trust):
    options = {} if trust is None else {"trust_remote_code": trust}
    assert type(AutoConfig.from_pretrained(folder, **options)) is LisaGleeConfig
    model = AutoModel.from_pretrained(folder, **options)
    assert type(model) is LisaGleeForReasoningSegmentation and type(model.perception) is lookhear.GleeModel
    processor = AutoProcessor.from_pretrained(folder, **options)
    assert type(processor) is LisaGleeProcessor and type(processor.image_processor) is lookhear.GleeImageProcessor
    ask = pipeline(TASK, model=str(folder), device="cpu", **options)
    assert type(ask) is ReasoningSegmentationPipeline and type(ask.processor) is LisaGleeProcessor


def test_the_configuration_in_memory_stays_as_it_is(tiny_lisa_glee, folder):
    assert not hasattr(tiny_lisa_glee.model.config, "custom_pipelines")


@pytest.mark.parametrize("what", ["model", "config"])
def test_each_part_is_saved_with_all_code_that_it_needs(tiny_lisa_glee, tmp_path, what):
    model = tiny_lisa_glee.model
    (model if what == "model" else model.config).save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.glob("*.py")}
    assert {"configuration_lisa_glee.py", "perception_lisa_glee.py", "configuration_glee.py"} <= names
    assert ("modeling_lisa_glee.py" in names) == (what == "model")
    assert "from .modeling_glee import GleeModel" in (tmp_path / "perception_lisa_glee.py").read_text()


@pytest.mark.slow
def test_without_lookhear_the_results_are_equal(folder, image, no_prompt, tmp_path, without_lookhear):
    """Bit for bit, and once more from what is saved there."""
    np.save(tmp_path / "image.npy", image)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    arguments = [str(folder), str(tmp_path / "image.npy"), json.dumps(QUESTIONS), str(tmp_path / "again")]
    child = subprocess.run(
        [sys.executable, "-c", without_lookhear(CHILD), *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    there = json.loads(child.stdout.split("RESULT")[1])
    assert there["lookhear"] == [] and there["modules"] == ["transformers_modules"]
    names: dict = {}
    exec(PROBE, names)
    here = json.loads(json.dumps(names["probe"](str(folder), image, QUESTIONS)[0]))
    assert any(answer["objects"] for answer in here["answers"])
    assert there["first"] == here and there["second"] == here

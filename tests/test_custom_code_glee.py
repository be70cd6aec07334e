"""A published GLEE loads with lookhear (no flag, no prompt) and without it (`trust_remote_code=True`), alike."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    CLIPTokenizer,
    pipeline,
)

import lookhear
from lookhear.training.glee.export import save_checkpoint

TASK = "object-perception"
ASKED = {
    "labels": ["cat", "dog"],
    "expressions": ["the cat on the left"],
    "points": [[(10, 20)]],
    "boxes": [(5, 5, 40, 40)],
    "threshold": 0.0,
    "top_k": 4,
}

# What is asked of the folder in either process, as JSON.
PROBE = """
import json
import numpy as np, torch
from PIL import Image
from transformers import AutoModel, AutoModelForZeroShotObjectDetection, AutoProcessor, pipeline


def probe(folder, image, asked, **trust):
    processor = AutoProcessor.from_pretrained(folder, **trust)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder, **trust).eval()
    base = AutoModel.from_pretrained(folder, **trust).eval()
    see = pipeline("object-perception", model=folder, device="cpu", **trust)
    zero = pipeline("zero-shot-object-detection", model=folder, device="cpu", **trust)
    inputs = processor(images=image, labels=asked["labels"])
    found = [{**found, "mask": int(found["mask"].sum())} for found in see(image, **asked)]
    labels = asked["labels"]
    with torch.no_grad():
        return {
            "classes": [type(o).__name__ for o in (processor, model, base, see, zero)],
            "dtype": str(model.dtype),
            "logits": model(**inputs).logits.flatten().tolist(),
            "hidden": base(**inputs).last_hidden_state.flatten().tolist(),
            "found": found,
            "zero": zero(Image.fromarray(image), candidate_labels=labels, threshold=0.0, top_k=4),
        }, {type(o).__module__.split(".")[0] for o in (processor, model, base, see)}
"""

# Runs the probe where lookhear cannot be imported.
CHILD = (
    PROBE
    + """

import sys

folder, image, asked = sys.argv[1], np.load(sys.argv[2]), json.loads(sys.argv[3])
result, modules = probe(folder, image, asked, trust_remote_code=True)
result["modules"] = sorted(modules)
result["lookhear"] = sorted(name for name in sys.modules if name.split(".")[0] == "lookhear")
print("RESULT" + json.dumps(result))
"""
)


@pytest.fixture(scope="module")
def folder(tiny_glee, tmp_path_factory) -> Path:
    return save_checkpoint(*tiny_glee, tmp_path_factory.mktemp("published") / "glee-tiny")


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
    code = {"configuration_glee.py", "modeling_glee.py", "pipeline_glee.py", "processing_glee.py"}
    code |= {
        "image_processing_glee.py",
        "track_state_glee.py",
        "post_processing_glee.py",
        "attention_glee.py",
    }
    assert data | code <= names
    assert not [name for name in names if name.startswith(".")]
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_glee.GleeConfig",
        "AutoModel": "modeling_glee.GleeModel",
        "AutoModelForZeroShotObjectDetection": "modeling_glee.GleeForObjectDetection",
    }
    assert config["custom_pipelines"][TASK]["impl"] == "pipeline_glee.ObjectPerceptionPipeline"


def test_matrices_are_stored_half_and_loaded_whole(folder, tiny_glee):
    weights = load_file(folder / "model.safetensors")
    assert {w.dtype for w in weights.values() if w.ndim >= 2 and w.is_floating_point()} == {torch.float16}
    assert {w.dtype for w in weights.values() if w.ndim == 1} == {torch.float32}
    expected = tiny_glee[0].state_dict()
    loaded = AutoModelForZeroShotObjectDetection.from_pretrained(folder)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(weight, expected[name].half().float() if weight.ndim > 1 else expected[name])


def test_whole_weights_on_request(tiny_glee, tmp_path):
    model, processor = tiny_glee
    save_checkpoint(model, processor, tmp_path / "whole", half=False)
    loaded = AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path / "whole").state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in model.state_dict().items())
    assert getattr(model.config, "custom_pipelines", None) is None and getattr(model.config, "auto_map", None) is None


def test_what_does_not_belong_together_is_refused(tiny_glee, tmp_path):
    model, processor = tiny_glee
    other = type(processor)(processor.image_processor, CLIPTokenizer())
    with pytest.raises(ValueError, match="vocabulary is 514"):
        save_checkpoint(model, other, tmp_path / "wrong")


def test_with_lookhear_nothing_is_asked(folder, no_prompt):
    assert type(AutoConfig.from_pretrained(folder)) is lookhear.GleeConfig
    assert type(AutoModel.from_pretrained(folder)) is lookhear.GleeModel
    assert type(AutoModelForZeroShotObjectDetection.from_pretrained(folder)) is lookhear.GleeForObjectDetection
    assert type(AutoImageProcessor.from_pretrained(folder)) is lookhear.GleeImageProcessor
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is lookhear.GleeProcessor
    assert type(processor.image_processor) is lookhear.GleeImageProcessor
    assert processor.image_processor.size["shortest_edge"] == 64 and len(processor.tokenizer) == 514
    see = pipeline(TASK, model=str(folder), device="cpu")
    assert type(see) is lookhear.ObjectPerceptionPipeline and type(see.processor) is lookhear.GleeProcessor


def test_the_pipeline_saves_what_it_loads(folder, image, no_prompt, tmp_path):
    see = pipeline(TASK, model=str(folder), device="cpu")
    see.save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    again = pipeline(TASK, model=str(tmp_path), device="cpu")
    for a, b in zip(see(image, **ASKED), again(image, **ASKED), strict=True):
        assert np.array_equal(a.pop("mask"), b.pop("mask")) and a == b


def test_transformers_own_pipeline_reads_several_images(folder, image, no_prompt):
    zero = pipeline("zero-shot-object-detection", model=str(folder), device="cpu")
    items = [{"image": _pil(array), "candidate_labels": ["cat", "dog"]} for array in (image, image[:50, :50])]
    first, second = zero(items, threshold=0.0)
    assert first and second and {found["label"] for found in first} == {"cat", "dog"}
    assert set(first[0]) == {"score", "label", "box"} and all(0 <= found["score"] <= 1 for found in second)


def test_without_lookhear_the_results_are_equal(folder, image, no_prompt, tmp_path, without_lookhear):
    np.save(tmp_path / "image.npy", image)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    script = without_lookhear(CHILD)
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "image.npy"), json.dumps(ASKED)]
    child = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240
    )
    assert child.returncode == 0, child.stderr[-3000:]
    there = json.loads(child.stdout.split("RESULT")[1])
    assert there.pop("lookhear") == [] and there.pop("modules") == ["transformers_modules"]

    space: dict = {}
    exec(PROBE, space)
    here, modules = space["probe"](str(folder), image, ASKED)
    assert modules == {"lookhear"} and there["dtype"] == "torch.float32"
    for name in ("logits", "hidden"):
        assert there.pop(name) == pytest.approx(here.pop(name), abs=1e-5)
    assert there == json.loads(json.dumps(here))
    assert len(here["found"]) >= 4 and [found["label"] for found in here["found"][-2:]] == ["object", "object"]


def _pil(array: np.ndarray):
    from PIL import Image

    return Image.fromarray(array)

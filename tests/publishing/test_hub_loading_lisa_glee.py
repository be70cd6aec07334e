"""From `lookhear publish` to processes with and without lookhear that load a LISA-GLEE and ask it about a picture."""

import json
from pathlib import Path

import numpy as np
import pytest

from lookhear.publishing import gather
from lookhear.training.export import save_pipeline

REPO = "org/lisa-tiny"
CARD = """---
license: cc-by-sa-4.0
library_name: transformers
pipeline_tag: image-segmentation
---

# lisa-tiny

`pipeline("reasoning-segmentation", model="model_cards/lisa-tiny")`

## Results

None.

## How it was made

By chance.

## Limits

All.

## Consent and misuse

None.

## Licence

CC BY-SA 4.0.
"""
QUESTION = "Which of the two is red? Show it."

# Loads a repository, by its name alone or with `trust_remote_code`, and prints what came out as JSON.
CHILD = """
import json, sys
import numpy as np, torch
if sys.argv[4] == "with":
    import lookhear
from transformers import AutoModel, AutoProcessor, pipeline

repo, image, question = sys.argv[1], np.load(sys.argv[2]), sys.argv[3]
trust = {} if sys.argv[4] == "with" else {"trust_remote_code": True}
model = AutoModel.from_pretrained(repo, **trust)
processor = AutoProcessor.from_pretrained(repo, **trust)
ask = pipeline("reasoning-segmentation", model=repo, device="cpu", **trust)
answer = ask(image, question, max_new_tokens=6)
parts = (model, model.perception, processor, processor.image_processor, ask)
print("RESULT" + json.dumps({
    "answer": {**answer, "objects": [{**found, "mask": int(found["mask"].sum())} for found in answer["objects"]]},
    "weights": sum(weight.double().sum().item() for weight in model.state_dict().values()),
    "modules": sorted({type(o).__module__.split(".")[0] for o in parts}),
}))
"""


@pytest.fixture(scope="module")
def folder(tiny_lisa_glee, tmp_path_factory) -> Path:
    """A checkpoint without code, as the package has them."""
    folder = save_pipeline(tiny_lisa_glee, tmp_path_factory.mktemp("cards") / "lisa-tiny")
    for path in folder.glob("*.py"):
        path.unlink()
    for path in folder.glob("*.json"):
        written = without_names(json.loads(path.read_text()))
        path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").write_text(CARD)
    return folder


def without_names(value):
    """A configuration without what names code in it."""
    if not isinstance(value, dict):
        return value
    return {key: without_names(item) for key, item in value.items() if key not in ("auto_map", "custom_pipelines")}


def test_the_published_code_is_todays(folder, repository):
    files = {file.path: file.read() for file in gather(folder, REPO).files}
    code = {path: content for path, content in files.items() if path.endswith(".py")}
    for path, content in code.items():
        system = "lisa_glee" if path.endswith("_lisa_glee.py") else "glee"
        if path != "perception_lisa_glee.py":  # the only one that is written for a checkpoint
            places = [repository / kind / system / path for kind in ("modeling", "processing")]
            places += [repository / "src" / "lookhear" / "serving" / path]
            assert next(place for place in places if place.is_file()).read_bytes() == content, path
    config = json.loads(files["config.json"])
    assert config["custom_pipelines"] and config["auto_map"]["AutoModel"].startswith("modeling_lisa_glee.")
    assert {"modeling_lisa_glee.py", "modeling_glee.py", "image_processing_glee.py"} <= set(code)
    assert without_names(config) == json.loads((folder / "config.json").read_text())


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_what_was_published_answers_with_and_without_lookhear(
    tiny_lisa_glee, folder, command, child, without_lookhear, shared_hub, tmp_path
):
    code, _, err = command(folder, "--repo", REPO)
    assert code == 0, err
    assert ("model", REPO) in shared_hub.repositories
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)
    results = []
    for kind, script in (("with", CHILD), ("without", without_lookhear(CHILD))):
        loading = child("-c", script, REPO, str(tmp_path / "image.npy"), QUESTION, kind)
        out, err = loading.communicate(timeout=500)
        assert loading.returncode == 0, err[-3000:]
        results.append(json.loads(out.split("RESULT")[1]))
    assert [result.pop("modules") for result in results] == [["lookhear"], ["transformers_modules"]]
    assert results[0] == results[1] and results[0]["answer"]["objects"]

"""A metric's Space computes what the metric in the project does, and its page shows that."""

import importlib.util
import json
import math
from pathlib import Path

import evaluate
import pytest

from lookhear.publishing import gather

NAMES = (
    "cer",
    "coco_ap",
    "hota",
    "j_and_f",
    "lvis_ap",
    "mot",
    "open_world_ar",
    "reasoning_segmentation",
    "referring",
    "teta",
    "vis_ap",
    "wer",
)


@pytest.fixture(scope="module")
def spaces(repository, tmp_path_factory) -> Path:
    """Every metric's Space as a folder."""
    root = tmp_path_factory.mktemp("spaces")
    for name in NAMES:
        (root / name).mkdir()
        for file in gather(repository / "evaluation" / "metrics" / name, f"org/{name}").files:
            (root / name / file.path).write_bytes(file.read())
    return root


@pytest.mark.parametrize("name", NAMES)
def test_the_exported_metric_is_the_metric(spaces, repository, tmp_path, name):
    example = json.loads((spaces / name / "example.json").read_text())
    assert example.pop("metric") == name
    rows = {**example.pop("settings", {}), **example}
    here = evaluate.load(str(repository / "evaluation" / "metrics" / name), cache_dir=str(tmp_path)).compute(**rows)
    there = evaluate.load(str(spaces / name), cache_dir=str(tmp_path)).compute(**rows)
    assert json.dumps(there, default=float) == json.dumps(here, default=float)
    assert any(isinstance(value, float) and 0 < value < 1 for value in there.values())  # a case with something to it


@pytest.fixture(scope="module")
def page(spaces):
    """`page(name)`: the module `app` of a metric's Space."""
    pytest.importorskip("gradio", reason="pages need gradio: pip install 'lookhear[demo]'")

    def load(name: str):
        spec = importlib.util.spec_from_file_location(f"page_of_{name}", spaces / name / "app.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_a_page_computes_its_example(page):
    app = page("coco_ap")
    example = app.EXAMPLE
    figures = app.compute(app.pretty(example["predictions"]), app.pretty(example["references"]), "{}")
    assert 0 < figures["AP"] < 1 and figures["AP_large"] is None  # JSON has no NaN
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert app.without_nan({"a": (math.nan, math.inf, 1)}) == {"a": [None, None, 1]}


@pytest.mark.parametrize(
    ("predictions", "references", "settings", "message"),
    [
        ("[", "[]", "{}", "predictions are not JSON"),
        ("{}", "[]", "{}", "predictions have to be a JSON list"),
        ('["a"]', "[]", "{}", "1 predictions and 0 references"),
        ('["a"]', '["a"]', "[]", "settings have to be a JSON object"),
        ('["a"]', '["a"]', '{"confidence": 2}', "confidence has to be between 0 and 1"),
        (json.dumps(["a"] * 10_001), json.dumps(["a"] * 10_001), "{}", "up to 10000 rows"),
    ],
)
def test_a_page_says_what_is_wrong(page, predictions, references, settings, message):
    import gradio

    with pytest.raises(gradio.Error, match=message):
        page("wer").compute(predictions, references, settings)

"""What a run was started with is compared before it is resumed."""

import pytest
from transformers import TrainingArguments

from lookhear.training.run_record import begin_or_resume, compare, fingerprint, flattened, recipe_record


@pytest.fixture
def run(tmp_path):
    """`run(record, **more)` begins or resumes a run that has saved a checkpoint."""
    arguments = TrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none")

    def begin(record, **more):
        found = begin_or_resume(arguments, record, mend=", start anew", **more)
        (tmp_path / "run" / "checkpoint-3").mkdir(exist_ok=True)
        return found

    return begin


def test_the_same_run_goes_on_and_another_is_refused(run, tmp_path):
    record = {"data.train": ["a", "b"], "training.learning_rate": 0.1, "training.max_steps": 3}
    assert run(record) is None
    assert run(record) == str(tmp_path / "run" / "checkpoint-3")
    assert run(record | {"training.max_steps": 5}) is not None, "for longer"
    other = record | {"training.max_steps": 4, "training.learning_rate": 0.2, "model.size": "lite"}
    listed = "training.learning_rate 0.1, not 0.2; training.max_steps 5, not 4; model.size nothing, not lite"
    with pytest.raises(ValueError, match=f"run holds a run that was started with {listed}. Repeat .*, start anew"):
        run(other)
    assert run(other, overwrite=True) is None and run(other) is not None
    (tmp_path / "run" / "started.json").write_text("{")
    with pytest.raises(ValueError, match="started.json is damaged: remove it"):
        run(other)


def test_only_what_changes_weights_is_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.json").write_text("1")
    recipe = {"data": {"root": "./own.json", "task": "labels"}, "training": {"output_dir": "x", "logging_steps": 3}}
    record = recipe_record(recipe | {"model": {"size": "lite"}})
    assert record == {"data.root": f"own.json ({fingerprint(tmp_path / 'own.json')})", "data.task": "labels"} | {
        "model.size": "lite"
    }
    (tmp_path / "own.json").write_text("2")
    (difference,) = compare(record, recipe_record(recipe | {"model": {"size": "lite"}}))
    assert difference.startswith("data.root own.json (") and compare(None, record) == []
    assert flattened({"a": [{"b": 1}, {"b": 2}], "c": [1, 2]}) == {"a.0.b": 1, "a.1.b": 2, "c": [1, 2]}


def test_a_folder_is_known_by_its_files(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    first = fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "cache-1.arrow").write_text("")
    assert fingerprint(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"1235")
    assert fingerprint(tmp_path) != first

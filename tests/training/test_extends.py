"""`extends`: a recipe has all that another one has, and names what differs."""

from pathlib import Path

import pytest
import yaml

import lookhear
from lookhear.training.avsr.recipe import load_recipe
from lookhear.training.recipe_reading import load_content, merge, read_system, shipped_recipe
from lookhear.training.run_recipe import run_recipe

TRAINING = Path(lookhear.__file__).parent / "training"
TABLES = TRAINING / "avsr" / "recipes" / "tables"


def test_mappings_are_merged_and_all_else_is_replaced():
    base = {"a": {"b": 1, "c": [1, 2], "d": {"e": 1}}, "f": {"g": 1}, "h": 3}
    changes = {"a": {"c": [3], "d": {"k": 2}}, "f": None, "i": {"j": 4}}
    kept = yaml.safe_load(yaml.safe_dump(base))
    merged = merge(base, changes)
    assert merged == {"a": {"b": 1, "c": [3], "d": {"e": 1, "k": 2}}, "f": None, "h": 3, "i": {"j": 4}}
    assert base == kept


def test_a_recipe_is_looked_for_beside_its_heir_and_then_among_the_shipped(tmp_path):
    """Through two files in two folders; overrides come last, and the system is inherited."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "grid_tiny.yaml").write_text(
        "system: glee\ntraining: {seed: 5, max_steps: 9}\ndata: {train: [a]}"
    )
    (tmp_path / "base" / "middle.yaml").write_text("extends: grid_tiny.yaml\ntraining: {max_steps: 8}\n")
    top = tmp_path / "top.yaml"
    top.write_text("extends: base/middle.yaml\ndata: {train: [b, c], max_frames: 7}\n")
    recipe = load_recipe(top, ["training.max_steps=3"])
    assert recipe.training == {"seed": 5, "max_steps": 3} and read_system(top, TRAINING) == "glee"
    assert (recipe.data.train, recipe.data.max_frames) == (["b", "c"], 7)
    top.write_text("extends: grid_tiny.yaml\ntraining: {max_steps: 8}\n")  # nothing of that name lies beside it
    recipe, shipped = load_recipe(top), load_recipe(TRAINING / "avsr" / "recipes" / "grid_tiny.yaml")
    assert recipe.training == shipped.training | {"max_steps": 8} and recipe.model == shipped.model


@pytest.mark.parametrize(
    ("a", "message"),
    [
        ("extends: a.yaml", "extends itself: a.yaml -> a.yaml; take one `extends` out"),
        ("extends: b.yaml", "extends itself: a.yaml -> b.yaml -> a.yaml; take one `extends` out"),
        ("extends: [b.yaml]", "extends must be the name of one file, not ['b.yaml']"),
        ("extends:", "extends must be the name of one file, not None"),
        ("extends: nowhere.yaml", "nowhere.yaml' is not a file"),
        ("extends: c.yaml", "extends 'c.yaml', which has no sections"),
    ],
)
def test_what_cannot_be_extended_is_refused_with_one_line(tmp_path, a, message):
    (tmp_path / "a.yaml").write_text(a)
    (tmp_path / "b.yaml").write_text("extends: ./a.yaml")
    (tmp_path / "c.yaml").write_text("- 1")
    for read in (load_recipe, lambda path: run_recipe(path)):
        with pytest.raises(ValueError) as refused:
            read(tmp_path / "a.yaml")
        assert message in str(refused.value) and "\n" not in str(refused.value)


def test_shipped_recipes_are_found_by_name():
    assert shipped_recipe("lrs2_audio.yaml", TRAINING) == TRAINING / "avsr" / "recipes" / "lrs2_audio.yaml"
    assert shipped_recipe("tables/base.yaml", TRAINING) == TABLES / "base.yaml"
    for name in ("nowhere.yaml", "", "*.yaml", "glee/base.yaml", "/lrs2_audio.yaml", "../lrs2_audio.yaml"):
        assert shipped_recipe(name, TRAINING) is None


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_of_a_table_extends_the_base_and_writes_where_its_name_says(path):
    recipe = load_recipe(path)
    assert recipe.training["learning_rate"] == 1e-4 and recipe.training["load_best_model_at_end"] is True
    assert recipe.training["lr_scheduler_kwargs"]["factor"] == 0.5
    if path.stem not in ("base", "words"):
        assert recipe.training["output_dir"] == f"runs/{path.stem}"
        assert load_content(path, TRAINING)["system"] == "avsr"
        assert (recipe.data.word_window is None) == path.stem.startswith("table5")


def test_the_rows_of_a_table_differ_in_what_the_paper_changes():
    def recipe(name):
        return load_recipe(TABLES / f"{name}.yaml")

    stft, libri, light, hybrid = (recipe(f"table6_{name}") for name in ("stft", "librispeech", "librilight", "hybrid"))
    assert stft.model.config["audio_config"] == {"front_end": "spectrogram"} and not stft.model.initialise
    assert [row.model.config["ctc_loss_weight"] for row in (stft, libri, light, hybrid)] == [0, 0, 0, 0.2]
    starts = [row.model.initialise[0]["checkpoint"] for row in (libri, light, hybrid)]
    assert starts == ["facebook/wav2vec2-large", *["facebook/wav2vec2-large-lv60"] * 2]
    full, few = recipe("table7_moco"), recipe("table9_visual_28h")
    assert (few.data.train, few.model) == (["prepared/lrs2_train"], full.model) and len(full.data.train) == 2
    assert recipe("table7_frozen").model.freeze and not full.model.freeze
    back_ends = [recipe(f"table5_{name}").model.config["classifier_back_end"] for name in ("moco", "transformer")]
    assert back_ends == ["tcn", "transformer"]
    assert recipe("table5_resnet50").model.initialise == [] and recipe("table5_moco").model.initialise

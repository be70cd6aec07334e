"""What a training run leaves can be published: without what resumes it and what only training needs, with a card."""

import gc
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForZeroShotObjectDetection

from lookhear.evaluation.model_results import weights_digest
from lookhear.publishing import Publication, gather

RESUMING = (
    "training_args.bin",
    "checkpoint-2/optimizer.pt",
    "checkpoint-2/rng_state.pth",
    "checkpoint-2/scheduler.pt",
)
STATE = {
    "global_step": 3,
    "best_global_step": 2,
    "log_history": [
        {"step": 1, "loss": 9.0},
        {"step": 2, "eval_wer": 0.25, "eval_wer_audio": 0.5, "eval_loss": 1.5, "eval_runtime": 3.0},
        {"step": 3, "eval_wer": 0.75, "eval_runtime": 3.0},
        {"step": 3, "train_runtime": 9.0},
    ],
}
RECIPE = {
    "model": {"checkpoint": "org/start", "initialise": [{"checkpoint": "/home/me/runs/lrw_words"}]},
    "data": {"train": ["/home/me/prepared/lrs2_train"], "validation": ["/home/me/prepared/lrs2_val"]},
    "training": {"learning_rate": 1e-4, "per_device_train_batch_size": 8, "seed": 5, "load_best_model_at_end": True},
}


def make_run(folder: Path) -> Path:
    """Adds to a checkpoint what a training run leaves beside it."""
    for name in RESUMING:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"1")
    shutil.copy(folder / "model.safetensors", folder / "checkpoint-2" / "model.safetensors")
    (folder / "trainer_state.json").write_text(json.dumps(STATE))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


def write_out(publication: Publication, folder: Path) -> Path:
    """The repository as a folder."""
    for file in publication.files:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).write_bytes(file.read())
    return folder


@pytest.fixture
def run(tiny_checkpoint, tmp_path) -> Path:
    """A recogniser's run, as `save_pretrained` of model and processor leave it: without the pipeline's code."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "run", ignore=shutil.ignore_patterns("*.py"))
    config = json.loads((folder / "config.json").read_text())
    del config["custom_pipelines"]
    (folder / "config.json").write_text(json.dumps(config))
    return make_run(folder)


def test_nothing_of_the_training_goes_along(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    publication = gather(run, "org/mine", "cc-by-4.0")
    listed = {file.path for file in publication.files}
    assert {Path(path).parent.as_posix() for path in listed} == {".", "face-mesh"}
    assert not [path for path in listed if path.endswith((".pt", ".bin", ".pth"))]
    assert not listed & {"trainer_state.json", "recipe.yaml"}
    assert {"README.md", "config.json", "generation_config.json", "model.safetensors", "pipeline_avsr.py"} <= listed
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_card_says_what_the_run_recorded(run):
    """Figures are those of the step whose weights are there; folders of this machine are not named."""
    card = ModelCard(card_of(gather(run, "org/mine", "cc-by-4.0")))
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "transformers")
    assert card.data.pipeline_tag == "automatic-speech-recognition" and "lookhear" in card.data.tags
    text = " ".join(card.text.split())
    assert "on `lrs2_val` at step 2" in text and "| wer | 0.25 |" in text and "| wer_audio | 0.5 |" in text
    assert "0.75" not in text and "runtime" not in text
    assert "Data: `lrs2_train`" in text and "It starts from `org/start`, `lrw_words`." in text
    assert "3 steps of 8 examples in each process, at a learning rate of 0.0001, with seed 5." in text
    assert "/home/me" not in card.content and 'model="org/mine"' in text


def test_without_the_best_at_the_end_the_last_figures_count(run):
    recipe = RECIPE | {"training": {}}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    text = card_of(gather(run, "org/mine", "cc-by-4.0"))
    assert "| wer | 0.75 |" in text and "| wer_audio |" not in text and "at step 3" in text


def card_of(publication: Publication) -> str:
    return next(file for file in publication.files if file.path == "README.md").read().decode()


def test_a_checkpoint_of_a_run_can_be_published(run):
    """With the figures of its own step, and the recipe of its run."""
    folder = run / "checkpoint-2"
    for path in run.iterdir():
        if path.suffix == ".json" and path.name != "trainer_state.json":
            shutil.copy(path, folder)
    (folder / "trainer_state.json").write_text(json.dumps(STATE | {"global_step": 2, "best_global_step": 1}))
    publication = gather(folder, "org/mine", "apache-2.0")
    assert "| wer | 0.25 |" in card_of(publication) and "`lrs2_train`" in card_of(publication)
    assert not [file.path for file in publication.files if file.path.endswith((".pt", ".pth"))]


def test_a_card_of_ones_own_is_taken(run):
    (run / "README.md").write_text(card_of(gather(run, "org/mine", "mit")).replace("# mine", "# My own"))
    assert "# My own" in card_of(gather(run, "org/mine"))


@pytest.mark.parametrize(
    ("spoil", "licence", "message"),
    [
        (None, None, r"has no README.md: name the licence of the weights, such as --license cc-by-4.0"),
        (None, "CC BY", r"--license 'CC BY' must be an identifier that the Hub lists"),
        (None, "other", r"--license 'other' must be .* license_name and license_link"),
        (lambda folder: (folder / "README.md").write_text("---\na: b\n---\n"), "mit", r"README.md names the licence"),
        (lambda folder: (folder / "config.json").unlink(), None, r"only checkpoints: .* publish .*checkpoint-2"),
        (lambda folder: (folder / "config.json").unlink(), "mit", r"--license is for the card of a checkpoint"),
        (lambda folder: (folder / "trainer_state.json").write_text("{"), "mit", r"trainer_state.json cannot be read"),
        (lambda folder: (folder / "recipe.yaml").write_text("- 1"), "mit", r"recipe.yaml cannot be read: it is not a"),
        (lambda folder: (folder / "notes.pt").write_bytes(b"1"), "mit", r"notes.pt does not belong"),
    ],
)
def test_what_is_missing_is_said(run, spoil, licence, message):
    if spoil is not None:
        spoil(run)
    with pytest.raises(ValueError, match=message):
        gather(run, "org/mine", licence)


def test_the_command_asks_for_a_licence_in_one_line(command, run):
    code, out, err = command(run, "--repo", "org/mine", "--dry-run")
    assert code == 2 and out == "" and err.count("\n") == 1 and "--license" in err
    code, out, _ = command(run, "--repo", "org/mine", "--dry-run", "--license", "cc-by-4.0")
    assert code == 0 and "README.md  (made)" in out and "optimizer" not in out


# ------------------------------------------------------------------------------------------ what only training needs


@pytest.fixture
def training_glee(tiny_glee, tmp_path):
    """`make(folder_name, **save)`: a run of a GLEE with a text teacher and denoising tables; with its model."""
    small, processor = tiny_glee
    fields = {"text_teacher": True, "denoising_tables": {"obj365": 5}}
    config = type(small.config).from_dict({**small.config.to_dict(), **fields})
    torch.manual_seed(1)
    model = type(small)(config)
    model.load_state_dict(small.state_dict(), strict=False)

    def make(name: str, **save) -> Path:
        folder = tmp_path / name
        model.save_pretrained(folder, **save)
        processor.save_pretrained(folder)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1}))
        return folder

    return make, model


@pytest.mark.parametrize("shards", ["one", "many"])
def test_teacher_and_denoising_tables_stay_at_home(training_glee, tmp_path, shards):
    make, model = training_glee
    folder = make("run", max_shard_size="20KB" if shards == "many" else "5GB")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert ("model.safetensors.index.json" in before) == (shards == "many")
    publication = gather(folder, "org/mine", "mit")
    assert any("weights that only training needs are left out" in remark for remark in publication.remarks)
    out = write_out(publication, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    published = {name: value for path in out.glob("*.safetensors") for name, value in load_file(path).items()}
    wanted = {
        name: value
        for name, value in model.state_dict().items()
        if "text_teacher" not in name and "denoising_labels" not in name
    }
    assert 0 < len(wanted) < len(model.state_dict()) and published.keys() == wanted.keys()
    assert all(torch.equal(published[name], value) for name, value in wanted.items())
    found, info = AutoModelForZeroShotObjectDetection.from_pretrained(out, output_loading_info=True)
    assert not found.config.text_teacher and found.config.denoising_tables is None
    assert not info["missing_keys"] and not info["unexpected_keys"]
    if shards == "many":
        index = json.loads((out / "model.safetensors.index.json").read_text())
        assert index["weight_map"].keys() == wanted.keys()
        assert index["metadata"]["total_size"] == sum(v.numel() * v.element_size() for v in wanted.values())
        assert set(index["weight_map"].values()) == {path.name for path in out.glob("*.safetensors")}


def test_results_follow_the_weights_that_are_published(training_glee, tmp_path):
    folder = training_glee[0]("run")
    (folder / "results.json").write_text(json.dumps({"weights": weights_digest(folder), "tables": {}}))
    out = write_out(gather(folder, "org/mine", "mit"), tmp_path / "out")
    assert json.loads((out / "results.json").read_text())["weights"] == weights_digest(out) != weights_digest(folder)


def test_the_temporary_weights_go_with_the_publication(training_glee):
    publication = gather(training_glee[0]("run"), "org/mine", "mit")
    file = next(file for file in publication.files if file.path == "model.safetensors")
    path = file.content
    assert file.is_made and path.is_file()
    del file, publication
    gc.collect()
    assert not path.exists()

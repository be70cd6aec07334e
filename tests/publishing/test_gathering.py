"""What would be published: every file, checked, without network."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from lookhear.evaluation.model_results import benchmarks, fill_card, read_results
from lookhear.publishing import gather
from lookhear.publishing.card import read_card

TASKS = {
    "avsr": "audio-visual-speech-recognition",
    "glee": "object-perception",
    "lisa_glee": "reasoning-segmentation",
}
SYSTEMS = [("avsr-grid-tiny", "avsr"), ("glee-tiny", "glee"), ("lisa-glee-tiny", "lisa_glee")]
FACE_NETWORKS = ("LICENSE", "NOTICE", "README.md", "model.safetensors")
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: automatic-speech-recognition
---

# tiny

`pipeline(model="model_cards/tiny")`

## Results

None.

## How it was made

By chance.

## Limits

All.

## Consent and misuse

None.

## Licence

Apache-2.0.
"""


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    """A complete checkpoint with a card, to be spoilt."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    (folder / "README.md").write_text(CARD)
    return folder


def paths(publication) -> set[str]:
    return {file.path for file in publication.files}


def text(publication, path: str) -> str:
    return next(file for file in publication.files if file.path == path).read().decode()


# -------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("name", ["avsr-grid-tiny", "glee-tiny", "lisa-glee-tiny"])
def test_the_projects_checkpoints_are_ready(repository, name):
    folder = repository / "model_cards" / name
    publication = gather(folder, f"org/{name}")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there - paths(publication) == set()  # all of it goes
    assert "results.json" in there and {"config.json", "model.safetensors", "processor_config.json"} <= there
    assert publication.remarks == [] and publication.repo_type == "model"
    card = ModelCard(text(publication, "README.md"))
    assert card.data.license and card.data.library_name == "transformers" and card.data.eval_results
    assert f"org/{name}" in card.text and "model_cards/" not in card.text


def sources(repository: Path, system: str) -> dict[str, bytes]:
    """Name -> content of what can be exported of a system; LISA-GLEE brings GLEE."""
    systems = ("glee", system) if system == "lisa_glee" else (system,)
    folders = [repository / kind / name for kind in ("modeling", "processing") for name in systems]
    files = [path for folder in folders for path in folder.glob("*.py")]
    return {path.name: path.read_bytes() for path in files}


def without_names(value):
    """A configuration without what names code in it."""
    if not isinstance(value, dict):
        return value
    return {key: without_names(item) for key, item in value.items() if key not in ("auto_map", "custom_pipelines")}


@pytest.mark.parametrize(("name", "system"), SYSTEMS)
def test_the_published_code_is_todays(repository, name, system):
    """Nothing else of the folder changes, and the folder itself doesn't."""
    folder = repository / "model_cards" / name
    before = {path: path.read_bytes() for path in folder.iterdir()}
    files = {file.path: file.read() for file in gather(folder, f"org/{name}").files}
    assert files["handler.py"] == (repository / "src" / "lookhear" / "serving" / "handler.py").read_bytes()
    code = {path: content for path, content in files.items() if path.endswith(".py") and path != "handler.py"}
    assert {f"{part}_{system}.py" for part in ("configuration", "modeling", "processing", "pipeline")} <= set(code)
    there = {path: sources(repository, system)[path] for path in code}
    if system == "lisa_glee":  # a checkpoint takes GLEE's classes from the code beside it
        there["perception_lisa_glee.py"] = code["perception_lisa_glee.py"]
        assert b"from .configuration_glee import" in code["perception_lisa_glee.py"]
    assert there == code
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    configs = {"config.json", "processor_config.json", "tokenizer_config.json"}
    for path, content in before.items():
        if path.name in configs:
            published = json.loads(files[path.name])
            assert published["auto_map"] and without_names(published) == json.loads(content), path
        elif path.name != "README.md":
            assert files[path.name] == content, path
    assert set(json.loads(files["config.json"])["auto_map"]) >= {"AutoConfig", "AutoModel"}
    assert json.loads(files["config.json"])["custom_pipelines"]


@pytest.mark.parametrize(("name", "system"), SYSTEMS)
def test_what_the_model_itself_saves_is_ready(repository, tmp_path, name, system):
    """`model.save_pretrained` writes the code of the model; the pipeline's comes with publishing."""
    from transformers import AutoProcessor, pipeline

    task = TASKS[system]
    folder = repository / "model_cards" / name
    pipeline(task, model=str(folder), device="cpu").model.save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    assert (tmp_path / f"modeling_{system}.py").is_file() and not (tmp_path / f"pipeline_{system}.py").exists()
    (tmp_path / "README.md").write_text(CARD)
    files = {file.path: file.read() for file in gather(tmp_path, "org/tiny").files}
    assert files[f"pipeline_{system}.py"] == sources(repository, system)[f"pipeline_{system}.py"]
    assert files["model.safetensors"] == (tmp_path / "model.safetensors").read_bytes()
    assert set(json.loads(files["config.json"])["auto_map"]) >= {"AutoConfig", "AutoModel"}


def test_code_in_the_folder_is_published_as_it_is(checkpoint):
    """A checkpoint that was saved with its pipeline keeps the code that it was trained with."""
    (checkpoint / "text_scores_avsr.py").write_text((checkpoint / "text_scores_avsr.py").read_text() + "\n# mine\n")
    publication = gather(checkpoint, "org/tiny")
    assert text(publication, "text_scores_avsr.py").endswith("# mine\n")
    made = [file.path for file in publication.files if file.is_made]
    assert made == ["README.md", "handler.py", "requirements.txt"]


@pytest.mark.slow
def test_an_endpoint_is_told_what_to_install(checkpoint):
    """What the code imports, with its bounds, but for torch; a handler of the folder's own stays."""
    lines = text(gather(checkpoint, "org/tiny"), "requirements.txt").splitlines()
    names = [re.split("[<>=]", line)[0] for line in lines]
    assert {"av", "dlib-bin", "numpy", "pillow", "scipy", "transformers"} <= set(names)
    assert not {"torch", "torchvision", "datasets", "lookhear"} & set(names) and all("<" in line for line in lines)
    (checkpoint / "handler.py").write_text("class EndpointHandler: ...\n")
    assert text(gather(checkpoint, "org/tiny"), "handler.py") == "class EndpointHandler: ...\n"


def test_face_networks_go_along_where_the_processor_needs_them(repository, tmp_path):
    """The packaged checkpoint's folder has none; whatever part of them a folder has stays as it is."""
    packaged = repository / "model_cards" / "face-mesh"
    expected = {f"face-mesh/{name}": (packaged / name).read_bytes() for name in FACE_NETWORKS}
    name = "avsr-grid-tiny"
    folder = shutil.copytree(repository / "model_cards" / name, tmp_path / name)
    assert not (folder / "face-mesh").exists()

    def networks() -> dict[str, bytes]:
        files = gather(folder, f"org/{name}").files
        return {file.path: file.read() for file in files if file.path.startswith("face-mesh/")}

    assert networks() == expected and not (folder / "face-mesh").exists()
    (folder / "face-mesh").mkdir()
    (folder / "face-mesh/NOTICE").write_text("mine")
    assert networks() == expected | {"face-mesh/NOTICE": b"mine"}
    shutil.rmtree(folder / "face-mesh")
    settings = json.loads((folder / "processor_config.json").read_text())
    settings["image_processor"]["landmarks"] = "dlib"
    (folder / "processor_config.json").write_text(json.dumps(settings))
    assert networks() == {}


def test_no_code_is_committed_beside_a_checkpoint(repository):
    """Publishing and saving write it; a committed copy would only fall behind."""
    listed = subprocess.run(["git", "ls-files", "model_cards"], cwd=repository, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git here")
    assert [name for name in listed.stdout.splitlines() if name.endswith(".py")] == []


@pytest.mark.parametrize("name", ["avsr-grid-tiny", "glee-tiny", "lisa-glee-tiny"])
def test_the_cards_in_the_project_show_what_was_measured(repository, name):
    folder = repository / "model_cards" / name
    shown = (folder / "README.md").read_text()
    tables = read_results(folder)
    assert fill_card(shown, tables) == shown
    assert all(f"<!-- measured: {table} -->" in shown for table in tables)


def test_results_on_a_benchmark_become_the_hubs_files(repository):
    publication = gather(repository / "model_cards" / "avsr-grid-tiny", "org/avsr-grid-tiny")
    entries = parse_eval_result_entries(yaml.safe_load(text(publication, ".eval_results/grid-noise.yaml")))
    assert {entry.dataset_id for entry in entries} == {"org/grid-noise"}
    assert [entry.task_id for entry in entries if entry.task_id not in benchmarks()["grid-noise"]] == []
    table = read_results(repository / "model_cards" / "avsr-grid-tiny")["grid-noise"]
    noisy = next(row for row in table.rows if row[:3] == ["babble", "-5", "audiovisual"])
    assert [str(e.value) for e in entries if e.task_id == "babble_minus_5_audiovisual"] == [noisy[3].split(" ")[0]]
    results = ModelCard(text(publication, "README.md")).data.eval_results
    assert {"wer, babble, -5, audiovisual", "cer, clean, visual"} <= {result.metric_name for result in results}
    assert all(entry.source_url.endswith("/org/avsr-grid-tiny/blob/main/results.json") for entry in entries)


def test_listing_names_every_file(checkpoint):
    publication = gather(checkpoint, "org/tiny")
    lines = publication.listing().splitlines()
    assert len(lines) == len(publication.files) + 1
    assert all(any(line.split()[1] == path for line in lines) for path in paths(publication))
    assert lines[-1].endswith(f"{len(publication.files)} files for the model org/tiny")
    assert 'model="org/tiny"' in text(publication, "README.md")
    assert "no results.json" in publication.remarks[0] and not any(
        path.startswith(".eval") for path in paths(publication)
    )


def test_caches_stay_at_home(checkpoint):
    (checkpoint / "__pycache__").mkdir()
    (checkpoint / "__pycache__" / "modeling_avsr.pyc").write_bytes(b"")
    (checkpoint / ".gitignore").write_text("x")
    assert not {path for path in paths(gather(checkpoint, "org/tiny")) if "pyc" in path or "gitignore" in path}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "optimizer.pt").write_bytes(b"1"), "optimizer.pt does not belong"),
        (lambda folder: (folder / "model.safetensors").unlink(), "lacks model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"1234567890"), "not a safetensors file"),
        (lambda folder: (folder / "text_scores_avsr.py").unlink(), "lacks text_scores_avsr.py"),
        (lambda folder: (folder / "README.md").unlink(), "has no README.md"),
        (lambda folder: (folder / "README.md").write_text("# tiny"), "does not begin with metadata"),
        (lambda folder: (folder / "README.md").write_text("---\na: [\n---\n"), "the metadata are not YAML"),
        (lambda folder: replace(folder, "license: apache-2.0\n", ""), "say nothing about license"),
        (lambda folder: replace(folder, "license: apache-2.0", "license: other"), "needs a license_name"),
        (lambda folder: replace(folder, "## Consent and misuse", "##"), "no section about consent and misuse"),
        (lambda folder: replace(folder, "## Limits", "![x](x.png)\n## Limits"), "shows x.png"),
        (lambda folder: (folder / "notes.md").write_text("hf_" + "a1" * 17), "notes.md holds what looks like a key"),
        (lambda folder: (folder / "text_scores_avsr.py").write_text("import lookhear.x"), "imports lookhear.x: code"),
        (lambda folder: of_another_kind(folder), "its architecture is AvsrModel; these can be published"),
        (lambda folder: without_processor(folder), "lacks processor_config.json"),
        (lambda folder: results_of_others(folder), "measured with other weights"),
    ],
)
def test_what_is_not_fit_to_publish(checkpoint, spoil, message):
    spoil(checkpoint)
    with pytest.raises(ValueError, match=message):
        gather(checkpoint, "org/tiny")


def replace(folder: Path, old: str, new: str) -> None:
    card = (folder / "README.md").read_text()
    assert old in card
    (folder / "README.md").write_text(card.replace(old, new))


def drop(folder: Path, key: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config[key]
    (folder / "config.json").write_text(json.dumps(config))


def of_another_kind(folder: Path) -> None:
    drop(folder, "custom_pipelines")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["AvsrModel"]}))


def without_processor(folder: Path) -> None:
    drop(folder, "custom_pipelines")
    (folder / "processor_config.json").unlink()


def results_of_others(folder: Path) -> None:
    (folder / "results.json").write_text(json.dumps({"weights": "0" * 64, "tables": {}}))


# ---------------------------------------------------------------------------------------------- the other repositories


def test_the_noise_benchmark_is_ready(repository):
    folder = repository / "evaluation" / "dataset_cards" / "grid-noise"
    publication = gather(folder, "org/grid-noise")
    assert publication.repo_type == "dataset" and {"README.md", "eval.yaml", "test.json"} == paths(publication)
    clips = [json.loads(line) for line in text(publication, "test.json").splitlines()]
    assert len(clips) == 50 and len({clip["file_name"] for clip in clips}) == 50
    with pytest.raises(ValueError, match="call the benchmark grid-noise"):
        gather(folder, "org/another")


def test_the_clips_of_the_noise_benchmark_are_grids(repository):
    from lookhear.training.avsr.corpora import grid_sentence

    folder = repository / "evaluation" / "dataset_cards" / "grid-noise"
    for line in (folder / "test.json").read_text().splitlines():
        clip = json.loads(line)
        assert clip["text"] == grid_sentence(Path(clip["file_name"]).stem)


@pytest.mark.shared
def test_the_clips_of_the_noise_benchmark_are_those_that_were_measured(repository, shared):
    listed = (repository / "evaluation" / "dataset_cards" / "grid-noise" / "test.json").read_text().splitlines()
    measured = (shared / "data" / "grid_s1" / "test" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["file_name"] for line in listed] == [json.loads(line)["file_name"] for line in measured]


def test_the_two_talker_benchmark_is_ready(repository):
    folder = repository / "evaluation" / "dataset_cards" / "grid-two-talkers"
    publication = gather(folder, "org/grid-two-talkers")
    assert {"README.md", "eval.yaml", "test.json", "targets.json", "others.json"} == paths(publication)
    mixtures = [json.loads(line) for line in text(publication, "test.json").splitlines()]
    clips = [
        json.loads(line) for name in ("targets", "others") for line in text(publication, f"{name}.json").splitlines()
    ]
    texts = {Path(clip["file_name"]).stem: clip["text"] for clip in clips}
    for mixture in mixtures:
        for place, person in enumerate(mixture["people"]):
            silent = mixture["snr"] is None and place == mixture["target"]
            assert person["text"] == ("" if silent else texts[person["clip"]])
    silent = [mixture for mixture in mixtures if mixture["snr"] is None]
    assert len(mixtures) == 300 and len(silent) == 100 and not any(mixture["text"] for mixture in silent)
    conditions = {(len(mixture["people"]), mixture["snr"]) for mixture in mixtures}
    asked = {(2, 5.0), (2, 0.0), (2, -5.0), (3, 5.0), (3, 0.0), (3, -5.0), (1, None), (2, None), (3, None)}
    assert conditions == asked and len(benchmarks()["grid-two-talkers"]) == 3 * 6 + 3


@pytest.mark.shared
def test_the_mixtures_of_the_two_talker_benchmark_are_those_that_are_drawn(repository, shared):
    from lookhear.evaluation.two_talkers.composing import describe
    from lookhear.evaluation.two_talkers.planning import plan_mixtures
    from lookhear.training.avsr.corpora import read_folder

    listed = (repository / "evaluation" / "dataset_cards" / "grid-two-talkers" / "test.json").read_text().splitlines()
    clips = [list(read_folder(shared / "data" / name)) for name in ("grid_s1/test", "grid_speakers")]
    assert [json.loads(line) for line in listed] == [describe(mixture) for mixture in plan_mixtures(*clips)]


@pytest.mark.slow
def test_the_scene_benchmark_is_ready_and_its_data_are_made(repository, tmp_path):
    folder = repository / "evaluation" / "dataset_cards" / "scene-questions"
    publication = gather(folder, "org/scene-questions")
    assert [file.path for file in publication.files] == ["README.md", "eval.yaml", "scenes.yaml", "test.parquet"]
    assert [file.path for file in publication.files if file.is_made] == ["test.parquet"]
    assert ["'lookhear'" in line and "spaces/leaderboard" in line for line in publication.remarks] == [True]
    assert "test.parquet  (made)" in publication.listing() and publication.files[-1].size < 10_000_000
    copy = shutil.copytree(folder, tmp_path / "scene-questions")
    (copy / "test.parquet").write_bytes(publication.files[-1].read())
    assert not any(file.is_made for file in gather(copy, "org/scene-questions").files)  # what is there stays as it is
    (copy / "test.parquet").unlink()
    (copy / "scenes.yaml").write_text("scenes: many")
    with pytest.raises(ValueError, match="scenes must be a whole number"):
        gather(copy, "org/scene-questions")
    (copy / "scenes.yaml").unlink()
    with pytest.raises(ValueError, match="no file test.parquet"):
        gather(copy, "org/scene-questions")


def test_a_framework_of_the_hubs_list_needs_no_remark(repository, tmp_path):
    folder = shutil.copytree(repository / "evaluation" / "dataset_cards" / "grid-noise", tmp_path / "grid-noise")
    tasks = (folder / "eval.yaml").read_text()
    assert len(gather(folder, "org/grid-noise").remarks) == 1
    (folder / "eval.yaml").write_text(tasks.replace("framework: lookhear", "framework: inspect-ai"))
    assert gather(folder, "org/grid-noise").remarks == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split: test", "split: validation", "belongs to default/validation"),
        ("id: clean_audio\n", "id: clean_visual\n", "clean_visual is listed twice"),
        ("evaluation_framework: lookhear", "evaluation_framework:", "nothing about evaluation_framework"),
    ],
)
def test_a_benchmark_whose_parts_disagree(repository, tmp_path, old, new, message):
    folder = shutil.copytree(repository / "evaluation" / "dataset_cards" / "grid-noise", tmp_path / "grid-noise")
    tasks = (folder / "eval.yaml").read_text()
    assert old in tasks
    (folder / "eval.yaml").write_text(tasks.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        gather(folder, "org/grid-noise")


def test_a_space(tmp_path):
    head = 'title: a\nsdk: gradio\nsdk_version: 6.0.0\npython_version: "3.11"\napp_file: app.py\nlicense: mit\n'
    (tmp_path / "README.md").write_text(f"---\n{head}---\n")
    (tmp_path / "app.py").write_text("import gradio")
    with pytest.raises(ValueError, match="lacks requirements.txt"):
        gather(tmp_path, "org/a")
    (tmp_path / "requirements.txt").write_text("gradio")
    assert paths(gather(tmp_path, "org/a")) == {"README.md", "app.py", "requirements.txt"}
    (tmp_path / "README.md").write_text(f"---\n{head.replace('sdk_version: 6.0.0', '')}---\n")
    with pytest.raises(ValueError, match="nothing about sdk_version"):
        gather(tmp_path, "org/a")


@pytest.fixture
def space(tmp_path) -> Path:
    """A Space that needs lookhear."""
    head = 'title: a\nsdk: gradio\nsdk_version: 6.0.0\npython_version: "3.11"\napp_file: app.py\nlicense: mit\n'
    files = {"README.md": f"---\n{head}---\n", "app.py": "import lookhear\n", ".gitignore": "examples/\n# no\n*.tmp\n"}
    files |= {"requirements.txt": "lookhear[face,demo]\nlookhear-other\n", "examples/a.mp4": "", "x.tmp": ""}
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    return tmp_path


def test_a_space_that_needs_lookhear_takes_it_along(space, repository):
    publication = gather(space, "org/a")
    there = paths(publication)
    assert not there & {".gitignore", "examples/a.mp4", "x.tmp"}
    linked = ("modeling", "processing", "training", "evaluation", "model_cards")
    listed = subprocess.run(["git", "ls-files", "src", *linked], cwd=repository, capture_output=True, text=True)
    names = [name.removeprefix("src/") for name in listed.stdout.splitlines() if (repository / name).is_file()]
    links = {f"lookhear/{name}" for name in linked}
    expected = {name if name.startswith("lookhear") else f"lookhear/{name}" for name in names} - links
    assert {"lookhear/__init__.py", "lookhear_command/publish.py"} <= there
    assert expected - there == set()
    needed = text(publication, "requirements.txt").splitlines()
    assert {"torch", "gradio", "ai-edge-litert", "lookhear-other"} <= {line.split("<")[0] for line in needed}
    assert not [line for line in needed if line.startswith(("jiwer", "pytest", "lookhear["))]


def test_the_projects_space_is_ready(repository):
    publication = gather(repository / "spaces" / "lookhear", "org/lookhear")
    assert publication.repo_type == "space"
    assert {
        "app.py",
        "README.md",
        "lookhear/__init__.py",
        "lookhear/model_cards/glee-tiny/model.safetensors",
    } <= paths(publication)
    asked = text(publication, "requirements.txt").splitlines()
    assert any(line.startswith("espeakng-loader<") for line in asked)
    assert not [line for line in asked if line.startswith("lookhear")]


def test_the_package_in_a_space_is_found_first_and_has_its_version(space, tmp_path_factory):
    root = tmp_path_factory.mktemp("pushed")
    for file in gather(space, "org/a").files:
        if file.path.endswith((".py", "METADATA")):
            (root / file.path).parent.mkdir(parents=True, exist_ok=True)
            (root / file.path).write_bytes(file.read())
    script = "import importlib.util as u, importlib.metadata as m; "
    script += "print(u.find_spec('lookhear').origin, m.version('lookhear'))"
    found = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True).stdout
    assert found.split() == [str(root / "lookhear" / "__init__.py"), version("lookhear")]


def test_what_is_no_repository(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        gather(tmp_path / "none", "org/a")
    with pytest.raises(ValueError, match="has to be ORG/NAME"):
        gather(tmp_path, "name")
    with pytest.raises(ValueError, match="--repo 'org/a b'"):
        gather(tmp_path, "org/a b")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    with pytest.raises(ValueError, match="is neither a checkpoint"):
        gather(tmp_path, "org/a")
    assert read_card(tmp_path).metadata == {"license": "mit"}


# ------------------------------------------------------------------------------------------------------------ metrics


def test_a_metric_is_called_like_its_repository(repository):
    with pytest.raises(ValueError, match="the repository's name has to be wer"):
        gather(repository / "evaluation" / "metrics" / "wer", "org/word-errors")


def test_a_metric_takes_along_what_it_needs(repository):
    publication = gather(repository / "evaluation" / "metrics" / "hota", "org/hota")
    code = {
        "hota.py",
        "lookhear_hota.py",
        "lookhear_mask_runs.py",
        "lookhear_metric_rows.py",
        "lookhear_track_frames.py",
    }
    assert code | {"README.md", "app.py", "requirements.txt", "example.json"} == paths(publication)
    assert not any("from lookhear" in text(publication, path) for path in code)
    card = text(publication, "README.md")
    assert 'evaluate.load("org/hota")' in card and "luiten2021" in card and "$" not in card


def test_every_metric_has_a_page(repository):
    metrics = {
        folder.name
        for folder in (repository / "evaluation" / "metrics").iterdir()
        if (folder / f"{folder.name}.py").is_file()
    }
    examples = {path.stem for path in (repository / "spaces" / "metrics" / "examples").glob("*.json")}
    assert metrics == examples and len(metrics) >= 11
    for name in metrics:
        assert gather(repository / "evaluation" / "metrics" / name, f"org/{name}").kind == "metric"

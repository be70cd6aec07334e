"""A benchmark as a dataset repository: its card, `eval.yaml` with its tasks, and what it is made from."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import yaml

from lookhear.evaluation.scene_questions import DATA, SETTINGS, make_rows, read_settings, to_parquet
from lookhear.publishing.card import Card, read_card
from lookhear.publishing.publication import CLIPS, PICTURES, TEXTS, Publication, PublishedFile, folder_files

OURS = "lookhear"  # our evaluation framework, which the Hub does not list yet
TABLES = frozenset({".parquet", ".tar"})
LISTED = (
    "eval.yaml names the evaluation framework {!r}: the Hub takes those on its list only (EVALUATION_FRAMEWORKS of "
    "@huggingface/tasks) and shows a leaderboard of the benchmarks that it has listed, too; until both are asked for, "
    "results are seen in spaces/leaderboard, which reads the models' .eval_results and model-index"
)
SECTIONS = {
    "how to measure": ("how to measure",),
    "limits": ("limit",),
    "consent and misuse": ("consent", "misuse"),
    "licence": ("licence", "license"),
}


def gather_benchmark(folder: Path, repo: str) -> Publication:
    """
    Gathers the files of a dataset repository that is a benchmark; generated data are made where they aren't there.

    Raises:
        ValueError: card, `eval.yaml` and data do not agree. Model results name the benchmark by its folder's name, so
            the repository has to have it, too.
    """
    if repo.split("/")[1] != folder.resolve().name:
        raise ValueError(
            f"--repo {repo}: models' results call the benchmark {folder.resolve().name}; give the repository that name"
        )
    files = with_data(folder, folder_files(folder, TEXTS | PICTURES | CLIPS | TABLES))
    card = read_card(folder)
    card.require_fields(("license", "pretty_name", "task_categories", "configs"))
    card.require_sections(SECTIONS)
    card.require_pictures([file.path for file in files])
    framework = _check_tasks(folder / "eval.yaml", _splits(card, [file.path for file in files]))
    return Publication("benchmark", repo, files, [LISTED.format(framework)] if framework == OURS else [])


def with_data(folder: Path, files: list[PublishedFile]) -> list[PublishedFile]:
    """
    Adds the data of generated scenes, which a folder of the project doesn't hold.

    Args:
        folder: of the benchmark; with a `scenes.yaml` if its data are generated.
        files: of the folder.
    """
    if not (folder / SETTINGS).is_file() or (folder / DATA).is_file():
        return files
    made = PublishedFile(DATA, to_parquet(make_rows(read_settings(folder / SETTINGS))))
    return sorted([*files, made], key=lambda file: file.path)


def _splits(card: Card, paths: list[str]) -> set[tuple[str, str]]:
    """Returns the (config, split) pairs of the card's data, and checks that each has a file."""
    found = set()
    for config in card.metadata["configs"]:
        for part in config["data_files"]:
            if not any(fnmatch(path, part["path"]) for path in paths):
                raise ValueError(f"{card.path}: there is no file {part['path']} for the split {part['split']}")
            found.add((config["config_name"], part["split"]))
    return found


def _check_tasks(path: Path, splits: set[tuple[str, str]]) -> str:
    """Checks an `eval.yaml`, its tasks against the card's (config, split) pairs; returns its evaluation framework."""
    benchmark = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name in ("name", "description", "evaluation_framework", "tasks"):
        if not benchmark.get(name):
            raise ValueError(f"{path} says nothing about {name}")
    ids = [task["id"] for task in benchmark["tasks"]]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"{path}: the task {twice[0]} is listed twice")
    for task in benchmark["tasks"]:
        if (task["config"], task["split"]) not in splits:
            raise ValueError(
                f"{path}: the task {task['id']} belongs to {task['config']}/{task['split']}, "
                "which the card does not have"
            )
    return benchmark["evaluation_framework"]

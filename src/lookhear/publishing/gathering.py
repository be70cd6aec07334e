"""From a folder to the complete list of a repository's files, by what the folder is."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id

from lookhear.publishing.benchmark import gather_benchmark
from lookhear.publishing.card import read_card
from lookhear.publishing.checkpoint import gather_checkpoint
from lookhear.publishing.metric_space import gather_metric
from lookhear.publishing.publication import Publication
from lookhear.publishing.space import gather_space
from lookhear.publishing.training_run import checkpoints


def gather(folder: str | Path, repo: str, licence: str | None = None) -> Publication:
    """
    Lists what would be published; nothing is sent, and no network is needed.

    Args:
        folder: of a checkpoint (it has a config.json) or of the training run that ends with one, of a metric
            (NAME/NAME.py), of a benchmark (it has an eval.yaml), or of a Space (its card says `sdk`).
        repo: "ORG/NAME" on the Hub.
        licence: the Hub's identifier of a licence, for the card of a checkpoint that has none: it is made.

    Returns:
        All files of the repository.

    Raises:
        ValueError: the folder is none of these, or something in it is missing or does not belong there.
    """
    folder = Path(folder)
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"--repo {repo!r}: {error}") from None
    if repo.count("/") != 1:
        raise ValueError(f"--repo {repo!r} has to be ORG/NAME")
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    if (folder / "config.json").is_file():
        return gather_checkpoint(folder, repo, licence)
    if licence is not None:
        raise ValueError(f"--license is for the card of a checkpoint, and {folder} has no config.json: leave it out")
    if (folder / f"{folder.resolve().name}.py").is_file():
        return gather_metric(folder, repo)
    if unfinished := checkpoints(folder):
        raise ValueError(
            f"{folder} has no result yet, only checkpoints: let the training end (the same command resumes), or "
            f"publish {unfinished[-1]}"
        )
    if (folder / "eval.yaml").is_file():
        return gather_benchmark(folder, repo)
    if read_card(folder).metadata.get("sdk"):
        return gather_space(folder, repo)
    raise ValueError(
        f"{folder} is neither a checkpoint (config.json), a metric (NAME/NAME.py), a benchmark (eval.yaml) "
        "nor a Space (sdk in README.md)"
    )

"""
A checkpoint as a model repository: weights, configurations, the code that reads them, the card, what was measured.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from safetensors import SafetensorError, safe_open

from lookhear.evaluation.model_results import eval_result_files, fill_card, model_index, read_results
from lookhear.publishing.card import Card, parse_card, read_card
from lookhear.publishing.checkpoint_code import NAMES_CODE, with_code, with_face_networks
from lookhear.publishing.endpoint import with_handler
from lookhear.publishing.publication import PICTURES, TEXTS, WEIGHTS, Publication, PublishedFile, folder_files
from lookhear.publishing.run_card import make_card
from lookhear.publishing.training_parts import without_training_parts
from lookhear.publishing.training_run import LEFT_OUT, is_run, read_facts

CONFIGS = ("config.json", "processor_config.json", "tokenizer_config.json", "preprocessor_config.json")
SECTIONS = {
    "results": ("result",),
    "how it was made": ("how it was made", "training data", "training"),
    "limits": ("limit",),
    "consent and misuse": ("consent", "misuse"),
    "licence": ("licence", "license"),
}


def gather_checkpoint(folder: Path, repo: str, licence: str | None = None) -> Publication:
    """
    Gathers the files of a model repository; its card shows the results in `results.json`, and names the repository.

    A folder whose `config.json` names the code of a model and a pipeline goes as it is; for another one, as those of
    this package, the code is written. The networks that find faces are added where the processor needs them, and a
    handler for Inference Endpoints. What a training run needs to resume stays at home, and so do weights that only
    training needs.

    Args:
        folder: of a checkpoint, or of the training run that it is the result of.
        repo: "ORG/NAME" on the Hub.
        licence: the Hub's identifier of the weights' licence, for a folder without a card.

    Raises:
        ValueError: weights, code or card are not complete.
    """
    left_out = LEFT_OUT if is_run(folder) else frozenset()
    files = {file.path: file for file in folder_files(folder, TEXTS | PICTURES | WEIGHTS, left_out)}
    _check_weights(folder, set(files))
    remarks = []
    tables = read_results(folder)
    config = _read(folder / "config.json", files["config.json"].read())
    if not all(config.get(key) for key in NAMES_CODE):
        files = with_code(folder, files)
    files = with_handler(files)
    files, removed = without_training_parts(files)
    if removed:
        remarks.append(f"{len(removed)} weights that only training needs are left out: {removed[0]}, …")
    _check_code(folder, files)
    files = with_face_networks(files)
    card = _card(folder, config, repo, licence)
    if tables:
        card = parse_card(card.path, fill_card(card.content, tables)).with_model_index(
            model_index(repo.split("/")[1], tables)
        )
        source = f"{constants.ENDPOINT}/{repo}/blob/main/results.json"
        for path, content in eval_result_files(tables, repo.split("/")[0], source).items():
            files[path] = PublishedFile(path, content.encode())
    else:
        remarks.append(
            "there is no results.json: no .eval_results are made, and the card's model-index stays as it is"
        )
    card = parse_card(card.path, card.content.replace(f"model_cards/{folder.name}", repo))
    card.require_fields(("license", "library_name", "pipeline_tag"))
    card.require_sections(SECTIONS)
    card.require_pictures(list(files))
    files["README.md"] = PublishedFile("README.md", card.content.encode())
    return Publication("model", repo, [files[path] for path in sorted(files)], remarks)


def _card(folder: Path, config: dict[str, Any], repo: str, licence: str | None) -> Card:
    """Reads the card, or makes one of what the training recorded."""
    if (folder / "README.md").is_file():
        if licence is not None:
            raise ValueError(f"--license: {folder / 'README.md'} names the licence; change it there")
        return read_card(folder)
    if licence is None and is_run(folder):
        raise ValueError(
            f"{folder} has no README.md: name the licence of the weights, such as --license cc-by-4.0, and a card is "
            "made of what the training recorded; or write one"
        )
    if licence is None:
        return read_card(folder)
    architecture = next(iter(config.get("architectures") or []), None)
    content = make_card(folder, architecture, read_facts(folder), repo, licence)
    return parse_card(folder / "README.md", content)


def _check_weights(folder: Path, paths: set[str]) -> None:
    weights = sorted(path for path in paths if path.endswith(".safetensors"))
    wanted = {"model.safetensors"}
    if "model.safetensors.index.json" in paths:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        wanted = set(index["weight_map"].values())
    if missing := sorted(wanted - set(weights)):
        raise ValueError(f"{folder} lacks {missing[0]}: weights are published as safetensors")
    for path in weights:
        try:
            with safe_open(folder / path, framework="numpy") as opened:
                opened.keys()
        except SafetensorError as error:
            raise ValueError(f"{folder / path} is not a safetensors file, or incomplete: {error}") from None


def _check_code(folder: Path, files: dict[str, PublishedFile]) -> None:
    """Checks that the modules that configurations name exist, and those that they import from the same folder."""
    configs = [_read(folder / path, files[path].read()) for path in CONFIGS if path in files]
    waiting = sorted({name for config in configs for name in _code_names(config)})
    seen = set(waiting)
    while waiting:
        path = f"{waiting.pop()}.py"
        if path not in files:
            raise ValueError(
                f"{folder} lacks {path}, which its configuration or code names; "
                "save it with its pipeline's save_pretrained"
            )
        fresh = _beside(folder / path, files[path].read()) - seen
        seen |= fresh
        waiting += sorted(fresh)


def _code_names(value: Any) -> Iterator[str]:
    """Yields the modules in `auto_map` and `custom_pipelines`, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from _code_names(item)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key == "auto_map":
            texts = [text for entry in item.values() for text in (entry if isinstance(entry, list) else [entry])]
        elif key == "impl":
            texts = [item]
        else:
            yield from _code_names(item)
            continue
        yield from (text.rpartition(".")[0] for text in texts if text and "--" not in text)


def _beside(path: Path, code: bytes) -> set[str]:
    """Returns the modules that code imports from its own folder; `path` is for messages."""
    names = set()
    for node in ast.walk(ast.parse(code, str(path))):
        absolute = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            absolute = [node.module or ""] if not node.level else []
            names |= (
                {node.module} if node.level and node.module else {alias.name for alias in node.names if node.level}
            )
        if foreign := [name for name in absolute if re.match(r"lookhear(\.|$)", name)]:
            raise ValueError(f"{path} imports {foreign[0]}: code in a checkpoint has to work without lookhear")
    return names


def _read(path: Path, content: bytes) -> dict:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None

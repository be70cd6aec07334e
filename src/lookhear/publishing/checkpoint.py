"""A checkpoint as a model repository: weights, configurations, the code that reads them, the card, what was measured."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants
from safetensors import SafetensorError, safe_open

from lookhear.evaluation.model_results import eval_result_files, fill_card, model_index, read_results
from lookhear.publishing.card import parse_card, read_card
from lookhear.publishing.publication import PICTURES, TEXTS, WEIGHTS, Publication, PublishedFile, folder_files

CONFIGS = ("config.json", "processor_config.json", "tokenizer_config.json", "preprocessor_config.json")
SECTIONS = {
    "results": ("result",),
    "how it was made": ("how it was made", "training data", "training"),
    "limits": ("limit",),
    "consent and misuse": ("consent", "misuse"),
    "licence": ("licence", "license"),
}


def gather_checkpoint(folder: Path, repo: str) -> Publication:
    """
    The files of a model repository; the card shows what `results.json` says was measured, and names the repository.

    Raises:
        ValueError: weights, code or card are not complete.
    """
    files = {file.path: file for file in folder_files(folder, TEXTS | PICTURES | WEIGHTS)}
    _check_weights(folder, set(files))
    _check_code(folder, set(files))
    card, tables, remarks = read_card(folder), read_results(folder), []
    text = card.to_bytes().decode()
    if tables:
        card = parse_card(card.path, fill_card(text, tables)).with_model_index(model_index(repo.split("/")[1], tables))
        source = f"{constants.ENDPOINT}/{repo}/blob/main/results.json"
        for path, content in eval_result_files(tables, repo.split("/")[0], source).items():
            files[path] = PublishedFile(path, content.encode())
    else:
        remarks.append(
            "there is no results.json: no .eval_results are made, and the card's model-index stays as it is"
        )
    card = parse_card(card.path, card.to_bytes().decode().replace(f"model_cards/{folder.name}", repo))
    card.require_fields(("license", "library_name", "pipeline_tag"))
    card.require_sections(SECTIONS)
    card.require_pictures(list(files))
    files["README.md"] = PublishedFile("README.md", card.to_bytes())
    return Publication("model", repo, [files[path] for path in sorted(files)], remarks)


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
            raise ValueError(f"{folder / path} is no safetensors file, or not a whole one: {error}") from None


def _check_code(folder: Path, paths: set[str]) -> None:
    """What the configurations name is there, and so is whatever it imports from beside it."""
    named = {name for config in CONFIGS if config in paths for name in _code_names(_read(folder / config))}
    if not any(name for name in named):
        raise ValueError(
            f"{folder}/config.json names no code (auto_map), so that it could be loaded with lookhear only; "
            "save it with lookhear's save_checkpoint"
        )
    if "custom_pipelines" not in _read(folder / "config.json"):
        raise ValueError(f"{folder}/config.json has no custom_pipelines; save it with lookhear's save_checkpoint")
    waiting, seen = sorted(named), set(named)
    while waiting:
        module = waiting.pop()
        if f"{module}.py" not in paths:
            raise ValueError(f"{folder} lacks {module}.py, which its configuration or code names; export it again")
        for name in _beside(folder / f"{module}.py"):
            if name not in seen:
                seen.add(name)
                waiting.append(name)


def _code_names(value) -> Iterator[str]:
    """Modules in `auto_map` and `custom_pipelines`, at any depth."""
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


def _beside(path: Path) -> set[str]:
    """Modules that a file imports from its own folder."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        absolute = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            absolute = [node.module or ""] if not node.level else []
            names |= (
                {node.module} if node.level and node.module else {alias.name for alias in node.names if node.level}
            )
        if foreign := [name for name in absolute if re.match(r"lookhear(\.|$)", name)]:
            raise ValueError(f"{path} imports {foreign[0]}: code in a checkpoint has to work without lookhear")
    return names


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None

"""What a checkpoint needs to answer requests on Hugging Face Inference Endpoints: its handler and its requirements."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from importlib import resources

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lookhear.publishing.package_files import requirements
from lookhear.publishing.publication import PublishedFile

HANDLER, REQUIREMENTS = "handler.py", "requirements.txt"
DISTRIBUTIONS = {"PIL": "pillow", "dlib": "dlib-bin"}  # whose packages have another name
IMAGE_HAS = {"torch", "torchvision"}  # an endpoint's image brings its own, built for its accelerator


def with_handler(files: dict[str, PublishedFile]) -> dict[str, PublishedFile]:
    """
    Adds `handler.py` and `requirements.txt` to a checkpoint that has a pipeline; those that are there stay.

    Args:
        files: path -> file, the code among them.
    """
    if not json.loads(files["config.json"].read()).get("custom_pipelines"):
        return files
    handler = resources.files("lookhear.serving").joinpath(HANDLER).read_bytes()
    files = {HANDLER: PublishedFile(HANDLER, handler), **files}
    return {REQUIREMENTS: PublishedFile(REQUIREMENTS, _needed(files).encode()), **files}


def _needed(files: dict[str, PublishedFile]) -> str:
    """Returns a line for each package that the code imports, with its tested versions."""
    imported = {name for path, file in files.items() if path.endswith(".py") for name in _imports(path, file.read())}
    names = {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in imported - IMAGE_HAS}
    return "".join(
        f"{line}\n" for line in requirements({"face"}) if canonicalize_name(Requirement(line).name) in names
    )


def _imports(path: str, code: bytes) -> Iterator[str]:
    """Yields the packages that code imports anywhere."""
    for node in ast.walk(ast.parse(code, path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]

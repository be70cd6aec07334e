"""This package as files of a Space, so that the Space runs what it was published with and no release is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from lookhear.publishing.publication import LICENCES, PICTURES, TEXTS, WEIGHTS, PublishedFile, walk

NAME, PACKAGES = "lookhear", ("lookhear", "lookhear_command")
ENDINGS = TEXTS | PICTURES | WEIGHTS | {".npz", ".typed"}
LINE = re.compile(r"^lookhear(?:\[([\w,\- ]*)\])?(?=[\s=<>!~;]|$).*$", re.MULTILINE)


def with_package(files: dict[str, PublishedFile]) -> dict[str, PublishedFile]:
    """
    Adds this package to a Space's files if its `requirements.txt` names lookhear.

    Beside `app.py` the package is found first; its name and version are there as an installation would leave them. In
    the requirements it is replaced by its own.

    Args:
        files: path -> file, of a Space.

    Returns:
        The same, or with the package.
    """
    asked = files["requirements.txt"].read().decode() if "requirements.txt" in files else ""
    if (line := LINE.search(asked)) is None:
        return files
    extras = {extra.strip() for extra in (line[1] or "").split(",") if extra.strip()}
    needed = LINE.sub("\n".join(requirements(extras)), asked)
    installed = distribution(NAME)
    # of an installed wheel; of a folder of sources
    described = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""
    made = {
        "requirements.txt": needed.encode(),
        f"{NAME}-{installed.version}.dist-info/METADATA": described.encode(),
    }
    package = {file.path: file for file in _package()}
    return files | package | {path: PublishedFile(path, content) for path, content in made.items()}


def requirements(extras: set[str]) -> list[str]:
    """Returns the requirements of this package with these extras (and their extras), sorted."""
    found, waiting, seen = set(), {"", *extras}, set()
    while waiting:
        extra = waiting.pop()
        seen.add(extra)
        for text in distribution(NAME).requires or []:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            if requirement.name == NAME:
                waiting |= requirement.extras - seen
            else:
                found.add(f"{requirement.name}{requirement.specifier}")
    return sorted(found)


def _package() -> Iterator[PublishedFile]:
    for package in PACKAGES:
        for path, file in sorted(walk(Path(str(resources.files(package))))):
            if file.suffix.lower() in ENDINGS or file.name in LICENCES:
                yield PublishedFile(f"{package}/{path}", file)

"""Files and folders of a data set as it is published, with one clear line where something is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class LayoutError(ValueError):
    """A folder is not laid out as the protocol expects; the message says what belongs where."""


def need_folder(path: str | Path, layout: str) -> Path:
    """Returns `path` if it is a folder; `layout` says in the error message what should be in it."""
    folder = Path(path)
    if not folder.is_dir():
        raise LayoutError(f"{folder} is not a folder; expected one with {layout}")
    return folder


def find_file(root: Path, names: Sequence[str]) -> Path:
    """Returns the first of these files that exists below `root`."""
    for name in names:
        if (root / name).is_file():
            return root / name
    raise LayoutError(f"{root}: expected {' or '.join(names)}; copy the file there, or name the folder that holds it")


def find_folder(root: Path, names: Sequence[str]) -> Path:
    """Returns the first of these folders that exists below `root`."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise LayoutError(f"{root}: expected a folder {' or '.join(names)}; unpack the pictures there")


def below(folder: Path, name: str) -> Path:
    """Returns the file of this name in a folder; raises LayoutError if the name points outside of it."""
    path = folder / name
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        raise LayoutError(f"{name!r} is outside of {folder}: correct the file that names it")
    return path


def need_files(files: Iterable[Path], place: str) -> list[Path]:
    """Returns the files, if all of them exist."""
    files = list(files)
    missing = [file for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise LayoutError(f"{place}: {missing[0]} is missing{more}; unpack the pictures there")
    if not files:
        raise LayoutError(f"{place}: it has no pictures")
    return files


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Returns a JSON file whose object has these keys."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{path} is not JSON: {error}") from None
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise LayoutError(f"{path}: expected an object with {', '.join(keys)}; {', '.join(missing)} is missing")
    return content


def label_names(categories: Sequence[dict], path: Path) -> dict[int, str]:
    """
    Returns id -> name in words, the model's query: `baseball_bat` -> `baseball bat`. A name that another category has
    already is left as it is written.
    """
    names: dict[int, str] = {}
    for entry in categories:
        if "id" not in entry or "name" not in entry:
            raise LayoutError(f"{path}: a category has no id or no name: {entry}")
        words = " ".join(str(entry["name"]).replace("_", " ").split())
        names[entry["id"]] = words if words not in names.values() else str(entry["name"])
    if len(set(names.values())) < len(names) or not names:
        raise LayoutError(f"{path}: its categories need names that differ")
    return names


def by_key(entries: Iterable[dict], key: str) -> dict[Any, list[dict]]:
    """Groups entries by the value of a key, in their order."""
    grouped: dict[Any, list[dict]] = {}
    for entry in entries:
        grouped.setdefault(entry[key], []).append(entry)
    return grouped


def corners(box: Sequence[float]) -> list[float]:
    """Returns (x, y, width, height) as [x0, y0, x1, y1]."""
    x, y, width, height = box
    return [x, y, x + width, y + height]


def xywh(box: Sequence[float]) -> list[float]:
    """Returns (x0, y0, x1, y1) as [x, y, width, height]."""
    x0, y0, x1, y1 = box
    return [round(side, 2) for side in (x0, y0, x1 - x0, y1 - y0)]

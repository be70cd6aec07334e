"""A checkpoint without what only training needs: GLEE's text teacher and its tables for denoising queries."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import weakref
from pathlib import Path
from typing import Any, BinaryIO

from lookhear.publishing.publication import PublishedFile

PART = re.compile(r"(^|\.)(text_teacher|denoising_labels)\.")  # in the names of weights
FIELDS = {"text_teacher": False, "denoising_tables": None}  # of configurations, which say that the parts are there
INDEX, RESULTS = "model.safetensors.index.json", "results.json"
BLOCK = 1 << 24  # bytes that are copied at a time


def without_training_parts(files: dict[str, PublishedFile]) -> tuple[dict[str, PublishedFile], list[str]]:
    """
    Removes the parts that only training needs from the weights and from `config.json`; the folder stays as it is.

    Args:
        files: path -> file of a checkpoint.

    Returns:
        The files, those that had such parts made anew, and the names of the weights that were removed.
    """
    headers = {path: _header(file) for path, file in files.items() if path.endswith(".safetensors")}
    removed = sorted(name for header in headers.values() for name in header if PART.search(name))
    if not removed:
        return files, []
    files = dict(files)
    for path, header in headers.items():
        if set(header) - {"__metadata__"} <= set(removed):
            del files[path]
        elif any(name in header for name in removed):
            files[path] = _rewritten(files[path])
    sizes = {name: _size(header[name]) for header in headers.values() for name in removed if name in header}
    _change(files, "config.json", _without_fields)
    _change(files, INDEX, lambda index: _without_names(index, sizes))
    weights = [files[path] for path in sorted(files) if path.endswith(".safetensors") and "/" not in path]
    _change(files, RESULTS, lambda results: results | {"weights": _digest(weights)})
    return files, removed


def _header(file: PublishedFile) -> dict[str, Any]:
    """Reads the header of a safetensors file: name -> type, shape and place of a weight; {} if it is none."""
    try:
        with _open(file) as opened:
            return json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    except (ValueError, OverflowError, MemoryError):
        return {}  # `_check_weights` says what is wrong with it


def _open(file: PublishedFile) -> BinaryIO:
    if isinstance(file.content, bytes):
        raise TypeError(f"{file.path}: weights are files")
    return file.content.open("rb")


def _size(entry: dict[str, Any]) -> int:
    return entry["data_offsets"][1] - entry["data_offsets"][0]


def _rewritten(file: PublishedFile) -> PublishedFile:
    """Copies a safetensors file without the parts, byte by byte; the copy is deleted with the object."""
    number, name = tempfile.mkstemp(prefix="lookhear-", suffix=".safetensors")
    made = PublishedFile(file.path, Path(name), temporary=True)
    weakref.finalize(made, Path(name).unlink, missing_ok=True)
    with os.fdopen(number, "wb") as target, _open(file) as source:
        length = int.from_bytes(source.read(8), "little")
        header = json.loads(source.read(length))
        kept = {key: value for key, value in header.items() if key != "__metadata__" and not PART.search(key)}
        order = sorted(kept, key=lambda key: kept[key]["data_offsets"][0])
        written, place = {key: header[key] for key in ("__metadata__",) if key in header}, 0
        for key in order:
            end = place + _size(kept[key])
            written[key], place = kept[key] | {"data_offsets": [place, end]}, end
        text = json.dumps(written, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the format aligns what follows to 8 bytes
        target.write(len(text).to_bytes(8, "little") + text)
        for key in order:
            source.seek(8 + length + kept[key]["data_offsets"][0])
            left = _size(kept[key])
            while left:
                block = source.read(min(left, BLOCK))
                if not block:
                    raise ValueError(f"{file.path} is not a safetensors file, or incomplete: it ends too early")
                target.write(block)
                left -= len(block)
    return made


def _change(files: dict[str, PublishedFile], path: str, change: Any) -> None:
    if path in files:
        content = change(json.loads(files[path].read()))
        files[path] = PublishedFile(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _without_fields(value: Any) -> Any:
    """Sets the fields that say that the parts are there to none, at any depth of a configuration."""
    if not isinstance(value, dict):
        return value
    return {key: FIELDS[key] if key in FIELDS else _without_fields(item) for key, item in value.items()}


def _without_names(index: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """Removes weights from the index of a checkpoint in several files."""
    metadata = dict(index.get("metadata") or {})
    if "total_size" in metadata:
        metadata["total_size"] -= sum(sizes.values())
    metadata.pop("total_parameters", None)  # optional, and not known here
    return index | {
        "metadata": metadata,
        "weight_map": {name: path for name, path in index["weight_map"].items() if name not in sizes},
    }


def _digest(weights: list[PublishedFile]) -> str:
    """Computes what `evaluation.model_results.weights_digest` computes of a folder."""
    digest = hashlib.sha256()
    for file in weights:
        with _open(file) as opened:
            while block := opened.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()

"""Files and folders known by their content, so that work is continued with the same ones only, wherever they lie."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

WHOLE = 1 << 26  # bytes up to which a file is hashed as a whole; of a larger one, size, beginning and end
ENDS = 1 << 20
PASSING = (".", "cache", "README")  # beginnings of files in a folder that don't count
FILES = 20_000  # of a folder that are looked at


def with_content(value: str) -> str:
    """Returns a path's last part with a hash of the file's or folder's content; other text as it is."""
    path = Path(value)
    try:
        if not {"/", ".", os.sep} & set(value) or not path.exists():  # a plain word may be anything
            return value
        return f"{path.resolve().name} ({fingerprint(path)})"
    except (OSError, ValueError):  # no path after all: too long, or with a null character
        return value


def fingerprint(path: Path) -> str:
    """
    Computes 12 hexadecimal digits of a file's content, or of a folder's files.

    Of a file above 64 MB, size, beginning and end count; of a folder, the names and sizes of the files right in it
    (without caches), and the content of its weights and of its JSON files up to 1 MB.
    """
    digest = hashlib.sha256()
    if path.is_file():
        _add_file(digest, path)
        return digest.hexdigest()[:12]
    files = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(PASSING))
    for file in files[:FILES]:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        if file.suffix in (".safetensors", ".bin") or (file.suffix == ".json" and size <= ENDS):
            _add_file(digest, file)
    return digest.hexdigest()[:12]


def _add_file(digest: Any, path: Path) -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
            return
        digest.update(f"{size}".encode() + file.read(ENDS))
        file.seek(-ENDS, os.SEEK_END)
        digest.update(file.read())

"""What a repository is to hold: its kind and its files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

TEXTS = frozenset(
    {".css", ".csv", ".html", ".jinja", ".js", ".json", ".jsonl", ".md", ".py", ".svg", ".txt", ".yaml", ".yml"}
)
LICENCES = frozenset({"LICENSE", "NOTICE"})  # of weights that others made, beside them
PICTURES = frozenset({".gif", ".jpeg", ".jpg", ".png", ".webp"})
CLIPS = frozenset({".flac", ".mp3", ".mp4", ".ogg", ".wav", ".webm"})
WEIGHTS = frozenset({".safetensors"})
LEFT_OUT = frozenset({"__pycache__", ".gitignore", ".DS_Store", ".ipynb_checkpoints", ".git", ".gradio"})
UNFINISHED = frozenset({".*.part", ".*.part.*", ".*.tmp", ".*.masks", ".export-*", ".result-*"})  # of killed processes
SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b")


@dataclass(frozen=True)
class PublishedFile:
    """
    One file of a repository: its path there, and its content on disk or, where it was made for the repository, as
    bytes; what is too large for that is a temporary file.
    """

    path: str
    content: Path | bytes = field(repr=False)
    temporary: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @property
    def is_made(self) -> bool:
        """Whether it was made for the repository, and is not a file of the folder."""
        return self.temporary or isinstance(self.content, bytes)

    def read(self) -> bytes:
        """Reads the whole content; for texts, not for weights."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


@dataclass(frozen=True)
class Publication:
    """
    A repository as it is to be published.

    Attributes:
        kind: "model", "space", "metric" or "benchmark".
        repo: "ORG/NAME".
        files: sorted by path.
        remarks: what the publisher should know, in sentences.
    """

    kind: str
    repo: str
    files: list[PublishedFile]
    remarks: list[str] = field(default_factory=list)

    @property
    def repo_type(self) -> str:
        """The Hub's word for the kind: "model", "space" or "dataset"."""
        return {"metric": "space", "benchmark": "dataset"}.get(self.kind, self.kind)

    def listing(self) -> str:
        """Formats one line per file, with its size in bytes, and a line with the sum; what `--dry-run` shows."""
        lines = [f"{file.size:>12,}  {file.path}{'  (made)' if file.is_made else ''}" for file in self.files]
        size = sum(file.size for file in self.files)
        total = f"{size:>12,}  {len(self.files)} files for the {self.repo_type} {self.repo}"
        return "\n".join([*lines, total]) + "\n"


def folder_files(
    folder: Path, endings: Collection[str], left_out: Collection[str] = frozenset()
) -> list[PublishedFile]:
    """
    Returns every file below a folder, links followed, see `walk`.

    Args:
        folder: of the repository.
        endings: of the files that may be there.
        left_out: patterns of files and folders in it that are not published.

    Raises:
        ValueError: a file does not belong in such a repository, or holds what looks like a key or token.
    """
    files = [PublishedFile(path, file) for path, file in sorted(walk(folder, left_out=left_out))]
    for file in files:
        name = Path(file.path)
        if name.suffix.lower() not in endings and name.name not in LICENCES:
            raise ValueError(
                f"{folder / file.path} does not belong in the repository (allowed: {', '.join(sorted(endings))}); "
                "move it away"
            )
        if (name.suffix.lower() in TEXTS or name.name in LICENCES) and SECRET.search(file.read()):
            raise ValueError(f"{folder / file.path} holds what looks like a key or token; take it out")
    return files


def walk(folder: Path, inside: str = "", left_out: Collection[str] = frozenset()) -> Iterator[tuple[str, Path]]:
    """
    Yields (path inside the folder, file) for every file below it, without caches and what a `.gitignore` names.

    Args:
        folder: whose files are listed.
        inside: what their paths begin with.
        left_out: patterns of further files and folders directly in it that are skipped.
    """
    ignored = [*LEFT_OUT, *UNFINISHED, *left_out, "*.pyc", *_ignored(folder)]
    for path in folder.iterdir():
        if any(fnmatch(path.name, pattern) for pattern in ignored):
            continue
        if path.is_dir():
            yield from walk(path, f"{inside}{path.name}/")
        else:
            yield inside + path.name, path


def _ignored(folder: Path) -> list[str]:
    """Returns the names and patterns in a folder's `.gitignore`; `walk` reads those of deeper folders there."""
    file = folder / ".gitignore"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [line.strip().strip("/") for line in lines if line.strip() and not line.startswith(("#", "!"))]

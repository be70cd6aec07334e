"""The README of a repository: metadata between two lines of three dashes, then text with sections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

HEADER = re.compile(r"---\n(.*?\n)---\n", re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Card:
    """
    A card that was read.

    Attributes:
        path: of the file. header: its metadata as text. text: what follows. metadata: the header's values.
    """

    path: Path
    header: str
    text: str
    metadata: Mapping

    def require_fields(self, fields: Sequence[str]) -> None:
        """Raises ValueError where the metadata lack one of these."""
        if missing := [name for name in fields if not self.metadata.get(name)]:
            raise ValueError(f"{self.path}: the metadata say nothing about {', '.join(missing)}")
        if self.metadata.get("license") == "other" and not self.metadata.get("license_name"):
            raise ValueError(f"{self.path}: `license: other` needs a license_name (and a license_link)")

    def require_sections(self, sections: Mapping[str, Sequence[str]]) -> None:
        """
        Checks that there is a heading on each subject.

        Args:
            sections: subject -> words, one of which has to occur in a heading of the second level.

        Raises:
            ValueError: a section is missing.
        """
        headings = [line.lower() for line in self.text.splitlines() if line.startswith("## ")]
        missing = [
            subject
            for subject, words in sections.items()
            if not any(word in heading for heading in headings for word in words)
        ]
        if missing:
            wanted = ", ".join(f"'## {subject.capitalize()}'" for subject in missing)
            raise ValueError(f"{self.path} has no section about {', '.join(missing)}: headings such as {wanted}")

    def require_pictures(self, there: Sequence[str]) -> None:
        """Raises ValueError where the text shows a picture that is not among these paths."""
        for path in PICTURE.findall(self.text):
            if "://" not in path and path not in there:
                raise ValueError(f"{self.path} shows {path}, which is not in the folder")

    def with_model_index(self, index: list[dict]) -> Card:
        """The card with this `model-index` instead of its own."""
        kept, skipping = [], False
        for line in self.header.splitlines(keepends=True):
            if not line.startswith((" ", "-", "#", "\n")):  # a top-level key
                skipping = line.startswith("model-index:")
            if not skipping:
                kept.append(line)
        index_text = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True) if index else ""
        header = "".join(kept) + index_text
        return Card(self.path, header, self.text, yaml.safe_load(header))

    def to_bytes(self) -> bytes:
        """The file's content."""
        return f"---\n{self.header}---\n{self.text}".encode()


def read_card(folder: Path) -> Card:
    """
    The `README.md` of a folder.

    Raises:
        ValueError: there is none, or its metadata are no YAML mapping.
    """
    path = folder / "README.md"
    if not path.is_file():
        raise ValueError(f"{folder} has no README.md; a repository needs a card")
    return parse_card(path, path.read_text(encoding="utf-8"))


def parse_card(path: Path, content: str) -> Card:
    """A card's content taken apart; `path` is for messages."""
    found = HEADER.match(content)
    try:
        metadata = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: the metadata are no YAML: {' '.join(str(error).split())}") from None
    if found is None or not isinstance(metadata, dict):
        raise ValueError(f"{path} does not begin with metadata between two lines of ---")
    return Card(path, found[1], content[found.end() :], metadata)

"""The README of a repository: metadata between two lines of three dashes, then text with sections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import RepoCard

PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Card:
    """
    A card that was read.

    Attributes:
        path: of the file; for messages.
        content: the whole file.
        metadata: values of its header.
        text: what follows the header.
    """

    path: Path
    content: str
    metadata: Mapping[str, Any]
    text: str

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

    def with_model_index(self, index: list[dict[str, Any]]) -> Card:
        """Returns the card with this `model-index` instead of its own, or without one if the list is empty."""
        card = RepoCard(self.content)
        card.data["model-index"] = index or None  # huggingface_hub leaves out what is None
        return parse_card(self.path, card.content)


def read_card(folder: Path) -> Card:
    """
    Reads the `README.md` of a folder.

    Raises:
        ValueError: there is none, or its metadata are no YAML mapping.
    """
    path = folder / "README.md"
    if not path.is_file():
        raise ValueError(f"{folder} has no README.md; a repository needs a card")
    return parse_card(path, path.read_text(encoding="utf-8"))


def parse_card(path: Path, content: str) -> Card:
    """
    Splits a card into metadata and text.

    Args:
        path: of the card; for messages.
        content: the whole file.

    Raises:
        ValueError: the metadata are missing, or are no YAML mapping.
    """
    missing = f"{path} does not begin with metadata between two lines of ---"
    if not content.startswith("---\n"):
        raise ValueError(missing)
    try:
        card = RepoCard(content)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: the metadata are not YAML: {' '.join(str(error).split())}") from None
    except ValueError:  # not a mapping
        raise ValueError(missing) from None
    if not len(card.data):
        raise ValueError(missing)
    return Card(path, content, card.data.to_dict(), card.text)

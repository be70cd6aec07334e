"""A Space: a Gradio app as it is, with its card, its requirements, and this package where it needs that."""

from __future__ import annotations

from pathlib import Path

from lookhear.publishing.card import Card, read_card
from lookhear.publishing.package_files import with_package
from lookhear.publishing.publication import CLIPS, PICTURES, TEXTS, Publication, folder_files


def gather_space(folder: Path, repo: str) -> Publication:
    """
    Gathers the files of a Space; if its requirements name lookhear, the package is among them (see `with_package`).

    Raises:
        ValueError: the card, the app or the requirements are missing.
    """
    files = with_package({file.path: file for file in folder_files(folder, TEXTS | PICTURES | CLIPS)})
    check_space(read_card(folder), list(files))
    return Publication("space", repo, [files[path] for path in sorted(files)])


def check_space(card: Card, paths: list[str]) -> None:
    """Raises ValueError where a Space with these files would not start."""
    card.require_fields(("title", "sdk", "license"))
    if card.metadata["sdk"] == "gradio":
        card.require_fields(("sdk_version", "python_version", "app_file"))
        for path in (card.metadata["app_file"], "requirements.txt"):
            if path not in paths:
                raise ValueError(f"{card.path.parent} lacks {path}, which starts a Space")
    card.require_pictures(paths)

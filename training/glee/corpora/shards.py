"""Corpora in shards: tar files or folders in which a picture and its JSON file share a name."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from lookhear.training.glee.corpora.reading import CorpusError, Problems, corpus_folder

PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def list_shards(root: str | Path, layout: str) -> list[Path]:
    """
    Lists the shards of a corpus in order: the tar files of a folder, else its folders with JSON files, else itself.

    Args:
        root: folder, or one tar file.
        layout: what is expected there, for the error message.

    Raises:
        CorpusError: there are no shards.
    """
    path = Path(root)
    if path.suffix == ".tar" and path.is_file():
        return [path]
    root = corpus_folder(path, layout)
    for place in (root, root / "images"):
        if place.is_dir():
            shards = sorted(place.glob("*.tar"))
            shards = shards or sorted(child for child in place.iterdir() if child.is_dir() and _has_json(child))
            if shards or _has_json(place):
                return shards or [place]
    raise CorpusError(f"{root}: expected {layout}; pass the folder that holds them")


def read_shard(shard: Path, problems: Problems) -> Iterator[tuple[str, Path | bytes, dict]]:
    """
    Reads name, picture and JSON object of each pair in a tar file or folder.

    JSON files that have no picture or cannot be read are reported. The files of a pair need not be adjacent in a tar
    file.

    Raises:
        CorpusError: the tar file is damaged.
    """
    for name, picture, text in _tar_pairs(shard) if shard.suffix == ".tar" else _folder_pairs(shard):
        if picture is None:
            problems.add(f"image {name}", f"it has no picture in {shard}")
            continue
        try:
            content = json.loads(text)
            if not isinstance(content, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            problems.add(f"image {name}", f"its JSON in {shard} cannot be read ({error})")
            continue
        yield name, picture, content


def _has_json(folder: Path) -> bool:
    return next(folder.glob("*.json"), None) is not None


def _folder_pairs(folder: Path) -> Iterator[tuple[str, Path | None, bytes]]:
    for path in sorted(folder.glob("*.json")):
        pictures = (path.with_suffix(suffix) for suffix in PICTURES)
        yield path.stem, next((picture for picture in pictures if picture.is_file()), None), path.read_bytes()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _tar_pairs(path: Path) -> Iterator[tuple[str, bytes | None, bytes]]:
    """Yields pairs in the order in which they become complete; only headers are held until then."""
    waiting: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(path) as archive:
            while (member := archive.next()) is not None:
                stem, suffix = Path(member.name).stem, Path(member.name).suffix.lower()
                if not member.isfile() or suffix not in (".json", *PICTURES):
                    continue
                other = waiting.pop(stem, None)
                if other is None:
                    waiting[stem] = member
                else:
                    picture, text = (other, member) if suffix == ".json" else (member, other)
                    yield stem, _content(archive, picture), _content(archive, text)
            for stem, member in waiting.items():
                if member.name.endswith(".json"):
                    yield stem, None, b""
    except (tarfile.TarError, EOFError) as error:
        raise CorpusError(f"{path} is damaged or not a tar file ({error}); download it again") from None

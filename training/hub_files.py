"""Single files of the Hub: fetched once, and from where it stopped after the connection broke."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, parse_hf_uri, try_to_load_from_cache
from huggingface_hub.errors import HfUriError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

HUB_PATH = "hf://"


@dataclass(frozen=True)
class HubFile:
    """
    A file in a repository of the Hub.

    Attributes:
        repository: `owner/name`.
        path: of the file in the repository.
        kind: `"model"`, `"dataset"` or `"space"`.
        revision: branch, tag or commit; None for the main branch.
    """

    repository: str
    path: str
    kind: str = "model"
    revision: str | None = None

    @classmethod
    def from_uri(cls, uri: str) -> "HubFile":
        """
        Reads `hf://owner/name/path`, `hf://spaces/owner/name@revision/path` and the like.

        Raises:
            ValueError: it names no file in a repository.
        """
        example = "such as hf://spaces/Junfeng5/GLEE_demo/MODEL_ZOO/GLEE_Lite_joint.pth"
        try:
            place = parse_hf_uri(uri)
        except HfUriError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"checkpoint {uri!r} is no path of the Hub, {example}: {reason}") from None
        if place.type not in ("model", "dataset", "space") or not place.path_in_repo:
            raise ValueError(f"checkpoint {uri!r} names no file in a repository, {example}")
        return cls(place.id, place.path_in_repo, place.type, place.revision)

    def __str__(self) -> str:
        kind = "" if self.kind == "model" else f"the {self.kind} "
        return f"{self.path} in {kind}{self.repository}"


@contextmanager
def fetched(file: HubFile) -> Iterator[Path]:
    """
    Yields a file of the Hub on this machine.

    One that lies in the Hub's cache is used there. Any other is fetched into a folder of our own, by one process at a
    time; what has arrived when the connection breaks stays, and the next call continues from there. The copy is
    deleted after use, unless there was an error.

    Args:
        file: its name and its size are printed on stderr before it is fetched, and a bar while it is.

    Raises:
        ValueError: the Hub has no such file or cannot be reached, or what arrived is not what the Hub says it is.
    """
    known = try_to_load_from_cache(file.repository, file.path, revision=file.revision, repo_type=file.kind)
    if isinstance(known, str):
        yield Path(known)
        return
    folder = cache_folder() / "downloads"
    name = f"{file.repository.replace('/', '--')}--{Path(file.path).name}"
    with one_at_a_time(folder / f".{name}.lock", f"{Path(file.path).name} is being fetched by another process"):
        copy = _fetch(file, folder, name)
        yield copy
        for left in folder.glob(f"*--{name}*"):  # of older versions, too
            left.unlink()


def cache_folder() -> Path:
    """Returns where models that were converted by name lie."""
    return Path(constants.HF_HOME) / "lookhear"


@contextmanager
def one_at_a_time(file: Path, busy: str) -> Iterator[None]:
    """
    Runs what follows in one process at a time; the others wait.

    Args:
        file: to lock; its folder is made.
        busy: printed on stderr if another process is at it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{busy}; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(file: HubFile, folder: Path, name: str) -> Path:
    """Fetches a file, or the rest of it; returns its place, which has its version's digest in its name."""
    url = hf_hub_url(file.repository, file.path, repo_type=file.kind, revision=file.revision)
    try:
        about = get_hf_file_metadata(url)
        version = (about.etag or "unknown")[:16]
        copy = folder / f"{version}--{name}"
        if copy.is_file():
            return copy
        partial = copy.with_name(f"{copy.name}.part")
        with open(partial, "ab") as stream:
            if about.size is not None and stream.tell() > about.size:
                stream.truncate(0)
            arrived = stream.seek(0, os.SEEK_END)
            print(f"{file}: {_size(about.size)}{f', {_size(arrived)} are here' if arrived else ''}", file=sys.stderr)
            http_get(
                url,
                stream,
                resume_size=arrived,
                headers=build_hf_headers(),
                expected_size=about.size,
                displayed_filename=Path(file.path).name,
            )
    except Exception as error:  # the Hub's client raises errors of its own, of its HTTP library and of the system
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"checkpoint {file} could not be fetched; the same command continues: {reason}") from None
    _check_digest(partial, about.etag, file)
    os.replace(partial, copy)
    return copy


def _check_digest(partial: Path, etag: str | None, file: HubFile) -> None:
    """Deletes a file and raises ValueError if its SHA-256, which the tag of a large file's version is, is another."""
    if etag is None or not re.fullmatch("[0-9a-f]{64}", etag):
        return
    with open(partial, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != etag:
        partial.unlink()
        raise ValueError(f"checkpoint {file} arrived damaged and was deleted: run the same command again")


def _size(count: int | None) -> str:
    """Formats a number of bytes."""
    if count is None:
        return "of unknown size"
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"

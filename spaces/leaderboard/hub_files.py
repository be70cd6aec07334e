"""Reading what strangers publish on the Hub, within bounds: a few short files of a few models, as plain YAML."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import yaml
from huggingface_hub import HfApi, RepoFile, constants, get_session, hf_hub_url

REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
RESULT_FILE = re.compile(r"\.eval_results/[\w.-]{1,100}\.ya?ml", re.ASCII)
NOT_DATA = ("README.md", ".gitattributes")  # may change while the benchmark stays the same
DEEPEST = 20  # levels of a YAML file


class BadFileError(ValueError):
    """A file that is not used; the message says why, in words of ours."""


@dataclass(frozen=True)
class Bounds:
    """
    How much is read.

    Attributes:
        models: in all, of each tag the most downloaded first.
        models_of_one: of one owner.
        files: result files of a model.
        kilobytes: of a result file, and of a card's metadata.
        seconds: for one file.
    """

    models: int = 200
    models_of_one: int = 20
    files: int = 10
    kilobytes: int = 64
    seconds: float = 15.0


@dataclass(frozen=True)
class Listed:
    """A model as the Hub lists it: its name, commit, and the paths of its result files."""

    repo: str
    commit: str
    files: tuple[str, ...]


class HubFiles:
    """
    The Hub, as anybody sees it: without a token, so that nothing private gets onto the page.

    Args:
        endpoint: address of the Hub; None for the one that huggingface_hub is configured with.
        bounds: how much is read.
    """

    def __init__(self, endpoint: str | None = None, bounds: Bounds | None = None):
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.bounds = bounds or Bounds()
        self.api = HfApi(endpoint=self.endpoint, token=False)

    def models(self, tags: Iterable[str]) -> list[Listed]:
        """Lists the models that have one of the tags; none twice, and of one owner only some."""
        found: dict[str, Listed] = {}
        of_owner: dict[str, int] = {}
        for tag in tags:
            most = 5 * self.bounds.models  # some are left out
            listed = self.api.list_models(filter=tag, sort="downloads", limit=most, expand=["sha", "siblings"])
            for model in islice(listed, most):
                owner = str(model.id).split("/")[0].lower()
                if model.id in found or not REPOSITORY.fullmatch(str(model.id)):
                    continue
                if len(found) >= self.bounds.models or of_owner.get(owner, 0) >= self.bounds.models_of_one:
                    continue
                if not isinstance(model.sha, str) or not COMMIT.fullmatch(model.sha):
                    continue
                paths = sorted(file.rfilename for file in model.siblings or [])
                results = [path for path in paths if RESULT_FILE.fullmatch(path)]
                found[model.id] = Listed(model.id, model.sha, tuple(results[: self.bounds.files]))
                of_owner[owner] = of_owner.get(owner, 0) + 1
        return list(found.values())

    def read(self, repo: str, path: str, commit: str, *, kind: str = "model", whole: bool = True) -> str:
        """
        Reads a file.

        Args:
            repo: "ORG/NAME".
            path: in the repository.
            commit: of the repository.
            kind: "model" or "dataset".
            whole: refuse what is longer than the bounds allow; else its beginning is returned.

        Raises:
            BadFileError: it is too long, too slow, or not UTF-8.
            httpx error: the Hub did not give it.
        """
        most, content = 1000 * self.bounds.kilobytes, bytearray()
        url = hf_hub_url(repo, path, repo_type=kind, revision=commit, endpoint=self.endpoint)
        headers = {"User-Agent": "lookhear-leaderboard", "Accept-Encoding": "identity"}  # nothing packed, no token
        end = time.monotonic() + self.bounds.seconds
        with get_session().stream("GET", url, headers=headers, timeout=self.bounds.seconds) as answer:
            answer.raise_for_status()
            for piece in answer.iter_raw(16384):
                content += piece
                if len(content) > most:
                    break
                if time.monotonic() > end:
                    raise BadFileError(f"takes longer than {self.bounds.seconds:.0f} seconds to read")
        if len(content) > most and whole:
            raise BadFileError(f"is larger than {self.bounds.kilobytes} kilobytes")
        try:
            return content[:most].decode("utf-8", errors="strict" if whole else "ignore")
        except UnicodeDecodeError:
            raise BadFileError("is not text in UTF-8") from None

    def card(self, repo: str, commit: str) -> dict[str, Any]:
        """Reads the metadata of a model's card, {} if it has none."""
        text = self.read(repo, "README.md", commit, whole=False).replace("\r\n", "\n")
        if not text.startswith("---\n"):
            return {}
        metadata, rule, _ = text[4:].partition("\n---")
        if not rule:
            raise BadFileError(f"has metadata of more than {self.bounds.kilobytes} kilobytes, or without an end")
        values = parse_yaml(metadata)
        return values if isinstance(values, dict) else {}

    def head(self, dataset: str) -> str:
        """Returns the newest commit of a dataset repository."""
        return str(self.api.dataset_info(dataset).sha)

    def data(self, dataset: str, commit: str) -> dict[str, str]:
        """Returns path -> digest of a dataset's files at a commit, without what may change and leave it the same."""
        entries = self.api.list_repo_tree(dataset, recursive=True, revision=commit, repo_type="dataset")
        files = (entry for entry in islice(entries, 1000) if isinstance(entry, RepoFile))
        return {file.path: file.blob_id for file in files if file.path not in NOT_DATA}


def parse_yaml(text: str) -> Any:
    """
    Parses YAML without aliases, which can grow without end, and not deeper than a result needs.

    Raises:
        BadFileError: it is not YAML, has aliases, or is too deep.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise BadFileError("has YAML aliases")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise BadFileError("is nested too deeply")
        return yaml.safe_load(text)
    except BadFileError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError):
        raise BadFileError("is not YAML") from None


def part(value: Any, *keys: str) -> Any:
    """Returns `value[key][key]…`, None where that is not there."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def items(value: Any, most: int) -> Iterator[dict]:
    """Yields the mappings among the first entries of what may be a list."""
    yield from (entry for entry in (value[:most] if isinstance(value, list) else []) if isinstance(entry, dict))

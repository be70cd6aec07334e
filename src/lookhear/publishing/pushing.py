"""A repository's files to the Hub in one commit: all of them are there afterwards, or nothing has changed."""

from __future__ import annotations

from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile
from huggingface_hub.errors import HfHubHTTPError

from lookhear.publishing.publication import Publication

HUB_FILE = ".gitattributes"  # made by the Hub, never removed


class PushError(OSError):
    """A push that failed; the message says what state the repository is in and what to do."""


@dataclass(frozen=True)
class Push:
    """
    Result of a push.

    Attributes:
        url: of the commit.
        commit: its id.
        changed: whether it is a new one.
        others: files in the repository that are not in the folder.
    """

    url: str
    commit: str
    changed: bool
    others: list[str]


def push(
    publication: Publication,
    *,
    private: bool = False,
    prune: bool = False,
    message: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Push:
    """
    Creates the repository if need be and commits the files.

    Large files are uploaded first, where they stay without being part of the repository; the commit that makes them so
    is one call. It names the commit that it was made for, so that a repository that is changed meanwhile is left
    alone.

    Args:
        publication: see `gather`.
        private: a new repository is seen by its owners only.
        prune: remove files from the repository that are not in the publication.
        message: of the commit.
        endpoint: address of the Hub; None for the one that huggingface_hub is configured with.
        token: for the Hub; None for the one that huggingface_hub is configured with.

    Raises:
        PushError: the Hub refused, or the connection broke. A second call resumes where the first one stopped.
    """
    api = HfApi(endpoint=endpoint, token=token)
    repo, repo_type = publication.repo, publication.repo_type
    sdk = "gradio" if repo_type == "space" else None
    try:
        api.create_repo(repo, repo_type=repo_type, private=private or None, space_sdk=sdk, exist_ok=True)
        head = api.repo_info(repo, repo_type=repo_type).sha
        there = _files(api, publication, head)
    except Exception as error:  # httpx, huggingface_hub and the system have no base class in common
        raise PushError(f"{repo} was not touched: {_reason(error)}") from error
    ours = {file.path: file for file in publication.files}
    others = sorted(there.keys() - ours.keys() - {HUB_FILE})
    operations: list[CommitOperationAdd | CommitOperationDelete]
    operations = [CommitOperationAdd(path, file.content) for path, file in ours.items()]
    if prune:
        operations += [CommitOperationDelete(path, is_folder=False) for path in others]
    try:
        done = api.create_commit(
            repo,
            operations,
            commit_message=message or f"Publish {publication.kind} {repo.split('/')[1]}",
            repo_type=repo_type,
            parent_commit=head,
        )
        sizes = _files(api, publication, done.oid)
    except Exception as error:  # whatever stopped it, the message says what state the repository is in
        raise PushError(
            f"{_state(api, publication, head)}: {_reason(error)}; run the same command again to resume"
        ) from error
    if wrong := [path for path, file in ours.items() if sizes.get(path) != file.size]:
        raise PushError(
            f"{done.commit_url}: {wrong[0]} differs from the file that was sent; run the same command again"
        )
    return Push(done.commit_url, done.oid, done.oid != head, [] if prune else others)


def _files(api: HfApi, publication: Publication, revision: str | None) -> dict[str, int]:
    """Returns path -> size in bytes of the repository's files."""
    entries = api.list_repo_tree(publication.repo, recursive=True, revision=revision, repo_type=publication.repo_type)
    return {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}


def _state(api: HfApi, publication: Publication, head: str | None) -> str:
    """Describes the state of the repository after a failed push."""
    try:
        now = api.repo_info(publication.repo, repo_type=publication.repo_type).sha
    except Exception:  # an error here would hide the one that stopped the push
        return f"the push to {publication.repo} stopped, and the Hub does not answer whether it succeeded"
    if now == head:
        return f"{publication.repo} is unchanged"
    return f"{publication.repo} has a new commit {str(now)[:8]}, from this push or another one"


def _reason(error: Exception) -> str:
    """Describes in one line what went wrong: the Hub's answer if there is one, else the first cause."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    answer = next((cause for cause in chain if isinstance(cause, HfHubHTTPError)), None)
    if answer is not None and answer.response.status_code in (401, 403):
        return (
            f"the Hub refused access ({answer.response.status_code}): "
            "`hf auth login` with a token that may write there"
        )
    shown = answer or chain[-1]
    return f"{type(shown).__name__}: {' '.join(str(shown).split())}"

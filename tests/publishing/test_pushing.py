"""A push is one commit: all of it, or nothing; and it can be repeated."""

import pytest

from lookhear.publishing import Publication, PublishedFile, PushError, push

REPO = "org/thing"
TOKEN = "hf_loopback"


@pytest.fixture
def publication(tmp_path) -> Publication:
    """A small text and two large files, one of them made on the way."""
    (tmp_path / "card").write_text("---\nlicense: apache-2.0\n---\ntext\n")
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 8000)
    files = [PublishedFile("README.md", tmp_path / "card"), PublishedFile("model.safetensors", tmp_path / "weights")]
    return Publication("model", REPO, [*files, PublishedFile("folder/picture.png", b"picture" * 1000)])


@pytest.fixture
def send(hub, online):
    return lambda publication, **options: push(publication, endpoint=hub.url, token=TOKEN, **options)


def with_text(publication: Publication, text: str) -> Publication:
    """The same with another card, and large files that the Hub has not seen."""
    card = PublishedFile("README.md", f"---\nlicense: mit\n---\n{text}\n".encode())
    large = [PublishedFile(file.path, file.read() + text.encode()) for file in publication.files[1:]]
    return Publication(publication.kind, publication.repo, [card, *large])


def contents(publication: Publication) -> dict[str, bytes]:
    return {file.path: file.read() for file in publication.files}


def test_everything_arrives_in_one_commit(hub, send, publication):
    done = send(publication, private=True)
    repository = hub.repositories["model", REPO]
    assert len(repository.commits) == 2 and repository.files == contents(publication)
    assert done.changed and done.commit == repository.head and done.url.endswith(f"{REPO}/commit/{repository.head}")
    assert repository.made_with.get("visibility") == "private" or repository.made_with.get("private") is True


def test_the_same_again_changes_nothing(hub, send, publication):
    first = send(publication)
    again = send(publication)
    assert not again.changed and again.commit == first.commit
    assert len(hub.repositories["model", REPO].commits) == 2
    assert sum(call.startswith("PUT") for call in hub.calls) == 2  # no file was uploaded twice


@pytest.mark.parametrize("call", ["PUT /large", "POST /api/models/org/thing/commit", "POST /org/thing.git/info/lfs"])
def test_a_push_that_breaks_off_leaves_the_repository_as_it_was(hub, send, publication, call):
    send(publication)
    before = list(hub.repositories["model", REPO].commits)
    hub.breaks = lambda found: found.startswith(call)
    new = with_text(publication, "new")
    with pytest.raises(PushError, match="org/thing is unchanged: .*; run the same command again to resume"):
        send(new)
    assert hub.repositories["model", REPO].commits == before
    hub.breaks = None
    assert send(new).changed
    assert hub.repositories["model", REPO].files == contents(new)
    assert len(hub.repositories["model", REPO].commits) == 3


def test_what_was_uploaded_before_the_break_is_not_uploaded_again(hub, send, publication):
    hub.breaks = lambda found: "/commit/" in found
    with pytest.raises(PushError):
        send(publication)
    uploads = sum(call.startswith("PUT") for call in hub.calls)
    hub.breaks = None
    send(publication)
    assert uploads == 2 and sum(call.startswith("PUT") for call in hub.calls) == uploads


def test_somebody_elses_commit_in_between_is_not_overwritten(hub, send, publication):
    send(publication)
    repository = hub.repositories["model", REPO]
    theirs = repository.files | {"README.md": b"theirs"}
    once = iter([True])

    def change(call: str) -> bool:
        if "preupload" in call and next(once, False):
            repository.commit(theirs)
        return False

    hub.breaks = change
    with pytest.raises(PushError, match="has a new commit"):
        send(with_text(publication, "ours"))
    assert repository.files == theirs


def test_what_else_is_there_stays_unless_pruned(hub, send, publication):
    send(publication)
    repository = hub.repositories["model", REPO]
    repository.commit(repository.files | {"old.py": b"1", ".gitattributes": b""})
    assert send(with_text(publication, "a")).others == ["old.py"]
    assert "old.py" in repository.files
    assert send(with_text(publication, "b"), prune=True).others == []
    assert "old.py" not in repository.files and ".gitattributes" in repository.files


def test_no_right_to_write(hub, online, publication):
    with pytest.raises(PushError, match="org/thing was not touched: .*hf auth login"):
        push(publication, endpoint=hub.url, token="hf_other")
    assert not hub.repositories


def test_no_hub_at_all(online, publication):
    with pytest.raises(PushError, match="was not touched"):
        push(publication, endpoint="http://127.0.0.1:9", token=TOKEN)


def test_spaces_and_datasets(hub, send):
    card = [PublishedFile("README.md", b"---\nlicense: mit\nsdk: gradio\n---\n")]
    assert "/spaces/org/page/" in send(Publication("space", "org/page", card)).url
    assert "/spaces/org/wer/" in send(Publication("metric", "org/wer", card)).url
    assert "/datasets/org/noise/" in send(Publication("benchmark", "org/noise", card)).url
    assert hub.repositories["space", "org/page"].made_with["sdk"] == "gradio"

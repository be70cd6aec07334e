"""A Hub on this machine for tests: the calls that huggingface_hub, transformers and evaluate make to push and load.

It keeps repositories in memory, checks what the real one checks (a token to write with, the digest of each large file,
the parent of a commit, the card's YAML), and can break off in the middle of a push.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_loopback"
LARGE = 1_000_000  # bytes from which a file goes to large file storage
LARGE_ENDINGS = (".safetensors", ".png", ".mp4", ".webp", ".gif", ".parquet")
ROOT = "0" * 40  # the commit of a new repository: no files


@dataclass
class Repository:
    """One repository: its commits in order, (id, {path: content}), and how it was made."""

    made_with: dict
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=lambda: [(ROOT, {})])

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)

    def commit(self, files: dict[str, bytes]) -> str:
        identifier = hashlib.sha1(f"{self.head}{sorted(files)}{len(self.commits)}".encode()).hexdigest()
        self.commits.append((identifier, files))
        return identifier


class LoopbackHub:
    """
    A server on a free port of 127.0.0.1; use it as a context manager.

    `repositories` maps ("model" | "dataset" | "space", "org/name") to what was pushed; `large` maps digests to
    contents; `calls` lists "METHOD /path" in order. `breaks`, where set, is asked with the same text before a call is
    answered; what is true lets the line go dead there: an upload after half of its bytes. `stops` is asked, too, when
    a file is sent: a number of bytes after which the line goes dead, or None.
    """

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.breaks: Callable[[str], bool] | None = None
        self.stops: Callable[[str], int | None] | None = None
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home) -> dict[str, str]:
        """Variables of a process that talks only to this Hub and keeps its files under `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home),
            "HF_MODULES_CACHE": f"{home}/modules",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "HF_HUB_OFFLINE": "0",
            "HF_EVALUATE_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        address = urlsplit(self.path)
        self.place, self.query = unquote(address.path), parse_qs(address.query)
        call = f"{self.command} {self.place}"
        with self.hub.lock:
            self.hub.calls.append(call)
        length = int(self.headers.get("Content-Length") or 0)
        if self.hub.breaks is not None and self.hub.breaks(call):
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()  # no answer
            return
        self.body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
        for method, pattern, answer in _ROUTES:
            found = re.fullmatch(pattern, self.place)
            if found and self.command in method.split():
                with self.hub.lock:
                    answer(self, **found.groupdict())
                return
        self._fail(404, "EntryNotFound", f"no such call: {call}")

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    # ------------------------------------------------------------------------------------------------------- answers

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = self.hub.stops(f"{self.command} {self.place}") if self.hub.stops is not None else None
        self.wfile.write(content[:stop])
        if stop is not None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self, value, status: int = 200, **headers: str) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    def _fail(self, status: int, code: str, message: str) -> None:
        self._json({"error": message}, status, **{"X-Error-Code": code, "X-Error-Message": message})

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._fail(401, "", "Invalid username or password.")
        return False

    def _repository(self, kind: str, name: str) -> Repository | None:
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            self._fail(404, "RepoNotFound", f"there is no {kind} {name}")
        return repository

    def _commit_of(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if (repository := self._repository(kind, name)) is None:
            return None
        if (commit := repository.at(revision)) is None:
            self._fail(404, "RevisionNotFound", f"{name} has no revision {revision}")
        return commit

    # --------------------------------------------------------------------------------------------------------- calls

    def create(self) -> None:
        wanted = json.loads(self.body)
        kind = wanted.get("type") or "model"
        name = f"{wanted['organization']}/{wanted['name']}"
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        if not self._may_write():
            return
        if (kind, name) in self.hub.repositories:
            return self._json({"error": "You already created this repo", "url": url}, 409)
        if kind == "space" and not wanted.get("sdk"):
            return self._fail(400, "", "a Space needs an sdk")
        self.hub.repositories[kind, name] = Repository(wanted)
        self._json({"url": url, "name": name, "id": name})

    def validate_yaml(self) -> None:
        header = re.match(r"---\n(.*?)\n---\n", json.loads(self.body)["content"], re.DOTALL)
        try:
            errors = [] if header and isinstance(yaml.safe_load(header[1]), dict) else ["there is no metadata"]
        except yaml.YAMLError as error:
            errors = [str(error)]
        answer = {"errors": [{"message": message} for message in errors], "warnings": []}
        self._json(answer, 400 if errors else 200)

    def preupload(self, kind: str, name: str, revision: str) -> None:
        if not self._may_write() or (commit := self._commit_of(kind, name, revision)) is None:
            return
        answers = []
        for file in json.loads(self.body)["files"]:
            large = file["size"] >= LARGE or file["path"].endswith(LARGE_ENDINGS)
            there = commit[1].get(file["path"])
            oid = None if there is None else (_sha256(there) if large else _blob(there))
            mode = "lfs" if large else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answers, "commitOid": commit[0]})

    def large_files(self, kind: str, name: str) -> None:
        if not self._may_write() or self._repository(kind, name) is None:
            return
        answers = []
        for thing in json.loads(self.body)["objects"]:
            answer = {"oid": thing["oid"], "size": thing["size"]}
            if thing["oid"] not in self.hub.large:
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/large/{thing['oid']}", "header": {}}}
            answers.append(answer)
        self._json({"transfer": "basic", "objects": answers})

    def put_large(self, oid: str) -> None:
        if _sha256(self.body) != oid:
            return self._fail(400, "", "the content is not that of the digest")
        self.hub.large[oid] = self.body
        self._json({})

    def commit(self, kind: str, name: str, revision: str) -> None:
        if not self._may_write() or (commit := self._commit_of(kind, name, revision)) is None:
            return
        files = dict(commit[1])
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                if value.get("parentCommit") not in (None, commit[0]):
                    return self._fail(412, "", "A commit has happened since. Please refresh and try again.")
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    return self._fail(400, "", f"{value['path']}: its content was not uploaded")
                files[value["path"]] = self.hub.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"])
            else:
                return self._fail(400, "", f"unknown entry {entry['key']}")
        identifier = self.hub.repositories[kind, name].commit(files)
        prefix = "" if kind == "model" else f"{kind}s/"
        url = f"{self.hub.url}/{prefix}{name}/commit/{identifier}"
        self._json({"success": True, "commitOid": identifier, "commitUrl": url, "hookOutput": ""})

    def list_models(self) -> None:
        """Models whose cards have all the tags, without the order and the fields that are asked for."""
        answers = []
        for (kind, name), repository in sorted(self.hub.repositories.items()):
            if kind == "model" and set(self.query.get("filter", [])) <= set(_tags(repository.files)):
                siblings = [{"rfilename": path} for path in sorted(repository.files)]
                answers.append({"_id": "0" * 24, "id": name, "sha": repository.head, "siblings": siblings})
        self._json(answers[: int(self.query.get("limit", ["1000"])[0])])

    def info(self, kind: str, name: str, revision: str | None = None) -> None:
        if (commit := self._commit_of(kind, name, revision or "main")) is None:
            return
        siblings = [{"rfilename": path} for path in sorted(commit[1])]
        answer = {"_id": "0" * 24, "id": name, "sha": commit[0], "siblings": siblings, "tags": [], "private": False}
        self._json(answer | {"modelId": name, "downloads": 0, "likes": 0})

    def tree(self, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        if (commit := self._commit_of(kind, name, revision)) is None:
            return
        start = f"{folder}/" if folder else ""
        below = {path: content for path, content in commit[1].items() if path.startswith(start)}
        if folder and not below:
            return self._fail(404, "EntryNotFound", f"{name} has no folder {folder}")
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries = {}
        for path, content in sorted(below.items()):
            head, _, rest = path.removeprefix(start).partition("/")
            if rest:
                entries[start + head] = {"type": "directory", "path": start + head, "oid": _blob(b""), "size": 0}
            if not rest or recursive:
                large = len(content) >= LARGE or path.endswith(LARGE_ENDINGS)
                entry = {"type": "file", "path": path, "oid": _blob(content), "size": len(content)}
                if large:
                    entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
                entries[path] = entry
        self._json(list(entries.values()))

    def resolve(self, name: str, revision: str, path: str, kind: str = "model") -> None:
        if (commit := self._commit_of(kind, name, revision)) is None:
            return
        if (content := commit[1].get(path)) is None:
            return self._fail(404, "EntryNotFound", f"{name} has no file {path}")
        large = len(content) >= LARGE or path.endswith(LARGE_ENDINGS)
        tag = _sha256(content) if large else _blob(content)
        headers = {"X-Repo-Commit": commit[0], "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[start:], headers)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _tags(files: dict[str, bytes]) -> list[str]:
    """The tags of a card's metadata."""
    header = re.match(r"---\n(.*?)\n---\n", files.get("README.md", b"").decode("utf-8", "replace"), re.DOTALL)
    try:
        values = yaml.safe_load(header[1]) if header else {}
    except yaml.YAMLError:
        return []
    return values.get("tags") or [] if isinstance(values, dict) else []


def _blob(content: bytes) -> str:
    """Git's digest of a file."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _prefixed(call: Callable, kind: str) -> Callable:
    return lambda handler, **found: call(handler, kind=kind, **found)


_NAME, _REVISION = r"(?P<name>[^/]+/[^/]+)", r"(?P<revision>[^/]+)"
_ROUTES: list[tuple[str, str, Callable]] = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("GET", "/api/models", _Handler.list_models),
    ("PUT", "/large/(?P<oid>[0-9a-f]{64})", _Handler.put_large),
]
for _kind, _prefix in (("dataset", "datasets/"), ("space", "spaces/"), ("model", "")):
    _api = f"/api/{_kind}s/{_NAME}"
    _ROUTES += [
        ("POST", f"{_api}/preupload/{_REVISION}", _prefixed(_Handler.preupload, _kind)),
        ("POST", f"/{_prefix}{_NAME}\\.git/info/lfs/objects/batch", _prefixed(_Handler.large_files, _kind)),
        ("POST", f"{_api}/commit/{_REVISION}", _prefixed(_Handler.commit, _kind)),
        ("GET", _api, _prefixed(_Handler.info, _kind)),
        ("GET", f"{_api}/revision/{_REVISION}", _prefixed(_Handler.info, _kind)),
        ("GET", f"{_api}/tree/{_REVISION}(?:/(?P<folder>.+))?", _prefixed(_Handler.tree, _kind)),
        ("GET HEAD", f"/{_prefix}{_NAME}/resolve/{_REVISION}/(?P<path>.+)", _prefixed(_Handler.resolve, _kind)),
    ]

"""A server on this machine, with a recogniser that says what a test wants, or with the packaged checkpoint."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Callable, Iterator
from typing import Any

import pytest


def make_tone(seconds: float = 1.0, rate: int = 16000) -> bytes:
    """A wav file of a faint noise."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", ""))
        sound.writeframes(bytes(range(256)) * int(seconds * rate / 128))
    return file.getvalue()


def find_announced(server: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Reads the errors of a process up to the line that tells where it answers; ends it if there is none."""
    assert server.stderr is not None
    lines: list[str] = []
    for line in server.stderr:  # the progress bar of the weights comes before it
        lines.append(line)
        if found := re.search(pattern, line):
            return found
    server.kill()
    raise AssertionError("".join(lines))


class ToldSpeech:
    """A pipeline that says "BIN BLUE. NOW", notes its calls, and waits until it may go on."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.going, self.inside, self.most = threading.Event(), 0, 0
        self.going.set()
        self.lock = threading.Lock()

    def __call__(self, source: Any, on_piece: Callable[[Any], None], **settings: Any) -> dict[str, Any]:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.calls.append(settings)
        try:
            while not self.going.wait(0.02):
                on_piece(None)
            if settings.get("search") == "greedy":
                raise ValueError(f"'<SpooledTemporaryFile>' in /secret/folder/file.mp4\nhas no {source.read(4)}")
            if settings.get("search") == "espnet":
                raise RuntimeError("/secret/weights.bin broke")
            words = [("BIN", 0.1, 0.3), ("BLUE.", 0.4, 0.6), ("NOW", 0.7, 0.9)]
            timed = settings.get("return_timestamps") == "word"
            chunks = [{"text": w, "timestamp": (s, e), "confidence": 0.5} for w, s, e in words if timed]
            report = {"duration": 1.0, "source": "x", "warnings": []}
            one = {"text": "BIN BLUE. NOW", "confidence": 0.5, "chunks": chunks, "report": report}
            if settings.get("speaker") == "everyone":
                return {**one, "speakers": [{**one, "speaker": "Speaker 1"}]}
            return one
        finally:
            with self.lock:
                self.inside -= 1

    @contextlib.contextmanager
    def stream(self, source: Any, **settings: Any) -> Iterator[Iterator[dict[str, Any]]]:
        result = self(source, **settings, return_timestamps="word")
        yield iter(result["chunks"])


class Served:
    """A server that runs: where, and short ways to ask it."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        return self._ask(urllib.request.Request(self.url + path, headers=headers))

    def send(self, content: bytes | None = None, **fields: str) -> tuple[int, Any]:
        """Sends a form; gives the status and the answer, JSON read."""
        boundary, parts = "x" * 30, []
        for name, value in fields.items():
            parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
        if content is not None:
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="../../a.wav"\r\n\r\n'
            parts.append(head.encode() + content + b"\r\n")
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
        status, text = self._ask(urllib.request.Request(self.url + "/v1/audio/transcriptions", body, kind))
        return status, json.loads(text) if text.startswith("{") else text

    def _ask(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="session")
def serve() -> Callable[..., contextlib.AbstractContextManager[Served]]:
    """`with serve(asr, limits, key) as served:` runs a server in a thread."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs lookhear[serve]")
    pytest.importorskip("starlette", reason="needs lookhear[serve]")

    @contextlib.contextmanager
    def run(asr: Any, limits: Any, key: str | None = None) -> Iterator[Served]:
        from lookhear.serving.server import SpeechServer

        with socket.create_server(("127.0.0.1", 0)) as bound:
            app = SpeechServer(asr, "tiny", limits, key).to_app()
            server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
            thread.start()
            while not server.started:
                time.sleep(0.01)
            try:
                yield Served(bound.getsockname()[1])
            finally:
                server.should_exit = True
                thread.join(30)

    return run


@pytest.fixture
def told() -> ToldSpeech:
    return ToldSpeech()


@pytest.fixture(scope="session")
def announced() -> Callable[[subprocess.Popen[str], str], re.Match[str]]:
    """`announced(process, pattern)`: the line in which a server says where it answers, as a match."""
    return find_announced


@pytest.fixture(scope="session")
def tone() -> Callable[..., bytes]:
    """`tone(seconds, rate)`: a wav file."""
    return make_tone


@pytest.fixture(scope="session")
def wav(tone) -> bytes:
    return tone()

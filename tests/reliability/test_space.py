"""The Space under load: eight visitors who ask without a pause are all answered, and memory does not grow."""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

USERS = 8
VISIT = 10  # questions, after which a visitor leaves and another one comes; a conversation may have twelve
GROWTH = 1.05  # of the memory after warm-up, the first third


class Served:
    """
    The Space, served from this checkout.

    Args:
        folder: for its examples, uploads and log.
    """

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.examples, self._log = f"http://127.0.0.1:{port}/", folder / "examples", folder / "log"
        settings = {
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(folder / "uploads"),
            "LOOKHEAR_SPACE_EXAMPLES": str(self.examples),
            "OMP_NUM_THREADS": "1",
        }
        space = Path(__file__).parents[2] / "spaces" / "lookhear"
        with self._log.open("wb") as log:
            streams = {"stdout": log, "stderr": subprocess.STDOUT}
            self.process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=space, env=os.environ | settings, **streams
            )

    def wait_until_up(self) -> None:
        """Waits for the first answer."""
        end = time.monotonic() + 600
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url, timeout=10).close()
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(f"the Space did not start: {self.log}")

    @property
    def memory(self) -> int:
        """Bytes that it takes."""
        return psutil.Process(self.process.pid).memory_info().rss

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[Served]:
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'lookhear[demo]'")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # its client leaves a folder for each file it fetches
    space = Served(tmp_path)
    try:
        space.wait_until_up()
        yield space
    finally:
        space.process.terminate()
        space.process.wait(60)


def questions(examples: Path) -> list[tuple[Callable[..., tuple], str, bool]]:
    """Returns what visitors ask: arguments for the client's `predict`, the endpoint, and whether it is answered."""
    from gradio_client import handle_file

    return [
        (lambda: (handle_file(examples / "one.mp4"),), "/read", True),
        (lambda: (handle_file(examples / "scene.png"), "star, circle"), "/see", True),
        (lambda: (handle_file(examples / "moving.mp4"), "star"), "/see", True),
        (lambda: (handle_file(examples / "scene.png"), "Where is the white star?"), "/ask", True),
        (lambda: (handle_file(examples / "scene.png"),), "/see", False),
        (lambda: (handle_file(examples / "scene.png"), "star"), "/read", False),
    ]


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_loaded_space_answers_everyone_in_the_same_memory(served, request, report):
    from gradio_client import Client, exceptions

    minutes, seed = request.config.getoption("space_minutes"), request.config.getoption("seed")
    end, outcomes, waits = time.monotonic() + 60 * minutes, Counter(), []

    def visit(number: int) -> None:
        draw = random.Random(f"{seed} {number}")
        for asked in itertools.count():
            if time.monotonic() > end:
                break
            if asked % VISIT == 0:
                client = Client(served.url, verbose=False)
            arguments, endpoint, answered = draw.choice(questions(served.examples))
            begin = time.monotonic()
            try:
                client.predict(*arguments(), api_name=endpoint)
                outcome = "answered"
            except exceptions.AppError as error:
                full = "queue is full" in str(error).lower()
                outcome = "queue full" if full else "refused" if not answered else f"failed: {error}"
            outcomes[outcome] += 1
            waits.append(time.monotonic() - begin)

    users = [threading.Thread(target=visit, args=(number,), daemon=True) for number in range(USERS)]
    for user in users:
        user.start()
    memory = []
    while any(user.is_alive() for user in users):
        memory.append(served.memory)
        time.sleep(1)
    third = len(memory) // 3
    warm, late = (sum(part) / len(part) for part in (memory[third : 2 * third], memory[2 * third :]))
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    took = f"longest wait {max(waits):.0f} s; {warm / 1e6:.0f} MB after warm-up, {late / 1e6:.0f} MB at the end"
    report(f"the Space with {USERS} visitors, {minutes:g} minutes", sum(outcomes.values()), f"{counts}; {took}")
    assert not [outcome for outcome in outcomes if outcome.startswith("failed")], counts
    assert "Traceback" not in served.log and late < GROWTH * warm, took

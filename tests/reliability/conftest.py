"""Small works of every long command, how often they are disturbed, and the table of what came of it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml

ROWS = pytest.StashKey[list[tuple[str, str, str]]]()
NOT_COMPARED = {"trainer_state.json", "training_args.bin", "files.json", "started.json"}  # times, lists of their sizes
HANG, PATIENCE = 60, 900  # seconds of the processor, and of the clock, for a file; other programs may be running
MEMORY = 2 << 30  # bytes beyond what the process took before
SPEED = re.compile(rb'"rtfx": [\d.]+')


def pytest_addoption(parser) -> None:
    group = parser.getgroup("reliability")
    group.addoption("--seed", type=int, default=0, help="seed of kills and damage")
    group.addoption("--kills", type=int, default=2, help="of each command")
    group.addoption("--files", type=int, default=40, help="damaged files of each kind of reader")
    group.addoption("--space-minutes", type=float, default=2, help="for which visitors ask the Space")
    group.addoption("--minutes", type=float, default=0, help="of all tests together, in place of these numbers")


def pytest_terminal_summary(terminalreporter, config) -> None:
    """Prints what was tried as a Markdown table."""
    if rows := config.stash.get(ROWS, []):
        terminalreporter.write_line("\n| what | tried | what came of it |\n|---|---:|---|")
        for row in rows:
            terminalreporter.write_line(f"| {' | '.join(row)} |")


@dataclass
class Amount:
    """How often a test disturbs something: a number of times, or as long as its share of the minutes lasts."""

    number: int
    seconds: float
    seed: int

    def __iter__(self) -> Iterator[int]:
        start, count = time.monotonic(), 0
        while time.monotonic() < start + self.seconds if self.seconds else count < self.number:
            yield count
            count += 1


@pytest.fixture
def amount(request) -> Callable[[str], Amount]:
    """`amount("kills")`: how often this test tries, and its seed; a test's time limit follows."""

    def amount(name: str) -> Amount:
        option = request.config.getoption
        tests = sum("amount" in item.fixturenames for item in request.session.items)
        seconds = 60 * option("minutes", 0) / tests
        return Amount(option(name, 2), seconds, option("seed", 0))

    return amount


@pytest.fixture
def report(request) -> Callable[[str, int, str], None]:
    """`report(what, tried, outcome)` adds a row to the table at the end."""
    rows = request.config.stash.setdefault(ROWS, [])
    return lambda what, tried, outcome: rows.append((what, str(tried), outcome))


class Running:
    """
    A command that runs, in a process forked from `command_server.py`.

    Args:
        server: that process.
        arguments: after `lookhear`.
        bound: in bytes, on every file that it writes; None: there is none.
    """

    def __init__(self, server: subprocess.Popen, arguments: list[str], bound: int | None):
        self._server, self._code = server, None
        # A pipe, as the bound holds for files that it prints into, too.
        reading, self._writing = os.pipe()
        self._text: list[bytes] = []
        self._reader = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._reader.start()
        output = f"/proc/{os.getpid()}/fd/{self._writing}"
        command = {"arguments": arguments, "output": output, "bound": bound}
        server.stdin.write(json.dumps(command).encode() + b"\n")
        self._pid = int(server.stdout.readline())

    def _read(self, reading: int) -> None:
        """Collects what it prints."""
        with os.fdopen(reading, "rb", 0) as pipe:
            while text := pipe.read(1 << 16):
                self._text.append(text)

    def seconds(self) -> float:
        """Returns what it has taken of the processor; 0 once it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(self._pid).cpu_times()
            return times.user + times.system
        return 0.0

    def ended(self, timeout: float = 0) -> bool:
        """Whether it has ended, at the latest after some seconds."""
        if self._code is None and select.select([self._server.stdout], [], [], timeout)[0]:
            self._code = int(self._server.stdout.readline())
            os.close(self._writing)
        return self._code is not None

    def kill(self) -> bool:
        """Kills it, and what it has started; returns whether that is how it ended."""
        for kill in (os.killpg, os.kill):  # at first it has no group of its own
            with contextlib.suppress(ProcessLookupError):
                kill(self._pid, signal.SIGKILL)
        return self.wait()[0] == -signal.SIGKILL

    def wait(self, timeout: float = 3600) -> tuple[int, str]:
        """Waits for its end; returns its exit code, and what it printed."""
        if not self.ended(timeout):
            self.kill()
            raise AssertionError(f"it runs for more than {timeout:.0f} s")
        self._reader.join(10)  # a process that it has started may hold the pipe for longer
        return self._code, b"".join(self._text).decode(errors="replace")


@dataclass
class Work:
    """
    A command that can be repeated, and what it leaves.

    Attributes:
        arguments: after `lookhear`.
        output: folder of the results.
        server: returns the process that it is forked from.
        undisturbed: its results: path in the folder -> content.
        passing: arguments with which it keeps what it would remove again, such as older checkpoints.
        removed: what it removes again: path in the folder -> content.
        seconds: of the processor, after which the first result is there, and that it takes.
    """

    arguments: list[str]
    output: Path
    server: Callable[[], subprocess.Popen]
    passing: tuple[str, ...] = ()
    undisturbed: dict[str, bytes] = field(default_factory=dict)
    removed: dict[str, bytes] = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)

    def start(self, bound: int | None = None, more: Sequence[str] = ()) -> Running:
        """
        Starts the command.

        Args:
            bound: in bytes, on every file that it writes; None: there is none.
            more: further arguments.
        """
        return Running(self.server(), [*self.arguments, *more], bound)

    def finish(self, more: Sequence[str] = ()) -> None:
        """Runs the command to its end, perhaps with further arguments."""
        code, text = self.start(more=more).wait()
        assert code == 0, f"{self.arguments}: {text}"

    def measure(self) -> None:
        """Runs it undisturbed, for its results and what it takes."""
        if self.passing:
            self.finish(self.passing)
            self.removed = self.results()
        shutil.rmtree(self.output, ignore_errors=True)
        running, first = self.start(), None
        while not running.ended(0.01):
            used = running.seconds()
            if first is None and self.output.is_dir() and any(self.output.iterdir()):
                first = used
            self.seconds = (first or 0.0, max(used, self.seconds[1]))
        code, text = running.wait()
        assert code == 0, f"{self.arguments}: {text}"
        self.undisturbed = self.results()

    def results(self) -> dict[str, bytes]:
        """Returns all files; without the content of those that times or other files' sizes are in."""
        found = {}
        for path in sorted(self.output.rglob("*")):
            if path.is_file():
                compared = path.name not in NOT_COMPARED and path.suffix not in (".pt", ".pth")
                content = SPEED.sub(b"", path.read_bytes()) if compared else b""
                found[path.relative_to(self.output).as_posix()] = content
        return found

    def torn(self) -> list[str]:
        """
        Returns files under final names that are not those of an undisturbed run. Hidden ones, records that grow, and
        checkpoints without the list of their files are not final.
        """
        saved = {path.parent for path in self.output.rglob("checkpoint-*/*")}
        halves = {folder for folder in saved if not (folder / "files.json").exists()}
        return [
            name
            for name, content in self.results().items()
            if not re.search(r"(^|/)\.", name)
            and not content.startswith(b'{"about": ')
            and halves.isdisjoint((self.output / name).parents)
            and content != self.undisturbed.get(name, self.removed.get(name))
        ]


def _video(folder: Path) -> Path:
    """A folder of numbered pictures that is followed as a video."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(generator.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(folder / f"{number:03d}.png")
    return folder


def _coco(folder: Path, pictures: Path) -> Path:
    """A folder as COCO's, in which each picture has one box."""
    shutil.copytree(pictures, folder / "val2017")
    names = sorted(path.name for path in pictures.iterdir())
    box = {"category_id": 1, "bbox": [10, 10, 40, 30], "area": 1200, "iscrowd": 0}
    box["segmentation"] = [[10, 10, 50, 10, 50, 40, 10, 40]]
    content = {
        "images": [{"id": id, "file_name": name, "height": 48, "width": 64} for id, name in enumerate(names, 1)],
        "annotations": [{"id": id, "image_id": id, **box} for id in range(1, len(names) + 1)],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def seer(tiny_glee, tmp_path_factory) -> Path:
    """Folder of a random GLEE."""
    from lookhear.training.glee.export import save_checkpoint

    return save_checkpoint(*tiny_glee, tmp_path_factory.mktemp("glee"))


@pytest.fixture(scope="session")
def hub():
    """A Hub on this machine."""
    path = Path(__file__).parents[1] / "loopback_hub.py"
    spec = importlib.util.spec_from_file_location("loopback_hub_of_reliability", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    with module.LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="session")
def server() -> Iterator[Callable[[dict[str, str]], subprocess.Popen]]:
    """`server(environment)`: a process of `command_server.py`, one for all commands with the same variables."""
    running: dict[frozenset, subprocess.Popen] = {}

    def start(environment: dict[str, str]) -> subprocess.Popen:
        key = frozenset(environment.items())
        if key not in running:
            variables = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"} | environment
            command = [sys.executable, str(Path(__file__).with_name("command_server.py"))]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            # Without a buffer, which `select` would not see.
            running[key] = subprocess.Popen(command, env=variables, bufsize=0, **pipes)
            assert running[key].stdout.readline() == b"ready\n"
        return running[key]

    yield start
    for process in running.values():
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.fixture(scope="session")
def works(tiny_checkpoint, talking_clips, seer, hub, server, tmp_path_factory) -> Callable[[str], Work]:
    """`works(name)`: one of `WORKS`, measured."""
    root = tmp_path_factory.mktemp("works")
    clips = root / "clips"
    clips.mkdir()
    rows = []
    for number in range(10):
        name = f"{number}.mp4"
        shutil.copy(talking_clips / f"{number % 2}.mp4", clips / name)
        rows.append(json.dumps({"file_name": name, "text": ("bin blue", "set red")[number % 2]}))
    (clips / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    pictures = _video(root / "pictures")
    coco = _coco(root / "coco", pictures)
    fast = ["--num-beams", "1", "--ctc-weight", "1", "--batch-size", "2"]
    read = ["--model", str(tiny_checkpoint), *fast]
    see = ["--model", str(seer), "--labels", "cat,dog", "--threshold", "0"]
    common = ["training.use_cpu=true", "training.max_steps=6", "training.save_steps=2", "training.logging_steps=1"]
    common += ["training.disable_tqdm=true", "training.save_total_limit=2"]
    cached = {"HF_DATASETS_CACHE": str(root / "datasets")}

    def prepared() -> Path:
        folder = root / "prepared"
        if not folder.exists():
            command = ["prepare", "folder", str(clips), str(folder), "--model", str(tiny_checkpoint)]
            Work(command, folder, partial(server, cached)).finish()
        return folder

    def train_avsr(out: Path) -> list[str]:
        recipe = {"model": {"checkpoint": str(tiny_checkpoint)}, "data": {"train": [str(prepared())]}}
        recipe["training"] = {"output_dir": str(out), "per_device_train_batch_size": 2}
        (root / "avsr.yaml").write_text(yaml.safe_dump({"system": "avsr"} | recipe))
        return ["train", str(root / "avsr.yaml"), *common]

    def train_glee(out: Path) -> list[str]:
        data = {"canvases": [[64, 64]], "images": {"labels": 2, "expressions": 1, "prompts": 1}}
        recipe = {"model": {"checkpoint": str(seer)}, "data": data, "training": {"output_dir": str(out)}}
        (root / "glee.yaml").write_text(yaml.safe_dump({"system": "glee_scenes"} | recipe))
        return ["train", str(root / "glee.yaml"), *common]

    def published(out: Path) -> list[str]:
        return ["publish", str(tiny_checkpoint), "--repo", "org/tiny", "--license", "cc-by-4.0"]

    made: dict[str, Callable[[Path], list[str]]] = {
        "prepare": lambda out: ["prepare", "folder", str(clips), str(out), "--clips-per-shard", "2", *read[:2]],
        "train avsr": train_avsr,
        "train glee": train_glee,
        "evaluate avsr": lambda out: [
            *("evaluate", "avsr", "--data", str(clips), *read, "--modality", "audio,visual"),
            *("--json", f"{out}/rates.json"),
        ],
        "evaluate glee": lambda out: [
            *("evaluate", "glee", "--protocol", "coco", "--data", str(coco), "--model", str(seer)),
            *("--output", str(out)),
        ],
        "transcribe": lambda out: [
            *("transcribe", *map(str, sorted(clips.glob("*.mp4"))), *read, "--format", "json", "--output", str(out)),
        ],
        "perceive video": lambda out: [
            *("perceive", str(pictures), *see, "--out", f"{out}/seen.mp4", "--json", f"{out}/seen.jsonl"),
            *("--coco-vis", f"{out}/seen.json", "--mot", f"{out}/seen.txt"),
        ],
        "perceive webp": lambda out: ["perceive", str(pictures), *see, "--out", f"{out}/seen.webp"],
        "synthesize": lambda out: ["synthesize", "--text", "bin blue", "-o", f"{out}/clip.mp4"],
        "perceive folder": lambda out: [
            *("perceive", str(pictures), "--each", *see, "--out", str(out), "--json", f"{out}/found.json"),
        ],
        "publish": published,
    }
    environments = {"publish": hub.environment(root / "home")}
    known: dict[str, Work] = {}

    def work(name: str) -> Work:
        if name not in known:
            out = root / name.replace(" ", "-")
            kept = ("training.save_total_limit=3",) if name.startswith("train ") else ()
            known[name] = Work(made[name](out), out, partial(server, environments.get(name, cached)), kept)
            known[name].measure()
        return known[name]

    return work


class Watched:
    """
    Keeps `fuzz_worker.py` in a process, which is started again when it has crashed, hung, or taken too much memory.

    Attributes:
        seconds: of the processor that the last file took; of the clock where it was not read to its end.
        more: the most memory that the process has taken meanwhile beyond what it takes with its model, in bytes.
    """

    def __init__(self, *arguments: str):
        self._command = [sys.executable, str(Path(__file__).with_name("fuzz_worker.py")), *arguments]
        self._process: subprocess.Popen | None = None
        self.seconds, self.more = 0.0, 0

    def _start(self) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(self._command, text=True, **pipes)
        assert process.stdout.readline() == "ready\n"
        self._before = psutil.Process(process.pid).memory_info().rss
        return process

    def read(self, path: Path) -> tuple[str, str]:
        """Returns (outcome, message) of a file; "crash", "hang" and "memory" are outcomes, too."""
        process = self._process = self._process or self._start()
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        self.seconds, self.more = float(HANG), 0
        known, end = psutil.Process(process.pid), time.monotonic() + PATIENCE
        spent = sum(known.cpu_times()[:2])
        while sum(known.cpu_times()[:2]) < spent + HANG and time.monotonic() < end:
            if select.select([process.stdout], [], [], 0.05)[0]:
                line = process.stdout.readline()
                if line:
                    outcome, message, self.seconds, peak = json.loads(line)
                    self.more = max(self.more, peak - self._before)
                    return outcome, message
                self.close()
                return "crash", f"exit code {process.returncode}"
            self.more = max(self.more, known.memory_info().rss - self._before)
            if self.more > MEMORY:
                self.close()
                return "memory", f"more than {MEMORY >> 30} GB"
        self.close()
        return "hang", f"{HANG} seconds"

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def watched() -> type[Watched]:
    """`watched(kind, *models)`: reads files, see `fuzz_worker.py`."""
    return Watched

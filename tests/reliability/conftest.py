"""Small works of every long command, how often they are disturbed, and the table of what came of it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

ROWS = pytest.StashKey[list[tuple[str, str, str]]]()
NOT_COMPARED = {"trainer_state.json", "training_args.bin", "files.json", "started.json"}  # times, lists of their sizes
SPEED = re.compile(rb'"rtfx": [\d.]+')


def pytest_addoption(parser) -> None:
    group = parser.getgroup("reliability")
    group.addoption("--seed", type=int, default=0, help="seed of kills and damage")
    group.addoption("--kills", type=int, default=2, help="of each command")
    group.addoption("--files", type=int, default=40, help="damaged files of each kind of reader")
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


@dataclass
class Work:
    """
    A command that can be repeated, and what it leaves.

    Attributes:
        arguments: after `lookhear`.
        output: folder of the results.
        environment: variables that differ.
        undisturbed: its results: path in the folder -> content.
        seconds: that it took, and after which the first result was there.
    """

    arguments: list[str]
    output: Path
    environment: dict[str, str] = field(default_factory=dict)
    undisturbed: dict[str, bytes] = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)

    def start(self, **settings) -> subprocess.Popen:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"} | self.environment
        command = [sys.executable, "-m", "lookhear", *self.arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes, **settings)

    def finish(self) -> None:
        """Runs the command to its end."""
        process = self.start()
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, f"{self.arguments}: {out}{err}"

    def measure(self) -> None:
        """Runs it undisturbed, for its results and its duration."""
        shutil.rmtree(self.output, ignore_errors=True)
        start, process, first = time.monotonic(), self.start(), None
        while process.poll() is None:
            if first is None and self.output.is_dir() and any(self.output.iterdir()):
                first = time.monotonic() - start
            time.sleep(0.02)
        _, err = process.communicate()
        assert process.returncode == 0, f"{self.arguments}: {err}"
        self.seconds = (first or 0.0, time.monotonic() - start)
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
        Returns files under final names that are not those of an undisturbed run; records that grow, and checkpoints
        without the list of their files, are not final.
        """
        saved = {path.parent for path in self.output.rglob("checkpoint-*/*")}
        halves = {folder for folder in saved if not (folder / "files.json").exists()}
        return [
            name
            for name, content in self.results().items()
            if not re.search(r"(^|/)\.", name)
            and not name.endswith(".jsonl")
            and halves.isdisjoint((self.output / name).parents)
            and content != self.undisturbed.get(name)
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
def works(tiny_checkpoint, talking_clips, seer, hub, tmp_path_factory) -> Callable[[str], Work]:
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
    fast = ["--num-beams", "1", "--ctc-weight", "1", "--batch-size", "2"]
    read = ["--model", str(tiny_checkpoint), *fast]
    see = ["--model", str(seer), "--labels", "cat,dog", "--threshold", "0"]
    common = ["training.use_cpu=true", "training.max_steps=6", "training.save_steps=2", "training.logging_steps=1"]
    common += ["training.disable_tqdm=true", "training.save_total_limit=2"]
    cached = {"HF_DATASETS_CACHE": str(root / "datasets")}

    def prepared() -> Path:
        folder = root / "prepared"
        if not folder.exists():
            Work(["prepare", "folder", str(clips), str(folder), "--model", str(tiny_checkpoint)], folder).finish()
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
        "transcribe": lambda out: [
            *("transcribe", *map(str, sorted(clips.glob("*.mp4"))), *read, "--format", "json", "--output", str(out)),
        ],
        "perceive video": lambda out: [
            *("perceive", str(pictures), *see, "--out", f"{out}/seen.mp4", "--json", f"{out}/seen.jsonl"),
            *("--coco-vis", f"{out}/seen.json", "--mot", f"{out}/seen.txt"),
        ],
        "perceive folder": lambda out: [
            *("perceive", str(pictures), "--each", *see, "--out", str(out), "--json", f"{out}/found.json"),
        ],
        "publish": published,
    }
    environments = {"publish": hub.environment(root / "home"), "train avsr": cached}
    known: dict[str, Work] = {}

    def work(name: str) -> Work:
        if name not in known:
            out = root / name.replace(" ", "-")
            known[name] = Work(made[name](out), out, environments.get(name, {}))
            known[name].measure()
        return known[name]

    return work

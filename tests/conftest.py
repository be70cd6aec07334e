"""What every test may rely on: no network, few threads, and the developers' data folder where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before transformers, datasets or evaluate are imported: nothing is downloaded, telemetry is off.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_EVALUATE_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("LOOKHEAR_SHARED", ROOT.parent / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what reads the developers' data folder where there is none, and says how to name one."""
    if SHARED.is_dir():
        return
    skip = pytest.mark.skip(reason=f"no data folder {SHARED}; set LOOKHEAR_SHARED to its path")
    for item in items:
        if "shared" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' data folder; for tests marked `shared` only."""
    return SHARED

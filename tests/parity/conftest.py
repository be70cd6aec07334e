"""Numbers that the published code produced, read from the folder `LOOKHEAR_PARITY` names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("LOOKHEAR_SHARED", ROOT.parent / "shared"))
PARITY = Path(os.environ.get("LOOKHEAR_PARITY", SHARED / "parity"))


class Stored:
    """One file of tensors: some whole, some every n-th value, some as bits."""

    def __init__(self, path: Path):
        self.facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        self.shapes = {name: entry["shape"] for name, entry in self.facts.pop("tensors").items()}
        self.tensors = load_file(path)

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def __getitem__(self, name: str) -> torch.Tensor:
        """A tensor that is stored whole or as bits."""
        if name in self.tensors:
            return self.tensors[name]
        bits = np.unpackbits(self.tensors[f"{name}@bits"].numpy())
        size = int(np.prod(self.shapes[name]))
        return torch.from_numpy(bits[:size].astype(bool)).reshape(self.shapes[name])

    def compare(self, name: str, value: torch.Tensor, atol: float = 2e-4, rtol: float = 1e-4) -> None:
        """Every stored value is met within `atol`, or within `rtol` of itself."""
        assert list(value.shape) == self.shapes[name], f"{name}: {list(value.shape)} is not {self.shapes[name]}"
        value = value.detach().float()
        if name in self.tensors:
            stored = self.tensors[name].float()
        else:
            key = next(key for key in self.tensors if key.startswith(f"{name}@step"))
            stored = self.tensors[key].float()
            value = value.flatten()[:: int(key.removeprefix(f"{name}@step"))]
        same = value == stored  # infinities
        difference = torch.where(same, 0.0, (value - stored).abs())
        allowed = (rtol * stored.abs()).clamp(min=atol)
        worst = difference.max().item() if difference.numel() else 0.0
        assert bool((same | (difference <= allowed)).all()), f"{name} differs by up to {worst:.2e}"


@pytest.fixture(scope="session")
def glee() -> Callable[[str], Stored]:
    """`glee("detection")`: that file of the folder `glee`."""
    opened: dict[str, Stored] = {}

    def read(name: str) -> Stored:
        if name not in opened:
            opened[name] = Stored(PARITY / "glee" / f"{name}.safetensors")
        return opened[name]

    return read


@pytest.fixture(scope="session")
def glee_folder() -> Path:
    """The folder `glee` itself."""
    return PARITY / "glee"

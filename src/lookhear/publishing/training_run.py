"""The folder that a training run leaves: what of it is published, and the facts that it records about itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

STATE, RECIPE = "trainer_state.json", "recipe.yaml"
# What a run writes to resume, to watch it, or to describe it with the paths of this machine.
LEFT_OUT = frozenset(
    {
        STATE,
        RECIPE,
        "started.json",
        "training_args.bin",
        "checkpoint-*",
        "global_step*",
        "optimizer*",
        "scheduler.pt",
        "scaler.pt",
        "rng_state*.pth",
        "pytorch_model_fsdp*",
        "latest",
        "zero_to_fp32.py",
        "runs",
        ".result-*",
        ".export-*",
    }
)
NO_MEASURE = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


@dataclass(frozen=True)
class RunFacts:
    """
    Facts about a training.

    Attributes:
        steps: of the training; None: not known.
        measured: name of a measure -> its value, of the evaluation of the weights in the folder.
        measured_at: step of that evaluation; None without one.
        recipe: sections of the recipe; empty if the run did not record it.
    """

    steps: int | None = None
    measured: dict[str, float] = field(default_factory=dict)
    measured_at: int | None = None
    recipe: dict[str, Any] = field(default_factory=dict)


def is_run(folder: Path) -> bool:
    """Whether a training run has written a folder: its result, or one of its checkpoints."""
    return (folder / STATE).is_file() or (folder / "training_args.bin").is_file() or bool(checkpoints(folder))


def checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints in a run's folder, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def read_facts(folder: Path) -> RunFacts:
    """
    Reads what a run's folder records: `trainer_state.json` and `recipe.yaml`, which a checkpoint has in its run's
    folder.

    Args:
        folder: of the run, or of one of its checkpoints.

    Raises:
        ValueError: a file is damaged.
    """
    state = _read(folder / STATE, json.loads)
    places = [folder / RECIPE, folder.parent / RECIPE] if folder.name.startswith("checkpoint-") else [folder / RECIPE]
    recipe = next((_read(path, yaml.safe_load) for path in places if path.is_file()), {})
    steps = state.get("global_step")
    best = (recipe.get("training") or {}).get("load_best_model_at_end")
    at = state.get("best_global_step") if best and not folder.name.startswith("checkpoint-") else steps
    measured: dict[str, float] = {}
    for entry in state.get("log_history") or []:
        if entry.get("step") == at:
            measured |= {name[5:]: value for name, value in entry.items() if name.startswith("eval_")}
    measured = {name: value for name, value in measured.items() if name not in NO_MEASURE}
    return RunFacts(steps, measured, at if measured else None, recipe)


def _read(path: Path, parse: Any) -> dict[str, Any]:
    """Parses a file whose content is a mapping; an empty mapping if there is none."""
    if not path.is_file():
        return {}
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} cannot be read: it is not a mapping")
    return content

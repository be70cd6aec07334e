"""What a table takes, before anything is read but recipes: stages, data, hours and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lookhear.reproduction.definitions import Measure, Paper, Preparation, Training
from lookhear.reproduction.places import Places
from lookhear.reproduction.stages import Stage, plan

PREPARED = 1 / 8  # hours that a core takes for an hour of video: 200 pictures of 25 a second
UNITS = {"prepare": "h of a core", "train": "h of a GPU", "measure": "h of a GPU"}


@dataclass(frozen=True)
class Cost:
    """
    What a stage takes.

    Attributes:
        hours: of one core (preparation) or of one GPU, all GPUs together; None: not known.
        memory: GiB on each GPU; None: not known, or little.
        steps: of a training.
        gpus: of the published training.
    """

    hours: float | None = None
    memory: float | None = None
    steps: int | None = None
    gpus: int = 1


def cost(stage: Stage, paper: Paper) -> Cost:
    """
    Estimates what a stage takes.

    Args:
        stage: of a plan.
        paper: with the sizes of its preparations.
    """
    spec = stage.spec
    if isinstance(spec, Preparation):
        return Cost(spec.hours * PREPARED)
    if isinstance(spec, Measure):
        return Cost(spec.hours)
    if stage.given is not None:
        return Cost(0.0)
    steps = training_steps(stage, paper)
    if steps is None or spec.seconds is None:
        return Cost(None, spec.memory, steps, spec.gpus)
    batches = steps * int(stage.content["training"].get("gradient_accumulation_steps", 1)) * spec.gpus
    return Cost(batches * spec.seconds / 3600 + spec.once, spec.memory, steps, spec.gpus)


def training_steps(stage: Stage, paper: Paper) -> int | None:
    """
    Returns the steps of a training: its `max_steps`, or those of its epochs over clips whose number is known.

    Args:
        stage: of the kind `train`.
        paper: with the sizes of its preparations.
    """
    spec, training = stage.spec, stage.content.get("training", {})
    assert isinstance(spec, Training)  # by its kind
    steps = training.get("max_steps", -1)
    if steps > 0:
        return int(steps)
    folders = [folder.removeprefix("prepared/") for folder in stage.content.get("data", {}).get("train", ())]
    clips = sum(paper.preparations[name].clips for name in folders if name in paper.preparations)
    batch = training.get("per_device_train_batch_size", 8) * training.get("gradient_accumulation_steps", 1)
    epochs = training.get("num_train_epochs", 3)
    return math.ceil(epochs * math.ceil(clips / (batch * spec.gpus))) if clips else None


def describe_plan(name: str, paper: Paper, settings: list[str] | tuple[str, ...], places: Places) -> str:
    """
    Describes what a table takes, as text.

    Args:
        name: of the table.
        paper: which has it.
        settings: `[STAGE:]section.field=value`.
        places: where things are; whether a source is there is said.

    Raises:
        ValueError: a setting or a recipe cannot be used.
    """
    table = paper.tables[name]
    stages = plan(paper, table, settings, places)
    costs = [cost(stage, paper) for stage in stages]
    cells: list[tuple[str, ...]] = [("stage", "kind", "what", "hours", "GiB")]
    for stage, found in zip(stages, costs, strict=True):
        memory = "" if stage.kind != "train" or stage.given else _known(found.memory, 0)
        cells.append((stage.name, stage.kind, _what(stage, found), _known(found.hours, 1), memory))
    lines = [f"{name}: {table.title} ({table.source})", *_aligned(cells)]
    lines += [f"  data: {_source(source, paper, places)}" for source in _sources(stages)]
    for kind, unit in UNITS.items():
        hours = [each.hours for stage, each in zip(stages, costs, strict=True) if stage.kind == kind]
        if hours:
            unknown = f", and {hours.count(None)} stages of which it is not known" if None in hours else ""
            lines.append(f"  {kind}: {sum(each or 0 for each in hours):.1f} {unit} in all{unknown}")
    return "\n".join(lines) + "\n"


def _what(stage: Stage, found: Cost) -> str:
    spec = stage.spec
    if isinstance(spec, Preparation):
        size = f", {spec.hours:g} h" if spec.hours else ""
        return f"{spec.source} {spec.split or 'all'}{size}"
    if isinstance(spec, Training):
        if stage.given is not None:
            return f"given: {stage.given}"
        changes = "".join(f" {change}" for change in spec.set)
        stored = ", frozen parts computed once" if stage.content.get("data", {}).get("cache_features") else ""
        return f"{spec.recipe}{changes}, {found.steps or '?'} steps on {spec.gpus} GPUs{stored}"
    shots = "" if spec.kind != "few-shot" else f" {spec.shots or 'all'} shots"
    return f"{spec.protocol or spec.kind}{shots} on {spec.data}"


def _known(number: float | None, digits: int) -> str:
    return "not known" if number is None else f"{number:.{digits}f}"


def _sources(stages: list[Stage]) -> list[str]:
    return list(dict.fromkeys(source for stage in stages for source in stage.sources))


def _source(name: str, paper: Paper, places: Places) -> str:
    about, path = paper.sources[name], places.source(name)
    if path.exists():
        place = f"there: {path}"
    elif about.id is not None:
        place = f"from the Hub: {about.id}"
    else:
        place = f"not there: {path}"
    return f"{name} ({place}): {about.what}"


def _aligned(cells: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if place > 2 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]

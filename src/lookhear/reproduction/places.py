"""Where things are: the folder of a reproduction, the sources that it reads, and models that are given."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lookhear.reproduction.definitions import Paper

OURS = ("prepared", "runs", "cache")  # below the output folder
GIVEN = ("data", "checkpoints")  # sources


@dataclass(frozen=True)
class Places:
    """
    Folders of a reproduction.

    Attributes:
        output: made here: `prepared/`, `recipes/`, `cache/`, `runs/`, `measured/`, `steps/` and `tables/`. Several
            tables share it, and what they have in common is made once.
        data: folder with the sources, each under its name.
        sources: paths of sources that lie elsewhere, by name.
        models: folders or Hub ids that are used instead of a training's result, by the training's name.
    """

    output: Path
    data: Path = Path("data")
    sources: dict[str, Path] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)

    def source(self, name: str) -> Path:
        """Returns the path of a source."""
        return self.sources.get(name, self.data / name)

    def model(self, training: str) -> str:
        """Returns the folder of a training's result, or the model that is given instead."""
        return self.models.get(training) or str(self.output / "runs" / training)

    def prepared(self, name: str) -> Path:
        """Returns the folder of a preparation."""
        return self.output / "prepared" / name

    def check(self, paper: Paper) -> None:
        """
        Refuses names that the paper doesn't have, and models that are not there.

        Args:
            paper: of the table.

        Raises:
            ValueError: a source or training is unknown, or there is no such folder.
        """
        for option, names, known in (
            ("--data", self.sources, paper.sources),
            ("--model", self.models, paper.trainings),
        ):
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"{option} {unknown[0]}=… is unknown; there are {', '.join(known)}")
        for training, model in self.models.items():
            if (model.startswith((".", os.sep)) or model.count("/") > 1) and not Path(model).is_dir():
                raise ValueError(f"--model {training}: there is no folder {model}")


def references(value: Any) -> list[tuple[str, str]]:
    """Returns what a recipe's content refers to, in its order: pairs (`prepared`, `runs`, `data`, …; name)."""
    if isinstance(value, dict):
        return [pair for item in value.values() for pair in references(item)]
    if isinstance(value, (list, tuple)):
        return [pair for item in value for pair in references(item)]
    if isinstance(value, str) and value.count("/") and value.split("/")[0] in (*OURS, *GIVEN):
        kind, name = value.split("/")[:2]
        return [("data" if kind in GIVEN else kind, name)]
    return []


def located(value: Any, places: Places, paper: Paper) -> Any:
    """
    Replaces the references in a recipe's content by paths.

    Args:
        value: the content, not changed.
        places: where things are.
        paper: whose sources may have Hub ids; these are replaced where the source lies in its place.
    """
    if isinstance(value, dict):
        return {name: located(item, places, paper) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [located(item, places, paper) for item in value]
    if not isinstance(value, str):
        return value
    for name, source in paper.sources.items():
        if source.id == value and (name in places.sources or places.source(name).exists()):
            return str(places.source(name))
    for _, name in references(value):
        kind, rest = value.split("/")[0], value.split("/")[2:]
        if kind == "runs":
            return "/".join([places.model(name), *rest])
        if kind in OURS:
            return str(places.output.joinpath(kind, name, *rest))
        return str(places.source(name).joinpath(*rest))
    return value

"""The stages of a table: what is prepared, trained and measured, in their order, each once."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lookhear.reproduction.definitions import FOLDER, Measure, Paper, Preparation, Table, Training
from lookhear.reproduction.places import Places, references
from lookhear.training.recipe_reading import (
    SYSTEMS,
    apply_overrides,
    fill,
    load_content,
    read_value,
    shipped_recipe,
)
from lookhear.training.run_recipe import FOLDER as TRAINING

PREPARING = ("num_proc", "clips_per_shard", "roi_size", "crop_size", "mouth_width", "model")  # of `prepare`
# What changes how fast a stage is, not what comes out: with other values an interrupted stage goes on, too.
SPEED = ("num_proc", "device", "batch_size", "hours")


@dataclass(frozen=True)
class Stage:
    """
    A stage of a reproduction.

    Attributes:
        kind: `prepare`, `train` or `measure`.
        name: of the stage; its folder's name, too.
        needs: names of the stages whose results it takes.
        sources: names of the sources that it reads.
        spec: what is prepared, trained or measured.
        content: of a training, its recipe's content with all changes, except for `output_dir`; of a measurement that
            trains detectors first, their `training`.
        settings: of a preparation, those of `lookhear prepare`; of a measurement, `model`, its training, and `device`.
        given: a model that is used instead of running the training.
    """

    kind: str
    name: str
    needs: tuple[str, ...]
    sources: tuple[str, ...]
    spec: Preparation | Training | Measure
    content: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    given: str | None = None

    def key(self, of_needed: list[str]) -> str:
        """
        Returns what tells this stage from one with other settings.

        Args:
            of_needed: the keys of the stages that it needs.
        """
        spec = {name: value for name, value in asdict(self.spec).items() if name not in (*SPEED, "clips")}
        if self.kind == "train":
            spec = {"given": self.given} if self.given else {"recipe": self.content}
        settings = {name: value for name, value in self.settings.items() if name not in SPEED}
        about = [self.kind, self.name, spec, settings, of_needed, *([self.content] if self.kind == "measure" else [])]
        return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Change:
    """
    A setting of the command line: `[STAGE:]section.field=value`.

    Attributes:
        stages: pattern of the stages that it is for.
        section: `prepare`, `measure`, or the first word of a recipe's field.
        text: `section.field=value`.
    """

    stages: str
    section: str
    text: str

    @classmethod
    def read(cls, text: str) -> Change:
        """Reads a setting. Raises a ValueError if it has another form."""
        name, equals, _ = text.partition("=")
        stages, colon, rest = name.rpartition(":")
        section, dot, _ = rest.partition(".")
        if not equals or not dot or not section or (colon and not stages):
            raise ValueError(
                f"setting {text!r} must read section.field=value or STAGE:section.field=value, as in "
                "training.max_steps=100, table6_*:model.config.dropout=0.2, prepare.num_proc=8, measure.num_beams=1"
            )
        return cls(stages or "*", section, text[len(stages) + len(colon) :])

    def applies(self, stage: str) -> bool:
        """Whether the setting is for a stage of this name."""
        return fnmatch.fnmatchcase(stage, self.stages)

    def value(self) -> tuple[str, Any]:
        """Returns the field's name and its value."""
        name, _, value = self.text.partition("=")
        return name.partition(".")[2], read_value(value, f"setting {self.text!r}")


def plan(paper: Paper, table: Table, settings: list[str] | tuple[str, ...], places: Places) -> list[Stage]:
    """
    Lists the stages of a table: all preparations, then the trainings, each after those that it builds on, then the
    measurements.

    Args:
        paper: which has the table.
        table: one of its tables.
        settings: `[STAGE:]section.field=value`.
        places: with the models that are given instead of trainings.

    Raises:
        ValueError: a recipe or a name in it does not exist, or a setting has another form or is for no stage.
    """
    return _Planner(paper, [Change.read(text) for text in settings], places).plan(table)


def measure_stage(table: Table, measure: str, model: str) -> str:
    """
    Returns the name of the stage that measures a model: the same in all tables that measure it in the same way.

    Args:
        table: with the measurement.
        measure: its name.
        model: name of a training.
    """
    spec = table.measures[measure]
    plain = {name: value for name, value in asdict(spec).items() if name != "hours"}
    digest = hashlib.sha256(json.dumps([model, plain], sort_keys=True).encode()).hexdigest()
    return f"{model}-{measure}-{digest[:6]}"


class _Planner:
    def __init__(self, paper: Paper, changes: list[Change], places: Places):
        self.paper, self.changes, self.places = paper, changes, places
        self.stages: dict[str, Stage] = {}  # in the order in which they can run
        self.begun: list[str] = []

    def plan(self, table: Table) -> list[Stage]:
        for row in table.rows:
            if row.model is not None:
                self._train(row.model)
                for name in dict.fromkeys(table.columns[heading].measure for heading in table.columns_of(row)):
                    self._measure(table, name, row.model)
        for change in self.changes:
            if not any(change.applies(name) and _takes(stage, change) for name, stage in self.stages.items()):
                known = ", ".join(self.stages)
                raise ValueError(f"setting {change.stages}:{change.text} is for none of the stages {known}")
        order = {"prepare": 0, "train": 1, "measure": 2}
        return sorted(self.stages.values(), key=lambda stage: order[stage.kind])

    def _prepare(self, name: str) -> None:
        if name in self.stages:
            return
        spec = self.paper.preparations[name]
        settings: dict[str, Any] = {}
        for change in self._of(name, "prepare"):
            key, value = change.value()
            if key not in PREPARING:
                raise ValueError(f"setting {change.text}: prepare has {', '.join(PREPARING)}")
            settings[key] = value
        self.stages[name] = Stage("prepare", name, (), (spec.source,), spec, settings=settings)

    def _train(self, name: str) -> None:
        if name in self.stages:
            return
        if name in self.begun:
            raise ValueError(f"trainings build on each other in a circle: {' -> '.join([*self.begun, name])}")
        spec = self.paper.trainings[name]
        if name in self.places.models:
            given = self.places.models[name]
            self.stages[name] = Stage("train", name, (), (), spec, given=given)
            return
        self.begun.append(name)
        content = self._content(name, spec)
        needs, sources = [], []
        for kind, other in references(content):
            if kind == "data":
                sources.append(self._source(other, name))
            elif kind == "prepared":
                self._known(other, self.paper.preparations, f"{name}: prepared/{other}")
                self._prepare(other)
                needs.append(other)
            elif kind == "runs":
                self._known(other, self.paper.trainings, f"{name}: runs/{other}")
                self._train(other)
                needs.append(other)
        ids = [source for source, about in self.paper.sources.items() if about.id and about.id in _texts(content)]
        self.begun.pop()
        found = tuple(dict.fromkeys([*sources, *ids]))
        self.stages[name] = Stage("train", name, tuple(dict.fromkeys(needs)), found, spec, content)

    def _content(self, name: str, spec: Training) -> dict[str, Any]:
        """Returns the content of a training's recipe, with what the paper's file and the command line change."""
        path = FOLDER / spec.recipe
        if not path.is_file():
            path = Path(spec.recipe) if Path(spec.recipe).is_file() else shipped_recipe(spec.recipe, TRAINING) or path
        content = load_content(path, TRAINING)
        for section, value in content.items():
            content[section] = {} if value is None else value
        mine = [change.text for change in self.changes if change.applies(name) and _is_for(content, change)]
        apply_overrides(content, [*spec.set, *mine])
        content.get("training", {}).pop("output_dir", None)
        given = {section: value for section, value in content.items() if section != "system"}
        try:
            fill(recipe_kind(content), given)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        return content

    def _measure(self, table: Table, measure: str, model: str) -> None:
        name = measure_stage(table, measure, model)
        if name in self.stages:
            return
        spec = table.measures[measure]
        settings: dict[str, Any] = {"model": model}
        for change in self._of(name, "measure"):
            key, value = change.value()
            if key == "device":
                settings["device"] = value
            else:
                spec = replace(spec, **{key: getattr(fill(Measure, {key: value}, "measure"), key)})
        content: dict[str, Any] = {}
        if spec.kind == "few-shot":
            apply_overrides(content, [change.text for change in self._of(name, "training")])
        prepared = spec.data in self.paper.preparations
        if prepared:
            self._prepare(spec.data)
        sources = [*([] if prepared else [spec.data]), *([spec.images] if spec.images else [])]
        needs = (model, *([spec.data] if prepared else []))
        self.stages[name] = Stage("measure", name, needs, tuple(sources), spec, content, settings)

    def _of(self, stage: str, section: str) -> list[Change]:
        return [change for change in self.changes if change.section == section and change.applies(stage)]

    def _source(self, name: str, training: str) -> str:
        self._known(name, self.paper.sources, f"{training}: data/{name}")
        return name

    def _known(self, name: str, names: dict, place: str) -> None:
        if name not in names:
            raise ValueError(f"{place} is not among those of the tables: {', '.join(names) or 'none'}")


def recipe_kind(content: dict[str, Any]) -> Any:
    """
    Returns the dataclass that a recipe's sections fill.

    Args:
        content: of the recipe.

    Raises:
        ValueError: its system is unknown.
    """
    system = content.get("system", SYSTEMS[0])
    if system not in SYSTEMS:
        raise ValueError(f"system must be one of {', '.join(SYSTEMS)}, not {system!r}")
    if system == "avsr":
        from lookhear.training.avsr.recipe import Recipe

        return Recipe
    if system == "glee":
        from lookhear.training.glee.mixture.corpus_recipe import CorpusTrainingRecipe

        return CorpusTrainingRecipe
    if system == "glee_scenes":
        from lookhear.training.glee.scenes.recipe import GleeRecipe

        return GleeRecipe
    if system == "lisa_glee":
        from lookhear.training.lisa_glee.recipe import LisaRecipe

        return LisaRecipe
    from lookhear.training.lisa_glee.scene_recipe import LisaSceneRecipe

    return LisaSceneRecipe


def _is_for(content: dict[str, Any], change: Change) -> bool:
    """Whether a recipe takes a setting: whether it may have the section."""
    return change.section in {part.name for part in fields(recipe_kind(content))}


def _takes(stage: Stage, change: Change) -> bool:
    if change.section in ("prepare", "measure"):
        return stage.kind == change.section
    if isinstance(stage.spec, Measure):
        return stage.spec.kind == "few-shot" and change.section == "training"
    return stage.kind == "train" and stage.given is None and _is_for(stage.content, change)


def _texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {text for item in value.values() for text in _texts(item)}
    if isinstance(value, (list, tuple)):
        return {text for item in value for text in _texts(item)}
    return {value} if isinstance(value, str) else set()

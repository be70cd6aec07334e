"""Reading recipes: a YAML file whose sections fill dataclasses, with overrides from the command line.

Beside its sections a recipe says in `system` which training it is for: `avsr`, `glee` (corpora) or `glee_scenes`.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

R = TypeVar("R")
SYSTEMS = ("avsr", "glee", "glee_scenes")


def read_recipe(path: str | Path, overrides: list[str] | tuple[str, ...], kind: type[R], shipped: Path) -> R:
    """
    Reads a recipe.

    Args:
        path: YAML file; its sections are the fields of `kind`, each a dataclass, or a plain mapping.
        overrides: `section.field=value` strings, the value in YAML (`training.max_steps=100`).
        kind: a dataclass whose fields have default factories.
        shipped: a folder with folders `recipes` below it, whose files are named where `path` is no file.
    Raises:
        ValueError: no such file, no YAML, or a section or field that does not exist; the known ones are named.
    """
    content = _load(Path(path), shipped)
    if not isinstance(content, dict):
        raise ValueError(f"recipe {str(path)!r} must have the sections {_names(kind)}")
    content.pop("system", None)
    for override in overrides:
        _override(content, override)
    _check(content, kind, "recipe")
    built = {}
    for part in fields(kind):
        section, given = part.default_factory, content.get(part.name) or {}
        if section is not dict:
            _check(given, section, part.name)
        built[part.name] = section(**given)
    return kind(**built)


def read_system(path: str | Path, shipped: Path) -> str:
    """
    Which training a recipe is for; `avsr` where it doesn't say.

    Args:
        path, shipped: as of [`read_recipe`].
    Raises:
        ValueError: no such file, no YAML, or no such system.
    """
    content = _load(Path(path), shipped)
    system = content.get("system", SYSTEMS[0]) if isinstance(content, dict) else SYSTEMS[0]
    if system not in SYSTEMS:
        raise ValueError(f"recipe {str(path)!r}: system must be one of {', '.join(SYSTEMS)}, not {system!r}")
    return system


def _load(path: Path, shipped: Path) -> Any:
    if not path.is_file():
        names = sorted(p.name for p in shipped.rglob("recipes/*.yaml"))
        raise ValueError(f"recipe {str(path)!r} is no file; shipped recipes: {', '.join(names)}")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {str(path)!r} is not YAML: {' '.join(str(error).split())}") from None


def _override(content: dict, override: str) -> None:
    name, equals, value = override.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) < 2:
        raise ValueError(f"override {override!r} must read section.field=value, as in training.max_steps=100")
    for key in keys[:-1]:
        if content.get(key) is None:
            content[key] = {}
        content = content[key]
        if not isinstance(content, dict):
            raise ValueError(f"override {override!r} leads into {key!r}, which is {content!r} and has no fields")
    content[keys[-1]] = yaml.safe_load(value)


def _check(content: dict, section: type, name: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{name} must be a mapping of {_names(section)}, not {content!r}")
    unknown = set(content) - {f.name for f in fields(section)}
    if unknown:
        raise ValueError(f"{name} has no field {', '.join(map(repr, sorted(unknown)))}; it has {_names(section)}")


def _names(section: type) -> str:
    return ", ".join(f.name for f in fields(section))

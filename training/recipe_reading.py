"""Reading recipes: a YAML file whose sections fill dataclasses, with overrides from the command line.

Beside its sections a recipe says in `system` which training it is for: `avsr`, `glee` (corpora) or `glee_scenes`.
Each value must have the type that the dataclass gives its field.
"""

import re
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

R = TypeVar("R")
SYSTEMS = ("avsr", "glee", "glee_scenes")
WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
    Any: "anything",
}


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but numbers with an exponent need neither a point nor a sign: 1.1 reads `5e-4` as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_recipe(path: str | Path, overrides: list[str] | tuple[str, ...], kind: type[R], shipped: Path) -> R:
    """
    Reads a recipe.

    Args:
        path: YAML file; its sections are the fields of `kind`, each a dataclass, or a plain mapping.
        overrides: `section.field=value` strings, the value in YAML (`training.max_steps=100`).
        kind: a dataclass whose fields have default factories.
        shipped: a folder with folders `recipes` below it, whose files are named where `path` is no file.

    Raises:
        ValueError: no such file, no YAML, a section or field that does not exist (the known ones are named), or a value
            of another type than its field's.
    """
    content = _load(Path(path), shipped)
    if not isinstance(content, dict):
        raise ValueError(f"recipe {str(path)!r} must have the sections {_names(kind)}")
    content.pop("system", None)
    for override in overrides:
        _override(content, override)
    return fill(kind, {name: {} if part is None else part for name, part in content.items()})


def read_value(text: str, name: str) -> Any:
    """
    Reads one YAML value, where `5e-4` is a number.

    Args:
        text: the YAML.
        name: what a message calls it.

    Raises:
        ValueError: the text is not YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that there is not
        raise ValueError(f"{name} is not YAML: {' '.join(str(error).split())}") from None


def fill(kind: type[R], given: Any, name: str = "") -> R:
    """
    Fills a dataclass with checked and converted values.

    Args:
        kind: a dataclass.
        given: a mapping from its fields to values as YAML has them.
        name: what messages call the mapping; empty for a whole recipe.

    Raises:
        ValueError: no mapping, a field that does not exist, or a value of another type than its field's.
    """
    if not isinstance(given, dict):
        raise ValueError(f"{name or 'recipe'} must be a mapping of {_names(kind)}, not {given!r}")
    known, types = [part.name for part in fields(kind)], get_type_hints(kind)
    if unknown := sorted(map(str, given.keys() - set(known))):
        near = [match for wrong in unknown for match in get_close_matches(wrong, known, n=1)]
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        listed = ", ".join(map(repr, unknown))
        raise ValueError(f"{name or 'recipe'} has no field {listed}; it has {_names(kind)}{hint}")
    return kind(**{part: convert(value, types[part], f"{name}.{part}".lstrip(".")) for part, value in given.items()})


def convert(value: Any, wanted: Any, name: str) -> Any:
    """
    Converts a value from YAML to a field's type.

    Args:
        value: the value.
        wanted: the type, as annotated.
        name: the field's name in messages, as in `data.max_frames`.

    Returns:
        The value; of lists and mappings a new one, and a tuple where the field has one.

    Raises:
        ValueError: the value is not of the type.
    """
    origin, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if is_dataclass(origin):
        return value if isinstance(value, origin) else fill(origin, value, name)
    if origin in (Union, UnionType):
        return _convert_union(value, wanted, name)
    if origin in (list, tuple, frozenset) and isinstance(value, (list, tuple)):
        several = origin is not tuple or arguments[-1] is Ellipsis
        items = arguments[:1] * len(value) if several else arguments
        if len(items) == len(value):
            pairs = enumerate(zip(value, items, strict=True))
            return origin(convert(item, kind, f"{name}[{number}]") for number, (item, kind) in pairs)
    elif origin is dict and isinstance(value, dict):
        return {
            convert(key, arguments[0], name): convert(item, arguments[1], f"{name}.{key}")
            for key, item in value.items()
        }
    elif origin is int and isinstance(value, float) and value.is_integer():  # 1e3 is written for steps, too
        return int(value)
    elif _is_plain(value, origin, arguments):
        return value
    raise _refused(value, wanted, name)


def read_system(path: str | Path, shipped: Path) -> str:
    """
    Reads which training a recipe is for; `avsr` where it doesn't say.

    Args:
        path: YAML file.
        shipped: a folder with folders `recipes` below it, whose files are named where `path` is no file.

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
    return read_value(path.read_text(encoding="utf-8"), f"recipe {str(path)!r}") or {}


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
    content[keys[-1]] = read_value(value, f"override {override!r}")


def _convert_union(value: Any, wanted: Any, name: str) -> Any:
    for kind in get_args(wanted):
        try:
            return convert(value, kind, name)
        except ValueError:
            continue
    raise _refused(value, wanted, name)


def _is_plain(value: Any, kind: Any, arguments: tuple) -> bool:
    """Whether a value that is no list and no mapping is of a type. Booleans are no numbers."""
    if kind is Any:
        return True
    if kind is Literal:
        return value in arguments and not isinstance(value, (list, dict))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _refused(value: Any, wanted: Any, name: str) -> ValueError:
    text = str in (wanted, *get_args(wanted)) and not isinstance(value, (list, dict, NoneType))
    return ValueError(f"{name} must be {_describe(wanted)}, not {value!r}{'; write it in quotes' if text else ''}")


def _describe(wanted: Any) -> str:
    """What a type is in plain words."""
    origin, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if origin is Literal:
        return _either([repr(value) for value in arguments])
    if origin in (Union, UnionType):
        return _either([_describe(kind) for kind in arguments])
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)} ({', '.join(map(_describe, arguments))})"
    if origin in (list, tuple, frozenset):
        return f"a list (of each item: {_describe(arguments[0])})"
    if origin is dict:
        return f"a mapping (of each value: {_describe(arguments[1])})"
    return WORDS.get(origin, getattr(origin, "__name__", str(origin)))


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _names(section: type) -> str:
    return ", ".join(f.name for f in fields(section))

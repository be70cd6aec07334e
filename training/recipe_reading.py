"""Reading of recipes: a YAML file whose sections fill dataclasses, with overrides from the command line.

Besides its sections a recipe has `system`, the training that it is for: `avsr`, `glee` (corpora), `glee_scenes`,
`lisa_glee` (corpora) or `lisa_glee_scenes`. With `extends: FILE` it has all that FILE has, and names what differs:
FILE is looked for beside the recipe, then among the shipped recipes. Mappings are merged field by field, lists and
other values are replaced.
Each value must have the type that the dataclass gives its field, and be in the [`Range`] that the type is annotated
with.
"""

import inspect
import math
import re
from collections.abc import Collection
from dataclasses import Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import CONFIG_MAPPING, AutoConfig


class _Dataclass(Protocol):
    """Any dataclass, for annotations."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


R = TypeVar("R", bound=_Dataclass)
MOST_VALUES = 100_000  # of a recipe; a few aliases of aliases make more than fit into memory
SYSTEMS = ("avsr", "glee", "glee_scenes", "lisa_glee", "lisa_glee_scenes")
WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
    Any: "anything",
}


@dataclass(frozen=True)
class Range:
    """
    Bounds of a number in a recipe, as an annotation of its type: `Annotated[int, Range(1)]`.

    Attributes:
        least: the smallest value.
        most: the largest value.
        above: whether `least` itself is refused.
        below: whether `most` itself is refused.
    """

    least: float = 0
    most: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value lies in the range; NaN never does."""
        return (self.least < value if self.above else self.least <= value) and (
            value < self.most if self.below else value <= self.most
        )

    def __str__(self) -> str:
        if math.isinf(self.most):
            return f"be {'above' if self.above else 'at least'} {self.least:g}"
        if self.above or self.below:
            first = f"be {'above' if self.above else 'at least'} {self.least:g}"
            return f"{first} and {'below' if self.below else 'at most'} {self.most:g}"
        return f"be from {self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Ascending:
    """An annotation of a pair in a recipe: its first number is not above its second one."""

    def holds(self, pair: tuple[float, float]) -> bool:
        """Whether a pair is in order."""
        return pair[0] <= pair[1]

    def __str__(self) -> str:
        return "have the lower number first"


Share = Annotated[float, Range(0, 1)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]


class _OutOfRangeError(ValueError):
    """A value has the type of its field, but is out of its range."""


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
        shipped: a folder with folders `recipes` below it, whose files an error message lists if `path` is not a file.

    Raises:
        ValueError: no such file, not YAML, a section or field that does not exist (the known ones are named), or a
            value of another type than its field's, or out of its range.
    """
    content = load_content(path, shipped)
    if not isinstance(content, dict):
        raise ValueError(f"recipe {str(path)!r} must have the sections {_names(kind)}")
    content.pop("system", None)
    apply_overrides(content, overrides)
    return fill(kind, {name: {} if part is None else part for name, part in content.items()})


def load_content(path: str | Path, shipped: Path) -> Any:
    """
    Loads a recipe's YAML, merged with that of the recipes which it extends.

    Args:
        path: YAML file.
        shipped: a folder with folders `recipes` below it, whose files can be extended by their names.

    Returns:
        What the file holds, without `extends`: a mapping, if it is a recipe.

    Raises:
        ValueError: no such file, not YAML, or a recipe that extends itself.
    """
    return _load_extended(Path(path), shipped, ())


def shipped_recipe(name: str | Path, shipped: Path) -> Path | None:
    """
    Finds a shipped recipe.

    Args:
        name: its file name, or the end of its path, such as `tables/base.yaml`.
        shipped: a folder with folders `recipes` below it.

    Returns:
        Its path, the first one in alphabetical order if several have the name; None if none has it.
    """
    name = Path(name)
    if not name.name or name.is_absolute() or ".." in name.parts:
        return None
    found = sorted(path for path in shipped.rglob(name.name) if "recipes" in path.relative_to(shipped).parts[:-1])
    return next((path for path in found if path.parts[-len(name.parts) :] == name.parts), None)


def merge(base: Any, changes: Any) -> Any:
    """Merges two values of YAML: mappings field by field, of all others the second one. Neither is changed."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {name: merge(base[name], value) if name in base else value for name, value in changes.items()}


def apply_overrides(content: dict[str, Any], overrides: list[str] | tuple[str, ...]) -> None:
    """
    Sets fields of a recipe's content.

    Args:
        content: of the recipe, changed in place.
        overrides: `section.field=value` strings, the value in YAML.

    Raises:
        ValueError: an override has another form, or leads into a value that has no fields.
    """
    for override in overrides:
        _override(content, override)


def read_value(text: str, name: str) -> Any:
    """
    Reads one YAML value, where `5e-4` is a number.

    Args:
        text: the YAML.
        name: name of the value in error messages.

    Raises:
        ValueError: the text is not YAML, or has more than `MOST_VALUES` values.
    """
    try:
        value = yaml.load(text, _Loader)
        count = _number_of_values(value, {})
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that doesn't exist
        raise ValueError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    if count > MOST_VALUES:
        raise ValueError(f"{name} has more than {MOST_VALUES} values, or is a part of itself: use fewer aliases (*)")
    return value


def _number_of_values(value: Any, known: dict[int, float]) -> float:
    """
    Counts the values in a value of YAML, in which an alias takes no room but counts like what it stands for.

    Args:
        value: from YAML.
        known: the numbers of the lists and mappings that were counted; filled.

    Returns:
        The number, infinity where a list or mapping contains itself.
    """
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf  # until it has been counted
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_number_of_values(item, known) for item in items)
    return known[id(value)]


def fill(kind: type[R], given: Any, name: str = "") -> R:
    """
    Fills a dataclass with checked and converted values.

    Args:
        kind: a dataclass.
        given: a mapping from its fields to values as YAML has them.
        name: name of the mapping in error messages; empty for a whole recipe.

    Raises:
        ValueError: not a mapping, a field that does not exist, or a value of another type than its field's, or out of
            its range.
    """
    if not isinstance(given, dict):
        raise ValueError(f"{name or 'recipe'} must be a mapping of {_names(kind)}, not {given!r}")
    check_names(given, [part.name for part in fields(kind)], name or "recipe")
    types = get_type_hints(kind, include_extras=True)
    return kind(**{part: convert(value, types[part], f"{name}.{part}".lstrip(".")) for part, value in given.items()})


def check_names(given: Collection[str], known: Collection[str], name: str, listed: bool = True) -> None:
    """
    Refuses names that do not exist.

    Args:
        given: the names.
        known: the names that exist.
        name: in error messages, what has these names.
        listed: whether the message lists all of `known`.

    Raises:
        ValueError: a name is unknown; the nearest known one is suggested.
    """
    if unknown := sorted(map(str, set(given) - set(known))):
        near = [match for wrong in unknown for match in get_close_matches(wrong, known, n=1)]
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        having = f"; it has {', '.join(known)}" if listed else ""
        raise ValueError(f"{name} has no field {', '.join(map(repr, unknown))}{having}{hint}")


def check_config(given: dict[str, Any], kind: Any, name: str) -> None:
    """
    Refuses fields that a model's configuration does not have, which its class would take in silence.

    Args:
        given: fields of the configuration; those of a configuration in it may be a mapping.
        kind: class of the configuration, one of transformers' dataclasses.
        name: name of `given` in error messages.

    Raises:
        ValueError: a field that does not exist; the nearest one is suggested.
    """
    settable = [key for key, value in inspect.getmembers(kind) if isinstance(value, property) and value.fset]
    known = [*(field.name for field in fields(kind)), *kind().to_dict(), *kind.attribute_map, *settable]
    names = [key for key in given if not key.startswith("_")]  # `to_dict` of a loaded one writes such names, too
    check_names(names, [*known, "attn_implementation"], name, listed=False)
    for part, inner in kind.sub_configs.items():
        values = given.get(part)
        if isinstance(values, dict):
            if inner is AutoConfig and values.get("model_type") in CONFIG_MAPPING:
                inner = CONFIG_MAPPING[values["model_type"]]
            if is_dataclass(inner):
                check_config(values, inner, f"{name}.{part}")


def convert(value: Any, wanted: Any, name: str) -> Any:
    """
    Converts a value from YAML to a field's type.

    Args:
        value: the value, as YAML has it.
        wanted: the type, as annotated, with its range.
        name: the field's name in messages, as in `data.max_frames`.

    Returns:
        The value; of lists and mappings a new one, and a tuple where the field has one.

    Raises:
        ValueError: the value is not of the type, or out of its range.
    """
    if get_origin(wanted) is Annotated:
        return _check_range(convert(value, get_args(wanted)[0], name), wanted.__metadata__, name)
    origin, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if isinstance(origin, type) and is_dataclass(origin):
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
    Reads which training a recipe is for; `avsr` if it doesn't say.

    Args:
        path: YAML file.
        shipped: a folder with folders `recipes` below it, whose files an error message lists if `path` is not a file.

    Raises:
        ValueError: no such file, not YAML, or an unknown system.
    """
    content = load_content(path, shipped)
    system = content.get("system", SYSTEMS[0]) if isinstance(content, dict) else SYSTEMS[0]
    if system not in SYSTEMS:
        raise ValueError(f"recipe {str(path)!r}: system must be one of {', '.join(SYSTEMS)}, not {system!r}")
    return system


def _load_extended(path: Path, shipped: Path, before: tuple[Path, ...]) -> Any:
    """Loads a file and those that it extends; `before` are the files that lead to it."""
    content = _load(path, shipped)
    if path.resolve() in before:
        chain = " -> ".join(each.name for each in (*before[before.index(path.resolve()) :], path))
        raise ValueError(f"recipe {str(path)!r} extends itself: {chain}; take one `extends` out")
    if not isinstance(content, dict) or "extends" not in content:
        return content
    name = content.pop("extends")
    if not isinstance(name, str) or not name:
        raise ValueError(f"recipe {str(path)!r}: extends must be the name of one file, not {name!r}")
    base = path.parent / name
    if not base.is_file():
        base = shipped_recipe(name, shipped) or base
    inherited = _load_extended(base, shipped, (*before, path.resolve()))
    if not isinstance(inherited, dict):
        raise ValueError(f"recipe {str(path)!r} extends {name!r}, which has no sections")
    return merge(inherited, content)


def _load(path: Path, shipped: Path) -> Any:
    if not path.is_file():
        names = sorted(p.name for p in shipped.rglob("recipes/*.yaml"))
        raise ValueError(f"recipe {str(path)!r} is not a file; shipped recipes: {', '.join(names)}")
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


def _check_range(value: Any, ranges: tuple[Range | Ascending, ...], name: str) -> Any:
    for bounds in ranges:
        if not bounds.holds(value):
            shown = list(value) if isinstance(value, tuple) else value
            raise _OutOfRangeError(f"{name} must {bounds}, not {shown!r}")
    return value


def _convert_union(value: Any, wanted: Any, name: str) -> Any:
    for kind in get_args(wanted):
        try:
            return convert(value, kind, name)
        except _OutOfRangeError:
            raise
        except ValueError:
            continue
    raise _refused(value, wanted, name)


def _is_plain(value: Any, kind: Any, arguments: tuple) -> bool:
    """Whether a value that is neither a list nor a mapping has a type. Booleans are not numbers."""
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
    """Describes a type in plain words."""
    if get_origin(wanted) is Annotated:
        return _describe(get_args(wanted)[0])
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

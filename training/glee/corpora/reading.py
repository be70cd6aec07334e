"""Parts of all readers: files and JSON with clear errors, and the list of annotations that cannot be used."""

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
MOST_LISTED = 1000
MOST_SHOWN = 20


class CorpusError(ValueError):
    """
    A data set is not as its reader expects, or one of its pictures cannot be used; the message says what to change.
    """


@dataclass
class Problems:
    """
    Annotations and pictures that cannot be used, with their ids.

    Readers leave out what they report here. At the end of a file (of a picture, in corpora that are read picture by
    picture) they call `settle`, which raises one error for all of it unless `skip` is set.

    Attributes:
        skip: whether what is reported is skipped, with one warning.
        mend: how the user of the caller skips it, for the error message.
        found: (id, what is wrong) of the first thousand.
        count: number of all.
    """

    skip: bool = False
    mend: str = "skip them: data.skip_bad=true in a recipe, Problems(skip=True) in Python"
    found: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    _settled: int = 0
    _warned: set[str] = field(default_factory=set)

    def add(self, name: Any, what: str) -> None:
        """Reports one annotation or picture by its id."""
        self.count += 1
        if len(self.found) < MOST_LISTED:
            self.found.append((str(name), what))

    def settle(self, corpus: str | Path) -> None:
        """
        Raises an error for what was reported since the last call, or warns if `skip` is set.

        Args:
            corpus: name of the corpus or file in the message.

        Raises:
            CorpusError: something was reported and `skip` is not set; the first twenty problems are listed.
        """
        if self.count == self._settled:
            return
        if self.skip:
            if str(corpus) not in self._warned:
                logger.warning("%s: annotations that cannot be used are left out. %s", corpus, self._new())
            self._warned.add(str(corpus))
            self._settled = self.count
            return
        raise CorpusError(f"{corpus}: {self.summary()}; fix them, or {self.mend}")

    def summary(self) -> str:
        """Lists the first twenty problems in one line: `3 problems: annotation 7: ...; ...`."""
        return _listed(self.found[:MOST_SHOWN], self.count)

    def _new(self) -> str:
        """Lists the problems since the last call of `settle`."""
        return _listed(self.found[self._settled :][:MOST_SHOWN], self.count - self._settled)


def _listed(found: list[tuple[str, str]], count: int) -> str:
    shown = "; ".join(f"{name}: {what}" for name, what in found)
    more = f"; and {count - len(found)} more" if count > len(found) else ""
    return f"{count} problem{'s' if count != 1 else ''}: {shown}{more}"


def corpus_folder(root: str | Path, layout: str) -> Path:
    """Returns `root` as a path. Raises CorpusError, with the expected layout, if it is not a folder."""
    path = Path(root)
    if not path.is_dir():
        raise CorpusError(f"{path} is not a folder; expected one with {layout}")
    return path


def below(folder: Path, name: str | Path, allow_outside: bool = False) -> Path:
    """
    Returns the path of a file that an annotation file names.

    Args:
        folder: that the name is relative to.
        name: of the file.
        allow_outside: whether it may point outside of the folder, as `../other/1.jpg` and `/etc/passwd` do.

    Raises:
        CorpusError: it does.
    """
    path = folder / name
    if not allow_outside and not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        raise CorpusError(
            f"{str(name)!r} is outside of {folder}; move the file there, or pass --allow-outside (allow_outside=True) "
            "if you trust the file that names it"
        )
    return path


def first_file(root: Path, names: list[str]) -> Path:
    """Returns the first of these files that exists below `root`. Raises CorpusError, which names them all."""
    for name in names:
        if (root / name).is_file():
            return root / name
    raise CorpusError(f"{root}: expected {' or '.join(names)}; copy the file there, or pass the folder that holds it")


def first_folder(root: Path, names: list[str]) -> Path:
    """Returns the first of these folders that exists below `root`. Raises CorpusError, which names them all."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise CorpusError(f"{root}: expected a folder {' or '.join(names)}; unpack the pictures there")


def read_json(path: Path, kind: type | tuple[type, ...]) -> Any:
    """
    Reads a JSON file.

    Args:
        path: of the file.
        kind: type of its outermost value: `dict`, `list`, or both.

    Raises:
        CorpusError: no such file, not JSON, or another type.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing; copy it into place") from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, kind):
        raise CorpusError(f"{path}: expected a JSON {'object' if kind is dict else 'list'} at the top")
    return content


def need_keys(content: dict, keys: tuple[str, ...], place: Any) -> None:
    """Raises CorpusError if a key is missing; `place` says where in the message."""
    missing = [key for key in keys if key not in content]
    if missing:
        raise CorpusError(f"{place}: expected the keys {', '.join(keys)}; {', '.join(missing)} is missing")


def read_lines(path: Path) -> list[str]:
    """Reads the lines of a text file, stripped, without empty ones. Raises CorpusError: no such file, or not UTF-8."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing; copy it into place") from None
    except UnicodeDecodeError:
        raise CorpusError(f"{path} is not UTF-8 text; convert it") from None

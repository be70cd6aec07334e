"""Lists in large JSON files, element by element: Objects365's 5 GB don't fit into memory as a whole."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from lookhear.training.glee.corpora.reading import CorpusError

BUFFER = 1 << 20  # bytes read at a time


def read_list(path: Path, name: str) -> Iterator[Any]:
    """
    Reads the elements of a list that is a member of a JSON file's outermost object.

    Each list takes a pass over the whole file, of which only one element and a buffer are in memory.

    Args:
        path: JSON file in UTF-8.
        name: of the member; nothing is yielded if it is missing or empty.

    Raises:
        CorpusError: no such file, not a JSON object, or the member is not a list.
    """
    try:
        with path.open("rb") as file:
            if next(ijson.basic_parse(_from_start(file), buf_size=BUFFER))[0] != "start_map":
                raise CorpusError(f"{path}: expected a JSON object at the top")
            empty = True
            for element in ijson.items(_from_start(file), f"{name}.item", buf_size=BUFFER, use_float=True):
                empty = False
                yield element
            if empty:
                _refuse_other_kinds(file, name, path)
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing; copy it into place") from None
    except ijson.JSONError as error:
        raise CorpusError(f"{path} is not JSON: {_reason(error)}") from None


def _from_start(file: BinaryIO) -> BinaryIO:
    """Rewinds a file, past the byte order mark that some editors write."""
    file.seek(0)
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    return file


def _refuse_other_kinds(file: BinaryIO, name: str, path: Path) -> None:
    """Raises a CorpusError if the member `name` exists and is not a list."""
    for place, event, _ in ijson.parse(_from_start(file), buf_size=BUFFER, use_float=True):
        if place == name:
            if event != "start_array":
                raise CorpusError(f"{path}: {name!r} is not a list")
            return


def _reason(error: ijson.JSONError) -> str:
    """Shortens the parser's message to one line."""
    text = str(error)
    if "premature EOF" in text:
        return "it breaks off; copy or download it again"
    found = re.match(r"(?:\w+ error: )?(.+)\n\s*(.*)", text)  # the second line is the text around the error
    hint = "; JSON has no NaN: write 0 or null, or leave the key out" if "NaN" in text else ""
    return f"{found[1]}, in {found[2]!r}{hint}" if found else " ".join(text.split())

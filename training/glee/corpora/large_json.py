"""Lists in large JSON files, element by element: Objects365's 5 GB don't fit into memory as a whole."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson
import numpy as np

from lookhear.training.glee.corpora.reading import CorpusError

BUFFER = 1 << 20  # bytes read at a time
DEEPEST = 100  # lists and objects around a value; ijson keeps a path for each, as long as it is deep
OTHERS = bytes(set(range(256)) - set(b'[]{}"'))
STEPS = np.zeros(256, dtype=np.int64)  # of the depth, at each byte
STEPS[list(b"[{")], STEPS[list(b"]}")] = 1, -1


def read_list(path: Path, name: str) -> Iterator[Any]:
    """
    Reads the elements of a list that is a member of a JSON file's outermost object.

    Each list takes a pass over the whole file, of which only one element and a buffer are in memory.

    Args:
        path: JSON file in UTF-8.
        name: of the member; nothing is yielded if it is missing or empty.

    Raises:
        CorpusError: no such file, not a JSON object, values that are nested too deep, or the member is not a list.
    """
    try:
        with path.open("rb") as file:
            if next(ijson.basic_parse(_from_start(file), buf_size=BUFFER))[0] != "start_map":
                raise CorpusError(f"{path}: expected a JSON object at the top")
            empty, checked = True, _Checked(_from_start(file), path)
            for element in ijson.items(checked, f"{name}.item", buf_size=BUFFER, use_float=True):
                empty = False
                yield element
            if empty:
                _refuse_other_kinds(file, name, path)
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing; copy it into place") from None
    except ijson.JSONError as error:
        raise CorpusError(f"{path} is not JSON: {_reason(error)}") from None


class _Checked:
    """
    A JSON file whose values are not nested too deep; reading raises a CorpusError where they are.

    Args:
        file: at its first byte.
        path: of it, for the message.
    """

    def __init__(self, file: BinaryIO, path: Path):
        self._file, self._path = file, path
        self._depth, self._quotes, self._escape = (
            0,
            0,
            b"",
        )  # up to here; a backslash at the end belongs to what follows

    def read(self, size: int) -> bytes:
        """Reads some bytes of the file."""
        content = self._file.read(size)
        text = (self._escape + content).replace(b"\\\\", b"")
        self._escape = b"\\" if text.endswith(b"\\") else b""
        marks = np.frombuffer(text.replace(b'\\"', b"").translate(None, OTHERS), dtype=np.uint8)
        if not len(marks):
            return content
        quotes = self._quotes + np.cumsum(marks == ord('"'))
        depths = self._depth + np.cumsum(STEPS[marks] * (quotes % 2 == 0))  # not in texts
        self._depth, self._quotes = int(depths[-1]), int(quotes[-1]) % 2
        if depths.max() > DEEPEST:
            raise CorpusError(f"{self._path}: its values are nested more than {DEEPEST} deep")
        return content


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

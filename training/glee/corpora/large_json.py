"""Large JSON files, element by element: Objects365's 5 GB fit no memory as a whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lookhear.training.glee.corpora.reading import CorpusError

CHUNK = 1 << 24  # characters
SLACK = 1 << 22  # an error so far from the end of what was read isn't due to the reading
SPACE = " \t\r\n"


def read_members(path: Path, arrays: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """
    The members of the object that a JSON file holds, in their order.

    Args:
        arrays: members that are lists, whose elements come one by one, each with the member's name.

    Raises:
        CorpusError: no such file, no JSON object, or one of `arrays` is no list.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _Reader(file).members(arrays)
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing; copy it into place") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise CorpusError(f"{path} is not JSON: {reason}") from None
    except _UnexpectedError as error:
        raise CorpusError(f"{path}: {error}") from None


class _UnexpectedError(Exception):
    """The file is JSON, but not of the form that is read here."""


class _Reader:
    """A window of a file's text; everything before `place` is done with."""

    def __init__(self, file: TextIO):
        self.file, self.text, self.place, self.ended = file, "", 0, False
        self.decoder = json.JSONDecoder()

    def members(self, arrays: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        if self.peek() != "{":
            raise _UnexpectedError("expected a JSON object at the top")
        self.place += 1
        while self.peek() != "}":
            name = self.value()
            self.expect(":")
            if name in arrays:
                if self.peek() != "[":
                    raise _UnexpectedError(f"{name!r} is not a list")
                self.place += 1
                while self.peek() != "]":
                    yield name, self.value()
                    self.comma("]")
                self.place += 1
            else:
                yield name, self.value()
            self.comma("}")

    def peek(self) -> str:
        """The next character that isn't white space."""
        while True:
            while self.place < len(self.text) and self.text[self.place] in SPACE:
                self.place += 1
            if self.place < len(self.text):
                return self.text[self.place]
            if self.ended:
                raise json.JSONDecodeError("it breaks off", "", 0)
            self.more()

    def expect(self, character: str) -> None:
        if self.peek() != character:
            raise json.JSONDecodeError(f"a {character!r} is missing before {self.text[self.place :][:40]!r}", "", 0)
        self.place += 1

    def comma(self, end: str) -> None:
        """Passes a comma, which may be missing only before `end`."""
        if self.peek() != end:
            self.expect(",")

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.place)
                if end < len(self.text) or self.ended:  # else a number may go on
                    self.place = end
                    return value
            except json.JSONDecodeError as error:
                if self.ended or len(self.text) - error.pos > SLACK:
                    raise
            self.more()

    def more(self) -> None:
        """Reads on; twice as much each time for a value that is longer than what was read."""
        self.text, self.place = self.text[self.place :], 0
        added = self.file.read(max(CHUNK, len(self.text)))
        self.text, self.ended = self.text + added, not added

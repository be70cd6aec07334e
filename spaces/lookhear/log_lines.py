"""Errors in the log: one line each instead of a library's traceback."""

from __future__ import annotations

import io
import threading
from typing import TextIO

BEGIN = "Traceback (most recent call last):"
CHAINS = ("During handling of the above exception", "The above exception was the direct cause")


class OneLineErrors(io.TextIOBase):
    """
    A stream that takes the place of `sys.stderr`: of a traceback only the error is written, of a chain the first one.

    Args:
        stream: that lines go to.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._threads = threading.local()  # lines of several threads may come in turn

    def write(self, text: str) -> int:
        """Writes the text, line by line; what is no whole line yet waits."""
        *lines, rest = (getattr(self._threads, "rest", "") + text).split("\n")
        self._threads.rest = rest
        for line in lines:
            self._take(line)
        return len(text)

    def _take(self, line: str) -> None:
        """Writes one line, or leaves it out."""
        state = getattr(self._threads, "state", "plain")
        if line.lstrip(" |+").startswith(BEGIN):
            self._threads.state = "again" if state == "chain" else "story"
        elif state in ("story", "again"):
            if not line or line.startswith((" ", "\t")):
                return
            self._threads.state = "told"
            if state == "story":
                self._stream.write(f"error: {line}\n")
                self._stream.flush()
        elif state in ("told", "chain") and not line:
            return
        elif state == "told" and line.startswith(CHAINS):
            self._threads.state = "chain"
        else:
            self._threads.state = "plain"
            self._stream.write(line + "\n")
            self._stream.flush()

    def flush(self) -> None:
        """Writes what there is; a line that has not ended stays, as it may belong to a traceback."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person reads along."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Returns the number of the stream's file."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # declared as an attribute
        return self._stream.encoding

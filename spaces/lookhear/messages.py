"""What is wrong with a user's input, said in the page instead of a traceback in the log."""

from __future__ import annotations

import contextlib
import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import gradio as gr


@contextlib.contextmanager
def errors_as_messages(path: str | None = None) -> Iterator[None]:
    """
    Errors of bad input within it become messages of the page that stay until they are closed, and a line of the log.

    Args:
        path: of the uploaded file, which messages call by its name alone.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        sentence = as_sentence(error, path)
        print(f"refused: {sentence}", file=sys.stderr, flush=True)
        raise gr.Error(
            html.escape(sentence, quote=False),
            duration=None,
            title="That did not work",
            print_exception=False,
        ) from error


def as_sentence(error: BaseException, path: str | None = None) -> str:
    """Returns an error's message on one line, without folders of the server."""
    text = " ".join(str(error).split()) or type(error).__name__
    if path is not None:
        text = text.replace(str(path), Path(path).name)
    return re.sub(r"(?<![\w:/])/(?:[\w.-]+/)+", "", text)

"""What the tab "Ask" does with a picture: a conversation about it, in words and with what they mean drawn on it."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lookhear.processing.glee import draw_objects, read_image

LONGEST_QUESTION, MOST_QUESTIONS = 200, 12  # letters; questions of one conversation
WORDLESS, WAITING = "(no words)", "…"

Message = dict[str, Any]


def as_question(text: str | None) -> str:
    """
    Checks what was typed.

    Raises:
        ValueError: there is no question, or it is too long.
    """
    question = " ".join((text or "").split())
    if not question:
        raise ValueError("Type a question about the picture.")
    if len(question) > LONGEST_QUESTION:
        raise ValueError(f"A question may have at most {LONGEST_QUESTION} letters.")
    return question


class Talk:
    """
    A visitor's conversation about one picture.

    Args:
        ask: pipeline of the task `reasoning-segmentation`.
        path: of the picture.

    Attributes:
        path: of the picture.
        messages: for the page, as far as questions have been answered.

    Raises:
        ValueError: the file is no picture that can be read.
    """

    def __init__(self, ask: Any, path: str):
        self.path = path
        self._picture = read_image(path)
        self._conversation = ask.conversation(self._picture)
        self.messages: list[Message] = []
        self._drawings = tempfile.TemporaryDirectory()  # goes when the conversation does

    def ask(self, question: str) -> Iterator[list[Message]]:
        """
        Asks a question; a conversation is as it was if that fails.

        Args:
            question: from `as_question`.

        Yields:
            All messages for the page, first with no word of the answer, then with more and more of them, then with
            what it shows drawn on the picture, if it shows anything.

        Raises:
            ValueError: the conversation is too long.
        """
        asked = len(self.messages)
        if sum(message["role"] == "user" for message in self.messages) >= MOST_QUESTIONS:
            raise ValueError(f"A conversation may have {MOST_QUESTIONS} questions: start a new one.")
        messages = [*self.messages, {"role": "user", "content": _escaped(question)}]
        yield [*messages, {"role": "assistant", "content": WAITING}]
        words, stream = "", self._conversation.stream(question)
        while True:
            try:
                words += next(stream)
            except StopIteration as end:
                answer = end.value
                break
            yield [*messages, {"role": "assistant", "content": _escaped(words)}]
        content = [_escaped(answer["text"] or WORDLESS), *self._drawn(answer["objects"], f"{asked}.jpg")]
        self.messages = [*messages, {"role": "assistant", "content": content}]
        yield self.messages

    def _drawn(self, objects: list[dict], name: str) -> list[gr.Image]:
        """Draws what an answer shows; an empty mask shows nothing."""
        shown = [found for found in objects if found["box"] is not None]
        if not shown:
            return []
        path = Path(self._drawings.name) / name
        draw_objects(self._picture, shown).save(path, quality=90)
        says = "Shown: " + ", ".join(found["label"] for found in shown)
        return [gr.Image(str(path), alt_text=says, show_label=False, buttons=["fullscreen", "download"], render=False)]


def _escaped(text: str) -> str:
    """Escapes a text, as a message of the page is HTML."""
    return html.escape(text, quote=False)

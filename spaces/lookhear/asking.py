"""What the tab "Ask" does with a picture: a conversation about it, in words and with what they mean drawn on it."""

from __future__ import annotations

import html
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from lookhear.processing.glee import draw_objects, read_image

LONGEST_QUESTION, MOST_QUESTIONS = 200, 12  # letters; questions of one conversation
AT_HAND = 8  # conversations whose pictures, and what was seen in them, stay in memory; others are opened again
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

    It is remembered for as long as its page may come back, and visitors are many. So it holds texts and names of
    files only; what takes memory, the picture and what the model has seen in it, is at hand for the latest few.

    Args:
        ask: pipeline of the task `reasoning-segmentation`.
        path: of the picture.

    Attributes:
        path: of the picture.
        messages: for the page, as far as questions have been answered.

    Raises:
        ValueError: the file is no picture that can be read.
    """

    _at_hand: OrderedDict[Talk, tuple[Image.Image, Any]] = OrderedDict()  # pictures and pipelines' conversations

    def __init__(self, ask: Any, path: str):
        self.path, self._ask = path, ask
        self.messages: list[Message] = []
        self._said: list[Message] = []  # the same as the pipeline's conversation has it
        self._opened()
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
        picture, conversation = self._opened()
        words, stream = "", conversation.stream(question)
        while True:
            try:
                words += next(stream)
            except StopIteration as end:
                answer = end.value
                break
            yield [*messages, {"role": "assistant", "content": _escaped(words)}]
        drawn = self._drawn(picture, answer["objects"], f"{asked}.jpg")
        content = [_escaped(answer["text"] or WORDLESS), *drawn]
        self._said = conversation.messages
        self.messages = [*messages, {"role": "assistant", "content": content}]
        yield self.messages

    def _opened(self) -> tuple[Image.Image, Any]:
        """Returns the picture and the pipeline's conversation about it, where it stopped."""
        opened = self._at_hand.pop(self, None)
        if opened is None:
            picture = read_image(self.path)
            conversation = self._ask.conversation(picture)
            conversation.messages = self._said
            opened = picture, conversation
        self._at_hand[self] = opened  # as the latest
        while len(self._at_hand) > AT_HAND:
            self._at_hand.popitem(last=False)
        return opened

    def _drawn(self, picture: Image.Image, objects: list[dict], name: str) -> list[gr.Image]:
        """Draws what an answer shows; an empty mask shows nothing."""
        shown = [found for found in objects if found["box"] is not None]
        if not shown:
            return []
        path = Path(self._drawings.name) / name
        draw_objects(picture, shown).save(path, quality=90)
        says = "Shown: " + ", ".join(found["label"] for found in shown)
        return [gr.Image(str(path), alt_text=says, show_label=False, buttons=["fullscreen", "download"], render=False)]


def _escaped(text: str) -> str:
    """Escapes a text, as a message of the page is HTML."""
    return html.escape(text, quote=False)

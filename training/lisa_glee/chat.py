"""Conversations about a picture as messages, and how chat templates write the words of one."""

from collections.abc import Iterable
from typing import Any

# For Jinja: `words(message)` is a message's text, be it given as a text or in parts.
WORDS = """\
{%- macro words(message) -%}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""


def messages(turns: Iterable[tuple[str, str]], ask: bool = False) -> list[dict[str, Any]]:
    """
    Writes questions and answers as messages for a chat template; the picture stands before the first question.

    Args:
        turns: (question, answer) of each turn, at least one.
        ask: whether to leave out the last answer.
    """
    written: list[dict[str, Any]] = []
    for question, answer in turns:
        written.append({"role": "user", "content": [{"type": "text", "text": question}]})
        written.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    written[0]["content"].insert(0, {"type": "image"})
    return written[:-1] if ask else written

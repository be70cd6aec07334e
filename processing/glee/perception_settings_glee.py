"""How `object-perception` looks: what may be given to the pipeline once, and to a call of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from .tracking_glee import MODES


@dataclass(frozen=True)
class PerceptionSettings:
    """
    Settings of the pipeline `object-perception` or of one call, see `ObjectPerceptionPipeline`.

    Attributes:
        labels: names of categories for images and videos that come without a prompt.
        expressions: sentences for images and videos that come without a prompt.
        threshold: the lowest score, from 0 to 1; 0.2 is that of the published demo.
        top_k: the most results of labels; 100 as COCO counts.
        prompts_at_once: expressions or visual prompts in one pass; each has queries and masks of its own.
        tracking: of labels in a video, "memory" or "minvis".
        reprompt: whether an expression's object in a video is also looked for by its own mask.

    Raises:
        ValueError: a value cannot be used.
    """

    labels: Sequence[str] | None = None
    expressions: Sequence[str] | None = None
    threshold: float = 0.2
    top_k: int = 100
    prompts_at_once: int = 4
    tracking: str = "memory"
    reprompt: bool = False

    def __post_init__(self) -> None:
        if not (_is_number(self.threshold) and 0 <= self.threshold <= 1):
            raise ValueError(f"`threshold` must be a number from 0 to 1, not {self.threshold!r}.")
        for name in ("top_k", "prompts_at_once"):
            check_count(name, getattr(self, name))
        if self.tracking not in MODES:
            raise ValueError(f"`tracking` must be one of {', '.join(map(repr, MODES))}, not {self.tracking!r}.")
        if not isinstance(self.reprompt, bool):
            raise ValueError(f"`reprompt` must be True or False, not {self.reprompt!r}.")

    def updated(self, given: dict[str, Any]) -> PerceptionSettings:
        """
        Returns these settings with those of a call; `None` stands for what was set before.

        Raises:
            ValueError: there is no such setting, or a value cannot be used.
        """
        if unknown := sorted(given.keys() - {field.name for field in fields(self)}):
            raise ValueError(f"Unknown argument {', '.join(map(repr, unknown))} of the pipeline object-perception.")
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    @property
    def prompts(self) -> dict[str, Sequence[str] | None]:
        """What is looked for in inputs that come without a prompt."""
        return {"labels": self.labels, "expressions": self.expressions}


def check_count(name: str, value: Any) -> None:
    """
    Checks that a number counts something.

    Raises:
        ValueError: it isn't a positive integer.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, not {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

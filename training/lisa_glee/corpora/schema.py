"""The schema of all corpora: a picture, and what can be asked about it.

Readers give rows; a row is turned into an `AnnotatedPicture` when it is drawn, so masks and label maps are read only
then. `templates.py` makes questions and answers of its subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from lookhear.training.glee.corpora.masks import Size, decode_mask

# name: of a class, in words; phrase: names a part of the picture; question: a sentence that asks for one.
Kind = Literal["name", "phrase", "question"]
GROUPS = ("semantic", "referring", "visual_questions", "reasoning")


class Region(Protocol):
    """Pixels of a picture, found when they are needed."""

    def decode(self, size: Size) -> np.ndarray:
        """
        Returns the pixels, `(height, width)` bool.

        Args:
            size: (height, width) of the picture.

        Raises:
            ValueError: the annotation is damaged or of another size.
        """


@dataclass(frozen=True)
class MaskRegion:
    """
    The union of masks.

    Attributes:
        masks: polygons or run lengths, as in GLEE's schema.
    """

    masks: tuple[dict[str, Any], ...]

    def decode(self, size: Size) -> np.ndarray:
        """Returns the pixels of all masks, see [`Region.decode`]."""
        found = np.zeros(size, dtype=bool)
        for mask in self.masks:
            found |= decode_mask(mask, size)
        return found


@dataclass(frozen=True, eq=False)
class LabelRegion:
    """
    The pixels of some values in a label map.

    Attributes:
        labels: `(height, width)` uint8.
        values: the values that belong to the region.
    """

    labels: np.ndarray
    values: tuple[int, ...]

    def decode(self, size: Size) -> np.ndarray:
        """Returns the pixels of these values, see [`Region.decode`]."""
        if self.labels.shape != size:
            rows, columns = self.labels.shape
            raise ValueError(f"its label map has {rows} x {columns} pixels, its picture {size[0]} x {size[1]}")
        return np.isin(self.labels, self.values)


@dataclass(frozen=True)
class Subject:
    """
    What can be asked for.

    Attributes:
        kind: what the text is.
        text: a class's name, a phrase or a question.
        region: the right answer.
        reason: why it is right, in a sentence; empty if the corpus doesn't say.
    """

    kind: Kind
    text: str
    region: Region
    reason: str = ""


@dataclass(frozen=True)
class Turn:
    """
    A question and its answer.

    Attributes:
        question: what is asked.
        answer: what is said, with a `[SEG]` if a mask is shown.
        region: what the mask shows; None for an answer in words only.
    """

    question: str
    answer: str
    region: Region | None = None


@dataclass(frozen=True)
class AnnotatedPicture:
    """
    A picture, not yet decoded.

    Attributes:
        id: unique within its corpus.
        image: `{"path", "bytes"}`, a file or the content of one.
        size: (height, width) that its annotations are for; None if they have no pixels.
        subjects: what can be asked for; each becomes a conversation of its own.
        turns: a conversation about the picture in words, instead of `subjects`.
        ignored: pixels that nothing is known about.
    """

    id: str
    image: dict[str, Any]
    size: Size | None = None
    subjects: tuple[Subject, ...] = ()
    turns: tuple[Turn, ...] = ()
    ignored: Region | None = None


@dataclass(frozen=True)
class Corpus:
    """
    Rows of a corpus.

    Attributes:
        name: of its reader, for messages.
        rows: with random access.
        read: makes a picture of a row; raises `CorpusError` if its annotations are missing or damaged.
    """

    name: str
    rows: Sequence[Any]
    read: Callable[[Any], AnnotatedPicture]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> AnnotatedPicture:
        """Reads a row. Raises CorpusError: its annotations are missing or damaged."""
        return self.read(self.rows[index])

"""Several corpora as one data set of conversations: an item's number determines its corpus, picture and questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from lookhear.training.glee.corpora.picture import decode_image
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.mixture.row_order import RowOrder, Schedule
from lookhear.training.lisa_glee.corpora.schema import Corpus, Turn
from lookhear.training.lisa_glee.templates import converse

MOST_TRIES = 100
UNKNOWN = -1.0  # in a mask: pixels that nothing is known about


@dataclass(frozen=True)
class Conversation:
    """
    Questions and answers about a picture.

    Attributes:
        turns: in order.
        masks: `(height, width)` float32 for each `[SEG]`: 1, 0, or `UNKNOWN`.
    """

    turns: tuple[Turn, ...]
    masks: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Example:
    """
    A picture and conversations about it, each of which starts anew.

    Attributes:
        image: decoded, RGB.
        conversations: at least one.
    """

    image: Image.Image
    conversations: tuple[Conversation, ...]


@dataclass(frozen=True)
class Source:
    """
    A corpus in the mixture.

    Attributes:
        corpus: its pictures.
        group: one of the mixture's groups.
        weight: of its pictures among those of its group, above 0.
    """

    corpus: Corpus
    group: str
    weight: float = 1.0


class ConversationMixture(Dataset):
    """
    Item i is an [`Example`] of one corpus: the same in every run, whatever came before.

    So training resumes exactly where it was stopped, and any number of processes and workers sees the same items. The
    groups' shares hold within every block of about a thousand items. Within a corpus every picture appears once per
    epoch, in an order of the epoch. A picture without anything to ask for is replaced by a random other one of its
    corpus, and so is one that cannot be used, if `problems` skips.

    Args:
        sources: the corpora.
        shares: weight of each group; a group without corpus gets none.
        length: number of items.
        seed: other seeds give other items.
        most: conversations about a picture.
        problems: where pictures that cannot be used are reported.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        shares: Mapping[str, float],
        length: int,
        seed: int = 0,
        most: int = 3,
        problems: Problems | None = None,
    ):
        self.sources, self.length, self.seed, self.most = list(sources), length, seed, most
        self.problems = problems or Problems()
        self.schedule = Schedule(ratios(sources, shares), seed)
        self._orders = [
            RowOrder(len(source.corpus), 1, (seed, 2, number)) for number, source in enumerate(self.sources)
        ]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self.length:
            raise IndexError(index)
        number, turn = self.schedule[index]
        corpus = self.sources[number].corpus
        random = np.random.default_rng((self.seed, 1, index))
        row = int(self._orders[number].batch(turn)[0])
        for _ in range(MOST_TRIES):
            example = self._example(corpus, row, random)
            if example is not None:
                return example
            row = int(random.integers(len(corpus)))
        found = self.problems.summary()
        raise CorpusError(f"{corpus.name}: {MOST_TRIES} pictures in a row have nothing to ask for; {found}")

    def _example(self, corpus: Corpus, row: int, random: np.random.Generator) -> Example | None:
        """Makes an example; None if the picture has nothing to ask for, or cannot be used, which is reported."""
        try:
            picture = corpus[row]
            turns = converse(picture, random, self.most)
            if not turns:
                return None
            image = decode_image({"id": picture.id, "image": picture.image}, picture.size)
            size = (image.height, image.width)
            try:
                unknown = None if picture.ignored is None else picture.ignored.decode(size)
                conversations = tuple(_conversation(part, size, unknown) for part in turns)
            except ValueError as error:
                raise CorpusError(f"image {picture.id}: {error}") from None
        except CorpusError as error:
            self.problems.add(corpus.name, str(error))
            self.problems.settle(corpus.name)
            return None
        return Example(image, conversations)


def _conversation(turns: tuple[Turn, ...], size: tuple[int, int], unknown: np.ndarray | None) -> Conversation:
    masks = []
    for turn in turns:
        if turn.region is not None:
            mask = turn.region.decode(size).astype(np.float32)
            if unknown is not None:
                mask[unknown] = UNKNOWN
            masks.append(mask)
    return Conversation(turns, tuple(masks))


def ratios(sources: Sequence[Source], shares: Mapping[str, float]) -> list[float]:
    """
    Divides the shares of groups among their corpora.

    Args:
        sources: the corpora.
        shares: weight of each group.

    Returns:
        weight of each source.

    Raises:
        ValueError: a group has no share.
    """
    of_group: dict[str, float] = {}
    for source in sources:
        if source.group not in shares:
            raise ValueError(f"data.shares has no {source.group!r}, the group of {source.corpus.name}")
        of_group[source.group] = of_group.get(source.group, 0.0) + source.weight
    return [shares[source.group] * source.weight / of_group[source.group] for source in sources]

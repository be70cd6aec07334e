"""How bright the mouth crops of a corpus are: exact counts of each grey value, summed over clips and shards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

LEVELS = 256  # grey values of 8 bits


@dataclass
class GreyValues:
    """
    Counts of the grey values of mouth crops.

    Attributes:
        counts: `(256,)` int64, pixels of each value.
    """

    counts: np.ndarray

    @classmethod
    def of(cls, counts: Iterable[int] | None = None) -> GreyValues:
        """Makes counts from a list of 256, or zeros."""
        return cls(np.zeros(LEVELS, np.int64) if counts is None else np.array(list(counts), np.int64))

    def add(self, mouths: np.ndarray) -> None:
        """
        Counts the pixels of a clip. Black frames are left out: there the mouth was not found.

        Args:
            mouths: `(frames, height, width)` uint8.
        """
        seen = mouths[mouths.any(axis=(1, 2))]
        self.counts += np.bincount(seen.ravel(), minlength=LEVELS)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Mean of the pixels, in [0, 1], which is 255; NaN without pixels."""
        return float(self.counts @ np.arange(LEVELS) / self.pixels / (LEVELS - 1)) if self.pixels else float("nan")

    @property
    def deviation(self) -> float:
        """Standard deviation of the pixels over all of them, in [0, 1]; NaN without pixels."""
        if not self.pixels:
            return float("nan")
        squares = (np.arange(LEVELS) / (LEVELS - 1) - self.mean) ** 2
        return float(np.sqrt(self.counts @ squares / self.pixels))

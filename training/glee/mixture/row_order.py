"""Order of sources and of their rows, with random access."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

BLOCK = 1024  # batches within which the sources' shares hold


class Schedule:
    """
    Chooses the source of each batch.

    Item i is (source, turn): batch i is the turn-th batch of this source.

    Args:
        ratios: weights of the sources, above 0.
        seed: other seeds give another order.
        together: number of successive batches of one source.

    Raises:
        ValueError: there is no source, or a ratio is not positive.
    """

    def __init__(self, ratios: Sequence[float], seed: int, together: int = 1):
        if not len(ratios) or not all(ratio > 0 for ratio in ratios):
            raise ValueError(f"ratios must be positive, one for each source, got {list(ratios)}")
        shares = np.asarray(ratios, dtype=np.float64) / sum(ratios)
        self.seed, self.together = seed, together
        self._ends = shares.cumsum()
        self._ends[-1] = 1.0
        self._block = max(BLOCK, int(np.ceil(4 / shares.min())))
        self._last: tuple[int, np.ndarray] | None = None

    def __getitem__(self, index: int) -> tuple[int, int]:
        group, place = divmod(index, self.together)
        block, inside = divmod(group, self._block)
        order = self._sources(block)
        source = int(order[inside])
        turn = int(self._before(block)[source] + np.count_nonzero(order[:inside] == source))
        return source, turn * self.together + place

    def _before(self, block: int) -> np.ndarray:
        """Counts the batches of each source in the blocks before, rounded so that they add up."""
        ends = np.floor(self._ends * (block * self._block) + 0.5).astype(np.int64)
        return np.diff(ends, prepend=0)

    def _sources(self, block: int) -> np.ndarray:
        """Returns the sources of a block's batches."""
        if self._last is None or self._last[0] != block:
            counts = self._before(block + 1) - self._before(block)
            random = np.random.default_rng((self.seed, 0, block))
            self._last = block, random.permutation(np.repeat(np.arange(len(counts)), counts))
        return self._last[1]


class RowOrder:
    """
    Chooses the rows of each batch: in each epoch every row once, or as often as its repeat factor says.

    A row with factor r appears r times per epoch on average, rounded up or down. An incomplete last batch of
    an epoch is dropped; a data set smaller than a batch is repeated within it.

    Args:
        rows: number of rows.
        batch: rows of a batch.
        seed: any number or tuple.
        factors: `(rows,)` repeat factors.
        wide: `(rows,)` bool; wide and tall pictures are in separate batches.

    Raises:
        ValueError: there is no row.
    """

    def __init__(
        self,
        rows: int,
        batch: int,
        seed: int | tuple[int, ...],
        factors: np.ndarray | None = None,
        wide: np.ndarray | None = None,
    ):
        if rows < 1 or batch < 1:
            raise ValueError(f"a batch of {batch} of {rows} rows cannot be made")
        self.rows, self.batch_size, self.wide = rows, batch, wide
        self.seed = seed if isinstance(seed, tuple) else (seed,)
        self._factors = factors
        total = rows if factors is None else int(np.floor(factors.sum()))
        self._total = max(total, batch)
        self.batches = self._total // batch  # per epoch
        self._last: tuple[int, np.ndarray] | None = None

    def batch(self, turn: int) -> np.ndarray:
        """Returns the `(batch,)` rows of the turn-th batch."""
        epoch, place = divmod(turn, self.batches)
        if self._last is None or self._last[0] != epoch:
            self._last = epoch, self._epoch(epoch)
        return self._last[1][place]

    def _epoch(self, epoch: int) -> np.ndarray:
        """Returns the `(batches, batch)` rows of an epoch."""
        random = np.random.default_rng((*self.seed, epoch))
        order = random.permutation(self.rows)
        if self._factors is not None:
            ends = np.floor(self._factors[order].cumsum() + random.random()).astype(np.int64)
            order = random.permutation(np.repeat(order, np.diff(ends, prepend=0)))
        order = np.resize(order, self._total)
        if self.wide is not None:
            order = order[np.argsort(self.wide[order], kind="stable")]  # at most one batch has both
            spare = len(order) - self.batches * self.batch_size
            if spare:  # dropped at random, not always of the wide ones
                order = np.delete(order, random.choice(len(order), size=spare, replace=False))
        batches = order[: self.batches * self.batch_size].reshape(self.batches, self.batch_size)
        return batches[random.permutation(self.batches)]


class RowStream:
    """
    An endless stream of rows that are read while they are used, for corpora too large for random access.

    Epochs differ in the order of the shards and in the rows that are drawn from a buffer. Batches can be taken in any
    order; going forward reads the skipped rows, going back starts from the beginning. So each process reads (but does
    not decode) the rows of the others, too.

    Args:
        shards: of the corpus.
        read: reads the rows of a shard.
        seed: other seeds give another order.
        buffer: rows among which the next one is drawn; 1 keeps the order.
    """

    def __init__(self, shards: Sequence, read: Callable[[object], Iterator[dict]], seed: int = 0, buffer: int = 256):
        if not len(shards):
            raise ValueError("shards is empty: a stream needs at least one")
        self.shards, self.read, self.seed, self.buffer = list(shards), read, seed, buffer
        self._rows: Iterator[dict] | None = None
        self._place, self._process = 0, os.getpid()

    def batch(self, turn: int, size: int) -> list[dict]:
        """Returns `size` rows, from row `turn * size` on."""
        start = turn * size
        if self._rows is None or start < self._place or self._process != os.getpid():
            # A forked worker must not continue reading a file that another process reads, too.
            self._rows, self._place, self._process = self._stream(), 0, os.getpid()
        for _ in islice(self._rows, start - self._place):
            pass
        rows = list(islice(self._rows, size))
        self._place = start + size
        return rows

    def __getstate__(self) -> dict:
        """Leaves the open files out of a copy for another process, which starts from the beginning."""
        return {**self.__dict__, "_rows": None, "_place": 0}

    def _stream(self) -> Iterator[dict]:
        epoch = 0
        while True:
            random = np.random.default_rng((self.seed, 3, epoch))
            held: list[dict] = []
            empty = True
            for shard in random.permutation(len(self.shards)):
                for row in self.read(self.shards[shard]):
                    empty = False
                    if len(held) < self.buffer:
                        held.append(row)
                        continue
                    place = random.integers(len(held))
                    held[place], row = row, held[place]
                    yield row
            if empty:
                raise ValueError(f"none of {len(self.shards)} shards holds a row")
            for place in random.permutation(len(held)):
                yield held[place]
            epoch += 1

"""Order of sources and of their rows, with random access."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

BLOCK = 1024  # batches within which the sources' shares hold


class Schedule:
    """
    Source of each batch.

    Item i is (source, turn): batch i is the turn-th batch of this source.

    Args:
        ratios: of the sources.
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
        """How many batches of each source lie in the blocks before: rounded so that they add up."""
        ends = np.floor(self._ends * (block * self._block) + 0.5).astype(np.int64)
        return np.diff(ends, prepend=0)

    def _sources(self, block: int) -> np.ndarray:
        """The sources of a block's batches."""
        if self._last is None or self._last[0] != block:
            counts = self._before(block + 1) - self._before(block)
            random = np.random.default_rng((self.seed, 0, block))
            self._last = block, random.permutation(np.repeat(np.arange(len(counts)), counts))
        return self._last[1]


class RowOrder:
    """
    Rows of each batch: in each epoch every row once, or as often as its repeat factor says.

    A row with factor r appears r times per epoch on average, and never more than one off. An incomplete last batch of an
    epoch is dropped; a data set smaller than a batch is repeated within it.

    Args:
        rows: how many there are; batch: rows of one; seed: any number or tuple.
        factors: `(rows,)` repeat factors; wide: `(rows,)` bool, wide and tall pictures come in batches of their own.

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
        self.batches = self._total // batch  # of a round
        self._last: tuple[int, np.ndarray] | None = None

    def batch(self, turn: int) -> np.ndarray:
        """`(batch,)` rows of the turn-th batch."""
        epoch, place = divmod(turn, self.batches)
        if self._last is None or self._last[0] != epoch:
            self._last = epoch, self._round(epoch)
        return self._last[1][place]

    def _round(self, epoch: int) -> np.ndarray:
        """`(batches, batch)` rows."""
        random = np.random.default_rng((*self.seed, epoch))
        order = random.permutation(self.rows)
        if self._factors is not None:
            ends = np.floor(self._factors[order].cumsum() + random.random()).astype(np.int64)
            order = random.permutation(np.repeat(order, np.diff(ends, prepend=0)))
        order = np.resize(order, self._total)
        if self.wide is not None:
            order = order[np.argsort(self.wide[order], kind="stable")]  # one batch at most holds both
            spare = len(order) - self.batches * self.batch_size
            if spare:  # dropped at random, not always of the wide ones
                order = np.delete(order, random.choice(len(order), size=spare, replace=False))
        batches = order[: self.batches * self.batch_size].reshape(self.batches, self.batch_size)
        return batches[random.permutation(self.batches)]


class RowStream:
    """
    An endless stream of rows that are read while they are used, for corpora too large for anything else.

    Rounds differ in the order of the shards and in what a buffer draws. Batches can be asked for in any order; going forward
    costs the reading of what is passed over, going back starts anew. So each process reads (but does not decode) what
    the others take.

    Args:
        shards: parts of the corpus; read: the rows of one shard.
        buffer: rows among which the next one is drawn; 1 leaves the order.
    """

    def __init__(self, shards: Sequence, read: Callable[[object], Iterator[dict]], seed: int = 0, buffer: int = 256):
        if not len(shards):
            raise ValueError("shards is empty: a stream needs at least one")
        self.shards, self.read, self.seed, self.buffer = list(shards), read, seed, buffer
        self._rows: Iterator[dict] | None = None
        self._place, self._process = 0, os.getpid()

    def batch(self, turn: int, size: int) -> list[dict]:
        """The rows from `turn * size` on."""
        start = turn * size
        if self._rows is None or start < self._place or self._process != os.getpid():
            # A worker that was forked must not read on in a file that another process reads, too.
            self._rows, self._place, self._process = self._stream(), 0, os.getpid()
        for _ in islice(self._rows, start - self._place):
            pass
        rows = list(islice(self._rows, size))
        self._place = start + size
        return rows

    def __getstate__(self) -> dict:
        """A copy for another process starts from the beginning: an open file cannot be passed on."""
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

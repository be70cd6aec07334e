"""An iterator that prefetches a bounded number of items in a thread of its own."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _End:
    """Marks the end of the items; `error` is what ended them, if anything did."""

    def __init__(self, error: BaseException | None):
        self.error = error


class ReadAhead(Generic[Item]):
    """Runs a generator in a thread; iterating gives its items, at most `room` of them waiting.

    An error of the generator is raised once, after the items that came before it. `close`, the end of a `with` block,
    or dropping the object ends the thread and closes the generator.

    Args:
        items: a generator. Only the thread touches it from here on.
        room: how much may wait, in the unit of `size`; two items may always wait.
        size: how much room an item takes; 1 by default.
    """

    # Two simple queues, as garbage collection may drop a reader in any thread at any moment: a lock that this thread
    # holds already, such as that of a `queue.Queue`, would never be free then. `SimpleQueue.put` needs none.

    def __init__(self, items: Iterator[Item], room: float, size: Callable[[Item], float] = lambda item: 1):
        self._made: SimpleQueue[tuple[Item, float] | _End] = SimpleQueue()
        self._taken: SimpleQueue[float | None] = SimpleQueue()  # sizes of the items taken; None: take no more
        self._over = False
        self._thread = threading.Thread(
            target=_work, args=(items, room, size, self._made, self._taken), name="read ahead", daemon=True
        )
        self._dropped = weakref.finalize(self, self._taken.put, None)
        self._thread.start()

    def __iter__(self) -> ReadAhead[Item]:
        return self

    def __next__(self) -> Item:
        made = None if self._over else self._made.get()
        if made is None or self._over:  # closed meanwhile, too
            raise StopIteration
        if isinstance(made, _End):
            self._over = True
            raise made.error or StopIteration
        item, size = made
        self._taken.put(size)
        return item

    def __enter__(self) -> ReadAhead[Item]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread and closes the generator; returns when both are done."""
        self._over = True
        self._dropped()
        self._thread.join()
        self._made = SimpleQueue()  # frees the items that nobody took


def _work(
    items: Iterator[Item],
    room: float,
    size: Callable[[Item], float],
    made: SimpleQueue[tuple[Item, float] | _End],
    taken: SimpleQueue[float | None],
) -> None:
    """Runs the generator. It holds no reference to the reader, so garbage collection of the reader stops it."""
    error: BaseException | None = None
    try:
        waiting, filled = 0, 0.0
        for item in items:
            needed = size(item)
            while not taken.empty() or (waiting >= 2 and filled + needed > room):
                freed = taken.get()
                if freed is None:
                    return
                waiting, filled = waiting - 1, filled - freed
            made.put((item, needed))
            waiting, filled = waiting + 1, filled + needed
            del item  # the reader's now, and may be large
    except BaseException as caught:  # the reader raises it
        error = caught
    finally:
        try:
            if isinstance(items, Generator):
                items.close()
        finally:
            made.put(_End(error))

"""An iterator that works ahead of its reader, in a thread of its own."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class _BoundedQueue:
    """Carries items from one thread to another; holds at least two of them, and more while they fit into `room`."""

    def __init__(self, room: float):
        self._room, self._held = room, 0.0
        self._items: deque[tuple[Any, float]] = deque()
        self._changed = threading.Condition()
        self._closed = self._ended = False
        self._error: BaseException | None = None

    def put(self, item: Any, size: float) -> bool:
        """Waits for room and adds an item; returns False if the consumer is closed."""
        with self._changed:
            while not self._closed and len(self._items) >= 2 and self._held + size > self._room:
                self._changed.wait()
            if self._closed:
                return False
            self._items.append((item, size))
            self._held += size
            self._changed.notify_all()
            return True

    def end(self, error: BaseException | None = None) -> None:
        """Ends the queue; `error` is raised after the last item."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self) -> Any:
        """Waits for the next item. Raises the source's error once after the last one, or StopIteration."""
        with self._changed:
            while not (self._items or self._ended or self._closed):
                self._changed.wait()
            if self._closed or not self._items:
                error, self._error = self._error, None
                raise error if error is not None and not self._closed else StopIteration
            item, size = self._items.popleft()
            self._held -= size
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Stops the consumer: waiting items are dropped and `put` returns False."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


def _fill(queue: _BoundedQueue, items: Iterator[Any], size: Callable[[Any], float]) -> None:
    """Runs in the thread. It holds no reference to the reader, so garbage collection of the reader stops it."""
    error: BaseException | None = None
    try:
        for item in items:
            if not queue.put(item, size(item)):
                break
    except BaseException as caught:  # the reader raises it
        error = caught
    finally:
        try:
            items.close()
        finally:
            queue.end(error)


class ReadAhead:
    """Runs a generator in a thread; iterating gives its items, at most `room` of them waiting.

    An error of the generator is raised once, after the items that came before it. `close`, the end of a `with` block,
    or dropping the object ends the thread and closes the generator.

    Args:
        items: a generator. Only the thread touches it from here on.
        room: how much may wait, in the unit of `size`; two items may always wait.
        size: how much room an item takes; 1 by default.
        name: of the thread.
    """

    def __init__(
        self,
        items: Iterator[Any],
        room: float,
        size: Callable[[Any], float] = lambda item: 1,
        name: str = "read ahead",
    ):
        self._queue = _BoundedQueue(room)
        self._thread = threading.Thread(target=_fill, args=(self._queue, items, size), name=name, daemon=True)
        self._dropped = weakref.finalize(self, self._queue.close)
        self._thread.start()

    def __iter__(self) -> ReadAhead:
        return self

    def __next__(self) -> Any:
        return self._queue.take()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread and closes the generator; returns when both are done."""
        self._dropped()
        self._thread.join()


def read_ahead(items: Iterable[Any], room: float, size: Callable[[Any], float] = lambda item: 1) -> Iterator[Any]:
    """Yields the same items, made in a thread that ends with this generator."""
    with ReadAhead(iter(items), room, size) as ahead:
        yield from ahead

"""An iterator that prefetches a bounded number of items in a thread of its own."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any


class ReadAhead:
    """
    Runs a generator in a thread; iterating gives its items.

    An error of the generator is raised once, after the items that came before it. `close`, the end of a `with` block, or
    dropping the object ends the thread and closes the generator.

    Args:
        items: a generator. Only the thread touches it from here on.
        room: how many items may wait, at least 1.
    """

    def __init__(self, items: Iterator[Any], room: int):
        self._queue = _BoundedQueue(room)
        self._thread = threading.Thread(target=_fill, args=(self._queue, items), name="read ahead", daemon=True)
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


class _BoundedQueue:
    """Passes items from one thread to another."""

    def __init__(self, room: int):
        self._room = room
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()
        self._closed = self._ended = False
        self._error: BaseException | None = None

    def put(self, item: Any) -> bool:
        """Waits for room and adds an item; returns False if the consumer is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._room)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def end(self, error: BaseException | None) -> None:
        """Marks the end of the items; `error` is raised after the last one."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self) -> Any:
        """Waits for the next item. Raises StopIteration after the last one, or once the source's error."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended or self._closed)
            if self._closed or not self._items:
                error, self._error = self._error, None
                raise error if error is not None and not self._closed else StopIteration
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Closes the queue for the consumer: waiting items are dropped, further ones refused."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


def _fill(queue: _BoundedQueue, items: Iterator[Any]) -> None:
    """Runs the worker loop. It holds no reference to the reader, so garbage collection of the reader stops it."""
    error: BaseException | None = None
    try:
        for item in items:
            put = queue.put(item)
            del item  # it is the reader's now, and may be large
            if not put:
                break
    except BaseException as caught:  # the reader raises it
        error = caught
    finally:
        try:
            items.close()
        finally:
            queue.end(error)

"""An iterator that works ahead in a thread: order, bounds, errors, and that nothing is left running."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from lookhear.processing.avsr.media_source_avsr import ReadAhead


class Source:
    """Numbers up to `count`, and what became of them."""

    def __init__(self, count: int, error: Exception | None = None):
        self.count, self.error = count, error
        self.made, self.closed = 0, threading.Event()

    def items(self):
        try:
            for number in range(self.count):
                self.made += 1
                yield number
            if self.error is not None:
                raise self.error
        finally:
            self.closed.set()


def settle(source: Source) -> int:
    """How many items are made while nobody takes any."""
    made = -1
    while made != source.made:
        made = source.made
        time.sleep(0.05)
    return made


def test_items_come_in_order_and_once():
    with ReadAhead(Source(1000).items(), 7) as ahead:
        assert list(ahead) == list(range(1000))
        assert list(ahead) == []


@pytest.mark.parametrize("room, size, waiting", [(4, 1, 4), (100, 25, 4), (1, 10, 2)])
def test_it_stays_within_its_room(room, size, waiting):
    """One more item than fits is made, and waits in the thread."""
    source = Source(1000)
    with ReadAhead(source.items(), room, lambda item: size) as ahead:
        assert settle(source) == waiting + 1
        assert next(ahead) == 0
        assert settle(source) == waiting + 2


def test_an_error_comes_once_behind_the_items_before_it():
    with ReadAhead(Source(3, ValueError("broken")).items(), 10) as ahead:
        assert [next(ahead) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="broken"):
            next(ahead)
        assert list(ahead) == []


def test_a_reader_that_stops_ends_the_thread():
    before = threading.active_count()
    source = Source(10**9)
    with ReadAhead(source.items(), 4) as ahead:
        next(ahead)
    assert source.closed.is_set() and threading.active_count() == before
    assert list(ahead) == []
    ahead.close()


def test_a_reader_that_is_dropped_ends_the_thread():
    source = Source(10**9)
    ahead = ReadAhead(source.items(), 4)
    next(ahead)
    del ahead
    gc.collect()
    assert source.closed.wait(5)


def test_garbage_collection_may_drop_a_reader_in_its_own_thread():
    closed = threading.Event()

    def items():
        try:
            while True:
                gc.collect()
                yield 0
        finally:
            closed.set()

    ahead = ReadAhead(items(), 10**9)
    ahead.itself = ahead
    next(ahead)
    del ahead
    assert closed.wait(10)


def read_ahead(items, room):
    """The items, made in a thread that ends with this generator."""
    with ReadAhead(items, room) as ahead:
        yield from ahead


def test_generators_one_behind_the_other_close_together():
    source = Source(10**9)
    doubled = (2 * item for item in read_ahead(source.items(), 4))
    with ReadAhead(read_ahead(doubled, 4), 4) as ahead:
        assert [next(ahead) for _ in range(3)] == [0, 2, 4]
    assert source.closed.wait(5)

"""The thread that works ahead: order, bounds, errors behind what came before, and an end."""

import threading
import time

import pytest

from lookhear.processing.glee.video_reading_glee import ReadAhead


def settled(condition) -> bool:
    """Whether something becomes true within a few seconds."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_items_come_in_order_and_no_more_than_there_is_room_for():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    with ReadAhead(items(), room=3) as ahead:
        assert settled(lambda: len(taken) == 4)  # three wait, one is in the hand
        time.sleep(0.05)
        assert len(taken) == 4 and next(ahead) == 0
        assert list(ahead) == list(range(1, 20))
        assert list(ahead) == []


def test_an_error_comes_behind_the_items_and_once():
    def items():
        yield 1
        raise ValueError("broken")

    ahead = ReadAhead(items(), room=5)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)
    assert list(ahead) == []


@pytest.mark.parametrize("how", ["close", "drop"])
def test_the_generator_is_closed_with_its_reader(how):
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    ahead = ReadAhead(items(), room=2)
    assert next(ahead) == 0
    if how == "close":
        ahead.close()
        assert closed.is_set() and list(ahead) == []
    del ahead
    assert closed.wait(10)

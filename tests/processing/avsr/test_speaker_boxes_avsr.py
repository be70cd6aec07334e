"""Which face is chosen, and the frames' way through a locator: any locator, in step, in bounded memory, no leaks."""

from __future__ import annotations

import gc
import itertools
import threading

import numpy as np
import pytest

from lookhear.processing.avsr.speaker_locator_avsr import GivenTrack, check_speaker, plain_speaker, speaker_name
from lookhear.processing.avsr.speaker_tracking_avsr import ChosenSpeaker, SpeakerBox, SpeakerBoxes, checked_box


def frame_of(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number % 256, np.uint8)


def located(locator, count: int, asked="the one on the left") -> list[tuple[int, SpeakerBox | None]]:
    """(frame's number, box) of so many frames, in the order in which they come out."""
    boxes = SpeakerBoxes(ChosenSpeaker(asked, locator))
    try:
        pairs = [pair for number in range(count) for pair in boxes.add(frame_of(number))]
        pairs += boxes.finish()
    finally:
        boxes.close()
    return [(int(frame[0, 0, 0]), box) for frame, box in pairs]


def number_boxes(frames, prompt):
    """A box that tells which frame it is of."""
    for frame in frames:
        number = int(frame[0, 0, 0])
        yield None if number % 3 == 0 else (number, 0, number + 1, 1, 0.5)


def looks_ahead(frames, prompt):
    while window := list(itertools.islice(frames, 7)):
        yield from number_boxes(window, prompt)


def takes_all_first(frames, prompt):
    return list(number_boxes(list(frames), prompt))


@pytest.mark.parametrize("locator", [number_boxes, looks_ahead, takes_all_first])
@pytest.mark.parametrize("count", [0, 1, 5, 60])
def test_each_frame_has_its_own_box(locator, count):
    pairs = located(locator, count)
    assert [number for number, _ in pairs] == list(range(count))
    for number, box in pairs:
        assert box == (None if number % 3 == 0 else SpeakerBox((number, 0, number + 1, 1), 0.5))


def test_the_locator_is_told_whom_to_look_for():
    asked = []
    located(lambda frames, prompt: asked.append(prompt) or (None for _ in frames), 3, {"point": (1.0, 2.0)})
    assert asked == [{"point": (1.0, 2.0)}]


def test_frames_wait_only_as_long_as_the_locator_looks_ahead():
    boxes = SpeakerBoxes(ChosenSpeaker("x", looks_ahead))
    held = []
    for number in range(500):
        for _ in boxes.add(frame_of(number)):
            pass
        held.append(len(boxes._waiting))
    boxes.close()
    assert max(held) <= 7 + 4 + 7


def test_a_locator_that_needs_no_frames():
    """It is not run away with: boxes are made as they are taken."""
    made = []

    def one_place(frames, prompt):
        for number in itertools.count():
            made.append(number)
            yield 0, 0, 4, 4

    assert located(one_place, 40) == [(number, SpeakerBox((0, 0, 4, 4))) for number in range(40)]
    assert len(made) < 400


def test_a_locator_that_ends_early():
    boxes = SpeakerBoxes(ChosenSpeaker("x", lambda frames, prompt: itertools.islice(number_boxes(frames, prompt), 5)))
    pairs = [pair for number in range(30) for pair in boxes.add(frame_of(number))] + list(boxes.finish())
    boxes.close()
    assert len(pairs) == 30 and [box is None for _, box in pairs] == [True, False, False, True, False] + [True] * 25
    assert boxes.unanswered == 25


@pytest.mark.parametrize(
    "value, message",
    [
        ((1, 2, 3), "frame 2"),
        ((1, 2, 3, 4, 5, 6), "must be"),
        ("left", "'left' for frame 2"),
        (7, "must be"),
        ({"xmin": 1}, "must be"),
    ],
    ids=str,
)
def test_what_is_no_box_is_refused(value, message):
    def locator(frames, prompt):
        yield from [None, (0, 0, 1, 1), value]

    with pytest.raises(ValueError, match=message):
        located(locator, 10)


def test_boxes_that_cannot_be():
    for value in ((1, 1, 1, 5), (5, 0, 1, 9), (float("nan"),) * 4, np.full(4, np.nan), (0, 0, float("inf"), 1)):
        assert checked_box(value, 0) is None
    assert checked_box(np.array([0, 0, 2, 2, 7.0]), 0) == SpeakerBox((0, 0, 2, 2), 1.0)


@pytest.mark.parametrize("at", [0, 6])
def test_what_breaks_the_locator_reaches_the_reader(at):
    def locator(frames, prompt):
        for number, _ in enumerate(frames):
            if number == at:
                raise OSError("the network is gone")
            yield None

    with pytest.raises(OSError, match="the network is gone"):
        located(locator, 50)
    with pytest.raises(TypeError):
        located(lambda frames: None, 5)


def test_nothing_is_left_behind():
    threads, closed = threading.active_count(), []

    def locator(frames, prompt):
        try:
            yield from looks_ahead(frames, prompt)
        finally:
            closed.append(True)

    for leave in ("close", "drop"):
        boxes = SpeakerBoxes(ChosenSpeaker("x", locator))
        for number in range(20):
            list(boxes.add(frame_of(number)))
        thread = boxes._thread
        if leave == "close":
            boxes.close()
        del boxes
        gc.collect()
        thread.join(5)
    assert threading.active_count() == threads and closed == [True, True]


@pytest.mark.parametrize(
    "fps, expected", [(None, [0, 1, 2, 3, 4, 5]), (50, [0, 2, 4, 6, 8, 10]), (12.5, [0, 0, 1, 2, 2, 2])]
)
def test_a_track_has_a_rate_of_its_own(fps, expected):
    track = {"track": ((index, 0, 99, 1) for index in range(20)), **({"fps": fps} if fps else {})}
    rows = list(GivenTrack(25.0)(map(frame_of, range(6)), track))
    assert [row[0] for row in rows] == expected
    assert len(list(GivenTrack(25.0)(map(frame_of, range(6)), {"track": [None] * 4}))) == 4


@pytest.mark.parametrize(
    "speaker, name, plain",
    [
        (" the man ", '"the man"', "the man"),
        ({"point": [3, 4]}, "the speaker at the point (3, 4)", {"point": [3.0, 4.0]}),
        ({"box": np.array([0, 1, 2, 3])}, "the speaker at the box (0, 1, 2, 3)", {"box": [0, 1, 2, 3]}),
        ({"track": [None], "fps": 30}, "the speaker of the track", {"track": "given"}),
    ],
    ids=str,
)
def test_who_can_be_chosen(speaker, name, plain):
    asked = check_speaker(speaker)
    assert speaker_name(asked) == name and plain_speaker(asked) == plain


@pytest.mark.parametrize(
    "speaker, message",
    [
        ("", "must be"),
        (" ", "must be"),
        (3, "must be"),
        ((1, 2), "must be"),
        ({}, "must be"),
        ({"face": 3}, "'face'"),
        ({"point": (1, 2), "box": (1, 2, 3, 4)}, "'box', 'point'"),
        ({"point": (1, 2), "fps": 25}, "'fps', 'point'"),
        ({"fps": 25}, "'fps'"),
        ({"point": (1, 2, 3)}, r"\(x, y\)"),
        ({"point": "ab"}, r"\(x, y\)"),
        ({"point": (1, float("nan"))}, r"\(x, y\)"),
        ({"point": [(1, 2)]}, r"\(x, y\)"),
        ({"box": (1, 2)}, r"\(x0, y0, x1, y1\)"),
        ({"box": (3, 2, 1, 4)}, "is empty"),
        ({"track": 5}, "one box a frame"),
        ({"track": "a.json"}, "one box a frame"),
        ({"track": [None], "fps": 0}, "positive"),
        ({"track": [None], "fps": True}, "positive"),
    ],
    ids=str,
)
def test_who_cannot_be_chosen(speaker, message):
    with pytest.raises(ValueError, match="`speaker`.*" + message) as caught:
        check_speaker(speaker)
    assert "\n" not in str(caught.value)

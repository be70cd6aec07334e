"""Objects that are shown in a video: the pixel decoder runs once a frame for all of them, or for each."""

import numpy as np
import pytest

from lookhear.processing.glee import ObjectPerceptionPipeline


@pytest.fixture(scope="module")
def see(tiny_glee) -> ObjectPerceptionPipeline:
    model, processor = tiny_glee
    return ObjectPerceptionPipeline(model, processor=processor, device="cpu")


def film(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (60, 90, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    ("following", "points", "rows"),
    [
        ("shared", 1, 6 + 1),  # a row for each frame, and for each prompt in its own frame
        ("shared", 3, 6 + 3),
        ("exact", 1, (4 + 1) + (2 + 1)),  # in each window the frames, and that of the prompt
        ("exact", 3, 3 * (4 + 1) + 3 * (2 + 1)),
    ],
)
def test_rows_of_the_pixel_decoder(see, monkeypatch, following, points, rows):
    decoder, seen = see.model.model.pixel_decoder, []
    run = decoder.forward
    monkeypatch.setattr(
        decoder, "forward", lambda levels, *given, **kw: seen.append(len(levels[0])) or run(levels, *given, **kw)
    )
    shown = [[(15 + 20 * number, 30)] for number in range(points)]
    assert len(list(see({"video": film(6)}, points=shown, following=following))) == 6
    assert sum(seen) == rows


@pytest.mark.slow
def test_objects_that_come_later_share_the_maps_of_a_window(see, monkeypatch):
    """Added after its frame was handed out, an object is met there first, and searched for from the next frame on."""
    decoder, seen = see.model.model.pixel_decoder, []
    run = decoder.forward
    monkeypatch.setattr(
        decoder, "forward", lambda levels, *given, **kw: seen.append(len(levels[0])) or run(levels, *given, **kw)
    )
    for after in (2, 4):  # within a window, and where it ends
        seen.clear()
        video = see({"video": film(6)}, points=[[(15, 30)]], threshold=0.0, following="shared")
        for _ in range(after):
            next(video)
        (number,) = video.add(boxes=[(5, 20, 25, 40)])
        assert number == 2 and {found["track_id"] for found in next(video)} <= {1, 2}
        assert len(list(video)) == 5 - after
        # The frames, both prompts in their own; once more the second one's frame, if its window is gone.
        assert sum(seen) == 6 + 2 + (after == 4)


def test_there_are_two_ways(see):
    with pytest.raises(ValueError, match="`following` must be one of 'exact', 'shared', not 'quick'"):
        see({"video": film(1)}, points=[[(15, 30)]], following="quick")

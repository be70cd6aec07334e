"""Objects that are shown in a video: the pixel decoder runs once a frame for all of them, or for each."""

import numpy as np
import pytest
import torch

from lookhear.processing.glee import ObjectPerceptionPipeline
from lookhear.processing.glee.video_queries_glee import VisualPrompt


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


@pytest.mark.parametrize(("doubt", "windows"), [(0.25, {"first"}), (0.25, {"first", "second"}), (1.0, {"first"})])
def test_what_is_in_doubt_is_asked_for_exactly(see, monkeypatch, doubt, windows):
    """In the windows in which it is in doubt, an object has a pass for itself: the frames, and that of its mask."""
    decoder, seen, asked = see.model.model.pixel_decoder, [], []
    run = decoder.forward
    monkeypatch.setattr(
        decoder, "forward", lambda levels, *given, **kw: seen.append(len(levels[0])) or run(levels, *given, **kw)
    )

    def in_doubt(prompt, found):
        asked.append(len(found))
        return torch.tensor({4: "first", 2: "second"}[len(found)] in windows and prompt.number == 1)

    monkeypatch.setattr(VisualPrompt, "in_doubt", in_doubt)
    shown = [[(15, 30)], [(35, 30)]]
    assert len(list(see({"video": film(6)}, points=shown, following="shared", doubt=doubt))) == 6
    more = {"first": 4 + 1, "second": 2 + 1} if doubt < 1 else {"first": 0}
    assert sum(seen) == 6 + 2 + sum(more[name] for name in windows)
    assert asked == ([4, 4, 2, 2] if doubt < 1 else [])


def test_an_answer_of_its_own_pass_keeps_the_shared_embedding(see, monkeypatch):
    """Else it would not be known again on the maps that objects share."""
    frames, taken = film(6), []
    answered = VisualPrompt.answered

    def watched(prompt, window, first, own, found):
        taken.append(found)
        answered(prompt, window, first, own, found)

    monkeypatch.setattr(VisualPrompt, "answered", watched)
    monkeypatch.setattr("lookhear.processing.glee.video_queries_glee.SAME_OBJECT", 0.0)
    for doubtful in (False, True):
        monkeypatch.setattr(VisualPrompt, "in_doubt", lambda prompt, found, value=doubtful: torch.tensor(value))
        list(see({"video": frames[:4]}, boxes=[(5, 20, 25, 40)], following="shared"))
    shared, exact = taken
    for frame, other in zip(shared[1:], exact[1:], strict=True):  # the first one is that of the prompt
        assert not torch.equal(frame.logits, other.logits)
        assert all(any(torch.equal(row, known) for known in frame.embeddings) for row in other.embeddings)


@pytest.mark.parametrize("value", [-0.1, 1.5, "much"])
def test_doubt_is_a_share(see, value):
    with pytest.raises(ValueError, match="`doubt` must be a number from 0 to 1, not"):
        see({"video": film(1)}, points=[[(15, 30)]], doubt=value)


def test_there_are_two_ways(see):
    with pytest.raises(ValueError, match="`following` must be one of 'exact', 'shared', not 'quick'"):
        see({"video": film(1)}, points=[[(15, 30)]], following="quick")

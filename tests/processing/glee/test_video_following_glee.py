"""Objects that are shown in a video: the pixel decoder runs once a frame for all of them, or for each."""

import numpy as np
import pytest

from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor, ObjectPerceptionPipeline
from lookhear.training.glee.scenes.moving_scenes import MovingRecipe, make_moving_scene


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


@pytest.mark.slow
def test_as_good_as_the_exact_way(repository):
    """J of five videos of 24 frames, three objects each: at most 0.01 less."""
    card = repository / "model_cards" / "glee-tiny"
    see = ObjectPerceptionPipeline(
        GleeForObjectDetection.from_pretrained(card), processor=GleeProcessor.from_pretrained(card), device="cpu"
    )
    qualities: dict[str, list[float]] = {"shared": [], "exact": []}
    for seed in range(5):
        scene = list(make_moving_scene(np.random.default_rng(seed), recipe=MovingRecipe(frames=24)))
        clear = [instance for instance in scene[0].objects if instance.clear][:3]
        points = [[(instance.shape.x, instance.shape.y)] for instance in clear]
        for following, values in qualities.items():
            results = see({"video": [frame.image for frame in scene]}, points=points, following=following)
            for frame, found in list(zip(scene, results))[1:]:
                masks = {one["track_id"]: one["mask"] for one in found}
                for number, instance in enumerate(clear, start=1):
                    truth = [other for other in frame.objects if other.track_id == instance.track_id]
                    if truth and truth[0].clear:
                        wanted = truth[0].shape.mask
                        mask = masks.get(number, np.zeros_like(wanted))
                        values.append((mask & wanted).sum() / max((mask | wanted).sum(), 1))
    means = {name: float(np.mean(values)) for name, values in qualities.items()}
    assert means["exact"] > 0.75 and means["shared"] >= means["exact"] - 0.01, means

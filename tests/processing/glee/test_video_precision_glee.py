"""Videos with a model in bfloat16, and with compiled parts: the same objects as in float32, uncompiled."""

import numpy as np
import pytest
import torch

from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor, ObjectPerceptionPipeline
from lookhear.training.glee.scenes.moving_scenes import MovingRecipe, make_moving_scene

ASKED = {"labels": ["circle", "square", "star", "heart", "triangle", "ring", "moon", "cross"]}


@pytest.fixture(scope="module")
def scene():
    return make_moving_scene(np.random.default_rng(5), recipe=MovingRecipe(frames=10))


@pytest.fixture(scope="module")
def frames(scene):
    return [frame.image for frame in scene]


@pytest.fixture(scope="module")
def asked(scene):
    """Labels, a sentence, a point and a box, the last three about one thing each."""
    still, _ = scene.frame(0).as_still()
    one, other = still.shapes[:2]
    return ASKED | {
        "expressions": [f"the {one.colour} {one.kind}"],
        "points": [[(one.x, one.y)]],
        "boxes": [other.box],
    }


def pipe(repository, dtype=torch.float32) -> ObjectPerceptionPipeline:
    card = repository / "model_cards" / "glee-tiny"
    model = GleeForObjectDetection.from_pretrained(card, dtype=dtype)
    return ObjectPerceptionPipeline(model, processor=GleeProcessor.from_pretrained(card), device="cpu")


@pytest.fixture(scope="module")
def exact(repository, frames, asked):
    found = list(pipe(repository)({"video": frames}, **asked))
    assert sum(thing["score"] >= 0.5 for results in found for thing in results) >= 5 * len(frames)
    return found


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    return float((mask & other).sum() / max((mask | other).sum(), 1))


def assert_same(found: list[list[dict]], expected: list[list[dict]], score: float, iou: float) -> None:
    """
    What is found surely is found again, under one id through all frames, and what is found beyond it is nothing sure.

    Ids are given in the order of the scores, which may be nearly equal, so that the same track may have another
    number.
    """
    assert len(found) == len(expected)
    for first, second in ((found, expected), (expected, found)):
        numbers: dict[int, int] = {}
        for index, (results, others) in enumerate(zip(first, second)):
            known = {other["track_id"]: other for other in others}
            for thing in results:
                if thing["score"] >= 0.5:
                    alike = [
                        other for other in others if other["label"] == thing["label"]
                    ]  # of two names for one thing
                    nearest = max(alike or others, key=lambda other: overlap(other["mask"], thing["mask"]))
                    other = known[numbers.setdefault(thing["track_id"], nearest["track_id"])]
                    where = f"frame {index}, {thing['label']} {thing['track_id']}"
                    assert other["label"] == thing["label"], where
                    assert abs(other["score"] - thing["score"]) <= score, where
                    assert overlap(other["mask"], thing["mask"]) >= iou, where
        assert len(set(numbers.values())) == len(numbers)  # no two tracks are one


def test_bfloat16(repository, frames, asked, exact):
    see = pipe(repository, torch.bfloat16)
    found = list(see({"video": frames}, **asked))
    assert see.model.dtype == torch.bfloat16
    assert_same(found, exact, score=0.1, iou=0.85)
    assert all(isinstance(thing["score"], float) for results in found for thing in results)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_parts(repository, frames, asked):
    """Where most of the time goes: compiled in their places, they serve labels and shown objects."""
    see, prompts = pipe(repository), {name: asked[name] for name in ("labels", "points")}
    expected = list(see({"video": frames[:4]}, batch_size=2, **prompts))
    for part in (see.model.model.backbone, see.model.model.pixel_decoder):
        part.compile(backend="aot_eager")
    found = list(see({"video": frames[:4]}, batch_size=2, **prompts))
    torch._dynamo.reset()
    assert_same(found, expected, score=2e-3, iou=0.99)

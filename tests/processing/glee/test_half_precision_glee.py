"""Pictures with a model in half precision: over generated scenes the scores are float32's."""

import numpy as np
import pytest
import torch

from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.glee import GleeProcessor, ObjectPerceptionPipeline
from lookhear.training.glee.scenes.scenes import make_scene

LABELS = ["circle", "square", "star", "heart", "triangle", "ring", "moon", "cross"]
FOUND = 0.3  # score of an object that is looked up again
OFF = 0.02  # difference of two scores that is counted


def results(repository, dtype: torch.dtype, count: int) -> list[list[dict]]:
    card = repository / "model_cards" / "glee-tiny"
    model = GleeForObjectDetection.from_pretrained(card, dtype=dtype)
    see = ObjectPerceptionPipeline(model, processor=GleeProcessor.from_pretrained(card), device="cpu")
    scenes = [make_scene(np.random.default_rng((11, number))) for number in range(count)]
    return [see(scene.image, labels=LABELS, threshold=0.05, masks=False) for scene in scenes]


def shared(first: dict, second: dict) -> float:
    """Returns the intersection over union of two results' boxes."""
    one, other = (
        np.array([found["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")]) for found in (first, second)
    )
    inner = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    return float(inner / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - inner))


@pytest.mark.parametrize(
    ("dtype", "count", "mean"),
    [
        (torch.bfloat16, 40, 0.004),
        (torch.float16, 6, 0.002),  # a CPU takes ten times as long with it
    ],
)
def test_scores_in_half_precision(repository, dtype, count, mean):
    """Of 219 objects in 40 scenes scores are off by 0.0017 in bfloat16 and 0.0005 in float16, by 0.017 at most."""
    off = []
    for exact, half in zip(results(repository, torch.float32, count), results(repository, dtype, count)):
        for thing in (thing for thing in exact if thing["score"] >= FOUND):
            alike = [other for other in half if other["label"] == thing["label"] and shared(thing, other) > 0.7]
            assert alike, f"{thing['label']} at {thing['box']} was not found again"
            off.append(abs(max(alike, key=lambda other: shared(thing, other))["score"] - thing["score"]))
    assert len(off) >= 4 * count
    assert np.mean(off) <= mean
    assert np.mean(np.array(off) > OFF) <= 0.01

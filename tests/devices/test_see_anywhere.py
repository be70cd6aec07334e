"""`see` gives on an accelerator what it gives on a CPU: every kind of prompt, in pictures and in videos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.devices.conftest import assert_alike, frames, picture

LABELS = ["cat", "dog", "tree"]
MASK = np.zeros((60, 90), bool)
MASK[20:40, 30:70] = True
VISUAL = {
    "points": [[(40, 20)], [(70, 50), (60, 40)]],
    "boxes": [(5, 5, 50, 40)],
    "scribbles": [[(10, 10), (60, 50)], MASK],
    "masks": [MASK],
}
slow = pytest.mark.slow


def both(make_see, call, **settings: Any) -> tuple[list, list]:
    """What the device finds, and what the CPU finds, of one image or frame after the other."""
    return tuple(call(make_see(device, **settings)) for device in ("pretended", "cpu"))


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"labels": LABELS}, id="labels"),
        pytest.param({"labels": LABELS, "one_label": True}, id="one-label", marks=slow),
        pytest.param({"labels": LABELS, "masks": False, "top_k": 5}, id="without-masks", marks=slow),
        pytest.param({"expressions": ["the red cat", "a dog"]}, id="expressions", marks=slow),
        pytest.param(VISUAL, id="visual", marks=slow),
        pytest.param({**VISUAL, "labels": LABELS, "expressions": ["a tree"]}, id="all", marks=slow),
    ],
)
def test_a_picture(far, make_see, asked):
    found, expected = both(make_see, lambda see: see(picture(), threshold=0.0, **asked))
    assert expected
    assert_alike(found, expected)


@slow
@pytest.mark.parametrize("settings", [{}, {"padding_mask": True}], ids=["", "padding-mask"])
def test_a_batch_of_mixed_sizes(far, make_see, settings):
    given = [
        {"image": picture(), "labels": LABELS, "points": [[(40, 20)]]},
        {"image": picture(90, 60, seed=1), "labels": ["tree"], "boxes": [(5, 5, 50, 40)]},
        {"image": picture(seed=2), "labels": LABELS, "expressions": ["a red dog", "a cat"]},
    ]
    found, expected = both(make_see, lambda see: see(given, threshold=0.0, batch_size=3), **settings)
    for one, other in zip(found, expected, strict=True):
        assert_alike(one, other)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"labels": LABELS, "tracking": "minvis"}, id="minvis"),
        pytest.param({"expressions": ["a cat", "the dog"], "reprompt": True}, id="expressions", marks=slow),
        pytest.param({"points": [[(40, 20)]]}, id="point", marks=slow),
        pytest.param(VISUAL, id="exact", marks=slow),
        pytest.param({**VISUAL, "following": "shared"}, id="shared", marks=slow),
        pytest.param({"labels": LABELS, **VISUAL, "masks": False}, id="without-masks", marks=slow),
    ],
)
def test_a_video(far, make_see, asked):
    """Of two windows."""
    given = {"video": frames(3), "fps": 25}
    found, expected = both(make_see, lambda see: list(see(given, threshold=0.0, batch_size=2, **asked)))
    assert any(expected)
    for one, other in zip(found, expected, strict=True):
        assert_alike(one, other)


@slow
def test_tracks_of_a_scene(far, make_trained_see, scene):
    """Objects that move, leave and return: births, losses and ids as on a CPU."""
    labels = ["circle", "square", "star", "heart", "triangle", "ring", "moon", "cross"]
    found, expected = both(make_trained_see, lambda see: list(see({"video": scene, "labels": labels})))
    assert len({one["track_id"] for results in expected for one in results}) > 2
    for one, other in zip(found, expected, strict=True):
        assert_alike(one, other)


@slow
@pytest.mark.parametrize("following", ["exact", "shared"])
def test_prompts_are_added_and_dropped(far, make_see, following):
    def call(see):
        results = []
        with see({"video": frames(6), "fps": 25, "labels": LABELS}, threshold=0.0, following=following) as video:
            for found in video:
                results.append(found)
                if video.index == 1:
                    first, second = video.add(points=[[(40, 20)]], boxes=[(5, 5, 50, 40)])
                if video.index == 2:
                    video.drop(found[0]["track_id"])
                    video.drop(second)
                    video.add(expressions=["a dog"])
        return results

    found, expected = both(make_see, call)
    assert len({len(results) for results in found}) > 1
    for one, other in zip(found, expected, strict=True):
        assert_alike(one, other)

"""What does not fit in memory is tried again in halves; the results are the same."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch

from lookhear.processing.glee import ObjectPerceptionPipeline
from lookhear.processing.glee.perception_request_glee import run_in_parts


def items(most: int, parts: list[int]):
    """`run` of a batch of numbers of which `most` fit in memory; notes the sizes of those that did."""

    def run(part: slice) -> list[int]:
        if part.stop - part.start > most:
            raise torch.OutOfMemoryError("out of memory")
        parts.append(part.stop - part.start)
        return list(range(part.start, part.stop))

    return run


def too_large(place: int) -> ValueError:
    return ValueError(f"number {place} does not fit")


@pytest.mark.parametrize(
    ("count", "most", "sizes"), [(5, 5, [5]), (5, 4, [3, 2]), (5, 2, [2, 2, 1]), (5, 1, [1] * 5), (8, 3, [2] * 4)]
)
def test_halves_as_small_as_need_be(count, most, sizes):
    parts: list[int] = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = run_in_parts(items(most, parts), count, "numbers", too_large)
    assert [number for part in found for number in part] == list(range(count)) and parts == sizes
    lines = [str(warning.message) for warning in told]
    fits = f"a batch of {count} numbers does not fit in memory; {sizes[0]} at a time do."
    assert lines == ([] if most >= count else [fits])


def test_one_that_does_not_fit_alone():
    with pytest.raises(ValueError, match="number 0 does not fit"):
        run_in_parts(items(0, []), 3, "numbers", too_large)


@pytest.fixture
def see(tiny_glee):
    return ObjectPerceptionPipeline(copy.copy(tiny_glee[0]), processor=tiny_glee[1], device="cpu")


@pytest.fixture
def passed() -> list[int]:
    """The rows of the passes that were tried."""
    return []


@pytest.fixture
def fits(monkeypatch, see, passed):
    """`fits(rows)`: passes of the model with more rows run out of memory."""
    real = see.model.forward

    def limit(rows: int) -> None:
        def forward(**inputs):
            count = len(
                next(
                    (inputs[n] for n in ("prompt_masks", "expression_input_ids", "expression_tokens") if n in inputs),
                    [],
                )
            ) or len(inputs["pixel_values"])
            passed.append(count)
            if count > rows:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return real(**inputs)

        monkeypatch.setattr(see.model, "forward", forward)

    return limit


def pictures(count: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).integers(0, 255, (60, 90, 3), dtype=np.uint8) for seed in range(count)]


ASKED = [{"labels": ["cat"]}, {"labels": ["cat"], "points": [[(9, 9)], [(30, 30)]]}, {"expressions": ["a dog", "it"]}]


def test_images_and_prompts(see, fits):
    given = [{"image": image, **asked} for image, asked in zip(pictures(3), ASKED)]
    expected = see(given, batch_size=3, threshold=0.0)
    fits(1)
    with pytest.warns(UserWarning, match="a batch of .* does not fit in memory; 1 at a time do"):
        found = see(given, batch_size=3, threshold=0.0)
    for results, others in zip(found, expected, strict=True):
        for one, other in zip(results, others, strict=True):
            assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-3)
            assert one["box"] == pytest.approx(other["box"], abs=0.05)
            assert (one["mask"] != other["mask"]).mean() <= 0.01


def test_an_image_that_does_not_fit_alone(see, fits):
    fits(0)
    with pytest.raises(ValueError, match=r"^an image of 60 x 90 pixels does not fit in memory: lower `size`"):
        see(pictures(1)[0], labels=["cat"])
    given = [{"image": image, "points": [[(9, 9)], [(20, 20)]]} for image in pictures(2)]
    with pytest.raises(ValueError, match=r"`inputs\[0\]`: an image of 60 x 90"):
        see(given, batch_size=2)
    errors = see(given, batch_size=2, on_error="return")
    assert [str(error)[:11] for error in errors] == ["`inputs[0]`", "`inputs[1]`"]


SHOWN = {"points": [[(9, 9)], [(30, 30)]], "expressions": ["a dog", "it"]}


@pytest.mark.parametrize(
    ("asked", "rows", "passes"),
    [
        pytest.param({"labels": ["cat"], "tracking": "minvis"}, 1, [3, 2, 1, 1, 1, 1], id="labels"),
        pytest.param({**SHOWN, "labels": ["cat"]}, 2, None, id="all"),
        pytest.param({**SHOWN, "following": "shared", "reprompt": True}, 2, None, id="on-maps"),
    ],
)
def test_windows_of_a_video(see, fits, passed, asked, rows, passes):
    """The window stays as it is, so that its results do; what did not fit once is not tried again."""
    settings = {"batch_size": 3, "threshold": 0.0, **asked}
    expected = list(see({"video": pictures(4)}, **settings))
    fits(rows)
    passed.clear()
    with pytest.warns(UserWarning, match="a batch of . (frames|objects) does not fit in memory; . at a") as told:
        found = list(see({"video": pictures(4)}, **settings))
    assert passes is None or passed == passes
    assert len({str(warning.message) for warning in told}) == len(told) <= 3
    assert len(found) == 4 and all(found)
    for results, others in zip(found, expected, strict=True):
        for one, other in zip(results, others, strict=True):
            assert (one["label"], one["track_id"]) == (other["label"], other["track_id"])
            assert one["score"] == pytest.approx(other["score"], abs=1e-3)
            assert one["box"] == pytest.approx(other["box"], abs=0.05)
            assert (one["mask"] != other["mask"]).mean() <= 0.01


def test_a_backbone_that_holds_few_frames(see, monkeypatch):
    real = see.model.get_image_features
    expected = list(see({"video": pictures(3), "labels": ["cat"]}, batch_size=3, threshold=0.0))

    def limited(pixels, mask):
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(pixels, mask)

    monkeypatch.setattr(see.model, "get_image_features", limited)
    with pytest.warns(UserWarning, match="a batch of 3 frames does not fit in memory; 2 at a time do"):
        found = list(see({"video": pictures(3), "labels": ["cat"]}, batch_size=3, threshold=0.0))
    for results, others in zip(found, expected, strict=True):
        assert [one["track_id"] for one in results] == [other["track_id"] for other in others]


def test_a_video_that_does_not_fit(see, fits):
    fits(0)
    with see({"video": pictures(3), "labels": ["cat"]}, batch_size=2) as video:
        with pytest.raises(
            ValueError, match=r"^`inputs`: a frame of 60 x 90 pixels does not fit in memory: lower `size`"
        ):
            next(video)

"""The pretended accelerator, and what its tests share."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.devices.far_device import NAME, FarDevice

REAL = torch.accelerator.is_available()  # before ours is made known to torch


@pytest.fixture
def far() -> Iterator[FarDevice]:
    """While a test runs, `device="pretended"` works; what travels is counted in its `log`."""
    if REAL:
        pytest.skip(
            f"here is a real accelerator ({torch.accelerator.current_accelerator()}), in place of which it comes"
        )
    with FarDevice() as device:
        yield device


@pytest.fixture(scope="session")
def make_see(tiny_glee):
    """`make_see(device, **settings of the configuration)`: `see` with a small random model."""
    from lookhear.processing.glee import ObjectPerceptionPipeline

    def make(device: str, **settings: Any) -> ObjectPerceptionPipeline:
        model, processor = copy.deepcopy(tiny_glee[0]), tiny_glee[1]
        for name, value in settings.items():
            setattr(model.config, name, value)
        return ObjectPerceptionPipeline(model, processor=processor, device=device)

    return make


@pytest.fixture(scope="session")
def make_trained_see(repository: Path):
    """`make_trained_see(device)`: `see` with the small model of drawn shapes."""
    from transformers import pipeline

    import lookhear  # noqa: F401  (registers the task)

    return lambda device: pipeline("object-perception", model=str(repository / "model_cards/glee-tiny"), device=device)


@pytest.fixture(scope="session")
def scene() -> list[np.ndarray]:
    """Ten frames of drawn shapes that move."""
    from lookhear.training.glee.scenes.moving_scenes import MovingRecipe, make_moving_scene

    return [frame.image for frame in make_moving_scene(np.random.default_rng(5), recipe=MovingRecipe(frames=10))]


@pytest.fixture(scope="session")
def make_asr(tiny_checkpoint: Path):
    """`make_asr(device)`: `asr` with a small random model."""
    from transformers import pipeline

    import lookhear  # noqa: F401  (registers the task)

    return lambda device: pipeline("audio-visual-speech-recognition", model=str(tiny_checkpoint), device=device)


def picture(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    """Blobs of colour."""
    small = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return np.ascontiguousarray(small.repeat(-(-height // 5), axis=0).repeat(-(-width // 7), axis=1)[:height, :width])


def frames(count: int) -> list[np.ndarray]:
    """Blobs that move to the right."""
    return [np.roll(picture(), 3 * index, axis=1) for index in range(count)]


def there(value: Any) -> Any:
    """Moves tensors, also those in lists and dictionaries, to the device."""
    if isinstance(value, torch.Tensor):
        return value.to(NAME)
    if isinstance(value, dict):
        return {name: there(item) for name, item in value.items()}
    return [there(item) for item in value] if isinstance(value, list) else value


def assert_alike(found: list[dict], expected: list[dict]) -> None:
    """Results of `see`: the same labels and ids, scores within .002, boxes within a tenth of a pixel, equal masks but
    for a pixel in a hundred."""
    assert [(one["label"], one.get("track_id")) for one in found] == [
        (one["label"], one.get("track_id")) for one in expected
    ]
    for one, other in zip(found, expected):
        assert one["score"] == pytest.approx(other["score"], abs=2e-3)
        assert one["box"] == pytest.approx(other["box"], abs=0.1)
        assert ("mask" in one) == ("mask" in other)
        if "mask" in one:
            assert (one["mask"] != other["mask"]).mean() <= 0.01


def assert_heard(found: dict, expected: dict) -> None:
    """Results of `asr`: the same texts, confidences within .001, word times within a frame."""
    assert found["text"] == expected["text"]
    assert found["confidence"] == pytest.approx(expected["confidence"], abs=1e-3)
    texts = [[other["text"] for other in result["alternatives"]] for result in (found, expected)]
    assert texts[0] == texts[1]
    for word, other in zip(found["chunks"], expected["chunks"], strict=True):
        assert word["text"] == other["text"]
        assert word["timestamp"] == pytest.approx(other["timestamp"], abs=0.041)

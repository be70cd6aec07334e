"""What crosses between host and accelerator, and how often the host waits: bounds that do not grow with queries,
tracks or objects."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from lookhear.processing.glee.geometry_glee import PackedMask, RunLengthMask, fetch_masks, on_host, store_masks
from tests.devices.conftest import picture
from tests.devices.far_device import TO_DEVICE, TO_HOST

MB = 1e6


@pytest.mark.parametrize("width", [1, 7, 8, 13])
def test_masks_travel_as_bits(far, width):
    masks = torch.rand(3, 5, width, generator=torch.Generator().manual_seed(width)) > 0.5
    masks[1] = False
    packed = store_masks(masks.to("pretended"))
    assert all(isinstance(mask, PackedMask) for mask in packed)
    far.log.clear()
    for mask, stored, fetched in zip(masks, store_masks(masks), fetch_masks(packed), strict=True):
        assert isinstance(stored, RunLengthMask) and np.array_equal(stored.decode(), mask.numpy())
        assert np.array_equal(fetched.decode(), mask.numpy())
    assert far.log.waits == 1 and far.log.travelled(TO_HOST) == 3 * 5 * -(-width // 8)
    assert fetch_masks([]) == [] and on_host([]) == []


def test_tensors_of_any_shape_reach_the_host_together(far):
    tensors = [torch.arange(6.0).view(2, 3), torch.zeros(0, 4), torch.tensor(7.0)]
    found = on_host([tensor.to("pretended") for tensor in tensors])
    assert far.log.waits == 1
    assert all(torch.equal(one, other) for one, other in zip(found, tensors, strict=True))


def test_a_search_of_33_steps(far, repository):
    """The host asks three times whether to go on, and fetches all that was found at once."""
    from lookhear import AvsrForConditionalGeneration

    model = AvsrForConditionalGeneration.from_pretrained(repository / "model_cards" / "avsr-grid-tiny").eval()
    settings = {"num_beams": 5, "early_stopping": "never", "max_new_tokens": 33, "num_return_sequences": 5}
    with torch.no_grad():
        encoded = model.get_encoder()(torch.randn(2, 32000, generator=torch.Generator().manual_seed(0)))
        expected = model.generate(encoder_outputs=encoded, **settings)
        model.to("pretended")
        encoded = type(encoded)(**{name: value.to("pretended") for name, value in encoded.items()})
        far.log.clear()
        found = model.generate(encoder_outputs=encoded, **settings)
    assert sum(far.log.counts.values()) <= 12, far.log
    assert found.cpu().tolist() == expected.tolist()


def perceive(make_see, far, size: tuple[int, int], **asked):
    """Results of one picture of its own size, after the labels were embedded; what travelled is in the log."""
    see = make_see("pretended", num_queries=100)
    see.processor = copy.deepcopy(see.processor)
    see.processor.image_processor.size = {"shortest_edge": min(size), "longest_edge": max(size)}
    see(picture(), **asked)
    far.log.clear()
    return see(picture(*size), **asked)


def test_a_small_picture_with_100_objects(far, make_see):
    found = perceive(make_see, far, (64, 96), labels=["cat"], threshold=0.0)
    assert len(found) == 100
    assert far.log.waits <= 15, far.log
    assert far.log.travelled(TO_HOST) <= 100 * 64 * 96 // 8 + 4000, far.log
    assert far.log.travelled(TO_DEVICE) <= 64 * 96 * (3 * 4 + 1) + 4000, far.log


@pytest.mark.slow
def test_a_picture_of_800_x_1333_with_100_objects(far, make_see):
    found = perceive(make_see, far, (800, 1333), labels=["cat"], threshold=0.0)
    assert len(found) == 100
    assert far.log.waits <= 25, far.log
    assert far.log.travelled(TO_HOST) <= 14 * MB, far.log
    assert far.log.travelled(TO_DEVICE) <= 16 * MB, far.log


@pytest.mark.slow
def test_more_prompts_wait_no_more(far, make_see):
    """In one pass."""
    waits = []
    for count in (1, 4):
        points = [[(10 * index + 5, 20)] for index in range(count)]
        perceive(make_see, far, (64, 96), points=points, prompts_at_once=4)
        waits.append(far.log.waits)
    assert waits[0] == waits[1] <= 15


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [{"points": [[(80, 60)]]}, {"labels": ["star", "circle", "square", "heart"]}, {"expressions": ["the star"]}],
    ids=["point", "labels", "expression"],
)
def test_eight_frames_of_video(far, make_trained_see, scene, asked):
    see = make_trained_see("pretended")
    far.log.clear()
    results = list(see({"video": scene[:8], "fps": 25}, threshold=0.0, **asked))
    assert len(results) == 8 and any(results)
    assert far.log.waits <= 100, far.log

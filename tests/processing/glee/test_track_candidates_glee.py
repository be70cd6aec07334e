"""How alike candidates are, against plain loops."""

from __future__ import annotations

import math

import torch

from lookhear.processing.glee.track_state_glee import (
    cosines,
    distinct,
    mask_overlaps,
    mask_qualities,
    nearness,
)


def random_masks(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, 7, generator=torch.Generator().manual_seed(seed))


def iou(mask: torch.Tensor, other: torch.Tensor) -> float:
    union = int((mask | other).sum())
    return int((mask & other).sum()) / union if union else 0.0


def test_mask_overlaps():
    first, second = random_masks(4) > 0.3, random_masks(5, 1) > 0.3
    first[2] = second[1] = False
    found = mask_overlaps(first, second)
    for row, mask in enumerate(first):
        for column, other in enumerate(second):
            assert math.isclose(found[row, column], iou(mask, other), abs_tol=1e-6)


def test_mask_qualities():
    masks = random_masks(5)
    masks[3] = -1.0
    for mask, quality in zip(masks, mask_qualities(masks).tolist()):
        inside = [float(value.sigmoid()) for value in mask.flatten() if value > 0]
        assert math.isclose(quality, sum(inside) / len(inside) if inside else 0.0, abs_tol=1e-6)


def test_cosines():
    first, second = torch.randn(3, 8), torch.randn(4, 8)
    first[1] = 0
    expected = torch.nn.functional.cosine_similarity(first[:, None], second[None], dim=-1)
    assert torch.allclose(cosines(first, second), expected, atol=1e-6)


def test_distinct_is_greedy_suppression():
    """Best first, each stands for all that overlap it and have nobody yet."""
    masks, scores = random_masks(30, 3) > 0, torch.rand(30, generator=torch.Generator().manual_seed(3))
    for most in (0.2, 0.4, 0.6):
        owner = [-1] * 30
        for place in scores.argsort(descending=True).tolist():
            if owner[place] < 0:
                for other in range(30):
                    if owner[other] < 0 and (other == place or iou(masks[place], masks[other]) > most):
                        owner[other] = place
        assert distinct(masks, scores, most).tolist() == owner
    assert distinct(masks[:0], scores[:0], 0.5).tolist() == []


def test_nearness_falls_with_distance_and_forgives_with_time():
    expected = torch.tensor([[50.0, 50.0, 20.0, 10.0]])
    boxes = torch.tensor(
        [[50.0, 50.0, 20.0, 10.0], [56.0, 50.0, 20.0, 10.0], [70.0, 50.0, 20.0, 10.0], [50, 50, 60, 30]]
    )
    now, later = (nearness(expected, boxes, torch.tensor([missed]))[0] for missed in (0, 10))
    assert now[0] == 1.0 and bool((now[:2].diff() < 0).all()) and now[2] < 0.2 < later[2]
    assert bool((later >= now).all()) and now[3] < 0.7
    sideways = nearness(expected, torch.tensor([[50.0, 56.0, 20.0, 10.0]]), torch.tensor([0]))
    assert sideways < now[1], "distances count by the size in their direction"

"""How alike candidates are, against plain loops."""

from __future__ import annotations

import math

import torch

from lookhear.processing.glee.track_state_glee import (
    FrameCandidates,
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


def candidates(count: int, seed: int) -> FrameCandidates:
    draw = torch.Generator().manual_seed(seed)
    logits, embeddings = torch.randn(count, 1, generator=draw), torch.randn(count, 4, generator=draw)
    return FrameCandidates(logits, torch.zeros(count, 4), random_masks(count, seed), embeddings)


def test_rivalry_is_that_of_the_best_other_object():
    found = []
    for seed in range(20):
        frame = candidates(6, seed)
        scores, masks = frame.logits[:, 0].sigmoid().tolist(), frame.masks > 0
        best = scores.index(max(scores))
        others = [score for score, mask in zip(scores, masks) if iou(masks[best], mask) < 0.4]
        found.append(float(frame.rivalry(0.4)))
        assert math.isclose(found[-1], max(others, default=0.0) / scores[best], rel_tol=1e-5)
    assert 0 < min(found) and len(set(found)) == 20
    assert float(candidates(1, 0).rivalry(0.4)) == 0.0


def test_embeddings_are_taken_from_the_same_masks():
    frame, others = candidates(6, 1), candidates(5, 2)
    others.masks[3] = frame.masks[4] + 1e-3
    found = frame.with_embeddings_of(others, 0.6)
    for place, embedding in enumerate(found.embeddings):
        overlaps = [iou(frame.masks[place] > 0, mask > 0) for mask in others.masks]
        same = overlaps.index(max(overlaps))
        wanted = others.embeddings[same] if overlaps[same] >= 0.6 else frame.embeddings[place]
        assert torch.equal(embedding, wanted)
    assert torch.equal(found.embeddings[4], others.embeddings[3])
    assert found.logits is frame.logits and found.masks is frame.masks

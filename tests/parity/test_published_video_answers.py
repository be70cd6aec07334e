"""The published answers for whole videos, on made-up frames."""

from __future__ import annotations

import pytest
import torch

from lookhear.processing.glee.geometry_glee import masks_to_picture
from lookhear.processing.glee.track_state_glee import FrameCandidates
from tests.parity.published_video_answers import (
    TAO_LEAST_PIXELS,
    TaoTracks,
    VideoInstances,
    corner_boxes,
    instance_masks,
)

QUERIES, LABELS, FRAMES = 8, 5, 4


def video(seed: int = 0) -> tuple[list[FrameCandidates], list[torch.Tensor]]:
    """Frames of the same eight objects, whose queries change places, and where each is in each frame."""
    random = torch.Generator().manual_seed(seed)
    looks = torch.randn(QUERIES, 16, generator=random)
    frames, places = [], []
    for number in range(FRAMES):
        order = torch.randperm(QUERIES, generator=random) if number else torch.arange(QUERIES)
        corners = torch.rand(QUERIES, 2, generator=random) * 60
        boxes = torch.cat((corners, corners + 5 + 30 * torch.rand(QUERIES, 2, generator=random)), dim=1)
        masks = torch.randn(QUERIES, 5, 6, generator=random)
        logits = torch.randn(QUERIES, LABELS, generator=random)
        noise = 0.05 * torch.randn(QUERIES, 16, generator=random)
        frames.append(FrameCandidates(logits, boxes, masks, looks + noise).chosen(order))
        places.append(order.argsort())
    return frames, places


def test_instances_are_ranked_by_their_mean_logits():
    frames, places = video()
    instances = VideoInstances(top_k=7)
    assert all(torch.equal(instances.update(frame), place) for frame, place in zip(frames, places))
    best = instances.best()
    mean = torch.stack([frame.logits[place] for frame, place in zip(frames, places)]).double().mean(dim=0)
    pairs = sorted(((float(mean[q, k]), q, k) for q in range(QUERIES) for k in range(LABELS)), reverse=True)[:7]
    assert [(q, k) for _, q, k in pairs] == list(zip(best.tracks.tolist(), best.labels.tolist()))
    assert torch.allclose(best.scores, torch.tensor([score for score, _, _ in pairs]).sigmoid(), atol=1e-6)
    every = VideoInstances(top_k=1000)
    every.update(frames[0])
    assert len(every.best().scores) == QUERIES * LABELS


def test_masks_are_handed_out_one_by_one():
    masks = torch.randn(3, 5, 6)
    sizes = ((40, 48), (38, 41), (70, 90))
    handed = instance_masks(masks.half(), *sizes)
    expected = masks_to_picture(masks.half().float(), *sizes) > 0
    assert torch.equal(next(handed), expected[0])
    assert torch.equal(torch.stack(list(handed)), expected[1:])


def test_corner_boxes():
    boxes = torch.tensor([[10.0, 20.0, 40.0, 60.0]])
    assert corner_boxes(boxes, (0.5, 0.25)).tolist() == [[10, 20, 30, 40]]
    assert corner_boxes(boxes, (0.5, 0.25), reference=True).tolist() == [[5, 5, 15, 10]]


def test_tao_rows():
    """Tracks are numbered by their score; small masks and boxes that a better one overlaps are left out."""
    frames, places = video()
    tracks = TaoTracks(video_id=3, top_k=6)
    assert all(
        torch.equal(tracks.update(frame, 40 + n), place) for n, (frame, place) in enumerate(zip(frames, places))
    )
    mean = torch.stack([frame.logits[place] for frame, place in zip(frames, places)]).mean(dim=0).sigmoid()
    ranked = mean.amax(dim=1).argsort(descending=True)[:6].tolist()
    expected = []
    for number, (frame, place) in enumerate(zip(frames, places)):
        taken: list[torch.Tensor] = []
        for rank, query in enumerate(ranked):
            box = frame.boxes[place[query]]
            if int((frame.masks[place[query]] > 0).sum()) > TAO_LEAST_PIXELS and all(
                iou(box, b) <= 0.5 for b in taken
            ):
                taken.append(box)
                expected.append((40 + number, 18 + rank, int(mean[query].argmax())))
    rows = tracks.rows()
    assert [(row["image_id"], row["track_id"], row["category_id"]) for row in rows] == expected
    assert {row["video_id"] for row in rows} == {3}
    first = frames[0].boxes[places[0][ranked[rows[0]["track_id"] - 18]]]
    assert rows[0]["bbox"] == pytest.approx([*first[:2].tolist(), *(first[2:] - first[:2]).tolist()])


def iou(box: torch.Tensor, other: torch.Tensor) -> float:
    shared = (torch.minimum(box[2:], other[2:]) - torch.maximum(box[:2], other[:2])).clamp(min=0).prod()
    return float(shared / ((box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


def test_boxes_misread_as_published():
    """Another box covers two thirds of a box; with corners taken for centres it seems to cover less than half."""
    boxes = torch.tensor([[0.0, 0.0, 40.0, 10.0], [14.0, 0.0, 40.0, 10.0]])  # misread from -20 to 20, and from 1 to 27
    frame = FrameCandidates(torch.tensor([[2.0], [1.0]]), boxes, torch.ones(2, 3, 3), torch.eye(2))
    for reference, kept in ((False, 1), (True, 2)):
        tracks = TaoTracks(0, reference=reference)
        tracks.update(frame, 0)
        assert len(tracks.rows()) == kept


def test_videos_without_frames():
    with pytest.raises(ValueError, match="no frames"):
        VideoInstances().best()
    with pytest.raises(ValueError, match="no frames"):
        TaoTracks(0).rows()
    with pytest.raises(ValueError, match="top_k"):
        VideoInstances(0)

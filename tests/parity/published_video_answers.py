"""Whole videos as the published code answers: video instance segmentation (YouTube-VIS, OVIS), and TAO's tracks.

In both, the queries of the first frame are the tracks (`QueryAlignment`), one score and label holds for all frames,
and no object begins or ends. What a video is asked for is known when it has been seen to its end, so frames are looked
at in order, `update` says which query of each continues which track, and of the masks nothing is kept:

```python
instances = VideoInstances()
orders = [instances.update(frame) for frame in frames]
best = instances.best()
for frame, order in zip(frames_again, orders):
    for mask in instance_masks(frame.masks[order[best.tracks]], padded_size, image_size, (height, width)):
        ...
```
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torchvision.ops import nms

from lookhear.processing.glee.geometry_glee import Size, masks_to_picture
from lookhear.processing.glee.track_state_glee import FrameCandidates
from lookhear.processing.glee.tracking_glee import QueryAlignment, RunningMean

VIS_TOP_K = 30  # of the published code; its comment says 20
TAO_TOP_K = 50
TAO_LEAST_PIXELS = 5  # a mask must have more, in the network's own resolution
TAO_NMS = 0.5


@dataclass(frozen=True)
class VideoRanking:
    """The best pairs of a track and a label, best first: `scores` (0 to 1), `labels` and `tracks`, all `(n,)`."""

    scores: torch.Tensor
    labels: torch.Tensor
    tracks: torch.Tensor


class VideoInstances:
    """
    Scores of a video's instances: the mean of the logits of all frames. Keeps one mean and three frames' embeddings.

    Args:
        top_k: pairs of track and label that a video is answered with; one track may have several labels.
    """

    def __init__(self, top_k: int = VIS_TOP_K):
        if top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, not {top_k!r}.")
        self.top_k = top_k
        self._alignment, self._logits = QueryAlignment(), RunningMean()

    def update(self, frame: FrameCandidates) -> torch.Tensor:
        """
        Args:
            frame: all queries of the next frame.
        Returns:
            `(queries,)` int64: for each track the query that continues it.
        Raises:
            ValueError: the numbers of queries and labels aren't those of the frames before.
        """
        frame.check()
        order = self._alignment.align(frame.embeddings)
        self._logits.add(frame.logits[order])
        return order

    def best(self) -> VideoRanking:
        """The ranking of the frames so far. Raises ValueError: there was none."""
        scores = self._mean().sigmoid()
        best, index = scores.flatten().topk(min(self.top_k, scores.numel()))
        return VideoRanking(best, index % scores.shape[1], index // scores.shape[1])

    def _mean(self) -> torch.Tensor:
        if not self._logits.count:
            raise ValueError("the video has no frames.")
        return self._logits.mean


def instance_masks(
    masks: torch.Tensor, padded_size: Size, image_size: Size, target_size: Size
) -> Iterator[torch.Tensor]:
    """Yields the picture's `(height, width)` bool masks of `(n, h, w)` logits; see `masks_to_picture`."""
    return (masks_to_picture(mask[None].float(), padded_size, image_size, target_size)[0] > 0 for mask in masks)


def corner_boxes(boxes: torch.Tensor, image_share: tuple[float, float], reference: bool = False) -> torch.Tensor:
    """
    Boxes as YouTube-VIS and TAO have them.

    Args:
        boxes: `(n, 4)`, (x0, y0, x1, y1) in pixels of the frame.
        image_share: of the padded image's width and height that is image.
        reference: as the published code, which takes the padding for a part of the picture.
    Returns:
        `(n, 4)` left, top, width, height.
    """
    if reference:
        boxes = boxes * boxes.new_tensor([*image_share, *image_share])
    return torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1)


class TaoTracks:
    """
    TAO's answer for one video: the boxes of its best tracks, frame by frame.

    Keeps the boxes of each frame (16 bytes a query), which the answer consists of, and no masks.

    Args:
        video_id: of the annotations; top_k: tracks of a video.
        reference: as the published code: padding is taken for a part of the picture, the suppression of overlapping
            boxes reads (left, top, width, height) as (centre, width, height), and tracks are numbered in the order
            that an unsorted `topk` gives on the CPU. Else boxes are what they are, and the best track is number 0.
    """

    def __init__(self, video_id: int, top_k: int = TAO_TOP_K, reference: bool = False):
        self.video_id, self.top_k, self.reference = video_id, top_k, reference
        self._alignment, self._logits = QueryAlignment(), RunningMean()
        self._frames: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def update(
        self, frame: FrameCandidates, image_id: int, image_share: tuple[float, float] = (1.0, 1.0)
    ) -> torch.Tensor:
        """
        Args:
            frame: all queries of the next frame; image_id: of the annotations.
            image_share: see `corner_boxes`.
        Returns:
            `(queries,)` int64: for each track the query that continues it.
        Raises:
            ValueError: the numbers of queries and labels aren't those of the frames before.
        """
        frame.check()
        order = self._alignment.align(frame.embeddings)
        self._logits.add(frame.logits[order])
        boxes = corner_boxes(frame.boxes[order].float(), image_share, self.reference)
        seen = (frame.masks[order] > 0).flatten(1).sum(dim=1) > TAO_LEAST_PIXELS
        self._frames.append((image_id, boxes.cpu(), seen.cpu()))
        return order

    def rows(self) -> list[dict[str, int | float | list[float]]]:
        """
        One dict for each track in each frame, as TAO's results: `image_id`, `category_id` (the label's index), `bbox`
        (left, top, width, height), `score`, `track_id`, `video_id`.

        Raises:
            ValueError: the video has no frames.
        """
        if not self._frames:
            raise ValueError("the video has no frames.")
        scores, labels = self._logits.mean.sigmoid().max(dim=1)
        scores, tracks = scores.cpu().topk(min(self.top_k, len(scores)), sorted=not self.reference)
        labels = labels.cpu()[tracks]
        rows = []
        for image_id, boxes, seen in self._frames:
            boxes, seen = boxes[tracks], seen[tracks].nonzero()[:, 0]
            for rank in seen[self._kept(boxes[seen], scores[seen])].tolist():
                rows.append(
                    {
                        "image_id": image_id,
                        "category_id": int(labels[rank]),
                        "bbox": boxes[rank].tolist(),
                        "score": float(scores[rank]),
                        "track_id": rank + self.top_k * self.video_id,
                        "video_id": self.video_id,
                    }
                )
        return rows

    def _kept(self, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Places of the boxes (left, top, width, height) that no better one overlaps, best first."""
        first, extent = boxes[:, :2], boxes[:, 2:]
        corners = (first - extent / 2, first + extent / 2) if self.reference else (first, first + extent)
        return nms(torch.cat(corners, dim=1), scores, TAO_NMS)

"""What is remembered of tracks, and what of a frame may go on with them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from .track_candidates_glee import FrameCandidates, distinct, mask_qualities

USUAL_COSINE = 0.9  # of a track's embedding and the next frame's, until more is known


@dataclass
class Tracks:
    """
    What is remembered of m tracks.

    Attributes:
        ids: `(m,)` int64, -1 before it is handed out for the first time.
        embeddings: `(m, size)`; boxes: `(m, 4)` centre, width and height in pixels; velocities: `(m, 2)` of the centre, a frame.
        kinds: `(m, K)` mean class probabilities; scores: `(m,)` of late; best: `(m,)` the highest ones of late; steady: `(m,)`
            the usual cosine of its embedding and the next frame's.
        colours: `(m, 3)`, NaN where not known.
        found: `(m,)` int64, frames in which it was found; missed: frames since the last one; unclear: frames since it was
            last seen clearly; age: frames since the first one.
    """

    ids: torch.Tensor
    embeddings: torch.Tensor
    boxes: torch.Tensor
    velocities: torch.Tensor
    kinds: torch.Tensor
    scores: torch.Tensor
    best: torch.Tensor
    steady: torch.Tensor
    colours: torch.Tensor
    found: torch.Tensor
    missed: torch.Tensor
    unclear: torch.Tensor
    age: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def starting(cls, seen: Sights) -> Tracks:
        """New tracks of what is seen in a frame, all of it."""
        count, device = len(seen.scores), seen.scores.device
        zeros = torch.zeros(count, dtype=torch.int64, device=device)
        return cls(
            zeros - 1,
            seen.embeddings.clone(),
            seen.boxes.clone(),
            torch.zeros_like(seen.boxes[:, :2]),
            seen.kinds.clone(),
            seen.scores.clone(),
            seen.scores.clone(),
            torch.full_like(seen.scores, USUAL_COSINE),
            seen.colours.clone(),
            zeros + 1,
            zeros.clone(),
            zeros.clone(),
            zeros.clone(),
        )

    def only(self, places: torch.Tensor) -> Tracks:
        """Those at some places, or where a mask is True."""
        return Tracks(*(getattr(self, field.name)[places] for field in fields(self)))

    def joined(self, others: Tracks) -> Tracks:
        """These, then the others."""
        return Tracks(*(torch.cat((getattr(self, f.name), getattr(others, f.name))) for f in fields(self)))

    def expected_boxes(self) -> torch.Tensor:
        """`(m, 4)` where the tracks should be in the next frame."""
        return torch.cat((self.boxes[:, :2] + self.velocities, self.boxes[:, 2:]), dim=1)


@dataclass(frozen=True)
class Sights:
    """
    The candidates of a frame that are good enough, each thing once.

    Attributes:
        places: `(n,)` int64, among the frame's candidates; the other tensors are as in `Tracks`.
    """

    places: torch.Tensor
    embeddings: torch.Tensor
    boxes: torch.Tensor
    kinds: torch.Tensor
    scores: torch.Tensor
    colours: torch.Tensor

    @classmethod
    def of(cls, frame: FrameCandidates, least_score: float, same_mask: float) -> Sights:
        """A candidate's score is its best class probability times the quality of its mask. One that shows the same as a
        better one lends its class probabilities to that one."""
        kinds = frame.logits.float().sigmoid()
        good = kinds.amax(dim=1) >= least_score  # a mask can only lower a score
        for values in (frame.embeddings, frame.boxes):
            good &= values.isfinite().all(dim=1)
        places = good.nonzero()[:, 0]
        masks = frame.masks[places]
        kinds = kinds[places] * mask_qualities(masks)[:, None]
        good = kinds.amax(dim=1) >= least_score
        places, masks, kinds = places[good], masks[good], kinds[good]
        owner = distinct(masks > 0, kinds.amax(dim=1), same_mask)
        pooled = torch.zeros_like(kinds).scatter_reduce(0, owner[:, None].expand_as(kinds), kinds, "amax")
        kept = (owner == torch.arange(len(owner), device=owner.device)).nonzero()[:, 0]
        places, kinds = places[kept], pooled[kept]
        x0, y0, x1, y1 = frame.boxes[places].float().unbind(dim=1)
        boxes = torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), dim=1)
        embeddings = torch.nn.functional.normalize(frame.embeddings[places].float(), dim=1)
        colours = boxes.new_full((len(frame), 3), torch.nan) if frame.colours is None else frame.colours.float()
        return cls(places, embeddings, boxes, kinds, kinds.amax(dim=1), colours[places])

    def only(self, places: torch.Tensor) -> Sights:
        """Those at some places, or where a mask is True."""
        return Sights(*(getattr(self, field.name)[places] for field in fields(self)))

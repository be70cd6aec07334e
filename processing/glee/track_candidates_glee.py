"""What the network says of one frame, and how alike two of its answers are."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True)
class FrameCandidates:
    """
    What may be in one frame: n queries of the network, asked for K labels or for one expression or shown object (K = 1).

    Attributes:
        logits: `(n, K)` float32, before the sigmoid.
        boxes: `(n, 4)` float32, (x0, y0, x1, y1) in pixels of the frame.
        masks: `(n, h, w)` mask logits in the network's own resolution, of any float dtype.
        embeddings: `(n, size)`, alike for one object in several frames.
        confidence: `(n,)` before the sigmoid, of shown objects, or `None`.
        colours: `(n, 3)` float32, mean colours of what the masks show, see `mask_colours`; NaN where not known, or `None`.
    """

    logits: torch.Tensor
    boxes: torch.Tensor
    masks: torch.Tensor
    embeddings: torch.Tensor
    confidence: torch.Tensor | None = None
    colours: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    def check(self) -> None:
        """Raises ValueError: a tensor has another shape than the others ask for."""
        count = len(self.logits)
        shapes = {"logits": (2, None), "boxes": (2, 4), "masks": (3, None), "embeddings": (2, None)}
        for name, (axes, last) in shapes.items():
            value = getattr(self, name)
            if value.dim() != axes or len(value) != count or last not in (None, value.shape[-1]):
                wanted = f"{axes} axes, the first of {count}" + (f", the last of {last}" if last else "")
                raise ValueError(f"`{name}` of a frame must have {wanted}, not the shape {tuple(value.shape)}.")
        if self.confidence is not None and self.confidence.shape != (count,):
            raise ValueError(f"`confidence` of a frame must be ({count},), not {tuple(self.confidence.shape)}.")
        if self.colours is not None and self.colours.shape != (count, 3):
            raise ValueError(f"`colours` of a frame must be ({count}, 3), not {tuple(self.colours.shape)}.")

    def chosen(self, places: torch.Tensor) -> FrameCandidates:
        """Those of some places, `(m,)` int64, in their order."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return FrameCandidates(**{name: None if value is None else value[places] for name, value in values.items()})

    def joined(self, others: FrameCandidates) -> FrameCandidates:
        """These, then others of the same frame; without `confidence` and `colours`."""
        names = ("logits", "boxes", "masks", "embeddings")
        return FrameCandidates(*(torch.cat((getattr(self, name), getattr(others, name))) for name in names))


@dataclass(frozen=True)
class TrackedObject:
    """
    One object in one frame.

    Attributes:
        track_id: the same in all frames; candidate: its place among the frame's candidates.
        label: index of the label it has over all frames so far; score: from 0 to 1.
    """

    track_id: int
    candidate: int
    label: int
    score: float


def mask_qualities(masks: torch.Tensor) -> torch.Tensor:
    """`(n,)` float32: how sure masks `(n, h, w)` of logits are of themselves, the mean probability of the pixels inside;
    0 where no pixel is inside."""
    qualities = masks.new_zeros(len(masks), dtype=torch.float32)
    for place, logits in enumerate(masks):  # one by one they stay in the processor's cache
        inside = logits > 0
        chances = logits.float().masked_fill(~inside, -torch.inf).sigmoid()  # 0 outside
        qualities[place] = chances.sum() / inside.sum().clamp(min=1)
    return qualities


def mask_overlaps(masks: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`(n, m)` IoU of `(n, h, w)` and `(m, h, w)` bool masks; 0 for two empty ones."""
    first = masks.flatten(1).float()
    second = first if others is masks else others.flatten(1).float()
    shared = first @ second.T
    union = first.sum(dim=1)[:, None] + second.sum(dim=1)[None] - shared
    return shared / union.clamp(min=1)


def cosines(embeddings: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`(n, m)` cosines of `(n, size)` and `(m, size)`; 0 for vectors of length 0."""
    unit = torch.nn.functional.normalize
    return unit(embeddings.float(), dim=1) @ unit(others.float(), dim=1).T


def distinct(masks: torch.Tensor, scores: torch.Tensor, most_overlap: float) -> torch.Tensor:
    """
    Leaves out what another, better candidate shows already.

    Args:
        masks: `(n, h, w)` bool; scores: `(n,)`; most_overlap: IoU of masks above which two show the same.
    Returns:
        `(n,)` int64: for each candidate the one that stands for it, itself or a better one; never a left-out one.
    """
    order = scores.argsort(descending=True, stable=True)
    alike = (mask_overlaps(masks, masks) > most_overlap)[order][:, order].cpu()
    stands = torch.full((len(order),), -1, dtype=torch.int64)
    for place in range(len(order)):
        if stands[place] < 0:
            stands[place] = place
            stands[alike[place] & (stands < 0)] = place
    owner = torch.empty_like(order)
    owner[order] = order[stands.to(order.device)]
    return owner

"""Data of the trackers: candidates of a frame, their similarity to tracks, and the state of tracks."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from scipy.optimize import linear_sum_assignment

SPREAD = 0.5  # scale of colour differences within one object, in units of the model's normalized pixels
USUAL_COSINE = 0.9  # initial mean cosine of a track's embedding and the next frame's


# ----------------------------------------------------------------------------------------------- candidates of a frame


@dataclass(frozen=True)
class FrameCandidates:
    """
    Candidates of one frame: n queries of the network for K labels, or for one expression or visual prompt (K = 1).

    Attributes:
        logits: `(n, K)` float32, before the sigmoid.
        boxes: `(n, 4)` float32, (x0, y0, x1, y1) in pixels of the frame.
        masks: `(n, h, w)` mask logits in the network's own resolution, of any float dtype.
        embeddings: `(n, size)`, similar for one object across frames.
        colours: `(n, 3)` float32, mean colours of what the masks show, see `mask_colours`; NaN where not known, or
            `None`.
    """

    logits: torch.Tensor
    boxes: torch.Tensor
    masks: torch.Tensor
    embeddings: torch.Tensor
    colours: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    def check(self) -> None:
        """
        Checks that the tensors fit together.

        Raises:
            ValueError: a tensor has another shape than the others require.
        """
        count = len(self.logits)
        shapes = {"logits": (2, None), "boxes": (2, 4), "masks": (3, None), "embeddings": (2, None)}
        for name, (axes, last) in shapes.items():
            value = getattr(self, name)
            if value.dim() != axes or len(value) != count or last not in (None, value.shape[-1]):
                wanted = f"{axes} axes, the first of {count}" + (f", the last of {last}" if last else "")
                raise ValueError(f"`{name}` of a frame must have {wanted}, not the shape {tuple(value.shape)}.")
        if self.colours is not None and self.colours.shape != (count, 3):
            raise ValueError(f"`colours` of a frame must be ({count}, 3), not {tuple(self.colours.shape)}.")

    @cached_property
    def on_host(self) -> FrameCandidates:
        """
        Returns the candidates with float32 numbers on the host, in one copy; masks stay where they are.

        Raises:
            ValueError: see `check`.
        """
        self.check()
        colours = self.boxes.new_full((len(self), 3), torch.nan) if self.colours is None else self.colours
        parts = (self.logits, self.boxes, self.embeddings, colours)
        numbers = torch.cat([part.float() for part in parts], dim=1).cpu()
        logits, boxes, embeddings, colours = numbers.split([part.shape[1] for part in parts], dim=1)
        return FrameCandidates(logits, boxes, self.masks, embeddings, colours)

    def chosen(self, places: torch.Tensor) -> FrameCandidates:
        """Selects the candidates at some places, `(m,)` int64, in their order."""
        places = places.to(self.logits.device)
        return FrameCandidates(
            self.logits[places],
            self.boxes[places],
            self.masks[places],
            self.embeddings[places],
            None if self.colours is None else self.colours[places],
        )

    def rivalry(self, same: float) -> torch.Tensor:
        """
        Computes how near the best candidate that shows something else comes to the best one; K = 1.

        Args:
            same: IoU of two masks from which on they show the same.

        Returns:
            its score as a share of the best one's, `()` float32 from 0 to 1.
        """
        scores = self.logits[:, 0].sigmoid()
        best = scores.argmax()[None]
        others = mask_overlaps(self.masks[best] > 0, self.masks > 0)[0] < same
        return (scores * others).amax() / scores[best][0]

    def with_embeddings_of(self, others: FrameCandidates, same: float) -> FrameCandidates:
        """Exchanges the embeddings for those of other candidates of the frame whose masks are the same, see
        `rivalry`; those of candidates without such a mask stay."""
        overlaps, places = mask_overlaps(self.masks > 0, others.masks > 0).max(dim=1)  # (n,) each
        embeddings = torch.where((overlaps >= same)[:, None], others.embeddings[places], self.embeddings)
        return replace(self, embeddings=embeddings)

    def joined(self, others: FrameCandidates) -> FrameCandidates:
        """Concatenates these and others of the same frame; without `colours`."""
        names = ("logits", "boxes", "masks", "embeddings")
        return FrameCandidates(*(torch.cat((getattr(self, name), getattr(others, name))) for name in names))


@dataclass(frozen=True)
class TrackedObject:
    """
    One object in one frame.

    Attributes:
        track_id: the same in all frames.
        candidate: its place among the frame's candidates.
        label: index of its label, the most probable one over all frames so far.
        score: from 0 to 1.
    """

    track_id: int
    candidate: int
    label: int
    score: float


def mask_qualities(masks: torch.Tensor) -> torch.Tensor:
    """Computes the mean probability of the pixels inside each mask, `(n, h, w)` logits; `(n,)` float32, 0 for an empty
    mask."""
    at_once = 1 if masks.device.type == "cpu" else max(1, len(masks))  # one by one they stay in a CPU's cache
    qualities = [masks.new_zeros(0, dtype=torch.float32)]
    for start in range(0, len(masks), at_once):
        logits = masks[start : start + at_once]
        inside = logits > 0
        chances = logits.float().masked_fill(~inside, -torch.inf).sigmoid()  # 0 outside
        qualities.append(chances.sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1))
    return torch.cat(qualities)


def mask_overlaps(masks: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Computes the IoU `(n, m)` of `(n, h, w)` and `(m, h, w)` bool masks; 0 for two empty ones."""
    first = masks.flatten(1).float()
    second = first if others is masks else others.flatten(1).float()
    shared = first @ second.T
    union = first.sum(dim=1)[:, None] + second.sum(dim=1)[None] - shared
    return shared / union.clamp(min=1)


def cosines(embeddings: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Computes the cosines `(n, m)` of `(n, size)` and `(m, size)`; 0 for vectors of length 0."""
    unit = torch.nn.functional.normalize
    return unit(embeddings.float(), dim=1) @ unit(others.float(), dim=1).T


def distinct(masks: torch.Tensor, scores: torch.Tensor, duplicate_iou: float) -> torch.Tensor:
    """
    Suppresses candidates that duplicate a better one.

    Args:
        masks: `(n, h, w)` bool, on any device.
        scores: `(n,)`, on the host.
        duplicate_iou: IoU of masks above which two candidates are the same object.

    Returns:
        `(n,)` int64, on the host: for each candidate the retained one that stands for it, itself or a better one.
    """
    order = scores.argsort(descending=True, stable=True)
    same = (mask_overlaps(masks, masks) > duplicate_iou).cpu()[order][:, order]
    stands = torch.full((len(order),), -1, dtype=torch.int64)
    for place in range(len(order)):
        if stands[place] < 0:
            stands[place] = place
            stands[same[place] & (stands < 0)] = place
    owner = torch.empty_like(order)
    owner[order] = order[stands]
    return owner


# -------------------------------------------------------------------------------------------------------- similarities


def mask_colours(picture: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """
    Computes the mean colours of what masks show, as embeddings hardly distinguish colours.

    Args:
        picture: `(3, H, W)`, normalized as the model takes it.
        masks: `(n, h, w)` logits over the same padded image.

    Returns:
        `(n, 3)` float32, of the pixels in the middle of the masks' cells, so that little of the surroundings is
        included; NaN where no pixel is inside.
    """
    middles = torch.nn.functional.interpolate(
        picture[None].float(), size=masks.shape[1:], mode="bilinear", align_corners=False
    )
    inside = (masks > 0).flatten(1).float()
    return inside @ middles[0].flatten(1).T / inside.sum(dim=1, keepdim=True)


def colour_agreement(colours: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Computes the similarity of colours `(m, 3)` and `(n, 3)`: `(m, n)` in [0, 1], NaN where one of the two is not
    known."""
    away = (colours[:, None] - others[None]).square().sum(dim=-1)
    return torch.exp(-0.5 * away / SPREAD**2)


def mixed_colours(colours: torch.Tensor, others: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Mixes colours `(n, 3)` with others, whose share is `(n, 1)`; where one of the two is not known, returns the
    other."""
    mixed = colours + share * (others - colours)
    return torch.where(mixed.isfinite(), mixed, torch.where(others.isfinite(), others, colours))


def nearness(expected: torch.Tensor, boxes: torch.Tensor, missed: torch.Tensor) -> torch.Tensor:
    """
    Computes how near boxes are to where tracks are expected.

    Args:
        expected: `(m, 4)` boxes of the tracks (centre x, centre y, width, height) in pixels.
        boxes: `(n, 4)`, in the same form.
        missed: `(m,)` frames since each track was found; the longer, the farther it may have moved.

    Returns:
        `(m, n)` in [0, 1]; 1 for the expected box itself.
    """
    size = (expected[:, None, 2:] * boxes[None, :, 2:]).clamp(min=1.0).sqrt()  # (m, n, 2)
    off = (expected[:, None, :2] - boxes[None, :, :2]) / size
    reach = (0.5 + 0.1 * missed.float())[:, None]
    grown = (expected[:, None, 2:].clamp(min=1.0) / boxes[None, :, 2:].clamp(min=1.0)).log()
    return torch.exp(-0.5 * (off.square().sum(dim=-1) + 0.25 * grown.square().sum(dim=-1)) / reach.square())


def class_agreement(probabilities: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Computes the agreement `(m, n)` of class probabilities `(m, K)` and `(n, K)`: the sum of minima over that of
    maxima."""
    shared = torch.minimum(probabilities[:, None], others[None]).sum(dim=-1)
    return shared / torch.maximum(probabilities[:, None], others[None]).sum(dim=-1).clamp(min=1e-6)


def best_pairs(similarity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Matches rows and columns of `(m, n)`, on the host, one to one, of the highest total similarity; `(k,)` int64
    each, no pair of similarity 0."""
    rows, columns = map(torch.from_numpy, linear_sum_assignment(similarity.numpy(), maximize=True))
    good = similarity[rows, columns] > 0
    return rows[good], columns[good]


# ---------------------------------------------------------------------------------------- state of the tracks


@dataclass
class Tracks:
    """
    State of m tracks, all of it on the host, as it is small and the host decides.

    Attributes:
        ids: `(m,)` int64, -1 before a track is returned for the first time.
        embeddings: `(m, size)`, of length 1.
        boxes: `(m, 4)`, centre, width and height in pixels.
        velocities: `(m, 2)`, of the centre in pixels per frame.
        class_probabilities: `(m, K)`, mean over frames.
        scores: `(m,)`, moving average of the score.
        recent_best: `(m,)`, decaying maximum of the score.
        mean_cosine: `(m,)`, moving average of the cosine of the track's embedding and the next frame's.
        colours: `(m, 3)`, NaN where not known.
        found: `(m,)` int64, frames in which the track was found.
        missed: `(m,)` int64, frames since it was found last.
        unclear: `(m,)` int64, frames since it was last seen clearly.
        age: `(m,)` int64, frames since its first one.
    """

    ids: torch.Tensor
    embeddings: torch.Tensor
    boxes: torch.Tensor
    velocities: torch.Tensor
    class_probabilities: torch.Tensor
    scores: torch.Tensor
    recent_best: torch.Tensor
    mean_cosine: torch.Tensor
    colours: torch.Tensor
    found: torch.Tensor
    missed: torch.Tensor
    unclear: torch.Tensor
    age: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def starting(cls, seen: Detections) -> Tracks:
        """Starts a track for each detection of a frame."""
        zeros = torch.zeros(len(seen.scores), dtype=torch.int64)
        return cls(
            zeros - 1,
            seen.embeddings.clone(),
            seen.boxes.clone(),
            torch.zeros_like(seen.boxes[:, :2]),
            seen.class_probabilities.clone(),
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
        """Selects those at some places, or where a mask is True."""
        return Tracks(*(getattr(self, field.name)[places] for field in fields(self)))

    def joined(self, others: Tracks) -> Tracks:
        """Concatenates these and the others."""
        return Tracks(*(torch.cat((getattr(self, f.name), getattr(others, f.name))) for f in fields(self)))

    def expected_boxes(self) -> torch.Tensor:
        """Computes where the tracks should be in the next frame, `(m, 4)`."""
        return torch.cat((self.boxes[:, :2] + self.velocities, self.boxes[:, 2:]), dim=1)


@dataclass(frozen=True)
class Detections:
    """
    The candidates of a frame above the score threshold, one per object; on the host.

    Attributes:
        places: `(n,)` int64, among the frame's candidates.
        embeddings: `(n, size)`, of length 1.
        boxes: `(n, 4)`, centre, width and height in pixels.
        class_probabilities: `(n, K)`.
        scores: `(n,)`.
        colours: `(n, 3)`, NaN where not known.
    """

    places: torch.Tensor
    embeddings: torch.Tensor
    boxes: torch.Tensor
    class_probabilities: torch.Tensor
    scores: torch.Tensor
    colours: torch.Tensor

    @classmethod
    def of(cls, frame: FrameCandidates, min_score: float, duplicate_iou: float) -> Detections:
        """Selects detections: a score is the best class probability times the quality of the mask. A duplicate passes
        its class probabilities to the better candidate."""
        frame = frame.on_host
        probabilities = frame.logits.sigmoid()
        good = probabilities.amax(dim=1) >= min_score  # a mask can only lower a score
        for values in (frame.embeddings, frame.boxes):
            good &= values.isfinite().all(dim=1)
        places = good.nonzero()[:, 0]
        masks = frame.masks[places.to(frame.masks.device)]
        probabilities = probabilities[places] * mask_qualities(masks).cpu()[:, None]
        good = probabilities.amax(dim=1) >= min_score
        masks = masks[good.nonzero()[:, 0].to(masks.device)]
        places, probabilities = places[good], probabilities[good]
        owner = distinct(masks > 0, probabilities.amax(dim=1), duplicate_iou)
        pooled = torch.zeros_like(probabilities)
        pooled = pooled.scatter_reduce(0, owner[:, None].expand_as(probabilities), probabilities, "amax")
        retained = (owner == torch.arange(len(owner))).nonzero()[:, 0]
        places, probabilities = places[retained], pooled[retained]
        x0, y0, x1, y1 = frame.boxes[places].unbind(dim=1)
        boxes = torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), dim=1)
        embeddings = torch.nn.functional.normalize(frame.embeddings[places], dim=1)
        assert frame.colours is not None  # `on_host` fills them in
        return cls(places, embeddings, boxes, probabilities, probabilities.amax(dim=1), frame.colours[places])

    def only(self, places: torch.Tensor) -> Detections:
        """Selects those at some places, or where a mask is True."""
        return Detections(*(getattr(self, field.name)[places] for field in fields(self)))

"""Track birth, loss, re-identification and removal: candidates of a frame, their similarity to tracks, the state of tracks, and
the assignment of candidates to tracks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from scipy.optimize import linear_sum_assignment

# Scale of colour differences within one object, in units of the model's normalized pixels.
SPREAD = 0.5

USUAL_COSINE = 0.9  # initial mean cosine of a track's embedding and the next frame's
BEST_FADE = 0.98  # decay per frame of a track's recent maximum score


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
        """Selects those at some places, `(m,)` int64, in their order."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return FrameCandidates(**{name: None if value is None else value[places] for name, value in values.items()})

    def joined(self, others: FrameCandidates) -> FrameCandidates:
        """Concatenates these and others of the same frame; without `confidence` and `colours`."""
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
    Suppresses candidates that duplicate a better one.

    Args:
        masks: `(n, h, w)` bool; scores: `(n,)`; most_overlap: IoU of masks above which two show the same.

    Returns:
        `(n,)` int64: for each candidate the one that stands for it, itself or a better one; never a left-out one.
    """
    order = scores.argsort(descending=True, stable=True)
    same = (mask_overlaps(masks, masks) > most_overlap)[order][:, order].cpu()
    stands = torch.full((len(order),), -1, dtype=torch.int64)
    for place in range(len(order)):
        if stands[place] < 0:
            stands[place] = place
            stands[same[place] & (stands < 0)] = place
    owner = torch.empty_like(order)
    owner[order] = order[stands.to(order.device)]
    return owner


# -------------------------------------------------------------------------------------------------------- similarities


def mask_colours(picture: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """
    Mean colours of what masks show: embeddings know colours badly.

    Args:
        picture: `(3, H, W)`, normalized as the model takes it; masks: `(n, h, w)` logits over the same padded image.

    Returns:
        `(n, 3)` float32, of the pixels in the middle of the masks' cells, so that little of what is around gets in; NaN where
        no pixel is inside.
    """
    middles = torch.nn.functional.interpolate(
        picture[None].float(), size=masks.shape[1:], mode="bilinear", align_corners=False
    )
    inside = (masks > 0).flatten(1).float()
    return inside @ middles[0].flatten(1).T / inside.sum(dim=1, keepdim=True)


def colour_agreement(colours: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`(m, n)` from 0 to 1 of colours `(m, 3)` and `(n, 3)`; NaN where one of the two is not known."""
    away = (colours[:, None] - others[None]).square().sum(dim=-1)
    return torch.exp(-0.5 * away / SPREAD**2)


def mixed_colours(colours: torch.Tensor, others: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """`(n, 3)` of two `(n, 3)`, `(n, 1)` the share of the others; where one is not known, the other."""
    mixed = colours + share * (others - colours)
    return torch.where(mixed.isfinite(), mixed, torch.where(others.isfinite(), others, colours))


def nearness(expected: torch.Tensor, boxes: torch.Tensor, missed: torch.Tensor) -> torch.Tensor:
    """
    How well boxes `(n, 4)` lie where tracks are expected, `(m, 4)`, both (centre x, centre y, width, height): `(m, n)` from
    0 to 1, 1 in the very place. After `missed` frames `(m,)` a track may have gone farther.
    """
    size = (expected[:, None, 2:] * boxes[None, :, 2:]).clamp(min=1.0).sqrt()  # (m, n, 2)
    off = (expected[:, None, :2] - boxes[None, :, :2]) / size
    reach = (0.5 + 0.1 * missed.float())[:, None]
    grown = (expected[:, None, 2:].clamp(min=1.0) / boxes[None, :, 2:].clamp(min=1.0)).log()
    return torch.exp(-0.5 * (off.square().sum(dim=-1) + 0.25 * grown.square().sum(dim=-1)) / reach.square())


def kind_agreement(kinds: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`(m, n)` shared over united class probabilities of `(m, K)` and `(n, K)`."""
    shared = torch.minimum(kinds[:, None], others[None]).sum(dim=-1)
    return shared / torch.maximum(kinds[:, None], others[None]).sum(dim=-1).clamp(min=1e-6)


def best_pairs(similarity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of `(m, n)`, `(k,)` int64 each: one to one, the most similar in all; never a pair of similarity 0."""
    rows, columns = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)
    rows, columns = (torch.from_numpy(places).to(similarity.device) for places in (rows, columns))
    good = similarity[rows, columns] > 0
    return rows[good], columns[good]


# ---------------------------------------------------------------------------------------- state of the tracks


@dataclass
class Tracks:
    """
    State of m tracks.

    Attributes:
        ids: `(m,)` int64, -1 before it is handed out for the first time.
        embeddings: `(m, size)`; boxes: `(m, 4)` centre, width and height in pixels; velocities: `(m, 2)` of the centre, a frame.
        class_probabilities: `(m, K)`, mean over frames.
        scores: `(m,)`, moving average of the score.
        recent_best: `(m,)`, decaying maximum of the score.
        mean_cosine: `(m,)`, moving average of the cosine of the track's embedding and the next frame's.
        colours: `(m, 3)`, NaN where not known.
        found: `(m,)` int64, frames in which it was found; missed: frames since the last one; unclear: frames since it was
            last seen clearly; age: frames since the first one.
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
        """New tracks of what is seen in a frame, all of it."""
        count, device = len(seen.scores), seen.scores.device
        zeros = torch.zeros(count, dtype=torch.int64, device=device)
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
        """`(m, 4)` where the tracks should be in the next frame."""
        return torch.cat((self.boxes[:, :2] + self.velocities, self.boxes[:, 2:]), dim=1)


@dataclass(frozen=True)
class Detections:
    """
    The candidates of a frame above the score threshold, one per object.

    Attributes:
        places: `(n,)` int64, among the frame's candidates; the other tensors are as in `Tracks`.
    """

    places: torch.Tensor
    embeddings: torch.Tensor
    boxes: torch.Tensor
    class_probabilities: torch.Tensor
    scores: torch.Tensor
    colours: torch.Tensor

    @classmethod
    def of(cls, frame: FrameCandidates, least_score: float, same_mask: float) -> Detections:
        """Selects detections: a score is the best class probability times the quality of the mask. A duplicate passes its
        class probabilities to the better candidate."""
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
        retained = (owner == torch.arange(len(owner), device=owner.device)).nonzero()[:, 0]
        places, kinds = places[retained], pooled[retained]
        x0, y0, x1, y1 = frame.boxes[places].float().unbind(dim=1)
        boxes = torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), dim=1)
        embeddings = torch.nn.functional.normalize(frame.embeddings[places].float(), dim=1)
        colours = boxes.new_full((len(frame), 3), torch.nan) if frame.colours is None else frame.colours.float()
        return cls(places, embeddings, boxes, kinds, kinds.amax(dim=1), colours[places])

    def only(self, places: torch.Tensor) -> Detections:
        """Selects those at some places, or where a mask is True."""
        return Detections(*(getattr(self, field.name)[places] for field in fields(self)))


# ------------------------------------------------------------------------------------ assignment of candidates to tracks


@dataclass(frozen=True)
class TrackerSettings:
    """
    Thresholds of the tracker. Scores and similarities are from 0 to 1, times in frames.

    Attributes:
        birth_score: minimum score of a candidate that starts a track.
        keep_score: minimum score of a candidate that continues a track.
        birth_frames: frames, in a row, in which a track must be found before it is handed out; not in a video's first one.
        sure_score: minimum score of a candidate whose track is handed out at once.
        memory: frames for which a track is remembered that is not found.
        most_tracks: tracks that are remembered, at most; those not found for the longest time are forgotten first.
        same_mask: IoU of masks from which on two candidates are the same object.
        appearance, motion, kind, colour: how much embeddings, places, class scores and colours count for the similarity of a
            track and a candidate; colours only where both are known.
        motion_fade: frames after which a place counts half as much for a track that is not found.
        least_similarity: minimum similarity of a candidate that continues a track.
        least_cosine: minimum cosine of its embedding and the track's.
        surprise: how far that cosine may fall below the track's mean: embeddings of neighbours and occluders differ by more.
        surprise_growth: added to `surprise` for each frame in which the track was not found.
        refresh: weight of a new detection in the track's motion, and of a clear one in its embedding.
        clear_score: a detection is clear (unoccluded) if its score is at least this share of the track's recent maximum, and
        clear_drop: its cosine is at most this far below the mean. At half the maximum score the embedding hardly changes.
        near_frames: an unassigned candidate may also continue a track that was missed for at most this many frames, as
            partly occluded objects look different, with
        near_cosine: this minimum cosine similarity, and
        near_place: this minimum nearness of the boxes.
        again_cosine: a young track, born after an older one was last seen clearly, is merged into it from this cosine
            similarity on, and
        again_kind: from this agreement of class probabilities on.
        again_frames: age up to which a track is young.
    """

    birth_score: float = 0.35
    keep_score: float = 0.15
    birth_frames: int = 2
    sure_score: float = 0.6
    memory: int = 60
    most_tracks: int = 256
    same_mask: float = 0.5
    appearance: float = 1.0
    motion: float = 1.0
    kind: float = 0.6
    colour: float = 1.0
    motion_fade: float = 8.0
    least_similarity: float = 0.55
    least_cosine: float = 0.3
    surprise: float = 0.25
    surprise_growth: float = 0.02
    refresh: float = 0.3
    clear_score: float = 0.8
    clear_drop: float = 0.15
    near_frames: int = 8
    near_cosine: float = 0.3
    near_place: float = 0.35
    again_cosine: float = 0.6
    again_kind: float = 0.3
    again_frames: int = 16

    def __post_init__(self) -> None:
        shares = ("birth_score", "keep_score", "sure_score", "same_mask", "least_similarity", "refresh", "clear_score")
        for name in (*shares, "near_place", "again_kind"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1, not {getattr(self, name)!r}.")
        for name in ("birth_frames", "memory", "most_tracks"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, not {getattr(self, name)!r}.")
        weights = self.appearance, self.motion, self.kind, self.colour
        if min(weights) < 0 or sum(weights[:3]) == 0:
            raise ValueError(
                "`appearance`, `motion`, `kind` and `colour` must not be negative, nor the first three of them all 0."
            )


class TrackMemory:
    """
    The state of a tracker: at most `settings.most_tracks` tracks of fixed size, however long the video.

    Args:
        settings: see [`TrackerSettings`].
        ids: numbers of tracks, taken one by one as tracks are handed out.
    """

    def __init__(self, settings: TrackerSettings | None = None, ids: Iterator[int] | None = None):
        self.settings = settings or TrackerSettings()
        self.ids = itertools.count(1) if ids is None else ids
        self.tracks: Tracks | None = None

    def found(self, frame: FrameCandidates) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `update`: ids, candidates, labels and scores of what is handed out, `(m,)` each."""
        tracks, candidates = self.update(frame)
        return tracks.ids, candidates, tracks.class_probabilities.argmax(dim=1), tracks.scores

    def update(self, frame: FrameCandidates) -> tuple[Tracks, torch.Tensor]:
        """
        Updates the tracks with the next frame.

        Returns:
            the tracks that are found in it and handed out, and `(m,)` int64, their candidates.

        Raises:
            ValueError: the number of labels or the size of embeddings has changed.
        """
        frame.check()
        settings = self.settings
        seen = Detections.of(frame, settings.keep_score, settings.same_mask)
        first = self.tracks is None
        if first:
            self.tracks = Tracks.starting(seen.only(torch.zeros(0, dtype=torch.int64)))
        self._check_sizes(frame)
        rows, columns = self._matched(seen)
        self._continue(rows, seen.only(columns))
        born = self._unknown(seen, columns)
        detections = torch.full(
            (len(self.tracks) + len(born),), -1, dtype=torch.int64, device=born.device
        )  # -1 for none
        detections[rows], detections[len(self.tracks) :] = columns, born
        self.tracks = self.tracks.joined(Tracks.starting(seen.only(born)))
        detections = self._known_again(seen, detections)
        self._number(first)
        shown = (detections >= 0) & (self.tracks.ids >= 0)
        found = self.tracks.only(shown)
        self._forget()
        return found, seen.places[detections[shown]]

    def _check_sizes(self, frame: FrameCandidates) -> None:
        for what, now, before in (
            ("labels", frame.logits.shape[1], self.tracks.class_probabilities.shape[1]),
            ("numbers an embedding", frame.embeddings.shape[1], self.tracks.embeddings.shape[1]),
        ):
            if now != before:
                raise ValueError(
                    f"a frame has {now} {what}, the frames before had {before}: start a new tracker for other prompts "
                    "(with the same `ids`, so that none occurs twice)."
                )

    def _similarities(self, seen: Detections, cosine: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """`(m, n)` of tracks and what is seen, from 0 to 1; 0 where they cannot be the same."""
        tracks, settings = self.tracks, self.settings
        kinds = kind_agreement(tracks.class_probabilities, seen.class_probabilities)
        fade = settings.motion * 0.5 ** (tracks.missed / settings.motion_fade)[:, None]
        colours = colour_agreement(tracks.colours, seen.colours)
        colour_weight = settings.colour * colours.isfinite()
        weighted = settings.appearance * cosine.clamp(min=0) + fade * near + settings.kind * kinds
        weighted = (weighted + colour_weight * colours.nan_to_num()) / (
            settings.appearance + fade + settings.kind + colour_weight
        )
        gate = tracks.mean_cosine - settings.surprise - settings.surprise_growth * tracks.missed
        gate = gate.clamp(min=settings.least_cosine)[:, None]
        return weighted.masked_fill((weighted < settings.least_similarity) | (cosine < gate), 0.0)

    def _matched(self, seen: Detections) -> tuple[torch.Tensor, torch.Tensor]:
        """Assigns detections to tracks, `(k,)` int64 both: first by total similarity, then by nearness."""
        cosine = cosines(self.tracks.embeddings, seen.embeddings)  # (m, n), as all here
        near = nearness(self.tracks.expected_boxes(), seen.boxes, self.tracks.missed)
        rows, columns = best_pairs(self._similarities(seen, cosine, near))
        left = self._near_similarities(cosine, near)
        left[rows], left[:, columns] = 0.0, 0.0
        more = best_pairs(left)
        return torch.cat((rows, more[0])), torch.cat((columns, more[1]))

    def _near_similarities(self, cosine: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """`(m, n)` of tracks found a short while ago and what is seen where they should be; else 0."""
        tracks, settings = self.tracks, self.settings
        late = (tracks.missed > settings.near_frames) | (tracks.ids < 0)
        never = late[:, None] | (cosine < settings.near_cosine) | (near < settings.near_place)
        return (cosine + near).masked_fill(never, 0.0)

    def _unknown(self, seen: Detections, columns: torch.Tensor) -> torch.Tensor:
        """Finds unassigned detections that start tracks; the best one, which gets the lowest number, first."""
        free = torch.ones(len(seen.scores), dtype=torch.bool, device=seen.scores.device)
        free[columns] = False
        born = (free & (seen.scores >= self.settings.birth_score)).nonzero()[:, 0]
        return born[seen.scores[born].argsort(descending=True, stable=True)]

    def _continue(self, rows: torch.Tensor, seen: Detections) -> None:
        """Updates the tracks that were found, and moves the others to where they are expected."""
        tracks, settings = self.tracks, self.settings
        expected = tracks.expected_boxes()
        gone = torch.ones(len(tracks), dtype=torch.bool, device=rows.device)
        gone[rows] = False
        tracks.age += 1
        tracks.unclear += 1
        tracks.missed[gone] += 1
        tracks.boxes[gone], tracks.velocities[gone] = expected[gone], 0.95 * tracks.velocities[gone]

        step = torch.clamp(1 / (tracks.found[rows].float() + 1), min=settings.refresh)[:, None]  # a mean, at first
        after_break = tracks.missed[rows] > 0
        error = (seen.boxes - expected[rows])[:, :2]
        tracks.velocities[rows] += torch.where(after_break[:, None], 0.0, step) * error
        tracks.boxes[rows] = seen.boxes
        self._refresh(rows, seen, after_break)
        tracks.found[rows] += 1
        tracks.missed[rows] = 0

    def _refresh(self, rows: torch.Tensor, seen: Detections, after_break: torch.Tensor) -> None:
        """Updates appearance (as far as it is unoccluded) and class probabilities of the tracks that were found."""
        tracks, settings = self.tracks, self.settings
        cosine = (tracks.embeddings[rows] * seen.embeddings).sum(dim=1)
        ratio = seen.scores / tracks.recent_best[rows].clamp(min=1e-6)
        clear = (ratio >= settings.clear_score) & (cosine >= tracks.mean_cosine[rows] - settings.clear_drop)
        tracks.unclear[rows[clear]] = 0
        tracks.recent_best[rows] = torch.maximum(seen.scores, BEST_FADE * tracks.recent_best[rows])
        tracks.mean_cosine[rows] += torch.where(after_break, 0.0, 0.2) * (cosine - tracks.mean_cosine[rows])
        share = (settings.refresh * ((ratio - 0.4) / 0.5).clamp(0, 1))[:, None]
        mixed = (1 - share) * tracks.embeddings[rows] + share * seen.embeddings
        tracks.embeddings[rows] = torch.nn.functional.normalize(mixed, dim=1)
        slow = torch.clamp(1 / (tracks.found[rows].float() + 1), min=0.05)[:, None]
        tracks.class_probabilities[rows] += slow * (seen.class_probabilities - tracks.class_probabilities[rows])
        tracks.colours[rows] = mixed_colours(tracks.colours[rows], seen.colours, slow * clear[:, None])
        tracks.scores[rows] += settings.refresh * (seen.scores - tracks.scores[rows])

    def _known_again(self, seen: Detections, detections: torch.Tensor) -> torch.Tensor:
        """
        Joins young tracks with older ones that have lost what they followed, or follow a piece of it, and are the same.

        Args:
            detections: `(m,)` int64, what each track was found by in this frame, -1 for those not found.

        Returns:
            the same of the tracks that are left.
        """
        here = (detections >= 0).nonzero()[:, 0]
        old, young = best_pairs(self._same_again(here, seen.only(detections[here])))
        left = torch.ones(len(detections), dtype=torch.bool, device=detections.device)
        for one, other in zip(old.tolist(), here[young].tolist()):
            if left[one] and left[other]:
                self._join(one, other, seen.embeddings[detections[other]])
                detections[one], left[other] = detections[other], False
        self.tracks = self.tracks.only(left)
        return detections[left]

    def _same_again(self, here: torch.Tensor, seen: Detections) -> torch.Tensor:
        """`(m, n)` cosine of old tracks and detections of the tracks `here`, `(n,)` int64; 0 where they cannot be the same."""
        tracks, settings = self.tracks, self.settings
        cosine = cosines(tracks.embeddings, seen.embeddings)
        own = torch.full_like(tracks.scores, -1.0)  # cosine of what a track is found by anyway
        own[here] = cosine[here, torch.arange(len(here), device=here.device)]
        same = (cosine >= settings.again_cosine) & (cosine > own[:, None])
        same &= kind_agreement(tracks.class_probabilities, seen.class_probabilities) >= settings.again_kind
        age = tracks.age[here][None]
        same &= (age < settings.again_frames) & (age < tracks.unclear[:, None]) & (tracks.ids >= 0)[:, None]
        return cosine.masked_fill(~same, 0.0)

    def _join(self, old: int, young: int, sight: torch.Tensor) -> None:
        """Continues the older track at the place of the young one."""
        tracks, share = self.tracks, self.settings.refresh
        for values in (tracks.boxes, tracks.velocities, tracks.scores):
            values[old] = values[young]
        mixed = (1 - share) * tracks.embeddings[old] + share * sight
        tracks.embeddings[old] = torch.nn.functional.normalize(mixed, dim=0)
        tracks.recent_best[old] = torch.maximum(0.9 * tracks.recent_best[old], tracks.recent_best[young])
        tracks.mean_cosine[old] = USUAL_COSINE
        tracks.found[old] += tracks.found[young]
        tracks.missed[old] = tracks.unclear[old] = 0

    def _number(self, first: bool) -> None:
        """Gives ids to the tracks that are to be handed out from now on."""
        tracks, settings = self.tracks, self.settings
        ready = (tracks.found >= settings.birth_frames) | (tracks.scores >= settings.sure_score) | first
        for place in (ready & (tracks.ids < 0)).nonzero()[:, 0].tolist():
            tracks.ids[place] = next(self.ids)

    def _forget(self) -> None:
        tracks, settings = self.tracks, self.settings
        retained = (tracks.missed <= settings.memory) & ((tracks.ids >= 0) | (tracks.missed == 0))
        self.tracks = tracks.only(retained)
        if len(self.tracks) > settings.most_tracks:
            latest = self.tracks.missed.argsort(stable=True)[: settings.most_tracks]
            self.tracks = self.tracks.only(latest.sort().values)

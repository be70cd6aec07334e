"""Tracks that are born, hidden, found again and forgotten: what is remembered of each, and which candidate goes on with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from scipy.optimize import linear_sum_assignment

from .track_candidates_glee import FrameCandidates, cosines, distinct, mask_qualities


@dataclass(frozen=True)
class TrackerSettings:
    """
    How tracks are kept. Scores and similarities are from 0 to 1, times in frames.

    Attributes:
        birth_score: least score of a candidate that starts a track.
        keep_score: least score of one that goes on with a track.
        birth_frames: frames, in a row, in which a track must be found before it is handed out; not in a video's first one.
        sure_score: least score of a candidate whose track is handed out at once.
        memory: frames for which a track is remembered that is not found.
        most_tracks: tracks that are remembered, at most; those not found for the longest time are forgotten first.
        same_mask: IoU of masks from which on two candidates show the same thing.
        appearance, motion, kind: how much embeddings, places and class scores count for the similarity of a track and a
            candidate.
        motion_fade: frames after which a place counts half as much for a track that is not found.
        least_similarity: of a candidate that goes on with a track; least_cosine: of its embedding.
        surprise: how much lower than usual for the track that cosine may be, and how much more for each frame that the
            track was not found (surprise_growth): embeddings of something near, or of what hides a thing, differ by more.
        refresh: share of a new sight in the remembered embedding, and in the remembered motion.
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
    motion_fade: float = 8.0
    least_similarity: float = 0.55
    least_cosine: float = 0.3
    surprise: float = 0.25
    surprise_growth: float = 0.02
    refresh: float = 0.3

    def __post_init__(self) -> None:
        for name in ("birth_score", "keep_score", "sure_score", "same_mask", "least_similarity", "refresh"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1, not {getattr(self, name)!r}.")
        for name in ("birth_frames", "memory", "most_tracks"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, not {getattr(self, name)!r}.")
        if min(self.appearance, self.motion, self.kind) < 0 or self.appearance + self.motion + self.kind == 0:
            raise ValueError("`appearance`, `motion` and `kind` must not be negative, nor all of them 0.")


@dataclass
class Tracks:
    """
    What is remembered of m tracks.

    Attributes:
        ids: `(m,)` int64, -1 before it is handed out for the first time.
        embeddings: `(m, size)`; boxes: `(m, 4)` centre, width and height in pixels; velocities: `(m, 2)` of the centre, a frame.
        kinds: `(m, K)` mean class probabilities; scores: `(m,)` of late; steady: `(m,)` the usual cosine of its embedding
            and the next frame's.
        found: `(m,)` int64, frames in which it was found; missed: frames since the last one.
    """

    ids: torch.Tensor
    embeddings: torch.Tensor
    boxes: torch.Tensor
    velocities: torch.Tensor
    kinds: torch.Tensor
    scores: torch.Tensor
    steady: torch.Tensor
    found: torch.Tensor
    missed: torch.Tensor

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
            torch.full_like(seen.scores, 0.9),
            zeros + 1,
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
        return cls(places, embeddings, boxes, kinds, kinds.amax(dim=1))

    def only(self, places: torch.Tensor) -> Sights:
        """Those at some places, or where a mask is True."""
        return Sights(*(getattr(self, field.name)[places] for field in fields(self)))


class TrackMemory:
    """
    The state of a tracker: at most `settings.most_tracks` tracks of fixed size, however long the video.

    Args:
        settings: see there; ids: numbers of tracks, taken one by one as tracks are handed out.
    """

    def __init__(self, settings: TrackerSettings | None = None, ids: Iterator[int] | None = None):
        self.settings = settings or TrackerSettings()
        self.ids = itertools.count(1) if ids is None else ids
        self.tracks: Tracks | None = None

    def found(self, frame: FrameCandidates) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `update`: ids, candidates, labels and scores of what is handed out, `(m,)` each."""
        tracks, candidates = self.update(frame)
        return tracks.ids, candidates, tracks.kinds.argmax(dim=1), tracks.scores

    def update(self, frame: FrameCandidates) -> tuple[Tracks, torch.Tensor]:
        """
        Takes in the next frame.

        Returns:
            the tracks that are found in it and handed out, and `(m,)` int64, their candidates.
        Raises:
            ValueError: the number of labels or the size of embeddings has changed.
        """
        frame.check()
        settings = self.settings
        seen = Sights.of(frame, settings.keep_score, settings.same_mask)
        first = self.tracks is None
        if first:
            self.tracks = Tracks.starting(seen.only(torch.zeros(0, dtype=torch.int64)))
        self._check_sizes(frame)
        rows, columns = self._matched(seen)
        self._go_on(rows, seen.only(columns))
        free = torch.ones(len(seen.scores), dtype=torch.bool, device=seen.scores.device)
        free[columns] = False
        born = (free & (seen.scores >= settings.birth_score)).nonzero()[:, 0]
        born = born[seen.scores[born].argsort(descending=True, stable=True)]  # the best one has the lowest number
        places = torch.full((len(self.tracks) + len(born),), -1, dtype=torch.int64, device=seen.places.device)
        places[rows], places[len(self.tracks) :] = seen.places[columns], seen.places[born]
        self.tracks = self.tracks.joined(Tracks.starting(seen.only(born)))
        self._number(first)
        shown = (places >= 0) & (self.tracks.ids >= 0)
        found = self.tracks.only(shown)
        self._forget()
        return found, places[shown]

    def _check_sizes(self, frame: FrameCandidates) -> None:
        for what, now, before in (
            ("labels", frame.logits.shape[1], self.tracks.kinds.shape[1]),
            ("numbers an embedding", frame.embeddings.shape[1], self.tracks.embeddings.shape[1]),
        ):
            if now != before:
                raise ValueError(
                    f"a frame has {now} {what}, the frames before had {before}: start a new tracker for other prompts "
                    "(with the same `ids`, so that none occurs twice)."
                )

    def similarities(self, seen: Sights) -> torch.Tensor:
        """`(m, n)` of tracks and what is seen, from 0 to 1; 0 where they cannot be the same."""
        tracks, settings = self.tracks, self.settings
        cosine = cosines(tracks.embeddings, seen.embeddings)
        near = nearness(tracks.expected_boxes(), seen.boxes, tracks.missed)
        kinds = _kind_agreement(tracks.kinds, seen.kinds)
        fade = settings.motion * 0.5 ** (tracks.missed / settings.motion_fade)[:, None]
        weighted = settings.appearance * cosine.clamp(min=0) + fade * near + settings.kind * kinds
        weighted = weighted / (settings.appearance + fade + settings.kind)
        gate = tracks.steady - settings.surprise - settings.surprise_growth * tracks.missed
        gate = gate.clamp(min=settings.least_cosine)[:, None]
        return weighted.masked_fill((weighted < settings.least_similarity) | (cosine < gate), 0.0)

    def _matched(self, seen: Sights) -> tuple[torch.Tensor, torch.Tensor]:
        """Tracks, and for each what goes on with it, `(k,)` int64 both: one to one, the most similar in all."""
        similarity = self.similarities(seen)
        rows, columns = (torch.from_numpy(x) for x in linear_sum_assignment(similarity.cpu().numpy(), maximize=True))
        rows, columns = rows.to(similarity.device), columns.to(similarity.device)
        good = similarity[rows, columns] > 0
        return rows[good], columns[good]

    def _go_on(self, rows: torch.Tensor, seen: Sights) -> None:
        """Refreshes the tracks that were found, and lets the others go on unseen."""
        tracks, share = self.tracks, self.settings.refresh
        expected = tracks.expected_boxes()
        gone = torch.ones(len(tracks), dtype=torch.bool, device=rows.device)
        gone[rows] = False
        tracks.missed[gone] += 1
        tracks.boxes[gone], tracks.velocities[gone] = expected[gone], 0.95 * tracks.velocities[gone]

        step = torch.clamp(1 / (tracks.found[rows].float() + 1), min=share)[:, None]  # a mean, at first
        after_break = tracks.missed[rows][:, None] > 0
        error = (seen.boxes - expected[rows])[:, :2]
        tracks.velocities[rows] += torch.where(after_break, 0.0, step) * error
        tracks.boxes[rows] = seen.boxes
        cosine = (tracks.embeddings[rows] * seen.embeddings).sum(dim=1)
        tracks.steady[rows] += torch.where(after_break[:, 0], 0.0, 0.2) * (cosine - tracks.steady[rows])
        mixed = (1 - share) * tracks.embeddings[rows] + share * seen.embeddings
        tracks.embeddings[rows] = torch.nn.functional.normalize(mixed, dim=1)
        slow = torch.clamp(1 / (tracks.found[rows].float() + 1), min=0.05)[:, None]
        tracks.kinds[rows] += slow * (seen.kinds - tracks.kinds[rows])
        tracks.scores[rows] += share * (seen.scores - tracks.scores[rows])
        tracks.found[rows] += 1
        tracks.missed[rows] = 0

    def _number(self, first: bool) -> None:
        """Gives ids to the tracks that are to be handed out from now on."""
        tracks, settings = self.tracks, self.settings
        ready = (tracks.found >= settings.birth_frames) | (tracks.scores >= settings.sure_score) | first
        for place in (ready & (tracks.ids < 0)).nonzero()[:, 0].tolist():
            tracks.ids[place] = next(self.ids)

    def _forget(self) -> None:
        tracks, settings = self.tracks, self.settings
        kept = (tracks.missed <= settings.memory) & ((tracks.ids >= 0) | (tracks.missed == 0))
        self.tracks = tracks.only(kept)
        if len(self.tracks) > settings.most_tracks:
            latest = self.tracks.missed.argsort(stable=True)[: settings.most_tracks]
            self.tracks = self.tracks.only(latest.sort().values)


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


def _kind_agreement(kinds: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`(m, n)` shared over united class probabilities of `(m, K)` and `(n, K)`."""
    shared = torch.minimum(kinds[:, None], others[None]).sum(dim=-1)
    return shared / torch.maximum(kinds[:, None], others[None]).sum(dim=-1).clamp(min=1e-6)

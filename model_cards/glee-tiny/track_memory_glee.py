"""Tracks that are born, hidden, found again and forgotten: what is remembered of each, and which candidate goes on with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .track_candidates_glee import FrameCandidates, cosines
from .track_colours_glee import colour_agreement, mixed_colours
from .track_similarity_glee import best_pairs, kind_agreement, nearness
from .track_state_glee import USUAL_COSINE, Sights, Tracks

BEST_FADE = 0.98  # of a track's best score, a frame


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
        appearance, motion, kind, colour: how much embeddings, places, class scores and colours count for the similarity of a
            track and a candidate; colours only where both are known.
        motion_fade: frames after which a place counts half as much for a track that is not found.
        least_similarity: of a candidate that goes on with a track; least_cosine: of its embedding.
        surprise: how much lower than usual for the track that cosine may be, and how much more for each frame that the
            track was not found (surprise_growth): embeddings of something near, or of what hides a thing, differ by more.
        refresh: share of a new sight in the remembered motion, and of a clear one in the remembered embedding.
        clear_score: a sight is clear, of the whole thing, if its score is at least this share of the track's best ones of
            late, and
        clear_drop: its cosine at most so much lower than usual. Of a sight with half the best score hardly anything is
            remembered.
        near_frames, near_cosine, near_place: what nothing else goes on with also goes on with a track that was not found for
            at most so many frames, if at least so alike and so near: half hidden things look different.
        again_cosine, again_kind: a young track, born after an older one was last seen clearly, is that one if at least so
            alike, embedding and class scores; again_frames: for so many frames it is young.
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
        born = self._unknown(seen, columns)
        sights = torch.full((len(self.tracks) + len(born),), -1, dtype=torch.int64, device=born.device)  # -1 for none
        sights[rows], sights[len(self.tracks) :] = columns, born
        self.tracks = self.tracks.joined(Tracks.starting(seen.only(born)))
        sights = self._known_again(seen, sights)
        self._number(first)
        shown = (sights >= 0) & (self.tracks.ids >= 0)
        found = self.tracks.only(shown)
        self._forget()
        return found, seen.places[sights[shown]]

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

    def _similarities(self, seen: Sights, cosine: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """`(m, n)` of tracks and what is seen, from 0 to 1; 0 where they cannot be the same."""
        tracks, settings = self.tracks, self.settings
        kinds = kind_agreement(tracks.kinds, seen.kinds)
        fade = settings.motion * 0.5 ** (tracks.missed / settings.motion_fade)[:, None]
        colours = colour_agreement(tracks.colours, seen.colours)
        told = settings.colour * colours.isfinite()
        weighted = settings.appearance * cosine.clamp(min=0) + fade * near + settings.kind * kinds
        weighted = (weighted + told * colours.nan_to_num()) / (settings.appearance + fade + settings.kind + told)
        gate = tracks.steady - settings.surprise - settings.surprise_growth * tracks.missed
        gate = gate.clamp(min=settings.least_cosine)[:, None]
        return weighted.masked_fill((weighted < settings.least_similarity) | (cosine < gate), 0.0)

    def _matched(self, seen: Sights) -> tuple[torch.Tensor, torch.Tensor]:
        """Tracks, and for each what goes on with it, `(k,)` int64 both: first what is like it in all, then what is near."""
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

    def _unknown(self, seen: Sights, columns: torch.Tensor) -> torch.Tensor:
        """Places of what goes on with no track and starts one; the best one, which has the lowest number, first."""
        free = torch.ones(len(seen.scores), dtype=torch.bool, device=seen.scores.device)
        free[columns] = False
        born = (free & (seen.scores >= self.settings.birth_score)).nonzero()[:, 0]
        return born[seen.scores[born].argsort(descending=True, stable=True)]

    def _go_on(self, rows: torch.Tensor, seen: Sights) -> None:
        """Refreshes the tracks that were found, and lets the others go on unseen."""
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

    def _refresh(self, rows: torch.Tensor, seen: Sights, after_break: torch.Tensor) -> None:
        """What the tracks that were found look like now, as far as they are seen clearly, and what they are."""
        tracks, settings = self.tracks, self.settings
        cosine = (tracks.embeddings[rows] * seen.embeddings).sum(dim=1)
        ratio = seen.scores / tracks.best[rows].clamp(min=1e-6)
        clear = (ratio >= settings.clear_score) & (cosine >= tracks.steady[rows] - settings.clear_drop)
        tracks.unclear[rows[clear]] = 0
        tracks.best[rows] = torch.maximum(seen.scores, BEST_FADE * tracks.best[rows])
        tracks.steady[rows] += torch.where(after_break, 0.0, 0.2) * (cosine - tracks.steady[rows])
        share = (settings.refresh * ((ratio - 0.4) / 0.5).clamp(0, 1))[:, None]
        mixed = (1 - share) * tracks.embeddings[rows] + share * seen.embeddings
        tracks.embeddings[rows] = torch.nn.functional.normalize(mixed, dim=1)
        slow = torch.clamp(1 / (tracks.found[rows].float() + 1), min=0.05)[:, None]
        tracks.kinds[rows] += slow * (seen.kinds - tracks.kinds[rows])
        tracks.colours[rows] = mixed_colours(tracks.colours[rows], seen.colours, slow * clear[:, None])
        tracks.scores[rows] += settings.refresh * (seen.scores - tracks.scores[rows])

    def _known_again(self, seen: Sights, sights: torch.Tensor) -> torch.Tensor:
        """
        Joins young tracks with older ones that have lost what they followed, or follow a piece of it, and are the same.

        Args:
            sights: `(m,)` int64, what each track was found by in this frame, -1 for those not found.
        Returns:
            the same of the tracks that are left.
        """
        here = (sights >= 0).nonzero()[:, 0]
        old, young = best_pairs(self._same_again(here, seen.only(sights[here])))
        left = torch.ones(len(sights), dtype=torch.bool, device=sights.device)
        for one, other in zip(old.tolist(), here[young].tolist()):
            if left[one] and left[other]:
                self._join(one, other, seen.embeddings[sights[other]])
                sights[one], left[other] = sights[other], False
        self.tracks = self.tracks.only(left)
        return sights[left]

    def _same_again(self, here: torch.Tensor, seen: Sights) -> torch.Tensor:
        """`(m, n)` cosine of old tracks and sights of the tracks `here`, `(n,)` int64; 0 where they cannot be the same."""
        tracks, settings = self.tracks, self.settings
        cosine = cosines(tracks.embeddings, seen.embeddings)
        own = torch.full_like(tracks.scores, -1.0)  # cosine of what a track is found by anyway
        own[here] = cosine[here, torch.arange(len(here), device=here.device)]
        same = (cosine >= settings.again_cosine) & (cosine > own[:, None])
        same &= kind_agreement(tracks.kinds, seen.kinds) >= settings.again_kind
        age = tracks.age[here][None]
        same &= (age < settings.again_frames) & (age < tracks.unclear[:, None]) & (tracks.ids >= 0)[:, None]
        return cosine.masked_fill(~same, 0.0)

    def _join(self, old: int, young: int, sight: torch.Tensor) -> None:
        """The older one goes on where the young one is."""
        tracks, share = self.tracks, self.settings.refresh
        for values in (tracks.boxes, tracks.velocities, tracks.scores):
            values[old] = values[young]
        mixed = (1 - share) * tracks.embeddings[old] + share * sight
        tracks.embeddings[old] = torch.nn.functional.normalize(mixed, dim=0)
        tracks.best[old] = torch.maximum(0.9 * tracks.best[old], tracks.best[young])
        tracks.steady[old] = USUAL_COSINE
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
        kept = (tracks.missed <= settings.memory) & ((tracks.ids >= 0) | (tracks.missed == 0))
        self.tracks = tracks.only(kept)
        if len(self.tracks) > settings.most_tracks:
            latest = self.tracks.missed.argsort(stable=True)[: settings.most_tracks]
            self.tracks = self.tracks.only(latest.sort().values)

"""Object tracking, frame by frame: track birth, loss, re-identification and removal; all objects of a list of labels
(MOT, VIS), or the one object of a referring expression (RVOS) or of a visual prompt (VOS)."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment

from .track_state_glee import (
    USUAL_COSINE,
    Detections,
    FrameCandidates,
    TrackedObject,
    Tracks,
    best_pairs,
    class_agreement,
    colour_agreement,
    cosines,
    mixed_colours,
    nearness,
)
from .tracker_settings_glee import LifetimePolicy, MatchPolicy, ReidentifyPolicy, TrackerSettings

MODES = ("memory", "minvis")
THRESHOLD = 0.2  # of the published demo, for checkpoints that have none of their own
FRAMES_REMEMBERED = 3  # of the published code
BEST_FADE = 0.98  # decay per frame of a track's recent maximum score

# With a single target, weaker candidates are considered than with a list of labels. A wrong re-identification is
# costly, so its thresholds are stricter; looser ones find no more.
FOLLOWING = TrackerSettings(
    LifetimePolicy(birth_score=0.05, birth_frames=1, max_tracks=32),
    MatchPolicy(min_score=0.05),
    ReidentifyPolicy(near_cosine=0.35, merge_cosine=0.75, merge_frames=60),
)
EVIDENCE_FADE = 16.0  # half-life in frames of the evidence for an object that is out of view


# ---------------------------------------------------------------------------------- assignment of candidates to tracks


class TrackMemory:
    """
    The state of a tracker: at most `settings.lifetime.max_tracks` tracks of fixed size, however long the video.

    Args:
        settings: thresholds and weights; None for the defaults.
        ids: numbers of tracks, one for each track when it is returned for the first time; 1, 2, 3, ... by default.

    Attributes:
        settings: see above; may be replaced between frames.
        tracks: those remembered; None before the first frame.
    """

    def __init__(self, settings: TrackerSettings | None = None, ids: Iterator[int] | None = None):
        self.settings = settings or TrackerSettings()
        self.ids = itertools.count(1) if ids is None else ids
        self.tracks: Tracks | None = None

    def found(self, frame: FrameCandidates) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Updates the tracks, see `update`; returns ids, candidates, labels and scores of those found, `(m,)` each."""
        tracks, candidates = self.update(frame)
        return tracks.ids, candidates, tracks.class_probabilities.argmax(dim=1), tracks.scores

    def update(self, frame: FrameCandidates) -> tuple[Tracks, torch.Tensor]:
        """
        Updates the tracks with the next frame.

        Args:
            frame: its candidates.

        Returns:
            the tracks that are found in it and have an id, and `(m,)` int64, their candidates; both on the host.

        Raises:
            ValueError: the number of labels or the size of embeddings has changed.
        """
        frame.check()
        match = self.settings.match
        seen = Detections.of(frame, match.min_score, match.duplicate_iou)
        tracks = self.tracks
        if first := tracks is None:
            tracks = Tracks.starting(seen.only(torch.zeros(0, dtype=torch.int64)))
        _check_sizes(tracks, frame)
        rows, columns = self._assign(tracks, seen)
        self._continue(tracks, rows, seen.only(columns))
        born = self._births(seen, columns)
        detections = born.new_full((len(tracks) + len(born),), -1)  # of each track, -1 for none
        detections[rows], detections[len(tracks) :] = columns, born
        tracks, detections = self._reidentify(tracks.joined(Tracks.starting(seen.only(born))), seen, detections)
        self._assign_ids(tracks, first)
        returned = (detections >= 0) & (tracks.ids >= 0)
        found = tracks.only(returned)
        self.tracks = self._remembered(tracks)
        return found, seen.places[detections[returned]]

    def _similarities(
        self, tracks: Tracks, seen: Detections, cosine: torch.Tensor, near: torch.Tensor
    ) -> torch.Tensor:
        """Computes the similarity of tracks and detections, `(m, n)` in [0, 1]; 0 where they cannot be the same."""
        match = self.settings.match
        classes = class_agreement(tracks.class_probabilities, seen.class_probabilities)
        motion_weight = match.motion_weight * 0.5 ** (tracks.missed / match.motion_half_life)[:, None]
        colours = colour_agreement(tracks.colours, seen.colours)
        colour_weight = match.colour_weight * colours.isfinite()
        weighted = match.appearance_weight * cosine.clamp(min=0) + motion_weight * near + match.class_weight * classes
        weighted = (weighted + colour_weight * colours.nan_to_num()) / (
            match.appearance_weight + motion_weight + match.class_weight + colour_weight
        )
        gate = tracks.mean_cosine - match.cosine_drop - match.cosine_drop_growth * tracks.missed
        gate = gate.clamp(min=match.min_cosine)[:, None]
        return weighted.masked_fill((weighted < match.min_similarity) | (cosine < gate), 0.0)

    def _assign(self, tracks: Tracks, seen: Detections) -> tuple[torch.Tensor, torch.Tensor]:
        """Assigns detections to tracks: rows and columns, `(k,)` int64 both; first by similarity, then by nearness."""
        cosine = cosines(tracks.embeddings, seen.embeddings)  # (m, n), as all here
        near = nearness(tracks.expected_boxes(), seen.boxes, tracks.missed)
        rows, columns = best_pairs(self._similarities(tracks, seen, cosine, near))
        left = self._near_similarities(tracks, cosine, near)
        left[rows], left[:, columns] = 0.0, 0.0
        more = best_pairs(left)
        return torch.cat((rows, more[0])), torch.cat((columns, more[1]))

    def _near_similarities(self, tracks: Tracks, cosine: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """Computes `(m, n)` similarities of tracks lost a short while ago and detections near them; 0 for others."""
        policy = self.settings.reidentify
        late = (tracks.missed > policy.near_frames) | (tracks.ids < 0)
        never = late[:, None] | (cosine < policy.near_cosine) | (near < policy.near_place)
        return (cosine + near).masked_fill(never, 0.0)

    def _births(self, seen: Detections, columns: torch.Tensor) -> torch.Tensor:
        """Finds unassigned detections that start tracks; the best one, which gets the lowest number, first."""
        free = torch.ones(len(seen.scores), dtype=torch.bool)
        free[columns] = False
        born = (free & (seen.scores >= self.settings.lifetime.birth_score)).nonzero()[:, 0]
        return born[seen.scores[born].argsort(descending=True, stable=True)]

    def _continue(self, tracks: Tracks, rows: torch.Tensor, seen: Detections) -> None:
        """Updates the tracks that were found, and moves the others to where they are expected."""
        expected = tracks.expected_boxes()
        gone = torch.ones(len(tracks), dtype=torch.bool)
        gone[rows] = False
        tracks.age += 1
        tracks.unclear += 1
        tracks.missed[gone] += 1
        tracks.boxes[gone], tracks.velocities[gone] = expected[gone], 0.95 * tracks.velocities[gone]

        # The velocity of the first frames is a mean: a single step is noisy.
        step = torch.clamp(1 / (tracks.found[rows].float() + 1), min=self.settings.match.update_rate)[:, None]
        after_break = tracks.missed[rows] > 0
        error = (seen.boxes - expected[rows])[:, :2]
        tracks.velocities[rows] += torch.where(after_break[:, None], 0.0, step) * error
        tracks.boxes[rows] = seen.boxes
        self._update_appearance(tracks, rows, seen, after_break)
        tracks.found[rows] += 1
        tracks.missed[rows] = 0

    def _update_appearance(
        self, tracks: Tracks, rows: torch.Tensor, seen: Detections, after_break: torch.Tensor
    ) -> None:
        """Updates appearance (as far as it is unoccluded) and class probabilities of the tracks that were found."""
        match = self.settings.match
        cosine = (tracks.embeddings[rows] * seen.embeddings).sum(dim=1)
        ratio = seen.scores / tracks.recent_best[rows].clamp(min=1e-6)
        clear = (ratio >= match.clear_score) & (cosine >= tracks.mean_cosine[rows] - match.clear_cosine_drop)
        tracks.unclear[rows[clear]] = 0
        tracks.recent_best[rows] = torch.maximum(seen.scores, BEST_FADE * tracks.recent_best[rows])
        tracks.mean_cosine[rows] += torch.where(after_break, 0.0, 0.2) * (cosine - tracks.mean_cosine[rows])
        # At less than 0.4 of its recent maximum score an object is mostly occluded: its embedding is another's.
        share = (match.update_rate * ((ratio - 0.4) / 0.5).clamp(0, 1))[:, None]
        mixed = (1 - share) * tracks.embeddings[rows] + share * seen.embeddings
        tracks.embeddings[rows] = torch.nn.functional.normalize(mixed, dim=1)
        slow = torch.clamp(1 / (tracks.found[rows].float() + 1), min=0.05)[:, None]
        tracks.class_probabilities[rows] += slow * (seen.class_probabilities - tracks.class_probabilities[rows])
        tracks.colours[rows] = mixed_colours(tracks.colours[rows], seen.colours, slow * clear[:, None])
        tracks.scores[rows] += match.update_rate * (seen.scores - tracks.scores[rows])

    def _reidentify(self, tracks: Tracks, seen: Detections, detections: torch.Tensor) -> tuple[Tracks, torch.Tensor]:
        """
        Merges young tracks into older ones that are the same object, and lost it or follow a piece of it.

        Args:
            tracks: old ones and those born in this frame.
            seen: all detections of this frame.
            detections: `(m,)` int64, the detection of each track, -1 for those not found.

        Returns:
            the tracks that are left, and their detections.
        """
        here = (detections >= 0).nonzero()[:, 0]
        old, young = best_pairs(self._merge_similarities(tracks, here, seen.only(detections[here])))
        left = torch.ones(len(detections), dtype=torch.bool)
        for one, other in zip(old.tolist(), here[young].tolist()):
            if left[one] and left[other]:
                self._merge(tracks, one, other, seen.embeddings[detections[other]])
                detections[one], left[other] = detections[other], False
        return tracks.only(left), detections[left]

    def _merge_similarities(self, tracks: Tracks, here: torch.Tensor, seen: Detections) -> torch.Tensor:
        """Computes `(m, n)` cosines of old tracks and detections of the tracks `here`, `(n,)` int64; 0 where they
        cannot be the same."""
        policy = self.settings.reidentify
        cosine = cosines(tracks.embeddings, seen.embeddings)
        own = torch.full_like(tracks.scores, -1.0)  # cosine of a track and its own detection
        own[here] = cosine[here, torch.arange(len(here))]
        same = (cosine >= policy.merge_cosine) & (cosine > own[:, None])
        agreement = class_agreement(tracks.class_probabilities, seen.class_probabilities)
        same &= agreement >= policy.merge_class_agreement
        age = tracks.age[here][None]
        same &= (age < policy.merge_frames) & (age < tracks.unclear[:, None]) & (tracks.ids >= 0)[:, None]
        return cosine.masked_fill(~same, 0.0)

    def _merge(self, tracks: Tracks, old: int, young: int, embedding: torch.Tensor) -> None:
        """Continues the older track at the place of the young one, with the embedding `(size,)` of its detection."""
        share = self.settings.match.update_rate
        for values in (tracks.boxes, tracks.velocities, tracks.scores):
            values[old] = values[young]
        mixed = (1 - share) * tracks.embeddings[old] + share * embedding
        tracks.embeddings[old] = torch.nn.functional.normalize(mixed, dim=0)
        tracks.recent_best[old] = torch.maximum(0.9 * tracks.recent_best[old], tracks.recent_best[young])
        tracks.mean_cosine[old] = USUAL_COSINE
        tracks.found[old] += tracks.found[young]
        tracks.missed[old] = tracks.unclear[old] = 0

    def _assign_ids(self, tracks: Tracks, first: bool) -> None:
        """Gives ids to the tracks that are returned from now on; in the first frame to all."""
        lifetime = self.settings.lifetime
        ready = (tracks.found >= lifetime.birth_frames) | (tracks.scores >= lifetime.sure_score) | first
        for place in (ready & (tracks.ids < 0)).nonzero()[:, 0].tolist():
            tracks.ids[place] = next(self.ids)

    def _remembered(self, tracks: Tracks) -> Tracks:
        """Selects the tracks that are remembered for the next frame."""
        lifetime = self.settings.lifetime
        tracks = tracks.only((tracks.missed <= lifetime.memory_frames) & ((tracks.ids >= 0) | (tracks.missed == 0)))
        if len(tracks) > lifetime.max_tracks:
            latest = tracks.missed.argsort(stable=True)[: lifetime.max_tracks]
            tracks = tracks.only(latest.sort().values)
        return tracks


def _check_sizes(tracks: Tracks, frame: FrameCandidates) -> None:
    """
    Checks that a frame's candidates can be compared with the tracks.

    Raises:
        ValueError: they have other labels, or embeddings of another size.
    """
    for what, now, before in (
        ("labels", frame.logits.shape[1], tracks.class_probabilities.shape[1]),
        ("numbers per embedding", frame.embeddings.shape[1], tracks.embeddings.shape[1]),
    ):
        if now != before:
            raise ValueError(
                f"a frame has {now} {what}, the frames before had {before}: start a new tracker for other prompts "
                "(with the same `ids`, so that none occurs twice)."
            )


# ----------------------------------------------------------------------------------------------- all objects of labels


class GleeTracker:
    """
    Tracks all objects of a list of labels; its memory does not grow with the length of the video.

    ```python
    tracker = GleeTracker()
    for frame in frames:  # FrameCandidates
        for found in tracker.update(frame):
            print(found.track_id, frame.boxes[found.candidate], found.label, found.score)
    ```

    Args:
        mode: "memory" starts, re-identifies and removes tracks, see `TrackerSettings`; "minvis" is the published
            tracking: the queries of the first frame are the tracks of the whole video, and every frame continues each
            of them.
        threshold: the lowest score of a returned object, from 0 to 1.
        ids: numbers of tracks; 1, 2, 3, ... by default. Trackers that share one never use the same number.
        settings: of the mode "memory"; None for the defaults.

    Raises:
        ValueError: `mode` or `threshold` cannot be used.
    """

    def __init__(
        self,
        mode: str = "memory",
        threshold: float = THRESHOLD,
        ids: Iterator[int] | None = None,
        settings: TrackerSettings | None = None,
    ):
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}, not {mode!r}.")
        if not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be a number from 0 to 1, not {threshold!r}.")
        self.mode, self.threshold = mode, threshold
        ids = itertools.count(1) if ids is None else ids
        self._tracks: TrackMemory | _AlignedQueries
        self._tracks = TrackMemory(settings, ids) if mode == "memory" else _AlignedQueries(ids)

    def update(self, frame: FrameCandidates) -> list[TrackedObject]:
        """
        Finds the objects of the next frame.

        Args:
            frame: all candidates of the frame; the best ones are enough in the mode "memory".

        Returns:
            the objects, best first.

        Raises:
            ValueError: tensors of the frame don't fit together, or don't fit those of the frames before.
        """
        ids, candidates, labels, scores = self._tracks.found(frame)
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] >= self.threshold]
        columns = (column[order].tolist() for column in (ids, candidates, labels, scores))
        return [TrackedObject(*values) for values in zip(*columns)]


class _AlignedQueries:
    """Tracks that are the queries of the first frame, with their mean logits."""

    def __init__(self, ids: Iterator[int]):
        self._ids, self._numbers = ids, torch.zeros(0)
        self._alignment, self._logits = QueryAlignment(), RunningMean()

    def found(self, frame: FrameCandidates) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Continues all queries; returns their ids, candidates, labels and scores so far, `(n,)` each."""
        frame = frame.on_host
        order = self._alignment.align(frame.embeddings)
        if not self._logits.count:
            self._numbers = torch.tensor([next(self._ids) for _ in range(len(frame))], dtype=torch.int64)
        mean = self._logits.add(frame.logits[order])
        scores, labels = mean.sigmoid().max(dim=1)
        return self._numbers, order, labels, scores


class QueryAlignment:
    """
    Matches the queries of a frame to those of the first one.

    This is the online matching of MinVIS (Huang et al., NeurIPS 2022), as GLEE uses it.

    Embeddings are compared by their cosine with the mean of those of the last three frames, and matched one to one
    (Hungarian). Only three frames' embeddings are stored.
    """

    def __init__(self) -> None:
        self._aligned: deque[torch.Tensor] = deque(maxlen=FRAMES_REMEMBERED)

    def align(self, embeddings: torch.Tensor) -> torch.Tensor:
        """
        Matches the queries of the next frame.

        Args:
            embeddings: `(queries, size)` of the next frame.

        Returns:
            `(queries,)` int64: for each query of the first frame the one that continues it.

        Raises:
            ValueError: the shape isn't that of the frames before, or a number isn't finite.
        """
        if not bool(embeddings.isfinite().all()):
            raise ValueError("`embeddings` of a frame have values that are not finite: they cannot be matched.")
        order = torch.arange(len(embeddings), device=embeddings.device)
        if self._aligned:
            if embeddings.shape != self._aligned[0].shape:
                raise ValueError(
                    f"`embeddings` must be {tuple(self._aligned[0].shape)} in every frame, not "
                    f"{tuple(embeddings.shape)}: pass all queries."
                )
            memory = torch.stack(list(self._aligned)).mean(dim=0)
            cosine = (memory / memory.norm(dim=1, keepdim=True)) @ (
                embeddings / embeddings.norm(dim=1, keepdim=True)
            ).T
            order = torch.from_numpy(linear_sum_assignment((1 - cosine).cpu().numpy())[1]).to(embeddings.device)
        self._aligned.append(embeddings[order].detach())
        return order


class RunningMean:
    """The mean of tensors of one shape, which are not stored."""

    def __init__(self) -> None:
        self.count, self._sum = 0, torch.zeros(())

    def add(self, values: torch.Tensor) -> torch.Tensor:
        """
        Adds a tensor, and returns the mean so far, float32.

        Raises:
            ValueError: its shape is not that of the tensors before.
        """
        if self.count and values.shape != self._sum.shape:
            raise ValueError(f"a frame has logits {tuple(values.shape)}, the frames before {tuple(self._sum.shape)}.")
        self._sum = self._sum + values.float() if self.count else values.float().clone()
        self.count += 1
        return self.mean

    @property
    def mean(self) -> torch.Tensor:
        return self._sum / max(self.count, 1)


# ---------------------------------------------------------------------------------------------------------- one object


class ObjectFollower:
    """
    Follows the object that an expression names (RVOS), or that a visual prompt marks (VOS, interactive).

    The candidates of each frame, all of them answers to the one prompt, are tracked by embedding, place and score
    (`TrackMemory`). With a visual prompt, the first frame's best candidate is the object from then on. With an
    expression, the object is the track with the best score over all frames: one bad frame does not change it, a better
    track that lasts does.

    Args:
        shown: whether a visual prompt marks the object in the first frame; else an expression names it.
        track_id: of all answers.
        threshold: the lowest mean score of a returned object, from 0 to 1; a marked object is returned in its first
            frame in any case.
        settings: how candidates are tracked; None for the defaults of a single object.

    Raises:
        ValueError: `threshold` cannot be used.
    """

    def __init__(
        self,
        shown: bool = True,
        track_id: int = 0,
        threshold: float = THRESHOLD,
        settings: TrackerSettings | None = None,
    ):
        if not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be a number from 0 to 1, not {threshold!r}.")
        self.shown, self.track_id, self.threshold = shown, track_id, threshold
        self._memory = TrackMemory(settings or FOLLOWING)
        self._object: int | None = None  # among the tracks of the memory

    def update(self, frame: FrameCandidates) -> TrackedObject | None:
        """
        Finds the object in the next frame.

        Args:
            frame: the network's candidates for the prompt; K = 1. With a visual prompt, the first frame is the marked
                one.

        Returns:
            the object, or None where it isn't seen.

        Raises:
            ValueError: the frame holds answers to several labels, or its tensors don't fit together.
        """
        if frame.logits.shape[-1] != 1:
            raise ValueError(
                f"a follower takes candidates for one prompt, not for {frame.logits.shape[-1]} labels: "
                "use GleeTracker."
            )
        return self._first(frame) if self.shown and self._object is None else self._next(frame)

    @property
    def usual_score(self) -> float:
        """Returns the mean score of the object over the frames in which it was found, from 0 to 1; 0 while there is
        none."""
        tracks = self._memory.tracks
        if tracks is None or self._object is None:
            return 0.0
        here = (tracks.ids == self._object).nonzero()[:, 0]
        return float(tracks.class_probabilities[here[0], 0]) if len(here) else 0.0

    def _first(self, frame: FrameCandidates) -> TrackedObject | None:
        """Takes the best candidate without a threshold, as the user marked it."""
        if not len(frame):
            return None
        logits = frame.on_host.logits[:, 0]
        best = logits.argmax()[None]
        settings = self._memory.settings
        self._memory.settings = replace(
            settings,
            lifetime=replace(settings.lifetime, birth_score=0.0),
            match=replace(settings.match, min_score=0.0),
        )
        tracks, _ = self._memory.update(frame.chosen(best))
        self._memory.settings = settings
        self._object = int(tracks.ids[0])
        return TrackedObject(self.track_id, int(best), 0, float(logits[best].sigmoid()))

    def _next(self, frame: FrameCandidates) -> TrackedObject | None:
        tracks, candidates = self._memory.update(frame)
        if not self.shown:
            self._object = self._named()
        here = (tracks.ids == -1 if self._object is None else tracks.ids == self._object).nonzero()[:, 0]
        if not len(here) or float(tracks.class_probabilities[here[0], 0]) < self.threshold:
            return None
        return TrackedObject(self.track_id, int(candidates[here[0]]), 0, float(tracks.scores[here[0]]))

    def _named(self) -> int | None:
        """Chooses the track of the highest mean score, discounted for few frames and for time out of view."""
        tracks = self._memory.tracks
        if tracks is None or not len(tracks):
            return None
        found = tracks.found.float()
        evidence = tracks.class_probabilities[:, 0] * found / (found + 1) * 0.5 ** (tracks.missed / EVIDENCE_FADE)
        return int(tracks.ids[evidence.argmax()])

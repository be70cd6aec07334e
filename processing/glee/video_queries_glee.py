"""What is looked for in a video: lists of labels, expressions, and objects shown in a frame, each with its tracker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from .perception_result_glee import plain_result
from .track_candidates_glee import FrameCandidates, TrackedObject
from .tracking_glee import GleeTracker, ObjectFollower
from .video_window_glee import FrameWindow, SeenFrame, Shown

LABEL_CANDIDATES = 100  # queries of a frame that the tracker of labels looks at


@dataclass
class VideoPrompt(ABC):
    """
    Something that is looked for from some frame on.

    Attributes:
        number: its id; of one object also its track's.
        labels: what its objects may be called.
        window: the frames that `candidates` are of; start: the first of them with candidates.
        candidates: what the model found, for each of those frames.
    """

    number: int
    labels: tuple[str, ...]
    window: FrameWindow | None = field(default=None, init=False)
    start: int = field(default=0, init=False)
    candidates: list[FrameCandidates] = field(default_factory=list, init=False)

    def found(self, window: FrameWindow, first: int, candidates: list[FrameCandidates]) -> None:
        """Takes what the model found in a window from a frame on."""
        self.window, self.start, self.candidates = window, first, candidates

    def results(self, place: int) -> list[dict[str, Any]]:
        """Its objects in one frame of the window. To be called once for each, in order."""
        candidates = self.candidates[place - self.start]
        objects = self._track(candidates)
        self._remember(place, candidates, objects)
        sizes = self.window.sizes
        return [
            plain_result(
                thing.score,
                self.labels[thing.label],
                candidates.boxes[thing.candidate],
                sizes.mask(candidates.masks[thing.candidate]),
                track_id=thing.track_id,
            )
            for thing in objects
        ]

    @abstractmethod
    def _track(self, candidates: FrameCandidates) -> list[TrackedObject]:
        """Its objects in the next frame."""

    def _remember(self, place: int, candidates: FrameCandidates, objects: list[TrackedObject]) -> None:
        """What the next window needs to know: of labels nothing."""
        return

    def finish_window(self) -> None:
        """Lets go of the window."""
        self.window, self.candidates = None, []


@dataclass
class LabelPrompt(VideoPrompt):
    """
    All objects of some labels.

    Attributes:
        embeddings: of the labels, for the model.
        tracker: gives them ids; most: results of a frame.
    """

    embeddings: Mapping[str, torch.Tensor]
    tracker: GleeTracker
    most: int
    dropped: set[int] = field(default_factory=set, init=False)

    @property
    def candidates_wanted(self) -> int | None:
        """The published tracking aligns all queries."""
        return None if self.tracker.mode == "minvis" else max(LABEL_CANDIDATES, self.most)

    def _track(self, candidates: FrameCandidates) -> list[TrackedObject]:
        found = [thing for thing in self.tracker.update(candidates) if thing.track_id not in self.dropped]
        return found[: self.most]


@dataclass
class ObjectPrompt(VideoPrompt):
    """
    One object, whose mask may show it in the next window.

    Attributes:
        follower: says which candidate it is.
        latest: what shows the object in this window; None if nothing does.
    """

    follower: ObjectFollower
    latest: Shown | None = field(default=None, init=False)
    _sight: tuple[int, torch.Tensor] | None = field(
        default=None, init=False
    )  # place in the window, mask logits (h, w)

    def _track(self, candidates: FrameCandidates) -> list[TrackedObject]:
        thing = self.follower.update(candidates)
        return [] if thing is None else [thing]

    def _remember(self, place: int, candidates: FrameCandidates, objects: list[TrackedObject]) -> None:
        for thing in objects:
            self._sight = place, candidates.masks[thing.candidate]

    def finish_window(self) -> None:
        if self.window is not None:
            self.latest = self._shown_by_itself()
        self._sight = None
        super().finish_window()

    def _shown_by_itself(self) -> Shown | None:
        """Its own mask as a prompt, if it was found and has one."""
        if self._sight is None:
            return None
        place, logits = self._sight
        mask = self.window.sizes.canvas_mask(logits)
        return Shown(self.window.seen(place), mask, mask.new_zeros((), dtype=torch.int64)) if mask.any() else None


@dataclass
class ExpressionPrompt(ObjectPrompt):
    """
    The one object that a sentence is about.

    Attributes:
        tokens: of the sentence, for the model, `(1, length, size)`; attention_mask: `(1, length)`.
        reprompt: whether the object, once found, is also looked for by its own mask in the last frame in which it was found
            in the window before.
    """

    tokens: torch.Tensor
    attention_mask: torch.Tensor
    reprompt: bool = False

    def found_by_mask(self, candidates: list[FrameCandidates]) -> None:
        """
        Takes what its own mask finds; the first candidates are those of the frame that shows it.

        A frame's best answer is one more candidate, with at most the score that the object had so far: the mask helps where
        the sentence fails, but does not say which object is meant.
        """
        most = torch.tensor(self.follower.usual_score).logit(eps=1e-6)
        for place, found in enumerate(candidates[1:]):
            best = found.chosen(found.logits[:, 0].argmax()[None])
            best = replace(best, logits=best.logits.clamp(max=most.to(best.logits)))
            self.candidates[place] = self.candidates[place].joined(best)

    def _shown_by_itself(self) -> Shown | None:
        return super()._shown_by_itself() if self.reprompt else None


@dataclass
class ShownPrompt(ObjectPrompt):
    """
    An object that is shown by a point, box, scribble or mask in a frame.

    It is looked for by what was shown, in the frames of one window; in those of the next by its own mask in the last frame
    in which it was found, or, if it was found in none, again by what was shown.

    Attributes:
        drawn: the pixels of the canvas that show it, `(H, W)` bool; kind: of prompt, `()` int64.
        first: the frame that it was shown in.
    """

    drawn: torch.Tensor
    kind: torch.Tensor
    first: Shown | None = field(default=None, init=False)
    _known: bool = field(default=False, init=False)  # whether the follower has seen the frame that shows it

    def show_in(self, seen: SeenFrame) -> None:
        """Says which frame it was shown in."""
        device = seen.pixel_values.device
        self.first = self.latest = Shown(seen, self.drawn.to(device), self.kind.to(device))

    def found(self, window: FrameWindow, first: int, candidates: list[FrameCandidates]) -> None:
        """As above; the first candidates are those of the frame that shows it."""
        if not self._known and self.first.seen.index < window.frames[first].index:
            self.follower.update(candidates[0])
        self._known = True
        super().found(window, first, candidates[1:])

    def _shown_by_itself(self) -> Shown | None:
        return super()._shown_by_itself() or self.first


def look(
    prompts: Sequence[VideoPrompt],
    window: FrameWindow,
    first: int,
    prompts_at_once: int,
    shown_label: Mapping[str, torch.Tensor],
) -> None:
    """
    Asks the model for everything that these prompts look for.

    Args:
        prompts: of any kind.
        window: the frames; first: the one to begin with.
        prompts_at_once: rows of one pass, at most, but at least one prompt with all its frames.
        shown_label: what the model knows of the label "object".
    """
    for prompt in prompts:
        if isinstance(prompt, LabelPrompt):
            prompt.found(window, first, window.find_labels(prompt.embeddings, first, prompt.candidates_wanted))
    count = len(window) - first
    for several in _parts(prompts, ExpressionPrompt, prompts_at_once // count):
        tokens, mask = (torch.cat([getattr(p, name) for p in several]) for name in ("tokens", "attention_mask"))
        for prompt, found in zip(several, window.find_expressions(tokens, mask, first)):
            prompt.found(window, first, found)
    shown = [prompt for prompt in prompts if isinstance(prompt, ObjectPrompt) and prompt.latest is not None]
    for several in _parts(shown, ObjectPrompt, prompts_at_once // (count + 1)):
        for prompt, found in zip(several, window.find_shown([p.latest for p in several], shown_label, first)):
            if isinstance(prompt, ExpressionPrompt):
                prompt.found_by_mask(found)
            else:
                prompt.found(window, first, found)


def _parts(prompts: Sequence[VideoPrompt], kind: type, size: int) -> Iterator[list[Any]]:
    """The prompts of one kind, some at a time."""
    chosen, size = [prompt for prompt in prompts if isinstance(prompt, kind)], max(1, size)
    for first in range(0, len(chosen), size):
        yield chosen[first : first + size]

"""Prompts of a video (labels, expressions, visual prompts), each with its tracker, run through the model in windows of
frames."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from .geometry_glee import (
    RunLengthMask,
    Size,
    boxes_to_picture,
    fetch_masks,
    in_parts,
    masks_to_picture,
    store_masks,
)
from .perception_request_glee import Fitting, plain_result
from .track_state_glee import FrameCandidates, TrackedObject, mask_colours, mask_overlaps
from .tracking_glee import GleeTracker, ObjectFollower
from .video_reading_glee import VideoFrame

Item = TypeVar("Item")

CANDIDATES = 20  # per frame for the one object of an expression or visual prompt
LABEL_CANDIDATES = 100  # queries per frame for the tracker of labels
ROWS_ON_MAPS = 32  # per pass on maps that prompts share: each takes some megabytes
SAME_OBJECT = 0.5  # least IoU of two masks of one object
QUERIES_ON_MAPS = 1 / 3  # share of the queries, the best proposals, that are decoded for an object on shared maps


# -------------------------------------------------------------------------------------------------- a window of frames


@dataclass(frozen=True)
class PreparedFrame:
    """A frame and the image processor's outputs for it: `(1, 3, H, W)` and `(1, H, W)`."""

    frame: VideoFrame
    pixel_values: torch.Tensor
    pixel_mask: torch.Tensor

    @property
    def sizes(self) -> FrameSizes:
        mask = self.pixel_mask[0]
        resized = (int(mask[:, 0].sum()), int(mask[0].sum()))
        return FrameSizes((self.frame.image.height, self.frame.image.width), resized, (mask.shape[0], mask.shape[1]))


@dataclass(frozen=True)
class FrameSizes:
    """(height, width) in pixels of the frame, of the resized frame, and of the padded image."""

    frame: Size
    resized: Size
    padded: Size

    def boxes(self, boxes: torch.Tensor) -> torch.Tensor:
        """Converts the model's boxes `(n, 4)` to (x0, y0, x1, y1) in pixels of the frame, float32."""
        return boxes_to_picture(boxes.float(), self.padded, self.resized, self.frame)

    def masks(self, logits: torch.Tensor) -> list[RunLengthMask]:
        """Converts masks of the model, `(n, h, w)` logits, to those of the frame, in at most one copy to the host."""
        stored = []
        for part in in_parts(logits, self.padded, self.frame):
            full = masks_to_picture(logits[part].float(), self.padded, self.resized, self.frame)
            stored += store_masks(full > 0)
        return fetch_masks(stored)

    def padded_mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Converts it to a mask of the padded image, as prompts are: `(H, W)` bool, False in the padding."""
        full = torch.nn.functional.interpolate(
            logits[None, None].float(), size=self.padded, mode="bilinear", align_corners=False
        )[0, 0]
        inside = torch.zeros_like(full, dtype=torch.bool)
        height, width = self.resized
        inside[:height, :width] = full[:height, :width] > 0
        return inside


@dataclass(frozen=True)
class SeenFrame:
    """One frame with its features, whose objects are searched for in other frames."""

    index: int  # of the frame in the video
    pixel_values: torch.Tensor  # (1, 3, H, W)
    pixel_mask: torch.Tensor  # (1, H, W)
    features: Any  # the model's GleeImageFeatures of it


@dataclass(frozen=True)
class Shown:
    """An object that is marked in a frame."""

    seen: SeenFrame
    mask: torch.Tensor  # (H, W) bool, its pixels in the padded frame
    kind: torch.Tensor  # () int64, kind of visual prompt


class FrameWindow:
    """
    Some consecutive frames and their features: the backbone runs once, here.

    Args:
        model: a `GleeForObjectDetection`.
        frames: of one size, at least one.
        shown_label: returns what the model's `get_label_embeddings` returns for the one label that marked objects are
            scored against; needed for those only.
        fits: what has turned out to fit in memory; None: nothing is known.
    """

    def __init__(
        self,
        model: Any,
        frames: Sequence[PreparedFrame],
        shown_label: Callable[[], Mapping[str, torch.Tensor]] = dict,
        fits: Fitting | None = None,
    ):
        self.fits = Fitting() if fits is None else fits
        self.model, self.sizes, self.shown_label = model, frames[0].sizes, shown_label
        self.frames = [prepared.frame for prepared in frames]
        self.pixel_values = torch.cat([f.pixel_values for f in frames]).to(model.dtype).to(model.device)
        self.pixel_mask = torch.cat([f.pixel_mask for f in frames]).bool().to(model.device)
        self.features = self._joined(self.fits.run(self._features_of, len(frames), "frames", self._too_large))
        self._seen: dict[int, SeenFrame] = {}
        self._maps: Any = None

    def __len__(self) -> int:
        return len(self.frames)

    def seen(self, place: int) -> SeenFrame:
        """Copies the model's inputs and features of one frame, so that the window can be freed."""
        if place not in self._seen:
            self._seen[place] = SeenFrame(
                self.frames[place].index,
                self.pixel_values[[place]],
                self.pixel_mask[[place]],
                self.features.of_images([place]),
            )
        return self._seen[place]

    def find_labels(
        self, embeddings: Mapping[str, torch.Tensor], first: int = 0, most: int | None = None
    ) -> list[FrameCandidates]:
        """
        Finds candidates for some labels.

        Args:
            embeddings: what the model's `get_label_embeddings` returns.
            first: the frame to begin with.
            most: maximum number of candidates per frame, the best ones; None for all, in the model's order.

        Returns:
            the candidates of each frame.
        """

        def find(_: slice, frames: slice) -> list[list[FrameCandidates]]:
            outputs = self._run(frames, (), **embeddings)
            found = [self._candidates(outputs, row, most) for row in range(len(outputs.logits))]
            pictures = self.pixel_values[frames]
            return [[replace(one, colours=mask_colours(picture, one.masks)) for one, picture in zip(found, pictures)]]

        return self._in_parts(find, 1, first)[0]

    def find_expressions(
        self, tokens: torch.Tensor, attention_mask: torch.Tensor, first: int = 0
    ) -> list[list[FrameCandidates]]:
        """
        Finds candidates for some sentences.

        Args:
            tokens: `(n, length, size)`, of the model's `get_expression_tokens`.
            attention_mask: `(n, length)`.
            first: the frame to begin with.

        Returns:
            for each sentence the candidates of each frame.
        """

        def find(sentences: slice, frames: slice) -> list[list[FrameCandidates]]:
            some, count = tokens[sentences], frames.stop - frames.start
            outputs = self._run(
                frames,
                expression_tokens=some.repeat_interleave(count, dim=0),
                expression_attention_mask=attention_mask[sentences].repeat_interleave(count, dim=0),
                prompt_image_indices=torch.arange(count, device=tokens.device).repeat(len(some)),
            )
            return self._rows(outputs, len(some), count)

        return self._in_parts(find, len(tokens), first)

    def find_shown(self, objects: Sequence[Shown], first: int = 0) -> list[list[FrameCandidates]]:
        """
        Finds candidates for objects that are marked in other frames; the pixel decoder runs for each object.

        Args:
            objects: in frames of the same size as these.
            first: the frame to begin with; with the number of frames, only those are searched that the objects are
                marked in.

        Returns:
            for each object the candidates of the frame that it is marked in, then of each frame from `first` on.
        """
        return self._in_parts(lambda part, frames: self._find_shown(objects[part], frames), len(objects), first, own=1)

    def _find_shown(self, objects: Sequence[Shown], frames: slice) -> list[list[FrameCandidates]]:
        """Finds candidates in one pass, see `find_shown`."""
        shown_in = {shown.seen.index: shown.seen for shown in objects}
        places = {index: place for place, index in enumerate(shown_in)}
        count, device = frames.stop - frames.start, self.pixel_values.device
        rows = 1 + count
        masks = torch.zeros((len(objects) * rows, *self.sizes.padded), dtype=torch.bool, device=device)
        kinds = torch.zeros(len(objects) * rows, dtype=torch.int64, device=device)
        images = torch.arange(len(shown_in) - 1, len(shown_in) + count, device=device).repeat(len(objects))
        for number, shown in enumerate(objects):
            masks[number * rows], kinds[number * rows] = shown.mask, shown.kind
            images[number * rows] = places[shown.seen.index]
        outputs = self._run(
            frames,
            list(shown_in.values()),
            **self.shown_label(),
            prompt_masks=masks,
            prompt_types=kinds,
            prompt_image_indices=images,
            prompt_sources=(torch.arange(len(objects), device=device) * rows).repeat_interleave(rows),
        )
        return self._rows(outputs, len(objects), rows)

    def maps(self) -> Any:
        """Returns the maps of all frames that marked objects share; the pixel decoder runs once for them."""
        if self._maps is None:
            self._maps = self._shared_maps(self.features)
        return self._maps

    def maps_of(self, seen: SeenFrame) -> Any:
        """Returns the same of one frame, which may be of a window before."""
        places = [place for place, frame in enumerate(self.frames) if frame.index == seen.index]
        return self.maps().of_images(places) if places else self._shared_maps(seen.features)

    def _shared_maps(self, features: Any) -> Any:
        def make(frames: slice) -> Any:
            with torch.no_grad():
                return self.model.base_model.get_shared_maps(features.of_images(frames), **self.shown_label())

        return self._joined(self.fits.run(make, len(features.lateral), "frames", self._too_large))

    def marks(self, maps: Any, mask: torch.Tensor) -> Any:
        """
        Reads what a prompt marks.

        Args:
            maps: of the frame that it is about.
            mask: its pixels in the padded frame, `(H, W)` bool, at least one.

        Returns:
            the model's `GleePromptTokens`.
        """
        with torch.no_grad():
            return self.model.base_model.get_prompt_tokens(maps, mask[None])

    def find_marked(self, marks: Sequence[Any], maps: Any) -> list[list[FrameCandidates]]:
        """
        Finds candidates for marked objects on the maps that they share.

        Args:
            marks: of each object, of `marks`.
            maps: of the frames to search in.

        Returns:
            for each object the candidates of each frame.
        """
        frames, queries = len(maps["mask_features"]), math.ceil(QUERIES_ON_MAPS * self.model.config.num_queries)
        found: list[list[FrameCandidates]] = []
        for several in in_batches(marks, ROWS_ON_MAPS // frames):
            prompts = type(several[0]).joined(several)
            with torch.no_grad():
                outputs = self.model.base_model.find_on_maps(maps, prompts, CANDIDATES, queries)
            count = len(several)
            rows = [self._candidates(outputs, row, None) for row in range(frames * count)]
            found += [rows[number::count] for number in range(count)]
        return found

    def _features_of(self, frames: slice) -> Any:
        with torch.no_grad():
            return self.model.get_image_features(self.pixel_values[frames], self.pixel_mask[frames])

    @staticmethod
    def _joined(parts: Sequence[Any]) -> Any:
        """Concatenates features, or shared maps, of parts of the frames."""
        if len(parts) == 1:
            return parts[0]
        levels = tuple(torch.cat(maps) for maps in zip(*(part.levels for part in parts)))
        if "lateral" in parts[0]:
            return type(parts[0])(levels=levels, lateral=torch.cat([part.lateral for part in parts]))
        masks = torch.cat([part.mask_features for part in parts])
        return type(parts[0])(levels=levels, mask_features=masks, class_embeddings=parts[0].class_embeddings)

    def _run(self, frames: slice, before: Sequence[SeenFrame] = (), **inputs: torch.Tensor) -> Any:
        """Runs the model on other frames and some of these."""
        pixels, mask, features = self.pixel_values[frames], self.pixel_mask[frames], self.features
        if before or len(pixels) < len(self):
            features = self._joined([*(seen.features for seen in before), features.of_images(frames)])
        if before:
            pixels = torch.cat([*(seen.pixel_values for seen in before), pixels])
            mask = torch.cat([*(seen.pixel_mask for seen in before), mask])
        with torch.no_grad():
            return self.model(pixel_values=pixels, pixel_mask=mask, image_features=features, **inputs)

    def _in_parts(
        self, find: Callable[[slice, slice], list[list[FrameCandidates]]], objects: int, first: int, own: int = 0
    ) -> list[list[FrameCandidates]]:
        """
        Finds candidates for all objects in all frames together, or where that does not fit in memory, in halves: of
        the objects, then of the frames.

        Args:
            find: of some objects and some frames.
            objects: their number.
            first: the frame to begin with.
            own: how many candidates of each object come before those of the frames; those of the first part are taken.

        Returns:
            for each object its candidates.
        """

        def some_frames(part: slice) -> list[list[FrameCandidates]]:
            frames = slice(first + part.start, first + part.stop)
            found = self.fits.run(lambda some: find(some, frames), objects, "objects", torch.OutOfMemoryError)
            return [one for several in found for one in several]

        if first == len(self):
            return some_frames(slice(0, 0))
        parts = self.fits.run(some_frames, len(self) - first, "frames", self._too_large)
        return [[*one[0], *(found for part in one[1:] for found in part[own:])] for one in zip(*parts, strict=True)]

    def _too_large(self, place: int) -> ValueError:
        """Returns the error of a frame that does not fit in memory with one prompt."""
        height, width = self.sizes.frame
        return ValueError(
            f"`inputs`: a frame of {height} x {width} pixels does not fit in memory: lower `size` of the image "
            "processor, or pass smaller frames."
        )

    def _rows(self, outputs: Any, objects: int, rows: int) -> list[list[FrameCandidates]]:
        return [
            [self._candidates(outputs, number * rows + row, CANDIDATES) for row in range(rows)]
            for number in range(objects)
        ]

    def _candidates(self, outputs: Any, row: int, most: int | None) -> FrameCandidates:
        """Copies one row's candidates, so that the model's whole output can be freed."""
        logits = outputs.logits[row].float()  # (queries, classes)
        best = torch.arange(len(logits), device=logits.device)
        if most is not None and most < len(logits):
            best = logits.amax(dim=1).topk(most).indices
        return FrameCandidates(
            logits=logits[best],
            boxes=self.sizes.boxes(outputs.pred_boxes[row][best]),
            masks=outputs.pred_masks[row][best],
            embeddings=outputs.track_embeddings[row][best].float(),
        )


# ------------------------------------------------------------------------------------------------------------- prompts


@dataclass
class VideoPrompt(ABC):
    """
    A prompt that is looked for from some frame on.

    Attributes:
        number: its id, which the video gives it; for a single object also its track's.
        labels: labels that its objects may have.
        window: the frames that `candidates` belong to.
        start: the first frame of the window that has candidates.
        candidates: the model's candidates in each frame from `start` on.
    """

    number: int = field(default=0, init=False)
    labels: tuple[str, ...]
    window: FrameWindow | None = field(default=None, init=False)
    start: int = field(default=0, init=False)
    candidates: list[FrameCandidates] = field(default_factory=list, init=False)

    def found(self, window: FrameWindow, first: int, candidates: list[FrameCandidates]) -> None:
        """Takes the model's candidates in the frames of a window, from the frame `first` on."""
        self.window, self.start, self.candidates = window, first, candidates

    def results(self, place: int, sizes: FrameSizes, with_masks: bool = True) -> list[dict[str, Any]]:
        """Returns its objects in one frame of the window; to be called once for each frame, in order."""
        candidates = self.candidates[place - self.start]
        objects = self._track(candidates)
        self._remember(place, candidates, objects)
        places = [found.candidate for found in objects]
        masks: Sequence[RunLengthMask | None] = [None] * len(places)
        if with_masks:
            masks = sizes.masks(candidates.masks[places])
        boxes = candidates.on_host.boxes[places]
        return [
            plain_result(found.score, self.labels[found.label], box, mask, sizes.frame, track_id=found.track_id)
            for found, box, mask in zip(objects, boxes, masks)
        ]

    @abstractmethod
    def _track(self, candidates: FrameCandidates) -> list[TrackedObject]:
        """Finds its objects in the next frame."""

    def _remember(self, place: int, candidates: FrameCandidates, objects: list[TrackedObject]) -> None:
        """Stores what the next window needs: nothing for labels."""
        return

    def finish_window(self, mask: torch.Tensor | None = None) -> None:
        """Releases the window; `mask` is what `last_mask` has returned, None if it is empty."""
        self.window, self.candidates = None, []


@dataclass
class LabelPrompt(VideoPrompt):
    """
    All objects of some labels.

    Attributes:
        embeddings: of the labels, for the model.
        tracker: tracks the objects.
        most: maximum number of results per frame.
        dropped: ids of tracks that are not returned any more.
    """

    embeddings: Mapping[str, torch.Tensor]
    tracker: GleeTracker
    most: int
    dropped: set[int] = field(default_factory=set, init=False)

    @property
    def candidates_wanted(self) -> int | None:
        """Returns the number of candidates per frame that the tracker needs; None for all: the published one aligns
        all queries."""
        return None if self.tracker.mode == "minvis" else max(LABEL_CANDIDATES, self.most)

    def _track(self, candidates: FrameCandidates) -> list[TrackedObject]:
        objects = [found for found in self.tracker.update(candidates) if found.track_id not in self.dropped]
        return objects[: self.most]


@dataclass
class ObjectPrompt(VideoPrompt):
    """
    One object, whose mask in one window may be its prompt in the next.

    Attributes:
        follower: chooses the object's candidate.
        shares: whether the object, as it is marked, is searched for on maps that all such objects share, or with a
            pass of the pixel decoder for itself.
        latest: where the object is marked, as its prompt in this window; None if it has no such prompt yet.
        marks: the same as it is searched for on shared maps, of `FrameWindow.marks`.
    """

    follower: ObjectFollower
    shares: bool = field(default=False, kw_only=True)
    latest: Shown | None = field(default=None, init=False)
    marks: Any = field(default=None, init=False)
    # Where it was found last: place in the window, and mask logits (h, w).
    _last: tuple[int, torch.Tensor] | None = field(default=None, init=False)

    def _track(self, candidates: FrameCandidates) -> list[TrackedObject]:
        found = self.follower.update(candidates)
        return [] if found is None else [replace(found, track_id=self.number)]

    def _remember(self, place: int, candidates: FrameCandidates, objects: list[TrackedObject]) -> None:
        for found in objects:
            self._last = place, candidates.masks[found.candidate]

    @abstractmethod
    def answered(
        self, window: FrameWindow, first: int, own: FrameCandidates | None, found: list[FrameCandidates]
    ) -> None:
        """
        Takes what was found by `latest` or by `marks`.

        Args:
            window: the frames.
            first: the frame that `found` begins with.
            own: candidates of the frame that the object is marked in; None where it was not searched for in it.
            found: candidates of each frame from `first` on.
        """

    def last_mask(self) -> torch.Tensor | None:
        """Returns its last mask in the window, `(H, W)` bool of the padded frame; None if it was not found."""
        if self.window is None or self._last is None:
            return None
        return self.window.sizes.padded_mask(self._last[1])

    def finish_window(self, mask: torch.Tensor | None = None) -> None:
        if self.window is not None:
            self._mark_again(self.window, mask)
        self._last = None
        super().finish_window()

    def _mark_again(self, window: FrameWindow, mask: torch.Tensor | None) -> None:
        """Marks the object by its last mask in the window; not at all without one."""
        self.latest = self.marks = None
        if self._last is None or mask is None:
            return
        place, _ = self._last
        self.latest = Shown(window.seen(place), mask, mask.new_zeros((), dtype=torch.int64))
        if self.shares:
            self.marks = window.marks(window.maps().of_images([place]), mask)


@dataclass
class ExpressionPrompt(ObjectPrompt):
    """
    The one object that a sentence is about.

    Attributes:
        tokens: `(1, length, size)`, of the model's `get_expression_tokens`.
        attention_mask: `(1, length)`.
        reprompt: whether the object, once found, is also looked for by its mask in the last frame of the window before
            in which it was found.
    """

    tokens: torch.Tensor
    attention_mask: torch.Tensor
    reprompt: bool = False

    def answered(
        self, window: FrameWindow, first: int, own: FrameCandidates | None, found: list[FrameCandidates]
    ) -> None:
        """
        Adds candidates that were found by the object's own mask.

        A frame's best one is added, with at most the mean score of the object so far: the mask helps where the
        sentence fails, but does not say which object is meant.
        """
        most = torch.tensor(self.follower.usual_score).logit(eps=1e-6)
        for place, by_mask in enumerate(found):
            best = by_mask.chosen(by_mask.logits[:, 0].argmax()[None])
            best = replace(best, logits=best.logits.clamp(max=most.to(best.logits)))
            self.candidates[place] = self.candidates[place].joined(best)

    def last_mask(self) -> torch.Tensor | None:
        return super().last_mask() if self.reprompt else None


@dataclass
class VisualPrompt(ObjectPrompt):
    """
    An object that is marked by a point, box, scribble or mask in a frame.

    In the first window it is searched for by the given prompt; in the next ones by its own mask in the last frame in
    which it was found, or, if it was found in none, by the given prompt again. If it `shares` maps, the given prompt
    is looked up in its own frame only, with a pass for itself; the mask that this finds takes its place.

    Attributes:
        drawn: its pixels in the padded image, `(H, W)` bool.
        kind: kind of prompt, `()` int64.
        first: the frame of the prompt.
        doubt: the object is in doubt where another candidate has more than this share of the best one's score.
        known: whether the follower has seen, or will see in this window, the frame of the prompt.
    """

    drawn: torch.Tensor
    kind: torch.Tensor
    doubt: float
    first: Shown | None = field(default=None, init=False)
    known: bool = field(default=False, init=False)
    _first_marks: Any = field(default=None, init=False)

    def show_in(self, seen: SeenFrame) -> None:
        """Notes the frame of the prompt."""
        device = seen.pixel_values.device
        self.first = Shown(seen, self.drawn.to(device), self.kind.to(device))
        self.latest = None if self.shares else self.first

    def met(self, window: FrameWindow, answer: FrameCandidates) -> FrameCandidates:
        """
        Takes the candidates that the given prompt has in its own frame: the best one is the object.

        Returns:
            it alone, with the embedding that it has on shared maps, as the later frames' candidates have them.
        """
        assert self.first is not None  # it has been shown
        answer = answer.chosen(answer.logits[:, 0].argmax()[None])
        mask, maps = window.sizes.padded_mask(answer.masks[0]), window.maps_of(self.first.seen)
        if mask.any():
            self.latest = Shown(self.first.seen, mask, torch.zeros_like(self.kind))
        else:
            self.latest, mask = self.first, self.first.mask
        self.marks = self._first_marks = window.marks(maps, mask)
        [[own]] = window.find_marked([self.marks], maps)
        overlaps = mask_overlaps(own.masks > 0, answer.masks > 0)[:, 0]
        same = overlaps.argmax()
        return replace(answer, embeddings=own.embeddings[same[None]]) if overlaps[same] >= SAME_OBJECT else answer

    def answered(
        self, window: FrameWindow, first: int, own: FrameCandidates | None, found: list[FrameCandidates]
    ) -> None:
        """Takes the candidates; `own` counts until the prompt's frame is known."""
        if not self.known and own is not None and self.first is not None:
            if self.first.seen.index < window.frames[first].index:
                self.follower.update(own)
            elif self.shares:
                found = [own, *found[1:]]
        self.known = True
        self.found(window, first, found)

    def in_doubt(self, found: list[FrameCandidates]) -> torch.Tensor:
        """Returns whether it could be another object in one of the frames, `()` bool."""
        return torch.stack([frame.rivalry(SAME_OBJECT) > self.doubt for frame in found]).any()

    def _mark_again(self, window: FrameWindow, mask: torch.Tensor | None) -> None:
        super()._mark_again(window, mask)
        self.latest = self.latest or self.first
        if self.shares:
            self.marks = self._first_marks if self.marks is None else self.marks


def look(prompts: Sequence[VideoPrompt], window: FrameWindow, first: int, prompts_at_once: int) -> None:
    """
    Runs the model for all of these prompts.

    Args:
        prompts: of any kind; they take the candidates.
        window: the frames.
        first: the frame to begin with.
        prompts_at_once: maximum number of rows per pass, but at least one prompt with all its frames.
    """
    for prompt in prompts:
        if isinstance(prompt, LabelPrompt):
            prompt.found(window, first, window.find_labels(prompt.embeddings, first, prompt.candidates_wanted))
    count = len(window) - first
    named = [prompt for prompt in prompts if isinstance(prompt, ExpressionPrompt)]
    for several in in_batches(named, prompts_at_once // count):
        tokens, mask = (torch.cat([getattr(p, name) for p in several]) for name in ("tokens", "attention_mask"))
        for prompt, found in zip(several, window.find_expressions(tokens, mask, first)):
            prompt.found(window, first, found)
    marked = [prompt for prompt in prompts if isinstance(prompt, ObjectPrompt)]
    alone = [(prompt, prompt.latest) for prompt in marked if prompt.latest is not None and not prompt.shares]
    answers = _asked_for([shown for _, shown in alone], window, first, prompts_at_once)
    for (prompt, _), (own, *found) in zip(alone, answers):
        prompt.answered(window, first, own, found)
    _look_on_maps([prompt for prompt in marked if prompt.shares], window, first, prompts_at_once)


def _asked_for(
    shown: Sequence[Shown], window: FrameWindow, first: int, prompts_at_once: int
) -> Iterator[list[FrameCandidates]]:
    """Yields what `FrameWindow.find_shown` finds of each object, with as many rows in a pass as there may be."""
    for several in in_batches(shown, prompts_at_once // (len(window) - first + 1)):
        yield from window.find_shown(several, first)


def _look_on_maps(prompts: Sequence[ObjectPrompt], window: FrameWindow, first: int, prompts_at_once: int) -> None:
    """Runs the model for prompts that share maps: once for each new one in its own frame, then for all together."""
    new = [(p, p.first) for p in prompts if isinstance(p, VisualPrompt) and not p.known and p.first is not None]
    first_answers = _asked_for([shown for _, shown in new], window, len(window), prompts_at_once)
    own = {prompt.number: prompt.met(window, answer) for (prompt, _), (answer,) in zip(new, first_answers)}
    prompts = [prompt for prompt in prompts if prompt.marks is not None]
    if not prompts:
        return
    answers = window.find_marked([p.marks for p in prompts], window.maps().of_images(slice(first, None)))
    for prompt, found in _surer(list(zip(prompts, answers)), window, first, prompts_at_once):
        prompt.answered(window, first, own.get(prompt.number), found)


def _surer(
    pairs: list[tuple[ObjectPrompt, list[FrameCandidates]]], window: FrameWindow, first: int, prompts_at_once: int
) -> list[tuple[ObjectPrompt, list[FrameCandidates]]]:
    """Asks with passes of their own for the objects that are in doubt; candidates keep their embeddings."""
    asked = [
        (prompt, prompt.latest, found)
        for prompt, found in pairs
        if isinstance(prompt, VisualPrompt) and prompt.doubt < 1 and prompt.latest is not None
    ]
    doubts = torch.stack([prompt.in_doubt(found) for prompt, _, found in asked]).tolist() if asked else []
    doubtful = [each for each, doubt in zip(asked, doubts) if doubt]
    answers = _asked_for([shown for _, shown, _ in doubtful], window, first, prompts_at_once)
    exact: dict[int, list[FrameCandidates]] = {}
    for (prompt, _, found), (_, *sure) in zip(doubtful, answers):
        exact[prompt.number] = [one.with_embeddings_of(other, SAME_OBJECT) for one, other in zip(sure, found)]
    return [(prompt, exact.get(prompt.number, found)) for prompt, found in pairs]


def finish_windows(prompts: Sequence[VideoPrompt]) -> None:
    """Releases the window of all prompts; objects are marked by their last masks in it. An accelerator is waited for
    once, however many there are."""
    masks = {prompt.number: prompt.last_mask() for prompt in prompts if isinstance(prompt, ObjectPrompt)}
    known = {number: mask for number, mask in masks.items() if mask is not None}
    present = torch.stack([mask.any() for mask in known.values()]).tolist() if known else []
    marked = {number: mask for (number, mask), some in zip(known.items(), present) if some}
    for prompt in prompts:
        prompt.finish_window(marked.get(prompt.number))


def in_batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yields items in batches of a size, or of one where it is less."""
    for first in range(0, len(items), max(1, size)):
        yield items[first : first + max(1, size)]

"""Prompts of a video (labels, expressions, visual prompts), each with its tracker, run through the model in windows of
frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from .geometry_glee import RunLengthMask, Size, boxes_to_picture, masks_to_picture
from .perception_request_glee import plain_result
from .track_state_glee import FrameCandidates, TrackedObject, mask_colours
from .tracking_glee import GleeTracker, ObjectFollower
from .video_reading_glee import VideoFrame

CANDIDATES = 20  # per frame for the one object of an expression or visual prompt
LABEL_CANDIDATES = 100  # queries per frame for the tracker of labels


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

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Converts one mask of the model, `(h, w)` logits, to `(height, width)` bool of the frame."""
        return masks_to_picture(logits[None].float(), self.padded, self.resized, self.frame)[0] > 0

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
    """

    def __init__(self, model: Any, frames: Sequence[PreparedFrame]):
        self.model, self.sizes = model, frames[0].sizes
        self.frames = [prepared.frame for prepared in frames]
        self.pixel_values = torch.cat([f.pixel_values for f in frames]).to(model.device, model.dtype)
        self.pixel_mask = torch.cat([f.pixel_mask for f in frames]).to(model.device)
        with torch.no_grad():
            self.features = model.get_image_features(self.pixel_values, self.pixel_mask)
        self._seen: dict[int, SeenFrame] = {}

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
        outputs = self._run(self.pixel_values[first:], self.pixel_mask[first:], self._features(first), **embeddings)
        found = [self._candidates(outputs, row, most) for row in range(len(self) - first)]
        pictures = self.pixel_values[first:]
        return [replace(one, colours=mask_colours(picture, one.masks)) for one, picture in zip(found, pictures)]

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
        count = len(self) - first
        outputs = self._run(
            self.pixel_values[first:],
            self.pixel_mask[first:],
            self._features(first),
            expression_tokens=tokens.repeat_interleave(count, dim=0),
            expression_attention_mask=attention_mask.repeat_interleave(count, dim=0),
            prompt_image_indices=torch.arange(count, device=tokens.device).repeat(len(tokens)),
        )
        return self._rows(outputs, len(tokens), count)

    def find_shown(
        self, objects: Sequence[Shown], embeddings: Mapping[str, torch.Tensor], first: int = 0
    ) -> list[list[FrameCandidates]]:
        """
        Finds candidates for objects that are marked in other frames.

        Args:
            objects: in frames of the same size as these.
            embeddings: what the model's `get_label_embeddings` returns for the one label that they are scored against.
            first: the frame to begin with.

        Returns:
            for each object the candidates of the frame that it is marked in, then of each frame from `first` on.
        """
        shown_in = {shown.seen.index: shown.seen for shown in objects}
        places = {index: place for place, index in enumerate(shown_in)}
        count, device = len(self) - first, self.pixel_values.device
        rows = 1 + count
        masks = torch.zeros((len(objects) * rows, *self.sizes.padded), dtype=torch.bool, device=device)
        kinds = torch.zeros(len(objects) * rows, dtype=torch.int64, device=device)
        images = torch.arange(len(shown_in) - 1, len(shown_in) + count, device=device).repeat(len(objects))
        for number, shown in enumerate(objects):
            masks[number * rows], kinds[number * rows] = shown.mask, shown.kind
            images[number * rows] = places[shown.seen.index]
        before = list(shown_in.values())
        outputs = self._run(
            torch.cat([*(seen.pixel_values for seen in before), self.pixel_values[first:]]),
            torch.cat([*(seen.pixel_mask for seen in before), self.pixel_mask[first:]]),
            self._features(first, [seen.features for seen in before]),
            **embeddings,
            prompt_masks=masks,
            prompt_types=kinds,
            prompt_image_indices=images,
            prompt_sources=(torch.arange(len(objects), device=device) * rows).repeat_interleave(rows),
        )
        return self._rows(outputs, len(objects), rows)

    def _features(self, first: int, before: Sequence[Any] = ()) -> Any:
        """Concatenates features of other frames and those of the frames from `first` on."""
        if first == 0 and not before:
            return self.features
        parts = [*before, self.features.of_images(slice(first, None))]
        levels = tuple(torch.cat(maps) for maps in zip(*(part.levels for part in parts)))
        return type(self.features)(levels=levels, lateral=torch.cat([part.lateral for part in parts]))

    def _run(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor, features: Any, **inputs: torch.Tensor) -> Any:
        with torch.no_grad():
            return self.model(pixel_values=pixel_values, pixel_mask=pixel_mask, image_features=features, **inputs)

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
        return [
            plain_result(
                found.score,
                self.labels[found.label],
                candidates.boxes[found.candidate],
                RunLengthMask(sizes.mask(candidates.masks[found.candidate]).cpu().numpy()) if with_masks else None,
                sizes.frame,
                track_id=found.track_id,
            )
            for found in objects
        ]

    @abstractmethod
    def _track(self, candidates: FrameCandidates) -> list[TrackedObject]:
        """Finds its objects in the next frame."""

    def _remember(self, place: int, candidates: FrameCandidates, objects: list[TrackedObject]) -> None:
        """Stores what the next window needs: nothing for labels."""
        return

    def finish_window(self) -> None:
        """Releases the window."""
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
        latest: where the object is marked, as its prompt in this window; None if it has no such prompt.
    """

    follower: ObjectFollower
    latest: Shown | None = field(default=None, init=False)
    # Where it was found last: place in the window, and mask logits (h, w).
    _last: tuple[int, torch.Tensor] | None = field(default=None, init=False)

    def _track(self, candidates: FrameCandidates) -> list[TrackedObject]:
        found = self.follower.update(candidates)
        return [] if found is None else [replace(found, track_id=self.number)]

    def _remember(self, place: int, candidates: FrameCandidates, objects: list[TrackedObject]) -> None:
        for found in objects:
            self._last = place, candidates.masks[found.candidate]

    def finish_window(self) -> None:
        if self.window is not None:
            self.latest = self._shown_by_itself(self.window)
        self._last = None
        super().finish_window()

    def _shown_by_itself(self, window: FrameWindow) -> Shown | None:
        """Returns the object as its last mask in the window marks it; None if it was not found or the mask is
        empty."""
        if self._last is None:
            return None
        place, logits = self._last
        mask = window.sizes.padded_mask(logits)
        return Shown(window.seen(place), mask, mask.new_zeros((), dtype=torch.int64)) if mask.any() else None


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

    def found_by_mask(self, candidates: list[FrameCandidates]) -> None:
        """
        Adds candidates that were found by the object's own mask; the first ones are those of the frame that it is
        marked in.

        A frame's best one is added, with at most the mean score of the object so far: the mask helps where the
        sentence fails, but does not say which object is meant.
        """
        most = torch.tensor(self.follower.usual_score).logit(eps=1e-6)
        for place, found in enumerate(candidates[1:]):
            best = found.chosen(found.logits[:, 0].argmax()[None])
            best = replace(best, logits=best.logits.clamp(max=most.to(best.logits)))
            self.candidates[place] = self.candidates[place].joined(best)

    def _shown_by_itself(self, window: FrameWindow) -> Shown | None:
        return super()._shown_by_itself(window) if self.reprompt else None


@dataclass
class VisualPrompt(ObjectPrompt):
    """
    An object that is marked by a point, box, scribble or mask in a frame.

    In the first window it is searched for by the given prompt; in the next ones by its own mask in the last frame in
    which it was found, or, if it was found in none, by the given prompt again.

    Attributes:
        drawn: its pixels in the padded image, `(H, W)` bool.
        kind: kind of prompt, `()` int64.
        first: the frame of the prompt.
    """

    drawn: torch.Tensor
    kind: torch.Tensor
    first: Shown | None = field(default=None, init=False)
    _known: bool = field(default=False, init=False)  # whether the follower has seen the frame of the prompt

    def show_in(self, seen: SeenFrame) -> None:
        """Notes the frame of the prompt."""
        device = seen.pixel_values.device
        self.first = self.latest = Shown(seen, self.drawn.to(device), self.kind.to(device))

    def found(self, window: FrameWindow, first: int, candidates: list[FrameCandidates]) -> None:
        """Takes the model's candidates; the first ones are those of the frame that the object is marked in."""
        if not self._known and self.first is not None and self.first.seen.index < window.frames[first].index:
            self.follower.update(candidates[0])
        self._known = True
        super().found(window, first, candidates[1:])

    def _shown_by_itself(self, window: FrameWindow) -> Shown | None:
        return super()._shown_by_itself(window) or self.first


def look(
    prompts: Sequence[VideoPrompt],
    window: FrameWindow,
    first: int,
    prompts_at_once: int,
    shown_label: Mapping[str, torch.Tensor],
) -> None:
    """
    Runs the model for all of these prompts.

    Args:
        prompts: of any kind; they take the candidates.
        window: the frames.
        first: the frame to begin with.
        prompts_at_once: maximum number of rows per pass, but at least one prompt with all its frames.
        shown_label: what the model's `get_label_embeddings` returns for the label "object".
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
    """Yields the prompts of one kind in batches."""
    chosen, size = [prompt for prompt in prompts if isinstance(prompt, kind)], max(1, size)
    for first in range(0, len(chosen), size):
        yield chosen[first : first + size]

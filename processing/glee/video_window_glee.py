"""A few frames of a video in the model: seen once, asked any number of things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .geometry_glee import Size, boxes_to_picture, masks_to_picture
from .track_candidates_glee import FrameCandidates
from .track_colours_glee import mask_colours
from .video_frames_glee import VideoFrame

CANDIDATES = 20  # of a frame that may be the one object that an expression or prompt is about


@dataclass(frozen=True)
class PreparedFrame:
    """A frame and what the image processor makes of it: `(1, 3, H, W)` and `(1, H, W)`."""

    frame: VideoFrame
    pixel_values: torch.Tensor
    pixel_mask: torch.Tensor

    @property
    def sizes(self) -> FrameSizes:
        mask = self.pixel_mask[0]
        resized = (int(mask[:, 0].sum()), int(mask[0].sum()))
        return FrameSizes((self.frame.image.height, self.frame.image.width), resized, tuple(mask.shape))


@dataclass(frozen=True)
class FrameSizes:
    """(height, width) in pixels of the frame, of what it is resized to, and of the canvas around that."""

    frame: Size
    resized: Size
    padded: Size

    def boxes(self, boxes: torch.Tensor) -> torch.Tensor:
        """The model's boxes `(n, 4)` as (x0, y0, x1, y1) in pixels of the frame, float32."""
        return boxes_to_picture(boxes.float(), self.padded, self.resized, self.frame)

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """One mask of the model, `(h, w)` logits, as `(height, width)` bool of the frame."""
        return masks_to_picture(logits[None].float(), self.padded, self.resized, self.frame)[0] > 0

    def canvas_mask(self, logits: torch.Tensor) -> torch.Tensor:
        """The same on the canvas, where prompts are: `(H, W)` bool, False in the padding."""
        full = torch.nn.functional.interpolate(
            logits[None, None].float(), size=self.padded, mode="bilinear", align_corners=False
        )[0, 0]
        inside = torch.zeros_like(full, dtype=torch.bool)
        height, width = self.resized
        inside[:height, :width] = full[:height, :width] > 0
        return inside


@dataclass(frozen=True)
class SeenFrame:
    """One frame in the model, kept because something in it is looked for in others."""

    index: int  # of the frame in the video
    pixel_values: torch.Tensor  # (1, 3, H, W)
    pixel_mask: torch.Tensor  # (1, H, W)
    features: Any  # the model's GleeImageFeatures of it


@dataclass(frozen=True)
class Shown:
    """Where an object is: the pixels of a frame's canvas that show it, `(H, W)` bool, and as what kind of prompt."""

    seen: SeenFrame
    mask: torch.Tensor
    kind: torch.Tensor  # () int64


class FrameWindow:
    """
    Frames in the model; the backbone runs once, here.

    Args:
        model: of GLEE; frames: of one size, at least one.
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
        """A copy of what the model has of one frame, so that it can be kept without the window."""
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
        What may be objects of some labels.

        Args:
            embeddings: of the model's `get_label_embeddings`.
            first: the frame to begin with.
            most: candidates of a frame that are kept, the best ones; None for all, in the model's order.
        Returns:
            those of each frame.
        """
        outputs = self._ask(self.pixel_values[first:], self.pixel_mask[first:], self._features(first), **embeddings)
        found = [self._candidates(outputs, row, most) for row in range(len(self) - first)]
        pictures = self.pixel_values[first:]
        return [replace(one, colours=mask_colours(picture, one.masks)) for one, picture in zip(found, pictures)]

    def find_expressions(
        self, tokens: torch.Tensor, attention_mask: torch.Tensor, first: int = 0
    ) -> list[list[FrameCandidates]]:
        """
        What sentences may be about.

        Args:
            tokens: of the model's `get_expression_tokens`, `(n, length, size)`; attention_mask: `(n, length)`.
        Returns:
            for each sentence those of each frame, from the frame `first` on.
        """
        count = len(self) - first
        outputs = self._ask(
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
        What may be objects that other frames show.

        Args:
            objects: in frames of the same size as these.
            embeddings: of the one label that they are scored against.
        Returns:
            for each object those of the frame that shows it, then of each frame from `first` on.
        """
        shown_in = {thing.seen.index: thing.seen for thing in objects}
        places = {index: place for place, index in enumerate(shown_in)}
        count, device = len(self) - first, self.pixel_values.device
        rows = 1 + count
        masks = torch.zeros((len(objects) * rows, *self.sizes.padded), dtype=torch.bool, device=device)
        kinds = torch.zeros(len(objects) * rows, dtype=torch.int64, device=device)
        images = torch.arange(len(shown_in) - 1, len(shown_in) + count, device=device).repeat(len(objects))
        for number, thing in enumerate(objects):
            masks[number * rows], kinds[number * rows] = thing.mask, thing.kind
            images[number * rows] = places[thing.seen.index]
        kept = list(shown_in.values())
        outputs = self._ask(
            torch.cat([*(seen.pixel_values for seen in kept), self.pixel_values[first:]]),
            torch.cat([*(seen.pixel_mask for seen in kept), self.pixel_mask[first:]]),
            self._features(first, [seen.features for seen in kept]),
            **embeddings,
            prompt_masks=masks,
            prompt_types=kinds,
            prompt_image_indices=images,
            prompt_sources=(torch.arange(len(objects), device=device) * rows).repeat_interleave(rows),
        )
        return self._rows(outputs, len(objects), rows, confidence=True)

    def _features(self, first: int, before: Sequence[Any] = ()) -> Any:
        """Features of the frames from the `first` on, behind those of other frames."""
        if first == 0 and not before:
            return self.features
        parts = [*before, self.features.of_images(slice(first, None))]
        levels = tuple(torch.cat(maps) for maps in zip(*(part.levels for part in parts)))
        return type(self.features)(levels=levels, lateral=torch.cat([part.lateral for part in parts]))

    def _ask(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor, features: Any, **inputs: torch.Tensor) -> Any:
        with torch.no_grad():
            return self.model(pixel_values=pixel_values, pixel_mask=pixel_mask, image_features=features, **inputs)

    def _rows(self, outputs: Any, objects: int, rows: int, confidence: bool = False) -> list[list[FrameCandidates]]:
        return [
            [self._candidates(outputs, number * rows + row, CANDIDATES, confidence) for row in range(rows)]
            for number in range(objects)
        ]

    def _candidates(self, outputs: Any, row: int, most: int | None, confidence: bool = False) -> FrameCandidates:
        """Copies, so that the whole answer is not held."""
        logits = outputs.logits[row].float()  # (queries, classes)
        best = torch.arange(len(logits), device=logits.device)
        if most is not None and most < len(logits):
            best = logits.amax(dim=1).topk(most).indices
        return FrameCandidates(
            logits=logits[best],
            boxes=self.sizes.boxes(outputs.pred_boxes[row][best]),
            masks=outputs.pred_masks[row][best],
            embeddings=outputs.track_embeddings[row][best].float(),
            confidence=outputs.confidence[row][best].float() if confidence else None,
        )

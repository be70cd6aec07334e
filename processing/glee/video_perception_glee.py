"""Video perception: one list of results per frame, in bounded memory, with prompts that can be added and dropped."""

from __future__ import annotations

import itertools
import warnings as python_warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image

from .perception_request_glee import VISUAL, check_prompts
from .prompt_processing_glee import VISUAL_LABEL, GleePromptProcessor, draw_visual_prompts
from .tracking_glee import GleeTracker, ObjectFollower
from .video_queries_glee import (
    ExpressionPrompt,
    Fitting,
    FrameWindow,
    LabelPrompt,
    PreparedFrame,
    VideoPrompt,
    VisualPrompt,
    finish_windows,
    look,
)
from .video_reading_glee import ReadAhead, Video, VideoFrame, of_one_size

WINDOW = 4  # frames that go through the model together
# How marked objects are searched for: with a pass of the pixel decoder for each, as GLEE does it, or by the object
# decoder alone, on maps that all of them share, where that leaves no doubt.
FOLLOWING = ("exact", "shared")
DOUBT = 0.05


@dataclass(frozen=True)
class VideoSettings:
    """
    Settings of video perception, see `ObjectPerceptionPipeline`.

    Attributes:
        threshold: the lowest score of a result of labels, from 0 to 1.
        top_k: maximum number of results per frame for labels.
        prompts_at_once: rows per forward pass with expressions or visual prompts, one for each frame.
        window: number of frames that go through the model together.
        tracking: "memory" or "minvis", see `GleeTracker`.
        reprompt: whether expressions' objects are also looked for by their own masks, see `ExpressionPrompt`.
        following: "exact" or "shared", see `FOLLOWING`.
        doubt: with "shared", an object is in doubt where another candidate has more than this share of the best one's
            score, from 0 to 1; 1: none is.
        with_masks: whether results have masks.
        expression_threshold: the lowest score of an expression's object, from 0 to 1.
        visual_threshold: the lowest score of the object of a visual prompt, from 0 to 1.
    """

    threshold: float
    top_k: int
    prompts_at_once: int
    window: int = WINDOW
    tracking: str = "memory"
    reprompt: bool = False
    following: str = FOLLOWING[0]
    doubt: float = DOUBT
    with_masks: bool = True
    expression_threshold: float = 0.2
    visual_threshold: float = 0.2


class VideoPerception:
    """
    Result of `object-perception` for a video: an iterator with one list of results per frame.

    Frames are prefetched by a thread and go through the model in small batches; past results are not stored, so memory
    doesn't depend on the length. Each result is what the pipeline gives for an image, preceded by a `"track_id"`,
    which is the same for an object in all frames. A frame's list has the objects that are found in it: those of
    labels, best first, then those of expressions, points, boxes, scribbles and masks, in this order.

    ```python
    with see("street.mp4", labels=["person", "car"]) as video:
        for results in video:
            print(video.time, [(found["track_id"], found["label"]) for found in results])
            if video.index == 40:
                video.drop(3)  # stop following this object
                video.add(points=[[(120, 80)]])  # and follow what is here in this frame
    ```

    It is not thread-safe.

    Attributes:
        fps: frames per second; None where the source doesn't say.
        frames: number of frames; None where the source doesn't say.
        duration: in seconds; None where the source doesn't say.
        names: the frames' files, in a folder of pictures; else None.
        size: (height, width) of the frames in pixels, upright.
        frame: the last frame that results were returned for, an RGB picture; None before the first.
        index: its place, from 0; -1 before the first.
        time: its time in seconds after the first frame; None before the first, and where the source has no clock.
        warnings: sentences about faults of the video that did not stop the reading.
    """

    def __init__(
        self,
        video: Video,
        model: Any,
        processor: Any,
        encode_labels: Callable[[tuple[str, ...]], Mapping[str, torch.Tensor]],
        settings: VideoSettings,
        prompts: Mapping[str, Any],
    ):
        """
        Args:
            video: where frames come from.
            model: a `GleeForObjectDetection`.
            processor: its `GleeProcessor`.
            encode_labels: returns the model's `get_label_embeddings` of a list of labels.
            settings: thresholds, sizes of batches, and how objects are tracked.
            prompts: `labels`, `expressions`, `points`, `boxes`, `scribbles`, `masks`, which are about the first frame.

        Raises:
            ValueError: the video has no frames, or the prompts cannot be used.
        """
        self._model, self._processor, self._encode_labels = model, processor, encode_labels
        self._settings, self._name = settings, video.name
        # Shared maps are those of whole padded images.
        self._shares = settings.following == FOLLOWING[1] and not model.config.padding_mask
        self.fps, self.frames, self.duration = video.fps, video.frames, video.duration
        self.names = video.names
        self.warnings: list[str] = []
        self._warned = 0
        self._frames = ReadAhead(_prepared(video, processor.image_processor, self.warnings), settings.window)
        self._failure: BaseException | None = None
        self._window: FrameWindow | None = None
        self._place = 0  # in the window, of the next frame
        self._last: VideoFrame | None = None
        self._prompts: dict[int, VideoPrompt] = {}
        self._numbers = itertools.count(1)
        self._fits = Fitting()
        try:
            self._next_frames = self._read(1)
            if not self._next_frames:
                raise self._failure or ValueError(f"`inputs`: {video.name} has no frames that can be decoded.")
            self._first = self._next_frames[0].sizes
            self.size = self._first.frame
            self.add(**prompts)
        except BaseException:
            self.close()
            raise

    # -------------------------------------------------------------------------------------------------- the iterator

    def __iter__(self) -> VideoPerception:
        return self

    def __next__(self) -> list[dict[str, Any]]:
        """
        Returns the results of the next frame.

        Raises:
            ValueError: the video cannot be read any further, and the results of all frames before it have been
                returned; or a frame does not fit in memory, even alone and with one prompt.
        """
        try:
            return self._next_results()
        except torch.OutOfMemoryError:
            pass  # what the attempt holds is released after this block
        height, width = self.size
        raise ValueError(
            f"`batch_size`: {self._settings.window} frames of {height} x {width} pixels do not fit in memory: lower "
            "it, or `prompts_at_once`."
        )

    def _next_results(self) -> list[dict[str, Any]]:
        """Returns the results of the next frame."""
        window = self._window
        if window is None or self._place == len(window):
            window = self._next_window()
        self._look([prompt for prompt in self._prompts.values() if prompt.window is not window], window)
        results = [
            found
            for prompt in self._in_order()
            for found in prompt.results(self._place, window.sizes, self._settings.with_masks)
        ]
        self._last = window.frames[self._place]
        self._place += 1
        return results

    def __enter__(self) -> VideoPerception:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Stops reading; there are no more results. It may be called at any time, more than once."""
        self._frames.close()
        self._window, self._next_frames, self._place = None, [], 0
        self._failure = None
        for prompt in self._prompts.values():
            prompt.finish_window()

    @property
    def index(self) -> int:
        return -1 if self._last is None else self._last.index

    @property
    def time(self) -> float | None:
        return None if self._last is None else self._last.time

    @property
    def frame(self) -> Image.Image | None:
        return None if self._last is None else self._last.image

    # --------------------------------------------------------------------------------------------------- the prompts

    @property
    def prompts(self) -> dict[int, str]:
        """Returns the labels of each prompt by its id: an id for the list of labels, the track's for a single
        object."""
        return {prompt.number: ", ".join(prompt.labels) for prompt in self._in_order()}

    def add(
        self,
        labels: Sequence[str] | None = None,
        expressions: Sequence[str] | None = None,
        points: Sequence[Any] | None = None,
        boxes: Sequence[Any] | None = None,
        scribbles: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
    ) -> list[int]:
        """
        Looks for more, from the next frame on.

        Args:
            labels: names of categories, any number of objects each.
            expressions: sentences about one object each.
            points: for each object a list of `(x, y)`. These and the following are in pixels of the frame whose
                results were returned last, or of the first frame.
            boxes: for each object `(x0, y0, x1, y1)`.
            scribbles: for each object a line `[(x, y), …]` or `(height, width)` bool.
            masks: for each object `(height, width)` bool.

        Returns:
            ids: one for the labels, the track's of each expression, point, box, scribble and mask, in this order.

        Raises:
            ValueError: there is no prompt, or one cannot be used; then none of them is added.
        """
        given = {"labels": labels, "expressions": expressions}
        given |= {"points": points, "boxes": boxes, "scribbles": scribbles, "masks": masks}
        given = check_prompts({name: value for name, value in given.items() if value is not None})
        added = [*self._expression_prompts(given), *self._visual_prompts(given), *self._label_prompts(given)]
        for prompt in added:  # only now, so that a prompt that cannot be used takes no number
            prompt.number = next(self._numbers)
        if self._last is not None and self._window is not None:
            _show(added, self._window, self._place - 1)
        self._prompts |= {prompt.number: prompt for prompt in added}
        return [prompt.number for prompt in sorted(added, key=_rank)]

    def drop(self, number: int) -> None:
        """
        Stops looking for something, from the next frame on.

        Args:
            number: `track_id` of an object, or the id of a prompt.

        Raises:
            ValueError: it is no id of this video.
        """
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"`number` must be a track_id or the id of a prompt, not {number!r}.")
        if self._prompts.pop(number, None) is None:
            trackers = [prompt for prompt in self._prompts.values() if isinstance(prompt, LabelPrompt)]
            if not trackers:
                raise ValueError(f"`number`: nothing with the id {number} is looked for.")
            for prompt in trackers:
                prompt.dropped.add(number)

    def _in_order(self) -> list[VideoPrompt]:
        return sorted(self._prompts.values(), key=_rank)

    def _label_prompts(self, given: Mapping[str, Any]) -> list[VideoPrompt]:
        """Makes one prompt of all labels; they share a tracker, so that an object has one label."""
        if not len(given.get("labels", ())):
            return []
        labels = tuple(given["labels"])
        tracker = GleeTracker(self._settings.tracking, self._settings.threshold, self._numbers)
        return [LabelPrompt(labels, self._encode_labels(labels), tracker, self._settings.top_k)]

    def _expression_prompts(self, given: Mapping[str, Any]) -> list[VideoPrompt]:
        """Makes a prompt of each expression."""
        sentences = list(given.get("expressions", ()))
        if not sentences:
            return []
        rows = GleePromptProcessor(self._processor.tokenizer).encode_expressions([sentences], 1)
        ids, mask = (
            torch.from_numpy(rows[f"expression_{name}"]).to(self._model.device)
            for name in ("input_ids", "attention_mask")
        )
        with torch.no_grad():
            tokens = self._model.get_expression_tokens(ids, mask)
        threshold, reprompt = self._settings.expression_threshold, self._settings.reprompt
        return [
            ExpressionPrompt(
                (sentence,),
                ObjectFollower(shown=False, threshold=threshold),
                tokens[[place]],
                mask[[place]],
                reprompt,
                shares=self._shares,
            )
            for place, sentence in enumerate(sentences)
        ]

    def _visual_prompts(self, given: Mapping[str, Any]) -> list[VideoPrompt]:
        """Makes a prompt of each point, box, scribble and mask."""
        visual = {name: [list(given[name])] for name in VISUAL if len(given.get(name, ()))}
        if not visual:
            return []
        sizes = self._first
        rows = draw_visual_prompts(visual, [sizes.frame], [sizes.resized], sizes.padded)
        drawn, kinds = torch.from_numpy(rows["prompt_masks"]), torch.from_numpy(rows["prompt_types"])
        threshold = self._settings.visual_threshold
        return [
            VisualPrompt(
                (VISUAL_LABEL,),
                ObjectFollower(shown=True, threshold=threshold),
                mask.clone(),
                kind,
                self._settings.doubt,
                shares=self._shares,
            )
            for mask, kind in zip(drawn, kinds)
        ]

    # --------------------------------------------------------------------------------------------------- the windows

    def _look(self, prompts: Sequence[VideoPrompt], window: FrameWindow) -> None:
        """Runs the model for some prompts, from the next frame of the window on."""
        if not prompts:
            return
        _show(prompts, window, self._place)
        look(prompts, window, self._place, self._settings.prompts_at_once)

    def _next_window(self) -> FrameWindow:
        """Releases the frames whose results have been returned, and takes the next ones."""
        finish_windows(list(self._prompts.values()))
        self._window = None
        frames = self._next_frames + self._read(self._settings.window - len(self._next_frames))
        self._next_frames = []
        if not frames:
            failure, self._failure = self._failure, None
            raise StopIteration if failure is None else failure
        shown_label = partial(self._encode_labels, (VISUAL_LABEL,))
        window = self._window = FrameWindow(self._model, frames, shown_label, self._fits)
        self._place = 0
        return window

    def _read(self, count: int) -> list[PreparedFrame]:
        """Reads up to `count` further frames; a reading error is raised at the frame where it occurred."""
        frames: list[PreparedFrame] = []
        while len(frames) < count and self._failure is None:
            try:
                frames.append(next(self._frames))
            except StopIteration:
                break
            except Exception as error:  # whatever it is, it is raised when its frame is due
                self._failure = error
        self._tell()
        return frames

    def _tell(self) -> None:
        """Issues the warnings that are new."""
        for message in self.warnings[self._warned :]:
            python_warnings.warn(f"{self._name}: {message}", stacklevel=2)
            self._warned += 1


def _show(prompts: Sequence[VideoPrompt], window: FrameWindow, place: int) -> None:
    """Notes, for visual prompts that are new, which frame they are about."""
    for prompt in prompts:
        if isinstance(prompt, VisualPrompt) and prompt.first is None:
            prompt.show_in(window.seen(place))


def _rank(prompt: VideoPrompt) -> tuple[bool, int]:
    """Returns the order of results: labels before single objects, each in the order in which they were added."""
    return not isinstance(prompt, LabelPrompt), prompt.number


def _prepared(video: Video, image_processor: Any, warnings: list[str]) -> Iterator[PreparedFrame]:
    """Yields frames with the model's inputs, in the prefetching thread. It holds no reference to the consumer."""
    for frame in of_one_size(video.read(warnings.append), video.name, warnings.append):
        features = image_processor([frame.image], return_tensors="pt")
        yield PreparedFrame(frame, features["pixel_values"], features["pixel_mask"])

"""Video perception: one list of results per frame, in bounded memory, with prompts that can be added and dropped."""

from __future__ import annotations

import itertools
import warnings as python_warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from .perception_request_glee import VISUAL, check_prompts
from .prompt_processing_glee import VISUAL_LABEL, GleePromptProcessor
from .read_ahead_glee import ReadAhead
from .tracking_glee import GleeTracker, ObjectFollower
from .video_queries_glee import (
    ExpressionPrompt,
    FrameWindow,
    LabelPrompt,
    ObjectPrompt,
    PreparedFrame,
    VideoPrompt,
    VisualPrompt,
    look,
)
from .video_reading_glee import Video, VideoFrame, of_one_size

WINDOW = 4  # frames that go through the model together


@dataclass(frozen=True)
class VideoSettings:
    """
    Settings of video perception, see `ObjectPerceptionPipeline`.

    Attributes:
        threshold: the lowest score of a result.
        top_k: maximum number of results per frame for labels.
        prompts_at_once: rows per forward pass with expressions or visual prompts, one for each frame.
        window: frames that go through the model together.
        tracking: "memory" or "minvis", see `GleeTracker`.
        reprompt: whether expressions' objects are also looked for by their own masks, see `ExpressionPrompt`.
    """

    threshold: float
    top_k: int
    prompts_at_once: int
    window: int = WINDOW
    tracking: str = "memory"
    reprompt: bool = False


class VideoPerception:
    """
    Result of `object-perception` for a video: an iterator with one list of results per frame.

    Frames are prefetched by a thread and go through the model in small batches; past results are not stored, so memory
    doesn't depend on the length. Each result is what the pipeline gives for an image, with a `"track_id"` in front
    that an object keeps in all frames. A frame's list has the objects that are found in it: those of labels, best first,
    then those of expressions, points, boxes, scribbles and masks, in this order.

    ```python
    with see("street.mp4", labels=["person", "car"]) as video:
        for results in video:
            print(video.time, [(found["track_id"], found["label"]) for found in results])
            if video.index == 40:
                video.drop(3)  # not this one any more
                video.add(points=[[(120, 80)]])  # but what is there in this frame
    ```

    It is not thread-safe.

    Attributes:
        fps: frames a second; frames: their number; duration: in seconds. None where the source doesn't say.
        size: (height, width) of the frames in pixels, upright.
        frame: the last frame that results were given for, an RGB picture; index: its place, from 0 (-1 before the first);
            time: in seconds after the first one, None where the source has no clock.
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
            model: of GLEE; processor: its `GleeProcessor`.
            encode_labels: gives what the model's `get_label_embeddings` makes of a list of labels.
            settings: how to look.
            prompts: `labels`, `expressions`, `points`, `boxes`, `scribbles`, `masks`, about the first frame.

        Raises:
            ValueError: the video has no frames, or the prompts cannot be used.
        """
        self._model, self._processor, self._encode_labels = model, processor, encode_labels
        self._settings, self._name = settings, video.name
        self.fps, self.frames, self.duration = video.fps, video.frames, video.duration
        self.warnings: list[str] = []
        self._warned = 0
        self._frames = ReadAhead(_prepared(video, processor.image_processor, self.warnings), settings.window)
        self._failure: BaseException | None = None
        self._window: FrameWindow | None = None
        self._place = 0  # in the window, of the next frame
        self._last: VideoFrame | None = None
        self._prompts: dict[int, VideoPrompt] = {}
        self._numbers = itertools.count(1)
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
        The results of the next frame.

        Raises:
            ValueError: the video cannot be read any further; what came before has been given.
        """
        if self._window is None or self._place == len(self._window):
            self._next_window()
        fresh = [prompt for prompt in self._prompts.values() if prompt.window is not self._window]
        self._look(fresh)
        results = [found for prompt in self._in_order() for found in prompt.results(self._place)]
        self._last = self._window.frames[self._place]
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
        """The ids of what is looked for, and what it is called: one for a list of labels, the track's for an object."""
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
            labels, expressions: as in the pipeline's call.
            points, boxes, scribbles, masks: of objects in the frame whose results were given last, or in the first frame
                while there are none.

        Returns:
            ids: one for the labels, the track's of each expression, point, box, scribble and mask, in this order.

        Raises:
            ValueError: nothing is asked for, or a prompt cannot be used; then none of them is added.
        """
        given = {"labels": labels, "expressions": expressions}
        given |= {"points": points, "boxes": boxes, "scribbles": scribbles, "masks": masks}
        given = check_prompts({name: value for name, value in given.items() if value is not None})
        makers = [*self._expressions(given), *self._shown(given), *self._labels(given)]
        added = [make(next(self._numbers)) for make in makers]
        if self._last is not None and self._window is not None:
            self._show([prompt for prompt in added if isinstance(prompt, VisualPrompt)], self._place - 1)
        self._prompts |= {prompt.number: prompt for prompt in added}
        return [prompt.number for prompt in sorted(added, key=_rank)]

    def drop(self, number: int) -> None:
        """
        Looks no more, from the next frame on, for an object by its `track_id`, or for a whole prompt by its id.

        Raises:
            ValueError: no id of this video can be it.
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

    def _labels(self, given: Mapping[str, Any]) -> Iterator[Callable[[int], VideoPrompt]]:
        if len(given.get("labels", ())):
            labels = tuple(given["labels"])
            embeddings = self._encode_labels(labels)
            tracker = GleeTracker(self._settings.tracking, self._settings.threshold, self._numbers)
            yield lambda number: LabelPrompt(number, labels, embeddings, tracker, self._settings.top_k)

    def _expressions(self, given: Mapping[str, Any]) -> Iterator[Callable[[int], VideoPrompt]]:
        sentences = list(given.get("expressions", ()))
        if not sentences:
            return
        rows = GleePromptProcessor(self._processor.tokenizer).encode_expressions([sentences], 1)
        ids, mask = (
            torch.from_numpy(rows[f"expression_{name}"]).to(self._model.device)
            for name in ("input_ids", "attention_mask")
        )
        with torch.no_grad():
            tokens = self._model.get_expression_tokens(ids, mask)

        def make(place: int) -> Callable[[int], VideoPrompt]:
            return lambda number: ExpressionPrompt(
                number,
                (sentences[place],),
                ObjectFollower(shown=False, track_id=number, threshold=self._settings.threshold),
                tokens[[place]],
                mask[[place]],
                self._settings.reprompt,
            )

        yield from map(make, range(len(sentences)))

    def _shown(self, given: Mapping[str, Any]) -> Iterator[Callable[[int], VideoPrompt]]:
        visual = {name: [list(given[name])] for name in VISUAL if len(given.get(name, ()))}
        if not visual:
            return
        sizes = self._first
        rows = GleePromptProcessor(self._processor.tokenizer)(
            **visual, image_sizes=[sizes.frame], resized_sizes=[sizes.resized], padded_size=sizes.padded
        )
        drawn, kinds = torch.from_numpy(rows["prompt_masks"]), torch.from_numpy(rows["prompt_types"])

        def make(place: int) -> Callable[[int], VideoPrompt]:
            return lambda number: VisualPrompt(
                number,
                (VISUAL_LABEL,),
                ObjectFollower(shown=True, track_id=number, threshold=self._settings.threshold),
                drawn[place].clone(),
                kinds[place],
            )

        yield from map(make, range(len(drawn)))

    # --------------------------------------------------------------------------------------------------- the windows

    def _look(self, prompts: Sequence[VideoPrompt]) -> None:
        """Asks the model for prompts, from the next frame of the window on."""
        if not prompts:
            return
        self._show([p for p in prompts if isinstance(p, VisualPrompt) and p.first is None], self._place)
        shown_label = {}
        if any(isinstance(prompt, ObjectPrompt) and prompt.latest is not None for prompt in prompts):
            shown_label = self._encode_labels((VISUAL_LABEL,))
        look(prompts, self._window, self._place, self._settings.prompts_at_once, shown_label)

    def _show(self, prompts: Sequence[VisualPrompt], place: int) -> None:
        for prompt in prompts:
            prompt.show_in(self._window.seen(place))

    def _next_window(self) -> None:
        """Lets go of the frames that have been given, and takes the next ones."""
        for prompt in self._prompts.values():
            prompt.finish_window()
        self._window = None
        frames = self._next_frames + self._read(self._settings.window - len(self._next_frames))
        self._next_frames = []
        if not frames:
            failure, self._failure = self._failure, None
            raise StopIteration if failure is None else failure
        self._window, self._place = FrameWindow(self._model, frames), 0

    def _read(self, count: int) -> list[PreparedFrame]:
        """Reads up to `count` further frames; a reading error is raised at the frame where it occurred."""
        frames: list[PreparedFrame] = []
        while len(frames) < count and self._failure is None:
            try:
                frames.append(next(self._frames))
            except StopIteration:
                break
            except Exception as error:
                self._failure = error
        self._tell()
        return frames

    def _tell(self) -> None:
        for message in self.warnings[self._warned :]:
            python_warnings.warn(f"{self._name}: {message}", stacklevel=2)
            self._warned += 1


def _rank(prompt: VideoPrompt) -> tuple[bool, int]:
    """Labels before single objects, each in the order of their coming."""
    return not isinstance(prompt, LabelPrompt), prompt.number


def _prepared(video: Video, image_processor: Any, warnings: list[str]) -> Iterator[PreparedFrame]:
    """Frames with the model's inputs; for the prefetching thread. It holds no reference to the consumer."""
    for frame in of_one_size(video.read(warnings.append), video.name, warnings.append):
        features = image_processor([frame.image], return_tensors="pt")
        yield PreparedFrame(frame, features["pixel_values"], features["pixel_mask"])

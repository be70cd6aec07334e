"""The pipeline task `object-perception`: from an image or video and prompts to scores, boxes and masks."""

from __future__ import annotations

import copy
import itertools
import json
import numbers
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Pipeline, ProcessorMixin
from transformers.dynamic_module_utils import custom_object_save

from .image_reading_glee import PICTURE_LIMITS, PictureLimits, ReadPicture
from .perception_request_glee import (
    PROMPTS,
    ImageBatch,
    PerceptionRequest,
    PromptRow,
    class_names,
    distribute,
    images_of_labels,
    make_request,
    make_video_request,
    plain_result,
    run_in_parts,
    understood,
)
from .post_processing_glee import encoded_grounding, encoded_interactive, encoded_objects
from .prompt_processing_glee import VISUAL_LABEL, GleePromptProcessor, LabelCache
from .reading_workers_glee import PictureFile, ReadingWorkers, files_ahead, in_order, is_picture_file, usual_workers
from .tracking_glee import MODES, THRESHOLD
from .video_perception_glee import DOUBT, FOLLOWING, WINDOW, VideoPerception, VideoSettings
from .video_reading_glee import FRAME_LIMITS, is_video_source, open_video

TASK, MODEL = "object-perception", "AutoModelForZeroShotObjectDetection"  # as they are registered
ON_ERROR = ("raise", "return")  # what becomes of an input among several that cannot be used
FEW = 8  # files in a call for which no workers are started by default
FRAMES = ("video", "each", "first")  # followed, looked at one by one, or only the first
AUTO = "auto"


# ----------------------------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class PerceptionSettings:
    """
    Settings of the pipeline `object-perception` or of one call, see `ObjectPerceptionPipeline`.

    Attributes:
        labels: names of categories for images and videos that come without a prompt.
        expressions: sentences for images and videos that come without a prompt.
        threshold: the lowest score, from 0 to 1; None: the checkpoint's own, or 0.2, that of the published demo.
        expression_threshold: that of expressions, or "auto"; None: 0 in pictures, as `threshold` or auto in videos.
        top_k: maximum number of results of labels per image; 100 as COCO counts.
        prompts_at_once: expressions or visual prompts in one pass; each has queries and masks of its own.
        tracking: how objects of labels are tracked in a video, "memory" or "minvis".
        reprompt: whether an expression's object in a video is also looked for by its own mask.
        following: how objects that are shown are followed in a video, see `FOLLOWING`.
        doubt: share of the best answer's score, from 0 to 1, from which on another one puts such an object in doubt.
        frames: what the pictures of a folder, an animation or a video are, see `FRAMES`.
        one_label: whether an object has its best label only.
        with_masks: whether results have masks.
        on_error: whether an input among several that cannot be used is raised or returned, see `ON_ERROR`.
        max_pixels: of the picture of a file or of a frame of a video; None: 89,478,485 and 36,000,000.
        max_side: of both, in pixels; None: 65,535.

    Raises:
        ValueError: a value cannot be used.
    """

    labels: Sequence[str] | None = None
    expressions: Sequence[str] | None = None
    threshold: float | None = None
    expression_threshold: float | str | None = None
    top_k: int = 100
    prompts_at_once: int = 4
    tracking: str = "memory"
    reprompt: bool = False
    following: str = FOLLOWING[0]
    doubt: float = DOUBT
    frames: str = FRAMES[0]
    one_label: bool = False
    with_masks: bool = True
    on_error: str = ON_ERROR[0]
    max_pixels: int | None = None
    max_side: int | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "doubt"):
            if getattr(self, name) is not None and not _is_share(getattr(self, name)):
                raise ValueError(f"`{name}` must be a number from 0 to 1, not {getattr(self, name)!r}.")
        if self.expression_threshold not in (None, AUTO) and not _is_share(self.expression_threshold):
            value = self.expression_threshold
            raise ValueError(f"`expression_threshold` must be a number from 0 to 1, or {AUTO!r}, not {value!r}.")
        for name in ("top_k", "prompts_at_once"):
            _check_count(name, getattr(self, name))
        for name in ("max_pixels", "max_side"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        choices = {"tracking": MODES, "following": FOLLOWING, "frames": FRAMES, "on_error": ON_ERROR}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, not {value!r}.")
        for name in ("reprompt", "one_label", "with_masks"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` must be True or False, not {getattr(self, name)!r}.")

    def updated(self, given: dict[str, Any]) -> PerceptionSettings:
        """
        Returns these settings with those of a call.

        Args:
            given: names and values; `None` leaves a setting as it is.

        Raises:
            ValueError: there is no such setting, or a value cannot be used.
        """
        if unknown := sorted(given.keys() - {field.name for field in fields(self)}):
            raise ValueError(f"Unknown argument {', '.join(map(repr, unknown))} of the pipeline object-perception.")
        return replace(self, **{name: _plain_number(value) for name, value in given.items() if value is not None})

    def of_labels(self, config: Any) -> float:
        """Returns the lowest score of an object of labels, by these settings and the model's configuration."""
        return _first(self.threshold, getattr(config, "label_threshold", None), THRESHOLD)

    def of_expressions(self, config: Any, video: bool = False) -> float:
        """Returns the lowest score of what is found for an expression in a picture, or in a frame of a video."""
        own = getattr(config, "expression_threshold", None)
        if self.expression_threshold == AUTO:
            return _first(own, self.of_labels(config))
        if self.expression_threshold is not None:
            return float(self.expression_threshold)
        return _first(self.threshold, own, self.of_labels(config)) if video else 0.0

    def limits(self, usual: PictureLimits) -> PictureLimits:
        """Returns how large pictures may be: what the settings say, or what is usual."""
        return PictureLimits(self.max_pixels or usual.max_pixels, self.max_side or usual.max_side)

    def prompts(self, config: Any) -> dict[str, Sequence[str] | None]:
        """Returns the prompts of inputs that come without any; the classes of the model's configuration, if there are
        none and it names some."""
        if self.labels is None and self.expressions is None:
            return {"labels": class_names(config)}
        return {"labels": self.labels, "expressions": self.expressions}


def _first(*values: float | None) -> float:
    """Returns the first value that is not None."""
    return next(float(value) for value in values if value is not None)


def _check_count(name: str, value: Any) -> None:
    """Raises ValueError: the value isn't a positive integer."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, not {value!r}.")


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _checked_counts(batch_size: int | None, num_workers: int | None) -> tuple[int | None, int | None]:
    """Returns both; raises ValueError for what is no number of images or of processes."""
    if batch_size is not None:
        _check_count("batch_size", batch_size)
    if num_workers is not None and num_workers != 0:
        _check_count("num_workers", num_workers)
    return batch_size, num_workers


def _plain_number(value: Any) -> Any:
    """Converts a number of numpy or torch to Python's; leaves other values as they are."""
    return value.item() if getattr(value, "shape", None) == () else value


# -------------------------------------------------------------------------------------------------------- the pipeline


class ObjectPerceptionPipeline(Pipeline):
    """
    Finds and segments what labels name, expressions describe, or points, boxes, scribbles and masks mark, and tracks
    it in videos.

    ```python
    >>> import lookhear
    >>> from transformers import pipeline

    >>> see = pipeline("object-perception", model="<folder or Hub id>")
    >>> see("street.jpg", labels=["person", "traffic light"])[0]
    {'score': 0.91, 'label': 'person', 'box': {'xmin': 12.5, …}, 'mask': array([[False, …]])}
    >>> see("street.jpg", expressions=["the woman with the red umbrella"], points=[[(120, 80)]])
    >>> for results in see("street.mp4", labels=["person"]):
    ...     print([found["track_id"] for found in results])
    ```

    A call takes one image, several, or a video, and these arguments; texts and numbers may be passed to
    `pipeline(...)`, too:

    - inputs: a path, an http(s) URL, bytes, a binary file object, a PIL image, or an array; `{"image": image,
      "labels": …}` with prompts of its own; a list of those; a generator or data set of those, for which an iterator
      is returned. A video is a path or URL with a video's file extension, a file or bytes that begin as a video does,
      a folder of numbered pictures, an animated GIF, WebP or PNG, an array `(frames, height, width, 3)`, or any input
      that is marked as one: `{"video": video, "labels": …}`, where `video` may also be a list or generator of
      pictures, and `"fps"` is their number per second.
    - labels: names of categories, any number of objects each; without any prompt, the classes that the model was
      fine-tuned on are looked for; `["object"]` finds everything. `Red_triangle.` is looked
      for as `red triangle`; results have the name as it was written.
      `candidate_labels` is another name of it.
    - expressions: sentences about one object each.
    - points: for each object a list of `(x, y)`; boxes: `(x0, y0, x1, y1)`; scribbles: a line `[(x, y), …]` or
      `(height, width)` bool; masks: `(height, width)` bool. They may be lists, arrays or tensors; a box may also be
      `{"xmin", "ymin", "xmax", "ymax"}`, a box or mask also a result of this pipeline. Coordinates are pixels of the
      upright image; what is smaller than a pixel, as coordinates in shares of the image are, is refused.
    - For a list of images, each of these is a list with one list per image; a flat list of labels or of expressions is
      for all images.
    - threshold: the lowest score (the checkpoint's `label_threshold`, or 0.2), and top_k: maximum number of results
      per image (100), both for labels. In a video the threshold is also for expressions (by default the checkpoint's
      `expression_threshold`) and visual prompts (0.2), whose objects may be out of view: a frame in which no candidate
      reaches it has no result of them.
    - expression_threshold: the lowest score of what is found for an expression, "auto" for the checkpoint's own: an
      expression whose object is not in the image then has no result. By default it has one, however low its score.
    - one_label: whether each object has its best label only (False): else an object that several labels fit is a
      result of each of them. In a video an object always has one label at a time.
    - masks=False: results without masks, in a fraction of the time where pictures are large.
    - batch_size: images that go through the model together (1): of these, the ones whose padded sizes are equal, so
      that results do not depend on the other images. What does not fit in memory is tried again in halves, with a
      warning. For a video, the number of frames that go through the model together (4).
    - num_workers: processes that decode and resize the pictures of files, ahead of the model and in their order; they
      stay for the next call. By default one for each processor core but one, as soon as a call has more than eight
      files; 0: none. What is in memory already is resized where the model runs.
    - on_error: whether one of several images that cannot be read, or whose prompts cannot be used, is raised ("raise")
      or returned in its place, a `ValueError` instead of a list ("return").
    - prompts_at_once: expressions, or points, boxes, scribbles and masks, in one pass (4). Results do not depend on
      it; at 800 x 1333 pixels each takes about half a gigabyte. In a video it counts each frame of each prompt.
    - tracking: how objects of labels are tracked in a video: "memory" (tracks start, are lost, found again and
      removed) or "minvis" (the published one: each query of the first frame is a track of the whole video).
    - following: how objects that points, boxes, scribbles and masks mark are followed in a video: "exact" (the pixel
      decoder, most of the cost of a frame, runs for each object in every frame, as GLEE does it) or "shared" (it runs
      once for all of them, and once for each in the frame of its prompt and where it is in doubt).
    - doubt: with following="shared", an object is in doubt where something else answers with more than this share
      of its own score (0.05); less is slower and surer, 1 is never.
    - frames: what the pictures of a folder, an animation or a video are: "video" (one video, which is followed),
      "each" (pictures of their own, in the order of their names: an iterator with one list of results per picture is
      returned) or "first" (only the first one is looked at).
    - reprompt: in a video, whether the object of an expression is also looked for by its own mask (False): it may be
      found where the sentence alone loses it; it takes about as much time again.
    - max_pixels and max_side: how large the picture of a file (89,478,485 pixels) or a frame of a video (36,000,000)
      may be, and how long its longer side (65,535); larger ones are refused before they take up memory.

    For a video it returns a `VideoPerception`, an iterator with one list of results per frame, each with a
    `"track_id"`; prompts may be added to it or dropped at any frame.

    For each image it returns a list of `{"score", "label", "box": {"xmin", "ymin", "xmax", "ymax"}, "mask"}`: first
    the objects of the labels, best first; then one result for each expression, point, box, scribble and mask, in this
    order and in the order in which they were passed, however low its score is (see expression_threshold). The label of
    an expression is its text, that of visual prompts is "object". Scores are from 0 to 1, boxes in pixels, masks
    `(height, width)` bool. They are stored as run lengths, and `found["mask"]` is a new array each time.

    The text embeddings of the last 16 lists of labels are cached; after changing the model's weights call
    `pipe.label_cache.clear()`.

    It raises `ValueError`, with one line that names the argument, for input that cannot be used.
    """

    model: Any  # a `GleeForObjectDetection`, which this folder doesn't import
    processor: ProcessorMixin  # a `GleeProcessor`

    _load_processor = True  # type: ignore[assignment]  # transformers declares these five as None
    _load_image_processor = False  # type: ignore[assignment]  # see above
    _load_video_processor = False  # type: ignore[assignment]  # see above
    _load_feature_extractor = False  # type: ignore[assignment]  # see above
    _load_tokenizer = False  # type: ignore[assignment]  # see above

    def __init__(self, *args: Any, batch_size: int | None = None, num_workers: int | None = None, **kwargs: Any):
        self.batch_size, self.num_workers = _checked_counts(batch_size, num_workers)
        self._workers: ReadingWorkers | None = None
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError("`processor` is missing: pass the GleeProcessor of the model.")
        self.model.prepare_for_inference()
        self.label_cache = LabelCache()

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict, dict, dict]:
        """Stores the settings that the pipeline is made with; those of a call are added to them in `__call__`."""
        self.settings = PerceptionSettings().updated(understood(settings))
        return {}, {}, {}

    def __call__(  # type: ignore[override]  # further positional arguments are errors here
        self, inputs: Any, *, batch_size: int | None = None, num_workers: int | None = None, **kwargs: Any
    ) -> Any:
        batch_size, num_workers = _checked_counts(batch_size, num_workers)
        batch_size = batch_size or self.batch_size
        num_workers = self.num_workers if num_workers is None else num_workers
        kwargs = understood(kwargs)
        prompts = {name: kwargs.pop(name) for name in PROMPTS if name in kwargs}
        settings = self.settings.updated(kwargs)
        if is_video_source(inputs):
            if settings.frames == "video":
                return self._follow(inputs, prompts, batch_size or WINDOW, settings)
            inputs, prompts = self._pictures(inputs, prompts, settings)
        given = distribute(inputs, prompts)
        if isinstance(given, dict):
            return self._perceive([self.preprocess(given, settings)], settings)[0]
        results = self._stream(iter(given), batch_size or 1, num_workers, settings)
        return list(results) if isinstance(given, list) else results

    def _pictures(
        self, inputs: Any, prompts: dict[str, Any], settings: PerceptionSettings
    ) -> tuple[Any, dict[str, Any]]:
        """Opens a video whose frames are looked at as pictures: all of them, one after the other, or the first."""
        source, fps, prompts = make_video_request(inputs, prompts, settings.prompts(self.model.config))
        video = open_video(source, fps, numbered=False, limits=settings.limits(FRAME_LIMITS))
        pictures = (frame.image for frame in video.read(warnings.warn))
        if settings.frames == "each":
            return pictures, prompts
        first = next(pictures, None)
        if first is None:
            raise ValueError(f"`inputs`: {video.name} has no frames that can be decoded.")
        return first, prompts

    def _follow(
        self, inputs: Any, prompts: dict[str, Any], window: int, settings: PerceptionSettings
    ) -> VideoPerception:
        """Opens a video; frames are read and go through the model when their results are taken."""
        source, fps, prompts = make_video_request(inputs, prompts, settings.prompts(self.model.config))
        names = ("top_k", "prompts_at_once", "tracking", "reprompt", "following", "doubt", "with_masks")
        for_video = VideoSettings(
            settings.of_labels(self.model.config),
            window=window,
            expression_threshold=settings.of_expressions(self.model.config, video=True),
            visual_threshold=_first(settings.threshold, THRESHOLD),
            **{name: getattr(settings, name) for name in names},
        )
        video = open_video(source, fps, limits=settings.limits(FRAME_LIMITS))
        return VideoPerception(video, self.model, self.processor, self._label_inputs, for_video, prompts)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves the model, the processor, and the code of both and of the pipeline; see [`save_with_code`]."""
        save_with_code(self, TASK, MODEL, save_directory, **kwargs)

    def _stream(
        self, inputs: Iterator[dict], batch_size: int, num_workers: int | None, settings: PerceptionSettings
    ) -> Iterator[list[dict[str, Any]] | ValueError]:
        """Yields one list of results per image; at most `batch_size` images, and those read ahead, are in memory."""
        read = self._reader(num_workers, settings)

        def begin(given: dict) -> tuple[Callable[[], PerceptionRequest | ValueError], bool]:
            picture = read(given["image"])
            if picture is None:
                request = self._request(given, settings)
                return lambda: request, False
            return lambda: self._request({**given, "image": picture()}, settings), True

        batch: list[PerceptionRequest | ValueError] = []
        for request in in_order(inputs, begin, files_ahead(num_workers) + batch_size):
            if isinstance(request, ValueError) and settings.on_error == "raise":
                yield from self._perceive_some(batch, settings)
                raise request
            batch.append(request)
            if sum(isinstance(each, PerceptionRequest) for each in batch) == batch_size:
                yield from self._perceive_some(batch, settings)
                batch = []
        yield from self._perceive_some(batch, settings)

    def read_pictures(
        self, sources: Iterable[Any], num_workers: int | None = None, max_pixels: int | None = None
    ) -> Iterator[Any]:
        """
        Reads the pictures of files ahead of the calls that they are passed to, as a call with all of them does.

        Args:
            sources: paths, http(s) URLs or bytes of files; others are returned as they are.
            num_workers: see the class.
            max_pixels: see there.

        Yields:
            for each file an input of the pipeline, with its `size` (height, width) in pixels, or the `ValueError` that
            says why it cannot be read.
        """
        _, num_workers = _checked_counts(None, self.num_workers if num_workers is None else num_workers)
        settings = self.settings.updated({"max_pixels": max_pixels})
        read = self._reader(num_workers, settings)

        def begin(source: Any) -> tuple[Callable[[], Any], bool]:
            if (picture := read(source)) is not None:
                return picture, True
            found = self._picture_file(source, settings).read() if is_picture_file(source) else source
            return lambda: found, False

        return in_order(iter(sources), begin, files_ahead(num_workers))

    def _reader(
        self, num_workers: int | None, settings: PerceptionSettings
    ) -> Callable[[Any], Callable[[], ReadPicture | ValueError] | None]:
        """Returns a function that has workers read the pictures of one call; it returns None for those that are read
        here: what is no file, the first files, and all where no workers are wanted."""
        count, files = usual_workers() if num_workers is None else num_workers, itertools.count()

        def read(source: Any) -> Callable[[], ReadPicture | ValueError] | None:
            if not count or not is_picture_file(source) or next(files) < (FEW if num_workers is None else 1):
                return None
            if self._workers is None or self._workers.count != count:
                if self._workers is not None:
                    self._workers.close()
                self._workers = ReadingWorkers(count)
            return self._workers.submit(self._picture_file(source, settings))

        return read

    def _picture_file(self, source: Any, settings: PerceptionSettings) -> PictureFile:
        """Returns what a worker needs to know of a picture."""
        processor, limits = self.processor.image_processor, settings.limits(PICTURE_LIMITS)
        source = bytes(source) if isinstance(source, (bytes, bytearray)) else os.fsdecode(source)
        size = dict(processor.size) if processor.do_resize else None
        return PictureFile(source, settings.frames != "first", limits, size, processor.resample)

    def _request(self, given: dict, settings: PerceptionSettings) -> PerceptionRequest | ValueError:
        try:
            return self.preprocess(given, settings)
        except ValueError as error:
            return error

    def _perceive_some(
        self, requests: Sequence[PerceptionRequest | ValueError], settings: PerceptionSettings
    ) -> Iterator[list[dict[str, Any]] | ValueError]:
        """Yields the results of a batch, and errors in their places."""
        good = [request for request in requests if isinstance(request, PerceptionRequest)]
        try:
            results: list[list[dict[str, Any]] | ValueError] = [*self._perceive(good, settings)]
        except ValueError:
            if settings.on_error == "raise":
                raise
            results = [self._perceive_alone(request, settings) for request in good]
        found = iter(results)
        for request in requests:
            yield request if isinstance(request, ValueError) else next(found)

    def _perceive_alone(
        self, request: PerceptionRequest, settings: PerceptionSettings
    ) -> list[dict[str, Any]] | ValueError:
        """Returns the results of one image of a batch in which prompts of some image cannot be used."""
        try:
            return self._perceive([request], settings)[0]
        except ValueError as error:
            return error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_workers": None}  # processes stay where they are

    def preprocess(  # type: ignore[override]  # transformers' own pipelines take settings of their own, too
        self, inputs: dict, settings: PerceptionSettings
    ) -> PerceptionRequest:
        """Reads one image and checks its prompts; `inputs` has both."""
        limits = settings.limits(PICTURE_LIMITS)
        return make_request(inputs, settings.prompts(self.model.config), settings.frames != "first", limits)

    def _perceive(
        self, requests: Sequence[PerceptionRequest], settings: PerceptionSettings
    ) -> list[list[dict[str, Any]]]:
        """Returns the results of images, of which those that are padded to one size form a batch."""
        groups = []
        for places, batch in ImageBatch.groups(requests, self.processor):
            group = [requests[place] for place in places]
            # Prompts may be refused, so they are checked before the backbone runs.
            groups.append((places, group, batch, (self._expressions(group), self._visual_prompts(group, batch))))
        results: list[list[dict[str, Any]]] = [[] for _ in requests]
        for places, group, batch, kinds in groups:
            run = partial(self._perceive_part, group, batch, kinds, settings)
            parts = run_in_parts(run, len(group), "images", partial(_too_large, group, range(len(group))))
            for place, found in zip(places, itertools.chain(*parts)):
                results[place] = found
        return results

    def _perceive_part(
        self,
        requests: Sequence[PerceptionRequest],
        batch: ImageBatch,
        kinds: Sequence[Sequence[PromptRow]],
        settings: PerceptionSettings,
        part: slice,
    ) -> list[list[dict[str, Any]]]:
        """Returns the results of some images of a batch."""
        inside = range(part.start, part.stop)
        kinds = [[replace(p, image=p.image - part.start) for p in prompts if p.image in inside] for prompts in kinds]
        return self._perceive_batch(requests[part], batch.part(part), kinds, settings)

    def _perceive_batch(
        self,
        requests: Sequence[PerceptionRequest],
        batch: ImageBatch,
        kinds: Sequence[Sequence[PromptRow]],
        settings: PerceptionSettings,
    ) -> list[list[dict[str, Any]]]:
        """Returns the results of images that form a batch: of labels, then those of expressions and visual prompts,
        which are `kinds`."""
        results: list[list[dict[str, Any]]] = [[] for _ in requests]
        batch = batch.sent(self.device, self.model.dtype)
        features = self._image_features(batch)
        for labels, images in images_of_labels(requests).items():
            inputs = batch.images(images) | self._label_inputs(labels)
            found = self.forward(inputs, settings=settings, image_features=_of_images(features, images))
            for image, objects in zip(images, found["objects"]):
                results[image] += self.postprocess(objects, labels, requests[image].size, settings.with_masks)
        for prompts in kinds:
            for first in range(0, len(prompts), settings.prompts_at_once):
                several = prompts[first : first + settings.prompts_at_once]
                run = partial(self._find_prompts, several, batch, features, settings)
                alone = partial(_too_large, requests, [prompt.image for prompt in several])
                parts = run_in_parts(run, len(several), "prompts", alone)
                for prompt, objects in zip(several, itertools.chain(*parts)):
                    size = requests[prompt.image].size
                    results[prompt.image] += self.postprocess(objects, (prompt.label,), size, settings.with_masks)
        return results

    def _find_prompts(
        self, prompts: Sequence[PromptRow], batch: ImageBatch, features: Any, settings: PerceptionSettings, part: slice
    ) -> list[dict[str, Any]]:
        """Finds the objects of some of the prompts, in one pass."""
        images = sorted({prompt.image for prompt in prompts[part]})
        inputs = self._prompt_inputs(prompts[part], images, batch)
        return self.forward(inputs, settings=settings, image_features=_of_images(features, images))["objects"]

    def _image_features(self, batch: ImageBatch) -> Any:
        """Computes the backbone's features once for all prompts of the images."""
        with self.device_placement(), torch.no_grad():
            return self.model.get_image_features(batch.pixel_values, batch.pixel_mask)

    def _label_inputs(self, labels: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """Returns `class_embeddings` `(labels, size)` and `class_tokens` `(tokens, size)`, cached for a list of
        labels."""
        return dict(self.label_cache.get(labels, lambda: self._encode_labels(labels)))

    def _encode_labels(self, labels: tuple[str, ...]) -> dict[str, torch.Tensor]:
        tokens = GleePromptProcessor(self.processor.tokenizer).encode_labels(labels)
        with self.device_placement(), torch.no_grad():
            tensors = (torch.from_numpy(tokens[name]).to(self.device) for name in ("input_ids", "attention_mask"))
            return dict(self.model.get_label_embeddings(*tensors))

    def _expressions(self, requests: Sequence[PerceptionRequest]) -> list[PromptRow]:
        processor = GleePromptProcessor(self.processor.tokenizer)
        prompts: list[PromptRow] = []
        for image, request in enumerate(requests):
            if request.expressions:
                rows = _named(request, processor, expressions=[list(request.expressions)], image_sizes=[request.size])
                prompts += PromptRow.of_rows(image, request.expressions, rows)
        return prompts

    def _visual_prompts(self, requests: Sequence[PerceptionRequest], batch: ImageBatch) -> list[PromptRow]:
        processor = GleePromptProcessor(self.processor.tokenizer)
        prompts: list[PromptRow] = []
        for image, request in enumerate(requests):
            if request.visual:
                visual = {name: [objects] for name, objects in request.visual.items()}
                rows = _named(request, processor, **visual, **batch.sizes(image))
                prompts += PromptRow.of_rows(image, [VISUAL_LABEL] * len(rows["prompt_types"]), rows)
        return prompts

    def _prompt_inputs(self, prompts: Sequence[PromptRow], images: list[int], batch: ImageBatch) -> dict[str, Any]:
        """Makes the model's inputs of some prompts and of the images that they belong to."""
        rows = {name: torch.stack([prompt.row[name] for prompt in prompts]) for name in prompts[0].row}
        labels = self._label_inputs((VISUAL_LABEL,)) if "prompt_masks" in rows else {}
        indices = torch.tensor([images.index(prompt.image) for prompt in prompts])
        sizes = [batch.original[prompt.image] for prompt in prompts]
        of_rows = {"prompt_image_indices": indices, "target_sizes": sizes}
        return batch.images(images) | rows | labels | of_rows

    def _forward(  # type: ignore[override]  # see `preprocess`
        self,
        model_inputs: dict[str, Any],
        settings: PerceptionSettings,
        image_features: Any = None,
    ) -> dict[str, list[dict[str, Any]]]:
        """Runs the model and post-processes its outputs: `objects` is one dict per image or prompt, on the host."""
        sizes = model_inputs["target_sizes"]
        inputs = {name: self._in_dtype(value) for name, value in model_inputs.items() if name != "target_sizes"}
        outputs = self.model(**inputs, image_features=image_features)
        if "prompt_masks" in inputs:
            return {"objects": encoded_interactive(outputs, sizes)}
        if "expression_input_ids" in inputs:
            return {"objects": encoded_grounding(outputs, sizes, settings.of_expressions(self.model.config))}
        which = (sizes, settings.top_k, settings.one_label, settings.with_masks)
        return {"objects": encoded_objects(outputs, settings.of_labels(self.model.config), *which)}

    def _in_dtype(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self.model.dtype) if value.is_floating_point() else value

    def postprocess(  # type: ignore[override]  # see `preprocess`
        self, model_outputs: dict[str, Any], labels: Sequence[str], size: tuple[int, int], with_masks: bool = True
    ) -> list[dict[str, Any]]:
        """Converts tensors of one image or prompt to plain results."""
        results = []
        pairs = zip(model_outputs["scores"].tolist(), model_outputs["labels"].tolist())
        for place, (score, label) in enumerate(pairs):
            mask = model_outputs["masks"][place] if with_masks else None
            results.append(plain_result(score, labels[label], model_outputs["boxes"][place], mask, size))
        return results


def _too_large(requests: Sequence[PerceptionRequest], images: Sequence[int], place: int) -> ValueError:
    """Returns the error of an image, one of `images`, that does not fit in memory."""
    return requests[images[place]].too_large()


def _of_images(features: Any, images: list[int]) -> Any:
    """Selects the features of some images of the batch; without a copy if all are selected."""
    return features if images == list(range(len(features.lateral))) else features.of_images(images)


def _named(request: PerceptionRequest, processor: GleePromptProcessor, **arguments: Any) -> dict[str, Any]:
    """Runs the prompt processor on one image's prompts; errors say which image."""
    try:
        return processor(**arguments)
    except ValueError as error:
        raise request.named(error) from None


def save_with_code(
    pipe: Pipeline,
    task: str,
    model_class: str,
    save_directory: str | os.PathLike,
    push_to_hub: bool = False,
    **kwargs: Any,
) -> None:
    """
    Writes the model, the processor, and the code of both and of the pipeline; the pipeline may be in use meanwhile.

    Args:
        pipe: its `model` and `processor` are saved.
        task: the pipeline's name in `config.json`, where `pipeline(..., trust_remote_code=True)` looks for it.
        model_class: the Auto class that loads the model for it.
        save_directory: made if missing.
        push_to_hub: whether all of it is uploaded as well, to `repo_id`, by default the folder's name.
        kwargs: of the model's `save_pretrained`; with `push_to_hub` those of the pipeline's `push_to_hub`.

    Raises:
        ValueError: `save_directory` is a file.
    """
    folder = Path(save_directory)
    if folder.is_file():
        raise ValueError(f"`save_directory` must be a folder, and {str(folder)!r} is a file.")
    if push_to_hub:
        pipe.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)
        kwargs = {}
    model = copy.copy(pipe.model)  # the same weights; saving writes into the configuration, which may be in use
    model.config = copy.deepcopy(pipe.model.config)
    model.save_pretrained(folder, **kwargs)
    if pipe.processor is not None:
        pipe.processor.save_pretrained(folder)
    custom_object_save(pipe, folder)
    # Only in the file: with a pipeline's name in the model's configuration, `pipeline` would want trust_remote_code.
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["auto_map"]["AutoModel"] = _reference(pipe.model.base_model)  # saving names the model's own class only
    config["custom_pipelines"] = {task: {"impl": _reference(pipe), "pt": [model_class], "type": "multimodal"}}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _reference(instance: object) -> str:
    """`module.Class` of an object, as configurations name code beside them."""
    return f"{type(instance).__module__.split('.')[-1]}.{type(instance).__name__}"

"""Requests of the pipeline, one per image with its own prompts, the batches that they form, and their results in plain
values."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from .geometry_glee import RunLengthMask, plain_prompt
from .image_reading_glee import PICTURE_LIMITS, PictureLimits, ReadPicture, read_image

Result = TypeVar("Result")

TEXTS = ("labels", "expressions")
VISUAL = ("points", "boxes", "scribbles", "masks")
PROMPTS = (*TEXTS, *VISUAL)
CANDIDATES = "candidate_labels"  # what transformers' zero-shot pipelines call labels
UNNAMED = re.compile(r"LABEL_\d+")  # what transformers calls classes without names
FORMS = {"points": (2, "a list of (x, y)"), "boxes": (1, "(x0, y0, x1, y1)")}  # nesting of one object's prompt


@dataclass(frozen=True)
class PerceptionRequest:
    """One image and its prompts."""

    image: Image.Image  # RGB, upright; resized already where it was read elsewhere
    labels: tuple[str, ...] | None = None
    expressions: tuple[str, ...] = ()
    visual: dict[str, list] = field(default_factory=dict)  # kind -> one prompt an object; no empty lists
    index: int | None = None  # its place among several
    original: tuple[int, int] | None = None  # (height, width) of one that is resized already

    @property
    def size(self) -> tuple[int, int]:
        """Returns (height, width) in pixels, before it is resized."""
        return self.original or (self.image.height, self.image.width)

    def too_large(self) -> ValueError:
        """Returns the error of an image that does not fit in memory, even alone with one prompt."""
        height, width = self.size
        what = f"an image of {height} x {width} pixels does not fit in memory: lower `size` of the image processor"
        return self.named(ValueError(f"{what}, or pass a smaller image."))

    def named(self, error: Exception) -> ValueError:
        """Adds the image's place among several to an error."""
        place = "" if self.index is None else f"`inputs[{self.index}]`: "
        return ValueError(f"{place}{error}")


def class_names(config: Any) -> list[str] | None:
    """Returns the classes that a model was fine-tuned on, in its configuration's `id2label`; None if it names none."""
    names = [config.id2label[number] for number in sorted(config.id2label or {})]
    return None if all(UNNAMED.fullmatch(name) for name in names) else names


def understood(given: Mapping[Any, Any]) -> dict[Any, Any]:
    """
    Renames `candidate_labels`, names in a list or with commas in between, to `labels`; and `masks`, if it is no prompt
    but True or False, to `with_masks`.

    Args:
        given: arguments of a call, or the keys of an input.

    Raises:
        ValueError: both are given.
    """
    given = dict(given)
    names = given.pop(CANDIDATES, None)
    if names is not None:
        if given.get("labels") is not None:
            raise ValueError("'candidate_labels' and 'labels' are two names of one argument: pass one of them.")
        given["labels"] = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    if isinstance(given.get("masks"), bool):
        given["with_masks"] = given.pop("masks")
    return given


def distribute(inputs: Any, prompts: Mapping[str, Any]) -> dict | list[dict] | Iterator[dict]:
    """
    Gives each image its prompts.

    Args:
        inputs: an image, or `{"image": image, "labels": …, …}`; a list of those, or another iterable (a generator, a
            data set).
        prompts: arguments of the call: for one image as they are; for a list, one list per image, except that a flat
            list of labels or of expressions is for all; for a generator, flat lists of labels or expressions only.

    Returns:
        `{"image", "index", …}` of one image, a list of those, or a generator of those.

    Raises:
        ValueError: there is no image, or a prompt does not say which image it belongs to.
    """
    prompts = {name: value for name, value in prompts.items() if value is not None}
    if isinstance(inputs, (list, tuple)):
        if not inputs:
            raise ValueError("`inputs` is an empty list: pass at least one image.")
        parts = {name: _for_each(name, value, len(inputs)) for name, value in prompts.items()}
        return [
            _with_image(item, {name: values[index] for name, values in parts.items()}, index)
            for index, item in enumerate(inputs)
        ]
    if isinstance(inputs, Mapping) or not _is_series(inputs):
        return _with_image(inputs, prompts, None)
    for name, value in prompts.items():
        if not _is_flat(name, value):
            raise ValueError(
                f"`{name}` cannot be shared by the images of a generator or data set: let it yield "
                f'{{"image": …, "{name}": …}}.'
            )
    return (_with_image(item, prompts, index) for index, item in enumerate(inputs))


def make_request(
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    alone: bool = True,
    limits: PictureLimits = PICTURE_LIMITS,
) -> PerceptionRequest:
    """
    Reads an image and checks its prompts.

    Args:
        given: image and prompts, from `distribute`; the image may be a `ReadPicture`, or what is wrong with it.
        defaults: prompts of an image that comes without any.
        alone: see `read_image`.
        limits: how large the picture of a file may be.

    Raises:
        ValueError: the image cannot be read, or there is no prompt, or one cannot be used.
    """
    place = PerceptionRequest(Image.new("RGB", (1, 1)), index=given["index"])
    try:
        prompts = check_prompts(_or_defaults(given, defaults), may_be_empty=given["index"] is not None)
        image, original = given["image"], None
        if isinstance(image, ValueError):
            raise image
        if isinstance(image, ReadPicture):
            image, original = Image.fromarray(image.pixels), image.size
        else:
            image = read_image(image, alone, limits)
    except ValueError as error:
        raise place.named(error) from None
    return PerceptionRequest(
        image,
        labels=tuple(prompts["labels"]) if len(prompts.get("labels", ())) else None,
        expressions=tuple(prompts.get("expressions", ())),
        visual={name: list(prompts[name]) for name in VISUAL if len(prompts.get(name, ()))},
        index=given["index"],
        original=original,
    )


def make_video_request(
    inputs: Any, prompts: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[Any, float | None, dict[str, Any]]:
    """
    Splits the inputs of a call with a video, and checks its prompts.

    Args:
        inputs: the video; or `{"video": video, "fps": frames per second, "labels": …}`, the last two where needed.
        prompts: arguments of the call.
        defaults: prompts of a video that comes without any.

    Returns:
        the video, `fps`, and the prompts.

    Raises:
        ValueError: there is no prompt, or one cannot be used, or a key of `inputs` is unknown.
    """
    given: Mapping[str, Any] = understood(inputs) if isinstance(inputs, Mapping) else {"video": inputs}
    if unknown := set(given) - {"video", "fps", *PROMPTS}:
        raise ValueError(
            f"`inputs` has an unknown key {sorted(map(str, unknown))[0]!r}; known: video, fps, {', '.join(PROMPTS)}."
        )
    return given["video"], given.get("fps"), check_prompts(_or_defaults({**prompts, **given}, defaults))


def check_prompts(prompts: Mapping[str, Any], may_be_empty: bool = False) -> dict[str, Any]:
    """
    Checks the prompts of one image or video, as far as that is possible without it.

    Args:
        prompts: by their names.
        may_be_empty: whether lists may be empty, as for one of several images.

    Returns:
        the same prompts; visual ones as [`plain_prompt`] returns them.

    Raises:
        ValueError: there are none, or one has the wrong form.
    """
    if not prompts:
        raise ValueError(f"nothing to look for: pass {', '.join(f'`{name}`' for name in PROMPTS)}.")
    for name, value in prompts.items():
        if isinstance(value, str) or not isinstance(value, (Sequence, np.ndarray)) and not hasattr(value, "shape"):
            what = "strings" if name in TEXTS else "objects"
            raise ValueError(f"`{name}` must be a list of {what}, not {type(value).__name__}.")
        if len(value) == 0 and not may_be_empty:
            raise ValueError(f"`{name}` is empty: pass at least one.")
    plain = {
        name: [plain_prompt(name, prompt) for prompt in value] if name in VISUAL else value
        for name, value in prompts.items()
    }
    for name, value in plain.items():
        _check_objects(name, value)
    return plain


def _or_defaults(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Selects the prompts from a call's arguments; returns the defaults if there are none."""
    prompts = {name: given[name] for name in PROMPTS if given.get(name) is not None}
    return prompts or {name: value for name, value in defaults.items() if value is not None}


def _check_objects(name: str, value: Sequence[Any]) -> None:
    """Refuses a point or a box in place of a list of them, which would be ambiguous."""
    depth, form = FORMS.get(name, (None, ""))
    for index, prompt in enumerate(value):
        if depth is not None and _depth(prompt) != depth:
            raise ValueError(f"`{name}`: object {index} must be {form}, not {prompt!r}.")


def _depth(value: Any) -> int:
    """Counts how deep lists are nested; a number has 0."""
    return 1 + (_depth(value[0]) if len(value) else 0) if isinstance(value, (list, tuple)) else 0


def _with_image(item: Any, prompts: Mapping[str, Any], index: int | None) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        return {"image": item, **prompts, "index": index}
    item = understood(item)
    place = "`inputs`" if index is None else f"`inputs[{index}]`"
    if "image" not in item:
        raise ValueError(f'{place} must have the key "image"; it has {", ".join(map(repr, item)) or "none"}.')
    if unknown := set(item) - {"image", *PROMPTS}:
        raise ValueError(
            f"{place} has an unknown key {sorted(map(str, unknown))[0]!r}; known: image, {', '.join(PROMPTS)}."
        )
    return {**prompts, **item, "index": index}


def _for_each(name: str, value: Any, count: int) -> Sequence[Any]:
    """Checks that there is one value per image."""
    if _is_flat(name, value):
        return [value] * count
    listed = isinstance(value, (list, tuple)) or (hasattr(value, "shape") and len(value.shape) > 1)
    if not listed or len(value) != count:
        got = len(value) if listed else type(value).__name__
        shared = ", or one list of strings for all of them" if name in TEXTS else ""
        raise ValueError(f"`{name}` must be one list for each of the {count} images{shared}; got {got}.")
    return value


def _is_flat(name: str, value: Any) -> bool:
    """Returns whether a value is a flat list of texts, which are for every image."""
    return name in TEXTS and isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)


def _is_series(inputs: Any) -> bool:
    """Returns whether it yields images and is no image, path or file itself."""
    one = isinstance(inputs, (str, bytes, bytearray, memoryview, Image.Image)) or hasattr(inputs, "read")
    array = hasattr(inputs, "shape") and hasattr(inputs, "dtype")
    return not one and not array and (isinstance(inputs, Iterable) or hasattr(inputs, "__getitem__"))


def run_in_parts(
    run: Callable[[slice], Result], count: int, what: str, alone: Callable[[int], Exception]
) -> list[Result]:
    """
    Runs a batch; where it does not fit in memory, halves of it, as small as need be, with one warning.

    Args:
        run: computes a part of the batch.
        count: items of the batch.
        what: the items by name, for the warning.
        alone: makes the error of an item that doesn't fit by itself.

    Returns:
        the results of the parts, in order.

    Raises:
        Exception: that of `alone`.
    """
    done: list[Result] = []
    first, size = 0, count
    while first < count:
        tried = min(size, count - first)
        try:
            done.append(run(slice(first, first + tried)))
            first += tried
            continue
        except torch.OutOfMemoryError:
            pass  # what the attempt holds is released after this block
        if tried == 1:
            raise alone(first)
        size = (tried + 1) // 2
    if size < count:
        warnings.warn(f"a batch of {count} {what} does not fit in memory; {size} at a time do.", stacklevel=2)
    return done


@dataclass
class Fitting:
    """
    Runs the passes of a video; what does not fit in memory is halved, as small as need be, with a warning.

    Attributes:
        most: by what a pass is over, such as "frames", how many of them have turned out to fit together: later windows
            don't try more.
    """

    most: dict[str, int] = field(default_factory=dict)

    def run(
        self, run: Callable[[slice], Result], count: int, what: str, alone: Callable[[int], Exception]
    ) -> list[Result]:
        """Returns the results of the parts, see [`run_in_parts`]; what is known not to fit is not tried."""
        done: list[Result] = []
        first = 0
        while first < count:
            sizes: list[int] = []  # of the parts that fit

            def some(part: slice, first: int = first, sizes: list[int] = sizes) -> Result:
                result = run(slice(first + part.start, first + part.stop))
                sizes.append(part.stop - part.start)
                return result

            tried = min(self.most.get(what, count), count - first)
            done += run_in_parts(some, tried, what, alone)
            if sizes[0] < tried:
                self.most[what] = sizes[0]
            first += tried
        return done


@dataclass(frozen=True)
class PromptRow:
    """One expression or visual prompt of one image."""

    image: int  # its place in the batch
    label: str
    row: dict[str, torch.Tensor]  # the model's inputs, without the axis of prompts

    @classmethod
    def of_rows(cls, image: int, labels: Sequence[str], rows: dict[str, Any]) -> list[PromptRow]:
        """Splits the arrays of several prompts of one image."""
        shared = ("input_ids", "attention_mask", "prompt_image_indices")
        tensors = {name: torch.from_numpy(value) for name, value in rows.items() if name not in shared}
        return [
            cls(image, label, {name: value[index] for name, value in tensors.items()})
            for index, label in enumerate(labels)
        ]


@dataclass(frozen=True)
class ImageBatch:
    """The padded images of a batch, and their sizes as (height, width)."""

    pixel_values: torch.Tensor  # (images, 3, height, width) float32, or the model's dtype once they are sent
    pixel_mask: torch.Tensor  # (images, height, width) bool
    original: list[tuple[int, int]]

    @classmethod
    def groups(cls, requests: Sequence[PerceptionRequest], processor: Any) -> list[tuple[list[int], ImageBatch]]:
        """Resizes and pads the images of some requests, each as if it were alone, so that no result depends on the
        other images; returns the places and the batch of those of one padded size."""
        resize: list[dict[str, Any]] = [
            {} if request.original is None else {"do_resize": False} for request in requests
        ]
        prepared = [
            processor.image_processor([request.image], return_tensors="pt", **how)
            for request, how in zip(requests, resize)
        ]
        sizes: dict[torch.Size, list[int]] = {}
        for place, features in enumerate(prepared):
            sizes.setdefault(features["pixel_values"].shape, []).append(place)
        groups = []
        for places in sizes.values():
            values, masks = (
                torch.cat([prepared[place][name] for place in places]) for name in ("pixel_values", "pixel_mask")
            )
            groups.append((places, cls(values, masks.bool(), [requests[place].size for place in places])))
        return groups

    def sent(self, device: torch.device, dtype: torch.dtype) -> ImageBatch:
        """Returns the batch on the model's device, where all prompts read it."""
        return replace(
            self, pixel_values=self.pixel_values.to(dtype).to(device), pixel_mask=self.pixel_mask.to(device)
        )

    def images(self, places: Sequence[int]) -> dict[str, Any]:
        """Returns the model's inputs of some images."""
        chosen = list(places)
        every = chosen == list(range(len(self.original)))
        return {
            "pixel_values": self.pixel_values if every else self.pixel_values[chosen],
            "pixel_mask": self.pixel_mask if every else self.pixel_mask[chosen],
            "target_sizes": [self.original[place] for place in chosen],
        }

    def part(self, places: slice) -> ImageBatch:
        """Returns the batch of some of the images."""
        return ImageBatch(self.pixel_values[places], self.pixel_mask[places], self.original[places])

    def sizes(self, place: int) -> dict[str, Any]:
        """Returns one image's sizes, by the names that prompts need."""
        mask = self.pixel_mask[place]
        return {
            "image_sizes": [self.original[place]],
            "resized_sizes": [(int(mask[:, 0].sum()), int(mask[0].sum()))],
            "padded_size": tuple(mask.shape),
        }


def images_of_labels(requests: Sequence[PerceptionRequest]) -> dict[tuple[str, ...], list[int]]:
    """Groups the images of a batch by their labels: those with the same labels share a pass."""
    images: dict[tuple[str, ...], list[int]] = {}
    for image, request in enumerate(requests):
        if request.labels is not None:
            images.setdefault(request.labels, []).append(image)
    return images


class FoundObject(dict):
    """
    A result of the pipeline: a dictionary whose `"mask"` is stored as run lengths, and decoded to a new bool array
    each time that it is looked at.
    """

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        return value.decode() if isinstance(value, RunLengthMask) else value

    def __iter__(self) -> Iterator[Any]:  # of its own, so that `dict(found)` and `{**found}` look at each value, too
        return super().__iter__()

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self else default

    def items(self) -> Any:
        return ItemsView(self)

    def values(self) -> Any:
        return ValuesView(self)

    def pop(self, key: Any, *default: Any) -> Any:
        value = self.get(key)
        super().pop(key, *default)
        return value if value is not None else (default or (None,))[0]

    def copy(self) -> FoundObject:
        return FoundObject(super().items())

    def __or__(self, other: Any) -> dict[Any, Any]:  # a plain one
        return {**self, **other}

    def __ror__(self, other: Any) -> dict[Any, Any]:  # a plain one
        return {**other, **self}

    def __repr__(self) -> str:
        return repr({**self})

    def __reduce__(self) -> tuple[Any, ...]:
        return FoundObject, (list(super().items()),)


def plain_result(
    score: float, label: str, box: torch.Tensor, mask: RunLengthMask | None, size: tuple[int, int], **further: Any
) -> dict[str, Any]:
    """
    Makes one result of the pipeline, in plain values.

    Args:
        score: from 0 to 1.
        label: its name.
        box: `(4,)`, (x0, y0, x1, y1) in pixels.
        mask: of the whole picture; None leaves it out.
        size: (height, width) of the picture.
        further: entries that come first.

    Returns:
        `{**further, "score", "label", "box": {"xmin", "ymin", "xmax", "ymax"}, "mask"}`: the score with 4 decimals,
        the box with 2 and clipped to the picture, the mask as a `(height, width)` bool array of numpy.
    """
    height, width = size
    x0, y0, x1, y1 = box.float().tolist()
    sides = (min(max(x0, 0.0), width), min(max(y0, 0.0), height), min(max(x1, 0.0), width), min(max(y1, 0.0), height))
    found = FoundObject(further)
    found.update(
        score=round(score, 4),
        label=label,
        box={name: round(float(side), 2) for name, side in zip(("xmin", "ymin", "xmax", "ymax"), sides)},
    )
    if mask is not None:
        found["mask"] = mask
    return found

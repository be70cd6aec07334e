# Copyright 2026 The LookHear developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""`GleeImageProcessor`: from images of any kind to the padded batch that the network sees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from huggingface_hub.dataclasses import validate_typed_dict
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.processing_utils import ImagesKwargs

from .geometry_glee import fill_polygons, mask_of_rle, padded_size, resize_mask, resized_size, scale_points
from .image_reading_glee import read_images
from .post_processing_glee import (
    post_process_grounded_object_detection,
    post_process_grounding,
    post_process_instance_segmentation,
    post_process_interactive,
    post_process_object_detection,
    post_process_objects,
    post_process_open_world,
)

SETTINGS = (
    *("do_resize", "size", "resample"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    *("do_pad", "pad_size", "pad_size_divisor", "pad_value"),
)


class GleeImageKwargs(ImagesKwargs, total=False):
    """Keyword arguments of `preprocess` and `from_pretrained` beyond the keyword arguments of every image processor.

    Attributes:
        pad_size_divisor (`int`): each side of the padded images is a multiple of it.
        pad_value (`float`, *optional*): value of the padding in 8-bit units; `None` stands for 0 after normalisation.
    """

    pad_size_divisor: int | None
    pad_value: int | float | None


class GleeImageProcessor(BaseImageProcessor):
    """Resizes, normalises and pads images as GLEE's networks expect them (GLEE, section 3.2).

    Images are turned upright, converted to 8-bit RGB (see `read_images`) and resized by Pillow, so that the same file
    gives the same numbers on every machine. Padding is at the right and at the bottom.

    Settings are keyword arguments, of the constructor and of a call:

    - `size` (`dict[str, int]`): `shortest_edge` is the length of the short side, unless the long one would exceed
      `longest_edge`; one of the two may be left out.
    - `do_resize` (`bool`): `False` leaves images as large as they are.
    - `resample` (`int`): Pillow's filter.
    - `do_rescale` (`bool`), `rescale_factor` (`float`): the factor of 8-bit values.
    - `do_normalize` (`bool`), `image_mean`, `image_std` (`list[float]`): of the three channels after rescaling.
    - `do_pad` (`bool`): `False` takes images of one size only and pads nothing.
    - `pad_size_divisor` (`int`): each side of the padded images, which are as large as the largest of the batch, is
      rounded up to a multiple of it.
    - `pad_size` (`dict[str, int]`): fixed `height` and `width` of the padded images.
    - `pad_value` (`float`, *optional*): value of the padding in 8-bit units; by default it is 0 after normalisation.

    Args:
        settings: see above; those that are left out have the values of the class.

    Raises:
        ValueError: a setting is wrong.

    Example:

    ```python
    >>> processor = GleeImageProcessor()
    >>> processor(np.zeros((480, 640, 3), np.uint8), return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 3, 800, 1088])
    ```
    """

    model_input_names = ["pixel_values", "pixel_mask", "own_labels"]
    valid_kwargs = GleeImageKwargs

    do_resize = True
    size = {"shortest_edge": 800, "longest_edge": 1333}
    resample = PILImageResampling.BILINEAR
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    do_pad = True
    pad_size = None
    pad_size_divisor = 32
    pad_value = None

    # From the model's outputs to pixels of the picture; functions, so that they can be used without a processor.
    post_process_object_detection = staticmethod(post_process_object_detection)
    post_process_instance_segmentation = staticmethod(post_process_instance_segmentation)
    post_process_objects = staticmethod(post_process_objects)
    post_process_grounded_object_detection = staticmethod(post_process_grounded_object_detection)
    post_process_grounding = staticmethod(post_process_grounding)
    post_process_open_world = staticmethod(post_process_open_world)
    post_process_interactive = staticmethod(post_process_interactive)

    @classmethod
    def pro(cls, **overrides: Any) -> GleeImageProcessor:
        """Returns the settings of GLEE-Pro: the long side becomes 1536, grey padding makes it 1536 x 1536."""
        settings = {
            "size": {"shortest_edge": 1536, "longest_edge": 1536},
            "pad_size": {"height": 1536, "width": 1536},
            "pad_value": 128.0,
        }
        return cls(**{**settings, **overrides})

    def __init__(self, **settings: Any):
        own = {name: settings.pop(name, None) for name in SETTINGS}
        super().__init__(**settings)
        own = {name: deepcopy(getattr(type(self), name)) if value is None else value for name, value in own.items()}
        for name, value in _checked(own).items():
            setattr(self, name, value)

    def preprocess(
        self,
        images: Any,
        annotations: Any = None,
        do_resize: bool | None = None,
        do_rescale: bool | None = None,
        do_normalize: bool | None = None,
        do_pad: bool | None = None,
        return_segmentation_masks: bool = False,
        **settings: Any,
    ) -> BatchFeature:
        """
        Reads images and makes one batch of them, as a call of the processor does.

        Args:
            images: one image or a list, see [`read_images`].
            annotations: for each image `{"image_id", "annotations"}`, the latter in COCO's form, with `bbox` (x, y,
                width, height in pixels), `category_id`, and where known `iscrowd` and `segmentation`; crowds are left
                out. They become `labels`, as the model learns from them.
            do_resize: whether images are resized.
            do_rescale: whether 8-bit values are multiplied by `rescale_factor`.
            do_normalize: whether the mean is subtracted, and the result divided by the standard deviation.
            do_pad: whether images are padded to one size.
            return_segmentation_masks: whether `labels` have masks, which all annotations must have then.
            settings: other settings of the processor, for this call; also `return_tensors` and `input_data_format`.

        Returns:
            `pixel_values` `(B, 3, H, W)` float32 and `pixel_mask` `(B, H, W)` int64, 1 for image. For an image that is
            not in a list also `own_labels` `(1,)` int64: if such images are put together in a batch with a label each,
            as transformers' `zero-shot-object-detection` does, the model knows by it which label belongs to which
            image. With `annotations` also `labels`, for each image `class_labels` `(n,)`, the category ids, `boxes`
            `(n, 4)`, cxcywh as shares of the padded image, `masks` `(n, H, W)` bool, if asked for, `image_id`, and
            `orig_size` and `size`, (height, width) of the image before and after resizing.

        Raises:
            ValueError: an image cannot be used, a setting is wrong, or an annotation is.
        """
        steps = {"do_resize": do_resize, "do_rescale": do_rescale, "do_normalize": do_normalize, "do_pad": do_pad}
        settings |= {name: value for name, value in steps.items() if value is not None}
        validate_typed_dict(self.valid_kwargs, settings)  # type: ignore[type-var]  # bound to dict
        own = _checked({name: settings.get(name, getattr(self, name)) for name in SETTINGS})
        pictures = read_images(images, settings.get("input_data_format"), copy=False)  # they are only read
        alone = {} if isinstance(images, (list, tuple)) else {"own_labels": np.ones(len(pictures), dtype=np.int64)}
        batch = self._batch(pictures, **own) | alone
        features = BatchFeature(batch, tensor_type=settings.get("return_tensors"))
        if annotations is not None:
            targets = _targets(pictures, annotations, batch["pixel_mask"], return_segmentation_masks)
            features["labels"] = [BatchFeature(entry, tensor_type=settings.get("return_tensors")) for entry in targets]
        return features

    def _batch(
        self,
        pictures: list[Image.Image],
        do_resize: bool,
        size: dict[str, int],
        resample: int,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Any,
        image_std: Any,
        do_pad: bool,
        pad_size: dict[str, int] | None,
        pad_size_divisor: int,
        pad_value: float | None,
    ) -> dict[str, np.ndarray]:
        """Makes `pixel_values` `(B, 3, H, W)` float32 and `pixel_mask` `(B, H, W)` int64, 1 for image, of RGB
        pictures."""
        if do_resize:
            pictures = [resize_picture(picture, size, resample) for picture in pictures]
        sizes = [(picture.height, picture.width) for picture in pictures]
        height, width = _padded_size(sizes, do_pad, pad_size, pad_size_divisor)
        scale = rescale_factor if do_rescale else 1.0
        mean, std = (image_mean, image_std) if do_normalize else (0.0, 1.0)
        mean, std = (np.float32(np.reshape(value, (-1, 1, 1)) / scale) for value in (mean, std))  # in 8-bit values

        values = np.zeros((len(pictures), 3, height, width), dtype=np.float32)
        mask = np.zeros((len(pictures), height, width), dtype=np.int64)
        if pad_value is not None:
            values += (np.float32(pad_value) - mean) / std
        for row, picture in enumerate(pictures):
            part = values[row, :, : picture.height, : picture.width]
            np.subtract(np.asarray(picture).transpose(2, 0, 1), mean, out=part)  # (3, h, w)
            part /= std
            mask[row, : picture.height, : picture.width] = 1
        return {"pixel_values": values, "pixel_mask": mask}


def _targets(
    pictures: list[Image.Image], annotations: Any, pixel_mask: np.ndarray, masks: bool
) -> list[dict[str, np.ndarray]]:
    """Converts annotations in COCO's form to labels on the padded images, whose mask is `(B, H, W)`."""
    entries = [annotations] if isinstance(annotations, Mapping) else list(annotations)
    if len(entries) != len(pictures) or not all("annotations" in entry for entry in entries):
        raise ValueError(
            f"annotations must be {{'image_id', 'annotations'}} for each of the {len(pictures)} images, the latter a "
            "list in COCO's form"
        )
    targets = []
    for index, (picture, entry, seen) in enumerate(zip(pictures, entries, pixel_mask)):
        original, resized = (picture.height, picture.width), (int(seen[:, 0].sum()), int(seen[0].sum()))
        objects = [found for found in entry["annotations"] if found.get("iscrowd", 0) != 1]
        named = f"annotations: image {index}"
        boxes = scale_points(_corners(objects, original, named), original, resized)
        size = np.array([seen.shape[1], seen.shape[0]] * 2)
        centres = np.concatenate([boxes[:, :2] + boxes[:, 2:], 2 * (boxes[:, 2:] - boxes[:, :2])], axis=1) / 2 / size
        target = {
            "class_labels": np.array([found["category_id"] for found in objects], dtype=np.int64),
            "boxes": centres.astype(np.float32),
            "image_id": np.array([entry.get("image_id", index)]),
            "orig_size": np.array(original),
            "size": np.array(resized),
        }
        if masks:
            target["masks"] = np.zeros((len(objects), *seen.shape), dtype=bool)
            for place, found in enumerate(objects):
                pixels = _pixels_of(found.get("segmentation"), original, f"{named}, object {place}")
                target["masks"][place, : resized[0], : resized[1]] = resize_mask(pixels, resized)
        targets.append(target)
    return targets


def _corners(objects: list[Mapping[str, Any]], size: tuple[int, int], named: str) -> np.ndarray:
    """Returns COCO's boxes as `(n, 4)` x0, y0, x1, y1, cut to the picture of (height, width) pixels."""
    boxes = np.zeros((len(objects), 4))
    for index, found in enumerate(objects):
        box = found.get("bbox")
        try:
            x, y, width, height = (float(value) for value in box)  # type: ignore[union-attr]  # None is refused below
        except (TypeError, ValueError):
            raise ValueError(f"{named}, object {index}: its bbox must be x, y, width, height, got {box!r}") from None
        boxes[index] = np.clip([x, y, x + width, y + height], 0, [size[1], size[0]] * 2)
        sides = boxes[index, 2:] - boxes[index, :2]
        if not (sides > 0).all() or max(boxes[index, 2:]) <= 1 < min(size):
            raise ValueError(
                f"{named}, object {index}: its bbox {[x, y, width, height]} must be x, y, width, height in pixels of "
                f"the image, whose width is {size[1]} and height {size[0]}"
            )
    return boxes


def _pixels_of(segmentation: Any, size: tuple[int, int], named: str) -> np.ndarray:
    """Decodes COCO's segmentation, run lengths or polygons, `(height, width)` bool."""
    if not segmentation:
        raise ValueError(f"{named}: it has no segmentation; leave return_segmentation_masks out")
    try:
        if not isinstance(segmentation, Mapping):
            return fill_polygons(segmentation, size)
        pixels = mask_of_rle(segmentation)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{named}: its segmentation cannot be used: {error}") from None
    if pixels.shape != size:
        raise ValueError(f"{named}: its segmentation is {pixels.shape}, its image {size}")
    return pixels


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    """Converts settings to the form in which they are saved; raises ValueError for wrong ones."""
    size, pad_size = _sides(settings["size"], ("shortest_edge",)), _sides(settings["pad_size"], ("height", "width"))
    if not (size and (size.get("shortest_edge") or size.get("longest_edge"))):
        raise ValueError(f"size must have shortest_edge or longest_edge or both, got {size}")
    if pad_size and not (pad_size.get("height") and pad_size.get("width")):
        raise ValueError(f"pad_size must have height and width, got {pad_size}")
    if not settings["pad_size_divisor"] or settings["pad_size_divisor"] < 1:
        raise ValueError(f"pad_size_divisor must be at least 1, got {settings['pad_size_divisor']}")
    if not np.all(np.greater(settings["image_std"], 0)):
        raise ValueError(f"image_std must be positive, got {settings['image_std']}")
    return {**settings, "size": size, "pad_size": pad_size}


def _sides(size: Any, names: tuple[str, ...]) -> dict[str, int] | None:
    """Returns the sides of a size by name; a number is the length of all of `names`."""
    if isinstance(size, int):
        return dict.fromkeys(names, size)
    return None if size is None else {name: side for name, side in dict(size).items() if side is not None}


def resize_picture(image: Image.Image, size: dict[str, int], resample: int) -> Image.Image:
    """Resizes a picture to the `size` of an image processor with Pillow's filter `resample`."""
    longest = size.get("longest_edge") or math.inf
    height, width = resized_size((image.height, image.width), size.get("shortest_edge") or longest, longest)
    return image.resize((width, height), resample)


def _padded_size(
    sizes: list[tuple[int, int]], do_pad: bool, pad_size: dict[str, int] | None, divisor: int
) -> tuple[int, int]:
    """Computes the (height, width) that every image of the batch is padded to."""
    if not do_pad:
        if len(set(sizes)) > 1:
            raise ValueError(
                f"images have different sizes {sizes}: pad them with do_pad=True, or pass them one by one"
            )
        return sizes[0]
    if pad_size is None:
        return padded_size(sizes, divisor)
    (height, width), room = padded_size(sizes), (pad_size["height"], pad_size["width"])
    if height > room[0] or width > room[1]:
        raise ValueError(
            f"images of {height} x {width} pixels do not fit pad_size {room[0]} x {room[1]}: use do_resize=True, or a "
            "larger pad_size"
        )
    return room

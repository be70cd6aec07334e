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
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs

from .geometry_glee import canvas_size, resized_size
from .image_reading_glee import read_images
from .post_processing_glee import (
    post_process_grounding,
    post_process_instance_segmentation,
    post_process_interactive,
    post_process_object_detection,
    post_process_open_world,
)


class GleeImageKwargs(ImagesKwargs, total=False):
    """What `preprocess` and `from_pretrained` take beyond the keyword arguments of every image processor.

    Attributes:
        pad_size_divisor (`int`): each side of the canvas is a multiple of it.
        pad_value (`float`, *optional*): what the padding would be in an 8-bit picture; `None` stands for 0 after normalisation.
    """

    pad_size_divisor: int | None
    pad_value: int | float | None


class GleeImageProcessor(PilBackend):
    """Resizes, normalises and pads images as GLEE's networks expect them (GLEE, section 3.2).

    Images are turned upright, brought to 8-bit RGB (see `read_images`) and resized by Pillow, so that the same file gives
    the same numbers on every machine. Padding is at the right and at the bottom.

    Args:
        size (`dict[str, int]`): `shortest_edge` is what the short side becomes, unless the long one would pass
            `longest_edge`; one of the two may be left out.
        do_resize (`bool`): `False` leaves images as large as they are.
        resample (`int`): Pillow's filter.
        rescale_factor (`float`): what 8-bit values are multiplied with.
        image_mean, image_std (`list[float]`): of the three channels after rescaling.
        do_pad (`bool`): `False` takes images of one size only and pads nothing.
        pad_size_divisor (`int`): each side of the canvas, which holds every image of the batch, is rounded up to a multiple of it.
        pad_size (`dict[str, int]`): `height` and `width` of a fixed canvas.
        pad_value (`float`, *optional*): what the padding would be in an 8-bit picture; by default it is 0 after normalisation.

    Example:

    ```python
    >>> processor = GleeImageProcessor()
    >>> processor(np.zeros((480, 640, 3), np.uint8), return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 3, 800, 1088])
    ```
    """

    model_input_names = ["pixel_values", "pixel_mask"]
    valid_kwargs = GleeImageKwargs

    do_resize = True
    size = {"shortest_edge": 800, "longest_edge": 1333}
    default_to_square = False
    resample = PILImageResampling.BILINEAR
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    do_pad = True
    pad_size_divisor = 32
    pad_value = None

    # What the network answers, in pixels of the picture. Of functions, so that they can be used without a processor.
    post_process_object_detection = staticmethod(post_process_object_detection)
    post_process_instance_segmentation = staticmethod(post_process_instance_segmentation)
    post_process_grounding = staticmethod(post_process_grounding)
    post_process_open_world = staticmethod(post_process_open_world)
    post_process_interactive = staticmethod(post_process_interactive)

    @classmethod
    def pro(cls, **overrides: Any) -> GleeImageProcessor:
        """The settings of GLEE-Pro: the long side becomes 1536, and a grey margin fills the canvas of 1536 x 1536."""
        settings = {
            "size": {"shortest_edge": 1536, "longest_edge": 1536},
            "pad_size": {"height": 1536, "width": 1536},
            "pad_value": 128.0,
        }
        return cls(**{**settings, **overrides})

    def _standardize_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        """Settings as they are used; wrong ones are refused here, when the processor is made and when it is called."""
        settings = super()._standardize_kwargs(**kwargs)
        size, pad_size = settings["size"], settings["pad_size"]
        if not (size and (size.shortest_edge or size.longest_edge)):
            raise ValueError(f"size must have shortest_edge or longest_edge or both, got {size and dict(size)}")
        if pad_size and not (pad_size.height and pad_size.width):
            raise ValueError(f"pad_size must have height and width, got {dict(pad_size)}")
        if not settings["pad_size_divisor"] or settings["pad_size_divisor"] < 1:
            raise ValueError(f"pad_size_divisor must be at least 1, got {settings['pad_size_divisor']}")
        if not np.all(np.greater(settings["image_std"], 0)):
            raise ValueError(f"image_std must be positive, got {settings['image_std']}")
        return settings

    def _preprocess_image_like_inputs(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Reads the images, then makes the batch of them."""
        return self._preprocess(read_images(images, kwargs.pop("input_data_format")), *args, **kwargs)

    def _preprocess(
        self,
        images: list[Image.Image],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: tuple[float, float, float],
        image_std: tuple[float, float, float],
        do_pad: bool,
        pad_size: SizeDict | None,
        pad_size_divisor: int,
        pad_value: float | None,
        return_tensors: str | None,
        **kwargs: Any,
    ) -> BatchFeature:
        """RGB pictures to `pixel_values` `(B, 3, H, W)` float32 and `pixel_mask` `(B, H, W)` int64, 1 for image."""
        if do_resize:
            images = [_resize(image, size, resample) for image in images]
        sizes = [(image.height, image.width) for image in images]
        height, width = _canvas_size(sizes, do_pad, pad_size, pad_size_divisor)
        scale = rescale_factor if do_rescale else 1.0
        mean, std = (image_mean, image_std) if do_normalize else (0.0, 1.0)
        mean, std = (np.float32(np.reshape(value, (-1, 1, 1)) / scale) for value in (mean, std))  # in 8-bit values

        values = np.zeros((len(images), 3, height, width), dtype=np.float32)
        mask = np.zeros((len(images), height, width), dtype=np.int64)
        if pad_value is not None:
            values += (np.float32(pad_value) - mean) / std
        for row, image in enumerate(images):
            part = values[row, :, : image.height, : image.width]
            np.subtract(np.asarray(image).transpose(2, 0, 1), mean, out=part)  # (3, h, w)
            part /= std
            mask[row, : image.height, : image.width] = 1
        return BatchFeature(data={"pixel_values": values, "pixel_mask": mask}, tensor_type=return_tensors)


def _resize(image: Image.Image, size: SizeDict, resample: PILImageResampling) -> Image.Image:
    longest = size.longest_edge or math.inf
    height, width = resized_size((image.height, image.width), size.shortest_edge or longest, longest)
    return image.resize((width, height), resample)


def _canvas_size(
    sizes: list[tuple[int, int]], do_pad: bool, pad_size: SizeDict | None, divisor: int
) -> tuple[int, int]:
    """(height, width) that every image of the batch is padded to."""
    if not do_pad:
        if len(set(sizes)) > 1:
            raise ValueError(
                f"images have different sizes {sizes}: pad them with do_pad=True, or pass them one by one"
            )
        return sizes[0]
    if pad_size is None:
        return canvas_size(sizes, divisor)
    height, width = canvas_size(sizes)
    if height > pad_size.height or width > pad_size.width:
        raise ValueError(
            f"images of {height} x {width} pixels do not fit pad_size {pad_size.height} x {pad_size.width}: use "
            "do_resize=True, or a larger pad_size"
        )
    return pad_size.height, pad_size.width

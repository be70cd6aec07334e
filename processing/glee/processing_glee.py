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
"""From images and prompts to the model's inputs, and from the model's outputs back to pixels."""

from __future__ import annotations

from typing import Any

from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin
from transformers.utils import auto_docstring

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
from .prompt_processing_glee import GleePromptProcessor


@auto_docstring(
    custom_intro="""
    One call for the inputs of a GLEE model: [`GleeImageProcessor`] for images, CLIP's tokenizer for words, and
    `GleePromptProcessor` for points, boxes, scribbles and masks.
    """
)
class GleeProcessor(ProcessorMixin):
    post_process_object_detection = staticmethod(post_process_object_detection)
    post_process_instance_segmentation = staticmethod(post_process_instance_segmentation)
    post_process_objects = staticmethod(post_process_objects)
    post_process_grounded_object_detection = staticmethod(post_process_grounded_object_detection)
    post_process_grounding = staticmethod(post_process_grounding)
    post_process_open_world = staticmethod(post_process_open_world)
    post_process_interactive = staticmethod(post_process_interactive)

    def __init__(self, image_processor, tokenizer, **kwargs):
        super().__init__(image_processor, tokenizer, **kwargs)

    @auto_docstring
    def __call__(
        self,
        images: Any = None,
        text: list[str] | str | None = None,
        labels: list[str] | None = None,
        expressions: Any = None,
        points: Any = None,
        boxes: Any = None,
        scribbles: Any = None,
        masks: Any = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Labels, expressions and visual prompts (points, boxes, scribbles, masks: any combination of these) exclude each
        other in one call. Apart from labels, which all images share, they are lists with one list per image; for one
        image the outer list may be left out. Coordinates are (x, y) in pixels of the upright image.

        Args:
            images: one image or a list: PIL images of any mode, arrays, tensors, paths, URLs.
            text (`list[str]`): another name of `labels`; also one text with full stops in between, "a cat. a dog.".
            labels (`list[str]`): names of categories, such as `["person", "traffic light"]`.
            expressions (`list[list[str]]`): sentences, each about one object of its image.
            points (`list[list[list[tuple]]]`): per image and object a list of `(x, y)`.
            boxes (`list[list[tuple]]`): per image and object `(x0, y0, x1, y1)`.
            scribbles (`list[list]`): per image and object a line `[(x, y), ...]`, or a bool array `(height, width)`.
            masks (`list[list]`): per image and object a bool array `(height, width)`.
            kwargs: of the image processor, such as `annotations`.

        Returns:
            `BatchFeature` with `pixel_values` `(B, 3, H, W)` float32 and `pixel_mask` `(B, H, W)` int64, 1 for image;
            and for K labels `input_ids` and `attention_mask` `(K, L)`; for P expressions `expression_input_ids` and
            `expression_attention_mask` `(P, 77)`, and `prompt_image_indices` `(P,)`; for P visual prompts
            `prompt_masks` `(P, H, W)` bool, `prompt_types` `(P,)` (0 mask, 1 box, 2 point, 3 scribble),
            `prompt_image_indices` `(P,)`, and the tokens of the one label "object". Prompts are in the order of the
            images, those of one image in the order points, boxes, scribbles, masks. Without `images` only the tokens
            of labels; without prompts only the images.

        Raises:
            ValueError: nothing was passed, prompts of several of the three tasks were, or an image or prompt cannot be
                used.
        """
        if text is not None and labels is not None:
            raise ValueError("text and labels are two names of the same argument: pass one of them")
        prompts = {
            "labels": _listed(text) if labels is None else labels,
            "expressions": expressions,
            "points": points,
            "boxes": boxes,
            "scribbles": scribbles,
            "masks": masks,
        }
        any_prompt = any(value is not None for value in prompts.values())
        if images is None and not any_prompt:
            raise ValueError("nothing to process: pass images, labels, or both")
        for name in ("padding", "truncation", "max_length"):  # other processors' choices; here texts are always padded
            kwargs.pop(name, None)
        features, sizes = ({}, {}) if images is None else self._pictures(images, **kwargs)
        if any_prompt:
            features.update(GleePromptProcessor(self.tokenizer)(**prompts, **sizes))
        targets = features.pop("labels", None)
        inputs = BatchFeature(features, tensor_type=return_tensors)
        if targets is not None:  # of annotations; a list, as each image has its own number of objects
            inputs["labels"] = [BatchFeature(dict(entry), tensor_type=return_tensors) for entry in targets]
        return inputs

    def _pictures(self, images: Any, **kwargs: Any) -> tuple[dict, dict]:
        """Returns the images as arrays, and their sizes before and after, by the names that prompts need."""
        pictures = read_images(images, kwargs.pop("input_data_format", None))
        features = self.image_processor(pictures, return_tensors="np", **kwargs)
        sizes = {
            "image_sizes": [(picture.height, picture.width) for picture in pictures],
            "resized_sizes": [(int(mask[:, 0].sum()), int(mask[0].sum())) for mask in features["pixel_mask"]],
            "padded_size": features["pixel_values"].shape[-2:],
        }
        return dict(features), sizes

    @property
    def model_input_names(self) -> list[str]:
        return [
            *("pixel_values", "pixel_mask"),
            *("input_ids", "attention_mask"),
            *("expression_input_ids", "expression_attention_mask"),
            *("prompt_masks", "prompt_types", "prompt_image_indices"),
        ]


def _listed(text: Any) -> Any:
    """Splits labels that are one text, as other grounding models take them; leaves lists as they are."""
    if not isinstance(text, str):
        return text
    return [label.strip() for label in text.split(".") if label.strip()]

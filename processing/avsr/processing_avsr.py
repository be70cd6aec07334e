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
"""From sound, mouths and text to the model's inputs, and from ids back to text."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import auto_docstring

from .face_networks_avsr import copy_weights

logger = logging.getLogger(__name__)

LABEL_PADDING = -100  # labels with this value do not count in the loss


@auto_docstring(
    custom_intro="""
    One call for the inputs of an AVSR model: [`AvsrFeatureExtractor`] for sound, [`MouthRoiImageProcessor`] for video,
    [`AvsrTokenizer`] for text.
    """
)
class AvsrProcessor(ProcessorMixin):
    def __init__(self, feature_extractor, image_processor, tokenizer, **kwargs):
        super().__init__(feature_extractor, image_processor, tokenizer, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """
        Saves the parts, and the face networks if the image processor finds mouths with them.

        Args:
            save_directory (`str` or `os.PathLike`):
                Folder, which is created if missing.
            push_to_hub (`bool`, *optional*, defaults to `False`):
                Whether all of it is uploaded as well, to `repo_id`, by default the folder's name.
            kwargs:
                Of `push_to_hub`.
        """
        super().save_pretrained(save_directory)
        if self.image_processor.landmarks == "mesh":
            try:
                copy_weights(save_directory)
            except ImportError as error:
                logger.warning(f"saved without the networks that find faces. {error}")
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)

    @auto_docstring
    def __call__(
        self,
        audio=None,
        sampling_rate: int | None = None,
        videos=None,
        text: str | list[str] | None = None,
        padding: bool | str = True,
        return_tensors: str | None = "pt",
        **kwargs,
    ) -> BatchFeature:
        """
        Args:
            audio (`np.ndarray`, `torch.Tensor`, or a list of them):
                `(samples,)`, one channel. In a list, `None` stands for a clip without sound.
            sampling_rate (`int`): of `audio`; must be the feature extractor's.
            videos (`np.ndarray`, `torch.Tensor`, or a list of them):
                Mouth crops `(frames, roi, roi)` uint8, or frames `(frames, height, width, 3)` uint8 at the image
                processor's rate. In a list, `None` stands for a clip without pictures.
            text (`str` or list of `str`): the labels.

        Returns:
            `BatchFeature` with the requested inputs: `input_values` and `attention_mask` `(batch, samples)`,
            `pixel_values_videos` `(batch, frames, 1, height, width)` and `video_attention_mask` `(batch, frames)`,
            `labels` `(batch, length)`, padded with -100. An absent modality has a mask row of zeros.

        Raises:
            ValueError: nothing was passed, the numbers of items differ, or an item is unusable.
        """
        if kwargs:
            raise ValueError(f"Unknown argument {', '.join(map(repr, kwargs))} of {type(self).__name__}.")
        features: dict = {}
        if audio is not None:
            features.update(self._sound(audio, sampling_rate, padding, return_tensors))
        if videos is not None:
            features.update(self._pictures(videos, return_tensors))
        if text is not None:
            features["labels"] = self._labels(text, padding, return_tensors)
        if not features:
            raise ValueError("Nothing to process: pass at least one of `audio`, `videos` and `text`.")
        sizes = {name: len(value) for name, value in features.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"`audio`, `videos` and `text` must have equally many items, but the sizes are {sizes}.")
        return BatchFeature(features)

    def _sound(self, audio, sampling_rate: int | None, padding: bool | str, return_tensors: str | None) -> dict:
        """Returns `input_values` and `attention_mask`; nothing where the list holds only `None`."""
        waves, present = _fill_absent(audio, np.zeros(1, np.float32))
        if not present.any():
            return {}
        features = self.feature_extractor(
            waves, sampling_rate=sampling_rate, padding=padding, return_tensors=return_tensors
        )
        return _clear_absent(features, present, "input_values", "attention_mask")

    def _pictures(self, videos, return_tensors: str | None) -> dict:
        """Returns `pixel_values_videos` and `video_attention_mask`; nothing where the list holds only `None`."""
        size = self.image_processor.roi_size
        clips, present = _fill_absent(videos, np.zeros((1, size, size), np.uint8))
        if not present.any():
            return {}
        features = self.image_processor(clips, return_tensors=return_tensors)
        return _clear_absent(features, present, "pixel_values_videos", "video_attention_mask")

    def _labels(self, text: str | list[str], padding: bool | str, return_tensors: str | None):
        """Returns `(batch, length)` ids that end with EOS, padded with -100."""
        texts = [text] if isinstance(text, str) else list(text)
        encoded = self.tokenizer(texts, padding=padding, return_attention_mask=True, return_tensors=return_tensors)
        ids, masks = encoded["input_ids"], encoded["attention_mask"]
        if isinstance(ids, list):
            return [[i if valid else LABEL_PADDING for i, valid in zip(*row)] for row in zip(ids, masks)]
        ids[masks == 0] = LABEL_PADDING
        return ids

    @property
    def model_input_names(self) -> list[str]:
        return ["input_values", "attention_mask", "pixel_values_videos", "video_attention_mask"]


def _fill_absent(items, placeholder: np.ndarray) -> tuple[list | object, np.ndarray]:
    """Returns the items with each `None` replaced by the placeholder, and which were there: `(batch,)` bool."""
    if not isinstance(items, (list, tuple)):
        return items, np.ones(1, bool)
    present = np.array([item is not None for item in items], bool)
    if len(items) == 0:
        raise ValueError("The list of clips is empty: pass at least one.")
    return [placeholder if item is None else item for item in items], present


def _clear_absent(features: BatchFeature, present: np.ndarray, values: str, mask: str) -> dict:
    """Returns the rows of absent items set to zero, both values and mask."""
    if not present.all():
        for index in np.flatnonzero(~present):
            features[values][index] *= 0
            features[mask][index] *= 0
    return {values: features[values], mask: features[mask]}

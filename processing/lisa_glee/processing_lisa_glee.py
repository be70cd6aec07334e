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
"""Pictures and conversations to the model's inputs, and its answers back to words and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

# In a text: the place of a picture's objects; an object that an answer shows; the place of a picture for a language
# model that reads images itself.
OBJECTS, SEGMENT, IMAGE = "<objects>", "[SEG]", "<image>"


class LisaGleeProcessor(ProcessorMixin):
    """
    Prepares pictures and texts for a LISA-GLEE model, and turns its answers back into words and masks.

    Args:
        image_processor: GLEE's.
        tokenizer: the language model's, with the tokens `<objects>` and `[SEG]`.
        chat_template: writes a conversation as one text, with `<objects>` (and `<image>`) for its picture.
        num_objects: queries that the language model is shown, `LisaGleeConfig.num_objects`.
        image_tokens: embeddings that the language model makes of a picture; 0 if it doesn't read images itself.
        language_images: settings of the image processor for these embeddings, with its `image_processor_type`.
    """

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        chat_template: str | None = None,
        num_objects: int = 100,
        image_tokens: int = 0,
        language_images: dict | None = None,
        **kwargs: Any,
    ):
        self.num_objects, self.image_tokens, self.language_images = num_objects, image_tokens, language_images
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Prepares pictures and texts about them.

        Args:
            images: one picture for each text, or one for all of them; PIL images, arrays, paths or URLs.
            text: conversations as [`LisaGleeProcessor.apply_chat_template`] writes them, each about one picture.
            return_tensors: "pt".
            kwargs: of the tokenizer, such as `padding_side`: "left" (the default) to generate.

        Returns:
            `input_ids` and `attention_mask` `(rows, length)`; for images `perception_pixel_values`
            `(pictures, 3, H, W)` and `perception_pixel_mask` `(pictures, H, W)`, `picture_indices` `(rows,)`, and
            `pixel_values` for a language model that reads images itself.

        Raises:
            ValueError: numbers of pictures and texts don't match, or a text lacks its placeholder.
        """
        features: dict[str, Any] = {}
        if text is not None:
            features.update(self._texts([text] if isinstance(text, str) else list(text), return_tensors, **kwargs))
        if images is not None:
            pictures = list(images) if isinstance(images, (list, tuple)) else [images]
            seen = self.image_processor(pictures, return_tensors=return_tensors)
            features["perception_pixel_values"] = seen["pixel_values"]
            features["perception_pixel_mask"] = seen["pixel_mask"]
            if text is not None:
                features["picture_indices"] = self._indices(len(pictures), len(features["input_ids"]))
            if self.language_images is not None:
                settings = dict(self.language_images)
                own = getattr(transformers, settings.pop("image_processor_type"))(**settings)
                features["pixel_values"] = own(pictures, return_tensors=return_tensors)["pixel_values"]
        return BatchFeature(features)

    def _texts(self, texts: list[str], return_tensors: str, **kwargs: Any) -> dict[str, Any]:
        """Expands the placeholders of each text and tokenizes it."""
        expanded = []
        for text in texts:
            if OBJECTS not in text:
                raise ValueError(f"a text needs {OBJECTS} where its picture's objects are shown: {text[:80]!r}")
            text = text.replace(OBJECTS, OBJECTS * self.num_objects)
            expanded.append(text.replace(IMAGE, IMAGE * self.image_tokens) if self.image_tokens else text)
        options = {"padding": True, "padding_side": "left", "return_token_type_ids": False, **kwargs}
        return dict(self.tokenizer(expanded, return_tensors=return_tensors, add_special_tokens=False, **options))

    @staticmethod
    def _indices(pictures: int, rows: int) -> torch.Tensor:
        """Returns the picture of each row, `(rows,)` int64."""
        if pictures not in (1, rows):
            raise ValueError(f"images: {pictures} pictures for {rows} texts; pass one, or one for each text")
        return torch.arange(rows) if pictures == rows else torch.zeros(rows, dtype=torch.long)

    def post_process_answers(
        self,
        outputs: Any,
        perception_pixel_mask: torch.Tensor,
        target_sizes: Sequence[tuple[int, int]],
        picture_indices: torch.Tensor | None = None,
        threshold: float = 0.5,
    ) -> list[dict[str, Any]]:
        """
        Turns what `generate` returned into words and masks.

        Args:
            outputs: of `LisaGleeForReasoningSegmentation.generate`.
            perception_pixel_mask: `(pictures, height, width)`, as passed to the model.
            target_sizes: (height, width) of each picture in pixels.
            picture_indices: `(answers,)`, the picture of each answer; by default the i-th.
            threshold: share in [0, 1] from which a pixel belongs to a mask.

        Returns:
            for each answer `text`, `written` (the text with its `[SEG]`, as a conversation continues it), and
            `objects`: for each `[SEG]` its `label` (the words before it), `score` in [0, 1], `box` (x0, y0, x1, y1 in
            pixels, None for an empty mask) and `mask` `(height, width)` bool.
        """
        answers: list[dict[str, Any]] = []
        for row, ids in enumerate(outputs.sequences):
            picture = row if picture_indices is None else int(picture_indices[row])
            indices = (outputs.mask_rows == row).nonzero()[:, 0]
            seen = perception_pixel_mask[picture].bool()
            masks = _at_size(outputs.mask_logits[indices], seen, target_sizes[picture], threshold)
            text, written, labels = self._words(ids)
            objects = [
                {"label": label, "score": float(score), "box": _box(mask), "mask": mask.cpu().numpy()}
                for label, score, mask in zip(labels, outputs.mask_scores[indices], masks)
            ]
            answers.append({"text": text, "written": written, "objects": objects})
        return answers

    def _words(self, ids: torch.Tensor) -> tuple[str, str, list[str]]:
        """Returns an answer without and with `[SEG]`, and for each `[SEG]` the words since the one before it."""
        segment = self.tokenizer.convert_tokens_to_ids(SEGMENT)
        parts: list[list[int]] = [[]]
        for token in ids.tolist():
            if token == segment:
                parts.append([])
            else:
                parts[-1].append(token)
        words = [self.tokenizer.decode(part, skip_special_tokens=True).strip() for part in parts]
        labels = [label.removeprefix("and ").removeprefix("yes ") for label in words[:-1]]
        written = " ".join(part for word in words[:-1] for part in (word, SEGMENT) if part) + f" {words[-1]}"
        return " ".join(word for word in words if word), written.strip(), labels


def _at_size(masks: torch.Tensor, seen: torch.Tensor, size: Sequence[int], threshold: float) -> torch.Tensor:
    """
    Cuts the padding off masks and resizes them to their picture.

    Args:
        masks: of the padded picture, `(masks, height, width)`, before the sigmoid.
        seen: `(padded height, padded width)` bool, False for padding.
        size: (height, width) of the picture.
        threshold: share in [0, 1] from which a pixel belongs to a mask.

    Returns:
        `(masks, *size)` bool.
    """
    if not len(masks):
        return torch.zeros((0, *size), dtype=torch.bool)
    padded = _resized(masks.float(), seen.shape)
    height, width = int(seen.any(dim=1).sum()), int(seen.any(dim=0).sum())
    level = torch.logit(torch.tensor(threshold))
    # One by one, as each takes four bytes for a pixel before it is compared.
    return torch.cat([_resized(mask[None, :height, :width], size) > level for mask in padded])


def _resized(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resizes maps `(n, height, width)` bilinearly to (height, width)."""
    return torch.nn.functional.interpolate(maps[:, None], tuple(size), mode="bilinear", align_corners=False)[:, 0]


def _box(mask: torch.Tensor) -> tuple[int, int, int, int] | None:
    """Returns the box (x0, y0, x1, y1) of a mask `(height, width)` bool in pixels; None if it is empty."""
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

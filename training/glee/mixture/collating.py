"""Collation of a query about some pictures to the model's inputs, `labels` and `supervision` included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lookhear.modeling.glee.loss_glee import GleeSupervision
from lookhear.processing.glee import GleeProcessor
from lookhear.processing.glee.prompt_processing_glee import (
    VISUAL_LABEL,
    GleePromptProcessor,
    clean_expression,
    clean_label,
)
from lookhear.training.glee.corpora.masks import Size
from lookhear.training.glee.corpora.picture import Picture
from lookhear.training.glee.mixture.asking import Query


@dataclass
class QueryCollator:
    """
    Makes the model's inputs from a batch of one `Query`.

    Beside the processor's outputs there are `labels`, a dictionary for each row (`class_labels` `(n,)`, `boxes`
    `(n, 4)` cxcywh as shares of the padded image, `masks` `(n, H, W)` bool if all objects of the batch have one,
    `track_ids` `(n,)` of clips), `supervision`, and `prompt_sources` for prompts in clips. Texts that are too long
    lose their last words.

    Attributes:
        processor: normalises and pads the pictures, whose size the augmentation has set.
    """

    processor: GleeProcessor

    def __call__(self, queries: list[Query]) -> dict[str, Any]:
        if len(queries) != 1:
            raise ValueError("an item of CorpusBatches is a batch already: set per_device_train_batch_size to 1")
        (query,) = queries
        prompts, classes = self._fitting(query.prompts)
        images = [picture.image.permute(1, 2, 0).numpy() for picture in query.pictures]  # (height, width, 3)
        inputs = self.processor(images=images, **prompts, do_resize=False)
        padded = tuple(inputs["pixel_values"].shape[-2:])
        supervision = GleeSupervision(**query.supervision)
        masks = supervision.masks and all(query.pictures[number].masks is not None for number, *_ in query.rows)
        labels = []
        for number, found, numbers in query.rows:
            numbers = numbers if classes is None else [classes[index] for index in numbers]
            entry = targets(query.pictures[number], found, numbers, padded, masks)
            if supervision.track_frames > 1:
                tracks = [query.pictures[number].track_ids[index] for index in found]
                entry["track_ids"] = torch.tensor(tracks, dtype=torch.int64)
            labels.append(entry)
        extra = {} if query.sources is None else {"prompt_sources": torch.tensor(query.sources)}
        return {**inputs, **extra, "labels": labels, "supervision": supervision}

    def _fitting(self, prompts: dict[str, Any]) -> tuple[dict[str, Any], list[int] | None]:
        """
        Shortens texts for the text encoder; for labels also returns the new number of each, as some may coincide.
        """
        processor = GleePromptProcessor(self.processor.tokenizer)
        if "labels" in prompts:
            names = [clean_label(text) or VISUAL_LABEL for text in prompts["labels"]]
            texts = [shortened(text, processor.tokenizer, processor.max_length) for text in names]
            labels = list(dict.fromkeys(texts))
            return {"labels": labels}, [labels.index(text) for text in texts]
        if "expressions" in prompts:
            cleaned = [[clean_expression(text) for text in texts] for texts in prompts["expressions"]]
            fitting = [
                [shortened(text, processor.tokenizer, processor.max_length) for text in texts] for texts in cleaned
            ]
            return {"expressions": fitting}, None
        return prompts, None


def targets(
    picture: Picture, found: list[int], classes: list[int], padded: Size, masks: bool = True
) -> dict[str, torch.Tensor]:
    """
    Makes an entry of `labels` from some objects of a picture.

    Args:
        picture: with its annotations.
        found: indices of the objects.
        classes: numbers of their labels.
        padded: (height, width) that the batch is padded to.
        masks: whether masks are among the targets.
    """
    height, width = padded
    corners = torch.as_tensor(picture.boxes)[found].as_subclass(torch.Tensor)
    corners = corners / torch.tensor([width, height, width, height])
    centres, extents = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    entry = {
        "class_labels": torch.tensor(classes, dtype=torch.int64),
        "boxes": torch.cat((centres, extents), dim=1),
    }
    if masks and picture.masks is not None:
        rows, columns = picture.size
        entry["masks"] = torch.zeros(len(found), height, width, dtype=torch.bool)
        entry["masks"][:, :rows, :columns] = picture.masks[found].as_subclass(torch.Tensor) > 0
    return entry


def shortened(text: str, tokenizer: PreTrainedTokenizerBase, longest: int) -> str:
    """Drops last words of a text (letters of a single word) until it has at most `longest` tokens."""
    while len(tokenizer(text, verbose=False)["input_ids"]) > longest:
        text = text.rsplit(" ", 1)[0] if " " in text else text[:-1]
    return text

"""A question about some pictures -> the model's inputs, `labels` and `supervision` included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lookhear.modeling.glee.loss_glee import GleeSupervision
from lookhear.processing.glee import GleeProcessor
from lookhear.processing.glee.prompt_processing_glee import GleePromptProcessor, clean_expression
from lookhear.training.glee.corpora.masks import Size
from lookhear.training.glee.corpora.picture import Picture
from lookhear.training.glee.mixture.asking import Query


@dataclass
class QuestionCollator:
    """
    A batch of one `Query` -> the model's inputs.

    Beside what the processor makes there are `labels`, a dictionary for each row of the answer (`class_labels` `(n,)`,
    `boxes` `(n, 4)` cxcywh as shares of the padded image, `masks` `(n, H, W)` bool where all objects of the batch have one,
    `track_ids` `(n,)` where there are clips), `supervision`, and for prompts in clips `prompt_sources`.
    Texts that are too long lose their last words.

    Args:
        processor: pictures are as large as the augmentation left them; it normalises and pads them.
    """

    processor: GleeProcessor

    def __call__(self, questions: list[Query]) -> dict[str, Any]:
        if len(questions) != 1:
            raise ValueError("an item of CorpusBatches is a batch already: set per_device_train_batch_size to 1")
        (question,) = questions
        asked, classes = self._fitting(question.asked)
        images = [picture.image.permute(1, 2, 0).numpy() for picture in question.pictures]  # (height, width, 3)
        inputs = self.processor(images=images, **asked, do_resize=False)
        padded = tuple(inputs["pixel_values"].shape[-2:])
        supervision = GleeSupervision(**question.supervision)
        masks = supervision.masks and all(question.pictures[number].masks is not None for number, *_ in question.rows)
        labels = []
        for number, found, numbers in question.rows:
            numbers = numbers if classes is None else [classes[index] for index in numbers]
            entry = targets(question.pictures[number], found, numbers, padded, masks)
            if supervision.track_frames > 1:
                tracks = [question.pictures[number].track_ids[index] for index in found]
                entry["track_ids"] = torch.tensor(tracks, dtype=torch.int64)
            labels.append(entry)
        extra = {} if question.sources is None else {"prompt_sources": torch.tensor(question.sources)}
        return {**inputs, **extra, "labels": labels, "supervision": supervision}

    def _fitting(self, asked: dict[str, Any]) -> tuple[dict[str, Any], list[int] | None]:
        """Texts that the text encoder can take; for labels also the new number of each (shortened ones may coincide)."""
        prompts = GleePromptProcessor(self.processor.tokenizer)
        if "labels" in asked:
            texts = [shortened(text, prompts.tokenizer, prompts.max_length) for text in asked["labels"]]
            labels = list(dict.fromkeys(texts))
            return {"labels": labels}, [labels.index(text) for text in texts]
        if "expressions" in asked:
            cleaned = [[clean_expression(text) for text in texts] for texts in asked["expressions"]]
            fitting = [[shortened(text, prompts.tokenizer, prompts.max_length) for text in texts] for texts in cleaned]
            return {"expressions": fitting}, None
        return asked, None


def targets(
    picture: Picture, found: list[int], classes: list[int], padded: Size, masks: bool = True
) -> dict[str, torch.Tensor]:
    """
    Some objects of a picture as `labels` has them.

    Args:
        found: their indices; classes: the numbers of their labels; padded: (height, width) that the batch is padded to.
    """
    height, width = padded
    corners = torch.as_tensor(picture.boxes)[found].as_subclass(torch.Tensor)
    corners = corners / torch.tensor([width, height, width, height])
    centres, extents = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    entry = {
        "class_labels": torch.tensor(classes, dtype=torch.int64),
        "boxes": torch.cat((centres, extents), dim=1),
    }
    if masks:
        rows, columns = picture.size
        entry["masks"] = torch.zeros(len(found), height, width, dtype=torch.bool)
        entry["masks"][:, :rows, :columns] = picture.masks[found].as_subclass(torch.Tensor) > 0
    return entry


def shortened(text: str, tokenizer: PreTrainedTokenizerBase, longest: int) -> str:
    """`text` without as many of its last words (of a single word: letters) as are too many for `longest` tokens."""
    while len(tokenizer(text, verbose=False)["input_ids"]) > longest:
        text = text.rsplit(" ", 1)[0] if " " in text else text[:-1]
    return text

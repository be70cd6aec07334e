"""Collation of pictures and conversations to the model's inputs, with the answers as labels and their masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lookhear.processing.lisa_glee import LisaGleeProcessor
from lookhear.training.glee.corpora.picture import resize_masks
from lookhear.training.lisa_glee.chat import messages
from lookhear.training.lisa_glee.corpora.schema import Turn
from lookhear.training.lisa_glee.mixture import UNKNOWN, Conversation, Example

IGNORED = -100  # in labels


class ConversationCollator:
    """
    Converts examples to a model's inputs. A row is a conversation; GLEE sees each picture once.

    Masks have the size of GLEE's padded pictures; they are unknown in padding.

    Args:
        processor: of the model. Its chat template must write a conversation so that each beginning of it, up to an
            answer or its end, is a beginning of the text in tokens, too.
        longest: tokens of a row, placeholders included. Later turns of longer conversations are left out; a first one
            that is too long loses its end.
    """

    def __init__(self, processor: LisaGleeProcessor, longest: int = 2048):
        self.processor, self.longest = processor, longest

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        rows = [(number, part) for number, example in enumerate(examples) for part in example.conversations]
        pictures = torch.tensor([number for number, _ in rows])
        ids, labels, turns = zip(*(self._tokens(conversation) for _, conversation in rows))
        inputs = dict(self.processor(images=[example.image for example in examples]))
        if "pixel_values" in inputs:  # the language model takes a picture for each row
            inputs["pixel_values"] = inputs["pixel_values"][pictures]
        padding = self.processor.tokenizer.pad_token_id
        inputs["input_ids"] = _padded(ids, padding)
        inputs["attention_mask"] = _padded([torch.ones_like(row) for row in ids], 0)
        inputs["labels"] = _padded(labels, IGNORED)
        inputs["picture_indices"] = pictures
        inputs["mask_labels"] = self._masks(rows, turns, inputs["perception_pixel_mask"])
        return inputs

    def _tokens(self, conversation: Conversation) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Returns tokens and labels of a conversation, both `(length,)`, and the number of turns that fit."""
        ends: list[tuple[int, int]] = []  # of each turn's question and answer, in tokens
        ids = torch.zeros(0, dtype=torch.long)
        for count in range(1, len(conversation.turns) + 1):
            asked = self._ids(conversation.turns[:count], ask=True)
            told = self._ids(conversation.turns[:count])
            for beginning, whole in ((ids, asked), (asked, told)):
                if not torch.equal(whole[: len(beginning)], beginning):
                    raise ValueError(
                        "the processor's chat template cannot be trained with: the tokens of a conversation change "
                        "when it continues; end a question and an answer with a token of its own"
                    )
            if ends and len(told) > self.longest:
                break
            ends.append((len(asked), len(told)))
            ids = told
        labels = torch.full_like(ids, IGNORED)
        for start, end in ends:
            labels[start:end] = ids[start:end]
        if len(ids) > self.longest and conversation.masks:
            raise ValueError(
                f"a question with its mask takes {len(ids)} tokens, but data.longest is {self.longest}; raise it"
            )
        return ids[: self.longest], labels[: self.longest], len(ends)

    def _ids(self, turns: Sequence[Turn], ask: bool = False) -> torch.Tensor:
        """Returns the tokens of a conversation, `(length,)`, without the last answer if `ask`."""
        written = messages([(turn.question, turn.answer) for turn in turns], ask)
        text = self.processor.apply_chat_template(written, add_generation_prompt=ask, tokenize=False)
        return self.processor(text=[text])["input_ids"][0]

    @staticmethod
    def _masks(
        rows: Sequence[tuple[int, Conversation]], turns: Sequence[int], pixel_mask: torch.Tensor
    ) -> torch.Tensor:
        """Returns the masks of all rows, `(masks, height, width)`, at the size of GLEE's padded pictures."""
        masks: list[torch.Tensor] = []
        for (picture, conversation), count in zip(rows, turns):
            shown = sum(turn.region is not None for turn in conversation.turns[:count])
            seen = pixel_mask[picture].bool()
            size = (int(seen.any(dim=1).sum()), int(seen.any(dim=0).sum()))  # without padding
            for mask in conversation.masks[:shown]:
                padded = torch.full(pixel_mask.shape[1:], UNKNOWN)
                padded[: size[0], : size[1]] = torch.from_numpy(np.ascontiguousarray(resize_masks(mask, size)))
                masks.append(padded)
        return torch.stack(masks) if masks else torch.zeros(0, *pixel_mask.shape[1:])


def _padded(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    """Pads rows on the right, to `(rows, length)`."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)

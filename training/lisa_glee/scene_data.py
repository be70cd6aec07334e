"""Batches of conversations about generated scenes, and the tensors that a model learns from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from lookhear.processing.lisa_glee import LisaGleeProcessor
from lookhear.training.glee.scenes.questions import Question, choose_questions
from lookhear.training.glee.scenes.scenes import Scene, make_scene
from lookhear.training.lisa_glee.chat import messages
from lookhear.training.lisa_glee.scene_recipe import QuestionDataRecipe
from lookhear.training.lisa_glee.vocabulary import ASSISTANT, END

MASK_STRIDE = 4  # masks are compared at the size of GLEE's mask features


@dataclass(frozen=True)
class QuestionBatch:
    """
    Scenes of one size and conversations about them.

    Attributes:
        scenes: the pictures.
        rows: for each conversation the index of its scene, and its questions in order.
    """

    scenes: list[Scene]
    rows: list[tuple[int, list[Question]]]


class QuestionBatches(Dataset):
    """
    Makes batches of a recipe; item i is the i-th batch, the same in every run.

    Args:
        recipe: describes the scenes and questions.
        length: number of batches.
        seed: together with the batch's index it determines the batch.
    """

    def __init__(self, recipe: QuestionDataRecipe, length: int, seed: int = 0):
        self.recipe, self.length, self.seed = recipe, length, seed
        self.look = recipe.scene_recipe()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> QuestionBatch:
        if not 0 <= index < self.length:
            raise IndexError(index)
        random = np.random.default_rng((self.seed, index))
        height, width = self.recipe.canvases[random.integers(len(self.recipe.canvases))]
        families = self.recipe.first_families if index < self.recipe.first_batches else self.recipe.families
        scenes: list[Scene] = []
        rows: list[tuple[int, list[Question]]] = []
        while len(scenes) < self.recipe.scenes_per_batch:
            scene = make_scene(random, (height, width), self.look)
            questions = choose_questions(scene, random, sum(self.recipe.conversations), families)
            rows += [(len(scenes), turns) for turns in _conversations(questions, self.recipe.conversations)]
            scenes.append(scene)
        return QuestionBatch(scenes, rows)


def _conversations(questions: list[Question], turns: list[int]) -> list[list[Question]]:
    """Splits a scene's questions into conversations of the given lengths, the last ones shorter if they run out."""
    parts = np.split(np.array(questions, dtype=object), np.cumsum(turns)[:-1])
    return [list(part) for part in parts if len(part)]


class QuestionCollator:
    """
    Converts a batch to a model's inputs: pictures, conversations, the answers as labels, and a mask for each `[SEG]`.

    A scene is one row of conversations, which don't see each other.

    Args:
        processor: of the model.
    """

    def __init__(self, processor: LisaGleeProcessor):
        self.processor = processor
        tokenizer = processor.tokenizer
        self.begin, self.end = tokenizer.convert_tokens_to_ids([ASSISTANT, END])

    def __call__(self, batches: list[QuestionBatch]) -> dict[str, Any]:
        (batch,) = batches  # a step has one
        texts = [self.processor.apply_chat_template(conversation(row), tokenize=False) for _, row in batch.rows]
        tokens = self.processor(text=texts, padding_side="right")
        said = [ids[seen] for ids, seen in zip(tokens["input_ids"], tokens["attention_mask"].bool())]
        by_scene = [[ids for ids, (of, _) in zip(said, batch.rows) if of == one] for one in range(len(batch.scenes))]
        inputs: dict[str, Any] = pack(by_scene, self.processor.tokenizer.pad_token_id)
        inputs.update(self.processor(images=[scene.image for scene in batch.scenes]))
        inputs["labels"] = self._labels(inputs["input_ids"])
        shown = [
            batch.scenes[scene].shapes[index].mask
            for scene, row in batch.rows
            for turn in row
            for index in turn.objects
        ]
        height, width = inputs["perception_pixel_values"].shape[-2:]
        masks = torch.zeros(len(shown), height, width)
        for mask, values in zip(masks, shown):
            mask[: values.shape[0], : values.shape[1]] = torch.from_numpy(values)
        inputs["mask_labels"] = torch.nn.functional.avg_pool2d(masks[:, None], MASK_STRIDE)[:, 0]
        return inputs

    def _labels(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Returns labels `(rows, length)`: the answers, from after `<assistant>` up to `</s>`, and -100 elsewhere."""
        begins, ends = (input_ids == self.begin).long(), (input_ids == self.end).long()
        answer = (begins.cumsum(dim=1) - begins) > (ends.cumsum(dim=1) - ends)
        return input_ids.masked_fill(~answer, -100)


def pack(rows: list[list[torch.Tensor]], padding: int) -> dict[str, torch.Tensor]:
    """
    Writes conversations into one row, so that they don't see each other.

    Args:
        rows: for each row its conversations, `(tokens,)` int64.
        padding: the token after the end of a row.

    Returns:
        `input_ids` and `position_ids` `(rows, length)`, each conversation's positions as if it were alone, and
        `attention_mask` `(rows, 1, length, length)` bool: whether the first token sees the second.
    """
    numbers = [torch.cat([torch.full_like(ids, number) for number, ids in enumerate(row)]) for row in rows]
    positions = [torch.cat([torch.arange(len(ids)) for ids in row]) for row in rows]
    number = pad_sequence(numbers, True, -1)  # (rows, length): the conversation of each token, -1 for padding
    return {
        "input_ids": pad_sequence([torch.cat(row) for row in rows], True, padding),
        "position_ids": pad_sequence(positions, True, 0),
        "attention_mask": (number[:, :, None] == number[:, None]).tril()[:, None],
    }


def conversation(turns: list[Question], ask: bool = False) -> list[dict[str, Any]]:
    """
    Writes questions and answers as messages for a chat template.

    Args:
        turns: the questions.
        ask: whether to leave out the last answer.
    """
    return messages([(turn.text, turn.answer) for turn in turns], ask)

"""Measures how a LISA-GLEE answers held-out questions about new scenes.

`python -m lookhear.training.lisa_glee.evaluate_scenes CHECKPOINT`
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lookhear.modeling.lisa_glee import LisaGleeForReasoningSegmentation
from lookhear.processing.lisa_glee import LisaGleeProcessor
from lookhear.training.glee.scenes.questions import FAMILIES, SEGMENT, Question, choose_questions
from lookhear.training.glee.scenes.scenes import Scene, make_scene
from lookhear.training.lisa_glee.scene_data import conversation

# Random numbers come from (seed, index of the scene), in training from (seed, index of the batch): no training should
# have this seed.
EVALUATION_SEED = 777_777
SIZE = (128, 160)  # (height, width) of the scenes, in pixels
BATCH = 32  # questions that go through the model together
MOST_TOKENS = 24  # of an answer; the longest right one has fewer
# Three ways to ask: each scene its own questions; another scene's; its own, with GLEE's queries replaced by zeros.
CONDITIONS = ("own", "others", "blind")


@dataclass(frozen=True)
class Asked:
    """
    A question about a scene.

    Attributes:
        scene: the picture.
        question: the question and its answer.
        text: what the model is asked; may be a question about another scene.
    """

    scene: Scene
    question: Question
    text: str


@dataclass(frozen=True)
class Answered:
    """
    A model's answer, compared with the right one.

    Attributes:
        family: of the question.
        intersection: pixels of both the masks shown and the objects meant.
        union: pixels of either.
        words: whether the whole answer is right, word for word.
        none_meant: whether the right answer shows nothing.
        none_shown: whether the model's answer shows nothing.
        said: the model's answer in words.
    """

    family: str
    intersection: int
    union: int
    words: bool
    none_meant: bool
    none_shown: bool
    said: str

    @property
    def overlap(self) -> float:
        """Computes intersection over union, in [0, 1]; 1 if nothing is shown and nothing is meant."""
        return self.intersection / self.union if self.union else 1.0


def held_out_questions(count: int, seed: int = EVALUATION_SEED) -> list[Asked]:
    """
    Makes held-out questions about scenes: one of each family that a scene has a question of.

    Args:
        count: number of scenes.
        seed: other seeds give other scenes.
    """
    return [asked for index in range(count) for asked in scene_questions(index, seed)]


def scene_questions(index: int, seed: int = EVALUATION_SEED) -> list[Asked]:
    """
    Makes one of the scenes and its held-out questions, at most one of each family.

    Args:
        index: of the scene, from 0; together with the seed it determines scene and questions.
        seed: other seeds give other scenes.
    """
    random = np.random.default_rng((seed, index))
    scene = make_scene(random, SIZE)
    return [
        Asked(scene, question, question.text)
        for family in FAMILIES
        for question in choose_questions(scene, random, 1, {family: 1.0}, held_out=True)
    ]


def exchange(asked: Sequence[Asked], seed: int = EVALUATION_SEED) -> list[Asked]:
    """
    Gives each question the text of a random question about another scene.

    It may be of any family: within one, the right answers about two scenes are often the same ("there is none").

    Args:
        asked: questions with their own texts, about at least two scenes.
        seed: of the choice.

    Returns:
        the same scenes and right answers, asked for with other texts.

    Raises:
        ValueError: `asked` holds one scene only.
    """
    if asked and all(item.scene is asked[0].scene for item in asked):
        raise ValueError("asked: the questions are about one scene; take at least two (--scenes 2)")
    random = np.random.default_rng(seed)
    return [replace(item, text=_of_another_scene(item, asked, random).text) for item in asked]


def _of_another_scene(item: Asked, asked: Sequence[Asked], random: np.random.Generator) -> Asked:
    while (other := asked[int(random.integers(len(asked)))]).scene is item.scene:
        pass
    return other


@torch.no_grad()
def answer(
    model: LisaGleeForReasoningSegmentation, processor: LisaGleeProcessor, asked: Sequence[Asked], blind: bool = False
) -> Iterator[Answered]:
    """
    Asks a model questions and yields how right its answers are.

    Args:
        model: the checkpoint.
        processor: of the checkpoint.
        asked: the questions.
        blind: whether to replace GLEE's queries with zeros, to measure what they contribute.
    """
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        texts = [_prompt(processor, item) for item in batch]
        inputs = processor(images=[item.scene.image for item in batch], text=texts)
        mask, indices = inputs.pop("perception_pixel_mask"), inputs.pop("picture_indices")
        objects = model.get_objects(inputs.pop("perception_pixel_values"), mask)
        if blind:
            objects = type(objects)(**{name: 0 * value for name, value in objects.items()})
        outputs = model.generate(**inputs, objects=objects, max_new_tokens=MOST_TOKENS, do_sample=False)
        answers = processor.post_process_answers(outputs, mask, [SIZE] * len(batch), indices)
        yield from map(_compare, batch, answers)


def _prompt(processor: LisaGleeProcessor, asked: Asked) -> str:
    """Writes a question as the text that the model reads."""
    messages = conversation([replace(asked.question, text=asked.text)], ask=True)
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def _compare(asked: Asked, given: dict[str, Any]) -> Answered:
    """Compares an answer, as `LisaGleeProcessor.post_process_answers` returns it, with the right asked."""
    shown = np.zeros(SIZE, bool)
    for found in given["objects"]:
        shown |= found["mask"]
    meant = np.zeros(SIZE, bool)
    for index in asked.question.objects:
        meant |= asked.scene.shapes[index].mask
    right = _words(asked.question.answer) == _words(given["text"])
    right = right and len(given["objects"]) == len(asked.question.objects)
    return Answered(
        asked.question.family,
        int((shown & meant).sum()),
        int((shown | meant).sum()),
        right,
        not asked.question.objects,
        not given["objects"],
        given["text"],
    )


def _words(text: str) -> list[str]:
    """Splits an answer into words, without commas and `[SEG]`."""
    return text.replace(SEGMENT, " ").replace(",", " ").split()


def summarise(answers: Sequence[Answered]) -> list[dict[str, Any]]:
    """
    Summarises answers.

    Args:
        answers: of any families.

    Returns:
        a row for all answers and one for each family: `n`, `gIoU`, `cIoU`, `words` (share of the answers that are
        right word for word) and `none` (share of the answers that show nothing among those that should; None if
        there are no such answers).
    """
    rows: list[dict[str, Any]] = []
    for family in ("all", *FAMILIES):
        group = [given for given in answers if family in ("all", given.family)]
        none = [given.none_shown for given in group if given.none_meant]
        if group:
            rows.append(
                {
                    "family": family,
                    "n": len(group),
                    "gIoU": float(np.mean([given.overlap for given in group])),
                    "cIoU": sum(given.intersection for given in group) / max(sum(given.union for given in group), 1),
                    "words": float(np.mean([given.words for given in group])),
                    "none": float(np.mean(none)) if none else None,
                }
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Prints the measures of a checkpoint as a table, for each of `CONDITIONS`, and mistakes below it.

    Args:
        arguments: of the command line; those of the process if None.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="folder or Hub id of a LISA-GLEE model with its processor")
    parser.add_argument("--scenes", type=int, default=200, help="held-out scenes (default: 200)")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="other seeds give other scenes")
    parser.add_argument("--mistakes", type=int, default=0, help="number of wrong answers to print")
    options = parser.parse_args(arguments)
    asked = held_out_questions(options.scenes, options.seed)
    try:
        exchanged = exchange(asked)
    except ValueError as error:
        parser.error(str(error))
    model = LisaGleeForReasoningSegmentation.from_pretrained(options.checkpoint, dtype=torch.float32).eval()
    processor = LisaGleeProcessor.from_pretrained(options.checkpoint)
    print("| asked | family | gIoU % | cIoU % | words % | none % | questions |\n|---|---|---|---|---|---|---|")
    mistakes: list[str] = []
    for condition in CONDITIONS:
        given = exchanged if condition == "others" else asked
        answers = list(answer(model, processor, given, blind=condition == "blind"))
        for row in summarise(answers):
            shares = (row["gIoU"], row["cIoU"], row["words"], row["none"])
            cells = ["" if share is None else f"{100 * share:.1f}" for share in shares]
            print(f"| {condition} | {row['family']} | {' | '.join(cells)} | {row['n']} |")
        if condition == "own":
            wrong = [(one, said) for one, said in zip(asked, answers) if not said.words][: options.mistakes]
            mistakes += [
                f"{one.question.form}: {one.text} | {said.said} | {one.question.answer} | {said.overlap:.2f}"
                for one, said in wrong
            ]
    print("\n".join(["", *mistakes]) if mistakes else "", end="\n" if mistakes else "")


if __name__ == "__main__":
    main()

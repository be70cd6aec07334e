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

# Training draws from (seed, batch); these numbers stand in front of the scene's for evaluation.
EVALUATION_SEED = 777_777
SIZE, BATCH, MOST_TOKENS = (128, 160), 32, 24
# How the questions are asked: as they are; those of other scenes; with GLEE's queries replaced by zeros.
CONDITIONS = ("own", "others", "blind")


@dataclass(frozen=True)
class Asked:
    """A question about a scene; `text` is what is asked, which may be another scene's question."""

    scene: Scene
    question: Question
    text: str


@dataclass(frozen=True)
class Answered:
    """
    What became of a question.

    Attributes:
        family: of the question.
        intersection: pixels that are both shown and meant.
        union: pixels that are shown or meant.
        words: whether the whole answer is right, word for word.
        none_meant: whether there is nothing to show.
        none_shown: whether nothing was shown.
        said: the answer in words.
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
        """Intersection over union; 1 where nothing is shown and nothing is meant."""
        return self.intersection / self.union if self.union else 1.0


def held_out_questions(count: int, seed: int = EVALUATION_SEED) -> list[Asked]:
    """Makes held-out questions about `count` scenes: one of each family that a scene has a question of."""
    asked = []
    for index in range(count):
        random = np.random.default_rng((seed, index))
        scene = make_scene(random, SIZE)
        for family in FAMILIES:
            for question in choose_questions(scene, random, 1, {family: 1.0}, held_out=True):
                asked.append(Asked(scene, question, question.text))
    return asked


def exchange(asked: Sequence[Asked]) -> list[Asked]:
    """Asks each scene what belongs to the question of the same family about the next scene that has one."""
    exchanged = list(asked)
    for family in FAMILIES:
        places = [place for place, one in enumerate(asked) if one.question.family == family]
        for place, other in zip(places, places[1:] + places[:1]):
            exchanged[place] = replace(asked[place], text=asked[other].text)
    return exchanged


@torch.no_grad()
def answer(
    model: LisaGleeForReasoningSegmentation, processor: LisaGleeProcessor, asked: Sequence[Asked], blind: bool = False
) -> Iterator[Answered]:
    """
    Asks a model.

    Args:
        model: the checkpoint.
        processor: of the checkpoint.
        asked: the questions.
        blind: replace GLEE's queries with zeros, to see whether they are looked at.
    """
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        inputs = processor(images=[one.scene.image for one in some], text=[_prompt(processor, one) for one in some])
        mask, indices = inputs.pop("perception_pixel_mask"), inputs.pop("picture_indices")
        objects = model.get_objects(inputs.pop("perception_pixel_values"), mask)
        if blind:
            objects = type(objects)(**{name: 0 * value for name, value in objects.items()})
        outputs = model.generate(**inputs, objects=objects, max_new_tokens=MOST_TOKENS, do_sample=False)
        answers = processor.post_process_answers(outputs, mask, [SIZE] * len(some), indices)
        yield from (_compare(one, given) for one, given in zip(some, answers))


def _prompt(processor: LisaGleeProcessor, one: Asked) -> str:
    messages = conversation([replace(one.question, text=one.text)], ask=True)
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def _compare(one: Asked, given: dict[str, Any]) -> Answered:
    shown = np.zeros(SIZE, bool)
    for found in given["objects"]:
        shown |= found["mask"]
    meant = np.zeros(SIZE, bool)
    for index in one.question.objects:
        meant |= one.scene.shapes[index].mask
    right = _words(one.question.answer) == _words(given["text"])
    right = right and len(given["objects"]) == len(one.question.objects)
    return Answered(
        one.question.family,
        int((shown & meant).sum()),
        int((shown | meant).sum()),
        right,
        not one.question.objects,
        not given["objects"],
        given["text"],
    )


def _words(text: str) -> list[str]:
    return text.replace(SEGMENT, " ").replace(",", " ").split()


def summarise(answers: Sequence[Answered]) -> list[dict[str, Any]]:
    """
    Summarises answers.

    Returns:
        a row for all answers and one for each family: `n`, `gIoU`, `cIoU`, `words` (share of the answers that are
        right word for word) and `none` (share of the answers that show nothing where nothing is meant).
    """
    rows = []
    for family in ("all", *FAMILIES):
        some = [one for one in answers if family in ("all", one.family)]
        none = [one.none_shown for one in some if one.none_meant]
        if some:
            rows.append(
                {
                    "family": family,
                    "n": len(some),
                    "gIoU": float(np.mean([one.overlap for one in some])),
                    "cIoU": sum(one.intersection for one in some) / max(sum(one.union for one in some), 1),
                    "words": float(np.mean([one.words for one in some])),
                    "none": float(np.mean(none)) if none else None,
                }
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="folder or Hub id of a LISA-GLEE model with its processor")
    parser.add_argument("--scenes", type=int, default=200, help="held-out scenes (default: 200)")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="other seeds give other scenes")
    parser.add_argument("--mistakes", type=int, default=0, help="print so many wrong answers")
    options = parser.parse_args(arguments)
    model = LisaGleeForReasoningSegmentation.from_pretrained(options.checkpoint, dtype=torch.float32).eval()
    processor = LisaGleeProcessor.from_pretrained(options.checkpoint)
    asked = held_out_questions(options.scenes, options.seed)
    for condition in CONDITIONS:
        given = exchange(asked) if condition == "others" else asked
        answers = list(answer(model, processor, given, blind=condition == "blind"))
        print(f"\n{condition:10} {'n':>5} {'gIoU':>6} {'cIoU':>6} {'words':>6} {'none':>6}")
        for row in summarise(answers):
            shares = (row["gIoU"], row["cIoU"], row["words"], row["none"])
            print(
                f"{row['family']:10} {row['n']:5}",
                *("     -" if share is None else f"{share:6.3f}" for share in shares),
            )
        if condition == "own":
            wrong = [(one, said) for one, said in zip(asked, answers) if not said.words]
            for one, said in wrong[: options.mistakes]:
                print(f"{one.question.form}: {one.text} | {said.said} | {one.question.answer} | {said.overlap:.2f}")


if __name__ == "__main__":
    main()

"""Questions and answers in words of our own about what a picture's annotations name."""

from __future__ import annotations

import re

import numpy as np

from lookhear.processing.lisa_glee.processing_lisa_glee import IMAGE, OBJECTS, SEGMENT
from lookhear.training.lisa_glee.corpora.schema import AnnotatedPicture, Kind, Subject, Turn

QUESTIONS: dict[Kind, tuple[str, ...]] = {
    "name": (
        "Where is the {text} in this picture? Mark it.",
        "Please outline the {text}.",
        "Mark every part of the picture that shows the {text}.",
        "Which pixels belong to the {text}?",
        "I am looking for the {text}. Can you show me?",
    ),
    "phrase": (
        "Find this in the picture and mark it: {text}.",
        "Please outline the following: {text}.",
        "What does this describe: {text}? Show it.",
        'Mark what "{text}" refers to.',
        "Show me this part of the picture: {text}.",
    ),
    "question": (
        "{text} Show your answer in the picture.",
        "{text} Please answer by marking it.",
        "{text} Mark the place.",
        "{text} Give your answer as a mask.",
    ),
}
REASONS = (
    "Give a reason, too.",
    "Tell me why as well.",
    "Please explain your choice.",
    "Say what makes you think so.",
)
ANSWERS = (
    "Here it is: [SEG].",
    "[SEG].",
    "I have marked it: [SEG].",
    "It is this: [SEG].",
    "This is what you mean: [SEG].",
)
REASON_SHARE = 0.1  # of the questions whose reason is known
SPECIAL = re.compile("|".join(map(re.escape, (IMAGE, OBJECTS, SEGMENT))))


def converse(picture: AnnotatedPicture, random: np.random.Generator, most: int = 3) -> list[tuple[Turn, ...]]:
    """
    Makes conversations about a picture.

    Args:
        picture: with its subjects, or a conversation in words.
        random: chooses subjects and templates.
        most: conversations about one picture; which subjects they are about is chosen at random.

    Returns:
        one conversation for each subject, or the picture's own; empty if it has neither.
    """
    if picture.turns:
        return [tuple(Turn(plain(turn.question), plain(turn.answer)) for turn in picture.turns)]
    count = min(most, len(picture.subjects))
    chosen = random.choice(len(picture.subjects), size=count, replace=False) if count else ()
    return [(ask(picture.subjects[index], random),) for index in chosen]


def ask(subject: Subject, random: np.random.Generator) -> Turn:
    """
    Asks for a subject, with one of the templates of its kind.

    Args:
        subject: what is asked for.
        random: chooses the templates, and whether a reason is asked for.
    """
    text = plain(subject.text)
    if subject.kind != "question":
        text = text.rstrip(" .?!")  # the template has its own end
    elif text[-1:] not in (".", "?", "!"):
        text += "."
    questions = QUESTIONS[subject.kind]
    question = questions[random.integers(len(questions))].format(text=text)
    answer = ANSWERS[random.integers(len(ANSWERS))]
    if random.random() < REASON_SHARE and subject.reason:
        question += f" {REASONS[random.integers(len(REASONS))]}"
        answer += f" {plain(subject.reason)}"
    return Turn(question, answer, subject.region)


def plain(text: str) -> str:
    """
    Removes placeholders and `[SEG]` from a corpus's text, in which they mean nothing.

    Args:
        text: of a corpus.
    """
    return SPECIAL.sub(" ", text).strip()

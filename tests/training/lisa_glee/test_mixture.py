"""Subjects become questions and answers, corpora a mixture that depends on nothing but its seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.lisa_glee.corpora.schema import (
    GROUPS,
    AnnotatedPicture,
    Corpus,
    LabelRegion,
    Subject,
    Turn,
)
from lookhear.training.lisa_glee.mixture import UNKNOWN, ConversationMixture, Source, ratios
from lookhear.training.lisa_glee.templates import ANSWERS, QUESTIONS, REASONS, ask, converse

SHARES = dict(zip(GROUPS, (9, 3, 3, 1)))


def region(value: int = 1) -> LabelRegion:
    labels = np.zeros((8, 8), np.uint8)
    labels[2:6, :4] = value
    return LabelRegion(labels, (1,))


def corpus(folder: Path, name: str, count: int, *, subjects: int = 2, turns: tuple[Turn, ...] = ()) -> Corpus:
    """Pictures that have their number as colour, with subjects `name 0`, `name 1`, ..., or a conversation."""
    for index in range(count):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"{name}{index}.png")

    def read(index: int) -> AnnotatedPicture:
        named = tuple(Subject("name", f"{name} {part}", region()) for part in range(subjects))
        image = {"path": str(folder / f"{name}{index}.png"), "bytes": None}
        return AnnotatedPicture(f"{name}{index}", image, (8, 8), () if turns else named, turns)

    return Corpus(name, range(count), read)


@pytest.mark.parametrize("kind", ["name", "phrase", "question"])
def test_every_template_of_a_kind_is_used_with_its_text(kind):
    assert len(QUESTIONS[kind]) >= 4 and len(ANSWERS) >= 5
    random = np.random.default_rng(0)
    turns = [ask(Subject(kind, "What rolls <image>?", region()), random) for _ in range(400)]
    text = "What rolls  ?" if kind == "question" else "What rolls"
    assert {turn.question for turn in turns} == {template.format(text=text) for template in QUESTIONS[kind]}
    assert {turn.answer for turn in turns} == set(ANSWERS)
    assert all(turn.answer.count("[SEG]") == 1 and turn.region is not None for turn in turns)


def test_one_question_in_ten_asks_for_a_reason_where_there_is_one():
    random = np.random.default_rng(0)
    turns = [ask(Subject("question", "What rolls", region(), "Balls [SEG] do."), random) for _ in range(4000)]
    explained = [turn for turn in turns if turn.answer.endswith(". Balls   do.")]
    assert 0.085 < len(explained) / len(turns) < 0.115
    assert {turn.question.endswith(REASONS) for turn in explained} == {True}
    assert not any(turn.question.endswith(REASONS) for turn in turns if turn not in explained)
    assert not any(
        ask(Subject("question", "What rolls?", region()), random).question.endswith(REASONS) for _ in range(100)
    )


def test_up_to_three_subjects_become_a_conversation_each(tmp_path):
    random = np.random.default_rng(0)
    for subjects, count in ((5, 3), (2, 2), (0, 0)):
        conversations = converse(corpus(tmp_path, "many", 1, subjects=subjects)[0], random)
        assert [len(turns) for turns in conversations] == [1] * count
        assert len({turns[0].question for turns in conversations}) == count
    words = corpus(tmp_path, "words", 1, turns=(Turn("What is it?", "A [SEG]."), Turn("Sure?", "Yes.")))
    assert converse(words[0], random) == [(Turn("What is it?", "A  ."), Turn("Sure?", "Yes."))]


@pytest.fixture
def sources(tmp_path) -> list[Source]:
    """Two semantic corpora, of which one counts twice, and one of each other group."""
    turns = (Turn("What is it?", "A box."),)
    return [
        Source(corpus(tmp_path, "ade", 7), "semantic", 2.0),
        Source(corpus(tmp_path, "stuff", 5), "semantic"),
        Source(corpus(tmp_path, "ref", 4), "referring"),
        Source(corpus(tmp_path, "vqa", 3, turns=turns), "visual_questions"),
        Source(corpus(tmp_path, "reason", 3), "reasoning"),
    ]


def test_shares_of_groups_are_divided_among_their_corpora(sources):
    assert ratios(sources, SHARES) == [6, 3, 3, 3, 1]
    with pytest.raises(ValueError, match="data.shares has no 'reasoning', the group of reason"):
        ratios(sources, {"semantic": 1, "referring": 1, "visual_questions": 1})
    mixture = ConversationMixture(sources, SHARES, 4096, seed=3)
    drawn = Counter(mixture.schedule[index][0] for index in range(4096))
    assert [drawn[number] / 256 for number in range(5)] == [6, 3, 3, 3, 1]  # 9 : 3 : 3 : 1, exactly


def content(example) -> tuple:
    turns = [[(turn.question, turn.answer) for turn in part.turns] for part in example.conversations]
    return example.image.tobytes(), turns, [mask.tolist() for part in example.conversations for mask in part.masks]


def test_an_item_depends_on_its_number_and_seed_only(sources):
    mixture = ConversationMixture(sources, SHARES, 64, seed=3)
    items = [content(mixture[index]) for index in range(64)]
    again = ConversationMixture(sources, SHARES, 640, seed=3)  # longer, and in another order
    assert [content(again[index]) for index in reversed(range(64))] == items[::-1]
    assert [content(ConversationMixture(sources, SHARES, 64, seed=4)[index]) for index in range(64)] != items
    with pytest.raises(IndexError):
        mixture[64]


def test_every_picture_of_a_corpus_appears_once_per_epoch(tmp_path):
    mixture = ConversationMixture([Source(corpus(tmp_path, "ade", 7), "semantic")], SHARES, 21)
    seen = [mixture[index].image.getpixel((0, 0))[0] for index in range(21)]
    for epoch in range(3):
        assert sorted(seen[7 * epoch : 7 * epoch + 7]) == list(range(7))


def test_masks_are_unknown_where_nothing_is_known(tmp_path):
    labels = np.zeros((8, 8), np.uint8)
    labels[:4], labels[6:] = 1, 255
    given = corpus(tmp_path, "ade", 1)
    picture = AnnotatedPicture(
        "0",
        given[0].image,
        (8, 8),
        (Subject("name", "sky", LabelRegion(labels, (1,))),),
        ignored=LabelRegion(labels, (255,)),
    )
    mixture = ConversationMixture([Source(Corpus("ade", [0], lambda row: picture), "semantic")], SHARES, 1)
    ((mask,),) = (part.masks for part in mixture[0].conversations)
    expected = np.where(labels == 255, UNKNOWN, labels.astype(np.float32))
    assert np.array_equal(mask, expected)


def test_pictures_without_subjects_are_replaced_and_damaged_ones_refused_or_counted(tmp_path):
    good = corpus(tmp_path, "ade", 4)

    def read(index: int) -> AnnotatedPicture:
        picture = good.read(index)
        return AnnotatedPicture(picture.id, picture.image, picture.size) if index == 0 else picture

    mixture = ConversationMixture([Source(Corpus("ade", range(4), read), "semantic")], SHARES, 12)
    assert all(mixture[index].image.getpixel((0, 0))[0] > 0 for index in range(12))
    (tmp_path / "ade1.png").write_bytes(b"no picture")
    with pytest.raises(CorpusError, match="image ade1: its file .* cannot be read"):
        [mixture[index] for index in range(12)]
    problems = Problems(skip=True)
    mixture = ConversationMixture([Source(good, "semantic")], SHARES, 12, problems=problems)
    assert all(mixture[index].image.getpixel((0, 0))[0] != 1 for index in range(12))
    assert problems.count >= 3
    nothing = Corpus("ade", range(4), lambda index: AnnotatedPicture(str(index), {}))
    with pytest.raises(CorpusError, match="ade: 100 pictures in a row have nothing to ask for"):
        ConversationMixture([Source(nothing, "semantic")], SHARES, 1)[0]
    wrong = Corpus(
        "ade", [0], lambda index: AnnotatedPicture("0", good[2].image, (8, 9), (Subject("name", "a", region()),))
    )
    with pytest.raises(CorpusError, match="it has 8 x 8 pixels, but its annotations 8 x 9"):
        ConversationMixture([Source(wrong, "semantic")], SHARES, 1)[0]

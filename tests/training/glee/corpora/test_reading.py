"""What cannot be used is listed once, with its ids."""

from __future__ import annotations

import pytest

from lookhear.training.glee.corpora.reading import CorpusError, Problems


def test_problems_are_refused_in_one_line():
    problems = Problems()
    problems.settle("a corpus")
    for index in range(25):
        problems.add(f"image {index}", "it is empty")
    with pytest.raises(CorpusError, match="a corpus: 25 problems: image 0: it is empty; .*image 19: .*; and 5 more"):
        problems.settle("a corpus")
    assert len(problems.found) == 25


def test_each_corpus_warns_once_about_its_own(caplog):
    problems = Problems(skip=True)
    problems.add("image 1", "it is empty")
    problems.settle("one")
    problems.add("image 2", "it is empty")
    problems.settle("two")
    problems.add("image 3", "it is empty")
    problems.settle("two")
    first, second = (record.getMessage() for record in caplog.records)
    assert "1 problem: image 1" in first and "image 1" not in second and "1 problem: image 2" in second
    assert problems.count == 3


def test_only_the_first_thousand_are_kept():
    problems = Problems(skip=True)
    for index in range(1200):
        problems.add(index, "broken")
    assert len(problems.found) == 1000 and problems.count == 1200 and "and 1180 more" in problems.summary()

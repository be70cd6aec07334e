"""Corpora as `datasets`: in memory, in one Arrow file, streamed."""

from __future__ import annotations

import pytest

from lookhear.training.glee.corpora.coco import read_coco
from lookhear.training.glee.corpora.opening import open_corpus, stream_corpus
from lookhear.training.glee.corpora.reading import CorpusError, Problems
from lookhear.training.glee.corpora.schema import features


def test_a_dataset_holds_the_rows(tree, coco):
    rows = list(read_coco(tree.root))
    dataset = open_corpus("coco", tree.root)
    assert list(dataset) == rows and dataset.features == features()
    assert list(stream_corpus("coco", tree.root)) == rows


def test_a_cache_is_written_once(tree, coco):
    cache = tree.root / "cache/coco.arrow"
    first = list(open_corpus("coco", tree.root, cache=cache))
    (tree.root / "annotations/instances_train2017.json").unlink()
    assert list(open_corpus("coco", tree.root, cache=cache)) == first
    assert [path.name for path in cache.parent.iterdir()] == ["coco.arrow"]


def test_what_cannot_be_used_is_refused_or_counted(tree, coco):
    coco["annotations"][0]["category_id"] = 0
    tree.json("annotations/instances_train2017.json", coco)
    cache = tree.root / "cache/coco.arrow"
    with pytest.raises(CorpusError, match="1 problem: annotation 1"):
        open_corpus("coco", tree.root, cache=cache)
    assert not list(cache.parent.iterdir())
    problems = Problems(skip=True)
    assert len(open_corpus("coco", tree.root, cache=cache, problems=problems)) == 2 and problems.count == 1


def test_wrong_names_are_refused(tree, coco):
    with pytest.raises(CorpusError, match="no reader 'cocoa'; choose one of bdd100k, coco"):
        open_corpus("cocoa", tree.root)
    with pytest.raises(CorpusError, match="unexpected keyword argument 'kind'"):
        open_corpus("coco", tree.root, kind="x")
    for image in coco["images"]:
        (tree.root / "train2017" / image["file_name"]).unlink()
    with pytest.raises(CorpusError, match="no usable picture"):
        open_corpus("coco", tree.root, problems=Problems(skip=True))

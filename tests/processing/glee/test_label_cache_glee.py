"""The cache of label embeddings: hit, miss, order, the bound, an encoder that fails."""

import pytest
import torch

from lookhear.processing.glee.prompt_processing_glee import LabelCache


class Encoder:
    """Counts its calls and answers each with other numbers."""

    def __init__(self):
        self.calls = 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"class_embeddings": torch.full((2, 4), float(self.calls))}


def test_a_list_is_encoded_once():
    cache, encode = LabelCache(), Encoder()
    first = cache.get(["cat", "dog"], encode)
    again = cache.get(("cat", "dog"), encode)
    assert encode.calls == 1 and torch.equal(first["class_embeddings"], again["class_embeddings"])
    assert ["cat", "dog"] in cache and ("dog", "cat") not in cache and "cat" not in cache


def test_other_lists_and_other_orders_are_others():
    cache, encode = LabelCache(), Encoder()
    values = [cache.get(labels, encode)["class_embeddings"][0, 0] for labels in (["a", "b"], ["b", "a"], ["a, b"])]
    assert values == [1, 2, 3] and len(cache) == 3


def test_the_list_that_was_not_used_for_longest_goes_first():
    cache, encode = LabelCache(capacity=2), Encoder()
    cache.get(["a"], encode)
    cache.get(["b"], encode)
    cache.get(["a"], encode)
    cache.get(["c"], encode)
    assert len(cache) == 2 and ["a"] in cache and ["c"] in cache and ["b"] not in cache
    cache.get(["b"], encode)
    assert encode.calls == 4 and ["a"] not in cache


def test_it_is_bounded_and_can_be_cleared():
    cache, encode = LabelCache(), Encoder()
    for number in range(100):
        cache.get([str(number)], encode)
    assert len(cache) == 16
    cache.clear()
    assert len(cache) == 0 and cache.get(["99"], encode)["class_embeddings"][0, 0] == 101


def test_what_failed_is_not_kept():
    cache = LabelCache()

    def fail():
        raise ValueError("too long")

    with pytest.raises(ValueError, match="too long"):
        cache.get(["a"], fail)
    assert len(cache) == 0
    with pytest.raises(ValueError, match="capacity"):
        LabelCache(0)

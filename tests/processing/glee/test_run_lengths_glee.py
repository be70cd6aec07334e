"""COCO's run lengths: what pycocotools writes and reads, and the way back."""

import numpy as np
import pytest

from lookhear.processing.glee.geometry_glee import (
    RunLengthMask,
    coco_rle,
    compress_runs,
    expand_runs,
    mask_of_rle,
    mask_of_runs,
    run_lengths,
)


def masks():
    generator = np.random.default_rng(0)
    for _ in range(60):
        yield generator.random(generator.integers(1, 30, 2)) < generator.random()
    for shape in ((1, 1), (7, 5), (1, 9), (300, 400)):
        yield generator.random(shape) > 0.5
        yield np.zeros(shape, bool)
        yield np.ones(shape, bool)
    blob = np.zeros((480, 640), bool)
    blob[100:400, 50:600] = True
    yield blob


def test_masks_come_back():
    for mask in masks():
        rle = coco_rle(mask)
        assert rle["size"] == list(mask.shape) and np.array_equal(mask_of_rle(rle), mask)
        assert expand_runs(rle["counts"]).tolist() == run_lengths(mask)
        assert np.array_equal(mask_of_rle({"size": mask.shape, "counts": run_lengths(mask)}), mask)


def test_they_are_cocos():
    coco = pytest.importorskip("pycocotools.mask")
    for mask in masks():
        expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert coco_rle(mask)["counts"] == expected["counts"].decode()


def test_a_known_text():
    assert compress_runs([6]) == "6" and compress_runs([2, 1, 1, 2]) == "2111"
    assert expand_runs("2111").tolist() == [2, 1, 1, 2]


@pytest.mark.parametrize("text", ["", "é", "51S", "oooooooooooooooo0", "5 ", "8"])
def test_damaged_ones_are_refused(text):
    with pytest.raises(ValueError, match="damaged|cover"):
        mask_of_rle({"size": (3, 3), "counts": text})


@pytest.mark.parametrize("lengths", [[4, 4], [0, 10, -1], []])
def test_those_of_another_size_are_refused(lengths):
    with pytest.raises(ValueError, match="run lengths cover . pixels, but a mask of 3 x 3 has 9"):
        mask_of_runs(lengths, (3, 3))


def test_what_is_stored_is_small_and_the_same_mask():
    for mask in masks():
        stored = RunLengthMask(mask)
        assert np.array_equal(stored.decode(), mask) and stored.decode().dtype == bool
        plain = np.flatnonzero(np.diff(mask.flatten(order="F"))) + 1  # the plain way
        lengths = np.diff([0, *plain, mask.size]).tolist()
        assert stored.lengths.tolist() == ([0, *lengths] if mask[0, 0] else lengths)
    large = np.zeros((3000, 4000), bool)
    large[500:2500, 1000:3000] = True
    assert RunLengthMask(large).lengths.nbytes < 20_000

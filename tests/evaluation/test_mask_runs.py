import numpy as np
import pytest

from lookhear.evaluation.measures.mask_runs import box_ious, decode_mask, encode_mask, mask_ious, to_runs


def random_masks(seed: int, count: int, size=(13, 17)) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *size)) < 0.4


def test_every_form_is_the_same_mask():
    (mask,) = random_masks(0, 1)
    pixels = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(pixels.astype(int))) + 1
    plain = np.diff([0, *edges, len(pixels)]).tolist()
    numbers = {"size": [13, 17], "counts": [0, *plain] if pixels[0] else plain}
    text = encode_mask(mask)
    assert isinstance(text["counts"], str) and text["size"] == [13, 17]
    for form in (mask, text, numbers, to_runs(text)):
        assert (decode_mask(form) == mask).all()


def test_polygons_need_a_size():
    square = [[2, 1, 6, 1, 6, 4, 2, 4]]
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:6] = True
    assert (decode_mask(square, (6, 8)) == expected).all()
    assert not decode_mask([], (6, 8)).any()
    with pytest.raises(ValueError, match="size"):
        to_runs(square)


def test_ious_against_pixels():
    truth, found = random_masks(1, 3), random_masks(2, 4)
    expected = [[(a & b).sum() / (a | b).sum() for b in found] for a in truth]
    assert mask_ious(truth, [encode_mask(mask) for mask in found]) == pytest.approx(np.array(expected))
    assert mask_ious(np.zeros((1, 3, 3), bool), np.zeros((1, 3, 3), bool)).tolist() == [[0]]
    assert mask_ious([], found).shape == (0, 4)
    with pytest.raises(ValueError, match="differ in size"):
        mask_ious(truth, np.zeros((1, 3, 3), bool))


def test_box_ious_against_pixels():
    generator = np.random.default_rng(3)
    corners = generator.integers(0, 20, (7, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1) + 1], axis=1)
    grid = np.zeros((7, 21, 21), bool)
    for cells, (x0, y0, x1, y1) in zip(grid, boxes):
        cells[y0:y1, x0:x1] = True
    expected = [[(a & b).sum() / (a | b).sum() for b in grid[3:]] for a in grid[:3]]
    assert box_ious(boxes[:3], boxes[3:]) == pytest.approx(np.array(expected))
    assert box_ious([[1, 1, 1, 5]], [[1, 1, 1, 5]]).tolist() == [[0]]
    assert box_ious([], boxes).shape == (0, 7)


@pytest.mark.parametrize("wrong", ["abc", 5, None])
def test_what_is_no_mask_is_refused(wrong):
    with pytest.raises(ValueError, match="a mask has to be"):
        to_runs(wrong)

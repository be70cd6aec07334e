import numpy as np
import pytest

from lookhear.evaluation.measures.mask_runs import encode_mask
from lookhear.evaluation.measures.referring import box_overlaps, grounding_rates, mask_overlaps, referring_rates


def test_rates_by_hand():
    """IoU 1, 1/2, 0 and 1/3 (areas 100, 100, 4 and 300): overall (100 + 50 + 0 + 100) / (100 + 100 + 8 + 300)."""
    truth = [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 2, 2], [0, 0, 10, 30]]
    found = [[0, 0, 10, 10], [0, 0, 10, 5], [8, 8, 10, 10], [0, 0, 10, 10]]
    shared, union = box_overlaps(truth, found)
    assert shared.tolist() == [100, 50, 0, 100] and union.tolist() == [100, 100, 8, 300]
    rates = grounding_rates(shared, union)
    assert rates["P@0.5"] == 0.5 and rates["P@0.6"] == rates["P@0.9"] == 0.25
    assert rates["oIoU"] == pytest.approx(250 / 508) and rates["mIoU"] == pytest.approx((1 + 0.5 + 1 / 3) / 4)


def test_masks_against_pixels():
    masks = np.random.default_rng(0).random((2, 5, 8, 9)) < 0.5
    shared, union = mask_overlaps(masks[0], [encode_mask(mask) for mask in masks[1]])
    assert shared.tolist() == (masks[0] & masks[1]).sum((1, 2)).tolist()
    assert union.tolist() == (masks[0] | masks[1]).sum((1, 2)).tolist()


def test_ignored_pixels_count_nowhere():
    masks = np.random.default_rng(1).random((3, 5, 8, 9)) < 0.5
    truth, found, ignored = masks
    shared, union = mask_overlaps(truth, found, [*ignored[:4], None])
    counted = ~np.concatenate((ignored[:4], np.zeros((1, 8, 9), bool)))
    assert shared.tolist() == (truth & found & counted).sum((1, 2)).tolist()
    assert union.tolist() == ((truth | found) & counted).sum((1, 2)).tolist()
    shared, union = mask_overlaps([None], [found[0]], [ignored[0]])
    assert shared.tolist() == [0] and union.tolist() == [(found[0] & ~ignored[0]).sum()]
    with pytest.raises(ValueError, match="sentence 0: the two masks"):
        mask_overlaps([truth[0]], [found[0]], [np.ones((9, 8), bool)])


def test_sentences_without_an_answer():
    mask = np.ones((2, 3), bool)
    rates = referring_rates(
        [{"box": [0, 0, 3, 2], "mask": mask}, {"box": [0, 0, 3, 2], "mask": None}],
        [{"box": None, "mask": None}, {"box": [0, 0, 3, 2], "mask": None}],
    )
    assert rates["box_P@0.5"] == 0.5 and rates["box_oIoU"] == 0.5
    # nothing where something is: 0; nothing where nothing is: right
    assert rates["mask_P@0.5"] == 0.5 and rates["mask_oIoU"] == 0 and rates["sentences"] == 2
    assert np.isnan(grounding_rates(np.zeros(0), np.zeros(0))["mIoU"])


def test_bad_sentences_are_named():
    with pytest.raises(ValueError, match="differ in number"):
        box_overlaps([[0, 0, 1, 1]], [])
    with pytest.raises(ValueError, match="sentence 0: the two masks"):
        mask_overlaps([np.ones((2, 3), bool)], [np.ones((3, 2), bool)])
    with pytest.raises(ValueError, match="nothing to measure"):
        referring_rates([{"box": None}], [{"box": [0, 0, 1, 1]}])

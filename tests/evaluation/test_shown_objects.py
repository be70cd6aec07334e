import numpy as np
import pytest

from lookhear.evaluation.measures.mask_runs import encode_mask
from lookhear.evaluation.measures.shown_objects import shown_rates


def mask(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """`(10, 20)` bool with boxes (x0, y0, x1, y1)."""
    pixels = np.zeros((10, 20), bool)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = True
    return pixels


LEFT, RIGHT, TOP = mask((0, 0, 4, 10)), mask((10, 0, 20, 10)), mask((0, 0, 20, 5))  # 40, 100, 100 pixels


def test_rates_by_hand():
    """
    Left and right are meant and shown as one: 140 of 140. Right is meant, the upper half shown: 50 of 150. Left is
    meant, its upper half ignored, the upper half of the picture shown: 0 of 20. Nothing meant: shown 0, then 40.
    """
    references = [
        {"masks": [LEFT, RIGHT]},
        {"masks": [RIGHT], "ignored": None},
        {"masks": [LEFT], "ignored": TOP},
        {"masks": []},
        {},
    ]
    predictions = [{"masks": [mask((0, 0, 4, 10), (10, 0, 20, 10))]}, {"masks": [TOP]}, {"masks": [TOP]}, {}, {}]
    rates = shown_rates(references, predictions[:-1] + [{"masks": [LEFT]}])
    assert rates["gIoU"] == pytest.approx((1 + 50 / 150 + 0 + 1 + 0) / 5)
    assert rates["cIoU"] == pytest.approx(190 / (140 + 150 + 20 + 40))
    assert rates["none"] == 0.5 and np.isnan(rates["words"]) and rates["samples"] == 5 and rates["groups"] == {}


def test_masks_of_an_answer_may_overlap():
    rates = shown_rates([{"masks": [TOP]}], [{"masks": [mask((0, 0, 12, 5)), mask((8, 0, 20, 5))]}])
    assert rates["gIoU"] == rates["cIoU"] == 1


def test_against_pixels():
    masks = np.random.default_rng(0).random((5, 12, 10, 20)) < 0.3
    truth, found, ignored = masks[0] | masks[1], masks[2] | masks[3], masks[4]
    references = [{"masks": [a, b], "ignored": c} for a, b, c in zip(masks[0], masks[1], ignored)]
    rates = shown_rates(references, [{"masks": [encode_mask(a), b]} for a, b in zip(masks[2], masks[3])])
    shared, union = (truth & found & ~ignored).sum((1, 2)), ((truth | found) & ~ignored).sum((1, 2))
    assert rates["gIoU"] == pytest.approx((shared / union).mean())
    assert rates["cIoU"] == pytest.approx(shared.sum() / union.sum())


def test_only_the_ignored_is_shown():
    """Neither side has a pixel that counts."""
    rates = shown_rates([{"masks": [LEFT], "ignored": TOP | LEFT}], [{"masks": [TOP]}])
    assert rates["gIoU"] == rates["cIoU"] == 1 and np.isnan(rates["none"])


def test_words_are_compared_without_case_and_punctuation():
    right = {"masks": [LEFT, RIGHT], "text": "the red star [SEG] and the moon [SEG]: two"}
    both = {"masks": [LEFT, RIGHT]}
    for shown, expected in (
        (both | {"text": "The red star and the moon: two."}, 1),
        (both | {"text": "the moon and the red star: two"}, 0),
        (both | {"text": "the red star and the moon"}, 0),
        ({"masks": [LEFT], "text": "the red star and the moon: two"}, 0),  # one of the two isn't shown
        (both, 0),
    ):
        assert shown_rates([right], [shown])["words"] == expected, shown


def test_groups_are_measured_alone_and_together():
    references = [
        {"masks": [LEFT], "group": "long", "text": "left"},
        {"masks": [RIGHT], "group": "short"},
        {"masks": [], "group": "long"},
        {"masks": [LEFT]},
    ]
    rates = shown_rates(references, [{"masks": [LEFT], "text": "left"}, {}, {"masks": [TOP]}, {}])
    assert list(rates["groups"]) == ["long", "short"] and rates["gIoU"] == 0.25 and rates["cIoU"] == 40 / 280
    long, short = rates["groups"].values()
    assert (long["gIoU"], long["cIoU"], long["words"], long["none"], long["samples"]) == (0.5, 40 / 140, 1, 0, 2)
    assert (short["gIoU"], short["cIoU"], short["samples"]) == (0, 0, 1) and np.isnan(short["none"])


def test_bad_samples_are_named():
    with pytest.raises(ValueError, match="differ in number"):
        shown_rates([{}], [])
    with pytest.raises(ValueError, match="sample 1: its masks are of size"):
        shown_rates([{}, {"masks": [LEFT, LEFT.T]}], [{}, {}])
    with pytest.raises(ValueError, match="sentence 0: the two masks are of size"):
        shown_rates([{"masks": [LEFT]}], [{"masks": [LEFT.T]}])
    assert np.isnan(shown_rates([], [])["gIoU"])

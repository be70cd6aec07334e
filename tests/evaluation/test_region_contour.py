"""J and F against davis2017-evaluation's figures and against slow definitions."""

import math
import re

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lookhear.evaluation.measures.mask_runs import encode_mask
from lookhear.evaluation.measures.region_contour import (
    contour_accuracy,
    contour_pixels,
    mean_rates,
    near,
    region_similarity,
    track_quality,
    track_rates,
)


def blobs(seed: int, size=(40, 60)) -> np.ndarray:
    noise = np.random.default_rng(seed).random(size)
    return ndimage.gaussian_filter(noise, 3) > np.quantile(noise, 0.5)


@pytest.mark.shared
@pytest.mark.parametrize("sequence", ["dance-twirl", "dog", "libby", "parkour"])
def test_davis_figures(shared, sequence):
    """OSVOS' published masks of DAVIS 2016, J and F to 0.002 (they agree to the last digit that is printed)."""
    expected = (shared / "data" / "metrics" / "davis" / "expected.txt").read_text()
    region, contour = map(float, re.search(rf"{sequence}_1 (\S+) (\S+)", expected).groups())
    truth = sorted((shared / "data" / "davis2016" / "Annotations" / sequence).glob("*.png"))
    found = [shared / "data" / "metrics" / "davis" / "osvos" / sequence / path.name for path in truth]

    def pixels(paths):
        return (np.asarray(Image.open(path).convert("L")) > 0 for path in paths)

    rates = track_quality(pixels(truth), pixels(found)).rates()
    assert rates["J"] == pytest.approx(region, abs=0.002) and rates["F"] == pytest.approx(contour, abs=0.002)


def slow_contour(mask: np.ndarray) -> set[tuple[int, int]]:
    height, width = mask.shape
    return {
        (y, x)
        for y in range(height)
        for x in range(width)
        for dy, dx in ((0, 1), (1, 0), (1, 1))
        if mask[y, x] != mask[min(y + dy, height - 1), min(x + dx, width - 1)]
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reach", [1, 3, 0.04])
def test_contours_against_pairs_of_pixels(seed, reach):
    truth, found = blobs(seed, (18, 25)), blobs(seed + 50, (18, 25))
    sets = [slow_contour(mask) for mask in (truth, found)]
    assert {tuple(place) for place in np.argwhere(contour_pixels(truth)).tolist()} == sets[0]
    pixels = math.ceil(reach * math.hypot(18, 25)) if reach < 1 else reach

    def share(one, other):
        return sum(any(math.dist(place, place_2) <= pixels for place_2 in other) for place in one) / len(one)

    precision, recall = share(sets[1], sets[0]), share(sets[0], sets[1])
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert contour_accuracy(truth, found, reach) == pytest.approx(expected)


def test_dilation_is_that_with_a_disk():
    mask = np.zeros((30, 40), bool)
    mask[[2, 29, 15], [3, 39, 20]] = True
    for radius in (1, 4, 9):
        grid = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
        assert (near(mask, radius) == ndimage.binary_dilation(mask, grid)).all()


def test_empty_masks():
    empty, some = np.zeros((9, 9), bool), np.eye(9, dtype=bool)
    assert region_similarity(empty, empty) == contour_accuracy(empty, empty) == 1
    assert region_similarity(some, empty) == contour_accuracy(some, empty) == contour_accuracy(empty, some) == 0
    assert track_quality([None, some], [None, None], whole=True).region.tolist() == [1, 0]


def test_first_and_last_frame_do_not_count():
    some, other = np.eye(5, dtype=bool), ~np.eye(5, dtype=bool)
    quality = track_quality([some] * 4, [other, some, encode_mask(some), other])
    assert quality.region.tolist() == [1, 1] and track_quality([some] * 4, [other] * 4, whole=True).region.sum() == 0


def test_recall_and_decay_by_hand():
    """The quarters of eight frames share their ends: the first is frames 1 to 3, the last frames 6 to 8."""
    values = np.array([0.9, 0.8, 0.7, 0.5, 0.6, 0.3, 0.2, 0.1])
    rates = track_rates(values)
    assert rates[""] == pytest.approx(values.mean()) and rates["_recall"] == 4 / 8
    assert rates["_decay"] == pytest.approx(0.8 - 0.2)


def test_objects_have_the_same_weight():
    some, empty = np.eye(5, dtype=bool), np.zeros((5, 5), bool)
    long, short = track_quality([some] * 12, [some] * 12), track_quality([some] * 3, [empty] * 3)
    assert mean_rates([long, short])["J&F"] == 0.5


def test_bad_tracks_are_named():
    with pytest.raises(ValueError, match="three frames"):
        track_quality([None] * 2, [None] * 2).rates()
    with pytest.raises(ValueError, match="frame 1: the two masks"):
        track_quality([None, np.ones((2, 3))], [None, np.ones((3, 2))])
    with pytest.raises(ValueError, match="shorter|longer"):
        track_quality([None], [None, None])
    with pytest.raises(ValueError, match="no object"):
        mean_rates([])

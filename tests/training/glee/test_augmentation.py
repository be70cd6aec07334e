"""Pixels, boxes, masks and sentences change together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from lookhear.training.glee.corpora.masks import mask_box
from lookhear.training.glee.corpora.picture import Picture
from lookhear.training.glee.mixture.augmentation import (
    AugmentationRecipe,
    Crop,
    Flip,
    Resize,
    augment,
    draw_steps,
    mirror_words,
    speaks_of_place,
)

BOXES = [[10, 20, 40, 50], [60, 0, 100, 30], [70, 60, 90, 80]]


def make_picture(expressions=(), masks=True, size=(80, 120)) -> Picture:
    """Each object is a rectangle of its own brightness."""
    image, pixels = torch.zeros(3, *size, dtype=torch.uint8), torch.zeros(len(BOXES), *size, dtype=torch.uint8)
    for index, (x0, y0, x1, y1) in enumerate(BOXES):
        pixels[index, y0:y1, x0:x1] = 1
        image[:, y0:y1, x0:x1] = 60 * (index + 1)
    return Picture(
        id="a",
        image=tv_tensors.Image(image),
        boxes=tv_tensors.BoundingBoxes(torch.tensor(BOXES, dtype=torch.float32), format="XYXY", canvas_size=size),
        masks=tv_tensors.Mask(pixels) if masks else None,
        categories=("cup", "dog", None),
        track_ids=(4, 5, 6),
        expressions=tuple(expressions),
    )


def in_step(picture: Picture, slack: float) -> bool:
    """Whether boxes lie round the masks, and the masks on the pixels of their objects."""
    for box, mask, track in zip(picture.boxes, picture.masks, picture.track_ids):
        if np.abs(np.array(mask_box(mask.numpy())) - box.numpy()).max() > slack:
            return False
        brightness = picture.image[0][mask.bool()].float().median()
        narrow = min(box[2] - box[0], box[3] - box[1]) < 6  # its pixels are mixed with what is beside it
        if not narrow and abs(float(brightness) - 60 * (track - 3)) > 1:
            return False
    return picture.boxes.canvas_size == picture.size == tuple(picture.masks.shape[-2:])


def test_flip():
    flipped = Flip()(make_picture([("the LEFT cup", (0,)), ("a dog", (1,))]))
    assert flipped.boxes.tolist() == [[80, 20, 110, 50], [20, 0, 60, 30], [30, 60, 50, 80]]
    assert in_step(flipped, 0)
    assert flipped.expressions == (("the RIGHT cup", (0,)), ("a dog", (1,)))
    assert torch.equal(Flip()(flipped).image, make_picture().image)


def test_resize():
    resized = Resize((40, 30))(make_picture())
    assert resized.size == (40, 30) and resized.boxes[0].tolist() == [2.5, 10, 10, 25]
    assert in_step(resized, 0.6)


def test_crop_drops_what_vanishes():
    picture = make_picture([("a cup", (0,)), ("a dog", (1,)), ("both", (0, 1))])
    cut = Crop(10, 0, (60, 65))(picture)
    assert cut.size == (60, 65) and cut.track_ids == (4, 5) and cut.categories == ("cup", "dog")
    assert cut.boxes.tolist() == [[10, 10, 40, 40], [60, 0, 65, 20]] and in_step(cut, 0)
    assert len(cut.expressions) == 3
    assert Crop(10, 0, (60, 55))(picture).expressions == (("a cup", (0,)),)


def test_a_box_without_mask_is_cut_too():
    cut = Crop(10, 0, (60, 65))(make_picture(masks=False))
    assert cut.boxes.tolist() == [[10, 10, 40, 40], [60, 0, 65, 20]] and cut.masks is None


def test_a_cut_box_lies_round_what_is_seen():
    picture = make_picture()
    picture.masks[1, :, 60:70] = 0  # nothing of the dog is at the left end of its box
    picture.masks[1, 15:, 60:] = 0
    cut = Crop(0, 20, (60, 60))(picture)
    assert cut.boxes[1].tolist() == [50, 0, 60, 15]


@pytest.mark.parametrize(
    "text, mirrored",
    [
        ("left", "right"),
        ("Leftmost cup", "Rightmost cup"),
        ("the RIGHT-hand side", "the LEFT-hand side"),
        ("man on left, not right", "man on right, not left"),
        ("bright copyright cleft", "bright copyright cleft"),
        ("upper-left; lefthand righter", "upper-right; righthand lefter"),
        ("Right's", "Left's"),
    ],
)
def test_left_and_right_change_places(text, mirrored):
    assert mirror_words(text) == mirrored and mirror_words(mirrored) == text


def test_sentences_about_places_are_known():
    for text in ("second from left", "the TOP one", "in the centre", "3rd bus", "bottom-most", "leftmost"):
        assert speaks_of_place(text), text
    for text in ("a bright dog", "man in stopped car", "centred caption", "cornered cat", "laptop"):
        assert not speaks_of_place(text), text


SMALL = AugmentationRecipe(shortest_edges=[48, 64, 96], longest_edge=140, crop_edges=[60, 70], crop_window=(40, 64))


def test_published_sizes():
    recipe, edges, windows, flips = AugmentationRecipe(), set(), [], 0
    for seed in range(300):
        steps = draw_steps(recipe, np.random.default_rng(seed), (480, 640))
        flips += isinstance(steps[0], Flip)
        windows += [step.size for step in steps if isinstance(step, Crop)]
        height, width = steps[-1].size
        edges.add(min(height, width))
        assert max(height, width) <= 1333
    assert edges - {479} <= set(range(480, 801, 32)) | set(range(760, 800)) and {480, 800} <= edges
    assert 110 < flips < 190 and 110 < len(windows) < 190
    assert recipe.largest_needed() == 800 and AugmentationRecipe(jitter=(0.1, 2.0)).largest_needed() is None
    sides = np.array(windows)
    assert sides.min() >= 384 and sides.max() <= 600


@pytest.mark.parametrize("jitter", [None, (0.1, 2.0)])
def test_everything_stays_in_step(jitter):
    recipe = AugmentationRecipe(**{**vars(SMALL), "jitter": jitter, "canvas": 128})
    sizes = set()
    for seed in range(60):
        (picture,) = augment([make_picture([("a cup", (0,))])], recipe, np.random.default_rng(seed))
        assert len(picture) and picture.expressions and in_step(picture, 2.0)
        assert max(picture.size) <= (140 if jitter is None else 128)
        sizes.add(picture.size)
    assert len(sizes) > 10


def test_frames_change_alike_and_the_same_seed_does_the_same():
    for seed in range(10):
        first, second = augment([make_picture(), make_picture()], SMALL, np.random.default_rng(seed))
        again = augment([make_picture()], SMALL, np.random.default_rng(seed))[0]
        assert torch.equal(first.image, second.image) and torch.equal(first.image, again.image)
        assert torch.equal(first.boxes, second.boxes)


def test_nothing_is_cut_where_a_sentence_speaks_of_a_place():
    recipe = AugmentationRecipe(**{**vars(SMALL), "crop": 1.0, "flip": 0.0})
    for seed in range(10):
        (picture,) = augment([make_picture([("left cup", (0,))])], recipe, np.random.default_rng(seed))
        assert len(picture) == 3
        assert picture.size[1] / picture.size[0] == pytest.approx(1.5, rel=0.02)


def test_a_cut_never_leaves_nothing():
    recipe = AugmentationRecipe(**{**vars(SMALL), "crop": 1.0, "crop_window": (20, 25)})
    for seed in range(30):
        (picture,) = augment([make_picture([("all", (0, 1, 2))])], recipe, np.random.default_rng(seed))
        assert picture.expressions == (("all", (0, 1, 2)),)


def test_a_picture_without_objects_passes():
    (picture,) = augment([make_picture().keep([])], SMALL, np.random.default_rng(1))
    assert len(picture) == 0 and picture.masks.shape[-2:] == picture.size

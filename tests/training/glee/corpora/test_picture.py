"""A row becomes pixels, boxes and masks of its picture's size; what cannot be read says why."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lookhear.training.glee.corpora.coco import read_coco
from lookhear.training.glee.corpora.picture import take_picture
from lookhear.training.glee.corpora.reading import CorpusError
from lookhear.training.glee.corpora.schema import make_expression, make_row


def test_a_row_is_taken(tree, coco, square):
    first, second = map(take_picture, read_coco(tree.root))
    assert first.size == (30, 40) and first.image.dtype == torch.uint8 and first.image.shape == (3, 30, 40)
    assert first.categories == ("traffic light",)  # the crowd is left out
    assert second.boxes.tolist() == [[5, 8, 15, 18]] and second.track_ids == (0,)
    assert np.array_equal(second.masks[0].numpy(), square[2])


def test_what_names_a_crowd_or_an_empty_mask_goes(tree, coco):
    row = next(read_coco(tree.root))
    thin = {**row["objects"][0], "mask": {"counts": None, "polygons": [[5.1, 8.1, 5.2, 8.1, 5.2, 8.2]]}}
    row["objects"].append(thin)
    row["expressions"] = [make_expression("one", [0]), make_expression("two", [0, 1]), make_expression("three", [2])]
    picture = take_picture(row)
    assert len(picture) == 1 and picture.expressions == (("one", (0,)),)


def test_without_all_masks_there_are_none(tree, coco):
    row = next(read_coco(tree.root))
    row["objects"].append({**row["objects"][0], "mask": None})
    picture = take_picture(row)
    assert picture.masks is None and len(picture) == 2
    assert take_picture({**row, "objects": []}).masks.shape == (0, 30, 40)


def test_bytes_are_a_picture_too(tree):
    path = tree.picture("a.png")
    assert take_picture(make_row("a", path.read_bytes(), (30, 40))).image[0, 0, 0] == 90


def test_a_picture_stands_as_it_was_annotated(tree):
    path = tree.file("turned.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    assert take_picture(make_row("a", path, (40, 30))).size == (40, 30)
    assert take_picture(make_row("a", path, (30, 40))).size == (30, 40)
    with pytest.raises(CorpusError, match="image a: it has 40 x 30 pixels, but its annotations 50 x 60"):
        take_picture(make_row("a", path, (50, 60)))


def test_a_picture_that_cannot_be_read_says_so(tree, coco):
    row = next(read_coco(tree.root))
    path = tree.text("train2017/000000000007.jpg", "no picture")
    with pytest.raises(CorpusError, match="image 7: its file .*000000000007.jpg cannot be read"):
        take_picture(row)
    path.unlink()
    with pytest.raises(CorpusError, match="image 7: its file .* is missing"):
        take_picture(row)


def test_a_large_picture_is_taken_smaller(tree, coco):
    row = next(read_coco(tree.root))
    half, whole = take_picture(row, shortest=15), take_picture(row, shortest=40)
    assert half.size == (15, 20) and whole.size == (30, 40)
    assert half.boxes.tolist() == [[2.5, 4, 7.5, 9]] and half.boxes.canvas_size == (15, 20)
    assert half.masks.sum() == 25 and half.masks[0, 4:9, 2:7].all()

"""Polygons mean the pixels that COCO's own tools make of them, and run lengths do."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lookhear.processing.glee.geometry_glee import coco_rle, mask_of_runs
from lookhear.training.glee.corpora.masks import decode_mask, fill_polygons, mask_box, polygon_box


def test_a_polygon_covers_the_pixels_whose_centres_it_holds():
    mask = fill_polygons([[1, 1, 4, 1, 4, 3, 1, 3]], (5, 6))
    assert np.array_equal(np.argwhere(mask), [[y, x] for y in (1, 2) for x in (1, 2, 3)])
    triangle = fill_polygons([[0, 0, 8, 0, 0, 8]], (8, 8))
    assert np.array_equal(triangle, np.add.outer(np.arange(8), np.arange(8)) + 1 < 8)
    beyond = fill_polygons([[-5, -5, 3, -5, 3, 20, -5, 20], [4, 4, 9, 4, 9, 9, 4, 9]], (6, 6))
    assert np.array_equal(beyond.sum(axis=0), [6, 6, 6, 0, 2, 2])
    assert not fill_polygons([[20, 20, 30, 20, 30, 30]], (6, 6)).any()


@pytest.mark.shared
def test_polygons_of_coco_cover_what_pycocotools_says(shared):
    tools = pytest.importorskip("pycocotools.mask")
    content = json.loads((shared / "data/coco_tiny/annotations/instances_val2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    overlaps = []
    for entry in content["annotations"][::4]:
        size = sizes[entry["image_id"]]
        reference = tools.decode(
            tools.merge(
                [tools.frPyObjects(entry["segmentation"], *size)]
                if isinstance(entry["segmentation"], dict)
                else tools.frPyObjects(entry["segmentation"], *size)
            )
        ).astype(bool)
        if isinstance(entry["segmentation"], dict):
            assert np.array_equal(mask_of_runs(entry["segmentation"]["counts"], size), reference)
        elif reference.sum() > 200:
            mask = fill_polygons(entry["segmentation"], size)
            overlaps.append((mask & reference).sum() / (mask | reference).sum())
    assert len(overlaps) > 50 and min(overlaps) > 0.93 and np.mean(overlaps) > 0.985


def test_boxes_lie_round_masks_and_polygons():
    mask = np.zeros((9, 9), dtype=bool)
    assert mask_box(mask) is None
    mask[2:5, 3:4] = True
    assert mask_box(mask) == (3, 2, 4, 5)
    assert polygon_box([[1, 2, 5, 2, 5, 7.5], [0, 3, 1, 3, 1, 4]]) == (0, 2, 5, 7.5)
    assert np.array_equal(decode_mask({"counts": coco_rle(mask)["counts"], "polygons": None}, (9, 9)), mask)

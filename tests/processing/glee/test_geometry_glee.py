"""Sizes, points, boxes and masks between the picture, the resized image and the padded one."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lookhear.processing.glee.geometry_glee import (
    boxes_to_picture,
    masks_to_picture,
    padded_size,
    resize_mask,
    resized_size,
    scale_points,
)


@pytest.mark.parametrize(
    ("size", "edges", "expected"),
    [
        ((480, 640), (800, 1333), (800, 1067)),
        ((640, 480), (800, 1333), (1067, 800)),
        ((1080, 1920), (800, 1333), (750, 1333)),
        ((800, 800), (800, 1333), (800, 800)),
        ((427, 640), (1536, 1536), (1025, 1536)),
        ((2, 6000), (800, 1333), (1, 1333)),  # never 0 pixels
        ((3, 4), (800,), (800, 1067)),
        ((5, 2), (1, 1000), (3, 1)),  # halves up
    ],
)
def test_resized_size(size, edges, expected):
    assert resized_size(size, *edges) == expected


def test_padded_image_holds_every_image():
    assert padded_size([(60, 90), (64, 72)], 32) == (64, 96)
    assert padded_size([(64, 96)], 32) == (64, 96)
    assert padded_size([(65, 1)]) == (65, 1)


def test_points_and_boxes_scale_both_ways():
    points = np.array([[0, 0], [640, 480], [320, 120]], float)
    assert scale_points(points, (480, 640), (240, 1280)).tolist() == [[0, 0], [1280, 240], [640, 60]]
    boxes = np.array([[0, 10, 320, 480]], float)
    scaled = scale_points(boxes, (480, 640), (240, 1280))
    assert scaled.tolist() == [[0, 5, 640, 240]]
    assert np.array_equal(scale_points(scaled, (240, 1280), (480, 640)), boxes)


def test_boxes_to_the_picture_and_back():
    whole_image = torch.tensor([[0.375, 0.25, 0.75, 0.5]])  # of an image whose last quarter and half are padding
    sizes = {"padded_size": (64, 128), "image_size": (32, 96)}
    corners = boxes_to_picture(whole_image, target_size=(100, 300), **sizes)
    assert corners.tolist() == [[0, 0, 300, 100]]
    assert boxes_to_picture(whole_image, target_size=(1, 1), **sizes).tolist() == [[0, 0, 1, 1]]
    boxes = torch.rand(3, 5, 4)
    corners = boxes_to_picture(boxes, target_size=(100, 300), **sizes)
    assert corners.shape == boxes.shape
    shares = corners / torch.tensor(
        [300, 100, 300, 100]
    )  # of the image, and back to centre, size and the padded image
    middles, sides = (shares[..., :2] + shares[..., 2:]) / 2, shares[..., 2:] - shares[..., :2]
    back = torch.cat((middles, sides), dim=-1) * torch.tensor([96 / 128, 32 / 64] * 2)
    assert torch.allclose(back, boxes, atol=1e-6)


def test_masks_are_enlarged_cropped_and_resized():
    masks = torch.randn(2, 8, 16)
    result = masks_to_picture(masks, padded_size=(32, 64), image_size=(32, 48), target_size=(21, 37))
    cropped = F.interpolate(masks[None], size=(32, 64), mode="bilinear", align_corners=False)[..., :48]
    assert torch.equal(result, F.interpolate(cropped, size=(21, 37), mode="bilinear", align_corners=False)[0])


def test_masks_are_resized_by_the_nearest_pixel():
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    large = resize_mask(mask, (8, 18))
    assert np.array_equal(large, mask.repeat(2, axis=0).repeat(3, axis=1))
    assert np.array_equal(resize_mask(large, (4, 6)), mask)


def test_a_thin_mask_does_not_vanish():
    mask = np.zeros((100, 100), bool)
    mask[:, 3] = True  # between the pixels that are looked at
    small = resize_mask(mask, (10, 10))
    assert small[:, 0].all() and small.sum() == 10
    assert not resize_mask(np.zeros((100, 100), bool), (10, 10)).any()

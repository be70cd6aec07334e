"""Images are normalised and padded as GLEE saw them."""

import numpy as np
import pytest
import torch

from lookhear.processing.glee import GleeImageProcessor

pytestmark = pytest.mark.parity


def test_pixel_values(glee):
    stored = glee("detection")
    expected = stored["in.pixel_values"]
    pictures, known = [], []
    for index in range(len(expected)):
        shape = stored.shapes[f"in.image.{index}"]  # (3, h, w), every n-th value of which is stored
        key = next(name for name in stored.tensors if name.startswith(f"in.image.{index}"))
        step = int(key.partition("@step")[2] or 1)
        picture, is_known = np.zeros(np.prod(shape), np.uint8), np.zeros(np.prod(shape), bool)
        picture[::step], is_known[::step] = stored.tensors[key].flatten().numpy(), True
        pictures.append(picture.reshape(shape))
        known.append(torch.from_numpy(is_known.reshape(shape)))
    inputs = GleeImageProcessor(do_resize=False)(pictures, input_data_format="channels_first", return_tensors="pt")
    values, mask = inputs["pixel_values"], inputs["pixel_mask"]
    assert values.shape == expected.shape
    for row, is_known in enumerate(known):
        height, width = is_known.shape[1:]
        assert mask[row].sum() == mask[row, :height, :width].sum() == height * width
        assert torch.allclose(
            values[row, :, :height, :width][is_known], expected[row, :, :height, :width][is_known], atol=1e-6
        )
    outside = (mask == 0)[:, None].expand_as(values)
    assert not values[outside].any() and not expected[outside].any()

"""`GleeImageProcessor`: resizing, normalisation, padding, settings."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lookhear.processing.glee import GleeImageProcessor

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def processor() -> GleeImageProcessor:
    return GleeImageProcessor(size={"shortest_edge": 80, "longest_edge": 133})


def test_pixels_are_pillows(processor):
    image = picture(48, 64)
    inputs = processor(image, return_tensors="pt")
    values, mask = inputs["pixel_values"], inputs["pixel_mask"]
    assert values.shape == (1, 3, 96, 128) and values.dtype == torch.float32
    assert mask.shape == (1, 96, 128) and mask.dtype == torch.int64
    resized = np.asarray(Image.fromarray(image).resize((107, 80), Image.Resampling.BILINEAR))
    expected = (resized.astype(np.float32) - MEAN) / STD
    assert np.allclose(values[0, :, :80, :107].permute(1, 2, 0), expected, atol=2e-6)
    assert not values[0, :, 80:].any() and not values[0, :, :, 107:].any()
    assert mask[0, :80, :107].all() and mask.sum() == 80 * 107
    assert set(inputs) == set(processor.model_input_names) and inputs["own_labels"].tolist() == [1]
    assert set(processor([image], return_tensors="pt")) == {"pixel_values", "pixel_mask"}


def test_images_of_different_sizes_are_padded_to_one(processor):
    images = [picture(48, 64), picture(64, 48, seed=1), picture(20, 100, seed=2)]
    inputs = processor(images, return_tensors="np")
    assert inputs["pixel_values"].shape == (3, 3, 128, 160)
    sizes = [(int(mask[:, 0].sum()), int(mask[0].sum())) for mask in inputs["pixel_mask"]]
    assert sizes == [(80, 107), (107, 80), (27, 133)]
    for row, (image, (height, width)) in enumerate(zip(images, sizes)):
        alone = processor(image, return_tensors="np")["pixel_values"][0]
        assert np.array_equal(alone[:, :height, :width], inputs["pixel_values"][row, :, :height, :width])


def test_defaults_are_those_of_the_publication():
    inputs = GleeImageProcessor()(picture(48, 64), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 800, 1088)
    assert inputs["pixel_mask"][0, 0].sum() == 1067


def test_pro_pads_a_square_with_grey():
    processor = GleeImageProcessor.pro(pad_size={"height": 96, "width": 96}, size={"longest_edge": 96})
    inputs = processor([picture(48, 64), picture(10, 96, seed=1)], return_tensors="pt")
    assert inputs["pixel_values"].shape == (2, 3, 96, 96)
    assert inputs["pixel_mask"].sum(dim=(1, 2)).tolist() == [72 * 96, 10 * 96]
    grey = torch.from_numpy((128 - MEAN) / STD)
    assert torch.allclose(inputs["pixel_values"][0, :, 72:], grey[:, None, None], atol=2e-6)
    pro = GleeImageProcessor.pro()
    assert dict(pro.size) == {"shortest_edge": 1536, "longest_edge": 1536}
    assert dict(pro.pad_size) == {"height": 1536, "width": 1536} and pro.pad_value == 128


def test_settings_of_one_call(processor):
    image = picture(48, 64)
    raw = processor(image, do_resize=False, do_rescale=False, do_normalize=False, do_pad=False, return_tensors="np")
    assert np.array_equal(raw["pixel_values"][0], image.transpose(2, 0, 1))
    scaled = processor(image, do_resize=False, do_normalize=False, pad_value=255, pad_size_divisor=40)["pixel_values"]
    assert scaled.shape == (1, 3, 80, 80) and np.allclose(scaled[0, :, :48, :64], image.transpose(2, 0, 1) / 255)
    assert (scaled[0, :, 48:] == 1).all()
    small = processor(image, size={"shortest_edge": 24}, image_mean=[0.0] * 3, image_std=[1.0] * 3)["pixel_values"]
    assert small.shape == (1, 3, 32, 32)
    assert processor(image)["pixel_values"].shape == (1, 3, 96, 128)  # nothing stayed


def test_extreme_shapes_keep_at_least_a_pixel(processor):
    inputs = processor([picture(2, 600), picture(600, 2)], return_tensors="pt")
    assert inputs["pixel_mask"].sum(dim=(1, 2)).tolist() == [133, 133]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"images": []}, "images is empty"),
        ({"images": np.zeros((1, 1, 3))}, "images: item 0 is 1 x 1"),
        ({"images": np.full((9, 9, 3), np.nan)}, "images: item 0 has NaN"),
        (
            {"images": [picture(9, 9), picture(9, 8)], "do_pad": False, "do_resize": False},
            "images have different sizes",
        ),
        (
            {"images": picture(9, 40), "do_resize": False, "pad_size": {"height": 32, "width": 32}},
            "do not fit pad_size",
        ),
    ],
)
def test_wrong_images_are_refused(processor, arguments, words):
    with pytest.raises(ValueError, match=words):
        processor(**arguments)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": {"height": 8, "width": 8}}, "size must have shortest_edge or longest_edge"),
        ({"pad_size_divisor": 0}, "pad_size_divisor"),
        ({"pad_size": {"longest_edge": 9}}, "pad_size must have height and width"),
        ({"image_std": [1.0, 0.0, 1.0]}, "image_std"),
    ],
)
def test_wrong_settings_are_refused(processor, settings, words):
    with pytest.raises(ValueError, match=words):
        GleeImageProcessor(**settings)
    with pytest.raises(ValueError, match=words):
        processor(picture(9, 9), **settings)


@pytest.mark.parametrize("processor", [GleeImageProcessor(pad_size_divisor=64), GleeImageProcessor.pro()])
def test_save_and_load(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = GleeImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == "GleeImageProcessor" and saved["size"] == dict(processor.size)
    assert GleeImageProcessor.from_pretrained(tmp_path, do_resize=False).do_resize is False

"""Every kind of image becomes an upright 8-bit RGB picture, or one clear error."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lookhear.processing.glee.image_reading_glee import read_images


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    """(height, width, 3) uint8, no two pixels alike."""
    return np.random.default_rng(0).permutation(height * width * 3).reshape(height, width, 3).astype(np.uint8)


def read(image, **kwargs) -> np.ndarray:
    (result,) = read_images(image, **kwargs)
    assert result.mode == "RGB"
    return np.asarray(result)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> Image.Image:
    """The image as it comes out of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


def test_arrays_and_tensors_of_any_layout():
    rgb = picture()
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    alike = [rgb, planes, torch.from_numpy(planes), torch.from_numpy(rgb), rgb.astype(np.int64), Image.fromarray(rgb)]
    alike += [rgb / 255, torch.from_numpy(planes).float() / 255, rgb.astype(np.uint16) * 257]
    alike += [np.dstack([rgb, np.zeros((6, 8), np.uint8)])]  # alpha is dropped, even where it is 0
    for image in alike:
        assert np.array_equal(read(image), rgb)
    assert np.abs(read(torch.from_numpy(planes / 255).bfloat16()).astype(int) - rgb).max() <= 1


def test_grey_and_bool_arrays():
    grey = picture()[..., 0]
    for image in (grey, grey[..., None], grey[None], torch.from_numpy(grey)):
        assert np.array_equal(read(image), np.dstack([grey] * 3))
    assert read(grey > 100).max() == 255 and read(grey > 100).min() == 0


def test_where_channels_are_if_both_ends_could_be():
    array = picture(3, 3)
    assert np.array_equal(read(array), array)
    assert np.array_equal(read(torch.from_numpy(array)), array.transpose(1, 2, 0))
    assert np.array_equal(read(array, input_data_format="channels_first"), array.transpose(1, 2, 0))
    assert np.array_equal(read(torch.from_numpy(array), input_data_format="channels_last"), array)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr", "HSV"])
def test_modes_that_pil_converts(mode):
    image = Image.fromarray(picture()).convert(mode)
    assert np.array_equal(read(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_transparency_is_dropped(mode):
    image = Image.fromarray(picture()).convert(mode)
    opaque = np.asarray(image.convert("RGB"))
    if mode == "P":
        image.info["transparency"] = bytes(range(256))
    else:
        image.putalpha(7)
    assert np.array_equal(read(image), opaque)


def test_sixteen_bits_are_scaled():
    grey = np.array([[0, 257], [128 * 257 + 60, 65535]], np.uint16)
    expected = [[0, 1], [128, 255]]
    for image in (Image.fromarray(grey), encoded(Image.fromarray(grey)), Image.fromarray(grey.astype(np.int32)), grey):
        assert read(image)[..., 0].tolist() == expected
    assert read(Image.fromarray(grey.astype(np.float32) / 65535))[..., 0].tolist() == expected


def test_exif_orientation_turns_the_image():
    rgb = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the picture is at the right
    turned = encoded(Image.fromarray(rgb), exif=exif)
    assert np.array_equal(read(turned), np.rot90(rgb, -1))
    assert np.array_equal(read(read_images(turned)), np.rot90(rgb, -1))  # not twice


def test_lists_batches_and_paths(tmp_path):
    rgb = picture()
    Image.fromarray(rgb).save(tmp_path / "a.png")
    several = read_images([rgb, Image.fromarray(rgb), str(tmp_path / "a.png"), tmp_path / "a.png"])
    assert len(several) == 4 and all(np.array_equal(image, rgb) for image in several)
    assert len(read_images(np.stack([rgb] * 3))) == 3
    assert len(read_images(torch.zeros(2, 3, 5, 7))) == 2


def truncated(kind: str) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(file, kind)
    return Image.open(io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2]))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "is empty: pass at least one image"),
        (None, "item 0 must be a PIL image"),
        ([[np.zeros((4, 4, 3), np.uint8)]], "item 0 must be a PIL image, .* got list"),
        (np.zeros((1, 1, 3), np.uint8), "item 0 is 1 x 1 pixels: pass an image of at least 2 x 2"),
        ([picture(), Image.new("RGB", (9, 1))], "item 1 is 9 x 1 pixels"),
        (Image.new("RGB", (0, 4)), "item 0 is empty"),
        (np.zeros((0, 4, 3), np.uint8), "item 0 is empty"),
        (np.zeros((5, 6, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros(4, np.uint8), "must be \\(H, W\\)"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (Image.fromarray(np.full((4, 4), np.inf, np.float32)), "infinite"),
        (np.full((4, 4, 3), 127.5), "floats from 127.5 to 127.5: scale them to 0..1"),
        (np.full((4, 4, 3), -1), "integers from -1 to -1: scale them to 0..255"),
        (Image.fromarray(np.full((4, 4), 70000, np.int32)), "scale them to 0..65535"),
        (np.full((4, 4, 3), 1j), "complex"),
        (truncated("JPEG"), "item 0 cannot be decoded: the file is damaged or cut short"),
        (truncated("PNG"), "item 0 cannot be decoded"),
        ("no_such_file.jpg", "item 0 cannot be opened as an image: no_such_file.jpg"),
    ],
)
def test_what_is_no_image_is_refused(images, words):
    with pytest.raises(ValueError, match=f"^images.*{words}") as raised:
        read_images(images)
    assert "\n" not in str(raised.value)

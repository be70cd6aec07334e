"""Pictures: from a JPEG file to what GLEE sees, beside Pillow's own decoding and resizing.

    python benchmarks/pictures.py [--repeat 7]

Pillow: `Image.open`, upright, `resize` to the size of the network's picture. Ours: `read_image`, then the image
processor, which resizes as well and also normalises and pads the picture as float32. The pictures are made here; the
last is stored lying and turned by its EXIF orientation, as telephones do. Processor time, the least of turns in which
both take part; half a minute.
"""

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps

from lookhear import GleeImageProcessor
from lookhear.processing.glee import read_image

SIZES = {"640x480": (640, 480), "1920x1080": (1920, 1080), "4000x3000": (4000, 3000)}
TURNED = "4000x3000, turned"
LYING = 6  # EXIF: to be turned by 90 degrees


def make_jpeg(size: tuple[int, int], orientation: int = 1) -> bytes:
    """Makes a JPEG of smooth colours with grain, at quality 90: about a quarter of a byte for each pixel."""
    random = np.random.default_rng(0)
    patches = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    colours = patches.resize(size, Image.Resampling.BICUBIC)
    grain = random.integers(-6, 7, (size[1], size[0], 1), dtype=np.int16)
    pixels = np.clip(np.asarray(colours) + grain, 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90, exif=exif)
    return file.getvalue()


def by_pillow(jpeg: bytes, size: tuple[int, int], resample: int) -> None:
    """Decodes the picture, turns it upright, and resizes it to (width, height)."""
    image = Image.open(io.BytesIO(jpeg))
    ImageOps.exif_transpose(image, in_place=True)
    image.resize(size, resample)  # it is RGB


def least(calls: list[Callable[[], object]], repeat: int) -> list[float]:
    """Returns the least processor seconds of each call; they take turns, after one that isn't counted."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(repeat + 1):
        for call, spent in zip(calls, seconds):
            started = time.process_time()
            call()
            if turn:
                spent.append(time.process_time() - started)
    return [min(spent) for spent in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7, help="turns (7)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    processor = GleeImageProcessor()
    files = {name: make_jpeg(size) for name, size in SIZES.items()}
    files[TURNED] = make_jpeg(SIZES["4000x3000"], LYING)
    print("| picture | Pillow, ms | read_image, ms | read_image and processor, ms | times Pillow's |")
    print("|---|---:|---:|---:|---:|")
    for name, jpeg in files.items():
        image = read_image(jpeg)
        seen = processor(image, return_tensors="pt", do_pad=False)["pixel_values"]  # (1, 3, height, width)
        size = seen.shape[-1], seen.shape[-2]
        calls = [
            lambda jpeg=jpeg, size=size: by_pillow(jpeg, size, processor.resample),
            lambda jpeg=jpeg: read_image(jpeg),
            lambda jpeg=jpeg: processor(read_image(jpeg), return_tensors="pt"),
        ]
        pillow, read, all_of_it = least(calls, options.repeat)
        figures = " | ".join(f"{1000 * seconds:.0f}" for seconds in (pillow, read, all_of_it))
        print(f"| {name} | {figures} | {all_of_it / pillow:.2f} |", flush=True)


if __name__ == "__main__":
    main()

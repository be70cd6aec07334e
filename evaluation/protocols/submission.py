"""Files as evaluation servers want them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lookhear.evaluation.whole_files import whole_file


def write_json(path: Path, content: Any) -> Path:
    """Writes a JSON file, whole or not at all."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        json.dump(content, file)
    return path


def write_json_list(path: Path, entries: Iterable[Any]) -> Path:
    """Writes a JSON list, whole or not at all, without holding it in memory."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, entry in enumerate(entries):
            file.write((",\n" if number else "") + json.dumps(entry))
        file.write("]\n")
    return path


def zip_file(path: Path, file: Path) -> Path:
    """Writes a zip with one file in it, without a folder."""
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(file, file.name)
    return path


def zip_pictures(path: Path, pictures: Iterable[tuple[str, np.ndarray]]) -> Path:
    """
    Writes a zip of PNG files.

    Args:
        pictures: name in the zip, and `(height, width)`: uint8, the number of an object in each pixel, 0 for none,
            drawn with DAVIS' palette; or bool, drawn in black and white.
    """
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, numbers in pictures:
            image, buffer = (
                Image.fromarray(numbers.astype(np.uint8) * (255 if numbers.dtype == bool else 1)),
                BytesIO(),
            )
            if numbers.dtype != bool:
                image.putpalette(davis_palette())  # makes it mode P
            image.save(buffer, "PNG")
            archive.writestr(name, buffer.getvalue())
    return path


def davis_palette() -> list[int]:
    """Returns 256 colours: each three bits of a number go to red, green and blue, the lowest bits as the strongest."""
    palette = []
    for number in range(256):
        colour = [0, 0, 0]
        for shift in range(8):
            for channel in range(3):
                colour[channel] |= (number >> (3 * shift + channel) & 1) << (7 - shift)
        palette += colour
    return [value & 255 for value in palette]

"""Where the pictures go on which results are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .shared_options import result_name

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def overlay_paths(files: Sequence[str], out: Path | None, each: int = 1) -> list[Path] | None:
    """
    Names the overlays of images: `--out` itself, or in that folder NAME.png, or NAME-1.png, NAME-2.png, …

    Args:
        files: the images.
        out: `--out`; None for no overlays.
        each: overlays of each image.

    Returns:
        `each` paths for each image in turn; None without `--out`.

    Raises:
        ValueError: `out` has the ending of no picture, is a file where a folder is needed, or an image or another
            overlay would be overwritten.
    """
    if out is None:
        return None
    folder = len(files) * each > 1 or out.is_dir() or not out.suffix
    if folder and (out.is_file() or out.suffix.lower() in PICTURES):
        several = "images" if len(files) > 1 else "overlays"
        raise ValueError(f"--out {out}: several {several} need a folder")
    if not folder and out.suffix.lower() not in PICTURES:
        raise ValueError(f"--out {out}: the ending must be one of {', '.join(PICTURES)}")
    numbers = [f"-{number}" for number in range(1, each + 1)] if each > 1 else [""]
    pictures = [out / f"{result_name(file)}{number}.png" for file in files for number in numbers] if folder else [out]
    for picture in pictures:
        if pictures.count(picture) > 1:
            raise ValueError(f"two images would both be drawn to {picture}; rename one")
        for file in files:
            if picture.exists() and Path(file).exists() and picture.samefile(file):
                raise ValueError(f"--out would overwrite the image {file}")
    return pictures

"""The first picture of an upload, whether the upload is a video, and pictures for the page."""

from __future__ import annotations

import base64
import contextlib
import io
import secrets
from pathlib import Path

from PIL import Image

from lookhear.processing.avsr import read_frames
from lookhear.processing.glee import is_video_source, read_image


def is_video(path: str) -> bool:
    """Returns whether a file is a video, by its ending or its first bytes."""
    return is_video_source(path)


def private_name(path: str) -> str:
    """Returns a name for a result that cannot be guessed, as Gradio gives a file to all who know its path."""
    return f"{Path(path).stem}-{secrets.token_hex(8)}"


def first_picture(path: str) -> Image.Image:
    """
    Reads a picture, or the first frame of a video; upright, as both pipelines see it.

    Raises:
        ValueError: it cannot be read.
    """
    if not is_video(path):
        return read_image(path)
    with contextlib.closing(read_frames(path)) as frames:
        frame = next(frames, None)
    if frame is None:
        raise ValueError("The file has sound only, no pictures.")
    return Image.fromarray(frame)


def as_data_url(picture: Image.Image) -> str:
    """Encodes a picture as a JPEG in a data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"

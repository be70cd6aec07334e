"""What counts as a video, and opening it: a file, an address, bytes, an array, or pictures that are said to be its frames."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image

from .image_source_glee import VIDEO_ENDINGS, is_video, source_name
from .video_frames_glee import PictureVideo
from .video_media_glee import MediaVideo

Video = MediaVideo | PictureVideo

BEGINNING = 16  # bytes that tell a video file


def is_video_source(inputs: Any) -> bool:
    """
    Whether inputs of the pipeline are one video rather than images.

    A video is `{"video": …}`; a path or URL with a video's ending; a file, bytes, or a file object that can seek with a
    video's first bytes; a folder; an array or tensor `(frames, …)` of four axes. Whatever else is images, as a list or a
    generator of pictures is, unless it is given as `{"video": …}`.
    """
    if isinstance(inputs, Mapping):
        return "video" in inputs
    if isinstance(inputs, (np.ndarray, torch.Tensor)):
        return inputs.ndim == 4
    if isinstance(inputs, (bytes, bytearray, memoryview)):
        return is_video(bytes(inputs[:BEGINNING]))
    if isinstance(inputs, (str, os.PathLike)):
        return _is_video_path(os.fsdecode(inputs))
    if hasattr(inputs, "read") and hasattr(inputs, "seekable") and inputs.seekable():
        place = inputs.tell()
        beginning = inputs.read(BEGINNING)
        inputs.seek(place)
        return isinstance(beginning, bytes) and is_video(beginning)
    return False


def _is_video_path(path: str) -> bool:
    if path.lower().startswith(("http://", "https://")):
        return Path(urlsplit(path).path).suffix.lower() in VIDEO_ENDINGS
    try:
        if os.path.isdir(path) or Path(path).suffix.lower() in VIDEO_ENDINGS:
            return True
        if not os.path.isfile(path):  # a pipe must not be opened for a look
            return False
        with open(path, "rb") as file:
            return is_video(file.read(BEGINNING))
    except (OSError, ValueError):  # whoever reads it will say what is wrong
        return False


def open_video(source: Any, fps: float | None = None) -> Video:
    """
    Opens a video.

    Args:
        source: path, http(s) URL, bytes, binary file object; folder of numbered pictures; array or tensor
            `(frames, height, width, 3)`; list, generator or data set of PIL images or arrays.
        fps: frames a second of a folder, an array or pictures; files know their own.

    Raises:
        ValueError: it cannot be read, is no video, or has no frames.
    """
    name = source_name(source)
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < float("inf")):
        raise ValueError(f"`fps` must be a positive number, not {fps!r}.")
    if isinstance(source, (np.ndarray, torch.Tensor)):
        if source.ndim != 4 or not len(source):
            raise ValueError(f"`inputs`: {name} must be (frames, height, width, 3) with at least one frame.")
        return PictureVideo((source[index] for index in range(len(source))), name, fps, len(source))
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        return PictureVideo.of_folder(Path(os.fsdecode(source)), name, fps)
    if isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(source, "read"):
        if fps is not None:
            raise ValueError(f"`fps` is for pictures without times; {name} is a file that has its own.")
        return MediaVideo(source, name)
    if isinstance(source, Image.Image) or not (isinstance(source, Iterable) or hasattr(source, "__getitem__")):
        raise ValueError(
            f"`inputs`: {name} is no video: pass a path, a URL, bytes, a folder, an array (frames, height, width, 3), or "
            "pictures one after the other."
        )
    count = len(source) if isinstance(source, (list, tuple)) else None
    if count == 0:
        raise ValueError("`inputs`: the video has no frames.")
    return PictureVideo(source, "the video", fps, count)

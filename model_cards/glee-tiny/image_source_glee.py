"""Opening pictures: path, http(s) URL, bytes, file object, PIL image or array; whatever cannot be read is one ValueError."""

import io
import os
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image

from .image_reading_glee import read_images

ImageSource = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | torch.Tensor

MAX_DOWNLOAD_BYTES = 256 << 20  # a picture larger than this is refused
MAX_DOWNLOAD_SECONDS = 600.0  # and one that takes longer than this
DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte
VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")  # pictures in mp4's container


def read_image(source: ImageSource) -> Image.Image:
    """
    The picture of a source, in RGB and upright.

    Args:
        source: path, http(s) URL, bytes of a file, binary file object, PIL image, or array or tensor as `read_images`
            takes it.

    Raises:
        ValueError: there is no such file, it is no picture, it is broken, too large, or a video; or the pixels are not
            what `read_images` takes. The message names the source.
    """
    name = source_name(source)
    if not isinstance(source, (Image.Image, np.ndarray, torch.Tensor)):
        source = _opened(_content(source, name), name)
    elif not isinstance(source, Image.Image) and source.ndim == 4:
        raise ValueError(
            f"`inputs`: {name} holds several pictures: pass them as a list, or by themselves as the frames of a video."
        )
    try:
        return read_images(source)[0]
    except ValueError as error:
        raise ValueError(f"`inputs`: {str(error).replace('images: item 0', name)}") from None


def source_name(source: Any) -> str:
    """How messages call a source: its path or URL, the name of a file object, or its size."""
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return f"<array {tuple(source.shape)}>"
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return repr(name) if isinstance(name, str) and name else f"<{type(source).__name__}>"


def is_video(content: bytes) -> bool:
    """Whether a file begins like a video's: MP4 and MOV, Matroska and WebM, AVI, MPEG."""
    if content[4:8] == b"ftyp":
        return content[8:12] not in PICTURE_BRANDS
    return content[:4] in (b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3") or (
        content[:4] == b"RIFF" and content[8:12] == b"AVI "
    )


def _no_video(name: str) -> ValueError:
    return ValueError(f'`inputs`: {name} is a video, not an image: pass one video by itself, or as {{"video": …}}.')


def _opened(content: bytes, name: str) -> Image.Image:
    """Reads all pixels, so that a broken file fails here, with its name."""
    if not content:
        raise ValueError(f"`inputs`: {name} is empty.")
    if is_video(content):
        raise _no_video(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
            image.load()
            return image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"`inputs`: {name} has more than {Image.MAX_IMAGE_PIXELS} pixels: make it smaller.") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"`inputs`: {name} is no picture of a kind that Pillow reads.") from None
    except Exception as error:  # decoders raise whatever they like: OSError, SyntaxError, struct.error, ...
        reason = error or type(error).__name__
        raise ValueError(f"`inputs`: {name} is broken and cannot be decoded ({reason}).") from None


def _content(source: Any, name: str) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        return _download(source, name)
    if isinstance(source, (str, os.PathLike)):
        return _file(Path(os.fsdecode(source)), name)
    if hasattr(source, "read"):
        content = source.read(MAX_DOWNLOAD_BYTES + 1)
        if isinstance(content, str):
            raise ValueError(f"`inputs`: {name} is open as text: open it with mode 'rb'.")
        return content
    raise ValueError(
        f"`inputs`: {name} is no image: pass a path, a URL, bytes, a PIL image, an array, or a list of those."
    )


def _file(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            raise ValueError(f"`inputs`: {name} is a folder, not an image.")
        if not path.exists():
            raise ValueError(f"`inputs`: {name} does not exist.")
        if path.suffix.lower() in VIDEO_ENDINGS:
            raise _no_video(name)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and str(error).startswith("`inputs`"):
            raise
        raise ValueError(f"`inputs`: {name} cannot be opened: {getattr(error, 'strerror', None) or error}.") from None


def _download(url: str, name: str) -> bytes:
    content = io.BytesIO()
    fetch(url, name, content, MAX_DOWNLOAD_BYTES, MAX_DOWNLOAD_SECONDS)
    return content.getvalue()


def fetch(url: str, name: str, target: BinaryIO, most_bytes: int, most_seconds: float) -> None:
    """
    Writes what an http(s) address gives.

    Args:
        name: how messages call it; target: a binary file.

    Raises:
        ValueError: no answer within 30 s, an error status, or more than `most_bytes` or `most_seconds`.
    """
    received, began = 0, monotonic()
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as answer:
            if not answer.geturl().lower().startswith(("http://", "https://")):
                raise ValueError(f"it leads away from http(s) to {answer.geturl()!r}")
            while block := answer.read(1 << 20):
                target.write(block)
                received += len(block)
                if received > most_bytes:
                    raise ValueError(f"it is larger than {most_bytes} bytes")
                if monotonic() - began > most_seconds:
                    raise ValueError(f"it takes longer than {most_seconds:.0f} s")
    except urllib.error.HTTPError as error:
        raise ValueError(
            f"`inputs`: {name} cannot be fetched: the server answers {error.code} {error.reason}."
        ) from None
    except Exception as error:  # URLError, timeouts, broken addresses, http.client's own
        reason = getattr(error, "reason", None) or error
        raise ValueError(f"`inputs`: {name} cannot be fetched: {reason or type(error).__name__}.") from None

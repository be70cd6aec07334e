"""Reads pictures from files, URLs, bytes, PIL, numpy or torch as upright 8-bit RGB; raises ValueError for those that
cannot be read."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers.image_utils import ChannelDimension

ORIENTATION = 0x0112  # EXIF's tag
SMALLEST_SIDE = 2  # pixels; an image of one pixel has no shape
NUMERIC_MODES = ("I", "F")  # and "I;16", "I;16B", ...: PIL would clip their values if it converted them to RGB

ImageSource = str | os.PathLike | bytes | bytearray | memoryview | IO[bytes] | Image.Image | np.ndarray | torch.Tensor

MAX_DOWNLOAD_BYTES = 256 << 20  # a larger picture is refused
MAX_DOWNLOAD_SECONDS = 600.0  # and so is one whose download takes longer
DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte
VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
# Formats that Pillow decodes itself: others start programs (EPS) or open further files.
PICTURE_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MOST_PAGES = 10_000  # of a TIFF; Pillow's time for each page grows with those before it
SEVERAL = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")  # formats in which a file may hold several pictures
BEGINNINGS = (b"GIF8", b"RIFF", b"\x89PNG", b"II*\0", b"MM\0*")  # of such files; AVIF has `PICTURE_BRANDS`
PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")  # pictures in mp4's container


@dataclass(frozen=True)
class PictureLimits:
    """
    How large the pictures of files may be; larger ones are refused before they are decoded.

    Attributes:
        max_pixels: width times height.
        max_side: width or height, in pixels.
    """

    max_pixels: int = 89_478_485  # above which Pillow warns of a bomb
    max_side: int = 65_535  # JPEG's

    def check(self, width: int, height: int) -> None:
        """
        Checks the size of a picture.

        Args:
            width: in pixels.
            height: in pixels.

        Raises:
            TooLargeError: it is too large; the message is a predicate.
        """
        for name, value, most in (
            ("max_side", max(width, height), self.max_side),
            ("max_pixels", width * height, self.max_pixels),
        ):
            if value > most:
                raise TooLargeError(
                    f"has {width} x {height} pixels, and `{name}` allows {most}: make it smaller, or pass a larger "
                    f"`{name}`"
                )


class TooLargeError(ValueError):
    """A picture that is larger than `PictureLimits` allow."""


PICTURE_LIMITS = PictureLimits()


def open_picture(file: Any, limits: PictureLimits = PICTURE_LIMITS) -> Image.Image:
    """
    Opens a picture in one of `PICTURE_FORMATS`; its pixels are not decoded yet.

    Args:
        file: path, or seekable binary file object.
        limits: how large it may be.

    Raises:
        TooLargeError: it is too large.
        OSError: it cannot be read, or is in another format.
    """
    Image.init()  # some formats depend on how Pillow was built, and on plugins
    image = Image.open(file, formats=[name for name in PICTURE_FORMATS if name in Image.OPEN])
    try:
        limits.check(*image.size)
    except TooLargeError:
        image.close()
        raise
    return image


def read_images(
    images: Any,
    input_data_format: str | ChannelDimension | None = None,
    limits: PictureLimits = PICTURE_LIMITS,
    copy: bool = True,
) -> list[Image.Image]:
    """
    Reads one image or several as a list of upright RGB pictures.

    Files and PIL images of any mode are rotated by their EXIF orientation. An alpha channel is dropped, as in
    transformers' `load_image`. Arrays have one, three or four (alpha) channels, first or last, or no channel axis.
    Values are bool; 8 bits, in any integer type; 16 bits in `uint16` or in PIL's modes "I;16" and "I", where 65535 is
    white; or floats from 0 (black) to 1 (white).

    A file of several pictures, such as an animated GIF, is refused; of an opened `PIL.Image.Image` the current one is
    taken.

    Args:
        images: a path, a URL, a `PIL.Image.Image`, an array or tensor `(H, W)`, `(H, W, C)` or `(C, H, W)`; a list of
            those, or one array `(N, ...)` of them.
        input_data_format: whether arrays have their channels first or last; by default, if both are possible, last in
            numpy's arrays and first in tensors.
        limits: how large the pictures of files may be.
        copy: whether PIL images that are upright RGB already are copied, or returned as they are.

    Raises:
        ValueError: `images` is empty, or one of them is damaged, smaller than 2 x 2 pixels, has NaN or values out of
            range, or is no image. The message says which.
    """
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        images = list(images)
    items = list(images) if isinstance(images, (list, tuple)) else [images]
    if not items:
        raise ValueError("images is empty: pass at least one image")
    return [
        _read_image(item, f"images: item {index}", input_data_format, limits, copy) for index, item in enumerate(items)
    ]


def _read_image(
    item: Any,
    name: str,
    input_data_format: str | ChannelDimension | None,
    limits: PictureLimits,
    copy: bool = True,
    ours: bool = False,
) -> Image.Image:
    """Reads one image of any kind as an RGB picture; `copy` and `ours` as in `_from_pil`."""
    if isinstance(item, (str, os.PathLike)):
        item, ours = _open(item, name, limits), True
    if isinstance(item, Image.Image):
        picture = _from_pil(item, name, copy and not ours, ours)
    elif isinstance(item, (np.ndarray, torch.Tensor)):
        picture = _from_array(_as_numpy(item), name, _channel_axis(item, name, input_data_format))
    else:
        raise ValueError(f"{name} must be a PIL image, an array, a tensor or a path, got {type(item).__name__}")
    if min(picture.size) < SMALLEST_SIDE:
        raise ValueError(
            f"{name} is {picture.width} x {picture.height} pixels: pass an image of at least "
            f"{SMALLEST_SIDE} x {SMALLEST_SIDE}"
        )
    return picture


def _open(path: str | os.PathLike, name: str, limits: PictureLimits) -> Image.Image:
    """Opens the image at a path, at a URL, or in base64 text."""
    try:
        opened = open_picture(path if os.path.isfile(path) else io.BytesIO(_from_text(os.fspath(path))), limits)
        if (count := count_pictures(opened)) == 1:
            return opened
        opened.close()
    except TooLargeError as error:
        raise ValueError(f"{name} {error}: {str(path)[:200]}") from None
    except Exception as error:  # PIL and base64 raise many kinds for a broken file or text
        raise ValueError(f"{name} cannot be opened as an image: {str(path)[:200]} ({_first_line(error)})") from error
    raise ValueError(f"{name} holds {count} pictures: {str(path)[:200]}; pass the one you mean as a PIL image")


def _from_text(text: str) -> bytes:
    """Returns the content that a URL names, or that a text in base64 is."""
    if text.lower().startswith(("http://", "https://")):
        return _download(text, "it")
    encoded = text.partition(",")[2] if text.startswith("data:image/") else text
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError:
        raise ValueError("there is no such file, and it is neither a URL nor base64 text") from None


def has_several(image: Image.Image) -> bool:
    """Returns whether an opened file holds several pictures; layers, previews and the like don't count."""
    return image.format in SEVERAL and bool(getattr(image, "is_animated", False))


def count_pictures(image: Image.Image) -> int:
    """
    Counts the pictures of an opened file: those of an animation, or the pages of a TIFF.

    Args:
        image: at its first picture, where it stays.

    Raises:
        TooLargeError: it is a TIFF of more than `MOST_PAGES`.
    """
    if not has_several(image):
        return 1
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1)
    count = 1
    with contextlib.suppress(EOFError):
        while count <= MOST_PAGES:
            image.seek(count)
            count += 1
    image.seek(0)
    if count > MOST_PAGES:
        raise TooLargeError(f"has more than {MOST_PAGES} pages: split it")
    return count


def _from_pil(image: Image.Image, name: str, copy: bool, ours: bool = False) -> Image.Image:
    """
    Converts a PIL image of any mode to an upright RGB picture.

    A copy of 12 megapixels takes a fifth of the time in which a JPEG file of them is decoded.

    Args:
        image: to be converted.
        name: name used in error messages.
        copy: whether one that is upright RGB already is copied.
        ours: whether only this module knows the image, so that it may be turned in its place.

    Raises:
        ValueError: it is empty or cannot be decoded, or its values are out of range.
    """
    if 0 in image.size:
        raise ValueError(f"{name} is empty: {image.width} x {image.height} pixels")
    try:
        image.load()  # decoders raise many kinds of errors
        if ours:
            ImageOps.exif_transpose(image, in_place=True)
        elif image.getexif().get(ORIENTATION, 1) != 1:
            image, copy = ImageOps.exif_transpose(image), False
        if image.mode in NUMERIC_MODES or image.mode.startswith("I;16"):
            values = np.asarray(image)
        elif image.mode == "RGB":
            return image.copy() if copy else image
        else:
            return image.convert("RGBA").convert("RGB") if image.mode in ("P", "PA") else image.convert("RGB")
    except Exception as error:  # as above: decoders raise many kinds
        raise ValueError(
            f"{name} cannot be decoded: the file is damaged or cut short ({_first_line(error)})"
        ) from error
    if image.mode != "F":
        values = _narrowed(values, 0, 65535, np.uint16, name)
    return _from_array(values, name, None)


def _from_array(array: np.ndarray, name: str, channel_axis: int | None) -> Image.Image:
    """Converts an array (H, W), (H, W, C) or (C, H, W) of any dtype to a picture."""
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}")
    values = _as_bytes(array, name)
    if channel_axis is not None:
        values = np.moveaxis(values, channel_axis, -1)[..., :3]  # (H, W, 1 or 3), without alpha
        values = values[..., 0] if values.shape[-1] == 1 else values
    return Image.fromarray(np.ascontiguousarray(values)).convert("RGB")


def _as_bytes(array: np.ndarray, name: str) -> np.ndarray:
    """Converts values of any dtype to uint8, 0 to 255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    if np.issubdtype(array.dtype, np.integer):
        return _narrowed(array, 0, 255, np.uint8, name)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} must hold bool, integers or floats, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite values: replace them before")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"{name} has floats from {array.min():.4g} to {array.max():.4g}: scale them to 0..1, or pass uint8"
        )
    return np.rint(array * 255).astype(np.uint8)


def _narrowed(array: np.ndarray, low: int, high: int, dtype: type, name: str) -> np.ndarray:
    """Converts integers to a smaller type that holds `low` to `high`."""
    if array.min() < low or array.max() > high:
        raise ValueError(f"{name} has integers from {array.min()} to {array.max()}: scale them to {low}..{high}")
    return array.astype(dtype)


def _as_numpy(array: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu()
    return (array.float() if array.is_floating_point() else array).numpy()  # numpy has no bfloat16


def _channel_axis(
    array: np.ndarray | torch.Tensor, name: str, input_data_format: str | ChannelDimension | None
) -> int | None:
    """Finds the axis of the one, three or four channels: 0, -1, or None for (H, W)."""
    shape = tuple(array.shape)
    if len(shape) == 2:
        return None
    if len(shape) == 3:
        if input_data_format is not None:
            order = [0 if ChannelDimension(input_data_format) == ChannelDimension.FIRST else -1]
        else:
            order = [0, -1] if isinstance(array, torch.Tensor) else [-1, 0]
        for axis in order:
            if shape[axis] in (1, 3, 4):
                return axis
    raise ValueError(f"{name} must be (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, got {shape}")


def _first_line(error: Exception) -> str:
    """Shortens an error's message to one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# ------------------------------------------------------------------------------------------ one picture, from anywhere


def read_image(source: ImageSource, alone: bool = False, limits: PictureLimits = PICTURE_LIMITS) -> Image.Image:
    """
    Reads one picture, in RGB and upright.

    Args:
        source: path, http(s) URL, bytes of a file, binary file object, PIL image, or array or tensor as `read_images`
            takes it.
        alone: whether a file of several pictures, such as an animated GIF, is refused; else the first is taken.
        limits: how large the picture of a file may be.

    Raises:
        ValueError: there is no such file, it is no picture, it is broken, too large, or a video; it holds several
            pictures, and `alone` is set; or `read_images` refuses its pixels. The message names the source.
    """
    name = source_name(source)
    if ours := not isinstance(source, (Image.Image, np.ndarray, torch.Tensor)):
        source = _opened(_content(source, name), name, alone, limits)
    elif not isinstance(source, Image.Image) and source.ndim == 4:
        raise ValueError(
            f"`inputs`: {name} holds several pictures: pass them as a list, or by themselves as the frames of a video."
        )
    try:
        return _read_image(source, name, None, limits, ours=True) if ours else read_images(source)[0]
    except ValueError as error:
        raise ValueError(f"`inputs`: {str(error).replace('images: item 0', name)}") from None


@dataclass(frozen=True)
class ReadPicture:
    """
    A picture that was read elsewhere, as large as the network sees it.

    Attributes:
        pixels: `(height, width, 3)` uint8, resized.
        size: (height, width) of the picture itself.
    """

    pixels: np.ndarray
    size: tuple[int, int]

    @property
    def height(self) -> int:
        return self.size[0]

    @property
    def width(self) -> int:
        return self.size[1]


def source_name(source: Any) -> str:
    """Names a source in error messages: its path or URL, the name of a file object, or its size."""
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return f"<array {tuple(source.shape)}>"
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return repr(name) if isinstance(name, str) and name else f"<{type(source).__name__}>"


def is_video(content: bytes) -> bool:
    """Returns whether a file begins like a video's: MP4 and MOV, Matroska and WebM, AVI, MPEG."""
    if content[4:8] == b"ftyp":
        return content[8:12] not in PICTURE_BRANDS
    return content[:4] in (b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3") or (
        content[:4] == b"RIFF" and content[8:12] == b"AVI "
    )


def is_animation(source: Any) -> bool:
    """
    Returns whether a file holds several pictures, as animated GIFs and WebPs do.

    Args:
        source: path, bytes, or seekable binary file object, which stays where it is.
    """
    place = source.tell() if hasattr(source, "tell") else None
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            source = io.BytesIO(source)
        with contextlib.ExitStack() as opened:
            file = source if hasattr(source, "read") else opened.enter_context(open(source, "rb"))
            start = file.read(12)
            file.seek(-len(start), os.SEEK_CUR)
            if not (start.startswith(BEGINNINGS) or start[8:12] in PICTURE_BRANDS):
                return False
            return has_several(open_picture(io.BytesIO(file.read()) if place else file))
    except Exception:  # the reader of the file reports the error
        return False
    finally:
        if place is not None:
            source.seek(place)


def _no_video(name: str) -> ValueError:
    return ValueError(f'`inputs`: {name} is a video, not an image: pass one video by itself, or as {{"video": …}}.')


def _opened(content: bytes, name: str, alone: bool, limits: PictureLimits) -> Image.Image:
    """Reads all pixels, so that a broken file fails here, with its name."""
    if not content:
        raise ValueError(f"`inputs`: {name} is empty.")
    if is_video(content):
        raise _no_video(name)
    try:
        with warnings.catch_warnings():
            usual = limits.max_pixels <= PICTURE_LIMITS.max_pixels
            warnings.simplefilter("error" if usual else "ignore", Image.DecompressionBombWarning)
            image = open_picture(io.BytesIO(content), limits)
            count = count_pictures(image) if alone else 1
            if count == 1:
                image.load()
                return image
    except TooLargeError as error:
        raise ValueError(f"`inputs`: {name} {error}.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(
            f"`inputs`: {name} has more than {Image.MAX_IMAGE_PIXELS} pixels: make it smaller, or raise `max_pixels` "
            "and Pillow's own bound, PIL.Image.MAX_IMAGE_PIXELS."
        ) from None
    except Image.UnidentifiedImageError:
        kinds = ", ".join(PICTURE_FORMATS)
        raise ValueError(f"`inputs`: {name} is no picture in a format that is read ({kinds}).") from None
    except Exception as error:  # decoders raise many kinds: OSError, SyntaxError, struct.error, ...
        reason = error or type(error).__name__
        raise ValueError(f"`inputs`: {name} is broken and cannot be decoded ({reason}).") from None
    raise ValueError(
        f'`inputs`: {name} holds {count} pictures: pass it by itself, as {{"video": …}}, to follow it or, with '
        "frames='each' (--each), to look at one after the other; frames='first' (--frames first) looks at the first."
    )


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


def fetch(url: str, name: str, target: IO[bytes], most_bytes: int, most_seconds: float) -> None:
    """
    Downloads a file from an http(s) URL.

    Args:
        url: of the file.
        name: name used in error messages.
        target: binary file that the content is written to.
        most_bytes: maximum size.
        most_seconds: maximum duration of the download.

    Raises:
        ValueError: no answer within 30 s, an error status, or more than `most_bytes` or `most_seconds`.
    """
    received, began = 0, monotonic()
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as answer:
            if not answer.geturl().lower().startswith(("http://", "https://")):
                raise ValueError(f"it redirects from http(s) to {answer.geturl()!r}")
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

"""Opening pictures: every kind of source gives the same pixels, and whatever cannot be read is one ValueError."""

import base64
import io
import struct
import threading
import zlib
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from lookhear.processing.glee import image_reading_glee
from lookhear.processing.glee.image_reading_glee import (
    PictureLimits,
    count_pictures,
    is_animation,
    is_video,
    open_picture,
    read_image,
    read_images,
)
from lookhear.processing.glee.video_reading_glee import AnimatedVideo


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def server(pixels):
    """http://127.0.0.1:PORT with /good.png, /page.html, and /away, which leads to a file."""
    answers = {"/good.png": encoded(pixels), "/page.html": b"<html>no picture</html>"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", "file:///etc/hostname")
                self.end_headers()
                return
            content = answers.get(self.path.split("?")[0])
            self.send_response(200 if content else 404)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_every_source_gives_the_same_picture(pixels, server, tmp_path):
    content = encoded(pixels)
    path = tmp_path / "picture.without-a-known-ending"
    path.write_bytes(content)
    sources = [str(path), path, content, bytearray(content), memoryview(content), io.BytesIO(content)]
    sources += [Image.fromarray(pixels), pixels, torch.from_numpy(pixels.transpose(2, 0, 1).copy())]
    sources += [server + "/good.png?size=full", Image.open(path), open(path, "rb")]
    for source in sources:
        picture = read_image(source)
        assert picture.mode == "RGB" and np.array_equal(np.asarray(picture), pixels), source


def test_pictures_are_turned_upright(pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    assert read_image(encoded(pixels, exif=exif.tobytes())).size == (24, 32)


def test_the_first_picture_of_an_animation(pixels):
    buffer = io.BytesIO()
    frames = [Image.fromarray(array) for array in (pixels, 255 - pixels)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(np.asarray(read_image(buffer.getvalue())), pixels)


def broken(pixels: np.ndarray) -> dict[str, bytes]:
    jpeg = encoded(np.kron(pixels, np.ones((8, 8, 1), np.uint8)), "JPEG")
    return {
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": encoded(pixels)[:300],
        "text.jpg": b"this is no picture",
        "empty.jpg": b"",
        "page.html": b"<html></html>",
    }


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png", "text.jpg", "empty.jpg", "page.html"])
def test_broken_files_are_named(pixels, tmp_path, name):
    (tmp_path / name).write_bytes(broken(pixels)[name])
    with pytest.raises(ValueError, match=rf"^`inputs`: .*{name}") as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^`inputs`: <\d+ bytes>"):
        read_image(broken(pixels)[name])


def test_what_is_no_file_is_named(tmp_path):
    for source, reason in (
        (tmp_path / "missing.jpg", "missing.jpg.* does not exist"),
        (tmp_path, "is a folder"),
        ("", "is a folder|does not exist"),
        ("nul\0byte.jpg", "cannot be opened|does not exist"),
        (3, "<int> is no image"),
        (None, "<NoneType> is no image"),
        (io.StringIO("text"), "open as text"),
    ):
        with pytest.raises(ValueError, match=f"^`inputs`: .*({reason})"):
            read_image(source)


def test_pixels_that_are_not_are_named():
    nan = np.full((8, 8, 3), np.nan, np.float32)
    for array, reason in (
        (nan, "NaN"),
        (np.zeros((1, 1, 3), np.uint8), "1 x 1"),
        (np.zeros((0, 8, 3), np.uint8), "empty"),
        (np.zeros((8, 8, 7), np.uint8), "channels"),
        (np.zeros((4, 8, 8, 3), np.uint8), "several pictures"),
        (Image.new("RGB", (1, 1)), "1 x 1"),
    ):
        with pytest.raises(ValueError, match=f"^`inputs`: .*{reason}"):
            read_image(array)


def test_videos_are_no_images(tmp_path):
    beginnings = {
        "clip.mp4": b"\0\0\0\x20ftypisom",
        "clip.mov": b"\0\0\0\x14ftypqt  ",
        "clip.webm": b"\x1a\x45\xdf\xa3",
        "clip.avi": b"RIFF\0\0\0\0AVI LIST",
        "clip.mpg": b"\0\0\x01\xba",
    }
    for name, beginning in beginnings.items():
        assert is_video(beginning)
        (tmp_path / name).write_bytes(beginning + bytes(100))
        for source in (tmp_path / name, beginning + bytes(100)):
            with pytest.raises(ValueError, match="is a video, not an image"):
                read_image(source)
    assert not is_video(b"\0\0\0\x20ftypavif") and not is_video(b"RIFF\0\0\0\0WEBP")


def test_downloads_are_bounded(server, monkeypatch):
    for address, reason in (
        ("/missing.png", "404"),
        ("/page.html", "no picture"),
        ("/away", "cannot be fetched"),
    ):
        with pytest.raises(ValueError, match=f"^`inputs`: .*{reason}"):
            read_image(server + address)
    with pytest.raises(ValueError, match="cannot be fetched"):
        read_image("http://127.0.0.1:1/refused.png")
    monkeypatch.setattr(image_reading_glee, "MAX_DOWNLOAD_BYTES", 100)
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        read_image(server + "/good.png")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch):
    """Pillow has EPS drawn by Ghostscript, whatever the file is called."""
    import subprocess

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    path = tmp_path / "photo.png"
    path.write_bytes(POSTSCRIPT)
    for source in (path, POSTSCRIPT, io.BytesIO(POSTSCRIPT)):
        with pytest.raises(ValueError, match="is no picture in a format that is read"):
            read_image(source)
    text = base64.b64encode(POSTSCRIPT).decode()
    for source in (path, text, "data:image/png;base64," + text):
        with pytest.raises(ValueError, match="cannot be opened as an image"):
            read_images(source)


def test_pictures_in_base64_are_read(pixels):
    text = base64.b64encode(encoded(pixels)).decode()
    for source in (text, "data:image/png;base64," + text):
        assert np.array_equal(np.asarray(read_images(source)[0]), pixels)
    with pytest.raises(ValueError, match="there is no such file, and it is neither a URL nor base64 text"):
        read_images("missing.png")


def test_sizes_are_bounded_before_anything_is_decoded(tmp_path, pixels):
    """A PNG of 2 x 40,000,000 pixels has 80 kB."""
    path, chunks = tmp_path / "strip.png", [b"\x89PNG\r\n\x1a\n"]
    header = struct.pack(">IIBBBBB", 2, 40_000_000, 8, 2, 0, 0, 0)
    for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(70))), (b"IEND", b"")):
        checked = name + content
        chunks.append(struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked)))
    path.write_bytes(b"".join(chunks))
    with pytest.raises(
        ValueError, match=r"2 x 40000000 pixels, and `max_side` allows 65535: make it smaller, or pass"
    ):
        read_image(path)
    with pytest.raises(ValueError, match="item 0 has 2 x 40000000 pixels, and `max_side`"):
        read_images(path)
    height, width = pixels.shape[:2]
    Image.fromarray(pixels).save(tmp_path / "good.png")
    for limits, name in (
        (PictureLimits(max_pixels=height * width - 1), "max_pixels"),
        (PictureLimits(max_side=max(height, width) - 1), "max_side"),
    ):
        with pytest.raises(ValueError, match=f"has {width} x {height} pixels, and `{name}` allows"):
            read_image(tmp_path / "good.png", limits=limits)
    assert read_image(tmp_path / "good.png", limits=PictureLimits(height * width, max(height, width))).width == width


def test_a_tiff_of_too_many_pages_is_refused(tmp_path, pixels, monkeypatch):
    """Its pages are counted no further; whether there are several is known without counting."""
    pages = [Image.fromarray(pixels + number) for number in range(5)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    assert count_pictures(open_picture(tmp_path / "pages.tiff")) == 5
    monkeypatch.setattr(image_reading_glee, "MOST_PAGES", 4)
    assert is_animation(tmp_path / "pages.tiff") and read_image(tmp_path / "pages.tiff").size == (32, 24)
    for read in (partial(read_image, alone=True), read_images, AnimatedVideo):
        with pytest.raises(ValueError, match=r"has more than 4 pages: split it") as error:
            read(str(tmp_path / "pages.tiff"), *(("pages",) if read is AnimatedVideo else ()))
        assert "pages" in str(error.value) and "\n" not in str(error.value)


def test_pictures_with_too_many_pixels_are_refused(pixels, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for factor in (1, 2):  # Pillow warns above the limit, and refuses above twice the limit
        with pytest.raises(ValueError, match="more than 100 pixels"):
            read_image(encoded(pixels[: 4 * factor, :32]))

"""Files made to hurt: each is refused in one line or read, within ten seconds of the processor, and takes less than
1.5 GB beside the libraries and the model."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

SECONDS, MEMORY = 10, 1500 << 20


def _frames(path: Path, sizes: list[tuple[int, int]], codec: str, times: list[float] | None = None) -> bytes:
    """Encodes grey frames of these sizes (width, height), all as large as the first."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"preset": "ultrafast"} if codec == "libx264" else {})
        kind = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        (stream.width, stream.height), stream.pix_fmt = sizes[0], kind
        base = Fraction(1, 1000)
        stream.time_base = stream.codec_context.time_base = base
        for number, (width, height) in enumerate(sizes):
            frame = av.VideoFrame(width, height, kind)
            for plane in frame.planes:
                plane.update(bytes([number % 256]) * plane.buffer_size)
            frame.pts, frame.time_base = round(1000 * (times[number] if times else number / 25)), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def growing(path: Path) -> None:
    """A stream of 320 x 240 pixels that continues with 8192 x 8192."""
    small = _frames(path, [(320, 240)] * 30, "libx264")
    path.write_bytes(small + _frames(path, [(8192, 8192)] * 2, "libx264"))


def _large_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (16000, 16000), 90).save(buffer, "JPEG")
    return buffer.getvalue()


def motion_jpeg(path: Path) -> None:
    """Pictures of 16000 x 16000 pixels, without a container that says so."""
    path.write_bytes(_large_jpeg() * 4)


def lying_header(path: Path) -> None:
    """A container that announces 64 x 48 pixels and holds pictures of 16000 x 16000."""
    picture = _large_jpeg()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.start_encoding()
        for number in range(3):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            container.mux(packet)


def late(path: Path) -> None:
    """A first frame after eleven days."""
    _frames(path, [(64, 48)] * 5, "mjpeg", [1e6 + number / 25 for number in range(5)])


def paused(path: Path) -> None:
    """Eleven days between two frames."""
    _frames(path, [(64, 48)] * 5, "mjpeg", [0, 0.04, 0.08, 1e6, 1e6 + 0.04])


def hurried(path: Path) -> None:
    """A thousand frames a second."""
    _frames(path, [(64, 48)] * 2000, "mjpeg", [number / 1000 for number in range(2000)])


def _wave(path: Path, channels: int, rate: int, samples: int) -> None:
    head = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2, 16)
    data = bytes(channels * 2 * samples)
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def many_channels(path: Path) -> None:
    """Sound of 30000 channels."""
    _wave(path, 30000, 16000, 100)


def fast_sound(path: Path) -> None:
    """Sound of four billion samples a second."""
    _wave(path, 1, 4_000_000_000, 100_000)


def slow_sound(path: Path) -> None:
    """Sound of 40 samples a second, for an hour and a half."""
    _wave(path, 1, 40, 200_000)


def billion_samples(path: Path) -> None:
    """An mp4 whose tables say that it has a quarter of a billion frames."""
    content, count = bytearray(_frames(path, [(64, 48)] * 30, "mpeg4")), 1 << 28
    for name, place, value in ((b"stsz", 8, 1), (b"stsz", 12, count), (b"stts", 12, count), (b"stsc", 16, count)):
        start = content.index(name) + place
        content[start : start + 4] = struct.pack(">I", value)
    path.write_bytes(content)


def playlist(path: Path) -> None:
    """A playlist that names another file."""
    _frames(path.with_name("other.mp4"), [(64, 48)] * 5, "mpeg4")
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")


def _png(path: Path, width: int, height: int) -> None:
    """A grey PNG, written row by row."""
    head, packer = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), zlib.compressobj(9)
    rows, step = bytearray(), max(1, (1 << 20) // (width + 1))
    for first in range(0, height, step):
        rows += packer.compress(bytes((width + 1) * min(step, height - first)))
    rows += packer.flush()
    chunks = [(b"IHDR", head), (b"IDAT", bytes(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


def eps(path: Path) -> None:
    """A program for Ghostscript that never ends, with a picture's name."""
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n")


def wide_gif(path: Path) -> None:
    """Pictures of one pixel on a screen of 65535 x 65535."""
    pictures = [Image.new("L", (1, 1), value) for value in (0, 90, 180)]
    pictures[0].save(path, "GIF", save_all=True, append_images=pictures[1:])
    content = bytearray(path.read_bytes())
    content[6:10] = b"\xff\xff\xff\xff"
    path.write_bytes(content)


def many_pages(path: Path) -> None:
    """A TIFF of 100,000 pages of four pixels, all of them the same four."""
    facts = ((256, 2), (257, 2), (258, 8), (259, 1), (262, 1), (273, 8), (278, 2), (279, 4))  # the pixels are at 8
    page = struct.pack("<H", len(facts)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in facts)
    pages = [page + struct.pack("<I", 12 + (number + 1) * (len(page) + 4)) for number in range(100_000)]
    pages[-1] = page + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 12) + bytes(4) + b"".join(pages))


FILES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "growing.ts": (growing, ("avsr", "glee", "space")),
    "large.mjpeg": (motion_jpeg, ("avsr", "glee")),
    "lying.mkv": (lying_header, ("avsr", "glee", "space")),
    "late.mkv": (late, ("avsr", "glee", "space")),
    "paused.mkv": (paused, ("avsr", "glee", "space")),
    "hurried.mkv": (hurried, ("avsr", "space")),
    "channels.wav": (many_channels, ("avsr",)),
    "fast.wav": (fast_sound, ("avsr",)),
    "slow.wav": (slow_sound, ("avsr",)),
    "billion.mp4": (billion_samples, ("avsr", "glee", "space")),
    "list.ffconcat": (playlist, ("avsr", "glee")),
    "list.mp4": (playlist, ("avsr", "glee", "space")),
    "wide.png": (lambda path: _png(path, 40_000_000, 2), ("glee", "lisa_glee", "space")),
    "tall.png": (lambda path: _png(path, 2, 40_000_000), ("glee", "lisa_glee", "space")),
    "bomb.png": (lambda path: _png(path, 20_000, 20_000), ("glee", "lisa_glee", "space")),
    "full.png": (lambda path: _png(path, 9400, 9400), ("glee", "lisa_glee", "space")),
    "eps.png": (eps, ("glee", "lisa_glee", "space")),
    "wide.gif": (wide_gif, ("glee", "lisa_glee", "space")),
    "pages.tiff": (many_pages, ("glee", "lisa_glee", "space")),
}


@pytest.fixture(scope="module")
def models(tiny_checkpoint, seer, tiny_lisa_glee, tmp_path_factory) -> dict[str, list[str]]:
    """The arguments of `fuzz_worker.py` for each reader."""
    asks = tmp_path_factory.mktemp("asks")
    tiny_lisa_glee.save_pretrained(asks)
    return {"avsr": [str(tiny_checkpoint)], "glee": [str(seer)], "lisa_glee": [str(asks)]}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Callable[[str], Path]:
    """`hostile(name)`: one of `FILES`."""
    folder, made = tmp_path_factory.mktemp("hostile"), {}

    def make(name: str) -> Path:
        if name not in made:
            FILES[name][0](folder / name)
            made[name] = folder / name
        return made[name]

    return make


def check(worker, paths: list[Path], report, what: str) -> None:
    """Has each file read, and compares the outcomes with the bounds."""
    faults, longest, most, refused = [], 0.0, 0, 0
    try:
        for path in paths:
            outcome, message = worker.read(path)
            longest, most = max(longest, worker.seconds), max(most, worker.more)
            print(f"{path.name}: {outcome}, {worker.seconds:.1f} s, {worker.more >> 20} MB more: {message}")
            refused += outcome == "refused"
            if outcome not in ("read", "refused") or "\n" in message:
                faults.append(f"{path.name}: {outcome} {message[:300]}")
            elif worker.seconds > SECONDS or worker.more > MEMORY:
                faults.append(f"{path.name}: {outcome} after {worker.seconds:.1f} s, {worker.more >> 20} MB more")
    finally:
        worker.close()
    report(what, len(paths), f"{refused} refused; at most {longest:.1f} s of the processor, {most >> 20} MB more")
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["avsr", "glee", "lisa_glee", "space"])
def test_hostile_media(kind, hostile, models, watched, report):
    names = [name for name, (_, kinds) in FILES.items() if kind in kinds]
    check(watched(kind, *models.get(kind, [])), [hostile(name) for name in names], report, f"hostile files: {kind}")


def changed(name: str, **fields: object) -> Callable[[Path], None]:
    """Sets fields of a JSON file of a checkpoint."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def nested(name: str) -> Callable[[Path], None]:
    """Replaces a JSON file by very many brackets."""
    return lambda folder: (folder / name).write_text("[" * 100_000)


CHECKPOINTS = {
    "beams": changed("generation_config.json", num_beams=10**6),
    "texts": changed("generation_config.json", num_beams=5, num_return_sequences=10**6),
    "chunk": changed("generation_config.json", chunk_length_s=1e9),
    "labels": changed("generation_config.json", max_new_tokens=10**9),
    "width": changed("config.json", hidden_size=1 << 30),
    "layers": changed("config.json", encoder_layers=10**9),
    "decoder": changed("config.json", decoder_layers=10**9),
    "heads": changed("config.json", head_hidden_sizes=[1 << 30]),
    "steps": changed("config.json", ctc_upsampling=10**9),
    "config": nested("config.json"),
    "generation": nested("generation_config.json"),
    "processor": nested("processor_config.json"),
    "tokenizer": nested("tokenizer_config.json"),
}


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_hostile_checkpoints(tiny_checkpoint, talking_clips, watched, report, tmp_path):
    """Each reads a clip, if it can be loaded."""
    for name, change in CHECKPOINTS.items():
        shutil.copytree(tiny_checkpoint, tmp_path / name)
        change(tmp_path / name)
    worker = watched("readings", str(talking_clips / "0.mp4"))
    check(worker, [tmp_path / name for name in CHECKPOINTS], report, "hostile checkpoints")


LAUGHS = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))
TABLES = {
    "metadata.jsonl": "[" * 100_000 + "\n",
    "coco.json": '{"categories": [], "annotations": [], "images": [' + "[" * 100_000 + "]" * 100_001 + "}",
    "recipe.yaml": f"system: avsr\na0: &a0 [1]\n{LAUGHS}\ndata: {{train: *a11}}\ntraining: {{output_dir: *a11}}\n",
    "track.json": "[" * 100_000,
    "results.jsonl": '{"about": {"model": "a"}}\n' + "[" * 100_000 + "\n",
}
RECIPES = ("[" * 3000, "training: &a {output_dir: *a}\n", "training: {max_steps: " + "9" * 5000 + "}\n")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_hostile_tables(watched, report, tmp_path):
    paths = []
    for number, (name, content) in enumerate([*TABLES.items(), *(("recipe.yaml", text) for text in RECIPES)]):
        paths.append(tmp_path / str(number) / name)
        paths[-1].parent.mkdir()
        paths[-1].write_text(content)
    check(watched("tables"), paths, report, "hostile tables")

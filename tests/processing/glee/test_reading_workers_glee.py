"""Pictures read by workers: the same results in the same order, errors in their places, processes that stay."""

import gc
import multiprocessing
import os
import pickle
import signal
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from lookhear.processing.glee import ObjectPerceptionPipeline, read_image
from lookhear.processing.glee.reading_workers_glee import ReadingWorkers, in_order

ASKED = {"labels": ["cat", "dog"], "threshold": 0.0, "top_k": 3}


@pytest.fixture(scope="module")
def see(tiny_glee):
    model, processor = tiny_glee
    pipe = ObjectPerceptionPipeline(model, processor=processor, device="cpu")
    yield pipe
    if pipe._workers is not None:
        pipe._workers.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures of several formats and sizes; the first lies on its side."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = []
    for number, (height, width, name) in enumerate(
        [(60, 90, "a.jpg"), (64, 64, "b.png"), (90, 200, "c.webp"), (70, 50, "d.png")]
    ):
        picture = Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8))
        if name == "d.png":
            picture = picture.convert("P")
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 0 else 1
        picture.save(folder / name, exif=exif)
        paths.append(str(folder / name))
    return paths


def processes() -> set[int]:
    return {process.pid for process in multiprocessing.active_children()}


def plain(results):
    return [[{**found, "mask": found["mask"].tolist()} for found in one] for one in results]


@pytest.mark.slow
def test_results_are_those_of_this_process(see, files):
    before = processes()
    expected = plain(see(files, **ASKED, num_workers=0))
    assert processes() == before and len(expected[0][0]["mask"]) == 90  # upright
    for batch_size in (1, 3):
        assert plain(see(files, **ASKED, batch_size=batch_size, num_workers=2)) == expected
    workers = processes() - before
    assert len(workers) == 2
    contents = [open(file, "rb").read() for file in files]
    mixed = [files[0], contents[1], Image.open(files[2]), files[3]]
    assert plain(see(iter(mixed), **ASKED, batch_size=2, num_workers=2)) == expected
    assert processes() - before == workers  # they stay
    os.kill(min(workers), signal.SIGKILL)
    assert plain(see(files, **ASKED, num_workers=2)) == expected  # read here
    assert plain(see(files, **ASKED, num_workers=2)) == expected  # by others


class Collecting:
    """A picture of which a worker reads nothing, but collects garbage."""

    def read(self) -> int:
        gc.collect()
        return os.getpid()


@pytest.fixture
def abandoned_decoder(tmp_path):
    """A decoder at work, with threads, as garbage that only a collector finds."""
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=Fraction(25))
        stream.width = stream.height = 64
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode())
    gc.disable()
    container = av.open(str(tmp_path / "a.mp4"))
    container.streams.video[0].thread_type = "FRAME"
    container.streams.video[0].thread_count = 4
    garbage = [container, container.decode(video=0)]
    next(garbage[1])
    garbage.append(garbage)
    del container, garbage
    yield
    gc.enable()
    gc.collect()


def test_a_decoder_that_was_left_does_not_hold_a_process_up(abandoned_decoder):
    """Its threads are not in a fork: to free it there would be to wait for them for ever."""
    workers = ReadingWorkers(1)
    assert workers.submit(Collecting()).future.result(timeout=30) != os.getpid()
    assert not gc.isenabled()
    workers.close()


def test_few_files_start_no_process(see, files):
    before = processes()
    see(files * 2, **ASKED)
    assert processes() == before


def test_an_error_is_that_of_its_input(see, files, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(open(files[0], "rb").read()[:200])
    given = [files[0], str(broken), {"image": files[1], "points": [[(500, 3)]]}, files[1]]
    expected = plain(see([files[0], files[1]], **ASKED, num_workers=0))
    for workers in (0, 2):
        results = see(given, **ASKED, on_error="return", batch_size=4, num_workers=workers)
        assert plain([results[0], results[3]]) == expected
        assert [type(result) for result in results[1:3]] == [ValueError] * 2
        assert str(results[1]).startswith("`inputs[1]`: `inputs`: ") and "broken.jpg" in str(results[1])
        assert str(results[2]).startswith("`inputs[2]`: ") and "(500, 3)" in str(results[2])
        found = see(iter(given), **ASKED, batch_size=4, num_workers=workers)
        assert plain([next(found)]) == expected[:1]  # what comes before the error
        with pytest.raises(ValueError, match=r"inputs\[1\].*broken.jpg"):
            next(found)
    with pytest.raises(ValueError, match="`on_error` must be one of 'raise', 'return'"):
        see(given, **ASKED, on_error="skip")
    with pytest.raises(ValueError, match="`num_workers` must be a positive integer"):
        see(given, **ASKED, num_workers=-1)


def test_pictures_are_read_ahead_of_calls(see, files, tmp_path):
    given = [*files, str(tmp_path / "missing.png"), Image.open(files[1])]
    for workers in (0, 2):
        pictures = list(see.read_pictures(given, workers))
        assert [(picture.height, picture.width) for picture in pictures[:4]] == [
            (90, 60),
            (64, 64),
            (90, 200),
            (70, 50),
        ]
        assert isinstance(pictures[4], ValueError) and "missing.png" in str(pictures[4])
        assert pictures[5] is given[5]
        assert plain(see(pictures[:4], **ASKED)) == plain(see(files, **ASKED))
    with pytest.raises(ValueError, match="max_pixels"):
        raise next(see.read_pictures(files, max_pixels=100))


def test_a_copy_has_no_workers(see, files):
    see(files, **ASKED, num_workers=2)
    assert see._workers is not None and see.__getstate__()["_workers"] is None
    assert see.batch_size is None and see.num_workers is None


def test_inputs_are_begun_with_ahead_and_answered_in_order():
    begun, waited = [], []

    def begin(number):
        begun.append(number)

        def wait():
            waited.append(number)
            return 10 * number

        return wait, number % 5 != 0  # each fifth is made at once

    def inputs():
        yield from range(1, 8)
        raise RuntimeError("a broken data set")

    results, seen = in_order(inputs(), begin, 3), []
    with pytest.raises(RuntimeError, match="a broken data set"):
        for result in results:
            seen.append((result, len(begun)))
    assert [result for result, _ in seen] == [10, 20, 30, 40, 50, 60, 70] and waited == list(range(1, 8))
    assert [count for _, count in seen] == [4, 5, 5, 5, 5, 7, 7]


def test_a_file_is_not_copied_on_its_way(tiny_glee, tmp_path, monkeypatch):
    """Decoded once, resized once; a picture in memory is the caller's, and is copied."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.jpg")
    expected = Image.open(tmp_path / "a.jpg").convert("RGB")
    copies = []
    for name in ("copy", "convert"):
        method = getattr(Image.Image, name)
        monkeypatch.setattr(
            Image.Image,
            name,
            lambda self, *given, _method=method, **kw: copies.append(1) or _method(self, *given, **kw),
        )
    read = read_image(tmp_path / "a.jpg")
    values = tiny_glee[1].image_processor([read], return_tensors="np")["pixel_values"]
    assert copies == []
    assert np.array_equal(np.asarray(read), np.asarray(expected))
    assert np.array_equal(
        values, tiny_glee[1].image_processor([np.asarray(expected)], return_tensors="np")["pixel_values"]
    )
    copies.clear()
    own = read_image(picture)
    assert own is not picture and len(copies) == 1
    own.putpixel((0, 0), (0, 0, 0) if picture.getpixel((0, 0)) != (0, 0, 0) else (1, 1, 1))
    assert own.getpixel((0, 0)) != picture.getpixel((0, 0))


def test_what_waits_is_small():
    """A picture goes from a worker to this process as bytes of the size that the network sees."""
    from lookhear.processing.glee.image_reading_glee import ReadPicture

    read = ReadPicture(np.zeros((80, 100, 3), np.uint8), (3000, 4000))
    assert len(pickle.dumps(read)) < 80 * 100 * 3 + 1000 and (read.height, read.width) == (3000, 4000)

"""Reads pictures in worker processes, which stay from call to call: decoding and resizing beside the model."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .image_processing_glee import resize_picture
from .image_reading_glee import PictureLimits, ReadPicture, read_image

Result = TypeVar("Result")

MOST = 8  # workers by default
QUIET = "TOKENIZERS_PARALLELISM"  # where it is set, the tokenizers' library says nothing of processes that fork


@dataclass(frozen=True)
class PictureFile:
    """
    A picture to be read.

    Attributes:
        source: path, http(s) URL, or the content of a file.
        alone: see `read_image`.
        limits: how large it may be.
        size: `size` of the image processor; None: it is not resized.
        resample: Pillow's filter.
    """

    source: str | bytes
    alone: bool
    limits: PictureLimits
    size: dict[str, int] | None
    resample: int

    def read(self) -> ReadPicture | ValueError:
        """Reads and resizes it; returns what is wrong with a file that cannot be read."""
        try:
            image = read_image(self.source, self.alone, self.limits)
        except ValueError as error:
            return error
        original = image.height, image.width
        if self.size is not None:
            image = resize_picture(image, self.size, self.resample)
        return ReadPicture(np.asarray(image), original)


def is_picture_file(source: Any) -> bool:
    """Returns whether a source is read by workers: a path, a URL or the bytes of a file; others are in memory."""
    return isinstance(source, (str, os.PathLike, bytes, bytearray))


def usual_workers() -> int:
    """Returns the number of workers by default: one for each processor core but one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST, cores - 1)


def files_ahead(count: int | None) -> int:
    """Returns how many files some workers begin with before the first one is waited for; None: the usual workers."""
    return 2 * (usual_workers() if count is None else count)


class ReadingWorkers:
    """
    Workers that read pictures; they start with the first one, and stay until they are closed or dropped.

    They are forks of this process, which are there in no time and need no `if __name__ == "__main__"` in the user's
    script; where that is not safe (macOS, Windows, in a process of a data loader) they are threads, beside which
    Pillow decodes and resizes as well.

    Args:
        count: number of workers, at least 1.
    """

    def __init__(self, count: int):
        self.count = count
        self._pool: Executor | None = None

    def submit(self, file: PictureFile) -> Callable[[], ReadPicture | ValueError]:
        """Has a picture read; returns a function that waits for it."""
        if self._pool is None:
            self._pool = _forked(self.count) if _may_fork() else ThreadPoolExecutor(self.count, "picture")
        try:
            return _Reading(file, self._pool.submit(file.read))
        except BrokenExecutor:  # since the last picture: the next one starts others
            self._pool = None
            return _Reading(file, None)

    def close(self) -> None:
        """Ends the workers; pictures that nobody has begun with are not read any more."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


@dataclass
class _Reading:
    """A picture that is being read; one whose worker was killed, for want of memory say, is read by the caller."""

    file: PictureFile
    future: Future[ReadPicture | ValueError] | None

    def __call__(self) -> ReadPicture | ValueError:
        if self.future is not None:
            try:
                return self.future.result()
            except BrokenExecutor:
                pass
        return self.file.read()


def _may_fork() -> bool:
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def _forked(count: int) -> Executor:
    """
    Starts worker processes; the pictures' decoders use no threads that a fork could miss.

    The garbage collector is held until a worker has frozen what it came with: to free a video's decoder there, which
    another thread or a fault has left, is to wait for ever for threads that a fork does not have.
    """
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), _begin)
    quiet, collecting = os.environ.get(QUIET), gc.isenabled()
    os.environ[QUIET] = "false" if quiet is None else quiet
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python, about forks beside threads
            pool.submit(int).result()  # forks all of them
    finally:
        if collecting:
            gc.enable()
        if quiet is None:
            del os.environ[QUIET]
    return pool


def _begin() -> None:
    """Keeps what the process was forked with for good, and leaves Ctrl-C to the one that it belongs to."""
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def in_order(
    inputs: Iterator[Any], begin: Callable[[Any], tuple[Callable[[], Result], bool]], ahead: int
) -> Iterator[Result]:
    """
    Yields results in the order of their inputs, while further ones are being made.

    An error of the inputs themselves is raised after the results of all inputs before it.

    Args:
        inputs: each is taken when there is room for it.
        begin: begins with an input; returns a function that waits for its result, and whether others make it, so that
            there is something to wait for.
        ahead: inputs that may be begun with before the first result is waited for.
    """
    waiting: deque[Callable[[], Result]] = deque()
    failure: Exception | None = None
    while failure is None:
        try:
            given = next(inputs)
        except StopIteration:
            break
        except Exception as error:  # of a generator of the user's
            failure = error
            continue
        result, others = begin(given)
        waiting.append(result)
        while waiting and (not others or len(waiting) > ahead):
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()
    if failure is not None:
        raise failure

"""Reads clips in worker processes, which stay from call to call: decoding, faces and crops beside the model."""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Protocol

import torch

from .clip_stream_avsr import Clip, ClipStream, read_clip
from .face_networks_avsr import load_litert
from .media_source_avsr import MediaError, is_url, source_name

MOST = 8  # workers by default
FEW = 4  # files in a call for which no workers are started by default
LONGEST = 60.0  # seconds of a clip that is read ahead, so that those that wait take little memory
LARGEST = 64 << 20  # bytes of a file's content that are sent to a worker
CHECK = 1.0  # seconds after which it is noticed that a process is gone
QUIET = "TOKENIZERS_PARALLELISM"  # where it is set, the tokenizers' library says nothing of processes that fork


class Job(Protocol):
    """Something to be read by a worker, to which it is sent."""

    @property
    def name(self) -> str:
        """Its name in error messages."""

    def read(self) -> Any:
        """Reads it; raises what is wrong with it."""


@dataclass(frozen=True)
class ClipFile:
    """
    A file to be read, as the pipeline would read it.

    Attributes:
        source: path, or the content of a file.
        how: arguments of [`ClipStream`] by name.
        longest: seconds; a longer clip is not read.
    """

    source: str | bytes
    how: dict[str, Any]
    longest: float

    @property
    def name(self) -> str:
        """Its name in error messages."""
        return source_name(self.source)

    def read(self) -> Clip | None:
        """
        Returns the clip; None where the caller has to read it piece by piece: it is long, does not say how long it is,
        or its pictures begin after its sound.

        Raises:
            ValueError: names the file and the fault; see [`read_clip`].
        """
        stream = ClipStream(self.source, **self.how)
        if stream.duration is None or stream.duration > min(self.longest, LONGEST):
            stream.close()
            return None
        clip = read_clip(stream, self.how["modality"], self.how["sampling_rate"], self.how["image_processor"])
        return None if clip.pieces else clip


def is_clip_file(source: Any) -> bool:
    """Returns whether workers can read a source: a file by its path, or its content, if that isn't large; others are
    in memory, or come over a network or through a pipe."""
    if isinstance(source, (bytes, bytearray)):
        return len(source) <= LARGEST
    return isinstance(source, (str, os.PathLike)) and not is_url(source) and os.path.isfile(source)


def _plain(source: os.PathLike | bytearray) -> str | bytes:
    return bytes(source) if isinstance(source, bytearray) else os.fsdecode(source)


def usual_workers() -> int:
    """Returns the number of workers by default: one for each processor core but one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST, cores - 1)


# --------------------------------------------------------------------------------------------------------- the workers


class Reading:
    """
    A job that a worker has been given.

    Args:
        job: as given.
        revive: starts workers instead of those whose process was killed.
    """

    def __init__(self, job: Job, revive: Callable[[], None]):
        self.job, self._revive = job, revive
        self.future: Future[Any] = Future()

    def outcome(self) -> Any:
        """Waits for what the job has read, or the exception that it raised; None where it was not read."""
        while not wait([self.future], CHECK).done:
            self._revive()
        return self.future.result()

    def cancel(self) -> None:
        """Takes the job back if no worker has begun with it."""
        self.future.cancel()


class ReadingWorkers:
    """
    Workers that read clips; they start with the first job, and stay until the object is dropped or the program ends.

    They are forks of this process, which are there in no time and need no `if __name__ == "__main__"` in the user's
    script; where that is not safe (macOS, Windows, in a process of a data loader) they are threads. A process that is
    killed costs the job that it was reading, and another one takes its place.

    Args:
        count: number of workers, at least 1.
    """

    def __init__(self, count: int):
        self.count = count
        self._jobs: SimpleQueue[Reading | None] = SimpleQueue()  # None: one worker ends
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        weakref.finalize(self, _dismiss, self._jobs, count).atexit = False  # processes end with this one

    def submit(self, job: Job) -> Reading:
        """Has a job read."""
        self._start()
        reading = Reading(job, self._start)
        self._jobs.put(reading)
        return reading

    def read_ahead(
        self, sources: Iterable[Any], file: Callable[[str | bytes], Job], few: int, batch: int
    ) -> Iterator[Any]:
        """
        Yields what workers have read of files, in the order of the sources; see `read_in_order`.

        Args:
            sources: inputs of the pipeline, in any form.
            file: makes the job of a path, or of the content of a file.
            few: files at the beginning that no worker reads.
            batch: sources that are used together.
        """
        files = itertools.count()

        def begin(source: Any) -> Reading | None:
            if not is_clip_file(source) or next(files) < few:
                return None
            return self.submit(file(source if isinstance(source, (str, bytes)) else _plain(source)))

        return read_in_order(iter(sources), begin, 2 * self.count + batch)

    def _start(self) -> None:
        """Starts the workers that are missing."""
        with self._starting:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            while len(self._threads) < self.count:
                process = _new_process()
                thread = threading.Thread(target=_serve, args=(self._jobs, process), name="clip reader", daemon=True)
                thread.start()
                self._threads.append(thread)


def _dismiss(jobs: SimpleQueue[Reading | None], count: int) -> None:
    """Ends the workers after the jobs that wait."""
    for _ in range(count):
        jobs.put(None)


def _serve(jobs: SimpleQueue[Reading | None], process: _Process | None) -> None:
    """Takes one job after the other, in a thread that holds no reference to the workers, until it is dismissed or its
    process is killed."""
    alive = True
    while alive and (reading := jobs.get()) is not None:
        if reading.future.set_running_or_notify_cancel():
            outcome = outcome_of(reading.job) if process is None else process.read(reading.job)
            alive = process is None or not process.killed
            reading.future.set_result(outcome)
            del outcome
        del reading  # a clip is large, and nobody else holds it from here on
    if process is not None:
        process.end()


def outcome_of(job: Job) -> Any:
    """Returns what a job reads, or the exception that it raises."""
    try:
        return job.read()
    except Exception as error:
        return error


class _Process:
    """A process that reads one job after the other, seen from this one. Attribute: `killed`, whether it is gone."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, os.getpid()), name="clip reader", daemon=True)
        with _forking():
            self._process.start()
        theirs.close()
        self.killed = False

    def read(self, job: Job) -> Any:
        """Returns what a job reads, or the exception that it raises; None where it cannot be sent."""
        try:
            self._pipe.send(job)
            while not self._pipe.poll(CHECK):
                if not self._process.is_alive() and not self._pipe.poll():
                    raise EOFError
            return self._pipe.recv()
        except (EOFError, OSError):
            self.killed = True
            return MediaError(
                f"{job.name} cannot be read: the process that read it was killed, as happens where memory runs out. "
                "num_workers=0 reads in this process."
            )
        except Exception:  # of pickle: a processor of the user's, say, that cannot be sent
            return None

    def end(self) -> None:
        """Ends the process, which whoever ends all processes of the program may do at the same time."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()


def _new_process() -> _Process | None:
    """Starts a process; returns None where there can be none, so that a thread reads."""
    try:
        return _Process() if _may_fork() else None
    except OSError:  # too many of them, or no memory
        return None


def _may_fork() -> bool:
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


@contextlib.contextmanager
def _forking() -> Iterator[None]:
    """
    Holds the garbage collector, which the worker takes up again after `gc.freeze`: what another thread or a fault left
    may be a decoder with threads, and to free one in a fork, which has no such threads, is to wait for them for ever.

    Warnings about forks beside threads are silenced: what those may hold is made anew in the worker.
    """
    quiet, collecting = os.environ.get(QUIET), gc.isenabled()
    os.environ[QUIET] = "false" if quiet is None else quiet
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if collecting:
            gc.enable()
        if quiet is None:
            del os.environ[QUIET]


def _work(pipe: Connection, parent: int) -> None:
    """Reads what comes through a pipe, in a process of its own, until it ends or process `parent` does."""
    gc.freeze()  # see `_forking`
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that this one belongs to
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # a fork has none of torch's threads, and the workers themselves fill the cores
    load_litert.cache_clear()  # another thread may have held a network when this process was forked
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    while True:
        try:
            outcome = outcome_of(pipe.recv())
        except (EOFError, OSError):
            return
        except Exception:  # a class that was defined since the fork
            outcome = None
        try:
            pipe.send(outcome)
        except OSError:
            return
        except Exception:  # an exception that cannot be sent
            pipe.send(ValueError(" ".join(str(outcome).split()) or type(outcome).__name__))


def _end_with(parent: int) -> None:
    """Ends this process soon after another one, however that ended."""
    while os.getppid() == parent:
        time.sleep(CHECK)
    os.kill(os.getpid(), signal.SIGKILL)


# ------------------------------------------------------------------------------------------------------------ in order


def read_in_order(sources: Iterator[Any], begin: Callable[[Any], Reading | None], ahead: int) -> Iterator[Any]:
    """
    Yields what workers have read, in the order of the sources, while further ones are being read.

    An error of the iterator itself is raised after the results of all sources before it.

    Args:
        sources: each is taken when there is room for it.
        begin: gives a source to a worker; None for one that is not.
        ahead: sources that may be with the workers before the first result is waited for, and while it is used.

    Yields:
        For each source what was read, or the exception that it raised; the source itself where it was not read.
    """
    waiting: deque[tuple[Any, Reading | None]] = deque()
    failure: Exception | None = None
    over = False
    try:
        while True:
            # What no worker reads may be large: no more than one of it is taken.
            while not over and len(waiting) <= ahead and not (waiting and waiting[-1][1] is None):
                try:
                    source = next(sources)
                except StopIteration:
                    over = True
                except Exception as error:  # of a generator of the user's
                    failure, over = error, True
                else:
                    waiting.append((source, begin(source)))
            if not waiting:
                break
            source, reading = waiting.popleft()
            outcome = None if reading is None else reading.outcome()
            yield source if outcome is None else outcome
            del source, reading, outcome
    finally:
        for _, reading in waiting:
            if reading is not None:
                reading.cancel()
    if failure is not None:
        raise failure

"""Clips read by processes that stay: the same results in the same order, and each error is that of its input."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from transformers import pipeline

import lookhear  # noqa: F401 - registers the task
from lookhear import cli
from lookhear.processing.avsr import Clip
from lookhear.processing.avsr.reading_workers_avsr import (
    LARGEST,
    ClipFile,
    ReadingWorkers,
    is_clip_file,
    read_in_order,
)

NAME = "clip reader"


def processes() -> set[int]:
    return {process.pid for process in multiprocessing.active_children() if process.name == NAME}


@pytest.fixture(scope="module")
def checkpoint(repository) -> str:
    return str(repository / "model_cards" / "avsr-grid-tiny")


@pytest.fixture(scope="module")
def asr(checkpoint):
    return pipeline("audio-visual-speech-recognition", model=checkpoint, device="cpu")


@pytest.fixture
def files(talking_clips) -> list[str]:
    """Four clips, two of them twice."""
    return [str(talking_clips / f"{number}.mp4") for number in (0, 1)] * 2


@dataclass(frozen=True)
class Number:
    """A job that squares a number, fails, waits, or kills its process."""

    value: int
    deed: str = ""

    @property
    def name(self) -> str:
        return f"'number {self.value}'"

    def read(self) -> int | None:
        if self.deed == "fail":
            raise ValueError(f"{self.value} is bad.")
        if self.deed == "unsendable":
            raise Unsendable(self.value)
        if self.deed == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.deed == "collect":
            gc.collect()
        if self.deed == "wait":
            time.sleep(0.3)
        return None if self.deed == "leave" else self.value**2


class Unsendable(ValueError):
    """An exception that pickle cannot make again: it takes two arguments."""

    def __init__(self, value: int, other: int = 0):
        super().__init__(f"{value} cannot\nbe sent")
        self.lock = threading.Lock()


def leave_a_decoder(path: str) -> None:
    """Leaves a decoder at work, with threads, as garbage that only a collector finds."""
    container = av.open(path)
    container.streams.video[0].thread_type = "FRAME"
    container.streams.video[0].thread_count = 4
    garbage = [container, container.decode(video=0)]
    next(garbage[1])
    garbage.append(garbage)


def outcomes(workers: ReadingWorkers, jobs: list[Number]) -> list:
    return [reading.outcome() for reading in [workers.submit(job) for job in jobs]]


# --------------------------------------------------------------------------------------------------------- the workers


def test_what_is_a_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"")
    assert is_clip_file(path) and is_clip_file(str(path)) and is_clip_file(b"RIFF") and is_clip_file(bytearray(3))
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path / "b.mp4", tmp_path, "https://a.b/c.mp4", {"audio": path}, np.zeros(3)):
        assert not is_clip_file(other)
    assert not is_clip_file(bytes(LARGEST + 1))


def test_sources_are_taken_ahead_and_answered_in_order():
    begun: list[int] = []

    class Done:
        def __init__(self, number):
            self.number, self.cancelled = number, False

        def outcome(self):
            return None if self.number == 4 else 10 * self.number

        def cancel(self):
            cancelled.append(self.number)

    def begin(number):
        begun.append(number)
        return Done(number) if number % 3 else None  # each third is not read by workers

    def sources():
        yield from range(1, 9)
        raise RuntimeError("a broken data set")

    cancelled: list[int] = []
    seen, results = [], read_in_order(sources(), begin, 3)
    with pytest.raises(RuntimeError, match="a broken data set"):
        for result in results:
            seen.append((result, len(begun)))
    assert [result for result, _ in seen] == [10, 20, 3, 4, 50, 6, 70, 80]
    assert [count for _, count in seen] == [3, 3, 3, 6, 6, 6, 8, 8]  # none beyond one that no worker reads
    assert cancelled == []
    begun.clear()
    results = read_in_order(iter([1, 2, 4, 5, 7]), begin, 3)
    assert next(results) == 10 and begun == [1, 2, 4, 5]
    results.close()
    assert cancelled == [2, 4, 5]


@pytest.mark.slow
def test_workers_stay_and_each_error_is_its_own():
    before = processes()
    workers = ReadingWorkers(2)
    assert processes() <= before  # none before there is something to read
    found = outcomes(workers, [Number(2), Number(3, "fail"), Number(4, "leave"), Number(5, "unsendable"), Number(6)])
    assert found[0] == 4 and found[2] is None and found[4] == 36
    assert type(found[1]) is ValueError and str(found[1]) == "3 is bad."
    assert type(found[3]) is ValueError and str(found[3]) == "5 cannot be sent"
    there = processes() - before
    assert len(there) == 2
    assert outcomes(workers, [Number(7)] * 5) == [49] * 5 and processes() - before == there
    reading = workers.submit(lambda: 1)  # pickle refuses it: the caller has to read it
    assert reading.outcome() is None and processes() - before == there
    del workers, reading
    deadline = time.monotonic() + 60
    while processes() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes() <= before


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_killed_process_costs_one_job(count):
    workers = ReadingWorkers(count)
    deeds = ["", "kill", "", "kill", "kill", "", ""]
    found = outcomes(workers, [Number(number, deed) for number, deed in enumerate(deeds)])
    for number, (deed, outcome) in enumerate(zip(deeds, found)):
        if deed == "kill":
            assert isinstance(outcome, ValueError) and "\n" not in str(outcome)
            assert str(outcome).startswith(f"'number {number}' cannot be read: the process that read it was killed")
        else:
            assert outcome == number**2
    idle = processes()
    os.kill(next(iter(idle)), signal.SIGKILL)  # while nothing is read
    time.sleep(0.2)
    again = outcomes(workers, [Number(3)] * 4)
    assert 9 in again and all(one == 9 or "was killed" in str(one) for one in again)


def test_the_end_of_a_program_is_no_fault(monkeypatch):
    """Then multiprocessing ends all processes, and the threads that gave them jobs learn of it from nobody."""
    faults: list = []
    monkeypatch.setattr(threading, "excepthook", faults.append)
    before, workers = processes(), ReadingWorkers(1)
    assert outcomes(workers, [Number(3)]) == [9]
    for child in processes() - before:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    threads = list(workers._threads)
    del workers
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert faults == []


def test_a_decoder_that_was_left_does_not_hold_a_process_up(talking_clips):
    """Its threads are not in a fork: to free it there would be to wait for them for ever."""
    gc.disable()
    try:
        leave_a_decoder(str(talking_clips / "0.mp4"))
        workers = ReadingWorkers(1)
        assert workers.submit(Number(3, "collect")).future.result(timeout=30) == 9
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.collect()


@pytest.mark.slow
def test_what_nobody_waits_for_is_not_read():
    workers = ReadingWorkers(1)
    results = workers.read_ahead([b"1"] * 6, lambda content: Number(int(content), "wait"), 0, 4)
    assert next(results) == 1
    results.close()
    started = time.monotonic()
    assert outcomes(workers, [Number(5)]) == [25]
    assert time.monotonic() - started < 1.2  # at most one of the five others was begun with


@pytest.mark.slow
def test_threads_read_where_a_fork_is_not_safe(monkeypatch):
    import lookhear.processing.avsr.reading_workers_avsr as module

    monkeypatch.setattr(module, "_may_fork", lambda: False)
    before, workers = processes(), ReadingWorkers(2)
    found = outcomes(workers, [Number(2), Number(3, "fail"), Number(4)])
    assert found[0] == 4 and found[2] == 16 and str(found[1]) == "3 is bad." and processes() <= before


ORPHANS = """
import multiprocessing, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job would ignore
from lookhear.processing.avsr.reading_workers_avsr import ReadingWorkers

workers = ReadingWorkers(2)
workers.submit(None)
print(*(process.pid for process in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_they_read_for(how):
    program = subprocess.Popen(
        [sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    workers = [int(word) for word in program.stdout.readline().split()]
    assert len(workers) == 2 and all(Path(f"/proc/{worker}").exists() for worker in workers)
    program.send_signal(how)
    program.wait(timeout=60)
    deadline = time.monotonic() + 60
    while any(is_running(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_running(worker) for worker in workers)
    assert "Error" not in program.stderr.read()


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# -------------------------------------------------------------------------------------------------------- the pipeline


@pytest.mark.slow
def test_results_are_those_of_this_process(asr, files, tmp_path):
    before = processes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(files[0]).read_bytes()[:3000])
    given = [files[0], Path(files[1]), Path(files[0]).read_bytes(), files[1], {"video": files[0], "audio": files[1]}]
    settings = {"batch_size": 3, "return_timestamps": "word"}
    expected = asr(given, **settings, num_workers=0)
    assert processes() <= before
    for count in (1, 2):
        assert asr(given, **settings, num_workers=count) == expected
        assert list(asr(iter(given), **settings, num_workers=count)) == expected
    workers = processes() - before
    assert len(workers) >= 2
    assert asr(given, **settings, num_workers=2, chunk_length_s=2) == asr(
        given, **settings, num_workers=0, chunk_length_s=2
    )
    for modality in ("audio", "visual"):
        some = given[:4]
        assert asr(some, modality=modality, num_workers=2) == asr(some, modality=modality, num_workers=0)

    missing = str(tmp_path / "missing.mp4")
    mixed = [files[0], str(broken), missing, files[1]]
    here, there = (asr.attempt(mixed, batch_size=4, num_workers=count) for count in (0, 2))
    assert [type(one) for one in there] == [type(one) for one in here]
    assert [str(one) for one in there[1:3]] == [str(one) for one in here[1:3]] and "broken.mp4" in str(there[1])
    assert there[0] == here[0] and there[3] == here[3]

    seen = []
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        for result in asr(iter(mixed), batch_size=4, num_workers=2):
            seen.append(result)
    assert seen == [here[0]]  # what comes before the error
    assert list(asr(iter([files[1]]), num_workers=2)) == [asr(files[1])]
    assert asr.__getstate__()["_workers"] is None


@pytest.mark.slow
def test_few_files_and_what_is_chosen_start_no_process(asr, files):
    before = processes()
    asr(files[:4])
    asr(files[0], num_workers=2)
    asr(files[:2], num_workers=2, on_piece=lambda piece: None)
    asr(files[:2], num_workers=2, speaker={"track": [(0, 0, 500, 500)] * 200})
    assert processes() <= before
    with pytest.raises(ValueError, match="`num_workers` must be an integer, 0 or more, not -1"):
        asr(files, num_workers=-1)


@pytest.mark.slow
def test_files_are_read_ahead_of_calls(asr, files, tmp_path):
    given = [*files[:2], str(tmp_path / "missing.mp4"), {"audio": np.zeros(16000), "sampling_rate": 16000}]
    read = list(asr.read_ahead(given, num_workers=2))
    assert [type(one) for one in read] == [Clip, Clip, str, dict]
    assert read[2:] == given[2:]
    assert asr.attempt(read[:2], batch_size=2) == asr(files[:2], batch_size=2, num_workers=0)
    assert asr(read[0]) == asr(files[0])


@pytest.mark.slow
def test_a_worker_leaves_long_files_to_the_caller(asr, files):
    how = asr._how(asr.settings)
    assert isinstance(ClipFile(files[0], how, 12.0).read(), Clip)
    assert ClipFile(files[0], how, 1.0).read() is None
    assert pickle.loads(pickle.dumps(ClipFile(files[0], how, 12.0))).name == repr(files[0])


# --------------------------------------------------------------------------------------------------------- the command


@pytest.mark.slow
def test_transcribe_reads_in_processes(checkpoint, files, tmp_path, capfd):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.mp4").write_bytes(Path(files[number % 2]).read_bytes())
    (folder / "3.mp4").write_bytes(b"no video at all" * 100)
    command = ["transcribe", str(folder), "--model", checkpoint, "--format", "json", "--batch-size", "2"]
    texts = {}
    for count in ("0", "1", "2"):
        output = tmp_path / count
        assert cli.main([*command, "--output", str(output), "--num-workers", count]) == 2
        printed = capfd.readouterr()
        assert [Path(line).name for line in printed.out.splitlines()] == [f"{n}.json" for n in (0, 1, 2, 4, 5)]
        assert len([line for line in printed.err.splitlines() if "error" in line and "3.mp4" in line]) == 1
        texts[count] = [path.read_text() for path in sorted(output.glob("[0-9].json"))]
    assert texts["0"] == texts["1"] == texts["2"] and len(texts["0"]) == 5
    assert cli.main([*command, "--output", str(tmp_path / "2"), "--num-workers", "0"]) == 2  # resumes: nothing to do
    assert capfd.readouterr().out == ""

"""Jobs of visitors: how long one may take, how it is stopped, and that it gets a GPU where they are lent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

try:
    from spaces import GPU  # on ZeroGPU, which has this package; it is imported before CUDA is used
except ImportError:
    GPU = None


def on_gpu(seconds: float) -> Callable[[Callable], Callable]:
    """Returns a decorator that has a function run with one of ZeroGPU's GPUs; elsewhere it changes nothing."""
    return (lambda function: function) if GPU is None else GPU(duration=round(seconds))


@dataclass
class Job:
    """
    What a visitor has asked for; it may go to another process.

    Attributes:
        seconds: how long it may take.
        began: by the system's clock.
        stopped: whether the visitor does not want it any more.
    """

    seconds: float
    began: float = field(default_factory=lambda: time.monotonic())
    stopped: bool = False

    def check(self) -> None:
        """
        Is called between two steps of the work.

        Raises:
            ValueError: the job has to end here.
        """
        if self.stopped:
            raise ValueError("Stopped.")
        if time.monotonic() - self.began > self.seconds:
            raise ValueError(
                f"This takes longer than {self.seconds:.0f} seconds, the limit here, as others are waiting: try less, "
                "or run it on your own machine."
            )


class Jobs:
    """
    The jobs that run, by the sessions of their visitors.

    Args:
        seconds: how long each may take.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._running: dict[str | None, Job] = {}

    @contextlib.contextmanager
    def start(self, request: gr.Request | None) -> Iterator[Job]:
        """Yields a job of this visitor, which runs until the end of the block."""
        session = None if request is None else request.session_hash
        job = self._running[session] = Job(self._seconds)
        try:
            yield job
        finally:
            if self._running.get(session) is job:
                del self._running[session]

    def stop(self, request: gr.Request) -> None:
        """Stops the visitor's job, if one runs: it ends at its next step, and the model is free for others."""
        job = self._running.get(request.session_hash)
        if job is not None:
            job.stopped = True


def stop_with(button: gr.Button, jobs: Jobs, event: Any) -> None:
    """Lets a button end an event, whether it runs or waits."""
    button.click(jobs.stop, None, None, cancels=[event], queue=False, show_progress="hidden", api_name=False)

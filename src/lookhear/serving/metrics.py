"""Counters of a server, in the text format that Prometheus reads."""

from __future__ import annotations

import threading
from collections import Counter

SECONDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)  # upper ends of the histogram of answers


class Metrics:
    """Counts requests by status, their time, and how much was read; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[int] = Counter()
        self._answers: Counter[float] = Counter()
        self._answer_seconds = self._media_seconds = self._busy_seconds = 0.0

    def add_request(self, status: int, seconds: float) -> None:
        """
        Counts a request to the model.

        Args:
            status: of its answer.
            seconds: from its beginning to the end of the answer.
        """
        with self._lock:
            self._requests[status] += 1
            if status == 200:
                self._answer_seconds += seconds
                self._answers[next((end for end in SECONDS if seconds <= end), float("inf"))] += 1

    def add_reading(self, media_seconds: float, busy_seconds: float) -> None:
        """
        Counts a clip that was read.

        Args:
            media_seconds: its length.
            busy_seconds: during which the model was busy with it.
        """
        with self._lock:
            self._media_seconds += media_seconds
            self._busy_seconds += busy_seconds

    def to_text(self, taken: int, places: int) -> str:
        """
        Formats all counters.

        Args:
            taken: requests that wait or are answered.
            places: how many there can be.
        """
        with self._lock:
            lines = _head("requests_total", "counter", "Requests to the model, by status of the answer.")
            lines += [f'lookhear_requests_total{{status="{s}"}} {n}' for s, n in sorted(self._requests.items())]
            lines += _head("answer_seconds", "histogram", "Seconds from a request to the end of its answer.")
            below = 0
            for end in (*SECONDS, float("inf")):
                below += self._answers[end]
                name = "+Inf" if end == float("inf") else f"{end:g}"
                lines.append(f'lookhear_answer_seconds_bucket{{le="{name}"}} {below}')
            lines += [
                f"lookhear_answer_seconds_sum {self._answer_seconds:.3f}",
                f"lookhear_answer_seconds_count {below}",
            ]
            lines += _value("media_seconds_total", "counter", "Seconds of clips that were read.", self._media_seconds)
            lines += _value("busy_seconds_total", "counter", "Seconds the model was busy.", self._busy_seconds)
        lines += _value("requests_inside", "gauge", "Requests that wait or are answered.", taken)
        lines += _value("requests_places", "gauge", "Requests that can wait or be answered.", places)
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP lookhear_{name} {about}", f"# TYPE lookhear_{name} {kind}"]


def _value(name: str, kind: str, about: str, value: float) -> list[str]:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return [*_head(name, kind, about), f"lookhear_{name} {text}"]

"""The newest snapshot of the Hub, for all who look at the page."""

from __future__ import annotations

import threading
import time

from gathering import Snapshot, gather
from hub_files import HubFiles

FRESH, LEAST = 900.0, 60.0  # seconds after which the Hub is read again; when the button is pressed


class Boards:
    """
    The newest snapshot; while one reads the Hub, others get the one before.

    Args:
        hub: what is read.
        organisation: whose benchmarks these are.
    """

    def __init__(self, hub: HubFiles, organisation: str):
        self.hub, self.organisation = hub, organisation
        self._snapshot: Snapshot | None = None
        self._read_at = 0.0
        self._reading = threading.Lock()

    def current(self, oldest: float = FRESH) -> Snapshot:
        """
        Returns a snapshot, read anew if it is too old. Where the Hub does not answer, the last good one stays.

        Args:
            oldest: seconds since it was read.
        """
        there = self._snapshot
        if there is not None and time.monotonic() - self._read_at < (LEAST if there.error else oldest):
            return there
        if not self._reading.acquire(blocking=there is None):
            return there if there is not None else self.current()
        try:
            if self._snapshot is there:  # nobody has read it while this one waited
                found = gather(self.hub, self.organisation)
                self._read_at = time.monotonic()
                if there is None or there.error or not found.error:
                    self._snapshot = found
            assert self._snapshot is not None
            return self._snapshot
        finally:
            self._reading.release()

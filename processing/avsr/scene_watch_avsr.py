"""Where a video cuts to another scene, told from thumbnails while the frames go by."""

from __future__ import annotations

import enum
import functools

import numpy as np

SIDE = 32  # pixels of the square thumbnails
BLANK = 3.0  # grey levels: a thumbnail that varies less is a black, white or washed out picture
DIFFERENT = 0.12  # 1 - correlation of two thumbnails of different scenes, at least; two frames of one differ by 0.001
UNUSUAL = 6.0  # times the running level of change
FLASH = 6  # frames: whatever goes back to the old scene within this time was a flash, and not a cut
PACE = 0.1  # how fast the running level follows


class Change(enum.Enum):
    """What a frame is after the one before it."""

    NONE = "none"
    CUT = "cut"
    RETURN = "return"  # the scene before the last cut is back: that was no cut


class SceneWatch:
    """Compares each frame with the one before it; brightness and contrast do not count.

    A frame is the first of a new scene when its thumbnail correlates little with the one before, and clearly less than
    thumbnails have correlated lately (so that a fast pan or noise is no row of cuts). Gradual changes never are. Blank
    frames (black, white) are passed over. A flash looks like a cut at first: `RETURN` takes it back.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None  # thumbnail of the last frame that was not blank
        self._before: np.ndarray | None = None  # the last one before the latest cut
        self._level: float | None = None  # running mean of the change from frame to frame
        self._since = FLASH + 1  # frames since the latest cut

    def see(self, frame: np.ndarray) -> Change:
        """The next `(height, width, 3)` uint8 frame."""
        self._since += 1
        thumbnail = _thumbnail(frame)
        if thumbnail is None:
            return Change.NONE
        last, self._last = self._last, thumbnail
        if last is None:
            return Change.NONE
        change = 1.0 - float(last @ thumbnail)
        if self._level is None:
            self._level = change
            return Change.NONE
        if self._since <= FLASH and 1.0 - float(self._before @ thumbnail) < DIFFERENT / 2:
            self._since = FLASH + 1
            return Change.RETURN
        if self._since > FLASH and change > max(DIFFERENT, UNUSUAL * self._level):
            self._before, self._since = last, 0
            return Change.CUT
        self._level += PACE * (change - self._level)
        return Change.NONE


def _thumbnail(frame: np.ndarray) -> np.ndarray | None:
    """(SIDE * SIDE,) float32 with mean 0 and length 1 of the green channel; None where the picture is blank."""
    points = frame[_ticks(frame.shape[0])[:, None], _ticks(frame.shape[1]), 1].astype(np.float32)
    rows = points[::2] + points[1::2]
    small = ((rows[:, ::2] + rows[:, 1::2]) / 4).reshape(-1)
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return None if length < BLANK * SIDE else small / length


@functools.lru_cache(maxsize=4)
def _ticks(length: int) -> np.ndarray:
    """(2 * SIDE,) evenly spread indices into `length` pixels."""
    return np.linspace(0, length - 1, 2 * SIDE).astype(int)

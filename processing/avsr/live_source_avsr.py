"""Sound and pictures that are pushed while they happen, as short pieces of sound and mouth crops on one clock.

`LiveSource` holds what was pushed until it is taken, and leaves out pictures, never sound, where they come faster than
faces are found in them. `live_pieces` finds the mouths, and `LatestLocator` lets a locator that is slower than the
camera follow a chosen speaker.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np

from .clip_stream_avsr import ClipPiece, MouthFinder, PieceCutter
from .feature_extraction_avsr import MEAN, Channel, ChannelMixer, as_array
from .media_avsr import PICTURE, SOUND
from .media_source_avsr import LATE, import_av
from .speaker_tracking_avsr import SpeakerLocator

PIECE = 0.2  # seconds of a piece
WAITED_FOR = 0.8  # seconds by which sound or pictures may be late and are still waited for
SPEAKER = "speaker"  # beside `PICTURE` and `SOUND`: what finds the mouths from here on

BEHIND = 10  # pictures that wait, above which four of five are left out
FAR_BEHIND = 40  # likewise, above which all are
ARRIVALS = 4096  # pushes whose times are stored
PAUSE = 1.0  # seconds between two pictures, above which the first is not shown for all that time

Item = tuple[str, Any]


class LiveSource:
    """
    Holds sound and pictures on one clock, which begins with the first of both, until they are taken.

    Args:
        sampling_rate: of the sound that is pushed, in Hz; None if there is none.
        fps: pictures a second, where they come without times; None if there are none.
        rate: samples per second to give.
        fps_out: pictures per second to give.
        channel: of the sound: its number, `"left"`, `"right"`, or None for the average.

    Attributes:
        kinds: of the items that there are.
        dropped: pictures that were left out, as they came too fast.
        end: seconds that were pushed.
    """

    def __init__(
        self, sampling_rate: int | None, fps: float | None, rate: int, fps_out: float, channel: Channel | None = None
    ):
        self.kinds = frozenset(kind for kind, there in ((SOUND, sampling_rate), (PICTURE, fps)) if there is not None)
        self._sampling_rate, self._rate, self._fps, self._fps_out = sampling_rate, rate, fps, fps_out
        self._channel: Channel = MEAN if channel is None else channel
        self._mixer: ChannelMixer | None = None
        self._resampler: Any = None
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._waiting = 0  # pictures among the items
        self._left_out = 0  # pictures in turn
        self._samples = self._ticks = 0  # samples pushed, and pictures given
        self._latest: tuple[float, np.ndarray] | None = None  # the latest picture, and its time
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=ARRIVALS)  # seconds of the clock, and when they came
        self.dropped, self.end = 0, 0.0

    # ----------------------------------------------------------------------------------------------------- pushing

    def push_sound(self, samples: Any) -> None:
        """
        Adds sound that follows on what was added before.

        Args:
            samples: `(samples,)`, or `(channels, samples)`; float with full scale 1.0, or integers of their type's
                full scale.

        Raises:
            ValueError: it is no sound, or none was announced.
        """
        if self._sampling_rate is None:
            raise ValueError("`sound` was not announced: pass its `sampling_rate` to `live`.")
        wave = _checked_sound(samples)
        if self._mixer is None or self._mixer.channels != len(wave):
            self._mixer = ChannelMixer(len(wave), self._rate, self._channel)
        self._samples += wave.shape[1]
        for mono in self._mixer.push(wave):
            for part in self._resampled(mono):
                self._put(SOUND, part)
        self._arrived(self._samples / self._sampling_rate)

    def push_picture(self, picture: Any, time: float | None = None) -> None:
        """
        Adds a picture.

        Args:
            picture: `(height, width, 3)` uint8 RGB.
            time: in seconds on the clock of the sound, later than that of the picture before; None: one `1 / fps`
                after it.

        Raises:
            ValueError: it is no picture, or none was announced.
        """
        if self._fps is None:
            raise ValueError("`pictures` were not announced: pass their `fps` to `live`.")
        picture = as_array(picture, "`pictures`")
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
            raise ValueError(
                f"`pictures` must be uint8 of shape (height, width, 3), not {picture.dtype} of shape {picture.shape}."
            )
        before = self._latest
        if time is None:
            time = 0.0 if before is None else before[0] + 1 / self._fps
        if before is not None and time <= before[0]:
            return  # of a time that has a picture
        if before is not None:
            shown = min((before[0] + time) / 2, before[0] + PAUSE / 2)
            self._give(before[1], shown)
            if time - before[0] > PAUSE:
                self._give(None, time - PAUSE / 2)
        elif time > LATE:
            self._give(None, time - 0.5 / self._fps_out)
        self._latest = time, picture
        if SOUND not in self.kinds:
            self._arrived(time)

    def finish(self) -> None:
        """Ends the input."""
        if self._latest is not None:
            self._give(self._latest[1], self._latest[0] + 1 / (self._fps or 1.0) - 0.5 / self._fps_out)
        for part in self._resampled(None) if self._resampler is not None else ():
            self._put(SOUND, part)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends the input at once; what waits is not given any more."""
        with self._changed:
            self._ended, self._waiting = True, 0
            self._items.clear()
            self._changed.notify_all()

    def choose(self, make_finder: Callable[[], MouthFinder], speaker: Any) -> None:
        """
        Has the mouths found by another finder from here on.

        Args:
            make_finder: returns it; called by the thread that takes the items.
            speaker: whom it looks for; None: the most prominent face.
        """
        self._put(SPEAKER, (make_finder, speaker))

    def _give(self, picture: np.ndarray | None, until: float) -> None:
        """Gives a picture for each tick before `until` (seconds) that has none; None where there is none to show."""
        values: Any = picture
        while self._ticks / self._fps_out < until - 1e-6:
            self._ticks += 1
            self._put(PICTURE, values)
            values = None if picture is None else _AGAIN

    def _put(self, kind: str, values: Any) -> None:
        with self._changed:
            if kind == PICTURE and isinstance(values, np.ndarray):
                values = _LEFT_OUT if self._waiting >= FAR_BEHIND else values
                self._waiting += values is not _LEFT_OUT
            if not self._ended:
                self._items.append((kind, values))
            self._changed.notify_all()

    def _resampled(self, mono: np.ndarray | None) -> Iterator[np.ndarray]:
        """Yields `(samples,)` float32 at the rate to give; with None the rest."""
        if self._sampling_rate == self._rate and mono is not None:
            yield mono
            return
        av, frame = import_av(), None
        if self._resampler is None:
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=self._rate)
        if mono is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono[None]), "fltp", "mono")
            frame.sample_rate = self._sampling_rate
        yield from (piece.to_ndarray()[0] for piece in self._resampler.resample(frame))

    # ------------------------------------------------------------------------------------------------------ its clock

    def _arrived(self, end: float) -> None:
        self.end = max(self.end, end)
        self._arrivals.append((end, monotonic()))

    def since(self, second: float) -> float:
        """Returns the seconds that have passed since what happened at a second of the clock was pushed."""
        now = monotonic()
        return now - next((when for end, when in list(self._arrivals) if end >= second - 1e-6), now)

    # ------------------------------------------------------------------------------------------------------- taking

    def __iter__(self) -> Iterator[Item]:
        """
        Yields `(SOUND, (samples,) float32)`, `(PICTURE, (height, width, 3) uint8)` and `(SPEAKER, (function,
        speaker))`, as they come; `(PICTURE, None)` where there is no picture, and the same array again where one is
        left out.
        """
        shown: np.ndarray | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    return
                kind, values = self._items.popleft()
                waiting = self._waiting
                self._waiting -= kind == PICTURE and isinstance(values, np.ndarray)
            if kind == PICTURE:
                values = shown = self._chosen_picture(values, shown, waiting)
            yield kind, values

    def _chosen_picture(self, picture: Any, shown: np.ndarray | None, waiting: int) -> np.ndarray | None:
        """Returns a picture, or the one before where it is left out as too many wait."""
        if picture is _AGAIN or picture is None:
            return shown if picture is _AGAIN else None
        if picture is _LEFT_OUT or (waiting > BEHIND and self._left_out < 4 and shown is not None):
            self._left_out, self.dropped = self._left_out + 1, self.dropped + 1
            return shown
        self._left_out = 0
        return picture


_AGAIN, _LEFT_OUT = object(), object()  # the picture before, and one that was left out when it came


def _checked_sound(samples: Any) -> np.ndarray:
    """Returns pushed sound as `(channels, samples)` float32, full scale 1.0; what is no number is silent."""
    wave = as_array(samples, "`sound`")
    wave = wave[None] if wave.ndim == 1 else wave
    if wave.ndim != 2 or wave.dtype.kind not in "fiu" or len(wave) == 0 or len(wave) > 32:
        raise ValueError(
            f"`sound` must be numbers of shape (samples,) or (channels, samples), not {wave.dtype} of shape "
            f"{np.shape(samples)}."
        )
    if wave.dtype.kind in "iu":
        half = 2.0 ** (8 * wave.dtype.itemsize - 1)
        wave = wave / half - (wave.dtype.kind == "u")
    return np.nan_to_num(wave.astype(np.float32), posinf=0.0, neginf=0.0)


@dataclass(frozen=True)
class NewSpeaker:
    """
    Stands between the pieces where somebody else was chosen.

    Attributes:
        speaker: who is read from here on; None: the most prominent face.
    """

    speaker: Any


def live_pieces(
    source: LiveSource, finder: MouthFinder | None, rate: int, fps: float, roi_size: int
) -> Iterator[ClipPiece | NewSpeaker]:
    """
    Yields the pieces of a live source as soon as they are complete, and where somebody else is read from.

    Args:
        source: what is pushed.
        finder: what finds the mouths in its pictures; None where none are looked for.
        rate: samples per second.
        fps: crops per second.
        roi_size: side of the crops.
    """
    cutter = PieceCutter(rate, fps, roi_size, SOUND in source.kinds, finder is not None, WAITED_FOR, PIECE, 0.0)
    latest: Any = None  # picture
    late, begun = 0, False  # pictures that are missing at the beginning, and whether the finder has seen any
    with contextlib.ExitStack() as running:
        if finder is not None:
            running.enter_context(finder)
        for kind, values in source:  # in a pause of the pictures the latest one stands
            if kind == SOUND:
                cutter.add_sound(values)
            elif kind == SPEAKER and finder is not None:
                for rows in finder.finish():
                    cutter.add_lips(*rows)
                running.close()
                make_finder, speaker = values
                finder, begun = running.enter_context(make_finder()), False
                yield from cutter.ready()
                yield NewSpeaker(speaker)
            elif kind == PICTURE and finder is not None and values is None and latest is None:
                late += 1
            elif kind == PICTURE and finder is not None:
                if latest is None:
                    finder.begin(late)
                    cutter.begin_lips(late)
                picture = latest if values is None else values
                again = begun and picture is latest
                for rows in finder.repeat(picture) if again else finder.add(picture):
                    cutter.add_lips(*rows)
                latest, begun = picture, True
            yield from cutter.ready()
        for rows in finder.finish() if finder is not None and begun else ():
            cutter.add_lips(*rows)
    yield from cutter.finish(cutter.sound_end)


class LatestLocator:
    """
    A `speaker_locator` for pictures that come faster than another one looks at them: that one gets the latest picture
    whenever it is ready, and the speaker is where it saw them last.

    Args:
        locate: the other one.
    """

    def __init__(self, locate: SpeakerLocator):
        self._locate = locate

    def __call__(self, frames: Iterator[np.ndarray], prompt: Any) -> Iterator[Sequence[float] | None]:
        """Yields a box for each frame; the first one is waited for. See `ChosenSpeaker`."""
        looking = _Looking()
        thread = threading.Thread(target=looking.run, args=(self._locate, prompt), name="look", daemon=True)
        thread.start()
        try:
            for frame in frames:
                yield looking.see(frame)
        finally:
            looking.close()
            thread.join()


class _Looking:
    """Passes the latest frame to a locator, and its latest box back."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: np.ndarray | None = None  # not taken by the locator yet
        self._latest: np.ndarray | None = None  # that it took last
        self._box: Any = None
        self._answered = self._closed = False
        self._error: BaseException | None = None

    def see(self, frame: np.ndarray) -> Any:
        """Takes a frame; returns the latest box, the first one as soon as it is there."""
        with self._changed:
            self._frame = frame
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._answered or self._closed)
            if self._error is not None:
                raise self._error
            return self._box

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def run(self, locate: SpeakerLocator, prompt: Any) -> None:
        """Runs the locator."""
        try:
            for box in locate(self._frames(), prompt):
                with self._changed:
                    self._box, self._answered = box, True
                    self._changed.notify_all()
        except BaseException as error:  # `see` raises it
            self._error = error
        self.close()

    def _frames(self) -> Iterator[np.ndarray]:
        """Yields the latest frames; until the first answer the same one again, as a locator may look at several."""
        while True:
            with self._changed:
                self._changed.wait_for(self._is_ready)
                if self._closed:
                    return
                self._latest, self._frame = self._latest if self._frame is None else self._frame, None
                latest = self._latest
            assert latest is not None
            yield latest

    def _is_ready(self) -> bool:
        again = self._latest is not None and not self._answered
        return self._frame is not None or self._closed or again

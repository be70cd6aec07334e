"""What the tab "Live" does: a recording that a browser sends piece by piece is read while it grows."""

from __future__ import annotations

import base64
import binascii
import math
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import av
import numpy as np

from limits import CONTAINERS, Limits
from messages import as_sentence

FROM = ("auto", "visual", "audio")
PATIENCE = 5.0  # seconds without a piece after which a browser has left
LARGEST_PIECE = 4_000_000  # bytes
LONGEST_TEXT = 200  # letters of a description
GAP = 0.1  # seconds of sound that are missing, from which on silence takes their place
QUICK = {"analyzeduration": "300000", "fpsprobesize": "0"}  # of FFmpeg: begin early
LOST = "This reading has ended: start another one."


class GrowingFile:
    """
    A file whose content comes piece by piece. Who reads waits for it.

    Args:
        most: bytes of all pieces together.

    Attributes:
        abandoned: whether nothing came for so long that it counts as ended.
    """

    def __init__(self, most: int):
        self._left, self._content, self._ended = most, bytearray(), False
        self._changed = threading.Condition()
        self.abandoned = False

    def put(self, piece: bytes) -> None:
        """
        Adds a piece; an empty one says that more will come.

        Raises:
            ValueError: all pieces together are too large.
        """
        with self._changed:
            self._left -= len(piece)
            if self._left < 0:
                self._ended = True
            else:
                self._content += piece
            self._changed.notify_all()
        if self._left < 0:
            raise ValueError("The recording is larger than the limit here.")

    def end(self) -> None:
        """Notes that nothing follows."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def read(self, size: int) -> bytes:
        """Returns up to `size` bytes as soon as there are any; none at the end, or when a browser has left."""
        with self._changed:
            while not self._content and not self._ended:
                if not self._changed.wait(PATIENCE):
                    self._ended = self.abandoned = True
            part = bytes(self._content[:size])
            del self._content[:size]
            return part


class LiveReading:
    """
    One visitor's recording, which is read in a thread of its own until it ends.

    Args:
        asr: pipeline of the task `audio-visual-speech-recognition`.
        limits: what is refused.
        settings: of `asr.live`.
    """

    def __init__(self, asr: Any, limits: Limits, settings: Mapping[str, Any]):
        self._asr, self._limits, self._settings = asr, limits, dict(settings)
        self._file = GrowingFile(round(limits.megabytes * 1e6))
        self._lock = threading.Lock()
        self._words: list[dict[str, Any]] = []  # that the browser has not got yet
        self._live: Any = None
        self._error: str | None = None
        self.began, self.over = time.monotonic(), False
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)
        self._thread.start()

    def push(self, piece: bytes, last: bool) -> dict[str, Any]:
        """
        Adds a piece of the recording.

        Args:
            piece: of a webm or mp4 file, as `MediaRecorder` makes it; empty to ask for news only.
            last: whether nothing follows.

        Returns:
            `words` that have become certain, with their `start` and `end` in seconds; `partial`, what may follow;
            `left_out`, how many pictures came too fast; `over`, whether no words follow; `error`, or None.
        """
        over = self.over  # before the words are taken: some may come between
        try:
            if not over:
                self._file.put(piece)
        except ValueError as error:
            self._fail(as_sentence(error))
        if last:
            self._file.end()
        with self._lock:
            words, self._words = self._words, []
        live = self._live
        return {
            "words": [
                {"text": word["text"], "start": word["timestamp"][0], "end": word["timestamp"][1]} for word in words
            ],
            "partial": "" if live is None or over else live.partial,
            "left_out": 0 if live is None else live.dropped,
            "over": over,
            "error": self._error,
        }

    def choose(self, speaker: Any) -> None:
        """
        Reads somebody else from here on.

        Raises:
            ValueError: nothing is read yet, or nobody is seen.
        """
        if self._live is None or self.over:
            raise ValueError(LOST if self.over else "Wait until the first words could be read.")
        self._live.choose(speaker)

    def close(self) -> None:
        """Ends the recording, and waits until its threads have."""
        self._file.end()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._read()
        except (ValueError, OSError, av.error.FFmpegError) as error:
            unreadable = isinstance(error, av.error.FFmpegError)
            self._fail("The recording cannot be read." if unreadable else as_sentence(error))
        except Exception as error:  # of the model: a line for the log, and one for the page
            print(f"live: {type(error).__name__}: {as_sentence(error)}", file=sys.stderr, flush=True)
            self._fail("Something went wrong: start again.")
        self.over = True
        self._file.end()

    def _fail(self, sentence: str) -> None:
        """Notes what is wrong; of several errors the first one, of which the others come."""
        self._error = self._error or sentence

    def _read(self) -> None:
        options = {"format_whitelist": ",".join(sorted(CONTAINERS)), "protocol_whitelist": "", **QUICK}
        with av.open(self._file, "r", options=options) as container:
            video = container.streams.video[0] if container.streams.video else None
            audio = container.streams.audio[0] if container.streams.audio else None
            if video is not None:
                self._limits.check_pixels((video.width, video.height))
                video.thread_type = "SLICE"  # threads by frame would hold frames back
            rate = None if audio is None else int(audio.codec_context.sample_rate)
            with self._asr.live(rate, None if video is None else 25.0, **self._settings) as live:
                self._live = live
                for words in self._pushed(container, live):
                    self._add(words)
                if not self._file.abandoned:
                    self._add(live.finish())

    def _pushed(self, container: Any, live: Any) -> Iterator[list[dict[str, Any]]]:
        """Pushes the frames of a container, each at its time; yields the words that come of it."""
        heard, seen, start = 0.0, 0, None  # seconds of sound, pixels, and the time of the first frame
        for packet in container.demux(*container.streams.video[:1], *container.streams.audio[:1]):
            for frame in packet.decode():
                second = 0.0 if frame.time is None else frame.time
                start = second if start is None else start
                begins = max(0.0, second - start)
                if begins > self._limits.live_seconds:
                    return
                if isinstance(frame, av.VideoFrame):
                    self._limits.check_pixels((frame.width, frame.height))
                    seen += frame.width * frame.height
                    if seen > self._limits.gigapixels * 1e9:
                        raise ValueError("The pictures are too large to be read for so long: choose a smaller size.")
                    if live.sees:
                        yield live.push(pictures=[frame.to_ndarray(format="rgb24")], times=[begins])
                elif live.hears:
                    samples = as_samples(frame)
                    if begins - heard > GAP:
                        silence = np.zeros((len(samples), round((begins - heard) * frame.sample_rate)), np.float32)
                        samples = np.concatenate([silence, samples], axis=1)
                    heard += samples.shape[1] / frame.sample_rate
                    yield live.push(sound=samples)

    def _add(self, words: list[dict[str, Any]]) -> None:
        with self._lock:
            self._words += words


def as_samples(frame: Any) -> np.ndarray:
    """Returns the samples of a frame of any format as `(channels, samples)` float32, full scale 1.0."""
    resampler = av.AudioResampler(format="fltp", layout=frame.layout, rate=frame.sample_rate)
    frame.pts = None
    return np.concatenate([part.to_ndarray() for part in resampler.resample(frame)], axis=1).astype(np.float32)


class LiveSessions:
    """
    The readings that run, by a secret that only their visitor has.

    What comes from a browser is not trusted, and what is wrong is an answer, `{"error": …}`, not an exception.

    Args:
        asr: pipeline of the task `audio-visual-speech-recognition`.
        see: pipeline of the task `object-perception`, which finds who is described or tapped.
        limits: what is refused.
    """

    def __init__(self, asr: Any, see: Any, limits: Limits):
        self._asr, self._see, self._limits = asr, see, limits
        self._running: dict[str, LiveReading] = {}
        self._lock = threading.Lock()

    def begin(self, asked: Any) -> dict[str, Any]:
        """
        Begins a reading.

        Args:
            asked: `{"from": one of FROM, "who": a description or ""}`.

        Returns:
            `{"token", "seconds"}`: what `push` needs, and how long it may last.
        """
        try:
            settings = self._settings(asked)
        except ValueError as error:
            return refused(error)
        with self._lock:
            self._running = {token: one for token, one in self._running.items() if not one.over}
            if len(self._running) >= int(self._limits.live_sessions):
                return refused(ValueError(f"Others are being read live; try again in {self._left():.0f} seconds."))
            token = secrets.token_urlsafe()
            self._running[token] = LiveReading(self._asr, self._limits, settings)
        return {"token": token, "seconds": self._limits.live_seconds}

    def push(self, sent: Any) -> dict[str, Any]:
        """
        Adds a piece of a recording.

        Args:
            sent: `{"token", "piece": base64, "last": bool}`.

        Returns:
            See `LiveReading.push`.
        """
        try:
            reading, piece = self._found(sent), base64.b64decode(str(sent.get("piece", "")), validate=True)
            if len(piece) > LARGEST_PIECE:
                raise ValueError("A piece of the recording is too large.")
        except (ValueError, binascii.Error) as error:
            return {"over": True, **refused(error)}
        answer = reading.push(piece, sent.get("last") is True)
        if answer["over"]:
            with self._lock:
                self._running.pop(sent["token"], None)
        return answer

    def choose(self, sent: Any) -> dict[str, Any]:
        """
        Reads somebody else from here on.

        Args:
            sent: `{"token", "point": [x, y]}` in pixels of the picture.
        """
        try:
            reading = self._found(sent)
            x, y = (float(value) for value in sent.get("point", ()))
            if not (math.isfinite(x) and math.isfinite(y)):
                raise ValueError("Tap the face in the picture.")
            reading.choose({"point": (x, y)})
        except (TypeError, ValueError) as error:
            return refused(ValueError("Tap the face in the picture.") if isinstance(error, TypeError) else error)
        return {"error": None}

    def _found(self, sent: Any) -> LiveReading:
        token = sent.get("token") if isinstance(sent, Mapping) else None
        with self._lock:
            reading = self._running.get(token) if isinstance(token, str) else None
        if reading is None:
            raise ValueError(LOST)
        return reading

    def _settings(self, asked: Any) -> dict[str, Any]:
        """Returns the settings of `asr.live`; raises ValueError for what cannot be asked for."""
        asked = asked if isinstance(asked, Mapping) else {}
        modality, who = asked.get("from", "auto"), str(asked.get("who") or "").strip()
        if modality not in FROM or len(who) > LONGEST_TEXT:
            raise ValueError("Choose what is read from, and describe the speaker in a few words.")
        if who and modality == "audio":
            raise ValueError("A speaker is chosen by the face: read from lips, too, or describe nobody.")
        return {"modality": modality, "speaker": who or None, "speaker_locator": self._see}

    def _left(self) -> float:
        """Returns the seconds after which one of the readings ends at the latest."""
        began = min(one.began for one in self._running.values())
        return max(1.0, began + self._limits.live_seconds - time.monotonic())


def refused(error: Exception) -> dict[str, Any]:
    """Returns an error as an answer."""
    return {"error": as_sentence(error)}

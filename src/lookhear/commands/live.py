"""`lookhear live`: cameras, microphones, streams and files at their own speed, and captions on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import av
import numpy as np

NONE = "none"  # instead of a device
PROTOCOLS = "crypto,hls,http,https,httpproxy,rtmp,rtmps,rtp,rtsp,srt,tcp,tls,udp"  # of streams: never files
PATIENCE = 15.0  # seconds that a stream may take to begin, or stop for
PAUSE = 1.0  # seconds between two words, after which a new line begins
GAP = 0.1  # seconds of sound that are missing, from which on silence takes their place
AHEAD = 0.02  # seconds before its time from which on a frame is given


class LiveInput:
    """
    The frames of a container as they come.

    Args:
        container: as PyAV has opened it.
        name: for messages.
        device: whether its frames come when they happen; others are held until their time.
    """

    def __init__(self, container: Any, name: str, device: bool):
        self.name, self._container, self.is_device = name, container, device
        video, audio = container.streams.video, container.streams.audio
        self.video = video[0] if video else None
        self.audio = audio[0] if audio else None
        if self.video is None and self.audio is None:
            raise ValueError(f"{name} holds neither video nor sound")

    @property
    def fps(self) -> float | None:
        """Pictures a second; None without video."""
        return None if self.video is None else float(self.video.average_rate or self.video.guessed_rate or 25.0)

    @property
    def sampling_rate(self) -> int | None:
        """Samples a second; None without sound."""
        return None if self.audio is None else int(self.audio.codec_context.sample_rate)

    def close(self) -> None:
        """Closes the container."""
        self._container.close()

    def frames(self, began: float) -> Iterator[tuple[Any, float | None]]:
        """
        Yields the frames, each with its seconds on the input's clock, if it has any, when it is their time.

        Args:
            began: when that clock began, as `time.monotonic` counts.

        Raises:
            ValueError: the input breaks off.
        """
        streams = [stream for stream in (self.video, self.audio) if stream is not None]
        if self.video is not None:
            self.video.thread_type = "SLICE"  # threads by frame would hold frames back
        start: float | None = None
        try:
            for packet in self._container.demux(streams):
                with contextlib.suppress(av.error.InvalidDataError):  # a damaged packet
                    for frame in packet.decode():
                        if self.is_device or frame.time is None:
                            yield frame, time.monotonic() - began if self.is_device else None
                            continue
                        start = frame.time if start is None else start
                        begins = frame.time - start
                        time.sleep(max(0.0, began + begins - AHEAD - time.monotonic()))
                        yield frame, begins
        except av.error.FFmpegError as error:
            raise ValueError(f"{self.name} breaks off: {error.strerror or error}") from None


def open_source(source: str | None) -> LiveInput:
    """
    Opens a file or a stream.

    Args:
        source: path or address; None for the standard input.

    Raises:
        ValueError: it cannot be opened.
    """
    name, timeout = source or "the standard input", None
    options = {"protocol_whitelist": "file"}
    if source is None:
        what: Any = sys.stdin.buffer
        options = {"protocol_whitelist": "pipe"}
        if sys.stdin.isatty():
            raise ValueError("-: the standard input is a terminal; send a stream into it")
    elif "://" in source and not source.lower().startswith("file://"):
        what, timeout, options = source, PATIENCE, {"protocol_whitelist": PROTOCOLS}
        if source.split("://")[0].lower() not in PROTOCOLS.split(","):
            raise ValueError(f"{source}: streams come by {', '.join(PROTOCOLS.split(','))}")
    else:
        path = source[7:] if source.lower().startswith("file://") else source
        if not os.path.isfile(path):
            raise ValueError(f"{source} is no file; an address begins with rtsp://, http:// or the like")
        what = "file:" + os.path.abspath(path)
    return LiveInput(_opened(what, name, None, options, timeout), name, device=False)


def open_devices(camera: str | None, microphone: str | None) -> list[LiveInput]:
    """
    Opens a camera and a microphone.

    Args:
        camera: its name; None: the first one, `"none"`: none.
        microphone: its name; None: the default one, `"none"`: none.

    Raises:
        ValueError: one cannot be opened.
    """
    opened: list[LiveInput] = []
    try:
        for option, device in (("--camera", camera), ("--microphone", microphone)):
            if device != NONE:
                kind, name = device_of(option, device, sys.platform, av.formats_available)
                container = _opened(name, f"{option} {device or name}", kind, {}, PATIENCE)
                opened.append(LiveInput(container, f"{option} {device or name}", device=True))
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


def device_of(option: str, device: str | None, platform: str, formats: Any) -> tuple[str, str]:
    """
    Returns the format of ffmpeg that opens a device, and its name there.

    Args:
        option: `"--camera"` or `"--microphone"`.
        device: its name; None for the default one.
        platform: `sys.platform`.
        formats: names of the formats that are there.

    Raises:
        ValueError: there is no default one, or ffmpeg has no such devices here.
    """
    seen = option == "--camera"
    if platform == "darwin":
        return "avfoundation", f"{device or '0'}:none" if seen else f"none:{device or '0'}"
    if platform == "win32":
        if device is None:
            raise ValueError(f"{option}: name the device; ffmpeg -list_devices true -f dshow -i x lists them")
        return "dshow", f"{'video' if seen else 'audio'}={device}"
    kinds = ("video4linux2,v4l2", "video4linux2", "v4l2") if seen else ("pulse", "alsa")
    there = [kind for kind in kinds if kind in formats]
    if not there:
        raise ValueError(f"{option}: this build of PyAV opens no such devices; pass a stream's address as SOURCE")
    return there[0].split(",")[-1], device or ("/dev/video0" if seen else "default")


def _opened(what: Any, name: str, kind: str | None, options: dict[str, str], timeout: float | None) -> Any:
    try:
        return av.open(what, mode="r", format=kind, options=options, timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{name} cannot be opened: {reason}") from None


class Caption:
    """
    Shows words: on a terminal in place, with what is not certain yet in grey; else as they come.

    Args:
        json_lines: whether a line of JSON is printed for each word instead.
    """

    def __init__(self, json_lines: bool, out: TextIO | None = None):
        self._json, self._out = json_lines, out or sys.stdout
        self._terminal = self._out.isatty() and not json_lines
        self._lock = threading.Lock()
        self._line: list[str] = []
        self._until, self._delay = 0.0, ""

    def show(self, words: list[dict[str, Any]], partial: str = "") -> None:
        """
        Shows what is new.

        Args:
            words: that have become certain.
            partial: what follows, perhaps.
        """
        with self._lock:
            for word in words:
                self._add(word)
            if self._terminal:
                grey = f" \x1b[2m{partial}  {self._delay}\x1b[0m" if partial or self._delay else ""
                self._out.write(f"\r\x1b[K{' '.join(self._line)}{grey}")
            self._out.flush()

    def _add(self, word: dict[str, Any]) -> None:
        if self._json:
            self._out.write(json.dumps(word, ensure_ascii=False) + "\n")
            return
        long = self._terminal and len(" ".join(self._line)) > 60
        if self._line and (word["timestamp"][0] - self._until > PAUSE or long):
            self._end_line()
        if not self._terminal:
            self._out.write((" " if self._line else "") + word["text"])
        self._line.append(word["text"])
        self._until, self._delay = word["timestamp"][1], f"{word['delay']:.1f} s"

    def end(self) -> None:
        """Ends the last line."""
        with self._lock:
            if self._line:
                self._end_line()
            self._out.flush()

    def _end_line(self) -> None:
        self._out.write(f"\r\x1b[K{' '.join(self._line)}\n" if self._terminal else "\n")
        self._line = []


def read_live(
    asr: Any,
    inputs: list[LiveInput],
    caption: Caption,
    seconds: float | None,
    as_speaker: Callable[[str], Any],
    **settings: Any,
) -> dict[str, Any]:
    """
    Reads inputs until they end, and shows the words.

    Args:
        asr: the pipeline.
        inputs: that happen at the same time.
        caption: shows the words.
        seconds: after which it stops; None: never.
        as_speaker: takes what was typed, returns who is meant, or raises `argparse.ArgumentTypeError`.
        settings: of the pipeline.

    Returns:
        The report of [`LiveSpeech`], with `"began"`, when the inputs' clock began as `time.monotonic` counts, and
        `"error"`, what has ended it, else None.
    """
    rates = [one.sampling_rate for one in inputs if one.sampling_rate is not None]
    fps = [one.fps for one in inputs if one.fps is not None]
    given = {name: value for name, value in settings.items() if value is not None}
    live = asr.live(rates[0] if rates else None, fps[0] if fps else None, **given)
    began, over = time.monotonic(), threading.Event()
    errors: list[BaseException] = []
    with live:
        threads = [
            threading.Thread(target=_follow, args=(one, live, caption, began, seconds, over, errors), daemon=True)
            for one in inputs
        ]
        if sys.stdin is not None and sys.stdin.isatty():
            threading.Thread(target=_choose_typed, args=(live, sys.stdin, as_speaker), daemon=True).start()
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # so that Ctrl-C is heard
        except KeyboardInterrupt:
            over.set()
        try:
            caption.show(live.finish())
        except Exception as error:  # of reading; one of an input comes first
            errors.append(error)
        caption.end()
        report = live.to_report()
    if errors and not isinstance(errors[0], (ValueError, OSError)):
        raise errors[0]
    return {**report, "began": began, "error": " ".join(str(errors[0]).split()) if errors else None}


def _follow(
    source: LiveInput,
    live: Any,
    caption: Caption,
    began: float,
    seconds: float | None,
    over: threading.Event,
    errors: list[BaseException],
) -> None:
    """Pushes the frames of one input while they happen."""
    heard = 0.0  # seconds of sound that were pushed
    try:
        for frame, begins in source.frames(began):
            if over.is_set() or (seconds is not None and (heard if begins is None else begins) > seconds):
                break
            if isinstance(frame, av.VideoFrame):
                if live.sees:
                    upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    words = live.push(pictures=[upright], times=None if begins is None else [begins])
                    caption.show(words, live.partial)
            elif live.hears:
                samples = _samples(frame)
                if begins is not None and begins - heard > GAP and not source.is_device:
                    missing = np.zeros((len(samples), round((begins - heard) * frame.sample_rate)), np.float32)
                    samples = np.concatenate([missing, samples], axis=1)
                heard += samples.shape[1] / frame.sample_rate
                caption.show(live.push(sound=samples), live.partial)
    except BaseException as error:
        errors.append(error)
        over.set()


def _samples(frame: Any) -> np.ndarray:
    """Returns the samples of a frame of any format as `(channels, samples)` float32, full scale 1.0."""
    resampler = av.AudioResampler(format="fltp", layout=frame.layout, rate=frame.sample_rate)
    frame.pts = None
    parts = [part.to_ndarray() for part in resampler.resample(frame)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _choose_typed(live: Any, typed: TextIO, as_speaker: Callable[[str], Any]) -> None:
    """Chooses the speaker whom a line names, whenever one is typed."""
    for line in typed:
        try:
            live.choose(as_speaker(line.strip()) if line.strip() else None)
        except (ValueError, argparse.ArgumentTypeError) as error:
            print(f"lookhear live: {error}", file=sys.stderr)


def summary(report: dict[str, Any]) -> str:
    """Returns a report in words: how much was read, and how late."""
    said = f"{report['duration']:.1f} s, {report['words']} words"
    if report["words"]:
        said += f", {report['delay_median']:.1f} s after their end, 95 % within {report['delay_95']:.1f} s"
    return "; ".join([said, *report["warnings"]])

"""One clip in memory: read as a whole, or through a window that slides over the pieces of a long one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .clip_report_avsr import SILENT_DBFS, ClipReport
from .clip_stream_avsr import ClipPiece, ClipStream, refuse_unreadable

MODALITIES = ("auto", "audio", "visual", "audiovisual")
MIN_FACE_SHARE = 0.2  # with a face in fewer frames than this, most of what the model would see is interpolated
LONG_ABSENCE = 0.5  # seconds: words heard while the chosen speaker is out of view longer than this are dropped

MIN_THERE = 0.1  # with the chosen speaker in view in fewer frames than this, nothing is read
SILENT_POWER = 10 ** (SILENT_DBFS / 10)  # mean square of the samples


@dataclass
class Clip:
    """
    One input of the pipeline.

    Attributes:
        name: name used in error messages.
        audio: `(samples,)` float32 at the feature extractor's rate, or `None`.
        mouths: `(frames, roi, roi)` uint8 at the image processor's rate, or `None`.
        modality: what will be read: `"audio"`, `"visual"` or `"audiovisual"`.
        duration: in seconds.
        report: numbers and warnings about picture and sound.
        absent: `(frames,)` bool, where a speaker who was chosen is not in view; `None` without pictures.
        found: `(frames,)` bool, where the face is seen, and not interpolated; `None` without pictures.
    """

    name: str
    audio: np.ndarray | None = None
    mouths: np.ndarray | None = None
    modality: str = ""
    duration: float = 0.0
    report: ClipReport = field(default_factory=ClipReport)
    absent: np.ndarray | None = None
    found: np.ndarray | None = None

    def to_report(self) -> dict[str, Any]:
        """Returns the report as plain numbers, lists and strings, with what was read and for how long."""
        about = {"source": self.name, "modality": self.modality, "duration": round(self.duration, 3)}
        return {**about, **self.report.to_dict()}


def read_clip(source: Any, modality: str, sampling_rate: int, image_processor) -> Clip:
    """
    Reads an input as far as `modality` needs it.

    Args:
        source: path, URL, bytes, binary file object, or `{"audio", "sampling_rate", "video", "fps"}` of arrays; or a
            [`ClipStream`] of one of them, of which nothing was read yet.
        modality: `"auto"` (what there is), `"audio"`, `"visual"` or `"audiovisual"`.
        sampling_rate: samples a second wanted.
        image_processor: [`MouthRoiImageProcessor`].

    Raises:
        ValueError: names the input and says what is wrong with it: unreadable, or without what `modality` needs.
    """
    if not isinstance(source, ClipStream):
        source = ClipStream(source, modality, sampling_rate, image_processor, max_lead=math.inf)
    with source as stream:
        pieces = list(stream)
        trouble = stream.trouble
    clip = Clip(stream.name, report=stream.report)
    clip.audio = _joined([piece.audio for piece in pieces])
    clip.mouths = _joined([piece.mouths for piece in pieces])
    clip.absent = _joined([piece.absent for piece in pieces])
    clip.found = _joined([piece.found for piece in pieces])
    share = clip.report.frames_with_face
    if clip.absent is not None and clip.absent.any():
        share = share / max(1.0 - clip.absent.mean(), 1e-9)
        clip.audio = without_others(clip.audio, clip.absent, sampling_rate, image_processor.fps)
    if trouble is None and share < MIN_FACE_SHARE and modality != "audio":
        trouble = f"a face was found in {share:.0%} of the frames only"
    if trouble is not None:
        clip.mouths = None
    _settle_modality(clip, modality, trouble)
    _settle_duration(clip, sampling_rate, image_processor.fps)
    return clip


def without_others(audio: np.ndarray | None, absent: np.ndarray, sampling_rate: int, fps: float) -> np.ndarray | None:
    """
    Returns the sound, silent where a chosen speaker is out of view for long.

    Args:
        audio: `(samples,)` float32, or `None`.
        absent: `(frames,)` bool, where the speaker is not in view.
        sampling_rate: of the sound; fps: of the frames.

    Returns:
        The same, or a copy that fades out and in within a frame.
    """
    borders = np.flatnonzero(np.diff(absent, prepend=False, append=False)).reshape(-1, 2)  # [first, after the last)
    borders = borders[borders[:, 1] - borders[:, 0] >= LONG_ABSENCE * fps]
    if audio is None or not len(borders):
        return audio
    loudness = np.ones(len(absent), np.float32)
    for first, end in borders:
        loudness[first:end] = 0.0
    middles = (np.arange(len(absent)) + 0.5) / fps * sampling_rate
    return (audio * np.interp(np.arange(len(audio)), middles, loudness)).astype(np.float32)


def _joined(parts: list[np.ndarray | None]) -> np.ndarray | None:
    """Returns one array of those that are there; `None` where there are none."""
    parts = [part for part in parts if part is not None]
    return np.concatenate(parts) if parts else None


def _settle_modality(clip: Clip, modality: str, trouble: str | None) -> None:
    """Chooses the modality, warns where one is missing, and raises a ValueError where it cannot be read."""
    refuse_unreadable(clip.name, modality, clip.audio is not None, trouble)
    silent = clip.audio is not None and not clip.audio.any()
    if modality == "auto" and clip.mouths is None:
        clip.report.warn([f"read from sound only: {trouble}"])
    elif modality == "auto" and (clip.audio is None or silent):
        clip.audio = None
        clip.report.warn([f"read from lips only: {'the sound is silent' if silent else 'there is no sound'}"])
    sound, lips = clip.audio is not None, clip.mouths is not None
    clip.modality = "audiovisual" if sound and lips else "audio" if sound else "visual"


def _settle_duration(clip: Clip, sampling_rate: int, fps: float) -> None:
    """Notes the length in seconds; sound shorter than a frame is completed to one."""
    sound = 0.0 if clip.audio is None else len(clip.audio) / sampling_rate
    picture = 0.0 if clip.mouths is None else len(clip.mouths) / fps
    if sound and picture and abs(sound - picture) > 0.5:
        clip.report.warn([f"sound ({sound:.1f} s) and picture ({picture:.1f} s) are of different length"])
    if clip.audio is not None:
        clip.audio = np.pad(clip.audio, (0, max(0, round(sampling_rate / fps) - len(clip.audio))))
    clip.duration = max(sound, picture)


class ClipWindow:
    """
    Buffers the part of a stream that is still needed.

    All places are counted in frames since the beginning of the clip.

    Args:
        pieces: of a [`ClipStream`].
        sampling_rate: of their sound; fps: of their pictures.

    Attributes:
        first, last: the frames in memory, `first <= frame < last`.
        ended: whether the stream is over.
    """

    def __init__(self, pieces: Iterator[ClipPiece], sampling_rate: int, fps: float):
        self._pieces, self.sampling_rate, self.fps = pieces, sampling_rate, fps
        self.first = self.last = 0
        self.ended = False
        self._audio: list[np.ndarray] = []  # from `first` on
        self._mouths: list[np.ndarray] = []
        self._found: list[np.ndarray] = []
        self._cuts: list[np.ndarray] = []
        self._absent: list[np.ndarray] = []

    def fill(self, last: int) -> None:
        """Reads on until frame `last` is in memory or the stream ends."""
        while not self.ended and self.last < last:
            piece = next(self._pieces, None)
            if piece is None:
                self.ended = True
            else:
                self._append(piece)

    def _append(self, piece: ClipPiece) -> None:
        start = round(piece.start * self.fps)
        if piece.audio is not None:
            self._pad_to(self._audio, self._sample(start) - self._sample(self.first), np.zeros(0, np.float32))
            self._audio.append(piece.audio)
            self.last = max(self.last, start + round(len(piece.audio) / self.sampling_rate * self.fps))
        if piece.mouths is not None and len(piece.mouths):
            values = (piece.mouths, piece.found, piece.cuts, piece.absent)
            for held, value in zip((self._mouths, self._found, self._cuts, self._absent), values, strict=True):
                self._pad_to(held, start - self.first, value[:0])
                held.append(value)
            self.last = max(self.last, start + len(piece.mouths))

    @staticmethod
    def _pad_to(held: list[np.ndarray], length: int, like: np.ndarray) -> None:
        """Fills the gaps of the stream with zeros."""
        missing = length - sum(map(len, held))
        if missing > 0:
            held.append(np.zeros((missing, *like.shape[1:]), like.dtype))

    def _sample(self, frame: int) -> int:
        return round(frame / self.fps * self.sampling_rate)

    def drop(self, first: int) -> None:
        """Forgets what lies in front of frame `first`."""
        frames, samples = first - self.first, self._sample(first) - self._sample(self.first)
        for held, count in (
            (self._audio, samples),
            (self._mouths, frames),
            (self._found, frames),
            (self._cuts, frames),
            (self._absent, frames),
        ):
            if held:
                held[:] = [np.concatenate(held)[count:].copy()]
        self.first, self.last = first, max(first, self.last)

    def take(self, start: int, end: int) -> Clip:
        """
        The sound and mouths of `start <= frame < end` as a clip; what is silent or hardly shows a face is `None`.

        Its modality is empty where there is nothing to read: also where a chosen speaker is not in view. In
        a part where they are out of view for long, it is silent then.
        """
        audio = self._slice(self._audio, self._sample(start), self._sample(end), self._sample(self.first))
        mouths = self._slice(self._mouths, start, end, self.first)
        absent = self._slice(self._absent, start, end, self.first)
        there = 1.0 if absent is None else 1.0 - float(absent.mean())
        if absent is not None and there < 1.0:
            audio = without_others(audio, absent, self.sampling_rate, self.fps)
        if audio is not None and np.square(audio, dtype=np.float64).mean() < SILENT_POWER:
            audio = None
        found = self._slice(self._found, start, end, self.first)
        if mouths is not None and found.mean() < MIN_FACE_SHARE * max(there, 1e-9):
            mouths = None
        if there < MIN_THERE:
            audio = mouths = None
        kinds = {(True, True): "audiovisual", (True, False): "audio", (False, True): "visual", (False, False): ""}
        modality = kinds[audio is not None, mouths is not None]
        return Clip("", audio, mouths, modality, (end - start) / self.fps, absent=absent, found=found)

    @staticmethod
    def _slice(held: list[np.ndarray], start: int, end: int, offset: int) -> np.ndarray | None:
        if not held:
            return None
        if len(held) > 1:
            held[:] = [np.concatenate(held)]
        part = held[0][max(0, start - offset) : max(0, end - offset)]
        return part if len(part) else None

    def changes(self, start: int, end: int) -> list[int]:
        """Returns the frames of `start < frame < end` with which another scene or face begins."""
        cuts = self._slice(self._cuts, start + 1, end, self.first)
        return [] if cuts is None else (np.flatnonzero(cuts) + start + 1).tolist()

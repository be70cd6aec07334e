"""What the pipeline is given, as one clip: sound at the model's rate, mouth crops at 25 fps, and a report."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .clip_report_avsr import ClipReport
from .clip_stream_avsr import ClipStream, refuse_unreadable

MODALITIES = ("auto", "audio", "visual", "audiovisual")
MIN_FACE_SHARE = 0.2  # with a face in fewer frames than this, most of what the model would see is interpolated
LONG_ABSENCE = 0.5  # seconds: while a chosen speaker is out of view for longer, whoever is heard is somebody else


@dataclass
class Clip:
    """
    One input of the pipeline.

    Attributes:
        name: how messages call it.
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
        """The report as plain numbers, lists and strings, with what was read and for how long."""
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
    The sound without what is heard while a chosen speaker is out of view for long.

    Args:
        audio: `(samples,)` float32, or `None`.
        absent: `(frames,)` bool, where the speaker is not in view.
        sampling_rate: of the sound; fps: of the frames.

    Returns:
        The same, or a copy that fades out and in within a frame.
    """
    borders = np.flatnonzero(np.diff(absent, prepend=False, append=False)).reshape(-1, 2)  # [first, behind the last)
    borders = borders[borders[:, 1] - borders[:, 0] >= LONG_ABSENCE * fps]
    if audio is None or not len(borders):
        return audio
    loudness = np.ones(len(absent), np.float32)
    for first, end in borders:
        loudness[first:end] = 0.0
    middles = (np.arange(len(absent)) + 0.5) / fps * sampling_rate
    return (audio * np.interp(np.arange(len(audio)), middles, loudness)).astype(np.float32)


def _joined(parts: list[np.ndarray | None]) -> np.ndarray | None:
    """One array of those that are there; `None` where there are none."""
    parts = [part for part in parts if part is not None]
    return np.concatenate(parts) if parts else None


def _settle_modality(clip: Clip, modality: str, trouble: str | None) -> None:
    """Decides what is read, warns where that is less than hoped for, and refuses what cannot be."""
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

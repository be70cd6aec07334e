"""What the pipeline is given, as one clip: sound at the model's rate, mouth crops at 25 fps, and a report."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .clip_report_avsr import ClipReport
from .media_avsr import fetch_media, probe_media, read_audio, read_frames, source_name

MODALITIES = ("auto", "audio", "visual", "audiovisual")
MIN_FACE_SHARE = 0.2  # with a face in fewer frames than this, most of what the model would see is interpolated
ARRAY_KEYS = ("audio", "sampling_rate", "video", "fps", "mouths")


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
    """

    name: str
    audio: np.ndarray | None = None
    mouths: np.ndarray | None = None
    modality: str = ""
    duration: float = 0.0
    report: ClipReport = field(default_factory=ClipReport)

    def to_report(self) -> dict[str, Any]:
        """The report as plain numbers, lists and strings, with what was read and for how long."""
        about = {"source": self.name, "modality": self.modality, "duration": round(self.duration, 3)}
        return {**about, **self.report.to_dict()}


@dataclass
class _Source:
    """An input before the faces are looked for."""

    name: str
    audio: np.ndarray | None = None
    frames: Iterator[np.ndarray] | None = None
    mouths: np.ndarray | None = None
    fps: float | None = None
    warnings: list[str] = field(default_factory=list)


def read_clip(source: Any, modality: str, sampling_rate: int, image_processor) -> Clip:
    """
    Reads an input as far as `modality` needs it.

    Args:
        source: path, URL, bytes, binary file object, or `{"audio", "sampling_rate", "video", "fps"}` of arrays.
        modality: `"auto"` (what there is), `"audio"`, `"visual"` or `"audiovisual"`.
        sampling_rate: samples a second wanted.
        image_processor: [`MouthRoiImageProcessor`].

    Raises:
        ValueError: names the input and says what is wrong with it: unreadable, or without what `modality` needs.
    """
    wants_sound, wants_lips = modality != "visual", modality != "audio"
    if isinstance(source, dict):
        raw = _from_arrays(source, wants_sound, wants_lips, sampling_rate, image_processor)
    else:
        raw = _from_media(source, wants_sound, wants_lips, sampling_rate, image_processor)
    clip = Clip(name=raw.name)
    trouble = _find_lips(raw, clip, modality, image_processor) if wants_lips else None
    clip.report.warn(raw.warnings)
    if raw.audio is not None and raw.audio.size:
        clip.report.add_audio(raw.audio)
        clip.audio = raw.audio
    _settle_modality(clip, modality, trouble)
    _settle_duration(clip, sampling_rate, image_processor.fps)
    return clip


def _from_media(source: Any, wants_sound: bool, wants_lips: bool, sampling_rate: int, image_processor) -> _Source:
    """A path, URL, bytes or file object; the frames are decoded while the faces are looked for."""
    raw = _Source(name=source_name(source))
    source = fetch_media(source)
    info = probe_media(source)
    raw.warnings.extend(info.warnings)
    if wants_sound and info.has_audio:
        raw.audio = read_audio(source, sampling_rate, on_warning=raw.warnings.append)
    if wants_lips and info.has_video:
        raw.fps = info.fps
        raw.frames = read_frames(source, fps=image_processor.fps, on_warning=raw.warnings.append)
    return raw


def _from_arrays(source: dict, wants_sound: bool, wants_lips: bool, sampling_rate: int, image_processor) -> _Source:
    """A dictionary of arrays, checked and brought to the model's rates."""
    unknown = [key for key in source if key not in ARRAY_KEYS]
    source = {key: value for key, value in source.items() if value is not None}
    if unknown or not {"audio", "video", "mouths"} & set(source):
        raise ValueError(
            f"The input is a dictionary with {sorted(map(str, source)) or 'nothing'}: it must hold "
            '{"audio", "sampling_rate"}, {"video", "fps"} or both'
            + (f", and {unknown[0]!r} is none of these." if unknown else ".")
        )
    raw = _Source(name="the input dictionary")
    if "audio" in source and wants_sound:
        raw.audio = _checked_audio(source, sampling_rate)
    if "mouths" in source and wants_lips:
        raw.mouths = _checked_mouths(source["mouths"], image_processor.roi_size)
    elif "video" in source and wants_lips:
        video, raw.fps = _checked_video(source)
        raw.frames = _on_clock(video, raw.fps, image_processor.fps)
    return raw


def _checked_audio(source: dict, sampling_rate: int) -> np.ndarray:
    """`source["audio"]` as float32 `(samples,)` at `sampling_rate`; integers become -1 to 1."""
    rate = source.get("sampling_rate")
    if not isinstance(rate, (int, np.integer)) or isinstance(rate, bool) or rate <= 0:
        raise ValueError(f'`"sampling_rate"` of the input dictionary must be a positive integer (Hz), not {rate!r}.')
    wave = np.asarray(source["audio"])
    if wave.dtype.kind not in "fiu":
        raise ValueError(f'`"audio"` of the input dictionary must be numbers, not {wave.dtype}.')
    if wave.ndim != 1:
        raise ValueError(
            f'`"audio"` of the input dictionary must be one channel of shape (samples,), not {wave.shape}: '
            "average the channels."
        )
    if wave.size == 0:
        raise ValueError('`"audio"` of the input dictionary is empty: leave the key out when there is no sound.')
    if not np.isfinite(wave).all():
        count = int((~np.isfinite(wave)).sum())
        raise ValueError(f'`"audio"` of the input dictionary has {count} NaN or infinite samples: repair them first.')
    if wave.dtype.kind in "iu":
        limits = np.iinfo(wave.dtype)
        wave = (wave.astype(np.float64) - (limits.max + limits.min + 1) / 2) / ((limits.max - limits.min + 1) / 2)
    return resample(wave.astype(np.float32), int(rate), sampling_rate)


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """`(samples,)` at `rate` Hz to float32 at `new_rate` Hz (polyphase filter)."""
    if rate == new_rate:
        return wave
    from scipy.signal import resample_poly  # half a second to import

    divisor = math.gcd(rate, new_rate)
    return resample_poly(wave, new_rate // divisor, rate // divisor).astype(np.float32)


def _checked_video(source: dict) -> tuple[np.ndarray, float]:
    """`source["video"]` as uint8 `(frames, height, width, 3)`, and its frames a second."""
    fps = source.get("fps")
    if not isinstance(fps, (int, float, np.number)) or isinstance(fps, bool) or not 0 < fps < math.inf:
        raise ValueError(f'`"fps"` of the input dictionary must be a positive number, not {fps!r}.')
    try:
        video = np.asarray(source["video"])
    except ValueError:
        raise ValueError('`"video"` of the input dictionary has frames of different shapes.') from None
    if video.ndim == 3 and video.dtype == np.uint8:
        video = np.repeat(video[..., None], 3, axis=3)  # grey
    if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or not video.size:
        raise ValueError(
            '`"video"` of the input dictionary must be uint8 of shape (frames, height, width, 3), not '
            f"{video.dtype} of shape {video.shape}."
        )
    return video, float(fps)


def _checked_mouths(mouths: Any, roi_size: int) -> np.ndarray:
    """Mouth crops that were made before: uint8 `(frames, roi, roi)` at the image processor's rate."""
    mouths = np.asarray(mouths)
    if mouths.ndim != 3 or mouths.shape[1:] != (roi_size, roi_size) or mouths.dtype != np.uint8 or not mouths.size:
        raise ValueError(
            f'`"mouths"` of the input dictionary must be uint8 of shape (frames, {roi_size}, {roi_size}), not '
            f"{mouths.dtype} of shape {mouths.shape}."
        )
    return mouths


def _on_clock(video: np.ndarray, fps: float, new_fps: float) -> Iterator[np.ndarray]:
    """The frame nearest in time to each tick of a clock of `new_fps`."""
    for tick in range(max(1, round(len(video) / fps * new_fps))):
        yield video[min(len(video) - 1, round(tick / new_fps * fps))]


def _find_lips(raw: _Source, clip: Clip, modality: str, image_processor) -> str | None:
    """Fills in the mouths and their part of the report; says why there are none."""
    if raw.mouths is not None:
        clip.mouths = raw.mouths
        clip.report = ClipReport(frames=len(raw.mouths), frames_with_face=1.0, fps_out=image_processor.fps)
        return None
    if raw.frames is None:
        return "there is no video"
    try:
        found = image_processor.extract(raw.frames, fps_in=raw.fps)
    except ImportError as error:  # the face detector is an extra
        if modality != "auto" or raw.audio is None:
            raise
        return str(error)
    clip.report = found.report
    share = found.report.frames_with_face
    if share == 0:
        return "no face was found"
    if share < MIN_FACE_SHARE:
        return f"a face was found in {share:.0%} of the frames only"
    clip.mouths = found.mouths
    return None


def _settle_modality(clip: Clip, modality: str, trouble: str | None) -> None:
    """Decides what is read, warns where that is less than hoped for, and refuses what cannot be."""
    silent = clip.audio is not None and not clip.audio.any()
    if modality == "auto":
        if clip.audio is None and clip.mouths is None:
            raise ValueError(f"{clip.name} cannot be read: there is no sound, and {trouble}.")
        if clip.mouths is None:
            clip.report.warn([f"read from sound only: {trouble}"])
        elif clip.audio is None or silent:
            clip.audio = None
            clip.report.warn([f"read from lips only: {'the sound is silent' if silent else 'there is no sound'}"])
    elif modality != "audio" and clip.mouths is None:
        raise ValueError(f'{clip.name} cannot be read with modality="{modality}": {trouble}. Use "auto" or "audio".')
    elif modality != "visual" and clip.audio is None:
        raise ValueError(
            f'{clip.name} cannot be read with modality="{modality}": there is no sound. Use "auto" or "visual".'
        )
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

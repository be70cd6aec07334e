"""What the tab "Read" does with a video: read it, keep what the model saw, and write the results to files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.processing.avsr import write_captions
from lookhear.processing.avsr.clip_reading_avsr import read_clip
from lookhear.processing.avsr.rendering_avsr import write_captioned_video

FORMATS = ("srt", "vtt", "json")
Told = Callable[[float, str], None]


@dataclass
class Reading:
    """
    What was read.

    Attributes:
        result: of the pipeline, with words.
        mouths: `(frames, side, side)` uint8, the crops that lips were read from; None where they were not.
    """

    result: dict[str, Any]
    mouths: np.ndarray | None = field(default=None, repr=False)


def read_video(asr: Any, see: Any, path: str, speaker: Any, modality: str, tell: Told) -> Reading:
    """
    Reads a short video.

    Args:
        asr: pipeline of the task `audio-visual-speech-recognition`; see: of the task `object-perception`.
        path: of the file.
        speaker, modality: as of the pipeline.
        tell: is called with how much is done (0 to 1) and what happens now.

    Raises:
        ValueError: it cannot be read.
    """
    tell(0.05, "Looking for the face" if speaker is None else "Following the speaker")
    extractor, image_processor = asr.processor.feature_extractor, asr.processor.image_processor
    chosen = {} if speaker is None else {"speaker": speaker, "speaker_locator": see}
    speech = asr.stream(path, modality=modality, **chosen)
    clip = read_clip(speech.source, modality, extractor.sampling_rate, image_processor)
    tell(0.6, "Reading")
    arrays: dict[str, Any] = {}
    if clip.audio is not None and clip.modality != "visual":
        arrays |= {"audio": clip.audio, "sampling_rate": extractor.sampling_rate}
    if clip.mouths is not None and clip.modality != "audio":
        arrays |= {"mouths": clip.mouths}
    result = asr(arrays, modality=clip.modality, return_timestamps="word")
    result["report"] = clip.to_report()
    return Reading(result, arrays.get("mouths"))


def write_files(reading: Reading, video: str, folder: Path, tell: Told) -> tuple[Path | None, dict[str, Path]]:
    """
    The captioned video and the subtitles of a reading.

    Args:
        reading: what was read.
        video: that it was read from.
        folder: where files go.
        tell: as of `read_video`.

    Returns:
        The video, and the path of each of `FORMATS`.
    """
    tell(0.8, "Writing the captions")
    name = Path(video).stem
    captioned = write_captioned_video(video, reading.result, folder / f"{name}-captioned.mp4")
    files = {kind: write_captions(reading.result, folder / f"{name}.{kind}") for kind in FORMATS}
    return captioned, files


def crop_strip(mouths: np.ndarray, crop: int, columns: int = 8, rows: int = 2, scale: int = 2) -> np.ndarray:
    """
    Evenly spread crops side by side, cut as the network gets them.

    Args:
        mouths: `(frames, side, side)` uint8.
        crop: pixels of the middle that the network sees.
        columns, rows: of the picture; fewer where there are fewer frames.
        scale: whole number by which crops are enlarged.

    Returns:
        `(height, width)` uint8, white between the crops.
    """
    count = min(len(mouths), columns * rows)
    columns = min(columns, count)
    first = (mouths.shape[1] - crop) // 2
    places = np.linspace(0, len(mouths) - 1, count).round().astype(int)
    gap, side = 4, crop * scale
    rows = -(-count // columns)
    picture = np.full((rows * (side + gap) - gap, columns * (side + gap) - gap), 255, np.uint8)
    for number, place in enumerate(places):
        top, left = (side + gap) * (number // columns), (side + gap) * (number % columns)
        shown = mouths[place, first : first + crop, first : first + crop].repeat(scale, 0).repeat(scale, 1)
        picture[top : top + side, left : left + side] = shown
    return picture

"""What the tab "Read" does with a video: read it, keep what the model saw, and write the results to files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.processing.avsr import write_captions
from lookhear.processing.avsr.clip_stream_avsr import ClipPiece, ClipStream
from lookhear.processing.avsr.rendering_avsr import write_captioned_video
from lookhear.processing.avsr.speaker_boxes_avsr import ChosenSpeaker
from lookhear.processing.avsr.speaker_locator_avsr import ObjectLocator
from lookhear.processing.avsr.speaker_request_avsr import check_speaker

FORMATS = ("srt", "vtt", "json")
Told = Callable[[float, str], None]


@dataclass
class Reading:
    """
    What was read.

    Attributes:
        result: of the pipeline, with words.
        mouths: `(crops, side, side)` uint8, some of the crops that lips were read from; None where they were not.
    """

    result: dict[str, Any]
    mouths: np.ndarray | None = field(default=None, repr=False)


class WatchedClip(ClipStream):
    """
    A clip that shows on its way to the model how far it is, and keeps every fourth mouth.

    Args:
        path: of the file.
        asr: pipeline of the task `audio-visual-speech-recognition`, whose settings hold.
        modality: as of the pipeline.
        speaker: who is read, and what finds them.
        tell: as of `read_video`.
    """

    def __init__(self, path: str, asr: Any, modality: str, speaker: ChosenSpeaker | None, tell: Told):
        rate, image_processor = asr.processor.feature_extractor.sampling_rate, asr.processor.image_processor
        super().__init__(path, modality, rate, image_processor, speaker=speaker)
        self._tell, self._kept = tell, []

    def __next__(self) -> ClipPiece:
        piece = super().__next__()
        if piece.mouths is not None:
            self._kept.append(piece.mouths[piece.found][::4].copy())
        self._tell(0.05 + 0.65 * min(1.0, piece.start / (self.duration or 60.0)), "Following the speaker")
        return piece

    @property
    def mouths(self) -> np.ndarray | None:
        """`(crops, side, side)` uint8, None without any."""
        kept = [mouths for mouths in self._kept if len(mouths)]
        return np.concatenate(kept) if kept else None


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
    settings = {"modality": modality, "return_timestamps": "word"}
    if speaker == "everyone":
        tell(0.05, "Looking for all faces")
        return Reading(asr(path, speaker=speaker, **settings))
    if speaker is not None and modality == "audio":
        raise ValueError("Who is read is chosen among faces: read from lips, too, or from the most prominent face.")
    chosen = None if speaker is None else ChosenSpeaker(check_speaker(speaker), ObjectLocator(see))
    clip = WatchedClip(path, asr, modality, chosen, tell)
    (result,) = asr([clip], **settings, **({} if speaker is None else {"speaker": speaker}))
    return Reading(result, None if result["report"]["modality"] == "audio" else clip.mouths)


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

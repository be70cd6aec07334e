"""What the tab "Read" does with a video: read it, collect what the model saw, and write the results to files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from boxes import are_near
from lookhear.processing.avsr import ClipPiece, write_captioned_video, write_captions, write_speaker_video
from media import private_name

FORMATS = ("srt", "vtt", "json")
MARGIN = 0.2  # of the speaker's box in the first second: the speaker moves, so a tap near the box counts
OnProgress = Callable[[float, str], None]


@dataclass
class Reading:
    """
    What was read.

    Attributes:
        result: of the pipeline, with words.
        mouths: of each person whose lips were read the name ("" where there is one person) and some of the crops,
            `(crops, side, side)` uint8.
        lips: of the same people `(crops, 20, 2)`, the points of their lips in pixels of the crops.
    """

    result: dict[str, Any]
    mouths: list[tuple[str, np.ndarray]] = field(repr=False)
    lips: list[np.ndarray] = field(repr=False, default_factory=list)


class Watch:
    """
    Watches the pieces of a clip on their way to the model: reports progress, and collects every fourth mouth.

    Args:
        seconds: of the clip.
        several: whether people, whose number is unknown, are read one after the other.
        on_progress: see `read_video`.
    """

    def __init__(self, seconds: float, several: bool, on_progress: OnProgress):
        self._seconds, self._several, self._on_progress = seconds, several, on_progress
        self._kept: list[list[np.ndarray]] = []
        self._lips: list[list[np.ndarray]] = []

    def __call__(self, piece: ClipPiece) -> None:
        if piece.start == 0:
            self._kept.append([])
            self._lips.append([])
        if piece.mouths is not None:
            self._kept[-1].append(piece.mouths[piece.found][::4].copy())
            if piece.lips is not None:
                self._lips[-1].append(piece.lips[piece.found][::4].copy())
        number, share = len(self._kept), min(1.0, piece.start / max(self._seconds, 1.0))
        if self._several:  # each takes half of what is left
            self._on_progress(0.7 - 0.65 * (1 - share / 2) / 2 ** (number - 1), f"Reading speaker {number}")
        else:
            self._on_progress(0.05 + 0.65 * share, "Following the speaker")

    @property
    def mouths(self) -> list[np.ndarray]:
        """`(crops, side, side)` uint8 of each person, empty without any."""
        return [np.concatenate(kept) if kept else np.zeros((0, 1, 1), np.uint8) for kept in self._kept]

    @property
    def lips(self) -> list[np.ndarray]:
        """`(crops, 20, 2)` of each person, in pixels of the crops; empty where they are unknown."""
        return [np.concatenate(kept) if kept else np.zeros((0, 20, 2), np.float32) for kept in self._lips]


def read_video(
    asr: Any,
    see: Any,
    path: str,
    seconds: float,
    speaker: Any,
    modality: str,
    on_progress: OnProgress,
    search: str | None = None,
) -> Reading:
    """
    Reads a short video.

    Args:
        asr: pipeline of the task `audio-visual-speech-recognition`.
        see: pipeline of the task `object-perception`.
        path: of the file.
        seconds: its length.
        speaker: see the pipeline.
        modality: see the pipeline.
        on_progress: called with the share that is done (0 to 1) and what is being done.
        search: see the pipeline; None: the checkpoint's.

    Raises:
        ValueError: it cannot be read, or who is to be read has no face in it.
    """
    if speaker is not None and modality == "audio":
        raise ValueError("A speaker is chosen by the face: read from lips, too, or from the most prominent face.")
    on_progress(0.02, "Looking for faces")
    watch = Watch(seconds, speaker == "everyone", on_progress)
    who = {} if speaker is None else {"speaker": speaker, "speaker_locator": see}
    how = {} if search is None else {"search": search}
    result = asr(path, modality=modality, return_timestamps="word", on_piece=watch, **who, **how)
    if "speaker" in result["report"]:
        _check_followed(speaker, result["report"]["speaker"])
    people = result.get("speakers", [{"speaker": "", **result}])
    seen = [
        (one["speaker"], crops, lips)
        for one, crops, lips in zip(people, watch.mouths, watch.lips, strict=True)
        if one["report"]["modality"] != "audio" and len(crops)
    ]
    return Reading(result, [(name, crops) for name, crops, _ in seen], [lips for _, _, lips in seen])


def _check_followed(speaker: Any, followed: dict[str, Any]) -> None:
    """Raises ValueError if another person was followed, or none: the pipeline always returns the best match."""
    faceless = followed["followed"] == 0  # the speaker of what was heard is unknown
    if isinstance(speaker, str) and faceless:
        raise ValueError(
            f"No face was found of \u201c{speaker}\u201d: describe a person who is in the picture, or tap their face."
        )
    if isinstance(speaker, dict) and (faceless or not _is_in(followed["seconds"][0]["box"], speaker["point"])):
        raise ValueError("No face was found where you tapped: tap the middle of a face.")


def _is_in(box: list[float] | None, point: tuple[float, float]) -> bool:
    """Returns whether a point is in a box, or near; True without a box."""
    if box is None:
        return True
    x0, y0, x1, y1 = box
    return are_near((x0, y0, x1, y1), (*point, *point), MARGIN * (x1 - x0), MARGIN * (y1 - y0))


def write_files(reading: Reading, video: str, folder: Path, on_progress: OnProgress) -> tuple[Path, dict[str, Path]]:
    """
    Writes the captioned video and the subtitles of a reading.

    Args:
        reading: what was read.
        video: that it was read from.
        folder: where files go.
        on_progress: see `read_video`.

    Returns:
        The video, in which a speaker who was chosen stands out, and the path of each of `FORMATS`.
    """
    on_progress(0.8, "Writing the captions")
    name = private_name(video)
    write_video = write_speaker_video if "speaker" in reading.result["report"] else write_captioned_video
    captioned = write_video(video, reading.result, folder / f"{name}-captioned.mp4")
    files = {kind: write_captions(reading.result, folder / f"{name}.{kind}") for kind in FORMATS}
    return captioned, files


LINE = (64, 224, 128)  # colour of the lips' line


def crop_strip(
    mouths: np.ndarray,
    crop: int,
    columns: int = 8,
    rows: int = 2,
    scale: int = 2,
    lips: np.ndarray | None = None,
) -> np.ndarray:
    """
    Arranges evenly spread crops in rows, cropped as the network reads them.

    Args:
        mouths: `(frames, side, side)` uint8.
        crop: pixels of the middle that the network sees.
        columns: of the picture; fewer if there are fewer frames.
        rows: of the picture; fewer if there are fewer frames.
        scale: whole number by which crops are enlarged.
        lips: `(frames, 20, 2)`, the outer and the inner line of the lips in pixels of the crops, which are drawn; as
            many as there are crops, or none.

    Returns:
        `(height, width)` uint8, white between the crops; `(height, width, 3)` where lips are drawn.
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
    if lips is None or len(lips) != len(mouths):
        return picture
    drawn = Image.fromarray(picture).convert("RGB")
    for number, place in enumerate(places):
        corner = (side + gap) * (number % columns), (side + gap) * (number // columns)
        crop_of_frame = (corner[0], corner[1], corner[0] + side, corner[1] + side)
        part = drawn.crop(crop_of_frame)  # so that no line leaves its crop
        _draw_lips(part, (lips[place] - first + 0.5) * scale)
        drawn.paste(part, crop_of_frame)
    return np.asarray(drawn)


def _draw_lips(picture: Image.Image, lips: np.ndarray) -> None:
    """Draws the outer and the inner line of (20, 2) points of the lips, if they are known."""
    if not np.isfinite(lips).all():
        return
    draw = ImageDraw.Draw(picture)
    for line in (lips[:12], lips[12:]):
        draw.line([tuple(point) for point in (*line.tolist(), line[0].tolist())], fill=LINE)

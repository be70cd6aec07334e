"""The speaker who was chosen, made visible: the video again, everybody else darker, with the speaker's words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .media_source_avsr import MediaSource
from .rendering_avsr import enlarged, rewrite_video

OUTLINE = (255, 214, 77)  # RGB
DARKER = 0.45  # of the light outside of the speaker's box
WIDTH = 1 / 160  # of the outline, in units of the picture's height


def write_speaker_video(source: MediaSource, result: dict[str, Any], path: str | os.PathLike) -> Path:
    """
    Writes the video again with the chosen speaker in a frame and their words below.

    Frames are read, drawn on and written one by one (the sound is held as a whole). A video lower than 480 pixels is enlarged
    by a whole number.

    Args:
        source: path, http(s) URL, bytes, or binary file object, with a video.
        result: `{"text", "chunks", "report"}` of the pipeline with `speaker` and `return_timestamps`.
        path: mp4 file to write; its folder must exist.

    Returns:
        The path.

    Raises:
        MediaError: the source cannot be read, or the file cannot be written. ValueError: no video, no times, or no speaker.
    """
    report = result.get("report") or {}
    if "speaker" not in report:
        raise ValueError("the result is of nobody in particular: call the pipeline with `speaker`")
    seconds = report["speaker"]["seconds"]
    return rewrite_video(source, result, path, lambda frames, fps: outline_speaker(frames, seconds, fps))


def outline_speaker(frames: Iterator[np.ndarray], seconds: Sequence[dict], fps: float) -> Iterator[np.ndarray]:
    """
    Frames with a line around the speaker, and everything else darker.

    Args:
        frames: `(height, width, 3)` uint8 RGB; frame k is shown at k / fps.
        seconds: `{"second", "box": [x0, y0, x1, y1] or None}` of the report, in pixels.
        fps: frames per second.

    Yields:
        Frames of the same type, enlarged by a whole number where they are lower than 480 pixels; unchanged where the speaker
        isn't in view.
    """
    boxes = {row["second"]: np.array(row["box"], float) for row in seconds if row["box"] is not None}
    for index, frame in enumerate(frames):
        large, box = enlarged(frame), box_at(boxes, index / fps)
        yield _drawn(large, None if box is None else len(large) // len(frame) * box)


def box_at(boxes: dict[int, np.ndarray], time: float) -> np.ndarray | None:
    """
    Where the speaker is at a time.

    Args:
        boxes: second -> mean `(4,)` box in it, of the seconds in which the speaker is in view.
        time: in seconds.

    Returns:
        `(4,)` float64 between the boxes of this second and the nearer neighbour; None in a second without one.
    """
    second = int(time)
    if second not in boxes:
        return None
    share = time - second - 0.5  # from the middle of this second
    neighbour = boxes.get(second + (1 if share > 0 else -1), boxes[second])
    return (1 - abs(share)) * boxes[second] + abs(share) * neighbour


def _drawn(frame: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    if box is None:
        return frame
    height, width = frame.shape[:2]
    line = max(2, round(WIDTH * height))
    x0, y0, x1, y1 = (int(round(edge)) for edge in np.clip(box, 0, (width, height, width, height)))
    drawn = (frame * np.float32(DARKER)).astype(np.uint8)
    drawn[y0:y1, x0:x1] = OUTLINE
    inside = slice(y0 + line, max(y0 + line, y1 - line)), slice(x0 + line, max(x0 + line, x1 - line))
    drawn[inside] = frame[inside]
    return drawn

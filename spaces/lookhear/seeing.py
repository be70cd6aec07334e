"""What the tab "See" does with a picture or a video: look for what was asked, and draw it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from lookhear.processing.glee import draw_objects
from lookhear.processing.glee.image_source_glee import read_image
from lookhear.processing.glee.video_writing_glee import VideoWriter

MOST_TEXTS, LONGEST_TEXT = 20, 200
DRAWN = {"points": "point", "boxes": "box", "scribbles": "scribble"}  # in the order of their results


def as_request(labels: str, sentences: str, drawn: Mapping[str, list]) -> dict[str, list]:
    """
    Prompts of `object-perception`.

    Args:
        labels: names with commas between them.
        sentences: one a line.
        drawn: of `as_prompts`.

    Raises:
        ValueError: there is nothing to look for, or too much.
    """
    texts = {
        "labels": [label.strip() for label in (labels or "").split(",") if label.strip()],
        "expressions": [line.strip() for line in (sentences or "").splitlines() if line.strip()],
    }
    if max(map(len, texts.values())) > MOST_TEXTS:
        raise ValueError(f"{MOST_TEXTS} names and {MOST_TEXTS} sentences are the most.")
    if any(len(text) > LONGEST_TEXT for several in texts.values() for text in several):
        raise ValueError(f"A name or sentence may have {LONGEST_TEXT} letters.")
    asked = {name: value for name, value in {**texts, **drawn}.items() if value}
    if not asked:
        raise ValueError("Say what to look for: type names or a sentence, or tap, frame or scribble on the picture.")
    return asked


def see_picture(see: Any, path: str, asked: Mapping[str, list], threshold: float) -> tuple[Image.Image, list[dict]]:
    """
    Looks at a picture.

    Args:
        see: pipeline of the task `object-perception`.
        path: of the file.
        asked: of `as_request`.
        threshold: lowest score of what names find.

    Returns:
        The picture with what was found drawn on it, and the objects.

    Raises:
        ValueError: the picture or the prompts cannot be used.
    """
    image = read_image(path)
    objects = see(image, **asked, threshold=threshold)
    shown = [f"{kind} {place}" for name, kind in DRAWN.items() for place in range(1, len(asked.get(name, ())) + 1)]
    for found, label in zip(
        objects[len(objects) - len(shown) :], shown
    ):  # results of what was drawn come last, in order
        found["label"] = label
    return draw_objects(image, objects, **_drawn(asked)), objects


def see_video(
    see: Any,
    path: str,
    asked: Mapping[str, list],
    threshold: float,
    out: Path,
    tell: Callable[[float, str], None],
) -> list[dict[str, Any]]:
    """
    Looks at a video frame by frame, and writes it with what was found drawn on it.

    Args:
        see, asked, threshold: as of `see_picture`; what was drawn is about the first frame.
        path: of the file.
        out: mp4 to write.
        tell: is called with how much is done (0 to 1) and what happens now.

    Returns:
        One dict a track: `track_id`, `label`, mean `score`, `frames`, `first` and `last` in seconds.

    Raises:
        ValueError: the video or the prompts cannot be used.
    """
    tracks: dict[int, dict[str, Any]] = {}
    with see({"video": path}, **asked, threshold=threshold) as video:
        writer = VideoWriter(out, video.size, video.fps)
        try:
            for objects in video:
                shown = draw_objects(video.frame, objects, **(_drawn(asked) if video.index == 0 else {}))
                writer.add(video.index, video.time, shown)
                seconds = video.index / (video.fps or 25.0) if video.time is None else video.time
                for found in objects:
                    _note(tracks, found, seconds)
                done = (video.index + 1) / video.frames if video.frames else seconds / (seconds + 5.0)
                tell(min(done, 1.0), f"Frame {video.index + 1}" + (f" of {video.frames}" if video.frames else ""))
            writer.close()
        finally:
            writer.discard()
    return [tracks[number] for number in sorted(tracks)]


def _note(tracks: dict[int, dict[str, Any]], found: Mapping[str, Any], seconds: float) -> None:
    """Adds one frame's object to its track."""
    number = found["track_id"]
    track = tracks.setdefault(number, {"track_id": number, "score": 0.0, "frames": 0, "first": seconds})
    track["frames"] += 1
    track["score"] += (found["score"] - track["score"]) / track["frames"]
    track["label"], track["last"] = found["label"], seconds


def _drawn(asked: Mapping[str, list]) -> dict[str, list]:
    return {name: asked[name] for name in DRAWN if name in asked}

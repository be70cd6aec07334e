"""What the tab "See" does with a picture or a video: look for what is requested, and draw it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from boxes import are_near
from lookhear.processing.glee import VideoWriter, draw_objects, read_image

MOST_TEXTS, LONGEST_TEXT = 20, 200
DRAWN = {"points": "point", "boxes": "box", "scribbles": "scribble"}  # in the order of their results
NEAR = 5.0  # pixels between what was drawn and what was found there


def as_request(labels: str, sentences: str, drawn: Mapping[str, list]) -> dict[str, list]:
    """
    Makes prompts of `object-perception`.

    Args:
        labels: names separated by commas.
        sentences: one per line.
        drawn: from `as_prompts`.

    Raises:
        ValueError: there is nothing to look for, or too much.
    """
    texts = {
        "labels": [label.strip() for label in (labels or "").split(",") if label.strip()],
        "expressions": [line.strip() for line in (sentences or "").splitlines() if line.strip()],
    }
    if max(map(len, texts.values())) > MOST_TEXTS:
        raise ValueError(f"{MOST_TEXTS} names and {MOST_TEXTS} sentences are the limit.")
    if any(len(text) > LONGEST_TEXT for several in texts.values() for text in several):
        raise ValueError(f"A name or sentence may have at most {LONGEST_TEXT} letters.")
    request = {name: value for name, value in {**texts, **drawn}.items() if value}
    if not request:
        raise ValueError("Say what to look for: type names or a sentence, or tap, frame or scribble on the picture.")
    return request


def see_picture(
    see: Any, path: str, request: Mapping[str, list], threshold: float
) -> tuple[Image.Image, list[dict], list[str]]:
    """
    Runs the pipeline on a picture.

    Args:
        see: pipeline of the task `object-perception`.
        path: of the file.
        request: from `as_request`.
        threshold: lowest score of what names and sentences find.

    Returns:
        The picture with what was found drawn on it, the objects, and what was not found.

    Raises:
        ValueError: the picture or the prompts cannot be used.
    """
    image, drawn = read_image(path), _drawn(request)
    results = see(image, **request, threshold=threshold)
    first = len(results) - len(drawn)  # what was drawn comes last, in order
    objects = [found for found in results[:first] if found["score"] >= threshold]  # there is one for each sentence
    for (name, points), found in zip(drawn, results[first:], strict=True):
        if _is_at(found["box"], points):
            objects.append({**found, "label": name})
    shown = {name: request[name] for name in DRAWN if name in request}
    return draw_objects(image, objects, **shown), objects, _missed(request, {found["label"] for found in objects})


def see_video(
    see: Any,
    path: str,
    request: Mapping[str, list],
    threshold: float,
    out: Path,
    on_progress: Callable[[float, str], None],
) -> tuple[list[dict[str, Any]], list[str]]:
    """
    Runs the pipeline on a video frame by frame, and writes the video with what was found drawn on it.

    Args:
        see: pipeline of the task `object-perception`.
        request: from `as_request`; what was drawn is about the first frame.
        threshold: see `see_picture`.
        path: of the file.
        out: mp4 to write.
        on_progress: called with the share that is done (0 to 1) and what is being done.

    Returns:
        One dict a track, `track_id`, `label`, mean `score`, `frames`, `first` and `last` in seconds; and what was not
        found.

    Raises:
        ValueError: the video or the prompts cannot be used.
    """
    tracks: dict[int, dict[str, Any]] = {}
    with see({"video": path}, **request, threshold=threshold) as video:
        drawn = dict(zip(reversed(video.prompts), reversed(_drawn(request))))  # by the track's id; they come last
        writer = VideoWriter(out, video.size, video.fps)
        try:
            for objects in video:
                if video.index == 0:
                    objects = _there(video, objects, drawn)
                for found in objects:
                    found["label"] = drawn[found["track_id"]][0] if found["track_id"] in drawn else found["label"]
                shown = {name: request[name] for name in DRAWN if name in request and video.index == 0}
                writer.add(video.index, video.time, draw_objects(video.frame, objects, **shown))
                seconds = video.index / (video.fps or 25.0) if video.time is None else video.time
                for found in objects:
                    _note(tracks, found, seconds)
                done = (video.index + 1) / video.frames if video.frames else seconds / (seconds + 5.0)
                on_progress(
                    min(done, 1.0), f"Frame {video.index + 1}" + (f" of {video.frames}" if video.frames else "")
                )
            writer.close()
        finally:
            writer.discard()
    return [tracks[number] for number in sorted(tracks)], _missed(
        request, {track["label"] for track in tracks.values()}
    )


def _drawn(request: Mapping[str, list]) -> list[tuple[str, list[tuple[float, float]]]]:
    """Returns name and points of everything that was drawn, in the order of its results."""
    shapes = []
    for kind, name in DRAWN.items():
        for number, shape in enumerate(request.get(kind, ()), 1):
            shapes.append((f"{name} {number}", [shape[:2], shape[2:]] if kind == "boxes" else shape))
    return shapes


def _is_at(box: Mapping[str, float], points: list[tuple[float, float]]) -> bool:
    """Returns whether a found box is near the points. The model returns the likeliest object, near or far."""
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points))
    return are_near((box["xmin"], box["ymin"], box["xmax"], box["ymax"]), (x0, y0, x1, y1), NEAR, NEAR)


def _there(video: Any, objects: list[dict], drawn: Mapping[int, tuple]) -> list[dict]:
    """Returns the first frame's objects without those far from what was drawn, which are not tracked any more."""
    kept = []
    for found in objects:
        if found["track_id"] in drawn and not _is_at(found["box"], drawn[found["track_id"]][1]):
            video.drop(found["track_id"])
        else:
            kept.append(found)
    return kept


def _missed(request: Mapping[str, list], labels: set[str]) -> list[str]:
    """Returns the requested names that are not among the labels that were found."""
    wanted = [*request.get("labels", ()), *request.get("expressions", ()), *(name for name, _ in _drawn(request))]
    return [name for name in dict.fromkeys(wanted) if name not in labels]


def _note(tracks: dict[int, dict[str, Any]], found: Mapping[str, Any], seconds: float) -> None:
    """Adds one frame's object to its track."""
    number = found["track_id"]
    track = tracks.setdefault(number, {"track_id": number, "score": 0.0, "frames": 0, "first": seconds})
    track["frames"] += 1
    track["score"] += (found["score"] - track["score"]) / track["frames"]
    track["label"], track["last"] = found["label"], seconds

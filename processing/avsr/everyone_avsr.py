"""`speaker="everyone"`: who is in a video, and the results of all of them as one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .clip_stream_avsr import ArraySource
from .face_survey_avsr import Person, find_people
from .landmarks_avsr import LandmarkDetector
from .media_avsr import PICTURE, MediaStream
from .media_source_avsr import MediaSource

MOST = 8  # people at most who are read: each takes as long as a clip of one


def people_in(
    source: MediaSource | dict, image_processor: Any, detector: LandmarkDetector
) -> tuple[list[Person], list[str]]:
    """
    Everybody whose face is in a source for long enough, see `FaceSurvey.people`; the source is read once.

    Args:
        source: path, bytes, seekable binary file object, or arrays, as of [`ClipStream`].
        image_processor: [`MouthRoiImageProcessor`], for its settings.
        detector: finds the faces.

    Returns:
        the people, eight at most, in the order of their coming; and sentences for the user.

    Raises:
        ValueError: the source cannot be read, has no pictures, or there is nobody in them.
    """
    fps = image_processor.fps
    pictures: ArraySource | MediaStream
    if isinstance(source, dict):
        pictures = ArraySource(source, None, fps, image_processor.roi_size)
        items, there = pictures.items(), pictures.has_pictures
    else:
        pictures = MediaStream(source, fps, None)
        items, there = iter(pictures), pictures.pictures is not None
    try:
        if not there:
            raise ValueError(f"{pictures.name}: nobody can be looked for: there is no video.")
        people = find_people(_pictures(items), detector, image_processor.detect_every, fps)
    finally:
        pictures.close()
    if not people:
        raise ValueError(f"{pictures.name}: no face is in view for long enough to be read.")
    if len(people) <= MOST:
        return people, []
    kept = sorted(people, key=lambda person: -person.frames)[:MOST]
    sentence = f"{len(people)} people are in view: the {MOST} who are in view longest were read"
    return sorted(kept, key=lambda person: person.first), [sentence]


def _pictures(items: Iterator[tuple[str, np.ndarray]]) -> Iterator[np.ndarray]:
    return (values for kind, values in items if kind == PICTURE)


def named(result: dict[str, Any], number: int, source: str) -> dict[str, Any]:
    """One person's result, with their name and that of the source."""
    name = f"Speaker {number}"
    report = {**result["report"], "source": source, "speaker": {**result["report"]["speaker"], "asked": name}}
    report["warnings"] = [warning.replace("the speaker of the track", name) for warning in report["warnings"]]
    return {"speaker": name, **result, "report": report}


def together(results: Sequence[dict[str, Any]], warnings: Sequence[str] = ()) -> dict[str, Any]:
    """
    The results of several people, each with a `"speaker"`, as one result.

    Args:
        results: of one source.
        warnings: sentences about all of them.

    Returns:
        The same keys as of one person: `"text"` has a line `Speaker 1: …` for each of those who said something, `"chunks"`
        are in the order of their times, each with its `"speaker"`, the confidence is the geometric mean of theirs,
        weighted by the length of their texts; and `"speakers"`, the results themselves.
    """
    first = results[0]["report"]
    said = [f"{result['speaker']}: {warning}" for result in results for warning in result["report"]["warnings"]]
    modalities = {result["report"]["modality"] for result in results}
    weights = [len(result["text"]) for result in results]
    weights = weights if any(weights) else [1] * len(results)
    logarithm = sum(w * math.log(max(r["confidence"], 1e-9)) for w, r in zip(weights, results)) / sum(weights)
    chunks = [{**chunk, "speaker": result["speaker"]} for result in results for chunk in result["chunks"]]
    return {
        "text": "\n".join(f"{result['speaker']}: {result['text']}" for result in results if result["text"]),
        "confidence": round(math.exp(logarithm), 4),
        "chunks": sorted(chunks, key=lambda chunk: chunk["timestamp"][0]),
        "alternatives": [],
        "report": {
            "source": first["source"],
            "modality": modalities.pop() if len(modalities) == 1 else "audiovisual",
            "duration": first["duration"],
            "people": len(results),
            "warnings": [*warnings, *said],
        },
        "speakers": list(results),
    }

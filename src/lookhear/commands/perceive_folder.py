"""`lookhear perceive` of whole folders: for each picture and video a file of results, and one with them drawn."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lookhear.commands.perceive import looked_at, to_entry
from lookhear.commands.perceive_video import VideoOutputs, follow_video
from lookhear.evaluation.whole_files import whole_file, write_text
from lookhear.processing.glee import draw_objects

JSON, OVERLAY = "json", "overlay"
Seen = tuple[str, list[Path], str | None, float]


def perceive_folder(
    files: Sequence[tuple[str, Path]],
    see: Any,
    prompts: Mapping[str, Any],
    formats: Collection[str],
    is_video: Collection[str],
    *,
    batch_size: int | None = None,
    num_workers: int | None = None,
    video_settings: Mapping[str, Any],
    picture_settings: Mapping[str, Any],
    **settings: Any,
) -> Iterator[Seen]:
    """
    Searches pictures and videos one after the other, and writes what is found beside each other.

    Args:
        files: the path of each, and that of its results without an ending.
        see: pipeline of the task `object-perception`.
        prompts: `labels` and `expressions`, for all of them.
        formats: `JSON` for NAME.json of a picture and NAME.jsonl of a video, `OVERLAY` for NAME.png and NAME.mp4.
        is_video: the endings of videos.
        batch_size: pictures (1) or frames (4) that go through the model together.
        num_workers: processes that read pictures ahead, see the pipeline.
        video_settings: of the pipeline, for videos.
        picture_settings: of the pipeline, for pictures.
        settings: of the pipeline, for both.

    Yields:
        The path of each file, what was written, what is wrong with it (or None), and the seconds of a video.

    Raises:
        ValueError: the prompts cannot be used.
    """
    for video, group in itertools.groupby(files, lambda file: Path(file[0]).suffix.lower() in is_video):
        if video:
            sizes = {} if batch_size is None else {"batch_size": batch_size}
            for path, target in group:
                yield _video(path, target, see, prompts, formats, {**settings, **video_settings, **sizes})
        else:
            both = {**settings, **picture_settings}
            yield from _pictures(list(group), see, prompts, formats, batch_size or 1, num_workers, both)


def _pictures(
    files: Sequence[tuple[str, Path]],
    see: Any,
    prompts: Mapping[str, Any],
    formats: Collection[str],
    batch_size: int,
    num_workers: int | None,
    settings: Mapping[str, Any],
) -> Iterator[Seen]:
    paths = [path for path, _ in files]
    for index, image, objects in looked_at(paths, see, prompts, batch_size, num_workers, settings, None):
        path, target = files[index]
        written: list[Path] = []
        if isinstance(image, ValueError) or image is None:
            yield path, written, " ".join(str(image).split()), 0.0
            continue
        if OVERLAY in formats:
            written.append(target.with_name(f"{target.name}.png"))
            with whole_file(written[-1]) as partial:
                draw_objects(image, objects).save(partial)
        if JSON in formats:
            text = json.dumps(to_entry(path, image, objects), ensure_ascii=False) + "\n"
            written.append(write_text(target.with_name(f"{target.name}.json"), text))
        yield path, written, None, 0.0


def _video(
    path: str,
    target: Path,
    see: Any,
    prompts: Mapping[str, Any],
    formats: Collection[str],
    settings: Mapping[str, Any],
) -> Seen:
    overlay = target.with_name(f"{target.name}.mp4") if OVERLAY in formats else None
    lines = target.with_name(f"{target.name}.jsonl") if JSON in formats else None
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        outputs = VideoOutputs(overlay, None if lines is None else str(lines))
        seen = follow_video(path, see, prompts, outputs, progress=False, **settings)
    except ValueError as error:
        return path, [], " ".join(str(error).split()), 0.0
    written = [file for file in (overlay, lines) if file is not None and seen.written]
    if seen.error is None:
        return path, written, None, seen.duration or 0.0
    if not isinstance(seen.error, ValueError):  # not the video's fault, and what is there would count as done
        for file in written:
            file.unlink(missing_ok=True)
        raise seen.error
    message = " ".join(str(seen.error).split()) or type(seen.error).__name__
    return path, written, f"{message} (the first {seen.frames} frames were searched)", 0.0

"""
`lookhear perceive` of a video: tracks as a table, as JSON lines, in two exchange layouts, and drawn on the video.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lookhear.commands.stills import ENDINGS
from lookhear.processing.glee import (
    CocoVideoWriter,
    JsonLinesWriter,
    MotWriter,
    VideoPerception,
    VideoWriter,
    draw_objects,
    json_line,
)

HEADER = ("track", "label", "score", "frames", "first", "last")


@dataclass(frozen=True)
class VideoOutputs:
    """Where results go; None for nowhere. `json` may be "-" for the standard output, in place of the table."""

    overlay: Path | None = None
    json: str | None = None
    coco: Path | None = None
    mot: Path | None = None


class Writer(Protocol):
    """A file that is written frame by frame; `discard` takes back what `close` would keep."""

    def add(self, index: int, time: float | None, results: Sequence[Mapping[str, Any]]) -> None: ...
    def close(self) -> None: ...
    def discard(self) -> None: ...


def perceive_video(
    file: str,
    see: Any,
    prompts: Mapping[str, Any],
    outputs: VideoOutputs,
    *,
    fps: float | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> int:
    """
    Runs the pipeline on a video, frame by frame; prints and writes what was found and tracked.

    Args:
        file: path, folder of numbered pictures, or URL.
        see: pipeline of the task `object-perception`.
        prompts: what to look for, about the first frame.
        outputs: what is written. An error on the way leaves what came before it, but for one of writing itself:
            after that nothing of this run is left.
        fps: frames per second of a folder.
        progress: show a bar; None for only on a terminal.
        settings: of the pipeline, such as `threshold`.

    Returns:
        0, or 2 if the video could not be read to its end; the reason has been printed then.

    Raises:
        ValueError: the video or the prompts cannot be used at all.
    """
    seen = follow_video(file, see, prompts, outputs, fps=fps, progress=progress, **settings)
    if outputs.json != "-" and seen.written:
        print(format_tracks(seen.tracks), end="")
    for path in (outputs.overlay, outputs.coco, outputs.mot):
        if path is not None and seen.written:
            print(path, file=sys.stderr)
    error = seen.error
    if error is None:
        return 0
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        message = "stopped"
    print(f"lookhear perceive: error: {message} (the first {seen.frames} frames were searched)", file=sys.stderr)
    if not isinstance(error, (ValueError, OSError)):
        raise error
    return 2


@dataclass(frozen=True)
class SeenVideo:
    """
    A video that was searched.

    Attributes:
        error: what stopped it, or None.
        written: whether there are results that all files have.
        frames: that were searched.
        duration: in seconds; None where the video doesn't say.
        tracks: by `track_id`.
    """

    error: BaseException | None
    written: bool
    frames: int
    duration: float | None
    tracks: Mapping[int, _Track]


def follow_video(
    file: str,
    see: Any,
    prompts: Mapping[str, Any],
    outputs: VideoOutputs,
    *,
    fps: float | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> SeenVideo:
    """
    Runs the pipeline on a video, frame by frame, and writes what was found and tracked; prints warnings only.

    Args:
        file: see [`perceive_video`].
        see: see [`perceive_video`].
        prompts: see [`perceive_video`].
        outputs: see [`perceive_video`].
        fps: see [`perceive_video`].
        progress: see [`perceive_video`].
        settings: see [`perceive_video`].

    Raises:
        ValueError: see [`perceive_video`].
    """
    given = {"video": file} if fps is None else {"video": file, "fps": fps}
    tracks: dict[int, _Track] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # reported below, in the command's format
        with see(given, **prompts, **settings) as video:
            if Path(file).is_dir() or Path(file).suffix.lower() in ENDINGS:
                print(f"lookhear perceive: {file} is followed as a video; --each: picture by picture", file=sys.stderr)
            error, written = _run(video, _writers(outputs, video, file, prompts), tracks, _bar(video, file, progress))
            messages, seen = video.warnings, SeenVideo(error, written, video.index + 1, video.duration, tracks)
    for message in messages:
        print(f"lookhear perceive: warning: {file}: {message}", file=sys.stderr)
    return seen


def _run(
    video: VideoPerception, writers: list[Writer], tracks: dict[int, _Track], bar: Any
) -> tuple[BaseException | None, bool]:
    """
    Goes through the video; earlier results are written in any case, unless writing is what fails.

    Returns:
        The error that stopped it, and whether there are results that all files have.
    """
    error: BaseException | None = None
    adding = False
    try:
        with bar:
            for results in video:
                adding = True
                for writer in writers:
                    writer.add(video.index, video.time, results)
                adding = False
                for found in results:
                    tracks.setdefault(found["track_id"], _Track(found["label"])).add(video.index, video.time, found)
                bar.update()
    except BaseException as caught:  # also Ctrl-C, and whatever the model raises
        error = caught
    written = video.index >= 0 and not (adding and isinstance(error, Exception))
    for writer in writers:
        try:
            writer.close() if written else writer.discard()
        except Exception as caught:  # the disk is full, say: what is not finished yet need not try
            error, written = error or caught, False
    return error, written


def _writers(outputs: VideoOutputs, video: VideoPerception, file: str, prompts: Mapping[str, Any]) -> list[Writer]:
    """Opens the files that frames are written to; if one cannot be opened, those before it are discarded."""
    labels = [*(prompts.get("labels") or ()), *(prompts.get("expressions") or ())]
    makers = [
        (outputs.json, lambda path: _StandardOutput(video) if path == "-" else JsonLinesWriter(path, video.size)),
        (outputs.coco, lambda path: _coco_video(Path(path), video, file, labels)),
        (outputs.mot, MotWriter),
        (outputs.overlay, lambda path: _Overlay(path, video, prompts)),
    ]
    made: list[Writer] = []
    with contextlib.ExitStack() as unfinished:
        for path, make in makers:
            if path is not None:
                made.append(make(path))
                unfinished.callback(made[-1].discard)
        unfinished.pop_all()
    return made


def _coco_video(path: Path, video: VideoPerception, file: str, labels: Sequence[str]) -> CocoVideoWriter:
    """Opens a file in COCO's form for videos; names of files are relative to its folder, as its readers want them."""
    frames: list[str] | str = f"{Path(file).stem.replace('{', '(').replace('}', ')')}/{{:05d}}.jpg"
    if video.names is not None:
        frames = [Path(os.path.relpath(name, path.parent)).as_posix() for name in video.names]
    name = file if "://" in file else Path(os.path.relpath(file, path.parent)).as_posix()
    return CocoVideoWriter(path, video.size, name, labels, frames)


class _StandardOutput:
    """JSON lines, as soon as they are there."""

    def __init__(self, video: VideoPerception):
        self._video = video

    def add(self, index: int, time: float | None, results: Sequence[Mapping[str, Any]]) -> None:
        print(json_line(index, time, self._video.size, results), flush=True)

    def close(self) -> None:
        pass

    discard = close


class _Overlay:
    """The video with what was found drawn on it, and the prompts on the frame that they were given for."""

    def __init__(self, path: str | os.PathLike[str], video: VideoPerception, prompts: Mapping[str, Any]):
        self._video, self._file = video, VideoWriter(path, video.size, video.fps)
        self._drawn = {name: prompts[name] for name in ("points", "boxes", "scribbles") if prompts.get(name)}

    def add(self, index: int, time: float | None, results: Sequence[Mapping[str, Any]]) -> None:
        frame = self._video.frame
        assert frame is not None  # there is one as soon as there are results
        self._file.add(index, time, draw_objects(frame, results, **(self._drawn if index == 0 else {})))

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self._file.discard()


class _Track:
    """A line of the table: a few numbers, however long the track."""

    def __init__(self, label: str):
        self.label, self.frames, self.score = label, 0, 0.0
        self.first = self.last = ""

    def add(self, index: int, time: float | None, found: Mapping[str, Any]) -> None:
        self.last = f"#{index}" if time is None else f"{time:.2f} s"
        self.first = self.first or self.last
        self.label = found["label"]
        self.frames += 1
        self.score += found["score"]


def format_tracks(tracks: Mapping[int, _Track]) -> str:
    """Formats tracks in aligned columns, one per line: id, latest label, mean score, frames, first and last time."""
    cells = [HEADER]
    for number, track in sorted(tracks.items()):
        score = f"{track.score / track.frames:.2f}"
        cells.append((str(number), track.label, score, str(track.frames), track.first, track.last))
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]) + "\n"


def _bar(video: VideoPerception, file: str, progress: bool | None) -> Any:
    from tqdm.auto import tqdm

    hidden = not sys.stderr.isatty() if progress is None else not progress
    return tqdm(total=video.frames, desc=Path(file).name, unit=" frames", file=sys.stderr, disable=hidden)

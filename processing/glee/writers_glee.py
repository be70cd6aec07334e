"""Writes results of a video, frame by frame: as a video or an animated picture, as JSON lines with COCO's masks, in
COCO's video layout (YouTube-VIS), or as MOT Challenge's text.

A file appears under its name when it is closed, with all frames until then. The writers take the results of
`object-perception` frame by frame, and store none of them in memory.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from .geometry_glee import coco_rle

Results = Sequence[Mapping[str, Any]]  # of one frame


# ------------------------------------------------------------------------------------------------------------ pictures


@dataclass(frozen=True)
class Coding:
    """An encoder of FFmpeg and its options."""

    codec: str
    pixels: str  # FFmpeg's name of the pixel format
    multiple: int = 1  # height and width must be multiples of it
    options: dict[str, str] = field(default_factory=dict)  # of the encoder
    file_options: dict[str, str] = field(default_factory=dict)


H264 = Coding("libx264", "yuv420p", 2, {"crf": "20", "preset": "veryfast"})
ANIMATED_WEBP = Coding("libwebp_anim", "bgra", 1, {"quality": "60"}, {"loop": "0"})  # repeats for ever
CODINGS = {".mp4": H264, ".m4v": H264, ".mov": H264, ".mkv": H264, ".webp": ANIMATED_WEBP}
ENDINGS = tuple(CODINGS)
CLOCK = 90_000  # ticks a second
FPS = 25.0  # for pictures of unknown frame rate


class VideoWriter:
    """
    Writes a video file (H.264) or an animated WebP; it appears under its name when it is closed, with all frames until
    then.

    Web pages show an animated WebP as a picture. Its frames stay in memory, compressed, until it is closed: it is for
    seconds, not for hours.

    Args:
        path: its file extension is one of `ENDINGS`; missing folders are made.
        size: (height, width) of the pictures in pixels; for H.264 odd sides are padded by one pixel.
        fps: frames per second, for players and for pictures without a time; None if unknown.

    Raises:
        ValueError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike, size: tuple[int, int], fps: float | None = None):
        try:
            import av
        except ImportError:
            raise ImportError("Writing video needs PyAV: pip install av") from None
        self.path, self._size, self._fps = Path(path), size, fps or FPS
        coding = CODINGS.get(self.path.suffix.lower())
        if coding is None:
            raise ValueError(f"{path}: the ending must be one of {', '.join(ENDINGS)}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")
        self._av, self._last = av, -1
        try:
            self._container: Any = av.open(str(self._partial), "w", options=coding.file_options)
        except (av.error.FFmpegError, OSError) as error:
            raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None
        rate = Fraction(self._fps).limit_denominator(1001)
        stream = self._container.add_stream(coding.codec, rate=rate, options=coding.options)
        assert isinstance(stream, av.VideoStream)  # as all codecs of CODINGS are of video
        self._stream = stream
        self._padding = tuple(-side % coding.multiple for side in size)  # rows and columns that are added
        stream.height, stream.width = (side + more for side, more in zip(size, self._padding))
        stream.pix_fmt = coding.pixels
        stream.codec_context.time_base = Fraction(1, CLOCK)

    def add(self, index: int, time: float | None, picture: Image.Image | np.ndarray) -> None:
        """
        Writes one picture.

        Args:
            index: its number from 0.
            time: in seconds; None if unknown.
            picture: RGB, of the size of the video.

        Raises:
            ValueError: the picture has another size, or the file cannot be written.
        """
        pixels = np.asarray(picture)
        if pixels.shape != (*self._size, 3):
            raise ValueError(f"{self.path}: frame {index} is {pixels.shape}, not {(*self._size, 3)}")
        below, right = self._padding
        pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        self._last = max(self._last + 1, round((index / self._fps if time is None else time) * CLOCK))
        frame.pts, frame.time_base = self._last, Fraction(1, CLOCK)
        self._mux(frame)

    def _mux(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (self._av.error.FFmpegError, OSError) as error:
            raise ValueError(f"{self.path} cannot be written: {error.strerror or error}") from None

    def close(self) -> None:
        """Completes the file and renames it to `path`; without a picture there is no file."""
        if self._container is None:
            return
        if self._last < 0:
            self.discard()
            return
        self._mux(None)
        self._container.close()
        self._container = None
        os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Removes the unfinished file."""
        if self._container is not None:
            self._container.close()
            self._container = None
        self._partial.unlink(missing_ok=True)


# -------------------------------------------------------------------------------------------------------------- tracks


class WholeFile:
    """
    A text file that replaces `path` when it is closed, so that readers and errors never see half a file.

    Args:
        path: of the file; missing folders are made.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")
        self.file: IO[str] = open(self._partial, "w", encoding="utf-8")

    def close(self) -> None:
        """Completes the file and renames it to `path`."""
        if not self.file.closed:
            self.file.close()
            os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Removes the unfinished file."""
        self.file.close()
        self._partial.unlink(missing_ok=True)


class JsonLinesWriter:
    """
    Writes one line per frame: `{"frame", "time", "height", "width", "objects"}`.

    Each object has `"track_id"`, `"label"`, `"score"`, `"box"`, `"area"` and `"mask"`, the last in COCO's compressed
    run lengths.

    Args:
        path: of the file.
        size: (height, width) of the frames in pixels.
    """

    def __init__(self, path: str | os.PathLike, size: tuple[int, int]):
        self._whole, self._size = WholeFile(path), size

    def add(self, index: int, time: float | None, results: Results) -> None:
        """Writes one frame: its number from 0, its time in seconds if it is known, and its results."""
        self._whole.file.write(json_line(index, time, self._size, results) + "\n")

    def close(self) -> None:
        """Completes the file and renames it to `path`."""
        self._whole.close()

    def discard(self) -> None:
        """Removes the unfinished file."""
        self._whole.discard()


class MotWriter:
    """
    Writes MOT Challenge's text: lines `frame, id, left, top, width, height, score, -1, -1, -1`; frames from 1, pixels.

    Args:
        path: of the file.
    """

    def __init__(self, path: str | os.PathLike):
        self._whole = WholeFile(path)

    def add(self, index: int, time: float | None, results: Results) -> None:
        """Writes one frame: its number from 0, its time (which the format doesn't have), and its results."""
        for found in results:
            left, top, width, height = _corner_and_size(found["box"])
            numbers = f"{left:.2f},{top:.2f},{width:.2f},{height:.2f},{found['score']:.4f}"
            self._whole.file.write(f"{index + 1},{found['track_id']},{numbers},-1,-1,-1\n")

    def close(self) -> None:
        """Completes the file and renames it to `path`."""
        self._whole.close()

    def discard(self) -> None:
        """Removes the unfinished file."""
        self._whole.discard()


class CocoVideoWriter:
    """
    Writes COCO's layout for videos, as used by YouTube-VIS.

    It is `{"videos", "categories", "annotations"}`: one video, and one annotation per track with `"segmentations"`,
    `"bboxes"` (left, top, width, height) and `"areas"`, one entry per frame or null, and `"score"`, the mean of its
    frames. Its category is the label that it had in most of them.

    A track is complete at the end of the video. Until then masks are in a file beside the target, and only their
    places in memory.

    Args:
        path: of the file.
        size: (height, width) of the frames in pixels.
        name: file name of the video.
        labels: categories that get the first numbers; others follow in order of appearance.
        frames: file names of its frames, or a pattern for them such as `"walk/{:05d}.jpg"`, as readers of YouTube-VIS
            expect them; None leaves them out.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        size: tuple[int, int],
        name: str,
        labels: Sequence[str] = (),
        frames: Sequence[str] | str | None = None,
    ):
        self._whole, self._size, self._name, self._frames = WholeFile(path), size, name, frames
        self._categories = {label: number + 1 for number, label in enumerate(dict.fromkeys(labels))}
        self._tracks: dict[int, _Track] = {}
        self._length = 0
        self._masks_path = self._whole.path.with_name(f".{self._whole.path.stem}.{os.getpid()}.masks")
        self._masks = open(self._masks_path, "w+b")

    def add(self, index: int, time: float | None, results: Results) -> None:
        """Writes one frame: its number from 0, its time (which the format doesn't have), and its results."""
        self._length = index + 1
        for found in results:
            area = int(found["mask"].sum())
            rle = coco_rle(found["mask"]) if area else None  # readers refuse empty masks
            box = [round(side, 2) for side in _corner_and_size(found["box"])]
            entry = json.dumps([rle, box, area]).encode()
            track = self._tracks.setdefault(found["track_id"], _Track())
            track.frames.append(index)
            track.places.append(self._masks.tell())
            track.score += found["score"]
            category = self._categories.setdefault(found["label"], len(self._categories) + 1)
            track.categories[category] = track.categories.get(category, 0) + 1
            self._masks.write(entry + b"\n")

    def close(self) -> None:
        """Writes the tracks, and renames the file to `path`."""
        if self._whole.file.closed:
            return
        height, width = self._size
        video: dict[str, Any] = {"id": 1, "file_name": self._name, "height": height, "width": width}
        video["length"] = self._length
        if isinstance(self._frames, str):
            video["file_names"] = [self._frames.format(index) for index in range(self._length)]
        elif self._frames is not None:
            video["file_names"] = list(self._frames[: self._length])
        categories = [{"id": number, "name": label} for label, number in self._categories.items()]
        out = self._whole.file
        out.write(f'{{"videos": {json.dumps([video])}, "categories": {json.dumps(categories)}, "annotations": [')
        for place, (number, track) in enumerate(sorted(self._tracks.items())):
            out.write(",\n" if place else "\n")
            self._write_track(out, number, track)
        out.write("\n]}\n")
        self._remove_masks()
        self._whole.close()

    def discard(self) -> None:
        """Removes the unfinished file."""
        self._remove_masks()
        self._whole.discard()

    def _write_track(self, out: IO[str], number: int, track: _Track) -> None:
        """Writes the three lists of a track one after the other, entry by entry: its masks need not fit into
        memory."""
        category = max(track.categories, key=lambda known: track.categories[known])
        plain: dict[str, float] = {
            "id": number,
            "video_id": 1,
            "category_id": category,
            "iscrowd": 0,
            "height": self._size[0],
        }
        plain |= {"width": self._size[1], "score": round(track.score / len(track.frames), 4)}
        out.write(json.dumps(plain)[:-1])
        for part, name in enumerate(("segmentations", "bboxes", "areas")):
            out.write(f', "{name}": [')
            following = iter(zip(track.frames, track.places))
            frame, place = next(following)
            for index in range(self._length):
                out.write(", " if index else "")
                if index != frame:
                    out.write("null")
                    continue
                self._masks.seek(place)
                out.write(json.dumps(json.loads(self._masks.readline())[part]))
                frame, place = next(following, (-1, -1))
            out.write("]")
        out.write("}")

    def _remove_masks(self) -> None:
        self._masks.close()
        self._masks_path.unlink(missing_ok=True)


class _Track:
    """Places of a track's entries in the file of masks, 16 bytes per frame."""

    def __init__(self) -> None:
        self.frames, self.places = array("q"), array("q")
        self.score = 0.0
        self.categories: dict[int, int] = {}


def json_line(index: int, time: float | None, size: tuple[int, int], results: Results) -> str:
    """Formats one frame as a line of `JsonLinesWriter`, without the line break."""
    objects = [{**found, "area": int(found["mask"].sum()), "mask": coco_rle(found["mask"])} for found in results]
    time = None if time is None else round(time, 4)
    frame = {"frame": index, "time": time, "height": size[0], "width": size[1], "objects": objects}
    return json.dumps(frame, ensure_ascii=False)


def _corner_and_size(box: Mapping[str, float]) -> tuple[float, float, float, float]:
    return box["xmin"], box["ymin"], box["xmax"] - box["xmin"], box["ymax"] - box["ymin"]

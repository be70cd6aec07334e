"""Tracks of a video as files: JSON lines with COCO's masks, COCO's video layout (YouTube-VIS), MOT Challenge's text.

Each writer takes the results of `object-perception` frame by frame and holds none of them; its file appears under its
name when it is closed, with what came until then.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .run_lengths_glee import coco_rle

Results = Sequence[Mapping[str, Any]]  # of one frame


class WholeFile:
    """
    A text file that takes the place of `path` when it is closed: nobody sees half a file, and what an error leaves is whole.

    Args:
        path: where to; missing folders are made.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")
        self.file: IO[str] = open(self._partial, "w", encoding="utf-8")

    def close(self) -> None:
        """Gives the file its name."""
        if not self.file.closed:
            self.file.close()
            os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Takes the file away."""
        self.file.close()
        self._partial.unlink(missing_ok=True)


class JsonLinesWriter:
    """
    One line a frame: `{"frame", "time", "height", "width", "objects"}`, each object with `"track_id"`, `"label"`, `"score"`,
    `"box"`, `"area"` and `"mask"`, the last in COCO's compressed run lengths.

    Args:
        path: of the file.
        size: (height, width) of the frames in pixels.
    """

    def __init__(self, path: str | os.PathLike, size: tuple[int, int]):
        self._whole, self._size = WholeFile(path), size

    def add(self, index: int, time: float | None, results: Results) -> None:
        """One frame: its number from 0, its time in seconds if there is one, and what was found in it."""
        self._whole.file.write(json_line(index, time, self._size, results) + "\n")

    def close(self) -> None:
        """Gives the file its name."""
        self._whole.close()

    def discard(self) -> None:
        """Takes the file away."""
        self._whole.discard()


class MotWriter:
    """
    MOT Challenge's text: `frame, id, left, top, width, height, score, -1, -1, -1` a line, frames from 1, pixels.

    Args:
        path: of the file.
    """

    def __init__(self, path: str | os.PathLike):
        self._whole = WholeFile(path)

    def add(self, index: int, time: float | None, results: Results) -> None:
        """One frame: its number from 0, its time (not written), and what was found in it."""
        for found in results:
            left, top, width, height = _corner_and_size(found["box"])
            numbers = f"{left:.2f},{top:.2f},{width:.2f},{height:.2f},{found['score']:.4f}"
            self._whole.file.write(f"{index + 1},{found['track_id']},{numbers},-1,-1,-1\n")

    def close(self) -> None:
        """Gives the file its name."""
        self._whole.close()

    def discard(self) -> None:
        """Takes the file away."""
        self._whole.discard()


class CocoVideoWriter:
    """
    COCO's layout for videos, as YouTube-VIS has it: `{"videos", "categories", "annotations"}`, one annotation a track with
    `"segmentations"`, `"bboxes"` (left, top, width, height) and `"areas"`, one entry a frame or null, and `"score"`, the mean
    of its frames. Its category is the label that it had in most of them.

    Masks wait in a file beside the target, because a track is known when the video is over; in memory is where they are.

    Args:
        path: of the file.
        size: (height, width) of the frames in pixels.
        name: of the video.
        labels: categories that get the first numbers; others follow as they come.
    """

    def __init__(self, path: str | os.PathLike, size: tuple[int, int], name: str, labels: Sequence[str] = ()):
        self._whole, self._size, self._name = WholeFile(path), size, name
        self._categories = {label: number + 1 for number, label in enumerate(dict.fromkeys(labels))}
        self._tracks: dict[int, _Track] = {}
        self._length = 0
        self._waiting_path = self._whole.path.with_name(f".{self._whole.path.stem}.{os.getpid()}.masks")
        self._waiting = open(self._waiting_path, "w+b")

    def add(self, index: int, time: float | None, results: Results) -> None:
        """One frame: its number from 0, its time (not written), and what was found in it."""
        self._length = index + 1
        for found in results:
            rle = coco_rle(found["mask"])
            box = [round(side, 2) for side in _corner_and_size(found["box"])]
            entry = json.dumps([rle, box, int(found["mask"].sum())]).encode()
            track = self._tracks.setdefault(found["track_id"], _Track())
            track.frames.append(index)
            track.places.append(self._waiting.tell())
            track.score += found["score"]
            category = self._categories.setdefault(found["label"], len(self._categories) + 1)
            track.categories[category] = track.categories.get(category, 0) + 1
            self._waiting.write(entry + b"\n")

    def close(self) -> None:
        """Puts the tracks together, and gives the file its name."""
        if self._whole.file.closed:
            return
        height, width = self._size
        video = {"id": 1, "file_name": self._name, "height": height, "width": width, "length": self._length}
        categories = [{"id": number, "name": label} for label, number in self._categories.items()]
        out = self._whole.file
        out.write(f'{{"videos": {json.dumps([video])}, "categories": {json.dumps(categories)}, "annotations": [')
        for place, (number, track) in enumerate(sorted(self._tracks.items())):
            out.write(",\n" if place else "\n")
            self._write_track(out, number, track)
        out.write("\n]}\n")
        self._remove_waiting()
        self._whole.close()

    def discard(self) -> None:
        """Takes the file away."""
        self._remove_waiting()
        self._whole.discard()

    def _write_track(self, out: IO[str], number: int, track: _Track) -> None:
        """The three lists one after the other, entry by entry: a long track's masks need not fit into memory."""
        category = max(track.categories, key=lambda known: track.categories[known])
        plain = {"id": number, "video_id": 1, "category_id": category, "iscrowd": 0, "height": self._size[0]}
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
                self._waiting.seek(place)
                out.write(json.dumps(json.loads(self._waiting.readline())[part]))
                frame, place = next(following, (None, None))
            out.write("]")
        out.write("}")

    def _remove_waiting(self) -> None:
        self._waiting.close()
        self._waiting_path.unlink(missing_ok=True)


class _Track:
    """Where the entries of a track wait, 16 bytes a frame."""

    def __init__(self) -> None:
        self.frames, self.places = array("q"), array("q")
        self.score = 0.0
        self.categories: dict[int, int] = {}


def json_line(index: int, time: float | None, size: tuple[int, int], results: Results) -> str:
    """One frame as `JsonLinesWriter` writes it, without the line's end."""
    objects = [{**found, "area": int(found["mask"].sum()), "mask": coco_rle(found["mask"])} for found in results]
    time = None if time is None else round(time, 4)
    frame = {"frame": index, "time": time, "height": size[0], "width": size[1], "objects": objects}
    return json.dumps(frame, ensure_ascii=False)


def _corner_and_size(box: Mapping[str, float]) -> tuple[float, float, float, float]:
    return box["xmin"], box["ymin"], box["xmax"] - box["xmin"], box["ymax"] - box["ymin"]

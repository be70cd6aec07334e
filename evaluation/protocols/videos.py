"""Runs the pipeline on videos, and returns the results as tracks: one mask or None per frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lookhear.evaluation.measures.mask_runs import encode_mask
from lookhear.evaluation.protocols.layout import need_files
from lookhear.evaluation.protocols.pictures import plain_box
from lookhear.evaluation.protocols.run import ProtocolRun

VIDEO_THRESHOLD = 0.05  # of a frame's result: lower ones are left out, they fill the disk and hardly count


@dataclass
class Track:
    """One object in the frames in which it is found."""

    frames: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    masks: list[dict] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add(self, frame: int, found: Mapping[str, Any], masks: bool) -> None:
        """Adds the result of one more frame."""
        self.frames.append(frame)
        self.boxes.append(plain_box(found["box"]))
        self.scores.append(float(found["score"]))
        self.labels.append(found["label"])
        if masks:
            self.masks.append(encode_mask(found["mask"]))

    def to_dict(self, number: int) -> dict[str, Any]:
        """
        Returns plain values. A track has one label and one score in all frames, as evaluations want it: the label with
        the highest sum of scores, and the mean of its scores over the frames in which the track is found.
        """
        sums: dict[str, float] = {}
        for label, score in zip(self.labels, self.scores):
            sums[label] = sums.get(label, 0.0) + score
        label = max(sums, key=lambda name: sums[name])
        plain = {"id": number, "label": label, "score": sums[label] / len(self.scores)}
        return plain | {"frames": self.frames, "boxes": self.boxes, "masks": self.masks}


def watch_labels(
    run: ProtocolRun, files: Sequence[Path], labels: Sequence[str], masks: bool = True, top_k: int = 100
) -> list[dict[str, Any]]:
    """
    Tracks labels through a video; returns plain dicts of `Track.to_dict`, best first.

    Args:
        run: the protocol's run.
        files: the frames; they are read one after the other.
        labels: what to look for.
        masks: store masks besides boxes.
        top_k: results per frame at most.
    """
    files = need_files(files, str(run.images or run.data))
    tracks: dict[int, Track] = {}
    settings = {"threshold": VIDEO_THRESHOLD, "top_k": top_k, "tracking": run.tracking}
    with run.see({"video": [str(file) for file in files], "labels": list(labels)}, **settings) as video:
        for frame, results in enumerate(video):
            for found in results:
                tracks.setdefault(found["track_id"], Track()).add(frame, found, masks)
    plain = [track.to_dict(number) for number, track in tracks.items()]
    return sorted(plain, key=lambda track: -track["score"])


def watch_expressions(run: ProtocolRun, files: Sequence[Path], expressions: Sequence[str]) -> list[list[dict | None]]:
    """Follows each expression through a video; returns for each one mask (run lengths) or None per frame."""
    files = need_files(files, str(run.images or run.data))
    masks: list[list[dict | None]] = [[None] * len(files) for _ in expressions]
    with run.see({"video": [str(file) for file in files], "expressions": list(expressions)}) as video:
        place = {number: index for index, number in enumerate(video.prompts)}
        for frame, results in enumerate(video):
            for found in results:
                masks[place[found["track_id"]]][frame] = encode_mask(found["mask"])
    return masks


def watch_objects(run: ProtocolRun, files: Sequence[Path], shown: Mapping[int, Mapping[int, Any]]) -> dict[int, list]:
    """
    Follows objects that are shown by their masks, each in the frame in which it first appears.

    Args:
        run: the protocol's run.
        files: the frames.
        shown: frame -> `{object: (height, width) bool}`; the video is read from the first of these frames on.

    Returns:
        object -> one `(score, mask)` or None per frame; a mask that was shown is in its frame with a score of 1.
    """
    files, start = need_files(files, str(run.images or run.data)), min(shown)
    found_in: dict[int, list[tuple[float, dict[str, Any]] | None]]
    found_in = {number: [None] * len(files) for masks in shown.values() for number in masks}
    for frame, masks in shown.items():
        for number, mask in masks.items():
            found_in[number][frame] = (1.0, encode_mask(mask))
    first = shown[start]
    asked = {"video": [str(file) for file in files[start:]], "masks": list(first.values())}
    # As GLEE does it, at its own cost; and with a threshold of 0, as objects that were shown are always looked for.
    with run.see(asked, threshold=0.0, following="exact") as video:
        owner = dict(zip(video.prompts, first))  # track -> object
        for frame, results in enumerate(video, start=start):
            for found in results:
                number = owner[found["track_id"]]
                if found_in[number][frame] is None:
                    found_in[number][frame] = (float(found["score"]), encode_mask(found["mask"]))
            if frame > start and frame in shown:
                owner |= dict(zip(video.add(masks=list(shown[frame].values())), shown[frame]))
    return found_in


def whole_track(track: Mapping[str, Any], length: int) -> list[dict | None]:
    """Returns a stored track's masks, one or None per frame."""
    masks: list[dict | None] = [None] * length
    for frame, mask in zip(track["frames"], track["masks"]):
        masks[frame] = mask
    return masks


def open_ones(run: ProtocolRun, stored: Any, keys: Sequence[str]) -> Iterator[int]:
    """Yields the places of the keys that have no result yet, and reports progress."""
    done = sum(key in stored for key in keys)
    run.progress("videos", done, len(keys))
    for place, key in enumerate(keys):
        if key not in stored:
            yield place
            done += 1
            run.progress("videos", done, len(keys))

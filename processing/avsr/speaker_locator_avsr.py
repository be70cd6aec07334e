"""The argument `speaker` of the pipeline, checked, and the locators that find such a speaker.

A locator runs a pipeline of the task `object-perception`, or returns the boxes of a track that the caller gave.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import Pipeline, pipeline

from .landmarks_avsr import Box, LandmarkDetector, grown, make_detector, meet

EVERYONE = "everyone"
FORMS = '"text", "everyone", {"point": (x, y)}, {"box": (x0, y0, x1, y1)} or {"track": one box a frame}'
PLACES = {"point": (2, "(x, y)"), "box": (4, "(x0, y0, x1, y1)")}

Speaker = str | Mapping[str, Any]

PERCEPTION = "object-perception"  # the task whose pipeline follows what a text, a point or a box names
LOOK_EVERY = 3  # the pipeline sees one frame in this many: people move little in the 0.12 s between
HEAD = 0.15  # of a face's width, added on each side to cover the head

FoundBox = tuple[float, float, float, float, float]  # (x0, y0, x1, y1, score)


def check_speaker(speaker: Any) -> Speaker:
    """
    Checks the argument `speaker` of the pipeline.

    Args:
        speaker: a text that describes one person, `"everyone"`, `{"point": (x, y)}` or `{"box": (x0, y0, x1, y1)}` in
            pixels of the first picture, or `{"track": boxes}`, for each picture `(x0, y0, x1, y1)` or None where the
            person isn't seen, with `"fps"` where there are not 25 of them per second.

    Returns:
        The same, with the numbers of points and boxes as tuples of float.

    Raises:
        ValueError: it has none of these forms.
    """
    if isinstance(speaker, str) and speaker.strip():
        return speaker.strip()
    if not isinstance(speaker, Mapping) or not speaker:
        raise ValueError(f"`speaker` must be {FORMS}, not {speaker!r}.")
    kind, *more = [key for key in speaker if key != "fps"] or [None]
    if kind not in ("point", "box", "track") or more or ("fps" in speaker and kind != "track"):
        raise ValueError(f"`speaker` must be {FORMS}, not a dictionary with {sorted(map(str, speaker))}.")
    if kind == "track":
        return _checked_track(speaker)
    count, form = PLACES[kind]
    numbers = _numbers(speaker[kind])
    if len(numbers) != count:
        raise ValueError(f'`speaker`: "{kind}" must be {form} in pixels of the first picture, not {speaker[kind]!r}.')
    if kind == "box" and not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        raise ValueError(
            f'`speaker`: "box" {numbers} is empty: (x0, y0) is its top left corner, (x1, y1) the other one.'
        )
    return {kind: numbers}


def _checked_track(speaker: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns `{"track", "fps"}` as it is; raises ValueError where one of them has another form."""
    track, fps = speaker["track"], speaker.get("fps")
    if isinstance(track, (str, Mapping)) or not isinstance(track, Iterable):
        raise ValueError(f'`speaker`: "track" must be one box a frame, not {type(track).__name__}.')
    number = isinstance(fps, (int, float)) and not isinstance(fps, bool)
    if fps is not None and not (number and 0 < fps < math.inf):
        raise ValueError(f'`speaker`: "fps" of a track must be a positive number, not {fps!r}.')
    return speaker


def _numbers(value: Any) -> tuple[float, ...]:
    """Returns the numbers of a sequence or an array; an empty tuple where not all of them are finite numbers."""
    try:
        numbers = tuple(float(number) for number in value) if not isinstance(value, str) else ()
    except (TypeError, ValueError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def speaker_name(speaker: Speaker) -> str:
    """Returns the chosen speaker's name in messages."""
    if isinstance(speaker, str):
        return f'"{speaker}"'
    if "track" in speaker:
        return "the speaker of the track"
    kind = next(iter(speaker))
    return f"the speaker at the {kind} ({', '.join(f'{number:g}' for number in speaker[kind])})"


def asked_place(speaker: Speaker) -> Box | None:
    """
    Returns where the request says that the speaker is in the first picture.

    Args:
        speaker: as `check_speaker` returns it.

    Returns:
        `(x0, y0, x1, y1)` in pixels, without an area for a point; None for a text or a track.
    """
    if isinstance(speaker, str) or "track" in speaker:
        return None
    (numbers,) = speaker.values()
    return (*numbers, *numbers)[:4]


def plain_speaker(speaker: Speaker) -> str | dict[str, Sequence[float] | str]:
    """Returns the request as a report shows it: plain text and numbers; of a track only that one was given."""
    if isinstance(speaker, str):
        return speaker
    return {kind: "given" if kind == "track" else list(value) for kind, value in speaker.items() if kind != "fps"}


class ObjectLocator:
    """
    A `speaker_locator` that runs an `object-perception` pipeline: it follows the person in a text, at a point or in a
    box.

    Args:
        see: the pipeline. It is called with `{"video": frames}` and `expressions`, `points` or `boxes`, and returns a
            list of `{"score", "box": {"xmin", "ymin", "xmax", "ymax"}}` for each frame.
        every: it sees one frame in this many; the boxes between are interpolated.
        faces: finds the faces of the first frame: a point on one of them stands for the box around the head, since a
            point alone may mean a nose or a tie, too. None for the default detector, where it is installed.

    Raises:
        ValueError: `every` is not a positive integer.
    """

    def __init__(self, see: Pipeline, every: int = LOOK_EVERY, faces: LandmarkDetector | None = None):
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"`every` must be a positive integer, not {every!r}.")
        self.see, self.every, self._faces = see, every, faces or make_detector()

    def __call__(self, frames: Iterator[np.ndarray], prompt: Speaker) -> Iterator[FoundBox | None]:
        """
        Yields one `(x0, y0, x1, y1, score)` per frame, or None where the speaker isn't seen.

        Args:
            frames: `(height, width, 3)` uint8.
            prompt: as `check_speaker` returns it, and no track.

        Raises:
            ValueError: the pipeline cannot use the prompt, such as a point outside of the picture.
        """
        first = next(frames, None)
        if first is None:
            return
        shown = _EveryNth(itertools.chain([first], frames), self.every)
        try:
            video = self.see({"video": iter(shown)}, **self._prompts(prompt, first))
        except ValueError as error:
            raise ValueError(f"`speaker`: {error}") from None
        config = getattr(getattr(self.see, "model", None), "config", None)
        threshold = getattr(config, "expression_threshold", None) if isinstance(prompt, str) else None
        last, answered = None, 0
        with video:
            for results in video:
                box = _likeliest(results, threshold)
                yield from _between(last, box, self.every) if answered else ()
                yield box
                last, answered = box, answered + 1
        yield from itertools.repeat(last, shown.count - 1 - self.every * (answered - 1))

    def _prompts(self, prompt: Speaker, first: np.ndarray) -> dict[str, list]:
        """Returns the pipeline's arguments for a prompt; `first` is the frame that a point refers to."""
        if isinstance(prompt, str):
            return {"expressions": [prompt]}
        box = prompt["box"] if "box" in prompt else self._head_at(prompt["point"], first)
        return {"points": [[prompt["point"]]]} if box is None else {"boxes": [box]}

    def _head_at(self, point: tuple[float, float], frame: np.ndarray) -> Box | None:
        """Returns `(x0, y0, x1, y1)` of the head at a point in the frame; None where there is none."""
        try:
            heads = [_head(face.box, frame) for face in self._faces(frame)]
        except ImportError:  # the detector is an extra
            return None
        hit = [box for box in heads if meet(box, (*point, *point))]
        return min(hit, key=lambda box: abs(box[0] + box[2] - 2 * point[0]), default=None)


def _head(face: Box, frame: np.ndarray) -> Box:
    """Returns the box of a face with a margin, clipped to the picture."""
    more = HEAD * (face[2] - face[0])
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = grown(face, more, more)
    return max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)


class _EveryNth:
    """Iterates over the first of every n frames; `count` is the number of all frames so far."""

    def __init__(self, frames: Iterator[np.ndarray], every: int):
        self._frames, self._every, self.count = frames, every, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for index, frame in enumerate(self._frames):
            self.count = index + 1
            if index % self._every == 0:
                yield frame


def _likeliest(results: list[dict[str, Any]], threshold: float | None) -> FoundBox | None:
    """
    Returns the result with the highest score as a box; None without results.

    Args:
        results: of a frame.
        threshold: score from which the checkpoint counts a sentence as true. The score's odds are divided by its odds,
            so that 0.5 is the border of every checkpoint. None: the score stays as it is.
    """
    found = max(results, key=lambda found: found["score"], default=None)
    if found is None:
        return None
    box, score = found["box"], found["score"]
    if threshold is not None and 0 < threshold < 1:
        score = score * (1 - threshold) / (score * (1 - threshold) + threshold * (1 - score))
    return box["xmin"], box["ymin"], box["xmax"], box["ymax"], score


def _between(before: FoundBox | None, after: FoundBox | None, steps: int) -> Iterator[FoundBox | None]:
    """Yields the boxes between two, `steps` frames apart: interpolated, or the nearer one where one is missing."""
    for step in range(1, steps):
        share = step / steps
        if before is None or after is None:
            yield before if share <= 0.5 else after
        else:
            x0, y0, x1, y1, score = ((1 - share) * old + share * new for old, new in zip(before, after))
            yield x0, y0, x1, y1, score


class GivenTrack:
    """
    A `speaker_locator` that returns the boxes of a given track.

    Args:
        fps: frames per second of the clip, and of the track where it doesn't say.
    """

    def __init__(self, fps: float):
        self._fps = fps

    def __call__(self, frames: Iterator[np.ndarray], prompt: Mapping[str, Any]) -> Iterator[Any]:
        """Yields the row of the track nearest in time to each frame."""
        boxes: Iterable[Any] = prompt["track"]
        rate, row = prompt.get("fps") or self._fps, -1
        rows, box = iter(boxes), None
        for index, _ in enumerate(frames):
            while row < round(index / self._fps * rate):
                row += 1
                try:
                    box = next(rows)
                except StopIteration:
                    return
            yield box


def load_locator(model: str | None, device: torch.device) -> ObjectLocator:
    """
    Loads the locator of a checkpoint.

    Args:
        model: folder or Hub id of a checkpoint of the task `object-perception`.
        device: where its model runs.

    Raises:
        ValueError: no checkpoint is named, or the task is not registered.
        OSError: it cannot be loaded.
    """
    if model is None:
        raise ValueError(
            "`speaker` needs something that finds the speaker: pass `speaker_model`, a checkpoint of the task "
            f'"{PERCEPTION}", or a `speaker_locator`.'
        )
    try:
        # The overloads list the tasks of transformers only.
        see = pipeline(PERCEPTION, model=model, device=device)  # type: ignore[call-overload]  # a task of our own
        return ObjectLocator(see)
    except KeyError:  # the task comes with lookhear
        raise ValueError(
            f'`speaker_model`: the task "{PERCEPTION}" is not known here: `import lookhear`, or pass '
            f'`speaker_locator=pipeline("{PERCEPTION}", model=…, trust_remote_code=True)`.'
        ) from None

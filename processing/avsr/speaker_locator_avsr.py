"""Who is to be read and what finds them: the argument `speaker` of the pipeline, checked, and locators for it.

A locator is a pipeline of the task `object-perception`, or knows a track that is there already.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import Pipeline, pipeline

from .landmarks_avsr import Box, DlibLandmarkDetector, LandmarkDetector, grown, meet

EVERYONE = "everyone"
FORMS = '"text", "everyone", {"point": (x, y)}, {"box": (x0, y0, x1, y1)} or {"track": one box a frame}'
PLACES = {"point": (2, "(x, y)"), "box": (4, "(x0, y0, x1, y1)")}

Speaker = str | Mapping[str, Any]

PERCEPTION = "object-perception"  # the task whose pipeline follows what a text, a point or a box names
LOOK_EVERY = 3  # frames of a clip, of which the pipeline is shown one: people move little in the 0.12 s between
HEAD = 0.15  # of a face's width, which is added around it to have the head

FoundBox = tuple[float, float, float, float, float]  # (x0, y0, x1, y1, score)


def check_speaker(speaker: Any) -> Speaker:
    """
    Returns the argument `speaker`, if it says who is to be read.

    Args:
        speaker: a text about one person, `"everyone"`, `{"point": (x, y)}` or `{"box": (x0, y0, x1, y1)}` in pixels of the
            first picture, or `{"track": boxes}`, for each picture `(x0, y0, x1, y1)` or None where the person isn't
            seen, with `"fps"` where these are not 25 a second.

    Returns:
        The same; numbers of points and boxes as tuples of float.

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
    track, fps = speaker["track"], speaker.get("fps")
    if isinstance(track, (str, Mapping)) or not isinstance(track, Iterable):
        raise ValueError(f'`speaker`: "track" must be one box a frame, not {type(track).__name__}.')
    number = isinstance(fps, (int, float)) and not isinstance(fps, bool)
    if fps is not None and not (number and 0 < fps < math.inf):
        raise ValueError(f'`speaker`: "fps" of a track must be a positive number, not {fps!r}.')
    return speaker


def _numbers(value: Any) -> tuple[float, ...]:
    """Finite numbers of a sequence or an array; nothing where it is none."""
    try:
        numbers = tuple(float(number) for number in value) if not isinstance(value, str) else ()
    except (TypeError, ValueError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def speaker_name(speaker: Speaker) -> str:
    """How messages call who was chosen."""
    if isinstance(speaker, str):
        return f'"{speaker}"'
    if "track" in speaker:
        return "the speaker of the track"
    kind = next(iter(speaker))
    return f"the speaker at the {kind} ({', '.join(f'{number:g}' for number in speaker[kind])})"


def asked_place(speaker: Speaker) -> tuple[float, ...] | None:
    """`(x0, y0, x1, y1)` of where the speaker is in the first picture, a point without an area; None where it isn't said."""
    if isinstance(speaker, str) or "track" in speaker:
        return None
    (numbers,) = speaker.values()
    return (*numbers, *numbers)[:4]


def plain_speaker(speaker: Speaker) -> str | dict[str, Sequence[float] | str]:
    """Returns the request as a report holds it: plain text and numbers, of a track only that it was one."""
    if isinstance(speaker, str):
        return speaker
    return {kind: "given" if kind == "track" else list(value) for kind, value in speaker.items() if kind != "fps"}


class ObjectLocator:
    """
    A `speaker_locator` made of a pipeline of the task `object-perception`: follows whom a text, a point or a box names.

    Args:
        see: the pipeline. It is given `{"video": frames}` with `expressions`, `points` or `boxes`, and gives a list of
            `{"score", "box": {"xmin", "ymin", "xmax", "ymax"}}` a frame.
        every: frames of which it is given the first; the boxes between are interpolated.
        faces: finds the faces of the first frame: a point on one of them stands for the box around the head, since a point
            alone may mean a nose or a tie, too. dlib's detector by default, where it is installed.

    Raises:
        ValueError: `every` is not a positive integer.
    """

    def __init__(self, see: Pipeline, every: int = LOOK_EVERY, faces: LandmarkDetector | None = None):
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"`every` must be a positive integer, not {every!r}.")
        self.see, self.every, self._faces = see, every, faces or DlibLandmarkDetector()

    def __call__(self, frames: Iterator[np.ndarray], prompt: Speaker) -> Iterator[FoundBox | None]:
        """
        One `(x0, y0, x1, y1, score)` a frame, or None where the speaker isn't seen.

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
        last, answered = None, 0
        with video:
            for results in video:
                box = _likeliest(results)
                yield from _between(last, box, self.every) if answered else ()
                yield box
                last, answered = box, answered + 1
        yield from itertools.repeat(last, shown.count - 1 - self.every * (answered - 1))

    def _prompts(self, prompt: Speaker, first: np.ndarray) -> dict[str, list]:
        if isinstance(prompt, str):
            return {"expressions": [prompt]}
        box = prompt["box"] if "box" in prompt else self._head_at(prompt["point"], first)
        return {"points": [[prompt["point"]]]} if box is None else {"boxes": [box]}

    def _head_at(self, point: tuple[float, float], frame: np.ndarray) -> tuple[float, ...] | None:
        """`(x0, y0, x1, y1)` of the head in a `(height, width, 3)` uint8 frame whose face is at a point; None without one."""
        try:
            heads = [_head(face.box, frame) for face in self._faces(frame)]
        except ImportError:  # the detector is an extra
            return None
        hit = [box for box in heads if meet(box, (*point, *point))]
        return min(hit, key=lambda box: abs(box[0] + box[2] - 2 * point[0]), default=None)


def _head(face: Box, frame: np.ndarray) -> tuple[float, ...]:
    """Returns the box of a face with a margin, cut to the picture."""
    more = HEAD * (face[2] - face[0])
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = grown(face, more, more)
    return max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)


class _EveryNth:
    """The first of every n frames; `count` says how many there were in all."""

    def __init__(self, frames: Iterator[np.ndarray], every: int):
        self._frames, self._every, self.count = frames, every, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for index, frame in enumerate(self._frames):
            self.count = index + 1
            if index % self._every == 0:
                yield frame


def _likeliest(results: list[dict[str, Any]]) -> FoundBox | None:
    found = max(results, key=lambda found: found["score"], default=None)
    if found is None:
        return None
    box = found["box"]
    return box["xmin"], box["ymin"], box["xmax"], box["ymax"], found["score"]


def _between(before: FoundBox | None, after: FoundBox | None, steps: int) -> Iterator[FoundBox | None]:
    """The boxes between two that are some frames apart: interpolated, or that of the nearer frame where one isn't there."""
    for step in range(1, steps):
        share = step / steps
        if before is None or after is None:
            yield before if share <= 0.5 else after
        else:
            yield tuple((1 - share) * old + share * new for old, new in zip(before, after))


class GivenTrack:
    """
    A `speaker_locator` that knows the boxes already.

    Args:
        fps: frames per second of the request.
    """

    def __init__(self, fps: float):
        self._fps = fps

    def __call__(self, frames: Iterator[np.ndarray], prompt: Speaker) -> Iterator[Any]:
        """The rows of the track, for each frame the one nearest in time."""
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
    Returns the locator of a checkpoint.

    Raises:
        ValueError: none is named, or the task is not known here; OSError: it cannot be loaded.
    """
    if model is None:
        raise ValueError(
            "`speaker` needs something that finds the speaker: pass `speaker_model`, a checkpoint of the task "
            f'"{PERCEPTION}", or a `speaker_locator`.'
        )
    try:
        return ObjectLocator(pipeline(PERCEPTION, model=model, device=device))
    except KeyError:  # the task comes with lookhear
        raise ValueError(
            f'`speaker_model`: the task "{PERCEPTION}" is not known here: `import lookhear`, or pass '
            f'`speaker_locator=pipeline("{PERCEPTION}", model=…, trust_remote_code=True)`.'
        ) from None

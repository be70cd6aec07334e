"""What finds the speaker in each frame: a pipeline of the task `object-perception`, or a track that is there already."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import pipeline
from transformers.pipelines.base import Pipeline

from .speaker_request_avsr import Speaker

PERCEPTION = "object-perception"  # the task whose pipeline follows what a text, a point or a box names


class ObjectLocator:
    """
    A `speaker_locator` made of a pipeline of the task `object-perception`: follows whom a text, a point or a box names.

    Args:
        see: the pipeline. It is given `{"video": frames}` with `expressions`, `points` or `boxes`, and gives a list of
            `{"score", "box": {"xmin", "ymin", "xmax", "ymax"}}` a frame.
    """

    def __init__(self, see: Pipeline):
        self.see = see

    def __call__(self, frames: Iterator[np.ndarray], prompt: Speaker) -> Iterator[tuple[float, ...] | None]:
        """
        One `(x0, y0, x1, y1, score)` a frame, or None where the speaker isn't seen.

        Raises:
            ValueError: the pipeline cannot use the prompt, such as a point outside of the picture.
        """
        first = next(frames, None)
        if first is None:
            return
        try:
            video = self.see({"video": itertools.chain([first], frames)}, **self._prompts(prompt))
        except ValueError as error:
            raise ValueError(f"`speaker`: {error}") from None
        with video:
            for results in video:
                found = max(results, key=lambda found: found["score"], default=None)
                box = None if found is None else found["box"]
                yield box and (box["xmin"], box["ymin"], box["xmax"], box["ymax"], found["score"])

    @staticmethod
    def _prompts(prompt: Speaker) -> dict[str, list]:
        if isinstance(prompt, str):
            return {"expressions": [prompt]}
        return {"points": [[prompt["point"]]]} if "point" in prompt else {"boxes": [prompt["box"]]}


class GivenTrack:
    """
    A `speaker_locator` that knows the boxes already.

    Args:
        fps: frames a second for which it is asked.
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
    The locator of a checkpoint.

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

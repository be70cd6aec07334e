"""Who was followed in each second of a clip, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .landmarks_avsr import Box, grown, meet
from .speaker_boxes_avsr import SpeakerBox
from .speaker_locator_avsr import Speaker, asked_place, plain_speaker, speaker_name

ABSENT = 0.1  # share of the frames without the speaker from which on it is said
UNSURE = 0.5  # mean sureness below which it is said
STRANGERS_NAMED = 5  # times at which somebody else may have taken the place that a sentence names
SEVERAL = 0.1  # share of the frames with more than one face in the box from which on it is said
NEAR = 0.1  # of the sides of a box: what is so near counts as in it


@dataclass
class _Second:
    """Sums over the frames of one second."""

    frames: int = 0
    located: int = 0
    faces: int = 0
    sure: float = 0.0
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def add(self, here: SpeakerBox | None, face: bool, in_box: int, strange: bool) -> None:
        self.frames += 1
        self.faces += face
        if here is not None:
            self.located += 1
            self.sure += here.sure / max(in_box, 1, 2 * strange)
            self.box = tuple(total + edge for total, edge in zip(self.box, here.box, strict=True))

    def to_dict(self, number: int) -> dict[str, Any]:
        box = [round(edge / self.located, 1) for edge in self.box] if self.located else None
        sure, face = (round(value / self.frames, 3) for value in (self.sure, self.faces))
        return {"second": number, "box": box, "sure": sure, "face": face}


class SpeakerReport:
    """
    Collects what was seen of a chosen speaker, second by second.

    Args:
        asked: who was chosen.
        fps: frames a second.
    """

    def __init__(self, asked: Speaker, fps: float):
        self.asked, self._fps = asked, fps
        self._seconds: list[dict[str, Any]] = []
        self._now = _Second()
        self._frames = self._located = self._faces = self._several = self._most = 0
        self._sure = 0.0
        self._strange, self._strange_from = False, []
        self._elsewhere = False  # whether whoever was found is not where the speaker was said to be
        self._absent: list[bool] = []  # not taken yet

    @property
    def located(self) -> float:
        """Share of the frames in which the speaker was found."""
        return self._located / max(self._frames, 1)

    def add(self, here: SpeakerBox | None, face: bool, in_box: int, strange: bool = False) -> None:
        """
        Notes one more frame.

        Args:
            here: where the speaker is, None where they aren't seen.
            face: whether their face was found.
            in_box: faces in the box at the latest search.
            strange: whether their face looks like another one than before.
        """
        if strange and not self._strange:
            self._strange_from.append(self._frames)
        self._strange = strange
        if self._frames == 0 and here is not None:
            self._elsewhere = not _is_near(asked_place(self.asked), here.box)
        if int(self._frames / self._fps) > len(self._seconds):
            self._end_second()
        self._frames += 1
        self._located += here is not None
        self._faces += face
        self._several += in_box > 1
        self._most = max(self._most, in_box)
        self._absent.append(here is None and not face)
        self._now.add(here, face, in_box, strange)
        self._sure += 0.0 if here is None else here.sure

    def take_absent(self, count: int) -> np.ndarray:
        """`(count,)` bool of the next frames that were not taken yet: whether the speaker was not in view."""
        absent, self._absent = self._absent[:count], self._absent[count:]
        return np.array(absent, dtype=bool)

    def _end_second(self) -> None:
        self._seconds.append(self._now.to_dict(len(self._seconds)))
        self._now = _Second()

    def finish(self) -> dict[str, Any]:
        """
        The report, once all frames were added.

        Returns:
            `{"asked", "located", "followed", "seconds"}`: the share of the frames in which the speaker was found, and
            their face; and for each second `{"second", "box", "sure", "face"}`: the mean `[x0, y0, x1, y1]` in pixels,
            None where the speaker wasn't seen; how surely it is the one (0 to 1, divided by the number of faces in the
            box, and by two while the face looks like another one than before); and the share of the frames with the face.
        """
        if self._now.frames:
            self._end_second()
        located, followed = round(self.located, 4), round(self._faces / max(self._frames, 1), 4)
        asked = plain_speaker(self.asked)
        return {"asked": asked, "located": located, "followed": followed, "seconds": self._seconds}

    def warnings(self, unanswered: int) -> list[str]:
        """Sentences for the user; `unanswered` is the number of frames for which the locator gave nothing."""
        said, name = [], speaker_name(self.asked)
        if self._elsewhere:
            said.append(f"nobody was found where {name} should be: whoever is likeliest to be meant was followed")
        if unanswered:
            given = self._frames - unanswered
            said.append(f"there are boxes of {name} for {given} frames, but {self._frames} frames")
        elif self._located and 1 - self.located > ABSENT:
            said.append(f"{name} is in view in {self.located:.0%} of the frames only")
        if self._located and self._sure / self._located < UNSURE:
            said.append(f"it is not sure who {name} is: {self._sure / self._located:.2f} of 1 on average")
        if self._several > SEVERAL * self._frames:
            said.append(
                f"up to {self._most} faces are where {name} is: the one seen first or most central was followed"
            )
        if self._strange_from:
            times = [f"{frame / self._fps:.1f}" for frame in self._strange_from[:STRANGERS_NAMED]]
            more = ", …" if len(self._strange_from) > STRANGERS_NAMED else ""
            said.append(f"from {', '.join(times)}{more} s on the face of {name} looks like another one than before")
        return said


def _is_near(place: Sequence[float] | None, box: Box) -> bool:
    """Whether a place is in a box at least in part, or near; True without a place."""
    return place is None or meet(grown(box, NEAR * (box[2] - box[0]), NEAR * (box[3] - box[1])), place)

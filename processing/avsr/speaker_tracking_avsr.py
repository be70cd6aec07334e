"""A chosen speaker in the frames of a clip: their place in each of them, and in that place their face."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .clip_report_avsr import ClipReport
from .landmarks_avsr import LandmarkDetector
from .speaker_boxes_avsr import ChosenSpeaker, SpeakerBox, SpeakerBoxes
from .speaker_face_avsr import SpeakerFace
from .speaker_locator_avsr import speaker_name
from .speaker_report_avsr import SpeakerReport


class SpeakerSearch:
    """Finds the frames' boxes of a chosen speaker, and in them the face. A context manager that ends its thread."""

    def __init__(self, speaker: ChosenSpeaker, image_processor: Any):
        self._speaker, self._detect_every = speaker, image_processor.detect_every
        self.report = SpeakerReport(speaker.asked, image_processor.fps)
        self._face: SpeakerFace | None = None
        self._boxes: SpeakerBoxes | None = None

    def face(self, detector: LandmarkDetector) -> SpeakerFace:
        """What finds the landmarks in the frames that `add` and `finish` give."""
        self._face = SpeakerFace(detector, self._detect_every, self.report)
        return self._face

    def __enter__(self) -> SpeakerSearch:
        self._boxes = SpeakerBoxes(self._speaker)
        return self

    def __exit__(self, *error: Any) -> None:
        self._boxes.close()

    def add(self, frame: np.ndarray) -> Iterator[np.ndarray]:
        """One more frame; gives those in which the speaker's place is known by now, one at a time."""
        return self._looked_at(self._boxes.add(frame))

    def finish(self) -> Iterator[np.ndarray]:
        """The rest."""
        return self._looked_at(self._boxes.finish())

    def _looked_at(self, pairs: Iterator[tuple[np.ndarray, SpeakerBox | None]]) -> Iterator[np.ndarray]:
        for frame, here in pairs:
            self._face.look(here)
            yield frame

    def note(self, report: ClipReport, name: str) -> None:
        """Writes down who was followed. Raises ValueError where nobody was."""
        if not self.report.located:
            raise ValueError(f"{name}: {speaker_name(self._speaker.asked)} was not found in any frame.")
        report.speaker = self.report.finish()
        report.warn(self.report.warnings(self._boxes.unanswered))

"""A clip of any length as a stream of short pieces: sound and mouth crops on one clock, read in one pass."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .clip_arrays_avsr import ArraySource
from .clip_pieces_avsr import MAX_LEAD, ClipPiece, PieceCutter
from .clip_report_avsr import ClipReport, ReportBuilder, SoundLevel
from .landmarks_avsr import DlibLandmarkDetector, require_dlib
from .media_avsr import SOUND, MediaStream, trimmed_length
from .media_source_avsr import MediaSource, WarningSink
from .mouth_cropping_avsr import MouthBuilder, landmark_source
from .read_ahead_avsr import ReadAhead, read_ahead
from .speaker_boxes_avsr import ChosenSpeaker
from .speaker_request_avsr import speaker_name
from .speaker_tracking_avsr import SpeakerSearch

__all__ = ["ClipPiece", "ClipStream", "refuse_unreadable"]

DECODED = 32 << 20  # bytes of pictures and sound that may wait for the search for faces
WARNINGS = 100  # sentences about one file at most
PIECES = 4  # pieces that may wait for the reader


def refuse_unreadable(name: str, modality: str, sound: bool, trouble: str | None) -> None:
    """Raises ValueError where `modality` needs what a clip does not have.

    Args:
        name: how messages call the clip.
        modality: `"auto"`, `"audio"`, `"visual"` or `"audiovisual"`.
        sound: whether there is sound.
        trouble: why lips cannot be read; None where they can.
    """
    if modality == "auto":
        if not sound and trouble:
            raise ValueError(f"{name} cannot be read: there is no sound, and {trouble}.")
    elif modality != "audio" and trouble:
        raise ValueError(f'{name} cannot be read with modality="{modality}": {trouble}. Use "auto" or "audio".')
    elif modality != "visual" and not sound:
        raise ValueError(
            f'{name} cannot be read with modality="{modality}": there is no sound. Use "auto" or "visual".'
        )


class ClipStream:
    """Reads a source piece by piece: an iterator of [`ClipPiece`], and a context manager that closes the source.

    Decoding runs in one thread and the search for faces in another one, both a little ahead of the reader. Neither
    they nor the report keep more of a long clip than of a short one.

    Args:
        source: path, URL, bytes, binary file object, or `{"audio", "sampling_rate", "video", "fps"}` of arrays;
            instead of `"video"` there may be `"mouths"`, crops of the image processor.
        modality: `"auto"` (what there is), `"audio"`, `"visual"` or `"audiovisual"`.
        sampling_rate: samples a second wanted.
        image_processor: [`MouthRoiImageProcessor`].
        landmarks: where faces come from, as of `MouthRoiImageProcessor.extract`.
        max_lead: seconds by which sound or pictures may lag behind the other in a file and are still waited for;
            those of arrays always are.
        speaker: whose face and mouth they are, and what finds them; None takes the most prominent face. `landmarks` can
            only be a detector then.
        on_piece: called with each piece as the reader takes it, in the reader's thread; what it raises, the reader gets.

    Attributes:
        name: how messages call the source.
        duration: seconds that the source announces, None where it does not.

    Raises:
        ValueError: names the source and says what is wrong: it cannot be read, or is without what `modality` needs, or
            a speaker is chosen and there is no video to find them in. While it is read: nothing of it can be decoded, or
            there is no face in it and nothing else to read, or the speaker is not found in it.
    """

    def __init__(
        self,
        source: Any,
        modality: str,
        sampling_rate: int,
        image_processor: Any,
        landmarks: Any = None,
        max_lead: float = MAX_LEAD,
        speaker: ChosenSpeaker | None = None,
        on_piece: Callable[[ClipPiece], object] | None = None,
    ):
        wanted = (
            sampling_rate if modality != "visual" else None,
            image_processor.fps if modality != "audio" else None,
        )
        if isinstance(source, dict):
            raw, max_lead = ArraySource(source, *wanted, image_processor.roi_size), math.inf
        else:
            raw = _FileSource(source, *wanted)
        self.name, self.duration = raw.name, raw.duration
        self._on_piece = on_piece
        self._ahead: ReadAhead | None = None
        self._closed = False
        try:
            self._work = _Work(raw, modality, sampling_rate, image_processor, landmarks, max_lead, speaker)
        except BaseException:
            raw.close()
            raise

    @property
    def report(self) -> ClipReport:
        """Numbers and warnings about picture and sound; complete when the iteration is over."""
        return self._work.report

    @property
    def trouble(self) -> str | None:
        """Why lips cannot be read: there is no video, or (known when the iteration is over) no face; else None."""
        return self._work.trouble

    def __iter__(self) -> ClipStream:
        return self

    def __next__(self) -> ClipPiece:
        if self._closed:
            raise StopIteration
        if self._ahead is None:
            self._ahead = ReadAhead(self._work.pieces(), PIECES)
        piece = next(self._ahead)
        if self._on_piece is not None:
            self._on_piece(piece)
        return piece

    def __enter__(self) -> ClipStream:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads and closes the source; nothing can be read after it."""
        self._closed = True
        if self._ahead is not None:
            self._ahead.close()
        self._work.source.close()


class _FileSource:
    """A media file as `ArraySource` presents arrays."""

    mouths = None

    def __init__(self, source: MediaSource, sampling_rate: int | None, fps: float | None):
        self._said: list[str] = []
        self._media = MediaStream(source, fps, sampling_rate, on_warning=_note_in(self._said))
        self.name, self.duration = self._media.name, self._media.survey.announced
        self.has_sound, self.has_pictures = self._media.sound is not None, self._media.pictures is not None
        self._rate = sampling_rate

    @property
    def fps_in(self) -> float | None:
        return self._media.survey.fps or None

    @property
    def warnings(self) -> list[str]:
        return [*self._media.survey.warnings, *self._said]

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        return iter(self._media)

    def kept(self, samples: int) -> int:
        """How much of the sound remains without its encoder's padding."""
        survey = self._media.survey
        if survey.video is None or self._rate is None:
            return samples
        return trimmed_length(samples, self._rate, 0.0, survey.video_end)

    def close(self) -> None:
        self._media.close()


def _note_in(said: list[str]) -> WarningSink:
    """Keeps the first sentences. It knows no source, so that decoders are freed with theirs and not by a garbage collection."""
    return lambda sentence: said.append(sentence) if len(said) < WARNINGS else None


class _Work:
    """What happens in the threads. It does not know the stream, so that a stream that is dropped ends them."""

    def __init__(
        self,
        source: ArraySource | _FileSource,
        modality: str,
        rate: int,
        image_processor: Any,
        landmarks: Any,
        max_lead: float,
        speaker: ChosenSpeaker | None,
    ):
        self.source, self.modality, self.report = source, modality, ClipReport()
        self._speaker = None if speaker is None else SpeakerSearch(speaker, image_processor)
        self.trouble = None if source.has_pictures or source.mouths is not None else "there is no video"
        self._builder: MouthBuilder | None = None
        if speaker is not None and not source.has_pictures:
            what = "there are mouths, and no pictures" if source.mouths is not None else "no video is there, or wanted"
            raise ValueError(f"{source.name}: {speaker_name(speaker.asked)} cannot be looked for: {what}.")
        if source.has_pictures:
            self.trouble = self._prepare(image_processor, landmarks)
        refuse_unreadable(source.name, modality, source.has_sound, self.trouble)
        self._lips = ReportBuilder(image_processor.mouth_width, image_processor.fps)
        self._level = SoundLevel()
        self._cutter = PieceCutter(
            rate, image_processor.fps, image_processor.roi_size, source.has_sound, self.trouble is None, max_lead
        )

    def _prepare(self, image_processor: Any, landmarks: Any) -> str | None:
        """Makes ready for the search for faces; says why there can be none."""
        try:
            if landmarks is None:
                require_dlib()
        except ImportError as error:  # the face detector is an extra
            if self.modality != "auto" or not self.source.has_sound or self._speaker is not None:
                raise
            return str(error)
        if self._speaker is not None:
            found = self._speaker.face(landmarks or DlibLandmarkDetector())
        else:
            found = landmark_source(landmarks, image_processor.fps, image_processor.detect_every)
        self._builder = MouthBuilder(image_processor, found)
        return None

    def pieces(self) -> Iterator[ClipPiece]:
        """All pieces; then the report is complete."""
        for piece in self._cut():
            if piece.audio is not None:
                self._level.add(piece.audio)
            yield piece
        self._finish_report()
        refuse_unreadable(self.source.name, self.modality, self._cutter.has_sound, self.trouble)

    def _cut(self) -> Iterator[ClipPiece]:
        if self.source.mouths is not None:
            seen = np.ones(len(self.source.mouths), dtype=bool)
            self._cutter.add_lips(self.source.mouths, seen, ~seen, ~seen)
        with contextlib.nullcontext() if self._speaker is None else self._speaker:
            for kind, values in read_ahead(self.source.items(), DECODED, lambda item: item[1].nbytes):
                if kind == SOUND:
                    self._cutter.add_sound(values)
                elif self._builder is not None:
                    self._see(values)
                yield from self._cutter.ready()
            if self._builder is not None:
                self._see_rest()
        yield from self._cutter.finish(self.source.kept(self._cutter.sound_end))

    def _see(self, frame: np.ndarray) -> None:
        """One more picture."""
        if self._speaker is None:
            self._take(self._builder.add(frame))
            return
        for known in self._speaker.add(frame):
            self._take(self._builder.add(known))

    def _see_rest(self) -> None:
        """There are no more pictures."""
        for known in self._speaker.finish() if self._speaker is not None else ():
            self._take(self._builder.add(known))
        self._take(self._builder.finish())

    def _take(self, blocks: Iterator[Any]) -> None:
        for block in blocks:
            self._lips.add(block.mouths, block.points, block.found, block.outside, block.cuts)
            absent = np.zeros(len(block.found), dtype=bool)
            if self._speaker is not None:
                absent = self._speaker.report.take_absent(len(block.found))
            self._cutter.add_lips(block.mouths, block.found, block.cuts, absent)

    def _finish_report(self) -> None:
        if self._builder is not None and self._cutter.lips_end == 0:
            self.trouble = "there is no video"  # none that can be decoded
        elif self._builder is not None:
            self.report = self._lips.finish(self._builder.counts, self._builder.switches, self.source.fps_in)
            self.report.warn(self._builder.warnings())
            self.trouble = None if self.report.frames_with_face else "no face was found"
            if self._speaker is not None:
                self._speaker.note(self.report, self.source.name)
        elif self.source.mouths is not None:
            frames = len(self.source.mouths)
            self.report = ClipReport(frames=frames, frames_with_face=1.0, fps_out=self._lips.fps)
        self.report.warn([*self.source.warnings, *self._cutter.warnings])
        if self._cutter.has_sound:
            self._level.report(self.report)

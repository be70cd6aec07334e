"""One clip: as a stream of short pieces, sound and mouth crops on one clock, or read as a whole.

`ClipStream` reads a media file or arrays once: `MouthFinder` finds the mouths, `PieceCutter` cuts both into pieces,
and `read_clip` joins the pieces of a short clip.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .clip_arrays_avsr import MOUTHS, ArraySource, PairedSource, open_input
from .clip_report_avsr import LIP_POINTS, ClipReport, ReportBuilder, SoundLevel, is_silent, stands_still
from .face_networks_avsr import offer_weights
from .landmarks_avsr import LandmarkDetector, make_detector, require_detector
from .media_avsr import PICTURE, SOUND, MediaStream
from .media_source_avsr import DEFAULT_TRACKS, MAX_PADDING, ReadAhead, TrackChoice
from .mouth_cropping_avsr import LandmarkSource, MouthBlock, MouthBuilder, PrecomputedLandmarks, landmark_source
from .speaker_locator_avsr import speaker_name
from .speaker_tracking_avsr import ChosenSpeaker, SpeakerSearch

MODALITIES = ("auto", "audio", "visual", "audiovisual")

MAX_LEAD = 60.0  # seconds by which sound may come before its pictures in a file, or after them

DECODED = 32 << 20  # bytes of pictures and sound that may wait for the search for faces
PIECES = 4  # pieces that may wait for the reader

KINDS = {(True, True): "audiovisual", (True, False): "audio", (False, True): "visual", (False, False): ""}
MIN_FACE_SHARE = 0.2  # share of frames with a face below which lips are not read: most crops would be interpolated
STANDS_STILL = "the picture stands still"
LONG_ABSENCE = 0.5  # seconds: words heard while the chosen speaker is out of view longer than this are dropped

Landmarks = np.ndarray | PrecomputedLandmarks | LandmarkDetector | str
# Mouths, found, cuts, absent and lips of `ClipPiece`.
LipRows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ClipPiece:
    """About one second of a clip. The pieces follow each other without a break.

    Arrays are shorter than the piece, or empty, where sound or pictures have come to their end.

    Attributes:
        start: seconds on the clip's clock, which is that of the file as players show it.
        audio: `(samples,)` float32 at the stream's sampling rate, or None where there is no sound or it is not wanted.
        mouths: `(frames, roi, roi)` uint8 at the image processor's rate, or None.
        found: `(frames,)` bool, whether a face was seen; None without mouths, as the following ones.
        cuts: `(frames,)` bool, the first frame after a change of scene or of another face.
        absent: `(frames,)` bool, whether a speaker who was chosen is not in view; False where none was.
        late: frames at its beginning that come before the first picture; black crops without a face.
        lips: `(frames, 20, 2)` float32, landmarks 48 to 67 in pixels of `mouths`; NaN where they are unknown.
    """

    start: float
    audio: np.ndarray | None
    mouths: np.ndarray | None
    found: np.ndarray | None
    cuts: np.ndarray | None
    absent: np.ndarray | None
    late: int = 0
    lips: np.ndarray | None = None


@dataclass
class Clip:
    """
    One input of the pipeline.

    Attributes:
        name: name used in error messages.
        audio: `(samples,)` float32 at the feature extractor's rate, or `None`.
        mouths: `(frames, roi, roi)` uint8 at the image processor's rate, or `None`.
        modality: what will be read: `"audio"`, `"visual"` or `"audiovisual"`; empty where there is nothing to read.
        duration: in seconds.
        report: numbers and warnings about picture and sound.
        absent: `(frames,)` bool, where a speaker who was chosen is not in view; `None` without pictures.
        found: `(frames,)` bool, where the face is seen, and not interpolated; `None` without pictures.
        still: whether the mouth was left out because it doesn't move.
        pieces: all of it where the pictures begin after the sound: such a clip is read piece by piece; else empty.
        first: frame of a longer clip with which this part of it begins; 0 for a clip of its own.
    """

    name: str
    audio: np.ndarray | None = None
    mouths: np.ndarray | None = None
    modality: str = ""
    duration: float = 0.0
    report: ClipReport = field(default_factory=ClipReport)
    absent: np.ndarray | None = None
    found: np.ndarray | None = None
    still: bool = False
    pieces: list[ClipPiece] = field(default_factory=list)
    first: int = 0

    def to_report(self) -> dict[str, Any]:
        """Returns the report as plain numbers, lists and strings, with what was read and for how long."""
        about = {"source": self.name, "modality": self.modality, "duration": round(self.duration, 3)}
        return {**about, **self.report.to_dict()}


# ---------------------------------------------------------------------------------------------------------- the stream


class ClipStream:
    """Reads a source piece by piece: an iterator of [`ClipPiece`], and a context manager that closes the source.

    Decoding runs in one thread and the search for faces in another one, both a little ahead of the reader. Neither
    they nor the report store more of a long clip than of a short one.

    Args:
        source: path, URL, bytes, binary file object, or `{"audio", "sampling_rate", "video", "fps"}` of arrays;
            instead of `"video"` there may be `"mouths"`, crops of the image processor; see `as_input` for all forms.
        modality: `"auto"` (what there is), `"audio"`, `"visual"` or `"audiovisual"`.
        sampling_rate: samples per second wanted.
        image_processor: [`MouthRoiImageProcessor`].
        landmarks: where faces come from; see `MouthRoiImageProcessor.extract`.
        max_lead: seconds by which sound or pictures may come later than the other in a file and are still waited for;
            those of arrays always are.
        speaker: who is to be read, and what finds them; None takes the most prominent face. With a speaker,
            `landmarks` can only be a detector.
        on_piece: called with each piece as the reader takes it, in the reader's thread; the reader gets its
            exceptions.
        tracks: which of a file's tracks and of the sound's channels are read.

    Attributes:
        name: name used in error messages.
        duration: seconds that the source announces, None where it does not.
        modality: as given.
        chosen: whether a speaker was chosen: whose lips stand still then says nothing.

    Raises:
        ValueError: names the source and the fault: it cannot be read, lacks what `modality` needs, or a speaker is
            chosen and there is no video. While it is read: nothing can be decoded, there is neither a face nor
            anything else to read, or the speaker is not found.
    """

    def __init__(
        self,
        source: Any,
        modality: str,
        sampling_rate: int,
        image_processor: Any,
        landmarks: Landmarks | None = None,
        max_lead: float = MAX_LEAD,
        speaker: ChosenSpeaker | None = None,
        on_piece: Callable[[ClipPiece], object] | None = None,
        tracks: TrackChoice = DEFAULT_TRACKS,
    ):
        rate = sampling_rate if modality != "visual" else None
        fps = image_processor.fps if modality != "audio" else None
        self._source = open_input(source, rate, fps, image_processor.roi_size, tracks)
        max_lead = max_lead if isinstance(self._source, MediaStream) else math.inf
        self.name, self.duration = self._source.name, self._source.duration
        self.modality, self.chosen = modality, speaker is not None
        self._on_piece, self._closed = on_piece, False
        self._ahead: ReadAhead[ClipPiece] | None = None
        try:
            kinds = self._source.kinds
            if speaker is not None and PICTURE not in kinds:
                what = "there are mouths, and no pictures" if MOUTHS in kinds else "no video is there, or wanted"
                raise ValueError(f"{self.name}: {speaker_name(speaker.asked)} cannot be looked for: {what}.")
            finder, trouble = prepare_finder(kinds, modality, image_processor, landmarks, speaker)
            refuse_unreadable(self.name, modality, SOUND in kinds, trouble)
        except BaseException:
            self._source.close()
            raise
        cutter = PieceCutter(
            sampling_rate, image_processor.fps, image_processor.roi_size, SOUND in kinds, trouble is None, max_lead
        )
        self._facts = _Facts(trouble)
        self._pieces = clip_pieces(self._source, modality, finder, cutter, self._facts)

    @property
    def report(self) -> ClipReport:
        """Numbers and warnings about picture and sound; complete when the iteration is over."""
        return self._facts.report

    @property
    def trouble(self) -> str | None:
        """Why lips cannot be read: no video, or (known when the iteration is over) no face; None if they can."""
        return self._facts.trouble

    def __iter__(self) -> ClipStream:
        return self

    def __next__(self) -> ClipPiece:
        if self._closed:
            raise StopIteration
        if self._ahead is None:
            self._ahead = ReadAhead(self._pieces, PIECES)
        piece = next(self._ahead)
        if self._on_piece is not None:
            self._on_piece(piece)
        return piece

    def __enter__(self) -> ClipStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads and closes the source, after which no pieces follow."""
        self._closed = True
        if self._ahead is not None:
            self._ahead.close()
        self._source.close()


@dataclass
class _Facts:
    """What the thread of a stream finds out for its reader; complete once the last piece is made."""

    trouble: str | None
    report: ClipReport = field(default_factory=ClipReport)


def clip_pieces(
    source: ArraySource | MediaStream | PairedSource,
    modality: str,
    finder: MouthFinder | None,
    cutter: PieceCutter,
    facts: _Facts,
) -> Iterator[ClipPiece]:
    """
    Yields the pieces of a clip, then completes the facts about it.

    It runs in a thread and holds no reference to the stream, so that garbage collection of the stream ends the thread.

    Args:
        source: read once.
        modality: see [`ClipStream`].
        finder: what finds the mouths in the source's pictures; None where none are looked for.
        cutter: what cuts sound and mouths.
        facts: receives the report.

    Raises:
        ValueError: what was announced cannot be read; see [`ClipStream`].
    """
    level = SoundLevel()
    for piece in _cut(source, finder, cutter):
        if piece.audio is not None:
            level.add(piece.audio)
        yield piece
    if finder is not None and cutter.lips_end == 0:
        facts.trouble = "there is no video"  # none that can be decoded
    elif finder is not None:
        facts.report = finder.report(source.fps_in)
        facts.trouble = None if facts.report.frames_with_face else "no face was found"
        finder.note_speaker(facts.report, source.name)
    elif MOUTHS in source.kinds:
        facts.report = ClipReport(frames=cutter.lips_end, frames_with_face=1.0, fps_out=cutter.fps)
    facts.report.warn([*source.warnings, *cutter.warnings])
    if facts.trouble is None and cutter.sound_end:
        facts.report.warn(different_lengths(cutter.sound_end / cutter.rate, cutter.lips_end / cutter.fps))
    if cutter.has_sound:
        level.report(facts.report)
    refuse_unreadable(source.name, modality, cutter.has_sound, facts.trouble)


def _cut(
    source: ArraySource | MediaStream | PairedSource, finder: MouthFinder | None, cutter: PieceCutter
) -> Iterator[ClipPiece]:
    """Yields the pieces as soon as they are complete."""
    begun = False  # whether there was a picture
    with finder or contextlib.nullcontext(), ReadAhead(iter(source), DECODED, lambda item: item[1].nbytes) as decoded:
        for kind, values in decoded:
            if kind == SOUND:
                cutter.add_sound(values)
            elif kind == MOUTHS:
                seen = np.ones(len(values), dtype=bool)
                cutter.add_lips(values, seen, ~seen, ~seen, unknown_lips(len(values)))
            elif finder is not None:
                if not begun:
                    finder.begin(source.pictures_late)
                    cutter.begin_lips(source.pictures_late)
                begun = True
                for rows in finder.add(values):
                    cutter.add_lips(*rows)
            yield from cutter.ready()
        for rows in finder.finish() if finder is not None else ():
            cutter.add_lips(*rows)
    yield from cutter.finish(source.without_padding(cutter.sound_end))


def different_lengths(sound: float, picture: float) -> list[str]:
    """Returns a sentence where sound and picture differ much in length (seconds)."""
    if abs(sound - picture) <= 0.5:
        return []
    return [f"sound ({sound:.1f} s) and picture ({picture:.1f} s) are of different length"]


def refuse_unreadable(name: str, modality: str, sound: bool, trouble: str | None) -> None:
    """Raises a ValueError where a clip lacks what `modality` needs.

    Args:
        name: name used in error messages.
        modality: `"auto"`, `"audio"`, `"visual"` or `"audiovisual"`.
        sound: whether there is sound.
        trouble: why lips cannot be read; None if they can.
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


# ------------------------------------------------------------------------------------------------- mouths and pieces


def prepare_finder(
    kinds: frozenset[str],
    modality: str,
    image_processor: Any,
    landmarks: Landmarks | None,
    speaker: ChosenSpeaker | None,
    prompt: bool = False,
) -> tuple[MouthFinder | None, str | None]:
    """
    Returns what finds the mouths where there are pictures, and why lips cannot be read (None where they can).

    Args:
        kinds: of the items that the source has.
        modality: see [`ClipStream`].
        image_processor: see [`ClipStream`].
        landmarks: see [`ClipStream`].
        speaker: see [`ClipStream`].
        prompt: see [`MouthFinder`].
    """
    if PICTURE not in kinds:
        return None, None if MOUTHS in kinds else "there is no video"
    try:
        landmarks = image_processor.landmarks if landmarks is None else landmarks
        if isinstance(landmarks, str):
            # A checkpoint's code is loaded once for its processor and once for its pipeline: this is the pipeline's.
            if landmarks == "mesh" and (loaded_from := getattr(image_processor, "loaded_from", None)):
                offer_weights(loaded_from[0], **loaded_from[1])
            require_detector(landmarks)
    except ImportError as error:  # the face detector is an extra
        if modality != "auto" or SOUND not in kinds or speaker is not None:
            raise
        return None, str(error)
    return MouthFinder(image_processor, landmarks, speaker, prompt), None


def unknown_lips(frames: int) -> np.ndarray:
    """Returns the `lips` of crops whose landmarks are not known: `(frames, 20, 2)` NaN."""
    return np.full((frames, LIP_POINTS, 2), np.nan, np.float32)


class MouthFinder:
    """Finds the mouths in the pictures of a clip, and measures them. A context manager that ends the locator's thread.

    Args:
        image_processor: [`MouthRoiImageProcessor`], for its settings.
        landmarks: where faces come from; see `MouthRoiImageProcessor.extract`.
        speaker: who is to be read, and what finds them; None takes the most prominent face.
        prompt: whether mouths come as soon as they are final, in smaller blocks.
    """

    def __init__(
        self, image_processor: Any, landmarks: Landmarks, speaker: ChosenSpeaker | None, prompt: bool = False
    ):
        self._speaker = None if speaker is None else SpeakerSearch(speaker, image_processor)
        found: LandmarkSource
        if self._speaker is None:
            found = landmark_source(landmarks, image_processor.fps, image_processor.detect_every)
        else:
            detector = make_detector(landmarks) if isinstance(landmarks, str) else landmarks
            if not callable(detector):
                raise ValueError("`landmarks` must be a detector where a speaker is chosen, not a clip's landmarks.")
            found = self._speaker.face(detector)
        self._builder = MouthBuilder(image_processor, found, prompt)
        self._measured = ReportBuilder(image_processor.mouth_width, image_processor.fps)

    def __enter__(self) -> MouthFinder:
        if self._speaker is not None:
            self._speaker.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._speaker is not None:
            self._speaker.__exit__(*error)

    def begin(self, late: int) -> None:
        """Notes that the first picture is preceded by `late` frames of the clip without one."""
        self._measured.begin(late)
        if self._speaker is not None:
            self._speaker.report.begin(late)

    def add(self, picture: np.ndarray) -> Iterator[LipRows]:
        """Takes one more `(height, width, 3)` uint8 picture; yields the mouths that are final. Must be exhausted."""
        for located in [picture] if self._speaker is None else self._speaker.add(picture):
            yield from self._rows(self._builder.add(located))

    def repeat(self, picture: np.ndarray) -> Iterator[LipRows]:
        """Takes a picture again, which is not looked at again where no speaker was chosen; see `add`."""
        yield from self.add(picture) if self._speaker is not None else self._rows(self._builder.repeat())

    def finish(self) -> Iterator[LipRows]:
        """Yields the rest, once all pictures were added."""
        for located in [] if self._speaker is None else self._speaker.finish():
            yield from self._rows(self._builder.add(located))
        yield from self._rows(self._builder.finish())

    def _rows(self, blocks: Iterable[MouthBlock]) -> Iterator[LipRows]:
        for block in blocks:
            self._measured.add(block.mouths, block.points, block.found, block.outside, block.cuts, block.lips)
            absent = np.zeros(len(block.found), dtype=bool)
            if self._speaker is not None:
                absent = self._speaker.report.take_absent(len(block.found))
            yield block.mouths, block.found, block.cuts, absent, block.lips

    def report(self, fps_in: float | None) -> ClipReport:
        """Returns what was measured, once all pictures were added.

        Args:
            fps_in: stored frame rate.
        """
        report = self._measured.finish(self._builder.counts, self._builder.switches, fps_in)
        report.warn(self._builder.warnings())
        return report

    def note_speaker(self, report: ClipReport, name: str) -> None:
        """Notes in a report who was followed. Raises a ValueError if a speaker was chosen and not found.

        Args:
            report: of the clip.
            name: of the clip, for the message.
        """
        if self._speaker is not None:
            self._speaker.note(report, name)


class _RowQueue:
    """FIFO buffer of array rows. Rows that are missing are filled with `blank`."""

    def __init__(self, empty: np.ndarray, blank: float = 0):
        self._parts, self._blank = [empty], blank
        self.taken = self.end = 0  # rows given so far, and rows received
        self.lost = False  # whether rows came too late

    def add(self, rows: np.ndarray) -> None:
        late, self.end = self.taken - self.end, self.end + len(rows)
        if late > 0:
            self.lost |= bool(rows[:late].any())
            rows = rows[late:]
        self._parts.append(rows)

    def skip(self, count: int) -> None:
        """Adds blank rows; those that came too late are not missed."""
        late, self.end = max(0, self.taken - self.end), self.end + count
        if count > late:
            self._parts.append(self._blanks(count - late))

    def _blanks(self, count: int) -> np.ndarray:
        like = self._parts[0]
        return np.full((count, *like.shape[1:]), self._blank, like.dtype)

    def take(self, until: int, completed: bool) -> np.ndarray:
        """Returns the rows from `taken` to `until`; missing ones blank if `completed`."""
        rows = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        count = until - self.taken
        part, self._parts, self.taken = rows[:count].copy(), [rows[count:]], until
        if completed and len(part) < count:
            part = np.concatenate([part, self._blanks(count - len(part))])
        return part

    def end_at(self, end: int) -> None:
        """Drops all rows from `end` on."""
        rows = np.concatenate(self._parts)
        self._parts, self.end = [rows[: max(0, end - self.taken)]], min(self.end, end)


class PieceCutter:
    """Cuts sound and mouth crops into pieces of one length, as soon as both are there.

    What is missing when the other is `max_lead` seconds ahead is not waited for: silence, or black crops without a
    face, take its place.

    Args:
        rate: samples per second.
        fps: crops per second.
        roi_size: side of the crops.
        has_sound: whether sound is waited for.
        has_lips: whether crops are waited for.
        max_lead: in seconds.
        length: seconds of a piece.
        padding: seconds at the end of the sound that may turn out to be an encoder's padding.

    Attributes:
        rate: as given.
        fps: as given.
        has_sound: whether the pieces have sound.
        has_lips: whether they have crops.
    """

    def __init__(
        self,
        rate: int,
        fps: float,
        roi_size: int,
        has_sound: bool,
        has_lips: bool,
        max_lead: float = MAX_LEAD,
        length: float = 1.0,
        padding: float = MAX_PADDING,
    ):
        self.fps, self.rate, self._max_lead = fps, rate, max_lead
        self.has_sound, self.has_lips = has_sound, has_lips
        empty = MouthBlock.empty(roi_size)
        self._sound = _RowQueue(np.zeros(0, np.float32))
        self._lips = [_RowQueue(rows) for rows in (empty.mouths, empty.found, empty.cuts, empty.found)]
        self._lips.append(_RowQueue(empty.lips, blank=math.nan))
        self._frames = max(1, round(length * fps))  # of a piece
        self._padding = round(padding * rate)
        self._count = 0  # pieces so far
        self._late: int | None = None if has_lips else 0  # crops that are missing at the beginning, once it is known

    @property
    def sound_end(self) -> int:
        """Samples received."""
        return self._sound.end

    @property
    def lips_end(self) -> int:
        """Crops received."""
        return self._lips[0].end

    def add_sound(self, samples: np.ndarray) -> None:
        """Adds `(samples,)` float32 that follow those added before."""
        self._sound.add(samples)

    def begin_lips(self, late: int) -> None:
        """Notes that the first crop is preceded by `late` frames of the clip without a picture."""
        self._late = late
        for queue in self._lips:
            queue.skip(late)

    def add_lips(
        self, mouths: np.ndarray, found: np.ndarray, cuts: np.ndarray, absent: np.ndarray, lips: np.ndarray
    ) -> None:
        """Adds crops that follow those added before; see `ClipPiece`."""
        self._late = self._late or 0
        for queue, rows in zip(self._lips, (mouths, found, cuts, absent, lips), strict=True):
            queue.add(rows)

    @property
    def warnings(self) -> list[str]:
        """Sentences for the user."""
        lost = {"sound": self._sound.lost, "pictures": self._lips[0].lost}
        return [
            f"some of the {what} come more than {self._max_lead:.0f} s too late in the file and were left out"
            for what, happened in lost.items()
            if happened
        ]

    def ready(self) -> Iterator[ClipPiece]:
        """Yields the pieces that are complete."""
        hold = self._padding  # to be cut off at the end
        while True:
            sample, frame = self._bounds(self._count + 1)
            leads = []  # seconds by which sound and crops reach beyond the next piece
            if self.has_sound:
                leads.append((self._sound.end - hold - sample) / self.rate)
            if self.has_lips:
                leads.append((self.lips_end - frame) / self.fps)
            if max(leads) < 0 or (min(leads) < 0 and max(leads) < self._max_lead):
                return
            yield self._piece(completed=True)

    def finish(self, samples: int) -> Iterator[ClipPiece]:
        """Yields the rest, once everything was added; sound counts up to this total of samples."""
        if self._count == 0:
            self.has_sound, self.has_lips = self.has_sound and samples > 0, self.has_lips and self.lips_end > 0
        self._sound.end_at(samples)
        while any(rows.taken < rows.end for rows in (self._sound, self._lips[0])):
            yield self._piece(completed=False)

    def _piece(self, completed: bool) -> ClipPiece:
        (_, first), (sample, frame) = self._bounds(self._count), self._bounds(self._count + 1)
        self._count += 1
        audio = self._sound.take(sample, completed) if self.has_sound else None
        if not self.has_lips:
            return ClipPiece(first / self.fps, audio, None, None, None, None)
        mouths, found, cuts, absent, lips = (rows.take(frame, completed) for rows in self._lips)
        late = len(mouths) if self._late is None else min(max(self._late - first, 0), len(mouths))
        return ClipPiece(first / self.fps, audio, mouths, found, cuts, absent, late, lips)

    def _bounds(self, count: int) -> tuple[int, int]:
        """Returns `(samples, frames)` in `count` pieces."""
        frames = count * self._frames
        return round(frames / self.fps * self.rate), frames


# ------------------------------------------------------------------------------------------------- a clip as a whole


def read_clip(source: Any, modality: str, sampling_rate: int, image_processor: Any) -> Clip:
    """
    Reads an input as far as `modality` needs it.

    Args:
        source: path, URL, bytes, binary file object, or `{"audio", "sampling_rate", "video", "fps"}` of arrays; or a
            [`ClipStream`] of one of them, not read yet.
        modality: `"auto"` (what there is), `"audio"`, `"visual"` or `"audiovisual"`.
        sampling_rate: samples per second wanted.
        image_processor: [`MouthRoiImageProcessor`].

    Raises:
        ValueError: names the input and the fault: it cannot be read, or lacks what `modality` needs.
    """
    if not isinstance(source, ClipStream):
        source = ClipStream(source, modality, sampling_rate, image_processor, max_lead=math.inf)
    with source as stream:
        pieces = list(stream)
        trouble = stream.trouble
    clip = Clip(stream.name, report=stream.report)
    clip.pieces = pieces if any(piece.late for piece in pieces) else []
    clip.audio = _joined([piece.audio for piece in pieces])
    clip.mouths = _joined([piece.mouths for piece in pieces])
    clip.absent = _joined([piece.absent for piece in pieces])
    clip.found = _joined([piece.found for piece in pieces])
    share = clip.report.frames_with_face
    if clip.absent is not None and clip.absent.any():
        share = share / max(1.0 - clip.absent.mean(), 1e-9)
        clip.audio = without_others(clip.audio, clip.absent, sampling_rate, image_processor.fps)
    if trouble is None and share < MIN_FACE_SHARE and modality != "audio":
        trouble = f"a face was found in {share:.0%} of the frames only"
    if trouble is not None:
        clip.mouths = None
    _settle_duration(clip, sampling_rate, image_processor.fps)
    clip.still = clip.mouths is not None and not stream.chosen and stands_still(clip.mouths, clip.found)
    _settle_modality(clip, modality, trouble)
    return clip


def without_others(audio: np.ndarray | None, absent: np.ndarray, sampling_rate: int, fps: float) -> np.ndarray | None:
    """
    Silences the sound where a chosen speaker is out of view for long.

    Args:
        audio: `(samples,)` float32, or `None`.
        absent: `(frames,)` bool, where the speaker is not in view.
        sampling_rate: of the sound.
        fps: of the frames.

    Returns:
        The same array, or a copy that fades out and in within a frame.
    """
    borders = np.flatnonzero(np.diff(absent, prepend=False, append=False)).reshape(-1, 2)  # [first, after the last)
    borders = borders[borders[:, 1] - borders[:, 0] >= LONG_ABSENCE * fps]
    if audio is None or not len(borders):
        return audio
    loudness = np.ones(len(absent), np.float32)
    for first, end in borders:
        loudness[first:end] = 0.0
    middles = (np.arange(len(absent)) + 0.5) / fps * sampling_rate
    return (audio * np.interp(np.arange(len(audio)), middles, loudness)).astype(np.float32)


def _joined(parts: list[np.ndarray | None]) -> np.ndarray | None:
    """Concatenates the arrays that are there; returns `None` if there are none."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


def _settle_modality(clip: Clip, modality: str, trouble: str | None) -> None:
    """Chooses the modality, warns if one is missing, and raises a ValueError if it cannot be read."""
    refuse_unreadable(clip.name, modality, clip.audio is not None, trouble)
    silent = clip.audio is not None and is_silent(clip.audio)
    clip.audio = None if silent else clip.audio
    clip.mouths = None if clip.still else clip.mouths
    sound, lips = clip.audio is not None, clip.mouths is not None
    clip.modality = KINDS[sound, lips]
    if not clip.modality:
        clip.report.warn([nothing_read(silent, STANDS_STILL if clip.still else trouble)])
    elif clip.still or (modality == "auto" and not lips):
        clip.report.warn([sound_only(STANDS_STILL if clip.still else trouble)])
    elif modality == "auto" and not sound:
        clip.report.warn([lips_only(silent)])


def nothing_read(silent: bool, trouble: str | None) -> str:
    """Returns a sentence on a clip in which there is nothing to read."""
    reasons = [reason for reason in ("the sound is silent" if silent else "", trouble or "") if reason]
    return f"nothing was read: {' and '.join(reasons)}"


def sound_only(trouble: str | None) -> str:
    return f"read from sound only: {trouble}"


def lips_only(silent: bool) -> str:
    return f"read from lips only: {'the sound is silent' if silent else 'there is no sound'}"


def _settle_duration(clip: Clip, sampling_rate: int, fps: float) -> None:
    """Notes the length in seconds; pads sound shorter than a frame to one."""
    sound = 0.0 if clip.audio is None else len(clip.audio) / sampling_rate
    picture = 0.0 if clip.mouths is None else len(clip.mouths) / fps
    if clip.audio is not None:
        clip.audio = np.pad(clip.audio, (0, max(0, round(sampling_rate / fps) - len(clip.audio))))
    clip.duration = max(sound, picture)

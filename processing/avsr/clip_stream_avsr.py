"""A clip of any length as a stream of short pieces: sound and mouth crops on one clock, read in one pass.

`ClipStream` reads a media file or arrays (`ArraySource`), finds the mouths, and cuts both into pieces (`PieceCutter`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .clip_report_avsr import ClipReport, ReportBuilder, SoundLevel
from .landmarks_avsr import DlibLandmarkDetector, require_dlib
from .media_avsr import MAX_PADDING, PICTURE, SOUND, MediaStream, trimmed_length
from .media_source_avsr import MediaSource, WarningSink
from .mouth_cropping_avsr import MouthBlock, MouthBuilder, landmark_source
from .read_ahead_avsr import ReadAhead, read_ahead
from .speaker_locator_avsr import speaker_name
from .speaker_tracking_avsr import ChosenSpeaker, SpeakerSearch

MAX_LEAD = 60.0  # seconds by which the sound may come before its pictures in a file, or the other way round

DECODED = 32 << 20  # bytes of pictures and sound that may wait for the search for faces
WARNINGS = 100  # sentences about one file at most
PIECES = 4  # pieces that may wait for the reader

ARRAY_KEYS = ("audio", "sampling_rate", "video", "fps", "mouths")


@dataclass(frozen=True)
class ClipPiece:
    """About one second of a clip. The pieces follow each other without a break.

    Arrays are shorter than the piece, or empty, where sound or pictures have come to their end.

    Attributes:
        start: seconds after the first picture (after the first sound where there is no picture).
        audio: `(samples,)` float32 at the stream's sampling rate, or None where there is no sound or it is not wanted.
        mouths: `(frames, roi, roi)` uint8 at the image processor's rate, or None.
        found: `(frames,)` bool, whether a face was seen.
        cuts: `(frames,)` bool, the first frame after a change of scene or of another face.
        absent: `(frames,)` bool, whether a speaker who was chosen is not in view; False where none was.
    """

    start: float
    audio: np.ndarray | None
    mouths: np.ndarray | None
    found: np.ndarray | None
    cuts: np.ndarray | None
    absent: np.ndarray | None


def refuse_unreadable(name: str, modality: str, sound: bool, trouble: str | None) -> None:
    """Raises ValueError where `modality` needs what a clip does not have.

    Args:
        name: name used in error messages.
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
        landmarks: where faces come from; see `MouthRoiImageProcessor.extract`.
        max_lead: seconds by which sound or pictures may lag behind the other in a file and are still waited for;
            those of arrays always are.
        speaker: whose face and mouth they are, and what finds them; None takes the most prominent face. `landmarks` can
            only be a detector then.
        on_piece: called with each piece as the reader takes it, in the reader's thread; what it raises, the reader gets.

    Attributes:
        name: name used in error messages.
        duration: seconds that the source announces, None where it does not.

    Raises:
        ValueError: names the source and the fault: it cannot be read, or is without what `modality` needs, or
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
        self.name, self.duration = self._media.name, self._media.selection.announced
        self.has_sound, self.has_pictures = self._media.sound is not None, self._media.pictures is not None
        self._rate = sampling_rate

    @property
    def fps_in(self) -> float | None:
        return self._media.selection.fps or None

    @property
    def warnings(self) -> list[str]:
        return [*self._media.selection.warnings, *self._said]

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        return iter(self._media)

    def kept(self, samples: int) -> int:
        """Returns the number of samples without the encoder's padding."""
        selection = self._media.selection
        if selection.video is None or self._rate is None:
            return samples
        return trimmed_length(samples, self._rate, 0.0, selection.video_end)

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


class ArraySource:
    """The arrays of a clip as a stream, second by second.

    Args:
        arrays: `{"audio", "sampling_rate", "video", "fps"}`, either half of which may be missing; instead of `"video"`
            there may be `"mouths"`, crops at `fps`.
        sampling_rate: samples a second to give, or None where the sound is not wanted.
        fps: pictures a second to give, or None where they are not wanted.
        roi_size: side of the mouth crops.

    Attributes:
        name: name used in error messages.
        has_sound, has_pictures: whether there is something to give.
        mouths: `(frames, roi_size, roi_size)` uint8 crops, or None.
        duration: in seconds.
        fps_in: stored frame rate, None without pictures.
        warnings: sentences for the user; there are none.

    Raises:
        ValueError: says what is wrong with the arrays.
    """

    def __init__(self, arrays: dict[str, Any], sampling_rate: int | None, fps: float | None, roi_size: int):
        unknown = [key for key in arrays if key not in ARRAY_KEYS]
        arrays = {key: value for key, value in arrays.items() if value is not None}
        if unknown or not {"audio", "video", "mouths"} & set(arrays):
            raise ValueError(
                f"The input is a dictionary with {sorted(map(str, arrays)) or 'nothing'}: it must hold "
                '{"audio", "sampling_rate"}, {"video", "fps"} or both'
                + (f", and {unknown[0]!r} is none of these." if unknown else ".")
            )
        self.name, self.warnings, self._rate, self._fps = "the input dictionary", [], sampling_rate, fps
        self._audio = self.mouths = self._video = self.fps_in = None
        if "audio" in arrays and sampling_rate is not None:
            self._audio = _checked_audio(arrays, sampling_rate)
        if "mouths" in arrays and fps is not None:
            self.mouths = _checked_mouths(arrays["mouths"], roi_size)
        elif "video" in arrays and fps is not None:
            self._video, self.fps_in = _checked_video(arrays)
        self.has_sound, self.has_pictures = self._audio is not None, self._video is not None
        sound = len(self._audio) / sampling_rate if self.has_sound else 0.0
        lips = len(self.mouths) / fps if self.mouths is not None else 0.0
        self.duration = max(sound, lips, len(self._video) / self.fps_in if self.has_pictures else 0.0)

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields sound and pictures in turn; see `MediaStream`."""
        pictures = on_clock(self._video, self.fps_in, self._fps) if self.has_pictures else iter(())
        for second in range(math.ceil(self.duration)):
            if self.has_sound and len(part := self._audio[second * self._rate : (second + 1) * self._rate]):
                yield SOUND, part
            for _, picture in zip(range(round(self._fps or 0)), pictures):
                yield PICTURE, picture
        yield from ((PICTURE, picture) for picture in pictures)

    def kept(self, samples: int) -> int:
        """Returns the number of samples: arrays have no padding, so all of them."""
        return samples

    def close(self) -> None:
        """There is nothing to close."""


def _checked_audio(source: dict, sampling_rate: int) -> np.ndarray:
    """`source["audio"]` as float32 `(samples,)` at `sampling_rate`; integers become -1 to 1."""
    rate = source.get("sampling_rate")
    if not isinstance(rate, (int, np.integer)) or isinstance(rate, bool) or rate <= 0:
        raise ValueError(f'`"sampling_rate"` of the input dictionary must be a positive integer (Hz), not {rate!r}.')
    wave = np.asarray(source["audio"])
    if wave.dtype.kind not in "fiu":
        raise ValueError(f'`"audio"` of the input dictionary must be numbers, not {wave.dtype}.')
    if wave.ndim != 1:
        raise ValueError(
            f'`"audio"` of the input dictionary must be one channel of shape (samples,), not {wave.shape}: '
            "average the channels."
        )
    if wave.size == 0:
        raise ValueError('`"audio"` of the input dictionary is empty: leave the key out when there is no sound.')
    if not np.isfinite(wave).all():
        count = int((~np.isfinite(wave)).sum())
        raise ValueError(f'`"audio"` of the input dictionary has {count} NaN or infinite samples: repair them first.')
    if wave.dtype.kind in "iu":
        limits = np.iinfo(wave.dtype)
        wave = (wave.astype(np.float64) - (limits.max + limits.min + 1) / 2) / ((limits.max - limits.min + 1) / 2)
    return resample(wave.astype(np.float32), int(rate), sampling_rate)


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """`(samples,)` at `rate` Hz to float32 at `new_rate` Hz (polyphase filter)."""
    if rate == new_rate:
        return wave
    from scipy.signal import resample_poly  # half a second to import

    divisor = math.gcd(rate, new_rate)
    return resample_poly(wave, new_rate // divisor, rate // divisor).astype(np.float32)


def _checked_video(source: dict) -> tuple[np.ndarray, float]:
    """`source["video"]` as uint8 `(frames, height, width, 3)`, and its frames a second."""
    fps = source.get("fps")
    if not isinstance(fps, (int, float, np.number)) or isinstance(fps, bool) or not 0 < fps < math.inf:
        raise ValueError(f'`"fps"` of the input dictionary must be a positive number, not {fps!r}.')
    try:
        video = np.asarray(source["video"])
    except ValueError:
        raise ValueError('`"video"` of the input dictionary has frames of different shapes.') from None
    if video.ndim == 3 and video.dtype == np.uint8:
        video = np.repeat(video[..., None], 3, axis=3)  # grey
    if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or not video.size:
        raise ValueError(
            '`"video"` of the input dictionary must be uint8 of shape (frames, height, width, 3), not '
            f"{video.dtype} of shape {video.shape}."
        )
    return video, float(fps)


def _checked_mouths(mouths: Any, roi_size: int) -> np.ndarray:
    """Mouth crops that were made before: uint8 `(frames, roi, roi)` at the image processor's rate."""
    mouths = np.asarray(mouths)
    if mouths.ndim != 3 or mouths.shape[1:] != (roi_size, roi_size) or mouths.dtype != np.uint8 or not mouths.size:
        raise ValueError(
            f'`"mouths"` of the input dictionary must be uint8 of shape (frames, {roi_size}, {roi_size}), not '
            f"{mouths.dtype} of shape {mouths.shape}."
        )
    return mouths


def on_clock(video: np.ndarray, fps: float, new_fps: float) -> Iterator[np.ndarray]:
    """The frame nearest in time to each tick of a clock of `new_fps`."""
    for tick in range(max(1, round(len(video) / fps * new_fps))):
        yield video[min(len(video) - 1, round(tick / new_fps * fps))]


class _Line:
    """FIFO buffer of array rows."""

    def __init__(self, nothing: np.ndarray):
        self._parts = [nothing]
        self.taken = self.end = 0  # rows given so far, and rows received
        self.lost = False  # whether rows came after their place was given away

    def add(self, rows: np.ndarray) -> None:
        late, self.end = self.taken - self.end, self.end + len(rows)
        if late > 0:
            self.lost |= bool(rows[:late].any())
            rows = rows[late:]
        self._parts.append(rows)

    def take(self, until: int, completed: bool) -> np.ndarray:
        """Returns the rows from `taken` to `until`; `completed` with zeros where they are not there."""
        rows = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        count = until - self.taken
        part, self._parts, self.taken = rows[:count].copy(), [rows[count:]], until
        if completed and len(part) < count:
            part = np.concatenate([part, np.zeros((count - len(part), *part.shape[1:]), part.dtype)])
        return part

    def end_at(self, end: int) -> None:
        """Drops all rows from `end` on."""
        rows = np.concatenate(self._parts)
        self._parts, self.end = [rows[: max(0, end - self.taken)]], min(self.end, end)


class PieceCutter:
    """Cuts sound and mouth crops into pieces of one second, as soon as both are there.

    What is still missing when the other is `max_lead` seconds further on is not waited for: silence, or black crops
    without a face, take its place.

    Args:
        rate: samples per second.
        fps: crops per second.
        roi_size: side of the crops.
        has_sound, has_lips: whether they are to be waited for.
        max_lead: in seconds.
    """

    def __init__(
        self, rate: int, fps: float, roi_size: int, has_sound: bool, has_lips: bool, max_lead: float = MAX_LEAD
    ):
        self._rate, self._fps, self._max_lead = rate, fps, max_lead
        self.has_sound, self.has_lips = has_sound, has_lips
        empty = MouthBlock.empty(roi_size)
        self._sound = _Line(np.zeros(0, np.float32))
        self._lips = [_Line(rows) for rows in (empty.mouths, empty.found, empty.cuts, empty.found)]
        self._frames = max(1, round(fps))  # of a piece
        self._count = 0  # pieces so far

    @property
    def sound_end(self) -> int:
        """Samples received."""
        return self._sound.end

    @property
    def lips_end(self) -> int:
        """Crops received."""
        return self._lips[0].end

    def add_sound(self, samples: np.ndarray) -> None:
        """`(samples,)` float32 that follow what was added before."""
        self._sound.add(samples)

    def add_lips(self, mouths: np.ndarray, found: np.ndarray, cuts: np.ndarray, absent: np.ndarray) -> None:
        """Crops that follow what was added before; see `ClipPiece`."""
        for line, rows in zip(self._lips, (mouths, found, cuts, absent), strict=True):
            line.add(rows)

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
        """All pieces that are complete."""
        hold = round(MAX_PADDING * self._rate)  # what may have to be cut off at the end
        while True:
            sample, frame = self._bounds(self._count + 1)
            leads = []  # seconds of sound and of crops after the end of the next piece
            if self.has_sound:
                leads.append((self._sound.end - hold - sample) / self._rate)
            if self.has_lips:
                leads.append((self.lips_end - frame) / self._fps)
            if max(leads) < 0 or (min(leads) < 0 and max(leads) < self._max_lead):
                return
            yield self._piece(completed=True)

    def finish(self, samples: int) -> Iterator[ClipPiece]:
        """Yields the rest, once everything was added; sound counts up to this total of samples."""
        if self._count == 0:
            self.has_sound, self.has_lips = self.has_sound and samples > 0, self.has_lips and self.lips_end > 0
        self._sound.end_at(samples)
        while any(line.taken < line.end for line in (self._sound, self._lips[0])):
            yield self._piece(completed=False)

    def _piece(self, completed: bool) -> ClipPiece:
        (_, first), (sample, frame) = self._bounds(self._count), self._bounds(self._count + 1)
        self._count += 1
        audio = self._sound.take(sample, completed) if self.has_sound else None
        lips = [line.take(frame, completed) for line in self._lips] if self.has_lips else [None] * 4
        return ClipPiece(first / self._fps, audio, *lips)

    def _bounds(self, count: int) -> tuple[int, int]:
        """(samples, frames) in that many pieces."""
        frames = count * self._frames
        return round(frames / self._fps * self._rate), frames

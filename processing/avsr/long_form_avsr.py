"""Reading a clip of any length, word by word while it is read: window by window, in bounded memory.

`ClipWindow` slides over the clip's pieces, `LongFormDecoder` finds the words, with what `PieceReader` reads, and
`SpeechStream` gives them in the form of the pipeline's results, with a report on the whole clip.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .alignment_avsr import (
    STRETCH,
    WIDEST,
    Piece,
    SpokenWord,
    TimedText,
    WindowPlan,
    choose_seam,
    first_pause,
    join_encoded,
    not_before,
    overlap_of,
    plan_utterance,
    plan_window,
    run_in_parts,
    spell_words,
    split_at,
    within_scene,
    words_after,
    words_before,
)
from .clip_report_avsr import SILENT_DBFS, RunningStatistics, is_silent, stands_still
from .clip_stream_avsr import (
    KINDS,
    MIN_FACE_SHARE,
    STANDS_STILL,
    Clip,
    ClipPiece,
    ClipStream,
    lips_only,
    nothing_read,
    sound_only,
    without_others,
)
from .recognition_avsr import LeftOut, LipMemory, Recogniser, note_doubt, note_others

logger = logging.getLogger(__name__)

Part = tuple[int, float, str]

MISTAKES = 3  # pauses of the sound in a row that CTC denies, after which sound is not trusted
LETTER = 0.5  # probability above which a CTC step counts as a letter
SEAM_CONTEXT_WORDS = 8  # number of words compared across a chunk boundary
MIN_IN_VIEW = 0.1  # with the chosen speaker in view in fewer frames than this, nothing is read
RUNS_NAMED = 5  # stretches that a warning names


class ClipWindow:
    """
    Buffers the part of a stream that is still needed.

    All places are counted in frames since the beginning of the clip.

    Args:
        pieces: of a [`ClipStream`].
        sampling_rate: of their sound, samples per second.
        fps: of their pictures, frames per second.
        chosen: whether a speaker was chosen, whose lips are then read even where they stand still.

    Attributes:
        chosen: as given.
        first: the first frame in memory.
        last: the frame after the last one in memory.
        ended: whether the stream is over.
        pictures_from: the first frame with a picture; 0 unless the sound begins earlier.
    """

    def __init__(self, pieces: Iterator[ClipPiece], sampling_rate: int, fps: float, chosen: bool = False):
        self._pieces, self.sampling_rate, self.fps, self.chosen = pieces, sampling_rate, fps, chosen
        self.first = self.last = self.pictures_from = 0
        self.ended = False
        self._audio: list[np.ndarray] = []  # from `first` on
        self._mouths: list[np.ndarray] = []
        self._found: list[np.ndarray] = []
        self._cuts: list[np.ndarray] = []
        self._absent: list[np.ndarray] = []

    def fill(self, last: int) -> None:
        """Reads on until frame `last` is in memory or the stream ends."""
        while not self.ended and self.last < last:
            piece = next(self._pieces, None)
            if piece is None:
                self.ended = True
            else:
                self.append(piece)

    def append(self, piece: ClipPiece) -> None:
        """Adds the stream's next piece."""
        start = round(piece.start * self.fps)
        if piece.audio is not None:
            self._pad_to(self._audio, self._sample(start) - self._sample(self.first), np.zeros(0, np.float32))
            self._audio.append(piece.audio)
            self.last = max(self.last, start + round(len(piece.audio) / self.sampling_rate * self.fps))
        if piece.mouths is not None and len(piece.mouths):
            values = (piece.mouths, piece.found, piece.cuts, piece.absent)
            for held, value in zip((self._mouths, self._found, self._cuts, self._absent), values, strict=True):
                assert value is not None  # with the mouths
                self._pad_to(held, start - self.first, value[:0])
                held.append(value)
            self.last = max(self.last, start + len(piece.mouths))
            self.pictures_from = start + piece.late if piece.late else self.pictures_from

    @staticmethod
    def _pad_to(held: list[np.ndarray], length: int, like: np.ndarray) -> None:
        """Fills the gaps of the stream with zeros."""
        missing = length - sum(map(len, held))
        if missing > 0:
            held.append(np.zeros((missing, *like.shape[1:]), like.dtype))

    def _sample(self, frame: int) -> int:
        return round(frame / self.fps * self.sampling_rate)

    def drop(self, first: int) -> None:
        """Drops the frames before `first`."""
        frames, samples = first - self.first, self._sample(first) - self._sample(self.first)
        for held, count in (
            (self._audio, samples),
            (self._mouths, frames),
            (self._found, frames),
            (self._cuts, frames),
            (self._absent, frames),
        ):
            if held:
                held[:] = [np.concatenate(held)[count:].copy()]
        self.first, self.last = first, max(first, self.last)

    def take(self, start: int, end: int) -> Clip:
        """
        Returns sound and mouths of `start <= frame < end` as a clip; silent sound, and mouths that are hardly seen or
        stand still, are `None`.

        Its modality is empty if there is nothing to read, or a chosen speaker is not in view. Its sound is silent
        while they are out of view for long. A clip that begins before the first picture has sound only.
        """
        audio = self._slice(self._audio, self._sample(start), self._sample(end), self._sample(self.first))
        mouths = self._slice(self._mouths, start, end, self.first)
        absent = self._slice(self._absent, start, end, self.first)
        there = 1.0 if absent is None else 1.0 - float(absent.mean())
        if absent is not None and there < 1.0:
            audio = without_others(audio, absent, self.sampling_rate, self.fps)
        if audio is not None and is_silent(audio):
            audio = None
        found = self._slice(self._found, start, end, self.first)
        if mouths is not None and found is not None and found.mean() < MIN_FACE_SHARE * max(there, 1e-9):
            mouths = None
        if start < self.pictures_from:
            mouths = None
        if there < MIN_IN_VIEW:
            audio = mouths = None
        still = mouths is not None and not self.chosen and stands_still(mouths, found)
        mouths = None if still else mouths
        modality = KINDS[audio is not None, mouths is not None]
        length = (end - start) / self.fps
        return Clip("", audio, mouths, modality, length, absent=absent, found=found, still=still, first=start)

    @staticmethod
    def _slice(held: list[np.ndarray], start: int, end: int, offset: int) -> np.ndarray | None:
        if not held:
            return None
        if len(held) > 1:
            held[:] = [np.concatenate(held)]
        part = held[0][max(0, start - offset) : max(0, end - offset)]
        return part if len(part) else None

    def levels(self, start: int, end: int) -> np.ndarray | None:
        """Returns the level of the sound in each of the frames, `(frames,)` in decibels; None without sound."""
        first = self._sample(start)
        audio = self._slice(self._audio, first, self._sample(end), self._sample(self.first))
        if audio is None or end <= start:
            return None
        borders = np.array([self._sample(frame) - first for frame in range(start, end + 1)])
        power = np.concatenate(([0.0], np.cumsum(np.square(audio, dtype=np.float64))))
        mean = np.diff(power[np.minimum(borders, len(audio))]) / np.maximum(np.diff(borders), 1)
        return 10 * np.log10(np.maximum(mean, 1e-12))

    def changes(self, start: int, end: int) -> list[int]:
        """Returns the frames of `start < frame < end` with which another scene or face, or the pictures, begin."""
        cuts = self._slice(self._cuts, start + 1, end, self.first)
        frames: list[int] = [] if cuts is None else (np.flatnonzero(cuts) + start + 1).tolist()
        return sorted({*frames, self.pictures_from}) if start < self.pictures_from < end else frames


@dataclass
class ChunkResult:
    """
    The text of a piece.

    Attributes:
        characters: with their times in the piece.
        fits: whether it has time for them all.
        silence: mean log-probability of no letter.
        others: further words that were read, but are not the chosen speaker's.
        left_out: what was read, and is too unsure to be speech; None where nothing was.
    """

    characters: list[TimedText]
    fits: bool = True
    silence: float = 0.0
    others: list[TimedText] = field(default_factory=list)
    left_out: LeftOut | None = None


class LongFormDecoder:
    """
    Reads a clip window by window: an iterator of its words.

    Args:
        window: of the clip's stream.
        nonblank_probability: takes a clip, returns `(steps,)`, CTC's probability of any letter.
        read: takes clips, returns the text of each.
        chunk_length: seconds that the model reads at once; up to `STRETCH` times as many where the clip or an
            utterance ends there.
        seconds_per_step: of `nonblank_probability`.
        batch_size: pieces that are read together where pauses divide them; their words come that much later.

    Attributes:
        position: seconds that were read.
        statistics: of these seconds.
    """

    def __init__(
        self,
        window: ClipWindow,
        nonblank_probability: Callable[[Clip], np.ndarray],
        read: Callable[[list[Clip]], list[ChunkResult]],
        chunk_length: float,
        seconds_per_step: float,
        batch_size: int = 1,
    ):
        self._window, self._nonblank_probability, self._read = window, nonblank_probability, read
        self._chunk_length, self._seconds_per_step = chunk_length, seconds_per_step
        self._batch_size = batch_size
        self._waiting: list[tuple[float, Clip]] = []  # pieces to be read with the ones that follow
        self._mistakes = 0  # pauses of the sound that CTC has denied since the latest one that it agreed with
        self._in_utterance = False  # whether the latest window held no pause: the next one is as long then
        self._emitted: list[TimedText] = []
        self._seam: float | None = None
        self.position = 0.0
        self.statistics = RunningStatistics()

    def __iter__(self) -> Iterator[SpokenWord]:
        window, fps = self._window, self._window.fps
        chunk, longest = (round(self._chunk_length * share * fps) for share in (1, STRETCH))
        while True:
            try:
                window.fill(window.first + longest + 1)  # one frame more shows whether the clip continues
            except (Exception, KeyboardInterrupt):  # it comes after the words of what could be read
                yield from self._read_waiting()
                raise
            last = window.ended and window.last - window.first <= longest
            if (plan := None if last and window.first == 0 else self._utterance(chunk)) is not None:
                words, next_start = self._words(plan, 0.0)
                yield from words
                self._move(next_start)
                continue
            end = window.last if last else window.first + (longest if self._in_utterance else chunk)
            clip = window.take(window.first, end)
            self.statistics.stood_still |= clip.still
            next_start = clip.duration
            if not clip.modality and window.first < window.pictures_from < window.last:
                window.drop(window.pictures_from)  # neither sound nor pictures
                continue
            if last and window.first == 0 and window.last <= chunk and not window.pictures_from:
                self._waiting = [(0.0, clip)] if clip.modality else []
            elif clip.modality:
                plan = self._plan(clip, last)
                if plan.in_utterance and not self._in_utterance:
                    clip = window.take(window.first, window.first + longest)
                    plan = self._plan(clip, last)
                self._in_utterance = plan.in_utterance
                words, next_start = self._words(plan, clip.duration)
                yield from words
            if last:
                yield from self._read_waiting()
                self.position = window.last / fps
                return
            self._move(next_start)

    def _move(self, seconds: float) -> None:
        """Drops the beginning of the window, which is done with."""
        window = self._window
        window.drop(window.first + max(1, round(seconds * window.fps)))
        self.position = self._waiting[0][0] if self._waiting else window.first / window.fps

    def _utterance(self, frames: int) -> WindowPlan | None:
        """
        Returns the plan of a window that ends in the first pause of the sound: one piece, which is then encoded once,
        or none. None where there is no such pause within so many frames, the scene changes, or CTC hears something
        else.
        """
        window = self._window
        if self._in_utterance or self._seam is not None or self._mistakes >= MISTAKES:
            return None
        levels = window.levels(window.first, min(window.first + frames, window.last))
        pause = None if levels is None else first_pause(levels, window.fps)
        if pause is None or window.changes(window.first, window.first + pause[0]):
            return None
        clip = window.take(window.first, window.first + pause[0])
        if not clip.modality and not pause[1]:
            return WindowPlan((), clip.duration)
        if not clip.modality or (pause[1] and clip.audio is None):
            return None
        probabilities = self._nonblank_probability(clip)  # (steps,)
        plan = plan_utterance(probabilities > LETTER, self._seconds_per_step, clip.duration, pause[1])
        self._mistakes = self._mistakes + 1 if plan is None else 0
        if plan is not None:
            self.statistics.add_window(probabilities)
            self.statistics.stood_still |= clip.still
        return plan

    def _plan(self, clip: Clip, last: bool) -> WindowPlan:
        probabilities = self._nonblank_probability(clip)  # (steps,)
        self.statistics.add_window(probabilities)
        plan = plan_window(probabilities > LETTER, self._seconds_per_step, clip.duration, last)
        piece = plan.pieces[0] if len(plan.pieces) == 1 else None
        near = piece and piece.speech_start <= WIDEST and clip.duration - piece.speech_end <= WIDEST
        if last and piece and (self._window.first == 0 or near):  # all that is left is one utterance
            return WindowPlan((Piece(0.0, clip.duration, piece.speech_start, piece.speech_end),), clip.duration)
        return plan

    def _words(self, plan: WindowPlan, length: float) -> tuple[list[SpokenWord], float]:
        """Returns the words that are finished with a window, and its second at which the next one starts."""
        parts = [part for piece in plan.pieces for part in self._parts(piece)]
        if plan.next_start is not None:
            self._waiting += parts
            if len(self._waiting) < self._batch_size and self._seam is None:
                return [], plan.next_start
            words = self._read_waiting()
            self._seam = None if parts else self._seam
            return words, plan.next_start
        earlier, words = self._read_waiting(), self._read_parts(parts)
        start = self._window.first / self._window.fps
        self._seam = choose_seam(words, start + length, length)
        words = [*earlier, *self._finish(words_before(words, self._seam))]
        return words, self._seam - start - overlap_of(length) / 2

    def _read_waiting(self) -> list[SpokenWord]:
        """Returns the words of the pieces that wait."""
        parts, self._waiting = self._waiting, []
        return self._finish(self._read_parts(parts))

    def _read_parts(self, parts: list[tuple[float, Clip]]) -> list[SpokenWord]:
        """Returns the words of the clips that start at these seconds, without those already emitted."""
        words: list[SpokenWord] = []
        readings = self._read([clip for _, clip in parts]) if parts else []
        for (start, clip), reading in zip(parts, readings):
            self.statistics.add_piece(clip.modality, start, start + clip.duration, reading)
            self.statistics.still += clip.duration if clip.still else 0.0
            words += spell_words(reading.characters, start)
        return words if self._seam is None else words_after(words, self._seam, self._emitted)

    def _finish(self, words: list[SpokenWord]) -> list[SpokenWord]:
        """Returns the words in order of time, moved so that none begins before the previous one ends; notes them."""
        until = self._emitted[-1].end if self._emitted else 0.0
        ordered = []
        for word in words:
            characters = tuple(not_before(character, until) for character in word.characters)
            start, end = max(word.start, until), max(word.end, until)
            ordered.append(SpokenWord(word.text, start, end, word.confidence, characters))
            self.statistics.add_word(ordered[-1])
            until = end
        self._emitted = [*self._emitted, *ordered][-SEAM_CONTEXT_WORDS:]
        return ordered

    def _parts(self, piece: Piece) -> list[tuple[float, Clip]]:
        """Returns the clips as which a piece is read, with their starts in seconds; lips only within one scene."""
        window = self._window
        changes = [(c - window.first) / window.fps for c in self._changes(piece)]
        piece = within_scene(piece, changes)
        parts = [self._take(piece)]
        inside = [c for c in changes if piece.start < c < piece.end]
        if inside and parts[0][1].modality == "visual":
            parts = [self._take(part) for part in split_at(piece, inside)]
        elif inside and parts[0][1].modality == "audiovisual":
            self.statistics.changes += 1
            parts[0][1].mouths, parts[0][1].modality = None, "audio"
        return [part for part in parts if part[1].modality]

    def _frames(self, piece: Piece) -> tuple[int, int]:
        first = self._window.first
        start, end = (first + round(time * self._window.fps) for time in (piece.start, piece.end))
        return start, max(start + 1, end)

    def _changes(self, piece: Piece) -> list[int]:
        return self._window.changes(*self._frames(piece))

    def _take(self, piece: Piece) -> tuple[float, Clip]:
        start, end = self._frames(piece)
        return start / self._window.fps, self._window.take(start, end)


class PieceReader:
    """
    Reads windows and pieces of one long clip with a model, and computes once what they share: the visual front-end's
    vectors of each frame, and all encodings of a piece that is a whole window.

    Args:
        recogniser: the model and its processor.
        search: takes the model's inputs, and their encodings where they are known, else None; returns what
            [`Recogniser.search`] finds.
        placed: a context in which tensors are made on `device`.
        device: of the model.
        lip_evidence: see [`Recogniser.spoken_words`].
        speech_confidence: see [`Recogniser.spoken_words`].
        batch_size: pieces that are read together; encodings of their windows, and of silence between, are stored.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        search: Callable[[dict[str, Any], Any], dict[str, Any]],
        placed: Callable[[], AbstractContextManager[Any]],
        device: torch.device,
        lip_evidence: float | None = None,
        speech_confidence: float | None = None,
        batch_size: int = 1,
    ):
        self._recogniser, self._search, self._placed, self._device = recogniser, search, placed, device
        self._least = lip_evidence, speech_confidence
        self._memory: LipMemory | None = None
        self._latest: tuple[Clip, dict[str, torch.Tensor]] | None = None  # window, with its inputs
        self._encoded: deque[tuple[Part, Any]] = deque(maxlen=4 * batch_size)  # of the latest windows

    def nonblank_probability(self, clip: Clip) -> np.ndarray:
        """Returns `(steps,)`: CTC's probability of any letter in a window."""
        with self._placed(), torch.inference_mode():
            inputs = self._inputs([clip])
            encoded = self._recogniser.encode(inputs)
            self._latest = clip, inputs
            self._encoded.append((_part(clip), encoded))
            return self._recogniser.nonblank_probability(encoded)[0].cpu().numpy()

    def read(self, clips: list[Clip]) -> list[ChunkResult]:
        """Returns the text of each piece; they are of the windows so far, in order."""
        windows = dict(self._encoded)
        known = [clip for clip in clips if _part(clip) in windows]
        others = [clip for clip in clips if _part(clip) not in windows]
        readings = iter(self._read_encoded(known, [windows[_part(clip)] for clip in known]) if known else [])
        more = iter(self._read(others) if others else [])
        found = [next(readings if _part(clip) in windows else more) for clip in clips]
        if self._latest is not None and self._memory is not None:
            with torch.inference_mode():
                self._memory.drop(self._latest[0].first)
        return found

    def _read_encoded(self, clips: list[Clip], encoded: list[Any]) -> list[ChunkResult]:
        """Returns the text of pieces that are whole windows."""
        with self._placed(), torch.inference_mode():
            if len(clips) == 1 and self._latest is not None and _part(clips[0]) == _part(self._latest[0]):
                inputs = self._latest[1]
            else:
                inputs = self._inputs(clips)
            together = join_encoded(encoded)
        return self._readings(clips, self._search(inputs, together))

    def _read(self, clips: list[Clip]) -> list[ChunkResult]:
        parts = run_in_parts(lambda part: self._read_some(clips[part]), len(clips), "clips", self._too_long)
        return [reading for readings in parts for reading in readings]

    @staticmethod
    def _too_long(_: int) -> ValueError:
        """Returns the error of a piece whose lips do not fit in memory."""
        return ValueError("`chunk_length_s`: a piece of the clip does not fit in memory: lower it.")

    def _read_some(self, clips: list[Clip]) -> list[ChunkResult]:
        """Reads pieces that fit in memory together."""
        with self._placed(), torch.inference_mode():
            inputs = self._inputs(clips)
        return self._readings(clips, self._search(inputs, None))

    def _readings(self, clips: list[Clip], outputs: dict[str, Any]) -> list[ChunkResult]:
        """Returns what the search found as texts with times."""
        readings = []
        for index, clip in enumerate(clips):
            place = outputs, index, 0, clip.duration, clip.modality
            own = self._recogniser.spoken_words(*place, *self._least)
            silence, fits = own.log_silence(float(outputs["silence"][index, 0])), bool(outputs["fits"][index, 0])
            readings.append(ChunkResult(own.characters, fits, silence, own.others, own.left_out))
        return readings

    def _inputs(self, clips: list[Clip]) -> dict[str, torch.Tensor]:
        """Returns the model's inputs, with the vectors of all lips; notes those that are new."""
        features = self._recogniser.features(clips)
        inputs = {name: values.to(self._device) for name, values in features.items()}
        lips = [(row, clip, len(clip.mouths)) for row, clip in enumerate(clips) if clip.mouths is not None]
        found = {row: self._memory.find(clip.first, count) for row, clip, count in lips} if self._memory else {}
        known = known_mask = None
        for row, there in found.items():
            if there is not None:
                mask = inputs["video_attention_mask"]
                known = there[0].new_zeros(*mask.shape, there[0].shape[1]) if known is None else known
                known_mask = torch.zeros_like(mask, dtype=torch.bool) if known_mask is None else known_mask
                known[row, : len(there[0])], known_mask[row, : len(there[1])] = there
        inputs = self._recogniser.with_lip_vectors(inputs, known, known_mask)
        if "lip_vectors" in inputs:
            self._memory = self._memory or LipMemory(self._recogniser.reach)
            for row, clip, count in lips:
                self._memory.store(clip.first, inputs["lip_vectors"][row, :count])
        return inputs


def _part(clip: Clip) -> Part:
    """Returns what tells the parts of one clip apart: those that are equal in it hold the same sound and lips."""
    return clip.first, clip.duration, clip.modality


class SpeechStream:
    """
    An iterator of finished words or characters, `{"text", "timestamp": (start, end) in seconds, "confidence"}`, in the
    order of their times. Also a context manager, which closes the source; so does the end of the iteration.

    Args:
        source: the clip that is read.
        reading: of it, word by word.
        timestamps: `"char"` gives characters instead of words; `False` leaves the chunks out of the result.
        chunked: whether the clip is longer than a chunk.
        doubt: confidence below which the report says that the words may be others; 0: it never does.

    Attributes:
        source: as given.
        chunked: as given.
        name: name used in error messages.
        duration: seconds that the source announces, None where it does not.
    """

    def __init__(
        self,
        source: ClipStream,
        reading: LongFormDecoder,
        timestamps: bool | str,
        chunked: bool,
        doubt: float = 0.0,
    ):
        self._doubt = doubt
        self.source, self.chunked, self.name, self.duration = source, chunked, source.name, source.duration
        self._reading, self._timestamps = reading, timestamps
        self._chunks = self._spell() if timestamps == "char" else (word.to_chunk() for word in reading)

    @property
    def position(self) -> float:
        """Seconds of the clip that were read."""
        return self._reading.position

    @property
    def confidence(self) -> float:
        """Geometric mean of the confidences (0 to 1) of all characters so far; without any, confidence of silence."""
        return round(self._reading.statistics.confidence, 4)

    def __iter__(self) -> SpeechStream:
        return self

    def __next__(self) -> dict[str, Any]:
        try:
            return next(self._chunks)
        except BaseException as end:
            self.close()
            if isinstance(end, StopIteration):
                for warning in self.to_report()["warnings"]:
                    logger.warning(f"{self.name}: {warning}")
            raise

    def __enter__(self) -> SpeechStream:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the source, after which no words follow."""
        self.source.close()

    def to_result(self, chunks: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the chunks that the iteration gave (all, or the first ones) as the result of a call."""
        between = "" if self._timestamps == "char" else " "
        return {
            "text": between.join(chunk["text"] for chunk in chunks),
            "confidence": self.confidence,
            "chunks": chunks if self._timestamps else [],
            "alternatives": [],
            "report": self.to_report(),
        }

    def _spell(self) -> Iterator[dict[str, Any]]:
        """Yields the characters, with a space between any two words."""
        before: SpokenWord | None = None
        for word in self._reading:
            first = word.characters[0]
            if before is not None and not first.text.isspace():
                yield TimedText(" ", before.end, first.start, 1.0).to_chunk()
            for character in word.characters[before is None and first.text.isspace() :]:
                yield character.to_chunk()
            before = word

    def to_report(self) -> dict[str, Any]:
        """
        Returns what was measured on the clip, complete at the end of the iteration: the same as for a short one, and
        `"sound_only"`, `[start, end]` in seconds of each stretch that was read without lips although lips were wanted.
        """
        statistics, report = self._reading.statistics, self.source.report
        read = {kind for kind, seconds in statistics.seconds.items() if seconds}
        modality = read.pop() if len(read) == 1 else "audiovisual" if read else ""
        without_lips = statistics.sound_only if report.frames else []
        runs = [[round(start, 3), round(end, 3)] for start, end in without_lips]
        about = {"source": self.name, "modality": modality, "duration": round(self.position, 3), "sound_only": runs}
        facts = report.to_dict()
        facts = {**about, **facts, "warnings": [*facts["warnings"], *self._warnings(runs)]}
        facts = note_others(facts, statistics.others, statistics.others_count)
        confidence = statistics.confidence if statistics.words else None
        return note_doubt(facts, statistics.left_out, confidence, self._doubt)

    def _warnings(self, runs: list[list[float]]) -> list[str]:
        """Returns what is known once all was read, in words; `runs` are those that were read without lips."""
        statistics = self._reading.statistics
        sentences: list[str] = []
        level = self.source.report.audio_level_dbfs
        silent = level is not None and level < SILENT_DBFS
        trouble = self.source.trouble or (STANDS_STILL if statistics.stood_still else None)
        no_lips = trouble is not None or not self.source.report.frames
        if not any(statistics.seconds.values()) and (silent or level is None) and no_lips:
            sentences.append(nothing_read(silent, trouble))
        elif self.source.modality == "auto" and self.source.trouble:
            sentences.append(sound_only(self.source.trouble))
        elif self.source.modality == "auto" and self.source.report.frames and (silent or level is None):
            sentences.append(lips_only(silent=level is not None))
        if runs and not self.source.trouble:
            share = sum(end - start for start, end in runs) / max(sum(statistics.seconds.values()), 1e-9)
            named = ", ".join(f"{start:.1f} to {end:.1f} s" for start, end in runs[:RUNS_NAMED])
            more = f" and {len(runs) - RUNS_NAMED} more" if len(runs) > RUNS_NAMED else ""
            sentences.append(f"{min(share, 1):.0%} of the speech was read from sound only: {named}{more}")
        if statistics.still:
            sentences.append(f"{STANDS_STILL} in {statistics.still:.1f} s that were read from sound only")
        if statistics.changes:
            sentences.append(
                f"the scene changes within {statistics.changes} utterances: they were read from sound only"
            )
        if statistics.seconds["visual"] and (statistics.seconds["audio"] or statistics.seconds["audiovisual"]):
            sentences.append(f"{statistics.seconds['visual']:.1f} s without sound were read from lips only")
        if not statistics.fits:
            sentences.append("the text has more letters than the clip has time for: some times are spread evenly")
        return sentences

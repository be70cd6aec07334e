"""Reading speech while it happens: words as soon as they are certain, from sound and pictures that are pushed.

`LiveDecoder` reads the latest utterance again and again while it grows, and takes the words on which two readings
agree; `LiveSpeech` runs it, and what finds the mouths, in threads of their own.
"""

from __future__ import annotations

import statistics
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import numpy as np

from .alignment_avsr import (
    MARGIN,
    STRETCH,
    UTTERANCE_PAUSE,
    SpokenWord,
    TimedText,
    find_speech,
    mean_confidence,
    not_before,
    spell_words,
    words_after,
)
from .clip_stream_avsr import Clip, ClipPiece, prepare_finder
from .live_source_avsr import LatestLocator, LiveSource, NewSpeaker, live_pieces
from .long_form_avsr import (
    LETTER,
    SEAM_CONTEXT_WORDS,
    ChunkResult,
    ClipWindow,
    PieceReader,
)
from .media_avsr import PICTURE, SOUND
from .recognition_avsr import Recogniser
from .speaker_locator_avsr import EVERYONE
from .speaker_tracking_avsr import ChosenSpeaker

SETTLED = 0.12  # seconds after a word's end that are read before it is certain
SAME_TIME = 0.2  # seconds by which two readings of one word may differ
KEPT = 1.0  # seconds that stay in memory while nobody speaks
OVERLAP = 0.5  # seconds before the last certain word's end that are read again, where an utterance is too long
TOGETHER = 10  # pieces that are read together, where more wait
DELAYS = 10_000  # words whose delays are stored


class ClipReader(Protocol):
    """What a [`LiveDecoder`] reads clips with; a [`PieceReader`]."""

    def nonblank_probability(self, clip: Clip) -> np.ndarray:
        """Returns `(steps,)`: CTC's probability of any letter in a clip."""
        ...

    def read(self, clips: list[Clip]) -> list[ChunkResult]:
        """Returns the text of each clip."""
        ...


class LiveDecoder:
    """
    Reads the latest utterance of a live source whenever there is more of it.

    A word is certain when two readings in turn have it at one place, and the later one has heard a little of what
    follows; at a pause, all are. An utterance that gets too long goes on after its last certain word.

    Args:
        window: of the source; its pieces are appended as they come.
        reader: finds letters in clips, and reads them.
        least: takes a modality, returns the confidence below which its words are no speech.
        longest: seconds of an utterance that are read together.
        seconds_per_step: of the reader's `nonblank_probability`.

    Attributes:
        partial: text that was read and isn't certain yet.
    """

    def __init__(
        self,
        window: ClipWindow,
        reader: ClipReader,
        least: Callable[[str], float],
        longest: float,
        seconds_per_step: float,
    ):
        self._window, self._reader, self._least = window, reader, least
        self._longest, self._seconds_per_step = longest, seconds_per_step
        self._before: list[SpokenWord] = []  # words of the reading before that were not certain
        self._own: list[SpokenWord] = []  # certain words of the utterance
        self._emitted: list[TimedText] = []  # the latest certain words
        self.partial = ""

    @property
    def position(self) -> float:
        """Seconds that were read."""
        return self._window.last / self._window.fps

    def step(self, ended: bool = False) -> list[SpokenWord]:
        """Reads what is in the window; returns the words that have become certain. `ended`: nothing follows."""
        words: list[SpokenWord] = []
        self.partial = ""
        while self._window.last > self._window.first:
            clip = self._clip()
            speech = self._speech(clip) if clip.modality else []
            if not speech:
                self._end_utterance(max(0.0, clip.duration - KEPT))
                break
            start, end = speech[0]
            if len(speech) > 1:
                middle = (end + speech[1][0]) / 2
                words += self._finish(clip, start, min(middle, end + MARGIN))
                self._end_utterance(middle)
            elif ended or clip.duration - end >= UTTERANCE_PAUSE:
                words += self._finish(clip, start, clip.duration)
                self._end_utterance(max(min(clip.duration, end + MARGIN / 2), clip.duration - KEPT))
                break
            else:
                words += self._go_on(clip, start)
                break
        return words

    def change(self, reader: ClipReader, least: Callable[[str], float], chosen: bool) -> list[SpokenWord]:
        """
        Reads somebody else from here on, of whom nothing was heard before.

        Args:
            reader: instead of the one before.
            least: likewise.
            chosen: whether they were chosen, see [`ClipWindow`].

        Returns:
            The words that had ended before; one that is cut off here is left out.
        """
        words, window = self.step(), self._window
        if window.last > window.first:
            clip = self._clip()
            if clip.modality and self._speech(clip):
                until = self.position - SETTLED
                ended = [word for word in self._words(clip, 0.0, clip.duration) if word.end <= until]
                words += self._certain(ended, clip.modality)
            self._end_utterance(clip.duration)
        self._reader, self._least, window.chosen, self.partial = reader, least, chosen, ""
        return words

    def _clip(self) -> Clip:
        """Returns what is in the window; without lips where the scene or the face changes in it."""
        window = self._window
        clip = window.take(window.first, window.last)
        if clip.modality == "audiovisual" and window.changes(window.first, window.last):
            clip.mouths, clip.modality = None, "audio"
        return clip

    def _speech(self, clip: Clip) -> list[tuple[float, float]]:
        letters = self._reader.nonblank_probability(clip) > LETTER
        return find_speech(letters, self._seconds_per_step, UTTERANCE_PAUSE)

    def _finish(self, clip: Clip, start: float, end: float) -> list[SpokenWord]:
        """Returns the rest of an utterance's words; none of them where they are too unsure to be speech."""
        words = self._words(clip, max(0.0, start - MARGIN), end)
        return self._certain(words, clip.modality)

    def _go_on(self, clip: Clip, start: float) -> list[SpokenWord]:
        """Returns the words of a growing utterance that have become certain."""
        words = self._words(clip, 0.0, clip.duration)
        until = self.position - SETTLED
        agreed: list[SpokenWord] = []
        for word, earlier in zip(words, self._before):
            if word.text != earlier.text or abs(word.start - earlier.start) > SAME_TIME or word.end > until:
                break
            agreed.append(word)
        if clip.duration > self._longest and not agreed:
            agreed = [word for word in words if word.end <= self.position - MARGIN]
        certain = self._certain(agreed, clip.modality)
        self._before = words[len(certain) :]
        self.partial = " ".join(word.text for word in self._before)
        window, first = self._window, start - MARGIN
        if clip.duration > self._longest:
            last = self._own[-1].end if self._own else self.position - self._longest / 2
            first = max(last - OVERLAP - window.first / window.fps, clip.duration - STRETCH * self._longest)
            self._own = self._own[-SEAM_CONTEXT_WORDS:]
        if (frames := round(first * window.fps)) > 0:
            window.drop(min(window.last - 1, window.first + frames))
        return certain

    def _words(self, clip: Clip, start: float, end: float) -> list[SpokenWord]:
        """Returns the words of a part of the window (seconds) that were not certain before."""
        window = self._window
        first, last = (window.first + round(second * window.fps) for second in (start, end))
        part = clip if (first, last) == (window.first, window.last) else window.take(first, max(first + 1, last))
        if part is not clip and part.modality == "audiovisual" and clip.mouths is None:
            part.mouths, part.modality = None, "audio"
        if not part.modality:
            return []
        words = spell_words(self._reader.read([part])[0].characters, first / window.fps)
        return words_after(words, self._emitted[-1].end, self._emitted) if self._emitted else words

    def _certain(self, words: Sequence[SpokenWord], modality: str) -> list[SpokenWord]:
        """Returns words in order of time, and notes them; none where the utterance is too unsure to be speech."""
        heard = [letter for word in (*self._own, *words) for letter in word.characters]
        if not words or mean_confidence(heard) < self._least(modality):
            return []
        until = self._emitted[-1].end if self._emitted else 0.0
        ordered = []
        for word in words:
            letters = tuple(not_before(letter, until) for letter in word.characters)
            start, end = max(word.start, until), max(word.end, until)
            ordered.append(SpokenWord(word.text, start, end, word.confidence, letters))
            until = end
        self._own += ordered
        self._emitted = [*self._emitted, *ordered][-SEAM_CONTEXT_WORDS:]
        return ordered

    def _end_utterance(self, seconds: float) -> None:
        """Forgets what lies before a second of the window."""
        self._before, self._own = [], []
        window = self._window
        if (frames := round(seconds * window.fps)) > 0:
            window.drop(min(window.last, window.first + frames))


class LiveSpeech:
    """
    Speech that is read while it happens. `push` sound and pictures; words come as soon as they are certain.

    ```python
    with asr.live(sampling_rate=16000, fps=25) as live:
        for samples, pictures in camera:
            for word in live.push(samples, pictures):
                print(word["text"], word["delay"])
        print(live.finish())
    ```

    Where pictures come faster than faces are found in them, some are left out and the one before is taken for them;
    sound never is. It takes as much memory after an hour as after a minute.

    Args:
        source: what is pushed.
        pieces: of it, each as soon as it is complete.
        decoder: reads them.
        window: of the decoder.
        choose: takes a speaker, returns what makes the finder of their mouth.
        change: takes a speaker, has the decoder read them, and returns the last words of the one before.

    Attributes:
        position: seconds that were read.
        partial: text that was read and isn't certain yet.
        hears: whether sound is read.
        sees: whether pictures are read.
    """

    def __init__(
        self,
        source: LiveSource,
        pieces: Iterator[ClipPiece | NewSpeaker],
        decoder: LiveDecoder,
        window: ClipWindow,
        choose: Callable[[Any], Callable[[], Any]],
        change: Callable[[Any], list[SpokenWord]],
    ):
        self._source, self._decoder, self._choose = source, decoder, choose
        self.hears, self.sees = SOUND in source.kinds, PICTURE in source.kinds
        self._words: SimpleQueue[dict[str, Any] | _End] = SimpleQueue()
        self._over = False
        self._count, self._delays = 0, deque[float](maxlen=DELAYS)
        queue: SimpleQueue[ClipPiece | NewSpeaker | _End] = SimpleQueue()
        finding = threading.Thread(target=_find, args=(pieces, queue), name="find mouths", daemon=True)
        reading = threading.Thread(
            target=_read, args=(source, queue, decoder, window, change, self._words), name="read speech", daemon=True
        )
        self._threads = finding, reading
        self._dropped = weakref.finalize(self, source.stop)
        for thread in self._threads:
            thread.start()

    @property
    def position(self) -> float:
        """Seconds that were read."""
        return self._decoder.position

    @property
    def partial(self) -> str:
        """Text that was read and isn't certain yet."""
        return self._decoder.partial

    @property
    def dropped(self) -> int:
        """Pictures that were left out, as they came faster than faces are found in them."""
        return self._source.dropped

    @property
    def behind(self) -> float:
        """Seconds that were pushed and not read yet."""
        return max(0.0, self._source.end - self.position)

    def push(
        self, sound: Any = None, pictures: Any = None, times: Iterable[float] | None = None
    ) -> list[dict[str, Any]]:
        """
        Adds what has just been heard and seen.

        Args:
            sound: `(samples,)` or `(channels, samples)` that follow on those before; float with full scale 1.0, or
                integers of their type's full scale. None if there is none.
            pictures: `(frames, height, width, 3)` uint8 RGB, or a list of `(height, width, 3)`; None if there are
                none.
            times: of the pictures, in seconds on the clock of the sound; by default each is `1 / fps` after the one
                before.

        Returns:
            The words that have become certain since the last call: `{"text", "timestamp": (start, end) in seconds,
            "confidence", "delay"}`, the last being the seconds from the word's end to now.

        Raises:
            ValueError: it is no sound, or these are no pictures; or reading them has failed.
        """
        if self._over:
            raise ValueError("`push` comes after `finish`: begin another one with `live`.")
        given = [] if pictures is None else list(pictures)
        clock: list[float | None] = [None] * len(given) if times is None else list(times)
        if len(clock) != len(given):
            raise ValueError(f"`times` must be one for each picture: there are {len(clock)} for {len(given)}.")
        if sound is not None:
            self._source.push_sound(sound)
        for picture, time in zip(given, clock):
            self._source.push_picture(picture, time)
        return list(self._ready(wait=False))

    def finish(self) -> list[dict[str, Any]]:
        """Ends the input; returns the rest of the words, once they are read."""
        if not self._over:
            self._source.finish()
        return list(self)

    def choose(self, speaker: Any) -> None:
        """
        Reads somebody else from here on. What the one before has said stays; a word that is cut off here is left out,
        and of an utterance that has begun, only what comes is read.

        Args:
            speaker: as in a call of the pipeline; points and boxes are in pixels of the next picture. None: the most
                prominent face.

        Raises:
            ValueError: it is no speaker.
        """
        self._source.choose(self._choose(speaker), speaker)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields words as they become certain, until the input ends; in another thread than the one that pushes."""
        return self._ready(wait=True)

    def _ready(self, wait: bool) -> Iterator[dict[str, Any]]:
        while not self._over:
            try:
                word = self._words.get(block=wait)
            except Empty:
                return
            if isinstance(word, _End):
                self._over = True
                if word.error is not None:
                    raise word.error
                return
            self._count += 1
            self._delays.append(word["delay"])
            yield word

    def __enter__(self) -> LiveSpeech:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the input and the threads; words that have not been taken are lost."""
        self._over = True
        self._dropped()
        for thread in self._threads:
            thread.join()

    def to_report(self) -> dict[str, Any]:
        """
        Returns what was measured so far: seconds that were read, words, their median delay and the one below which
        95 % are (None without words), pictures that were left out, and warnings.
        """
        delays = sorted(self._delays)
        most = delays[min(len(delays) - 1, int(0.95 * len(delays)))] if delays else None
        warnings = []
        if self.dropped:
            warnings.append(f"{self.dropped} pictures were left out, as they came faster than faces are found in them")
        return {
            "duration": round(self.position, 3),
            "words": self._count,
            "delay_median": round(statistics.median(delays), 3) if delays else None,
            "delay_95": None if most is None else round(most, 3),
            "pictures_left_out": self.dropped,
            "warnings": warnings,
        }


class _End:
    """Marks the end of a queue; `error` is what ended it, if anything did."""

    def __init__(self, error: BaseException | None):
        self.error = error


# Both threads hold no reference to their owner, so that garbage collection of it ends them.


def _find(pieces: Iterator[ClipPiece | NewSpeaker], queue: SimpleQueue[ClipPiece | NewSpeaker | _End]) -> None:
    """Runs what finds the mouths."""
    error: BaseException | None = None
    try:
        for piece in pieces:
            queue.put(piece)
    except BaseException as caught:  # the owner raises it
        error = caught
    queue.put(_End(error))


def _read(
    source: LiveSource,
    queue: SimpleQueue[ClipPiece | NewSpeaker | _End],
    decoder: LiveDecoder,
    window: ClipWindow,
    change: Callable[[Any], list[SpokenWord]],
    words: SimpleQueue[dict[str, Any] | _End],
) -> None:
    """Runs the decoder whenever there is more to read."""
    error: BaseException | None = None
    ended = False
    try:
        while not ended:
            pieces, found = [queue.get()], []
            while not queue.empty() and len(pieces) < TOGETHER:
                pieces.append(queue.get())
            for piece in pieces:
                if isinstance(piece, _End):
                    ended, error = True, piece.error
                elif isinstance(piece, NewSpeaker):
                    found += change(piece.speaker)
                else:
                    window.append(piece)
            for word in [*found, *decoder.step(ended)]:
                words.put({**word.to_chunk(), "delay": round(source.since(word.end), 3)})
    except BaseException as caught:
        error = caught
    source.stop()
    words.put(_End(error))


def open_live(
    recogniser: Recogniser,
    reader_of: Callable[[Any], PieceReader],
    chosen: Callable[[Any], ChosenSpeaker | None],
    settings: Any,
    sampling_rate: int | None,
    fps: float | None,
) -> LiveSpeech:
    """
    Returns what sound and pictures are pushed to.

    Args:
        recogniser: the model and its processor.
        reader_of: takes settings, returns what reads pieces of speech.
        chosen: takes settings, returns who is read and what finds them; None where nobody was chosen.
        settings: `ReadingSettings` of the call, with the modality that the model reads and the length of a chunk.
        sampling_rate: of the sound in Hz; None if there is none.
        fps: pictures a second; None if there are none.

    Raises:
        ValueError: an argument is invalid, or what is read isn't there.
    """
    images = recogniser.processor.image_processor
    rate = recogniser.processor.feature_extractor.sampling_rate
    sampling_rate, fps = _checked_rates(sampling_rate, fps, settings.modality)
    source = LiveSource(sampling_rate, fps, rate, images.fps, settings.channel)

    def finder_of(speaker: Any) -> Any:
        check_live_speaker(speaker)
        who = chosen(replace(settings, speaker=speaker))
        who = None if who is None else ChosenSpeaker(who.asked, LatestLocator(who.locator))
        return prepare_finder(source.kinds, settings.modality, images, None, who, prompt=True)[0]

    def choose(speaker: Any) -> Callable[[], Any]:
        if fps is None:
            raise ValueError("`speaker` chooses among faces, and there are no pictures.")
        check_live_speaker(speaker)
        chosen(replace(settings, speaker=speaker))
        return lambda: finder_of(speaker)

    def reading(speaker: Any) -> tuple[ClipReader, Callable[[str], float], bool]:
        """Returns the reader of a speaker, their least confidences, and whether they were chosen."""
        reader = reader_of(replace(settings, speaker=speaker, speech_confidence=0.0))  # utterances are judged as such
        least = partial(recogniser.least_confidence, least=settings.speech_confidence)
        return reader, least if speaker is None else (lambda modality: 0.0), speaker is not None  # lips decide

    finder = finder_of(settings.speaker) if fps is not None else None
    window = ClipWindow(iter(()), rate, images.fps, settings.speaker is not None)
    reader, least, _ = reading(settings.speaker)
    decoder = LiveDecoder(window, reader, least, STRETCH * settings.chunk_length_s, recogniser.seconds_per_step)
    pieces = live_pieces(source, finder, rate, images.fps, images.roi_size)
    return LiveSpeech(source, pieces, decoder, window, choose, lambda speaker: decoder.change(*reading(speaker)))


def _checked_rates(sampling_rate: int | None, fps: float | None, modality: str) -> tuple[int | None, float | None]:
    """Returns both, None for what isn't read."""
    for name, value in (("sampling_rate", sampling_rate), ("fps", fps)):
        if value is not None and not (isinstance(value, (int, float)) and 0 < value < 1e6):
            raise ValueError(f"`{name}` must be a positive number or None, not {value!r}.")
    if sampling_rate is None and (modality in ("audio", "audiovisual") or fps is None):
        raise ValueError("`sampling_rate` is None, and there is nothing to read without sound.")
    if fps is None and modality in ("visual", "audiovisual"):
        raise ValueError("`fps` is None, and lips are to be read.")
    heard = None if sampling_rate is None or modality == "visual" else int(sampling_rate)
    return heard, None if modality == "audio" else fps


def check_live_speaker(speaker: Any) -> None:
    """Raises a ValueError for a speaker who can only be found in a whole clip."""
    if speaker == EVERYONE or (isinstance(speaker, Mapping) and "track" in speaker):
        raise ValueError("`speaker`: live, one person is read: a text, a point or a box chooses them.")

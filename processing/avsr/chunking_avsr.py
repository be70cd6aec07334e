"""Decides where a long clip is cut, and which words on both sides of a cut count, from times and CTC's letters only.

Where CTC finds no letter probable in a window of the clip, there is no speech. The speech between two long pauses is
an utterance, and is read as one piece with some of the silence around it. So no word is cut as long as the speaker
pauses once in a window; otherwise pieces overlap and words are joined by their times.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .alignment_avsr import TimedText

Word = TypeVar("Word", bound=TimedText)

CHUNK_LENGTH = 12.0  # seconds, unless the call or the checkpoint sets another length
SHORTEST_CHUNK = 2.0  # seconds; a shorter one does not hold a phrase
STRETCH = 1.5  # a window grows to this many chunks where an utterance, or the clip, ends in it
UTTERANCE_PAUSE = 0.5  # seconds without a letter that end an utterance
WORD_PAUSE = 0.2  # seconds without a letter that separate words
MARGIN = 0.5  # seconds of silence on each side of a piece's letters, at most
EARLIEST_CUT = 0.4  # share of a window before which no utterance is cut in two
MOVE = 0.1  # seconds of silence at a window's start, from which on the window is moved to hold more of the utterance
OVERLAP = 1.0  # seconds that two pieces share where there is no pause; at most a quarter of a window


@dataclass(frozen=True)
class Piece:
    """
    A part of the clip that the model reads in one pass; all times in seconds.

    Attributes:
        start: of the piece.
        end: of the piece.
        speech_start: where its first letter begins.
        speech_end: where its last letter ends.
        unfinished: whether someone still speaks at the piece's end.
    """

    start: float
    end: float
    speech_start: float
    speech_end: float
    unfinished: bool = False


@dataclass(frozen=True)
class WindowPlan:
    """
    The pieces of one window, and where the next one starts.

    Attributes:
        pieces: in order of time.
        next_start: start of the next window in seconds; `None` with an `unfinished` last piece, where [`choose_seam`]
            finds it once the words are known.
        in_utterance: whether an utterance is cut because it is longer than the window.
    """

    pieces: tuple[Piece, ...]
    next_start: float | None
    in_utterance: bool = False


def find_speech(letters: np.ndarray, seconds_per_step: float, shortest_pause: float) -> list[tuple[float, float]]:
    """
    Returns `(start, end)` in seconds of each stretch of speech, which may hold pauses shorter than `shortest_pause`.

    Args:
        letters: `(steps,)` bool, whether a CTC step has a letter.
        seconds_per_step: of the letters.
        shortest_pause: in seconds.
    """
    edges = np.flatnonzero(np.diff(np.pad(letters.astype(np.int8), 1)))
    spans: list[tuple[float, float]] = []
    for start, end in (edges.reshape(-1, 2) * seconds_per_step).tolist():
        if spans and start - spans[-1][1] < shortest_pause - 1e-9:
            start = spans.pop()[0]
        spans.append((start, end))
    return spans


def plan_window(letters: np.ndarray, seconds_per_step: float, length: float, last: bool) -> WindowPlan:
    """
    Cuts one window into pieces at its pauses.

    Each finished utterance is a piece; the next window starts in the pause after them. An utterance that fills the
    window is cut in two at its longest short pause; if it has none, the piece ends with the window, unfinished.

    Args:
        letters: `(steps,)` bool, whether a CTC step has a letter.
        seconds_per_step: of the letters.
        length: of the window in seconds.
        last: whether the clip ends here.
    """
    speech = find_speech(letters, seconds_per_step, UTTERANCE_PAUSE)
    if last:
        return WindowPlan(_pieces(speech, length), length)
    finished = [span for span in speech if length - span[1] >= UTTERANCE_PAUSE]
    if not speech:
        return WindowPlan((), length / 2)
    if len(finished) == len(speech):  # speech that begins close to the end of a window may not be recognised yet
        return WindowPlan(_pieces(speech, length), finished[-1][1] + UTTERANCE_PAUSE / 2)
    if finished:
        continues = speech[len(finished)][0]
        margin = min(MARGIN, (continues - finished[-1][1]) / 2)
        return WindowPlan(_pieces(speech, length)[: len(finished)], continues - margin)
    start, end = speech[0]
    if start - MARGIN >= MOVE:
        return WindowPlan((), start - MARGIN)
    cut = _longest_pause(letters, seconds_per_step, EARLIEST_CUT * length, length)
    if cut is not None:
        piece = Piece(max(0.0, start - MARGIN), cut, start, min(end, cut))
        return WindowPlan((piece,), cut, in_utterance=True)
    piece = Piece(max(0.0, start - MARGIN), length, start, end, unfinished=True)
    return WindowPlan((piece,), None, in_utterance=True)


def _pieces(speech: Sequence[tuple[float, float]], length: float) -> tuple[Piece, ...]:
    """Returns each utterance with at most `MARGIN` seconds, and at most half, of the pauses around it."""
    middles = [(before[1] + after[0]) / 2 for before, after in zip(speech, speech[1:])]
    return tuple(
        Piece(max(lower, start - MARGIN), min(upper, end + MARGIN), start, end)
        for (start, end), lower, upper in zip(speech, [0.0, *middles], [*middles, length])
    )


def _longest_pause(letters: np.ndarray, seconds_per_step: float, earliest: float, length: float) -> float | None:
    """Returns the middle of the longest pause after `earliest` that is outside words; the later of two equal ones."""
    spoken = find_speech(letters, seconds_per_step, WORD_PAUSE)
    ends = [start for start, _ in spoken[1:]] + [length]
    pauses = [(end - start, (start + end) / 2) for (_, start), end in zip(spoken, ends)]
    pauses = [pause for pause in pauses if pause[0] >= WORD_PAUSE - 1e-9 and pause[1] >= earliest]
    return max(pauses, default=(0.0, None))[1]


def within_scene(piece: Piece, changes: Iterable[float]) -> Piece:
    """Returns the piece without silence on the other side of a change of scene."""
    start = max((c for c in changes if piece.start < c <= piece.speech_start), default=piece.start)
    end = min((c for c in changes if piece.speech_end <= c < piece.end), default=piece.end)
    return Piece(start, end, piece.speech_start, piece.speech_end, piece.unfinished)


def split_at(piece: Piece, changes: Iterable[float]) -> list[Piece]:
    """Splits the piece at each change within it."""
    borders = [piece.start, *sorted(c for c in changes if piece.start < c < piece.end), piece.end]
    return [
        Piece(
            start,
            end,
            min(max(piece.speech_start, start), end),
            max(min(piece.speech_end, end), start),
            piece.unfinished and end == piece.end,
        )
        for start, end in zip(borders, borders[1:])
    ]


def overlap_of(length: float) -> float:
    """Returns the seconds that two pieces share in windows of `length` seconds without a pause."""
    return min(OVERLAP, length / 4)


def choose_seam(words: Sequence[TimedText], end: float, length: float) -> float:
    """
    Returns the second between two words up to which the words of an unfinished piece are used.

    It lies as near as possible to the middle of the overlap with the following piece: near the end of a piece a word
    may be cut off, and the following piece needs some context.

    Args:
        words: of the piece, in order.
        end: of the piece in seconds.
        length: of the window in seconds.
    """
    wanted = end - overlap_of(length) / 2
    gaps = [(before.end + after.start) / 2 for before, after in zip(words, words[1:])]
    near = [gap for gap in gaps if abs(gap - wanted) <= overlap_of(length) / 2]
    return min(near, key=lambda gap: abs(gap - wanted), default=wanted)


def words_before(words: Sequence[Word], seam: float) -> list[Word]:
    """Returns the words of an unfinished piece whose middle lies before the seam."""
    return [word for word in words if (word.start + word.end) / 2 < seam]


def words_after(words: Sequence[Word], seam: float, emitted: Sequence[TimedText]) -> list[Word]:
    """
    Returns the words of a piece that are used, where the piece begins before the seam.

    A word that lies mostly before the seam was read already, unless the previous piece has no word at its time (no
    word is lost); one after the seam that the previous piece ended with, at the same time, is not repeated.

    Args:
        words: of the new piece.
        seam: in seconds.
        emitted: the last words of the previous piece, up to the seam.
    """
    return [word for word in words if _is_new(word, seam, emitted)]


def _is_new(word: TimedText, seam: float, emitted: Sequence[TimedText]) -> bool:
    shared = [min(word.end, other.end) - max(word.start, other.start) for other in emitted]
    if (word.start + word.end) / 2 >= seam:
        return not any(time > 0 and word.text == other.text for time, other in zip(shared, emitted))
    is_last = not emitted or word.start >= emitted[-1].start
    return is_last and all(time <= 0 for time in shared)

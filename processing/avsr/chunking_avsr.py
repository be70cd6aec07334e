"""Where a long clip is cut, and which words on both sides of a cut count: seconds and letters, neither sound nor model.

A window of the clip is looked at by CTC: where no letter is probable, nobody speaks. What lies between two long pauses
is an utterance, and is read as one piece with some of the silence around it. So a cut never goes through a word, as
long as the speaker pauses once in a window; where not, pieces overlap and words are joined by their times.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .alignment_avsr import TimedText

Word = TypeVar("Word", bound=TimedText)

CHUNK_LENGTH = 12.0  # seconds, where neither the call nor the checkpoint says otherwise
SHORTEST_CHUNK = 2.0  # seconds; less does not hold a phrase
STRETCH = 1.5  # a window grows to this many chunks where an utterance, or the clip, ends in it
UTTERANCE_PAUSE = 0.5  # seconds without a letter that end an utterance
WORD_PAUSE = 0.2  # seconds without a letter that are no part of a word
MARGIN = 0.5  # seconds of silence that a piece keeps on each side of its letters, where there is as much
EARLIEST_CUT = 0.4  # share of a window in front of which no utterance is cut in two
MOVE = 0.1  # seconds of silence at a window's start that are given up for more of the utterance that follows
OVERLAP = 1.0  # seconds that two pieces share where nobody pauses; a quarter of short windows


@dataclass(frozen=True)
class Piece:
    """
    What goes through the model at once; all times in seconds.

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
    What becomes of one window.

    Attributes:
        pieces: in order.
        next_start: the second at which the next window starts; `None` with an `unfinished` last piece, where
            [`choose_seam`] says it when the words are known.
        in_utterance: whether an utterance is cut, for want of room.
    """

    pieces: tuple[Piece, ...]
    next_start: float | None
    in_utterance: bool = False


def find_speech(letters: np.ndarray, seconds_per_step: float, shortest_pause: float) -> list[tuple[float, float]]:
    """
    Returns `(start, end)` in seconds of what is said, pauses shorter than `shortest_pause` seconds included.

    Args:
        letters: `(steps,)` bool, whether a CTC step has a letter.
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

    Utterances that have ended are pieces; the next window starts in the pause after them. One utterance that fills the
    window is cut in two at its longest short pause; where it has none, the piece ends with the window, unfinished.

    Args:
        letters: `(steps,)` bool, whether a CTC step has a letter.
        length: of the window in seconds.
        last: whether the clip ends here.
    """
    speech = find_speech(letters, seconds_per_step, UTTERANCE_PAUSE)
    if last:
        return WindowPlan(_pieces(speech, length), length)
    over = [span for span in speech if length - span[1] >= UTTERANCE_PAUSE]
    if not speech:
        return WindowPlan((), length / 2)
    if len(over) == len(speech):  # what begins close to the end of a window may not be heard yet
        return WindowPlan(_pieces(speech, length), over[-1][1] + UTTERANCE_PAUSE / 2)
    if over:
        going_on = speech[len(over)][0]
        margin = min(MARGIN, (going_on - over[-1][1]) / 2)
        return WindowPlan(_pieces(speech, length)[: len(over)], going_on - margin)
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
    """Returns the piece without silence that lies beyond a change of scene."""
    start = max((c for c in changes if piece.start < c <= piece.speech_start), default=piece.start)
    end = min((c for c in changes if piece.speech_end <= c < piece.end), default=piece.end)
    return Piece(start, end, piece.speech_start, piece.speech_end, piece.unfinished)


def split_at(piece: Piece, changes: Iterable[float]) -> list[Piece]:
    """Returns the piece in parts that begin at each change within it."""
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

    It lies as near as can be to the middle of the overlap with the following piece: near the end of a piece a word may
    be cut off, and the following piece needs some of what was before.

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


def words_after(words: Sequence[Word], seam: float, said: Sequence[TimedText]) -> list[Word]:
    """
    Returns the words of a piece, which begins before the seam, that are used.

    A word that lies mostly in front of the seam was read before, unless the piece before has nothing at its time (no
    word is lost); one after it that the previous piece ended with, at the same time, is not repeated.

    Args:
        words: of the new piece.
        seam: in seconds.
        said: the last words of the piece before it, up to the seam.
    """
    return [word for word in words if _is_new(word, seam, said)]


def _is_new(word: TimedText, seam: float, said: Sequence[TimedText]) -> bool:
    shared = [min(word.end, other.end) - max(word.start, other.start) for other in said]
    if (word.start + word.end) / 2 >= seam:
        return not any(time > 0 and word.text == other.text for time, other in zip(shared, said))
    after_all = not said or word.start >= said[-1].start
    return after_all and all(time <= 0 for time in shared)

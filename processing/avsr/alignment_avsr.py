"""
Words in time: where those of a known text lie, and where a long clip may be cut between words.

CTC forced alignment gives times and probabilities of the characters and words of a text. What is found in a batch
comes in parts where the clips do not fit in memory together, and is joined here.

Where CTC finds no letter probable in a window of a long clip, there is no speech. The speech between two long pauses
is an utterance, and is read as one piece with some of the silence around it. So no word is cut as long as the speaker
pauses once in a window; otherwise pieces overlap and words are joined by their times. Where the sound has a clear
pause after an utterance, the window ends there, so that window and piece are one, and are encoded once.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

Result = TypeVar("Result")

IMPOSSIBLE = -1e30  # a log-probability that adds up without becoming NaN
LONGEST_PAUSE = 0.16  # seconds within a word; on GRID's validation clips shorter ones are no better
LONGEST_SPACE = 0.2  # seconds from a space to the next letter; after a longer one, somebody has paused

CHUNK_LENGTH = 12.0  # seconds, unless the call or the checkpoint sets another length
SHORTEST_CHUNK = 2.0  # seconds; a shorter one does not hold a phrase
STRETCH = 1.5  # a window grows to this many chunks where an utterance, or the clip, ends in it
UTTERANCE_PAUSE = 0.5  # seconds without a letter that end an utterance
WORD_PAUSE = 0.2  # seconds without a letter that separate words
MARGIN = 0.5  # seconds of silence on each side of a piece's letters, at most
WIDEST = 1.5  # likewise, and between its letters, of a piece that is a whole window, as it is encoded already
QUIET = 18.0  # decibels by which the sound of a pause is below loud speech around it; CTC is asked in any case
SHORTEST_WORD = 0.15  # seconds of sound; a shorter one between pauses is a click
EARLIEST_CUT = 0.4  # share of a window before which no utterance is cut in two
MOVE = 0.1  # seconds of silence at a window's start, from which on the window is moved to hold more of the utterance
OVERLAP = 1.0  # seconds that two pieces share where there is no pause; at most a quarter of a window


@dataclass(frozen=True)
class CharacterAlignment:
    """
    Where each character of each text lies; frames are CTC outputs.

    Attributes:
        starts: `(batch, length)` int64, the first frame of each character.
        ends: `(batch, length)` int64, the frame after its last one.
        scores: `(batch, length)` float32; mean log-probability of the character over its frames (0 in the padding).
        fits: `(batch,)` bool; False where the text needs more frames than there are. Its characters are then spread
            evenly, and their scores are the log-probabilities of these frames.
    """

    starts: torch.Tensor
    ends: torch.Tensor
    scores: torch.Tensor
    fits: torch.Tensor


@dataclass(frozen=True)
class TimedText:
    """A word or character, when it was said (seconds), and its probability (0 to 1)."""

    text: str
    start: float
    end: float
    confidence: float

    def to_chunk(self) -> dict[str, Any]:
        """Returns the form in which results of the pipeline hold it."""
        return {
            "text": self.text,
            "timestamp": (round(self.start, 3), round(self.end, 3)),
            "confidence": round(self.confidence, 4),
        }


Word = TypeVar("Word", bound=TimedText)


# ------------------------------------------------------------------------------------------------------- the times


def merge_into_blank(log_probs: torch.Tensor, blank: int, other: int | None) -> torch.Tensor:
    """Adds the probability of `other` (a CTC model's own end of sentence) to the blank's and takes it from `other`."""
    if other is None or other == blank:
        return log_probs
    merged = log_probs.clone()
    merged[..., blank] = torch.logaddexp(log_probs[..., blank], log_probs[..., other])
    merged[..., other] = IMPOSSIBLE
    return merged


@torch.no_grad()
def align_ctc(
    log_probs: torch.Tensor,
    frame_lengths: torch.Tensor,
    labels: torch.Tensor,
    label_lengths: torch.Tensor,
    blank: int = 0,
) -> CharacterAlignment:
    """
    Returns the most probable CTC path of each text, found by one Viterbi search for the whole batch.

    Args:
        log_probs: `(batch, frames, vocab)` natural logarithms.
        frame_lengths: `(batch,)` valid frames.
        labels: `(batch, length)` character ids without blanks.
        label_lengths: `(batch,)` valid characters.
        blank: the id of the blank.
    """
    batch, frames, _ = log_probs.shape
    length = labels.shape[1]
    log_probs, labels = log_probs.float(), labels.long()
    if frames == 0 or length == 0:
        zeros = labels.new_zeros(batch, length)
        return CharacterAlignment(zeros, zeros, zeros.float(), label_lengths == 0)
    labels = labels.masked_fill(torch.arange(length, device=labels.device) >= label_lengths[:, None], blank)
    states = torch.full((batch, 2 * length + 1), blank, device=labels.device)  # blank, c1, blank, c2, ..., blank
    states[:, 1::2] = labels
    repeated = (labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] != blank)  # needs a blank between
    needed = label_lengths + (repeated & _valid(label_lengths - 1, length - 1)).sum(dim=1)
    moves, score = _viterbi_steps(log_probs, frame_lengths, states)
    path = _trace_back(moves, score, frame_lengths, label_lengths)
    starts, ends = _spans(path, length)
    fits = (needed <= frame_lengths) & (frame_lengths > 0)
    even_starts, even_ends = _even_spans(frame_lengths, label_lengths, length)
    starts = torch.where(fits[:, None], starts, even_starts)
    ends = torch.where(fits[:, None], ends, even_ends)
    valid = _valid(label_lengths, length)
    scores = _mean_scores(log_probs, labels, starts, ends)
    return CharacterAlignment(starts * valid, ends * valid, scores * valid, fits)


def run_in_parts(
    run: Callable[[slice], Result], count: int, what: str, alone: Callable[[int], Exception]
) -> list[Result]:
    """
    Runs a batch; where it does not fit in memory, halves of it, as small as need be, with one warning.

    Args:
        run: computes a part of the batch.
        count: items of the batch.
        what: the items by name, for the warning.
        alone: makes the error of an item that doesn't fit by itself.

    Returns:
        the results of the parts, in order.

    Raises:
        Exception: that of `alone`.
    """
    done: list[Result] = []
    first, size = 0, count
    while first < count:
        tried = min(size, count - first)
        try:
            done.append(run(slice(first, first + tried)))
            first += tried
            continue
        except torch.OutOfMemoryError:
            pass  # what the attempt holds is released after this block
        if tried == 1:
            raise alone(first)
        size = (tried + 1) // 2
    if size < count:
        warnings.warn(f"a batch of {count} {what} does not fit in memory; {size} at a time do.", stacklevel=2)
    return done


def join_found(parts: Sequence[dict[str, torch.Tensor]], blank: int) -> dict[str, torch.Tensor]:
    """
    Joins what was found in the parts of a batch.

    Args:
        parts: tensors `(clips, texts)` or `(clips, texts, length)` by name, such as `ids` and `starts`.
        blank: fills up shorter texts in `ids`; 0 does in others.

    Returns:
        the tensors of all clips that every part has.
    """
    if len(parts) == 1:
        return parts[0]
    joined = {}
    for name in (name for name in parts[0] if all(name in part for part in parts)):
        most = max(part[name].shape[-1] for part in parts)
        fill = blank if name == "ids" else 0
        missing = [most - part[name].shape[-1] if part[name].dim() == 3 else 0 for part in parts]
        padded = [torch.nn.functional.pad(part[name], (0, more), value=fill) for part, more in zip(parts, missing)]
        joined[name] = torch.cat(padded)
    return joined


def join_encoded(parts: Sequence[Any]) -> Any:
    """
    Joins the encoder's outputs on clips to that on a batch of them.

    Args:
        parts: each with `last_hidden_state` `(batch, frames, size)`, `frame_mask` `(batch, frames)` bool, and
            `modalities` `(batch,)` or None.
    """
    if len(parts) == 1:
        return parts[0]
    most = max(part.frame_mask.shape[1] for part in parts)
    states, masks = [], []
    for part in parts:
        missing = most - part.frame_mask.shape[1]
        states.append(torch.nn.functional.pad(part.last_hidden_state, (0, 0, 0, missing)))
        masks.append(torch.nn.functional.pad(part.frame_mask, (0, missing)))
    modalities = None if parts[0].modalities is None else torch.cat([part.modalities for part in parts])
    return type(parts[0])(last_hidden_state=torch.cat(states), frame_mask=torch.cat(masks), modalities=modalities)


def _valid(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Returns `(batch, size)` bool: position < length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _viterbi_steps(
    log_probs: torch.Tensor, frame_lengths: torch.Tensor, states: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the best paths' steps (0 to 2) into each state, `(frames, batch, states)`, and their final scores."""
    batch, frames, _ = log_probs.shape
    emissions = log_probs.gather(2, states[:, None].expand(-1, frames, -1))  # (batch, frames, states)
    can_skip = torch.zeros_like(states, dtype=torch.bool)  # over a blank between two different characters
    can_skip[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    score = torch.full_like(emissions[:, 0], IMPOSSIBLE)
    score[:, :2] = emissions[:, 0, :2]
    moves = torch.zeros(frames, batch, states.shape[1], dtype=torch.int8, device=states.device)
    for frame in range(1, frames):
        stay = score
        advance = torch.nn.functional.pad(score[:, :-1], (1, 0), value=IMPOSSIBLE)
        skip = torch.nn.functional.pad(score[:, :-2], (2, 0), value=IMPOSSIBLE).masked_fill(~can_skip, IMPOSSIBLE)
        best, move = torch.stack((stay, advance, skip)).max(dim=0)  # (batch, states)
        going = frame < frame_lengths[:, None]
        moves[frame] = torch.where(going, move, 0)
        score = torch.where(going, (best + emissions[:, frame]).clamp(min=IMPOSSIBLE), score)
    return moves, score


def _trace_back(
    moves: torch.Tensor, score: torch.Tensor, frame_lengths: torch.Tensor, label_lengths: torch.Tensor
) -> torch.Tensor:
    """Returns the state of each frame on the best path: `(batch, frames)`, -1 after the end."""
    frames, batch, _ = moves.shape
    last = 2 * label_lengths.long()  # the final blank; the final character is one before
    rows = torch.arange(batch, device=moves.device)
    on_character = score[rows, (last - 1).clamp(min=0)] > score[rows, last]
    state = torch.where(on_character & (label_lengths > 0), last - 1, last)
    path = torch.full((batch, frames), -1, device=moves.device)
    for frame in range(frames - 1, -1, -1):
        valid = frame < frame_lengths
        path[:, frame] = torch.where(valid, state, -1)
        state = torch.where(valid, state - moves[frame, rows, state], state).clamp(min=0)
    return path


def _spans(path: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the first frame of each character and the one after its last: two `(batch, length)`."""
    characters = 2 * torch.arange(length, device=path.device) + 1
    on = path[:, None, :] == characters[None, :, None]  # (batch, length, frames)
    starts = on.int().argmax(dim=2)
    return starts, starts + on.sum(dim=2)


def _even_spans(
    frame_lengths: torch.Tensor, label_lengths: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Divides the valid frames evenly among the characters, at least one frame each: two `(batch, length)`."""
    borders = torch.arange(length + 1, device=frame_lengths.device)[None] * frame_lengths[:, None]
    borders = borders // label_lengths[:, None].clamp(min=1)  # (batch, length + 1)
    starts = torch.minimum(borders[:, :-1], (frame_lengths[:, None] - 1).clamp(min=0))
    return starts, torch.maximum(borders[:, 1:], starts + 1)


def _mean_scores(
    log_probs: torch.Tensor, labels: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    """Returns the mean log-probability of each character over its frames: `(batch, length)`."""
    frames = log_probs.shape[1]
    emissions = log_probs.gather(2, labels[:, None].expand(-1, frames, -1))  # (batch, frames, length)
    sums = torch.nn.functional.pad(emissions.double().clamp(min=-100.0).cumsum(dim=1), (0, 0, 1, 0))
    total = sums.gather(1, ends[:, None].clamp(max=frames)) - sums.gather(1, starts[:, None])
    return (total[:, 0] / (ends - starts).clamp(min=1)).float()


def time_characters(
    text: Sequence[str], starts: list[int], ends: list[int], scores: list[float], seconds_per_frame: float
) -> list[TimedText]:
    """Returns each character of `text` with its times; the lists are one row of a [`CharacterAlignment`]."""
    return [
        TimedText(character, start * seconds_per_frame, end * seconds_per_frame, min(1.0, math.exp(score)))
        for character, start, end, score in zip(text, starts, ends, scores, strict=False)
    ]


def split_pieces(pieces: Sequence[TimedText]) -> tuple[list[TimedText], list[int]]:
    """
    Takes the space out of word pieces that begin with one.

    It becomes a text of its own, without duration, at the end of the piece before it; before the first word there is
    none. Letters and spaces of a character vocabulary stay as they are.

    Args:
        pieces: of a text, those that begin a word with a space before it.

    Returns:
        The texts, and the index of the piece of each.
    """
    parts: list[TimedText] = []
    sources: list[int] = []
    for index, piece in enumerate(pieces):
        word = piece.text.lstrip()
        if not word or word == piece.text:
            parts.append(piece)
        else:
            if parts:
                end = max(parts[-1].end, 0.0)
                parts.append(TimedText(" ", min(end, piece.start), min(end, piece.start), piece.confidence))
                sources.append(index)
            parts.append(replace(piece, text=word))
        sources.append(index)
    return parts, sources


def delay_early_starts(characters: list[TimedText], longest_pause: float = LONGEST_PAUSE) -> list[TimedText]:
    """
    Moves the first letter of a word to its second one where CTC put it too early.

    CTC may emit a word's first letter anywhere in the silence before the word, and often does so in the first frame.
    Speakers don't pause within a word, so with more than `longest_pause` seconds of blank after it, the first letter
    is moved to begin that long before the second. Other characters, and word pieces of several letters, are not moved.
    """
    moved = list(characters)
    for place, (first, second) in enumerate(zip(characters, characters[1:])):
        begins_word = place == 0 or characters[place - 1].text.isspace()
        within_word = not first.text.isspace() and not second.text.isspace()
        if begins_word and within_word and len(first.text) == 1 and second.start - first.end > longest_pause:
            start = second.start - longest_pause
            moved[place] = replace(first, start=start, end=min(start + first.end - first.start, second.start))
    return moved


def join_ends(characters: list[TimedText], longest_space: float = LONGEST_SPACE) -> list[TimedText]:
    """
    Moves the end of each word, and the start of the next one, to the middle between the space and the letter after it.

    CTC recognises a space a little before a word is over, and the next word's first letter a little after it began: on
    GRID's validation clips 30 ms each. The last letter of a text, after which nothing is recognised, is made as much
    longer as those before the spaces are on average. Where speakers pause, and where a space has no time of its own
    (word pieces), nothing is moved.
    """
    moved = list(characters)
    added = []
    for place, (letter, space, first) in enumerate(zip(characters, characters[1:], characters[2:])):
        if space.text.isspace() and space.end > space.start and first.start - space.start <= longest_space:
            middle = (space.start + first.start) / 2
            moved[place + 1] = replace(space, start=middle, end=middle)
            moved[place + 2] = replace(first, start=middle)
            added.append(max(middle - letter.end, 0.0))
    if added:
        moved[-1] = replace(moved[-1], end=moved[-1].end + sum(added) / len(added))
    return moved


def time_words(characters: list[TimedText]) -> list[TimedText]:
    """
    Joins characters into words.

    CTC marks where a character is recognised, not its duration, so a word ends where the space after it begins
    (the last word: where its last character ends). A word's confidence is the geometric mean of its characters'.
    """
    words: list[TimedText] = []
    current: list[TimedText] = []
    for character in [*characters, None]:
        if character is not None and not character.text.isspace():
            current.append(character)
        elif current:
            end = current[-1].end if character is None else character.start
            words.append(TimedText("".join(c.text for c in current), current[0].start, end, mean_confidence(current)))
            current = []
    return words


def mean_confidence(pieces: list[TimedText]) -> float:
    """Returns the geometric mean of the confidences; 0 for an empty list."""
    if not pieces:
        return 0.0
    return math.exp(sum(math.log(max(piece.confidence, 1e-30)) for piece in pieces) / len(pieces))


@dataclass(frozen=True)
class SpokenWord(TimedText):
    """A word with its characters, among them the space before it, if the model wrote one."""

    characters: tuple[TimedText, ...] = ()


def moved(text: TimedText, offset: float) -> TimedText:
    """Returns the same text, `offset` seconds later."""
    return TimedText(text.text, text.start + offset, text.end + offset, text.confidence)


def not_before(text: TimedText, time: float) -> TimedText:
    """Returns the same text with times of at least `time` seconds."""
    return TimedText(text.text, max(text.start, time), max(text.end, time), text.confidence)


def spell_words(characters: Sequence[TimedText], offset: float) -> list[SpokenWord]:
    """Joins the characters of a piece that starts at `offset` seconds to words with times in the clip."""
    words: list[SpokenWord] = []
    spelled: list[TimedText] = []
    spaces: list[TimedText] = []
    for character in [*(moved(character, offset) for character in characters), None]:
        if character is not None and not character.text.isspace():
            spelled.append(character)
            continue
        if spelled:
            word = time_words(spelled if character is None else [*spelled, character])[0]
            before = tuple(spaces[-1:]) if words else ()
            words.append(SpokenWord(word.text, word.start, word.end, mean_confidence(spelled), (*before, *spelled)))
            spelled, spaces = [], []
        if character is not None:
            spaces.append(character)
    return words


# -------------------------------------------------------------------------------------------------------- the cuts


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


def first_pause(levels: np.ndarray, fps: float) -> tuple[int, bool] | None:
    """
    Finds the first clear pause of a window's sound, in which the window may end.

    Args:
        levels: `(frames,)` of the sound, in decibels.
        fps: frames per second.

    Returns:
        A frame, and whether something is heard before it: a long pause at the beginning is a window of its own. None
        where no pause is long and quiet enough.
    """
    spoken = levels > np.percentile(levels, 95) - QUIET
    speech = [span for span in find_speech(spoken, 1 / fps, UTTERANCE_PAUSE) if span[1] - span[0] >= SHORTEST_WORD]
    if not speech:
        return None
    start, end = speech[0]
    if start > 2 * MARGIN:
        return round((start - MARGIN) * fps), False
    pause = (speech[1][0] if len(speech) > 1 else len(levels) / fps) - end
    return (round((end + min(MARGIN, pause / 2)) * fps), True) if pause >= UTTERANCE_PAUSE else None


def plan_utterance(letters: np.ndarray, seconds_per_step: float, length: float, spoken: bool) -> WindowPlan | None:
    """
    Plans a window that ends in a pause of the sound: it is one piece, all of it, if CTC hears speech in it that is
    over before the end, with little silence around and in it.

    Args:
        letters: see [`plan_window`].
        seconds_per_step: see [`plan_window`].
        length: see [`plan_window`].
        spoken: whether the sound has an utterance; else CTC must hear nothing, and there is no piece.

    Returns:
        None where CTC hears something else.
    """
    speech = find_speech(letters, seconds_per_step, WIDEST)
    if len(speech) != spoken:
        return None
    if not speech:
        return WindowPlan((), length)
    start, end = speech[0]
    if start > WIDEST or not WORD_PAUSE <= length - end <= WIDEST:
        return None
    return WindowPlan((Piece(0.0, length, start, end),), length)


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

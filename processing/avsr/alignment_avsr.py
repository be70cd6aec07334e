"""CTC forced alignment: times and probabilities of the characters and words of a known text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

IMPOSSIBLE = -1e30  # a log-probability that adds up without becoming NaN
LONGEST_PAUSE = 0.16  # seconds within a word; on GRID's validation clips shorter ones are no better
LONGEST_SPACE = 0.2  # seconds from a space to the next letter; after a longer one, somebody has paused


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

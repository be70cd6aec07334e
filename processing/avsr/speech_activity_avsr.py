"""Whether words that were read from sound and lips are the words of those lips, or of somebody else who is heard."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .alignment_avsr import TimedText, time_words

NEARBY = (
    0.2  # seconds around a letter in which the lips may show it: CTC of lips and of both do not keep the same time
)
CONTEXT = 1.0  # seconds around a word whose letters are judged with it: one letter alone is often hard to see
OWN = 0.25  # mean evidence that makes words the lips', where neither the call nor the checkpoint says otherwise


@dataclass(frozen=True)
class OwnWords:
    """
    What was read, shared out.

    Attributes:
        characters: of the words that the lips say, as they were read.
        others: words that somebody else must have said.
        evidence: mean probability, 0 to 1, that the lips alone give to the letters of all words; 1 where it isn't known.
    """

    characters: list[TimedText] = field(default_factory=list)
    others: list[TimedText] = field(default_factory=list)
    evidence: float = 1.0

    @property
    def log_silence(self) -> float:
        """Logarithm of how surely the lips are silent, where all words are others'."""
        return math.log(max(1.0 - self.evidence, 1e-6))


def lip_evidence(
    log_probs: torch.Tensor, ids: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor, nearby: int
) -> torch.Tensor:
    """
    How probable the lips alone find characters that were read from sound and lips, at their time.

    Args:
        log_probs: `(batch, steps, vocab)` of CTC on the lips alone.
        ids, starts, ends: `(batch, length)` characters, and the steps `start <= step < end` of each.
        nearby: steps around a character that count as its time.

    Returns:
        `(batch, length)` float32, 0 to 1: the highest probability of the character at its time.
    """
    steps = torch.arange(log_probs.shape[1], device=ids.device)[None, :, None]  # (1, steps, 1)
    chances = (
        log_probs.float().exp().gather(2, ids[:, None].expand(-1, log_probs.shape[1], -1))
    )  # (batch, steps, length)
    then = (steps >= starts[:, None] - nearby) & (steps < ends[:, None] + nearby)
    return chances.masked_fill(~then, 0.0).amax(dim=1)


def share_out(characters: Sequence[TimedText], evidence: Sequence[float], least: float = OWN) -> OwnWords:
    """
    Gives words to the lips or to others.

    A word is the lips' where the letters within a second around it have a mean evidence of `least`: so the many letters that
    look alike do not decide for themselves, and a speaker who begins or ends while another one talks is still noticed.

    Args:
        characters: letters and spaces in order of time. evidence: of each character, 0 to 1; NaN where lips cannot be seen.
        least: 0 gives every word to the lips.
    """
    words = _words(characters)
    seen = [[evidence[index] for index in word if evidence[index] == evidence[index]] for word in words]
    kept, others = [], []
    for word in words:
        start, end = characters[word[0]].start - CONTEXT, characters[word[-1]].end + CONTEXT
        near = [
            value
            for other, values in zip(words, seen)
            if characters[other[0]].start <= end and characters[other[-1]].end >= start
            for value in values
        ]
        if not near or sum(near) / len(near) >= least:
            kept.append(word)
        else:
            others += time_words([characters[index] for index in word])
    everything = [value for values in seen for value in values]
    mean = sum(everything) / len(everything) if everything else 1.0
    return OwnWords(_spelled(characters, kept), others, mean)


def _words(characters: Sequence[TimedText]) -> list[list[int]]:
    """The places of each word's letters."""
    words: list[list[int]] = [[]]
    for index, character in enumerate(characters):
        if not character.text.isspace():
            words[-1].append(index)
        elif words[-1]:
            words.append([])
    return [word for word in words if word]


def _spelled(characters: Sequence[TimedText], words: Sequence[list[int]]) -> list[TimedText]:
    """The letters of some words, with the space before each word but the first."""
    spelled: list[TimedText] = []
    for word in words:
        if spelled:
            spelled += characters[word[0] - 1 : word[0]]
        spelled += [characters[index] for index in word]
    return spelled

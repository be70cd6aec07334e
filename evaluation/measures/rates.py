"""Word and character error rates with bootstrap intervals: jiwer's alignment, counted clip by clip.

The rate of a corpus is the sum of all errors over the sum of all reference words (or characters), as jiwer computes
it. Both sides go through the same `normalise`, so that case and punctuation never count as errors.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ErrorCounts:
    """Errors and reference lengths of every clip, both `(clips,)` int64, in words or in characters."""

    errors: np.ndarray
    lengths: np.ndarray

    @property
    def rate(self) -> float:
        """All errors over the length of all references; NaN where every reference is empty."""
        return _ratio(self.errors.sum(), self.lengths.sum())

    def interval(self, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Returns a bootstrap interval of the rate: clips are drawn with replacement, and each draw has its rate.

        Args:
            confidence: share of the draws between the two ends, for example 0.95.
            resamples: number of draws.
            seed: of the draws; the same seed gives the same interval.

        Returns:
            (low, high), rates as fractions.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence has to be between 0 and 1, not {confidence}")
        if resamples < 1:
            raise ValueError(f"resamples has to be at least 1, not {resamples}")
        clips = len(self.errors)
        if clips == 0:
            return float("nan"), float("nan")
        generator = np.random.default_rng(seed)
        block = max(1, 4_000_000 // clips)  # draws at a time: 32 MB of counts
        rates: list[np.ndarray] = []
        for first in range(0, resamples, block):
            size = min(block, resamples - first)
            drawn = generator.multinomial(clips, np.full(clips, 1 / clips), size=size)  # (draws, clips): how often
            lengths = drawn @ self.lengths
            rates.append(np.divide(drawn @ self.errors, lengths, out=np.full(size, np.nan), where=lengths > 0))
        tail = (1 - confidence) / 2
        low, high = np.nanquantile(np.concatenate(rates), [tail, 1 - tail]) if self.lengths.any() else (np.nan, np.nan)
        return float(low), float(high)


def normalise(text: str) -> str:
    """
    Normalises a text for comparison: upper case, no accents or punctuation but apostrophes in words, single spaces.
    """
    text = unicodedata.normalize("NFKD", text).upper().replace("\u2019", "'")
    text = "".join(character for character in text if not unicodedata.combining(character))
    text = re.sub(r"[^\w']|_", " ", text)
    return " ".join(re.sub(r"(?<!\w)'+|'+(?!\w)", " ", text).split())


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Counts substituted, deleted and inserted words of each clip (jiwer's alignment of the normalised texts)."""
    return _counts(_aligned(references, hypotheses, "words"))


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Counts substituted, deleted and inserted characters of each clip; spaces between words count."""
    return _counts(_aligned(references, hypotheses, "characters"))


def position_error(references: Sequence[str], hypotheses: Sequence[str], position: int) -> ErrorCounts:
    """Counts errors at one word position: whether that word of each reference was read as another one or left out.

    In GRID's sentences position 3 is the letter ("bin blue at F two now"), the hardest word of all.

    Args:
        references: one text per clip.
        hypotheses: what was read, one text per clip.
        position: of the word in the reference, from 0; negative ones count from the end.

    Returns:
        0 or 1 error and a length of 1 for each clip; 0 and 0 where the reference has no such word.
    """
    output = _aligned(references, hypotheses, "words")
    errors = np.zeros(len(output.references), np.int64)
    lengths = np.zeros(len(output.references), np.int64)
    for clip, (reference, chunks) in enumerate(zip(output.references, output.alignments, strict=True)):
        place = position if position >= 0 else len(reference) + position
        if not 0 <= place < len(reference):
            continue
        lengths[clip] = 1
        errors[clip] = not any(c.type == "equal" and c.ref_start_idx <= place < c.ref_end_idx for c in chunks)
    return ErrorCounts(errors, lengths)


def _aligned(references: Sequence[str], hypotheses: Sequence[str], unit: str) -> Any:
    """Aligns the normalised texts by `unit`, "words" or "characters"; returns jiwer's output."""
    try:
        import jiwer
    except ImportError:
        raise ImportError("error rates need jiwer: pip install 'lookhear[eval]'") from None
    for name, texts in (("references", references), ("hypotheses", hypotheses)):
        if isinstance(texts, str):
            raise ValueError(f"{name} has to be a list of texts, one per clip, not one text")
    if len(references) != len(hypotheses):
        raise ValueError(f"references ({len(references)}) and hypotheses ({len(hypotheses)}) differ in number")
    if not len(references):
        raise ValueError("references is empty: there is nothing to measure")
    align = jiwer.process_words if unit == "words" else jiwer.process_characters
    return align([normalise(text) for text in references], [normalise(text) for text in hypotheses])


def _counts(output: Any) -> ErrorCounts:
    errors = [
        sum(max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx) for c in chunks if c.type != "equal")
        for chunks in output.alignments
    ]
    return ErrorCounts(np.array(errors, np.int64), np.array([len(words) for words in output.references], np.int64))


def _ratio(errors: float, length: float) -> float:
    return float(errors / length) if length else float("nan")

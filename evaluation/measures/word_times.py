"""How accurate the times of words are."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher


def word_start_errors(words: Sequence[dict], chunks: Sequence[dict]) -> list[float]:
    """Measures how many seconds lie between true and found word starts, for words that were read correctly.

    Args:
        words: `{"word", "start", ...}` of the clip, in seconds.
        chunks: `{"text", "timestamp": (start, end)}` of the pipeline with `return_timestamps="word"`.

    Returns:
        One distance, 0 or more, for each word that both have.
    """
    from lookhear.processing.avsr import normalise_text

    said, found = [normalise_text(word["word"]) for word in words], [normalise_text(chunk["text"]) for chunk in chunks]
    same = SequenceMatcher(a=said, b=found, autojunk=False).get_matching_blocks()
    pairs = [(block.a + offset, block.b + offset) for block in same for offset in range(block.size)]
    return [abs(float(chunks[b]["timestamp"][0]) - float(words[a]["start"])) for a, b in pairs]

"""CTC targets for each step, from known word times: on little data they show a new model where the letters are."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from lookhear.processing.avsr import AvsrTokenizer

IGNORED = -100


class TimedClip(Protocol):
    """A clip whose word times may be known."""

    @property
    def text(self) -> str: ...

    @property
    def words(self) -> tuple[tuple[str, float, float], ...] | None: ...

    @property
    def frames(self) -> int: ...


def alignment_labels(clips: Sequence[TimedClip], tokenizer: AvsrTokenizer, steps_per_second: float) -> torch.Tensor:
    """
    Makes the targets of the alignment loss.

    Args:
        clips: of one batch.
        tokenizer: of the model.
        steps_per_second: 25 times `config.ctc_upsampling`.

    Returns:
        `(batch, steps)` int64; a row of -100 for a clip whose word times are not known.
    """
    labels = np.full((len(clips), round(max(clip.frames for clip in clips) * steps_per_second / 25)), IGNORED)
    blank, space = tokenizer.pad_token_id, tokenizer.space_id
    for row, clip in zip(labels, clips):
        if clip.words and " ".join(word for word, *_ in clip.words) == clip.text:
            words = [(tokenizer(word).input_ids[:-1], start, end) for word, start, end in clip.words]
            steps = round(clip.frames * steps_per_second / 25)
            row[:steps] = spread_letters(words, steps, steps_per_second, blank, space)
    return torch.from_numpy(labels)


def spread_letters(
    words: list[tuple[list[int], float, float]], steps: int, steps_per_second: float, blank: int, space: int
) -> np.ndarray:
    """
    Spreads the letters of each word evenly over its time; silence is blank, and so is a step between equal letters.

    Args:
        words: the letters' ids, start and end in seconds of each word, in order.
        steps: CTC steps of the clip.
        steps_per_second: 25 times `config.ctc_upsampling`.
        blank: id of CTC's blank.
        space: id of the space.

    Returns:
        `(steps,)` int64; -100 where a word has more letters than steps.
    """
    targets = np.full(steps, blank, dtype=np.int64)
    for number, (letters, start, end) in enumerate(words):
        first, last = round(start * steps_per_second), min(round(end * steps_per_second), steps)
        count = last - first
        if count < len(letters):
            targets[max(first, 0) : max(last, 0)] = IGNORED
            continue
        places = np.arange(count) * len(letters) // count  # (count,) which letter each step belongs to
        spread = np.array(letters)[places]
        begins = np.flatnonzero(np.diff(places)) + 1  # where each letter but the first begins
        spread[begins[spread[begins] == spread[begins - 1]]] = blank
        targets[first:last] = spread
        if number > 0 and first > 0:
            targets[first - 1] = space
    return targets

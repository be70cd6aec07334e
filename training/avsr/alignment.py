"""CTC targets for each step, from known word times: on little data they show a new model where the letters are."""

import numpy as np

IGNORED = -100


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

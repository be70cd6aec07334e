"""Few-shot selection: some pictures of a corpus that show each category often enough, as in ODinW's few-shot study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

ODINW_SHOTS = (1, 3, 5, 10)
ODINW_SEEDS = (3, 30, 300)  # of the published selections, `fewshot_train_shot10_seed3.json` and so on


def few_shot_places(rows: Sequence[dict[str, Any]], classes: Sequence[str], shots: int, seed: int) -> list[int]:
    """
    Chooses pictures until each class has `shots` objects in them, or all that there are.

    Pictures come in a random order; one is taken, with all its objects, if it shows a class that has too few so far.
    So frequent classes may get more than `shots`. Crowds are not counted.

    Args:
        rows: in the corpora's schema.
        classes: the classes that count.
        shots: objects of each class, at least 1.
        seed: other seeds choose other pictures.

    Returns:
        the places of the pictures in `rows`, ascending.

    Raises:
        ValueError: `shots` is less than 1, or no picture shows any of the classes.
    """
    if shots < 1:
        raise ValueError(f"shots must be at least 1, not {shots}")
    shown = [
        Counter(
            found["category"]
            for found in rows[place]["objects"]
            if found["category"] in classes and not found["crowd"]
        )
        for place in range(len(rows))
    ]
    have: Counter[str] = Counter()
    chosen = []
    for place in np.random.default_rng(seed).permutation(len(shown)).tolist():
        if any(have[name] < shots for name in shown[place]):
            have += shown[place]
            chosen.append(place)
    if not chosen:
        raise ValueError("no picture shows any of the classes: there is nothing to choose from")
    return sorted(chosen)

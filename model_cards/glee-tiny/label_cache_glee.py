"""What the text encoder made of the last few lists of labels, so that a list is encoded once and not once an image."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch

CAPACITY = 16  # lists; 80 labels take about 350 kB


class LabelCache:
    """
    Keeps the tensors of the `capacity` lists of labels that were asked for last.

    It does not see when weights change: after training or loading others, call `clear`. Not for several threads.

    Args:
        capacity: number of lists, at least 1.
    """

    def __init__(self, capacity: int = CAPACITY):
        if capacity < 1:
            raise ValueError(f"`capacity` must be at least 1, not {capacity!r}.")
        self.capacity = capacity
        self._kept: OrderedDict[tuple[str, ...], dict[str, torch.Tensor]] = OrderedDict()

    def get(self, labels: Sequence[str], encode: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """
        The tensors of a list of labels; the order of labels matters.

        Args:
            labels: the list.
            encode: called without arguments where the list is not known yet; what it returns is kept.
        """
        key = tuple(labels)
        if key not in self._kept:
            self._kept[key] = encode()
        self._kept.move_to_end(key)
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return self._kept[key]

    def clear(self) -> None:
        """Forgets everything."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, labels: object) -> bool:
        return isinstance(labels, (list, tuple)) and tuple(labels) in self._kept

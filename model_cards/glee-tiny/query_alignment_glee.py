"""Queries of successive frames put in one order: the online matching of MinVIS (Huang et al., NeurIPS 2022), as GLEE uses it."""

from __future__ import annotations

from collections import deque

import torch
from scipy.optimize import linear_sum_assignment

FRAMES_REMEMBERED = 3  # of the published code


class QueryAlignment:
    """
    Says which query of a frame goes on with which query of the first one.

    Embeddings are compared by their cosine with the mean of those of the last three frames, and matched one to one
    (Hungarian). What is kept are three frames' embeddings.
    """

    def __init__(self) -> None:
        self._aligned: deque[torch.Tensor] = deque(maxlen=FRAMES_REMEMBERED)

    def align(self, embeddings: torch.Tensor) -> torch.Tensor:
        """
        Args:
            embeddings: `(queries, size)` of the next frame.
        Returns:
            `(queries,)` int64: for each query of the first frame the one that goes on with it.
        Raises:
            ValueError: the shape isn't that of the frames before, or a number isn't finite.
        """
        if not bool(embeddings.isfinite().all()):
            raise ValueError("`embeddings` of a frame hold numbers that are not finite: nothing can be matched.")
        order = torch.arange(len(embeddings), device=embeddings.device)
        if self._aligned:
            if embeddings.shape != self._aligned[0].shape:
                raise ValueError(
                    f"`embeddings` must be {tuple(self._aligned[0].shape)} in every frame, not "
                    f"{tuple(embeddings.shape)}: pass all queries."
                )
            memory = torch.stack(list(self._aligned)).mean(dim=0)
            cosine = (memory / memory.norm(dim=1, keepdim=True)) @ (
                embeddings / embeddings.norm(dim=1, keepdim=True)
            ).T
            order = torch.from_numpy(linear_sum_assignment((1 - cosine).cpu().numpy())[1]).to(embeddings.device)
        self._aligned.append(embeddings[order].detach())
        return order


class RunningMean:
    """The mean of tensors of one shape, without keeping them."""

    def __init__(self) -> None:
        self.count, self._sum = 0, torch.zeros(())

    def add(self, values: torch.Tensor) -> torch.Tensor:
        """The mean so far, these included; float32. Raises ValueError: the shape is another one than before."""
        if self.count and values.shape != self._sum.shape:
            raise ValueError(f"a frame has logits {tuple(values.shape)}, the frames before {tuple(self._sum.shape)}.")
        self._sum = self._sum + values.float() if self.count else values.float().clone()
        self.count += 1
        return self.mean

    @property
    def mean(self) -> torch.Tensor:
        return self._sum / max(self.count, 1)

"""How alike a track and a candidate are in place and kind, and which pairs are the best in all."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment


def nearness(expected: torch.Tensor, boxes: torch.Tensor, missed: torch.Tensor) -> torch.Tensor:
    """
    How well boxes `(n, 4)` lie where tracks are expected, `(m, 4)`, both (centre x, centre y, width, height): `(m, n)` from
    0 to 1, 1 in the very place. After `missed` frames `(m,)` a track may have gone farther.
    """
    size = (expected[:, None, 2:] * boxes[None, :, 2:]).clamp(min=1.0).sqrt()  # (m, n, 2)
    off = (expected[:, None, :2] - boxes[None, :, :2]) / size
    reach = (0.5 + 0.1 * missed.float())[:, None]
    grown = (expected[:, None, 2:].clamp(min=1.0) / boxes[None, :, 2:].clamp(min=1.0)).log()
    return torch.exp(-0.5 * (off.square().sum(dim=-1) + 0.25 * grown.square().sum(dim=-1)) / reach.square())


def kind_agreement(kinds: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`(m, n)` shared over united class probabilities of `(m, K)` and `(n, K)`."""
    shared = torch.minimum(kinds[:, None], others[None]).sum(dim=-1)
    return shared / torch.maximum(kinds[:, None], others[None]).sum(dim=-1).clamp(min=1e-6)


def best_pairs(similarity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of `(m, n)`, `(k,)` int64 each: one to one, the most similar in all; never a pair of similarity 0."""
    rows, columns = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)
    rows, columns = (torch.from_numpy(places).to(similarity.device) for places in (rows, columns))
    good = similarity[rows, columns] > 0
    return rows[good], columns[good]

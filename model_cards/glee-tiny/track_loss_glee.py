"""Contrastive loss on the queries of successive frames: those of one object become alike (paper, section 3.4; IDOL)."""

from collections.abc import Sequence

import torch
from torch import nn

# Queries of the frame before that stand for nothing, at most.
MOST_NEGATIVES = 20


def draw_negatives(matched: Sequence[torch.Tensor], queries: int, count: int = MOST_NEGATIVES) -> torch.Tensor:
    """
    Queries at random that answer for no object.

    Args:
        matched: for each row the queries that do, `(n,)` int64; queries: of a row, in all.
    Returns:
        `(rows, negatives)` int64; at most `count` a row, as many for each.
    """
    order = torch.rand(len(matched), queries, device=matched[0].device)
    for row, taken in zip(order, matched):
        row[taken] = -1
    most = max(len(taken) for taken in matched)
    return order.topk(min(count, queries - most), dim=1).indices


def track_loss(
    embeddings: torch.Tensor,
    matched: Sequence[torch.Tensor],
    tracks: Sequence[torch.Tensor],
    frames: int,
    negatives: torch.Tensor,
) -> torch.Tensor:
    """
    log(1 + sum over pairs of one object, and over pairs of different ones, of exp(score of these - score of those)) of
    each frame and the one before; the scores are dot products. Divided by the number of objects in the later frames.

    Args:
        embeddings: `(rows, queries, size)`; the rows are clips of `frames` successive frames.
        matched: for each row the queries that answer for its objects, `(n,)` int64; tracks: whom, `(n,)` int64.
        negatives: `(rows, any)` int64, queries that answer for none.
    Returns:
        a float32 scalar; 0 where no later frame has an object.
    """
    losses, anchors = [embeddings.new_zeros((), dtype=torch.float32)], 0
    for row in range(len(embeddings)):
        if row % frames == 0 or not len(matched[row]):
            continue
        before = torch.cat((matched[row - 1], negatives[row - 1]))
        scores = embeddings[row - 1, before].float() @ embeddings[row, matched[row]].float().T  # (before, now)
        same = scores.new_zeros(scores.shape, dtype=torch.bool)
        same[: len(matched[row - 1])] = tracks[row - 1][:, None] == tracks[row]
        # The sum over all pairs of pairs is the product of two sums; the lowest number is a term that doesn't count.
        lowest = torch.finfo(scores.dtype).min
        apart = scores.masked_fill(same, lowest).flatten().logsumexp(0)
        together = (-scores).masked_fill(~same, lowest).flatten().logsumexp(0)
        losses.append(nn.functional.softplus(apart + together))
        anchors += len(matched[row])
    return torch.stack(losses).sum() / max(anchors, 1)

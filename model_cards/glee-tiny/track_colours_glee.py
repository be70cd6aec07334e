"""What colour a candidate has, and how well its colour fits a track's: embeddings know colours badly."""

from __future__ import annotations

import torch

# By which colours of one thing may differ, in standard deviations of the pictures that the model was made for.
SPREAD = 0.5


def mask_colours(picture: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """
    Mean colours of what masks show.

    Args:
        picture: `(3, H, W)`, normalized as the model takes it; masks: `(n, h, w)` logits over the same canvas.
    Returns:
        `(n, 3)` float32, of the pixels in the middle of the masks' cells, so that little of what is around gets in; NaN where
        no pixel is inside.
    """
    middles = torch.nn.functional.interpolate(
        picture[None].float(), size=masks.shape[1:], mode="bilinear", align_corners=False
    )
    inside = (masks > 0).flatten(1).float()
    return inside @ middles[0].flatten(1).T / inside.sum(dim=1, keepdim=True)


def colour_agreement(colours: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`(m, n)` from 0 to 1 of colours `(m, 3)` and `(n, 3)`; NaN where one of the two is not known."""
    away = (colours[:, None] - others[None]).square().sum(dim=-1)
    return torch.exp(-0.5 * away / SPREAD**2)


def mixed_colours(colours: torch.Tensor, others: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """`(n, 3)` of two `(n, 3)`, `(n, 1)` the share of the others; where one is not known, the other."""
    mixed = colours + share * (others - colours)
    return torch.where(mixed.isfinite(), mixed, torch.where(others.isfinite(), others, colours))

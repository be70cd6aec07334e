"""One object of the pipeline's answer, in plain values."""

from __future__ import annotations

from typing import Any

import torch


def plain_result(score: float, label: str, box: torch.Tensor, mask: torch.Tensor, **further: Any) -> dict[str, Any]:
    """
    Args:
        score: from 0 to 1; box: `(4,)` (x0, y0, x1, y1) in pixels; mask: `(height, width)` bool of the whole picture.
        further: what stands before these.

    Returns:
        `{**further, "score", "label", "box": {"xmin", "ymin", "xmax", "ymax"}, "mask"}`: the score with 4 digits behind the
        point, the box with 2 and inside the picture, the mask as an array of numpy.
    """
    height, width = mask.shape
    x0, y0, x1, y1 = box.float().tolist()
    sides = (min(max(x0, 0.0), width), min(max(y0, 0.0), height), min(max(x1, 0.0), width), min(max(y1, 0.0), height))
    return {
        **further,
        "score": round(score, 4),
        "label": label,
        "box": {name: round(float(side), 2) for name, side in zip(("xmin", "ymin", "xmax", "ymax"), sides)},
        "mask": mask.cpu().numpy(),
    }

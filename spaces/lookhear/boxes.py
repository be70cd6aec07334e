"""How near two boxes are."""

from __future__ import annotations

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


def are_near(first: Box, second: Box, across: float, down: float) -> bool:
    """
    Returns whether two boxes touch or overlap, or would with a margin around the first one.

    Args:
        first: a box.
        second: another one; one without an area is a point.
        across: pixels of the margin to the left and to the right.
        down: pixels of the margin above and below.
    """
    x0, y0, x1, y1 = first[0] - across, first[1] - down, first[2] + across, first[3] + down
    return x0 <= second[2] and second[0] <= x1 and y0 <= second[3] and second[1] <= y1

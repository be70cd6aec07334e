"""Sampling of the frames of a video that are trained on together."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np


class VideoIndex:
    """
    Finds the rows of a video around one of its frames.

    Args:
        videos: of each row, None for stills.
        frames: place of each row in its video.
    """

    def __init__(self, videos: Sequence[str | None], frames: Sequence[int | None]):
        of_video: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row, (video, frame) in enumerate(zip(videos, frames)):
            if video is not None and frame is not None:
                of_video[video].append((frame, row))
        self._rows = {video: np.array([row for _, row in sorted(pairs)]) for video, pairs in of_video.items()}
        self._places = {
            int(row): (video, place) for video, rows in self._rows.items() for place, row in enumerate(rows)
        }

    def clip(self, row: int, frames: int, reach: int, random: np.random.Generator) -> list[int]:
        """
        Samples a clip around a frame: its row and others of its video, in the order of time.

        Args:
            row: of the frame; a still is repeated.
            frames: number of frames of the clip.
            reach: most annotated frames between the frame and the others.
            random: for all random choices.

        Returns:
            `frames` rows, each once if the video has enough.
        """
        if row not in self._places:
            return [row] * frames
        video, place = self._places[row]
        first = max(0, place - reach)
        near = [int(other) for other in self._rows[video][first : place + reach + 1] if other != row]
        if len(near) >= frames - 1:
            chosen = list(random.choice(near, size=frames - 1, replace=False)) if frames > 1 else []
        else:
            chosen = list(random.choice([row, *near], size=frames - 1))
        return sorted((int(other) for other in [row, *chosen]), key=lambda other: self._places[other][1])

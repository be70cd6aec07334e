"""Targets of the alignment loss, from known word times: a label for each CTC step, or a window for each label."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from lookhear.processing.avsr import AvsrTokenizer

IGNORED = -100
SPACE_STEPS = 2  # of a space's own time, on either side of where its next word begins


class TimedClip(Protocol):
    """A clip whose word times may be known."""

    @property
    def text(self) -> str: ...

    @property
    def words(self) -> tuple[tuple[str, float, float], ...] | None: ...

    @property
    def frames(self) -> int: ...


@dataclass(frozen=True)
class AlignmentTargets:
    """
    Makes the input of the alignment loss for a batch.

    Attributes:
        tokenizer: of the model.
        steps_per_second: 25 times `config.ctc_upsampling`.
        margin: steps by which a window exceeds its label's time, at least 0; None: a label for each step.
    """

    tokenizer: AvsrTokenizer
    steps_per_second: float
    margin: int | None = None

    def __call__(self, clips: Sequence[TimedClip], labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the argument of the model's `forward` for clips whose `labels` are `(batch, length)`."""
        if self.margin is None:
            return {"alignment_labels": alignment_labels(clips, self.tokenizer, self.steps_per_second)}
        windows = alignment_windows(clips, labels, self.tokenizer, self.steps_per_second, self.margin)
        return {"alignment_windows": windows}


def alignment_labels(clips: Sequence[TimedClip], tokenizer: AvsrTokenizer, steps_per_second: float) -> torch.Tensor:
    """
    Makes the targets of the alignment loss.

    Args:
        clips: of one batch.
        tokenizer: of the model.
        steps_per_second: 25 times `config.ctc_upsampling`.

    Returns:
        `(batch, steps)` int64; a row of -100 for a clip whose word times are not known, and blanks for one whose
        words are none.
    """
    labels = np.full((len(clips), round(max(clip.frames for clip in clips) * steps_per_second / 25)), IGNORED)
    blank, space = tokenizer.pad_token_id, tokenizer.space_id
    for row, clip in zip(labels, clips):
        if clip.words is not None and " ".join(word for word, *_ in clip.words) == clip.text:
            words = [(tokenizer(word).input_ids[:-1], start, end) for word, start, end in clip.words]
            steps = round(clip.frames * steps_per_second / 25)
            row[:steps] = spread_letters(words, steps, steps_per_second, blank, space)
    return torch.from_numpy(labels)


def spread_letters(
    words: list[tuple[list[int], float, float]], steps: int, steps_per_second: float, blank: int, space: int
) -> np.ndarray:
    """
    Spreads the letters of each word evenly over its time; silence is blank, and so is a step between equal letters.

    Args:
        words: the letters' ids, start and end in seconds of each word, in order.
        steps: CTC steps of the clip.
        steps_per_second: 25 times `config.ctc_upsampling`.
        blank: id of CTC's blank.
        space: id of the space.

    Returns:
        `(steps,)` int64; -100 where a word has more letters than steps.
    """
    targets = np.full(steps, blank, dtype=np.int64)
    for number, (letters, start, end) in enumerate(words):
        first, last = round(start * steps_per_second), min(round(end * steps_per_second), steps)
        count = last - first
        if count < len(letters):
            targets[max(first, 0) : max(last, 0)] = IGNORED
            continue
        places = np.arange(count) * len(letters) // count  # (count,) which letter each step belongs to
        spread = np.array(letters)[places]
        begins = np.flatnonzero(np.diff(places)) + 1  # where each letter but the first begins
        spread[begins[spread[begins] == spread[begins - 1]]] = blank
        targets[first:last] = spread
        if number > 0 and first > 0:
            targets[first - 1] = space
    return targets


def alignment_windows(
    clips: Sequence[TimedClip],
    labels: torch.Tensor,
    tokenizer: AvsrTokenizer,
    steps_per_second: float,
    margin: int,
) -> torch.Tensor:
    """
    Makes the windows of the alignment loss.

    Args:
        clips: of one batch.
        labels: `(batch, length)` int64, their texts.
        tokenizer: of the model.
        steps_per_second: 25 times `config.ctc_upsampling`.
        margin: see [`label_windows`].

    Returns:
        `(batch, length, 2)` int64: the first step at which each label may be said, and the one after the last. EOS,
        and each label of a clip whose word times are not known, may be said at any.
    """
    frames = max(clip.frames for clip in clips)
    windows = torch.zeros(*labels.shape, 2, dtype=torch.long)
    windows[..., 1] = math.ceil(frames * steps_per_second / 25)
    for row, targets, clip in zip(windows, labels.tolist(), clips):
        words = [(tokenizer(word).input_ids[:-1], start, end) for word, start, end in clip.words or ()]
        spelled = [label for letters, *_ in words for label in (*letters, tokenizer.space_id)][:-1]
        if words and spelled == targets[: targets.index(tokenizer.eos_token_id)]:
            steps = round(clip.frames * steps_per_second / 25)
            row[: len(spelled)] = torch.from_numpy(label_windows(words, steps, steps_per_second, margin))
    return windows


def label_windows(
    words: list[tuple[list[int], float, float]], steps: int, steps_per_second: float, margin: int
) -> np.ndarray:
    """
    Finds the steps at which each label of a text may be said: a letter within its own share of its word's time, a
    space within two steps of its next word's start, and `margin` steps around either.

    Args:
        words: the letters' ids, start and end in seconds of each word, in order.
        steps: CTC steps of the clip.
        steps_per_second: 25 times `config.ctc_upsampling`.
        margin: in steps, at least 0.

    Returns:
        `(labels, 2)` int64: the first step of each window and the one after its last; nothing is left of a window
        that lies outside the clip.
    """
    spans: list[tuple[float, float]] = []
    for number, (letters, start, end) in enumerate(words):
        first, share = start * steps_per_second, (end - start) * steps_per_second / max(len(letters), 1)
        if number:
            spans.append((first - SPACE_STEPS, first + SPACE_STEPS))
        spans += [(first + place * share, first + (place + 1) * share) for place in range(len(letters))]
    times = np.array(spans, dtype=np.float64).reshape(-1, 2).round(6)  # 0.1 + 0.2 is no step later than 0.3
    widened = np.floor(times[:, 0]) - margin, np.ceil(times[:, 1]) + margin
    return np.stack(widened, axis=1).clip(0, steps).astype(np.int64)

"""How clips are read: the arguments of a call of the pipeline, checked, in one object."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from .chunking_avsr import SHORTEST_CHUNK
from .clip_avsr import MODALITIES
from .clip_stream_avsr import ClipPiece
from .speaker_locator_avsr import Speaker, check_speaker

TIMESTAMPS = (False, "word", "char")


@dataclass(frozen=True)
class ReadingSettings:
    """
    Arguments of a call of [`AudioVisualSpeechRecognitionPipeline`], which explains them; None is the checkpoint's value.

    Raises:
        ValueError: one of them is invalid, or two are incompatible.
    """

    modality: str = "auto"
    return_timestamps: bool | str | None = None
    num_beams: int | None = None
    num_return_sequences: int | None = None
    ctc_weight: float | None = None
    chunk_length_s: float | None = None
    speaker: Speaker | None = None
    speaker_locator: Any = None
    speaker_model: str | os.PathLike | None = None
    lip_evidence: float | None = None
    on_piece: Callable[[ClipPiece], object] | None = None
    batch_size: int | None = None
    num_workers: int | None = (
        None  # every pipeline takes it; clips are read by threads of their own, so it is not used
    )

    def __post_init__(self):
        if self.modality not in MODALITIES:
            raise ValueError(f"`modality` must be one of {', '.join(map(repr, MODALITIES))}, not {self.modality!r}.")
        if self.return_timestamps is not None and self.return_timestamps not in TIMESTAMPS:
            raise ValueError(f'`return_timestamps` must be False, "word" or "char", not {self.return_timestamps!r}.')
        self._check_search()
        length = self.chunk_length_s
        if length is not None and not (_is_number(length) and SHORTEST_CHUNK <= length < math.inf):
            raise ValueError(
                f"`chunk_length_s` must be None or a number of seconds, {SHORTEST_CHUNK:g} or more, not {length!r}."
            )
        self._check_speaker()
        if self.on_piece is not None and not callable(self.on_piece):
            raise ValueError(f"`on_piece` must be a function, not {self.on_piece!r}.")
        if self.batch_size is not None and not _is_count(self.batch_size):
            raise ValueError(f"`batch_size` must be a positive integer, not {self.batch_size!r}.")

    def _check_search(self) -> None:
        for name in ("num_beams", "num_return_sequences"):
            value = getattr(self, name)
            if value is not None and not _is_count(value):
                raise ValueError(f"`{name}` must be a positive integer, not {value!r}.")
        texts, beams = self.num_return_sequences, self.num_beams
        if beams is not None and texts is not None and texts > beams:
            raise ValueError(f"`num_return_sequences` ({texts}) must not be more than `num_beams` ({beams}).")
        if self.ctc_weight is not None and not (_is_number(self.ctc_weight) and 0 <= self.ctc_weight <= 1):
            raise ValueError(f"`ctc_weight` must be a number from 0 to 1, not {self.ctc_weight!r}.")

    def _check_speaker(self) -> None:
        if self.speaker is not None:
            object.__setattr__(self, "speaker", check_speaker(self.speaker))  # the same with plain numbers
            if self.modality == "audio":
                raise ValueError('`speaker` chooses among faces, and `modality` is "audio": no faces are looked at.')
        if self.speaker_locator is not None and not callable(self.speaker_locator):
            raise ValueError(f"`speaker_locator` must be a function or a pipeline, not {self.speaker_locator!r}.")
        if self.speaker_model is not None and not isinstance(self.speaker_model, (str, os.PathLike)):
            raise ValueError(f"`speaker_model` must be a folder or a Hub id, not {self.speaker_model!r}.")
        if self.lip_evidence is not None and not (_is_number(self.lip_evidence) and 0 <= self.lip_evidence <= 1):
            raise ValueError(f"`lip_evidence` must be a number from 0 to 1, not {self.lip_evidence!r}.")

    def changed(self, **given: Any) -> ReadingSettings:
        """
        Returns these settings with those that a caller gave instead.

        Args:
            given: names and values; None leaves a setting as it is.

        Raises:
            ValueError: a name is unknown, or a value invalid.
        """
        if unknown := [name for name in given if name not in SETTING_NAMES]:
            known = ", ".join(SETTING_NAMES)
            raise ValueError(f"Unknown argument {', '.join(map(repr, unknown))}: there are {known}.")
        return replace(self, **{name: value for name, value in given.items() if value is not None})


SETTING_NAMES = tuple(field.name for field in fields(ReadingSettings))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

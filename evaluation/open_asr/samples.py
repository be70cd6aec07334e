"""What the Open ASR Leaderboard measures on: streamed samples, sound at 16 kHz, texts in its spelling."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = "hf-audio/esb-datasets-test-only-sorted"
DATASETS = (
    *("ami:test", "earnings22:test", "gigaspeech:test", "librispeech:test.clean", "librispeech:test.other"),
    *("spgispeech:test", "tedlium:test", "voxpopuli:test"),
)  # config:split
COLUMNS = ("text", "sentence", "normalized_text", "transcript", "transcription")  # the first one that is there
NOT_SCORED = "ignore time segment in scoring"
SAMPLING_RATE = 16000  # Hz
Normaliser = Callable[[str], str]


@dataclass(frozen=True)
class Sample:
    """One recording: `audio` is (samples,) float32 at 16 kHz, `text` what is said, normalised."""

    audio: np.ndarray
    text: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.audio) / SAMPLING_RATE


def load_normaliser(spelling: str | Path | None) -> Normaliser:
    """
    Returns the leaderboard's normaliser of English texts, which is Whisper's.

    Args:
        spelling: JSON file that maps British spellings to American ones: the `normalizer.json` of any Whisper
            checkpoint; None to leave spellings as they are.

    Raises:
        ValueError: the file is unusable.
    """
    from transformers import WhisperTokenizer

    mapping: Any = {}
    if spelling is not None:
        try:
            mapping = json.loads(Path(spelling).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"--spelling {spelling} cannot be read as JSON: {error}") from None
        if not isinstance(mapping, dict) or not all(isinstance(word, str) for word in mapping.values()):
            raise ValueError(f"--spelling {spelling} has to map words to words, like a Whisper's normalizer.json")
    tokenizer = WhisperTokenizer()  # without a vocabulary; it is needed for its `normalize` alone
    tokenizer.english_spelling_normalizer = mapping
    return tokenizer.normalize


def stream_samples(
    repository: str, dataset: str, normalise: Normaliser, *, limit: int | None = None
) -> Iterator[Sample]:
    """
    Yields the samples of a data set that are scored: those whose text is not empty once it is normalised.

    Args:
        repository: Hub id of a dataset, or a folder of that form.
        dataset: "CONFIG:SPLIT"; ":SPLIT" for a repository with one config.
        normalise: see `load_normaliser`.
        limit: number of samples to look at, from the first; None for all.

    Raises:
        ValueError: there is no such data set, it has no text, or a sound cannot be read.
    """
    for number, row in enumerate(islice(_rows(repository, dataset), limit)):
        column = next((name for name in COLUMNS if isinstance(row.get(name), str)), None)
        if column is None:
            raise ValueError(f"{repository} {dataset} has no column of texts: one of {', '.join(COLUMNS)} is needed")
        text = normalise(row[column]).strip()
        if text and text != NOT_SCORED:
            yield Sample(_sound(row.get("audio"), f"sample {number} of {dataset}"), text)


def _rows(repository: str, dataset: str) -> Iterator[Mapping[str, Any]]:
    """Yields a data set's rows as they come, sounds as the bytes of their files."""
    from datasets import Audio, load_dataset

    config, colon, split = dataset.rpartition(":")
    if not colon or not split:
        raise ValueError(f"--dataset {dataset!r} has to be CONFIG:SPLIT, such as librispeech:test.clean")
    try:
        rows = load_dataset(repository, config or None, split=split, streaming=True)
        if "audio" not in (rows.column_names or ["audio"]):
            raise ValueError("it has no column 'audio'")
        yield from rows.cast_column("audio", Audio(decode=False))
    except (ValueError, OSError, KeyError) as error:  # of datasets and the Hub
        reason = " ".join(str(error).split())
        raise ValueError(f"--dataset {dataset} of {repository} cannot be read: {reason}") from None


def _sound(value: Any, name: str) -> np.ndarray:
    """Decodes a sound to one channel at 16 kHz."""
    from lookhear.processing.avsr import MediaError, read_audio

    source = None if not isinstance(value, dict) else value.get("bytes") or value.get("path")
    try:
        audio = None if source is None else read_audio(source, SAMPLING_RATE, trim_to_video=False)
    except MediaError as error:
        raise ValueError(f"{name} cannot be read: {error}") from None
    if audio is None or not len(audio):
        raise ValueError(f"{name} has no sound")
    return audio

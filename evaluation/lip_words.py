"""Words read from lips: the share of clips whose word a classifier recognises, as LRW's test split is measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lookhear.evaluation.measures.rates import ErrorCounts

CLASSIFIER = "AvsrForVideoClassification"
SPLIT = "test"  # of LRW


@dataclass(frozen=True)
class WordResult:
    """
    What a classifier has read; all lists are in the order of the clips.

    Attributes:
        ids: of the clips.
        references: the words spoken, upper case.
        found: the words recognised; None where no mouth was found, which counts as an error.
        seed: of the interval.
    """

    ids: list[str] = field(repr=False)
    references: list[str] = field(repr=False)
    found: list[str | None] = field(repr=False)
    seed: int = 0

    @property
    def errors(self) -> ErrorCounts:
        """0 or 1 error of each clip, its length 1."""
        wrong = [word != reference for word, reference in zip(self.found, self.references, strict=True)]
        return ErrorCounts(np.array(wrong, np.int64), np.ones(len(wrong), np.int64))

    @property
    def accuracy(self) -> float:
        """Share of the clips whose word was recognised, in [0, 1]."""
        return 1 - self.errors.rate

    def by_word(self) -> dict[str, tuple[int, int]]:
        """Returns, for each word spoken, the clips whose word was recognised and all of its clips."""
        counts: dict[str, tuple[int, int]] = {}
        for word, reference in sorted(zip(self.found, self.references, strict=True), key=lambda pair: pair[1]):
            right, clips = counts.get(reference, (0, 0))
            counts[reference] = right + (word == reference), clips + 1
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures: the accuracy as a fraction, `interval` its 95 % bootstrap interval over the clips."""
        low, high = self.errors.interval(seed=self.seed)
        return {
            "accuracy": self.accuracy,
            "interval": [1 - high, 1 - low],
            "clips": len(self.ids),
            "words": len(set(self.references)),
            "without_mouth": self.found.count(None),
        }


def evaluate_words(
    model: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    batch_size: int = 32,
    limit: int | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    allow_outside: bool = False,
) -> WordResult:
    """
    Measures a classifier of words on clips of one word each.

    Args:
        model: folder or Hub id of an `AvsrForVideoClassification`.
        data: LRW as it is published, a folder with a `metadata.jsonl` beside the videos, or one made by
            `lookhear prepare` with the crops that the checkpoint expects.
        split: part of LRW or of the folder; None for LRW's test split, and for all of a folder.
        batch_size: clips read together.
        limit: only the first clips.
        seed: of the interval.
        device: "cpu", "cuda", "cuda:1", ...; None for the first accelerator, else the CPU.
        progress: called with a label, the number of clips done, and their number.
        allow_outside: whether a `metadata.jsonl` may name files outside of its folder.

    Raises:
        ValueError: an argument or the folder is unusable, or a word is none of the model's.
        MediaError: a clip cannot be read.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size has to be at least 1, not {batch_size}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit has to be at least 1, not {limit}")
    reader = LipReader(model, device)
    rows = open_clips(Path(data), split, reader.image_processor, allow_outside)[:limit]
    words = [text.upper() for _, text, _ in rows]
    if unknown := sorted(set(words) - set(reader.words)):
        raise ValueError(
            f"{data} has words that the model does not know: {', '.join(unknown[:5])}; it knows {len(reader.words)}"
        )
    found: list[str | None] = []
    for first in range(0, len(rows), batch_size):
        found += reader([load() for _, _, load in rows[first : first + batch_size]])
        if progress is not None:
            progress("words", len(found), len(rows))
    return WordResult([name for name, _, _ in rows], words, found, seed)


class LipReader:
    """
    A classifier of words with its image processor.

    Args:
        model: folder or Hub id.
        device: None for the first accelerator, else the CPU.

    Raises:
        ValueError: the checkpoint is no classifier of words.
    """

    def __init__(self, model: str | Path, device: str | None = None):
        import torch
        from transformers import AutoConfig, AutoModelForVideoClassification, AutoProcessor

        import lookhear  # noqa: F401 - registers the classes

        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        if CLASSIFIER not in (config.architectures or []):
            raise ValueError(
                f"--model {model} is no classifier of words ({CLASSIFIER}); `lookhear train lrw_words.yaml` makes one"
            )
        here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.model: Any = (
            AutoModelForVideoClassification.from_pretrained(model, trust_remote_code=False)
            .eval()
            .to(device or here or "cpu")
        )
        self.image_processor: Any = AutoProcessor.from_pretrained(model, trust_remote_code=False).image_processor
        self.labels = {number: word.upper() for number, word in self.model.config.id2label.items()}

    @property
    def words(self) -> list[str]:
        """The words that it tells apart, upper case."""
        return list(self.labels.values())

    def __call__(self, clips: Sequence[np.ndarray | None]) -> list[str | None]:
        """
        Reads clips.

        Args:
            clips: `(frames, roi, roi)` uint8 mouths, or None.

        Returns:
            A word for each clip, None for None.
        """
        import torch

        there = [number for number, mouths in enumerate(clips) if mouths is not None]
        words: list[str | None] = [None] * len(clips)
        if there:
            inputs = self.image_processor([clips[number] for number in there], return_tensors="pt")
            with torch.inference_mode():
                logits = self.model(**inputs.to(self.model.device)).logits  # (clips, words)
            for number, best in zip(there, logits.argmax(dim=-1).tolist(), strict=True):
                words[number] = self.labels[best]
        return words


Clip = tuple[str, str, Callable[[], np.ndarray | None]]  # id, text, what loads the mouths


def open_clips(data: Path, split: str | None, image_processor: Any, allow_outside: bool = False) -> list[Clip]:
    """
    Lists the clips of a prepared folder, of a folder with a `metadata.jsonl`, or of LRW; each is read when needed.

    Args:
        data: the folder.
        split: see [`evaluate_words`].
        image_processor: cuts out the mouths, or has to fit those that are cut out.
        allow_outside: see [`evaluate_words`].

    Raises:
        ValueError: the folder is none of these, or was prepared with other crops.
    """
    from lookhear.training.avsr.corpora import read_folder, read_lrw
    from lookhear.training.avsr.prepare import check_geometry, decode_row, load_prepared, prepare_clip, shard_files

    if shard_files(data):
        if split is not None:
            raise ValueError(f"--split: {data} is prepared and has the clips of one split; leave it out")
        rows = load_prepared(data)
        check_geometry([data], image_processor)
        names = rows.select_columns(["id", "text"])
        return [(row["id"], row["text"], _at(rows, number, decode_row)) for number, row in enumerate(names)]
    is_folder = (data / "metadata.jsonl").is_file() or any(data.glob("*/metadata.jsonl"))
    if is_folder:
        utterances = list(read_folder(data, split, allow_outside=allow_outside))
    else:
        utterances = list(read_lrw(data, split or SPLIT))

    def prepared(utterance: Any) -> dict:
        return decode_row(prepare_clip(utterance, image_processor))

    return [(clip.id, clip.text, _at(utterances, number, prepared)) for number, clip in enumerate(utterances)]


def _at(rows: Any, number: int, decode: Callable[[Any], dict]) -> Callable[[], np.ndarray | None]:
    return lambda: decode(rows[number])["mouths"]


def format_words(row: dict[str, Any]) -> str:
    """Formats the figures of [`WordResult.to_dict`] as a table, rates in per cent."""
    low, high = row["interval"]
    cells = [("accuracy %", f"{100 * row['accuracy']:.1f}"), ("95 % interval", f"{100 * low:.1f} to {100 * high:.1f}")]
    cells += [(name.replace("_", " "), str(row[name])) for name in ("clips", "words", "without_mouth")]
    widths = [max(map(len, pair)) for pair in cells]
    head, line = ("  ".join(pair[i].rjust(width) for pair, width in zip(cells, widths, strict=True)) for i in (0, 1))
    return f"{head}\n{'-' * len(head)}\n{line}\n"


def words_to_csv(result: WordResult) -> str:
    """Formats one line for each word spoken, those that are recognised least often first."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["word", "right", "clips"])
    writer.writerows(_worst_first(result.by_word()))
    return buffer.getvalue()


def _worst_first(counts: dict[str, tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    for word, (right, clips) in sorted(counts.items(), key=lambda item: (item[1][0] / item[1][1], item[0])):
        yield word, right, clips

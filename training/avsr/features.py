"""Clips by what the frozen parts of a model computed of them: the last stage of the paper computes it once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import load_dataset
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from lookhear.processing.avsr import AvsrProcessor
from lookhear.training.avsr.alignment import alignment_labels
from lookhear.training.avsr.augmentation import Words


@dataclass(frozen=True)
class EncodedClip:
    """
    A clip as the trained parts of a model see it.

    Attributes:
        text: the words that are spoken.
        frames: length of the clip in video frames.
        audio: `(frames, hidden_size)` bfloat16, the output of the sound's back-end, or None.
        visual: the same of the lips.
        words: `(word, start, end)` in seconds, or None if the times are not known.
    """

    text: str
    frames: int
    audio: torch.Tensor | None = None
    visual: torch.Tensor | None = None
    words: Words | None = None


class FeatureClips(Dataset):
    """
    Stored clips. In epoch n version n is seen, and after the last version the first one again.

    Args:
        files: the shards, in order.
        clips: number of clips in each version.
        hidden_size: of the model.
    """

    def __init__(self, files: Sequence[Path], clips: int, hidden_size: int):
        self.rows = load_dataset("parquet", data_files={"train": [str(path) for path in files]}, split="train")
        self.clips, self.hidden_size, self.epoch = clips, hidden_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, counted from 0; called at the start of each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index: int) -> EncodedClip:
        version = self.epoch % (len(self.rows) // self.clips)
        row = self.rows[version * self.clips + index]
        words = row["words"] and tuple((word["word"], word["start"], word["end"]) for word in row["words"])
        audio, visual = (self._read(row[name]) for name in ("audio", "visual"))
        return EncodedClip(row["text"], row["frames"], audio, visual, words)

    def _read(self, data: bytes | None) -> torch.Tensor | None:
        if data is None:
            return None
        return torch.frombuffer(bytearray(data), dtype=torch.bfloat16).view(-1, self.hidden_size)


@dataclass
class FeatureCollator:
    """
    Makes a batch of stored clips.

    Attributes:
        processor: makes the labels.
        steps_per_second: see [`ClipCollator`].
    """

    processor: AvsrProcessor
    steps_per_second: float | None = None

    def __call__(self, clips: list[EncodedClip]) -> dict[str, torch.Tensor]:
        inputs = dict(self.processor(text=[clip.text for clip in clips], return_tensors="pt"))
        encodings = {"audio": [clip.audio for clip in clips], "visual": [clip.visual for clip in clips]}
        frames = max(len(states) for part in encodings.values() for states in part if states is not None)
        for name, part in encodings.items():
            present = [states for states in part if states is not None]
            if present:
                padded = [present[0].new_zeros(0, present[0].shape[1]) if s is None else s for s in part]
                padded.append(present[0].new_zeros(frames, present[0].shape[1]))  # both modalities' length
                lengths = torch.tensor([len(states) for states in padded[:-1]])
                inputs[f"{name}_encodings"] = pad_sequence(padded, batch_first=True)[:-1]
                inputs[f"{name}_encoding_mask"] = torch.arange(frames) < lengths[:, None]
        if self.steps_per_second is not None:
            inputs["alignment_labels"] = alignment_labels(clips, self.processor.tokenizer, self.steps_per_second)
        return inputs

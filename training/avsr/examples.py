"""Prepared clips as a data set of training examples, and batches of them."""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset

from lookhear.processing.avsr import AvsrProcessor
from lookhear.training.avsr.alignment import alignment_labels
from lookhear.training.avsr.augmentation import Clip, augment, cut_at_words, splice_word, word_window
from lookhear.training.avsr.forced_alignment import FOUND_WORDS, read_words
from lookhear.training.avsr.prepare import decode_audio, decode_row
from lookhear.training.avsr.recipe import AugmentationRecipe, DataRecipe


def read_clip(row: dict) -> Clip:
    """Returns a row of a prepared folder as a [`Clip`]."""
    decoded = decode_row(row)
    words = decoded["words"] and tuple((word["word"], word["start"], word["end"]) for word in decoded["words"])
    words = words or read_words(row.get(FOUND_WORDS))
    return Clip(decoded["text"], decoded["audio"], decoded["mouths"], words)


class TrainingClips(torch.utils.data.Dataset):
    """
    Augmented clips. Clip number i of an epoch is the same in any order, process or worker: its generator is seeded by
    (seed, epoch, i), so a resumed or distributed run sees what an uninterrupted one sees.

    Args:
        rows: from `load_prepared`.
        augmentation: of the recipe.
        data: of the recipe.
        crop_size: side of the network's input, in pixels.
        seed: of everything random.
    """

    def __init__(
        self, rows: Dataset, augmentation: AugmentationRecipe, data: DataRecipe, crop_size: int, seed: int = 0
    ):
        self.rows, self.augmentation, self.data = rows, augmentation, data
        self.crop_size, self.seed, self.epoch = crop_size, seed, 0
        self.voices = self._collect_voices() if augmentation.noise_probability else []
        self.splice_partners = self._find_splice_partners() if augmentation.splice_probability else {}

    def _collect_voices(self) -> list[tuple[int, np.ndarray]]:
        """Reads the sound of some clips, for noise: pairs of row number and wave."""
        generator = np.random.default_rng([self.seed, 1])
        chosen = generator.permutation(len(self.rows))[: self.augmentation.noise_bank]
        columns = self.rows.select_columns(["audio"])
        waves = ((int(i), decode_audio(columns[int(i)]["audio"])) for i in chosen)
        return [(index, wave) for index, wave in waves if wave is not None and np.abs(wave).max(initial=0) > 0]

    def _find_splice_partners(self) -> dict[int, list[int]]:
        """Finds, for each row with word times, the rows of the same speaker with the same number of words."""
        groups = defaultdict(list)
        columns = self.rows.select_columns(["speaker", "words"])
        for index, row in enumerate(columns):
            if row["words"] and row["speaker"]:
                groups[row["speaker"], len(row["words"])].append(index)
        return {index: group for group in groups.values() if len(group) > 1 for index in group}

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, counted from 0; called at the start of each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Clip:
        generator = np.random.default_rng([self.seed, self.epoch, index])
        augmentation = self.augmentation.at(self.epoch)
        row = self.rows[index]
        clip = read_clip(row)
        clip = self._splice(clip, index, augmentation.splice_probability, generator)
        if self.data.word_window:
            clip = word_window(clip, self.data.word_window, generator, self.data.max_frames)
        if clip.frames > self.data.max_frames:
            clip = cut_at_words(clip, self.data.max_frames)
        if not row["words"]:  # times that an aligner found are for cutting only
            clip = replace(clip, words=None)
        others = [wave for row, wave in self.voices if row != index]
        return augment(clip, augmentation, self.crop_size, others, generator)

    def _splice(self, clip: Clip, index: int, probability: float, generator: np.random.Generator) -> Clip:
        if index not in self.splice_partners or clip.words is None:
            return clip
        for place in range(len(clip.words)):
            if generator.random() < probability:
                other = self.splice_partners[index][int(generator.integers(len(self.splice_partners[index])))]
                clip = splice_word(clip, read_clip(self.rows[other]), place)
        return clip


class EvaluationClips(torch.utils.data.Dataset):
    """Clips without augmentation."""

    def __init__(self, rows: Dataset):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Clip:
        return read_clip(self.rows[index])


@dataclass
class ClipCollator:
    """
    Makes a batch of clips with an `AvsrProcessor`.

    Attributes:
        processor: makes the inputs.
        classes: for the words task, the label of each text; None: the labels are characters.
        steps_per_second: CTC steps per second, if the alignment loss is used: adds `alignment_labels`
            `(batch, steps)`.
    """

    processor: AvsrProcessor
    classes: dict[str, int] | None = None
    steps_per_second: float | None = None

    def __call__(self, clips: list[Clip]) -> dict[str, torch.Tensor]:
        inputs = self.processor(
            audio=[clip.audio for clip in clips] if self.classes is None else None,
            sampling_rate=self.processor.feature_extractor.sampling_rate,
            videos=[clip.mouths for clip in clips],
            text=[clip.text for clip in clips] if self.classes is None else None,
            return_tensors="pt",
        )
        if self.classes is not None:
            inputs["labels"] = torch.tensor([self.classes[clip.text.upper()] for clip in clips])
        elif self.steps_per_second is not None:
            inputs["alignment_labels"] = alignment_labels(clips, self.processor.tokenizer, self.steps_per_second)
        return dict(inputs)

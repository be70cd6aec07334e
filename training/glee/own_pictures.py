"""Pictures of one's own with one's own classes, as batches: every class is asked for, up to a hundred at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback

from lookhear.modeling.glee.loss_glee import GleeSupervision
from lookhear.processing.glee import GleeProcessor
from lookhear.training.glee.augmentation import AugmentationRecipe, augment
from lookhear.training.glee.corpora.picture import Picture, take_picture

MOST_LABELS = 100  # of a batch, as published


class OwnPictures(Dataset):
    """
    Augmented pictures; another augmentation in every epoch, the same in every run.

    Args:
        rows: of the corpora's schema, with random access.
    """

    def __init__(self, rows: Sequence[dict], augmentation: AugmentationRecipe, seed: int = 0):
        self.rows, self.augmentation, self.seed, self.epoch = rows, augmentation, seed, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Picture:
        random = np.random.default_rng((self.seed, self.epoch, index))
        return augment([take_picture(self.rows[index])], self.augmentation, random)[0]


class PicturesEpoch(TrainerCallback):
    """Tells the pictures their epoch, also after a resume."""

    def __init__(self, pictures: OwnPictures):
        self.pictures = pictures

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        self.pictures.epoch = int(state.epoch)


@dataclass
class OwnCollator:
    """
    Pictures -> the model's inputs with `labels` and `supervision`.

    Args:
        classes: all of them; a batch asks for its own and for others, as many as fit.
        masks: whether masks are learnt; denoising: whether `config.denoising_tables` has the table "own".
        seed: of the other classes.
    """

    processor: GleeProcessor
    classes: Sequence[str]
    masks: bool = True
    denoising: bool = True
    seed: int = 0

    def __call__(self, pictures: Sequence[Picture]) -> dict[str, Any]:
        labels = self.choose_labels(pictures)
        images = [picture.image.permute(1, 2, 0).numpy() for picture in pictures]
        inputs = self.processor(images=images, labels=labels, do_resize=False)
        canvas = tuple(inputs["pixel_values"].shape[-2:])
        index = {label: number for number, label in enumerate(labels)}
        return {
            **inputs,
            "labels": [picture_targets(picture, index, canvas, self.masks) for picture in pictures],
            "supervision": GleeSupervision(masks=self.masks, denoising_table="own" if self.denoising else None),
        }

    def choose_labels(self, pictures: Sequence[Picture]) -> list[str]:
        """The classes that a batch asks for, in the order of all."""
        if len(self.classes) <= MOST_LABELS:
            return list(self.classes)
        there = {name for picture in pictures for name in picture.categories} & set(self.classes)
        random = np.random.default_rng([self.seed, *"".join(picture.id for picture in pictures).encode()])
        others = [name for name in self.classes if name not in there]
        fill = set(random.permutation(others)[: max(0, MOST_LABELS - len(there))].tolist())
        return [name for name in self.classes if name in there or name in fill]


def picture_targets(
    picture: Picture, index: dict[str, int], canvas: tuple[int, int], masks: bool = True
) -> dict[str, torch.Tensor]:
    """
    What the model learns from a picture.

    Args:
        index: class -> its place among the labels asked for; objects of other classes are left out.
        canvas: (height, width) that the batch is padded to.
    Returns:
        `class_labels` `(n,)` int64, `boxes` `(n, 4)` cxcywh as shares of the canvas, `masks` `(n, height, width)` bool.
    """
    kept = picture.keep([place for place, name in enumerate(picture.categories) if name in index])
    height, width = canvas
    corners = kept.boxes.as_subclass(torch.Tensor) / torch.tensor([width, height, width, height])
    boxes = torch.cat(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), dim=1)
    classes = torch.tensor([index[name] for name in kept.categories], dtype=torch.int64)
    targets = {"class_labels": classes, "boxes": boxes}
    if masks:
        targets["masks"] = torch.zeros(len(kept), height, width, dtype=torch.bool)
        targets["masks"][:, : kept.size[0], : kept.size[1]] = kept.masks.as_subclass(torch.Tensor).bool()
    return targets

# Copyright 2026 The LookHear developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Losses of masks that an answer's `[SEG]` tokens stand for (LISA, Lai et al., CVPR 2024, section 3.3)."""

import torch
from torch import nn

# LISA divides both sums of the dice loss by 1000, against overflow in half precision; the small number is beside them.
DICE_SCALE, DICE_EPSILON = 1000.0, 1e-6


def mask_losses(mask_logits: torch.Tensor, mask_labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Computes binary cross entropy and dice loss, each the mean over masks; zero, with gradients of zero, without masks.

    Args:
        mask_logits: `(masks, height, width)`.
        mask_labels: `(masks, height, width)` in [0, 1]; negative where it isn't known, as in ignored regions.
    """
    logits = mask_logits.flatten(1).float()  # (masks, pixels)
    labels = mask_labels.flatten(1).to(logits)
    known = (labels >= 0).to(logits)
    labels = labels * known
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none") * known
    entropy = entropy.sum(dim=1) / known.sum(dim=1).clamp(min=1)
    shares = logits.sigmoid() * known
    both = 2 * (shares / DICE_SCALE * labels).sum(dim=1)
    total = (shares / DICE_SCALE).sum(dim=1) + (labels / DICE_SCALE).sum(dim=1)
    dice = 1 - (both + DICE_EPSILON) / (total + DICE_EPSILON)
    count = max(len(logits), 1)
    return entropy.sum() / count, dice.sum() / count


def best_objects(object_masks: torch.Tensor, mask_labels: torch.Tensor) -> torch.Tensor:
    """
    Finds the query whose own mask fits a label best, by intersection over union.

    Args:
        object_masks: `(masks, queries, height, width)` logits, those of the picture of each label.
        mask_labels: `(masks, height, width)`, see [`mask_losses`].

    Returns:
        `(masks,)` int64; -100 where no query's mask meets the label.
    """
    known = (mask_labels >= 0)[:, None]
    found = (object_masks > 0) & known  # (masks, queries, height, width)
    labels = (mask_labels > 0.5)[:, None] & known
    both = (found & labels).flatten(2).sum(dim=2)
    either = (found | labels).flatten(2).sum(dim=2)
    overlap, best = (both / either.clamp(min=1)).max(dim=1)
    return best.masked_fill(overlap == 0, -100)

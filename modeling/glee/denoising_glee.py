"""Denoising queries: while training, extra queries start from disturbed annotations (DN-DETR, CVPR 2022, section 4)."""

from dataclasses import dataclass

import torch
from torch import nn

from .matching_glee import GleeTargets


@dataclass(frozen=True)
class GleeDenoisingDraws:
    """
    Uniform draws in [0, 1) for each of `groups` copies of all objects, group by group; `objects` counts all of them.

    Attributes:
        flips: `(objects,)`, below the label noise the class is exchanged; classes: `(objects,)` int64, against which.
        boxes: `(objects, 4)`, how far a box is moved and stretched.
    """

    flips: torch.Tensor
    classes: torch.Tensor
    boxes: torch.Tensor


@dataclass(frozen=True)
class GleeDenoising:
    """
    Attributes:
        queries: `(rows, count, size)`; boxes: `(rows, count, 4)` cxcywh in [0, 1]; count is groups x slots.
        groups: copies of the objects that don't see each other; slots: queries of a group, as many as a row's most objects.
        rows, indices, objects: `(pairs,)` int64: query `indices` of row `rows` starts from object `objects`.
    """

    queries: torch.Tensor
    boxes: torch.Tensor
    groups: int
    slots: int
    rows: torch.Tensor
    indices: torch.Tensor
    objects: torch.Tensor

    def attention_bias(self, queries: int) -> torch.Tensor:
        """
        What is added to attention scores among these queries and `queries` others behind them: `(1, 1, all, all)`.

        A group sees itself and the others; the others don't see what gives the answers away.
        """
        count = self.groups * self.slots
        group = torch.arange(count + queries, device=self.queries.device) // self.slots
        group[count:] = -1
        hidden = (group[:, None] != group) & (group >= 0)
        bias = torch.zeros(hidden.shape, dtype=self.queries.dtype, device=hidden.device)
        return bias.masked_fill(hidden, torch.finfo(bias.dtype).min)[None, None]


def make_denoising(
    targets: GleeTargets,
    table: nn.Embedding,
    most_queries: int = 100,
    label_noise: float = 0.2,
    box_noise: float = 0.4,
    draws: GleeDenoisingDraws | None = None,
) -> GleeDenoising | None:
    """
    Queries that start from the annotations, disturbed.

    Args:
        table: one embedding a class of the data set.
        most_queries: as many groups are made as fit into this number.
        label_noise: share of the classes that are exchanged; box_noise: how far boxes are moved, as a share of half
            their size, and stretched, as a share of their size, at most.
    Returns:
        `None` where nothing is annotated, or more than `most_queries` objects in a row.
    Raises:
        ValueError: a class that the table has no row for (on a GPU it is left to the kernel: looking would cost a copy).
    """
    slots = max(targets.counts, default=0)
    groups = most_queries // slots if slots else 0
    if not groups:
        return None
    device = targets.boxes.device
    if device.type == "cpu" and (highest := int(targets.classes.max())) >= table.num_embeddings:
        raise ValueError(
            f"class_labels hold {highest}, and the denoising table of this data has {table.num_embeddings} rows: enlarge it "
            "in config.denoising_tables, or name another one in supervision.denoising_table."
        )
    row = torch.tensor([r for r, count in enumerate(targets.counts) for _ in range(count)], device=device).repeat(
        groups
    )
    found = torch.tensor([i for count in targets.counts for i in range(count)], device=device).repeat(groups)
    total = sum(targets.counts)
    index = found + slots * torch.arange(groups, device=device).repeat_interleave(total)
    if draws is None:
        classes = torch.randint(table.num_embeddings, (len(row),), device=device)
        draws = GleeDenoisingDraws(
            torch.rand(len(row), device=device), classes, torch.rand(len(row), 4, device=device)
        )
    classes = torch.where(draws.flips < label_noise, draws.classes, targets.classes[row, found])
    boxes = targets.boxes[row, found]
    reach = torch.cat((boxes[:, 2:] / 2, boxes[:, 2:]), dim=1)
    boxes = (boxes + box_noise * (2 * draws.boxes - 1) * reach).clamp(0, 1)
    rows = len(targets.counts)
    embedded = table(classes)
    queries = embedded.new_zeros(rows, groups * slots, embedded.shape[-1]).index_put((row, index), embedded)
    start = boxes.new_full((rows, groups * slots, 4), 0.5).index_put((row, index), boxes)
    return GleeDenoising(queries, start, groups, slots, row, index, found)

"""GLEE's matching: which query is matched to which annotated object, by bipartite matching (DETR, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn


@dataclass(frozen=True)
class GleeTargets:
    """
    The annotated objects of a batch, padded to the row with most.

    Attributes:
        classes: `(rows, objects)` int64.
        boxes: `(rows, objects, 4)` float32, cxcywh as shares of the padded image.
        masks: `(rows, objects, height, width)` float32 on the padded image, or `None` where there are boxes only.
        counts: number of real objects of each row.
        tracks: `(rows, objects)` int64, one number for an object in all frames of a clip, or `None`.
    """

    classes: torch.Tensor
    boxes: torch.Tensor
    masks: torch.Tensor | None
    counts: tuple[int, ...]
    tracks: torch.Tensor | None = None

    @classmethod
    def from_labels(
        cls, labels: Sequence[dict[str, torch.Tensor]], rows: int, masks: bool = True, class_agnostic: bool = False
    ) -> "GleeTargets":
        """
        Pads the labels of a batch.

        Args:
            labels: for each row `class_labels` `(n,)`, `boxes` `(n, 4)` and, where known, `masks` `(n, height, width)`
                and `track_ids` `(n,)`.
            rows: of the predictions.
            masks: `False` leaves masks out.
            class_agnostic: everything is of class 0.

        Raises:
            ValueError: lengths don't fit, or some rows have masks or track_ids and others none.
        """
        if len(labels) != rows:
            raise ValueError(f"labels must hold one entry a row (image, or prompt), {rows} in all, not {len(labels)}.")
        counts = tuple(len(entry["boxes"]) for entry in labels)
        for index, (entry, count) in enumerate(zip(labels, counts)):
            for name in ("class_labels", "masks", "track_ids"):
                if name in entry and len(entry[name]) != count:
                    raise ValueError(f"labels[{index}] has {count} boxes but {len(entry[name])} {name}.")
        classes = _padded([entry["class_labels"].long() for entry in labels])
        boxes = _padded([entry["boxes"].float().view(-1, 4) for entry in labels])
        use_masks = masks and _in_all_rows(labels, "masks")
        return cls(
            classes=classes.zero_() if class_agnostic else classes,
            boxes=boxes,
            masks=_padded([entry["masks"].float() for entry in labels]) if use_masks else None,
            counts=counts,
            tracks=_padded([entry["track_ids"] for entry in labels]) if _in_all_rows(labels, "track_ids") else None,
        )


@dataclass(frozen=True)
class GleeMatch:
    """Matched pairs of every stage, each field `(stages, pairs)` int64; those of a row in the order of its queries."""

    rows: torch.Tensor
    queries: torch.Tensor
    objects: torch.Tensor

    def of_stages(self, stages: slice) -> "GleeMatch":
        """Returns the pairs of some stages."""
        return GleeMatch(self.rows[stages], self.queries[stages], self.objects[stages])


@dataclass(frozen=True)
class GleeMatchingCosts:
    """Weights of the matching's costs (paper, training unification; MaskDINO)."""

    classes: float = 4.0
    box: float = 5.0
    giou: float = 2.0
    mask: float = 5.0
    dice: float = 5.0


@torch.no_grad()
def match_queries(
    stages: Sequence[dict[str, torch.Tensor]],
    targets: GleeTargets,
    costs: GleeMatchingCosts,
    points: torch.Tensor | None,
    mask_loss: str = "bce",
) -> GleeMatch:
    """
    Finds the cheapest assignment for each stage and row. All costs reach the host in one copy.

    Args:
        stages: predictions `logits` `(rows, queries, classes)`, `pred_boxes` `(rows, queries, 4)`, `pred_masks`
            `(rows, queries, height, width)`; one dictionary a stage.
        targets: the annotated objects.
        costs: weights of the costs.
        points: `(stages, rows, points, 2)` x, y in [0, 1]: where masks are compared; unused without masks.
        mask_loss: the masks' cost beside dice, `bce` or `focal`.

    Raises:
        ValueError: a cost is not finite: a class label is out of range, or the predictions have diverged.
    """
    matrices = []
    for index, stage in enumerate(stages):
        matrix = classes_and_boxes_cost(stage["logits"].float(), stage["pred_boxes"].float(), targets, costs)
        if targets.masks is not None:
            if points is None:
                raise ValueError("points must say where masks are compared, if the targets have masks.")
            matrix = matrix + mask_cost(stage["pred_masks"], targets.masks, points[index], costs, mask_loss)
        matrices.append(matrix)
    host = torch.stack(matrices).cpu()  # (stages, rows, queries, objects)
    device = targets.boxes.device
    if not all(bool(host[:, row, :, :count].isfinite().all()) for row, count in enumerate(targets.counts)):
        raise ValueError(
            "labels: a class label is beyond the classes of the model's input, or a prediction isn't finite."
        )
    pairs = [
        [linear_sum_assignment(matrix[:, :count]) for matrix, count in zip(stage, targets.counts)]
        for stage in host.numpy()
    ]
    rows = [[index for index, (queries, _) in enumerate(stage) for _ in queries] for stage in pairs]
    queries = [[int(i) for found, _ in stage for i in found] for stage in pairs]
    objects = [[int(i) for _, found in stage for i in found] for stage in pairs]
    return GleeMatch(*torch.tensor([rows, queries, objects], dtype=torch.int64).to(device).unbind(0))


def classes_and_boxes_cost(
    logits: torch.Tensor, boxes: torch.Tensor, targets: GleeTargets, costs: GleeMatchingCosts
) -> torch.Tensor:
    """Computes the focal class cost, L1 distance and generalised IoU, weighted: `(rows, queries, objects)`."""
    known = (targets.classes >= 0) & (targets.classes < logits.shape[-1])
    index = targets.classes.clamp(0, logits.shape[-1] - 1)[:, None].expand(-1, logits.shape[1], -1)
    probability = logits.sigmoid().gather(2, index)  # (rows, queries, objects)
    present = 0.25 * (1 - probability) ** 2 * -(probability + 1e-8).log()
    absent = 0.75 * probability**2 * -(1 - probability + 1e-8).log()
    classes = (present - absent).masked_fill(~known[:, None], torch.nan)
    distance = torch.cdist(boxes, targets.boxes, p=1)
    overlap = generalized_iou(boxes[:, :, None], targets.boxes[:, None])
    return costs.classes * classes + costs.box * distance - costs.giou * overlap


def mask_cost(
    masks: torch.Tensor,
    target_masks: torch.Tensor,
    points: torch.Tensor,
    costs: GleeMatchingCosts,
    mask_loss: str = "bce",
) -> torch.Tensor:
    """
    Computes binary cross entropy or focal loss, and dice, on sampled points, weighted: `(rows, queries, objects)`.

    Args:
        masks: logits `(rows, queries, height, width)`.
        target_masks: `(rows, objects, height, width)` of any height and width.
        points: `(rows, points, 2)` x, y in [0, 1].
        costs: weights of the costs.
        mask_loss: `bce` or `focal`.
    """
    predicted = sample_points(masks.float(), points)  # (rows, queries, points)
    wanted = sample_points(target_masks, points).transpose(1, 2)  # (rows, points, objects)
    inside = predicted.sigmoid()
    if mask_loss == "focal":  # of a point inside an object, and of one outside; linear in what is wanted
        present = 0.25 * (1 - inside) ** 2 * nn.functional.softplus(-predicted)
        absent = 0.75 * inside**2 * nn.functional.softplus(predicted)
        entropy = present @ wanted + absent @ (1 - wanted)
    else:
        entropy = nn.functional.softplus(predicted).sum(-1, keepdim=True) - predicted @ wanted
    shared = 2 * inside @ wanted
    dice = 1 - (shared + 1) / (inside.sum(-1, keepdim=True) + wanted.sum(1, keepdim=True) + 1)
    return costs.mask * entropy / points.shape[1] + costs.dice * dice


def sample_points(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Samples maps `(n, channels, height, width)` at x, y in [0, 1] `(n, points, 2)`: `(n, channels, points)`."""
    return nn.functional.grid_sample(maps, 2 * points[:, None] - 1, align_corners=False)[:, :, 0]


def generalized_iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """
    Computes the generalised IoU (Rezatofighi et al., CVPR 2019) of boxes that are broadcast against each other.

    Args:
        boxes: `(…, 4)` cxcywh.
        others: `(…, 4)` cxcywh.

    Returns:
        `(…,)` in [-1, 1].
    """
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    other_low, other_high = others[..., :2] - others[..., 2:] / 2, others[..., :2] + others[..., 2:] / 2
    shared = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0).prod(-1)
    union = (high - low).prod(-1) + (other_high - other_low).prod(-1) - shared
    hull = (torch.maximum(high, other_high) - torch.minimum(low, other_low)).clamp(min=0).prod(-1)
    # torchvision's generalized_box_iou takes no batch and gives NaN for two boxes without area; its loss of that name
    # adds 1e-7 to areas, which is much for small boxes in [0, 1], and selects by a mask, for which a GPU has to wait.
    # Here, boxes without area overlap with nothing, and their gradient is finite.
    tiny = torch.finfo(union.dtype).tiny
    return shared / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)


def _in_all_rows(labels: Sequence[dict[str, torch.Tensor]], name: str) -> bool:
    """
    Returns whether the labels have an entry.

    Raises:
        ValueError: some rows have it and others don't.
    """
    having = sum(name in entry for entry in labels)
    if 0 < having < len(labels):
        raise ValueError(f"labels have {name} in some rows only; give all of them {name}, or none.")
    return having > 0


def _padded(entries: list[torch.Tensor]) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence(entries, batch_first=True)

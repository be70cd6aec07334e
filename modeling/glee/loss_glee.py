"""GLEE's losses: matching with the annotations, denoising queries, every layer's losses (training unification)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import distributed, nn
from torchvision.ops import sigmoid_focal_loss

from .configuration_glee import GleeLossSettings, GleeMatchingCosts

# At most this number of queries of the previous frame that are matched to no object.
MOST_NEGATIVES = 20


# Which query is matched to which annotated object: bipartite matching (DETR, section 3.1).


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

    def repeated(self, times: int) -> "GleeTargets":
        """Returns the same objects as a batch of so many times the rows, without their masks."""
        classes, boxes = self.classes.repeat(times, 1), self.boxes.repeat(times, 1, 1)
        return replace(self, classes=classes, boxes=boxes, masks=None, counts=self.counts * times)


@dataclass(frozen=True)
class GleeMatch:
    """Matched pairs of every stage, each field `(stages, pairs)` int64; those of a row in the order of its queries."""

    rows: torch.Tensor
    queries: torch.Tensor
    objects: torch.Tensor

    def of_stages(self, stages: slice) -> "GleeMatch":
        """Returns the pairs of some stages."""
        return GleeMatch(self.rows[stages], self.queries[stages], self.objects[stages])


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
    logits, boxes = (torch.cat([stage[name].float() for stage in stages]) for name in ("logits", "pred_boxes"))
    matrix = classes_and_boxes_cost(logits, boxes, targets.repeated(len(stages)), costs)
    if targets.masks is not None:
        if points is None:
            raise ValueError("points must say where masks are compared, if the targets have masks.")
        grid = 2 * points[: len(stages)] - 1
        predicted = torch.cat([sample_grid(stage["pred_masks"].float(), part) for stage, part in zip(stages, grid)])
        wanted = nn.functional.grid_sample(targets.masks, grid.transpose(0, 1), align_corners=False)
        wanted = wanted.permute(2, 0, 3, 1).flatten(0, 1)  # (stages * rows, points, objects)
        matrix = matrix + mask_cost(predicted, wanted, costs, mask_loss)
    host = matrix.unflatten(0, (len(stages), -1)).cpu()  # (stages, rows, queries, objects)
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
    predicted: torch.Tensor, wanted: torch.Tensor, costs: GleeMatchingCosts, mask_loss: str = "bce"
) -> torch.Tensor:
    """
    Computes binary cross entropy or focal loss, and dice, at points, weighted: `(rows, queries, objects)`.

    Args:
        predicted: logits `(rows, queries, points)`.
        wanted: `(rows, points, objects)` in [0, 1].
        costs: weights of the costs.
        mask_loss: `bce` or `focal`.
    """
    inside = predicted.sigmoid()
    entropy = nn.functional.softplus(predicted).sum(-1, keepdim=True) - predicted @ wanted
    if mask_loss == "focal":  # of a point inside an object, and of one outside; linear in what is wanted
        present = 0.25 * (1 - inside) ** 2 * nn.functional.softplus(-predicted)
        entropy = present @ wanted + 0.75 * inside**2 * nn.functional.softplus(predicted) @ (1 - wanted)
    shared = 2 * inside @ wanted
    dice = 1 - (shared + 1) / (inside.sum(-1, keepdim=True) + wanted.sum(1, keepdim=True) + 1)
    return costs.mask * entropy / predicted.shape[2] + costs.dice * dice


def sample_points(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Samples maps `(n, channels, height, width)` at x, y in [0, 1] `(n, points, 2)`: `(n, channels, points)`."""
    return sample_grid(maps, 2 * points - 1)


def sample_grid(maps: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Samples maps `(n, channels, height, width)` at x, y in [-1, 1] `(n, points, 2)`: `(n, channels, points)`."""
    return nn.functional.grid_sample(maps, grid[:, None], align_corners=False)[:, :, 0]


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


# Denoising queries: while training, extra queries start from disturbed annotations (DN-DETR, CVPR 2022, section 4).


@dataclass(frozen=True)
class GleeDenoisingDraws:
    """
    Uniform draws in [0, 1) for each of `groups` copies of all objects, group by group; `objects` counts all of them.

    Attributes:
        flips: `(objects,)`; where it is below the label noise, the class is replaced.
        classes: `(objects,)` int64, the classes that replace them.
        boxes: `(objects, 4)`, how far a box is moved and stretched.
    """

    flips: torch.Tensor
    classes: torch.Tensor
    boxes: torch.Tensor


@dataclass(frozen=True)
class GleeDenoising:
    """
    Denoising queries: query `indices` of row `rows` starts from object `objects` of that row.

    Attributes:
        queries: `(rows, count, size)`; count is groups x slots.
        boxes: `(rows, count, 4)` cxcywh in [0, 1].
        groups: copies of the objects, which don't see each other.
        slots: queries of a group, the largest number of objects in a row.
        rows: `(pairs,)` int64.
        indices: `(pairs,)` int64.
        objects: `(pairs,)` int64.
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
        Builds the additive attention mask of these queries and the `queries` others after them: `(1, 1, all, all)`.

        A group sees itself and the other queries; those see no group, as the answers are in it.
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
    Makes queries that start from disturbed annotations.

    Args:
        targets: the annotated objects.
        table: one embedding a class of the data set.
        most_queries: of a row; the number of groups is the largest that fits.
        label_noise: share of the classes that are replaced.
        box_noise: how far boxes are moved, as a share of half their size, and stretched, as a share of their size, at
            most.
        draws: numbers to use in place of random ones.

    Returns:
        `None` where nothing is annotated, or more than `most_queries` objects in a row.

    Raises:
        ValueError: the table has no row for a class (on a GPU the kernel reports it, as a check would cost a copy).
    """
    slots = max(targets.counts, default=0)
    groups = most_queries // slots if slots else 0
    if not groups:
        return None
    device = targets.boxes.device
    if device.type == "cpu" and (highest := int(targets.classes.max())) >= table.num_embeddings:
        raise ValueError(
            f"class_labels hold {highest}, and the denoising table of this data has {table.num_embeddings} rows: "
            "enlarge it in config.denoising_tables, or name another one in supervision.denoising_table."
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


# Contrastive loss on the queries of successive frames: those of one object become similar (IDOL).


def draw_negatives(matched: Sequence[torch.Tensor], queries: int, count: int = MOST_NEGATIVES) -> torch.Tensor:
    """
    Draws queries that are matched to no object.

    Args:
        matched: for each row the queries that are, `(n,)` int64.
        queries: number of queries of a row.
        count: at most this number of queries of a row.

    Returns:
        `(rows, negatives)` int64; fewer than `count` where a row has fewer.
    """
    order = torch.rand(len(matched), queries, device=matched[0].device)
    for row, taken in zip(order, matched):
        row[taken] = -1
    most = max(len(taken) for taken in matched)
    return order.topk(min(count, queries - most), dim=1).indices


def track_loss(
    embeddings: torch.Tensor,
    matched: Sequence[torch.Tensor],
    tracks: Sequence[torch.Tensor],
    frames: int,
    negatives: torch.Tensor,
) -> torch.Tensor:
    """
    Computes the contrastive loss of each frame and the one before it, divided by the number of objects.

    It is log(1 + sum over p and n of exp(score of n - score of p)), where p are pairs of queries of one object, n are
    pairs of different ones, and scores are dot products. Only objects of the later frame of a pair are counted.

    Args:
        embeddings: `(rows, queries, size)`; the rows are clips of `frames` successive frames.
        matched: for each row the queries that are matched to its objects, `(n,)` int64.
        tracks: for each row the tracks of these objects, `(n,)` int64.
        frames: of a clip.
        negatives: `(rows, any)` int64, queries that are matched to no object.

    Returns:
        a float32 scalar; 0 where no later frame has an object.
    """
    losses, anchors = [embeddings.new_zeros((), dtype=torch.float32)], 0
    for row in range(len(embeddings)):
        if row % frames == 0 or not len(matched[row]):
            continue
        before = torch.cat((matched[row - 1], negatives[row - 1]))
        scores = embeddings[row - 1, before].float() @ embeddings[row, matched[row]].float().T  # (before, now)
        same = scores.new_zeros(scores.shape, dtype=torch.bool)
        same[: len(matched[row - 1])] = tracks[row - 1][:, None] == tracks[row]
        # The sum over all pairs of pairs is the product of two sums; the lowest number is a term that doesn't count.
        lowest = torch.finfo(scores.dtype).min
        apart = scores.masked_fill(same, lowest).flatten().logsumexp(0)
        together = (-scores).masked_fill(~same, lowest).flatten().logsumexp(0)
        losses.append(nn.functional.softplus(apart + together))
        anchors += len(matched[row])
    return torch.stack(losses).sum() / max(anchors, 1)


# Class, confidence, box and mask losses on the predictions of every layer.


@dataclass(frozen=True)
class GleeSupervision:
    """
    What can be learnt from the annotations of a data set; a batch comes from one data set.

    Attributes:
        masks: masks are matched and learnt, if the labels have any.
        boxes: boxes are learnt (they are matched in any case). Off for captions with machine-made boxes, as in GRIT.
        class_agnostic: every object is of class 0, "object".
        confidence: the confidence head is learnt; the published training does so with visual prompts only.
        denoising_table: the data set's name in `config.denoising_tables`, for denoising queries; `None`: without.
        track_frames: number of successive rows that are frames of one clip, whose `track_ids` in the labels are
            learnt; 1: rows are independent.
    """

    masks: bool = True
    boxes: bool = True
    class_agnostic: bool = False
    confidence: bool = False
    denoising_table: str | None = None
    track_frames: int = 1


@dataclass(frozen=True)
class GleeLossDraws:
    """
    Numbers to use in place of random ones, so that a result can be repeated.

    The stages are the last layer, the first queries, the layers before the last, and the proposals.

    Attributes:
        matcher: `(stages, rows, points, 2)` x, y in [0, 1]. Where tracks are learnt, it begins with the last layer
            once more, for the matching of the tracks.
        masks: `(stages, pairs, points, 2)` x, y in [0, 1].
        denoising: see [`GleeDenoisingDraws`].
        negatives: `(rows, any)` int64, see [`track_loss`].
    """

    matcher: torch.Tensor | None = None
    masks: torch.Tensor | None = None
    denoising: GleeDenoisingDraws | None = None
    negatives: torch.Tensor | None = None


class GleeLoss:
    """
    Computes all losses of one forward pass.

    Args:
        settings: weights and numbers of points.
        draws: numbers to use in place of random ones.
    """

    def __init__(self, settings: GleeLossSettings | None = None, draws: GleeLossDraws | None = None):
        self.settings = settings or GleeLossSettings()
        self.draws = draws or GleeLossDraws()

    def __call__(
        self,
        predictions: dict[str, torch.Tensor],
        auxiliary: Sequence[dict[str, torch.Tensor]],
        proposals: dict[str, torch.Tensor],
        targets: GleeTargets,
        supervision: GleeSupervision,
        denoising: GleeDenoising | None = None,
        denoised: Sequence[dict[str, torch.Tensor]] = (),
        track_embeddings: torch.Tensor | None = None,
        distillation: torch.Tensor | None = None,
        objects: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """
        Computes the weighted sum of all losses, and each of them.

        Args:
            predictions: `logits`, `confidence`, `pred_boxes`, `pred_masks` of the last layer.
            auxiliary: the same of the first queries and of each layer but the last.
            proposals: the same of the first stage.
            targets: the annotated objects.
            supervision: what can be learnt from them.
            denoising: the denoising queries.
            denoised: `logits` and `pred_boxes` of them, of the last layer, of the start, and of the layers before the
                last.
            track_embeddings: `(rows, queries, size)`, needed where tracks are learnt.
            distillation: a loss of the text encoder that is added, of [`distillation_loss`].
            objects: what sums over objects are divided by, at least 1; by default the number of annotated objects, as
                the mean over the processes that train together.

        Returns:
            the weighted sum, and each loss before its weight: `class`, `box`, `giou`, `mask`, `dice`, `confidence` of
            the last layer, `class_0` … of the first queries and the layers, `class_proposals` …, `class_denoising` …;
            `track` and `distillation` where they are learnt.
        """
        stages = [predictions, *auxiliary, proposals]
        names = ["", *(f"_{index}" for index in range(len(auxiliary))), "_proposals"]
        known = {} if distillation is None else {"distillation": distillation}
        if supervision.track_frames > 1:
            both = self.match([predictions, *stages], targets)
            match = both.of_stages(slice(1, None))
            first = both.of_stages(slice(0, 1))
            known["track"] = self._tracks(track_embeddings, targets, first, supervision.track_frames)
        else:
            match = self.match(stages, targets)
        if objects is None:
            objects = mean_over_processes(sum(targets.counts), targets.boxes.device)
        objects = objects.clamp(min=1)
        parts = class_losses(stages, targets, match, objects)
        if supervision.confidence:
            parts |= self._confidence(stages, match)
        if supervision.boxes:
            parts |= box_losses(stages, targets, match, objects)
        if targets.masks is not None:
            parts |= self._masks(stages, targets.masks, match, objects)
        weights = self.settings.weights
        total = torch.zeros((), device=objects.device) + sum(weights[kind] * loss for kind, loss in known.items())
        total = total + sum(weights[kind] * part.sum() for kind, part in parts.items())
        losses = known | {kind + name: loss for kind, part in parts.items() for name, loss in zip(names, part)}
        if denoising is not None:
            given = GleeMatch(
                *(x.expand(len(denoised), -1) for x in (denoising.rows, denoising.indices, denoising.objects))
            )
            parts = class_losses(denoised, targets, given, objects * denoising.groups)
            if supervision.boxes:
                parts |= box_losses(denoised, targets, given, objects * denoising.groups)
            names = [f"_denoising{name}" for name in names]
            total = total + sum(weights[kind] * part.sum() for kind, part in parts.items())
            losses |= {kind + name: loss for kind, part in parts.items() for name, loss in zip(names, part)}
        return total, losses

    def denoising(self, targets: GleeTargets, table: nn.Embedding) -> GleeDenoising | None:
        """Makes denoising queries with this object's settings and draws, see [`make_denoising`]."""
        return make_denoising(targets, table, **self.settings.denoising, draws=self.draws.denoising)

    def match(self, stages: Sequence[dict[str, torch.Tensor]], targets: GleeTargets) -> GleeMatch:
        """Matches queries of each stage to objects."""
        points = self.draws.matcher
        if points is None and targets.masks is not None:
            shape = (len(stages), len(targets.counts), self.settings.mask_points, 2)
            points = torch.rand(shape, device=targets.boxes.device)
        return match_queries(stages, targets, self.settings.costs, points, self.settings.mask_loss)

    def _tracks(
        self, embeddings: torch.Tensor | None, targets: GleeTargets, match: GleeMatch, frames: int
    ) -> torch.Tensor:
        if embeddings is None:
            raise ValueError("track_embeddings are needed where tracks are learnt (supervision.track_frames above 1).")
        if targets.tracks is None or len(embeddings) % frames:
            raise ValueError(f"tracks are learnt from labels with track_ids, {frames} frames a clip.")
        found = [min(count, embeddings.shape[1]) for count in targets.counts]
        matched = match.queries[0].split(found)
        tracks = targets.tracks[match.rows[0], match.objects[0]].split(found)
        negatives = self.draws.negatives
        if negatives is None:
            negatives = draw_negatives(matched, embeddings.shape[1])
        return track_loss(embeddings, matched, tracks, frames, negatives)

    def _confidence(self, stages: Sequence[dict], match: GleeMatch) -> dict[str, torch.Tensor]:
        # Not of the proposals, although they are chosen by it: as published.
        logits = torch.stack([stage["confidence"].float() for stage in stages[:-1]])  # (stages, rows, queries)
        wanted = torch.zeros_like(logits)
        index = torch.arange(len(logits), device=logits.device)[:, None]
        wanted[index, match.rows[:-1], match.queries[:-1]] = 1
        return {"confidence": sigmoid_focal_loss(logits, wanted).sum(dim=(1, 2)) / logits.shape[-1]}

    def _masks(
        self, stages: Sequence[dict], masks: torch.Tensor, match: GleeMatch, objects: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        places = list(zip(match.rows, match.queries, match.objects))
        found = [stage["pred_masks"][rows, queries] for stage, (rows, queries, _) in zip(stages, places)]
        logits = torch.cat(found)[:, None].float()  # (stages * pairs, 1, height, width)
        if self.draws.masks is None:
            points = self.uncertain_points(logits.detach(), len(stages))  # (stages * pairs, points, 2)
        else:
            points = self.draws.masks.flatten(0, 1)
        grid = 2 * points - 1
        predicted = sample_grid(logits, grid)[:, 0]  # (stages * pairs, points)
        # The annotated masks are large, so that only those of one stage are copied at a time.
        parts = zip(places, grid.unflatten(0, (len(stages), -1)))
        wanted = torch.cat([sample_grid(masks[rows, objs][:, None], part) for (rows, _, objs), part in parts])[:, 0]
        if self.settings.mask_loss == "focal":
            of_points = sigmoid_focal_loss(predicted, wanted)
        else:
            of_points = nn.functional.binary_cross_entropy_with_logits(predicted, wanted, reduction="none")
        losses = {"mask": of_points.mean(dim=1), "dice": dice_loss(predicted, wanted)}  # (stages * pairs,) each
        return {name: loss.unflatten(0, (len(stages), -1)).sum(dim=1) / objects for name, loss in losses.items()}

    @torch.no_grad()
    def uncertain_points(self, logits: torch.Tensor, stages: int = 1) -> torch.Tensor:
        """
        Draws points near the border of predicted masks, and some anywhere (PointRend, section 3.1).

        Args:
            logits: `(stages * masks, 1, height, width)`.
            stages: number of stages, which draw one after the other.

        Returns:
            `(stages * masks, points, 2)` x, y in [0, 1].
        """
        settings, masks = self.settings, len(logits) // stages
        uncertain = int(settings.uncertain_share * settings.mask_points)
        counts = int(settings.oversample * settings.mask_points), settings.mask_points - uncertain
        draws = [[torch.rand(masks, count, 2, device=logits.device) for count in counts] for _ in range(stages)]
        drawn, anywhere = map(torch.cat, zip(*draws))
        certainty = sample_points(logits, drawn)[:, 0].abs()  # (masks, drawn)
        best = certainty.topk(uncertain, dim=1, largest=False).indices
        chosen = drawn.gather(1, best[..., None].expand(-1, -1, 2))
        return torch.cat((chosen, anywhere), dim=1)


def class_losses(
    stages: Sequence[dict[str, torch.Tensor]], targets: GleeTargets, match: GleeMatch, objects: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Computes the focal loss (Lin et al., ICCV 2017) of all queries and classes, per object: `(stages,)`."""
    logits = torch.stack([stage["logits"].float() for stage in stages])  # (stages, rows, queries, classes)
    wanted = torch.zeros_like(logits)
    index = torch.arange(len(stages), device=logits.device)[:, None]
    wanted[index, match.rows, match.queries, targets.classes[match.rows, match.objects]] = 1
    return {"class": sigmoid_focal_loss(logits, wanted).sum(dim=(1, 2, 3)) / objects}


def box_losses(
    stages: Sequence[dict[str, torch.Tensor]], targets: GleeTargets, match: GleeMatch, objects: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Computes L1 distance and 1 - generalised IoU of matched boxes, per object: `(stages,)`."""
    predicted = torch.stack([stage["pred_boxes"].float() for stage in stages])  # (stages, rows, queries, 4)
    index = torch.arange(len(stages), device=predicted.device)[:, None]
    predicted = predicted[index, match.rows, match.queries]  # (stages, pairs, 4)
    wanted = targets.boxes[match.rows, match.objects]
    distance = (predicted - wanted).abs().sum(dim=(1, 2)) / objects
    overlap = (1 - generalized_iou(predicted, wanted)).sum(dim=1) / objects
    return {"box": distance, "giou": overlap}


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, kind: str = "mse"
) -> torch.Tensor:
    """
    Computes the mean distance of a text encoder's states from those of the frozen one it started from.

    Args:
        student: `(texts, length, size)`.
        teacher: `(texts, length, size)`.
        mask: `(texts, length)`, 0 for padding.
        kind: `mse`, squared as in the published code, or `l1`, absolute as in the paper (section 3.1).

    Returns:
        a float32 scalar, the mean over the numbers of all tokens but padding.
    """
    difference = student.float() - teacher.float()
    distance = (difference.abs() if kind == "l1" else difference.square()).mean(dim=-1)  # (texts, length)
    return (distance * mask).sum() / mask.sum()


@dataclass(frozen=True)
class GleeTrainingBatch:
    """
    The labels of a batch, prepared for the losses.

    Attributes:
        criterion: computes the losses.
        targets: the annotated objects.
        supervision: what can be learnt from the labels.
        denoising: extra queries, if there are any.
        distillation: the text encoder's distance from its teacher, a loss, if there is a teacher.
    """

    criterion: GleeLoss
    targets: GleeTargets
    supervision: GleeSupervision
    denoising: GleeDenoising | None
    distillation: torch.Tensor | None


def dice_loss(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Computes 1 - dice of masks at points `(masks, points)`, smoothed by one point: `(masks,)`."""
    inside = logits.sigmoid()
    return 1 - (2 * (inside * wanted).sum(-1) + 1) / (inside.sum(-1) + wanted.sum(-1) + 1)


def mean_over_processes(count: int, device: torch.device) -> torch.Tensor:
    """Averages a count over the processes of a training run; a float32 scalar."""
    mean = torch.tensor(float(count), device=device)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(mean)
        mean = mean / distributed.get_world_size()
    return mean

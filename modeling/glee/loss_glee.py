"""GLEE's losses: denoising queries, tracks, and every layer's losses after the matching (training unification)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

import torch
from torch import distributed, nn
from torchvision.ops import sigmoid_focal_loss

from .matching_glee import GleeMatch, GleeMatchingCosts, GleeTargets, generalized_iou, match_queries, sample_points

# Of each loss in the total; a loss of every layer has the weight of its kind (published code).
WEIGHTS = {"class": 4.0, "confidence": 4.0, "box": 5.0, "giou": 2.0, "mask": 5.0, "dice": 5.0}
WEIGHTS |= {"track": 2.0, "distillation": 4.0}
# Choices of `GleeLossSettings`, the published code's first; the others are those of the paper's text.
MASK_LOSSES = ("bce", "focal")
DISTILLATION_LOSSES = ("mse", "l1")
# At most this number of queries of the previous frame that are matched to no object.
MOST_NEGATIVES = 20


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


class GleeDenoisingSettings(TypedDict):
    """The arguments of [`make_denoising`] that a training run chooses; see there."""

    most_queries: int
    label_noise: float
    box_noise: float


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


def check_denoising_table(name: str, tables: Mapping[str, int] | None) -> None:
    """
    Refuses a label table that a model does not have.

    Args:
        name: of the table, as in `supervision.denoising_table`.
        tables: `config.denoising_tables`.

    Raises:
        ValueError: there is no such table; the known ones are named.
    """
    if name not in (known := tables or {}):
        raise ValueError(
            f"supervision.denoising_table {name!r} is not in config.denoising_tables, which "
            f"{'has ' + ', '.join(known) if known else 'is empty'}; add it there, with its number of labels."
        )


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
class GleeLossSettings:
    """
    Weights and numbers of the losses; the defaults are those of the published training.

    Attributes:
        weights: of each loss in the total; a loss of every layer has the weight of its kind.
        costs: of the matching.
        mask_points: number of points at which masks are compared, in the matching and in the losses.
        oversample: candidates for each point, from which the least certain ones are taken.
        uncertain_share: share of the points that are taken for their uncertainty; the rest is drawn at random.
        denoising: `most_queries`, `label_noise` and `box_noise` of [`make_denoising`].
        mask_loss: what masks cost at each point beside dice, in the losses and in the matching: `bce`, binary cross
            entropy as in the published code, or `focal`, the focal loss that the paper states.
        distillation_loss: distance of the text encoder from its teacher: `mse`, the mean squared one of the published
            code, or `l1`, the mean absolute one that the paper states.

    Raises:
        ValueError: there is no such loss.
    """

    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    costs: GleeMatchingCosts = GleeMatchingCosts()
    mask_points: int = 12544
    oversample: float = 3.0
    uncertain_share: float = 0.75
    denoising: GleeDenoisingSettings = field(
        default_factory=lambda: GleeDenoisingSettings(most_queries=100, label_noise=0.2, box_noise=0.4)
    )
    mask_loss: str = "bce"
    distillation_loss: str = "mse"

    def __post_init__(self) -> None:
        for name, known in (("mask_loss", MASK_LOSSES), ("distillation_loss", DISTILLATION_LOSSES)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"config.loss_settings[{name!r}] must be {' or '.join(known)}, not {value!r}.")

    @classmethod
    def from_config(cls, fields: Mapping[str, Any] | None) -> "GleeLossSettings":
        """
        Returns the published training's settings with those of `config.loss_settings` in their place.

        Args:
            fields: what differs; also of `weights`, `costs` and `denoising` only what differs.

        Raises:
            ValueError: a name that does not exist, or a loss that does not.
        """
        settings = asdict(cls())
        for name, value in (fields or {}).items():
            if name not in settings:
                raise ValueError(f"config.loss_settings has no {name!r}; it has {', '.join(settings)}.")
            if isinstance(known := settings[name], dict):
                if unknown := set(value) - set(known):
                    raise ValueError(f"config.loss_settings[{name!r}] has no {unknown}; it has {', '.join(known)}.")
                value = {**known, **value}
            settings[name] = value
        return cls(**{**settings, "costs": GleeMatchingCosts(**settings["costs"])})


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
        known = {} if distillation is None else {("distillation", ""): distillation}
        if supervision.track_frames > 1:
            both = self.match([predictions, *stages], targets)
            match = both.of_stages(slice(1, None))
            first = both.of_stages(slice(0, 1))
            known["track", ""] = self._tracks(track_embeddings, targets, first, supervision.track_frames)
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
        losses = known | {(kind, name): loss for kind, part in parts.items() for name, loss in zip(names, part)}
        if denoising is not None:
            given = GleeMatch(
                *(x.expand(len(denoised), -1) for x in (denoising.rows, denoising.indices, denoising.objects))
            )
            parts = class_losses(denoised, targets, given, objects * denoising.groups)
            if supervision.boxes:
                parts |= box_losses(denoised, targets, given, objects * denoising.groups)
            names = [f"_denoising{name}" for name in names]
            losses |= {(kind, name): loss for kind, part in parts.items() for name, loss in zip(names, part)}
        weighted = (self.settings.weights[kind] * loss for (kind, _), loss in losses.items())
        total = sum(weighted, start=torch.zeros((), device=objects.device))
        return total, {kind + name: loss for (kind, name), loss in losses.items()}

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

    def _confidence(self, stages: Sequence[dict], match: GleeMatch) -> dict[str, list[torch.Tensor]]:
        # Not of the proposals, although they are chosen by it: as published.
        logits = torch.stack([stage["confidence"].float() for stage in stages[:-1]])  # (stages, rows, queries)
        wanted = torch.zeros_like(logits)
        index = torch.arange(len(logits), device=logits.device)[:, None]
        wanted[index, match.rows[:-1], match.queries[:-1]] = 1
        return {"confidence": list(sigmoid_focal_loss(logits, wanted).sum(dim=(1, 2)) / logits.shape[-1])}

    def _masks(
        self, stages: Sequence[dict], masks: torch.Tensor, match: GleeMatch, objects: torch.Tensor
    ) -> dict[str, list[torch.Tensor]]:
        losses: dict[str, list[torch.Tensor]] = {"mask": [], "dice": []}
        for index, stage in enumerate(stages):
            logits = stage["pred_masks"][match.rows[index], match.queries[index]][:, None].float()
            points = None if self.draws.masks is None else self.draws.masks[index]
            if points is None:
                points = self.uncertain_points(logits.detach())  # (pairs, points, 2)
            predicted = sample_points(logits, points)[:, 0]  # (pairs, points)
            wanted = masks[match.rows[index], match.objects[index]][:, None]
            wanted = sample_points(wanted, points)[:, 0]
            if self.settings.mask_loss == "focal":
                of_points = sigmoid_focal_loss(predicted, wanted)
            else:
                of_points = nn.functional.binary_cross_entropy_with_logits(predicted, wanted, reduction="none")
            losses["mask"].append(of_points.mean(dim=1).sum() / objects)
            losses["dice"].append(dice_loss(predicted, wanted).sum() / objects)
        return losses

    @torch.no_grad()
    def uncertain_points(self, logits: torch.Tensor) -> torch.Tensor:
        """
        Draws points near the border of predicted masks, and some anywhere (PointRend, section 3.1).

        Args:
            logits: `(masks, 1, height, width)`.

        Returns:
            `(masks, points, 2)` x, y in [0, 1].
        """
        settings = self.settings
        drawn = torch.rand(len(logits), int(settings.oversample * settings.mask_points), 2, device=logits.device)
        uncertain = int(settings.uncertain_share * settings.mask_points)
        certainty = sample_points(logits, drawn)[:, 0].abs()  # (masks, drawn)
        best = certainty.topk(uncertain, dim=1, largest=False).indices
        chosen = drawn.gather(1, best[..., None].expand(-1, -1, 2))
        anywhere = torch.rand(len(logits), settings.mask_points - uncertain, 2, device=logits.device)
        return torch.cat((chosen, anywhere), dim=1)


def class_losses(
    stages: Sequence[dict[str, torch.Tensor]], targets: GleeTargets, match: GleeMatch, objects: torch.Tensor
) -> dict[str, list[torch.Tensor]]:
    """Computes the focal loss (Lin et al., ICCV 2017) of all queries and classes, per object; one value a stage."""
    logits = torch.stack([stage["logits"].float() for stage in stages])  # (stages, rows, queries, classes)
    wanted = torch.zeros_like(logits)
    index = torch.arange(len(stages), device=logits.device)[:, None]
    wanted[index, match.rows, match.queries, targets.classes[match.rows, match.objects]] = 1
    return {"class": list(sigmoid_focal_loss(logits, wanted).sum(dim=(1, 2, 3)) / objects)}


def box_losses(
    stages: Sequence[dict[str, torch.Tensor]], targets: GleeTargets, match: GleeMatch, objects: torch.Tensor
) -> dict[str, list[torch.Tensor]]:
    """Computes L1 distance and 1 - generalised IoU of matched boxes, per object; one value a stage."""
    predicted = torch.stack([stage["pred_boxes"].float() for stage in stages])  # (stages, rows, queries, 4)
    index = torch.arange(len(stages), device=predicted.device)[:, None]
    predicted = predicted[index, match.rows, match.queries]  # (stages, pairs, 4)
    wanted = targets.boxes[match.rows, match.objects]
    distance = (predicted - wanted).abs().sum(dim=(1, 2)) / objects
    overlap = (1 - generalized_iou(predicted, wanted)).sum(dim=1) / objects
    return {"box": list(distance), "giou": list(overlap)}


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

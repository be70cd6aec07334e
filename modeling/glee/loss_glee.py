"""What GLEE learns from: class, confidence, box and mask losses on the predictions of every layer (paper, section 3.4)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import distributed, nn

from .denoising_glee import GleeDenoising, GleeDenoisingDraws, make_denoising
from .matching_glee import (
    GleeMatch,
    GleeMatchingCosts,
    GleeTargets,
    generalized_iou,
    match_queries,
    sample_points,
)
from .track_loss_glee import draw_negatives, track_loss

# Of each loss in the total; a loss of every layer has the weight of its kind (published code).
WEIGHTS = {"class": 4.0, "confidence": 4.0, "box": 5.0, "giou": 2.0, "mask": 5.0, "dice": 5.0}
WEIGHTS |= {"track": 2.0, "distillation": 4.0}


@dataclass(frozen=True)
class GleeSupervision:
    """
    What the annotations of a data set are good for; a batch comes from one data set.

    Attributes:
        masks: masks are matched and learnt. Without masks in the labels this is off by itself.
        boxes: boxes are learnt (they are matched in any case). Off for captions with machine-made boxes, as in GRIT.
        class_agnostic: every object is of class 0, "object".
        confidence: the confidence head is learnt; the published training does so with visual prompts only.
        denoising_table: the data set's name in `config.denoising_tables`, for denoising queries; `None`: without.
        track_frames: so many successive rows are frames of one clip, and `track_ids` of the labels are learnt; 1: the
            rows are learnt one by one.
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
    The published training's numbers.

    Attributes:
        weights: of each loss in the total; a loss of every layer has the weight of its kind.
        costs: of the matching.
        mask_points: points of a mask that are compared, in the matching and in the losses.
        oversample: how many times as many points are drawn, from which the least certain are taken.
        uncertain_share: of the points, those that are taken for their uncertainty; the rest is drawn at random.
        denoising: most_queries, label_noise and box_noise of [`make_denoising`].
    """

    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    costs: GleeMatchingCosts = GleeMatchingCosts()
    mask_points: int = 12544
    oversample: float = 3.0
    uncertain_share: float = 0.75
    denoising: dict[str, float] = field(
        default_factory=lambda: {"most_queries": 100, "label_noise": 0.2, "box_noise": 0.4}
    )

    @classmethod
    def from_config(cls, fields: Mapping[str, Any] | None) -> "GleeLossSettings":
        """
        The published training's numbers, but for `config.loss_settings`; of `weights`, `costs` and `denoising` only what
        differs has to be given.

        Raises:
            ValueError: a name that does not exist.
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
    Points x, y in [0, 1] to use in place of random ones, so that a result can be repeated.

    Attributes:
        matcher: `(stages, rows, points, 2)`; masks: `(stages, pairs, points, 2)`. The stages are the last layer, the
            first queries, the layers before the last, and the proposals; before them in `matcher`, where tracks are
            learnt, the last layer once more, to match for that.
        denoising: see [`GleeDenoisingDraws`].
        negatives: `(rows, any)` int64, queries that no object of the next frame may be like.
    """

    matcher: torch.Tensor | None = None
    masks: torch.Tensor | None = None
    denoising: GleeDenoisingDraws | None = None
    negatives: torch.Tensor | None = None


class GleeLoss:
    """
    All losses of one forward pass.

    Args:
        settings: weights and numbers of points; draws: see [`GleeLossDraws`].
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
        Args:
            predictions: `logits`, `confidence`, `pred_boxes`, `pred_masks` of the last layer; auxiliary: the same of
                the first queries and of each layer but the last; proposals: the same of the first stage.
            denoising: the denoising queries, and denoised: `logits` and `pred_boxes` of them, of the last layer, of the
                start, and of the layers before the last.
            track_embeddings: `(rows, queries, size)`, needed where tracks are learnt; distillation: a loss of the text
                encoder that is added, of [`distillation_loss`].
            objects: what sums over objects are divided by; by default the number of annotated objects, as the mean over
                the processes that train together. At least 1.
        Returns:
            the weighted sum, and each loss before its weight: `class`, `box`, `giou`, `mask`, `dice`, `confidence` of
            the last layer, `class_0` … of the first queries and the layers, `class_proposals` …, `class_denoising` …;
            `track` and `distillation` where there are such.
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
            parts |= self._masks(stages, targets, match, objects)
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
        total = sum(self.settings.weights[kind] * loss for (kind, _), loss in losses.items())
        return total, {kind + name: loss for (kind, name), loss in losses.items()}

    def denoising(self, targets: GleeTargets, table: nn.Embedding) -> GleeDenoising | None:
        """Denoising queries with this object's settings and draws; `None` where nothing is annotated."""
        return make_denoising(targets, table, **self.settings.denoising, draws=self.draws.denoising)

    def match(self, stages: Sequence[dict[str, torch.Tensor]], targets: GleeTargets) -> GleeMatch:
        """Which query of each stage answers for which object."""
        points = self.draws.matcher
        if points is None and targets.masks is not None:
            shape = (len(stages), len(targets.counts), self.settings.mask_points, 2)
            points = torch.rand(shape, device=targets.boxes.device)
        return match_queries(stages, targets, self.settings.costs, points)

    def _tracks(self, embeddings: torch.Tensor, targets: GleeTargets, match: GleeMatch, frames: int) -> torch.Tensor:
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
        return {"confidence": list(focal_loss(logits, wanted).sum(dim=(1, 2)) / logits.shape[-1])}

    def _masks(
        self, stages: Sequence[dict], targets: GleeTargets, match: GleeMatch, objects: torch.Tensor
    ) -> dict[str, list[torch.Tensor]]:
        losses = {"mask": [], "dice": []}
        for index, stage in enumerate(stages):
            logits = stage["pred_masks"][match.rows[index], match.queries[index]][:, None].float()
            points = None if self.draws.masks is None else self.draws.masks[index]
            if points is None:
                points = self.uncertain_points(logits.detach())  # (pairs, points, 2)
            predicted = sample_points(logits, points)[:, 0]  # (pairs, points)
            wanted = targets.masks[match.rows[index], match.objects[index]][:, None]
            wanted = sample_points(wanted, points)[:, 0]
            entropy = nn.functional.binary_cross_entropy_with_logits(predicted, wanted, reduction="none")
            losses["mask"].append(entropy.mean(dim=1).sum() / objects)
            losses["dice"].append(dice_loss(predicted, wanted).sum() / objects)
        return losses

    @torch.no_grad()
    def uncertain_points(self, logits: torch.Tensor) -> torch.Tensor:
        """
        Points near the border of predicted masks, and some anywhere (PointRend, section 3.1).

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
    """Focal loss of all queries and classes, per object; one value a stage."""
    logits = torch.stack([stage["logits"].float() for stage in stages])  # (stages, rows, queries, classes)
    wanted = torch.zeros_like(logits)
    index = torch.arange(len(stages), device=logits.device)[:, None]
    wanted[index, match.rows, match.queries, targets.classes[match.rows, match.objects]] = 1
    return {"class": list(focal_loss(logits, wanted).sum(dim=(1, 2, 3)) / objects)}


def box_losses(
    stages: Sequence[dict[str, torch.Tensor]], targets: GleeTargets, match: GleeMatch, objects: torch.Tensor
) -> dict[str, list[torch.Tensor]]:
    """L1 distance and 1 - generalised IoU of matched boxes, per object; one value a stage."""
    predicted = torch.stack([stage["pred_boxes"].float() for stage in stages])  # (stages, rows, queries, 4)
    index = torch.arange(len(stages), device=predicted.device)[:, None]
    predicted = predicted[index, match.rows, match.queries]  # (stages, pairs, 4)
    wanted = targets.boxes[match.rows, match.objects]
    distance = (predicted - wanted).abs().sum(dim=(1, 2)) / objects
    overlap = (1 - generalized_iou(predicted, wanted)).sum(dim=1) / objects
    return {"box": list(distance), "giou": list(overlap)}


def focal_loss(logits: torch.Tensor, wanted: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0) -> torch.Tensor:
    """Sigmoid focal loss (Lin et al., ICCV 2017, equation 5), element by element; `wanted` is 0 or 1."""
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    probability = logits.sigmoid()
    missed = probability + wanted - 2 * probability * wanted  # 1 - probability of what is wanted
    return (alpha * wanted + (1 - alpha) * (1 - wanted)) * missed**gamma * entropy


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Mean squared distance of a text encoder's states to those of the frozen one it started from (published code; the
    paper, section 3.1, writes L1).

    Args:
        student, teacher: `(texts, length, size)`; mask: `(texts, length)`, 0 for padding.
    """
    distance = (student.float() - teacher.float()).square().mean(dim=-1)  # (texts, length)
    return (distance * mask).sum() / mask.sum()


def dice_loss(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """1 - dice of masks at points `(masks, points)`, smoothed by one point: `(masks,)`."""
    inside = logits.sigmoid()
    return 1 - (2 * (inside * wanted).sum(-1) + 1) / (inside.sum(-1) + wanted.sum(-1) + 1)


def mean_over_processes(count: int, device: torch.device) -> torch.Tensor:
    """A count as the mean over the processes that train together; a float32 scalar."""
    mean = torch.tensor(float(count), device=device)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(mean)
        mean = mean / distributed.get_world_size()
    return mean

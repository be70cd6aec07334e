"""GLEE's losses and matching on predictions whose answers are known."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import sigmoid_focal_loss

from lookhear.modeling.glee.configuration_glee import GleeLossSettings, GleeMatchingCosts, check_denoising_table
from lookhear.modeling.glee.loss_glee import (
    GleeDenoisingDraws,
    GleeLoss,
    GleeLossDraws,
    GleeSupervision,
    GleeTargets,
    dice_loss,
    distillation_loss,
    draw_negatives,
    generalized_iou,
    make_denoising,
    mask_cost,
    match_queries,
    sample_points,
    track_loss,
)


def square(row: int, column: int) -> torch.Tensor:
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[row : row + 4, column : column + 4] = True
    return mask


@pytest.fixture
def labels() -> list[dict[str, torch.Tensor]]:
    """Two objects in the first row, none in the second, one in the third; on padded images of 16 x 16."""
    boxes = torch.tensor([[0.125, 0.125, 0.25, 0.25], [0.625, 0.625, 0.25, 0.25]])
    masks = torch.stack((square(0, 0), square(8, 8)))
    none = {"class_labels": torch.zeros(0).long(), "boxes": torch.zeros(0, 4), "masks": torch.zeros(0, 16, 16) > 0}
    return [
        {"class_labels": torch.tensor([1, 0]), "boxes": boxes, "masks": masks},
        none,
        {"class_labels": torch.tensor([2]), "boxes": boxes[1:], "masks": masks[1:]},
    ]


def stage(labels, queries: int = 5, classes: int = 3, sure: float = 9.0) -> dict[str, torch.Tensor]:
    """Predictions that are right: the objects of a row in its last queries, the last first."""
    logits = torch.full((len(labels), queries, classes), -sure)
    boxes = torch.rand(len(labels), queries, 4, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.4
    masks = torch.full((len(labels), queries, 4, 4), -sure)
    for row, entry in enumerate(labels):
        for index, label in enumerate(entry["class_labels"].tolist()):
            query = queries - 1 - index
            logits[row, query, label] = sure
            boxes[row, query] = entry["boxes"][index]
            masks[row, query][entry["masks"][index][2::4, 2::4]] = sure
    tensors = {"logits": logits, "confidence": logits.amax(-1), "pred_boxes": boxes, "pred_masks": masks}
    return {name: value.requires_grad_() for name, value in tensors.items()}


def losses(labels, predictions, **supervision):
    """Total and losses; the first queries and the proposals predict as the last layer does."""
    criterion = GleeLoss(GleeLossSettings(mask_points=200))
    supervision = GleeSupervision(**supervision)
    targets = GleeTargets.from_labels(labels, len(labels), supervision.masks, supervision.class_agnostic)
    return criterion(predictions, [predictions], predictions, targets, supervision)


def test_right_predictions_are_matched_and_cost_little(labels):
    torch.manual_seed(0)
    targets = GleeTargets.from_labels(labels, 3)
    match = match_queries([stage(labels)], targets, GleeMatchingCosts(), torch.rand(1, 3, 50, 2))
    assert match.rows.tolist() == [[0, 0, 2]]
    assert match.queries.tolist() == [[3, 4, 4]]
    assert match.objects.tolist() == [[1, 0, 0]]
    total, parts = losses(labels, stage(labels), confidence=True)
    kinds = {"class", "box", "giou", "mask", "dice"}
    assert set(parts) == {k + s for k in kinds for s in ("", "_0", "_proposals")} | {"confidence", "confidence_0"}
    assert all(parts[kind].item() < 1e-3 for kind in ("class", "confidence", "box", "giou"))
    assert parts["mask"].item() < 1.0 and parts["dice"].item() < 0.3, "mask edges are blurred at a quarter of the size"
    assert total.item() < 25


def test_every_prediction_gets_a_finite_gradient(labels):
    torch.manual_seed(0)
    predictions = stage(labels, sure=0.5)
    predictions["pred_boxes"] = (predictions["pred_boxes"].detach() * 0.9 + 0.03).requires_grad_()
    losses(labels, predictions, confidence=True)[0].backward()
    for name, value in predictions.items():
        assert value.grad.isfinite().all() and value.grad.abs().sum() > 0, name
    assert predictions["logits"].grad[1].abs().sum() > 0, "an empty image teaches what isn't there"
    assert not predictions["pred_boxes"].grad[1].any()


def test_a_batch_without_objects(labels):
    empty = [labels[1]] * 3
    total, parts = losses(empty, stage(empty, sure=1.0))
    total.backward()
    assert parts["box"].item() == parts["mask"].item() == 0
    assert parts["class"].item() > 0


@pytest.mark.parametrize(
    ("supervision", "kinds"),
    [
        ({"masks": False}, {"class", "box", "giou"}),
        ({"masks": False, "boxes": False}, {"class"}),
        ({"class_agnostic": True}, {"class", "box", "giou", "mask", "dice"}),
    ],
)
def test_supervision_is_data(labels, supervision, kinds):
    _, parts = losses(labels, stage(labels), **supervision)
    assert {name.partition("_")[0] for name in parts} == kinds
    without = [{name: value for name, value in entry.items() if name != "masks"} for entry in labels]
    assert "mask" not in losses(without, stage(labels))[1]


def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(ValueError, match="one entry a row"):
        GleeTargets.from_labels(labels[:2], 3)
    with pytest.raises(ValueError, match=r"labels\[0\] has 2 boxes but 1 class_labels"):
        GleeTargets.from_labels([{**labels[0], "class_labels": torch.tensor([1])}], 1)
    with pytest.raises(ValueError, match="some rows only"):
        GleeTargets.from_labels([labels[0], {k: v for k, v in labels[2].items() if k != "masks"}], 2)
    beyond = [{**labels[0], "class_labels": torch.tensor([1, 3])}, *labels[1:]]
    with pytest.raises(ValueError, match="beyond the classes"):
        match_queries([stage(labels)], GleeTargets.from_labels(beyond, 3, masks=False), GleeMatchingCosts(), None)


def test_focal_dice_and_overlap():
    wanted = torch.tensor([1.0, 0.0])
    losses = sigmoid_focal_loss(torch.tensor([0.0, 0.0]), wanted)
    assert losses.tolist() == pytest.approx([0.25 * 0.25 * 0.6931, 0.75 * 0.25 * 0.6931], rel=1e-3)
    assert dice_loss(torch.full((1, 4), 50.0), torch.ones(1, 4)).item() == pytest.approx(0)
    box, other = torch.tensor([0.25, 0.25, 0.5, 0.5]), torch.tensor([0.75, 0.75, 0.5, 0.5])
    assert generalized_iou(box, box).item() == pytest.approx(1)
    assert generalized_iou(box, other).item() == pytest.approx(-0.5)
    assert generalized_iou(torch.zeros(4), torch.zeros(4)).isfinite()


def test_unknown_denoising_tables_name_the_known_ones():
    check_denoising_table("coco", {"coco": 80})
    with pytest.raises(ValueError, match="'cocoa' is not in config.denoising_tables, which has coco, vg"):
        check_denoising_table("cocoa", {"coco": 80, "vg": 200})
    with pytest.raises(ValueError, match="which is empty; add it there"):
        check_denoising_table("coco", None)


def test_denoising_queries_start_near_the_objects_and_keep_their_secret(labels):
    targets = GleeTargets.from_labels(labels, 3)
    table = torch.nn.Embedding(3, 8)
    draws = GleeDenoisingDraws(torch.ones(6), torch.zeros(6).long(), torch.full((6, 4), 0.5))
    start = make_denoising(targets, table, most_queries=5, draws=draws)
    assert (start.groups, start.slots) == (2, 2)
    assert start.rows.tolist() == [0, 0, 2] * 2
    assert start.indices.tolist() == [0, 1, 0, 2, 3, 2]
    assert torch.equal(start.boxes[start.rows, start.indices], targets.boxes[start.rows, start.objects])
    assert torch.equal(start.queries[0, 2], table.weight[1])
    assert not start.queries[1].any()
    seen = start.attention_bias(3)[0, 0] == 0  # (queries, what they see)
    assert seen[:2].tolist() == [[True, True, False, False, True, True, True]] * 2
    assert seen[4:].tolist() == [[False] * 4 + [True] * 3] * 3
    start.queries.sum().backward()
    assert table.weight.grad.abs().sum() > 0
    moved = make_denoising(targets, table, 100, box_noise=0.4)
    reach = 0.4 * targets.boxes[moved.rows, moved.objects][:, 2:]
    shift = (moved.boxes[moved.rows, moved.indices] - targets.boxes[moved.rows, moved.objects])[:, 2:].abs()
    assert (shift <= reach + 1e-6).all() and shift.max() > 0.01
    assert make_denoising(targets, table, most_queries=1) is None
    with pytest.raises(ValueError, match="class_labels hold 2, .* has 1 rows"):
        make_denoising(targets, torch.nn.Embedding(1, 8))


def test_loss_settings_name_only_what_differs():
    settings = GleeLossSettings.from_config(
        {"mask_points": 7, "weights": {"track": 3.0}, "costs": {"giou": 1.0}, "denoising": {"most_queries": 5}}
    )
    assert settings.mask_points == 7
    assert settings.weights == {**GleeLossSettings().weights, "track": 3.0}
    assert settings.costs == GleeMatchingCosts(giou=1.0)
    assert settings.denoising == {"most_queries": 5, "label_noise": 0.2, "box_noise": 0.4}
    assert GleeLossSettings.from_config(None) == GleeLossSettings()
    for wrong in ({"points": 7}, {"weights": {"boxes": 1.0}}):
        with pytest.raises(ValueError, match="loss_settings"):
            GleeLossSettings.from_config(wrong)


def focal(score: float, wanted: float) -> float:
    """Lin et al., ICCV 2017, equation 5, with alpha 0.25 and gamma 2; `wanted` may lie between 0 and 1."""
    inside = 1 / (1 + math.exp(-score))
    entropy = -wanted * math.log(inside) - (1 - wanted) * math.log(1 - inside)
    right = inside * wanted + (1 - inside) * (1 - wanted)
    return (0.25 * wanted + 0.75 * (1 - wanted)) * (1 - right) ** 2 * entropy


def bce(score: float, wanted: float) -> float:
    inside = 1 / (1 + math.exp(-score))
    return -wanted * math.log(inside) - (1 - wanted) * math.log(1 - inside)


@pytest.mark.parametrize(("name", "of_point"), [("bce", bce), ("focal", focal)])
def test_mask_losses_are_those_of_the_code_and_of_the_paper(labels, name, of_point):
    """Point by point, at given points; where a point lies between a mask's pixels, it is wanted in part."""
    torch.manual_seed(0)
    predictions = stage(labels, sure=0.7)
    points = torch.rand(3, 3, 40, 2)  # stages, pairs, points
    settings = GleeLossSettings.from_config({"mask_points": 40, "mask_loss": name})
    criterion = GleeLoss(settings, GleeLossDraws(matcher=torch.rand(3, 3, 40, 2), masks=points))
    targets = GleeTargets.from_labels(labels, 3)
    _, parts = criterion(predictions, [predictions], predictions, targets, GleeSupervision())
    match = criterion.match([predictions], targets)
    pairs = list(zip(*(getattr(match, part)[0].tolist() for part in ("rows", "queries", "objects"))))
    assert len(pairs) == 3
    for index, stage_name in enumerate(("mask", "mask_0", "mask_proposals")):
        total = 0.0
        for place, (row, query, thing) in enumerate(pairs):
            where = points[index, place][None]
            scores = sample_points(predictions["pred_masks"][row, query][None, None].detach(), where)
            wanted = sample_points(targets.masks[row, thing][None, None], where)
            total += sum(map(of_point, scores.flatten().tolist(), wanted.flatten().tolist())) / 40
        assert parts[stage_name].item() == pytest.approx(total / 3, rel=1e-4)


@pytest.mark.parametrize(("name", "of_point"), [("bce", bce), ("focal", focal)])
def test_masks_are_matched_by_the_loss_that_is_learnt(labels, name, of_point):
    torch.manual_seed(1)
    costs = GleeMatchingCosts(mask=2.0, dice=0.0)
    masks, targets = torch.randn(3, 5, 4, 4), GleeTargets.from_labels(labels, 3).masks
    points = (torch.randint(16, (3, 30, 2)) + 0.5) / 16  # centres of pixels: wanted is 0 or 1
    at_points = sample_points(masks, points), sample_points(targets, points).transpose(1, 2)
    cost = mask_cost(*at_points, costs, name)
    assert cost.shape == (3, 5, 2)
    for row, query, thing in [(0, 0, 0), (0, 4, 1), (2, 2, 0)]:
        scores = sample_points(masks[row, query][None, None], points[row][None]).flatten().tolist()
        wanted = sample_points(targets[row, thing][None, None], points[row][None]).flatten().tolist()
        by_hand = 2.0 * sum(map(of_point, scores, wanted)) / 30
        assert cost[row, query, thing].item() == pytest.approx(by_hand, rel=1e-4)


def test_losses_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"config.loss_settings\['mask_loss'\] must be bce or focal, not 'dice'"):
        GleeLossSettings.from_config({"mask_loss": "dice"})
    with pytest.raises(ValueError, match=r"config.loss_settings\['distillation_loss'\] must be mse or l1, not 1"):
        GleeLossSettings.from_config({"distillation_loss": 1})


def test_track_loss_is_the_sum_over_all_pairs_of_pairs():
    torch.manual_seed(0)
    embeddings = torch.randn(2, 6, 4, requires_grad=True)
    matched = [torch.tensor([0, 2]), torch.tensor([1, 3, 5])]
    tracks = [torch.tensor([7, 8]), torch.tensor([8, 7, 9])]  # 9 is new
    negatives = torch.tensor([[1, 4], [0, 2]])
    loss = track_loss(embeddings, matched, tracks, 2, negatives)
    before = [(0, 7), (2, 8), (1, None), (4, None)]
    scores = {
        (i, track, other): embeddings[0, i] @ embeddings[1, j]
        for i, track in before
        for j, other in ((1, 8), (3, 7), (5, 9))
    }
    alike = [score for (_, track, other), score in scores.items() if track == other]
    apart = [score for (_, track, other), score in scores.items() if track != other]
    assert (len(alike), len(apart)) == (2, 10)
    wanted = torch.log(1 + sum(torch.exp(b - a) for a in alike for b in apart)) / 3
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    loss.backward()
    assert embeddings.grad.isfinite().all() and embeddings.grad.any()


def test_track_loss_without_anything_to_compare():
    embeddings = torch.randn(4, 5, 3, requires_grad=True)
    none, one = torch.zeros(0).long(), torch.tensor([1])
    negatives = draw_negatives([one] * 4, 5)
    assert negatives.shape == (4, 4) and not (negatives == 1).any()
    # A clip ends behind the second row; an object that was not there before is compared with nothing.
    nothing = track_loss(embeddings, [one, none, none, one], [one, none, none, one], 2, negatives)
    nothing.backward()
    assert nothing.item() == 0 and not embeddings.grad.any()


def test_tracks_are_learnt_with_the_other_losses(labels):
    torch.manual_seed(0)
    clip = [{**labels[0], "track_ids": torch.tensor([3, 4])}, {**labels[2], "track_ids": torch.tensor([4])}]
    embeddings = torch.randn(2, 5, 8, requires_grad=True)
    criterion, predictions = GleeLoss(GleeLossSettings(mask_points=200)), stage(clip)
    supervision = GleeSupervision(track_frames=2)
    targets = GleeTargets.from_labels(clip, 2)
    learnt = [predictions, [predictions], predictions, targets, supervision]
    total, parts = criterion(*learnt, track_embeddings=embeddings, distillation=torch.tensor(0.5))
    without, _ = criterion(*learnt[:-1], GleeSupervision())
    assert parts["track"] > 0 and parts["distillation"] == 0.5
    total.backward()
    assert embeddings.grad[1, 4].any(), "the query of the object in the second frame"
    with pytest.raises(ValueError, match="3 frames a clip"):
        criterion(*learnt[:-1], GleeSupervision(track_frames=3), track_embeddings=embeddings)
    with pytest.raises(ValueError, match="track_ids in some rows only"):
        GleeTargets.from_labels([clip[0], labels[2]], 2)


def test_distillation_counts_real_tokens_only():
    student, teacher = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    teacher[1, 2] = 100.0
    mask = torch.tensor([[1, 0, 0], [1, 1, 0]])
    assert distillation_loss(student, teacher, mask).item() == pytest.approx(1.0)
    teacher[0, 0] = torch.tensor([0.0, -2.0, 4.0, 1.0])  # squared 0, 4, 16, 1; absolute 0, 2, 4, 1
    assert distillation_loss(student, teacher, mask).item() == pytest.approx((21 / 4 + 1 + 1) / 3)
    assert distillation_loss(student, teacher, mask, "l1").item() == pytest.approx((7 / 4 + 1 + 1) / 3)


class Called(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self):
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def test_all_costs_reach_the_host_in_one_copy(labels, monkeypatch):
    copies = []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(tuple(self.shape)) or original(self))
    clips = [{**entry, "track_ids": entry["class_labels"]} for entry in labels]
    targets, criterion = GleeTargets.from_labels(clips, 3), GleeLoss(GleeLossSettings(mask_points=50))
    start = criterion.denoising(targets, torch.nn.Embedding(3, 8))
    predictions, supervision = stage(clips), GleeSupervision(confidence=True, track_frames=3)
    known = {"logits": torch.zeros(3, start.boxes.shape[1], 3), "pred_boxes": start.boxes}
    with Called() as called:
        criterion(
            predictions, [predictions], predictions, targets, supervision, start, [known] * 2, torch.rand(3, 5, 8)
        )
    assert copies == [(4, 3, 5, 2)], "the costs of all stages, those of tracking among them"
    # One host value a row is looked at for finiteness; nothing else waits for the device.
    assert called.names["_local_scalar_dense"] == len(labels)
    assert not {"nonzero", "masked_select", "equal"} & set(called.names)

"""Answers of the network in pixels of the picture, against the plain way: enlarge every mask, then choose."""

import pytest
import torch
from torch.nn import functional as F
from transformers.utils import ModelOutput

from lookhear.processing.glee import GleeImageProcessor, GleeProcessor, post_processing_glee
from lookhear.processing.glee.post_processing_glee import (
    post_process_grounding,
    post_process_instance_segmentation,
    post_process_interactive,
    post_process_object_detection,
    post_process_open_world,
)

IMAGE_SIZES = [(32, 48), (27, 64), (32, 48)]
TARGETS = [(61, 95), (20, 30), (32, 48)]


def make_outputs(num_labels: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Three rows of twelve queries; the padded image is 32 x 64, masks have a stride of 4."""
    generator = torch.Generator().manual_seed(num_labels)
    masks = F.interpolate(torch.randn(3, 12, 3, 4, generator=generator) * 3, size=(8, 16), mode="bicubic")
    masks[:, 3] = -1.0  # an empty one
    return {
        "logits": torch.randn(3, 12, num_labels, generator=generator).to(dtype),
        "confidence": torch.randn(3, 12, generator=generator).to(dtype),
        "pred_boxes": torch.rand(3, 12, 4, generator=generator).to(dtype),
        "pred_masks": masks.to(dtype),
        "image_sizes": torch.tensor(IMAGE_SIZES),
        "padded_sizes": torch.tensor([(32, 64)] * 3),
    }


def plain(outputs, row: int, target: tuple[int, int], top_k: int) -> dict[str, torch.Tensor]:
    """Every mask at full size, then the best pairs of query and label."""
    height, width = IMAGE_SIZES[row]
    masks = F.interpolate(outputs["pred_masks"][row][None].float(), size=(32, 64), mode="bilinear")
    masks = F.interpolate(masks[..., :height, :width], size=target, mode="bilinear")[0]
    inside = masks > 0
    quality = (masks.sigmoid() * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)
    probabilities = outputs["logits"][row].float().sigmoid()
    best = sorted(
        ((p.item(), q, k) for q, of_query in enumerate(probabilities) for k, p in enumerate(of_query)), reverse=True
    )[:top_k]
    found = sorted(((p * quality[q].item(), k, q) for p, q, k in best), key=lambda pair: pair[0], reverse=True)
    queries = [q for _, _, q in found]
    x, y, w, h = outputs["pred_boxes"][row][queries].float().unbind(-1)
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=-1)
    scale = torch.tensor([64 / width * target[1], 32 / height * target[0]] * 2)
    return {
        "scores": torch.tensor([score for score, _, _ in found]),
        "labels": torch.tensor([label for _, label, _ in found]),
        "boxes": corners * scale,
        "masks": inside[queries],
    }


def check(result: dict, expected: dict, names=("scores", "labels", "boxes", "masks")) -> None:
    assert tuple(result) == tuple(names)
    assert result["labels"].dtype == torch.int64 and result["scores"].dtype == torch.float32
    for name in names:
        assert result[name].shape == expected[name].shape, name
        assert torch.allclose(result[name].float(), expected[name].float(), atol=1e-5), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("top_k", [1, 20, 60, None])
def test_instance_segmentation(dtype, top_k):
    outputs = make_outputs(5, dtype)
    results = post_process_instance_segmentation(outputs, 0.0, TARGETS, top_k)
    for row, (result, target) in enumerate(zip(results, TARGETS, strict=True)):
        expected = plain(outputs, row, target, top_k or 60)
        if dtype == torch.bfloat16:  # equally good pairs may change places
            assert torch.allclose(result["scores"], expected["scores"], atol=1e-5)
        else:
            check(result, expected)
        assert result["masks"].dtype == torch.bool


def test_threshold_and_order():
    outputs = make_outputs(5)
    everything = post_process_instance_segmentation(outputs, 0.0, TARGETS)
    for result, whole in zip(post_process_instance_segmentation(outputs, 0.5, TARGETS), everything):
        kept = whole["scores"] >= 0.5
        assert 0 < kept.sum() < len(kept)
        check(result, {name: value[kept] for name, value in whole.items()})
        assert (result["scores"].diff() <= 0).all()
    assert all(len(result["scores"]) == 0 for result in post_process_instance_segmentation(outputs, 1.0, TARGETS))


@pytest.mark.parametrize(("kept", "threshold"), [(1, 0.5), (12, 0.0)])
def test_masks_of_the_best_queries_are_enlarged_once_each(monkeypatch, kept, threshold):
    outputs = make_outputs(5)
    outputs["logits"][:] = -5.0
    outputs["logits"][:, 7] = 5.0  # for all five labels
    real, calls = post_processing_glee.masks_to_picture, []
    monkeypatch.setattr(
        post_processing_glee, "masks_to_picture", lambda masks, *sizes: calls.extend(masks) or real(masks, *sizes)
    )
    results = post_process_instance_segmentation(outputs, threshold, TARGETS, top_k=None)
    assert len(results[0]["scores"]) == 5 * kept
    assert len(calls) == 3 * kept


def test_object_detection_is_the_same_without_masks():
    outputs = make_outputs(5)
    results = post_process_object_detection(outputs, 0.3, torch.tensor(TARGETS))
    for result, expected in zip(results, post_process_instance_segmentation(outputs, 0.3, TARGETS)):
        check(result, expected, names=("scores", "labels", "boxes"))


def test_without_sizes_boxes_are_relative_and_masks_as_seen():
    outputs = make_outputs(2)
    for row, result in enumerate(post_process_instance_segmentation(outputs, 0.0)):
        height, width = IMAGE_SIZES[row]
        expected = plain(outputs, row, (height, width), 24)
        expected["boxes"] /= torch.tensor([width, height] * 2)
        check(result, expected)


def test_open_world_is_one_label():
    outputs = make_outputs(1)
    for result, expected in zip(
        post_process_open_world(outputs, 0.2, TARGETS), post_process_instance_segmentation(outputs, 0.2, TARGETS)
    ):
        check(result, expected)


def test_grounding_has_one_result_an_expression():
    outputs = make_outputs(1)
    results = post_process_grounding(outputs, [TARGETS[1], TARGETS[0]], torch.tensor([1, 0, 1]))
    for row, (result, target) in enumerate(zip(results, (TARGETS[0], TARGETS[1], TARGETS[0]), strict=True)):
        check(result, plain(outputs, row, target, 1))
    assert all(len(result["scores"]) == 0 for result in post_process_grounding(outputs, TARGETS, threshold=1.0))


def test_interactive_has_one_result_a_prompt():
    outputs = make_outputs(1)
    for row, result in enumerate(post_process_interactive(outputs, TARGETS)):
        values = outputs["logits"][row].flatten()
        expected = plain(outputs, row, TARGETS[row], 1)
        check(result, {**expected, "scores": values.max().sigmoid()[None]})
    repeated = post_process_interactive(outputs, TARGETS[:1], torch.zeros(3, dtype=torch.int64))
    assert [tuple(result["masks"].shape) for result in repeated] == [(1, 61, 95)] * 3


def test_model_outputs_and_mappings_are_alike():
    outputs = make_outputs(5)
    for result, expected in zip(
        post_process_instance_segmentation(ModelOutput(outputs), 0.1, TARGETS),
        post_process_instance_segmentation(outputs, 0.1, TARGETS),
    ):
        check(result, expected)


def test_processors_offer_the_functions(tokenizer):
    images = GleeImageProcessor()
    for owner in (images, GleeProcessor(images, tokenizer)):
        assert len(owner.post_process_object_detection(make_outputs(5), threshold=0.1, target_sizes=TARGETS)) == 3
        assert len(owner.post_process_interactive(make_outputs(1), TARGETS)) == 3


@pytest.mark.parametrize(
    ("function", "num_labels", "arguments", "words"),
    [
        (post_process_object_detection, 5, {"target_sizes": TARGETS[:2]}, "target_sizes must be one .* 3 rows"),
        (post_process_object_detection, 5, {"target_sizes": [(0, 5)] * 3}, "target_sizes"),
        (post_process_object_detection, 5, {"top_k": 0}, "top_k"),
        (post_process_interactive, 1, {"target_sizes": TARGETS[:1]}, "prompt_image_indices"),
        (post_process_interactive, 5, {}, "outputs are those of 5 labels"),
        (post_process_grounding, 5, {}, "outputs are those of 5 labels"),
        (post_process_open_world, 5, {}, "outputs are those of 5 labels"),
    ],
)
def test_wrong_arguments_are_named(function, num_labels, arguments, words):
    with pytest.raises(ValueError, match=words):
        function(make_outputs(num_labels), **arguments)

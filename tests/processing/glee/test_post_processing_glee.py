"""Answers of the network in pixels of the picture, against the plain way: enlarge every mask, then choose."""

import re
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F
from transformers.utils import ModelOutput

from lookhear.processing.glee import GleeImageProcessor, GleeProcessor, post_processing_glee
from lookhear.processing.glee.post_processing_glee import (
    encoded_objects,
    post_process_grounded_object_detection,
    post_process_grounding,
    post_process_instance_segmentation,
    post_process_interactive,
    post_process_object_detection,
    post_process_objects,
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
    results = post_process_objects(outputs, 0.0, TARGETS, top_k)
    for row, (result, target) in enumerate(zip(results, TARGETS, strict=True)):
        expected = plain(outputs, row, target, top_k or 60)
        if dtype == torch.bfloat16:  # equally good pairs may change places
            assert torch.allclose(result["scores"], expected["scores"], atol=1e-5)
        else:
            check(result, expected)
        assert result["masks"].dtype == torch.bool


def test_threshold_and_order():
    outputs = make_outputs(5)
    everything = post_process_objects(outputs, 0.0, TARGETS)
    for result, whole in zip(post_process_objects(outputs, 0.5, TARGETS), everything):
        kept = whole["scores"] >= 0.5
        assert 0 < kept.sum() < len(kept)
        check(result, {name: value[kept] for name, value in whole.items()})
        assert (result["scores"].diff() <= 0).all()
    assert all(len(result["scores"]) == 0 for result in post_process_objects(outputs, 1.0, TARGETS))


@pytest.mark.parametrize(("kept", "threshold"), [(1, 0.5), (12, 0.0)])
def test_masks_of_the_best_queries_are_enlarged_once_each(monkeypatch, kept, threshold):
    outputs = make_outputs(5)
    outputs["logits"][:] = -5.0
    outputs["logits"][:, 7] = 5.0  # for all five labels
    real, calls = post_processing_glee.masks_to_picture, []
    monkeypatch.setattr(
        post_processing_glee, "masks_to_picture", lambda masks, *sizes: calls.extend(masks) or real(masks, *sizes)
    )
    results = post_process_objects(outputs, threshold, TARGETS, top_k=None)
    assert len(results[0]["scores"]) == 5 * kept
    assert len(calls) == 3 * kept


def test_object_detection_is_the_same_without_masks():
    outputs = make_outputs(5)
    results = post_process_object_detection(outputs, 0.3, torch.tensor(TARGETS))
    for result, expected in zip(results, post_process_objects(outputs, 0.3, TARGETS)):
        check(result, expected, names=("scores", "labels", "boxes"))


def test_without_sizes_boxes_are_relative_and_masks_as_seen():
    outputs = make_outputs(2)
    for row, result in enumerate(post_process_objects(outputs, 0.0)):
        height, width = IMAGE_SIZES[row]
        expected = plain(outputs, row, (height, width), 24)
        expected["boxes"] /= torch.tensor([width, height] * 2)
        check(result, expected)


def test_open_world_is_one_label():
    outputs = make_outputs(1)
    for result, expected in zip(
        post_process_open_world(outputs, 0.2, TARGETS), post_process_objects(outputs, 0.2, TARGETS)
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
        post_process_objects(ModelOutput(outputs), 0.1, TARGETS),
        post_process_objects(outputs, 0.1, TARGETS),
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


def only(result: dict, *names: str) -> dict:
    return {name: result[name] for name in names}


def test_the_form_of_transformers_models_for_segmentation():
    outputs = make_outputs(3)
    wholes = post_process_objects(outputs, 0.2, TARGETS)
    for result, whole, target in zip(post_process_instance_segmentation(outputs, 0.2, TARGETS), wholes, TARGETS):
        check(only(result, *whole), whole)
        segmentation, segments = result["segmentation"], result["segments_info"]
        assert segmentation.shape == target
        assert [segment["id"] for segment in segments] == list(range(len(whole["scores"])))
        assert [segment["label_id"] for segment in segments] == whole["labels"].tolist()
        assert [segment["score"] for segment in segments] == pytest.approx(whole["scores"].tolist(), abs=1e-5)
        above = torch.zeros(target, dtype=torch.bool)
        for place, mask in enumerate(whole["masks"]):  # the best on top
            assert torch.equal(segmentation == place, mask & ~above)
            above |= mask
        assert torch.equal(segmentation == -1, ~above)
    (maps, *_) = post_process_instance_segmentation(outputs, 0.2, TARGETS, return_binary_maps=True)
    assert torch.equal(maps["segmentation"].bool(), wholes[0]["masks"])
    (nothing, *_) = post_process_instance_segmentation(outputs, 1.0, TARGETS)
    assert nothing["segments_info"] == [] and (nothing["segmentation"] == -1).all()


def test_labels_by_name():
    outputs, names = make_outputs(3), ["cat", "dog", "bird"]
    plain = post_process_object_detection(outputs, 0.2, TARGETS)
    for texts in (names, [names] * 3):
        found = post_process_grounded_object_detection(outputs, None, 0.2, target_sizes=TARGETS, text_labels=texts)
        for result, whole in zip(found, plain, strict=True):
            check(only(result, *whole), whole, ("scores", "labels", "boxes"))
            assert result["text_labels"] == [names[label] for label in whole["labels"].tolist()]
    with pytest.raises(ValueError, match="text_labels must be the 3 labels"):
        post_process_grounded_object_detection(outputs, text_labels=["cat"])


def test_supervision_takes_results():
    supervision = pytest.importorskip("supervision")
    outputs = make_outputs(3)
    (found, *_) = post_process_instance_segmentation(outputs, 0.2, TARGETS)
    taken = supervision.Detections.from_transformers(found, {0: "cat", 1: "dog", 2: "bird"})
    assert taken.class_id.tolist() == found["labels"].tolist() and taken.mask.shape[1:] == TARGETS[0]
    (boxes, *_) = post_process_object_detection(outputs, 0.2, TARGETS)
    assert len(supervision.Detections.from_transformers(boxes)) == len(boxes["scores"])


def test_an_object_has_its_best_label_only():
    outputs = make_outputs(5)
    outputs["pred_masks"][0, 5], outputs["pred_boxes"][0, 5] = outputs["pred_masks"][0, 4], outputs["pred_boxes"][0, 4]
    outputs["logits"][0, 4, 1], outputs["logits"][0, 5, 3] = 6.0, 5.0  # two queries of one object
    everything = post_process_objects(outputs, 0.0, TARGETS, top_k=None)
    for row, (result, whole) in enumerate(zip(post_process_objects(outputs, 0.0, TARGETS, None, True), everything)):
        best: dict = {}
        for score, label, box in zip(*(whole[name].tolist() for name in ("scores", "labels", "boxes"))):
            best.setdefault(tuple(box), (score, label))  # the first is the best
        assert len(result["scores"]) == len(best) and len(best) == (11 if row == 0 else 12)
        for score, label, box in zip(*(result[name].tolist() for name in ("scores", "labels", "boxes"))):
            if score:
                assert best[tuple(box)] == (pytest.approx(score), label)
    boxes = post_process_object_detection(outputs, 0.3, TARGETS, one_label=True)
    for result, expected in zip(boxes, post_process_objects(outputs, 0.3, TARGETS, one_label=True)):
        plain = ("scores", "labels", "boxes")
        check(result, only(expected, *plain), plain)


def test_masks_as_run_lengths():
    outputs = make_outputs(3)
    for result, expected in zip(encoded_objects(outputs, 0.2, TARGETS), post_process_objects(outputs, 0.2, TARGETS)):
        plain = ("scores", "labels", "boxes")
        check(only(result, *plain), only(expected, *plain), plain)
        assert len(result["masks"]) == len(expected["masks"])
        for mask, pixels in zip(result["masks"], expected["masks"]):
            assert (mask.decode() == pixels.numpy()).all()


def test_large_masks_are_measured_in_parts(monkeypatch):
    """The scores are those of the whole masks; of empty and of full ones, too."""
    outputs = make_outputs(3)
    outputs["pred_masks"][0, 0], outputs["pred_masks"][0, 1] = -5.0, 5.0
    whole = post_process_objects(outputs, 0.0, TARGETS)
    monkeypatch.setattr("lookhear.processing.glee.post_processing_glee.LARGE", 3 * TARGETS[0][1] + 1)
    for result, expected in zip(post_process_objects(outputs, 0.0, TARGETS), whole):
        torch.testing.assert_close(result, expected)


LARGE = """
import resource, sys
import torch
from lookhear.processing.glee.post_processing_glee import encoded_objects

yx = torch.stack(torch.meshgrid(torch.arange(200), torch.arange(268), indexing="ij"))
centres = torch.rand(100, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([200, 268])
masks = 20 - (yx[None] - centres[:, :, None, None]).norm(dim=1)  # discs
outputs = {"logits": torch.linspace(3, -3, 100)[None, :, None], "pred_boxes": torch.rand(1, 100, 4)}
outputs |= {"pred_masks": masks[None], "image_sizes": torch.tensor([[800, 1067]])}
outputs["padded_sizes"] = torch.tensor([[800, 1072]])
size, count, outputs["pred_masks"] = eval(sys.argv[1]), int(sys.argv[2]), masks[None] + float(sys.argv[3])
(found,) = encoded_objects(outputs, 0.1, [size], count)
print(len(found["masks"]), found["masks"][0].decode().shape, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "count", "more", "most"),
    [
        ((3000, 4000), 80, 0, 1.5e6),  # the pixels alone would fill 960 MB, more than twice, sorted by their scores
        ((9400, 9400), 2, 300, 1.7e6),  # each fills the picture: the places of its pixels would fill 1.4 GB
    ],
)
def test_masks_of_many_megapixels_fit_into_memory(size, count, more, most):
    command = [sys.executable, "-c", LARGE, str(size), str(count), str(more)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert tuple(map(int, re.findall(r"\d+", done.stdout)))[:3] == (count, *size)
    assert int(re.findall(r"\d+", done.stdout)[3]) < most


def test_supervision_takes_results_as_they_are():
    """Boxes, masks, scores and names of `Detections.from_transformers`, of overlapping objects and of none."""
    supervision = pytest.importorskip("supervision", reason="needs lookhear[dev]")
    outputs, names = make_outputs(3), {0: "cat", 1: "dog", 2: "bird"}
    whole = post_process_objects(outputs, 0.2, TARGETS)[0]
    count = len(whole["scores"])
    assert count > 2
    found = post_process_object_detection(outputs, 0.0, TARGETS)[0]
    taken = supervision.Detections.from_transformers(found, id2label=names)
    assert torch.equal(torch.from_numpy(taken.xyxy), found["boxes"])
    assert taken.class_id.tolist() == found["labels"].tolist()
    assert torch.equal(torch.from_numpy(taken.confidence), found["scores"])
    assert taken["class_name"].tolist() == [names[label] for label in found["labels"].tolist()]
    for maps in (True, False):
        segments = post_process_instance_segmentation(outputs, 0.2, TARGETS, return_binary_maps=maps)[0]
        taken = supervision.Detections.from_transformers(segments, id2label=names)
        assert taken.class_id.tolist() == whole["labels"].tolist() and len(taken) == count
        assert taken.confidence == pytest.approx(whole["scores"].numpy(), abs=1e-5)
        masks = whole["masks"].clone()
        if not maps:  # in a map of ids, what is behind a better object is hidden
            masks[1:] &= ~masks.int().cumsum(0)[:-1].bool()
        assert torch.equal(torch.from_numpy(taken.mask), masks)
    nothing = post_process_object_detection(outputs, 1.0, TARGETS)[0]
    assert len(supervision.Detections.from_transformers(nothing, id2label=names)) == 0

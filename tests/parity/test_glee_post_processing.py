"""From pixels and prompts to scores, boxes and masks: the sets that the published code ends with."""

import pytest
import torch

from lookhear import GleeForObjectDetection
from lookhear.processing.glee.post_processing_glee import (
    post_process_grounding,
    post_process_interactive,
    post_process_objects,
    post_process_open_world,
)

pytestmark = pytest.mark.parity
PIXELS = 2  # of a mask that may differ: where a logit is 0 but for rounding
PROMPT_TYPES = {"mask": 0, "box": 1, "point": 2, "scribble": 3}


@pytest.fixture(scope="module")
def model(stored_model) -> GleeForObjectDetection:
    return stored_model()


def pixel_mask(stored, sizes: list[tuple[int, int]]) -> torch.Tensor:
    """(B, H, W), 1 for the images of these sizes."""
    mask = torch.zeros(len(sizes), *stored["in.pixel_values"].shape[-2:], dtype=torch.int64)
    for row, (height, width) in zip(mask, sizes):
        row[:height, :width] = 1
    return mask


def check_set(stored, prefix: str, result: dict[str, torch.Tensor]) -> None:
    """Every stored object is found once, whatever the order, and masks agree."""
    labels = stored[f"{prefix}classes"] if f"{prefix}classes" in stored else torch.zeros(1)
    expected = torch.cat(
        [stored[f"{prefix}scores"][:, None], stored[f"{prefix}boxes"], labels[:, None].float()], dim=1
    )
    found = torch.cat([result["scores"][:, None], result["boxes"], result["labels"][:, None].float()], dim=1)
    assert found.shape == expected.shape
    tolerance = (1e-4 * expected.abs()).clamp(min=2e-4)
    tolerance = tolerance[:, None].repeat(1, len(found), 1)  # (stored, found, 6)
    if f"{prefix}mask_area" in stored:  # a score has the mean over the mask in it, which each pixel at the edge moves
        area = stored[f"{prefix}mask_area"][:, None]
        moved = (result["masks"].sum(dim=(1, 2)) - area).abs()
        tolerance[..., 0] += torch.where(moved <= PIXELS, moved / area.clamp(min=1), 0.0)
    alike = ((found[None] - expected[:, None]).abs() <= tolerance).all(dim=-1)  # (stored, found)
    places = torch.where(alike.any(dim=1), alike.int().argmax(dim=1), -1)
    assert sorted(places.tolist()) == list(range(len(found)))
    masks = result["masks"][places]
    if f"{prefix}mask_area" in stored:
        assert (masks.sum(dim=(1, 2)) - stored[f"{prefix}mask_area"]).abs().max() <= PIXELS
    for name, count in (("masks_first10", 10), ("masks", len(masks))):
        if f"{prefix}{name}" in stored:
            assert (masks[:count] != stored[f"{prefix}{name}"]).sum(dim=(1, 2)).max() <= PIXELS


@torch.no_grad()
def test_detection(glee, model):
    stored = glee("detection")
    outputs = model(
        pixel_values=stored["in.pixel_values"],
        pixel_mask=pixel_mask(stored, stored.facts["sizes"]),
        input_ids=stored["in.input_ids"],
        attention_mask=stored["in.attention_mask"],
    )
    results = post_process_objects(outputs, 0.0, stored.facts["output_sizes"], stored.facts["topk"])
    for index, result in enumerate(results):
        check_set(stored, f"post.{index}.", result)


@torch.no_grad()
def test_grounding(glee, model):
    stored = glee("grounding")
    outputs = model(
        pixel_values=stored["in.pixel_values"],
        pixel_mask=pixel_mask(stored, glee("detection").facts["sizes"]),
        expression_input_ids=stored["in.input_ids"],
        expression_attention_mask=stored["in.attention_mask"],
    )
    for index, result in enumerate(post_process_grounding(outputs, stored.facts["output_sizes"])):
        check_set(stored, f"post.{index}.", result)


@torch.no_grad()
def test_open_world(glee, stored_model):
    stored, other, size = glee("openworld"), glee("visual_box"), glee("detection").facts["sizes"][:1]
    outputs = stored_model(num_queries=stored.facts["num_queries"])(
        pixel_values=stored["in.pixel_values"],
        pixel_mask=pixel_mask(stored, size),
        input_ids=other["in.input_ids"],  # "object"
        attention_mask=other["in.attention_mask"],
    )
    check_set(stored, "post.", post_process_open_world(outputs, 0.0, size)[0])


@torch.no_grad()
@pytest.mark.parametrize("kind", PROMPT_TYPES)
def test_visual_prompts(glee, model, kind):
    stored, facts = glee(f"visual_{kind}"), glee("detection").facts
    points = torch.stack([stored[f"in.sampled_points.level{level}"] for level in range(4)])
    outputs = model(
        pixel_values=stored["in.pixel_values"],
        pixel_mask=pixel_mask(stored, facts["sizes"][:1]),
        input_ids=stored["in.input_ids"],
        attention_mask=stored["in.attention_mask"],
        prompt_masks=stored["in.prompt_mask"],
        prompt_types=torch.tensor([PROMPT_TYPES[kind]]),
        prompt_points=points[None],
    )
    (result,) = post_process_interactive(outputs, facts["output_sizes"][:1])
    assert torch.allclose(result["scores"], stored["post.score"], atol=2e-4)
    assert (result["masks"][0] != stored["post.mask"]).sum() <= PIXELS

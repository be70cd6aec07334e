"""Losses and gradients on an accelerator are those of a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.devices.conftest import picture, there

slow = pytest.mark.slow


def assert_same_gradients(make: Callable[[], torch.nn.Module], inputs: dict[str, Any]) -> None:
    """The loss of a model in training, and each weight's gradient, to a ten-thousandth."""
    found = []
    for device in ("pretended", "cpu"):
        model = make().train().to(device)
        torch.manual_seed(1)  # of what is drawn
        loss = model(**(there(inputs) if device == "pretended" else inputs)).loss
        loss.backward()
        gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        found.append((loss.item(), gradients))
    (loss, gradients), (expected, others) = found
    assert loss == pytest.approx(expected, rel=1e-4)
    assert gradients.keys() == others.keys() and gradients
    for name, gradient in others.items():
        torch.testing.assert_close(
            gradients[name], gradient, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def speech(frames: int = 12) -> dict[str, torch.Tensor]:
    """Two clips, the second shorter."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(frames) < torch.tensor([[frames], [frames - 4]])
    return {
        "input_values": torch.randn(2, 640 * frames, generator=generator),
        "attention_mask": mask.repeat_interleave(640, dim=1).long(),
        "pixel_values_videos": torch.randn(2, frames, 1, 20, 20, generator=generator),
        "video_attention_mask": mask.long(),
    }


@slow
def test_reading(far, tiny_checkpoint):
    from lookhear import AvsrForConditionalGeneration

    def make():
        model = AvsrForConditionalGeneration.from_pretrained(tiny_checkpoint)
        model.config.dropout = 0.0
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return model

    end = make().config.eos_token_id
    labels = torch.tensor([[5, 7, 5, end], [9, end, -100, -100]])
    assert_same_gradients(make, {**speech(), "labels": labels})


@slow
@pytest.mark.parametrize("back_end", ["conv", "tcn", "transformer"])
def test_words(far, back_end):
    from lookhear import AvsrConfig
    from lookhear.modeling.avsr import AvsrForVideoClassification

    visual = {"stem_channels": 4, "hidden_sizes": (4, 8), "depths": (1, 1), "layer_type": "basic", "crop_size": 20}
    config = AvsrConfig(
        modality="visual",
        visual_config=visual,
        hidden_size=16,
        encoder_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        classifier_back_end=back_end,
        classifier_hidden_size=16,
        num_labels=7,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
    )

    def make():
        torch.manual_seed(0)
        return AvsrForVideoClassification(config)

    clips = speech(30)
    inputs = {name: clips[name] for name in ("pixel_values_videos", "video_attention_mask")}
    assert_same_gradients(make, {**inputs, "labels": torch.tensor([3, 5])})


def scenes(processor, **prompts: Any) -> dict[str, Any]:
    """Two pictures, one of them smaller, with objects."""
    inputs = dict(processor(images=[picture(), picture(40, 60, seed=1)], **prompts))
    height, width = inputs["pixel_values"].shape[-2:]
    labels = []
    for count in (2, 1):
        masks = torch.zeros(count, height, width, dtype=torch.bool)
        for index in range(count):
            masks[index, 8 * index + 4 : 8 * index + 20, 10:30] = True
        boxes = torch.tensor([[20 / width, (8 * i + 12) / height, 20 / width, 16 / height] for i in range(count)])
        tracks = torch.arange(count) + 1
        labels.append({"class_labels": torch.zeros(count).long(), "boxes": boxes, "masks": masks, "track_ids": tracks})
    return {**inputs, "labels": labels}


@pytest.mark.parametrize(
    ("prompts", "supervision"),
    [
        pytest.param({"labels": ["cat", "dog"]}, {}, id="labels", marks=slow),
        pytest.param(
            {"labels": ["cat", "dog"]}, {"denoising_table": "coco", "track_frames": 2}, id="denoising", marks=slow
        ),
        pytest.param({"expressions": [["a cat"], ["a red dog"]]}, {}, id="expressions", marks=slow),
        pytest.param({"points": [[[(20, 12)]], [[(20, 12)]]]}, {"confidence": True}, id="points", marks=slow),
    ],
)
def test_finding(far, tiny_glee, prompts, supervision):
    from lookhear import GleeForObjectDetection
    from lookhear.modeling.glee.loss_glee import GleeSupervision

    plain, processor = tiny_glee
    config = copy.deepcopy(plain.config)
    config.denoising_tables, config.loss_settings = {"coco": 5}, {"mask_points": 64}

    def make():
        torch.manual_seed(0)
        model = GleeForObjectDetection(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "sampling_offsets" in name:  # at first, places are exactly on cells, where the gradient jumps
                    weight.add_(0.1 * torch.randn_like(weight))
        return model

    inputs = scenes(processor, **prompts)
    if "points" in prompts:
        inputs["prompt_points"] = torch.tensor([[[[0.3, 0.3]]], [[[0.3, 0.3]]]])
    assert_same_gradients(make, {**inputs, "supervision": GleeSupervision(**supervision)})


class AsOne(torch.autograd.Function):
    """Sampling as few operations, which is what the Triton kernels are; the numbers are not those of samples."""

    @staticmethod
    def forward(ctx, value, locations, weights):
        ctx.save_for_backward(value, locations, weights)
        return value.new_zeros(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])

    @staticmethod
    def backward(ctx, gradient):
        return tuple(torch.zeros_like(tensor) for tensor in ctx.saved_tensors)


@slow
@pytest.mark.parametrize(
    ("kernel", "most_forward", "most_backward"),
    [
        pytest.param(False, 0.6, 0.67, id="grid_sample"),
        pytest.param(True, 0.5, 0.6, id="kernel"),
    ],
)
def test_stages_share_their_operations(far, monkeypatch, kernel, most_forward, most_backward):
    """
    Matching, heads and losses of 11 stages are computed together. One stage after the other, a step of this model took
    3435 operations forward and 2771 backward; where Triton's kernels sample, 45 and 54 % of them are left.
    """
    from lookhear import GleeForObjectDetection
    from lookhear.modeling.glee import attention_glee
    from tests.modeling.glee.conftest import small_config

    if kernel:
        monkeypatch.setattr(attention_glee, "sample_by_grid", lambda value, shapes, *where: AsOne.apply(value, *where))
    config = small_config(encoder_layers=6, decoder_layers=9, loss_settings={"mask_points": 64})
    model = GleeForObjectDetection(config).train().to("pretended")
    labels = []
    for count in (2, 1):
        masks = torch.zeros(count, 64, 96)
        masks[:, 8:40, 10:50] = 1
        labels.append({"class_labels": torch.arange(count), "boxes": torch.full((count, 4), 0.3), "masks": masks})
    inputs = {"pixel_values": torch.randn(2, 3, 64, 96), "input_ids": torch.tensor([[58, 3, 4, 59], [58, 7, 59, 59]])}
    inputs["attention_mask"] = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    arguments = there({**inputs, "labels": labels})
    far.log.clear()
    loss = model(**arguments).loss
    forward = far.log.operations
    far.log.clear()
    loss.backward()
    assert forward <= most_forward * 3435
    assert far.log.operations <= most_backward * 2771

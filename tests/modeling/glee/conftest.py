"""GLEE models of a few thousand weights, and requests for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import ResNetConfig, SwinConfig

from lookhear import GleeConfig, GleeForObjectDetection
from lookhear.modeling.glee import GleeEvaConfig

STAGES = ["stage1", "stage2", "stage3", "stage4"]
TEXT = {
    "vocab_size": 60,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "bos_token_id": 58,
    "eos_token_id": 59,
    "pad_token_id": 59,
}
BACKBONES = {
    "resnet": lambda: ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], out_features=STAGES),
    "swin": lambda: SwinConfig(
        embed_dim=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4], window_size=4, out_features=STAGES
    ),
    "eva": lambda: GleeEvaConfig(
        image_size=128,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        window_size=4,
        window_block_indexes=[0],
        pyramid_size=32,
    ),
}


def small_config(backbone: str = "resnet", **overrides) -> GleeConfig:
    fields = {
        "backbone_config": BACKBONES[backbone](),
        "project_features": backbone != "eva",
        "text_config": TEXT,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "num_points": 2,
        "num_queries": 20,
        "fusion_size": 48,
        "fusion_heads": 4,
        "num_groups": 8,
        "template_size": 64,
        "max_prompt_points": 16,
        "canvas_divisor": 32,
    }
    return GleeConfig(**{**fields, **overrides})


@pytest.fixture(scope="session")
def make_config() -> Callable[..., GleeConfig]:
    return small_config


@pytest.fixture(scope="session")
def make_model() -> Callable[..., GleeForObjectDetection]:
    """A model with random weights, the box head's last layer (zero at the start) and frozen statistics included."""

    def make(backbone: str = "resnet", attention: str | None = None, **overrides) -> GleeForObjectDetection:
        torch.manual_seed(0)
        kind = {"attn_implementation": attention} if attention else {}
        model = GleeForObjectDetection(small_config(backbone, **overrides, **kind))
        with torch.no_grad():
            for name, weight in [*model.named_parameters(), *model.named_buffers()]:
                if "heads.box.layers.2" in name or "sampling_offsets.weight" in name or "attention_weights" in name:
                    weight.normal_(std=0.1)
                if name.endswith("running_var") or name.endswith("decoder.norm.weight"):
                    weight.uniform_(0.5, 1.5)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def model(make_model) -> GleeForObjectDetection:
    return make_model()


@pytest.fixture(scope="session")
def make_inputs() -> Callable[..., dict[str, torch.Tensor]]:
    """Two images, the second one smaller than its padded image, and one kind of request."""

    def make(kind: str = "labels", padded: tuple[int, int] = (64, 96), small: tuple[int, int] = (40, 56)) -> dict:
        generator = torch.Generator().manual_seed(1)
        pixel_values = torch.randn(2, 3, *padded, generator=generator)
        pixel_mask = torch.ones(2, *padded, dtype=torch.long)
        pixel_mask[1, small[0] :] = 0
        pixel_mask[1, :, small[1] :] = 0
        pixel_values = pixel_values * pixel_mask[:, None]
        return {"pixel_values": pixel_values, "pixel_mask": pixel_mask, **request(kind, padded, generator)}

    return make


def request(kind: str, padded: tuple[int, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """`labels`: three of one to three words; `expressions`: three, of both images; `visual`: five, of all kinds."""
    if kind == "labels":
        return words([1, 3, 2], 5, generator)
    if kind == "expressions":
        sentences = words([3, 6, 2], 77, generator)
        named = {f"expression_{name}": value for name, value in sentences.items()}
        return {**named, "prompt_image_indices": torch.tensor([1, 0, 1])}
    masks = torch.zeros(5, *padded, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(
        masks, [(4, 4, 20, 30), (8, 2, 50, 30), (20, 9, 22, 12), (0, 0, 9, 9), (5, 5, 6, 6)]
    ):
        mask[y0:y1, x0:x1] = True
    return {
        **words([1], 3, generator),
        "prompt_masks": masks,
        "prompt_types": torch.tensor([0, 1, 2, 3, 2]),
        "prompt_image_indices": torch.tensor([0, 1, 1, 0, 0]),
    }


def words(lengths: list[int], size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random words between begin and end of text, padded with the end of text as CLIP does."""
    input_ids = torch.full((len(lengths), size), TEXT["eos_token_id"])
    attention_mask = torch.zeros_like(input_ids)
    for ids, mask, length in zip(input_ids, attention_mask, lengths):
        ids[0] = TEXT["bos_token_id"]
        ids[1 : length + 1] = torch.randint(0, 50, (length,), generator=generator)
        mask[: length + 2] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}

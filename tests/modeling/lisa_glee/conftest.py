"""Random LISA-GLEEs that are small enough to run in milliseconds: one sees by GLEE alone, one is a LLaVA."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoConfig, CLIPVisionConfig, LlamaConfig, LlavaConfig

from lookhear.modeling.lisa_glee import LisaGleeConfig, LisaGleeForReasoningSegmentation

OBJECT, SEGMENT, IMAGE, WORDS, OBJECTS = 3, 4, 5, 40, 6
TEXT = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TEXT |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TINY = {"object_ranks": True, "object_masks": True, "object_attention": "full"}
TINY |= {"choose_objects": True, "scaled_products": True}
FIELDS = {"object_token_id": OBJECT, "segment_token_id": SEGMENT, "num_objects": OBJECTS}


@pytest.fixture
def build(tiny_glee):
    """Makes a model of a random GLEE and a random Llama, by default with the paper's wiring."""

    def make(language=None, backbone=None, **fields) -> LisaGleeForReasoningSegmentation:
        torch.manual_seed(0)
        perception = copy.deepcopy(tiny_glee[0].config)  # saving a model names its code there
        if backbone is not None:
            perception.backbone_config = AutoConfig.for_model(**backbone)
        label = [perception.text_config.bos_token_id, 7, perception.text_config.eos_token_id]
        config = LisaGleeConfig(
            perception_config=perception,
            language_config=language or LlamaConfig(**TEXT),
            **{**FIELDS, "object_label_ids": label, **fields},
        )
        return LisaGleeForReasoningSegmentation(config).eval()

    return make


@pytest.fixture(params=["paper", "tiny", "llava"])
def kind(request) -> str:
    """The paper's wiring, that of the packaged checkpoint, and a language model that reads images itself."""
    return request.param


@pytest.fixture
def model(kind, build) -> LisaGleeForReasoningSegmentation:
    if kind == "paper":
        return build()
    if kind == "tiny":
        return build(**TINY)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(**TEXT)
    return build(LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, image_seq_length=4))


@pytest.fixture
def batch(kind) -> dict:
    """Two questions about two pictures, the second padded on the right; the answers show two masks and one."""
    random = torch.Generator().manual_seed(0)
    images = [IMAGE] * 4 if kind == "llava" else []
    first = [*images, *[OBJECT] * OBJECTS, 10, 11, 12, SEGMENT, 13, SEGMENT, 2]
    second = [*images, *[OBJECT] * OBJECTS, 14, 15, SEGMENT, 2, 0, 0, 0]
    ids = torch.tensor([first, second])
    labels = ids.clone()
    labels[:, : len(images) + OBJECTS + 1] = -100
    labels[ids == 0] = -100
    pixel_mask = torch.ones(2, 64, 96, dtype=torch.long)
    pixel_mask[1, :, 64:] = 0
    inputs = {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "perception_pixel_values": torch.randn(2, 3, 64, 96, generator=random) * pixel_mask[:, None],
        "perception_pixel_mask": pixel_mask,
        "labels": labels,
        "mask_labels": torch.rand(3, 64, 96, generator=random).round(),
    }
    if images:
        inputs["pixel_values"] = torch.randn(2, 3, 16, 16, generator=random)
    return inputs

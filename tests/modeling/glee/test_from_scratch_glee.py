"""What a new model needs and the published weights do without: a class prior, scaled products, group norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lookhear.modeling.glee import GleeConfig, GleeForObjectDetection
from lookhear.modeling.glee.backbone_glee import GleeFrozenBatchNorm2d
from lookhear.modeling.glee.decoder_glee import GleeHeads

SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_groups": 8}


def heads(**fields) -> GleeHeads:
    torch.manual_seed(0)
    return GleeHeads(GleeConfig(**SMALL, **fields))


def model(**fields) -> GleeForObjectDetection:
    config = GleeConfig(
        **SMALL,
        **fields,
        backbone_config={
            "model_type": "resnet",
            "embedding_size": 8,
            "hidden_sizes": [8, 16, 16, 16],
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        text_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    )
    return GleeForObjectDetection(config)


def test_a_class_prior_is_where_scores_start():
    ready = model(class_prior=0.01).model.heads
    assert ready.class_bias.sigmoid().item() == pytest.approx(0.01)
    nothing = ready.class_logits(torch.zeros(1, 2, 64), torch.zeros(1, 3, 64))
    assert torch.allclose(nothing.sigmoid(), torch.tensor(0.01))
    assert not any("class_bias" in name for name in heads().state_dict())


def test_group_norms_take_the_place_of_frozen_batch_norms():
    for fields, expected in (({}, GleeFrozenBatchNorm2d), ({"backbone_group_norm": True}, nn.GroupNorm)):
        modules = model(**fields).model.backbone.modules()
        assert {type(module) for module in modules if "Norm" in type(module).__name__} == {expected}


def test_scores_start_spread_out_but_not_so_far_that_a_step_throws_them():
    """Unit variance in, and class scores differ by some tenths: plain products need a small projection for that."""
    for scaled in (False, True):
        ready = model(scaled_products=scaled).model.heads
        torch.manual_seed(1)
        logits = ready.class_logits(torch.randn(1, 200, 64), torch.randn(1, 50, 64))
        assert 0.3 < logits.std() < 3


def test_scaled_products_are_divided_by_the_root_of_their_length():
    plain, scaled = heads(), heads(scaled_products=True)
    scaled.load_state_dict(plain.state_dict())
    states, texts, boxes = torch.randn(2, 5, 64), torch.randn(1, 3, 64), torch.rand(2, 5, 4)
    assert torch.allclose(plain.class_logits(states, texts), 8 * scaled.class_logits(states, texts), atol=1e-5)
    features = torch.randn(2, 64, 4, 4)
    masks = [head.mask_logits(states, boxes, features) for head in (plain, scaled)]
    assert torch.allclose(masks[0], 8 * masks[1], atol=1e-4)


def test_a_prior_is_a_probability():
    with pytest.raises(ValueError, match="class_prior"):
        GleeConfig(class_prior=1.0)
    for name in ("label_threshold", "expression_threshold"):
        assert getattr(GleeConfig.from_dict(GleeConfig(**{name: 0.25}).to_dict()), name) == 0.25
        with pytest.raises(ValueError, match=f"{name} must be from 0 to 1, not 1.5"):
            GleeConfig(**{name: 1.5})

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


def test_a_class_prior_is_where_scores_start():
    config = GleeConfig(
        **SMALL,
        class_prior=0.01,
        backbone_group_norm=True,
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
    model = GleeForObjectDetection(config)
    assert model.model.heads.class_bias.sigmoid().item() == pytest.approx(0.01)
    nothing = model.model.heads.class_logits(torch.zeros(1, 2, 64), torch.zeros(1, 3, 64))
    assert torch.allclose(nothing.sigmoid(), torch.tensor(0.01))
    norms = {type(module) for module in model.model.backbone.modules() if "Norm" in type(module).__name__}
    assert norms == {nn.GroupNorm}
    assert GleeFrozenBatchNorm2d not in norms
    assert "class_bias" not in heads().state_dict() or heads().class_bias is None


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

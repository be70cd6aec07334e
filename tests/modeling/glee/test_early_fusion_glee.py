"""The early fusion with its projections folded into the text: the same numbers as without."""

import pytest
import torch

from lookhear.modeling.glee import GleeConfig
from lookhear.modeling.glee.attention_glee import TOKENS_AT_ONCE, GleeEarlyFusion, attention_bias


@pytest.fixture(scope="module")
def config() -> GleeConfig:
    return GleeConfig(hidden_size=32, fusion_size=128, fusion_heads=4, num_attention_heads=4)


@pytest.fixture(scope="module")
def fusion(config) -> GleeEarlyFusion:
    torch.manual_seed(0)
    fusion = GleeEarlyFusion(config).eval()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return fusion


@pytest.mark.parametrize(("images", "texts"), [(1, 1), (3, 1), (3, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_folded_is_unfolded(fusion, images, texts, masked):
    pixels = torch.randn(images, TOKENS_AT_ONCE + 7, 32)
    text, bias = torch.randn(texts, 9, 32), None
    if masked:
        bias = attention_bias(torch.arange(9) < torch.tensor([[4], [9], [1]])[:texts], text.dtype)
    expected = fusion(pixels, text, bias)[0]  # with gradients, so unfolded
    assert not fusion._is_folded_for(text)
    with torch.inference_mode():
        assert fusion._is_folded_for(text)
        found = fusion(pixels, text, bias)[0]
    torch.testing.assert_close(found, expected.detach(), atol=2e-5, rtol=1e-5)


def test_long_text_stays_unfolded(fusion):
    """Of 4 heads, 1024 tokens are 4096 scores of a pixel."""
    with torch.inference_mode():
        assert fusion._is_folded_for(torch.zeros(1, 1024, 32)) and not fusion._is_folded_for(torch.zeros(1, 1025, 32))

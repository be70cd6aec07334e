"""Chunks of tokens: the same numbers and gradients, and no chunk larger than it may be."""

import torch

from lookhear.modeling.glee.attention_glee import TOKENS_AT_ONCE, in_chunks


def test_chunks_give_what_the_whole_gives():
    layer = torch.nn.Linear(3, 3)
    tokens = torch.randn(2, 2 * TOKENS_AT_ONCE + 5, 3, requires_grad=True)
    seen = []

    def function(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape[1])
        return layer(part).relu()

    whole = layer(tokens).relu()
    chunked = in_chunks(function, tokens)
    torch.testing.assert_close(chunked, whole)
    assert seen == [TOKENS_AT_ONCE // 2] * 4 + [5]  # of both rows together as many as may be
    expected = torch.autograd.grad(whole.square().sum(), tokens)[0]
    torch.testing.assert_close(torch.autograd.grad(chunked.square().sum(), tokens)[0], expected)


def test_few_tokens_and_compiled_code_stay_whole(monkeypatch):
    shapes = []

    def function(part: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(part.shape))
        return part

    in_chunks(function, torch.zeros(1, TOKENS_AT_ONCE, 1))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    in_chunks(function, torch.zeros(1, 2 * TOKENS_AT_ONCE, 1))
    assert shapes == [(1, TOKENS_AT_ONCE, 1), (1, 2 * TOKENS_AT_ONCE, 1)]

"""Early fusion: pixels and text tokens see each other once, before the pixel decoder (paper, section 3.2)."""

from typing import Unpack

import torch
from torch import nn
from transformers.utils import TransformersKwargs

from .attention_glee import eager_attention_forward
from .chunking_glee import in_chunks
from .configuration_glee import GleeConfig
from .transformers_seam_glee import attention_function


class GleeEarlyFusion(nn.Module):
    """
    One cross-attention in both directions, each side's result scaled and added to that side's normalised tokens.

    The residual starts from the normalised tokens, as in the published code, not from the tokens themselves.
    """

    def __init__(self, config: GleeConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.fusion_heads
        self.head_size = config.fusion_size // config.fusion_heads
        self.is_causal = False
        self.pixel_norm = nn.LayerNorm(config.hidden_size)
        self.text_norm = nn.LayerNorm(config.hidden_size)
        self.pixel_query = nn.Linear(config.hidden_size, config.fusion_size)
        self.text_key = nn.Linear(config.hidden_size, config.fusion_size)
        self.pixel_value = nn.Linear(config.hidden_size, config.fusion_size)
        self.text_value = nn.Linear(config.hidden_size, config.fusion_size)
        self.pixel_output = nn.Linear(config.fusion_size, config.hidden_size)
        self.text_output = nn.Linear(config.fusion_size, config.hidden_size)
        self.pixel_scale = nn.Parameter(torch.empty(config.hidden_size))
        self.text_scale = nn.Parameter(torch.empty(config.hidden_size))

    def forward(
        self,
        pixels: torch.Tensor,
        text: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Pixel tokens `(batch, pixels, hidden_size)` and text tokens `(batch or 1, tokens, hidden_size)` -> both, fused.

        `attention_mask` is added to the scores of the text tokens, `(batch or 1, 1, 1, tokens)`. The text comes back as
        `None` with `discard_fused_text`.
        """
        pixels, text = self.pixel_norm(pixels), self.text_norm(text)
        text = text.expand(len(pixels), -1, -1)
        key, value = self._heads(self.text_key(text)), self._heads(self.text_value(text))

        def fuse(part: torch.Tensor) -> torch.Tensor:
            seen = self._attend(self._heads(self.pixel_query(part)), key, value, attention_mask, **kwargs)
            return part + self.pixel_scale * self.pixel_output(seen)

        fused_pixels = in_chunks(fuse, pixels)
        if self.config.discard_fused_text:
            return fused_pixels, None
        query, value = self._heads(self.pixel_query(pixels)), self._heads(self.pixel_value(pixels))
        seen = self._attend(key, query, value, None, **kwargs)
        return fused_pixels, text + self.text_scale * self.text_output(seen)

    def _heads(self, tokens: torch.Tensor) -> torch.Tensor:
        # (batch, length, fusion_size) -> (batch, heads, length, head_size)
        return tokens.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attention = attention_function(self.config, eager_attention_forward)
        dropout = self.config.fusion_dropout if self.training else 0.0
        seen, _ = attention(
            self, query, key, value, attention_mask, scaling=self.head_size**-0.5, dropout=dropout, **kwargs
        )
        return seen.flatten(2)  # (batch, queries, fusion_size)

"""Names and sentences as tokens: CLIP's text encoder and one projection (paper, section 3.1)."""

import torch
from torch import nn
from transformers import CLIPTextModel

from .configuration_glee import GleeConfig


class GleeTextEncoder(nn.Module):
    """CLIP's last hidden states, projected to the width of the pixel tokens."""

    def __init__(self, config: GleeConfig):
        super().__init__()
        self.clip = CLIPTextModel(config.text_config)
        self.projection = nn.Linear(config.text_config.hidden_size, config.hidden_size, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask `(texts, length)` -> tokens `(texts, length, hidden_size)`, those of the padding too."""
        hidden_states = self.clip(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.projection(hidden_states)


def mean_of_tokens(tokens: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """One vector per text: the mean of its tokens, begin and end of text included. `(texts, length, size)` -> `(texts, size)`."""
    weight = attention_mask[..., None].to(tokens.dtype)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1)

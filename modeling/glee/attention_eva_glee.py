# Copyright 2026 The LookHear developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""EVA-02's attention: heads that turn with the places of their patches. Apart from the backbone: where a file has a model
and an attention, transformers looks for its own way of choosing the kind in the file's text (`set_attn_implementation`)."""

from typing import Unpack

import torch
from torch import nn
from transformers.utils import TransformersKwargs

from .attention_glee import eager_attention_forward
from .configuration_eva_glee import GleeEvaConfig
from .transformers_seam_glee import attention_function

RotaryTable = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, each (tokens, head_size) float32


def rotary_table(rows: torch.Tensor, columns: torch.Tensor, head_size: int, theta: float) -> RotaryTable:
    """
    Rotary position encoding in two dimensions (EVA-02, section 3.1): half of a head turns with the row, half with the
    column, in pairs of neighbouring channels.

    Args:
        rows, columns: `(tokens,)` float32 positions. head_size: channels of a head, a multiple of 4.
        theta: base of the frequencies.
    Returns:
        Cosines and sines, each `(tokens, head_size)` float32.
    """
    half = head_size // 2
    exponents = torch.arange(0, half, 2, device=rows.device, dtype=torch.float32) / half
    frequencies = (1.0 / theta**exponents).repeat_interleave(2)  # (half,)
    angles = torch.cat((rows[:, None] * frequencies, columns[:, None] * frequencies), dim=-1)  # (tokens, head_size)
    return angles.cos(), angles.sin()


def apply_rotary(states: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    """Turns `states` `(batch, heads, tokens, head_size)` by the table, in float32; keeps the dtype."""
    cosines, sines = table
    even, odd = states.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)  # (batch, heads, tokens, head_size)
    return (states * cosines + turned * sines).to(states.dtype)


class GleeEvaAttention(nn.Module):
    """Multi-head self-attention; keys have no bias."""

    def __init__(self, config: GleeEvaConfig):
        super().__init__()
        self.config = config
        self.is_causal = False
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, rotary: RotaryTable, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        # hidden_states (batch, tokens, hidden_size)
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = apply_rotary(self.q_proj(hidden_states).view(shape).transpose(1, 2), rotary)
        key = apply_rotary(self.k_proj(hidden_states).view(shape).transpose(1, 2), rotary)
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)  # (batch, heads, tokens, head_dim)
        attention = attention_function(self.config, eager_attention_forward)
        output, weights = attention(self, query, key, value, None, scaling=self.scaling, dropout=0.0, **kwargs)
        return self.o_proj(output.flatten(2)), weights

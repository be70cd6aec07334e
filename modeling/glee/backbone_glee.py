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
"""GLEE's image backbones: ResNet-50 (Lite), Swin-L (Plus), EVA-02-L with a simple feature pyramid (Pro)."""

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d
from transformers import AutoBackbone, PreTrainedConfig, PreTrainedModel, ResNetBackbone, ResNetConfig, SwinBackbone

from .backbone_eva_glee import GleeEvaBackbone
from .configuration_eva_glee import GleeEvaConfig


class GleeFrozenBatchNorm2d(FrozenBatchNorm2d):
    """Batch norm whose statistics, scale and shift are constants: torchvision's buffers, torch's fused operator."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # x (batch, channels, height, width)
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def make_backbone(config: PreTrainedConfig, group_norms: int | None = None) -> PreTrainedModel:
    """
    A backbone as GLEE has it (section 3 of the paper), with random weights.

    ResNet gets frozen batch norms, and Swin loses the norm of its last hidden state, which no feature map passes.

    Args:
        config: a `ResNetConfig`, a `SwinConfig` or a `GleeEvaConfig`; other backbones of transformers work as they are.
        group_norms: a ResNet gets group norms of so many groups instead of the frozen batch norms.
    Returns:
        A model whose `forward(pixel_values)` gives `feature_maps`, finest first, of `channels` channels each:
        strides 4, 8, 16, 32 (EVA-02: 8, 16, 32, 64).
    """
    if isinstance(config, GleeEvaConfig):
        return GleeEvaBackbone(config)
    # A ResNet attends to nothing, and transformers refuses to give it any other attention than the plain one.
    plain = {"attn_implementation": "eager"} if isinstance(config, ResNetConfig) else {}
    backbone = AutoBackbone.from_config(config, **plain)
    if isinstance(backbone, ResNetBackbone):
        _exchange_batch_norms(backbone, group_norms)
    elif isinstance(backbone, SwinBackbone):
        backbone.swin.layernorm = nn.Identity()
    return backbone


def _exchange_batch_norms(module: nn.Module, groups: int | None) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and groups:
            setattr(module, name, nn.GroupNorm(groups, child.num_features, eps=child.eps))
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, GleeFrozenBatchNorm2d(child.num_features, eps=child.eps))
        elif isinstance(child, nn.ReLU):
            child.inplace = True  # of the norm's output, which nothing else needs
        else:
            _exchange_batch_norms(child, groups)

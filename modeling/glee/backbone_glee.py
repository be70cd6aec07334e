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

from itertools import pairwise
from typing import Self, Unpack, cast

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d, StochasticDepth
from transformers import (
    AutoBackbone,
    BackboneMixin,
    PreTrainedConfig,
    PreTrainedModel,
    ResNetBackbone,
    ResNetConfig,
    SwinBackbone,
)
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput
from transformers.utils import TransformersKwargs

from .attention_glee import GleeEvaAttention, RotaryTable, rotary_table
from .configuration_glee import GleeEvaConfig
from .transformers_seam_glee import capture_outputs, merge_with_config_defaults
from .transformers_seam_glee import initialization as init


class GleeConvolution(nn.Conv2d):
    """
    A ResNet's convolution, which can do the work of the frozen batch norm after it, too: in calls without gradients,
    channels last.

    Its numbers for both are no part of a checkpoint. Training and loading of weights forget them.
    """

    folded_weight: torch.Tensor | None
    folded_bias: torch.Tensor | None

    def __init__(self, convolution: nn.Conv2d):
        sizes = (convolution.kernel_size, convolution.stride, convolution.padding)
        kernel, stride, padding = (cast(tuple[int, int], size) for size in sizes)
        channels = (convolution.in_channels, convolution.out_channels)
        super().__init__(*channels, kernel, stride, padding, bias=False, device="meta")
        self.weight = convolution.weight
        self.register_buffer("folded_weight", None, persistent=False)
        self.register_buffer("folded_bias", None, persistent=False)
        self.register_load_state_dict_post_hook(GleeConvolution.forget)

    @property
    def is_folded(self) -> bool:
        """Whether `forward` does the work of the norm, too."""
        return self.folded_weight is not None and not torch.is_grad_enabled()

    @torch.inference_mode(False)
    @torch.no_grad()
    def fold(self, norm: "GleeFrozenBatchNorm2d") -> None:
        """Takes over the work of a norm; not of weights that are offloaded."""
        if self.training or self.weight.is_meta:
            return
        mean, variance, scale, shift = (
            values.double() for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        folded = fuse_conv_bn_weights(self.weight.double(), None, mean, variance, norm.eps, scale, shift)
        weight, bias = (values.detach().to(self.weight.dtype) for values in folded)
        self.folded_weight, self.folded_bias = weight.contiguous(memory_format=torch.channels_last), bias
        norm.folded_into = [self]

    def forget(self, *loaded: object) -> None:
        """Gives the work of the norm back."""
        self.folded_weight = self.folded_bias = None

    def train(self, mode: bool = True) -> Self:
        if mode:
            self.forget()
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # x (batch, channels, height, width)
        if self.folded_weight is None or torch.is_grad_enabled():
            return super().forward(x)
        x, padding = x.contiguous(memory_format=torch.channels_last), cast(tuple[int, int], self.padding)
        return nn.functional.conv2d(x, self.folded_weight, self.folded_bias, self.stride, padding)


class GleeFrozenBatchNorm2d(FrozenBatchNorm2d):
    """
    Batch norm whose statistics, scale and shift are constants: torchvision's buffers, torch's fused operator.

    Attributes:
        folded_into: the convolution before it, once that may do its work; in a list, as it is not this module's child.
    """

    def __init__(self, features: int, eps: float = 1e-5):
        super().__init__(features, eps)
        self.folded_into: list[GleeConvolution] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # x (batch, channels, height, width)
        if any(convolution.is_folded for convolution in self.folded_into):
            return x
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


class GleeFoldedForInference(nn.Module):
    """A model with a backbone of [`make_backbone`]."""

    def prepare_for_inference(self) -> Self:
        """
        Folds a ResNet's batch norms into the convolutions before them, for calls without gradients.

        Parameters stay as they are, and so do saved weights; results differ by rounding. Training and loading of
        weights end it; call it again after weights were changed in another way.
        """
        fold_batch_norms(self)
        return self


def fold_batch_norms(model: nn.Module) -> None:
    """Folds frozen batch norms into the convolutions that stand right before them, if nothing has been put around
    those since, such as an adapter."""
    for module in model.modules():
        for convolution, norm in pairwise(module.children()):
            if isinstance(convolution, GleeConvolution) and isinstance(norm, GleeFrozenBatchNorm2d):
                convolution.fold(norm)


def make_backbone(config: PreTrainedConfig, group_norms: int | None = None) -> PreTrainedModel:
    """
    Builds a backbone as in GLEE (section 3 of the paper), with random weights.

    ResNet gets frozen batch norms; Swin loses the norm of its last hidden state, which no feature map goes through.

    Args:
        config: a `ResNetConfig`, `SwinConfig` or `GleeEvaConfig`; other backbones of transformers work as they are.
        group_norms: number of groups of a ResNet's group norms, which replace the frozen batch norms.

    Returns:
        A model whose `forward(pixel_values)` returns `feature_maps`, finest first, of `channels` channels each:
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
        backbone.swin.add_module("layernorm", nn.Identity())
    return backbone


def backbone_channels(backbone: PreTrainedModel) -> list[int]:
    """
    Returns the number of channels of each feature map, finest first.

    Raises:
        ValueError: the model returns no feature maps.
    """
    if not isinstance(backbone, BackboneMixin):
        raise ValueError(f"backbone_config must be that of a backbone, which {type(backbone).__name__} is not.")
    return list(backbone.channels)


def _exchange_batch_norms(module: nn.Module, groups: int | None) -> None:
    """Replaces batch norms by group norms or, without `groups`, by frozen ones; makes ReLUs work in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and groups:
            setattr(module, name, nn.GroupNorm(groups, child.num_features, eps=child.eps))
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, GleeFrozenBatchNorm2d(child.num_features, eps=child.eps))
        elif isinstance(child, nn.Conv2d) and child.bias is None and child.groups == 1 and not groups:
            setattr(module, name, GleeConvolution(child))
        elif isinstance(child, nn.ReLU):
            child.inplace = True  # of the norm's output, which nothing else needs
        else:
            _exchange_batch_norms(child, groups)


def split_windows(states: torch.Tensor, size: int) -> torch.Tensor:
    """
    Splits maps into square windows; zeros fill up those at the right and lower edges.

    Args:
        states: `(batch, height, width, channels)`.
        size: side of a window.

    Returns:
        `(batch * windows, size * size, channels)`.
    """
    height, width = states.shape[1:3]
    states = nn.functional.pad(states, (0, 0, 0, -width % size, 0, -height % size))
    states = states.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # (batch, down, size, across, size, channels)
    return states.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def join_windows(windows: torch.Tensor, size: int, height: int, width: int) -> torch.Tensor:
    """Merges the windows of `split_windows` and removes their padding: `(batch, height, width, channels)`."""
    down, across = -(-height // size), -(-width // size)
    states = windows.unflatten(1, (size, size)).unflatten(0, (-1, down, across)).transpose(2, 3)
    return states.flatten(3, 4).flatten(1, 2)[:, :height, :width]


class GleeEvaEmbeddings(nn.Module):
    """Patches, and the learned positions of pre-training resized to the image."""

    def __init__(self, config: GleeEvaConfig):
        super().__init__()
        self.grid = config.pretrain_image_size // config.patch_size
        self.patch_embeddings = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size
        )
        # the first one belongs to the class token of pre-training and is not used
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + self.grid**2, config.hidden_size))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embeddings(pixel_values)  # (batch, hidden_size, height, width)
        positions = self.position_embeddings[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        if patches.shape[-2:] != positions.shape[-2:]:
            positions = nn.functional.interpolate(
                positions.float(), patches.shape[-2:], mode="bicubic", align_corners=False
            )
        return (patches + positions.to(patches.dtype)).permute(0, 2, 3, 1)  # (batch, height, width, hidden_size)


class GleeEvaFeedForward(nn.Module):
    """SwiGLU with a norm before its last projection."""

    def __init__(self, config: GleeEvaConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.intermediate_size, eps=config.layer_norm_eps)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.activation(self.gate_proj(hidden_states)) * self.up_proj(hidden_states)
        return self.down_proj(self.norm(hidden_states))


class GleeEvaLayer(GradientCheckpointingLayer):
    """One block; `window_size` 0 attends to the whole image."""

    def __init__(self, config: GleeEvaConfig, index: int):
        super().__init__()
        self.window_size = config.window_size if index in (config.window_block_indexes or ()) else 0
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = GleeEvaAttention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = GleeEvaFeedForward(config)
        self.drop_path = StochasticDepth(config.drop_path_rate * index / max(config.num_hidden_layers - 1, 1), "row")

    def forward(
        self, hidden_states: torch.Tensor, rotary: RotaryTable, **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        # hidden_states (batch, height, width, hidden_size)
        height, width = hidden_states.shape[1:3]
        tokens = self.layernorm_before(hidden_states)
        tokens = split_windows(tokens, self.window_size) if self.window_size else tokens.flatten(1, 2)
        tokens, _ = self.attention(tokens, rotary, **kwargs)
        if self.window_size:
            update = join_windows(tokens, self.window_size, height, width)
        else:
            update = tokens.unflatten(1, (height, width))
        hidden_states = hidden_states + self.drop_path(update)
        return hidden_states + self.drop_path(self.mlp(self.layernorm_after(hidden_states)))


class GleeEvaChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of `(batch, channels, height, width)`."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GleeEvaPyramidLevel(nn.Module):
    """The last map at twice, once or half its size, then two convolutions (ViTDet, section 3)."""

    def __init__(self, config: GleeEvaConfig, scale: float):
        super().__init__()
        channels, size = config.hidden_size, config.pyramid_size
        self.rescale: nn.Module = nn.Identity()
        if scale == 2.0:
            self.rescale = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
            channels = channels // 2
        elif scale == 0.5:
            self.rescale = nn.MaxPool2d(2)
        self.project = nn.Conv2d(channels, size, 1, bias=False)
        self.project_norm = GleeEvaChannelLayerNorm(size, eps=config.layer_norm_eps)
        self.smooth = nn.Conv2d(size, size, 3, padding=1, bias=False)
        self.smooth_norm = GleeEvaChannelLayerNorm(size, eps=config.layer_norm_eps)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.project_norm(self.project(self.rescale(features)))
        return self.smooth_norm(self.smooth(features))  # (batch, pyramid_size, height * scale, width * scale)


class GleeEvaPyramid(nn.Module):
    """Four maps from one; the coarsest takes every other pixel of the third."""

    def __init__(self, config: GleeEvaConfig):
        super().__init__()
        self.levels = nn.ModuleList([GleeEvaPyramidLevel(config, scale) for scale in (2.0, 1.0, 0.5)])

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = [level(features) for level in self.levels]
        return (*maps, nn.functional.max_pool2d(maps[-1], kernel_size=1, stride=2))


class GleeEvaPreTrainedModel(PreTrainedModel):
    config: GleeEvaConfig
    base_model_prefix = "glee_eva"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["GleeEvaLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": GleeEvaLayer, "attentions": GleeEvaAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GleeEvaEmbeddings):
            init.trunc_normal_(module.position_embeddings, std=self.config.initializer_range)


class GleeEvaBackbone(BackboneMixin, GleeEvaPreTrainedModel):
    """EVA-02 (Fang et al., 2023) as GLEE-Pro's backbone: maps `p3` to `p6`, strides 8 to 64."""

    def __init__(self, config: GleeEvaConfig):
        super().__init__(config)
        self.num_features = [config.pyramid_size] * len(config.stage_names)
        self.embeddings = GleeEvaEmbeddings(config)
        self.layers = nn.ModuleList([GleeEvaLayer(config, index) for index in range(config.num_hidden_layers)])
        self.pyramid = GleeEvaPyramid(config)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embeddings

    def _rotary(self, count: int, side: int, width: int, device: torch.device) -> RotaryTable:
        """Encodes `count` tokens in rows of `width`, where `side` rows or columns span `rope_pretrain_size`."""
        config, index = self.config, torch.arange(count, device=device)
        rows, columns = (
            part.float() / side * config.rope_pretrain_size
            for part in (index.div(width, rounding_mode="floor"), index % width)
        )
        return rotary_table(rows, columns, config.hidden_size // config.num_attention_heads, config.rope_theta)

    def _rotary_of_image(self, height: int, width: int, device: torch.device) -> RotaryTable:
        side = self.config.image_size // self.config.patch_size
        by_index = self.config.rope_rows_by_index
        if by_index and height * width > side * side:
            raise ValueError(
                f"pixel_values: {height} x {width} patches are more than the {side} x {side} of this backbone's "
                "position table; make the image smaller, or set backbone_config.rope_rows_by_index=False"
            )
        return self._rotary(height * width, side, side if by_index else width, device)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        r"""
        Computes the feature maps of images.

        Args:
            pixel_values: `(batch, 3, height, width)` normalised image, sides a multiple of `2 * patch_size`.

        Returns:
            `feature_maps` of `out_features`, finest first, each `(batch, pyramid_size, height / s, width / s)`.

        Raises:
            ValueError: more patches than `image_size` allows while `rope_rows_by_index` is on.
        """
        hidden_states = self.embeddings(pixel_values)  # (batch, height, width, hidden_size)
        height, width = hidden_states.shape[1:3]
        window = self.config.window_size
        in_window = self._rotary(window**2, window, window, hidden_states.device)
        in_image = self._rotary_of_image(height, width, hidden_states.device)
        for layer in self.layers:
            hidden_states = layer(hidden_states, in_window if layer.window_size else in_image, **kwargs)
        maps = self.pyramid(hidden_states.permute(0, 3, 1, 2))
        return BackboneOutput(
            feature_maps=tuple(m for name, m in zip(self.stage_names, maps) if name in self.out_features)
        )

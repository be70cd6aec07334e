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
"""Configuration of GLEE-Pro's image backbone: EVA-02 with a simple feature pyramid."""

from huggingface_hub.dataclasses import strict
from transformers import BackboneConfigMixin, PreTrainedConfig


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@strict
class GleeEvaConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""
    EVA-02 (Fang et al., 2023) as a plain detection backbone (ViTDet, Li et al., 2022), by default the size L.

    Args:
        image_size (`int`, *optional*, defaults to 1536):
            Side in pixels of the square image that the rotary table of the global blocks is laid out for.
        patch_size (`int`, *optional*, defaults to 16): side of a patch in pixels.
        num_channels (`int`, *optional*, defaults to 3): of the image.
        hidden_size (`int`, *optional*, defaults to 1024): width of the blocks.
        intermediate_size (`int`, *optional*, defaults to 2730): width inside the SwiGLU feed-forward.
        num_hidden_layers (`int`, *optional*, defaults to 24): blocks.
        num_attention_heads (`int`, *optional*, defaults to 16): heads of each block.
        window_size (`int`, *optional*, defaults to 16): side in patches of an attention window.
        window_block_indexes (`tuple`, *optional*):
            Blocks that attend within windows; the others attend to the whole image. Defaults to two out of three.
        pretrain_image_size (`int`, *optional*, defaults to 224):
            Side in pixels of the grid of learned positions, which is resized to the image.
        rope_theta (`float`, *optional*, defaults to 10000.0): base of the rotary frequencies.
        rope_pretrain_size (`int`, *optional*, defaults to 16):
            Side in patches that rotary positions are scaled to: a window or the whole image spans 0 to this.
        rope_rows_by_index (`bool`, *optional*, defaults to `True`):
            As the released weights were trained: the n-th patch of an image takes row n of the table that is laid out
            row by row for `image_size`, so images of another width get wrong positions and larger ones are refused.
            `False`: the right row and column at every size.
        pyramid_size (`int`, *optional*, defaults to 256): channels of each feature map.
        hidden_act (`str`, *optional*, defaults to `"silu"`): gate of the feed-forward.
        drop_path_rate (`float`, *optional*, defaults to 0.3):
            Chance of leaving out the last block's updates while training; it grows linearly from 0.
        layer_norm_eps (`float`, *optional*, defaults to 1e-06): of every norm.
        initializer_range (`float`, *optional*, defaults to 0.02): standard deviation of new weights.
        out_features (`list[str]`, *optional*): of `"p3"` to `"p6"`, strides 8 to 64. Defaults to all four.
        out_indices (`list[int]`, *optional*): the same by position.
    """

    model_type = "glee_eva"

    image_size: int = 1536
    patch_size: int = 16
    num_channels: int = 3
    hidden_size: int = 1024
    intermediate_size: int = 2730
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    window_size: int = 16
    window_block_indexes: list[int] | tuple[int, ...] | None = None
    pretrain_image_size: int = 224
    rope_theta: float | int = 10000.0
    rope_pretrain_size: int = 16
    rope_rows_by_index: bool = True
    pyramid_size: int = 256
    hidden_act: str = "silu"
    drop_path_rate: float | int = 0.3
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        if self.window_block_indexes is None:
            self.window_block_indexes = [i for i in range(self.num_hidden_layers) if i % 3 != 2]
        self._check()
        self.stage_names = ["p3", "p4", "p5", "p6"]
        features, indices = kwargs.pop("out_features", None), kwargs.pop("out_indices", None)
        if features is None and indices is None:
            features = list(self.stage_names)
        self.set_output_features_output_indices(out_features=features, out_indices=indices)
        super().__post_init__(**kwargs)

    def _check(self) -> None:
        head_size, rest = divmod(self.hidden_size, self.num_attention_heads)
        _require(
            rest == 0 and head_size % 4 == 0,
            f"hidden_size ({self.hidden_size}) over num_attention_heads ({self.num_attention_heads}) must be a multiple "
            "of 4: rows and columns each turn pairs of channels.",
        )
        for name in ("image_size", "pretrain_image_size"):
            _require(
                getattr(self, name) % self.patch_size == 0,
                f"{name} ({getattr(self, name)}) must be a multiple of patch_size ({self.patch_size}).",
            )
        _require(self.window_size > 0, f"window_size must be above 0, not {self.window_size}.")
        wrong = [i for i in self.window_block_indexes if not 0 <= i < self.num_hidden_layers]
        _require(not wrong, f"window_block_indexes holds {wrong}, but blocks are 0 to {self.num_hidden_layers - 1}.")

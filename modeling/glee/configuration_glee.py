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
"""Configuration of GLEE (Wu et al., CVPR 2024), which finds, segments and tracks what is named or pointed at."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict, TypeVar

from huggingface_hub.dataclasses import strict
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    BackboneConfigMixin,
    CLIPTextConfig,
    PreTrainedConfig,
    ResNetConfig,
    SwinConfig,
)

Config = TypeVar("Config", bound=PreTrainedConfig)
Backbone = TypeVar("Backbone", bound=BackboneConfigMixin)

STAGES = ["stage1", "stage2", "stage3", "stage4"]
NUM_LEVELS = 4  # feature maps of the pixel decoder
# Decoder layer i sees a visual prompt in pixel level i % PROMPT_LEVELS; the published code never uses the fourth one.
PROMPT_LEVELS = 3
CANVAS_DIVISOR = 32
# Rows of the label tables that the denoising queries of each training set start from (published code).
DENOISING_TABLES = {
    "coco": 80,
    "obj365": 100,
    "vg": 200,
    "grounding": 1,
    "ytvis19": 40,
    "ytvis21": 40,
    "ovis": 25,
    "uvo": 81,
    "bdd_det": 10,
    "bdd_inst": 8,
}

# Of each loss in the total; a loss of every layer has the weight of its kind (published code).
WEIGHTS = {"class": 4.0, "confidence": 4.0, "box": 5.0, "giou": 2.0, "mask": 5.0, "dice": 5.0}
WEIGHTS |= {"track": 2.0, "distillation": 4.0}
# Choices of `GleeLossSettings`, the published code's first; the others are those of the paper's text.
MASK_LOSSES = ("bce", "focal")
DISTILLATION_LOSSES = ("mse", "l1")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@strict
class GleeEvaConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""
    Configuration of EVA-02 (Fang et al., 2023) as a plain detection backbone (ViTDet, Li et al., 2022).

    The defaults are the size L.

    Attributes:
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
            f"hidden_size ({self.hidden_size}) over num_attention_heads ({self.num_attention_heads}) must be a "
            "multiple of 4: rows and columns each turn pairs of channels.",
        )
        for name in ("image_size", "pretrain_image_size"):
            _require(
                getattr(self, name) % self.patch_size == 0,
                f"{name} ({getattr(self, name)}) must be a multiple of patch_size ({self.patch_size}).",
            )
        _require(self.window_size > 0, f"window_size must be above 0, not {self.window_size}.")
        wrong = [i for i in self.window_block_indexes or () if not 0 <= i < self.num_hidden_layers]
        _require(not wrong, f"window_block_indexes holds {wrong}, but blocks are 0 to {self.num_hidden_layers - 1}.")


@strict
class GleeConfig(PreTrainedConfig):
    r"""
    Configuration of [`GleeModel`] and [`GleeForObjectDetection`].

    The defaults are GLEE-Lite; the published sizes are [`GleeConfig.lite`], [`GleeConfig.plus`], [`GleeConfig.pro`].
    Where the published code does something unexpected that its weights rely on, that is the default here, and a field
    says so (last group).

    Attributes:
        backbone_config (`PreTrainedConfig` or `dict`, *optional*):
            ResNet-50 by default; any backbone of transformers with four feature maps (strides 4, 8, 16, 32), or
            [`GleeEvaConfig`] (strides 8, 16, 32, 64).
        text_config (`CLIPTextConfig` or `dict`, *optional*): CLIP's text encoder (ViT-B/32 by default).
        hidden_size (`int`, *optional*, defaults to 256): width of queries, pixel and text tokens.
        num_attention_heads (`int`, *optional*, defaults to 8): of the pixel decoder and the object decoder.
        intermediate_size (`int`, *optional*, defaults to 2048): of their feed-forward layers.
        encoder_layers (`int`, *optional*, defaults to 6): deformable layers of the pixel decoder.
        decoder_layers (`int`, *optional*, defaults to 9): layers of the object decoder.
        num_points (`int`, *optional*, defaults to 4): points that a deformable head samples in each level.
        num_queries (`int`, *optional*, defaults to 300): object queries; fewer where an image has fewer tokens.
        fusion_size (`int`, *optional*, defaults to 2048): width of all heads of the early fusion.
        fusion_heads (`int`, *optional*, defaults to 8): of the early fusion.
        fusion_dropout (`float`, *optional*, defaults to 0.1): on the fusion's attention while training.
        project_features (`bool`, *optional*, defaults to `True`):
            Convolutions bring the backbone's maps to `hidden_size` and add a fourth level; `False` where the backbone
            makes four such levels itself (Pro).
        num_groups (`int`, *optional*, defaults to 32): of the group norms in the pixel decoder.
        template_fuser (`bool`, *optional*, defaults to `True`):
            Points, boxes, scribbles and masks can be prompts; the stage-1 weights cannot.
        template_size (`int`, *optional*, defaults to 256): side in pixels of the crop around a prompted object.
        max_prompt_points (`int`, *optional*, defaults to 512): pixels of a prompt that are sampled.
        text_teacher (`bool`, *optional*, defaults to `False`):
            Holds a frozen copy of CLIP for distillation. Only training needs it.
        denoising_tables (`dict`, *optional*):
            Name of a training set -> rows of its label table for denoising queries. Only training needs them.
        auxiliary_outputs (`bool`, *optional*, defaults to `False`): predictions of every layer are returned.
        loss_settings (`dict`, *optional*):
            Fields of [`GleeLossSettings`] that differ from the published training's, such as `{"mask_points": 1024}`;
            `{"mask_loss": "focal", "distillation_loss": "l1"}` are the losses of the paper's text.
        initializer_range (`float`, *optional*, defaults to 0.02): of embeddings.
        class_prior (`float`, *optional*):
            Class scores get a bias, learnt, that starts them at this probability (RetinaNet, section 4.1). The
            published model has none; a text encoder that is new, too, would spend its first steps on making all texts
            say "no".
        scaled_products (`bool`, *optional*, defaults to `False`):
            Class scores and masks are dot products divided by the root of `hidden_size`, as in attention. Plain ones,
            as published, change by whole units in a step at a small model's learning rate, and learn nothing until it
            falls.
        backbone_group_norm (`bool`, *optional*, defaults to `False`):
            A ResNet's norms are group norms of `num_groups` groups, which a backbone needs that is trained from random
            weights. By default they are frozen batch norms, whose statistics come with published weights.

        fusion_attends_padding (`bool`, *optional*, defaults to `True`):
            Pixels also attend to padded text tokens: the published mask has no effect. `False` hides them.
        discard_fused_text (`bool`, *optional*, defaults to `True`):
            If `True`, skip the text update of the early fusion (its output is unused); `False` passes it to the
            decoder as prompt tokens, as in the paper's figure. No recipe sets it; it stays because the published code
            computes the update, with published weights, so that the two can be compared.
        proposal_scale_from_coarsest (`bool`, *optional*, defaults to `True`):
            Boxes of 0.05, 0.1, 0.2, 0.4 of the image are proposed on the levels from the coarsest to the finest map;
            `False` proposes the small boxes on the fine maps.
        double_decoder_norm (`bool`, *optional*, defaults to `True`):
            The heads normalise the decoder's output a second time; `False`: once.
        mask_positions (`bool`, *optional*, defaults to `False`):
            Adds position embeddings to mask features and box embeddings to mask queries. In the published model masks
            depend on appearance only, and a small model's masks spill over to similar objects.
        padding_mask (`bool`, *optional*, defaults to `False`):
            By default padding is seen as image, as in the published code, so a result depends on its batch mates.
            `True` pads each image on its own (its size rounded up to a multiple of `canvas_divisor`), as if it were
            alone; images of one padded size still share a pass.
        canvas_divisor (`int`, *optional*):
            See `padding_mask`. 32 by default; with EVA-02 its `image_size`, because Pro sees all images on one square.

        label_threshold (`float`, *optional*):
            Score from which the pipeline returns objects of labels; 0.2, that of the published demo, if there is none.
        expression_threshold (`float`, *optional*):
            Score from which a sentence is taken to be about something in the picture; `label_threshold` if there is
            none.
    """

    model_type = "glee"
    sub_configs = {"backbone_config": AutoConfig, "text_config": CLIPTextConfig}
    attribute_map = {"num_hidden_layers": "decoder_layers"}

    backbone_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    hidden_size: int = 256
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 9
    num_points: int = 4
    num_queries: int = 300
    fusion_size: int = 2048
    fusion_heads: int = 8
    fusion_dropout: float | int = 0.1
    project_features: bool = True
    num_groups: int = 32
    template_fuser: bool = True
    template_size: int = 256
    max_prompt_points: int = 512
    text_teacher: bool = False
    denoising_tables: dict | None = None
    auxiliary_outputs: bool = False
    loss_settings: dict | None = None
    initializer_range: float | int = 0.02
    class_prior: float | None = None
    scaled_products: bool = False
    backbone_group_norm: bool = False
    fusion_attends_padding: bool = True
    discard_fused_text: bool = True
    proposal_scale_from_coarsest: bool = True
    double_decoder_norm: bool = True
    mask_positions: bool = False
    padding_mask: bool = False
    canvas_divisor: int | None = None
    label_threshold: float | int | None = None
    expression_threshold: float | int | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        self.backbone_config = _backbone_config(self.backbone_config)
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = CLIPTextConfig(**{"eos_token_id": 49407, **(self.text_config or {})})
        if self.canvas_divisor is None:
            fixed = isinstance(self.backbone_config, GleeEvaConfig)
            self.canvas_divisor = self.backbone_config.image_size if fixed else CANVAS_DIVISOR
        for name, parts in (
            ("hidden_size", self.num_attention_heads),
            ("fusion_size", self.fusion_heads),
            ("hidden_size", 4),
            ("hidden_size", self.num_groups),
        ):
            _require(getattr(self, name) % parts == 0, f"{name} must be a multiple of {parts}: {getattr(self, name)}.")
        _require(
            self.class_prior is None or 0 < self.class_prior < 1,
            f"class_prior must be between 0 and 1, not {self.class_prior}.",
        )
        for name in ("label_threshold", "expression_threshold"):
            value = getattr(self, name)
            _require(value is None or 0 <= value <= 1, f"{name} must be from 0 to 1, not {value}.")
        # Once a field; older files hold its only published value.
        levels = kwargs.pop("prompt_level_cycle", PROMPT_LEVELS)
        _require(
            levels == PROMPT_LEVELS, f"prompt_level_cycle is no field any more; leave it out, {levels} can't be had."
        )
        for name in ("num_queries", "encoder_layers", "decoder_layers", "max_prompt_points"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}.")
        if not __name__.startswith("transformers_modules."):
            # A published checkpoint names the file of its pipeline. Where lookhear is imported its own pipeline is
            # registered, and transformers would ask for trust_remote_code if it saw the name.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    @classmethod
    def lite(cls, **kwargs) -> "GleeConfig":
        """Returns GLEE-Lite: ResNet-50."""
        return cls(**kwargs)

    @classmethod
    def plus(cls, **kwargs) -> "GleeConfig":
        """Returns GLEE-Plus: Swin-L."""
        swin = SwinConfig(
            image_size=384,
            embed_dim=192,
            depths=[2, 2, 18, 2],
            num_heads=[6, 12, 24, 48],
            window_size=12,
            drop_path_rate=0.3,
        )
        return cls(**{"backbone_config": with_all_stages(swin), **kwargs})

    @classmethod
    def pro(cls, **kwargs) -> "GleeConfig":
        """Returns GLEE-Pro: EVA-02-L with a simple feature pyramid."""
        return cls(**{"backbone_config": GleeEvaConfig(), "project_features": False, **kwargs})

    def for_training(self) -> "GleeConfig":
        """Returns a copy with the parts that only training needs: the text teacher and the denoising tables."""
        fields = {"text_teacher": True, "denoising_tables": dict(DENOISING_TABLES)}
        return type(self).from_dict({**self.to_dict(), **fields})


def with_all_stages(config: Backbone) -> Backbone:
    """Makes a backbone of transformers return the feature maps of its four stages."""
    config.out_features = list(STAGES)
    return config


def sub_config(config: GleeConfig, name: str, kind: type[Config]) -> Config:
    """
    Returns `backbone_config` or `text_config` as the type that `GleeConfig` has turned it into.

    Args:
        config: that has it.
        name: of the field.
        kind: the type.

    Raises:
        ValueError: it is of another kind.
    """
    value = getattr(config, name)
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__} or its fields as a dict, not {type(value).__name__}.")
    return value


def _backbone_config(value: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    """Builds the backbone's configuration from any form of `backbone_config`; ResNet-50 for `None`."""
    if isinstance(value, PreTrainedConfig):
        return value
    if value is None:
        return with_all_stages(ResNetConfig())
    fields = dict(value)
    model_type = fields.pop("model_type", None)
    if model_type == GleeEvaConfig.model_type:
        return GleeEvaConfig(**fields)
    _require(model_type in CONFIG_MAPPING, f"backbone_config.model_type {model_type!r} is no model of transformers.")
    return CONFIG_MAPPING[model_type](**fields)


__all__ = ["GleeConfig", "GleeEvaConfig"]


# Training: what `loss_settings` may hold, and what `denoising_tables` must.


@dataclass(frozen=True)
class GleeMatchingCosts:
    """Weights of the matching's costs (paper, training unification; MaskDINO)."""

    classes: float = 4.0
    box: float = 5.0
    giou: float = 2.0
    mask: float = 5.0
    dice: float = 5.0


class GleeDenoisingSettings(TypedDict):
    """The arguments of [`make_denoising`] that a training run chooses; see there."""

    most_queries: int
    label_noise: float
    box_noise: float


@dataclass(frozen=True)
class GleeLossSettings:
    """
    Weights and numbers of the losses; the defaults are those of the published training.

    Attributes:
        weights: of each loss in the total; a loss of every layer has the weight of its kind.
        costs: of the matching.
        mask_points: number of points at which masks are compared, in the matching and in the losses.
        oversample: candidates for each point, from which the least certain ones are taken.
        uncertain_share: share of the points that are taken for their uncertainty; the rest is drawn at random.
        denoising: `most_queries`, `label_noise` and `box_noise` of [`make_denoising`].
        mask_loss: what masks cost at each point beside dice, in the losses and in the matching: `bce`, binary cross
            entropy as in the published code, or `focal`, the focal loss that the paper states.
        distillation_loss: distance of the text encoder from its teacher: `mse`, the mean squared one of the published
            code, or `l1`, the mean absolute one that the paper states.

    Raises:
        ValueError: there is no such loss.
    """

    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    costs: GleeMatchingCosts = GleeMatchingCosts()
    mask_points: int = 12544
    oversample: float = 3.0
    uncertain_share: float = 0.75
    denoising: GleeDenoisingSettings = field(
        default_factory=lambda: GleeDenoisingSettings(most_queries=100, label_noise=0.2, box_noise=0.4)
    )
    mask_loss: str = "bce"
    distillation_loss: str = "mse"

    def __post_init__(self) -> None:
        for name, known in (("mask_loss", MASK_LOSSES), ("distillation_loss", DISTILLATION_LOSSES)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"config.loss_settings[{name!r}] must be {' or '.join(known)}, not {value!r}.")

    @classmethod
    def from_config(cls, fields: Mapping[str, Any] | None) -> "GleeLossSettings":
        """
        Returns the published training's settings with those of `config.loss_settings` in their place.

        Args:
            fields: what differs; also of `weights`, `costs` and `denoising` only what differs.

        Raises:
            ValueError: a name that does not exist, or a loss that does not.
        """
        settings = asdict(cls())
        for name, value in (fields or {}).items():
            if name not in settings:
                raise ValueError(f"config.loss_settings has no {name!r}; it has {', '.join(settings)}.")
            if isinstance(known := settings[name], dict):
                if unknown := set(value) - set(known):
                    raise ValueError(f"config.loss_settings[{name!r}] has no {unknown}; it has {', '.join(known)}.")
                value = {**known, **value}
            settings[name] = value
        return cls(**{**settings, "costs": GleeMatchingCosts(**settings["costs"])})


def check_denoising_table(name: str, tables: Mapping[str, int] | None) -> None:
    """Raises ValueError for a `supervision.denoising_table` that is not in `config.denoising_tables`, naming them."""
    if name not in (known := tables or {}):
        raise ValueError(
            f"supervision.denoising_table {name!r} is not in config.denoising_tables, which "
            f"{'has ' + ', '.join(known) if known else 'is empty'}; add it there, with its number of labels."
        )

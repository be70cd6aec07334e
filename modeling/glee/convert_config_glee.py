"""The configuration of a published GLEE checkpoint, read off the sizes of its weights."""

import math
import re
from collections.abc import Mapping

import torch
from transformers import PreTrainedConfig, ResNetConfig, SwinConfig

from .configuration_eva_glee import GleeEvaConfig
from .configuration_glee import DENOISING_TABLES, STAGES, GleeConfig

CLIP_HEAD_SIZE = 64  # of every text encoder of CLIP
HEAD_SIZE = 32  # of the deformable attention: 8 heads of 256 channels
FUSION_HEADS = 8
LEVELS = 4


def config_from_state_dict(weights: Mapping[str, torch.Tensor], *, for_training: bool = False) -> GleeConfig:
    """
    The configuration of a published state dict: backbone, widths and depths; the number of queries is not in there.

    Args:
        weights: published names, with or without the prefix `glee.`; only shapes are read.
        for_training: with the text teacher and the denoising tables, where the file has them.
    Raises:
        ValueError: a weight that is needed is missing, or the sizes are none that GLEE can have.
    """
    sizes = CheckpointSizes({name.removeprefix("glee."): tuple(value.shape) for name, value in weights.items()})
    encoder, decoder = "pixel_decoder.transformer.encoder", "predictor.decoder"
    hidden_size = sizes.of("pixel_decoder.transformer.level_embed", 1)
    heads = sizes.parts("hidden size", hidden_size, HEAD_SIZE)
    width = sizes.of(f"{encoder}.layers.0.linear1.weight", 0)
    if sizes.of(f"{decoder}.layers.0.linear1.weight", 0) != width:
        raise _unfit("its encoder and its decoder have feed-forward layers of different widths")
    points = sizes.of(f"{encoder}.layers.0.self_attn.attention_weights.weight", 0)
    return GleeConfig(
        backbone_config=_backbone_config(sizes),
        text_config=_text_config(sizes),
        hidden_size=hidden_size,
        num_attention_heads=heads,
        intermediate_size=width,
        encoder_layers=sizes.count(f"{encoder}.layers"),
        decoder_layers=sizes.count(f"{decoder}.layers"),
        num_points=sizes.parts("number of sampled points", points, heads * LEVELS),
        fusion_size=sizes.of(f"{encoder}.vl_layers.0.b_attn.attn.v_proj.weight", 0),
        fusion_heads=FUSION_HEADS,
        project_features=sizes.has("pixel_decoder.input_proj."),
        template_fuser=sizes.has("sot_fuser."),
        text_teacher=for_training and sizes.has("text_encoder_teacher."),
        denoising_tables=_denoising_tables(sizes) if for_training else None,
    )


class CheckpointSizes:
    """Shapes by published name; whatever is asked for and not there is one clear error."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self.shapes = shapes

    def has(self, prefix: str) -> bool:
        """Whether any name begins so."""
        return any(name.startswith(prefix) for name in self.shapes)

    def of(self, name: str, dimension: int) -> int:
        """Size of one dimension of a weight."""
        if name not in self.shapes:
            raise ValueError(f"checkpoint: {name} is missing, so this is no GLEE checkpoint, or not a whole one")
        shape = self.shapes[name]
        if dimension >= len(shape):
            raise _unfit(f"{name} has the shape {shape}")
        return shape[dimension]

    def count(self, prefix: str) -> int:
        """Numbered parts below a name: one more than the highest number."""
        numbers = [match[1] for name in self.shapes if (match := re.match(re.escape(prefix) + r"\.(\d+)\.", name))]
        if not numbers:
            raise ValueError(f"checkpoint: {prefix}.0 is missing, so this is no GLEE checkpoint, or not a whole one")
        return 1 + max(map(int, numbers))

    @staticmethod
    def parts(what: str, whole: int, size: int) -> int:
        """`whole / size`, which has to be a whole number."""
        if whole < size or whole % size:
            raise _unfit(f"its {what} of {whole} is no multiple of {size}")
        return whole // size

    @staticmethod
    def root(what: str, square: int) -> int:
        """The square root, which has to be a whole number."""
        side = math.isqrt(square)
        if side * side != square:
            raise _unfit(f"its {what} of {square} is no square number")
        return side


def _unfit(reason: str) -> ValueError:
    return ValueError(f"checkpoint: the configuration cannot be read off its weights: {reason}; give it with config=")


def _text_config(sizes: CheckpointSizes) -> dict:
    """CLIP's text encoder; how many heads its layers have is not in the weights, but all of CLIP's are alike."""
    prefix = "text_encoder.text_model" if sizes.has("text_encoder.text_model.") else "text_encoder"
    hidden_size = sizes.of(f"{prefix}.embeddings.token_embedding.weight", 1)
    if hidden_size < 512:
        raise _unfit(f"a text encoder of {hidden_size} channels is none of CLIP's, so its number of heads is unknown")
    vocab_size = sizes.of(f"{prefix}.embeddings.token_embedding.weight", 0)
    return {
        "vocab_size": vocab_size,
        "bos_token_id": vocab_size - 2,  # CLIP's last two
        "eos_token_id": vocab_size - 1,
        "max_position_embeddings": sizes.of(f"{prefix}.embeddings.position_embedding.weight", 0),
        "hidden_size": hidden_size,
        "intermediate_size": sizes.of(f"{prefix}.encoder.layers.0.mlp.fc1.weight", 0),
        "num_hidden_layers": sizes.count(f"{prefix}.encoder.layers"),
        "num_attention_heads": sizes.parts("text encoder's width", hidden_size, CLIP_HEAD_SIZE),
    }


def _denoising_tables(sizes: CheckpointSizes) -> dict[str, int] | None:
    names = {
        name: f"predictor.{name}{'' if name.startswith('bdd') else '_label_enc'}.weight" for name in DENOISING_TABLES
    }
    return {name: sizes.of(stored, 0) for name, stored in names.items() if sizes.has(stored)} or None


def _backbone_config(sizes: CheckpointSizes) -> PreTrainedConfig:
    if sizes.has("backbone.stem."):
        return _resnet_config(sizes)
    if sizes.has("backbone.patch_embed."):
        return _swin_config(sizes)
    if sizes.has("backbone.net."):
        return _eva_config(sizes)
    raise ValueError("checkpoint: it has no ResNet, Swin or EVA-02 under backbone., so it is no GLEE checkpoint")


def _resnet_config(sizes: CheckpointSizes) -> ResNetConfig:
    stages = [f"backbone.res{stage}" for stage in (2, 3, 4, 5)]
    widths = [sizes.of(f"{stage}.0.conv3.weight", 0) for stage in stages]
    for stage, width in zip(stages, widths):
        if sizes.of(f"{stage}.0.conv1.weight", 0) * 4 != width:
            raise _unfit(f"the blocks of {stage} are no bottlenecks of a quarter of their width")
    return ResNetConfig(
        embedding_size=sizes.of("backbone.stem.conv1.weight", 0),
        hidden_sizes=widths,
        depths=[sizes.count(stage) for stage in stages],
        out_features=STAGES,
    )


def _swin_config(sizes: CheckpointSizes) -> SwinConfig:
    table = "backbone.layers.{}.blocks.0.attn.relative_position_bias_table"
    stages = range(sizes.count("backbone.layers"))
    width = sizes.of("backbone.patch_embed.proj.weight", 0)
    side = sizes.root("relative position table", sizes.of(table.format(0), 0))
    hidden = sizes.of("backbone.layers.0.blocks.0.mlp.fc1.weight", 0)
    return SwinConfig(
        image_size=384,  # of pre-training; any size can be given
        patch_size=sizes.of("backbone.patch_embed.proj.weight", 2),
        embed_dim=width,
        depths=[sizes.count(f"backbone.layers.{stage}.blocks") for stage in stages],
        num_heads=[sizes.of(table.format(stage), 1) for stage in stages],
        window_size=(side + 1) // 2,
        mlp_ratio=float(sizes.parts("Swin feed-forward", hidden, width)),
        drop_path_rate=0.3,
        out_features=STAGES,
    )


def _eva_config(sizes: CheckpointSizes) -> GleeEvaConfig:
    """Windows, heads and the image size from the position tables that the published files carry."""
    patch = sizes.of("backbone.net.patch_embed.proj.weight", 2)
    width, depth = sizes.of("backbone.net.pos_embed", 2), sizes.count("backbone.net.blocks")
    head_size = sizes.of("backbone.net.rope_win.freqs_cos", 1)
    window = sizes.of("backbone.net.rope_win.freqs_cos", 0)
    return GleeEvaConfig(
        image_size=patch * sizes.root("global position table", sizes.of("backbone.net.rope_glb.freqs_cos", 0)),
        patch_size=patch,
        hidden_size=width,
        intermediate_size=sizes.of("backbone.net.blocks.0.mlp.w1.weight", 0),
        num_hidden_layers=depth,
        num_attention_heads=sizes.parts("EVA-02 width", width, head_size),
        window_size=sizes.root("window's position table", window),
        window_block_indexes=_window_blocks(sizes, depth, window),
        pretrain_image_size=patch * sizes.root("position grid", sizes.of("backbone.net.pos_embed", 1) - 1),
        pyramid_size=sizes.of("backbone.simfp_4.0.weight", 0),
    )


def _window_blocks(sizes: CheckpointSizes, depth: int, window: int) -> list[int] | None:
    """Blocks with a table for windows; `None`, the published layout, where the file leaves second names out."""
    names = [f"backbone.net.blocks.{block}.attn.rope.freqs_cos" for block in range(depth)]
    if not any(name in sizes.shapes for name in names):
        if depth != 24:
            raise _unfit("which of its blocks attend within windows is unknown")
        return None
    return [block for block, name in enumerate(names) if sizes.of(name, 0) == window]

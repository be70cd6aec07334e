"""Published GLEE checkpoints as models: files read safely, configurations read off sizes, weights renamed."""

import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig, ResNetConfig, SwinConfig

from .configuration_glee import DENOISING_TABLES, NUM_LEVELS, GleeConfig, GleeEvaConfig, with_all_stages
from .modeling_glee import GleeForObjectDetection

ENDINGS = (".pth", ".pt", ".bin", ".safetensors")
CLIP_HEAD_SIZE = 64  # of every text encoder of CLIP
HEAD_SIZE = 32  # of the deformable attention: 8 heads of 256 channels
FUSION_HEADS = 8


def load_published_checkpoint(
    path: str | os.PathLike, *, config: GleeConfig | None = None, for_training: bool = False
) -> GleeForObjectDetection:
    """
    Loads the model of a published checkpoint, in float32 and evaluation mode; no weight of it stays random.

    Args:
        path: `.pth`, `.pt`, `.bin` or `.safetensors`: a state dict, or a `{"model": state dict}` of detectron2.
        config: where it cannot be read off the weights (`config_from_state_dict`), or to change the behaviour.
        for_training: retain the text teacher and the denoising tables, if the file has them.

    Raises:
        ValueError: the file cannot be read safely, or its weights are not exactly those of the model; unknown,
            missing and wrongly shaped ones are named.
    """
    weights = read_checkpoint(path)
    converted = convert_state_dict(weights, for_training=for_training)
    if config is None:
        config = config_from_state_dict(weights, for_training=for_training)
    check_weights(converted, config)
    converted = {name: value.float() if value.is_floating_point() else value for name, value in converted.items()}
    return GleeForObjectDetection.from_pretrained(None, config=config, state_dict=converted).eval()


def read_checkpoint(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """
    Reads the state dict of a file without running code that may be in it.

    Raises:
        ValueError: no such file, a file of another kind, a damaged one, or one with objects other than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {str(path)!r} is not a file")
    if path.suffix == ".pkl":
        raise ValueError(
            f"checkpoint {str(path)!r} is a pickle, which could run code; take a .pth or .safetensors file"
        )
    if path.suffix not in ENDINGS:
        raise ValueError(f"checkpoint {str(path)!r} must end in one of {', '.join(ENDINGS)}")
    content = _load(path)
    for entry in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping):
        raise ValueError(f"checkpoint {str(path)!r} holds a {type(content).__name__}, not a state dict")
    others = [str(k) for k, value in content.items() if not (isinstance(k, str) and isinstance(value, torch.Tensor))]
    if others:
        raise ValueError(f"checkpoint {str(path)!r} has entries that are not named tensors: {shorten(others)}")
    return dict(content)


def check_weights(converted: Mapping[str, torch.Tensor], config: GleeConfig) -> None:
    """
    Checks that names and shapes of the weights are exactly the model's.

    Raises:
        ValueError: names what is missing, unknown, or of another shape.
    """
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in GleeForObjectDetection(config).state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in converted.items()}
    missing = [name for name in expected if name not in shapes]
    unknown = [name for name in shapes if name not in expected]
    wrong = [
        f"{name} {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    found = {"missing": missing, "unknown": unknown, "of another shape": wrong}
    problems = [f"{len(names)} weights are {kind}: {shorten(names)}" for kind, names in found.items() if names]
    if problems:
        raise ValueError(f"checkpoint: does not fit the model: {'; '.join(problems)}")


def _load(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_numpy_numbers()):
            return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # readers of a damaged file raise many kinds
        found = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if found is None:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"checkpoint {str(path)!r} is damaged or of another kind: {reason}") from None
        raise ValueError(
            f"checkpoint {str(path)!r} holds objects other than tensors ({found[1]}), which could run code. Where you "
            "trust it, save only its weights: "
            f"torch.save({{'model': torch.load({str(path)!r}, weights_only=False)['model']}}, 'weights.pth')"
        ) from None


def _numpy_numbers() -> list:
    """Lists the types of a pickled NumPy number: they can't run code, and detectron2 stores some with the weights."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"}
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *dtypes]  # the second name: before NumPy 2


def config_from_state_dict(weights: Mapping[str, torch.Tensor], *, for_training: bool = False) -> GleeConfig:
    """
    Infers the configuration of a published state dict: backbone, widths and depths, but not the number of queries.

    Args:
        weights: published names, with or without the prefix `glee.`; only shapes are read.
        for_training: with the text teacher and the denoising tables, if the file has them.

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
        num_points=sizes.parts("number of sampled points", points, heads * NUM_LEVELS),
        fusion_size=sizes.of(f"{encoder}.vl_layers.0.b_attn.attn.v_proj.weight", 0),
        fusion_heads=FUSION_HEADS,
        project_features=sizes.has("pixel_decoder.input_proj."),
        template_fuser=sizes.has("sot_fuser."),
        text_teacher=for_training and sizes.has("text_encoder_teacher."),
        denoising_tables=_denoising_tables(sizes) if for_training else None,
    )


class CheckpointSizes:
    """Shapes of weights by published name; reading a missing one raises a clear ValueError."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self.shapes = shapes

    def has(self, prefix: str) -> bool:
        """Returns whether any name begins with a prefix."""
        return any(name.startswith(prefix) for name in self.shapes)

    def of(self, name: str, dimension: int) -> int:
        """Returns the size of one dimension of a weight."""
        if name not in self.shapes:
            raise ValueError(f"checkpoint: {name} is missing, so this is no GLEE checkpoint, or not a whole one")
        shape = self.shapes[name]
        if dimension >= len(shape):
            raise _unfit(f"{name} has the shape {shape}")
        return shape[dimension]

    def count(self, prefix: str) -> int:
        """Counts the numbered parts below a name: one more than the highest number."""
        numbers = [match[1] for name in self.shapes if (match := re.match(re.escape(prefix) + r"\.(\d+)\.", name))]
        if not numbers:
            raise ValueError(f"checkpoint: {prefix}.0 is missing, so this is no GLEE checkpoint, or not a whole one")
        return 1 + max(map(int, numbers))

    @staticmethod
    def parts(what: str, whole: int, size: int) -> int:
        """Computes `whole / size`, which has to be an integer."""
        if whole < size or whole % size:
            raise _unfit(f"its {what} of {whole} is no multiple of {size}")
        return whole // size

    @staticmethod
    def root(what: str, square: int) -> int:
        """Computes the square root, which has to be an integer."""
        side = math.isqrt(square)
        if side * side != square:
            raise _unfit(f"its {what} of {square} is no square number")
        return side


def _unfit(reason: str) -> ValueError:
    return ValueError(f"checkpoint: the configuration cannot be read off its weights: {reason}; give it with config=")


def _text_config(sizes: CheckpointSizes) -> dict:
    """Infers the fields of CLIP's text encoder; its number of heads from the head size, which all of CLIP's share."""
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
    config = ResNetConfig(
        embedding_size=sizes.of("backbone.stem.conv1.weight", 0),
        hidden_sizes=widths,
        depths=[sizes.count(stage) for stage in stages],
    )
    return with_all_stages(config)


def _swin_config(sizes: CheckpointSizes) -> SwinConfig:
    table = "backbone.layers.{}.blocks.0.attn.relative_position_bias_table"
    stages = range(sizes.count("backbone.layers"))
    width = sizes.of("backbone.patch_embed.proj.weight", 0)
    side = sizes.root("relative position table", sizes.of(table.format(0), 0))
    hidden = sizes.of("backbone.layers.0.blocks.0.mlp.fc1.weight", 0)
    config = SwinConfig(
        image_size=384,  # of pre-training; any size can be given
        patch_size=sizes.of("backbone.patch_embed.proj.weight", 2),
        embed_dim=width,
        depths=[sizes.count(f"backbone.layers.{stage}.blocks") for stage in stages],
        num_heads=[sizes.of(table.format(stage), 1) for stage in stages],
        window_size=(side + 1) // 2,
        mlp_ratio=float(sizes.parts("Swin feed-forward", hidden, width)),
        drop_path_rate=0.3,
    )
    return with_all_stages(config)


def _eva_config(sizes: CheckpointSizes) -> GleeEvaConfig:
    """Infers windows, heads and the image size from the position tables that the published files contain."""
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
    """Lists the blocks with a table for windows; `None`, the published layout, if the file has no second names."""
    names = [f"backbone.net.blocks.{block}.attn.rope.freqs_cos" for block in range(depth)]
    if not any(name in sizes.shapes for name in names):
        if depth != 24:
            raise _unfit("which of its blocks attend within windows is unknown")
        return None
    return [block for block, name in enumerate(names) if sizes.of(name, 0) == window]


LABEL_TABLES = "coco|obj365|vg|grounding|ytvis19|ytvis21|ovis|uvo"
DEFORMABLE = "sampling_offsets|attention_weights|value_proj|output_proj"
VALUES = "(weight|bias)"
STATISTICS = "(weight|bias|running_mean|running_var)"
CLIP = (
    r"(?:text_model\.)?((?:embeddings\.(?:token|position)_embedding\.weight)|(?:(?:encoder\.layers\.\d+\."
    r"(?:self_attn\.(?:q|k|v|out)_proj|layer_norm[12]|mlp\.fc[12])|final_layer_norm)\.(?:weight|bias)))"
)

# Computed by this model, or part of the loss.
DROPPED = (
    r"criterion\.empty_weight",
    r"text_encoder(?:_teacher)?\.(?:text_model\.)?embeddings\.position_ids",
    r"backbone\.layers\.\d+\.blocks\.\d+\.attn\.relative_position_index",
    r"backbone\.net\.(?:rope_win|rope_glb|blocks\.\d+\.attn\.rope)\.freqs_(?:cos|sin)",
)

# Dropped unless the model is to be trained further.
TRAINING_ONLY = ("text_teacher.", "denoising_labels.")

# Weights of EVA-02's masked-image training that are not part of a backbone.
EVA_PRETRAINING = (
    r"cls_token|mask_token|(?:(?:fc_)?norm|(?:lm_)?head)\.(?:weight|bias)"
    r"|(?:blocks\.\d+\.attn\.)?rope\w*\.freqs_(?:cos|sin)"
)

# Matrices stored as (in, out).
TRANSPOSED = (
    "text_encoder.projection.weight",
    "heads.class_projection.weight",
    *(f"visual_prompter.level_projections.{level}.weight" for level in range(4)),
)

# Published name -> ours; several names of one weight (the box head's, the decoder norm's) have one target.
NAMES: tuple[tuple[str, str | Callable[[re.Match], str | None]], ...] = (
    # text
    (r"text_encoder\." + CLIP, r"text_encoder.clip.\1"),
    (r"text_encoder_teacher\." + CLIP, r"text_teacher.\1"),
    (r"lang_projection", r"text_encoder.projection.weight"),
    # ResNet
    (r"backbone\.stem\.conv1\.weight", r"backbone.embedder.embedder.convolution.weight"),
    (r"backbone\.stem\.conv1\.norm\." + STATISTICS, r"backbone.embedder.embedder.normalization.\1"),
    (
        r"backbone\.res([2-5])\.(\d+)\.(\w+)\.weight",
        lambda match: _resnet_name(match[1], match[2], match[3], "weight"),
    ),
    (
        r"backbone\.res([2-5])\.(\d+)\.(\w+)\.norm\." + STATISTICS,
        lambda match: _resnet_name(match[1], match[2], match[3], match[4], norm=True),
    ),
    # Swin
    (r"backbone\.patch_embed\.proj\." + VALUES, r"backbone.swin.embeddings.patch_embeddings.projection.\1"),
    (r"backbone\.patch_embed\.norm\." + VALUES, r"backbone.swin.embeddings.norm.\1"),
    (r"backbone\.layers\.(\d+)\.blocks\.(\d+)\.(.+)", lambda match: _swin_name(*match.groups())),
    (
        r"backbone\.layers\.(\d+)\.(downsample\.(?:reduction\.weight|norm\.(?:weight|bias)))",
        r"backbone.swin.encoder.layers.\1.\2",
    ),
    (
        r"backbone\.norm(\d)\." + VALUES,
        lambda match: f"backbone.hidden_states_norms.stage{int(match[1]) + 1}.{match[2]}",
    ),
    # EVA-02 and its pyramid
    (r"backbone\.net\.pos_embed", r"backbone.embeddings.position_embeddings"),
    (r"backbone\.net\.patch_embed\.proj\." + VALUES, r"backbone.embeddings.patch_embeddings.\1"),
    (r"backbone\.net\.blocks\.(\d+)\.(.+)", lambda match: _eva_name(*match.groups())),
    (r"backbone\.simfp_([345])\.(\d)\.(norm\.)?" + VALUES, lambda match: _pyramid_name(*match.groups())),
    # visual prompts
    (r"sot_fuser\.refine\.(\d)\." + VALUES, r"visual_prompter.template_convs.\1.\2"),
    (r"mask_sptial_embed\.(\d)", r"visual_prompter.level_projections.\1.weight"),
    (r"pn_indicator\.weight", r"visual_prompter.indicator.weight"),
    # pixel decoder
    (r"pixel_decoder\.input_proj\.(\d)\.0\." + VALUES, r"pixel_decoder.input_projections.\1.conv.\2"),
    (r"pixel_decoder\.input_proj\.(\d)\.1\." + VALUES, r"pixel_decoder.input_projections.\1.norm.\2"),
    (r"pixel_decoder\.transformer\.level_embed", r"pixel_decoder.level_embedding"),
    (r"pixel_decoder\.transformer\.encoder\.vl_layers\.0\.b_attn\.(.+)", lambda match: _fusion_name(match[1])),
    (r"pixel_decoder\.transformer\.encoder\.layers\.(\d+)\.(.+)", lambda match: _encoder_name(*match.groups())),
    (r"pixel_decoder\.adapter_1\.weight", r"pixel_decoder.lateral_conv.weight"),
    (r"pixel_decoder\.adapter_1\.norm\." + VALUES, r"pixel_decoder.lateral_norm.\1"),
    (r"pixel_decoder\.layer_1\.weight", r"pixel_decoder.output_conv.weight"),
    (r"pixel_decoder\.layer_1\.norm\." + VALUES, r"pixel_decoder.output_norm.\1"),
    (r"pixel_decoder\.mask_features\." + VALUES, r"pixel_decoder.mask_projection.\1"),
    # proposals, decoder, heads
    (r"predictor\.enc_output\." + VALUES, r"proposals.projection.\1"),
    (r"predictor\.enc_output_norm\." + VALUES, r"proposals.norm.\1"),
    (r"predictor\.decoder\.layers\.(\d+)\.(.+)", lambda match: _decoder_name(*match.groups())),
    (r"predictor\.decoder\.ref_point_head\.layers\.(\d)\." + VALUES, r"decoder.query_position.layers.\1.\2"),
    (r"predictor\.(?:decoder_norm|decoder\.norm)\." + VALUES, r"decoder.norm.\1"),
    (r"predictor\.category_embed", r"heads.class_projection.weight"),
    (r"predictor\.confidence_score\.layers\.(\d)\." + VALUES, r"heads.confidence.layers.\1.\2"),
    (r"predictor\.mask_embed\.layers\.(\d)\." + VALUES, r"heads.mask.layers.\1.\2"),
    (
        r"predictor\.(?:_bbox_embed|(?:decoder\.)?bbox_embed\.\d+)\.layers\.(\d)\." + VALUES,
        r"heads.box.layers.\1.\2",
    ),
    (rf"predictor\.({LABEL_TABLES})_label_enc\.weight", r"denoising_labels.\1.weight"),
    (r"predictor\.(bdd_det|bdd_inst)\.weight", r"denoising_labels.\1.weight"),
)


def convert_state_dict(weights: Mapping[str, torch.Tensor], *, for_training: bool = False) -> dict[str, torch.Tensor]:
    """
    Renames a published state dict to the names of [`GleeForObjectDetection`]; values and dtypes stay as they are.

    Args:
        weights: names with or without the prefix `glee.`, with the second names of shared weights or without them.
        for_training: retain the text teacher and the denoising tables, if there are any.

    Returns:
        One entry for each parameter and stored buffer; matrices stored as `(in, out)` are transposed, and
        joint query-key-value projections are split.

    Raises:
        ValueError: names that GLEE does not have, or two names of one weight with different values.
    """
    converted: dict[str, torch.Tensor] = {}
    unknown = []
    for name, value in weights.items():
        reference = name.removeprefix("glee.")
        if any(re.fullmatch(pattern, reference) for pattern in DROPPED):
            continue
        target = _target(reference)
        if target is None:
            unknown.append(name)
        elif for_training or not target.startswith(TRAINING_ONLY):
            for part, tensor in _parts(target, value):
                _add(converted, f"model.{part}", tensor, name)
    if unknown:
        raise ValueError(f"checkpoint: {len(unknown)} names are none of GLEE's: {shorten(unknown)}")
    return converted


def convert_eva_state_dict(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Renames the published weights of EVA-02's masked-image training to those of GLEE's backbone, but for its pyramid.

    Args:
        weights: names with or without the prefix `backbone.net.`.

    Raises:
        ValueError: names that EVA-02 does not have.
    """
    bare = {name.removeprefix("backbone.net."): value for name, value in weights.items()}
    needed = {name: value for name, value in bare.items() if not re.fullmatch(EVA_PRETRAINING, name)}
    targets = {name: _target(f"backbone.net.{name}") for name in needed}
    if unknown := [name for name, target in targets.items() if target is None]:
        raise ValueError(f"checkpoint: {len(unknown)} names are none of EVA-02's: {shorten(unknown)}")
    return {target.removeprefix("backbone."): needed[name] for name, target in targets.items() if target}


def shorten(names: list[str], limit: int = 8) -> str:
    """Joins the first `limit` names in one line."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _target(reference: str) -> str | None:
    """Finds our name of a published weight, without `model.`; `None` for a name that GLEE does not have."""
    for pattern, replacement in NAMES:
        match = re.fullmatch(pattern, reference)
        if match:
            return replacement(match) or None if callable(replacement) else match.expand(replacement)
    return None


def _parts(target: str, value: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """Converts one published tensor: itself, its transpose, or its three parts; a wrong shape is named later."""
    if target.endswith(TRANSPOSED) and value.ndim == 2:
        return [(target, value.T.contiguous())]
    if ".qkv_proj." in target and value.ndim:
        names = [target.replace(".qkv_proj.", f".{part}_proj.") for part in "qkv"]
        return [(name, part.contiguous()) for name, part in zip(names, value.chunk(3))]
    return [(target, value)]


def _add(converted: dict[str, torch.Tensor], target: str, tensor: torch.Tensor, name: str) -> None:
    known = converted.setdefault(target, tensor)
    if known is tensor or known.is_meta:
        return
    if known.shape != tensor.shape or not torch.equal(known, tensor):
        raise ValueError(
            f"checkpoint: {name} and another name of the same weight have different values; GLEE shares its box head "
            "and its decoder norm among all layers, so this file is not one of GLEE's"
        )


def _resnet_name(stage: str, block: str, part: str, kind: str, norm: bool = False) -> str | None:
    """Renames as `res4.2.conv1.norm.bias` -> `encoder.stages.2.layers.2.layer.0.normalization.bias`."""
    path = {"shortcut": "shortcut", "conv1": "layer.0", "conv2": "layer.1", "conv3": "layer.2"}.get(part)
    module = "normalization" if norm else "convolution"
    return path and f"backbone.encoder.stages.{int(stage) - 2}.layers.{block}.{path}.{module}.{kind}"


def _swin_name(stage: str, block: str, rest: str) -> str | None:
    name = _renamed(
        rest,
        {
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            "attn.qkv": "attention.qkv_proj",
            "attn.proj": "attention.o_proj",
            "attn.relative_position_bias_table": "attention.relative_position_bias.relative_position_bias_table",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        },
    )
    return name and f"backbone.swin.encoder.layers.{stage}.blocks.{block}.{name}"


def _eva_name(block: str, rest: str) -> str | None:
    name = _renamed(
        rest,
        {
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            "attn.q_proj": "attention.q_proj",
            "attn.k_proj": "attention.k_proj",
            "attn.v_proj": "attention.v_proj",
            "attn.q_bias": "attention.q_proj.bias",
            "attn.v_bias": "attention.v_proj.bias",
            "attn.proj": "attention.o_proj",
            "mlp.w1": "mlp.gate_proj",
            "mlp.w2": "mlp.up_proj",
            "mlp.ffn_ln": "mlp.norm",
            "mlp.w3": "mlp.down_proj",
        },
    )
    return name and f"backbone.layers.{block}.{name}"


def _pyramid_name(level: str, index: str, norm: str | None, kind: str) -> str | None:
    """Names a module: level 3 is (upsampling, 1x1, 3x3), level 4 (1x1, 3x3), level 5 (pooling, 1x1, 3x3)."""
    modules = {"3": ("rescale", "project", "smooth"), "4": ("project", "smooth"), "5": ("", "project", "smooth")}[
        level
    ]
    module = modules[int(index)] if int(index) < len(modules) else ""
    return module and f"backbone.pyramid.levels.{int(level) - 3}.{module}{'_norm' if norm else ''}.{kind}"


def _fusion_name(rest: str) -> str | None:
    name = _renamed(
        rest,
        {
            "gamma_v": "pixel_scale",
            "gamma_l": "text_scale",
            "layer_norm_v": "pixel_norm",
            "layer_norm_l": "text_norm",
            "attn.v_proj": "pixel_query",
            "attn.l_proj": "text_key",
            "attn.values_v_proj": "pixel_value",
            "attn.values_l_proj": "text_value",
            "attn.out_v_proj": "pixel_output",
            "attn.out_l_proj": "text_output",
        },
    )
    return name and f"pixel_decoder.fusion.{name}"


def _encoder_name(layer: str, rest: str) -> str | None:
    deformable = {f"self_attn.{name}": f"self_attn.{name}" for name in DEFORMABLE.split("|")}
    norms = {"norm1": "self_attn_layer_norm", "norm2": "final_layer_norm"}
    name = _renamed(rest, {**deformable, **norms, "linear1": "fc1", "linear2": "fc2"})
    return name and f"pixel_decoder.layers.{layer}.{name}"


def _decoder_name(layer: str, rest: str) -> str | None:
    deformable = {f"cross_attn.{name}": f"encoder_attn.{name}" for name in DEFORMABLE.split("|")}
    norms = {"norm1": "encoder_attn_layer_norm", "norm2": "self_attn_layer_norm", "norm3": "final_layer_norm"}
    attention = {
        "self_attn.in_proj_weight": "self_attn.qkv_proj.weight",
        "self_attn.in_proj_bias": "self_attn.qkv_proj.bias",
        "self_attn.out_proj": "self_attn.out_proj",
    }
    name = _renamed(rest, {**deformable, **norms, **attention, "linear1": "fc1", "linear2": "fc2"})
    return name and f"decoder.layers.{layer}.{name}"


def _renamed(rest: str, names: Mapping[str, str]) -> str | None:
    """Looks `rest` up in the table, whole (a parameter) or up to `.weight` or `.bias` (a module)."""
    module, _, kind = rest.rpartition(".")
    if kind in ("weight", "bias") and module in names:
        return f"{names[module]}.{kind}"
    return names.get(rest)

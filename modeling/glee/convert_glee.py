"""GLEE's published weights under this model's names."""

import re
from collections.abc import Callable, Mapping

import torch

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

# What EVA-02's masked-image training has beside a backbone.
EVA_PRETRAINING = r"cls_token|mask_token|(?:(?:fc_)?norm|(?:lm_)?head)\.(?:weight|bias)|(?:blocks\.\d+\.attn\.)?rope\w*\.freqs_(?:cos|sin)"

# Matrices that were kept as (in, out).
TRANSPOSED = (
    "text_encoder.projection.weight",
    "heads.class_projection.weight",
    *(f"visual_prompter.level_projections.{level}.weight" for level in range(4)),
)

# Published name -> ours; several names of one weight (the box head's, the decoder norm's) have one target.
NAMES: tuple[tuple[str, str | Callable[[re.Match], str]], ...] = (
    # text
    (r"text_encoder\." + CLIP, r"text_encoder.clip.\1"),
    (r"text_encoder_teacher\." + CLIP, r"text_teacher.\1"),
    (r"lang_projection", r"text_encoder.projection.weight"),
    # ResNet
    (r"backbone\.stem\.conv1\.weight", r"backbone.embedder.embedder.convolution.weight"),
    (r"backbone\.stem\.conv1\.norm\." + STATISTICS, r"backbone.embedder.embedder.normalization.\1"),
    (r"backbone\.res([2-5])\.(\d+)\.(\w+)\.weight", lambda match: _resnet_name(*match.groups(), "weight")),
    (
        r"backbone\.res([2-5])\.(\d+)\.(\w+)\.norm\." + STATISTICS,
        lambda match: _resnet_name(*match.groups(), norm=True),
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
    The published state dict under the names of [`GleeForObjectDetection`]; values and dtypes stay as they are.

    Args:
        weights: names with or without the prefix `glee.`, with the second names of shared weights or without them.
        for_training: keep the text teacher and the denoising tables, if there are any.
    Returns:
        One entry for each parameter and stored buffer; matrices that were kept as `(in, out)` are transposed, and
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
    EVA-02 as its masked-image training publishes it, under the names of GLEE's backbone; the pyramid is not among them.

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
    return {target.removeprefix("backbone."): needed[name] for name, target in targets.items()}


def shorten(names: list[str], limit: int = 8) -> str:
    """The first `limit` names in one line."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _target(reference: str) -> str | None:
    """Our name of one published weight, `model.` left out; `None` for a name that GLEE does not have."""
    for pattern, replacement in NAMES:
        match = re.fullmatch(pattern, reference)
        if match:
            return replacement(match) or None if callable(replacement) else match.expand(replacement)
    return None


def _parts(target: str, value: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """What one published tensor becomes: itself, its transpose, or its three parts; a wrong shape is named later."""
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
    """`res4.2.conv1.norm.bias` -> `encoder.stages.2.layers.2.layer.0.normalization.bias`."""
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
    """Level 3 is (upsampling, 1x1, 3x3), level 4 (1x1, 3x3), level 5 (pooling, 1x1, 3x3)."""
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
    """`rest` by the table, whole (a parameter) or up to `.weight` or `.bias` (a module)."""
    module, _, kind = rest.rpartition(".")
    if kind in ("weight", "bias") and module in names:
        return f"{names[module]}.{kind}"
    return names.get(rest)

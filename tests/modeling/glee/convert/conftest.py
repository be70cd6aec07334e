"""Small checkpoints under their published names, written down from our side."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from transformers import ResNetConfig, SwinConfig

from lookhear import GleeConfig, GleeForObjectDetection
from lookhear.modeling.glee import GleeEvaConfig

Weights = dict[str, torch.Tensor]
STAGES = ["stage1", "stage2", "stage3", "stage4"]

# Our name -> the published one, written down from the other side.
BACKWARDS = (
    (r"text_encoder\.clip\.", "text_encoder.text_model."),
    (r"text_teacher\.", "text_encoder_teacher.text_model."),
    (r"text_encoder\.projection\.weight", "lang_projection"),
    (r"backbone\.embedder\.embedder\.convolution", "backbone.stem.conv1"),
    (r"backbone\.embedder\.embedder\.normalization", "backbone.stem.conv1.norm"),
    (
        r"backbone\.encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut",
        lambda m: f"backbone.res{int(m[1]) + 2}.{m[2]}.shortcut",
    ),
    (
        r"backbone\.encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)",
        lambda m: f"backbone.res{int(m[1]) + 2}.{m[2]}.conv{int(m[3]) + 1}",
    ),
    (r"\.convolution\.", "."),
    (r"\.normalization\.", ".norm."),
    (r"backbone\.swin\.embeddings\.patch_embeddings\.projection", "backbone.patch_embed.proj"),
    (r"backbone\.swin\.embeddings\.norm", "backbone.patch_embed.norm"),
    (r"backbone\.swin\.encoder\.layers", "backbone.layers"),
    (r"backbone\.hidden_states_norms\.stage(\d)", lambda m: f"backbone.norm{int(m[1]) - 1}"),
    (r"attention\.relative_position_bias\.relative", "attn.relative"),
    (r"backbone\.embeddings\.position_embeddings", "backbone.net.pos_embed"),
    (r"backbone\.embeddings\.patch_embeddings", "backbone.net.patch_embed.proj"),
    (r"backbone\.layers\.(\d+)\.(?!blocks|downsample)", r"backbone.net.blocks.\1."),
    (r"backbone\.pyramid\.levels\.0\.rescale", "backbone.simfp_3.0"),
    (r"backbone\.pyramid\.levels\.([02])\.project", lambda m: f"backbone.simfp_{int(m[1]) + 3}.1"),
    (r"backbone\.pyramid\.levels\.([02])\.smooth", lambda m: f"backbone.simfp_{int(m[1]) + 3}.2"),
    (r"backbone\.pyramid\.levels\.1\.project", "backbone.simfp_4.0"),
    (r"backbone\.pyramid\.levels\.1\.smooth", "backbone.simfp_4.1"),
    (r"(simfp_\d\.\d)_norm", r"\1.norm"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.([qv])_proj\.bias", r"attn.\1_bias"),
    (r"attention\.([qkv])_proj", r"attn.\1_proj"),
    (r"attention\.o_proj", "attn.proj"),
    (r"mlp\.gate_proj", "mlp.w1"),
    (r"mlp\.up_proj", "mlp.w2"),
    (r"mlp\.down_proj", "mlp.w3"),
    (r"mlp\.norm", "mlp.ffn_ln"),
    (r"visual_prompter\.template_convs", "sot_fuser.refine"),
    (r"visual_prompter\.level_projections\.(\d)\.weight", r"mask_sptial_embed.\1"),
    (r"visual_prompter\.indicator", "pn_indicator"),
    (r"pixel_decoder\.input_projections\.(\d)\.conv", r"pixel_decoder.input_proj.\1.0"),
    (r"pixel_decoder\.input_projections\.(\d)\.norm", r"pixel_decoder.input_proj.\1.1"),
    (r"pixel_decoder\.level_embedding", "pixel_decoder.transformer.level_embed"),
    (r"pixel_decoder\.fusion\.", "pixel_decoder.transformer.encoder.vl_layers.0.b_attn."),
    (r"b_attn\.pixel_scale", "b_attn.gamma_v"),
    (r"b_attn\.text_scale", "b_attn.gamma_l"),
    (r"b_attn\.pixel_norm", "b_attn.layer_norm_v"),
    (r"b_attn\.text_norm", "b_attn.layer_norm_l"),
    (r"b_attn\.pixel_query", "b_attn.attn.v_proj"),
    (r"b_attn\.text_key", "b_attn.attn.l_proj"),
    (r"b_attn\.pixel_value", "b_attn.attn.values_v_proj"),
    (r"b_attn\.text_value", "b_attn.attn.values_l_proj"),
    (r"b_attn\.pixel_output", "b_attn.attn.out_v_proj"),
    (r"b_attn\.text_output", "b_attn.attn.out_l_proj"),
    (r"pixel_decoder\.layers\.(\d)\.self_attn_layer_norm", r"pixel_decoder.layers.\1.norm1"),
    (r"pixel_decoder\.layers\.(\d)\.final_layer_norm", r"pixel_decoder.layers.\1.norm2"),
    (r"^decoder\.layers\.(\d)\.self_attn_layer_norm", r"decoder.layers.\1.norm2"),
    (r"^decoder\.layers\.(\d)\.encoder_attn_layer_norm", r"decoder.layers.\1.norm1"),
    (r"^decoder\.layers\.(\d)\.final_layer_norm", r"decoder.layers.\1.norm3"),
    (r"^decoder\.layers\.(\d)\.encoder_attn", r"decoder.layers.\1.cross_attn"),
    (r"((?:pixel_)?decoder)\.layers\.(\d)\.fc([12])", r"\1.layers.\2.linear\3"),
    (r"pixel_decoder\.layers", "pixel_decoder.transformer.encoder.layers"),
    (r"pixel_decoder\.lateral_conv", "pixel_decoder.adapter_1"),
    (r"pixel_decoder\.lateral_norm", "pixel_decoder.adapter_1.norm"),
    (r"pixel_decoder\.output_conv", "pixel_decoder.layer_1"),
    (r"pixel_decoder\.output_norm", "pixel_decoder.layer_1.norm"),
    (r"pixel_decoder\.mask_projection", "pixel_decoder.mask_features"),
    (r"proposals\.projection", "predictor.enc_output"),
    (r"proposals\.norm", "predictor.enc_output_norm"),
    (r"^decoder\.norm", "predictor.decoder_norm"),
    (r"^decoder\.query_position", "predictor.decoder.ref_point_head"),
    (r"^decoder\.", "predictor.decoder."),
    (r"heads\.class_projection\.weight", "predictor.category_embed"),
    (r"heads\.confidence", "predictor.confidence_score"),
    (r"heads\.box", "predictor._bbox_embed"),
    (r"heads\.mask", "predictor.mask_embed"),
    (r"denoising_labels\.(bdd_\w+)", r"predictor.\1"),
    (r"denoising_labels\.(\w+)", r"predictor.\1_label_enc"),
)
TRANSPOSED = ("lang_projection", "predictor.category_embed", "mask_sptial_embed.")


def publish(model: GleeForObjectDetection, second_names: bool = True) -> Weights:
    """The model's weights as the published code would have stored them."""
    weights: Weights = {}
    for name, value in model.state_dict().items():
        name = name.removeprefix("model.")
        for pattern, replacement in BACKWARDS:
            name = re.sub(pattern, replacement, name)
        weights[name] = value.T.contiguous() if name.startswith(TRANSPOSED) else value.clone()
    _join_projections(weights)
    if second_names:
        _add_second_names(weights, model.config)
    return weights


def _join_projections(weights: Weights) -> None:
    """Swin's and the decoder's queries, keys and values are one matrix; EVA-02's are not."""
    for name in [name for name in weights if re.search(r"q_proj|q_bias", name)]:
        if name.startswith("text_") or ".net." in name:
            continue
        parts = [weights.pop(re.sub(r"q(_proj|_bias)", rf"{part}\1", name), None) for part in "qkv"]
        if parts[1] is None:  # a key's bias still has its long name
            parts[1] = weights.pop(name.replace("q_bias", "k_proj.bias"))
        kind = "bias" if name.endswith("bias") else "weight"
        joint = "attn.qkv." if name.startswith("backbone.") else "self_attn.in_proj_"
        weights[re.sub(r"(self_)?attn\.q(_proj\.\w+|_bias)", joint + kind, name)] = torch.cat(parts)


def _add_second_names(weights: Weights, config: GleeConfig) -> None:
    """One module under several names, tables that can be computed, and what belongs to the loss."""
    for name in [name for name in weights if name.startswith("predictor._bbox_embed")]:
        for layer in range(config.decoder_layers):
            for alias in ("predictor.bbox_embed", "predictor.decoder.bbox_embed"):
                weights[name.replace("predictor._bbox_embed", f"{alias}.{layer}")] = weights[name]
    for kind in ("weight", "bias"):
        weights[f"predictor.decoder.norm.{kind}"] = weights[f"predictor.decoder_norm.{kind}"]
    weights["criterion.empty_weight"] = torch.ones(2)
    weights["text_encoder.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    backbone = config.backbone_config
    if backbone.model_type == "swin":
        weights["backbone.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.long)
    if backbone.model_type == "glee_eva":
        side, window = backbone.image_size // backbone.patch_size, backbone.window_size
        size = backbone.hidden_size // backbone.num_attention_heads
        names = {"rope_win": window, "rope_glb": side}
        for block in range(backbone.num_hidden_layers):
            names[f"blocks.{block}.attn.rope"] = window if block in backbone.window_block_indexes else side
        for name, side in names.items():
            for kind in ("cos", "sin"):
                weights[f"backbone.net.{name}.freqs_{kind}"] = torch.zeros(side * side, size)


BACKBONES = {
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 2, 1, 1], out_features=STAGES),
    "swin": SwinConfig(
        image_size=384,
        embed_dim=8,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 2, 4],
        window_size=4,
        drop_path_rate=0.3,
        out_features=STAGES,
    ),
    "eva": GleeEvaConfig(
        image_size=128,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=2,
        window_size=4,
        window_block_indexes=[0],
        pyramid_size=64,
    ),
}
TEXT = {
    "vocab_size": 514,
    "hidden_size": 512,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "bos_token_id": 512,
    "eos_token_id": 513,
}


@pytest.fixture(scope="session")
def make_published(make_model) -> Callable[..., tuple[GleeForObjectDetection, Weights]]:
    """A small model whose configuration can be read off its weights, and these under their published names."""

    def make(backbone: str = "resnet", second_names: bool = True, **overrides):
        fields = {
            "backbone_config": BACKBONES[backbone],
            "text_config": TEXT,
            "hidden_size": 64,
            "num_attention_heads": 2,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "fusion_size": 64,
            "canvas_divisor": None,
            "fusion_heads": 8,
        }
        defaults = ("num_groups", "template_size", "num_queries", "max_prompt_points")
        fields |= {name: getattr(GleeConfig(), name) for name in defaults}
        model = make_model(backbone, **{**fields, **overrides})
        return model, publish(model, second_names)

    return make


@pytest.fixture(scope="session")
def published(make_published) -> tuple[GleeForObjectDetection, Weights]:
    """The smallest of them; not to be changed."""
    return make_published()

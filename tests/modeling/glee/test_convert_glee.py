"""Published names -> ours, and back: no weight is lost, left over, or left at random."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lookhear import GleeConfig, GleeForObjectDetection
from lookhear.modeling.glee import GleeEvaConfig
from lookhear.modeling.glee.convert_checkpoint_glee import check_weights, load_published_checkpoint, read_checkpoint
from lookhear.modeling.glee.convert_config_glee import config_from_state_dict
from lookhear.modeling.glee.convert_glee import convert_state_dict

Weights = dict[str, torch.Tensor]
PUBLISHED = {  # key list -> (size, with stage-2 parts, parameters in training form)
    "lite": ("lite", True, 190_438_213),
    "plus": ("plus", True, 358_694_713),
    "pro": ("pro", True, 462_770_245),
    "lite_frozen": ("lite", False, 119_013_957),
}

# ------------------------------------------------------------------------------------------------- published key lists


def training_config(size: str, stage_two: bool) -> GleeConfig:
    config = getattr(GleeConfig, size)()
    if stage_two:
        return config.for_training()
    return getattr(GleeConfig, size)(template_fuser=False, denoising_tables=config.for_training().denoising_tables)


def on_meta(config: GleeConfig) -> GleeForObjectDetection:
    with torch.device("meta"):
        return GleeForObjectDetection(config)


@pytest.mark.parametrize(("size", "stage_two", "count"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_sizes(size, stage_two, count):
    model = on_meta(training_config(size, stage_two))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parity
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("prefix", ["", "glee."])
def test_every_published_key_has_its_place(parity_keys, name, prefix):
    size, stage_two, count = PUBLISHED[name]
    keys = parity_keys(name)
    weights = {prefix + key: torch.zeros(()).expand(entry["shape"]) for key, entry in keys.items()}
    weights["criterion.empty_weight"] = torch.ones(2)
    converted = convert_state_dict(weights, for_training=True)
    config = config_from_state_dict(weights, for_training=True)
    check_weights(converted, config)  # both directions, and every shape
    assert config.to_dict() == training_config(size, stage_two).to_dict()
    model = on_meta(config)
    assert not any(model.load_state_dict(converted, assign=True))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parity
@pytest.mark.parametrize("name", PUBLISHED)
def test_only_training_needs_teacher_and_denoising_tables(parity_keys, name):
    size, stage_two, count = PUBLISHED[name]
    weights = {key: torch.zeros(()).expand(entry["shape"]) for key, entry in parity_keys(name).items()}
    converted, config = convert_state_dict(weights), config_from_state_dict(weights)
    check_weights(converted, config)
    assert config.to_dict() == getattr(GleeConfig, size)(template_fuser=stage_two).to_dict()
    dropped = count - sum(parameter.numel() for parameter in on_meta(config).parameters())
    assert dropped == 149_760 + (63_165_952 if stage_two else 0)


@pytest.fixture(scope="session")
def parity_keys() -> Callable[[str], dict]:
    """`parity_keys("lite")`: published name -> shape of one size."""
    root = Path(__file__).resolve().parents[3]
    shared = Path(os.environ.get("LOOKHEAR_SHARED", root.parent / "shared"))
    folder = Path(os.environ.get("LOOKHEAR_PARITY", shared / "parity")) / "glee"
    return lambda name: json.loads((folder / f"keys_{name}.json").read_text(encoding="utf-8"))["keys"]


# ---------------------------------------------------------------------------------- a small checkpoint, made by code

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


@pytest.fixture(scope="module")
def make_published(make_model) -> Callable[..., tuple[GleeForObjectDetection, Weights]]:
    """A small model whose configuration can be read off its weights, and these under their published names."""

    def make(backbone: str = "resnet", second_names: bool = True, **overrides):
        text = {"vocab_size": 514, "hidden_size": 512, "intermediate_size": 8, "num_hidden_layers": 1}
        fields = {
            "text_config": text,
            "hidden_size": 64,
            "num_attention_heads": 2,
            "fusion_size": 64,
            "fusion_heads": 8,
        }
        fields |= {"num_groups": 32, "template_size": 256, "num_queries": 300, "max_prompt_points": 512}
        if backbone == "eva":
            fields["backbone_config"] = GleeEvaConfig(
                image_size=128,
                hidden_size=24,
                intermediate_size=20,
                num_hidden_layers=2,
                num_attention_heads=2,
                window_size=4,
                window_block_indexes=[0],
                pyramid_size=64,
            )
        model = make_model(backbone, **{**fields, **overrides})
        return model, publish(model, second_names)

    return make


TRAINING = {"text_teacher": True, "denoising_tables": {"coco": 3, "bdd_det": 2}}


@pytest.mark.parametrize("backbone", ["resnet", "swin", "eva"])
@pytest.mark.parametrize("second_names", [True, False])
def test_names_there_and_back(make_published, backbone, second_names):
    model, weights = make_published(backbone, second_names, **TRAINING)
    converted, expected = convert_state_dict(weights, for_training=True), model.state_dict()
    assert converted.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(converted[name], value)] == []
    kept = convert_state_dict(weights).keys()
    dropped = {name.split(".")[1] for name in expected.keys() - kept}
    assert kept <= expected.keys() and dropped == {"text_teacher", "denoising_labels"}


@pytest.mark.parametrize("backbone", ["resnet", "swin", "eva"])
def test_configuration_is_read_off_the_weights(make_published, backbone):
    model, weights = make_published(backbone, **TRAINING)
    found, wanted = config_from_state_dict(weights, for_training=True).to_dict(), model.config.to_dict()
    if backbone == "swin":  # neither is in the weights, nor changes what they compute
        for name in ("image_size", "drop_path_rate"):
            wanted["backbone_config"][name] = found["backbone_config"][name]
    assert {name: found[name] for name in found if found[name] != wanted[name]} == {}
    assert config_from_state_dict(weights).to_diff_dict().keys().isdisjoint(TRAINING)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lang_projection": None}, "weights are missing: model.text_encoder.projection.weight"),
        ({"pn_indicator.weight": (3, 64)}, r"model.visual_prompter.indicator.weight \(3, 64\) instead of \(2, 64\)"),
        ({"predictor.decoder.layers.1.norm1.bias": None}, "1 weights are missing: model.decoder.layers.1.encoder"),
        ({"pixel_decoder.transformer.level_embed": None}, "level_embed is missing, so this is no GLEE checkpoint"),
        ({"backbone.res6.0.conv1.weight": (2, 2)}, "1 names are none of GLEE's: glee.backbone.res6.0.conv1.weight"),
        (
            {"text_encoder.text_model.pooler.weight": (2,)},
            "names are none of GLEE's: glee.text_encoder.text_model.pooler",
        ),
        ({"predictor.decoder.norm.bias": (64,)}, "decoder.norm.bias.* have different values"),
        ({"predictor.bbox_embed.1.layers.0.bias": (3,)}, "bbox_embed.1.layers.0.bias.* have different values"),
        (
            {"backbone.res3.0.conv1.weight": (5, 8, 1, 1)},
            "blocks of backbone.res3 are no bottlenecks.*give it with config=",
        ),
        ({"predictor.decoder.layers.0.linear1.weight": (7, 64)}, "feed-forward layers of different widths"),
        ({"pixel_decoder.transformer.level_embed": (4, 40)}, "its hidden size of 40 is no multiple of 32"),
        ({"pixel_decoder.transformer.level_embed": (4,)}, r"level_embed has the shape \(4,\)"),
        ({"text_encoder.text_model.embeddings.token_embedding.weight": (9, 64)}, "none of CLIP's"),
    ],
)
def test_what_does_not_fit_is_named(make_published, tmp_path, change, message):
    weights = make_published()[1]
    for name, shape in change.items():
        weights.pop(name, None)
        if shape is not None:
            weights[name] = torch.full(shape, 7.0)
    path = tmp_path / "weights.pth"
    torch.save({"model": {f"glee.{name}": value for name, value in weights.items()}}, path)
    with pytest.raises(ValueError, match=rf"^checkpoint: .*{message}") as caught:
        load_published_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_another_backbone_is_named(make_published):
    weights = {name: value for name, value in make_published()[1].items() if not name.startswith("backbone.")}
    with pytest.raises(ValueError, match="no ResNet, Swin or EVA-02"):
        config_from_state_dict(weights)


def test_unknown_windows_are_asked_for(make_published):
    weights = make_published("eva")[1]
    weights = {name: value for name, value in weights.items() if ".attn.rope." not in name}
    with pytest.raises(ValueError, match="which of its blocks attend within windows is unknown; give it with config="):
        config_from_state_dict(weights)


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("layout", ["detectron2", "flat", "safetensors"])
@torch.no_grad()
def test_every_layout_gives_the_model(make_published, make_inputs, tmp_path, layout):
    model, weights = make_published(second_names=layout != "safetensors")
    path = tmp_path / {"detectron2": "a.pth", "flat": "a.bin", "safetensors": "a.safetensors"}[layout]
    if layout == "detectron2":
        prefixed = {f"glee.{name}": value for name, value in weights.items() if not name.startswith("criterion.")}
        prefixed["criterion.empty_weight"] = weights["criterion.empty_weight"]
        torch.save({"model": prefixed, "iteration": 9, "optimizer": {"state": {0: torch.ones(2)}}}, path)
    elif layout == "flat":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    back = load_published_checkpoint(path)
    assert not back.training and not any(tensor.is_meta for tensor in (*back.parameters(), *back.buffers()))
    one, other = (network(**make_inputs("labels")) for network in (model, back))
    assert torch.equal(one.logits, other.logits) and torch.equal(one.pred_masks, other.pred_masks)


def test_half_precision_becomes_float32(make_published, tmp_path):
    model, weights = make_published()
    torch.save({name: value.half() for name, value in weights.items()}, tmp_path / "half.pt")
    back = load_published_checkpoint(tmp_path / "half.pt")
    assert {parameter.dtype for parameter in back.parameters()} == {torch.float32}
    assert torch.equal(back.model.decoder.norm.weight, model.model.decoder.norm.weight.half().float())


def test_a_given_configuration_is_used(make_published, make_config, tmp_path):
    model, weights = make_published()
    torch.save(weights, tmp_path / "a.pth")
    config = GleeConfig.from_dict({**model.config.to_dict(), "num_queries": 7, "padding_mask": True})
    back = load_published_checkpoint(tmp_path / "a.pth", config=config)
    assert back.config.num_queries == 7 and back.config.padding_mask
    with pytest.raises(ValueError, match="does not fit the model: .* weights are missing"):
        load_published_checkpoint(tmp_path / "a.pth", config=make_config(text_teacher=True))


class Trap:
    """Pickled code that leaves a trace when it is run."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_code_in_a_file_is_not_run(tmp_path):
    path, trace = tmp_path / "trap.pth", tmp_path / "trace"
    torch.save({"model": {"glee.lang_projection": torch.ones(2)}, "trainer": Trap(trace)}, path)
    with pytest.raises(
        ValueError, match="holds other things than tensors .* could run code. Where you trust it"
    ) as caught:
        read_checkpoint(path)
    assert not trace.exists() and "\n" not in str(caught.value)
    path.rename(tmp_path / "trap.pkl")
    with pytest.raises(ValueError, match="trap.pkl' is a pickle, which could run code"):
        read_checkpoint(tmp_path / "trap.pkl")


def test_numbers_of_numpy_are_explained(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}, "scheduler": np.float64(0.1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"other things than tensors \(numpy.*weights_only=False\)\['model'\]"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", "damaged or of another kind"),
        ("a.pth", b"not a checkpoint at all", "damaged or of another kind"),
        ("a.safetensors", b"12345678901234567890", "damaged or of another kind"),
        ("a.ckpt", b"", "must end in one of .pth, .pt, .bin, .safetensors"),
        ("missing.pth", None, "is no file"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}'.* {message}"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    (save_file if ending == "safetensors" else torch.save)({"a": torch.randn(100), "b": torch.randn(100)}, path)
    path.write_bytes(path.read_bytes()[:-150])
    with pytest.raises(ValueError, match="damaged or of another kind"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list, not a state dict"),
        ({"model": {"a": torch.ones(1), "b": 3}}, "has entries that are no tensors: b"),
        ({"epoch": 3, "weights": {}}, "has entries that are no tensors: epoch, weights"),
    ],
)
def test_only_state_dicts_are_read(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "a.pth")

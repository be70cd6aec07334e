"""Numbers that the published code produced, read from the folder `LOOKHEAR_PARITY` names."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, PreTrainedConfig, PreTrainedModel, ResNetConfig, SwinConfig, Wav2Vec2Config

from lookhear import AvsrConfig, AvsrForConditionalGeneration, GleeConfig, GleeForObjectDetection
from lookhear.modeling.glee import GleeEvaConfig
from lookhear.modeling.glee.backbone_glee import make_backbone
from lookhear.modeling.glee.convert_glee import convert_state_dict
from lookhear.training.avsr.convert import load_published_weights

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("LOOKHEAR_SHARED", ROOT.parent / "shared"))
PARITY = Path(os.environ.get("LOOKHEAR_PARITY", SHARED / "parity"))


class Stored:
    """
    One file of tensors: some whole, some every n-th value, some as bits.

    `facts` is the file's metadata, and what a `.json` file beside it says (a list: `entries`).
    """

    def __init__(self, path: Path):
        self.tensors = load_file(path)
        with safe_open(path, "pt") as file:
            self.facts: dict = dict(file.metadata() or {})
        shapes = {name: {"shape": list(tensor.shape)} for name, tensor in self.tensors.items()}
        if path.with_suffix(".json").is_file():
            content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            self.facts |= content if isinstance(content, dict) else {"entries": content}
            shapes = self.facts.pop("tensors", shapes)
        self.shapes = {name: entry["shape"] for name, entry in shapes.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def __getitem__(self, name: str) -> torch.Tensor:
        """A tensor that is stored whole or as bits."""
        if name in self.tensors:
            return self.tensors[name]
        bits = np.unpackbits(self.tensors[f"{name}@bits"].numpy())
        size = int(np.prod(self.shapes[name]))
        return torch.from_numpy(bits[:size].astype(bool)).reshape(self.shapes[name])

    def compare(self, name: str, value: torch.Tensor, atol: float = 2e-4, rtol: float = 1e-4) -> None:
        """Every stored value is met within `atol`, or within `rtol` of itself."""
        assert list(value.shape) == self.shapes[name], f"{name}: {list(value.shape)} is not {self.shapes[name]}"
        value = value.detach().float()
        if name in self.tensors:
            stored = self.tensors[name].float()
        else:
            key = next(key for key in self.tensors if key.startswith(f"{name}@step"))
            stored = self.tensors[key].float()
            value = value.flatten()[:: int(key.removeprefix(f"{name}@step"))]
        same = value == stored  # infinities
        difference = torch.where(same, 0.0, (value - stored).abs())
        allowed = (rtol * stored.abs()).clamp(min=atol)
        worst = difference.max().item() if difference.numel() else 0.0
        assert bool((same | (difference <= allowed)).all()), f"{name} differs by up to {worst:.2e}"


@pytest.fixture(scope="session")
def glee() -> Callable[[str], Stored]:
    """`glee("detection")`: that file of the folder `glee`."""
    return _reader("glee")


@pytest.fixture(scope="session")
def avsr() -> Callable[[str], Stored]:
    """`avsr("AV_case1_req12")`: that file of the folder `avsr`."""
    return _reader("avsr")


def _reader(folder: str) -> Callable[[str], Stored]:
    return functools.cache(lambda name: Stored(PARITY / folder / f"{name}.safetensors"))


@pytest.fixture(scope="session")
def glee_folder() -> Path:
    """The folder `glee` itself."""
    return PARITY / "glee"


def _make_config(facts: dict, **fields) -> GleeConfig:
    """The configuration that the stored one describes."""
    backbone, text, encoder, decoder = facts["backbone"], facts["text"], facts["encoder"], facts["decoder"]
    clip = {name: text[name] for name in CLIPTextConfig().to_dict() if name in text}
    settings = {
        "backbone_config": ResNetConfig(
            embedding_size=backbone["stem"],
            hidden_sizes=backbone["out_channels"],
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        "text_config": {**clip, "bos_token_id": None, "eos_token_id": text["vocab_size"] - 1},
        "hidden_size": facts["hidden_dim"],
        "num_attention_heads": encoder["heads"],
        "intermediate_size": encoder["ffn"],
        "encoder_layers": encoder["layers"],
        "decoder_layers": decoder["layers"],
        "num_points": encoder["points"],
        "num_queries": facts["num_queries"],
        "fusion_size": facts["fusion"]["embed_dim"],
        "fusion_heads": facts["fusion"]["num_heads"],
        "text_teacher": True,
        "auxiliary_outputs": True,
    }
    return GleeConfig(**{**settings, **fields})


@pytest.fixture(scope="session")
def stored_model(glee_folder) -> Callable[..., GleeForObjectDetection]:
    """`stored_model(field=value)`: a new model of the stored weights and configuration, but for those fields."""
    facts = json.loads((glee_folder / "config_lite_tiny.json").read_text())
    weights = load_file(glee_folder / "model_lite_tiny.safetensors")
    converted = convert_state_dict({name: value.float() for name, value in weights.items()}, for_training=True)

    def make(**fields) -> GleeForObjectDetection:
        model = GleeForObjectDetection(_make_config(facts, **fields)).eval()
        missing, unexpected = model.load_state_dict(converted, strict=False)
        assert not missing
        assert all("denoising_labels" in name for name in unexpected)
        return model

    return make


def _make_backbone_config(kind: str, published: dict) -> PreTrainedConfig:
    """Our configuration from the settings that the published code was run with."""
    if kind == "swin":
        return SwinConfig(
            patch_size=published["PATCH_SIZE"],
            embed_dim=published["EMBED_DIM"],
            depths=published["DEPTHS"],
            num_heads=published["NUM_HEADS"],
            window_size=published["WINDOW_SIZE"],
            mlp_ratio=published["MLP_RATIO"],
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
    return GleeEvaConfig(
        image_size=published["IMAGE_SIZE"],
        patch_size=published["PATCH_SIZE"],
        hidden_size=published["DMBED_DIM"],
        intermediate_size=int(published["DMBED_DIM"] * published["MLP_RATIO"]),
        num_hidden_layers=published["DEPTH"],
        num_attention_heads=published["NUM_HEADS"],
        window_size=published["WINDOW_SIZE"],
        window_block_indexes=published["WINDOW_BLOCK_INDEXES"],
    )


@pytest.fixture(scope="session")
def stored_backbone(glee, glee_folder) -> Callable[[str], PreTrainedModel]:
    """`stored_backbone("swin" | "eva02")`: that backbone with the stored weights."""

    def make(kind: str) -> PreTrainedModel:
        weights = load_file(glee_folder / f"backbone_{kind}_weights.safetensors")
        weights = {name: value.float() for name, value in weights.items() if name.startswith("backbone.")}
        backbone = make_backbone(_make_backbone_config(kind, glee(f"backbone_{kind}").facts["config"])).eval()
        converted = convert_state_dict(weights)
        backbone.load_state_dict({name.removeprefix("model.backbone."): value for name, value in converted.items()})
        return backbone

    return make


RESNET = {"stem_channels": 64, "hidden_sizes": (32, 32, 64, 64), "depths": (2, 2, 2, 2)}  # of every stored AVSR file
MODALITIES = {"AO": "audio", "VO": "visual", "AV": "audiovisual"}


@pytest.fixture(scope="session")
def avsr_folder() -> Path:
    """The folder `avsr` itself."""
    return PARITY / "avsr"


@pytest.fixture(scope="session")
def stored_config(avsr) -> Callable[..., AvsrConfig]:
    """`stored_config("AV", field=value)`: the configuration of those stored weights, but for those fields."""

    def make(kind: str, **fields) -> AvsrConfig:
        facts = avsr(f"{kind}_state_dict").facts
        size, heads, layers, _, _, _, width, _, vocabulary = json.loads(facts["modelargs"])
        sizes = {"hidden_size": size, "num_attention_heads": heads, "intermediate_size": width}
        sizes |= {"vocab_size": vocabulary, "head_hidden_sizes": (size, size // 2, size // 2)}
        sizes |= dict.fromkeys(("encoder_layers", "fusion_layers", "decoder_layers"), layers)
        if "wav2vec_cfg" in facts:
            sizes["audio_config"] = {"encoder_config": _speech_encoder(json.loads(facts["wav2vec_cfg"]))}
        return AvsrConfig.reference(**{"modality": MODALITIES[kind], "visual_config": RESNET, **sizes, **fields})

    return make


def _speech_encoder(published: dict) -> Wav2Vec2Config:
    """fairseq's settings in transformers' words."""
    parts = re.findall(r"\[\((\d+), ?(\d+), ?(\d+)\)\](?: \* (\d+))?", published["conv_feature_layers"])
    layers = [layer for *sizes, times in parts for layer in [list(map(int, sizes))] * int(times or 1)]
    return Wav2Vec2Config(
        hidden_size=published["encoder_embed_dim"],
        num_hidden_layers=published["encoder_layers"],
        num_attention_heads=published["encoder_attention_heads"],
        intermediate_size=published["encoder_ffn_embed_dim"],
        conv_dim=[size for size, _, _ in layers],
        conv_kernel=[kernel for _, kernel, _ in layers],
        conv_stride=[stride for _, _, stride in layers],
        conv_bias=published["conv_bias"],
        feat_extract_norm="layer" if published["extractor_mode"] == "layer_norm" else "group",
        do_stable_layer_norm=published["layer_norm_first"],
        num_conv_pos_embeddings=published["conv_pos"],
        num_conv_pos_embedding_groups=published["conv_pos_groups"],
        layerdrop=0.0,
    )


@pytest.fixture(scope="session")
def stored_recogniser(avsr, stored_config) -> Callable[..., AvsrForConditionalGeneration]:
    """`stored_recogniser("AV", field=value)`: a new model of those stored weights, but for those fields."""

    def make(kind: str, **fields) -> AvsrForConditionalGeneration:
        return load_published_weights(avsr(f"{kind}_state_dict").tensors, stored_config(kind, **fields))

    return make

"""Tiny random models of every kind, and a few clips for them."""

import numpy as np
import pytest
import torch

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration

CROP = 16  # pixels
BASIC = {"layer_type": "basic", "stem_channels": 4, "hidden_sizes": (4, 8), "depths": (1, 1), "crop_size": CROP}
BOTTLENECK = BASIC | {"layer_type": "bottleneck", "hidden_sizes": (8, 16)}
SPECTROGRAM = {"front_end": "spectrogram", "num_mel_bins": 8, "n_fft": 400}
SMALL = {
    "hidden_size": 16,
    "encoder_layers": 1,
    "fusion_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "head_hidden_sizes": (16, 12),
    "audio_config": SPECTROGRAM,
    "visual_config": BASIC,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}


def speech_encoder(norm: str) -> dict:
    """A tiny wav2vec 2.0 with the strides of the real one and a `"layer"` or `"group"` norm in its convolutions."""
    encoder = {
        "model_type": "wav2vec2",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": (8,) * 7,
        "conv_bias": norm == "layer",
        "num_conv_pos_embeddings": 7,  # with 8, oneDNN computes so narrow a grouped convolution wrongly in bfloat16
        "num_conv_pos_embedding_groups": 2,
        "feat_extract_norm": norm,
        "do_stable_layer_norm": norm == "layer",
        "mask_time_prob": 0.0,
        "layerdrop": 0.0,
        **dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0),
    }
    return {"front_end": "wav2vec2", "encoder_config": encoder}


RESNET = {"front_end": "resnet", "stem_channels": 4, "hidden_sizes": (4, 4, 8, 8), "depths": (1, 1, 1, 1)}
ESPNET = {"norm_first": True, "scale_embeddings": True, "layer_norm_eps": 1e-12, "head_hidden_sizes": ()}
VARIANTS = {
    "spectrogram": {},
    "wav2vec2-layer": {"audio_config": speech_encoder("layer"), "visual_config": BOTTLENECK},
    "wav2vec2-group": {"audio_config": speech_encoder("group")},
    "audio": {"modality": "audio"},
    "visual": {"modality": "visual", "visual_config": BOTTLENECK},
    "grid": {
        "norm_first": True,
        "conv_kernel_size": 3,
        "ctc_upsampling": 2,
        "head_hidden_sizes": (),
        "visual_config": BASIC | {"stem_pool": False, "downsample_in_first_stage": True, "pooling": "flatten"},
    },
    "reference": {"audio_config": speech_encoder("layer"), "min_frames": 12},
    "usr2": {
        "audio_config": RESNET,
        "visual_config": BASIC | {"activation": "silu"},
        "fusion": "projection",
        "modality_heads": True,
        "position_type": "relative",
        "layer_scale": 0.5,
        **ESPNET,
    },
    "conformer": {
        "modality": "visual",
        "fusion": "projection",
        "encoder_layers": 2,
        "encoder_layer_type": "conformer",
        "conformer_kernel_size": 5,
        "position_type": "legacy_relative",
        **ESPNET,
    },
}


def build_config(variant: str = "spectrogram", **fields) -> AvsrConfig:
    make = AvsrConfig.reference if variant == "reference" else AvsrConfig
    return make(**{**SMALL, **VARIANTS[variant], **fields})


def build_model(variant: str = "spectrogram", attention: str = "sdpa", **fields) -> AvsrForConditionalGeneration:
    """In evaluation mode. The output layers are scaled up, so that no two texts are nearly equally good."""
    torch.manual_seed(0)
    config = build_config(variant, **fields)
    model = AvsrForConditionalGeneration._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for head in (model.ctc_head, model.decoder_head):
            for one in getattr(head, "heads", {"": head}).values():
                one.output.weight.mul_(5)
    return model


def build_clips(modality: str = "audiovisual") -> list[tuple[np.ndarray | None, np.ndarray | None]]:
    """Pairs of sound `(samples,)` and lips `(frames, size, size)`: four lengths; two lack one of them."""
    generator = np.random.default_rng(0)
    sizes = [(6400, 10), (3950, 6), (None, 13), (4700, None)]
    if modality == "audio":
        sizes = [(samples or 8000, None) for samples, _ in sizes]
    elif modality == "visual":
        sizes = [(None, frames or 3) for _, frames in sizes]
    return [
        (
            None if samples is None else generator.normal(size=samples).astype(np.float32),
            None if frames is None else generator.normal(size=(frames, CROP, CROP)).astype(np.float32),
        )
        for samples, frames in sizes
    ]


def collate(clips, lengths=(5, 2, 7, 1)) -> dict[str, torch.Tensor]:
    """A batch with padding of zeros, as the processor makes it, and labels of the given lengths (EOS included)."""
    inputs = {}
    names = [("input_values", "attention_mask"), ("pixel_values_videos", "video_attention_mask")]
    for place, (values, mask) in enumerate(names):
        present = [clip[place] for clip in clips if clip[place] is not None]
        if not present:
            continue
        longest = max(len(part) for part in present)
        inputs[values] = torch.zeros(len(clips), longest, *present[0].shape[1:])
        inputs[mask] = torch.zeros(len(clips), longest, dtype=torch.long)
        for row, clip in enumerate(clips):
            if clip[place] is not None:
                inputs[values][row, : len(clip[place])] = torch.from_numpy(clip[place])
                inputs[mask][row, : len(clip[place])] = 1
    if "pixel_values_videos" in inputs:
        inputs["pixel_values_videos"] = inputs["pixel_values_videos"][:, :, None]
    generator = torch.Generator().manual_seed(1)
    labels = torch.full((len(clips), max(lengths[: len(clips)])), -100)
    for row, length in enumerate(lengths[: len(clips)]):
        labels[row, :length] = torch.randint(1, 39, (length,), generator=generator)
        labels[row, length - 1] = 39
    return inputs | {"labels": labels}


@pytest.fixture(scope="session")
def make_config():
    return build_config


@pytest.fixture(scope="session")
def make_model():
    return build_model


@pytest.fixture(scope="session")
def make_clips():
    return build_clips


@pytest.fixture(scope="session")
def make_batch():
    return collate


@pytest.fixture(scope="session", params=VARIANTS)
def model(request):
    """One model of each kind; tests leave it as it is."""
    return build_model(request.param)


@pytest.fixture
def batch(model):
    return collate(build_clips(model.config.modality))

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
"""Configuration of the audio-visual speech recogniser (Pan et al., ACL 2022)."""

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, Wav2Vec2Config

AUDIO_FRONT_ENDS = ("wav2vec2", "spectrogram", "resnet")
LENGTH_RULES = ("convolution", "division")
MODALITIES = ("audio", "visual", "audiovisual")
LAYOUTS = ("paper", "reference")
FUSIONS = ("transformer", "projection", "mlp")
ENCODER_LAYERS = ("transformer", "conformer")
POSITIONS = ("absolute", "relative", "legacy_relative")
ACTIVATIONS = ("relu", "silu")
AUDIO_ENCODER_FIELDS = (  # of an audio encoder whose sizes are not the lips'
    "hidden_size",
    "encoder_layers",
    "num_attention_heads",
    "intermediate_size",
    "conformer_kernel_size",
    "position_type",
)
SIZES = ("hidden_size", "num_attention_heads", "intermediate_size", "encoder_layers", "decoder_layers")
USR2_SIZES = {
    "base": (512, 8, 2048, 12, 6),
    "base+": (768, 12, 3072, 12, 6),
    "large": (1024, 16, 4096, 24, 9),
    "huge": (1280, 16, 5120, 32, 9),
}
REFERENCE_MIN_FRAMES = 80  # `reqInpLen` in the published code's scripts
OLD_FIELDS = {  # what configurations held before `layout` took its place -> its value in each of LAYOUTS
    "conv_norm": ("frame", "utterance"),
    "tie_modality_norm": (False, True),
    "centre_padding": (False, True),
    "ctc_target_eos": (False, True),
    "smooth_padding": (False, True),
}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@strict
class AvsrAudioConfig(PreTrainedConfig):
    r"""
    The audio front-end: from a 16 kHz waveform to one vector per feature step.

    Attributes:
        front_end (`str`, *optional*, defaults to `"wav2vec2"`):
            `"wav2vec2"`: a self-supervised encoder of transformers (paper, section 3.1), 20 ms a step.
            `"spectrogram"`: the short-time Fourier transform of the paper's baseline (table 6), 40 ms a step.
            `"resnet"`: a one-dimensional ResNet over the waveform (USR 2.0, auto_avsr), 40 ms a step.
        encoder_config (`dict` or `PreTrainedConfig`, *optional*):
            Of the `"wav2vec2"` front-end: any wav2vec2, HuBERT or WavLM configuration. Defaults to wav2vec 2.0 Large
            (LV-60), the paper's.
        sampling_rate (`int`, *optional*, defaults to 16000): in Hz.
        n_fft (`int`, *optional*, defaults to 640): window of the spectrogram in samples (40 ms).
        hop_length (`int`, *optional*, defaults to 160): step of the spectrogram in samples (10 ms).
        num_mel_bins (`int`, *optional*):
            `None`: `n_fft // 2 + 1` magnitudes, as in the paper's baseline; else the number of log-mel energies.
        stack (`int`, *optional*, defaults to 4): spectrogram frames that make one 40 ms feature step.
        freeze_feature_encoder (`bool`, *optional*, defaults to `True`):
            Whether the convolutions of the `"wav2vec2"` front-end stay as pre-trained (the paper's); `False` trains a
            front-end that starts at random.
        length_rule (`str`, *optional*, defaults to `"convolution"`):
            Which steps of a padded clip count as sound in the `"wav2vec2"` front-end. `"convolution"`: those whose
            windows lie in its sound. `"division"`: the padded length is divided into equal shares, one a step, and
            those count that its sound reaches (fairseq before February 2021, which the published code may have been
            trained with; the result depends on the batch).
        stem_channels (`int`, *optional*, defaults to 64): channels of the `"resnet"` front-end's first convolution.
        hidden_sizes (`tuple`, *optional*, defaults to `(64, 128, 256, 512)`): channels of its four stages.
        depths (`tuple`, *optional*, defaults to `(2, 2, 2, 2)`): its blocks in each stage.
        activation (`str`, *optional*, defaults to `"silu"`): its activation, `"silu"` or `"relu"`.
    """

    model_type = "avsr_audio"
    base_config_key = "audio_config"
    sub_configs = {"encoder_config": AutoConfig}

    front_end: str = "wav2vec2"
    encoder_config: dict | PreTrainedConfig | None = None
    sampling_rate: int = 16000
    n_fft: int = 640
    hop_length: int = 160
    num_mel_bins: int | None = None
    stack: int = 4
    freeze_feature_encoder: bool = True
    length_rule: str = "convolution"
    stem_channels: int = 64
    hidden_sizes: tuple[int, ...] | list[int] = (64, 128, 256, 512)
    depths: tuple[int, ...] | list[int] = (2, 2, 2, 2)
    activation: str = "silu"

    def __post_init__(self, **kwargs: Any):
        _require(
            self.front_end in AUDIO_FRONT_ENDS,
            f"audio_config.front_end must be one of {AUDIO_FRONT_ENDS}, not {self.front_end!r}.",
        )
        _require(
            self.length_rule in LENGTH_RULES,
            f"audio_config.length_rule must be one of {LENGTH_RULES}, not {self.length_rule!r}.",
        )
        _require(
            len(self.depths) == len(self.hidden_sizes) == 4,
            "audio_config.depths and audio_config.hidden_sizes must have four entries each: 40 ms are 4 * 2**3 * 20 "
            "samples.",
        )
        _check_activation("audio_config.activation", self.activation)
        if self.front_end != "wav2vec2":
            self.encoder_config = None
        elif self.encoder_config is None:
            self.encoder_config = wav2vec2_large_config()
        elif isinstance(self.encoder_config, dict):
            fields = dict(self.encoder_config)
            self.encoder_config = CONFIG_MAPPING[fields.pop("model_type", "wav2vec2")](**fields)
        super().__post_init__(**kwargs)

    @property
    def steps_per_frame(self) -> int:
        """Returns the feature steps in one video frame of 40 ms."""
        return 2 if self.front_end == "wav2vec2" else 1

    @property
    def feature_size(self) -> int:
        """Returns the width of one feature step."""
        if isinstance(self.encoder_config, PreTrainedConfig):
            return self.encoder_config.hidden_size
        if self.front_end == "resnet":
            return self.hidden_sizes[-1]
        return self.stack * (self.num_mel_bins or self.n_fft // 2 + 1)


def _check_activation(name: str, value: str) -> None:
    _require(value in ACTIVATIONS, f"{name} must be one of {ACTIVATIONS}, not {value!r}.")


def wav2vec2_large_config() -> Wav2Vec2Config:
    """Returns wav2vec 2.0 Large (LV-60) with the masking that the published code sets for fine-tuning."""
    return Wav2Vec2Config(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        conv_bias=True,
        do_stable_layer_norm=True,
        mask_time_prob=0.5,
        mask_feature_prob=0.25,
        mask_feature_length=64,
        activation_dropout=0.1,
        layerdrop=0.0,
    )


@strict
class AvsrVisualConfig(PreTrainedConfig):
    r"""
    The visual front-end: a 3D-convolution stem and the residual stages of a ResNet (paper, section 3.1 and table 1).

    Attributes:
        stem_channels (`int`, *optional*, defaults to 64): channels of the stem.
        stem_kernel_size (`tuple`, *optional*, defaults to `(5, 7, 7)`): frames, rows, columns; odd.
        stem_pool (`bool`, *optional*, defaults to `True`): whether a 3x3 maximum of stride 2 follows the stem.
        layer_type (`str`, *optional*, defaults to `"bottleneck"`):
            `"basic"` (ResNet-18, in table 5 of the paper) or `"bottleneck"` (ResNet-50, the paper's choice).
        hidden_sizes (`tuple`, *optional*, defaults to `(256, 512, 1024, 2048)`): channels of each stage.
        depths (`tuple`, *optional*, defaults to `(3, 4, 6, 3)`): blocks of each stage.
        downsample_in_first_stage (`bool`, *optional*, defaults to `False`): stride 2 in the first stage (small crops).
        crop_size (`int`, *optional*, defaults to 112): rows and columns of the mouth crop, in pixels.
        pooling (`str`, *optional*, defaults to `"mean"`):
            How the last feature map becomes one vector: its `"mean"` over rows and columns (the paper's), or
            `"flatten"`, which preserves where in the mouth a feature is seen (worth it for narrow networks).
        activation (`str`, *optional*, defaults to `"relu"`): of the ResNet, `"relu"` (the paper's) or `"silu"`.
        stem_activation (`str`, *optional*): that of the stem; None: as `activation`.
    """

    model_type = "avsr_visual"
    base_config_key = "visual_config"

    stem_channels: int = 64
    stem_kernel_size: tuple[int, ...] | list[int] = (5, 7, 7)
    stem_pool: bool = True
    layer_type: str = "bottleneck"
    hidden_sizes: tuple[int, ...] | list[int] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] | list[int] = (3, 4, 6, 3)
    downsample_in_first_stage: bool = False
    crop_size: int = 112
    pooling: str = "mean"
    activation: str = "relu"
    stem_activation: str | None = None

    def __post_init__(self, **kwargs: Any):
        kernel = self.stem_kernel_size
        _require(
            len(kernel) == 3 and all(size % 2 for size in kernel),
            f"visual_config.stem_kernel_size must be three odd numbers, not {kernel}.",
        )
        _require(
            self.layer_type in ("basic", "bottleneck"),
            f"visual_config.layer_type must be 'basic' or 'bottleneck', not {self.layer_type!r}.",
        )
        _require(
            self.pooling in ("mean", "flatten"),
            f"visual_config.pooling must be 'mean' or 'flatten', not {self.pooling!r}.",
        )
        _require(
            len(self.depths) == len(self.hidden_sizes),
            "visual_config.depths and visual_config.hidden_sizes must have the same length.",
        )
        _check_activation("visual_config.activation", self.activation)
        _check_activation("visual_config.stem_activation", self.stem_activation or self.activation)
        super().__post_init__(**kwargs)

    @property
    def feature_size(self) -> int:
        """Returns the width of one frame's vector."""
        if self.pooling == "mean":
            return self.hidden_sizes[-1]
        halvings = 1 + self.stem_pool + self.downsample_in_first_stage + len(self.hidden_sizes) - 1
        side = self.crop_size
        for _ in range(halvings):
            side = (side + 1) // 2
        return self.hidden_sizes[-1] * side * side

    @classmethod
    def resnet18(cls, **kwargs: Any) -> "AvsrVisualConfig":
        """Returns the ResNet-18 front-end that table 5 of the paper starts from; for its ablations."""
        return cls(layer_type="basic", hidden_sizes=(64, 128, 256, 512), depths=(2, 2, 2, 2), **kwargs)


@strict
class AvsrConfig(PreTrainedConfig):
    r"""
    Configuration of [`AvsrModel`], [`AvsrForConditionalGeneration`] and [`AvsrForVideoClassification`].

    The defaults are the full-size audio-visual model of the paper. Where the published code differs from the paper,
    `layout` chooses between them; [`AvsrConfig.reference`] is the configuration of converted weights. The recognisers
    of other authors are presets: [`AvsrConfig.usr2`], [`AvsrConfig.auto_avsr`] and [`AvsrConfig.vsr_ml`].

    Attributes:
        audio_config (`AvsrAudioConfig` or `dict`, *optional*): the audio front-end.
        visual_config (`AvsrVisualConfig` or `dict`, *optional*): the visual front-end.
        modality (`str`, *optional*, defaults to `"audiovisual"`):
            `"audio"` and `"visual"` are the paper's AO and VO models, without fusion; `"audiovisual"` reads a clip by
            its sound, its lips or both.
        layout (`str`, *optional*, defaults to `"paper"`):
            `"paper"`: as the paper describes the model; `"reference"`: as its published code computes it. The
            points in which they differ are properties of this class: `conv_norm`, `tie_modality_norm`,
            `centre_padding`, `ctc_target_eos` and `smooth_padding`, and the defaults of `tie_final_norm` and
            `min_frames`.
        tie_final_norm (`bool`, *optional*, defaults to what `layout` does):
            Whether all encoders and the decoder share one final layer norm. True in the `"reference"` layout, whose
            code hands one object (`tx_norm`) to all of them; repaired copies of that code have a norm each.
        min_frames (`int`, *optional*, defaults to what `layout` does):
            Shorter clips are padded to this number of video frames, also in evaluation. 0 in the `"paper"` layout, 80
            in the `"reference"` layout, whose code takes the number as an argument (`reqInpLen`).
        vocab_size (`int`, *optional*, defaults to 40): characters; 0 is CTC's blank and the padding.
        hidden_size (`int`, *optional*, defaults to 512): width of all Transformers (section 3).
        encoder_layers (`int`, *optional*, defaults to 6): layers of each modality's encoder.
        fusion_layers (`int`, *optional*, defaults to 6): layers after the fusion.
        decoder_layers (`int`, *optional*, defaults to 6): layers of the character decoder.
        num_attention_heads (`int`, *optional*, defaults to 8): divides `hidden_size`.
        intermediate_size (`int`, *optional*, defaults to 2048): width inside the feed-forward layers (ReLU).
        dropout (`float`, *optional*, defaults to 0.1): probability at the end of each attention or feed-forward block.
        attention_dropout (`float`, *optional*, defaults to 0.1): probability of the attention weights.
        activation_dropout (`float`, *optional*, defaults to 0.1): probability inside the feed-forward layers.
        norm_first (`bool`, *optional*, defaults to `False`): layer norm before each block instead of after it.
        conv_kernel_size (`int`, *optional*, defaults to 1):
            Odd width in frames of the second convolution of each Conv1d block (1 in the paper).
        head_hidden_sizes (`tuple`, *optional*, defaults to `(512, 256, 256)`): hidden layers of the two output heads.
        modality_heads (`bool`, *optional*, defaults to `False`):
            Whether sound, lips and both have output heads of their own (USR 2.0).
        fusion (`str`, *optional*, defaults to `"transformer"`):
            How sound and lips meet. `"transformer"`: an encoder for each, then layers over both (the paper's).
            `"projection"`: the features of either or of both, concatenated, are projected to `hidden_size` for one
            encoder (USR 2.0, auto_avsr). `"mlp"`: an encoder for each, then a perceptron over both (VSR-ML); it reads
            sound and lips together only.
        fusion_hidden_size (`int`, *optional*): of the `"mlp"` fusion; defaults to `hidden_size`.
        fusion_norm (`str`, *optional*, defaults to `"batch"`): of the `"mlp"` fusion: `"batch"` or `"layer"`.
        audio_encoder (`dict`, *optional*):
            With the `"mlp"` fusion: fields of this configuration whose values are others in the audio encoder.
        encoder_layer_type (`str`, *optional*, defaults to `"transformer"`): or `"conformer"`, with `norm_first` only.
        conformer_kernel_size (`int`, *optional*, defaults to 31): odd width in frames of a Conformer's convolution.
        position_type (`str`, *optional*, defaults to `"absolute"`):
            Of the encoders: `"absolute"`: sines and cosines are added to the input (the paper's). `"relative"`: each
            attention score has a term for the distance (Transformer-XL). `"legacy_relative"`: the same as older
            versions of ESPnet computed it, a little wrong for later frames.
        layer_scale (`float`, *optional*):
            Initial value of the factors, one a channel, by which encoder layers multiply what they add; None: no
            factors.
        scale_embeddings (`bool`, *optional*, defaults to `False`):
            Whether the inputs of encoder and decoder are multiplied by the root of their width.
        layer_norm_eps (`float`, *optional*, defaults to 1e-5): added to the variance in the layer norms.
        decoder_ffn_dim (`int`, *optional*): `intermediate_size` of the decoder, if it is another one.
        ctc_upsampling (`int`, *optional*, defaults to 1):
            CTC outputs per video frame. 2 lets fast speech fit: some words have more letters than 40 ms frames.
        ctc_loss_weight (`float`, *optional*, defaults to 0.2): lambda of the hybrid loss (section 3.5).
        alignment_loss_weight (`float`, *optional*, defaults to 0.0):
            Weight of the cross entropy of each CTC step, for clips whose letters are aligned (`alignment_labels`):
            shows a new model on little data where to look.
        label_smoothing (`float`, *optional*, defaults to 0.01): of both losses (section 4.2).
        modality_dropout (`float`, *optional*, defaults to 0.0):
            Probability, while training, that a clip with both modalities loses one of them (either, equally likely).
        modality_loss_weights (`dict`, *optional*):
            Instead of dropping at random: weights of the losses of the views `"audio"`, `"visual"` and
            `"audiovisual"`, all computed on the same encodings in each training step.
        classifier_back_end (`str`, *optional*, defaults to `"conv"`):
            Of [`AvsrForVideoClassification`]: `"conv"` (published code), `"tcn"` or `"transformer"`, which table 5 of
            the paper compares.
        classifier_hidden_size (`int`, *optional*, defaults to 1024): channels of the `"conv"` and `"tcn"` back-ends.
        num_frames (`int`, *optional*, defaults to 29):
            Pictures that transformers' task `video-classification` takes from the start of a video (LRW clips have 29,
            25 per second).
        initializer_range (`float`, *optional*, defaults to 0.02): standard deviation of a new embedding.
        pad_token_id (`int`, *optional*, defaults to 0): CTC's blank, which pads texts as well.
        bos_token_id (`int`, *optional*, defaults to 39): the start of a text.
        eos_token_id (`int`, *optional*, defaults to 39): the end of a text.
        decoder_start_token_id (`int`, *optional*, defaults to 39): what the decoder reads first.
    """

    model_type = "avsr"
    keys_to_ignore_at_inference = ["cache"]
    sub_configs = {"audio_config": AvsrAudioConfig, "visual_config": AvsrVisualConfig}
    attribute_map = {"num_hidden_layers": "decoder_layers"}

    audio_config: dict | PreTrainedConfig | None = None
    visual_config: dict | PreTrainedConfig | None = None
    modality: str = "audiovisual"
    layout: str = "paper"
    tie_final_norm: bool | None = None
    min_frames: int | None = None
    vocab_size: int = 40
    hidden_size: int = 512
    encoder_layers: int = 6
    fusion_layers: int = 6
    decoder_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    activation_dropout: float | int = 0.1
    norm_first: bool = False
    conv_kernel_size: int = 1
    head_hidden_sizes: tuple[int, ...] | list[int] = (512, 256, 256)
    modality_heads: bool = False
    fusion: str = "transformer"
    fusion_hidden_size: int | None = None
    fusion_norm: str = "batch"
    audio_encoder: dict | None = None
    encoder_layer_type: str = "transformer"
    conformer_kernel_size: int = 31
    position_type: str = "absolute"
    layer_scale: float | int | None = None
    scale_embeddings: bool = False
    layer_norm_eps: float = 1e-5
    decoder_ffn_dim: int | None = None
    ctc_upsampling: int = 1
    ctc_loss_weight: float | int = 0.2
    alignment_loss_weight: float | int = 0.0
    label_smoothing: float | int = 0.01
    modality_dropout: float | int = 0.0
    modality_loss_weights: dict | None = None
    classifier_back_end: str = "conv"
    classifier_hidden_size: int = 1024
    num_frames: int = 29
    initializer_range: float | int = 0.02
    pad_token_id: int = 0
    bos_token_id: int = 39
    eos_token_id: int = 39
    decoder_start_token_id: int = 39
    is_encoder_decoder: bool = True
    use_cache: bool = True
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any):
        if not isinstance(self.audio_config, PreTrainedConfig):
            self.audio_config = AvsrAudioConfig(**(self.audio_config or {}))
        if not isinstance(self.visual_config, PreTrainedConfig):
            self.visual_config = AvsrVisualConfig(**(self.visual_config or {}))
        _require(self.modality in MODALITIES, f"modality must be one of {MODALITIES}, not {self.modality!r}.")
        _require(self.layout in LAYOUTS, f"layout must be one of {LAYOUTS}, not {self.layout!r}.")
        self._read_old_fields(kwargs)
        if self.tie_final_norm is None:
            self.tie_final_norm = self.layout == "reference"
        if self.min_frames is None:
            self.min_frames = REFERENCE_MIN_FRAMES if self.layout == "reference" else 0
        _require(
            self.hidden_size % self.num_attention_heads == 0,
            f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
            f"({self.num_attention_heads}).",
        )
        _require(self.conv_kernel_size % 2 == 1, f"conv_kernel_size must be odd, not {self.conv_kernel_size}.")
        _require(self.ctc_upsampling >= 1, f"ctc_upsampling must be at least 1, not {self.ctc_upsampling}.")
        _require(
            self.classifier_back_end in ("conv", "tcn", "transformer"),
            f"classifier_back_end must be 'conv', 'tcn' or 'transformer', not {self.classifier_back_end!r}.",
        )
        for name in ("ctc_loss_weight", "label_smoothing", "modality_dropout"):
            _require(0 <= getattr(self, name) <= 1, f"{name} must be in [0, 1], not {getattr(self, name)}.")
        _require(
            set(self.modality_loss_weights or {}) <= set(MODALITIES),
            f"modality_loss_weights may name {MODALITIES}, not {list(self.modality_loss_weights or {})}.",
        )
        self._check_parts()
        if not __name__.startswith("transformers_modules."):
            # A published checkpoint names the file of its pipeline. Where lookhear is imported its own pipeline is
            # registered, and transformers would ask for trust_remote_code if it saw the name.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    def _check_parts(self) -> None:
        """Raises a ValueError for parts that don't exist or don't fit together."""
        kinds = {
            "fusion": FUSIONS,
            "encoder_layer_type": ENCODER_LAYERS,
            "position_type": POSITIONS,
            "fusion_norm": ("batch", "layer"),
        }
        for name, known in kinds.items():
            _require(getattr(self, name) in known, f"{name} must be one of {known}, not {getattr(self, name)!r}.")
        fusion, conformer = self.fusion, self.encoder_layer_type == "conformer"
        _require(not conformer or self.norm_first, "norm_first must be True with encoder_layer_type='conformer'.")
        _require(
            not conformer or self.layer_scale is None, "layer_scale is for encoder_layer_type='transformer' only."
        )
        _require(self.conformer_kernel_size % 2 == 1, "conformer_kernel_size must be odd.")
        _require(
            fusion == "transformer" or self.modality == "visual" or self.audio.steps_per_frame == 1,
            f"audio_config.front_end must be 'resnet' or 'spectrogram' with fusion={fusion!r}: one vector a frame.",
        )
        _require(fusion == "transformer" or not self.min_frames, f"min_frames must be 0 with fusion={fusion!r}.")
        _require(
            fusion != "mlp" or self.modality == "audiovisual",
            "modality must be 'audiovisual' with fusion='mlp'; one modality alone is fusion='projection'.",
        )
        _require(
            not self.modality_heads or (fusion == "projection" and self.modality == "audiovisual"),
            "modality_heads needs fusion='projection' and modality='audiovisual'.",
        )
        unknown = sorted(set(self.audio_encoder or {}) - set(AUDIO_ENCODER_FIELDS))
        _require(not unknown, f"audio_encoder may have {', '.join(AUDIO_ENCODER_FIELDS)}, not {', '.join(unknown)}.")

    def _read_old_fields(self, fields: dict[str, Any]) -> None:
        """Takes out of `fields` what configurations held before `layout` took its place, and sets `layout`."""
        flags = {name: fields.pop(name) for name in OLD_FIELDS if name in fields}
        if flags == {name: reference for name, (_, reference) in OLD_FIELDS.items()}:
            self.layout = "reference"
        place = LAYOUTS.index(self.layout)
        others = [name for name, value in flags.items() if value != OLD_FIELDS[name][place]]
        _require(
            not others,
            f"{', '.join(others)}: set together by layout='paper' or layout='reference' now; leave them out and pass "
            "that.",
        )
        activation = fields.pop("activation_function", "relu")
        _require(
            activation == "relu", f"activation_function must be 'relu', the paper's, not {activation!r}: drop it."
        )

    @property
    def audio(self) -> AvsrAudioConfig:
        """Returns `audio_config`, which is no `dict` any more."""
        if not isinstance(self.audio_config, AvsrAudioConfig):
            raise TypeError(f"audio_config must be an AvsrAudioConfig, not {type(self.audio_config).__name__}.")
        return self.audio_config

    @property
    def visual(self) -> AvsrVisualConfig:
        """Returns `visual_config`, which is no `dict` any more."""
        if not isinstance(self.visual_config, AvsrVisualConfig):
            raise TypeError(f"visual_config must be an AvsrVisualConfig, not {type(self.visual_config).__name__}.")
        return self.visual_config

    @property
    def conv_norm(self) -> str:
        """
        Returns what the parameter-free norm in the Conv1d blocks and the CTC head takes its statistics over.

        `"frame"`: the channels of one frame. `"utterance"` (reference): all valid frames and channels together, as
        `MaskedLayerNorm` in the published code.
        """
        return "utterance" if self.layout == "reference" else "frame"

    @property
    def tie_modality_norm(self) -> bool:
        """
        Returns whether both modalities share one layer norm before the fusion.

        True in the reference layout, as `ModalityNormalization` in the published code; the paper has one each.
        """
        return self.layout == "reference"

    @property
    def centre_padding(self) -> bool:
        """
        Returns whether the shorter modality is stretched by repeating its first and last vectors.

        True in the reference layout, as `makePadding` in the published code; else its missing frames are empty.
        """
        return self.layout == "reference"

    @property
    def ctc_target_eos(self) -> bool:
        """Returns whether CTC learns a final EOS label, as in the published code (reference layout)."""
        return self.layout == "reference"

    @property
    def smooth_padding(self) -> bool:
        """
        Returns whether label smoothing counts padding.

        True in the reference layout, as in the published code; CTC's term is also a sum over steps there, not a mean.
        """
        return self.layout == "reference"

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Raises a ValueError: transformers' task `automatic-speech-recognition` reads this only to cut long sound."""
        raise ValueError(
            "`chunk_length_s`: automatic-speech-recognition would repeat words where its pieces overlap; use the task "
            'audio-visual-speech-recognition with modality="audio", which reads sound of any length.'
        )

    @classmethod
    def reference(cls, **kwargs: Any) -> "AvsrConfig":
        """Returns a configuration of the published code's behaviour wherever it differs from the paper."""
        return cls(**{"layout": "reference", **kwargs})

    def for_audio_encoder(self) -> "AvsrConfig":
        """Returns the configuration of the audio encoder: this one with the values in `audio_encoder`."""
        if not self.audio_encoder:
            return self
        config = copy.deepcopy(self)
        for name, value in self.audio_encoder.items():
            setattr(config, name, value)
        config.audio_encoder = None
        return config

    @classmethod
    def _espnet(cls, vocab_size: int, **kwargs: Any) -> "AvsrConfig":
        """Returns what USR 2.0, auto_avsr and VSR-ML have in common, the modules being ESPnet's."""
        end = vocab_size - 1
        common = {
            "audio_config": {"front_end": "resnet"},
            "visual_config": AvsrVisualConfig.resnet18(activation="silu", crop_size=88),
            "vocab_size": vocab_size,
            "bos_token_id": end,
            "eos_token_id": end,
            "decoder_start_token_id": end,
            "norm_first": True,
            "head_hidden_sizes": (),
            "fusion": "projection",
            "position_type": "relative",
            "scale_embeddings": True,
            "layer_norm_eps": 1e-12,
            "ctc_loss_weight": 0.1,
            "label_smoothing": 0.1,
        }
        return cls(**{**common, **kwargs})

    @classmethod
    def usr2(cls, size: str = "base", **kwargs: Any) -> "AvsrConfig":
        """
        Returns the configuration of USR 2.0 (Haliassos et al.), one model for sound, lips and both.

        Args:
            size: `"base"` (86 million parameters), `"base+"` (171), `"large"` (503) or `"huge"` (945).
            kwargs: fields with other values.

        Raises:
            ValueError: the size is unknown.
        """
        _require(size in USR2_SIZES, f"size must be one of {tuple(USR2_SIZES)}, not {size!r}.")
        sizes = dict(zip(SIZES, USR2_SIZES[size]))
        return cls._espnet(**{"vocab_size": 1049, "layer_scale": 0.1, "modality_heads": True, **sizes, **kwargs})

    @classmethod
    def auto_avsr(cls, modality: str = "visual", **kwargs: Any) -> "AvsrConfig":
        """
        Returns the configuration of auto_avsr's recognisers (Ma et al., 2023), a Conformer over sound or lips.

        Args:
            modality: `"audio"` or `"visual"`.
            kwargs: fields with other values.

        Raises:
            ValueError: another modality.
        """
        _require(modality in ("audio", "visual"), f"modality must be 'audio' or 'visual', not {modality!r}.")
        fields = {"vocab_size": 5049, "modality": modality, "encoder_layer_type": "conformer"}
        return cls._espnet(**{**fields, **dict(zip(SIZES, (768, 12, 3072, 12, 6))), **kwargs})

    @classmethod
    def vsr_ml(cls, model_json: Mapping[str, Any] | list | str | os.PathLike[str], **kwargs: Any) -> "AvsrConfig":
        """
        Returns the configuration of a recogniser of "Visual Speech Recognition for Multiple Languages" (VSR-ML).

        Args:
            model_json: its `model.json`: the file, its content, or the dictionary in it.
            kwargs: fields with other values, such as `vocab_size`, where the file has no `char_list`.

        Raises:
            ValueError: a field is missing, or asks for a part that this model doesn't have.
        """
        fields = read_model_json(model_json)
        layer = _of_model_json(fields, "transformer_input_layer", ("conv3d", "conv1d"))
        share = _of_model_json(fields, "mtlalpha")
        _require(0 < share < 1, f"model.json: mtlalpha must be between 0 and 1, for CTC and a decoder, not {share}.")
        activation = _vsr_ml_activation(fields, "")
        found: dict[str, Any] = {
            "modality": "visual" if layer == "conv3d" else "audio",
            "audio_config": {"front_end": "resnet", "activation": activation},
            "visual_config": AvsrVisualConfig.resnet18(activation=activation, stem_activation="silu", crop_size=88),
            "vocab_size": len(fields.get("char_list") or ()) or 5049,
            "encoder_layer_type": "conformer",
            "decoder_layers": _of_model_json(fields, "dlayers"),
            "decoder_ffn_dim": _of_model_json(fields, "dunits"),
            **_vsr_ml_stream(fields, ""),
        }
        if "aux_adim" in fields:
            norm = _of_model_json(fields, "fusion_norm", ("batchnorm", "layernorm"))
            found |= {
                "modality": "audiovisual",
                "audio_config": {"front_end": "resnet", "activation": _vsr_ml_activation(fields, "aux_")},
                "fusion": "mlp",
                "fusion_hidden_size": _of_model_json(fields, "fusion_hdim"),
                "fusion_norm": norm.removesuffix("norm"),
                "audio_encoder": _vsr_ml_stream(fields, "aux_"),
            }
        return cls._espnet(**{**found, **kwargs})


def read_model_json(source: Mapping[str, Any] | list | str | os.PathLike[str]) -> dict[str, Any]:
    """
    Reads the `model.json` of a recogniser of VSR-ML.

    Args:
        source: the file, its content (a list whose third entry counts, or that entry), or the dictionary in it.

    Raises:
        ValueError: it is no such file.
    """
    content: Any = source
    if isinstance(source, (str, os.PathLike)):
        try:
            content = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"model.json: {source} cannot be read as JSON ({error}).") from None
    if isinstance(content, list) and len(content) > 2:
        content = content[2]
    if not isinstance(content, Mapping) or "adim" not in content:
        raise ValueError("model.json: this is not the model.json of a VSR-ML recogniser: it has no field adim.")
    return dict(content)


def _of_model_json(fields: Mapping[str, Any], name: str, known: tuple[Any, ...] = ()) -> Any:
    """Returns a field of a `model.json`, one of those `known` if they are given."""
    value = fields.get(name)
    _require(value is not None, f"model.json: the field {name} is missing.")
    _require(not known or value in known, f"model.json: {name} must be one of {known}, not {value!r}.")
    return value


def _vsr_ml_activation(fields: Mapping[str, Any], prefix: str) -> str:
    """Returns the activation of a ResNet front-end, called swish or relu in a `model.json`."""
    name = f"{prefix}relu_type"
    return {"swish": "silu"}.get(kind := _of_model_json({name: "swish", **fields}, name, ("swish", "relu")), kind)


def _vsr_ml_stream(fields: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns the fields of one encoder, whose names in a `model.json` begin with `prefix`."""
    wanted = {"macaron_style": True, "use_cnn_module": True, "a_upsample_ratio": 1, "zero_triu": False}
    for name, value in wanted.items():
        _of_model_json(
            {f"{prefix}a_upsample_ratio": 1, f"{prefix}zero_triu": False, **fields}, prefix + name, (value,)
        )
    kinds = {
        # without a field rel_pos_type, the code of that time computed the legacy kind
        "rel_mha": "relative" if fields.get("rel_pos_type") is not None else "legacy_relative",
        "legacy_rel_mha": "legacy_relative",
        "mha": "absolute",
    }
    kind = _of_model_json(fields, f"{prefix}transformer_encoder_attn_layer_type", tuple(kinds))
    return {
        "hidden_size": _of_model_json(fields, f"{prefix}adim"),
        "num_attention_heads": _of_model_json(fields, f"{prefix}aheads"),
        "intermediate_size": _of_model_json(fields, f"{prefix}eunits"),
        "encoder_layers": _of_model_json(fields, f"{prefix}elayers"),
        "conformer_kernel_size": _of_model_json(fields, f"{prefix}cnn_module_kernel"),
        "position_type": kinds[kind],
    }


__all__ = ["AvsrAudioConfig", "AvsrConfig", "AvsrVisualConfig"]

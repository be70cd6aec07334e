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

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, Wav2Vec2Config

AUDIO_FRONT_ENDS = ("wav2vec2", "spectrogram")
LENGTH_RULES = ("convolution", "division")
MODALITIES = ("audio", "visual", "audiovisual")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@strict
class AvsrAudioConfig(PreTrainedConfig):
    r"""
    The audio front-end: from a 16 kHz waveform to one vector per feature step.

    Args:
        front_end (`str`, *optional*, defaults to `"wav2vec2"`):
            `"wav2vec2"`: a self-supervised encoder of transformers (paper, section 3.1), 20 ms a step.
            `"spectrogram"`: the short-time Fourier transform of the paper's baseline (table 6), 40 ms a step.
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
            Whether the convolutions of the `"wav2vec2"` front-end stay as pre-trained (the paper's).
        length_rule (`str`, *optional*, defaults to `"convolution"`):
            How many steps of a padded clip are its own in the `"wav2vec2"` front-end: those whose windows lie in its
            sound, or, `"division"`, those whose equal share of the batch's longest sound it reaches (fairseq before
            February 2021, which the published code may have been trained with; depends on the batch).
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

    def __post_init__(self, **kwargs):
        _require(
            self.front_end in AUDIO_FRONT_ENDS,
            f"audio_config.front_end must be one of {AUDIO_FRONT_ENDS}, not {self.front_end!r}.",
        )
        _require(
            self.length_rule in LENGTH_RULES,
            f"audio_config.length_rule must be one of {LENGTH_RULES}, not {self.length_rule!r}.",
        )
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
        """Feature steps in one video frame of 40 ms."""
        return 2 if self.front_end == "wav2vec2" else 1

    @property
    def feature_size(self) -> int:
        """Width of one feature step."""
        if self.front_end == "wav2vec2":
            return self.encoder_config.hidden_size
        return self.stack * (self.num_mel_bins or self.n_fft // 2 + 1)


def wav2vec2_large_config() -> Wav2Vec2Config:
    """wav2vec 2.0 Large (LV-60) with the paper's masking while fine-tuning (spec of the reference code, section 2)."""
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

    Args:
        stem_channels (`int`, *optional*, defaults to 64): channels of the stem.
        stem_kernel_size (`tuple`, *optional*, defaults to `(5, 7, 7)`): frames, rows, columns; odd.
        stem_pool (`bool`, *optional*, defaults to `True`): whether a 3x3 maximum of stride 2 follows the stem.
        layer_type (`str`, *optional*, defaults to `"bottleneck"`): `"basic"` (ResNet-18) or `"bottleneck"` (ResNet-50).
        hidden_sizes (`tuple`, *optional*, defaults to `(256, 512, 1024, 2048)`): channels of each stage.
        depths (`tuple`, *optional*, defaults to `(3, 4, 6, 3)`): blocks of each stage.
        downsample_in_first_stage (`bool`, *optional*, defaults to `False`): stride 2 in the first stage (small crops).
        crop_size (`int`, *optional*, defaults to 112): rows and columns of the mouth crop, in pixels.
        pooling (`str`, *optional*, defaults to `"mean"`):
            How the last feature map becomes one vector: `"mean"` over places (the paper's), or `"flatten"`, which
            keeps where in the mouth something is seen (worth it for narrow networks).
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

    def __post_init__(self, **kwargs):
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
            "visual_config.depths and visual_config.hidden_sizes must be of one length.",
        )
        super().__post_init__(**kwargs)

    @property
    def feature_size(self) -> int:
        """Width of one frame's vector."""
        if self.pooling == "mean":
            return self.hidden_sizes[-1]
        halvings = 1 + self.stem_pool + self.downsample_in_first_stage + len(self.hidden_sizes) - 1
        side = self.crop_size
        for _ in range(halvings):
            side = (side + 1) // 2
        return self.hidden_sizes[-1] * side * side

    @classmethod
    def resnet18(cls, **kwargs) -> "AvsrVisualConfig":
        """Returns the ResNet-18 front-end that table 5 of the paper starts from."""
        return cls(layer_type="basic", hidden_sizes=(64, 128, 256, 512), depths=(2, 2, 2, 2), **kwargs)


@strict
class AvsrConfig(PreTrainedConfig):
    r"""
    Configuration of [`AvsrModel`], [`AvsrForConditionalGeneration`] and [`AvsrForVideoClassification`].

    The defaults are the full-size audio-visual model of the paper. Where the paper's published code differs from the
    paper, a field says so and [`AvsrConfig.reference`] sets all of them to the code's behaviour.

    Args:
        audio_config (`AvsrAudioConfig` or `dict`, *optional*): the audio front-end.
        visual_config (`AvsrVisualConfig` or `dict`, *optional*): the visual front-end.
        modality (`str`, *optional*, defaults to `"audiovisual"`):
            `"audio"` and `"visual"` are the paper's AO and VO models, without fusion; `"audiovisual"` reads a clip by
            its sound, its lips or both.
        vocab_size (`int`, *optional*, defaults to 40): characters; 0 is CTC's blank and the padding.
        hidden_size, encoder_layers, fusion_layers, decoder_layers, num_attention_heads, intermediate_size (`int`):
            Sizes of the Transformers: one encoder per modality, one after the fusion, one decoder (section 3).
        dropout, attention_dropout, activation_dropout (`float`): probabilities.
        activation_function (`str`, *optional*, defaults to `"relu"`): of the feed-forward layers.
        norm_first (`bool`, *optional*, defaults to `False`): layer norm before each block instead of after it.
        conv_kernel_size (`int`, *optional*, defaults to 1):
            Odd width in frames of the second convolution of each Conv1d block (1 in the paper).
        head_hidden_sizes (`tuple`, *optional*, defaults to `(512, 256, 256)`): hidden layers of the two output heads.
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
        conv_norm (`str`, *optional*, defaults to `"frame"`):
            Parameter-free norm in the Conv1d blocks and the CTC head: `"frame"` over channels; `"utterance"` over
            time and channels together (the published code).
        tie_final_norm (`bool`, *optional*, defaults to `False`):
            One final layer norm for all encoders and the decoder (the published code shares the object).
        tie_modality_norm (`bool`, *optional*, defaults to `False`):
            One layer norm for both modalities before fusion (the published code; the paper has one each).
        centre_padding (`bool`, *optional*, defaults to `False`):
            Stretch the shorter modality by repeating its first and last vectors (the published code) instead of
            leaving its missing frames empty.
        min_frames (`int`, *optional*, defaults to 0): shorter clips are padded to it, also in evaluation (code: 80).
        ctc_target_eos (`bool`, *optional*, defaults to `False`): CTC learns a final EOS label (the published code).
        smooth_padding (`bool`, *optional*, defaults to `False`):
            Label smoothing counts padding, and CTC's is a sum over steps, not a mean (the published code).
        num_beams, ctc_weight: see [`AvsrForConditionalGeneration.generate`].
        classifier_back_end (`str`, *optional*, defaults to `"conv"`):
            Of [`AvsrForVideoClassification`]: `"conv"` (published code), `"tcn"` or `"transformer"` (table 5).
        classifier_hidden_size (`int`, *optional*, defaults to 1024): channels of the `"conv"` and `"tcn"` back-ends.
        num_frames (`int`, *optional*, defaults to 29):
            Pictures that transformers' task `video-classification` takes from the start of a video (LRW: 29, 25 a second).
        initializer_range (`float`, *optional*, defaults to 0.02): of the embedding.
    """

    model_type = "avsr"
    keys_to_ignore_at_inference = ["cache"]
    sub_configs = {"audio_config": AvsrAudioConfig, "visual_config": AvsrVisualConfig}
    attribute_map = {"num_hidden_layers": "decoder_layers"}

    audio_config: dict | PreTrainedConfig | None = None
    visual_config: dict | PreTrainedConfig | None = None
    modality: str = "audiovisual"
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
    activation_function: str = "relu"
    norm_first: bool = False
    conv_kernel_size: int = 1
    head_hidden_sizes: tuple[int, ...] | list[int] = (512, 256, 256)
    ctc_upsampling: int = 1
    ctc_loss_weight: float | int = 0.2
    alignment_loss_weight: float | int = 0.0
    label_smoothing: float | int = 0.01
    modality_dropout: float | int = 0.0
    modality_loss_weights: dict | None = None
    conv_norm: str = "frame"
    tie_final_norm: bool = False
    tie_modality_norm: bool = False
    centre_padding: bool = False
    min_frames: int = 0
    ctc_target_eos: bool = False
    smooth_padding: bool = False
    classifier_back_end: str = "conv"
    classifier_hidden_size: int = 1024
    num_frames: int = 29
    initializer_range: float | int = 0.02
    pad_token_id: int | None = 0
    bos_token_id: int | None = 39
    eos_token_id: int | list[int] | None = 39
    decoder_start_token_id: int | None = 39
    is_encoder_decoder: bool = True
    use_cache: bool = True
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if not isinstance(self.audio_config, PreTrainedConfig):
            self.audio_config = AvsrAudioConfig(**(self.audio_config or {}))
        if not isinstance(self.visual_config, PreTrainedConfig):
            self.visual_config = AvsrVisualConfig(**(self.visual_config or {}))
        _require(self.modality in MODALITIES, f"modality must be one of {MODALITIES}, not {self.modality!r}.")
        _require(
            self.hidden_size % self.num_attention_heads == 0,
            f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads ({self.num_attention_heads}).",
        )
        _require(self.conv_kernel_size % 2 == 1, f"conv_kernel_size must be odd, not {self.conv_kernel_size}.")
        _require(self.ctc_upsampling >= 1, f"ctc_upsampling must be at least 1, not {self.ctc_upsampling}.")
        _require(
            self.conv_norm in ("frame", "utterance"), f"conv_norm must be 'frame' or 'utterance': {self.conv_norm}."
        )
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
        if not __name__.startswith("transformers_modules."):
            # A published checkpoint names the file of its pipeline. Where lookhear is imported its own pipeline is
            # registered, and transformers would ask for trust_remote_code if it saw the name.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Refuses what transformers' task `automatic-speech-recognition` reads this for: its way to cut long sound."""
        raise ValueError(
            "`chunk_length_s`: automatic-speech-recognition would repeat words where its pieces overlap; use the task "
            'audio-visual-speech-recognition with modality="audio", which reads sound of any length.'
        )

    @classmethod
    def reference(cls, **kwargs) -> "AvsrConfig":
        """The published code's behaviour in every point where it differs from the paper; for converted weights."""
        fields = {
            "conv_norm": "utterance",
            "tie_final_norm": True,
            "tie_modality_norm": True,
            "centre_padding": True,
            "min_frames": 80,
            "ctc_target_eos": True,
            "smooth_padding": True,
        }
        return cls(**{**fields, **kwargs})


__all__ = ["AvsrAudioConfig", "AvsrConfig", "AvsrVisualConfig"]

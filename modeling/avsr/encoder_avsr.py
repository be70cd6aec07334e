"""The encoder: front-ends, a Transformer for each modality, and their fusion (paper, sections 3.1 to 3.3)."""

import math
from dataclasses import dataclass
from os import PathLike
from typing import TypeVar

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.audio_utils import mel_filter_bank
from transformers.modeling_outputs import BaseModelOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple

from .configuration_avsr import AvsrAudioConfig, AvsrConfig, AvsrVisualConfig
from .layers_avsr import AvsrAttention, AvsrConvBlock, AvsrEncoderLayer, select_steps, sinusoidal_positions
from .transformers_seam_avsr import OutputRecorder, capture_outputs, create_bidirectional_mask, initialization

WORD_CLASSIFIER = "AvsrForVideoClassification"
Count = TypeVar("Count", int, torch.Tensor)
Padding = tuple[torch.Tensor, torch.Tensor]  # steps that a clip is to have and how many are put in front, `(batch,)`
FLOOR = 1e-3  # power of a spectrogram's cell, the wave having unit variance: about 40 dB below white noise
REDUCTION = 4  # of channels inside a bottleneck


class AvsrWaveformFrontEnd(nn.Module):
    """A self-supervised speech encoder of transformers (wav2vec 2.0, HuBERT, WavLM): a vector every 20 ms."""

    def __init__(self, config: AvsrAudioConfig):
        super().__init__()
        if not isinstance(config.encoder_config, PreTrainedConfig):
            raise ValueError("audio_config.encoder_config is None: set front_end='wav2vec2'.")
        self.encoder = AutoModel.from_config(config.encoder_config)
        self.is_frozen = config.freeze_feature_encoder
        if self.is_frozen:
            self.encoder.feature_extractor.requires_grad_(False)
        self.shares_statistics = config.encoder_config.feat_extract_norm == "group"
        self.by_division = config.length_rule == "division"

    def train(self, mode: bool = True) -> "AvsrWaveformFrontEnd":
        """Leaves frozen convolutions in evaluation mode: while training they compute the waveform's gradient."""
        super().train(mode)
        if self.is_frozen:
            self.encoder.feature_extractor.eval()
        return self

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes features `(batch, steps, size)` and lengths in steps `(batch,)` of samples `(batch, samples)`."""
        samples = attention_mask.sum(dim=1)
        lengths = self._count_windows(samples).clamp(min=0)
        steps = self._count_windows(input_values.shape[1])
        if self.shares_statistics and input_values.shape[0] > 1:
            return self._one_by_one(input_values, samples, steps), lengths
        if self.by_division and not self.shares_statistics:
            share = input_values.shape[1] // steps  # samples of a step
            lengths = ((samples + share - 1) // share).clamp(max=steps)
            places = torch.arange(input_values.shape[1], device=samples.device)[None]
            attention_mask = (places < self._window_end(lengths)[:, None]).to(attention_mask.dtype)
        return self.encoder(input_values, attention_mask=attention_mask).last_hidden_state, lengths

    def _count_windows(self, samples: Count) -> Count:
        """Returns the steps whose windows fit into a number of samples; 0 or less if not even one fits."""
        config = self.encoder.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride):
            samples = (samples - kernel) // stride + 1
        return samples

    def _window_end(self, lengths: torch.Tensor) -> torch.Tensor:
        """Returns the samples that a number of steps needs: `(batch,)` -> `(batch,)`."""
        samples, config = lengths, self.encoder.config
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride)):
            samples = (samples - 1) * stride + kernel
        return torch.where(lengths > 0, samples, 0)

    def _one_by_one(self, input_values: torch.Tensor, samples: torch.Tensor, steps: int) -> torch.Tensor:
        """Encodes clip by clip: the `"group"` norm averages over time, so that padding would change the result."""
        rows = []
        for wave, length in zip(input_values, samples.tolist()):
            # 400 samples are the first window; a shorter clip has no step, but the encoder needs one to run
            row = self.encoder(wave[None, : max(length, 400)]).last_hidden_state[0]  # (own steps, size)
            rows.append(nn.functional.pad(row, (0, 0, 0, steps - row.shape[0])))
        return torch.stack(rows)


class AvsrSpectrogramFrontEnd(nn.Module):
    """
    Log spectrogram of 40 ms windows every 10 ms, `stack` of them in a step (the paper's STFT baseline, table 6).

    Each utterance's mean over the steps that are not digitally silent is removed. No parameters.
    """

    def __init__(self, config: AvsrAudioConfig):
        super().__init__()
        self.config = config
        self.window = nn.Buffer(torch.empty(config.n_fft), persistent=False)
        bands = (config.n_fft // 2 + 1, config.num_mel_bins or 0)
        self.filters = nn.Buffer(torch.empty(bands), persistent=False)  # (frequencies, mel bands)
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Fills the window and the mel filters; they are computed, not stored."""
        config = self.config
        with torch.no_grad():
            self.window.copy_(torch.hann_window(config.n_fft))
            if config.num_mel_bins:
                filters = mel_filter_bank(
                    num_frequency_bins=config.n_fft // 2 + 1,
                    num_mel_filters=config.num_mel_bins,
                    min_frequency=20.0,
                    max_frequency=config.sampling_rate / 2,
                    sampling_rate=config.sampling_rate,
                    norm="slaney",
                    mel_scale="slaney",
                )
                self.filters.copy_(torch.from_numpy(filters))

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes features `(batch, steps, size)` and lengths in steps `(batch,)` of samples `(batch, samples)`."""
        config, step = self.config, self.config.hop_length * self.config.stack
        samples = attention_mask.sum(dim=1)
        lengths = (samples + step - 1) // step
        steps = (input_values.shape[1] + step - 1) // step
        wave = input_values.float() * attention_mask.float()
        # centred windows over zeros, so that neither a clip's ends nor its values depend on its batch
        right = steps * step - config.hop_length + config.n_fft // 2 - input_values.shape[1]
        wave = nn.functional.pad(wave, (config.n_fft // 2, max(right, 0)))
        window = self.window.float()
        spectrum = torch.stft(wave, config.n_fft, config.hop_length, window=window, center=False, return_complex=True)
        power = spectrum.abs().square()[..., : steps * config.stack].transpose(1, 2)  # (batch, 4 steps, frequencies)
        if config.num_mel_bins:
            power = power @ self.filters.float()
        features = power.clamp(min=FLOOR).log()
        features = features.unflatten(1, (steps, config.stack)).flatten(2)  # (batch, steps, stack * bands)
        return self._remove_mean(features, lengths).to(input_values.dtype), lengths

    def _remove_mean(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        valid = torch.arange(features.shape[1], device=features.device)[None] < lengths[:, None]  # (batch, steps)
        valid = valid[..., None].to(features.dtype)
        sounding = valid * (features.amax(dim=-1, keepdim=True) > math.log(FLOOR)).to(features.dtype)
        bands = features.unflatten(-1, (self.config.stack, -1))  # (batch, steps, stack, bands)
        mean = (bands.mean(dim=2) * sounding).sum(dim=1) / sounding.sum(dim=1).clamp(min=1)  # (batch, bands)
        return (bands - mean[:, None, None]).flatten(2) * valid / 3.0  # about unit variance


class AvsrConvUnit(nn.Module):
    """Convolution with padding, so that only the stride changes the size; batch norm; ReLU unless `last`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, last: bool = False):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(out_channels)
        self.last = last

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = self.normalization(self.convolution(maps))
        return maps if self.last else nn.functional.relu(maps)


class AvsrResidualBlock(nn.Module):
    """`relu(shortcut(x) + layer(x))` with two convolutions (`"basic"`) or three (`"bottleneck"`)."""

    def __init__(self, kind: str, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        if kind == "basic":
            units = [
                AvsrConvUnit(in_channels, out_channels, 3, stride),
                AvsrConvUnit(out_channels, out_channels, 3, last=True),
            ]
        else:
            inner = out_channels // REDUCTION
            units = [
                AvsrConvUnit(in_channels, inner, 1),
                AvsrConvUnit(inner, inner, 3, stride),
                AvsrConvUnit(inner, out_channels, 1, last=True),
            ]
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else AvsrConvUnit(in_channels, out_channels, 1, stride, last=True)
        self.layer = nn.Sequential(*units)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.layer(maps) + self.shortcut(maps))


class AvsrResidualStage(nn.Module):
    """Residual blocks of one width, the first of which changes the size."""

    def __init__(self, kind: str, in_channels: int, out_channels: int, stride: int, depth: int):
        super().__init__()
        sizes = [(in_channels, stride)] + [(out_channels, 1)] * (depth - 1)
        self.layers = nn.Sequential(*(AvsrResidualBlock(kind, size, out_channels, step) for size, step in sizes))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.layers(maps)


class AvsrResNetStages(nn.Module):
    """
    A ResNet's residual stages.

    `(frames, stem_channels, height, width)` -> `(frames, hidden_sizes[-1], height', width')`. The parameters have the
    names of transformers' ResNet, so that its weights fit.
    """

    def __init__(self, config: AvsrVisualConfig):
        super().__init__()
        widths = (config.stem_channels, *config.hidden_sizes)
        strides = [2 if config.downsample_in_first_stage else 1] + [2] * (len(config.depths) - 1)
        self.stages = nn.ModuleList(
            AvsrResidualStage(config.layer_type, *fields)
            for fields in zip(widths, config.hidden_sizes, strides, config.depths)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            maps = stage(maps)
        return maps


class AvsrVisualFrontEnd(nn.Module):
    """
    3D convolution over five frames, then a ResNet without its first layer on each frame (table 1).

    A 3D convolution of one grey channel is a 2D convolution whose channels are the neighbouring frames, and is
    computed so: faster, and padding costs nothing. ResNet weights (MoCo v2's, torchvision's) fit the residual stages.
    """

    def __init__(self, config: AvsrVisualConfig):
        super().__init__()
        self.config = config
        frames, rows, columns = config.stem_kernel_size
        padding = rows // 2, columns // 2
        self.stem = nn.Conv2d(frames, config.stem_channels, (rows, columns), stride=2, padding=padding, bias=False)
        self.stem_norm = nn.BatchNorm2d(config.stem_channels)
        self.stem_pool = nn.MaxPool2d(3, stride=2, padding=1) if config.stem_pool else nn.Identity()
        self.resnet = AvsrResNetStages(config)

    def forward(self, pixel_values: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        """
        Computes one vector per frame.

        Args:
            pixel_values: `(batch, frames, 1, height, width)`, normalised grey.
            frame_mask: `(batch, frames)` bool.

        Returns:
            `(batch, frames, size)`, zeros at invalid frames.
        """
        video = pixel_values[:, :, 0] * frame_mask[..., None, None].to(pixel_values.dtype)
        reach = self.config.stem_kernel_size[0] // 2
        video = nn.functional.pad(video, (0, 0, 0, 0, reach, reach))
        windows = video.unfold(1, 2 * reach + 1, 1)  # (batch, frames, height, width, neighbours)
        if torch.compiler.is_compiling() and not self.training:  # one graph, as no shape depends on the mask's values
            vectors = self._encode_frames(windows.flatten(0, 1)).unflatten(0, frame_mask.shape)
            return vectors.masked_fill(~frame_mask[..., None], 0.0)
        # padding costs nothing this way, and isn't in the batch norms' statistics
        vectors = self._encode_frames(windows[frame_mask])
        features = vectors.new_zeros(*frame_mask.shape, vectors.shape[-1])
        return features.masked_scatter(frame_mask[..., None], vectors)

    def _encode_frames(self, windows: torch.Tensor) -> torch.Tensor:
        """Computes vectors `(frames, size)` of `(frames, height, width, neighbours)`."""
        frames = windows.movedim(-1, 1)  # (frames, neighbours, height, width), channels last in memory
        maps = self.stem_pool(nn.functional.relu(self.stem_norm(self.stem(frames))))
        maps = self.resnet(maps)  # (frames, channels, height', width')
        return maps.mean(dim=(2, 3)) if self.config.pooling == "mean" else maps.flatten(1)


class AvsrPreTrainedModel(PreTrainedModel):
    """Base class of all AVSR networks: kinds of attention, initialisation, shared layer norms."""

    config: AvsrConfig
    base_model_prefix = "model"
    main_input_name = "input_values"
    input_modalities = ["audio", "video"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["AvsrEncoderLayer", "AvsrDecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """
        Loads a checkpoint; see transformers.

        Raises:
            ValueError: the checkpoint classifies words, so that most of a recogniser's weights would be random.
        """
        config = kwargs.get("config")  # the Auto classes pass it; with it, weights needn't be loaded to refuse them
        cls._refuse_words(config if isinstance(config, AvsrConfig) else None, pretrained_model_name_or_path)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with `output_loading_info=True` a pair
        cls._refuse_words(model.config, pretrained_model_name_or_path)
        return loaded

    @classmethod
    def _refuse_words(cls, config: AvsrConfig | None, name: str | PathLike[str] | None) -> None:
        """Raises a ValueError if the checkpoint `name` is a word classifier and this class isn't."""
        if config is not None and WORD_CLASSIFIER in (config.architectures or []) and cls.__name__ != WORD_CLASSIFIER:
            raise ValueError(
                f"{str(name)!r} classifies words, and {cls.__name__} has other weights: load it with "
                "AutoModelForVideoClassification."
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises as PyTorch and the published code do; speech encoders of transformers initialise themselves."""
        if isinstance(module, AvsrSpectrogramFrontEnd):
            module.reset_buffers()
        elif isinstance(module, nn.Embedding):
            initialization.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            initialization.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                initialization.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            super()._init_weights(module)

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Returns the shared layer norms, which the base class would leave out as word embeddings are not shared."""
        return super().get_expanded_tied_weights_keys(True) if all_submodels else dict(self._tied_weights_keys or {})


def shared_parameters(modules: dict[str, str]) -> dict[str, str]:
    """Turns pairs of layer norms that share their parameters, by name, into pairs of parameters."""
    return {f"{a}.{part}": f"{b}.{part}" for a, b in modules.items() for part in ("weight", "bias")}


@dataclass
class AvsrEncoderOutput(ModelOutput):
    r"""
    Output of [`AvsrEncoder`].

    Attributes:
        last_hidden_state: `(batch, frames, hidden_size)`, 25 vectors per second.
        frame_mask: `(batch, frames)` bool, frames that have sound or lips.
        hidden_states: with `output_hidden_states`, of the fusion or of the only modality: the input of its first
            layer, then each layer's output, the last one after the final norm; each `(batch, frames, hidden_size)`.
        attentions: with `output_attentions`, each of its layers' weights `(batch, heads, frames, frames)`.
        audio_hidden_states: the same of the sound's own layers, if a model of both modalities reads sound.
        audio_attentions: their weights.
        visual_hidden_states: the same of the lips' own layers, if a model of both modalities reads lips.
        visual_attentions: their weights.
    """

    last_hidden_state: torch.Tensor
    frame_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    audio_hidden_states: tuple[torch.Tensor, ...] | None = None
    audio_attentions: tuple[torch.Tensor, ...] | None = None
    visual_hidden_states: tuple[torch.Tensor, ...] | None = None
    visual_attentions: tuple[torch.Tensor, ...] | None = None


def frame_padding(
    config: AvsrConfig, audio_lengths: torch.Tensor | None, video_lengths: torch.Tensor | None
) -> tuple[Padding | None, Padding | None]:
    """
    Computes how many steps each modality of each clip is to have, and how many of them are put in front.

    The paper's layout completes sound to whole frames and leaves each modality its own length; the reference layout
    stretches both to one length. Both have at least `min_frames`.

    Args:
        config: of the model.
        audio_lengths: `(batch,)` int64, steps of sound; None without sound.
        video_lengths: `(batch,)` int64, frames; None without lips.

    Returns:
        One for each modality, None without it.
    """
    per_frame = config.audio.steps_per_frame
    minimum = config.min_frames or 0
    audio = video = None
    if audio_lengths is not None:
        audio = audio_lengths + (-audio_lengths) % per_frame
        audio = torch.where(audio <= per_frame * minimum, audio.clamp(min=per_frame * minimum), audio)
    if video_lengths is not None:
        video = video_lengths.clamp(min=minimum)
    if config.centre_padding and audio_lengths is not None and video_lengths is not None:
        surplus = audio_lengths - per_frame * video_lengths  # steps of sound beyond the video's
        more_frames = ((surplus + per_frame - 1) // per_frame).clamp(min=0)
        video = (video_lengths + more_frames).clamp(min=minimum)
        audio = (audio_lengths + per_frame * more_frames - surplus).clamp(min=per_frame * minimum)
    return _split_padding(config, audio, audio_lengths), _split_padding(config, video, video_lengths)


def _split_padding(config: AvsrConfig, steps: torch.Tensor | None, lengths: torch.Tensor | None) -> Padding | None:
    """Divides what is added to each clip between its start and its end."""
    if steps is None or lengths is None:
        return None
    return steps, (steps - lengths) // 2 if config.centre_padding else torch.zeros_like(steps)


class AvsrTransformer(AvsrPreTrainedModel):
    """Position encoding, encoder layers over the valid frames, and the final norm, which the caller passes."""

    _can_record_outputs = {
        "hidden_states": OutputRecorder(AvsrEncoderLayer, num_hidden_layers_key="encoder_layers"),
        "attentions": AvsrAttention,
    }

    def __init__(self, config: AvsrConfig, num_layers: int):
        super().__init__(config)
        self.layers = nn.ModuleList([AvsrEncoderLayer(config) for _ in range(num_layers)])
        self.post_init()

    @capture_outputs
    def forward(
        self,
        hidden_states: torch.Tensor,
        frame_mask: torch.Tensor,
        norm: nn.LayerNorm,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        # hidden_states (batch, frames, hidden_size), frame_mask (batch, frames) bool
        _, length, size = hidden_states.shape
        positions = sinusoidal_positions(length, size, device=hidden_states.device)
        hidden_states = hidden_states + positions.to(hidden_states.dtype)
        # a sample without this modality attends to its (ignored) padding instead of to nothing, which would be NaN
        keys = frame_mask | ~frame_mask.any(dim=1, keepdim=True)
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=keys
        )
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask, **kwargs)
        return BaseModelOutput(last_hidden_state=norm(hidden_states))


class AvsrFusionTransformer(AvsrTransformer):
    """The layers of the fusion, of which there may be more or fewer than of each modality."""

    _can_record_outputs = {
        "hidden_states": OutputRecorder(AvsrEncoderLayer, num_hidden_layers_key="fusion_layers"),
        "attentions": AvsrAttention,
    }


class AvsrModalityEncoder(nn.Module):
    """A back-end (section 3.2): Conv1d block to 25 Hz and `hidden_size`, then a Transformer."""

    def __init__(self, config: AvsrConfig, feature_size: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv = AvsrConvBlock(config, feature_size, stride)
        self.transformer = AvsrTransformer(config, config.encoder_layers)

    def forward(
        self,
        features: torch.Tensor,
        lengths: torch.Tensor,
        padding: Padding,
        frames: int,
        norm: nn.LayerNorm,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[BaseModelOutput, torch.Tensor]:
        """Encodes features `(batch, steps, size)` as `(batch, frames, hidden_size)`; returns the frame mask, too."""
        steps, left = padding
        features = select_steps(features, lengths, left, frames * self.stride)
        present = torch.where(lengths > 0, steps // self.stride, 0)  # (batch,) frames
        frame_mask = torch.arange(frames, device=features.device)[None] < present[:, None]
        step_mask = frame_mask.repeat_interleave(self.stride, dim=1)
        features = features.masked_fill(~step_mask[..., None], 0.0)
        hidden_states = self.conv(features, frame_mask)
        return self.transformer(hidden_states, frame_mask, norm, return_dict=True, **kwargs), frame_mask


class AvsrFusion(nn.Module):
    """LayerNorm of each modality, concatenation, Conv1d block, Transformer (section 3.3); zeros for no modality."""

    def __init__(self, config: AvsrConfig):
        super().__init__()
        self.audio_norm = nn.LayerNorm(config.hidden_size)
        self.video_norm = nn.LayerNorm(config.hidden_size)  # the same weights with `tie_modality_norm`: AvsrEncoder
        self.conv = AvsrConvBlock(config, 2 * config.hidden_size)
        self.transformer = AvsrFusionTransformer(config, config.fusion_layers)

    def forward(
        self,
        audio: torch.Tensor,
        audio_mask: torch.Tensor,
        video: torch.Tensor,
        video_mask: torch.Tensor,
        norm: nn.LayerNorm,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        # audio, video (batch, frames, hidden_size); masks (batch, frames) bool
        audio = self.audio_norm(audio).masked_fill((video_mask & ~audio_mask)[..., None], 0.0)
        video = self.video_norm(video).masked_fill((audio_mask & ~video_mask)[..., None], 0.0)
        frame_mask = audio_mask | video_mask
        hidden_states = self.conv(torch.cat((audio, video), dim=-1), frame_mask)
        return self.transformer(hidden_states, frame_mask, norm, return_dict=True, **kwargs)


class AvsrEncoder(AvsrPreTrainedModel):
    """Front-ends, back-ends and fusion: from sound and lips to 25 vectors a second."""

    def __init__(self, config: AvsrConfig):
        super().__init__(config)
        audio, visual = config.audio, config.visual
        self.norm = nn.LayerNorm(config.hidden_size)  # the fusion's, or the only modality's
        if config.modality != "visual":
            front_end = AvsrWaveformFrontEnd if audio.front_end == "wav2vec2" else AvsrSpectrogramFrontEnd
            self.audio_front_end = front_end(audio)
            self.audio_encoder = AvsrModalityEncoder(config, audio.feature_size, audio.steps_per_frame)
        if config.modality != "audio":
            self.visual_front_end = AvsrVisualFrontEnd(visual)
            self.visual_encoder = AvsrModalityEncoder(config, visual.feature_size, 1)
        if config.modality == "audiovisual":
            self.audio_norm = nn.LayerNorm(config.hidden_size)
            self.visual_norm = nn.LayerNorm(config.hidden_size)
            self.fusion = AvsrFusion(config)
            shared = {"audio_norm": "norm", "visual_norm": "norm"} if config.tie_final_norm else {}
            if config.tie_modality_norm:
                shared["fusion.video_norm"] = "fusion.audio_norm"
            self._tied_weights_keys = shared_parameters(shared)
        self.post_init()

    def encode_modalities(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> dict[str, tuple[BaseModelOutput, torch.Tensor]]:
        """
        Encodes each modality by its front-end and back-end, without the fusion.

        Args:
            input_values: see `forward`.
            attention_mask: see `forward`.
            pixel_values_videos: see `forward`.
            video_attention_mask: see `forward`.

        Returns:
            Of each present modality, `"audio"` and `"visual"`: the output, whose `last_hidden_state` is `(batch,
            frames, hidden_size)`, and the mask of its valid frames `(batch, frames)` bool. Both have equally many
            frames.
        """
        audio = audio_lengths = video = video_lengths = None
        if input_values is not None:
            if attention_mask is None:
                attention_mask = torch.ones_like(input_values, dtype=torch.long)
            audio, audio_lengths = self.audio_front_end(input_values, attention_mask)
        if pixel_values_videos is not None:
            if video_attention_mask is None:
                video_attention_mask = pixel_values_videos.new_ones(pixel_values_videos.shape[:2])
            video = self.visual_front_end(pixel_values_videos, video_attention_mask.bool())
            video_lengths = video_attention_mask.long().sum(dim=1)
        audio_padding, video_padding = frame_padding(self.config, audio_lengths, video_lengths)
        per_frame = self.config.audio.steps_per_frame
        frames = max(  # of the batch's longest clip, which fills its tensor
            self.config.min_frames or 0,
            0 if audio is None else (audio.shape[1] + per_frame - 1) // per_frame,
            0 if video is None else video.shape[1],
        )
        norms = (self.norm, self.norm)
        if self.config.modality == "audiovisual":
            norms = (self.audio_norm, self.visual_norm)
        encoded = {}
        if audio is not None:
            encoded["audio"] = self.audio_encoder(audio, audio_lengths, audio_padding, frames, norms[0], **kwargs)
        if video is not None:
            encoded["visual"] = self.visual_encoder(video, video_lengths, video_padding, frames, norms[1], **kwargs)
        return encoded

    def _read_encodings(
        self, given: dict[str, tuple[torch.Tensor | None, torch.Tensor | None]]
    ) -> dict[str, tuple[BaseModelOutput, torch.Tensor]]:
        """Returns encodings that were computed before as `encode_modalities` does, in this network's precision."""
        encoded = {}
        for name, (states, mask) in given.items():
            if states is not None and self.config.modality in (name, "audiovisual"):
                valid = torch.ones(states.shape[:2], device=states.device) if mask is None else mask
                states = states.to(self.norm.weight.dtype)
                encoded[name] = BaseModelOutput(last_hidden_state=states), valid.bool()
        return encoded

    def _drop_modalities(
        self, audio_mask: torch.Tensor, video_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes, while training, one modality from some of the clips that have both, either with the same chance."""
        if not self.training or not self.config.modality_dropout:
            return audio_mask, video_mask
        chance = torch.rand(audio_mask.shape[0], 1, device=audio_mask.device)
        both = audio_mask.any(dim=1, keepdim=True) & video_mask.any(dim=1, keepdim=True)
        half = self.config.modality_dropout / 2
        return audio_mask & ~(both & (chance < half)), video_mask & ~(both & (chance > 1 - half))

    def _views(
        self, audio_mask: torch.Tensor, video_mask: torch.Tensor
    ) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """
        Stacks the views' masks along the batch while training with `modality_loss_weights`.

        Returns:
            The views' names, then the masks; no names and the masks as they are without views.
        """
        weights = self.config.modality_loss_weights
        if not self.training or not weights:
            return [], audio_mask, video_mask
        views = list(weights)
        absent = torch.zeros_like(audio_mask)
        audio_masks = [absent if view == "visual" else audio_mask for view in views]
        video_masks = [absent if view == "audio" else video_mask for view in views]
        return views, torch.cat(audio_masks), torch.cat(video_masks)

    def _fuse(
        self, encoded: dict[str, tuple[BaseModelOutput, torch.Tensor]], **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[BaseModelOutput, torch.Tensor]:
        """Fuses both modalities' encodings, or the only one with zeros; returns the output and the frame mask."""
        states: dict[str, tuple[torch.Tensor, torch.Tensor]]
        states = {name: (output["last_hidden_state"], mask) for name, (output, mask) in encoded.items()}
        absent = tuple(torch.zeros_like(tensor) for tensor in next(iter(states.values())))
        audio, audio_mask = states.get("audio", absent)
        video, video_mask = states.get("visual", absent)
        audio_mask, video_mask = self._drop_modalities(audio_mask, video_mask)
        views, audio_mask, video_mask = self._views(audio_mask, video_mask)
        if views:
            audio, video = audio.repeat(len(views), 1, 1), video.repeat(len(views), 1, 1)
        output = self.fusion(audio, audio_mask, video, video_mask, self.norm, **kwargs)
        return output, audio_mask | video_mask

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_attention_mask: torch.Tensor | None = None,
        audio_encodings: torch.Tensor | None = None,
        audio_encoding_mask: torch.Tensor | None = None,
        visual_encodings: torch.Tensor | None = None,
        visual_encoding_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AvsrEncoderOutput:
        r"""
        Encodes clips.

        Args:
            input_values (`torch.Tensor` of shape `(batch, samples)`, *optional*): normalised 16 kHz waveforms.
            attention_mask (`torch.Tensor` of shape `(batch, samples)`, *optional*): 1 for sound; a row of 0: no sound.
            pixel_values_videos (`torch.Tensor` of shape `(batch, frames, 1, height, width)`, *optional*): mouth crops.
            video_attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*):
                1 for frames; a row of 0: no lips.
            audio_encodings (`torch.Tensor` of shape `(batch, frames, hidden_size)`, *optional*):
                What `encode_modalities` computed of the sound before, instead of the first four inputs.
            audio_encoding_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): their valid frames.
            visual_encodings (`torch.Tensor` of shape `(batch, frames, hidden_size)`, *optional*):
                The same of the lips.
            visual_encoding_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): their valid frames.

        Raises:
            ValueError: none of the inputs that the model's `modality` reads is passed, or encodings beside the inputs
                that they are of.
        """
        given = {
            "audio": (audio_encodings, audio_encoding_mask),
            "visual": (visual_encodings, visual_encoding_mask),
        }
        encoded = self._read_encodings(given)
        if encoded and (input_values is not None or pixel_values_videos is not None):
            raise ValueError("Encodings take the place of input_values and pixel_values_videos: leave these out.")
        if self.config.modality == "visual":
            input_values = None
        if self.config.modality == "audio":
            pixel_values_videos = None
        if not encoded and input_values is None and pixel_values_videos is None:
            raise ValueError(
                f"A model of modality={self.config.modality!r} needs "
                + {"audio": "input_values.", "visual": "pixel_values_videos."}.get(
                    self.config.modality, "input_values, pixel_values_videos or both."
                )
            )
        if not encoded:
            encoded = self.encode_modalities(
                input_values, attention_mask, pixel_values_videos, video_attention_mask, **kwargs
            )
        layers: dict[str, tuple[torch.Tensor, ...] | None] = {}
        if self.config.modality == "audiovisual":
            output, frame_mask = self._fuse(encoded, **kwargs)
            for name, (modality, _) in encoded.items():
                layers[f"{name}_hidden_states"] = modality.hidden_states
                layers[f"{name}_attentions"] = modality.attentions
        else:
            output, frame_mask = next(iter(encoded.values()))
        return AvsrEncoderOutput(
            last_hidden_state=output["last_hidden_state"],
            frame_mask=frame_mask,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            **layers,
        )

"""The front-ends: from a waveform or mouth crops to feature vectors (paper, section 3.1)."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig
from transformers.audio_utils import mel_filter_bank

from .configuration_avsr import AvsrAudioConfig, AvsrVisualConfig
from .layers_avsr import masked_batch_norm

Count = TypeVar("Count", int, torch.Tensor)
FLOOR = 1e-3  # power of a spectrogram's cell, the wave having unit variance: about 40 dB below white noise
FRAME_SAMPLES = 640  # of a video frame: 40 ms of sound
REDUCTION = 4  # of channels inside a bottleneck
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": nn.functional.relu,
    "silu": nn.functional.silu,
}


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
    """Convolution with padding, so that only the stride changes the size; batch norm; activation unless None."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        activation: str | None = None,
        dimensions: int = 2,
    ):
        super().__init__()
        convolution, norm = (nn.Conv1d, nn.BatchNorm1d) if dimensions == 1 else (nn.Conv2d, nn.BatchNorm2d)
        self.convolution = convolution(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.normalization = norm(out_channels)
        self.activation = activation
        self.stride = stride

    def forward(self, maps: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        # maps (batch, channels, steps) or (frames, channels, height, width); mask (batch, steps), with steps only
        if mask is None:
            maps = self.normalization(self.convolution(maps))
        else:
            maps = self.convolution(maps * mask[:, None].to(maps.dtype)).transpose(1, 2)
            maps = masked_batch_norm(self.normalization, maps, halved(mask, self.stride)).transpose(1, 2)
        return maps if self.activation is None else ACTIVATIONS[self.activation](maps)


def halved(mask: torch.Tensor | None, stride: int) -> torch.Tensor | None:
    """Returns the mask `(batch, steps)` of what a convolution with that stride gives."""
    return mask if mask is None or stride == 1 else mask[:, ::stride]


class AvsrResidualBlock(nn.Module):
    """`activation(shortcut(x) + layer(x))` with two convolutions (`"basic"`) or three (`"bottleneck"`)."""

    def __init__(
        self,
        kind: str,
        in_channels: int,
        out_channels: int,
        stride: int,
        activation: str = "relu",
        dimensions: int = 2,
    ):
        super().__init__()
        self.activation = ACTIVATIONS[activation]

        def unit(size: int, out: int, kernel: int, stride: int = 1, last: bool = False) -> AvsrConvUnit:
            return AvsrConvUnit(size, out, kernel, stride, None if last else activation, dimensions)

        if kind == "basic":
            units = [unit(in_channels, out_channels, 3, stride), unit(out_channels, out_channels, 3, last=True)]
        else:
            inner = out_channels // REDUCTION
            units = [
                unit(in_channels, inner, 1),
                unit(inner, inner, 3, stride),
                unit(inner, out_channels, 1, last=True),
            ]
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else unit(in_channels, out_channels, 1, stride, last=True)
        self.layer = nn.ModuleList(units)
        self.strides = [one.stride for one in units]

    def forward(self, maps: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        shortcut = maps if isinstance(self.shortcut, nn.Identity) else self.shortcut(maps, mask)
        for unit, stride in zip(self.layer, self.strides):
            maps = unit(maps, mask)
            mask = halved(mask, stride)
        return self.activation(maps + shortcut)


class AvsrResNetStages(nn.Module):
    """
    A ResNet's residual stages, over pictures or over a waveform.

    `(frames, stem_channels, height, width)` -> `(frames, hidden_sizes[-1], height', width')`, or
    `(batch, stem_channels, steps)` -> `(batch, hidden_sizes[-1], steps')`. The parameters have the names of
    transformers' ResNet, so that its weights fit.
    """

    def __init__(self, config: AvsrVisualConfig | AvsrAudioConfig):
        super().__init__()
        pictures = config.model_type == AvsrVisualConfig.model_type  # with code from the Hub, it may be another copy
        kind, halve_first = getattr(config, "layer_type", "basic"), getattr(config, "downsample_in_first_stage", False)
        widths = (config.stem_channels, *config.hidden_sizes)
        self.strides = [2 if halve_first else 1] + [2] * (len(config.depths) - 1)
        self.stages = nn.ModuleList(
            AvsrResidualStage(kind, *fields, config.activation, 2 if pictures else 1)
            for fields in zip(widths, config.hidden_sizes, self.strides, config.depths)
        )

    def forward(self, maps: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        for stage, stride in zip(self.stages, self.strides):
            maps = stage(maps, mask)
            mask = halved(mask, stride)
        return maps


class AvsrResidualStage(nn.Module):
    """Residual blocks of one width, the first of which changes the size."""

    def __init__(
        self,
        kind: str,
        in_channels: int,
        out_channels: int,
        stride: int,
        depth: int,
        activation: str = "relu",
        dimensions: int = 2,
    ):
        super().__init__()
        sizes = [(in_channels, stride)] + [(out_channels, 1)] * (depth - 1)
        self.layers = nn.ModuleList(
            AvsrResidualBlock(kind, size, out_channels, step, activation, dimensions) for size, step in sizes
        )
        self.strides = [step for _, step in sizes]

    def forward(self, maps: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        for block, stride in zip(self.layers, self.strides):
            maps = block(maps, mask)
            mask = halved(mask, stride)
        return maps


class AvsrResNetWaveformFrontEnd(nn.Module):
    """
    A ResNet over the waveform, one vector for 640 samples (USR 2.0, auto_avsr).

    Samples after the last whole frame are left out. Padding is set to zero before each convolution, so that a clip's
    vectors don't depend on its batch.
    """

    def __init__(self, config: AvsrAudioConfig):
        super().__init__()
        self.stem = nn.Conv1d(1, config.stem_channels, 80, stride=4, padding=38, bias=False)
        self.stem_norm = nn.BatchNorm1d(config.stem_channels)
        self.resnet = AvsrResNetStages(config)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes features `(batch, frames, size)` and lengths in frames `(batch,)` of samples `(batch, samples)`."""
        lengths = attention_mask.sum(dim=1) // FRAME_SAMPLES
        frames = max(input_values.shape[1] // FRAME_SAMPLES, 1)
        valid = torch.arange(frames, device=lengths.device)[None] < lengths[:, None]  # (batch, frames)
        missing = frames * FRAME_SAMPLES - input_values.shape[1]  # negative where samples are left out
        wave = nn.functional.pad(input_values, (0, missing))
        wave = wave * valid.repeat_interleave(FRAME_SAMPLES, dim=1).to(wave.dtype)
        steps = valid.repeat_interleave(FRAME_SAMPLES // 4, dim=1)  # (batch, steps of the stem)
        maps = masked_batch_norm(self.stem_norm, self.stem(wave[:, None]).transpose(1, 2), steps).transpose(1, 2)
        maps = self.resnet(self.activation(maps), steps)  # (batch, channels, 20 * frames)
        return maps.unflatten(2, (frames, -1)).mean(dim=3).transpose(1, 2), lengths


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
        self.activation = ACTIVATIONS[config.stem_activation or config.activation]

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
        maps = self.stem_pool(self.activation(self.stem_norm(self.stem(frames))))
        maps = self.resnet(maps)  # (frames, channels, height', width')
        return maps.mean(dim=(2, 3)) if self.config.pooling == "mean" else maps.flatten(1)

"""The front-ends: from a waveform or mouth crops to feature vectors (paper, section 3.1)."""

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_weights
from transformers import AutoModel, PreTrainedConfig, Wav2Vec2BertConfig, WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_avsr import AvsrAudioConfig, AvsrVisualConfig
from .layers_avsr import masked_batch_norm, same_statistics

Count = TypeVar("Count", int, torch.Tensor)
FLOOR = 1e-3  # power of a spectrogram's cell, the wave having unit variance: about 40 dB below white noise
FRAME_SAMPLES = 640  # of a video frame: 40 ms of sound
REDUCTION = 4  # of channels inside a bottleneck
STEP_SAMPLES = 320  # of a speech encoder's vector: 20 ms
WINDOW, HOP = 400, 160  # samples of a log-mel frame and from one to the next
WHISPER_OVERLAP = 100  # steps that two windows of a long clip share: 2 s
STEM_CHANNELS = 8  # a GPU's tensor cores take channels in eights
ACTIVATIONS: dict[str, Callable[..., torch.Tensor]] = {"relu": nn.functional.relu, "silu": nn.functional.silu}


class AvsrWaveformFrontEnd(nn.Module):
    """
    A self-supervised speech encoder of transformers that reads a waveform: a vector every 20 ms.

    wav2vec 2.0, wav2vec 2.0 Conformer, HuBERT, WavLM.
    """

    def __init__(self, config: AvsrAudioConfig):
        super().__init__()
        if not isinstance(config.encoder_config, PreTrainedConfig):
            raise ValueError("audio_config.encoder_config is None: set front_end='wav2vec2'.")
        self.encoder = AutoModel.from_config(config.encoder_config)
        self.is_frozen = config.freeze_feature_encoder
        if self.is_frozen:
            self.encoder.feature_extractor.requires_grad_(False)
        self.shares_statistics = config.encoder_config.feat_extract_norm == "group"
        self.convolves_padding = config.encoder_config.model_type == "wav2vec2-conformer"
        self.by_division = config.length_rule == "division"

    def train(self, mode: bool = True) -> "AvsrWaveformFrontEnd":
        """Leaves frozen convolutions in evaluation mode: while training they compute the waveform's gradient."""
        super().train(mode)
        if self.is_frozen:
            self.encoder.feature_extractor.eval()
        return self

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes features `(batch, steps, size)` and lengths in steps `(batch,)` of samples `(batch, samples)`."""
        missing = max(0, self._window_end(1) - input_values.shape[1])
        input_values = nn.functional.pad(input_values, (0, missing))  # the encoder needs a window to run
        attention_mask = nn.functional.pad(attention_mask, (0, missing))
        samples = attention_mask.sum(dim=1)
        lengths = self._count_windows(samples).clamp(min=0)
        steps = self._count_windows(input_values.shape[1])
        # a group norm averages over time, and a Conformer's convolutions see padding: it would change the result
        if (self.shares_statistics or (self.convolves_padding and not self.training)) and input_values.shape[0] > 1:
            return self._one_by_one(input_values, samples, steps), lengths
        if self.by_division and not self.shares_statistics:
            share = input_values.shape[1] // steps  # samples of a step
            lengths = ((samples + share - 1) // share).clamp(max=steps)
            places = torch.arange(input_values.shape[1], device=samples.device)[None]
            ends = torch.where(lengths > 0, self._window_end(lengths), 0)
            attention_mask = (places < ends[:, None]).to(attention_mask.dtype)
        # a clip without a step attends to its (ignored) padding instead of to nothing, which would be NaN
        attention_mask = attention_mask.masked_fill((lengths == 0)[:, None], 1)
        return self.encoder(input_values, attention_mask=attention_mask).last_hidden_state, lengths

    def _count_windows(self, samples: Count) -> Count:
        """Returns the steps whose windows fit into a number of samples; 0 or less if not even one fits."""
        config = self.encoder.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride):
            samples = (samples - kernel) // stride + 1
        return samples

    def _window_end(self, steps: Count) -> Count:
        """Returns the samples that a number of steps, 1 or more, needs."""
        config = self.encoder.config
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride)):
            steps = (steps - 1) * stride + kernel
        return steps

    def _one_by_one(self, input_values: torch.Tensor, samples: torch.Tensor, steps: int) -> torch.Tensor:
        """Encodes clip by clip, without padding."""
        rows, window = [], self._window_end(1)
        for wave, length in zip(input_values, samples.tolist()):
            # a clip that is shorter than the first window has no step, but the encoder needs one to run
            row = self.encoder(wave[None, : max(length, window)]).last_hidden_state[0]  # (own steps, size)
            rows.append(nn.functional.pad(row, (0, 0, 0, steps - row.shape[0])))
        return torch.stack(rows)


class AvsrWhisperFrontEnd(nn.Module):
    """
    Whisper's encoder: a vector every 20 ms.

    It reads windows of a fixed length, in which silence follows the sound, as it was trained. A longer clip is read in
    windows that overlap; each vector comes from the one in whose middle it is. No clip's vectors depend on its batch.
    """

    def __init__(self, config: AvsrAudioConfig):
        super().__init__()
        if not isinstance(config.encoder_config, WhisperConfig):
            raise ValueError("audio_config.encoder_config must be a WhisperConfig with front_end='whisper'.")
        settings = copy.deepcopy(config.encoder_config)
        settings.decoder_layers, settings.vocab_size, settings.pad_token_id = 0, 1, 0  # only the encoder is needed
        self.encoder = AutoModel.from_config(settings).get_encoder()
        if config.freeze_feature_encoder:
            for convolution in (self.encoder.conv1, self.encoder.conv2):
                convolution.requires_grad_(False)
        self.steps = config.encoder_config.max_source_positions  # of a window
        self.stride = self.steps - min(WHISPER_OVERLAP, self.steps // 4)  # steps from one window to the next
        frequencies = (WINDOW // 2 + 1, config.encoder_config.num_mel_bins)
        self.filters = nn.Buffer(torch.empty(frequencies), persistent=False)  # (frequencies, mel bands)
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Fills the mel filters; they are computed, not stored."""
        frequencies, bands = self.filters.shape
        filters = mel_filter_bank(frequencies, bands, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
        with torch.no_grad():
            self.filters.copy_(torch.from_numpy(filters))

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes features `(batch, steps, size)` and lengths in steps `(batch,)` of samples `(batch, samples)`."""
        lengths = (attention_mask.sum(dim=1) + STEP_SAMPLES - 1) // STEP_SAMPLES
        steps = (input_values.shape[1] + STEP_SAMPLES - 1) // STEP_SAMPLES
        wave = input_values.float() * attention_mask.float()
        windows = 1 + max(0, -((self.steps - steps) // self.stride))  # that the longest clip needs
        samples = STEP_SAMPLES * (self.stride * (windows - 1) + self.steps)
        wave = nn.functional.pad(wave, (0, samples - wave.shape[1]))
        wave = wave.unfold(1, STEP_SAMPLES * self.steps, STEP_SAMPLES * self.stride)  # (batch, windows, samples)
        states = self.encoder(self._log_mel(wave.flatten(0, 1)).to(self.encoder.dtype)).last_hidden_state
        states = states.unflatten(0, (-1, windows)).flatten(1, 2)  # (batch, windows * steps of a window, size)
        if windows > 1:
            states = states.gather(1, self._places(lengths, steps)[..., None].expand(-1, -1, states.shape[-1]))
        return states[:, :steps], lengths

    def _places(self, lengths: torch.Tensor, steps: int) -> torch.Tensor:
        """Returns `(batch, steps)`: where each step's vector is among those of all windows."""
        last = (lengths - self.steps + self.stride - 1).clamp(min=0) // self.stride  # window that each clip needs
        place = torch.arange(steps, device=lengths.device)[None]
        middle = (self.steps - self.stride) // 2  # of what two windows share
        window = torch.minimum((place - middle).clamp(min=0) // self.stride, last[:, None])
        return (window * self.steps + place - window * self.stride).clamp(max=(window + 1) * self.steps - 1)

    def _log_mel(self, wave: torch.Tensor) -> torch.Tensor:
        """Computes Whisper's features `(windows, mel bands, frames)` of `(windows, samples)`."""
        taper = torch.hann_window(WINDOW, device=wave.device)
        spectrum = torch.stft(wave, WINDOW, HOP, window=taper, return_complex=True)
        power = spectrum[..., :-1].abs().square()  # (windows, frequencies, frames)
        energies = (self.filters.float().T @ power).float().clamp(min=1e-10).log10()  # autocast's product is shorter
        energies = torch.maximum(energies, energies.amax(dim=(1, 2), keepdim=True) - 8.0)
        return (energies + 4.0) / 4.0


class AvsrFilterBankFrontEnd(nn.Module):
    """
    w2v-BERT 2.0: a vector every 20 ms, of two frames of Kaldi's log-mel filter bank.

    Each utterance's energies have zero mean and unit variance in each band.
    """

    def __init__(self, config: AvsrAudioConfig):
        super().__init__()
        if not isinstance(config.encoder_config, Wav2Vec2BertConfig):
            raise ValueError(
                "audio_config.encoder_config must be a Wav2Vec2BertConfig with front_end='wav2vec2-bert'."
            )
        self.encoder = AutoModel.from_config(config.encoder_config)
        self.size = 512  # of the Fourier transform
        bands = config.encoder_config.feature_projection_input_dim // 2
        self.window = nn.Buffer(torch.empty(WINDOW), persistent=False)
        self.filters = nn.Buffer(torch.empty(self.size // 2 + 1, bands), persistent=False)
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Fills the window and the mel filters; they are computed, not stored."""
        frequencies, bands = self.filters.shape
        band = (20.0, 8000.0, 16000)  # lowest and highest frequency, sampling rate
        filters = mel_filter_bank(frequencies, bands, *band, mel_scale="kaldi", triangularize_in_mel_space=True)
        with torch.no_grad():
            self.window.copy_(torch.hann_window(WINDOW, periodic=False, dtype=torch.float64).pow(0.85))  # Povey's
            self.filters.copy_(torch.from_numpy(filters))

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes features `(batch, steps, size)` and lengths in steps `(batch,)` of samples `(batch, samples)`."""
        frames = ((attention_mask.sum(dim=1) - WINDOW) // HOP + 1).clamp(min=0)  # (batch,) whole ones
        wave = input_values.float() * attention_mask.float()
        wave = nn.functional.pad(wave, (0, max(0, WINDOW + HOP - wave.shape[1])))  # at least two frames
        energies = self._normalised(self._log_mel(wave), frames)
        steps, lengths = energies.shape[1] // 2, frames // 2
        features = energies[:, : 2 * steps].unflatten(1, (steps, 2)).flatten(2)  # (batch, steps, 2 * bands)
        valid = torch.arange(steps, device=frames.device)[None] < lengths[:, None]
        valid = valid | (lengths == 0)[:, None]  # a clip without a step attends to its padding, which is ignored
        states = self.encoder(features.to(self.encoder.dtype), attention_mask=valid.long()).last_hidden_state
        return states, lengths

    def _log_mel(self, wave: torch.Tensor) -> torch.Tensor:
        """Computes Kaldi's log-mel energies `(batch, frames, bands)` of `(batch, samples)`."""
        cut = 2.0**15 * wave.unfold(1, WINDOW, HOP)  # (batch, frames, samples), scaled as 16-bit integers
        cut = cut - cut.mean(dim=2, keepdim=True)
        before = torch.cat((cut[..., :1], cut[..., :-1]), dim=2)
        spectrum = torch.fft.rfft((cut - 0.97 * before) * self.window.float(), self.size)
        return (spectrum.abs().square() @ self.filters.float()).float().clamp(min=2.0**-23).log()

    def _normalised(self, energies: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Normalises each band over the `frames` `(batch,)` of a clip; zeros after them."""
        valid = (torch.arange(energies.shape[1], device=frames.device)[None] < frames[:, None]).float()[..., None]
        count = frames[:, None, None]
        centred = (energies - (energies * valid).sum(dim=1, keepdim=True) / count.clamp(min=1)) * valid
        variance = centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
        return centred / (variance + 1e-7).sqrt()


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


class AvsrFoldedConvolution(nn.Module):
    """
    A convolution and the batch norm after it as one convolution, channels last: for inference.

    Its numbers are computed from those of the two, and are not part of a checkpoint.

    Args:
        convolution: without a bias.
        norm: of its output.
        channels: of the input, if zeros are appended to it; by default those of `convolution`.
    """

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, channels: int | None = None):
        super().__init__()
        if norm.running_var is None or norm.running_mean is None:
            raise ValueError("a batch norm without running statistics can't be folded into a convolution.")
        with torch.no_grad():
            mean, variance, scale, shift = (
                values.double() for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            )
            folded = fuse_conv_bn_weights(convolution.weight.double(), None, mean, variance, norm.eps, scale, shift)
            weight, bias = (values.detach() for values in folded)
            missing = 0 if channels is None else channels - weight.shape[1]
            weight = nn.functional.pad(weight, (0, 0, 0, 0, 0, missing)).to(convolution.weight.dtype)
            self.weight = nn.Buffer(weight.to(memory_format=torch.channels_last), persistent=False)
            self.bias = nn.Buffer(bias.to(convolution.weight.dtype), persistent=False)
        self.stride, self.padding = convolution.stride, convolution.padding

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(maps, self.weight, self.bias, self.stride, self.padding)


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
        self.folded: AvsrFoldedConvolution | None = None

    def forward(self, maps: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        # maps (batch, channels, steps) or (frames, channels, height, width); mask (batch, steps), with steps only
        if self.folded is not None and not torch.is_grad_enabled():
            maps = self.folded(maps)
            return maps if self.activation is None else ACTIVATIONS[self.activation](maps, inplace=True)
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
        if torch.is_grad_enabled():
            return self.activation(maps + shortcut)
        return self.activation(maps.add_(shortcut), inplace=True)


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
            maps = stage(maps, mask, itertools.count() if stage.gradient_checkpointing else None)
            mask = halved(mask, stride)
        return maps


class AvsrResidualStage(GradientCheckpointingLayer):
    """
    Residual blocks of one width, the first of which changes the size.

    With gradient checkpointing, only its input is stored while training: the stages of an encoder of lips hold most of
    what training stores.
    """

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

    def forward(
        self, maps: torch.Tensor, mask: torch.Tensor | None = None, runs: Iterator[int] | None = None
    ) -> torch.Tensor:
        with contextlib.nullcontext() if runs is None else same_statistics(self, runs):
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

    [`AvsrVisualFrontEnd.prepare_for_inference`] makes it faster still.
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
        self.folded_stem: AvsrFoldedConvolution | None = None
        self.register_load_state_dict_post_hook(forget_folded)

    @torch.inference_mode(False)
    def prepare_for_inference(self) -> None:
        """
        Folds batch norms into the convolutions before them, for calls without gradients.

        On a GPU the stem reads the neighbouring frames as eight channels, three of which are zeros. The parameters
        stay as they are, and so do saved weights. Training and loading of weights end it; call it again after weights
        were changed in another way.
        """
        if self.training or self.stem.weight.is_meta:  # offloaded weights come when they are needed
            return
        for unit in self.resnet.modules():
            if isinstance(unit, AvsrConvUnit):
                convolution, norm = unit.convolution, unit.normalization
                assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)  # of pictures
                unit.folded = AvsrFoldedConvolution(convolution, norm)
        channels = -(-self.stem.in_channels // STEM_CHANNELS) * STEM_CHANNELS if self.stem.weight.is_cuda else None
        self.folded_stem = AvsrFoldedConvolution(self.stem, self.stem_norm, channels)

    def train(self, mode: bool = True) -> "AvsrVisualFrontEnd":
        """Changes between training and evaluation; the former forgets what was prepared for inference."""
        if mode:
            forget_folded(self)
        return super().train(mode)

    @property
    def reach(self) -> int:
        """Frames on each side of a frame that its vector depends on."""
        return self.config.stem_kernel_size[0] // 2

    def forward(
        self,
        pixel_values: torch.Tensor,
        frame_mask: torch.Tensor,
        known: torch.Tensor | None = None,
        known_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Computes one vector per frame.

        Args:
            pixel_values: `(batch, frames, 1, height, width)`, normalised grey.
            frame_mask: `(batch, frames)` bool.
            known: `(batch, frames, size)` vectors that were computed before; only while evaluating.
            known_mask: `(batch, frames)` bool, where they are; `pixel_values` are still needed around the others.

        Returns:
            `(batch, frames, size)`, zeros at invalid frames.
        """
        video = pixel_values[:, :, 0] * frame_mask[..., None, None].to(pixel_values.dtype)
        reach = self.reach
        video = nn.functional.pad(video, (0, 0, 0, 0, reach, reach))
        windows = video.unfold(1, 2 * reach + 1, 1)  # (batch, frames, height, width, neighbours)
        if torch.compiler.is_compiling() and not self.training:  # one graph, as no shape depends on the mask's values
            vectors = self._encode_frames(windows.flatten(0, 1)).unflatten(0, frame_mask.shape)
            return vectors.masked_fill(~frame_mask[..., None], 0.0)
        wanted = frame_mask
        if known is not None and known_mask is not None:
            wanted = frame_mask & ~known_mask
            if not wanted.any():
                return known.masked_fill(~frame_mask[..., None], 0.0)
        # padding costs nothing this way, and isn't in the batch norms' statistics
        vectors = self._encode_frames(windows[wanted])
        features = vectors.new_zeros(*frame_mask.shape, vectors.shape[-1])
        if known is not None:
            features = torch.where(frame_mask[..., None], known, features)
        return features.masked_scatter(wanted[..., None], vectors)

    def _encode_frames(self, windows: torch.Tensor) -> torch.Tensor:
        """Computes vectors `(frames, size)` of `(frames, height, width, neighbours)`."""
        if self.folded_stem is not None and not torch.is_grad_enabled():
            frames = windows.new_zeros(*windows.shape[:3], self.folded_stem.weight.shape[1])
            frames[..., : windows.shape[3]] = windows
            maps = self.activation(self.folded_stem(frames.movedim(-1, 1)), inplace=True)  # channels last in memory
        else:
            frames = windows.movedim(-1, 1)  # (frames, neighbours, height, width)
            maps = self.activation(self.stem_norm(self.stem(frames)))
        maps = self.resnet(self.stem_pool(maps))  # (frames, channels, height', width')
        return maps.mean(dim=(2, 3)) if self.config.pooling == "mean" else maps.flatten(1)


def forget_folded(front_end: AvsrVisualFrontEnd, *loaded: object) -> None:
    """Undoes [`AvsrVisualFrontEnd.prepare_for_inference`]; called after weights were loaded, too."""
    front_end.folded_stem = None
    for unit in front_end.resnet.modules():
        if isinstance(unit, AvsrConvUnit):
            unit.folded = None

"""The residual stages of a ResNet; parameters are named as transformers' own, so that its weights fit."""

import torch
from torch import nn

from .configuration_avsr import AvsrVisualConfig

REDUCTION = 4  # of channels inside a bottleneck


class AvsrConvUnit(nn.Module):
    """Convolution that keeps the size (or halves it, with stride 2) and batch norm, then ReLU unless `last`."""

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
    """All stages, `(frames, stem_channels, height, width)` -> `(frames, hidden_sizes[-1], height', width')`."""

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

"""The three networks that find faces: two detectors and a mesh of 468 points.

Architectures of MediaPipe's BlazeFace (short range and full range) and face mesh networks (Copyright The MediaPipe
Authors, Apache License 2.0); their weights are in `model_cards/face-mesh`, converted by
`training/avsr/convert_face_mesh.py`. Parameters are defined in the order in which the original graphs use them, from
which the conversion reads their names.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

FILE = "model.safetensors"  # in FOLDER, of the package
FOLDER = Path("model_cards", "face-mesh")

MESH_POINTS = 468
MESH_SIDE = 192  # pixels of the square picture that each network sees
SHORT_SIDE = 128
FULL_SIDE = 192


class SameConv(nn.Conv2d):
    """Convolves as TensorFlow's padding "same" does: with a stride of 2 there is more of it right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, groups=groups)
        self.extra = kernel > 1 and stride == 2
        if self.extra:
            self.padding = (0, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `(batch, outputs, height, width)`; sides are even where the stride is 2."""
        if self.extra:
            before, after = (self.kernel_size[0] - 2) // 2, (self.kernel_size[0] - 1) // 2
            x = F.pad(x, (before, after, before, after))
        return super().forward(x)


class _Pointwise(nn.Conv2d):
    """A convolution of 1 x 1, computed as a product of matrices: torch's own is slow for small batches on one core."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `(batch, outputs, height, width)`, the channels last in memory."""
        rows = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return rows.permute(0, 3, 1, 2)


class Block(nn.Module):
    """Adds a depthwise separable convolution to its input, which is pooled and given more channels where needed."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, slope: bool = False):
        super().__init__()
        self.depthwise = SameConv(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise = _Pointwise(inputs, outputs)
        self.activation = nn.PReLU(outputs) if slope else nn.ReLU(inplace=True)
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `(batch, outputs, height / stride, width / stride)`."""
        y = self.pointwise(self.depthwise(x))
        shortcut = F.max_pool2d(x, 2) if self.stride == 2 else x
        if shortcut.shape[1] == y.shape[1]:
            y += shortcut
        else:
            y[:, : shortcut.shape[1]] += shortcut
        return self.activation(y)


class FaceMesh(nn.Module):
    """From a picture of a face to its 468 points, and whether it is a face."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(16, 16)] * 2 + [(16, 32)] + [(32, 32)] * 2 + [(32, 64)] + [(64, 64)] * 2 + [(64, 128)]
        trunk = [Block(a, b, stride=1 + (a != b), slope=True) for a, b in widths]
        deep = [Block(128, 128, stride, slope=True) for stride in (1, 1, 2, 1, 1)]
        self.trunk = nn.Sequential(SameConv(3, 16, 3, 2), nn.PReLU(16), *trunk, *deep)
        self.points = self._head([2, 1, 1], 3 * MESH_POINTS)
        self.face = self._head([2], 1)

    @staticmethod
    def _head(strides: list[int], outputs: int) -> nn.Sequential:
        """Makes what follows the trunk for one of the two outputs."""
        blocks = [Block(128, 128, stride, slope=True) for stride in strides]
        end = [_Pointwise(128, 32), nn.PReLU(32), Block(32, 32, slope=True), nn.Conv2d(32, outputs, 3)]
        return nn.Sequential(*blocks, *end)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds the points.

        Args:
            pictures: `(batch, 3, 192, 192)` float, RGB from 0 to 1.

        Returns:
            `(batch, 468, 3)`, x, y and depth in pixels; and `(batch,)` logits that there is a face.
        """
        x = self.trunk(pictures)
        return self.points(x).reshape(-1, MESH_POINTS, 3), self.face(x).reshape(-1)


class ShortRangeDetector(nn.Module):
    """Finds faces that fill a tenth of the picture's longer side or more."""

    def __init__(self) -> None:
        super().__init__()
        near = [24, 24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88]
        halves = (32, 48)
        blocks = [Block(a, b, stride=1 + (b in halves)) for a, b in zip(near, near[1:])]
        self.near = nn.Sequential(SameConv(3, 24, 5, 2), nn.ReLU(inplace=True), *blocks)
        self.near_boxes = _Pointwise(88, 2 * 16)
        self.far = nn.Sequential(Block(88, 96, 2), *(Block(96, 96) for _ in range(4)))
        self.far_boxes = _Pointwise(96, 6 * 16)
        self.near_scores = _Pointwise(88, 2)
        self.far_scores = _Pointwise(96, 6)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Looks at every place.

        Args:
            pictures: `(batch, 3, 128, 128)` float, RGB from -1 to 1.

        Returns:
            `(batch, 896, 16)`: centre, size and six points of a face, in pixels from the middle of its place; and
            `(batch, 896)` logits that there is one. Places: two to each cell of 8 pixels, six to each of 16.
        """
        near = self.near(pictures)
        far = self.far(near)
        boxes = [_places(self.near_boxes(near), 16), _places(self.far_boxes(far), 16)]
        scores = [_places(self.near_scores(near), 1), _places(self.far_scores(far), 1)]
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)[..., 0]


def _places(x: torch.Tensor, values: int) -> torch.Tensor:
    """Returns (batch, channels, height, width) as (batch, places, values), row by row."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, values)


class _Separable(nn.Sequential):
    """A depthwise convolution and one of 1 x 1."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs)
        super().__init__(depthwise, _Pointwise(inputs, outputs))


class Bottleneck(nn.Module):
    """Adds two separable convolutions with fewer channels between them to its input."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.reduce, self.expand = _Separable(channels, inner), _Separable(inner, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `(batch, channels, height, width)`."""
        return F.relu_(self.expand(F.relu_(self.reduce(x))) + x)


class _Stage(nn.Sequential):
    """Halves the picture, and looks at it in a few bottlenecks."""

    def __init__(self, inputs: int, inner: int, outputs: int, bottlenecks: int):
        halve = [_Separable(inputs, inner, 2), nn.ReLU(inplace=True)]
        widen = [_Separable(inner, outputs), nn.ReLU(inplace=True)]
        super().__init__(*halve, *widen, *(Bottleneck(outputs, inner) for _ in range(bottlenecks)))


class FullRangeDetector(nn.Module):
    """Finds smaller faces: an encoder, and a decoder back to cells of four pixels."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, padding=1), nn.ReLU(inplace=True))
        self.stage_4 = nn.Sequential(stem, Bottleneck(32, 8), Bottleneck(32, 8), _Stage(32, 16, 64, 2))
        self.side_4 = _Pointwise(64, 48)
        self.stage_8 = _Stage(64, 32, 128, 2)
        self.side_8 = _Pointwise(128, 64)
        self.stage_16 = _Stage(128, 48, 192, 2)
        self.side_16 = _Pointwise(192, 96)
        self.stage_32 = _Stage(192, 96, 384, 3)
        self.up_32 = _Pointwise(384, 96)
        self.join_16 = nn.Sequential(Bottleneck(96, 48), Bottleneck(96, 48))
        self.up_16 = _Pointwise(96, 64)
        self.join_8 = nn.Sequential(Bottleneck(64, 32), Bottleneck(64, 32))
        self.up_8 = _Pointwise(64, 48)
        self.join_4 = Bottleneck(48, 24)
        self.boxes = nn.Sequential(_Pointwise(48, 64), nn.Conv2d(64, 64, 3, 2, padding=1, groups=64))
        self.scores = nn.Sequential(_Pointwise(48, 4), nn.Conv2d(4, 4, 3, 2, padding=1, groups=4))

    def encoder(self) -> list[tuple[nn.Module, nn.Module | None]]:
        """Returns the stages, each with what makes of its result that which the decoder adds."""
        sides = [(self.stage_4, self.side_4), (self.stage_8, self.side_8), (self.stage_16, self.side_16)]
        return [*sides, (self.stage_32, None)]

    def decoder(self) -> list[tuple[nn.Module, nn.Module]]:
        """Returns the steps back to a larger picture: before it is doubled, and after the encoder's is added."""
        return [(self.up_32, self.join_16), (self.up_16, self.join_8), (self.up_8, self.join_4)]

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Looks at every place.

        Args:
            pictures: `(batch, 3, 192, 192)` float, RGB from -1 to 1.

        Returns:
            `(batch, 2304, 16)`: centre, size and six points of a face, in pixels from the middle of its cell of four
            pixels; and `(batch, 2304)` logits that there is one.
        """
        x, sides = pictures, []
        for stage, side in self.encoder():
            x = stage(x)
            if side is not None:
                sides.append(F.relu_(side(x)))
        for up, join in self.decoder():
            x = join(sides.pop() + _doubled(F.relu_(up(x))))
        return _unfolded(self.boxes(x)), _unfolded(self.scores(x))[..., 0]


def _doubled(x: torch.Tensor) -> torch.Tensor:
    """Returns a (batch, channels, height, width) map at twice the size."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _unfolded(x: torch.Tensor) -> torch.Tensor:
    """Returns (batch, 4 * values, height, width) as (batch, 4 * height * width, values): a cell's 2 x 2 are places."""
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, 2, 2, channels // 4, height, width)
    return cells.permute(0, 4, 1, 5, 2, 3).reshape(batch, 4 * height * width, channels // 4)


NETWORKS: dict[str, type[nn.Module]] = {"short": ShortRangeDetector, "full": FullRangeDetector, "mesh": FaceMesh}


def weights_path() -> Path:
    """Returns the file with the weights of all three networks.

    Raises:
        ImportError: this code was copied without the package that holds it; the message says what to install.
    """
    spec = importlib.util.find_spec("lookhear")
    packages = [Path(__file__).parents[2], *map(Path, (spec and spec.submodule_search_locations) or [])]
    for package in packages:
        if (package / FOLDER / FILE).is_file():
            return package / FOLDER / FILE
    raise ImportError("Finding faces needs the networks that come with the package: pip install lookhear")


@functools.lru_cache(maxsize=1)
def _load_weights() -> dict[str, torch.Tensor]:
    """Reads the weights of all networks, once per process."""
    return load_file(weights_path())


@functools.lru_cache(maxsize=6)
def load_network(name: str, device: str = "cpu") -> nn.Module:
    """Loads a network in float32, once per process and device.

    Args:
        name: "short", "full" or "mesh".
        device: where it runs.

    Raises:
        ImportError: the weights are missing.
    """
    network = NETWORKS[name]()
    own = {key.removeprefix(f"{name}."): value for key, value in _load_weights().items() if key.startswith(f"{name}.")}
    network.load_state_dict(own)
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)

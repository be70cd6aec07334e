"""The networks that find faces, two detectors and a mesh of 468 points, and the two runtimes that they have.

Architectures of MediaPipe's BlazeFace (short range and full range) and face mesh networks (Copyright The MediaPipe
Authors, Apache License 2.0); their weights are in `model_cards/face-mesh`, converted by
`training/avsr/convert_face_mesh.py`. Parameters are defined in the order in which the original graphs use them, from
which the conversion reads their names.

On a CPU they run in LiteRT where that is installed, which takes a third of torch's time for one picture. LiteRT reads
a file format of its own: a flatbuffer, which is written here from the weights that torch has.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import shutil
import struct
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

FILE = "model.safetensors"  # in FOLDER, of the package
FILES = (FILE, "README.md", "LICENSE", "NOTICE")  # all that travels
FOLDER = Path("model_cards", "face-mesh")
EXPORTED = "face-mesh"  # their folder in a checkpoint

_OFFERED: dict[str, dict[str, Any]] = {}  # checkpoints that may hold them -> arguments of `hf_hub_download`

MESH_POINTS = 468
MESH_SIDE = 192  # pixels of the square picture that each network sees
SHORT_SIDE = 128
FULL_SIDE = 192

# Numbers of LiteRT's schema: operators, the tables of their options, and values in these.
ADD, CONCATENATION, CONV, DEPTHWISE, DEPTH_TO_SPACE, MAX_POOL, RELU, RESHAPE = 0, 2, 3, 4, 5, 17, 19, 22
RESIZE_BILINEAR, PAD, PRELU = 23, 34, 54
OPTIONS = {ADD: 11, CONCATENATION: 10, CONV: 1, DEPTHWISE: 2, DEPTH_TO_SPACE: 94, MAX_POOL: 5, RESIZE_BILINEAR: 15}
SAME, VALID = 0, 1
FLOAT, INT = 0, 2  # types of tensors
VERSION = 3  # of the schema

Outputs = tuple[np.ndarray, np.ndarray]  # of a network for n pictures, each with n rows


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


def offer_weights(checkpoint: str | os.PathLike, **fetching: Any) -> None:
    """
    Names a checkpoint that may hold the weights: code that came with a checkpoint has no package to take them from.

    Args:
        checkpoint: folder or Hub id.
        fetching: arguments of `hf_hub_download`, such as `revision`.
    """
    _OFFERED[os.fspath(checkpoint)] = fetching


def copy_weights(checkpoint: str | os.PathLike) -> None:
    """
    Copies the weights with their card, licence and notice into a checkpoint's folder, for use without the package.

    Args:
        checkpoint: folder, which is created if missing.

    Raises:
        ImportError: the weights are missing here.
    """
    folder = Path(checkpoint, EXPORTED)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        aside = folder / f".{name}.{os.getpid()}"
        shutil.copyfile(weights_path().with_name(name), aside)
        aside.replace(folder / name)


@functools.lru_cache(maxsize=1)
def weights_path() -> Path:
    """Returns the file with the weights of all three networks.

    Raises:
        ImportError: neither the package nor a checkpoint has them; the message says what to install.
    """
    try:
        spec = importlib.util.find_spec("lookhear")
    except ImportError:  # from an import hook that refuses it
        spec = None
    packages = [Path(__file__).parents[2], *map(Path, (spec and spec.submodule_search_locations) or [])]
    folders = [*(package / FOLDER for package in packages), *(Path(name, EXPORTED) for name in _OFFERED)]
    for folder in folders:
        if (folder / FILE).is_file():
            return folder / FILE
    for name, fetching in _OFFERED.items():
        try:
            for file in FILES[1:]:
                hf_hub_download(name, file, subfolder=EXPORTED, **fetching)
            return Path(hf_hub_download(name, FILE, subfolder=EXPORTED, **fetching))
        except (OSError, ValueError):  # not there, not reachable, or a folder's name and no repository's
            continue
    there = f" ({', '.join(_OFFERED)} has none)" if _OFFERED else ""
    raise ImportError(
        f"Finding faces needs {EXPORTED}/{FILE}, which lookhear has and saves with checkpoints{there}: pip install "
        'lookhear, or choose landmarks="dlib"'
    )


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
    network = NETWORKS[name]().to(memory_format=torch.channels_last)
    own = {key.removeprefix(f"{name}."): value for key, value in _load_weights().items() if key.startswith(f"{name}.")}
    network.load_state_dict(own)
    return network.to(device).eval().requires_grad_(False)


# ----------------------------------------------------------------------------------------------------- LiteRT's format

Fields = Mapping[int, Any]  # number of a table's field -> an int, a bool, bytes, a list of ints, a table or tables


def to_flatbuffer(table: Fields) -> bytes:
    """
    Writes a table, and all that it refers to, as a flatbuffer with the identifier of LiteRT's models.

    Args:
        table: field numbers with their values: whole numbers are 32 bits wide, and true or false one byte; bytes
            begin at multiples of 16; lists hold 32-bit numbers or tables.
    """
    out = bytearray(struct.pack("<I4s", 0, b"TFL3"))
    struct.pack_into("<I", out, 0, _write_table(out, table))
    return bytes(out)


def _write_table(out: bytearray, fields: Fields) -> int:
    """Appends a table with what it refers to behind it; returns where it is."""
    count = max(fields, default=-1) + 1
    _align(out, 4, 4 + 2 * count)
    layout = len(out)
    offsets = [0] * count
    for slot, number in enumerate(sorted(fields)):
        offsets[number] = 4 + 4 * slot
    out += struct.pack(f"<{2 + count}H", 4 + 2 * count, 4 + 4 * len(fields), *offsets)
    start = len(out)
    out += struct.pack("<i", start - layout) + bytes(4 * len(fields))
    for number, value in fields.items():
        place = start + offsets[number]
        if isinstance(value, bool | int):
            struct.pack_into("<i", out, place, value)
        else:
            target = _write_table(out, value) if isinstance(value, Mapping) else _write_list(out, value)
            struct.pack_into("<I", out, place, target - place)
    return start


def _write_list(out: bytearray, values: bytes | Sequence[int | Fields]) -> int:
    """Appends bytes, numbers or tables with their count before them; returns where it is."""
    _align(out, 16 if isinstance(values, bytes) else 4, 4)
    start = len(out)
    out += struct.pack("<I", len(values))
    if isinstance(values, bytes):
        out += values
        return start
    places = range(start + 4, start + 4 + 4 * len(values), 4)
    out += bytes(4 * len(values))
    for place, value in zip(places, values):
        number = value if isinstance(value, int) else _write_table(out, value) - place
        struct.pack_into("<i", out, place, number)
    return start


def _align(out: bytearray, to: int, before: int) -> None:
    """Appends zeros, so that what comes `before` bytes later begins at a multiple of `to`."""
    out += bytes(-(len(out) + before) % to)


# ----------------------------------------------------------------------------------------------------------- the graph


class _Graph:
    """Collects tensors and operators; a tensor is its number, and its shape is (1, height, width, channels)."""

    def __init__(self, height: int, width: int):
        self.shapes: list[tuple[int, ...]] = []
        self._tensors: list[Fields] = []
        self._buffers: list[Fields] = [{}]  # the first one is that of all tensors without constant values
        self._codes: list[int] = []
        self._operators: list[Fields] = []
        self.input = self._tensor((1, height, width, 3), FLOAT, 0)

    def _tensor(self, shape: tuple[int, ...], kind: int, buffer: int) -> int:
        self.shapes.append(shape)
        self._tensors.append({0: list(shape), 1: kind, 2: buffer})
        return len(self._tensors) - 1

    def constant(self, values: Any, dtype: type = np.float32) -> int:
        """Adds constant values: an array, a tensor or a list."""
        values = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
        array: np.ndarray = np.ascontiguousarray(values, dtype=dtype)
        self._buffers.append({0: array.tobytes()})
        return self._tensor(array.shape, FLOAT if dtype is np.float32 else INT, len(self._buffers) - 1)

    def add(self, code: int, inputs: list[int], shape: tuple[int, ...], options: Fields | None = None) -> int:
        """Adds an operator; returns its output."""
        if code not in self._codes:
            self._codes.append(code)
        output = self._tensor(shape, FLOAT, 0)
        operator = {0: self._codes.index(code), 1: inputs, 2: [output]}
        if options is not None:
            operator |= {3: OPTIONS[code], 4: options}
        self._operators.append(operator)
        return output

    def model(self, outputs: list[int]) -> bytes:
        """Returns the model's file."""
        codes = [{0: code, 2: 1 if code != RESIZE_BILINEAR else 3, 3: code} for code in self._codes]
        graph = {0: self._tensors, 1: [self.input], 2: outputs, 3: self._operators}
        return to_flatbuffer({0: VERSION, 1: codes, 2: [graph], 4: self._buffers})

    # ------------------------------------------------------------------------------------------------------ operators

    def conv(self, x: int, layer: nn.Conv2d) -> int:
        """Adds a convolution, as `SameConv` or `nn.Conv2d` compute it."""
        _, height, width, _ = self.shapes[x]
        stride, kernel = layer.stride[0], layer.kernel_size[0]
        same = isinstance(layer, SameConv) or (stride == 1 and layer.padding == ((kernel - 1) // 2,) * 2)
        down, right = layer.padding if isinstance(layer.padding, tuple) else (0, 0)
        if not same and (down, right) != (0, 0):
            before = [(0, 0), (down, down), (right, right), (0, 0)]
            height, width = height + 2 * down, width + 2 * right
            x = self.add(PAD, [x, self.constant(before, np.int32)], (1, height, width, self.shapes[x][3]))
        lost = 0 if same else kernel - 1
        shape = (1, -(-(height - lost) // stride), -(-(width - lost) // stride), layer.out_channels)
        assert layer.bias is not None
        depthwise = layer.groups > 1
        weight = layer.weight.permute(1, 2, 3, 0) if depthwise else layer.weight.permute(0, 2, 3, 1)
        inputs = [x, self.constant(weight), self.constant(layer.bias)]
        options: Fields = {0: SAME if same else VALID, 1: stride, 2: stride}
        return self.add(DEPTHWISE if depthwise else CONV, inputs, shape, {**options, 3: 1} if depthwise else options)

    def plus(self, first: int, second: int) -> int:
        """Adds a sum; of the first one there may be fewer channels."""
        shape = self.shapes[second]
        missing = shape[3] - self.shapes[first][3]
        if missing:
            channels = self.constant([(0, 0), (0, 0), (0, 0), (0, missing)], np.int32)
            first = self.add(PAD, [first, channels], shape)
        return self.add(ADD, [first, second], shape, {})

    def doubled(self, x: int) -> int:
        """Adds a picture of twice the size."""
        _, height, width, channels = self.shapes[x]
        size = self.constant([2 * height, 2 * width], np.int32)
        return self.add(RESIZE_BILINEAR, [x, size], (1, 2 * height, 2 * width, channels), {3: True})

    def reshaped(self, x: int, shape: tuple[int, ...]) -> int:
        """Adds the same numbers in another shape."""
        return self.add(RESHAPE, [x, self.constant(shape, np.int32)], shape)

    def joined(self, parts: list[int]) -> int:
        """Adds the rows of several tensors (1, rows, values), one after the other."""
        shapes = [self.shapes[part] for part in parts]
        whole = (1, sum(shape[1] for shape in shapes), shapes[0][2])
        return self.add(CONCATENATION, parts, whole, {0: 1})

    def run(self, layer: nn.Module, x: int) -> int:
        """Adds a layer, or several."""
        if isinstance(layer, nn.Sequential):
            for part in layer:
                x = self.run(part, x)
            return x
        if isinstance(layer, nn.Conv2d):
            return self.conv(x, layer)
        if isinstance(layer, nn.PReLU):
            return self.add(PRELU, [x, self.constant(layer.weight[None, None])], self.shapes[x])
        if isinstance(layer, nn.ReLU):
            return self.add(RELU, [x], self.shapes[x])
        if isinstance(layer, Block):
            y = self.conv(self.conv(x, layer.depthwise), layer.pointwise)
            if layer.stride == 2:
                _, height, width, channels = self.shapes[x]
                pool = {0: VALID, 1: 2, 2: 2, 3: 2, 4: 2}
                x = self.add(MAX_POOL, [x], (1, height // 2, width // 2, channels), pool)
            return self.run(layer.activation, self.plus(x, y))
        if isinstance(layer, Bottleneck):
            y = self.run(layer.expand, self.relu(self.run(layer.reduce, x)))
            return self.relu(self.plus(x, y))
        raise TypeError(f"a layer of type {type(layer).__name__} is not known")

    def relu(self, x: int) -> int:
        """Adds a rectifier."""
        return self.add(RELU, [x], self.shapes[x])


def litert_model(network: nn.Module, height: int, width: int) -> bytes:
    """
    Returns a network as a LiteRT model of one picture `(1, height, width, 3)`; outputs are those of the network.

    Args:
        network: one of `NETWORKS`.
        height: of the picture it sees, in pixels.
        width: of this picture.
    """
    graph = _Graph(height, width)
    if isinstance(network, FaceMesh):
        x = graph.run(network.trunk, graph.input)
        return graph.model([graph.run(network.points, x), graph.run(network.face, x)])
    if isinstance(network, ShortRangeDetector):
        near = graph.run(network.near, graph.input)
        far = graph.run(network.far, near)

        def places(layer: nn.Module, x: int, values: int) -> int:
            y = graph.run(layer, x)
            return graph.reshaped(y, (1, int(np.prod(graph.shapes[y])) // values, values))

        boxes = [places(network.near_boxes, near, 16), places(network.far_boxes, far, 16)]
        scores = [places(network.near_scores, near, 1), places(network.far_scores, far, 1)]
        return graph.model([graph.joined(boxes), graph.joined(scores)])
    if not isinstance(network, FullRangeDetector):
        raise TypeError(f"a network of type {type(network).__name__} is not known")
    sides = []
    x = graph.input
    for stage, side_layer in network.encoder():
        x = graph.run(stage, x)
        if side_layer is not None:
            sides.append(graph.relu(graph.run(side_layer, x)))
    for up, join in network.decoder():
        x = graph.run(join, graph.plus(sides.pop(), graph.doubled(graph.relu(graph.run(up, x)))))
    outputs = []
    for layer, values in ((network.boxes, 16), (network.scores, 1)):
        y = graph.run(layer, x)
        _, height, width, _ = graph.shapes[y]
        y = graph.add(DEPTH_TO_SPACE, [y], (1, 2 * height, 2 * width, values), {0: 2})
        outputs.append(graph.reshaped(y, (1, 4 * height * width, values)))
    return graph.model(outputs)


# --------------------------------------------------------------------------------------------------------- the runtime


@functools.lru_cache(maxsize=1)
def has_litert() -> bool:
    """Returns whether LiteRT is installed."""
    return importlib.util.find_spec("ai_edge_litert") is not None


class LiteRtNetwork:
    """
    Runs a network in LiteRT, on one thread; several threads may call it, and wait for each other.

    Args:
        name: see `load_network`.
        height: of the picture it sees, in pixels.
        width: of this picture.
    """

    def __init__(self, name: str, height: int, width: int):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise ImportError("LiteRT is missing: pip install lookhear[face]") from None
        self._content = litert_model(load_network(name), height, width)  # the interpreter does not hold it
        self._interpreter = Interpreter(model_content=self._content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
        self._lock = threading.Lock()

    def __call__(self, pictures: Sequence[np.ndarray], scale: float = 1.0, shift: float = 0.0) -> Outputs:
        """Returns both outputs, each with n rows, for n pictures `(height, width, 3)` times `scale` plus `shift`."""
        rows: list[list[np.ndarray]] = [[], []]
        with self._lock:
            for picture in pictures:
                values = self._interpreter.tensor(self._input)()[0]  # the network's own memory
                np.multiply(picture, np.float32(scale), out=values)
                values += np.float32(shift)
                del values  # as long as somebody holds it, the network does not run
                self._interpreter.invoke()
                for row, output in zip(rows, self._outputs):
                    row.append(self._interpreter.get_tensor(output)[0])
        return np.stack(rows[0]), np.stack(rows[1])


@functools.lru_cache(maxsize=16)
def load_litert(name: str, height: int, width: int) -> LiteRtNetwork:
    """Makes a network for LiteRT, once per process and size; see `LiteRtNetwork`."""
    return LiteRtNetwork(name, height, width)


# ------------------------------------------------------------------------------------------------------------ pictures


SIDES = {"short": SHORT_SIDE, "full": FULL_SIDE, "mesh": MESH_SIDE}
CELLS = {"short": ((8, 2), (16, 6)), "full": ((4, 1),)}  # pixels of a detector's cells, and places in each
BLOCK = {"short": 16, "full": 32}  # pixels of which a detector's picture has a whole number
SPARE = 4  # a picture's pixels to one of the network's, of which more are left out before it is reduced


@functools.lru_cache(maxsize=16)
def centres_of(network: str, height: int, width: int) -> np.ndarray:
    """Returns the `(places, 2)` centres of a detector's places, in pixels of the picture it sees, row by row."""
    found = []
    for cell, places in CELLS[network]:
        y, x = np.meshgrid(*((np.arange(length // cell) + 0.5) * cell for length in (height, width)), indexing="ij")
        found.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), places, axis=0))
    return np.concatenate(found).astype(np.float32)


def run_network(network: str, pictures: Sequence[np.ndarray], device: str, lowest: float) -> Outputs:
    """
    Runs a network: on a CPU in LiteRT where that is installed, else in torch.

    Args:
        network: `"short"`, `"full"` or `"mesh"`.
        pictures: n `(height, width, 3)` of one size, uint8 or float32, from 0 to 255.
        device: where it runs.
        lowest: what the network sees in place of black; white is 1.

    Returns:
        Both outputs, `(n, places, values)` and `(n, places)` float32; see the networks.
    """
    if device == "cpu" and has_litert():
        first, second = load_litert(network, *pictures[0].shape[:2])(pictures, (1 - lowest) / 255, lowest)
        return first.reshape(len(pictures), -1, first.shape[-1]), second.reshape(len(pictures), -1)
    with torch.inference_mode():
        values = torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).float()
        values = values.mul_((1 - lowest) / 255).add_(lowest)
        first, second = load_network(network, device)(values)
    return first.cpu().numpy(), second.reshape(len(pictures), -1).cpu().numpy()


def detect_faces(
    network: str, parts: Sequence[np.ndarray], threshold: float, device: str = "cpu"
) -> list[tuple[np.ndarray, np.ndarray]]:
    """
    Looks for faces in pictures or parts of them, all of them in one call of the network.

    Args:
        network: `"short"` or `"full"`.
        parts: `(height, width, 3)` uint8, or all of them as the network sees them: float32 from 0 to 255, of one size.
        threshold: lowest score, from 0 to 1.
        device: where the network runs.

    Returns:
        For each part, in its own pixels, the places that see a face, mostly several of one face: `(n, 8, 2)`, centre,
        size and six points (eyes, nose, mouth, ears), x and y; and `(n,)` scores from 0 to 1.
    """
    pictures, scales = _letterboxed(parts, network)
    places = centres_of(network, *pictures.shape[1:3])
    boxes, logits = run_network(network, list(pictures), device, lowest=-1.0)
    lowest = math.log(threshold / (1 - threshold))
    found = []
    for values, logit, scale in zip(boxes, logits, scales):
        likely = np.flatnonzero(logit >= lowest)
        points = values[likely].reshape(-1, 8, 2)
        points[:, [0, 2, 3, 4, 5, 6, 7]] += places[likely, None] - 0.5 * scale  # all but the size, number 1
        found.append((points / scale, 1 / (1 + np.exp(-logit[likely]))))
    return found


def _letterboxed(parts: Sequence[np.ndarray], network: str) -> tuple[np.ndarray, list[float]]:
    """Returns pictures as a detector sees them, (n, height, width, 3), and its pixels to one of each part.

    Each part is in the top left corner of a picture that has black right of it and below, where a square would have
    more: up to the next whole block, half a block at least where the square has it.
    """
    side, block = SIDES[network], BLOCK[network]
    if parts[0].dtype == np.float32:
        return np.stack(parts), [1.0] * len(parts)
    scales = [side / max(part.shape[:2]) for part in parts]
    sizes = [[max(1, round(length * scale)) for length in part.shape[:2]] for part, scale in zip(parts, scales)]
    height, width = (min(side, -(-(max(lengths) + block // 2) // block) * block) for lengths in zip(*sizes))
    pictures = np.zeros((len(parts), height, width, 3), np.uint8)
    for picture, part, scale, (rows, columns) in zip(pictures, parts, scales, sizes):
        picture[:rows, :columns] = _resized(part, rows, columns, max(1, int(1 / scale / SPARE)))
    return pictures, scales


def _resized(part: np.ndarray, height: int, width: int, step: int) -> np.ndarray:
    """Returns a picture (rows, columns, 3) at another size, made from one in `step` of its rows and columns."""
    if part.shape[:2] == (height, width):
        return part
    pixels = part[::step, ::step] if step > 1 else part
    writable = pixels if pixels.flags.writeable and pixels.flags.c_contiguous else pixels.copy()
    planes = torch.from_numpy(writable).permute(2, 0, 1)[None]
    return F.interpolate(planes, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()

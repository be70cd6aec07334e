"""The networks of `face_networks_avsr` in LiteRT, which runs one picture at a time several times as fast as torch.

LiteRT reads its own file format: a flatbuffer, which is written here from the weights that torch has. It is optional:
`pip install lookhear[face]`.
"""

from __future__ import annotations

import functools
import importlib.util
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .face_networks_avsr import (
    Block,
    Bottleneck,
    FaceMesh,
    FullRangeDetector,
    SameConv,
    ShortRangeDetector,
    load_network,
)

# Numbers of LiteRT's schema: operators, the tables of their options, and values in these.
ADD, CONCATENATION, CONV, DEPTHWISE, DEPTH_TO_SPACE, MAX_POOL, RELU, RESHAPE = 0, 2, 3, 4, 5, 17, 19, 22
RESIZE_BILINEAR, PAD, PRELU = 23, 34, 54
OPTIONS = {ADD: 11, CONCATENATION: 10, CONV: 1, DEPTHWISE: 2, DEPTH_TO_SPACE: 94, MAX_POOL: 5, RESIZE_BILINEAR: 15}
SAME, VALID = 0, 1
FLOAT, INT = 0, 2  # types of tensors
VERSION = 3  # of the schema

# --------------------------------------------------------------------------------------------------- the file's format

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


def _write_list(out: bytearray, values: bytes | Sequence[int] | Sequence[Fields]) -> int:
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
        number = _write_table(out, value) - place if isinstance(value, Mapping) else int(value)
        struct.pack_into("<i", out, place, number)
    return start


def _align(out: bytearray, to: int, before: int) -> None:
    """Appends zeros, so that what comes `before` bytes later begins at a multiple of `to`."""
    out += bytes(-(len(out) + before) % to)


# ----------------------------------------------------------------------------------------------------------- the graph


class _Graph:
    """Collects tensors and operators; a tensor is its number, and its shape is (1, height, width, channels)."""

    def __init__(self, side: int):
        self.shapes: list[tuple[int, ...]] = []
        self._tensors: list[Fields] = []
        self._buffers: list[Fields] = [{}]  # the first one is that of all tensors without constant values
        self._codes: list[int] = []
        self._operators: list[Fields] = []
        self.input = self._tensor((1, side, side, 3), FLOAT, 0)

    def _tensor(self, shape: tuple[int, ...], kind: int, buffer: int) -> int:
        self.shapes.append(shape)
        self._tensors.append({0: list(shape), 1: kind, 2: buffer})
        return len(self._tensors) - 1

    def constant(self, values: Any, dtype: type = np.float32) -> int:
        """Adds constant values: an array, a tensor or a list."""
        values = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
        array = np.ascontiguousarray(values, dtype=dtype)
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
        if not same and layer.padding != (0, 0):
            before = [(0, 0), *[(size, size) for size in layer.padding], (0, 0)]
            height, width = height + 2 * layer.padding[0], width + 2 * layer.padding[1]
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


def litert_model(network: nn.Module, side: int) -> bytes:
    """
    Returns a network as a LiteRT model of one picture `(1, side, side, 3)`; outputs are those of the network.

    Args:
        network: one of `NETWORKS`.
        side: of the picture it sees, in pixels.
    """
    graph = _Graph(side)
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
        side: of the picture it sees, in pixels.
    """

    def __init__(self, name: str, side: int):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise ImportError("LiteRT is missing: pip install lookhear[face]") from None
        self._content = litert_model(load_network(name), side)  # the interpreter does not hold it
        self._interpreter = Interpreter(model_content=self._content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
        self._lock = threading.Lock()

    def __call__(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns both outputs for `(n, side, side, 3)` float32, each with n rows."""
        rows: list[list[np.ndarray]] = [[], []]
        with self._lock:
            for picture in pictures:
                self._interpreter.set_tensor(self._input, picture[None])
                self._interpreter.invoke()
                for row, output in zip(rows, self._outputs):
                    row.append(self._interpreter.get_tensor(output)[0])
        return np.stack(rows[0]), np.stack(rows[1])


@functools.lru_cache(maxsize=3)
def load_litert(name: str, side: int) -> LiteRtNetwork:
    """Makes a network for LiteRT, once per process; see `LiteRtNetwork`."""
    return LiteRtNetwork(name, side)

"""
Conversion of MediaPipe's face detectors and face mesh, three TensorFlow Lite files, to the package's weights:

    python -m lookhear.training.avsr.convert_face_mesh FOLDER [--output model_cards/face-mesh]

The folder holds `face_landmark.tflite`, `face_detection_short_range.tflite` and
`face_detection_full_range_sparse.tflite`, as shipped in the package mediapipe 0.10.21 (`modules/face_landmark`,
`modules/face_detection`). The same files give the same bytes. Weights stay in half precision, as they are in the
files; those that are nearly all zero are stored sparsely there, and in full here.
"""

import argparse
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from lookhear.processing.avsr.face_networks_avsr import FILE, NETWORKS

SOURCES = {
    "short": "face_detection_short_range.tflite",
    "full": "face_detection_full_range_sparse.tflite",
    "mesh": "face_landmark.tflite",
}
ATTRIBUTION = "MediaPipe, Copyright The MediaPipe Authors, Apache License 2.0; converted by LookHear"

# Numbers of TensorFlow Lite's schema (schema.fbs): operators, fields of their tables, types of tensors.
CONVOLUTION, DEPTHWISE, PRELU = 3, 4, 54
MODEL_CODES, MODEL_GRAPHS, MODEL_BUFFERS = 1, 2, 4
GRAPH_TENSORS, GRAPH_OUTPUTS, GRAPH_OPERATORS = 0, 2, 3
OPERATOR_CODE, OPERATOR_INPUTS, OPERATOR_OUTPUTS = 0, 1, 2
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_BUFFER, TENSOR_SPARSITY = 0, 1, 2, 6
SPARSITY_ORDER, SPARSITY_BLOCKS, SPARSITY_DIMENSIONS = 0, 1, 2
DIMENSION_FORMAT, DIMENSION_SIZE, DIMENSION_SEGMENTS, DIMENSION_INDICES = 0, 1, 3, 5
TYPES = {0: np.float32, 1: np.float16}
INDEX_FORMATS = {1: "i", 2: "H", 3: "B"}  # of the union SparseIndexVector


class Table:
    """
    A table of a flatbuffer, whose fields are read by their number.

    Args:
        data: the whole file.
        start: where the table begins.
    """

    def __init__(self, data: bytes, start: int):
        self.data, self.start = data, start
        self._fields = start - struct.unpack_from("<i", data, start)[0]  # where its table of offsets begins
        self._end = struct.unpack_from("<H", data, self._fields)[0]

    def _place(self, field: int) -> int | None:
        """Returns where a field's value is; None where it has its default value."""
        entry = 4 + 2 * field
        offset = struct.unpack_from("<H", self.data, self._fields + entry)[0] if entry < self._end else 0
        return self.start + offset if offset else None

    def number(self, field: int, form: str) -> int:
        """Returns a number, 0 by default; `form` is its format in `struct`."""
        place = self._place(field)
        return 0 if place is None else struct.unpack_from(f"<{form}", self.data, place)[0]

    def _target(self, field: int) -> int | None:
        """Returns where that begins which a field refers to."""
        place = self._place(field)
        return None if place is None else place + struct.unpack_from("<I", self.data, place)[0]

    def table(self, field: int) -> "Table | None":
        """Returns the table that a field refers to, if there is one."""
        target = self._target(field)
        return None if target is None else Table(self.data, target)

    def numbers(self, field: int, form: str) -> list[int]:
        """Returns a list of numbers, empty by default; `form` is their format in `struct`."""
        target = self._target(field)
        if target is None:
            return []
        count = struct.unpack_from("<I", self.data, target)[0]
        return list(struct.unpack_from(f"<{count}{form}", self.data, target + 4))

    def tables(self, field: int) -> list["Table"]:
        """Returns a list of tables, empty by default."""
        start = self._target(field) or 0
        offsets = self.numbers(field, "I")  # of each table from its own entry
        return [Table(self.data, start + 4 + 4 * index + offset) for index, offset in enumerate(offsets)]

    def bytes(self, field: int) -> bytes:
        """Returns a list of bytes, empty by default."""
        target = self._target(field)
        if target is None:
            return b""
        count = struct.unpack_from("<I", self.data, target)[0]
        return self.data[target + 4 : target + 4 + count]


class Graph:
    """
    A network in a TensorFlow Lite file.

    Args:
        data: the file's content.

    Raises:
        ValueError: it is no such file.
    """

    def __init__(self, data: bytes):
        if data[4:8] != b"TFL3":
            raise ValueError("not a TensorFlow Lite file")
        model = Table(data, struct.unpack_from("<I", data, 0)[0])
        self._buffers = model.tables(MODEL_BUFFERS)
        codes = [max(code.number(0, "b"), code.number(3, "i")) for code in model.tables(MODEL_CODES)]
        graph = model.tables(MODEL_GRAPHS)[0]
        self._tensors = graph.tables(GRAPH_TENSORS)
        self._outputs = graph.numbers(GRAPH_OUTPUTS, "i")
        operators = graph.tables(GRAPH_OPERATORS)
        self._makers = {
            output: (codes[operator.number(OPERATOR_CODE, "I")], operator.numbers(OPERATOR_INPUTS, "i"))
            for operator in operators
            for output in operator.numbers(OPERATOR_OUTPUTS, "i")
        }

    def weights(self) -> Iterator[torch.Tensor]:
        """
        Yields the weights of convolutions and activations, each before those of what follows it.

        What an addition adds is visited in its order; an output that comes later only adds what is its own.
        """
        seen: set[int] = set()
        for output in self._outputs:
            yield from self._weights_before(output, seen)

    def _weights_before(self, tensor: int, seen: set[int]) -> Iterator[torch.Tensor]:
        """Yields the weights that a tensor is computed with, and that were not yielded yet."""
        if tensor in seen or tensor not in self._makers:
            return
        seen.add(tensor)
        code, inputs = self._makers[tensor]
        weighted = code in (CONVOLUTION, DEPTHWISE, PRELU)
        for source in inputs[:1] if weighted else inputs:
            yield from self._weights_before(source, seen)
        if weighted:
            yield from (_in_torch_order(self._constant(source), code) for source in inputs[1:])

    def _constant(self, tensor: int) -> np.ndarray:
        """Returns a constant as float16, without what turns it into float32 at run time."""
        while tensor in self._makers:
            tensor = self._makers[tensor][1][0]
        table = self._tensors[tensor]
        content = self._buffers[table.number(TENSOR_BUFFER, "I")].bytes(0)
        values = np.frombuffer(content, dtype=TYPES[table.number(TENSOR_TYPE, "b")])
        shape, sparsity = table.numbers(TENSOR_SHAPE, "i"), table.table(TENSOR_SPARSITY)
        whole = values.reshape(shape) if sparsity is None else _in_full(values, shape, sparsity)
        if not np.array_equal(whole, whole.astype(np.float16).astype(whole.dtype)):
            raise ValueError("a weight would lose precision in float16")
        return whole.astype(np.float16)


def _in_torch_order(weights: np.ndarray, code: int) -> torch.Tensor:
    """Returns weights in the order of torch: (outputs, inputs, height, width) of a convolution, a slope a channel."""
    if code == PRELU:
        weights = weights.reshape(-1)
    elif weights.ndim == 4:
        weights = weights.transpose(3, 0, 1, 2) if code == DEPTHWISE else weights.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(weights))


def _in_full(values: np.ndarray, shape: list[int], sparsity: Table) -> np.ndarray:
    """Returns sparse weights with their zeros: of each dimension all rows are stored, or those with a list of them."""
    if sparsity.numbers(SPARSITY_ORDER, "i") != list(range(len(shape))) or sparsity.numbers(SPARSITY_BLOCKS, "i"):
        raise ValueError("weights are stored in blocks")
    rows = np.zeros(1, dtype=np.int64)  # numbers of the rows that are there, in all dimensions so far
    for size, dimension in zip(shape, sparsity.tables(SPARSITY_DIMENSIONS), strict=True):
        if dimension.number(DIMENSION_FORMAT, "b") == 0:
            rows = (rows[:, None] * size + np.arange(size)).reshape(-1)
        else:
            counts = np.diff(_indices(dimension, DIMENSION_SEGMENTS))
            rows = np.repeat(rows, counts) * size + _indices(dimension, DIMENSION_INDICES)
    whole = np.zeros(int(np.prod(shape)), dtype=values.dtype)
    whole[rows] = values
    return whole.reshape(shape)


def _indices(dimension: Table, field: int) -> np.ndarray:
    """Returns a list of whole numbers, whose format the field before says."""
    form = INDEX_FORMATS[dimension.number(field - 1, "B")]
    table = dimension.table(field)
    return np.array(table.numbers(0, form) if table else [], dtype=np.int64)


def convert(folder: str | Path) -> dict[str, torch.Tensor]:
    """
    Converts the three networks.

    Args:
        folder: holds the files named in `SOURCES`.

    Returns:
        The weights in float16, by the names of `face_networks_avsr`, each with the network's name before it.

    Raises:
        ValueError: a file is missing, or of another kind.
    """
    converted: dict[str, torch.Tensor] = {}
    for name, file in SOURCES.items():
        path = Path(folder) / file
        if not path.is_file():
            raise ValueError(f"{path} is missing: FOLDER must hold {', '.join(SOURCES.values())}")
        own = NETWORKS[name]().state_dict()
        try:
            weights = list(Graph(path.read_bytes()).weights())
        except (ValueError, IndexError, KeyError, struct.error) as error:
            raise ValueError(f"{path} is no network that can be read: {error}") from None
        shapes = [tuple(weight.shape) for weight in weights]
        if shapes != [tuple(weight.shape) for weight in own.values()]:
            raise ValueError(f"{path} is another network than {file} of mediapipe 0.10.21")
        converted |= {f"{name}.{key}": weight for key, weight in zip(own, weights, strict=True)}
    return converted


def main(arguments: list[str] | None = None) -> int:
    """Runs the conversion as a command; returns the exit code."""
    parser = argparse.ArgumentParser(description="Converts MediaPipe's face networks to safetensors.")
    parser.add_argument("folder", type=Path, help="holds the three .tflite files")
    parser.add_argument("--output", type=Path, default=Path("model_cards/face-mesh"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        content = save(convert(options.folder), metadata={"attribution": ATTRIBUTION})
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    aside = options.output / f"{FILE}.new"
    aside.write_bytes(content)
    aside.replace(options.output / FILE)
    print(options.output / FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Digests by which stored results are known to be of the same clips and the same weights."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn


def digest_of_shards(files: Sequence[Path]) -> str:
    """
    Computes a digest of Parquet files that changes with their contents, without reading them.

    Of each file only the last part is read, in which Parquet has the size and the statistics of every column's pieces.

    Args:
        files: in their order.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            file.seek(-8, os.SEEK_END)  # the length of the last part, 4 bytes, and "PAR1"
            length = int.from_bytes(file.read(4), "little")
            file.seek(-8 - length, os.SEEK_END)
            digest.update(file.read(length))
    return digest.hexdigest()[:16]


def digest_of_weights(modules: Mapping[str, nn.Module]) -> str:
    """
    Computes a digest of modules' parameters and stored buffers: names, types, shapes and every bit.

    Args:
        modules: by name.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, module in sorted(modules.items()):
        for part, tensor in module.state_dict().items():
            digest.update(f"{name}.{part} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]

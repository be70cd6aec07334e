"""A published GLEE checkpoint file as a model."""

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from .configuration_glee import GleeConfig
from .convert_config_glee import config_from_state_dict
from .convert_glee import convert_state_dict, shorten
from .modeling_glee import GleeForObjectDetection

ENDINGS = (".pth", ".pt", ".bin", ".safetensors")


def load_published_checkpoint(
    path: str | os.PathLike, *, config: GleeConfig | None = None, for_training: bool = False
) -> GleeForObjectDetection:
    """
    The model of a published checkpoint, in float32 and evaluation mode; no weight of it is left at random.

    Args:
        path: `.pth`, `.pt`, `.bin` or `.safetensors`: a state dict, or a `{"model": state dict}` of detectron2.
        config: where it cannot be read off the weights (`config_from_state_dict`), or to change the behaviour.
        for_training: keep the text teacher and the denoising tables, where the file has them.
    Raises:
        ValueError: the file cannot be read safely, or its weights are not exactly those of the model; unknown,
            missing and wrongly shaped ones are named.
    """
    weights = read_checkpoint(path)
    converted = convert_state_dict(weights, for_training=for_training)
    if config is None:
        config = config_from_state_dict(weights, for_training=for_training)
    check_weights(converted, config)
    converted = {name: value.float() if value.is_floating_point() else value for name, value in converted.items()}
    return GleeForObjectDetection.from_pretrained(None, config=config, state_dict=converted).eval()


def read_checkpoint(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """
    The state dict in a file, read without running anything that may be in it.

    Raises:
        ValueError: no such file, a file of another kind, a damaged one, or one that holds other things than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {str(path)!r} is no file")
    if path.suffix == ".pkl":
        raise ValueError(
            f"checkpoint {str(path)!r} is a pickle, which could run code; take a .pth or .safetensors file"
        )
    if path.suffix not in ENDINGS:
        raise ValueError(f"checkpoint {str(path)!r} must end in one of {', '.join(ENDINGS)}")
    content = _load(path)
    for entry in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping):
        raise ValueError(f"checkpoint {str(path)!r} holds a {type(content).__name__}, not a state dict")
    others = [str(k) for k, value in content.items() if not (isinstance(k, str) and isinstance(value, torch.Tensor))]
    if others:
        raise ValueError(f"checkpoint {str(path)!r} has entries that are no named tensors: {shorten(others)}")
    return dict(content)


def check_weights(converted: Mapping[str, torch.Tensor], config: GleeConfig) -> None:
    """
    Each weight of the model is there in its shape, and nothing else is.

    Raises:
        ValueError: names what is missing, unknown, or of another shape.
    """
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in GleeForObjectDetection(config).state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in converted.items()}
    missing = [name for name in expected if name not in shapes]
    unknown = [name for name in shapes if name not in expected]
    wrong = [
        f"{name} {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    found = {"missing": missing, "unknown": unknown, "of another shape": wrong}
    problems = [f"{len(names)} weights are {kind}: {shorten(names)}" for kind, names in found.items() if names]
    if problems:
        raise ValueError(f"checkpoint: it does not fit the model: {'; '.join(problems)}")


def _load(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_numpy_numbers()):
            return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        found = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if found is None:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"checkpoint {str(path)!r} is damaged or of another kind: {reason}") from None
        raise ValueError(
            f"checkpoint {str(path)!r} holds other things than tensors ({found[1]}), which could run code. Where you "
            "trust it, keep its weights alone: "
            f"torch.save({{'model': torch.load({str(path)!r}, weights_only=False)['model']}}, 'weights.pth')"
        ) from None


def _numpy_numbers() -> list:
    """What a pickled number of NumPy is made of: it can't run anything, and detectron2 keeps some beside the weights."""
    scalar, _ = np.float64(0).__reduce__()
    dtypes = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"}
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *dtypes]  # the second name: before NumPy 2

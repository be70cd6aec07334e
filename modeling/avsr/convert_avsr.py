"""Weights from elsewhere into AVSR's parts."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from .frontends_avsr import AvsrVisualFrontEnd


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """
    A state dict from a `.safetensors` or PyTorch file, the latter read without executing anything in it.

    Raises:
        ValueError: no such file, or one that holds other things than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {str(path)!r} is no file")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"checkpoint {str(path)!r} cannot be read safely: {str(error).splitlines()[0]}") from None
    return content.get("state_dict", content)


def load_resnet_weights(front_end: AvsrVisualFrontEnd, path: str | Path) -> None:
    """
    Puts the residual stages of a ResNet into the visual front-end (paper, section 3.1); the 3D stem keeps its own.

    Args:
        front_end: changed in place. path: a MoCo v2 checkpoint (`module.encoder_q.*`) or torchvision's ResNet weights.
    Raises:
        ValueError: the file holds no such ResNet; missing, unknown and wrongly shaped weights are named.
    """
    weights = read_state_dict(path)
    moco = "module.encoder_q."
    if any(name.startswith(moco) for name in weights):
        weights = {name.removeprefix(moco): value for name, value in weights.items() if name.startswith(moco)}
    kept = {name: value for name, value in weights.items() if name.startswith("layer")}
    renamed = {_resnet_name(name): value for name, value in kept.items()}
    expected = {name: value.shape for name, value in front_end.resnet.state_dict().items()}
    wrong = [name for name, shape in expected.items() if name not in renamed or renamed[name].shape != shape]
    unknown = [name for name in renamed if name not in expected]
    if wrong or unknown:
        raise ValueError(
            f"{str(path)!r} does not fit the visual front-end: {len(wrong)} weights are missing or of another shape "
            f"({', '.join(wrong[:3])} ...), {len(unknown)} are unknown ({', '.join(unknown[:3])} ...)"
        )
    front_end.resnet.load_state_dict(renamed)


def _resnet_name(name: str) -> str:
    """torchvision's `layer1.0.conv2.weight` -> transformers' `stages.0.layers.0.layer.1.convolution.weight`."""
    stage, block, part, *rest = name.split(".")
    prefix = f"stages.{int(stage.removeprefix('layer')) - 1}.layers.{block}"
    if part == "downsample":
        return ".".join((prefix, "shortcut", ("convolution", "normalization")[int(rest[0])], *rest[1:]))
    kind = "convolution" if part.startswith("conv") else "normalization"
    return ".".join((prefix, "layer", str(int(part[-1]) - 1), kind, *rest))

"""Smaller checkpoints: feed-forward units that matter least are taken out of a trained model."""

import copy

import torch
from torch import nn

from lookhear.modeling.avsr import AvsrForConditionalGeneration
from lookhear.modeling.avsr.layers_avsr import AvsrFeedForward


@torch.no_grad()
def prune_feed_forward(model: AvsrForConditionalGeneration, intermediate_size: int) -> AvsrForConditionalGeneration:
    """
    Returns a copy of the model whose feed-forward layers keep the `intermediate_size` units of the largest weights.

    A unit's weight is the norm of what goes into it times the norm of what comes out of it.

    Raises:
        ValueError: `intermediate_size` is not between 1 and the model's own.
    """
    own = model.config.intermediate_size
    if not 1 <= intermediate_size <= own:
        raise ValueError(f"intermediate_size must be between 1 and the model's {own}, not {intermediate_size}.")
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, AvsrFeedForward):
            weight = layer.fc1.weight.norm(dim=1) * layer.fc2.weight.norm(dim=0)  # (units,)
            kept = weight.topk(intermediate_size).indices.sort().values
            layer.fc1 = _linear(layer.fc1.weight[kept], layer.fc1.bias[kept])
            layer.fc2 = _linear(layer.fc2.weight[:, kept], layer.fc2.bias)
    model.config.intermediate_size = intermediate_size
    return model


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer

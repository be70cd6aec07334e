"""Smaller checkpoints: the least important feed-forward units are removed from a trained model."""

import copy

import torch
from torch import nn

from lookhear.modeling.avsr import AvsrForConditionalGeneration
from lookhear.modeling.avsr.layers_avsr import AvsrFeedForward


@torch.no_grad()
def prune_feed_forward(model: AvsrForConditionalGeneration, intermediate_size: int) -> AvsrForConditionalGeneration:
    """
    Returns a copy of the model with only the `intermediate_size` units of the largest weights in each feed-forward
    layer.

    A unit's weight is the norm of its input weights times the norm of its output weights.

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
            largest = weight.topk(intermediate_size).indices.sort().values
            layer.fc1 = _linear(layer.fc1.weight[largest], layer.fc1.bias[largest])
            layer.fc2 = _linear(layer.fc2.weight[:, largest], layer.fc2.bias)
    model.config.intermediate_size = intermediate_size
    return model


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer

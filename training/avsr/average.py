"""One model of several that were trained from one another: the average of their weights."""

import copy
from collections.abc import Sequence

import torch

from lookhear.modeling.avsr import AvsrForConditionalGeneration


@torch.no_grad()
def average_models(
    models: Sequence[AvsrForConditionalGeneration], shares: Sequence[float]
) -> AvsrForConditionalGeneration:
    """
    Returns a model with the average of the weights of others.

    Where one was trained from another, or both from a third, the average often reads better than each: what the later
    one has learnt is there, and less of what it had known before is forgotten (Wortsman et al., "Model soups", ICML
    2022). Of models that were trained apart it is of no use.

    Args:
        models: of the same sizes; they stay as they are.
        shares: of each, above 0; they are divided by their sum.

    Returns:
        A copy of the first model with other weights, and running statistics of batch norms.

    Raises:
        ValueError: there is no model, or not one share for each, or a share is not above 0, or models differ in size.
    """
    if not models or len(models) != len(shares) or not all(share > 0 for share in shares):
        raise ValueError(f"{len(models)} models need as many shares above 0, not {list(shares)}.")
    states = [model.state_dict() for model in models]
    if any(_shapes(state) != _shapes(states[0]) for state in states):
        raise ValueError(
            "the models differ in their sizes: only models that were trained from one another have averages."
        )
    mean = copy.deepcopy(models[0])
    for name, value in mean.state_dict().items():  # counters of batches are whole numbers: the first model's stay
        if value.is_floating_point():
            parts = (share / sum(shares) * state[name].double() for share, state in zip(shares, states))
            value.copy_(torch.stack(list(parts)).sum(dim=0))
    return mean


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}

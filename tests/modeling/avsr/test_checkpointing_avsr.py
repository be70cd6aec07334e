"""Gradient checkpointing stores less, and changes neither gradients nor running statistics."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from lookhear import AvsrConfig
from lookhear.modeling.avsr.encoder_avsr import AvsrVisualFrontEnd

MB = 1e6
VISUAL = {"layer_type": "bottleneck", "stem_channels": 4, "crop_size": 32}


class Stored:
    """Counts the bytes that a forward pass stores for its gradients, each memory once."""

    def __init__(self, model: torch.nn.Module):
        self.seen = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        self.held: list[torch.Tensor] = []
        self.bytes = 0

    def __enter__(self) -> Stored:
        self.hooks = saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.hooks.__exit__(*error)

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
            self.held.append(tensor)  # no other tensor may get its address
        return tensor


@pytest.mark.parametrize("variant", ["spectrogram", "usr2", "conformer"])
def test_running_statistics_are_updated_once(make_model, make_clips, make_batch, variant):
    found = []
    for checkpointing in (False, True):
        model = make_model(variant).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**make_batch(make_clips(model.config.modality))).loss.backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters()}
        found.append((dict(model.named_buffers()), gradients))
    for values, expected in zip(found[1], found[0]):
        for name, tensor in expected.items():
            torch.testing.assert_close(values[name], tensor, rtol=1e-5, atol=1e-5, msg=name)
    counts = [value for name, value in found[1][0].items() if name.endswith("num_batches_tracked")]
    assert counts and {int(count) for count in counts} == {1}


def stored(front_end: AvsrVisualFrontEnd, checkpointing: bool, frames: int) -> int:
    """Bytes that a training step stores of a clip, in bfloat16 as on a GPU."""
    for stage in front_end.resnet.stages:
        stage.gradient_checkpointing = checkpointing
        stage._gradient_checkpointing_func = run_again
    size = front_end.config.crop_size
    with torch.autocast("cpu", torch.bfloat16), Stored(front_end) as kept:
        front_end(torch.randn(1, frames, 1, size, size), torch.ones(1, frames, dtype=torch.bool))
    return kept.bytes


def run_again(run, *inputs):
    """What transformers sets, by its default settings."""
    return torch.utils.checkpoint.checkpoint(run, *inputs, use_reentrant=False)


def test_a_stage_stores_its_input_only(make_config):
    visual = make_config("visual", visual_config={**VISUAL, "hidden_sizes": (16, 16), "depths": (4, 4)}).visual_config
    front_end = AvsrVisualFrontEnd(visual).train()
    assert stored(front_end, True, 20) < 0.5 * stored(front_end, False, 20)


@pytest.mark.slow
def test_a_second_of_lips_at_full_size():
    """With the four stages of the paper's ResNet-50. All of AVSR stored 408 MB a second, of which 190 may be left."""
    front_end = AvsrVisualFrontEnd(AvsrConfig(modality="visual").visual_config).train()
    seconds = [
        (stored(front_end, checkpointing, 50) - stored(front_end, checkpointing, 25)) / MB
        for checkpointing in (False, True)
    ]
    assert seconds[0] - seconds[1] >= 408 - 190, seconds

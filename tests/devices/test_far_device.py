"""The pretended accelerator fails where CUDA does, and counts."""

import numpy as np
import pytest
import torch

from tests.devices.far_device import TO_DEVICE, TO_HOST


def test_devices_are_not_mixed(far):
    here, there = torch.ones(3), torch.ones(3, device="pretended")
    for mixed in (
        lambda: here + there,
        lambda: torch.cat((there, here)),
        lambda: torch.stack((there[0], here[0])),
        lambda: here[there.long()],
        lambda: there.masked_fill(here > 0, 1.0),
        lambda: here.add_(there),
        lambda: torch.nn.functional.embedding(here.long(), there[:, None]),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    for without in (there.numpy, lambda: np.asarray(there), lambda: torch.from_numpy(there)):
        with pytest.raises(TypeError):
            without()
    assert (there + here[0]).tolist() == [2.0] * 3  # a number is no tensor
    assert there[here.long()].device.type == "pretended"  # CUDA sends indices


def test_what_travels_is_counted(far):
    there = torch.arange(6.0).to("pretended").view(2, 3)
    assert (far.log.travelled(TO_DEVICE), far.log.travelled(TO_HOST), far.log.waits) == (24, 0, 0)
    assert (there.sum().item(), there.cpu().shape, there[there > 1].shape) == (15.0, (2, 3), (4,))
    assert (far.log.travelled(TO_DEVICE), far.log.travelled(TO_HOST), far.log.waits) == (24, 24, 3)
    there[:, torch.tensor([0, 2])] = torch.zeros((), device="pretended")
    assert far.log.travelled(TO_DEVICE) == 24 + 16 and there.tolist() == [[0, 1, 0], [0, 4, 0]]
    far.log.clear()
    assert far.log.waits == far.log.travelled(TO_HOST) == 0 and str(far.log).startswith("0 waits")


def test_gradients_and_views_are_the_cpus(far):
    def total(device: str) -> list:
        torch.manual_seed(0)
        weight, x = torch.randn(4, 3, requires_grad=True), torch.rand(5, 4)
        leaf = weight.detach().to(device).requires_grad_()
        y = (x.to(device) @ leaf).relu()
        rows = torch.zeros(5, 3, device=device)
        rows[1:4] = y[:3].detach()
        rows[0].add_(1)
        (y.softmax(1) * rows).sum().backward()
        return leaf.grad.tolist()

    assert total("pretended") == total("cpu")


def test_elsewhere_there_is_none(far):
    assert torch.accelerator.is_available()
    far.__exit__(None, None, None)
    try:
        assert not torch.accelerator.is_available()
    finally:
        far.__enter__()

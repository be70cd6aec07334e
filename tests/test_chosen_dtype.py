"""What `--dtype auto` means: half precision on a CUDA GPU, the stored dtype elsewhere."""

import pytest
import torch

from lookhear.commands.loading import chosen_dtype


@pytest.mark.parametrize(
    ("system", "device", "bfloat16", "chosen"),
    [
        ("glee", None, True, "float16"),
        ("glee", "cuda:1", True, "float16"),
        ("avsr", None, True, "bfloat16"),
        ("avsr", "cuda", False, "float16"),
        ("lisa_glee", None, True, "auto"),
        ("glee", "cpu", True, "auto"),
        ("avsr", "mps", True, "auto"),
    ],
)
def test_on_a_machine_with_a_gpu(monkeypatch, system, device, bfloat16, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bfloat16)
    assert chosen_dtype("auto", system, device) == chosen
    assert chosen_dtype("float32", system, device) == "float32"


def test_on_a_machine_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert {chosen_dtype("auto", system, None) for system in ("avsr", "glee", "lisa_glee")} == {"auto"}

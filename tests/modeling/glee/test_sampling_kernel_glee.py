"""The Triton kernels of deformable sampling: right by the interpreter, compiled for GPUs, used only where right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lookhear.modeling.glee import attention_glee
from lookhear.modeling.glee.attention_glee import GleeDeformableAttention, kernel_agrees

SIZES = (2, 4, 2, 3)  # heads, channels of a head, maps, points
DEVICE = torch.device("cpu")


def needs_triton() -> None:
    pytest.importorskip("triton", reason="Triton comes with torch on Linux only")


@pytest.mark.slow
def test_sums_and_gradients_by_the_interpreter():
    needs_triton()
    tests = Path(__file__).with_name("interpreted_kernel.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", str(tests)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("capability", [75, 80, 90, 100])
def test_the_kernels_compile_for_gpus(capability, monkeypatch, tmp_path):
    """Ahead of time, as Triton's own `triton.tools.compile` does, with its assembler; no GPU is needed for it."""
    needs_triton()
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from lookhear.modeling.glee import sampling_kernel_glee as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    value = torch.zeros(1, 1, 8, 32, dtype=torch.float16)
    constants = kernels.kernel_constants(value, torch.zeros(1, 1, 8, 4, 4, 2))
    half = dict.fromkeys(("value", "out", "grad_out"), "*fp16") | dict.fromkeys(("sizes", "starts"), "*i64")
    for kernel, options in ((kernels._forward_kernel, kernels.FORWARD), (kernels._backward_kernel, kernels.BACKWARD)):
        given = constants | {"BLOCK": options["BLOCK"]}
        signature = {
            name: "constexpr" if name in given else half.get(name, "i32" if name in kernels.ANY_SIZE else "*fp32")
            for name in kernel.arg_names
        }
        source = ASTSource(kernel, signature, constexprs=given)
        compiled = compile(source, GPUTarget("cuda", capability, 32), options={"num_warps": options["num_warps"]})
        assert compiled.asm["cubin"]


@pytest.fixture(autouse=True)
def forget():
    """Answers are remembered for a whole process."""
    kernel_agrees.cache_clear()
    yield
    kernel_agrees.cache_clear()


def warnings_of(monkeypatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(attention_glee.logger, "warning", said.append)
    return said


def test_a_kernel_that_does_not_run_is_not_used(monkeypatch):
    """One warning in a process says so."""

    def broken(*given):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    said = warnings_of(monkeypatch)
    monkeypatch.setattr(attention_glee, "_kernel_error", broken)
    assert [kernel_agrees(DEVICE, torch.float32, SIZES) for _ in range(3)] == [False] * 3
    assert len(said) == 1 and "(Failed to find C compiler.)" in said[0] and "\n" not in said[0]


@pytest.mark.parametrize(
    ("off", "dtype"), [(1e-3, torch.float32), (0.2, torch.bfloat16), (float("nan"), torch.float16)]
)
def test_a_kernel_that_is_wrong_is_not_used(monkeypatch, off, dtype):
    said = warnings_of(monkeypatch)
    monkeypatch.setattr(attention_glee, "_kernel_error", lambda *given: off)
    assert not kernel_agrees(DEVICE, dtype, SIZES)
    assert len(said) == 1 and f"off by {off:.2g}" in said[0]


def test_a_kernel_that_is_right_is_used(monkeypatch):
    said = warnings_of(monkeypatch)
    monkeypatch.setattr(attention_glee, "_kernel_error", lambda *given: 3e-6)
    assert kernel_agrees(DEVICE, torch.float32, SIZES) and not said


def test_a_process_without_triton_samples_by_grid(monkeypatch):
    monkeypatch.setitem(sys.modules, "lookhear.modeling.glee.sampling_kernel_glee", None)
    said = warnings_of(monkeypatch)
    assert not kernel_agrees(DEVICE, torch.float32, SIZES)
    assert len(said) == 1


@pytest.mark.parametrize("replaced", [False, True])
def test_a_kernel_from_the_hub_gets_float32_and_ours_the_maps_own_dtype(monkeypatch, replaced):
    """On an accelerator, which a tensor on the meta device stands for."""
    layer = GleeDeformableAttention(hidden_size=16, num_heads=2, num_levels=2, num_points=3).to("meta", torch.bfloat16)
    given = []

    def sample(self, value, *rest, im2col_step):
        given.append([tensor.dtype for tensor in (value, *rest) if torch.is_tensor(tensor)])
        return torch.empty(2, 7, 16, device="meta")

    if replaced:
        layer.sampler.forward = sample.__get__(layer.sampler)  # as the kernels library does
    else:
        monkeypatch.setattr(type(layer.sampler), "forward", sample)
        monkeypatch.setattr(type(layer.sampler), "own_forward", sample)
    query, value = (torch.empty(2, n, 16, device="meta", dtype=torch.bfloat16) for n in (7, 39))
    out = layer(query, value, torch.empty(2, 7, 2, 4, device="meta"), [(6, 5), (3, 3)])
    maps = torch.float32 if replaced else torch.bfloat16
    assert given == [[maps, torch.int64, torch.int64, torch.float32, torch.float32]]
    assert out.dtype == torch.bfloat16

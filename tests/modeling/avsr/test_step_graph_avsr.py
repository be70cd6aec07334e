"""A search's step as a graph: compiled in one piece, and replayed on the same memory as on CUDA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lookhear.modeling.avsr import beam_decoding_avsr, joint_search_avsr
from lookhear.modeling.avsr.beam_decoding_avsr import AvsrBeamCache
from lookhear.modeling.avsr.joint_search_avsr import JointSearch
from tests.modeling.avsr.conftest import build_model
from tests.modeling.avsr.test_beam_decoding_avsr import encoded_clips

LENGTHS = (27, 20)  # steps of two clips
FIELDS = ("sequences", "sequences_scores", "beam_indices")


class Tape(TorchDispatchMode):
    """
    Does on a CPU what a captured graph does: the operations of a step again, each on the memory of the first time.

    Recording leaves all tensors as they were, and an operation for whose result the host would wait is an error.
    """

    def __init__(self, step) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.before: list[tuple[torch.Tensor, torch.Tensor]] = []
        with self:
            step()
        with torch.inference_mode():
            for tensor, numbers in reversed(self.before):
                tensor.copy_(numbers)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise RuntimeError(f"{func} is not permitted when a stream is capturing")
        for argument, value in zip(func._schema.arguments, args):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.before.append((value, value.clone()))
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    @torch.inference_mode()
    def replay(self) -> None:
        for func, args, kwargs, out in self.calls:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def constant_shapes(monkeypatch):
    """As beside the CPU; and buffers that grow more often."""
    monkeypatch.setattr(AvsrBeamCache, "_width", lambda self: None)


def search(model, **settings):
    encoded = encoded_clips(model, LENGTHS)
    settings = {"num_beams": 3, "num_return_sequences": 2, "early_stopping": "never", "ctc_weight": 0.3} | settings
    found = model.generate(encoder_outputs=encoded, return_dict_in_generate=True, **settings)
    return [found[name] for name in FIELDS if found.get(name) is not None]


@pytest.fixture
def tapes(monkeypatch) -> list[Tape]:
    """Graphs captured so far, of searches as they are on CUDA."""
    made: list[Tape] = []
    can_replay = JointSearch._can_replay

    class OnCuda:
        is_cuda = True

    def can(self) -> bool:
        lengths, self.lengths = self.lengths, OnCuda()
        try:
            return can_replay(self)
        finally:
            self.lengths = lengths

    def record(step) -> Tape:
        made.append(Tape(step))
        return made[-1]

    monkeypatch.setattr(JointSearch, "_can_replay", can)
    monkeypatch.setattr(joint_search_avsr, "capture", record)
    return made


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="five-beams"),
        pytest.param({"early_stopping": False}, id="early-end"),
        pytest.param({"early_stopping": True}, id="as-many-as-beams"),
        pytest.param({"num_beams": 1, "num_return_sequences": 1}, id="one-beam"),
        pytest.param({"ctc_weight": 0.0}, id="attention"),
        pytest.param({"ctc_weight": 1.0}, id="ctc"),
        pytest.param({"ctc_prefix": "reference"}, id="reference"),
        pytest.param({"length_penalty": 0.7}, id="length-penalty"),
    ],
)
@pytest.mark.parametrize("capacity", [4, 64])
def test_replayed_steps_find_the_same(constant_shapes, tapes, monkeypatch, settings, capacity):
    monkeypatch.setattr(beam_decoding_avsr, "FIRST_CAPACITY", capacity)
    model = build_model("visual")
    found = search(model, **settings)
    captured = len(tapes)
    monkeypatch.setattr(JointSearch, "_can_replay", lambda self: False)
    expected = search(model, **settings)
    assert len(tapes) == captured
    if settings.get("early_stopping") is not True:  # which ends before a step is captured
        assert 1 <= captured <= (1 if capacity == 64 else 4)  # room for 4, 8, 16, 32
    assert captured == 4 or capacity == 64 or settings
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True},
        {"min_new_tokens": 5},
        {"output_scores": True},
        {"output_attentions": True},
        {"search": "espnet"},
    ],
    ids=["sample", "processor", "scores", "attentions", "espnet"],
)
def test_searches_that_do_more_than_compute_run_step_by_step(tapes, settings):
    search(build_model("visual"), **settings)
    assert not tapes


def test_a_step_that_cannot_be_captured_is_computed(constant_shapes, tapes, monkeypatch):
    """One line says so; the texts are the same."""
    said: list[str] = []
    model = build_model("visual")
    expected = search(model)
    monkeypatch.setattr(joint_search_avsr.logger, "warning", said.append)

    def fail(step):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with…")

    monkeypatch.setattr(joint_search_avsr, "capture", fail)
    found = search(model)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert len(said) == 1 and said[0].endswith("(CUDA error: operation not permitted when stream is capturing).")


@pytest.mark.slow
def test_a_step_compiles_in_one_graph(constant_shapes, monkeypatch):
    torch._dynamo.reset()
    model, counter = build_model("visual"), CompileCounterWithBackend("eager")
    expected = search(model)
    advance, compiled = JointSearch._advance, torch.compile(JointSearch._advance, backend=counter, fullgraph=True)

    def step(self, last):
        (compiled if self.decoder.cache.layers and not last else advance)(self, last)

    monkeypatch.setattr(JointSearch, "_advance", step)
    found = search(model)
    torch._dynamo.reset()
    assert 1 <= counter.frame_count <= 2  # the number of steps, of which the buffers keep count, becomes a variable
    assert torch.equal(found[0], expected[0])
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)

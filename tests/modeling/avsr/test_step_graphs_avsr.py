"""A search's step as a graph: compiled in one piece, and replayed on the same memory, as on CUDA."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import GPT2Config, GPT2LMHeadModel

from lookhear.modeling.avsr import beam_decoding_avsr
from lookhear.modeling.avsr.beam_decoding_avsr import MOST_GRAPHS, STEPS_BEFORE_CAPTURE, JointSearch, StepGraphs
from tests.modeling.avsr.conftest import build_model
from tests.modeling.avsr.test_beam_decoding_avsr import encoded_clips

LENGTHS = (27, 20)  # steps of two clips
FIELDS = ("sequences", "sequences_scores", "beam_indices")


class Tape(TorchDispatchMode):
    """
    Does on a CPU what a captured graph does: the operations of a step again, each on the memory of the first time.

    Recording leaves all tensors as they were, and an operation for whose result the host would wait is an error.
    """

    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.before: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.replays = 0
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
        self.replays += 1
        for func, args, kwargs, out in self.calls:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def search(model, lengths=LENGTHS, seed=1, **settings):
    """What a search finds of two clips that are encoded already."""
    encoded = encoded_clips(model, lengths)
    torch.manual_seed(seed)
    encoded.last_hidden_state = torch.randn_like(encoded.last_hidden_state)
    settings = {"num_beams": 3, "num_return_sequences": 2, "early_stopping": "never", "ctc_weight": 0.3} | settings
    found = model.generate(encoder_outputs=encoded, return_dict_in_generate=True, **settings)
    return [found[name] for name in FIELDS if found.get(name) is not None]


def assert_same(found, expected):
    """Equal texts and beams; scores within what padded frames round otherwise."""
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.fixture
def tapes(monkeypatch) -> list[Tape]:
    """Graphs captured so far, of searches that run as they do on CUDA."""
    made: list[Tape] = []

    def record(search: JointSearch) -> Tape:
        made.append(Tape(lambda: search._advance(last=False)))
        return made[-1]

    monkeypatch.setattr(StepGraphs, "devices", ("cuda", "cpu"))
    monkeypatch.setattr(beam_decoding_avsr, "capture", record)
    return made


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="joint"),
        pytest.param({"early_stopping": False}, id="early-end"),
        pytest.param({"num_beams": 1, "num_return_sequences": 1}, id="one-beam"),
        pytest.param({"ctc_weight": 0.0}, id="attention"),
        pytest.param({"ctc_weight": 1.0}, id="ctc"),
        pytest.param({"ctc_prefix": "reference"}, id="reference"),
        pytest.param({"length_penalty": 0.7, "early_stopping": False}, id="length-penalty"),
    ],
)
def test_replayed_steps_find_the_same(tapes, settings):
    """Also in a second search, of other clips, which replays the graph of the first one from its second step on."""
    model, plain = build_model("visual"), build_model("visual")
    plain.generation_config.cuda_graphs = False
    for seed, lengths in ((1, LENGTHS), (2, (25, 27))):
        found = search(model, lengths, seed, **settings)
        replays = [tape.replays for tape in tapes]
        assert_same(found, search(plain, lengths, seed, **settings))
        assert [tape.replays for tape in tapes] == replays  # the setting turns graphs off
        assert len(tapes) == 1  # the first search's, which the second one finds
    if settings.keys() <= {"ctc_weight"}:  # others end earlier
        # The last step of each search is computed; one replay shows that the graph does what a step does.
        assert replays == [28 - 1 - STEPS_BEFORE_CAPTURE + 28 - 2 + 1]


def test_results_outlive_the_search_that_takes_the_graph_over(tapes):
    model = build_model("visual")
    first = search(model, seed=1)
    kept = [part.clone() for part in first]
    search(model, seed=2)
    assert all(torch.equal(one, other) for one, other in zip(first, kept, strict=True))


def test_few_graphs_are_kept(tapes):
    """One for each shape, those used last; and none in a copy, nor after weights have moved."""
    model = build_model("visual")
    counts = []
    for beams in (2, 3, 4, 5, 6, 6, 2):
        search(model, num_beams=beams)
        counts.append(len(tapes))
    assert counts == [1, 2, 3, 4, 5, 5, 6] and len(model._step_graphs.kept) == MOST_GRAPHS
    assert not copy.deepcopy(model)._step_graphs.kept
    head = model.decoder_head.output
    head.weight = torch.nn.Parameter(head.weight + 1.0 * torch.randn_like(head.weight))
    plain = copy.deepcopy(model)
    plain.generation_config.cuda_graphs = False
    assert_same(search(model, num_beams=2), search(plain, num_beams=2))
    assert len(tapes) == 7


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True},
        {"min_new_tokens": 5},
        {"output_scores": True},
        {"output_attentions": True},
        {"search": "espnet"},
        {"language_model": True},
    ],
    ids=["sample", "processor", "scores", "attentions", "espnet", "language-model"],
)
def test_searches_that_do_more_than_compute_run_step_by_step(tapes, settings):
    model = build_model("visual")
    if "language_model" in settings:
        size = model.config.vocab_size
        settings = {"language_model": GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=8, n_layer=1, n_head=1))}
    search(model, **settings)
    assert not tapes


def test_layers_that_are_more_than_their_weights_run_step_by_step(tapes):
    """As adapters make them, which may be switched off between two searches."""

    class Adapted(torch.nn.Linear):
        pass

    model = build_model("visual")
    model.get_decoder().layers[0].feed_forward.fc1.__class__ = Adapted
    search(model)
    assert not tapes


def test_a_step_that_cannot_be_captured_is_computed(tapes, monkeypatch):
    """One line says so, once; the texts are the same."""
    said: list[str] = []
    model = build_model("visual")
    expected = search(model)
    monkeypatch.setattr(beam_decoding_avsr.logger, "warning", said.append)

    def fail(search):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with…")

    monkeypatch.setattr(beam_decoding_avsr, "capture", fail)
    model = build_model("visual")
    for _ in range(2):
        assert_same(search(model), expected)
    assert len(said) == 1 and said[0].endswith("(CUDA error: operation not permitted when stream is capturing).")


def test_a_graph_that_does_something_else_is_not_used(tapes, monkeypatch):
    """Where a replayed step gives other numbers than the step, as a fault of a driver or of ours would have it."""
    said: list[str] = []
    monkeypatch.setattr(beam_decoding_avsr.logger, "warning", said.append)
    plain, model = build_model("visual"), build_model("visual")
    plain.generation_config.cuda_graphs = False
    replay = Tape.replay

    def replay_wrongly(tape: Tape) -> None:
        replay(tape)
        tape.calls[-1][3].add_(1)

    monkeypatch.setattr(Tape, "replay", replay_wrongly)
    for _ in range(2):
        assert_same(search(model), search(plain))
    assert len(said) == 1 and said[0].endswith("(replayed, it gives other numbers).")


def test_a_graph_is_as_good_after_many_searches(tapes):
    """Its buffers stay where they are, however many steps have been written into them one search after the other."""
    plain, model = build_model("visual"), build_model("visual")
    plain.generation_config.cuda_graphs = False
    search(model)
    ((parts, _),) = model._step_graphs.kept.values()
    cache = parts["decoder"].cache
    cache.steps = cache.capacity
    for seed in (2, 3):
        assert_same(search(model, seed=seed), search(plain, seed=seed))
    assert len(tapes) == 1


def test_without_memory_graphs_are_given_up(tapes, monkeypatch):
    """So that half a batch finds the memory that they held."""
    model = build_model("visual")
    search(model)
    assert model._step_graphs.kept

    def fail(self, search, done):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(StepGraphs, "take", fail)
    with pytest.raises(torch.OutOfMemoryError):
        search(model)
    assert model._step_graphs is None


@pytest.mark.slow
def test_a_step_compiles_in_one_graph(monkeypatch):
    """With the buffers of one size that steps have on CUDA: no break, and no other graph for later steps."""
    torch._dynamo.reset()
    expected = search(build_model("visual"))
    counter = CompileCounterWithBackend("eager")

    class Compiled:
        def __init__(self, search: JointSearch) -> None:
            step = torch.compile(search._advance, backend=counter, fullgraph=True)
            self.replay = lambda: step(last=False)

    monkeypatch.setattr(StepGraphs, "devices", ("cuda", "cpu"))
    monkeypatch.setattr(beam_decoding_avsr, "capture", Compiled)
    found = search(build_model("visual"))
    torch._dynamo.reset()
    assert 1 <= counter.frame_count <= 2  # the number of steps, of which the buffers keep count, becomes a variable
    assert_same(found, expected)

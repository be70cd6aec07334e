"""torch.compile: one graph, the same numbers, clips of other lengths without compiling anew."""

import copy
import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from lookhear.modeling.avsr import AvsrForVideoClassification

SOUND = ("input_values", "attention_mask")
LIPS = ("pixel_values_videos", "video_attention_mask")
LENGTHS = (9, 6, 8, 7)  # of the texts: so long that the same ways of computing are best for all batches below
SHAPES = [(4, 24), (3, 40), (2, 17), (4, 31)]  # clips and frames


@pytest.fixture(autouse=True)
def one_test_does_not_know_the_others_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make_inputs(make_batch, clips, frames, seed=0):
    """So many clips: the first one the longest, the others shorter; the second one has no sound, the third no lips."""
    torch.manual_seed(seed)
    parts = []
    for row in range(clips):
        own = frames - 3 * row
        sound, lips = torch.randn(640 * own).numpy(), torch.randn(own, 16, 16).numpy()
        parts.append((None if row == 1 else sound, None if row == 2 else lips))
    batch = make_batch(parts, LENGTHS)
    return batch | {"decoder_input_ids": batch["labels"].clamp(min=0)}


def without_labels(batch, names=(*SOUND, *LIPS)):
    return {name: batch[name] for name in (*names, "decoder_input_ids")}


def compiled(model, backend="eager", **settings):
    """A compiled model and the counter of its graphs."""
    counter = CompileCounterWithBackend(backend)
    return torch.compile(model, backend=counter, **settings), counter


def assert_close(found, expected, tolerance=1e-5):
    for name in ("encoder_last_hidden_state", "ctc_logits", "logits"):
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance)
    assert torch.equal(found.frame_mask, expected.frame_mask)


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "names"),
    [
        ("spectrogram", (*SOUND, *LIPS)),
        pytest.param("spectrogram", SOUND, marks=pytest.mark.slow),
        pytest.param("grid", LIPS, marks=pytest.mark.slow),
        pytest.param("audio", SOUND, marks=pytest.mark.slow),
        pytest.param("visual", LIPS, marks=pytest.mark.slow),
        pytest.param("wav2vec2-layer", (*SOUND, *LIPS), marks=pytest.mark.slow),
        pytest.param("reference", (*SOUND, *LIPS), marks=pytest.mark.slow),
    ],
)
def test_the_whole_model_is_one_graph(make_model, make_batch, variant, names):
    model, batch = make_model(variant), make_inputs(make_batch, *SHAPES[0])
    run, counter = compiled(model, fullgraph=True)
    inputs = without_labels(batch, names)
    assert_close(run(**inputs), model(**inputs))
    assert counter.frame_count == 1


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("variant", ["spectrogram", "reference"])
def test_other_lengths_do_not_compile_anew(make_model, make_batch, variant):
    model = make_model(variant)
    run, counter = compiled(model, fullgraph=True, dynamic=True)
    for clips, frames in SHAPES:
        inputs = without_labels(make_inputs(make_batch, clips, frames))
        assert_close(run(**inputs), model(**inputs))
    assert counter.frame_count == 1


@torch.no_grad()
@pytest.mark.slow
def test_the_decoders_steps_are_one_graph(make_model, make_batch):
    """A step with a cache that grows; the first one, without a past, is a graph of its own."""
    model, batch = make_model("visual"), make_inputs(make_batch, *SHAPES[0])
    encoded = model.get_encoder()(**{name: batch[name] for name in LIPS})
    heard = {"encoder_hidden_states": encoded.last_hidden_state, "encoder_attention_mask": encoded.frame_mask}
    ids = batch["decoder_input_ids"][:, :6]
    whole = model.get_decoder()(ids, **heard).last_hidden_state
    run, counter = compiled(model.get_decoder(), fullgraph=True, dynamic=True)
    past, steps = None, []
    for place in range(ids.shape[1]):
        outputs = run(ids[:, place : place + 1], past_key_values=past, use_cache=True, **heard)
        past = outputs.past_key_values
        steps.append(outputs.last_hidden_state)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-4, atol=1e-4)
    assert counter.frame_count <= 3


@pytest.mark.slow
def test_a_compiled_model_finds_the_same_texts(make_model, make_batch):
    model = make_model()
    run = copy.deepcopy(model)
    run.forward = torch.compile(run.forward, backend="eager", dynamic=True)
    batch = make_inputs(make_batch, *SHAPES[0])
    inputs = {name: batch[name] for name in (*SOUND, *LIPS)}
    search = {"num_beams": 3, "ctc_weight": 0.3, "max_new_tokens": 8}
    assert torch.equal(run.generate(**inputs, **search), model.generate(**inputs, **search))


@pytest.mark.slow
def test_training_breaks_the_graph_at_two_places_only(make_model, make_batch):
    """Where the lips' padding is left out before batch norms, and in PyTorch's CTC loss: value-dependent shapes."""
    model, batch = make_model("visual").train(), make_inputs(make_batch, *SHAPES[0])
    batch = {name: batch[name] for name in (*LIPS, "labels")}
    exact = copy.deepcopy(model)
    found = torch._dynamo.explain(model)(**batch)
    breaks = {reason.user_stack[-1].filename.rsplit("/", 1)[-1] for reason in found.break_reasons}
    assert {"front_ends_avsr.py"} <= breaks <= {"front_ends_avsr.py", "text_scores_avsr.py", "modeling_avsr.py"}
    torch._dynamo.reset()
    run, _ = compiled(copy.deepcopy(exact), "aot_eager")
    losses = [one(**batch).loss for one in (run, exact)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    for (name, p), q in zip(run.named_parameters(), exact.parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-4, msg=name)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
def test_inductor_computes_the_same(make_model, make_batch):
    model = make_model()
    run, counter = compiled(model, "inductor", fullgraph=True, dynamic=True)
    counts = []
    for clips, frames in (SHAPES[0], SHAPES[3]):
        inputs = without_labels(make_inputs(make_batch, clips, frames))
        assert_close(run(**inputs), model(**inputs), 1e-4)
        counts.append(counter.frame_count)
    assert counts[0] == counts[1]


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("back_end", ["conv", "tcn", "transformer"])
def test_word_classification_is_one_graph(make_config, back_end):
    torch.manual_seed(0)
    config = make_config("visual", classifier_back_end=back_end, num_labels=7, classifier_hidden_size=16)
    model = AvsrForVideoClassification(config).eval()
    run, counter = compiled(model, fullgraph=True)
    videos, mask = torch.randn(3, 31, 1, 16, 16), (torch.arange(31) < torch.tensor([[31], [29], [12]])).long()
    torch.testing.assert_close(run(videos, mask).logits, model(videos, mask).logits)
    assert counter.frame_count == 1

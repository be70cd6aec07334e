"""Half precision: every model, whatever a clip has, beside float32; training and decoding too."""

import copy

import pytest
import torch

from lookhear.modeling.avsr import AvsrForVideoClassification
from lookhear.modeling.avsr.layers_avsr import AvsrConvNorm

SOUND = ("input_values", "attention_mask")
LIPS = ("pixel_values_videos", "video_attention_mask")
VIEWS = {"all": (*SOUND, *LIPS), "sound": SOUND, "lips": LIPS, "no masks": (SOUND[0], LIPS[0])}
TOLERANCE = {torch.bfloat16: 0.02, torch.float16: 0.0025}  # of the norm: five of their unit roundoffs


@pytest.fixture(params=VIEWS)
def view(request, batch):
    """Labels and what a caller may leave out of a batch in which one clip has no sound and one no lips."""
    names = [name for name in VIEWS[request.param] if name in batch]
    if not names:
        pytest.skip("the model doesn't read this")
    return {name: batch[name] for name in (*names, "labels")}


def in_half(model, batch, dtype):
    """A copy of the model and the batch in another precision."""
    halves = {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
    return copy.deepcopy(model).to(dtype), halves


def distance(half, exact):
    """Norm of the difference as a share of the exact one's."""
    assert half.isfinite().all() and half.shape == exact.shape
    return ((half.float() - exact).norm() / exact.norm()).item()


@torch.no_grad()
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_outputs_are_close(model, view, dtype):
    half_model, halves = in_half(model, view, dtype)
    exact, half = model(**view), half_model(**halves)
    assert torch.equal(half.frame_mask, exact.frame_mask)
    valid, steps = exact.frame_mask, exact.frame_mask.repeat_interleave(model.config.ctc_upsampling, dim=1)
    for name, mask in (("encoder_last_hidden_state", valid), ("ctc_logits", steps), ("logits", None)):
        assert half[name].dtype == dtype
        values, expected = (half[name], exact[name]) if mask is None else (half[name][mask], exact[name][mask])
        assert distance(values, expected) < TOLERANCE[dtype], name
    for name in ("loss", "ctc_loss", "attention_loss"):
        assert float(half[name]) == pytest.approx(float(exact[name]), rel=TOLERANCE[dtype]), name
        assert half[name].dtype == torch.float32  # sums over time and classes


def test_gradients_are_close_in_bfloat16(model, batch):
    half_model, halves = in_half(model, batch, torch.bfloat16)
    exact_model, gradients = copy.deepcopy(model), []
    for one, inputs in ((half_model, halves), (exact_model, batch)):
        one(**inputs).loss.backward()
        gradients.append({name: p.grad.float().flatten() for name, p in one.named_parameters() if p.grad is not None})
    half, exact = gradients
    assert half.keys() == exact.keys()
    # a ReLU near zero opens or closes
    assert distance(torch.cat(list(half.values())), torch.cat(list(exact.values()))) < 0.25


@torch.no_grad()
def test_a_text_found_in_bfloat16_has_the_score_of_float32(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    half_model, halves = in_half(model, inputs, torch.bfloat16)
    search = {"num_beams": 3, "ctc_weight": 0.0, "max_new_tokens": 6}
    found = half_model.generate(**halves, **search, return_dict_in_generate=True, output_scores=True)
    logits = model(**inputs, decoder_input_ids=found.sequences[:, :-1]).logits
    logits[..., model.config.pad_token_id] = -torch.inf  # no text has a blank
    scores = logits.log_softmax(dim=-1).gather(2, found.sequences[:, 1:, None])[..., 0]
    exact = scores.masked_fill(found.sequences[:, 1:] == model.config.pad_token_id, 0.0).sum(dim=1)
    assert found.sequences_scores.tolist() == pytest.approx(exact.tolist(), rel=0.03, abs=0.1)


@pytest.mark.parametrize(("num_beams", "ctc_weight"), [(1, 0.0), (1, 0.3), (1, 1.0), (3, 0.0), (3, 1.0)])
@pytest.mark.parametrize("names", [SOUND, LIPS], ids=["sound", "lips"])
def test_every_search_runs_in_bfloat16(make_model, make_clips, make_batch, names, num_beams, ctc_weight):
    model, halves = in_half(make_model("grid"), make_batch(make_clips()), torch.bfloat16)
    halves = {name: halves[name] for name in names}
    found = model.generate(**halves, num_beams=num_beams, ctc_weight=ctc_weight, max_new_tokens=4)
    assert found.dtype == torch.int64 and (found[:, 0] == model.config.decoder_start_token_id).all()


def test_autocast_trains(model, batch):
    trained = copy.deepcopy(model).train()
    exact = trained(**batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = trained(**batch).loss
    loss.backward()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact.item(), rel=0.05)
    assert all(p.grad.isfinite().all() for p in trained.parameters() if p.grad is not None)


@torch.no_grad()
@pytest.mark.parametrize("layout", ["paper", "reference"])
def test_sums_over_a_long_clip_stay_in_the_range_of_float16(make_config, layout):
    """160 frames of 512 channels are more values than float16 can count."""
    norm, mask = AvsrConvNorm(make_config(layout=layout)), torch.ones(1, 160, dtype=torch.bool)
    states = 3 + 2 * torch.randn(1, 160, 512)
    assert distance(norm(states.half(), mask), norm(states, mask)) < 0.0025


@pytest.mark.parametrize("back_end", ["conv", "tcn", "transformer"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_word_classification_is_close(make_config, back_end, dtype):
    torch.manual_seed(0)
    config = make_config("visual", classifier_back_end=back_end, num_labels=7, classifier_hidden_size=16)
    exact_model = AvsrForVideoClassification(config).eval()
    videos = {
        "pixel_values_videos": 10 * torch.randn(3, 31, 1, 16, 16),
        "video_attention_mask": (torch.arange(31) < torch.tensor([[31], [29], [12]])).long(),
        "labels": torch.tensor([0, 6, 3]),
    }
    half_model, half_videos = in_half(exact_model, videos, dtype)
    exact, half = exact_model(**videos), half_model(**half_videos)
    assert half.logits.dtype == dtype and half.loss.dtype == torch.float32
    assert distance(half.logits, exact.logits) < TOLERANCE[dtype]
    assert float(half.loss.detach()) == pytest.approx(float(exact.loss.detach()), rel=TOLERANCE[dtype])
    half.loss.backward()
    gradients = [p.grad for p in half_model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)

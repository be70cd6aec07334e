"""The hybrid loss against sums over all alignments and plain formulas."""

import itertools
import math

import pytest
import torch

from lookhear.modeling.avsr import AvsrConfig
from lookhear.modeling.avsr.text_scores_avsr import (
    alignment_objective,
    attention_objective,
    ctc_objective,
    windowed_ctc_objective,
)

PADDING = -100


def collapse(path):
    return tuple(label for label, _ in itertools.groupby(path) if label)


def alignment_log_probability(log_probs, text):
    """log of the sum over all paths that read `text`: (steps, vocab), labels."""
    steps, vocab = log_probs.shape
    paths = (path for path in itertools.product(range(vocab), repeat=steps) if collapse(path) == tuple(text))
    total = sum(math.exp(sum(float(log_probs[t, label]) for t, label in enumerate(path))) for path in paths)
    return math.log(total) if total else -math.inf


@pytest.fixture(scope="module")
def problem():
    """Logits (4 clips, 5 steps, 4 labels), valid steps, labels with EOS (3), and the texts. The last does not fit."""
    logits = 2 * torch.randn(4, 5, 4, generator=torch.Generator().manual_seed(0))
    texts = [(1, 2), (1, 1), (), (2, 2)]
    labels = torch.full((4, 3), PADDING)
    for row, text in enumerate(texts):
        labels[row, : len(text) + 1] = torch.tensor([*text, 3])
    return logits, torch.tensor([5, 4, 3, 2]), labels, texts


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("with_eos", [False, True])
def test_ctc_is_the_sum_over_alignments(make_config, monkeypatch, problem, smoothing, with_eos):
    logits, lengths, labels, texts = problem
    monkeypatch.setattr(AvsrConfig, "ctc_target_eos", with_eos)
    config = make_config(vocab_size=4, label_smoothing=smoothing)
    log_probs = logits.log_softmax(dim=-1)
    per_clip, divergences = [], []
    for row, (length, text) in enumerate(zip(lengths.tolist(), texts)):
        target = (*text, 3) if with_eos else text
        log_probability = alignment_log_probability(log_probs[row, :length], target)
        per_clip.append(0.0 if log_probability == -math.inf else -log_probability / max(len(target), 1))
        divergences += [float(-math.log(4) - log_probs[row, t].mean()) for t in range(length)]  # from uniform
    expected = (1 - smoothing) * sum(per_clip) / 4 + smoothing * sum(divergences) / len(divergences)
    assert per_clip[3] == 0.0 and min(per_clip[:3]) > 0
    assert float(ctc_objective(logits, lengths, labels, config)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_attention_loss_is_the_smoothed_mean_over_characters(make_config, problem, smoothing):
    logits, _, labels, _ = problem
    logits = logits[:, :3]
    log_probs = logits.log_softmax(dim=-1)
    terms = [
        -(1 - smoothing) * float(log_probs[row, place, label]) - smoothing * float(log_probs[row, place].mean())
        for row, places in enumerate(labels.tolist())
        for place, label in enumerate(places)
        if label != PADDING
    ]
    config = make_config(vocab_size=4, label_smoothing=smoothing)
    assert float(attention_objective(logits, labels, config)) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_published_code_smooths_over_padding(make_config, problem):
    logits, lengths, labels, _ = problem
    config = make_config("reference", vocab_size=4, label_smoothing=0.5)
    log_probs = logits.log_softmax(dim=-1)
    without = make_config("reference", vocab_size=4, label_smoothing=0.0)
    divergence = float((-math.log(4) - log_probs.mean(dim=-1)).sum() / 4)
    expected = 0.5 * float(ctc_objective(logits, lengths, labels, without)) + 0.5 * divergence
    assert float(ctc_objective(logits, lengths, labels, config)) == pytest.approx(expected, rel=1e-5)
    decoded = logits[:, :3]
    smooth = -float(decoded.log_softmax(dim=-1).mean())
    expected = 0.5 * float(attention_objective(decoded, labels, without)) + 0.5 * smooth
    assert float(attention_objective(decoded, labels, config)) == pytest.approx(expected, rel=1e-5)


def test_loss_does_not_depend_on_padding(make_config, problem):
    """More padded steps and positions, with anything in them, change nothing."""
    logits, lengths, labels, _ = problem
    config = make_config(vocab_size=4)
    longer = torch.cat((logits, torch.randn(4, 3, 4)), dim=1)
    for row, length in enumerate(lengths):
        longer[row, length:] = torch.randn(8 - length, 4)
    wider = torch.nn.functional.pad(labels, (0, 2), value=PADDING)
    torch.testing.assert_close(
        ctc_objective(longer, lengths, wider, config), ctc_objective(logits, lengths, labels, config)
    )
    torch.testing.assert_close(
        attention_objective(longer[:, :5], wider, config), attention_objective(longer[:, :3], labels, config)
    )


def test_alignment_loss_is_the_mean_over_known_steps():
    logits = torch.randn(2, 5, 7)
    labels = torch.tensor([[1, 2, -100, 3], [-100, -100, -100, -100]])  # shorter than the steps: the rest is ignored
    log_probs = logits.log_softmax(-1)
    expected = -(log_probs[0, 0, 1] + log_probs[0, 1, 2] + log_probs[0, 3, 3]) / 3
    torch.testing.assert_close(alignment_objective(logits, labels), expected)
    longer = torch.cat((labels, torch.full((2, 9), 4)), dim=1)
    longer[:, 4] = -100
    torch.testing.assert_close(alignment_objective(logits, longer), expected)
    assert alignment_objective(logits, labels[1:].expand(2, -1)) == 0


def places(path):
    """For each step of a path, which label of the text it says, or None for blank."""
    found, number = [], -1
    for label, before in zip(path, (0, *path)):
        number += label not in (0, before)
        found.append(number if label else None)
    return found


def windowed_log_probability(log_probs, text, windows):
    """The same sum over those paths alone that say each label within its window."""
    steps, vocab = log_probs.shape
    paths = [path for path in itertools.product(range(vocab), repeat=steps) if collapse(path) == tuple(text)]
    allowed = [
        path
        for path in paths
        if all(u is None or windows[u][0] <= t < windows[u][1] for t, u in enumerate(places(path)))
    ]
    terms = [sum(log_probs[t, label] for t, label in enumerate(path)) for path in allowed]
    return torch.stack(terms).logsumexp(dim=0) if terms else None


ALL = [0, 5]
WINDOWS = [  # of the labels of each clip of `problem`, EOS last
    [[0, 3], [2, 5], ALL],  # they overlap
    [[0, 2], [2, 4], ALL],  # two equal letters
    [ALL, ALL, ALL],  # no letter
    [ALL, ALL, ALL],  # a text that doesn't fit
]


@pytest.mark.parametrize("with_eos", [False, True])
def test_windowed_ctc_is_the_sum_over_the_paths_that_the_windows_allow(make_config, monkeypatch, problem, with_eos):
    logits, lengths, labels, texts = problem
    monkeypatch.setattr(AvsrConfig, "ctc_target_eos", with_eos)
    config = make_config(vocab_size=4, label_smoothing=0.3)  # which this loss doesn't have
    logits = logits.double().requires_grad_()
    log_probs = logits.log_softmax(dim=-1)
    per_clip = [torch.zeros(())] * 4
    for row, (length, text) in enumerate(zip(lengths.tolist(), texts)):
        target = (*text, 3) if with_eos else text
        found = windowed_log_probability(log_probs[row, :length], target, WINDOWS[row])
        if found is not None:
            per_clip[row] = -found / max(len(target), 1)
    expected = sum(per_clip) / 4
    loss, without = windowed_ctc_objective(logits, lengths, labels, torch.tensor(WINDOWS), config)
    assert int(without) == 1 and min(one.item() for one in per_clip[:3]) > 0
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = [torch.autograd.grad(one, logits, retain_graph=True)[0] for one in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    plain = ctc_objective(logits, lengths, labels, make_config(vocab_size=4, label_smoothing=0.0))
    assert loss.item() > plain.item() + 1e-3  # the windows leave paths out


def test_windows_of_a_whole_clip_are_plain_ctc(make_config, problem):
    logits, lengths, labels, _ = problem
    windows = torch.tensor([0, 9]).expand(4, 3, 2)
    config = make_config(vocab_size=4, label_smoothing=0.0)
    loss, without = windowed_ctc_objective(logits, lengths, labels, windows, config)
    torch.testing.assert_close(loss, ctc_objective(logits, lengths, labels, config))
    assert int(without) == 1  # the text that doesn't fit


def test_a_clip_without_a_path_has_plain_ctc_and_finite_gradients(make_config, problem):
    """The second letter's window ends before the first one's begins, or is empty; the last clip isn't seen at all."""
    logits, lengths, labels, _ = problem
    lengths = lengths.clone()
    lengths[3] = 0
    windows = torch.tensor(WINDOWS)
    windows[0, :2] = torch.tensor([[3, 5], [0, 3]])
    windows[1, 1] = 0
    config = make_config(vocab_size=4, label_smoothing=0.0)
    logits = logits.clone().requires_grad_()
    loss, without = windowed_ctc_objective(logits, lengths, labels, windows, config)
    assert int(without) == 2
    plain = ctc_objective(logits, lengths, labels, config)
    torch.testing.assert_close(loss, plain)
    gradients = [torch.autograd.grad(one, logits)[0] for one in (loss, plain)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].isfinite().all() and gradients[0][0].abs().sum() > 0


def test_windowed_ctc_does_not_depend_on_batch_mates_or_padding(make_config, problem):
    logits, lengths, labels, _ = problem
    config, windows = make_config(vocab_size=4), torch.tensor(WINDOWS)
    together, _ = windowed_ctc_objective(logits, lengths, labels, windows, config)
    alone = []
    for row, length in enumerate(lengths.tolist()):
        used = int((labels[row] != PADDING).sum())
        parts = logits[row : row + 1, :length], lengths[row : row + 1], labels[row : row + 1, :used]
        alone.append(windowed_ctc_objective(*parts, windows[row : row + 1, :used], config)[0])
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_a_row_without_a_text_is_left_out_of_windowed_ctc(make_config, problem):
    logits, lengths, labels, _ = problem
    config, windows = make_config(vocab_size=4), torch.tensor(WINDOWS)
    unknown = labels.clone()
    unknown[2:] = PADDING
    found = windowed_ctc_objective(logits, lengths, unknown, windows, config)
    expected = windowed_ctc_objective(logits[:2], lengths[:2], labels[:2], windows[:2], config)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["steps", "windows"])
def test_the_model_takes_the_alignment_loss_of_its_configuration(make_model, make_clips, make_batch, kind):
    """The two kinds read different inputs, and the other one's is ignored."""
    model = make_model("grid", alignment_loss=kind, alignment_loss_weight=0.5)
    inputs = make_batch(make_clips())
    steps, windows = torch.full((4, 26), 3), torch.tensor([0, 26]).expand(4, 7, 2)
    wanted = {"steps": {"alignment_labels": steps}, "windows": {"alignment_windows": windows}}[kind]
    with torch.no_grad():
        both = model(**inputs, alignment_labels=steps, alignment_windows=windows)
        alone, hybrid = model(**inputs, **wanted), model(**inputs)
    assert hybrid.alignment_loss is None
    torch.testing.assert_close(both.loss, alone.loss)
    torch.testing.assert_close(alone.loss, hybrid.loss + 0.5 * alone.alignment_loss)
    assert (alone.clips_without_path is None) == (kind == "steps")

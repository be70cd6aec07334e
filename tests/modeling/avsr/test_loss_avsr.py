"""The hybrid loss against sums over all alignments and plain formulas."""

import itertools
import math

import pytest
import torch

from lookhear.modeling.avsr import AvsrConfig
from lookhear.modeling.avsr.loss_avsr import alignment_objective, attention_objective, ctc_objective

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

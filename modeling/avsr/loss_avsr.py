"""The hybrid CTC/attention loss with label smoothing (paper, section 3.5)."""

import math

import torch
from torch.nn.functional import cross_entropy, ctc_loss, log_softmax, pad

from .configuration_avsr import AvsrConfig

IGNORED = -100
NO_PATH = -1e30  # log-probability of what is ruled out: finite, so that gradients are, and far below any sum of steps


@torch.compiler.disable  # the shapes in PyTorch's CTC loss depend on the lengths' values
def ctc_objective(
    ctc_logits: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor, config: AvsrConfig
) -> torch.Tensor:
    """
    Computes the CTC loss per character, averaged over the batch, smoothed towards the uniform distribution.

    Args:
        ctc_logits: `(batch, steps, vocab)`.
        lengths: `(batch,)` valid steps.
        labels: `(batch, length)`, each row's characters, the EOS and then -100.
        config: its `label_smoothing`, `ctc_target_eos`, `smooth_padding` and `empty_text_length` are used.

    Returns:
        A scalar; a text that does not fit into its steps adds 0 to the mean, and a row of -100 only is left out of it.
    """
    log_probs = log_softmax(ctc_logits.float(), dim=-1)
    target_lengths = (labels != IGNORED).sum(dim=1)
    if not config.ctc_target_eos:
        target_lengths = target_lengths - 1
    known = (labels != IGNORED).any(dim=1)  # (batch,)
    losses = ctc_loss(
        log_probs.transpose(0, 1),
        labels.clamp(min=0),
        lengths,
        target_lengths.clamp(min=0),
        blank=config.pad_token_id,
        reduction="none",
        zero_infinity=True,
    )
    losses = losses / target_lengths.where(target_lengths > 0, config.empty_text_length)
    loss = losses.where(known, 0.0).sum() / known.sum().clamp(min=1)
    if not config.label_smoothing:
        return loss
    uniform = -math.log(config.vocab_size) - log_probs.mean(dim=-1)  # (batch, steps): KL(uniform, p)
    if config.smooth_padding:
        divergence = uniform.sum() / log_probs.shape[0]
    else:
        valid = torch.arange(log_probs.shape[1], device=log_probs.device)[None] < lengths[:, None]  # (batch, steps)
        valid = valid & known[:, None]
        divergence = (uniform * valid).sum() / valid.sum().clamp(min=1)
    return (1 - config.label_smoothing) * loss + config.label_smoothing * divergence


def alignment_objective(ctc_logits: torch.Tensor, alignment_labels: torch.Tensor) -> torch.Tensor:
    """
    Computes the cross entropy per CTC step.

    Args:
        ctc_logits: `(batch, steps, vocab)`.
        alignment_labels: `(batch, length)`, a character or blank for each step, -100 ignored. Steps beyond its length
            are ignored, and so are labels beyond the steps.

    Returns:
        A scalar.
    """
    steps = ctc_logits.shape[1]
    targets = pad(alignment_labels, (0, max(steps - alignment_labels.shape[1], 0)), value=IGNORED)[:, :steps]
    total = cross_entropy(ctc_logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


@torch.compiler.disable  # a loop over the steps, whose number changes from batch to batch
def windowed_ctc_objective(
    ctc_logits: torch.Tensor,
    lengths: torch.Tensor,
    labels: torch.Tensor,
    alignment_windows: torch.Tensor,
    config: AvsrConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Computes the CTC loss per character over the paths that say each label within its window, averaged over the batch.

    Paths are restricted around a known alignment as by Senior et al. (2015) and, for transducers, Mahadeokar et al.
    (2021); blank may be anywhere. A clip that has no such path counts with its plain CTC loss.

    Args:
        ctc_logits: `(batch, steps, vocab)`.
        lengths: `(batch,)` valid steps; 0: the clip isn't seen and adds 0 to the mean.
        labels: `(batch, length)`, each row's characters, the EOS and then -100; a row of -100 only is left out.
        alignment_windows: `(batch, length, 2)` int64, the first step of each label and the one after its last.
        config: its `ctc_target_eos` and `empty_text_length` are used.

    Returns:
        The loss, a scalar, and the number of clips without a path, a scalar.
    """
    log_probs = log_softmax(ctc_logits.float(), dim=-1)
    target_lengths = ((labels != IGNORED).sum(dim=1) - int(not config.ctc_target_eos)).clamp(min=0)
    blank, targets = config.pad_token_id, labels.clamp(min=0)
    plain = ctc_loss(
        log_probs.transpose(0, 1), targets, lengths, target_lengths, blank, reduction="none", zero_infinity=True
    )
    windowed = -_windowed_log_probability(log_probs, lengths, targets, target_lengths, alignment_windows, blank)
    possible, seen = windowed < -NO_PATH / 2, lengths > 0
    known = (labels != IGNORED).any(dim=1)
    loss = torch.where(possible & seen, windowed, plain)
    loss = loss / target_lengths.where(target_lengths > 0, config.empty_text_length)
    return loss.where(known, 0.0).sum() / known.sum().clamp(min=1), (known & seen & ~possible).sum()


def _windowed_log_probability(
    log_probs: torch.Tensor,
    lengths: torch.Tensor,
    targets: torch.Tensor,
    target_lengths: torch.Tensor,
    windows: torch.Tensor,
    blank: int,
) -> torch.Tensor:
    """
    Sums over the paths that spell the targets with each label inside its window.

    A state is a place in the targets with a blank before, between and after the labels: state 2u + 1 is label u.

    Args:
        log_probs: `(batch, steps, vocab)` of CTC.
        lengths: `(batch,)` valid steps.
        targets: `(batch, length)`, anything after a text's end.
        target_lengths: `(batch,)` labels.
        windows: see [`windowed_ctc_objective`].
        blank: its label.

    Returns:
        `(batch,)` log-probabilities, below half of `NO_PATH` where there is no path.
    """
    batch, steps, _ = log_probs.shape
    step = torch.arange(steps, device=log_probs.device)[None, :, None]
    inside = (step >= windows[:, None, :, 0]) & (step < windows[:, None, :, 1])  # (batch, steps, length)
    spoken = log_probs.gather(2, targets[:, None].expand(-1, steps, -1)).masked_fill(~inside, NO_PATH)
    silent = log_probs[..., blank, None]
    pairs = torch.stack((silent.expand_as(spoken), spoken), dim=3).flatten(2)  # blank, label, blank, label ...
    emitted = torch.cat((pairs, silent), dim=2)  # (batch, steps, states)
    differs = pad(targets[:, 1:] != targets[:, :-1], (1, 0))  # from the label before it, which can then precede it
    leaps = pad(torch.stack((torch.zeros_like(differs), differs), dim=2).flatten(1), (0, 1))  # (batch, states)
    totals = pad(emitted[:, 0, :2], (0, emitted.shape[2] - 2), value=NO_PATH)
    for number in range(1, steps):
        before = pad(totals, (2, 0), value=NO_PATH)
        leapt = before[:, :-2].masked_fill(~leaps, NO_PATH)
        reached = torch.stack((totals, before[:, 1:-1], leapt)).logsumexp(dim=0) + emitted[:, number]
        totals = torch.where((number < lengths)[:, None], reached, totals)
    last = 2 * target_lengths[:, None]
    ends = torch.cat(
        (totals.gather(1, last), totals.gather(1, (last - 1).clamp(min=0))), dim=1
    )  # in blank, in a label
    return torch.where(target_lengths > 0, ends.logsumexp(dim=1), ends[:, 0])


def attention_objective(logits: torch.Tensor, labels: torch.Tensor, config: AvsrConfig) -> torch.Tensor:
    """
    Computes the smoothed cross entropy per character.

    Args:
        logits: `(batch, length, vocab)`.
        labels: `(batch, length)`, -100 ignored.
        config: its `label_smoothing`, `smooth_padding` and `empty_text_length` are used.

    Returns:
        A scalar.
    """
    flat, targets = logits.float().flatten(0, 1), labels.flatten()
    counted = labels != IGNORED
    empty = counted.sum(dim=1, keepdim=True) == 1
    weights = (counted * torch.where(empty, config.empty_text_length, 1)).flatten()
    smoothing = 0.0 if config.smooth_padding else config.label_smoothing
    losses = cross_entropy(flat, targets, ignore_index=IGNORED, label_smoothing=smoothing, reduction="none")
    loss = (losses * weights).sum() / weights.sum().clamp(min=1)
    if not config.smooth_padding:
        return loss
    smooth = -log_softmax(flat, dim=-1).mean()  # over padding too, as the published code does
    return (1 - config.label_smoothing) * loss + config.label_smoothing * smooth

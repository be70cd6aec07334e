"""The hybrid CTC/attention loss with label smoothing (paper, section 3.5)."""

import math

import torch
from torch.nn.functional import cross_entropy, ctc_loss, log_softmax, pad

from .configuration_avsr import AvsrConfig

IGNORED = -100


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

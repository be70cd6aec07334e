"""The word classifier with its three back-ends."""

import pytest
import torch
from transformers import AutoModelForVideoClassification

from lookhear.modeling.avsr import AvsrForVideoClassification

FRAMES = (29, 31, 12, 45)


def build(make_config, back_end, labels=7, **fields):
    torch.manual_seed(0)
    fields = {"classifier_hidden_size": 16, **fields}
    config = make_config("visual", classifier_back_end=back_end, num_labels=labels, **fields)
    return AvsrForVideoClassification(config).eval()


@pytest.fixture(params=["conv", "tcn", "transformer"])
def classifier(request, make_config):
    return build(make_config, request.param)


@pytest.fixture(scope="module")
def clips():
    """Four clips of different lengths and contrasts, padded with noise."""
    generator = torch.Generator().manual_seed(0)
    contrast = torch.tensor([5.0, 50.0, 20.0, 10.0])[:, None, None, None, None]
    videos = contrast * torch.randn(4, max(FRAMES), 1, 16, 16, generator=generator)
    return videos, (torch.arange(max(FRAMES))[None] < torch.tensor(FRAMES)[:, None]).long()


@torch.no_grad()
def test_result_does_not_depend_on_the_batch(classifier, clips):
    videos, mask = clips
    together = classifier(videos, mask).logits
    assert together.shape == (4, 7)
    for row, frames in enumerate(FRAMES):
        alone = classifier(videos[row : row + 1, :frames]).logits[0]
        torch.testing.assert_close(alone, together[row], rtol=1e-4, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-2


def test_loss_is_smoothed_cross_entropy_and_every_part_learns(classifier, clips):
    labels = torch.tensor([0, 3, 6, 3])
    outputs = classifier(*clips, labels=labels)
    expected = torch.nn.functional.cross_entropy(outputs.logits, labels, label_smoothing=0.01)
    torch.testing.assert_close(outputs.loss, expected)
    classifier.train()(*clips, labels=labels).loss.backward()
    without = [name for name, p in classifier.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias before a batch norm and the keys' bias before a softmax have no effect
    assert all(name.endswith(("conv1.bias", "conv2.bias", "k_proj.bias", "hidden.bias")) for name in without), without


@torch.no_grad()
def test_save_and_load(classifier, clips, tmp_path):
    classifier.save_pretrained(tmp_path)
    back = AutoModelForVideoClassification.from_pretrained(tmp_path)
    assert type(back) is AvsrForVideoClassification and back.config.num_labels == 7
    assert torch.equal(back(*clips).logits, classifier(*clips).logits)


def test_gradient_checkpointing_changes_nothing(make_config, clips):
    gradients = []
    for checkpointing in (False, True):
        model = build(make_config, "transformer").train()
        if checkpointing:
            model.activation_checkpointing_enable()
        model(*clips, labels=torch.arange(4)).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients):
        torch.testing.assert_close(plain, checkpointed)

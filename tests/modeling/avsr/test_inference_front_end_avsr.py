"""The front-end of the lips, prepared for inference: the same vectors, the same saved weights, undone by training."""

import copy

import pytest
import torch
from torch import nn

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration
from lookhear.modeling.avsr.front_ends_avsr import AvsrFoldedConvolution, AvsrVisualFrontEnd

FRAMES = 7


def draw_statistics(model: nn.Module) -> nn.Module:
    """Batch norms that change what they get."""
    torch.manual_seed(1)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.2)
            nn.init.uniform_(norm.running_var, 0.3, 2.0)
            nn.init.uniform_(norm.weight, -1.0, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
    return model


def make_front_end(**fields) -> AvsrVisualFrontEnd:
    torch.manual_seed(0)
    small = {"stem_channels": 4, "hidden_sizes": (8, 16), "depths": (2, 1), "crop_size": 20}
    config = AvsrConfig(visual_config=small | fields).visual_config
    front_end = AvsrVisualFrontEnd(config)
    for part in front_end.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    return draw_statistics(front_end).eval()


def folded(model: nn.Module) -> list[AvsrFoldedConvolution]:
    return [part for part in model.modules() if isinstance(part, AvsrFoldedConvolution)]


@pytest.fixture
def clips() -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of two clips, the second one shorter."""
    mask = torch.arange(FRAMES) < torch.tensor([[FRAMES], [4]])
    return torch.randn(2, FRAMES, 1, 20, 20, generator=torch.Generator().manual_seed(0)), mask


@pytest.mark.parametrize(
    "fields",
    [
        {"layer_type": "bottleneck"},
        {"layer_type": "basic"},
        {"layer_type": "basic", "activation": "silu"},
        {"layer_type": "basic", "stem_pool": False, "downsample_in_first_stage": True, "pooling": "flatten"},
        {"layer_type": "bottleneck", "stem_activation": "silu", "stem_kernel_size": (3, 5, 5)},
    ],
    ids=["bottleneck", "basic", "silu", "flattened", "three-frames"],
)
def test_vectors_are_the_same(clips, fields):
    front_end = make_front_end(**fields)
    with torch.no_grad():
        expected = front_end(*clips)
        front_end.prepare_for_inference()
        found = front_end(*clips)
        front_end.folded_stem = AvsrFoldedConvolution(front_end.stem, front_end.stem_norm, 8)  # as on a GPU
        eight = front_end(*clips)
    assert expected.abs().max() > 0.5 and not torch.equal(found, expected)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (eight - expected).abs().max() < 1e-5 * expected.abs().max()


def test_only_folded_convolutions_run(clips, monkeypatch):
    front_end = make_front_end(layer_type="bottleneck")
    front_end.prepare_for_inference()
    formats = []
    monkeypatch.setattr(nn.BatchNorm2d, "forward", None)
    monkeypatch.setattr(nn.Conv2d, "forward", None)
    plain = AvsrFoldedConvolution.forward

    def watched(self, maps):
        formats.append(maps.is_contiguous(memory_format=torch.channels_last))
        return plain(self, maps)

    monkeypatch.setattr(AvsrFoldedConvolution, "forward", watched)
    with torch.no_grad():
        front_end(*clips)
    assert formats == [True] * (1 + 3 * 3 + 2)  # stem, three blocks, two shortcuts


def test_gradients_are_those_of_the_parameters(clips):
    """With gradients the parameters compute, so that fine-tuning in evaluation mode is as before."""
    front_end = make_front_end()
    plain = copy.deepcopy(front_end)
    front_end.prepare_for_inference()
    for one in (front_end, plain):
        one(*clips).square().sum().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(front_end.parameters(), plain.parameters(), strict=True))


def test_saved_weights_are_those_of_before(make_model, tmp_path):
    model = draw_statistics(make_model("visual"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.prepare_for_inference() is model
    assert folded(model)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in make_model("visual").parameters())
    model.save_pretrained(tmp_path)
    loaded = AvsrForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert before.keys() == model.state_dict().keys() == loaded.keys()
    assert all(torch.equal(value, before[name]) for name, value in loaded.items())


@pytest.mark.parametrize("way", ["training", "loading"])
def test_other_weights_are_not_read_with_old_numbers(clips, way):
    """What training or loading changes is not computed with what was folded before."""
    front_end, other = make_front_end(), make_front_end()
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.3)
    front_end.prepare_for_inference()
    if way == "loading":
        front_end.load_state_dict(other.state_dict())
    else:
        front_end.train()
        with torch.no_grad():
            for parameter, value in zip(front_end.parameters(), other.parameters(), strict=True):
                parameter.copy_(value)
        front_end.eval()
    assert not folded(front_end)
    with torch.no_grad():
        expected = other(*clips)
        assert torch.equal(front_end(*clips), expected)
        front_end.prepare_for_inference()
        assert folded(front_end)
        assert torch.allclose(front_end(*clips), expected, rtol=1e-4, atol=1e-4)


def test_what_is_folded_moves_with_the_model(clips):
    front_end = make_front_end()
    front_end.prepare_for_inference()
    with torch.no_grad():
        expected = front_end(*clips)
        half = copy.deepcopy(front_end).bfloat16()
        found = half(clips[0].bfloat16(), clips[1])
    assert found.dtype == torch.bfloat16 and half.folded_stem.weight.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(part.weight.is_contiguous(memory_format=torch.channels_last) for part in folded(half))


def test_a_model_in_training_or_without_weights_stays_as_it_is():
    front_end = make_front_end().train()
    front_end.prepare_for_inference()
    assert not folded(front_end)
    with torch.device("meta"):
        empty = AvsrVisualFrontEnd(front_end.config).eval()
    empty.prepare_for_inference()
    assert not folded(empty)


def test_the_pipeline_prepares_its_model(tiny_checkpoint):
    from transformers import pipeline

    import lookhear  # noqa: F401  (registers the task)

    asr = pipeline("audio-visual-speech-recognition", model=str(tiny_checkpoint))
    assert folded(asr.model)

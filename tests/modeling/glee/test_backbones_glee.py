"""ResNet, Swin and EVA-02 as GLEE's backbones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import ResNetConfig, SwinConfig

from lookhear.modeling.glee import GleeConfig, GleeEvaConfig
from lookhear.modeling.glee.attention_glee import apply_rotary, rotary_table
from lookhear.modeling.glee.backbone_glee import (
    GleeConvolution,
    GleeEvaBackbone,
    GleeFrozenBatchNorm2d,
    fold_batch_norms,
    join_windows,
    make_backbone,
    split_windows,
)

STAGES = ["stage1", "stage2", "stage3", "stage4"]


def eva_config(**fields) -> GleeEvaConfig:
    defaults = {
        "image_size": 128,
        "patch_size": 16,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "window_size": 4,
        "pretrain_image_size": 48,
        "pyramid_size": 16,
    }
    return GleeEvaConfig(**{**defaults, **fields})


@pytest.fixture
def eva() -> GleeEvaBackbone:
    torch.manual_seed(0)
    backbone = GleeEvaBackbone(eva_config(initializer_range=0.2)).eval()
    for module in backbone.modules():  # norms and biases that do something
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.bias, std=0.1)
    return backbone


def image(height: int = 128, width: int = 128, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def configs() -> list:
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], out_features=STAGES)
    swin = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=2, image_size=64, out_features=STAGES
    )
    return [resnet, swin, eva_config()]


@pytest.mark.parametrize(
    ("size", "count"),
    [("lite", 23_454_912), ("plus", 195_201_204), ("pro", 307_914_176)],
    ids=lambda value: str(value),
)
def test_published_sizes(size, count):
    with torch.device("meta"):
        backbone = make_backbone(getattr(GleeConfig, size)().backbone_config)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == count


@pytest.mark.parametrize("config", configs(), ids=lambda config: config.model_type)
@torch.no_grad()
def test_four_maps_finest_first(config):
    backbone = make_backbone(config).eval()
    maps = backbone(image(64, 128, batch=2)).feature_maps
    finest = 8 if isinstance(config, GleeEvaConfig) else 4
    expected = [(2, width, 64 // (finest << i), 128 // (finest << i)) for i, width in enumerate(backbone.channels)]
    assert [tuple(feature_map.shape) for feature_map in maps] == expected


@pytest.mark.parametrize("config", configs(), ids=lambda config: config.model_type)
@torch.no_grad()
def test_an_image_does_not_see_its_batch_mates(config):
    torch.manual_seed(0)
    backbone, batch = make_backbone(config).eval(), image(64, 128, batch=2)
    for together, alone in zip(backbone(batch).feature_maps, backbone(batch[1:]).feature_maps):
        torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------ ResNet, Swin


def test_frozen_norm_is_a_batch_norm_that_does_not_learn():
    norm, frozen = nn.BatchNorm2d(6), GleeFrozenBatchNorm2d(6)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    frozen.load_state_dict(norm.state_dict())  # with its counter of batches, which is left out
    x = torch.randn(2, 6, 5, 4, requires_grad=True)
    torch.testing.assert_close(frozen.train()(x), norm.eval()(x))
    assert list(frozen.parameters()) == [] and not any("tracked" in name for name in frozen.state_dict())
    frozen(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_resnet_has_only_frozen_norms():
    backbone = make_backbone(configs()[0]).train()
    norms = [module for module in backbone.modules() if isinstance(module, GleeFrozenBatchNorm2d)]
    assert len(norms) == 1 + 4 * (3 + 1) and not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    first = backbone(image()).feature_maps[-1]
    assert torch.equal(first, backbone(image()).feature_maps[-1])
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_swin_has_no_unused_norm():
    backbone = make_backbone(configs()[1])
    assert not any(name.startswith("swin.layernorm") for name in backbone.state_dict())
    sum(feature_map.sum() for feature_map in backbone(image()).feature_maps).backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


# ------------------------------------------------------------------------------------------------------------ EVA-02


@pytest.mark.parametrize(("height", "width"), [(8, 4), (5, 7), (1, 1)])
def test_windows_come_back_without_their_filling(height, width):
    states = torch.randn(2, height, width, 3)
    windows = split_windows(states, 4)
    assert windows.shape == (2 * -(-height // 4) * -(-width // 4), 16, 3)
    assert torch.equal(join_windows(windows, 4, height, width), states)
    assert windows.abs().sum() == pytest.approx(states.abs().sum().item(), rel=1e-5)  # the filling is 0


def test_a_window_is_a_square_of_the_image():
    states = torch.arange(8 * 8).reshape(1, 8, 8, 1).float()
    assert torch.equal(split_windows(states, 4)[1].reshape(4, 4), states[0, :4, 4:, 0])


def test_rotary_scores_depend_on_distances_only():
    """Queries and keys that are moved together keep their products; half of a head turns with each direction."""
    query, key = torch.randn(2, 8).unbind(0)
    table = rotary_table(torch.tensor([0.0, 2.0, 5.0, 7.0]), torch.tensor([1.0, 4.0, 0.0, 3.0]), 8, 100.0)
    turned = [apply_rotary(states.expand(1, 1, 4, 8), table)[0, 0] for states in (query, key)]
    scores = turned[0] @ turned[1].T
    assert scores[0, 1] == pytest.approx(scores[2, 3].item(), rel=1e-5)  # both 2 rows and 3 columns apart
    assert abs(scores[0, 1] - scores[0, 2]) > 1e-3


@torch.no_grad()
def test_positions_by_index_are_right_at_full_width_only(eva):
    by_index = eva._rotary_of_image(4, 8, "cpu")
    eva.config.rope_rows_by_index = False
    by_place = eva._rotary_of_image(4, 8, "cpu")
    assert torch.equal(by_index[0], by_place[0]) and torch.equal(by_index[1], by_place[1])
    narrow = eva._rotary_of_image(8, 4, "cpu")  # row r, column c as in the wide image
    assert torch.equal(narrow[0].unflatten(0, (8, 4))[:4], by_place[0].unflatten(0, (4, 8))[:, :4])
    right = eva(image(128, 64)).feature_maps[0]
    eva.config.rope_rows_by_index = True
    assert (eva(image(128, 64)).feature_maps[0] - right).abs().max() > 1e-3


@torch.no_grad()
def test_larger_images_need_right_positions(eva):
    with pytest.raises(ValueError, match=r"pixel_values: 10 x 8 patches are more than the 8 x 8.*rope_rows_by_index"):
        eva(image(160, 128))
    eva.config.rope_rows_by_index = False
    assert eva(image(160, 128)).feature_maps[0].shape == (1, 16, 20, 16)


@torch.no_grad()
def test_attention_backends_agree(eva):
    maps = {}
    for name in ("sdpa", "eager"):
        eva.set_attn_implementation(name)
        maps[name] = eva(image(96, 128)).feature_maps
    for one, other in zip(maps["sdpa"], maps["eager"]):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hidden_states_and_attentions(eva):
    eva.set_attn_implementation("eager")
    output = eva(image(96, 128), output_hidden_states=True, output_attentions=True)
    assert [tuple(states.shape) for states in output.hidden_states] == [(1, 6, 8, 32)] * 4
    assert [tuple(weights.shape) for weights in output.attentions] == [(4, 2, 16, 16)] * 2 + [(1, 2, 48, 48)]
    assert all(torch.allclose(weights.sum(-1), torch.ones(())) for weights in output.attentions)


@torch.no_grad()
def test_chosen_maps(eva):
    some = GleeEvaBackbone(eva_config(out_features=["p4", "p6"])).eval()
    some.load_state_dict(eva.state_dict())
    assert some.channels == [16, 16]
    for chosen, whole in zip(some(image()).feature_maps, eva(image()).feature_maps[1::2], strict=True):
        assert torch.equal(chosen, whole)


def test_checkpointing_keeps_gradients(eva):
    def gradients() -> dict[str, torch.Tensor]:
        eva.zero_grad()
        sum(feature_map.square().mean() for feature_map in eva(image(96, 64)).feature_maps).backward()
        return {name: parameter.grad.clone() for name, parameter in eva.named_parameters()}

    eva.train()
    for layer in eva.layers:
        layer.drop_path.p = 0.0
    plain = gradients()
    eva.activation_checkpointing_enable()
    assert all(layer.gradient_checkpointing for layer in eva.layers)
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, plain[name], atol=1e-6, rtol=1e-5, msg=name)


def test_blocks_are_left_out_while_training_only(eva):
    assert torch.equal(eva(image()).feature_maps[0], eva(image()).feature_maps[0])
    eva.train()
    eva.layers[2].drop_path.p = 0.5
    torch.manual_seed(0)
    outcomes = {eva(image()).feature_maps[0].sum().item() for _ in range(8)}
    assert len(outcomes) > 1


@torch.no_grad()
def test_weights_come_back(eva, tmp_path):
    eva.save_pretrained(tmp_path)
    back, report = GleeEvaBackbone.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert back.config.to_diff_dict() == {**eva.config.to_diff_dict(), "architectures": ["GleeEvaBackbone"]}
    for one, other in zip(eva(image()).feature_maps, back(image()).feature_maps, strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_bfloat16_and_a_graph_without_breaks(eva):
    exact = eva(image(64, 96)).feature_maps
    graph = torch.compile(eva, backend="eager", fullgraph=True)(image(64, 96)).feature_maps
    half = eva.to(torch.bfloat16)(image(64, 96).to(torch.bfloat16)).feature_maps
    for one, two, three in zip(exact, graph, half, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
        assert three.dtype == torch.bfloat16 and (three.float() - one).abs().mean() < 0.05


def test_new_weights_are_sane():
    torch.manual_seed(0)
    backbone = GleeEvaBackbone(eva_config(hidden_size=64))
    assert not any(tensor.is_meta or not tensor.isfinite().all() for tensor in backbone.parameters())
    assert abs(float(backbone.embeddings.position_embeddings.detach().std()) - 0.02) < 0.004
    for name, module in backbone.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            assert abs(float(module.weight.detach().std()) - 0.02) < 0.004, name
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all() and not module.bias.any(), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 3}, "hidden_size .32. over num_attention_heads .3. must be a multiple of 4"),
        ({"image_size": 100}, "image_size .100. must be a multiple of patch_size .16."),
        ({"window_size": 0}, "window_size must be above 0"),
        ({"window_block_indexes": [0, 3]}, r"window_block_indexes holds \[3\], but blocks are 0 to 2"),
    ],
)
def test_wrong_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        eva_config(**fields)


# ----------------------------------------------------------------------------------------------- norms that are folded


@pytest.fixture
def resnet():
    """A small ResNet whose norms have drawn statistics, in evaluation mode."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 2],
        out_features=["stage1", "stage2"],
        layer_type="bottleneck",
    )
    backbone = make_backbone(config).eval()
    for norm in backbone.modules():
        if isinstance(norm, GleeFrozenBatchNorm2d):
            for values in (norm.weight, norm.running_var):
                values.uniform_(0.5, 2.0)
            for values in (norm.bias, norm.running_mean):
                values.normal_(std=0.3)
    return backbone


def fold(backbone: nn.Module) -> int:
    """Folds all norms; returns how many convolutions do their work."""
    fold_batch_norms(backbone)
    return count_folded(backbone)


@torch.no_grad()
def count_folded(backbone: nn.Module) -> int:
    return sum(isinstance(one, GleeConvolution) and one.is_folded for one in backbone.modules())


def feature_maps(backbone: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    return list(backbone(images, return_dict=True).feature_maps)


def test_folded_norms_give_the_same_maps(resnet, monkeypatch):
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = feature_maps(resnet, images)
        assert fold(resnet) == 1 + 3 * 3 + 1  # stem, three blocks of three, a shortcut
        monkeypatch.setattr(nn.functional, "batch_norm", None)  # they are not computed any more
        for found, wanted in zip(feature_maps(resnet, images), expected, strict=True):
            assert not torch.equal(found, wanted)
            assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
            assert found.is_contiguous(memory_format=torch.channels_last)


def test_with_gradients_the_parameters_compute(resnet):
    images, plain = torch.randn(1, 3, 64, 64), copy.deepcopy(resnet)
    fold(resnet)
    for one in (resnet, plain):
        sum(maps.square().sum() for maps in feature_maps(one, images)).backward()
    gradients = [[parameter.grad for parameter in one.parameters()] for one in (resnet, plain)]
    assert gradients[0] and all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("way", ["training", "loading"])
def test_folded_numbers_do_not_outlive_the_weights(resnet, way):
    images, other = torch.randn(1, 3, 64, 64), copy.deepcopy(resnet)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_(std=0.3)
        fold(resnet)
        if way == "loading":
            resnet.load_state_dict(other.state_dict())
        else:
            resnet.train()
            for parameter, value in zip(resnet.parameters(), other.parameters(), strict=True):
                parameter.copy_(value)
            resnet.eval()
        assert count_folded(resnet) == 0
        for found, wanted in zip(feature_maps(resnet, images), feature_maps(other, images), strict=True):
            assert torch.equal(found, wanted)


def test_folded_numbers_are_no_part_of_a_checkpoint_and_move_with_it(resnet):
    names, images = list(resnet.state_dict()), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = feature_maps(resnet, images)
        folded = fold(resnet)
        assert list(resnet.state_dict()) == names and fold(resnet.train()) == 0  # nor while it is trained
        fold(resnet.eval())
        half = copy.deepcopy(resnet).bfloat16()
        assert count_folded(half) == folded
        for found, wanted in zip(feature_maps(half, images.bfloat16()), expected, strict=True):
            assert found.dtype == torch.bfloat16
            assert (found.float() - wanted).abs().max() < 0.1 * wanted.abs().max()


def test_an_adapter_around_a_convolution_stays_before_its_norm(resnet):
    """What it adds is normed with the convolution's output, so that one is not folded."""

    class Adapter(nn.Module):
        def __init__(self, base: nn.Conv2d):
            super().__init__()
            self.base, self.added = base, copy.deepcopy(base)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + self.added(x)

    layer, images = resnet.embedder.embedder, torch.randn(1, 3, 64, 64)
    layer.convolution = Adapter(layer.convolution)
    with torch.no_grad():
        expected = feature_maps(resnet, images)
        assert fold(resnet) == 3 * 3 + 1  # all but the stem
        for found, wanted in zip(feature_maps(resnet, images), expected, strict=True):
            assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_weights_that_are_not_there_are_not_folded():
    with torch.device("meta"):
        backbone = make_backbone(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])).eval()
    assert fold(backbone) == 0

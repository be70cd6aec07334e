"""Weights taken from other checkpoints."""

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from lookhear.modeling.avsr import AvsrConfig, AvsrForConditionalGeneration, AvsrForVideoClassification
from lookhear.training.avsr.initialise import initialise_modules, load_resnet, select_modules

RESNETS = {
    "basic": (BasicBlock, {"layer_type": "basic", "hidden_sizes": (64, 128, 256, 512), "depths": (1, 1, 1, 1)}),
    "bottleneck": (
        Bottleneck,
        {"layer_type": "bottleneck", "hidden_sizes": (256, 512, 1024, 2048), "depths": (1, 1, 1, 1)},
    ),
}


def build(modality: str, seed: int = 0, **visual) -> AvsrForConditionalGeneration:
    torch.manual_seed(seed)
    tiny = {"layer_type": "basic", "stem_channels": 4, "hidden_sizes": (4, 8), "depths": (1, 1), "crop_size": 16}
    config = AvsrConfig(
        modality=modality,
        audio_config={"front_end": "spectrogram", "num_mel_bins": 8, "n_fft": 400},
        visual_config={**tiny, **visual},
        hidden_size=16,
        encoder_layers=1,
        fusion_layers=1,
        decoder_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        head_hidden_sizes=(),
    )
    return AvsrForConditionalGeneration(config).eval()


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def disturb_statistics(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)


def test_modules_of_two_stages_make_the_third(tmp_path):
    audio, visual, both = build("audio", 1), build("visual", 2), build("audiovisual", 3)
    disturb_statistics(visual)
    audio.save_pretrained(tmp_path / "audio")
    visual.save_pretrained(tmp_path / "visual")
    encoder = "model.encoder"
    initialise_modules(
        both,
        [
            {
                "checkpoint": str(tmp_path / "audio"),
                "modules": {
                    f"{encoder}.audio_encoder": f"{encoder}.audio_encoder",
                    f"{encoder}.norm": f"{encoder}.audio_norm",
                },
            },
            {
                "checkpoint": str(tmp_path / "visual"),
                "modules": [f"{encoder}.visual_front_end", f"{encoder}.visual_encoder"],
            },
        ],
    )
    ours, untouched = both.model.encoder, build("audiovisual", 3).model
    assert same(ours.audio_encoder, audio.model.encoder.audio_encoder)
    assert same(ours.audio_norm, audio.model.encoder.norm)
    assert same(ours.visual_front_end, visual.model.encoder.visual_front_end)
    assert same(ours.visual_encoder, visual.model.encoder.visual_encoder)
    assert same(ours.fusion, untouched.encoder.fusion) and same(both.model.decoder, untouched.decoder)


def test_front_end_comes_from_a_word_classifier(tmp_path):
    recogniser = build("visual", 1)
    torch.manual_seed(5)
    words = AvsrForVideoClassification(recogniser.config)
    disturb_statistics(words)
    words.save_pretrained(tmp_path)
    initialise_modules(recogniser, [{"checkpoint": str(tmp_path), "modules": ["visual_front_end"]}])
    assert same(recogniser.model.encoder.visual_front_end, words.visual_front_end)


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        (["model.encoder.fusion"], "no module 'model.encoder.fusion'"),
        (["model.oven"], "no module 'model.oven'; there"),
    ],
)
def test_missing_module_is_named(tmp_path, modules, named):
    build("audio").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=named):
        initialise_modules(build("audiovisual"), [{"checkpoint": str(tmp_path), "modules": modules}])


def test_unknown_format_is_named():
    with pytest.raises(ValueError, match="format 'onnx' is unknown; it is one of lookhear, moco"):
        initialise_modules(build("visual"), [{"checkpoint": "x", "format": "onnx"}])


def test_selected_modules_are_those_named():
    model = build("audiovisual")
    found = select_modules(model, ["model.encoder.fusion", "ctc_head"])
    assert found == [model.model.encoder.fusion, model.ctc_head] and select_modules(model, []) == []
    with pytest.raises(ValueError, match="there are .*ctc_head"):
        select_modules(model, ["heads"])


@pytest.mark.parametrize("kind", RESNETS)
@torch.no_grad()
def test_torchvision_resnet_gives_the_same_maps(tmp_path, kind):
    block, visual = RESNETS[kind]
    torch.manual_seed(0)
    theirs = ResNet(block, [1, 1, 1, 1]).eval()
    disturb_statistics(theirs)
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    model = build("visual", stem_channels=64, **visual)
    stem = model.model.encoder.visual_front_end.stem.weight.clone()
    initialise_modules(model, [{"checkpoint": str(tmp_path / "resnet.pth"), "format": "torchvision"}])
    front_end = model.model.encoder.visual_front_end
    maps = torch.randn(2, 64, 16, 16)
    expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(maps))))
    torch.testing.assert_close(front_end.resnet(maps), expected)
    assert torch.equal(front_end.stem.weight, stem)


def moco(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state as MoCo v2 stores it, beside another encoder."""
    query = {f"module.encoder_q.{name}": value for name, value in state.items()}
    return query | {f"module.encoder_k.{name}": value + 1 for name, value in state.items()}


def test_moco_file_of_pytorch_is_read_without_executing_it(tmp_path):
    torch.manual_seed(0)
    theirs = ResNet(BasicBlock, [1, 1, 1, 1])
    torch.save({"epoch": 200, "state_dict": moco(theirs.state_dict())}, tmp_path / "moco.pth.tar")
    model = build("visual", stem_channels=64, **RESNETS["basic"][1])
    initialise_modules(model, [{"checkpoint": str(tmp_path / "moco.pth.tar"), "format": "moco"}])
    resnet = model.model.encoder.visual_front_end.resnet
    assert torch.equal(resnet.stages[2].layers[0].layer[1].convolution.weight, theirs.layer3[0].conv2.weight)
    torch.save({"state_dict": pytest.approx}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="code.pth' has entries that are not tensors"):
        initialise_modules(model, [{"checkpoint": str(tmp_path / "code.pth"), "format": "moco"}])


def test_unfitting_resnet_is_refused_as_a_whole(tmp_path):
    model = build("visual", stem_channels=64, **RESNETS["basic"][1])
    front_end = model.model.encoder.visual_front_end
    before = {name: value.clone() for name, value in front_end.state_dict().items()}
    deeper = ResNet(BasicBlock, [2, 1, 1, 1]).state_dict()
    save_file(deeper, tmp_path / "deeper.safetensors")
    with pytest.raises(ValueError, match=r"does not fit.* 12 weights are unknown: stages\.0\.layers\.1"):
        load_resnet(front_end, tmp_path / "deeper.safetensors")
    lacking = {name: value for name, value in deeper.items() if not name.startswith(("layer1.1", "layer4"))}
    save_file(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(ValueError, match=r"weights are missing: stages\.3"):
        load_resnet(front_end, tmp_path / "lacking.safetensors")
    with pytest.raises(ValueError, match="is not a file"):
        load_resnet(front_end, tmp_path / "nowhere.pth")
    assert all(torch.equal(before[name], value) for name, value in front_end.state_dict().items())


def test_speech_encoder_comes_from_a_wav2vec2_folder(tmp_path):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    small = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    torch.manual_seed(1)
    theirs = Wav2Vec2Model(small)
    theirs.save_pretrained(tmp_path)
    config = build("audio").config
    config.audio_config = type(config.audio_config)(front_end="wav2vec2", encoder_config=small.to_dict())
    model = AvsrForConditionalGeneration(config)
    initialise_modules(model, [{"checkpoint": str(tmp_path), "format": "speech-encoder"}])
    assert same(model.model.encoder.audio_front_end.encoder, theirs)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_the_encoder_of_a_new_model_is_the_checkpoints(kind, tmp_path):
    """A layout with a group norm, which the default configuration has not; trained as the published code does."""
    from transformers import CONFIG_MAPPING, AutoModel

    from lookhear.training.avsr.recipe import ModelRecipe
    from lookhear.training.avsr.train import build_model

    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
    sizes |= {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    theirs = AutoModel.from_config(CONFIG_MAPPING[kind](**sizes, mask_time_prob=0.05, layerdrop=0.1, hidden_dropout=0))
    theirs.half().save_pretrained(tmp_path)
    small = {"hidden_size": 16, "encoder_layers": 1, "decoder_layers": 1, "num_attention_heads": 2}
    given = {"initialise": [{"checkpoint": str(tmp_path), "format": "speech-encoder"}]}
    model = build_model(ModelRecipe(config={"modality": "audio", **small}, **given))
    ours = model.model.encoder.audio_front_end.encoder
    assert type(ours) is type(theirs) and ours.config.num_attention_heads == 3
    assert (ours.config.feat_extract_norm, ours.config.do_stable_layer_norm) == ("group", False)
    assert (ours.config.mask_time_prob, ours.config.layerdrop, ours.config.hidden_dropout) == (0.5, 0.0, 0.1)
    for name, weight in theirs.state_dict().items():
        if name != "masked_spec_embed":
            assert (
                torch.equal(ours.state_dict()[name], weight.float()) and ours.state_dict()[name].dtype == torch.float32
            )
    wrong = {"audio_config": {"encoder_config": {**sizes, "model_type": kind, "num_attention_heads": 4}}}
    with pytest.raises(ValueError, match="num_attention_heads is 3, the model's is 4"):
        build_model(ModelRecipe(config={"modality": "audio", **small, **wrong}, **given))  # a given one counts

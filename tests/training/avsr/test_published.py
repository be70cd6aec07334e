"""Checkpoints of USR 2.0, auto_avsr and VSR-ML, made up in each layout: converted by the command line, and read."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline

from lookhear import AvsrConfig, AvsrForConditionalGeneration
from lookhear.cli import main
from lookhear.modeling.avsr.convert_avsr import convert_espnet, espnet_weights
from lookhear.training.avsr import published
from lookhear.training.avsr.published import KINDS, converted_by_name

TOKENS = ["<blank>", "<unk>", "\u2581", "\u2581A", "B", "\u2581BE", "<eos>"]
SMALL = {
    "vocab_size": len(TOKENS),
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "audio_config": {"front_end": "resnet", "stem_channels": 4, "hidden_sizes": (4, 4, 8, 8)},
}
MODEL_JSON = {
    "adim": 16,
    "aheads": 2,
    "eunits": 24,
    "elayers": 2,
    "dunits": 24,
    "dlayers": 1,
    "macaron_style": True,
    "use_cnn_module": True,
    "cnn_module_kernel": 31,
    "transformer_input_layer": "conv3d",
    "transformer_encoder_attn_layer_type": "rel_mha",
    "mtlalpha": 0.1,
}
NAMES = (  # ours -> ESPnet's, in this order
    (
        r"\.resnet\.stages\.(\d)\.layers\.(\d)\.shortcut\.convolution",
        lambda m: f".trunk.layer{int(m[1]) + 1}.{m[2]}.downsample.0",
    ),
    (
        r"\.resnet\.stages\.(\d)\.layers\.(\d)\.shortcut\.normalization",
        lambda m: f".trunk.layer{int(m[1]) + 1}.{m[2]}.downsample.1",
    ),
    (
        r"\.resnet\.stages\.(\d)\.layers\.(\d)\.layer\.(\d)\.convolution",
        lambda m: f".trunk.layer{int(m[1]) + 1}.{m[2]}.conv{int(m[3]) + 1}",
    ),
    (
        r"\.resnet\.stages\.(\d)\.layers\.(\d)\.layer\.(\d)\.normalization",
        lambda m: f".trunk.layer{int(m[1]) + 1}.{m[2]}.bn{int(m[3]) + 1}",
    ),
    (r"visual_front_end\.stem_norm", "visual_front_end.frontend3D.1"),
    (r"visual_front_end\.stem", "visual_front_end.frontend3D.0"),
    (r"audio_front_end\.stem_norm", "audio_front_end.trunk.bn1"),
    (r"audio_front_end\.stem", "audio_front_end.trunk.conv1"),
    (r"model\.encoder\.transformer\.layers", "encoder.encoders"),
    (r"model\.decoder\.layers", "decoder.decoders"),
    (r"model\.decoder\.embed_tokens", "decoder.embed.0"),
    (r"model\.(en|de)coder\.norm", r"\1coder.after_norm"),
    (r"self_attn\.content_bias", "self_attn.pos_bias_u"),
    (r"self_attn\.position_bias", "self_attn.pos_bias_v"),
    (r"encoder_attn\.", "src_attn."),
    (r"_attn\.([qkv])_proj", r"_attn.linear_\1"),
    (r"_attn\.o_proj", "_attn.linear_out"),
    (r"_attn\.pos_proj", "_attn.linear_pos"),
    (r"first_feed_forward\.fc", "feed_forward_macaron.w_"),
    (r"feed_forward\.fc", "feed_forward.w_"),
    (r"decoders\.(\d)\.self_attention_residual\.norm", r"decoders.\1.norm1"),
    (r"decoders\.(\d)\.encoder_attention_residual\.norm", r"decoders.\1.norm2"),
    (r"decoders\.(\d)\.feed_forward_residual\.norm", r"decoders.\1.norm3"),
    (r"first_feed_forward_residual\.norm", "norm_ff_macaron"),
    (r"feed_forward_residual\.norm", "norm_ff"),
    (r"attention_residual\.norm", "norm_mha"),
    (r"attention_residual\.scale", "gamma_mha"),
    (r"feed_forward_residual\.scale", "gamma_ff"),
    (r"convolution_residual\.norm", "norm_conv"),
    (r"final_norm", "norm_final"),
    (r"convolution\.gate", "conv_module.pointwise_cov1"),
    (r"convolution\.output", "conv_module.pointwise_cov2"),
    (r"convolution\.(depthwise|norm)", lambda m: "conv_module." + {"depthwise": "depthwise_conv"}.get(m[1], m[1])),
)
TOPS = {
    "usr2": (
        *(
            (rf"model\.encoder\.{name}_front_end", f"encoder.frontend_{short}")
            for name, short in (("visual", "v"), ("audio", "a"))
        ),
        *(
            (rf"{ours}\.{name}{end}", theirs.format(short))
            for name, short in (("audiovisual", "av"), ("audio", "a"), ("visual", "v"))
            for ours, end, theirs in (
                (r"model\.encoder\.projections", "", "encoder.linear_{}"),
                (r"ctc_head\.heads", r"\.output", "ctc_{}.ctc_lo"),
                (r"decoder_head\.heads", r"\.output", "decoder.out_layer_{}"),
            )
        ),
    ),
    "auto_avsr": (
        (r"model\.encoder\.\w+_front_end", "frontend"),
        (r"model\.encoder\.projections\.\w+", "proj_encoder"),
        (r"ctc_head\.output", "ctc.ctc_lo"),
        (r"decoder_head\.output", "decoder.output_layer"),
    ),
    "vsr-ml": (
        (r"model\.encoder\.\w+_front_end", "encoder.frontend"),
        (r"model\.encoder\.projections\.\w+", "encoder.embed.0"),
        (r"ctc_head\.output", "ctc.ctc_lo"),
        (r"decoder_head\.output", "decoder.output_layer"),
    ),
}


def tiny(kind: str) -> AvsrForConditionalGeneration:
    """A small model of a family, its weights and statistics at random."""
    lips = AvsrConfig.auto_avsr().visual_config.to_dict() | {"stem_channels": 4, "hidden_sizes": (4, 4, 8, 8)}
    fields = SMALL | {"visual_config": lips}
    if kind == "usr2":
        config = AvsrConfig.usr2(**fields)
    elif kind == "auto_avsr":
        config = AvsrConfig.auto_avsr("audio", conformer_kernel_size=7, **fields)
    else:
        config = AvsrConfig.vsr_ml(MODEL_JSON, visual_config=lips, vocab_size=len(TOKENS))
    torch.manual_seed(0)
    model = AvsrForConditionalGeneration(config).eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if value.ndim < 2 else value.normal_()
    return model


def published_names(kind: str, model: AvsrForConditionalGeneration) -> dict[str, torch.Tensor]:
    weights = {}
    for name, value in model.state_dict().items():
        for pattern, target in (*NAMES, *TOPS[kind]):
            name = re.sub(pattern, target, name)
        if "frontend3D.0" in name:
            value = value[:, None]
        if "pointwise" in name and name.endswith("weight"):
            value = value[..., None]
        weights[name] = value
    return weights


def wrapped(weights: dict[str, torch.Tensor], layout: str) -> dict:
    if layout == "compiled":
        return {f"_orig_mod.{name}": value for name, value in weights.items()}
    if layout == "lightning":  # beside what was trained: its teacher, settings
        student = {f"model.backbone.{name}": value for name, value in weights.items()}
        return {"state_dict": student | {"model.target_backbone.x": torch.zeros(1)}, "hyper_parameters": {"lr": 1.0}}
    if layout == "older":
        swaps = ((".after_norm.", ".norm."), ("decoder.norm.", "decoder.output_norm."), (".embed.", ".input_layer."))
        renamed = {}
        for name, value in weights.items():
            for new, old in swaps:
                name = name.replace(new, old)
            renamed[name] = value
        return renamed | {"decoder.embed.1.pe": torch.zeros(1, 5, 16)}
    return weights


def write_units(folder: Path, kind: str, tokens=TOKENS) -> Path:
    lines = [f"{token} {place}" for place, token in enumerate(tokens[1:-1], start=1)]
    file = folder / KINDS[kind].units
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def save(folder: Path, kind: str, layout: str = "flat") -> tuple[Path, AvsrForConditionalGeneration]:
    """A made-up checkpoint with its list of units beside it: what is converted, and the model in it."""
    model = tiny(kind)
    content = wrapped(published_names(kind, model), layout)
    write_units(folder, kind)
    torch.save(content, folder / "model.pth")
    if kind != "vsr-ml":
        return folder / "model.pth", model
    (folder / "model.json").write_text(json.dumps([0, len(TOKENS), MODEL_JSON]))
    return folder, model


def fail(capsys, *arguments) -> str:
    """The one line that a command ends with."""
    assert main([str(argument) for argument in arguments]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


@pytest.mark.parametrize(
    ("kind", "layout"),
    [("usr2", "flat"), ("usr2", "compiled"), ("usr2", "lightning"), ("usr2", "older"), ("auto_avsr", "flat")],
)
def test_names_there_and_back(kind, layout):
    model = tiny(kind)
    content = wrapped(published_names(kind, model), layout)
    found = convert_espnet(espnet_weights(content.get("state_dict", content)))
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_is_converted_and_reads(tmp_path, capsys, kind):
    source, model = save(tmp_path, kind, "lightning" if kind == "usr2" else "flat")
    output = tmp_path / "converted"
    assert main(["convert", kind, str(source), str(output)]) in (0, None)
    out, err = capsys.readouterr()
    assert out.strip() == str(output) and err.count(KINDS[kind].terms) == 1
    card = (output / "README.md").read_text()
    assert f"license: {KINDS[kind].licence}" in card and KINDS[kind].page in card
    loaded = AutoModelForSpeechSeq2Seq.from_pretrained(output).eval()
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert loaded.generation_config.num_beams == 40 and loaded.generation_config.ctc_weight == 0.1
    processor = AutoProcessor.from_pretrained(output)
    assert processor.tokenizer.decode([3, 4, 5, 6]) == "AB BE" and processor.tokenizer.get_vocab()["B"] == 4
    assert processor.feature_extractor.do_normalize is (kind != "usr2")
    images = processor.image_processor
    assert (images.roi_size, images.crop_size, images.image_mean, images.image_std) == (96, 88, 0.421, 0.165)
    assert images.geometry == "auto_avsr" and images.grey_after_crop is (kind != "vsr-ml")
    generator = np.random.default_rng(0)
    inputs = {}
    if loaded.config.modality != "visual":
        inputs |= {"audio": [generator.normal(size=3200).astype(np.float32)], "sampling_rate": 16000}
    if loaded.config.modality != "audio":
        inputs["videos"] = [generator.integers(0, 255, (5, 96, 96), dtype=np.uint8)]
    ids = loaded.generate(**processor(**inputs), num_beams=3)
    assert torch.equal(ids, model.generate(**processor(**inputs), num_beams=3, ctc_weight=0.1))
    asr = pipeline("audio-visual-speech-recognition", model=str(output), device="cpu")
    clip = {"sampling_rate": 16000, "audio": inputs["audio"][0]} if "audio" in inputs else {}
    clip |= {"mouths": inputs["videos"][0]} if "videos" in inputs else {}
    read = asr(clip, return_timestamps="word", num_beams=4, num_return_sequences=2, search="espnet")
    assert read["text"] == " ".join(chunk["text"] for chunk in read["chunks"])
    assert read["text"] == processor.tokenizer.decode(
        loaded.generate(**processor(**inputs), num_beams=4, search="espnet")[0]
    )
    assert all(0 <= chunk["timestamp"][0] <= chunk["timestamp"][1] <= 0.2 for chunk in read["chunks"])


def test_another_familys_file_is_named(tmp_path, capsys):
    source, _ = save(tmp_path, "auto_avsr")
    line = fail(capsys, "convert", "usr2", source, tmp_path / "out")
    assert "is not one of USR 2.0: it is one of auto_avsr: lookhear convert auto_avsr" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("encoder.after_norm.bias"), "1 weights are missing: model.encoder.norm.bias"),
        (lambda w: w.update(extra=torch.zeros(1)), "1 weights are unknown: extra"),
        (lambda w: w.pop("encoder.encoders.0.self_attn.pos_bias_u"), "pos_bias_u is missing"),
        (lambda w: w.update({"_orig_mod.ctc_a.ctc_lo.bias": torch.zeros(7)}), "ctc_a.ctc_lo.bias is there twice"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, capsys, change, message):
    weights = published_names("usr2", tiny("usr2"))
    change(weights)
    torch.save(weights, tmp_path / "model.pth")
    write_units(tmp_path, "usr2")
    assert message in fail(capsys, "convert", "usr2", tmp_path / "model.pth", tmp_path / "out")


def test_a_damaged_file_is_refused(tmp_path, capsys):
    source, _ = save(tmp_path, "auto_avsr")
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 2])
    assert "cannot be read safely" in fail(capsys, "convert", "auto_avsr", source, tmp_path / "out")


def test_units_are_needed_and_must_be_of_the_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(published.constants, "HF_HOME", str(tmp_path / "home"))
    source, _ = save(tmp_path, "usr2")
    units = tmp_path / KINDS["usr2"].units
    content = units.read_text(encoding="utf-8")
    units.unlink()
    convert = ("convert", "usr2", source, tmp_path / "out")
    line = fail(capsys, *convert)
    assert "units: unigram1000_units.txt is needed" in line and "--units" in line and KINDS["usr2"].page in line
    other = tmp_path / "list.txt"
    for wrong, message in (
        (content.rsplit("\n", 2)[0] + "\n", "makes 6 ids, and the checkpoint has 7"),
        (content.replace(" 3", " 4"), 'where "piece 3" should be'),
        ("", "is empty"),
    ):
        other.write_text(wrong, encoding="utf-8")
        assert message in fail(capsys, *convert, "--units", other)


def test_a_list_of_characters_comes_with_the_model(tmp_path):
    source, _ = save(tmp_path, "vsr-ml")
    (source / KINDS["vsr-ml"].units).unlink()
    characters = ["<blank>", "<unk>", "<space>", "A", "B", "C", "<eos>"]
    (source / "model.json").write_text(json.dumps(MODEL_JSON | {"char_list": characters}))
    published.convert_published("vsr-ml", source, tmp_path / "out")
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer
    assert tokenizer.decode([3, 2, 4, 6]) == "A B" and tokenizer("a cab").input_ids == [3, 2, 5, 3, 4, 6]


def test_a_folder_without_model_json_is_named(tmp_path, capsys):
    source, _ = save(tmp_path, "vsr-ml")
    (source / "model.json").unlink()
    assert "model.json is missing" in fail(capsys, "convert", "vsr-ml", source, tmp_path / "out")


def test_what_is_on_google_drive_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(published.constants, "HF_HOME", str(tmp_path))
    line = fail(capsys, "transcribe", "talk.mp4", "--model", "usr2-base")
    assert "https://drive.google.com/file/d/1S-gTw2K" in line and "lookhear convert usr2 FILE" in line
    (tmp_path / "lookhear" / "usr2-base").mkdir(parents=True)
    assert converted_by_name("usr2-base") == tmp_path / "lookhear" / "usr2-base"

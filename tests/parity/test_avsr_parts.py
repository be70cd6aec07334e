"""Parts of AVSR against the published code: word classifier, losses, preprocessing, and what front-ends start from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoProcessor

from lookhear import AvsrForConditionalGeneration, MouthRoiImageProcessor
from lookhear.cli import main
from lookhear.modeling.avsr import AvsrConfig
from lookhear.modeling.avsr.text_scores_avsr import attention_objective, ctc_objective
from lookhear.training.avsr.convert import convert_checkpoint
from lookhear.training.avsr.initialise import initialise_modules

pytestmark = pytest.mark.parity
CLOSE = {"atol": 5e-5, "rtol": 1e-5}


@pytest.mark.parametrize("kind", ["AO", "VO", "AV"])
def test_the_command_loads_every_recogniser(avsr_folder, stored_config, stored_recogniser, tmp_path, kind):
    """Nothing is lost between the published file and the folder."""
    stored_config(kind).save_pretrained(tmp_path / "settings")
    source = str(avsr_folder / f"{kind}_state_dict.safetensors")
    assert main(["convert", "avsr", source, str(tmp_path / "new"), "--config", str(tmp_path / "settings")]) == 0
    back, expected = AvsrForConditionalGeneration.from_pretrained(tmp_path / "new"), stored_recogniser(kind)
    assert back.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in back.state_dict().items())
    assert back.model.decoder.norm.weight is back.model.encoder.norm.weight


@torch.no_grad()
def test_word_classifier_agrees(avsr, avsr_folder, tmp_path):
    folder = convert_checkpoint(avsr_folder / "LRW_state_dict.safetensors", tmp_path / "words")
    model, stored = AutoModelForVideoClassification.from_pretrained(folder).eval(), avsr("LRW_case1")
    labels = stored["in.labels"].long()
    seen = {}
    model.visual_front_end.register_forward_hook(lambda _, args, out: seen.update(visual=out))
    model.classifier.hidden.register_forward_hook(lambda _, args, out: seen.update(mean=args[0]))
    outputs = model(stored["in.frames"].unflatten(0, (len(labels), -1)), labels=labels)
    stored.compare("mid.MoCoModel", seen["visual"].flatten(0, 1), **CLOSE)
    mean = stored["mid.backend_conv1"].mean(dim=2)
    torch.testing.assert_close(seen["mean"], mean, **CLOSE)
    stored.compare("mid.backend_conv2", outputs.logits, **CLOSE)
    stored.compare("out.logits", outputs.logits, **CLOSE)
    stored.compare("loss.smooth_ce", outputs.loss, **CLOSE)
    pixels = AutoProcessor.from_pretrained(folder).image_processor
    assert (pixels.image_mean, pixels.image_std) == (0.413621, 0.1700239)


def test_losses_agree(avsr):
    """The third text does not fit into its steps."""
    unit = avsr("loss_unit")
    log_probs, labels = unit["in.ctc_log_probs"].transpose(0, 1), unit["in.target_out"].long()  # (batch, steps, vocab)
    labels = labels.masked_fill(torch.arange(labels.shape[1])[None] >= unit["in.target_len"][:, None], -100)
    lengths = unit["in.input_len"].long()
    smooth, plain = AvsrConfig.reference(), AvsrConfig.reference(label_smoothing=0.0)
    unit.compare("out.ctc_plain", ctc_objective(log_probs, lengths, labels, plain), **CLOSE)
    unit.compare("out.ctc_smooth", ctc_objective(log_probs, lengths, labels, smooth), **CLOSE)
    unit.compare("out.ce_smooth", attention_objective(unit["in.decoder_logits"], labels, smooth), **CLOSE)


@torch.no_grad()
def test_pictures_and_stem_agree(avsr, stored_recogniser):
    unit = avsr("vision_unit")
    pixels = MouthRoiImageProcessor()(unit["in.frames_u8"][:, 0].numpy())["pixel_values_videos"]
    unit.compare("out.center_crop_norm", torch.as_tensor(np.asarray(pixels))[0], **CLOSE)
    front_end = stored_recogniser("AV").model.encoder.visual_front_end
    seen = []
    front_end.stem_pool.register_forward_hook(lambda _, args, out: seen.append(out))
    clip = unit["in.clip_for_frontend3D(AV weights)"].transpose(1, 2)  # (batch, frames, 1, rows, columns)
    front_end(clip, torch.ones(clip.shape[:2], dtype=torch.bool))
    unit.compare("out.frontend3D", seen[0].transpose(0, 1)[None], **CLOSE)


def test_moco_fits_the_visual_front_end(avsr, avsr_folder, stored_config):
    """The published word classifier was made from this file: its residual stages are the same."""
    path = avsr_folder / "moco_checkpoint_state_dict.safetensors"
    model = AvsrForConditionalGeneration(stored_config("VO"))
    initialise_modules(model, [{"checkpoint": str(path), "format": "moco"}])
    resnet, weights = model.model.encoder.visual_front_end.resnet, avsr("moco_checkpoint_state_dict").tensors
    query = "module.encoder_q.layer2.0"
    block = resnet.stages[1].layers[0]
    assert torch.equal(block.layer[2].convolution.weight, weights[f"{query}.conv3.weight"])
    assert torch.equal(block.layer[0].normalization.running_var, weights[f"{query}.bn1.running_var"])
    assert torch.equal(block.shortcut.convolution.weight, weights[f"{query}.downsample.0.weight"])
    assert torch.equal(block.shortcut.normalization.bias, weights[f"{query}.downsample.1.bias"])


def test_a_fairseq_file_fits_the_audio_front_end(avsr, stored_config, stored_recogniser, tmp_path):
    weights = avsr("AO_state_dict").tensors
    inner = {n.removeprefix("wav2vecModel."): v for n, v in weights.items() if n.startswith("wav2vecModel.")}
    torch.save({"cfg": None, "model": {**inner, "final_proj.weight": torch.ones(2, 2)}}, tmp_path / "wav2vec.pt")
    model = AvsrForConditionalGeneration(stored_config("AO"))
    initialise_modules(model, [{"checkpoint": str(tmp_path / "wav2vec.pt"), "format": "speech-encoder"}])
    ours = model.model.encoder.audio_front_end.state_dict()
    theirs = stored_recogniser("AO").model.encoder.audio_front_end.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert json.loads(avsr("AO_state_dict").facts["wav2vec_cfg"])["encoder_layers"] > 0

"""The recogniser against the published code: every intermediate, every score, the losses and their gradients."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import pytest
import torch

from lookhear.modeling.avsr import AvsrConfig
from lookhear.modeling.avsr.convert_avsr import convert_state_dict

pytestmark = pytest.mark.parity
CASES = [
    "AO_case1_req12",
    "AO_case2_req80_b1",
    "VO_case1_req12",
    "VO_case2_112px_req4",
    "AV_case1_req12",
    "AV_case2_req80_b1",
]
CLOSE = {"atol": 5e-5, "rtol": 1e-5}


@pytest.fixture(params=CASES)
def stored(request, avsr):
    return avsr(request.param)


@pytest.fixture
def model(stored, stored_recogniser):
    return stored_recogniser(stored.facts["modal"], min_frames=int(stored.facts["reqInpLen"]))


@pytest.fixture
def seen(model):
    """What goes into and comes out of the parts: name -> one entry for each call."""
    calls: dict[str, list] = defaultdict(list)
    encoder = model.model.encoder
    parts = {"norm": encoder.norm, "decoder_norm": model.model.decoder.norm}
    if model.config.modality != "visual":
        parts |= {"wav2vec": encoder.audio_front_end, "audioConv": encoder.audio_encoder.conv}
    if model.config.modality != "audio":
        parts |= {"visual": encoder.visual_front_end, "videoConv": encoder.visual_encoder.conv}
    if model.config.modality == "audiovisual":
        parts |= {"audio_norm": encoder.audio_norm, "visual_norm": encoder.visual_norm}
        parts |= {"ModalityNormalization": encoder.fusion.audio_norm, "jointConv": encoder.fusion.conv}
    for name, part in parts.items():
        part.register_forward_hook(lambda _, args, out, name=name: calls[name].append((args, out)))
    return calls


def inputs_of(stored) -> dict[str, torch.Tensor]:
    """Sound, lips and texts of a stored case."""
    targets = stored["in.target_out"]
    inputs = {"labels": targets.masked_fill(~first(stored["in.target_len"], targets.shape[1]), -100)}
    if "in.audio" in stored:
        inputs |= {"input_values": stored["in.audio"], "attention_mask": (~stored["in.audio_padding_mask"]).long()}
    if "in.video" in stored:
        video = stored["in.video"]
        mask = first(stored["in.video_len"], video.shape[1]).long()
        inputs |= {"pixel_values_videos": video, "video_attention_mask": mask}
    return inputs


def first(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """`(batch,)` -> `(batch, size)`, true for the first so many."""
    return torch.arange(size)[None] < lengths[:, None]


def check_front_ends(stored, seen, close) -> None:
    if "wav2vec" in seen:
        features, lengths = seen["wav2vec"][0][1]
        valid = ~stored["mid.wav2vec_padding_mask"]
        assert lengths.tolist() == valid.sum(dim=1).tolist()
        torch.testing.assert_close(features[valid], stored["mid.wav2vec_features"][valid], **CLOSE)
        close("mid.padded_audio_features", seen["audioConv"][0][0][0])
    if "visual" in seen:
        (_, mask), features = seen["visual"][0]
        close("mid.visualModel", features[mask])
        close("mid.padded_video_features", seen["videoConv"][0][0][0])


def check_encoders(stored, seen, close) -> None:
    for name in ("audioConv", "videoConv", "jointConv"):
        if name in seen:
            close(f"mid.{name}", seen[name][0][1].transpose(1, 2))
    normed = {  # one norm's weights after all of them
        "AO": {"audioEncoder": "norm"},
        "VO": {"videoEncoder": "norm"},
        "AV": {"audioEncoder": "audio_norm", "videoEncoder": "visual_norm", "jointEncoder": "norm"},
    }
    names = normed[stored.facts["modal"]] | {"jointAttentionDecoder": "decoder_norm"}
    for name, norm in names.items():
        close(f"mid.{name}", seen[norm][0][1].transpose(0, 1))
    if "ModalityNormalization" in seen:
        close("mid.ModalityNormalization", seen["ModalityNormalization"][0][1].transpose(0, 1))


def check_outputs(stored, outputs, close) -> None:
    frames = outputs.frame_mask
    assert torch.equal(frames, ~stored["mid.padding_mask"])
    assert frames.sum(dim=1).tolist() == stored["mid.inputLen"].tolist() == stored["out.input_len"].tolist()
    close("mid.jointOutputConv", outputs.ctc_logits.transpose(1, 2))
    close("out.ctc_log_probs", outputs.ctc_logits.log_softmax(dim=-1).transpose(0, 1))
    close("mid.jointAttentionOutputConv", outputs.logits.transpose(1, 2))
    close("out.decoder_logits", outputs.logits)
    losses = {"total": outputs.loss, "ctc_smooth": outputs.ctc_loss, "ce_smooth": outputs.attention_loss}
    for name, loss in losses.items():
        close(f"loss.{name}", loss)


def check_gradients(stored, model) -> None:
    gradients = {name.removeprefix("grad."): stored[name] for name in stored.shapes if name.startswith("grad.")}
    assert len(gradients) >= 5
    for name, gradient in convert_state_dict(gradients).items():
        torch.testing.assert_close(
            model.get_parameter(name).grad, gradient, msg=lambda m, n=name: f"{n}: {m}", **CLOSE
        )


def test_everything_agrees(stored, model, seen):
    outputs = model(**inputs_of(stored))
    close = partial(stored.compare, **CLOSE)
    check_front_ends(stored, seen, close)
    check_encoders(stored, seen, close)
    check_outputs(stored, outputs, close)
    outputs.loss.backward()
    check_gradients(stored, model)


@torch.no_grad()
def test_teacher_forced_characters_agree(stored, model):
    best = model(**inputs_of(stored)).logits.argmax(dim=-1)
    eos = torch.full_like(best[:, :1], model.config.eos_token_id)
    assert torch.cat((best, eos), dim=1).flatten().tolist() == stored["dec.teacher_forced.tokens"].tolist()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("conv_norm", "frame"),
        ("centre_padding", False),
        ("min_frames", 0),
        ("ctc_target_eos", False),
        ("smooth_padding", False),
    ],
)
@torch.no_grad()
def test_each_deviation_matters(avsr, stored_recogniser, monkeypatch, field, value):
    """Without any one of the published code's peculiarities its loss is not met."""
    stored = avsr("AV_case1_req12")
    fields = {"min_frames": int(stored.facts["reqInpLen"])}
    if field == "min_frames":
        fields[field] = value
    else:
        monkeypatch.setattr(AvsrConfig, field, value)
    loss = stored_recogniser("AV", **fields)(**inputs_of(stored)).loss
    assert abs(loss - stored["loss.total"]) > 1e-3

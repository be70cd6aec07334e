"""Saving and loading, initialisation, and a vocabulary that grows."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSpeechSeq2Seq

from lookhear.modeling.avsr import AvsrForConditionalGeneration, AvsrModel


@torch.no_grad()
def test_weights_come_back(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".bin", ".pt")] == []
    back, report = AvsrForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not back.training
    state, same = model.state_dict(), back.state_dict()
    assert state.keys() == same.keys() and all(torch.equal(state[name], same[name]) for name in state)
    before, after = model(**batch), back(**batch)
    assert torch.equal(before.ctc_logits, after.ctc_logits) and torch.equal(before.logits, after.logits)


@torch.no_grad()
def test_auto_classes_load_it(make_model, make_clips, make_batch, tmp_path):
    model, batch = make_model(), make_batch(make_clips())
    model.save_pretrained(tmp_path)
    assert type(AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path)) is AvsrForConditionalGeneration
    base, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(base) is AvsrModel and not report["missing_keys"]
    labels = batch.pop("labels")
    ids = model._shift_right(labels)
    assert torch.equal(
        base(**batch, decoder_input_ids=ids).last_hidden_state,
        model(**batch, decoder_input_ids=ids).last_hidden_state,
    )


def test_shared_norms_stay_shared(make_model, tmp_path):
    make_model("reference").save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    back = AvsrForConditionalGeneration.from_pretrained(tmp_path)
    encoder, decoder = back.model.encoder, back.model.decoder
    assert encoder.norm.weight is decoder.norm.weight is encoder.audio_norm.weight is encoder.visual_norm.weight
    assert encoder.fusion.audio_norm.bias is encoder.fusion.video_norm.bias
    final = ("encoder.norm.weight", "encoder.audio_norm.weight", "encoder.visual_norm.weight", "decoder.norm.weight")
    assert sum(name.removeprefix("model.") in final for name in names) == 1  # one tensor is stored


def test_shared_norms_that_a_checkpoint_lacks_are_made_anew(make_model, tmp_path):
    model = make_model("reference")
    weights = {name: value for name, value in model.state_dict().items() if "norm" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    for kind in (AvsrForConditionalGeneration, AvsrModel):
        back, report = kind.from_pretrained(tmp_path, output_loading_info=True)
        assert any(name.endswith("encoder.norm.weight") for name in report["missing_keys"])
        assert not any(tensor.is_meta for tensor in back.state_dict().values())
        base = getattr(back, "model", back)
        assert base.decoder.norm.weight is base.encoder.audio_norm.weight and (base.decoder.norm.weight == 1).all()


def test_spectrogram_is_computed_not_stored(make_model, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    assert not any("window" in name or "filters" in name for name in load_file(tmp_path / "model.safetensors"))
    back = AvsrForConditionalGeneration.from_pretrained(tmp_path).model.encoder.audio_front_end
    front_end = model.model.encoder.audio_front_end
    assert torch.equal(back.window, torch.hann_window(400)) and torch.equal(back.filters, front_end.filters)
    assert (back.filters.sum(dim=0) > 0).all()


@pytest.mark.parametrize("sharded", [False, True])
def test_half_precision_file_loads(make_model, make_clips, make_batch, tmp_path, sharded):
    model = make_model("grid")
    model.half().save_pretrained(tmp_path, max_shard_size="20KB" if sharded else "1GB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == sharded
    back = AvsrForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    assert back.dtype == torch.float32
    assert back(**make_batch(make_clips())).loss.isfinite()


def test_new_weights_are_sane(make_config):
    torch.manual_seed(0)
    model = AvsrForConditionalGeneration(make_config("grid", hidden_size=64, intermediate_size=128))
    assert not any(t.is_meta or not t.isfinite().all() for t in (*model.parameters(), *model.buffers()))
    assert abs(float(model.get_input_embeddings().weight.detach().std()) - 0.02) < 0.002
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)):
            bound = module.weight[0].numel() ** -0.5  # PyTorch's own: uniform within it
            weight = module.weight.detach()
            assert weight.abs().max() <= bound and abs(float(weight.std()) * 3**0.5 / bound - 1) < 0.2, name
        elif isinstance(module, (torch.nn.LayerNorm, torch.nn.BatchNorm2d)):
            assert (module.weight == 1).all() and (module.bias == 0).all(), name


def test_weights_that_a_checkpoint_lacks_are_initialised(make_model, make_config, tmp_path):
    make_model("audio").save_pretrained(tmp_path)
    torch.manual_seed(0)
    model, report = AvsrForConditionalGeneration.from_pretrained(
        tmp_path, config=make_config("spectrogram"), output_loading_info=True
    )
    assert any("fusion" in name for name in report["missing_keys"])
    assert all(t.isfinite().all() and not t.is_meta for t in (*model.parameters(), *model.buffers()))
    stem = model.model.encoder.visual_front_end.stem.weight.detach()
    bound = stem[0].numel() ** -0.5
    assert 0.8 < float(stem.std()) * 3**0.5 / bound < 1.2
    norm = model.model.encoder.visual_front_end.stem_norm
    assert (norm.running_var == 1).all() and (norm.running_mean == 0).all()


@torch.no_grad()
@pytest.mark.parametrize("variant", ["spectrogram", "grid"])
@pytest.mark.parametrize("size", [47, 40, 30])
def test_vocabulary_is_resized_in_embedding_and_both_heads(
    make_model, make_clips, make_batch, tmp_path, variant, size
):
    model, batch = make_model(variant), make_batch(make_clips())
    batch["labels"] = batch["labels"].clamp(max=29)
    start = model.config.decoder_start_token_id = 29
    before = model(**batch)
    model.resize_token_embeddings(size, mean_resizing=False)
    after = model(**batch)
    assert model.config.vocab_size == size and model.get_input_embeddings().num_embeddings == size
    kept = min(size, 40)
    assert after.logits.shape[-1] == after.ctc_logits.shape[-1] == size
    torch.testing.assert_close(after.logits[..., :kept], before.logits[..., :kept])
    torch.testing.assert_close(after.ctc_logits[..., :kept], before.ctc_logits[..., :kept])
    if size > 40:
        mean = before.ctc_logits.mean(dim=-1, keepdim=True).expand(-1, -1, size - 40)
        torch.testing.assert_close(after.ctc_logits[..., 40:], mean, rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path)
    back = AvsrForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(back(**batch).ctc_logits, after.ctc_logits)
    assert back.config.decoder_start_token_id == start


def test_new_characters_can_be_learnt(make_model, make_clips, make_batch):
    model, batch = make_model("grid"), make_batch(make_clips())
    model.resize_token_embeddings(45)
    batch["labels"][batch["labels"] == batch["labels"][0, 0]] = 44
    model.train()(**batch).loss.backward()
    assert model.ctc_head.output.weight.grad.unflatten(0, (2, 45))[:, 44].abs().sum() > 0
    assert model.decoder_head.output.weight.grad[44].abs().sum() > 0
    assert model.generate(**{k: v for k, v in batch.items() if k != "labels"}, num_beams=3).max() < 45

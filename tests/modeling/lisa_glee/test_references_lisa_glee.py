"""Checkpoints that name their frozen weights by id: small files, the same model, and errors that name the field."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, LlamaConfig

from lookhear.modeling.lisa_glee import LisaGleeForReasoningSegmentation


@pytest.fixture
def published(model, tmp_path):
    """The model's language model and GLEE as others published them: (model, folder, folder)."""
    language, eyes = tmp_path / "language", tmp_path / "eyes"
    model.language_model.save_pretrained(language)
    model.perception.save_pretrained(eyes)
    return model, language, eyes


def test_frozen_parts_are_named_instead_of_stored(published, batch, tmp_path):
    model, language, eyes = published
    model.config.update({"language_model_id": str(language), "perception_id": str(eyes)})
    model.language_model.requires_grad_(False)
    model.save_pretrained(tmp_path / "small")
    stored = load_file(tmp_path / "small" / "model.safetensors")
    assert stored and {name.split(".")[0] for name in stored} == {"object_encoder", "segment_head"}
    for loaded in (
        LisaGleeForReasoningSegmentation.from_pretrained(tmp_path / "small"),
        AutoModel.from_pretrained(tmp_path / "small"),
    ):
        assert not loaded.training and loaded.config.name_or_path == str(tmp_path / "small")
        for name, weight in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weight), name
        assert torch.equal(loaded(**batch).loss, model(**batch).loss)
        learning = {name.split(".")[0] for name, weight in loaded.named_parameters() if weight.requires_grad}
        assert learning == {"object_encoder", "segment_head"}
    loaded.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == stored.keys()


def test_what_learns_is_stored_and_comes_before_what_is_named(published, batch, tmp_path):
    """As LISA trains: embeddings and output layer learn, the rest of the language model is frozen."""
    model, language, _ = published
    model.config.update({"language_model_id": str(language)})
    model.language_model.requires_grad_(False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.requires_grad_(True)
        with torch.no_grad():
            layer.weight.add_(1)
    model.save_pretrained(tmp_path / "small")
    stored = load_file(tmp_path / "small" / "model.safetensors")
    assert len([name for name in stored if name.startswith("language_model.")]) == 2
    loaded, report = LisaGleeForReasoningSegmentation.from_pretrained(tmp_path / "small", output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(loaded(**batch).loss, model(**batch).loss)
    assert loaded.get_input_embeddings().weight.requires_grad


def test_a_tied_output_layer_follows_the_stored_embeddings(build, tmp_path):
    text = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    model = build(LlamaConfig(**text, num_attention_heads=4, tie_word_embeddings=True))
    model.language_model.save_pretrained(tmp_path / "language")
    model.config.language_model_id = str(tmp_path / "language")
    model.language_model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    model.save_pretrained(tmp_path / "small")
    loaded = LisaGleeForReasoningSegmentation.from_pretrained(tmp_path / "small")
    assert torch.equal(loaded.get_output_embeddings().weight, model.get_input_embeddings().weight)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


def test_a_detector_is_named_for_its_model(build, tiny_glee, tmp_path):
    """What is published of GLEE is a whole detector; LISA-GLEE has the model inside it."""
    model = build()
    model.perception.load_state_dict(tiny_glee[0].model.state_dict())
    copy.deepcopy(tiny_glee[0]).save_pretrained(tmp_path / "glee")  # saving names its code in the configuration
    model.config.perception_id = str(tmp_path / "glee")
    model.save_pretrained(tmp_path / "small")
    loaded = LisaGleeForReasoningSegmentation.from_pretrained(tmp_path / "small")
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_a_language_model_that_learns_as_a_whole_is_stored(published, tmp_path):
    model, language, _ = published
    model.config.language_model_id = str(language)
    model.save_pretrained(tmp_path / "whole")
    stored = load_file(tmp_path / "whole" / "model.safetensors")
    names = {name for name in model.state_dict() if name.startswith("language_model.")}
    assert names <= stored.keys()
    model.config.language_model_id = str(tmp_path / "nowhere")  # nothing of it is needed
    model.save_pretrained(tmp_path / "whole")
    assert torch.equal(
        LisaGleeForReasoningSegmentation.from_pretrained(tmp_path / "whole").get_input_embeddings().weight,
        model.get_input_embeddings().weight,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, "auto"])
def test_a_precision_and_a_device_map_reach_all_parts(published, tmp_path, dtype):
    model, language, eyes = published
    model.config.update({"language_model_id": str(language), "perception_id": str(eyes)})
    model.language_model.requires_grad_(False)
    model.save_pretrained(tmp_path / "small")
    loaded = LisaGleeForReasoningSegmentation.from_pretrained(tmp_path / "small", dtype=dtype, device_map={"": "cpu"})
    expected = torch.float32 if dtype == "auto" else dtype
    assert {weight.dtype for weight in loaded.parameters()} == {expected}
    assert {weight.device.type for weight in loaded.parameters()} == {"cpu"}


def test_what_is_not_there_or_another_model_is_named(published, build, tmp_path):
    model, language, eyes = published
    model.config.update({"language_model_id": str(language), "perception_id": str(eyes)})
    model.language_model.requires_grad_(False)
    model.save_pretrained(tmp_path / "small")

    def message(**fields) -> str:
        config = copy.deepcopy(model.config)
        config.update(fields)
        with pytest.raises(ValueError) as caught:
            LisaGleeForReasoningSegmentation.from_pretrained(tmp_path / "small", config=config)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert message(language_model_id=str(tmp_path / "nowhere")).startswith("language_model_id: ")
    assert message(perception_id=str(tmp_path / "nowhere")).startswith("perception_id: ")
    assert message(language_model_id=str(eyes)).startswith("language_model_id: ")
    assert message(perception_id=str(language)).startswith("perception_id: ")

    weights = load_file(language / "model.safetensors")
    name = next(name for name in weights if name.endswith("embed_tokens.weight"))
    save_file({key: w for key, w in weights.items() if key != name}, language / "model.safetensors", {"format": "pt"})
    assert message().startswith("language_model_id: ") and "is incomplete" in message()

    other = build(LlamaConfig(vocab_size=48, hidden_size=32, intermediate_size=64, num_hidden_layers=2))
    other.language_model.save_pretrained(tmp_path / "other")
    assert message(language_model_id=str(tmp_path / "other")).startswith("language_model_id: ")


@pytest.mark.parametrize("wrong", [{"language_model_id": " "}, {"perception_revision": "main"}])
def test_configuration_refuses_what_names_nothing(build, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build(**wrong)

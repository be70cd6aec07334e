"""How LISA-GLEE runs: recomputed activations, devices and disk, compiled."""

from __future__ import annotations

import pytest
import torch

from lookhear.modeling.lisa_glee import LisaGleeForReasoningSegmentation


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_of_the_language_model_are_recomputed(model, batch, checkpointing):
    """Each of its layers runs twice, GLEE's once, as GLEE needs no gradients."""
    if checkpointing:
        model.activation_checkpointing_enable()
    calls = {"language": 0, "glee": 0}

    def count(part):
        def hook(*_):
            calls[part] += 1

        return hook

    layers = {name: module for name, module in model.named_modules() if type(module).__name__ == "LlamaDecoderLayer"}
    for layer in layers.values():
        layer.self_attn.register_forward_hook(count("language"))
    seeing = [module for module in model.perception.modules() if type(module).__name__ == "GleeSelfAttention"]
    for layer in seeing:
        layer.register_forward_hook(count("glee"))
    model.train()(**batch).loss.backward()
    assert calls == {"language": len(layers) * (2 if checkpointing else 1), "glee": len(seeing)}


@pytest.mark.parametrize("kind", ["llava"], indirect=True)
def test_what_is_frozen_has_no_gradients_and_the_others_stay(model, batch, build):
    """GLEE-Plus' backbone, whose patches come as a tuple, and LLaVA's eyes, with activations recomputed or not."""
    swin = {"model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
    swin |= {"window_size": 4, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
    model = build(model.config.language_config, backbone=swin).train()
    eyes = model.language_model.model.vision_tower.requires_grad_(False)
    seen, found = [], []
    eyes.register_forward_hook(lambda module, given, output: seen.append(output.last_hidden_state.requires_grad))
    for change in (lambda: None, model.activation_checkpointing_enable, model.activation_checkpointing_disable):
        change()
        model.zero_grad()
        model(**batch).loss.backward()
        found.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert seen == [False] * 3 and found[0].keys() == found[1].keys() == found[2].keys()
    assert not any(name.startswith("perception.") for name in found[0])
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, msg=name)
        torch.testing.assert_close(found[2][name], expected, msg=name)


@pytest.mark.parametrize("placed", ["cpu", "cpu and disk"])
def test_parts_may_be_on_several_devices(model, batch, tmp_path, placed):
    model.save_pretrained(tmp_path / "model")
    expected = model(**batch)
    device_map = {"": "cpu"}
    if placed == "cpu and disk":
        device_map = {"perception": "cpu", "language_model": "disk", "object_encoder": "cpu", "segment_head": "cpu"}
    loaded = LisaGleeForReasoningSegmentation.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    with torch.no_grad():
        found = loaded(**batch)
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.mask_logits, expected.mask_logits)
    if placed == "cpu and disk":
        assert {weight.device.type for weight in loaded.language_model.parameters()} == {"meta"}


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_model_computes_the_same(model, batch):
    """GLEE sees the pictures beforehand: its own tests compile it."""
    torch._dynamo.reset()
    objects = model.get_objects(batch["perception_pixel_values"], batch["perception_pixel_mask"])
    asked = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values") if name in batch}
    expected = model(**asked, objects=objects)
    found = torch.compile(model, backend="eager")(**asked, objects=objects)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()

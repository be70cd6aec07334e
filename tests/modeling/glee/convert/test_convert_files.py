"""Checkpoint files: every layout is read, nothing in one is run, and what is wrong with one is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lookhear import GleeConfig
from lookhear.modeling.glee.convert_glee import load_published_checkpoint, read_checkpoint


@pytest.mark.parametrize("layout", ["detectron2", "flat", "safetensors"])
@torch.no_grad()
def test_every_layout_gives_the_model(make_published, make_inputs, tmp_path, layout):
    model, weights = make_published(second_names=layout != "safetensors")
    path = tmp_path / {"detectron2": "a.pth", "flat": "a.bin", "safetensors": "a.safetensors"}[layout]
    if layout == "detectron2":
        prefixed = {f"glee.{name}": value for name, value in weights.items() if not name.startswith("criterion.")}
        prefixed["criterion.empty_weight"] = weights["criterion.empty_weight"]
        torch.save({"model": prefixed, "iteration": 9, "optimizer": {"state": {0: torch.ones(2)}}}, path)
    elif layout == "flat":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    back = load_published_checkpoint(path)
    assert not back.training and not any(tensor.is_meta for tensor in (*back.parameters(), *back.buffers()))
    one, other = (network(**make_inputs("labels")) for network in (model, back))
    assert torch.equal(one.logits, other.logits) and torch.equal(one.pred_masks, other.pred_masks)


def test_half_precision_becomes_float32(published, tmp_path):
    model, weights = published
    torch.save({name: value.half() for name, value in weights.items()}, tmp_path / "half.pt")
    back = load_published_checkpoint(tmp_path / "half.pt")
    assert {parameter.dtype for parameter in back.parameters()} == {torch.float32}
    assert torch.equal(back.model.decoder.norm.weight, model.model.decoder.norm.weight.half().float())


def test_a_given_configuration_is_used(published, make_config, tmp_path):
    model, weights = published
    torch.save(weights, tmp_path / "a.pth")
    config = GleeConfig.from_dict({**model.config.to_dict(), "num_queries": 7, "padding_mask": True})
    back = load_published_checkpoint(tmp_path / "a.pth", config=config)
    assert back.config.num_queries == 7 and back.config.padding_mask
    with pytest.raises(ValueError, match="does not fit the model: .* weights are missing"):
        load_published_checkpoint(tmp_path / "a.pth", config=make_config(text_teacher=True))


class Trap:
    """Pickled code that leaves a trace when it is run."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_code_in_a_file_is_not_run(tmp_path):
    path, trace = tmp_path / "trap.pth", tmp_path / "trace"
    torch.save({"model": {"glee.lang_projection": torch.ones(2)}, "trainer": Trap(trace)}, path)
    with pytest.raises(
        ValueError, match="holds objects other than tensors .* could run code. Where you trust it"
    ) as caught:
        read_checkpoint(path)
    assert not trace.exists() and "\n" not in str(caught.value)
    path.rename(tmp_path / "trap.pkl")
    with pytest.raises(ValueError, match="trap.pkl' is a pickle, which could run code"):
        read_checkpoint(tmp_path / "trap.pkl")


def test_numbers_of_numpy_beside_the_weights_are_read(tmp_path):
    others = {
        "scheduler": {"rate": np.float64(0.1)},
        "iteration": np.int64(7),
        "best": np.float32(1),
        "done": np.True_,
    }
    torch.save({"model": {"a": torch.ones(1)}, **others}, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth") == {"a": torch.ones(1)}


def test_other_things_beside_the_weights_are_explained(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}, "folder": Path("runs")}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"objects other than tensors \(pathlib.*weights_only=False\)\['model'\]"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", "damaged or of another kind"),
        ("a.pth", b"not a checkpoint at all", "damaged or of another kind"),
        ("a.safetensors", b"12345678901234567890", "damaged or of another kind"),
        ("a.ckpt", b"", "must end in one of .pth, .pt, .bin, .safetensors"),
        ("missing.pth", None, "is not a file"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}'.* {message}"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    (save_file if ending == "safetensors" else torch.save)({"a": torch.randn(100), "b": torch.randn(100)}, path)
    path.write_bytes(path.read_bytes()[:-150])
    with pytest.raises(ValueError, match="damaged or of another kind"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list, not a state dict"),
        ({"model": {"a": torch.ones(1), "b": 3}}, "has entries that are not named tensors: b"),
        ({0: torch.ones(1)}, "has entries that are not named tensors: 0"),
        ({"epoch": 3, "weights": {}}, "has entries that are not named tensors: epoch, weights"),
    ],
)
def test_only_state_dicts_are_read(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "a.pth")

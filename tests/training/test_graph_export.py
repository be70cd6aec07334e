"""`lookhear export`: graphs of `torch.export` and ONNX give the model's numbers, for any batch and any length."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

from lookhear.cli import main
from lookhear.training.graph_export import Graph, avsr_graph, check_graph_file, export_program, glee_graph, write_graph
from tests.training.avsr.test_published import tiny

AVSR, GLEE = "model_cards/avsr-grid-tiny", "model_cards/glee-tiny"


class Doubling(nn.Module):
    """The smallest model; `error` is added wherever it is not traced."""

    def __init__(self, error: float = 0.0):
        super().__init__()
        self.error = error

    def forward(self, numbers: torch.Tensor) -> tuple[torch.Tensor]:
        return (2 * numbers + (0.0 if torch.compiler.is_compiling() else self.error),)


def doubling(error: float) -> Graph:
    inputs = {"numbers": {0: Dim("count", min=1)}}
    return Graph(Doubling(error), ("doubled",), lambda which: {"numbers": torch.randn(2 + which)}, inputs, {"a": "ä"})


def refused(capsys, *arguments) -> str:
    assert main(["export", *map(str, arguments)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("lookhear export: error: ")
    return line


def test_what_cannot_be_exported_is_refused(repository, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(repository)
    assert "out.pb' must end in .onnx or .pt2" in refused(capsys, GLEE, tmp_path / "out.pb")
    line = refused(capsys, "model_cards/lisa-glee-tiny", tmp_path / "out.pt2")
    assert "is a lisa_glee; GLEE and AVSR's recognisers can be exported" in line
    assert "apply to GLEE" in refused(capsys, AVSR, tmp_path / "out.pt2", "--labels", "star")
    assert "there is no folder ./nothing" in refused(capsys, "./nothing", tmp_path / "out.pt2")
    (tmp_path / "out.pt2").touch()
    assert "exists already: name another file, or pass --overwrite" in refused(capsys, GLEE, tmp_path / "out.pt2")


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'lookhear\[export\]'"):
        check_graph_file(tmp_path / "out.onnx")
    check_graph_file(tmp_path / "out.pt2")


def test_sizes_and_labels_of_glee_are_checked(tiny_glee):
    model, processor = tiny_glee
    for size in ((100, 128), (0, 128)):
        with pytest.raises(ValueError, match=f"size must be multiples of 32, at least 32, not {size[0]}x128"):
            glee_graph(model, processor, ["cat"], size)
    with pytest.raises(ValueError, match="labels: 'cat' is there twice"):
        glee_graph(model, processor, ["cat", "Cat"], (64, 96))
    graph = glee_graph(model, processor, ["cat", "Red dog"], (64, 96))
    assert graph.facts["labels"] == ["cat", "Red dog"] and graph.facts["size"] == [64, 96]
    assert graph.draw(1)["pixel_values"].shape == (3, 3, 64, 96) and list(graph.dynamic) == ["pixel_values"]
    given = glee_graph(model, processor)
    assert list(given.draw(0)) == ["pixel_values", "class_embeddings", "class_tokens"]
    assert given.facts["size"] == list(processor(images=np.zeros((480, 640, 3), np.uint8)).pixel_values.shape[-2:])


@pytest.mark.slow
def test_a_graph_with_other_numbers_is_not_written(tmp_path):
    file = write_graph(doubling(0.0), tmp_path / "new" / "good.pt2")
    extra = {"lookhear.json": ""}
    loaded = torch.export.load(file, extra_files=extra).module()
    assert torch.equal(loaded(numbers=torch.arange(5.0))[0], 2 * torch.arange(5.0))
    assert json.loads(extra["lookhear.json"]) == {"a": "ä"}
    with pytest.raises(ValueError, match=r"torch.export differs from the model by 0\.\d+, so nothing is written"):
        write_graph(doubling(1e-3), tmp_path / "new" / "bad.pt2")
    with pytest.raises(ValueError, match="differs from the model by nan"):
        write_graph(doubling(float("nan")), tmp_path / "new" / "bad.pt2")
    assert [path.name for path in file.parent.iterdir()] == ["good.pt2"]


@pytest.mark.slow
@pytest.mark.parametrize("labels", [["cat", "red dog"], None], ids=["labels", "embeddings"])
def test_glee_by_torch_export(tiny_glee, labels):
    """Another batch than it was traced with, and other labels where they are inputs."""
    model, processor = tiny_glee
    graph = glee_graph(model, processor, labels, (64, 96))
    run = export_program(graph).module()
    inputs = {"pixel_values": torch.randn(5, 3, 64, 96)}
    if labels is None:
        tokens = processor.tokenizer(["a very long name", "b", "c", "d"], padding=True, return_tensors="pt")
        with torch.no_grad():
            inputs |= model.get_label_embeddings(tokens.input_ids, tokens.attention_mask)
    with torch.no_grad():
        wanted = graph.network(**inputs)
        found = run(**inputs)
    assert wanted[0].shape == (5, 12, 4 if labels is None else 2)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * max(1, float(other.abs().max())))


@pytest.mark.slow
def test_glee_by_onnx_on_the_command_line(repository, tmp_path, capsys, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs lookhear[export]")
    monkeypatch.chdir(repository)
    file = tmp_path / "glee.onnx"
    assert main(["export", GLEE, str(file), "--labels", "star,moon", "--size", "96x128"]) == 0
    assert capsys.readouterr().out == f"{file}\n" and [path.name for path in tmp_path.iterdir()] == ["glee.onnx"]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["lookhear"])
    assert facts["labels"] == ["star", "moon"] and facts["size"] == [96, 128]
    assert [one.name for one in session.get_inputs()] == ["pixel_values"]
    logits, confidence, boxes, masks = session.run(None, {"pixel_values": np.zeros((4, 3, 96, 128), np.float32)})
    assert logits.shape == (4, 40, 2) and masks.shape == (4, 40, 24, 32) and boxes.shape == (4, 40, 4)


@pytest.mark.slow
def test_avsr_by_onnx_and_torch_export(repository, tmp_path, capsys, monkeypatch):
    """Other batches and lengths than it was traced with; sound and lips of a clip may be missing."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs lookhear[export]")
    monkeypatch.chdir(repository)
    file = tmp_path / "avsr.onnx"
    assert main(["export", AVSR, str(file)]) == 0
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["lookhear"])
    model = AutoModelForSpeechSeq2Seq.from_pretrained(AVSR).eval()
    assert len(facts["tokens"]) == model.config.vocab_size and facts["steps_per_frame"] == 2
    graph = avsr_graph(model, AutoProcessor.from_pretrained(AVSR))
    for clips, frames in ((1, 2), (4, 55)):
        present = torch.ones(clips, frames, dtype=torch.long)
        present[-1, frames // 2 :] = 0
        inputs = {"input_values": torch.randn(clips, 640 * frames)}
        inputs["attention_mask"] = present.repeat_interleave(640, 1)
        inputs |= {"pixel_values_videos": torch.randn(clips, frames, 1, 48, 48), "video_attention_mask": present}
        if clips > 2:
            inputs["attention_mask"][1] = 0
            inputs["video_attention_mask"] = present.clone()
            inputs["video_attention_mask"][2] = 0
        with torch.no_grad():
            wanted = graph.network(**inputs)
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        assert found[0].shape == (clips, 2 * frames, model.config.vocab_size)
        for one, other in zip(found, wanted, strict=True):
            other = other.float().numpy()
            np.testing.assert_allclose(one.astype(np.float32), other, rtol=0, atol=1e-4 * max(1, abs(other).max()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["usr2", "auto_avsr", "vsr-ml"])
def test_recognisers_of_other_authors_by_torch_export(kind):
    """Conformers with relative positions; one modality or both, and a head for each."""
    tokenizer = SimpleNamespace(convert_ids_to_tokens=lambda numbers: [str(number) for number in numbers])
    graph = avsr_graph(tiny(kind).eval(), SimpleNamespace(image_processor=None, tokenizer=tokenizer))
    run, inputs = export_program(graph).module(), graph.draw(3)
    with torch.no_grad():
        for one, other in zip(run(**inputs), graph.network(**inputs), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)

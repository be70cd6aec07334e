"""Models as graphs that run without their code: of `torch.export` (.pt2) and of ONNX (.onnx)."""

import importlib.util
import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.export import Dim, ExportedProgram

from lookhear.modeling.avsr import AvsrForConditionalGeneration
from lookhear.modeling.glee import GleeForObjectDetection
from lookhear.processing.avsr import AvsrProcessor
from lookhear.processing.glee import GleeProcessor, GleePromptProcessor
from lookhear.processing.glee.perception_request_glee import class_names

ENDINGS = (".onnx", ".pt2")
TOLERANCE = 1e-4  # of a graph's numbers, beside the largest of each output where that is more than 1
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ONNX_LIMIT = 2**31  # bytes of one file
FRAME_SAMPLES = 640  # of 16 kHz in a frame of 25 Hz
DRAWS = 3  # of random inputs: two queries of nearly one score may change places, which is no error
PICTURE = (480, 640)  # (height, width) of the picture whose size is the default
Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Graph:
    """
    What becomes a graph.

    Attributes:
        network: returns a tuple of tensors, `outputs`.
        outputs: their names.
        draw: makes random inputs, by name: of one size for 0, of another for 1.
        dynamic: for each input, the names of its axes that may have any size.
        facts: what a program that runs the graph needs to know, written into it as JSON.
    """

    network: nn.Module
    outputs: tuple[str, ...]
    draw: Callable[[int], Inputs]
    dynamic: dict[str, dict[int, Any]]
    facts: dict[str, Any] = field(default_factory=dict)


class GleeNetwork(nn.Module):
    """GLEE for pictures of one size; the labels' embeddings are its own, or come with each call."""

    def __init__(self, model: GleeForObjectDetection, embeddings: dict[str, torch.Tensor] | None = None):
        super().__init__()
        self.model = model
        self.knows_labels = embeddings is not None
        for name, value in (embeddings or {}).items():
            self.register_buffer(name, value)

    def forward(
        self,
        pixel_values: torch.Tensor,
        class_embeddings: torch.Tensor | None = None,
        class_tokens: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Returns logits, confidence, boxes and masks; see [`GleeObjectDetectionOutput`]."""
        given = {"class_embeddings": class_embeddings, "class_tokens": class_tokens}
        if self.knows_labels:
            given = {name: self.get_buffer(name) for name in given}
        found = self.model(pixel_values=pixel_values, **given, return_dict=True)
        return found["logits"], found["confidence"], found["pred_boxes"], found["pred_masks"]


class AvsrNetwork(nn.Module):
    """AVSR's encoder and CTC head."""

    def __init__(self, model: AvsrForConditionalGeneration):
        super().__init__()
        self.model = model

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Returns CTC's scores, the encoder's vectors, and which frames are valid."""
        inputs = (input_values, attention_mask, pixel_values_videos, video_attention_mask)
        encoded = self.model.get_encoder()(*inputs, return_dict=True)
        states, mask = encoded["last_hidden_state"], encoded["frame_mask"]
        which = {"modalities": encoded.modalities} if self.model.config.modality_heads else {}
        return self.model.ctc_head(states, mask, **which), states, mask


def glee_graph(
    model: GleeForObjectDetection,
    processor: GleeProcessor,
    labels: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
) -> Graph:
    """
    Prepares GLEE with labels.

    Args:
        model: in float32.
        processor: its processor.
        labels: that the graph looks for; None: the classes that the model was fine-tuned on. With neither, the graph
            takes embeddings of labels with each call, as `model.get_label_embeddings` computes them.
        size: (height, width) of `pixel_values`, multiples of 32; None: what the processor makes of a picture of
            480 x 640.

    Raises:
        ValueError: the labels or the size cannot be used.
    """
    prepare, labels = processor.image_processor, labels or class_names(model.config)
    if size is None:
        picture = Image.fromarray(np.zeros((*PICTURE, 3), np.uint8))
        height, width = prepare(images=picture, return_tensors="pt")["pixel_values"].shape[-2:]
        size = height, width
    if any(side < 32 or side % 32 for side in size):
        raise ValueError(f"size must be multiples of 32, at least 32, not {size[0]}x{size[1]}")
    texts = GleePromptProcessor(processor.tokenizer).encode_labels(labels or ["one", "another thing", "the third"])
    with torch.no_grad():
        encoded = model.get_label_embeddings(*(torch.from_numpy(array) for array in texts.values()))
    embeddings = {name: encoded[name] for name in ("class_embeddings", "class_tokens")}

    def draw(which: int) -> Inputs:
        inputs = {"pixel_values": torch.randn(2 + which, 3, *size)}
        if labels is None:  # another number of labels and tokens
            inputs |= {name: value[: len(value) - which] for name, value in embeddings.items()}
        return inputs

    dynamic: dict[str, dict[int, Any]] = {"pixel_values": {0: Dim("batch", min=1)}}
    if labels is None:
        dynamic |= {name: {0: Dim(name, min=1)} for name in embeddings}
    facts = {name: getattr(prepare, name) for name in ("image_mean", "image_std", "rescale_factor")}
    facts |= {"size": list(size), "labels": None if labels is None else list(labels)}
    network = GleeNetwork(model, None if labels is None else embeddings)
    return Graph(network, ("logits", "confidence", "pred_boxes", "pred_masks"), draw, dynamic, facts)


def avsr_graph(model: AvsrForConditionalGeneration, processor: AvsrProcessor) -> Graph:
    """
    Prepares AVSR's encoder and CTC head, for clips of any length.

    A graph takes whole frames: 640 samples for each, as sound and lips are padded to.

    Args:
        model: in float32.
        processor: its processor.
    """
    config, images = model.config, processor.image_processor
    batch, frames = Dim("batch", min=1), Dim("frames", min=2, max=4096)
    crop = config.visual.crop_size
    axes: dict[str, Any] = {}
    if config.modality != "visual":
        axes |= dict.fromkeys(("input_values", "attention_mask"), {0: batch, 1: FRAME_SAMPLES * frames})
    if config.modality != "audio":
        axes |= dict.fromkeys(("pixel_values_videos", "video_attention_mask"), {0: batch, 1: frames})

    def draw(which: int) -> Inputs:
        clips, length = 2 + which, 20 + 11 * which
        present = torch.arange(length)[None] < torch.arange(length, length - 3 * clips, -3)[:, None]  # (clips, frames)
        drawn = {
            "input_values": torch.randn(clips, FRAME_SAMPLES * length),
            "attention_mask": present.repeat_interleave(FRAME_SAMPLES, dim=1).long(),
            "pixel_values_videos": torch.randn(clips, length, 1, crop, crop),
            "video_attention_mask": present.long(),
        }
        return {name: drawn[name] for name in axes}

    tokens = processor.tokenizer.convert_ids_to_tokens(list(range(config.vocab_size)))
    facts = {"tokens": tokens, "blank": config.pad_token_id, "end": config.eos_token_id}
    facts["steps_per_frame"] = config.ctc_upsampling
    facts |= {"sampling_rate": config.audio.sampling_rate, "frame_rate": 25, "crop_size": crop}
    facts |= {name: getattr(images, name, None) for name in ("image_mean", "image_std", "rescale_factor")}
    return Graph(AvsrNetwork(model), ("ctc_logits", "last_hidden_state", "frame_mask"), draw, axes, facts)


def export_program(graph: Graph) -> ExportedProgram:
    """
    Traces a graph by `torch.export`, and checks its numbers with inputs of two sizes.

    Raises:
        ValueError: the model cannot be traced, or the graph gives other numbers than the model.
    """
    network = graph.network.eval()
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            program = torch.export.export(network, (), graph.draw(0), dynamic_shapes=graph.dynamic, strict=False)
    except Exception as error:  # what cannot be traced raises errors of many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"model: torch.export cannot trace this configuration: {reason}") from None
    module = program.module()
    _check(graph, "the graph of torch.export", lambda inputs: module(**inputs))
    return program


def write_graph(graph: Graph, file: str | os.PathLike) -> Path:
    """
    Writes a graph; the file appears once it is complete and checked, or not at all.

    Args:
        graph: of [`glee_graph`] or [`avsr_graph`].
        file: that ends in .onnx, or in .pt2 for `torch.export.load`. `facts` are the JSON of its metadata "lookhear":
            in a .pt2 the extra file `lookhear.json`.

    Returns:
        The file.

    Raises:
        ValueError: the ending is another, a package is missing, the model is too large for one file, or its graph
            gives other numbers than the model.
    """
    file = Path(file)
    check_graph_file(file)
    weights = sum(value.numel() * value.element_size() for value in graph.network.state_dict().values())
    if file.suffix == ".onnx" and weights >= ONNX_LIMIT:
        raise ValueError(f"model: its {weights / 2**30:.1f} GiB are more than an ONNX file's 2; write a .pt2 instead")
    program = export_program(graph)
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = json.dumps(graph.facts, ensure_ascii=False)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}-") as folder:
        partial = Path(folder) / file.name
        if file.suffix == ".pt2":
            torch.export.save(program, partial, extra_files={"lookhear.json": facts})
        else:
            _write_onnx(graph, program, partial, facts)
        os.replace(partial, file)
    return file


def check_graph_file(file: Path) -> None:
    """Raises ValueError unless a file's ending is one of `ENDINGS` and the packages that write it are there."""
    if file.suffix not in ENDINGS:
        raise ValueError(f"output {str(file)!r} must end in .onnx or .pt2")
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if file.suffix == ".onnx" and missing:
        raise ValueError(f"output {str(file)!r} needs {', '.join(missing)}: pip install 'lookhear[export]'")


def _write_onnx(graph: Graph, program: ExportedProgram, file: Path, facts: str) -> None:
    import onnx
    import onnxruntime

    names = list(graph.draw(0))
    torch.onnx.export(
        program,
        f=file,
        dynamo=True,
        optimize=False,  # onnxscript's folding changes what GLEE computes
        external_data=False,
        input_names=names,
        output_names=list(graph.outputs),
        verbose=False,
    )
    model = onnx.load(file)
    model.metadata_props.add(key="lookhear", value=facts)
    onnx.save(model, file)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3  # errors only: it warns of constants that it does not fold
    session = onnxruntime.InferenceSession(file, quiet, providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> list[torch.Tensor]:
        return [torch.as_tensor(one) for one in session.run(None, {n: v.numpy() for n, v in inputs.items()})]

    _check(graph, "onnxruntime", run)


@torch.no_grad()
def _check(graph: Graph, where: str, run: Callable[[Inputs], Sequence[torch.Tensor]]) -> None:
    """Raises ValueError unless a graph computes what the network does."""
    for which in (0, 1):
        difference = min(_difference(graph, run, which) for _ in range(DRAWS))
        if not difference <= TOLERANCE:  # NaN, too
            raise ValueError(f"model: {where} differs from the model by {difference:.2g}, so nothing is written")


def _difference(graph: Graph, run: Callable[[Inputs], Sequence[torch.Tensor]], which: int) -> float:
    """Computes the largest difference for random inputs, as a share of each output's largest value if above 1."""
    inputs = graph.draw(which)
    differences = []
    for found, wanted in zip(run(inputs), graph.network(**inputs), strict=True):
        if found.shape != wanted.shape:
            return math.inf
        scale = wanted.double().abs().max().clamp(min=1)
        differences.append((found.double() - wanted.double()).abs().max() / scale)
    return float(torch.stack(differences).max())  # NaN, if any is

"""`lookhear export`: loads a model and writes its graph."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path

KINDS = ("avsr", "glee")


def export(model: str, output: Path, labels: list[str] | None = None, size: tuple[int, int] | None = None) -> Path:
    """
    Writes a model as a graph.

    Args:
        model: checkpoint folder or Hub id of GLEE or of an AVSR recogniser.
        output: file that ends in .onnx or .pt2.
        labels: of GLEE, what the graph looks for; see [`glee_graph`].
        size: of GLEE, (height, width) of the prepared pictures.

    Returns:
        The file.

    Raises:
        ValueError: an argument cannot be used, the model is of another kind, or the graph is not equal to it.
    """
    from lookhear.training.graph_export import check_graph_file

    check_graph_file(output)
    from transformers import AutoConfig, AutoModelForSpeechSeq2Seq, AutoModelForZeroShotObjectDetection, AutoProcessor

    import lookhear  # noqa: F401 - registers the classes
    from lookhear.training.graph_export import avsr_graph, glee_graph, write_graph

    config = AutoConfig.from_pretrained(model)
    if config.model_type not in KINDS:
        raise ValueError(f"model {model} is a {config.model_type}; GLEE and AVSR's recognisers can be exported")
    if config.model_type == "avsr" and (labels is not None or size is not None):
        raise ValueError("--labels and --size apply to GLEE; an AVSR graph takes clips of any length")
    kind = AutoModelForZeroShotObjectDetection if config.model_type == "glee" else AutoModelForSpeechSeq2Seq
    network = kind.from_pretrained(model, dtype="float32").eval()
    processor = AutoProcessor.from_pretrained(model)
    print(f"tracing {model}, and comparing the graph with the model", file=sys.stderr)
    if config.model_type == "glee":
        graph = glee_graph(network, processor, labels, size)
    else:
        graph = avsr_graph(network, processor)
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # of the exporter, about its own parts
        return write_graph(graph, output)

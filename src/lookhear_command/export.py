"""`lookhear export`: a model as a graph that runs without its code, in ONNX or PyTorch's own form."""

from __future__ import annotations

import argparse
from pathlib import Path

from .argument_types import comma_list, picture_size
from .parsing import Commands, add_command
from .shared_options import checked_model


def add(commands: Commands) -> None:
    example = "lookhear export glee-lite glee-lite.onnx --labels person,dog --size 480x640\n  "
    example += "lookhear export model_cards/avsr-grid-tiny lips.onnx"
    summary = "write a model as a graph that runs without its code: ONNX, or torch.export's .pt2"
    parser = add_command(commands, "export", summary, example, run)
    what = "checkpoint folder, Hub id or name: GLEE, or an AVSR recogniser, of which encoder and CTC head are exported"
    parser.add_argument("model", metavar="MODEL", help=what)
    file = "file to write: .onnx (needs lookhear[export]) or .pt2"
    parser.add_argument("output", type=Path, metavar="FILE", help=file)
    labels = "GLEE: what the graph looks for (the classes that the model was fine-tuned on; else the graph takes "
    labels += "embeddings of labels with each call)"
    parser.add_argument("--labels", type=comma_list, action="extend", metavar="NAMES", help=labels)
    parser.add_argument("--label", dest="labels", action="append", metavar="NAME", help="one name; may be repeated")
    size = "GLEE: size of the prepared pictures, in multiples of 32 (that of a picture of 480x640)"
    parser.add_argument("--size", type=picture_size, metavar="HEIGHTxWIDTH", help=size)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")


def run(options: argparse.Namespace) -> None:
    if options.output.exists() and not options.overwrite:
        raise ValueError(f"{options.output} exists already: name another file, or pass --overwrite")
    model = checked_model(options)
    from lookhear.commands.export import export

    print(export(model, options.output, options.labels, options.size))
